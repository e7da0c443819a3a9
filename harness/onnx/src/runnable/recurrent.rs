//! LSTM, GRU and RNN as the runner reads them: forward or in both directions, time first, with the usual activations.
//! A layer that reads backwards reads its reversed input; other activations become a `Scan` over the steps.

use super::{
    build::{Build, body, float, int, ints},
    refusal::Refusal,
};
use crate::{GraphProto, NodeProto, TensorProto, TypeProto, ValueInfoProto, tensor_proto::DataType, type_proto};

/// Whether the runner computes something else than this node says.
pub(super) fn needs_rewriting(node: &NodeProto) -> bool {
    node.int("layout", 0) != 0
        || direction(node) == "reverse"
        || !has_usual_activations(node)
        || node.attr("clip").is_some()
        || node.is_set("input_forget")
}

fn direction(node: &NodeProto) -> String {
    node.text("direction").unwrap_or("forward").to_lowercase()
}

fn usual(op: &str) -> &'static [&'static str] {
    match op {
        "LSTM" => &["sigmoid", "tanh", "tanh"],
        "GRU" => &["sigmoid", "tanh"],
        _ => &["tanh"],
    }
}

fn activations(node: &NodeProto) -> Vec<String> {
    let strings = node.attr("activations").map(|attribute| attribute.strings.as_slice()).unwrap_or_default();
    strings.iter().map(|name| String::from_utf8_lossy(name).to_lowercase()).collect()
}

fn has_usual_activations(node: &NodeProto) -> bool {
    let (given, usual) = (activations(node), usual(node.op()));
    given.iter().enumerate().all(|(at, name)| name == usual[at % usual.len()])
}

/// The node as nodes that the runner computes rightly.
pub(super) fn rewrite(node: &NodeProto, build: &mut Build<'_>) -> Result<(), Refusal> {
    let refuse = |attribute: &str, why: &str| Err(Refusal::of(node, attribute, why));
    if node.attr("clip").is_some() {
        return refuse("clip", "the runner does not clip; export the model without it");
    }
    if node.is_set("input_forget") {
        return refuse("input_forget", "the runner does not couple these gates; export the model without it");
    }
    if !matches!(&*direction(node), "forward" | "reverse" | "bidirectional") {
        return refuse("direction", "ONNX knows `forward`, `reverse` and `bidirectional`");
    }
    let is_reverse = direction(node) == "reverse";
    if is_reverse && node.input_at(4).is_some() {
        return refuse("direction", "the runner cannot read sequences of different length backwards");
    }
    let batch_first = node.int("layout", 0) != 0;
    let mut plain = node.clone();
    plain.attribute.retain(|attribute| {
        !matches!(attribute.name(), "layout" | "direction" | "clip" | "input_forget") || {
            attribute.name() == "direction" && !is_reverse
        }
    });
    let swapped = |build: &mut Build<'_>, x: &str| build.node("Transpose", &[x], vec![ints("perm", &[1, 0, 2])]);
    if batch_first {
        for slot in [0, 5, 6] {
            if let Some(name) = node.input_at(slot) {
                plain.input[slot] = swapped(build, name);
            }
        }
    }
    if is_reverse {
        plain.input[0] = build.reversed(&plain.input[0].clone());
    }
    // What comes out of the plain node gets new names, where it is turned around afterwards.
    let requested: Vec<Option<String>> = (0..3).map(|slot| node.output_at(slot).map(str::to_owned)).collect();
    for (slot, output) in plain.output.iter_mut().enumerate() {
        if !output.is_empty() && (batch_first || is_reverse && slot == 0) {
            *output = build.name("plain");
        }
    }
    let out = plain.output.clone();
    if has_usual_activations(node) {
        plain.attribute.retain(|attribute| !attribute.name().starts_with("activation"));
        build.nodes.push(plain);
    } else {
        scan(&plain, build)?;
    }
    for (slot, requested) in requested.into_iter().enumerate() {
        let Some(requested) = requested.filter(|requested| *requested != out[slot]) else { continue };
        let mut value = out[slot].clone();
        if is_reverse && slot == 0 {
            value = build.reversed(&value);
        }
        if batch_first {
            let perm: &[i64] = if slot == 0 { &[2, 0, 1, 3] } else { &[1, 0, 2] };
            build.named("Transpose", &[&value], vec![ints("perm", perm)], &requested);
        } else {
            build.identity(&value, &requested);
        }
    }
    Ok(())
}

