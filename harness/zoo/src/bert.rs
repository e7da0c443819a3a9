//! BERT with a classifier, as the transformers package's BertForSequenceClassification with eager attention is
//! exported: post-norm, learned positions, an additive mask.

use espalier_onnx::tensor_proto::DataType;

use crate::{
    blueprint::Blueprint,
    graph::{Gain, Graph, Value, int, ints, signed},
    weights::Values,
};

/// The sizes that distinguish the BERTs.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub vocabulary: usize,
    /// The longest sequence of tokens that there are positions for.
    pub longest: usize,
    pub tokens: usize,
    pub layers: usize,
    pub width: usize,
    pub heads: usize,
    /// Of the feed-forward layers.
    pub inner: usize,
    pub classes: usize,
}

/// bert-base-uncased.
pub const BASE: Size =
    Size { vocabulary: 30_522, longest: 512, tokens: 128, layers: 12, width: 768, heads: 12, inner: 3072, classes: 20 };

/// bert-large-uncased.
pub const LARGE: Size = Size { layers: 24, width: 1024, heads: 16, inner: 4096, ..BASE };

/// Attention scores have a deviation of 3, so that a token attends to a few others: with less, all tokens become the
/// mean of all, and all inputs alike.
const LISTEN: Gain = Gain::Plain(3.0);
/// The gain of what is added to the trunk, which is normalised to 1 each time.
const MIXED: Gain = Gain::Plain(1.0);
const UP: Gain = Gain::Plain(1.0);
/// The output of GELU has the same mean for every token and input.
const DOWN: Gain = Gain::Centred(1.0);

/// The value of masked scores, as in the transformers package: the lowest of all floats.
const MASKED: f32 = f32::MIN;

pub fn bert(name: &'static str, size: Size, about: String) -> Blueprint {
    let mut net = Graph::new(name);
    let ids = net.input("input_ids", DataType::Int64, &[1, size.tokens]);
    let mask = net.input("attention_mask", DataType::Int64, &[1, size.tokens]);
    let kinds = net.input("token_type_ids", DataType::Int64, &[1, size.tokens]);
    let mask = additive(&mut net, &mask);
    let mut x = embedded(&mut net, &ids, &kinds, size);
    for layer in 0..size.layers {
        x = encoder(&mut net, &x, &mask, &format!("bert.encoder.layer.{layer}"), size);
    }
    let first = net.ints("bert.pooler", &[], &[0]);
    let first = net.node("bert.pooler", "Gather", &[&x, &first], vec![int("axis", 1)]);
    let pooled = net.gemm(&first, "bert.pooler.dense", size.width, size.width, Gain::Plain(1.0));
    let pooled = net.node("bert.pooler.activation", "Tanh", &[&pooled], vec![]);
    let logits = net.gemm(&pooled, "classifier", size.width, size.classes, Gain::Centred(4.0));
    net.finish(&logits, &[1, size.classes], about)
}

/// A mask of ones and zeros as what is added to scores: 0 and the lowest of all floats.
fn additive(net: &mut Graph, mask: &str) -> Value {
    let scope = "bert";
    let axis = net.ints(scope, &[1], &[1]);
    let mask = net.node(scope, "Unsqueeze", &[mask, &axis], vec![]);
    let axis = net.ints(scope, &[1], &[2]);
    let mask = net.node(scope, "Unsqueeze", &[&mask, &axis], vec![]);
    let mask = net.node(scope, "Cast", &[&mask], vec![int("to", DataType::Float as usize)]);
    let one = net.floats(scope, &[], &[1.0]);
    let mask = net.node(scope, "Sub", &[&one, &mask], vec![]);
    let lowest = net.floats(scope, &[], &[MASKED]);
    net.node(scope, "Mul", &[&mask, &lowest], vec![])
}

