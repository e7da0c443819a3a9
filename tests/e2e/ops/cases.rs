//! What is compared: one node each, of random shapes and attributes. Inputs of narrow integers and everything behind the first input are
//! constants of the file, as exporters write them.

use std::fmt;

use espalier_onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TypeProto, ValueInfoProto,
    attribute_proto::AttributeType, type_proto,
};

use super::random::{Random, floats, ints, list};

#[derive(Clone, Debug)]
pub struct Case {
    pub op: String,
    opset: i64,
    attributes: Vec<AttributeProto>,
    inputs: Vec<Option<TensorProto>>,
    outputs: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (opset {})", self.op, self.opset)?;
        for attribute in &self.attributes {
            write!(f, " {}=", attribute.name())?;
            match attribute.r#type() {
                AttributeType::Int => write!(f, "{}", attribute.i())?,
                AttributeType::Float => write!(f, "{}", attribute.f())?,
                AttributeType::String => write!(f, "{}", String::from_utf8_lossy(attribute.s()))?,
                _ => write!(f, "{:?}", attribute.ints)?,
            }
        }
        for input in &self.inputs {
            match input {
                None => write!(f, " -")?,
                Some(input) if input.dims.len() <= 1 && input.data_type() == 7 => {
                    let (values, _) = input.raw_data().as_chunks();
                    let values: Vec<i64> = values.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect();
                    write!(f, " {values:?}")?;
                }
                Some(input) => write!(f, " type {} of {:?}", input.data_type(), input.dims)?,
            }
        }
        Ok(())
    }
}

impl Case {
    fn new(op: &str, inputs: Vec<TensorProto>) -> Case {
        let inputs = inputs.into_iter().map(Some).collect();
        Case { op: op.to_owned(), opset: 17, attributes: Vec::new(), inputs, outputs: 1 }
    }

    fn opset(self, opset: i64) -> Case {
        Case { opset, ..self }
    }

    fn outputs(self, outputs: usize) -> Case {
        Case { outputs, ..self }
    }

    fn and(mut self, input: Option<TensorProto>) -> Case {
        self.inputs.push(input);
        self
    }

    fn int(mut self, name: &str, value: i64) -> Case {
        self.attributes.push(AttributeProto { i: Some(value), ..attribute(name, AttributeType::Int) });
        self
    }

    fn float(mut self, name: &str, value: f32) -> Case {
        self.attributes.push(AttributeProto { f: Some(value), ..attribute(name, AttributeType::Float) });
        self
    }

    fn ints(mut self, name: &str, values: &[i64]) -> Case {
        self.attributes.push(AttributeProto { ints: values.to_vec(), ..attribute(name, AttributeType::Ints) });
        self
    }

    fn text(mut self, name: &str, value: &str) -> Case {
        let s = Some(value.as_bytes().to_vec().into());
        self.attributes.push(AttributeProto { s, ..attribute(name, AttributeType::String) });
        self
    }

    fn constant(index: usize) -> bool {
        index > 0
    }

    /// Values of the graph's inputs.
    pub fn fed(&self) -> impl Iterator<Item = &TensorProto> {
        let all = self.inputs.iter().enumerate();
        all.filter(|(index, _)| !Case::constant(*index)).filter_map(|(_, input)| input.as_ref())
    }

    pub fn model(&self) -> ModelProto {
        let name = |index: usize| format!("in{index}");
        let present = || self.inputs.iter().enumerate().filter_map(|(index, input)| Some((index, input.as_ref()?)));
        let outputs: Vec<String> = (0..self.outputs).map(|index| format!("out{index}")).collect();
        let node = NodeProto {
            op_type: Some(self.op.clone()),
            name: Some("node".into()),
            input: self
                .inputs
                .iter()
                .enumerate()
                .map(|(at, input)| input.as_ref().map_or(String::new(), |_| name(at)))
                .collect(),
            output: outputs.clone(),
            attribute: self.attributes.clone(),
            ..NodeProto::default()
        };
        let input = |(index, tensor): (usize, &TensorProto)| ValueInfoProto {
            name: Some(name(index)),
            r#type: Some(TypeProto {
                value: Some(espalier_onnx::type_proto::Value::TensorType(type_proto::Tensor {
                    elem_type: tensor.data_type,
                    shape: None,
                })),
                ..TypeProto::default()
            }),
            ..ValueInfoProto::default()
        };
        let graph = GraphProto {
            name: Some("case".into()),
            node: vec![node],
            input: present().filter(|(index, _)| !Case::constant(*index)).map(input).collect(),
            initializer: present()
                .filter(|(index, _)| Case::constant(*index))
                .map(|(index, tensor)| TensorProto { name: Some(name(index)), ..tensor.clone() })
                .collect(),
            output: outputs
                .into_iter()
                .map(|name| ValueInfoProto { name: Some(name), ..ValueInfoProto::default() })
                .collect(),
            ..GraphProto::default()
        };
        ModelProto {
            ir_version: Some(8),
            opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(self.opset) }],
            graph: Some(graph),
            ..ModelProto::default()
        }
    }
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.into()), r#type: Some(kind as i32), ..AttributeProto::default() }
}

