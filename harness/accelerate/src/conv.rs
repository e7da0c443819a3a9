//! Passes for convolutions and pools: a convolution takes in the normalisation, the residual and the clamps that follow it.

use std::{cell::RefCell, sync::Arc};

use espalier_kernels::{
    convolution::{Convolution, Form, Shape},
    convolution_window::{Axis, Window},
    depthwise::Depthwise,
    panel::Height,
    pool::MaxPool,
    pool_sum,
    simd::Isa,
    threads::Threads,
};
use tract_onnx::{
    prelude::*,
    tract_core::{
        internal::*,
        ops::{
            cnn::{Conv, KernelFormat, MaxPool as TractMaxPool, PoolSpec},
            nn::{Reduce, Reducer},
        },
    },
};

use crate::{
    Pass,
    choice::Candidate,
    context::Context,
    conv_chain::Chain,
    op::{Layer, LayerOp, Shared},
    region::Region,
    weights::{Filled, Weight},
};

pub const TYPED: &[Pass] = &[Pass::Node(convolution), Pass::Node(pool), Pass::Node(sum)];
pub const DECLUTTERED: &[Pass] = &[];

/// From this share of zeros on, sparse kernels are tried.
const SPARSE_FROM: f64 = 0.3;
/// Blocks are tried where at most this share of them has anything in it.
const BLOCKS_UP_TO: f64 = 0.75;

fn convolution(context: &mut Context, model: &TypedModel, node: &TypedNode) -> TractResult<Option<TypedModelPatch>> {
    let Some(conv) = node.op_as::<Conv>() else { return Ok(None) };
    let fact = model.outlet_fact(node.inputs[0])?;
    let Some(input) = fact.shape.as_concrete().filter(|_| fact.datum_type == DatumType::F32) else { return Ok(None) };
    if conv.q_params.is_some() || conv.kernel_fmt != KernelFormat::OIHW {
        return Ok(None);
    }
    let Some((batch, window)) = window(&conv.pool_spec, input)? else { return Ok(None) };
    let Some(weight) = context.weight(model, node.inputs[1])? else { return Ok(None) };
    let Some(bias) = context.constant(model, node.inputs[2])? else { return Ok(None) };
    if weight.datum_type() != DatumType::F32 || bias.datum_type() != DatumType::F32 {
        return Ok(None);
    }
    let (channels, filters, groups) = (conv.input_channels(), conv.output_channels(), conv.group);
    let shape = Shape { channels, filters, groups, window };
    let bias = bias.try_as_plain_ram()?;
    let bias = bias.as_slice::<f32>()?;
    let bias = if bias.len() == 1 { vec![bias[0]; filters] } else { bias.to_vec() };
    let consistent = bias.len() == filters && weight.shape().iter().product::<usize>() == filters * shape.depth();
    ensure!(consistent, "weights and bias are not those of {filters} filters");

    let filled = weight.filled(filters, filters / groups)?;
    let c_axis = usize::from(conv.pool_spec.data_format.has_n());
    let chain = Chain::after(context, model, node, c_axis, filters)?;
    let clamp = chain.clamp();
    let fused = chain.in_words();
    let parts = Parts { weight: &weight, bias: &bias, chain: &chain };
    let output: TVec<usize> =
        model.outlet_fact(node.id.into())?.shape.as_concrete().context("an open dimension")?.into();
    let mut inputs = tvec!(node.inputs[0]);
    inputs.extend(chain.residual);
    let region = Region { name: node.name.clone(), inputs, outputs: tvec!(chain.last) };

    let threads = Shared(Arc::clone(&context.threads));
    let isa = context.isa;
    let mut candidates = Vec::new();
    if groups == channels && groups == filters {
        let build = {
            let (threads, output) = (threads.clone(), output.clone());
            move || -> TractResult<Box<dyn TypedOp>> {
                let (weights, bias) = parts.folded()?;
                let depthwise = Depthwise::new(isa, window, weights, bias, clamp);
                let kernel = Kernel::Depthwise(depthwise.context("a stride this kernel does not know")?);
                Ok(LayerOp::boxed(ConvolutionLayer {
                    kernel: Shared::new(kernel),
                    threads: threads.clone(),
                    batch,
                    output: output.clone(),
                }))
            }
        };
        if window.width.stride <= 2 {
            candidates.push(Candidate { kernel: "depthwise".to_owned(), build: Box::new(build) });
        }
    }
    if candidates.is_empty() {
        for form in forms(&shape, filled) {
            let (threads, output) = (threads.clone(), output.clone());
            let build = move || -> TractResult<Box<dyn TypedOp>> {
                let convolution = match parts.of_cells(isa, shape, form, clamp) {
                    Some(convolution) => Some(convolution),
                    None => {
                        let (weights, bias) = parts.folded()?;
                        Convolution::new(isa, shape, form, &weights, bias, clamp)
                    }
                };
                let kernel = Kernel::Product(Box::new(convolution.context("a shape this kernel does not know")?));
                Ok(LayerOp::boxed(ConvolutionLayer {
                    kernel: Shared::new(kernel),
                    threads: threads.clone(),
                    batch,
                    output: output.clone(),
                }))
            };
            candidates.push(Candidate { kernel: form.name().to_owned(), build: Box::new(build) });
        }
    }
    let (height, width) = (window.height, window.width);
    let what = format!(
        "{}x{} stride {} {} dilation {} {} pads {} {} groups {groups}{fused}, {}",
        height.kernel,
        width.kernel,
        height.stride,
        width.stride,
        height.dilation,
        width.dilation,
        height.before,
        width.before,
        filled.pattern()
    );
    let op = context.choose(model, &region, "conv", &what, &candidates)?;
    op.map(|op| region.replaced(model, op)).transpose()
}