fn embedded(net: &mut Graph, ids: &str, kinds: &str, size: Size) -> Value {
    let scope = "bert.embeddings";
    let mut table = |layer: &str, rows: usize, deviation: f32| {
        let values = Values::Normal { mean: 0.0, deviation };
        net.tensor(&format!("{scope}.{layer}.weight"), &[rows, size.width], values)
    };
    let words = table("word_embeddings", size.vocabulary, 1.0);
    let positions = table("position_embeddings", size.longest, 0.25);
    let types = table("token_type_embeddings", 2, 0.25);
    let within = |layer: &str| format!("{scope}.{layer}");
    let words = net.node(&within("word_embeddings"), "Gather", &[&words, ids], vec![]);
    let types = net.node(&within("token_type_embeddings"), "Gather", &[&types, kinds], vec![]);
    let x = net.node(scope, "Add", &[&words, &types], vec![]);
    let order: Vec<i64> = (0..size.tokens as i64).collect();
    let order = net.tensor("bert.embeddings.position_ids", &[1, size.tokens], Values::Ints(order));
    let positions = net.node(&within("position_embeddings"), "Gather", &[&positions, &order], vec![]);
    let x = net.node(scope, "Add", &[&x, &positions], vec![]);
    net.layer_norm(&x, &within("LayerNorm"), size.width)
}

fn encoder(net: &mut Graph, x: &str, mask: &str, scope: &str, size: Size) -> Value {
    let within = |layer: &str| format!("{scope}.{layer}");
    let own = within("attention.self");
    let query = net.linear(x, &within("attention.self.query"), size.width, size.width, LISTEN);
    let key = net.linear(x, &within("attention.self.key"), size.width, size.width, LISTEN);
    let value = net.linear(x, &within("attention.self.value"), size.width, size.width, MIXED);
    let query = split(net, &query, &own, size, &[0, 2, 1, 3]);
    let value = split(net, &value, &own, size, &[0, 2, 1, 3]);
    let key = split(net, &key, &own, size, &[0, 2, 3, 1]);
    let scores = net.node(&own, "MatMul", &[&query, &key], vec![]);
    let root = net.floats(&own, &[], &[((size.width / size.heads) as f32).sqrt()]);
    let scores = net.node(&own, "Div", &[&scores, &root], vec![]);
    let scores = net.node(&own, "Add", &[&scores, mask], vec![]);
    let shares = net.node(&own, "Softmax", &[&scores], vec![signed("axis", -1)]);
    let mixed = net.node(&own, "MatMul", &[&shares, &value], vec![]);
    let mixed = net.node(&own, "Transpose", &[&mixed], vec![ints("perm", &[0, 2, 1, 3])]);
    let shape = net.ints(&own, &[3], &[1, size.tokens as i64, size.width as i64]);
    let mixed = net.node(&own, "Reshape", &[&mixed, &shape], vec![int("allowzero", 0)]);
    let mixed = net.linear(&mixed, &within("attention.output.dense"), size.width, size.width, MIXED);
    let sum = net.node(&within("attention.output"), "Add", &[&mixed, x], vec![]);
    let x = net.layer_norm(&sum, &within("attention.output.LayerNorm"), size.width);
    let inner = net.linear(&x, &within("intermediate.dense"), size.width, size.inner, UP);
    let inner = gelu(net, &inner, &within("intermediate.intermediate_act_fn"));
    let y = net.linear(&inner, &within("output.dense"), size.inner, size.width, DOWN);
    let sum = net.node(&within("output"), "Add", &[&y, &x], vec![]);
    net.layer_norm(&sum, &within("output.LayerNorm"), size.width)
}

/// The width in heads.
fn split(net: &mut Graph, x: &str, scope: &str, size: Size, order: &[usize]) -> Value {
    let shape = [1, size.tokens, size.heads, size.width / size.heads].map(|axis| axis as i64);
    let shape = net.ints(scope, &[4], &shape);
    let x = net.node(scope, "Reshape", &[x, &shape], vec![int("allowzero", 0)]);
    net.node(scope, "Transpose", &[&x], vec![ints("perm", order)])
}

/// `x / sqrt(2)`, its error function, plus 1, times x, times a half.
fn gelu(net: &mut Graph, x: &str, scope: &str) -> Value {
    let root = net.floats(scope, &[], &[2f32.sqrt()]);
    let y = net.node(scope, "Div", &[x, &root], vec![]);
    let y = net.node(scope, "Erf", &[&y], vec![]);
    let one = net.floats(scope, &[], &[1.0]);
    let y = net.node(scope, "Add", &[&y, &one], vec![]);
    let y = net.node(scope, "Mul", &[x, &y], vec![]);
    let half = net.floats(scope, &[], &[0.5]);
    net.node(scope, "Mul", &[&y, &half], vec![])
}