pub fn all() -> Vec<Case> {
    let mut random = Random::new(7);
    let mut cases = Vec::new();
    for _ in 0..8 {
        elementwise(&mut random, &mut cases);
        shapes(&mut random, &mut cases);
        indexing(&mut random, &mut cases);
        reductions(&mut random, &mut cases);
        quantisation(&mut random, &mut cases);
        recurrent(&mut random, &mut cases);
        layers(&mut random, &mut cases);
    }
    cases
}

fn elementwise(random: &mut Random, cases: &mut Vec<Case>) {
    for op in [
        "Relu",
        "LeakyRelu",
        "Elu",
        "Celu",
        "Selu",
        "HardSigmoid",
        "HardSwish",
        "Tanh",
        "Sigmoid",
        "Erf",
        "Exp",
        "Neg",
        "Abs",
        "Reciprocal",
        "Softplus",
        "Softsign",
        "Sin",
        "Cos",
        "Floor",
        "Ceil",
        "Round",
        "Sign",
        "ThresholdedRelu",
        "Identity",
        "Sqrt",
        "Log",
        "IsNaN",
    ] {
        let shape = random.shape(0, 4);
        let x = random.floats(&shape, -4.0, 4.0);
        cases.push(Case::new(op, vec![x]));
    }
    cases.push(Case::new("Round", vec![floats(&[6], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])]));
    let shape = random.shape(0, 3);
    cases.push(Case::new("LeakyRelu", vec![random.floats(&shape, -2.0, 2.0)]).float("alpha", 0.3));
    cases.push(Case::new("HardSigmoid", vec![random.floats(&shape, -4.0, 4.0)]).float("alpha", 0.3).float("beta", 0.1));
    let approximation = random.pick(&["none", "tanh"]);
    cases.push(Case::new("Gelu", vec![random.floats(&shape, -4.0, 4.0)]).opset(20).text("approximate", approximation));
    cases.push(Case::new("Mish", vec![random.floats(&shape, -4.0, 4.0)]).opset(18));
    cases.push(Case::new("Dropout", vec![random.floats(&shape, -4.0, 4.0)]));
    let bound = |value: Option<f32>| value.map(|value| floats(&[], &[value]));
    let (least, most) =
        (random.coin().then(|| random.float(-1.0, 1.0)), random.coin().then(|| random.float(-1.0, 1.0)));
    cases.push(Case::new("Clip", vec![random.floats(&shape, -2.0, 2.0)]).and(bound(least)).and(bound(most)));
    cases.push(Case::new("Clip", vec![random.floats(&shape, -2.0, 2.0)]).opset(6).float("min", -1.0).float("max", 0.5));
    cases.push(Case::new("Not", vec![random.bools(&shape)]));
    for op in
        ["Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"]
    {
        let wide = random.shape(0, 4);
        let shapes =
            if random.coin() { [wide.clone(), random.narrower(&wide)] } else { [random.narrower(&wide), wide] };
        let from = if op == "Pow" { 0.1 } else { -2.0 };
        cases.push(Case::new(op, shapes.iter().map(|shape| random.floats(shape, from, 3.0)).collect()));
        let from = if matches!(op, "Div" | "Pow") { 1 } else { -3 };
        let numerator = random.ints(&shapes[0], -20, 20);
        cases.push(Case::new(op, vec![numerator, random.ints(&shapes[1], from, 4)]));
    }
    let wide = random.shape(1, 4);
    let narrow = random.narrower(&wide);
    cases.push(Case::new("PRelu", vec![random.floats(&wide, -2.0, 2.0), random.floats(&narrow, -1.0, 1.0)]));
    cases.push(Case::new("Pow", vec![random.floats(&wide, -2.0, 2.0), floats(&[], &[2.0])]));
    cases.push(Case::new("Pow", vec![random.floats(&wide, -2.0, 2.0), ints(&[], &[3])]));
    for op in ["And", "Or", "Xor", "Equal"] {
        cases.push(Case::new(op, vec![random.bools(&wide), random.bools(&narrow)]));
    }
    let other = random.narrower(&wide);
    cases.push(Case::new(
        "Where",
        vec![random.bools(&narrow), random.floats(&wide, -1.0, 1.0), random.floats(&other, -1.0, 1.0)],
    ));
    cases.push(Case::new(
        "Max",
        vec![random.floats(&wide, -1.0, 1.0), random.floats(&narrow, -1.0, 1.0), random.floats(&other, -1.0, 1.0)],
    ));
    cases.push(Case::new(
        "Sum",
        vec![random.floats(&wide, -1.0, 1.0), random.floats(&narrow, -1.0, 1.0), random.floats(&other, -1.0, 1.0)],
    ));
    cases.push(Case::new("Mod", vec![random.ints(&wide, -9, 9), random.ints(&narrow, 1, 4)]));
    cases.push(Case::new("Mod", vec![random.ints(&wide, -9, 9), random.ints(&narrow, -4, 0)]));
    cases
        .push(Case::new("Mod", vec![random.floats(&wide, -9.0, 9.0), random.floats(&narrow, 1.0, 4.0)]).int("fmod", 1));
}