/// One direction of a layer whose activations are not the usual ones: `Scan` runs its steps.
fn scan(node: &NodeProto, build: &mut Build<'_>) -> Result<(), Refusal> {
    let refuse = |why: &str| Err(Refusal::of(node, "activations", why));
    if direction(node) == "bidirectional" {
        return refuse("the runner has other activations than the usual ones in one direction only; split the layer");
    }
    if node.input_at(4).is_some() {
        return refuse("the runner has other activations than the usual ones for sequences of one length only");
    }
    let Some(hidden) = node.optional_int("hidden_size") else {
        return refuse("the runner needs `hidden_size` for other activations than the usual ones");
    };
    let functions = functions(node)?;
    let (x, is_lstm) = (node.input_at(0).unwrap_or_default(), node.op() == "LSTM");
    // What is the same in each step is computed before: weights without their axis of directions, transposed.
    let gates = match node.op() {
        "LSTM" => 4,
        "GRU" => 3,
        _ => 1,
    };
    let turned = |build: &mut Build<'_>, name: &str| {
        let matrix = build.squeezed(name, 0);
        build.node("Transpose", &[&matrix], vec![ints("perm", &[1, 0])])
    };
    let w = turned(build, node.input_at(1).unwrap_or_default());
    let r = turned(build, node.input_at(2).unwrap_or_default());
    let bias = node.input_at(3).map(|bias| {
        let bias = build.squeezed(bias, 0);
        let half = gates * hidden;
        [0, half].map(|start| build.slice(&bias, &[start], &[start + half], &[0], &[1]))
    });
    let mut states = Vec::new();
    for slot in if is_lstm { &[5, 6][..] } else { &[5] } {
        let state = match node.input_at(*slot) {
            Some(state) => build.squeezed(state, 0),
            None => {
                let (batch, hidden, zero) = (build.lengths(x, 1, 2), build.ints(&[hidden]), build.float(0.0));
                let shape = build.node("Concat", &[&batch, &hidden], vec![int("axis", 0)]);
                build.node("Expand", &[&zero, &shape], Vec::new())
            }
        };
        states.push(state);
    }
    let peephole = node.input_at(7).map(|peephole| build.squeezed(peephole, 0));
    let projected = build.node("MatMul", &[x, &w], Vec::new());
    let projected = match &bias {
        Some([of_input, _]) => build.node("Add", &[&projected, of_input], Vec::new()),
        None => projected,
    };

    let mut inner = build.inner();
    let step = Step { node, hidden, functions: &functions, r: &r, r_bias: bias.as_ref().map(|[_, bias]| bias) };
    let graph = if is_lstm { step.lstm(&mut inner, peephole.as_deref()) } else { step.body(&mut inner) };
    let attributes = vec![body("body", graph), int("num_scan_inputs", 1)];
    let inputs: Vec<&str> = states.iter().map(String::as_str).chain([projected.as_str()]).collect();
    let mut outputs: Vec<String> = states.iter().map(|_| build.name("last")).collect();
    outputs.push(build.name("steps"));
    build.named("Scan", &inputs, attributes, &outputs[0]);
    if let Some(node) = build.nodes.last_mut() {
        node.output.clone_from(&outputs);
    }
    // Y is [time, 1, batch, hidden], the states are [1, batch, hidden].
    let steps = outputs.pop().unwrap_or_default();
    for (slot, (value, axis)) in [(steps, 1)].into_iter().chain(outputs.into_iter().map(|last| (last, 0))).enumerate() {
        if let Some(requested) = node.output_at(slot) {
            let value = build.unsqueezed(&value, axis);
            build.identity(&value, requested);
        }
    }
    Ok(())
}

/// An activation with its parameters.
struct Function {
    name: String,
    alpha: f32,
    beta: f32,
}

