//! Networks of which half of each dimension is dead: its weights are zero, so to prune that half changes no answer.
//!
//! The networks are generated. What they have in common are numbers and shapes that are computed from lengths: counts,
//! products and quotients of several lengths, ramps, attention's scales, targets of reshapes. Either the answers stay
//! the same, at lengths that nothing was probed with, or what stays is told.

use espalier_prune::{
    Bytes, Method, PruneError, Recipe, Scope, Structure, Unit,
    onnx::{Model, TensorProto, random::SplitMix64},
    structure::{Options, prune},
};

use super::{
    agree::difference_at,
    text::{ints, model, tensor},
};

const NETWORKS: u64 = 160;

/// A value whose axis of channels is partly dead.
#[derive(Clone)]
struct Feature {
    name: String,
    dead: Vec<bool>,
}

struct Net {
    random: SplitMix64,
    nodes: Vec<String>,
    constants: Vec<TensorProto>,
    names: usize,
    /// `[N, C, H, W]` if so, `[N, T, C]` otherwise.
    image: bool,
    /// What the network is made of, for messages.
    blocks: Vec<&'static str>,
}

impl Net {
    fn pick(&mut self, below: usize) -> usize {
        self.random.below(below)
    }

    fn fresh(&mut self, tensor: Option<TensorProto>) -> String {
        self.names += 1;
        let name = format!("v{}", self.names);
        if let Some(tensor) = tensor {
            self.constants.push(TensorProto { name: Some(name.clone()), ..tensor });
        }
        name
    }

    /// Adds `OP inputs -> (a fresh name) attributes`.
    fn op(&mut self, call: &str, attributes: &str) -> String {
        let name = self.fresh(None);
        self.nodes.push(format!("{call} -> {name} {attributes}").trim_end().to_owned());
        name
    }

    fn ints(&mut self, values: &[i64]) -> String {
        self.fresh(Some(ints("", values)))
    }

    fn scalar(&mut self, value: i64) -> String {
        self.fresh(Some(TensorProto { dims: vec![], ..ints("", &[value]) }))
    }

    /// A weight whose dead outputs (`axes.0`) and inputs (`axes.1`) are zero.
    fn weight(&mut self, dims: &[i64], axes: (usize, usize), outputs: &[bool], inputs: &[bool]) -> String {
        let seed = format!("w{}", self.pick(1000));
        let mut weight = tensor(&seed, dims);
        let stride = |axis: usize| dims[axis + 1..].iter().product::<i64>() as usize;
        for (index, value) in weight.float_data.iter_mut().enumerate() {
            let at = |axis: usize| index / stride(axis) % dims[axis] as usize;
            if outputs[at(axes.0)] || inputs.get(at(axes.1)).is_some_and(|dead| *dead) {
                *value = 0.0;
            }
        }
        self.fresh(Some(weight))
    }

    fn bias(&mut self, dead: &[bool]) -> String {
        self.weight(&[dead.len() as i64], (0, 0), dead, &[])
    }

    /// One of each two neighbours is dead, so half of any part that is cut out is. All of the `alike` parts are alike.
    fn half_dead(&mut self, channels: usize, alike: usize) -> Vec<bool> {
        let pairs = (0..channels / alike / 2).map(|_| self.random.below(2) == 0);
        let dead: Vec<bool> = pairs.flat_map(|first| [first, !first]).collect();
        dead.repeat(alike)
    }

    /// A layer with these outputs.
    fn layer(&mut self, x: &Feature, dead: Vec<bool>) -> Feature {
        let (outputs, inputs) = (dead.len() as i64, x.dead.len() as i64);
        let name = if self.image {
            let weight = self.weight(&[outputs, inputs, 3, 3], (0, 1), &dead, &x.dead);
            let bias = self.bias(&dead);
            self.op(&format!("Conv {},{weight},{bias}", x.name), "pads=1,1,1,1")
        } else {
            let weight = self.weight(&[inputs, outputs], (1, 0), &dead, &x.dead);
            self.op(&format!("MatMul {},{weight}", x.name), "")
        };
        Feature { name, dead }
    }

    fn channels(&self) -> usize {
        if self.image { 1 } else { 2 }
    }