fn shapes(random: &mut Random, cases: &mut Vec<Case>) {
    let shape = random.full_shape(1, 4);
    let rank = shape.len() as i64;
    let x = random.floats(&shape, -1.0, 1.0);
    let total: i64 = shape.iter().product();
    cases.push(Case::new("Reshape", vec![x.clone(), list(&[-1])]));
    cases.push(Case::new("Reshape", vec![x.clone(), list(&[0, -1])]));
    cases.push(Case::new("Reshape", vec![x.clone(), list(&[1, total, 1])]));
    cases.push(Case::new("Flatten", vec![x.clone()]).int("axis", random.int(-rank, rank + 1)));
    let mut ones = shape.clone();
    let at = random.int(0, rank + 1);
    ones.insert(at as usize, 1);
    cases.push(Case::new(
        "Squeeze",
        vec![random.floats(&ones, -1.0, 1.0), list(&[at - if random.coin() { rank + 1 } else { 0 }])],
    ));
    cases.push(Case::new("Squeeze", vec![random.floats(&ones, -1.0, 1.0)]));
    cases.push(Case::new("Squeeze", vec![random.floats(&ones, -1.0, 1.0)]).opset(11).ints("axes", &[at]));
    cases.push(Case::new("Unsqueeze", vec![x.clone(), list(&[at, -1])]));
    cases.push(Case::new("Unsqueeze", vec![x.clone()]).opset(11).ints("axes", &[0, rank + 1]));
    cases.push(Case::new("Shape", vec![x.clone()]).int("start", random.int(-5, 5)).int("end", random.int(-5, 5)));
    cases.push(Case::new("Size", vec![x.clone()]));
    let mut order: Vec<i64> = (0..rank).collect();
    (1..order.len()).rev().for_each(|last| order.swap(last, random.int(0, last as i64 + 1) as usize));
    cases.push(Case::new("Transpose", vec![x.clone()]).ints("perm", &order));
    cases.push(Case::new("Transpose", vec![x.clone()]));
    let narrow = random.narrower(&shape);
    cases.push(Case::new("Expand", vec![random.floats(&narrow, -1.0, 1.0), list(&shape)]));
    cases.push(Case::new("Expand", vec![x.clone(), list(&vec![1; narrow.len()])]));
    let repeats: Vec<i64> = shape.iter().map(|_| random.int(0, 4)).collect();
    cases.push(Case::new("Tile", vec![x.clone(), list(&repeats)]));
    let axis = random.int(-rank, rank);
    let mut parts = vec![x.clone()];
    for _ in 0..2 {
        let mut part = shape.clone();
        part[axis.rem_euclid(rank) as usize] = random.int(0, 4);
        parts.push(random.floats(&part, -1.0, 1.0));
    }
    cases.push(Case::new("Concat", parts).int("axis", axis));
    let extent = shape[axis.rem_euclid(rank) as usize];
    let first = random.int(0, extent + 1);
    cases.push(Case::new("Split", vec![x.clone(), list(&[first, extent - first])]).int("axis", axis).outputs(2));
    let whole = random.floats(&[5, 6], -1.0, 1.0);
    cases.push(Case::new("Split", vec![whole.clone()]).int("axis", 1).outputs(3));
    cases.push(Case::new("Split", vec![whole.clone()]).opset(18).int("num_outputs", 3).outputs(3));
    cases.push(Case::new("Split", vec![whole]).opset(11).int("axis", 1).ints("split", &[1, 5]).outputs(2));
    for _ in 0..4 {
        let ends = [i64::MIN, -9, -3, -1, 0, 1, 3, 9, i64::MAX];
        let step = random.pick(&[-3, -2, -1, 1, 2, 3]);
        // onnxruntime takes the greatest number for the beginning where the way leads back; ONNX does not.
        let end = random.pick(if step < 0 { &ends[..8] } else { &ends[..] });
        let cut = [random.pick(&ends), end, axis, step].map(|value| list(&[value]));
        cases.push(Case::new("Slice", [vec![x.clone()], cut.to_vec()].concat()));
    }
    cases
        .push(Case::new("Slice", vec![x.clone()]).opset(9).ints("starts", &[-2]).ints("ends", &[9]).ints("axes", &[0]));
    for mode in ["constant", "reflect", "edge", "wrap"] {
        let long: Vec<i64> = shape.iter().map(|axis| axis + 1).collect();
        let pads: Vec<i64> =
            (0..2 * rank).map(|_| if mode == "constant" { random.int(-1, 3) } else { random.int(0, 2) }).collect();
        let y = random.floats(&long, -1.0, 1.0);
        let opset = if mode == "wrap" { 19 } else { 17 };
        let mut case = Case::new("Pad", vec![y, list(&pads)]).opset(opset).text("mode", mode);
        if mode == "constant" && random.coin() {
            case = case.and(Some(floats(&[], &[0.5])));
        }
        cases.push(case);
    }
    cases.push(Case::new("Pad", vec![x.clone(), list(&[1, 2])]).opset(18).and(None).and(Some(list(&[axis]))));
    cases.push(Case::new("ConstantOfShape", vec![list(&shape)]));
    let (start, end, step) = (random.int(-5, 5), random.int(-5, 5), random.pick(&[-2, -1, 1, 3]));
    cases.push(Case::new("Range", [start, end, step].map(|value| ints(&[], &[value])).to_vec()));
    cases.push(Case::new("Range", [start, end, step].map(|value| floats(&[], &[value as f32 * 0.7])).to_vec()));
    let matrix = random.full_shape(2, 2);
    cases.push(Case::new("EyeLike", vec![random.floats(&matrix, -1.0, 1.0)]).int("k", random.int(-2, 3)));
    let stack = random.full_shape(2, 4);
    let diagonal = ints(&[], &[random.int(-3, 4)]);
    cases.push(Case::new("Trilu", vec![random.floats(&stack, -1.0, 1.0), diagonal]).int("upper", random.int(0, 2)));
    let mode = random.pick(&["DCR", "CRD"]);
    cases.push(
        Case::new("DepthToSpace", vec![random.floats(&[2, 8, 2, 3], -1.0, 1.0)]).int("blocksize", 2).text("mode", mode),
    );
    cases.push(Case::new("SpaceToDepth", vec![random.floats(&[2, 2, 4, 6], -1.0, 1.0)]).int("blocksize", 2));
}