/// The activations of a node in one direction. Parameters are listed for those functions alone that have them.
///
/// # Errors
/// A function that ONNX does not have, or whose parameters are missing.
fn functions(node: &NodeProto) -> Result<Vec<Function>, Refusal> {
    let floats = |name: &str| node.attr(name).map(|attribute| attribute.floats.as_slice()).unwrap_or_default();
    let (mut alphas, mut betas) = (floats("activation_alpha").iter(), floats("activation_beta").iter());
    let function = |name: String| {
        let (alpha, beta) = match &*name {
            "relu" | "tanh" | "sigmoid" | "softsign" | "softplus" => (None, None),
            "leakyrelu" => (Some(0.01), None),
            "thresholdedrelu" | "elu" => (Some(1.0), None),
            "hardsigmoid" => (Some(0.2), Some(0.5)),
            "affine" | "scaledtanh" => (Some(f32::NAN), Some(f32::NAN)),
            _ => {
                let why = format!("`{name}` is none of ONNX's activations");
                return Err(Refusal::of(node, "activations", &why));
            }
        };
        let alpha = alpha.map(|usual| *alphas.next().unwrap_or(&usual));
        let beta = beta.map(|usual| *betas.next().unwrap_or(&usual));
        if alpha.or(beta).is_some_and(f32::is_nan) || beta.is_some_and(f32::is_nan) {
            let why = format!("`{name}` has no usual alpha and beta: give `activation_alpha` and `activation_beta`");
            return Err(Refusal::of(node, "activations", &why));
        }
        Ok(Function { name, alpha: alpha.unwrap_or_default(), beta: beta.unwrap_or_default() })
    };
    activations(node).into_iter().map(function).collect()
}

impl Function {
    fn of(&self, build: &mut Build<'_>, x: &str) -> String {
        let alpha = || vec![float("alpha", self.alpha)];
        match &*self.name {
            "relu" => build.node("Relu", &[x], Vec::new()),
            "tanh" => build.node("Tanh", &[x], Vec::new()),
            "sigmoid" => build.node("Sigmoid", &[x], Vec::new()),
            "softsign" => build.node("Softsign", &[x], Vec::new()),
            "softplus" => build.node("Softplus", &[x], Vec::new()),
            "leakyrelu" => build.node("LeakyRelu", &[x], alpha()),
            "thresholdedrelu" => build.node("ThresholdedRelu", &[x], alpha()),
            "elu" => build.node("Elu", &[x], alpha()),
            "hardsigmoid" => build.node("HardSigmoid", &[x], [alpha(), vec![float("beta", self.beta)]].concat()),
            "affine" => {
                let (alpha, beta) = (build.float(self.alpha), build.float(self.beta));
                let scaled = build.node("Mul", &[x, &alpha], Vec::new());
                build.node("Add", &[&scaled, &beta], Vec::new())
            }
            _ => {
                let (alpha, beta) = (build.float(self.alpha), build.float(self.beta));
                let scaled = build.node("Mul", &[x, &beta], Vec::new());
                let tanh = build.node("Tanh", &[&scaled], Vec::new());
                build.node("Mul", &[&tanh, &alpha], Vec::new())
            }
        }
    }
}

/// The body of the `Scan`: formulas as in ONNX's documentation of each operator.
struct Step<'a> {
    node: &'a NodeProto,
    hidden: i64,
    functions: &'a [Function],
    /// [hidden, gates × hidden]
    r: &'a str,
    r_bias: Option<&'a String>,
}