/// Which kernels may be the fastest.
fn forms(shape: &Shape, filled: Filled) -> Vec<Form> {
    let mut forms = vec![Form::Dense];
    if Convolution::suits_tiles(&shape.window) {
        forms.push(Form::Tiles);
    }
    if 1.0 - filled.cells >= SPARSE_FROM {
        forms.push(Form::Sparse(Height::One));
        for (height, filled) in [(Height::Four, filled.four), (Height::Eight, filled.eight)] {
            if filled <= BLOCKS_UP_TO {
                forms.push(Form::Sparse(height));
            }
        }
    }
    forms
}

/// What the weights and the bias of the op of ours are made of.
#[derive(Clone, Copy)]
struct Parts<'a> {
    weight: &'a Weight,
    bias: &'a [f32],
    chain: &'a Chain,
}

impl Parts<'_> {
    /// Where both the weight and the form leave out zeros: nothing has to be written out between.
    fn of_cells(&self, isa: Isa, shape: Shape, form: Form, clamp: (f32, f32)) -> Option<Convolution> {
        let (Weight::Sparse { matrix, .. }, Form::Sparse(height)) = (self.weight, form) else { return None };
        let (mut factors, mut bias) = (vec![1.0; shape.filters], self.bias.to_vec());
        self.chain.fold(&mut factors, &mut bias);
        Convolution::of_cells(isa, shape, height, (matrix, &factors), bias, clamp)
    }

    fn folded(&self) -> TractResult<(Vec<f32>, Vec<f32>)> {
        let dense = self.weight.dense()?;
        let plain = dense.try_as_plain_ram()?;
        let mut weights = plain.as_slice::<f32>()?.to_vec();
        let mut bias = self.bias.to_vec();
        self.chain.fold(&mut weights, &mut bias);
        Ok((weights, bias))
    }
}

/// Images, and the window with a second axis where the model has but one. Nothing for what the kernels do not know.
fn window(spec: &PoolSpec, input: &[usize]) -> TractResult<Option<(usize, Window)>> {
    if spec.data_format.c_is_last() || !(1..=2).contains(&spec.rank()) {
        return Ok(None);
    }
    let shape = spec.data_format.shape(input)?;
    let padded = spec.computed_padding(shape.hw_dims());
    let axis = |index: usize| Axis {
        input: shape.hw_dims()[index],
        output: padded[index].convoluted,
        kernel: spec.kernel_shape[index],
        stride: spec.stride(index),
        dilation: spec.dilation(index),
        before: padded[index].pad_before,
    };
    let none = Axis { input: 1, output: 1, kernel: 1, stride: 1, dilation: 1, before: 0 };
    let (height, width) = if spec.rank() == 2 { (axis(0), axis(1)) } else { (none, axis(0)) };
    let (batch, window) = (shape.n().copied().unwrap_or(1), Window { height, width });
    Ok(window.is_countable().then_some((batch, window)))
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ConvolutionLayer {
    kernel: Shared<Kernel>,
    threads: Shared<Threads>,
    batch: usize,
    output: TVec<usize>,
}

enum Kernel {
    Product(Box<Convolution>),
    Depthwise(Depthwise),
}

thread_local! {
    /// Inputs as kernels want them, one layer after the other.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl Layer for ConvolutionLayer {
    fn op(&self) -> String {
        "conv".to_owned()
    }

    fn kernel(&self) -> String {
        match &*self.kernel {
            Kernel::Product(convolution) => convolution.form().name(),
            Kernel::Depthwise(_) => "depthwise",
        }
        .to_owned()
    }

    fn output_facts(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(f32::fact(&*self.output)))
    }

    fn run(&self, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let mut output = unsafe { Tensor::uninitialized::<f32>(&self.output)? };
        {
            let input = inputs[0].try_as_plain_ram()?;
            let input = input.as_slice::<f32>()?;
            let residual = inputs.get(1).map(|residual| residual.try_as_plain_ram()).transpose()?;
            let residual = residual.as_ref().map(|residual| residual.as_slice::<f32>()).transpose()?;
            let mut plain = output.try_as_plain_ram_mut()?;
            let output = plain.as_slice_mut::<f32>()?;
            let (input_size, output_size) = (input.len() / self.batch, output.len() / self.batch);
            for image in 0..self.batch {
                let input = &input[image * input_size..][..input_size];
                let residual = residual.map(|residual| &residual[image * output_size..][..output_size]);
                let output = &mut output[image * output_size..][..output_size];
                match &*self.kernel {
                    Kernel::Product(convolution) => SCRATCH.with_borrow_mut(|scratch| {
                        convolution.run(&self.threads, input, residual, output, scratch);
                    }),
                    Kernel::Depthwise(depthwise) => depthwise.run(&self.threads, input, residual, output),
                }
            }
        }
        Ok(tvec!(output.into_tvalue()))
    }
}