fn indexing(random: &mut Random, cases: &mut Vec<Case>) {
    let shape = random.full_shape(1, 4);
    let rank = shape.len() as i64;
    let x = random.floats(&shape, -1.0, 1.0);
    let axis = random.int(-rank, rank);
    let extent = shape[axis.rem_euclid(rank) as usize];
    let outer = random.shape(0, 2);
    cases.push(Case::new("Gather", vec![x.clone(), random.ints(&outer, -extent, extent)]).int("axis", axis));
    let within: Vec<i64> = shape.iter().map(|axis| random.int(1, axis + 1)).collect();
    let indices = random.ints(&within, -extent, extent);
    cases.push(Case::new("GatherElements", vec![x.clone(), indices.clone()]).int("axis", axis));
    let updates = random.floats(&within, -1.0, 1.0);
    let add = Case::new("ScatterElements", vec![x.clone(), indices, updates.clone()]).int("axis", axis);
    cases.push(add.text("reduction", "add"));
    // Without a reduction no place may be named twice.
    let mut one = within;
    one[axis.rem_euclid(rank) as usize] = 1;
    let indices = random.ints(&one, -extent, extent);
    cases
        .push(Case::new("ScatterElements", vec![x.clone(), indices, random.floats(&one, -1.0, 1.0)]).int("axis", axis));
    let depth = random.int(1, rank + 1);
    let count = random.int(1, 4);
    let tuples: Vec<i64> = (0..count)
        .flat_map(|_| shape[..depth as usize].iter().map(|axis| random.int(-axis, *axis)).collect::<Vec<_>>())
        .collect();
    let tuples = ints(&[count, depth], &tuples);
    cases.push(Case::new("GatherND", vec![x.clone(), tuples.clone()]));
    let rows = [&[count], &shape[depth as usize..]].concat();
    cases.push(Case::new("ScatterND", vec![x, tuples, random.floats(&rows, -1.0, 1.0)]).text("reduction", "add"));
    let outer = random.full_shape(1, 2);
    let hot = vec![random.ints(&outer, -3, 3), ints(&[], &[3]), floats(&[2], &[-1.0, 2.0])];
    cases.push(Case::new("OneHot", hot).int("axis", random.int(-1, 1)));
    cases.push(Case::new("NonZero", vec![random.ints(&shape, -1, 2)]));
}

