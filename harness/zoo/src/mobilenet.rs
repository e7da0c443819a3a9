//! MobileNetV2 at width 1.0 as in torchvision, for one image of 224 by 224.

use espalier_onnx::tensor_proto::DataType;

use crate::{
    blueprint::Blueprint,
    graph::{Convolution, Gain, Graph, Value},
};

const CLASSES: usize = 1000;

/// How much wider a block is inside, its outputs, the number of blocks, the first one's stride.
const STAGES: [(usize, usize, usize, usize); 7] =
    [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];

const FIRST: usize = 32;
const LAST: usize = 1280;

/// A block ends without a ReLU: the input of the next one is centred.
const LINEAR: Gain = Gain::Plain(2.0);
const DEPTHWISE: Gain = Gain::Blur(1.0);
const RECTIFIED: Gain = Gain::Centred(3.0);
const BRANCH: Gain = Gain::Centred(1.0);

pub fn mobilenetv2(about: String) -> Blueprint {
    let mut net = Graph::new("mobilenetv2");
    let input = net.input("input", DataType::Float, &[1, 3, 224, 224]);
    let stem = net.convolution(&input, "features.0.0", Convolution::square(3, FIRST, 3, 2), LINEAR);
    let mut x = relu6(&mut net, &stem, "features.0.2");
    let (mut channels, mut index) = (FIRST, 1);
    for (widen, outputs, blocks, first_stride) in STAGES {
        for block in 0..blocks {
            let stride = if block == 0 { first_stride } else { 1 };
            x = inverted(&mut net, &x, &format!("features.{index}"), channels, outputs, widen, stride);
            (channels, index) = (outputs, index + 1);
        }
    }
    let scope = format!("features.{index}");
    let last = net.convolution(&x, &format!("{scope}.0"), Convolution::point(channels, LAST), LINEAR);
    let last = relu6(&mut net, &last, &format!("{scope}.2"));
    let features = net.pooled(&last, "");
    let logits = net.gemm(&features, "classifier.1", LAST, CLASSES, RECTIFIED);
    net.finish(&logits, &[1, CLASSES], about)
}

/// A wide, a depthwise and a narrow convolution, and a shortcut around them where shapes allow.
fn inverted(
    net: &mut Graph,
    x: &str,
    scope: &str,
    inputs: usize,
    outputs: usize,
    widen: usize,
    stride: usize,
) -> Value {
    let wide = inputs * widen;
    let within = |layer: &str| format!("{scope}.conv.{layer}");
    let (mut y, mut next) = (x.to_owned(), 0);
    if widen > 1 {
        y = net.convolution(&y, &within("0.0"), Convolution::point(inputs, wide), LINEAR);
        y = relu6(net, &y, &within("0.2"));
        next = 1;
    }
    y = net.convolution(&y, &within(&format!("{next}.0")), Convolution::depthwise(wide, stride), DEPTHWISE);
    y = relu6(net, &y, &within(&format!("{next}.2")));
    let has_shortcut = inputs == outputs && stride == 1;
    let gain = if has_shortcut { BRANCH } else { RECTIFIED };
    y = net.convolution(&y, &within(&format!("{}", next + 1)), Convolution::point(wide, outputs), gain);
    if has_shortcut { net.node(scope, "Add", &[x, &y], vec![]) } else { y }
}

fn relu6(net: &mut Graph, x: &str, scope: &str) -> Value {
    let low = net.floats(scope, &[], &[0.0]);
    let high = net.floats(scope, &[], &[6.0]);
    net.node(scope, "Clip", &[x, &low, &high], vec![])
}