    fn like(&mut self, x: &Feature, call: &str, attributes: &str) -> Feature {
        Feature { name: self.op(call, attributes), dead: x.dead.clone() }
    }

    fn gather(&mut self, shape: &str, axis: usize) -> String {
        let index = self.ints(&[axis as i64]);
        self.op(&format!("Gather {shape},{index}"), "axis=0")
    }

    /// An integer that is computed from several lengths of `x`, of shape [] or [1].
    fn count(&mut self, x: &str) -> String {
        let shape = self.op(&format!("Shape {x}"), "");
        let channels = self.channels();
        match self.pick(10) {
            0 => self.op(&format!("Size {x}"), ""),
            1 => self.op(&format!("ReduceProd {shape}"), "keepdims=0"),
            2 => {
                let (start, end) = (self.ints(&[0]), self.ints(&[channels as i64 + 1]));
                let part = self.op(&format!("Slice {shape},{start},{end}"), "");
                self.op(&format!("ReduceProd {part}"), "keepdims=0")
            }
            3 => {
                let (a, b) = (self.gather(&shape, 0), self.gather(&shape, channels));
                self.op(&format!("Mul {a},{b}"), "")
            }
            4 => self.op(&format!("ReduceSum {shape}"), "keepdims=0"),
            5 => self.op(&format!("ReduceMax {shape}"), "keepdims=0"),
            6 => {
                let part = self.op(&format!("Shape {x}"), &format!("start=0 end={}", channels + 1));
                self.op(&format!("ReduceProd {part}"), "keepdims=1")
            }
            7 => {
                let (a, b) = (self.gather(&shape, channels), self.gather(&shape, channels - 1));
                let product = self.op(&format!("Mul {a},{b}"), "");
                let batch = self.gather(&shape, 0);
                self.op(&format!("Div {product},{batch}"), "")
            }
            8 => {
                let zeros = self.op(&format!("ConstantOfShape {shape}"), "");
                let ones = self.op(&format!("Exp {zeros}"), "");
                let sum = self.op(&format!("ReduceSum {ones}"), "keepdims=0");
                self.op(&format!("Cast {sum}"), "to=7")
            }
            _ => {
                let flat = self.op(&format!("Flatten {x}"), "axis=1");
                self.op(&format!("Size {flat}"), "")
            }
        }
    }

    fn scaled(&mut self, x: &Feature) -> Feature {
        let count = self.count(&x.name);
        let mut number = self.op(&format!("Cast {count}"), "to=1");
        if self.pick(2) == 0 {
            number = self.op(&format!("Sqrt {number}"), "");
        }
        let op = ["Mul", "Div"][self.pick(2)];
        self.like(x, &format!("{op} {},{number}", x.name), "")
    }

    fn residual(&mut self, x: &Feature) -> Feature {
        let dead = self.half_dead(x.dead.len() * 2, 1);
        let inner = self.layer(x, dead);
        let inner = self.like(&inner, &format!("Relu {}", inner.name), "");
        let last = self.layer(&inner, x.dead.clone());
        self.like(x, &format!("Add {},{}", x.name, last.name), "")
    }

    fn concat(&mut self, x: &Feature) -> Feature {
        let (a, b) = (self.half_dead(8, 1), self.half_dead(8, 1));
        let (a, b) = (self.layer(x, a), self.layer(x, b));
        let axis = self.channels();
        let name = self.op(&format!("Concat {},{}", a.name, b.name), &format!("axis={axis}"));
        Feature { name, dead: [a.dead, b.dead].concat() }
    }

    /// One half through a nonlinearity, and the halves swapped.
    fn split(&mut self, x: &Feature) -> Feature {
        let axis = self.channels();
        let half = x.dead.len() / 2;
        let (left, right) = (self.fresh(None), format!("{}r", x.name));
        let sizes = self.ints(&[half as i64, (x.dead.len() - half) as i64]);
        self.nodes.push(format!("Split {},{sizes} -> {left},{right} axis={axis}", x.name));
        let left = self.op(&format!("Tanh {left}"), "");
        let name = self.op(&format!("Concat {right},{left}"), &format!("axis={axis}"));
        Feature { name, dead: [&x.dead[half..], &x.dead[..half]].concat() }
    }