fn reductions(random: &mut Random, cases: &mut Vec<Case>) {
    for op in ["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp"] {
        let shape = random.full_shape(1, 4);
        let rank = shape.len() as i64;
        let (one, x) = (random.int(-rank, rank), random.floats(&shape, 0.1, 2.0));
        let name = format!("Reduce{op}");
        let keep = random.int(0, 2);
        // `ReduceSum` took its axes as an input first.
        cases.push(if op == "Sum" {
            Case::new(&name, vec![x.clone(), list(&[one])]).int("keepdims", keep)
        } else {
            Case::new(&name, vec![x.clone()]).ints("axes", &[one]).int("keepdims", keep)
        });
        cases.push(Case::new(&name, vec![x.clone()]).int("keepdims", keep));
        let all: Vec<i64> = if rank > 1 { vec![0, -1] } else { vec![0] };
        cases.push(Case::new(&name, vec![x.clone(), list(&all)]).opset(18).int("keepdims", keep));
        cases.push(Case::new(&name, vec![x, list(&[])]).opset(18).int("noop_with_empty_axes", random.int(0, 2)));
        if matches!(op, "Sum" | "Max" | "Min" | "Prod") {
            cases.push(Case::new(&name, vec![random.ints(&shape, -3, 4), list(&[one])]).opset(18));
        }
    }
    let shape = random.full_shape(1, 3);
    let rank = shape.len() as i64;
    let axis = random.int(-rank, rank);
    for op in ["ArgMax", "ArgMin"] {
        let case = Case::new(op, vec![random.ints(&shape, 0, 3)]).int("axis", axis).int("keepdims", random.int(0, 2));
        cases.push(case.int("select_last_index", random.int(0, 2)));
    }
    let sums = Case::new("CumSum", vec![random.floats(&shape, -1.0, 1.0), ints(&[], &[axis])]);
    cases.push(sums.int("exclusive", random.int(0, 2)).int("reverse", random.int(0, 2)));
}