impl Step<'_> {
    fn gate(&self, build: &mut Build<'_>, x: &str, gate: i64) -> String {
        let hidden = self.hidden;
        build.slice(x, &[gate * hidden], &[(gate + 1) * hidden], &[-1], &[1])
    }

    /// `h · r`, with the bias.
    fn recurrent(&self, build: &mut Build<'_>, h: &str, gates: Option<(i64, i64)>) -> String {
        let part = |build: &mut Build<'_>, x: &str, axis: i64| match gates {
            Some((from, to)) => build.slice(x, &[from * self.hidden], &[to * self.hidden], &[axis], &[1]),
            None => x.to_owned(),
        };
        let r = part(build, self.r, 1);
        let product = build.node("MatMul", &[h, &r], Vec::new());
        match self.r_bias {
            Some(bias) => {
                let bias = part(build, bias, 0);
                build.node("Add", &[&product, &bias], Vec::new())
            }
            None => product,
        }
    }

    fn body(&self, build: &mut Build<'_>) -> GraphProto {
        let (h, x) = (build.name("h"), build.name("x"));
        let [f, ..] = self.functions else { unreachable!("there are activations") };
        let next = if self.node.op() == "RNN" {
            let recurrent = self.recurrent(build, &h, None);
            let sum = build.node("Add", &[&x, &recurrent], Vec::new());
            f.of(build, &sum)
        } else {
            self.gru(build, &h, &x)
        };
        let y = build.node("Identity", &[&next], Vec::new());
        graph(build, &[&h, &x], &[&next, &y])
    }

    fn gru(&self, build: &mut Build<'_>, h: &str, x: &str) -> String {
        let [f, g, ..] = self.functions else { unreachable!("a GRU has two activations") };
        let both = self.recurrent(build, h, Some((0, 2)));
        let mut gates = [0, 1].map(|gate| {
            let (of_x, of_h) = (self.gate(build, x, gate), self.gate(build, &both, gate));
            let sum = build.node("Add", &[&of_x, &of_h], Vec::new());
            f.of(build, &sum)
        });
        let [z, r] = &mut gates;
        let of_h = if self.node.is_set("linear_before_reset") {
            let recurrent = self.recurrent(build, h, Some((2, 3)));
            build.node("Mul", &[r, &recurrent], Vec::new())
        } else {
            let reset = build.node("Mul", &[r, h], Vec::new());
            self.recurrent(build, &reset, Some((2, 3)))
        };
        let of_x = self.gate(build, x, 2);
        let sum = build.node("Add", &[&of_x, &of_h], Vec::new());
        let new = g.of(build, &sum);
        // (1 - z) · new + z · h
        let change = build.node("Sub", &[h, &new], Vec::new());
        let kept = build.node("Mul", &[z, &change], Vec::new());
        build.node("Add", &[&new, &kept], Vec::new())
    }

    fn lstm(&self, build: &mut Build<'_>, peephole: Option<&str>) -> GraphProto {
        let [f, g, h_of, ..] = self.functions else { unreachable!("an LSTM has three activations") };
        let (h, c, x) = (build.name("h"), build.name("c"), build.name("x"));
        let recurrent = self.recurrent(build, &h, None);
        let sum = build.node("Add", &[&x, &recurrent], Vec::new());
        // In the order of the file: input, output, forget, cell; peepholes of the first three.
        let gate = |build: &mut Build<'_>, index: i64, cell: &str| {
            let of_sum = self.gate(build, &sum, index);
            match peephole.filter(|_| index < 3) {
                Some(peephole) => {
                    let weight = self.gate(build, peephole, index);
                    let seen = build.node("Mul", &[&weight, cell], Vec::new());
                    build.node("Add", &[&of_sum, &seen], Vec::new())
                }
                None => of_sum,
            }
        };
        let (input, forget, cell) = (gate(build, 0, &c), gate(build, 2, &c), gate(build, 3, &c));
        let (input, forget, cell) = (f.of(build, &input), f.of(build, &forget), g.of(build, &cell));
        let (kept, new) =
            (build.node("Mul", &[&forget, &c], Vec::new()), build.node("Mul", &[&input, &cell], Vec::new()));
        let next_c = build.node("Add", &[&kept, &new], Vec::new());
        let output = gate(build, 1, &next_c);
        let (output, seen) = (f.of(build, &output), h_of.of(build, &next_c));
        let next_h = build.node("Mul", &[&output, &seen], Vec::new());
        let y = build.node("Identity", &[&next_h], Vec::new());
        graph(build, &[&h, &c, &x], &[&next_h, &next_c, &y])
    }
}

/// The nodes so far as a graph of floats.
fn graph(build: &mut Build<'_>, inputs: &[&str], outputs: &[&str]) -> GraphProto {
    let value = |name: &&str| ValueInfoProto {
        name: Some((*name).to_owned()),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: Some(DataType::Float as i32),
                shape: None,
            })),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    };
    GraphProto {
        name: Some(build.name("step")),
        node: std::mem::take(&mut build.nodes),
        input: inputs.iter().map(value).collect(),
        output: outputs.iter().map(value).collect(),
        initializer: Vec::<TensorProto>::new(),
        ..GraphProto::default()
    }
}