    /// The first half of the channels, cut at a computed place.
    fn cut(&mut self, x: &Feature) -> Feature {
        let axis = self.channels() as i64;
        let shape = self.op(&format!("Shape {}", x.name), "");
        let (len, two) = (self.gather(&shape, axis as usize), self.ints(&[2]));
        let (start, axes) = (self.ints(&[0]), self.ints(&[axis]));
        let end = self.op(&format!("Div {len},{two}"), "");
        let name = self.op(&format!("Slice {},{start},{end},{axes}", x.name), "");
        Feature { name, dead: x.dead[..x.dead.len() / 2].to_vec() }
    }

    /// A number repeated to the shape of `x`, as exporters write `expand` and `zeros_like`.
    fn filled(&mut self, x: &Feature) -> Feature {
        let shape = self.op(&format!("Shape {}", x.name), "");
        let value = match self.pick(3) {
            0 => self.op(&format!("ConstantOfShape {shape}"), ""),
            1 => {
                let number = self.fresh(Some(tensor("k", &[1])));
                self.op(&format!("Expand {number},{shape}"), "")
            }
            _ => {
                let (number, minus) = (self.fresh(Some(tensor("k", &[1]))), self.scalar(-1));
                let is_open = self.op(&format!("Equal {shape},{minus}"), "");
                let one = self.scalar(1);
                let target = self.op(&format!("Where {is_open},{one},{shape}"), "");
                self.op(&format!("Expand {number},{target}"), "")
            }
        };
        let value = self.op(&format!("Cos {value}"), "");
        self.like(x, &format!("Add {},{value}", x.name), "")
    }

    /// Channels times a ramp as long as they are many.
    fn ramp(&mut self, x: &Feature) -> Feature {
        let shape = self.op(&format!("Shape {}", x.name), "");
        let index = self.scalar(self.channels() as i64);
        let len = self.op(&format!("Gather {shape},{index}"), "axis=0");
        let (zero, one) = (self.scalar(0), self.scalar(1));
        let range = self.op(&format!("Range {zero},{len},{one}"), "");
        let mut ramp = self.op(&format!("Cast {range}"), "to=1");
        if self.image {
            let axes = self.ints(&[1, 2]);
            ramp = self.op(&format!("Unsqueeze {ramp},{axes}"), "");
        }
        self.like(x, &format!("Mul {},{ramp}", x.name), "")
    }

    /// Batch and channels (or places) as one axis, and back.
    fn merged(&mut self, x: &Feature) -> Feature {
        let shape = self.op(&format!("Shape {}", x.name), "");
        let (a, b) = (self.gather(&shape, 0), self.gather(&shape, 1));
        let product = self.op(&format!("Mul {a},{b}"), "");
        let rest = if self.image {
            let one = self.ints(&[1]);
            let (h, w) = (self.gather(&shape, 2), self.gather(&shape, 3));
            format!("{one},{h},{w}")
        } else {
            self.gather(&shape, 2)
        };
        let target = self.op(&format!("Concat {product},{rest}"), "axis=0");
        let flat = self.op(&format!("Reshape {},{target}", x.name), "");
        let inner = if self.image {
            let kernel = self.fresh(Some(tensor("kernel", &[1, 1, 3, 3])));
            self.op(&format!("Conv {flat},{kernel}"), "pads=1,1,1,1")
        } else {
            self.op(&format!("Tanh {flat}"), "")
        };
        self.like(x, &format!("Reshape {inner},{shape}"), "")
    }

    /// The mean, as a sum divided by a product of lengths.
    fn mean(&mut self, x: &Feature) -> Feature {
        let shape = self.op(&format!("Shape {}", x.name), "");
        let (axes, count) = if self.image {
            let (h, w) = (self.gather(&shape, 2), self.gather(&shape, 3));
            (self.ints(&[2, 3]), self.op(&format!("Mul {h},{w}"), ""))
        } else {
            (self.ints(&[1]), self.gather(&shape, 1))
        };
        let sum = self.op(&format!("ReduceSum {},{axes}", x.name), "keepdims=1");
        let count = self.op(&format!("Cast {count}"), "to=1");
        let mean = self.op(&format!("Div {sum},{count}"), "");
        self.like(x, &format!("Add {},{mean}", x.name), "")
    }