fn quantisation(random: &mut Random, cases: &mut Vec<Case>) {
    let shape = random.full_shape(2, 4);
    let signed = random.coin();
    let x = random.floats(&shape, -3.0, 3.0);
    let zero = |random: &mut Random, shape: &[i64]| random.quantised(shape, signed);
    cases.push(Case::new("QuantizeLinear", vec![x.clone(), floats(&[], &[0.013]), zero(random, &[])]));
    cases.push(Case::new("QuantizeLinear", vec![x.clone(), floats(&[], &[0.013])]));
    let scales = random.floats(&[shape[1]], 0.01, 0.05);
    cases.push(Case::new("QuantizeLinear", vec![x.clone(), scales.clone(), zero(random, &[shape[1]])]).int("axis", 1));
    let quantised = random.quantised(&shape, signed);
    cases
        .push(Case::new("DequantizeLinear", vec![quantised.clone(), scales, zero(random, &[shape[1]])]).int("axis", 1));
    cases.push(Case::new("DequantizeLinear", vec![quantised.clone(), floats(&[], &[0.013])]));
    cases.push(Case::new("DynamicQuantizeLinear", vec![x.clone()]).outputs(3));
    // bool, int64, float16 excepted: floats are held as f32.
    for to in [1, 2, 3, 6, 7, 9, 11] {
        cases.push(Case::new("Cast", vec![random.floats(&shape, 0.0, 100.0)]).int("to", to));
        cases.push(Case::new("Cast", vec![random.ints(&shape, -500, 500)]).int("to", to));
    }
    cases.push(Case::new("Cast", vec![random.floats(&shape, -100.0, 100.0)]).int("to", 7));
    cases.push(Case::new("CastLike", vec![random.floats(&shape, -100.0, 100.0), ints(&[], &[1])]));
    let (rows, depth, columns) = (random.int(1, 5), random.int(1, 5), random.int(1, 5));
    let (a, b) = (random.quantised(&[rows, depth], false), random.quantised(&[depth, columns], true));
    cases.push(Case::new("MatMulInteger", vec![a.clone(), b.clone()]));
    cases.push(Case::new("MatMulInteger", vec![a, b, random.quantised(&[], false)]));
}

fn recurrent(random: &mut Random, cases: &mut Vec<Case>) {
    for (op, gates, states) in [("LSTM", 4, 2), ("GRU", 3, 1), ("RNN", 1, 1)] {
        let (steps, batch, width, hidden) = (random.int(1, 6), random.int(1, 4), random.int(1, 6), random.int(1, 6));
        let direction = random.pick(&["forward", "reverse", "bidirectional"]);
        let d = if direction == "bidirectional" { 2 } else { 1 };
        let mut case = Case::new(
            op,
            vec![
                random.floats(&[steps, batch, width], -1.0, 1.0),
                random.floats(&[d, gates * hidden, width], -1.0, 1.0),
                random.floats(&[d, gates * hidden, hidden], -1.0, 1.0),
            ],
        );
        case = case.and(random.coin().then(|| random.floats(&[d, 2 * gates * hidden], -1.0, 1.0)));
        let lengths: Vec<i32> = (0..batch).map(|_| random.int(1, steps + 1) as i32).collect();
        case = case.and(random.coin().then(|| super::random::narrow_ints(&[batch], &lengths)));
        for _ in 0..states {
            case = case.and(random.coin().then(|| random.floats(&[d, batch, hidden], -1.0, 1.0)));
        }
        case = case.text("direction", direction).int("hidden_size", hidden).outputs(1 + states);
        if op == "GRU" {
            case = case.int("linear_before_reset", random.int(0, 2));
        }
        cases.push(case);
    }
}

