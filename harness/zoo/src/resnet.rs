//! ResNet50 as in torchvision (v1.5: a block's stride is in its 3x3 convolution), for one image of 224 by 224.

use espalier_onnx::tensor_proto::DataType;

use crate::{
    blueprint::Blueprint,
    graph::{Convolution, Gain, Graph, Value, int, ints},
};

const CLASSES: usize = 1000;

/// The blocks of each stage, and the channels of their 3x3 convolutions.
const STAGES: [(usize, usize); 4] = [(3, 64), (4, 128), (6, 256), (3, 512)];

/// A block's last convolution has so many times as many channels.
const EXPANSION: usize = 4;

/// A ReLU removes two thirds of the variance.
const RECTIFIED: Gain = Gain::Centred(3.0);

/// A branch is small beside the trunk it is added to, or the trunk would double at each of sixteen blocks.
const BRANCH: Gain = Gain::Centred(0.5);

pub fn resnet50(about: String) -> Blueprint {
    let mut net = Graph::new("resnet50");
    let input = net.input("input", DataType::Float, &[1, 3, 224, 224]);
    let stem = net.convolution(&input, "conv1", Convolution::square(3, 64, 7, 2), Gain::Plain(1.0));
    let stem = net.node("relu", "Relu", &[&stem], vec![]);
    let pool =
        vec![int("ceil_mode", 0), ints("kernel_shape", &[3, 3]), ints("pads", &[1; 4]), ints("strides", &[2, 2])];
    let mut x = net.node("maxpool", "MaxPool", &[&stem], pool);
    let mut channels = 64;
    for (stage, (blocks, width)) in STAGES.into_iter().enumerate() {
        for block in 0..blocks {
            let stride = if block == 0 && stage > 0 { 2 } else { 1 };
            x = bottleneck(&mut net, &x, &format!("layer{}.{block}", stage + 1), channels, width, stride);
            channels = width * EXPANSION;
        }
    }
    let features = net.pooled(&x, "avgpool");
    let logits = net.gemm(&features, "fc", channels, CLASSES, RECTIFIED);
    net.finish(&logits, &[1, CLASSES], about)
}

fn bottleneck(net: &mut Graph, x: &str, scope: &str, inputs: usize, width: usize, stride: usize) -> Value {
    let outputs = width * EXPANSION;
    let within = |layer: &str| format!("{scope}.{layer}");
    let relu = |net: &mut Graph, x: &str| net.node(&within("relu"), "Relu", &[x], vec![]);
    let y = net.convolution(x, &within("conv1"), Convolution::point(inputs, width), RECTIFIED);
    let y = relu(net, &y);
    let y = net.convolution(&y, &within("conv2"), Convolution::square(width, width, 3, stride), RECTIFIED);
    let y = relu(net, &y);
    let y = net.convolution(&y, &within("conv3"), Convolution::point(width, outputs), BRANCH);
    let shortcut = if inputs == outputs {
        x.to_owned()
    } else {
        let of = Convolution { stride, ..Convolution::point(inputs, outputs) };
        net.convolution(x, &within("downsample.0"), of, RECTIFIED)
    };
    let sum = net.node(scope, "Add", &[&y, &shortcut], vec![]);
    relu(net, &sum)
}