    /// The deviation from the mean of all channels, with that mean's count computed: the channels have to stay.
    fn over_channels(&mut self, x: &Feature) -> Feature {
        let axes = self.ints(&[self.channels() as i64]);
        let shape = self.op(&format!("Shape {}", x.name), "");
        let count = self.gather(&shape, self.channels());
        let count = self.op(&format!("Cast {count}"), "to=1");
        let sum = self.op(&format!("ReduceSum {},{axes}", x.name), "keepdims=1");
        let mean = self.op(&format!("Div {sum},{count}"), "");
        self.like(x, &format!("Sub {},{mean}", x.name), "")
    }

    fn grouped(&mut self, x: &Feature) -> Feature {
        let alike = self.half_dead(16, 2);
        let inner = self.layer(x, alike);
        if self.pick(2) == 0 {
            let weight = self.weight(&[16, 1, 3, 3], (0, 1), &inner.dead, &[]);
            return self.like(&inner, &format!("Conv {},{weight}", inner.name), "pads=1,1,1,1 group=16");
        }
        let dead = self.half_dead(8, 2);
        let weight = self.weight(&[8, 8, 1, 1], (0, 1), &dead, &inner.dead[..8]);
        let name = self.op(&format!("Conv {},{weight}", inner.name), "group=2");
        Feature { name, dead }
    }

    /// Channels shuffled, with the number in each group computed.
    fn shuffled(&mut self, x: &Feature) -> Feature {
        let dead = self.half_dead(16, 2);
        let x = self.layer(x, dead);
        let shape = self.op(&format!("Shape {}", x.name), "");
        let [n, c, h, w] = [0, 1, 2, 3].map(|axis| self.gather(&shape, axis));
        let two = self.ints(&[2]);
        let each = self.op(&format!("Div {c},{two}"), "");
        let target = self.op(&format!("Concat {n},{two},{each},{h},{w}"), "axis=0");
        let split = self.op(&format!("Reshape {},{target}", x.name), "");
        let turned = self.op(&format!("Transpose {split}"), "perm=0,2,1,3,4");
        let name = self.op(&format!("Reshape {turned},{shape}"), "");
        let dead = (0..16).map(|index| x.dead[index % 2 * 8 + index / 2]).collect();
        Feature { name, dead }
    }

    fn squeezed(&mut self, x: &Feature) -> Feature {
        let pooled = self.like(x, &format!("GlobalAveragePool {}", x.name), "");
        let dead = self.half_dead(8, 1);
        let inner = self.layer(&pooled, dead);
        let inner = self.like(&inner, &format!("Relu {}", inner.name), "");
        let gate = self.layer(&inner, x.dead.clone());
        let gate = self.op(&format!("Sigmoid {}", gate.name), "");
        self.like(x, &format!("Mul {},{gate}", x.name), "")
    }

    fn normalised(&mut self, x: &Feature) -> Feature {
        let vectors: Vec<String> = (0..4).map(|_| self.fresh(Some(tensor("n", &[x.dead.len() as i64])))).collect();
        let variance = self.op(&format!("Exp {}", vectors[3]), "");
        let [scale, bias, mean] = [0, 1, 2].map(|index: usize| vectors[index].clone());
        self.like(x, &format!("BatchNormalization {},{scale},{bias},{mean},{variance}", x.name), "")
    }

