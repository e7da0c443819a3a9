//! DS-CNN, the small one of "Hello Edge: Keyword Spotting on Microcontrollers" (Zhang, Suda, Lai and Chandra, 2017),
//! which is also MLPerf Tiny's: 49 frames of 10 coefficients, four depthwise separable blocks of 64 channels, twelve
//! words.
//!
//! TensorFlow's padding of the first convolution is uneven (4 and 5 rows); 5 on both sides, as in PyTorch's versions,
//! gives the same 25 by 5 positions and multiplications.

use espalier_onnx::tensor_proto::DataType;

use crate::{
    blueprint::Blueprint,
    graph::{Convolution, Gain, Graph, Value},
};

const CHANNELS: usize = 64;
const BLOCKS: usize = 4;
const WORDS: usize = 12;

const RECTIFIED: Gain = Gain::Centred(3.0);
const DEPTHWISE: Gain = Gain::Blur(3.0);

pub fn ds_cnn(about: String) -> Blueprint {
    let mut net = Graph::new("ds-cnn");
    let input = net.input("input", DataType::Float, &[1, 1, 49, 10]);
    let stem = Convolution { kernel: [10, 4], stride: 2, pads: [5, 1], ..Convolution::point(1, CHANNELS) };
    let stem = net.convolution(&input, "stem.0", stem, Gain::Plain(1.0));
    let mut x = relu(&mut net, &stem, "stem.2");
    for block in 0..BLOCKS {
        let within = |layer: &str| format!("blocks.{block}.{layer}");
        x = net.convolution(&x, &within("depthwise.0"), Convolution::depthwise(CHANNELS, 1), DEPTHWISE);
        x = relu(&mut net, &x, &within("depthwise.2"));
        x = net.convolution(&x, &within("pointwise.0"), Convolution::point(CHANNELS, CHANNELS), RECTIFIED);
        x = relu(&mut net, &x, &within("pointwise.2"));
    }
    let features = net.pooled(&x, "pool");
    let logits = net.gemm(&features, "classifier", CHANNELS, WORDS, RECTIFIED);
    net.finish(&logits, &[1, WORDS], about)
}

fn relu(net: &mut Graph, x: &str, scope: &str) -> Value {
    net.node(scope, "Relu", &[x], vec![])
}