fn pool(context: &mut Context, model: &TypedModel, node: &TypedNode) -> TractResult<Option<TypedModelPatch>> {
    let Some(pool) = node.op_as::<TractMaxPool>() else { return Ok(None) };
    let fact = model.outlet_fact(node.inputs[0])?;
    let Some(input) = fact.shape.as_concrete().filter(|_| fact.datum_type == DatumType::F32) else { return Ok(None) };
    if pool.with_index_outputs.is_some() {
        return Ok(None);
    }
    let Some((_, window)) = window(&pool.pool_spec, input)? else { return Ok(None) };
    let Some(kernel) = MaxPool::new(context.isa, window) else { return Ok(None) };
    let output: TVec<usize> =
        model.outlet_fact(node.id.into())?.shape.as_concrete().context("an open dimension")?.into();
    let build = || Ok(LayerOp::boxed(PoolLayer { kernel: Shared::new(kernel.clone()), output: output.clone() }));
    let candidates = [Candidate { kernel: "rows".to_owned(), build: Box::new(build) }];
    let region = Region::of_node(node, 1);
    let op = context.choose(model, &region, "max pool", &format!("{window:?}"), &candidates)?;
    op.map(|op| region.replaced(model, op)).transpose()
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct PoolLayer {
    kernel: Shared<MaxPool>,
    output: TVec<usize>,
}

impl Layer for PoolLayer {
    fn op(&self) -> String {
        "max pool".to_owned()
    }

    fn kernel(&self) -> String {
        "rows".to_owned()
    }

    fn output_facts(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(f32::fact(&*self.output)))
    }

    fn run(&self, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let mut output = unsafe { Tensor::uninitialized::<f32>(&self.output)? };
        let input = inputs[0].try_as_plain_ram()?;
        self.kernel.run(input.as_slice::<f32>()?, output.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?);
        Ok(tvec!(output.into_tvalue()))
    }
}

/// Sums over the last axes: most of a global average pool.
fn sum(context: &mut Context, model: &TypedModel, node: &TypedNode) -> TractResult<Option<TypedModelPatch>> {
    let Some(reduce) = node.op_as::<Reduce>().filter(|reduce| reduce.reducer == Reducer::Sum) else { return Ok(None) };
    let fact = model.outlet_fact(node.inputs[0])?;
    let Some(input) = fact.shape.as_concrete().filter(|_| fact.datum_type == DatumType::F32) else { return Ok(None) };
    let mut axes = reduce.axes.clone();
    axes.sort_unstable();
    let last = axes.iter().copied().eq(input.len() - axes.len()..input.len());
    // One axis may be part of a normalisation, which others look for.
    if axes.len() < 2 || !last || input.contains(&0) {
        return Ok(None);
    }
    let output: TVec<usize> =
        model.outlet_fact(node.id.into())?.shape.as_concrete().context("an open dimension")?.into();
    let isa = context.isa;
    let build = || Ok(LayerOp::boxed(SumLayer { isa, output: output.clone() }));
    let candidates = [Candidate { kernel: "rows".to_owned(), build: Box::new(build) }];
    let region = Region::of_node(node, 1);
    let op = context.choose(model, &region, "sum", &format!("{axes:?}"), &candidates)?;
    op.map(|op| region.replaced(model, op)).transpose()
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct SumLayer {
    isa: Isa,
    output: TVec<usize>,
}

impl Layer for SumLayer {
    fn op(&self) -> String {
        "sum".to_owned()
    }

    fn kernel(&self) -> String {
        "rows".to_owned()
    }

    fn output_facts(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(f32::fact(&*self.output)))
    }

    fn run(&self, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let mut output = unsafe { Tensor::uninitialized::<f32>(&self.output)? };
        let input = inputs[0].try_as_plain_ram()?;
        pool_sum::sums(self.isa, input.as_slice::<f32>()?, output.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?);
        Ok(tvec!(output.into_tvalue()))
    }
}