    /// Heads split off with computed lengths; the scale is computed from lengths too.
    fn attention(&mut self, x: &Feature) -> Feature {
        let (heads, width) = ([4, 8][self.pick(2)], [3, 5][self.pick(2)]);
        let order = self.random.order(heads);
        let dead: Vec<bool> = (0..heads * width).map(|index| order[index / width] * 2 < heads).collect();
        let shape = self.op(&format!("Shape {}", x.name), "");
        let (n, t) = (self.gather(&shape, 0), self.gather(&shape, 1));
        let count = self.ints(&[heads as i64]);
        let [q, k, v] = [0, 1, 2].map(|_| {
            let part = self.layer(x, dead.clone());
            let all = self.op(&format!("Shape {}", part.name), "");
            let last = self.gather(&all, 2);
            let each = self.op(&format!("Div {last},{count}"), "");
            let target = self.op(&format!("Concat {n},{t},{count},{each}"), "axis=0");
            let split = self.op(&format!("Reshape {},{target}", part.name), "");
            self.op(&format!("Transpose {split}"), "perm=0,2,1,3")
        });
        let turned = self.op(&format!("Transpose {k}"), "perm=0,1,3,2");
        let scores = self.op(&format!("MatMul {q},{turned}"), "");
        let count = match self.pick(3) {
            0 => self.op(&format!("Size {q}"), ""),
            1 => {
                let (shape, places) = (self.op(&format!("Shape {q}"), ""), self.ints(&[1, 3]));
                let both = self.op(&format!("Gather {shape},{places}"), "");
                self.op(&format!("ReduceProd {both}"), "keepdims=0")
            }
            _ => {
                let shape = self.op(&format!("Shape {q}"), "");
                self.gather(&shape, 3)
            }
        };
        let count = self.op(&format!("Cast {count}"), "to=1");
        let root = self.op(&format!("Sqrt {count}"), "");
        let scores = self.op(&format!("Div {scores},{root}"), "");
        let weights = self.op(&format!("Softmax {scores}"), "axis=-1");
        let mixed = self.op(&format!("MatMul {weights},{v}"), "");
        let back = self.op(&format!("Transpose {mixed}"), "perm=0,2,1,3");
        let rest = self.ints(&[-1]);
        let target = self.op(&format!("Concat {n},{t},{rest}"), "axis=0");
        let name = self.op(&format!("Reshape {back},{target}"), "");
        let out = self.layer(&Feature { name, dead }, x.dead.clone());
        self.like(x, &format!("Add {},{}", x.name, out.name), "")
    }