/// What weighs most in a net.
fn layers(random: &mut Random, cases: &mut Vec<Case>) {
    let (n, groups) = (random.int(1, 3), random.int(1, 4));
    let (channels, maps) = (groups * random.int(1, 4), groups * random.int(1, 4));
    let kernel = [random.int(1, 4), random.int(1, 4)];
    let (height, width) = (random.int(5, 9), random.int(5, 9));
    let image = random.floats(&[n, channels, height, width], -1.0, 1.0);
    let weights = random.floats(&[maps, channels / groups, kernel[0], kernel[1]], -1.0, 1.0);
    let strides = [random.int(1, 3), random.int(1, 3)];
    let conv = Case::new("Conv", vec![image.clone(), weights.clone(), random.floats(&[maps], -1.0, 1.0)]);
    let conv = conv.int("group", groups).ints("strides", &strides);
    let pads: Vec<i64> = (0..4).map(|_| random.int(0, 3)).collect();
    cases.push(conv.clone().ints("pads", &pads).ints("dilations", &[random.int(1, 3), random.int(1, 3)]));
    cases.push(conv.text("auto_pad", random.pick(&["SAME_UPPER", "SAME_LOWER", "VALID"])));
    let line = random.floats(&[n, channels, width], -1.0, 1.0);
    let weights = random.floats(&[maps, channels / groups, 3], -1.0, 1.0);
    cases.push(Case::new("Conv", vec![line, weights]).int("group", groups).ints("pads", &[1, 1]));
    let window = [random.int(1, 4), random.int(1, 4)];
    for op in ["MaxPool", "AveragePool"] {
        let pads: Vec<i64> = [window, window].concat().iter().map(|axis| random.int(0, *axis)).collect();
        let pool = Case::new(op, vec![image.clone()]).ints("kernel_shape", &window).ints("strides", &strides);
        let pool = if op == "AveragePool" { pool.int("count_include_pad", random.int(0, 2)) } else { pool };
        cases.push(pool.clone().ints("pads", &pads).int("ceil_mode", random.int(0, 2)));
        cases.push(pool.text("auto_pad", random.pick(&["SAME_UPPER", "SAME_LOWER", "VALID"])));
    }
    cases.push(Case::new("GlobalAveragePool", vec![image.clone()]));
    cases.push(Case::new("GlobalMaxPool", vec![image.clone()]));
    let vectors: Vec<TensorProto> = (0..4).map(|_| random.floats(&[channels], 0.2, 1.0)).collect();
    cases.push(Case::new("BatchNormalization", [vec![image.clone()], vectors.clone()].concat()).float("epsilon", 1e-3));
    cases.push(Case::new("InstanceNormalization", [vec![image], vectors[..2].to_vec()].concat()));
    let outer = random.full_shape(0, 2);
    let (rows, depth, columns) = (random.int(1, 6), random.int(1, 6), random.int(1, 6));
    let left = [&outer[..], &[rows, depth]].concat();
    let right = [&random.narrower(&outer)[..], &[depth, columns]].concat();
    cases.push(Case::new("MatMul", vec![random.floats(&left, -1.0, 1.0), random.floats(&right, -1.0, 1.0)]));
    cases.push(Case::new("MatMul", vec![random.floats(&[depth], -1.0, 1.0), random.floats(&right, -1.0, 1.0)]));
    cases.push(Case::new("MatMul", vec![random.floats(&left, -1.0, 1.0), random.floats(&[depth], -1.0, 1.0)]));
    let (trans_a, trans_b) = (random.int(0, 2), random.int(0, 2));
    let turned = |turn: i64, a, b| if turn == 1 { [b, a] } else { [a, b] };
    let bias = random.narrower(&[rows, columns]);
    let gemm = Case::new(
        "Gemm",
        vec![
            random.floats(&turned(trans_a, rows, depth), -1.0, 1.0),
            random.floats(&turned(trans_b, depth, columns), -1.0, 1.0),
            random.floats(&bias, -1.0, 1.0),
        ],
    );
    cases.push(gemm.int("transA", trans_a).int("transB", trans_b).float("alpha", 0.5).float("beta", 2.0));
    let shape = random.full_shape(1, 4);
    let rank = shape.len() as i64;
    let axis = random.int(-rank, rank);
    for op in ["Softmax", "LogSoftmax"] {
        cases.push(Case::new(op, vec![random.floats(&shape, -3.0, 3.0)]).int("axis", axis));
        cases.push(Case::new(op, vec![random.floats(&shape, -3.0, 3.0)]).opset(11).int("axis", axis));
    }
    let normal = &shape[axis.rem_euclid(rank) as usize..];
    let parts =
        vec![random.floats(&shape, -3.0, 3.0), random.floats(normal, 0.5, 1.0), random.floats(normal, -1.0, 1.0)];
    cases.push(Case::new("LayerNormalization", parts).int("axis", axis));
}
