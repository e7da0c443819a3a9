//! A stack of LSTM layers over frames, classified by the last step's output: torch's `nn.LSTM(batch_first=True)` and a
//! linear layer.

use espalier_onnx::tensor_proto::DataType;

use crate::{
    blueprint::Blueprint,
    graph::{Gain, Graph, Value, int, ints},
    weights::{Values, deviation},
};

#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub steps: usize,
    pub inputs: usize,
    pub hidden: usize,
    pub layers: usize,
    pub classes: usize,
}

/// Two layers of 512; as many classes as Speech Commands has words.
pub const FULL: Size = Size { steps: 100, inputs: 512, hidden: 512, layers: 2, classes: 35 };

/// Input, output, forget and cell gate.
const GATES: usize = 4;

pub fn lstm(name: &'static str, size: Size, about: String) -> Blueprint {
    let mut net = Graph::new(name);
    let input = net.input("input", DataType::Float, &[1, size.steps, size.inputs]);
    let mut x = net.node("lstm", "Transpose", &[&input], vec![ints("perm", &[1, 0, 2])]);
    for layer in 0..size.layers {
        let inputs = if layer == 0 { size.inputs } else { size.hidden };
        x = recurrent(&mut net, &x, layer, inputs, size.hidden);
    }
    let x = net.node("lstm", "Transpose", &[&x], vec![ints("perm", &[1, 0, 2])]);
    let last = net.ints("", &[], &[-1]);
    let last = net.node("", "Gather", &[&x, &last], vec![int("axis", 1)]);
    let logits = net.gemm(&last, "classifier", size.hidden, size.classes, Gain::Plain(4.0));
    net.finish(&logits, &[1, size.classes], about)
}

fn recurrent(net: &mut Graph, x: &str, layer: usize, inputs: usize, hidden: usize) -> Value {
    let rows = GATES * hidden;
    let mut weights = |what: &str, inputs: usize| {
        let values = Values::Normal { mean: 0.0, deviation: deviation(1.0, inputs) };
        net.tensor(&format!("lstm.{what}_l{layer}"), &[1, rows, inputs], values)
    };
    let w = weights("weight_ih", inputs);
    let r = weights("weight_hh", hidden);
    let bias = Values::Normal { mean: 0.0, deviation: 0.05 };
    let b = net.tensor(&format!("lstm.bias_l{layer}"), &[1, 2 * rows], bias);
    let zeros = vec![0.0; hidden];
    let h = net.floats("lstm", &[1, 1, hidden as i64], &zeros);
    let c = net.floats("lstm", &[1, 1, hidden as i64], &zeros);
    let y = net.node("lstm", "LSTM", &[x, &w, &r, &b, "", &h, &c], vec![int("hidden_size", hidden)]);
    net.second_output();
    net.second_output();
    // There is one direction.
    let axis = net.ints("lstm", &[1], &[1]);
    net.node("lstm", "Squeeze", &[&y, &axis], vec![])
}