    fn block(&mut self, x: &Feature) -> Feature {
        type Block = (&'static str, fn(&mut Net, &Feature) -> Feature);
        const BOTH: [Block; 10] = [
            ("scaled", Net::scaled),
            ("scaled", Net::scaled),
            ("residual", Net::residual),
            ("concat", Net::concat),
            ("split", Net::split),
            ("cut", Net::cut),
            ("filled", Net::filled),
            ("ramp", Net::ramp),
            ("merged", Net::merged),
            ("mean", Net::mean),
        ];
        const IMAGES: [Block; 5] = [
            ("grouped", Net::grouped),
            ("shuffled", Net::shuffled),
            ("squeezed", Net::squeezed),
            ("normalised", Net::normalised),
            ("over channels", Net::over_channels),
        ];
        const SEQUENCES: [Block; 4] = [
            ("attention", Net::attention),
            ("attention", Net::attention),
            ("attention", Net::attention),
            ("over channels", Net::over_channels),
        ];
        let own: &[Block] = if self.image { &IMAGES } else { &SEQUENCES };
        let at = self.pick(BOTH.len() + own.len());
        let (name, block) = *BOTH.iter().chain(own).nth(at).unwrap();
        self.blocks.push(name);
        block(self, x)
    }

    /// Down to a row for each sample.
    fn head(&mut self, x: &Feature, places: Option<usize>) {
        let (name, dead) = match (self.image, places) {
            (true, Some(places)) if self.pick(2) == 0 => {
                let shape = self.op(&format!("Shape {}", x.name), "");
                let (batch, rest) = (self.gather(&shape, 0), self.ints(&[-1]));
                let target = self.op(&format!("Concat {batch},{rest}"), "axis=0");
                let flat = self.op(&format!("Reshape {},{target}", x.name), "");
                let dead = x.dead.iter().flat_map(|dead| vec![*dead; places]).collect();
                (flat, dead)
            }
            (true, _) => {
                let pooled = self.op(&format!("GlobalAveragePool {}", x.name), "");
                (self.op(&format!("Flatten {pooled}"), ""), x.dead.clone())
            }
            (false, _) => (self.op(&format!("ReduceMean {}", x.name), "axes=1, keepdims=0"), x.dead.clone()),
        };
        let rows = dead.len() as i64;
        let weight = self.weight(&[rows, 3], (1, 0), &[false; 3], &dead);
        self.nodes.push(format!("MatMul {name},{weight} -> y"));
    }
}

/// The network of a seed, and what it is made of.
fn network(seed: u64) -> (Bytes, Vec<&'static str>) {
    let image = !seed.is_multiple_of(3);
    let mut net =
        Net { random: SplitMix64::new(seed), nodes: vec![], constants: vec![], names: 0, image, blocks: vec![] };
    let fixed = net.pick(2) == 0;
    let dims: &[i64] = match (image, fixed) {
        (true, true) => &[0, 2, 6, 4],
        (true, false) => &[0, 2, -1, -2],
        (false, true) => &[0, 7, 6],
        (false, false) => &[0, -1, 6],
    };
    let channels = if image { 2 } else { 6 };
    let mut x = Feature { name: "x".into(), dead: vec![false; channels] };
    for _ in 0..2 + net.pick(3) {
        let dead = net.half_dead(8, 1);
        x = net.layer(&x, dead);
        for _ in 0..1 + net.pick(2) {
            x = net.block(&x);
        }
    }
    net.head(&x, fixed.then_some(24));
    let nodes: Vec<&str> = net.nodes.iter().map(String::as_str).collect();
    (model(dims, net.constants.clone(), &nodes), net.blocks)
}

/// Prunes half of each dimension; returns how many units went, of how many.
fn check(seed: u64) -> Result<(u64, u64), String> {
    let (dense, blocks) = network(seed);
    let failed = |what: String| format!("network {seed}, {blocks:?}: {what}");
    let recipe = Recipe::new(Method::Magnitude, Scope::Local, Unit::Structure(Structure::Any), 0.5);
    let pruned = match prune(&dense, &recipe, None, &Options::default()) {
        Err(error @ PruneError::NothingPrunable { .. }) if error.to_string().contains(" stays: ") => return Ok((0, 0)),
        pruned => pruned.map_err(|error| failed(error.to_string()))?,
    };
    let report = pruned.manifest.structure.unwrap();
    if let Some(note) = report.notes.first() {
        return Err(failed(note.clone()));
    }
    for (batch, length) in [(1, 9), (2, 12), (4, 15)] {
        let difference = difference_at(&dense, &pruned.bytes, batch, length).map_err(|e| failed(e.to_string()))?;
        if difference.is_nan() || difference > 1e-4 {
            return Err(failed(format!("at batch {batch} the answers are {difference} off")));
        }
    }
    let shrunk = Model::decode(&pruned.bytes).unwrap();
    for tensor in Model::decode(&dense).unwrap().graph().initializer.iter().filter(|tensor| tensor.dims.len() > 1) {
        // The input's channels and the answer's stay by nature, the second axis of depthwise weights is of length 1.
        let left = shrunk.graph().initializer.iter().find(|left| left.name() == tensor.name());
        for axis in 0..2 {
            let stays = left.is_none_or(|left| left.dims[axis] == tensor.dims[axis]) && tensor.dims[axis] > 1;
            let told = report.kept.iter().any(|kept| kept.tensor == tensor.name() && kept.axis == axis);
            if stays && !told {
                return Err(failed(format!("axis {axis} of {} stays, and nothing says why", tensor.name())));
            }
        }
    }
    Ok((pruned.manifest.removed_units, pruned.manifest.units))
}

#[test]
fn half_of_each_dimension_is_dead() {
    let found: Vec<Result<(u64, u64), String>> = (0..NETWORKS).map(check).collect();
    let failed: Vec<&String> = found.iter().filter_map(|found| found.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} of {NETWORKS}: {failed:#?}", failed.len());
    let (removed, all) = found.iter().flatten().fold((0, 0), |sum, found| (sum.0 + found.0, sum.1 + found.1));
    println!("{NETWORKS} networks: {removed} of {all} units removed, no answer changed");
    // Nearly half of all: rules that hold everything would change no answer either.
    assert!(removed * 5 >= all * 2, "{removed} of {all}");
}
