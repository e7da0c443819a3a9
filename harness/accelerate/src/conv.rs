//! Passes for convolutions and pools. A convolution absorbs the normalisation, the residual and the clamps that follow
//! it.

use std::{cell::RefCell, sync::Arc};

use espalier_kernels::{
    convolution::{Convolution, ConvolutionForm, ConvolutionShape},
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
    op::{Layer, LayerOp, Shared, blank, floats},
    region::{Region, concrete_shape},
    weights::{Filled, Weight},
};

pub const PASSES: &[Pass] = &[Pass::Node(convolution), Pass::Node(pool), Pass::Node(sum)];

/// Sparse kernels are tried from this share of zeros on.
const SPARSE_FROM: f64 = 0.3;
/// Blocks are tried where at most this share of them is not all zero.
const BLOCKS_UP_TO: f64 = 0.75;

fn convolution(context: &mut Context, model: &TypedModel, node: &TypedNode) -> TractResult<Option<TypedModelPatch>> {
    let Some(found) = ConvolutionMatch::at(context, model, node)? else { return Ok(None) };
    let (isa, threads) = (context.isa, Shared(Arc::clone(&context.threads)));
    let mut candidates = Vec::new();
    if found.is_depthwise() {
        let build = || found.layer(&threads, ConvolutionKernel::Depthwise(found.depthwise(isa)?));
        candidates.push(Candidate { kernel: "depthwise".to_owned(), build: Box::new(build) });
    } else {
        for form in forms(&found.shape, found.filled) {
            let (found, threads) = (&found, &threads);
            let build = move || found.layer(threads, ConvolutionKernel::Product(Box::new(found.product(isa, form)?)));
            candidates.push(Candidate { kernel: form.name().to_owned(), build: Box::new(build) });
        }
    }
    let op = context.choose(model, &found.region, "conv", &found.key(), &candidates)?;
    op.map(|op| found.region.replaced(model, op)).transpose()
}

/// Which kernels may be the fastest.
fn forms(shape: &ConvolutionShape, filled: Filled) -> Vec<ConvolutionForm> {
    let mut forms = vec![ConvolutionForm::Dense];
    if Convolution::suits_tiles(&shape.window) {
        forms.push(ConvolutionForm::Tiles);
    }
    if 1.0 - filled.cells >= SPARSE_FROM {
        forms.push(ConvolutionForm::Sparse(Height::One));
        for (height, filled) in [(Height::Four, filled.four), (Height::Eight, filled.eight)] {
            if filled <= BLOCKS_UP_TO {
                forms.push(ConvolutionForm::Sparse(height));
            }
        }
    }
    forms
}

/// A convolution of the graph with constant weights, and what follows it.
struct ConvolutionMatch {
    batch: usize,
    shape: ConvolutionShape,
    weight: Weight,
    filled: Filled,
    bias: Vec<f32>,
    chain: Chain,
    output: TVec<usize>,
    region: Region,
}

impl ConvolutionMatch {
    fn at(context: &Context, model: &TypedModel, node: &TypedNode) -> TractResult<Option<ConvolutionMatch>> {
        let Some(conv) = node.op_as::<Conv>() else { return Ok(None) };
        let Some(input) = concrete_floats(model, node.inputs[0])? else { return Ok(None) };
        if conv.q_params.is_some() || conv.kernel_fmt != KernelFormat::OIHW {
            return Ok(None);
        }
        let Some((batch, window)) = window(&conv.pool_spec, input)? else { return Ok(None) };
        let Some(weight) = context.weight(model, node.inputs[1])? else { return Ok(None) };
        let Some(bias) = context.constant(model, node.inputs[2])? else { return Ok(None) };
        let (channels, filters, groups) = (conv.input_channels(), conv.output_channels(), conv.group);
        let shape = ConvolutionShape { channels, filters, groups, window };
        let Some(bias) = floats(&bias).filter(|_| weight.datum_type() == DatumType::F32) else { return Ok(None) };
        let bias = if bias.len() == 1 { vec![bias[0]; filters] } else { bias };
        let consistent = bias.len() == filters && weight.shape().iter().product::<usize>() == filters * shape.depth();
        ensure!(consistent, "weights and bias are not those of {filters} filters");

        let filled = weight.filled(filters, filters / groups)?;
        let c_axis = usize::from(conv.pool_spec.data_format.has_n());
        let chain = Chain::after(context, model, node, c_axis, filters)?;
        let mut inputs = tvec!(node.inputs[0]);
        inputs.extend(chain.residual);
        let region = Region { name: node.name.clone(), inputs, outputs: tvec!(chain.last) };
        let output = concrete_shape(model, node.id.into())?;
        Ok(Some(ConvolutionMatch { batch, shape, weight, filled, bias, chain, output, region }))
    }

    fn is_depthwise(&self) -> bool {
        let ConvolutionShape { channels, filters, groups, window } = self.shape;
        groups == channels && groups == filters && window.width.stride <= 2
    }

    fn depthwise(&self, isa: Isa) -> TractResult<Depthwise> {
        let (weights, bias) = self.folded()?;
        let depthwise = Depthwise::new(isa, self.shape.window, weights, bias, self.chain.clamp());
        depthwise.context("the kernel does not support this stride")
    }

    fn product(&self, isa: Isa, form: ConvolutionForm) -> TractResult<Convolution> {
        let (shape, clamp) = (self.shape, self.chain.clamp());
        // Where weight and kernel both leave out zeros, the weight is not made dense.
        if let (Weight::Sparse { matrix, .. }, ConvolutionForm::Sparse(height)) = (&self.weight, form) {
            let (mut factors, mut bias) = (vec![1.0; shape.filters], self.bias.clone());
            self.chain.fold(&mut factors, &mut bias);
            if let Some(product) = Convolution::of_cells(isa, shape, height, (matrix, &factors), bias, clamp) {
                return Ok(product);
            }
        }
        let (weights, bias) = self.folded()?;
        let product = Convolution::new(isa, shape, form, &weights, bias, clamp);
        product.context("the kernel does not support this shape")
    }

    /// Weights and bias with the factors and sums of the chain.
    fn folded(&self) -> TractResult<(Vec<f32>, Vec<f32>)> {
        let dense = self.weight.dense()?;
        let mut weights = dense.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
        let mut bias = self.bias.clone();
        self.chain.fold(&mut weights, &mut bias);
        Ok((weights, bias))
    }

    fn layer(&self, threads: &Shared<Threads>, kernel: ConvolutionKernel) -> TractResult<Box<dyn TypedOp>> {
        Ok(LayerOp::boxed(ConvolutionLayer {
            kernel: Shared::new(kernel),
            threads: threads.clone(),
            batch: self.batch,
            output: self.output.clone(),
        }))
    }

    /// What tells the layer from others with the same inputs and outputs.
    fn key(&self) -> String {
        let ConvolutionShape { groups, window: Window { height, width }, .. } = self.shape;
        format!(
            "{}x{} stride {} {} dilation {} {} pads {} {} groups {groups}{}, {}",
            height.kernel,
            width.kernel,
            height.stride,
            width.stride,
            height.dilation,
            width.dilation,
            height.before,
            width.before,
            self.chain.description(),
            self.filled.pattern()
        )
    }
}

/// The shape of an outlet of f32 without open dimensions.
fn concrete_floats(model: &TypedModel, outlet: OutletId) -> TractResult<Option<&[usize]>> {
    let fact = model.outlet_fact(outlet)?;
    Ok(fact.shape.as_concrete().filter(|_| fact.datum_type == DatumType::F32))
}

/// The number of images, and the window, with a second axis where the model has only one. `None` for what the kernels
/// do not support.
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
    kernel: Shared<ConvolutionKernel>,
    threads: Shared<Threads>,
    batch: usize,
    output: TVec<usize>,
}

enum ConvolutionKernel {
    Product(Box<Convolution>),
    Depthwise(Depthwise),
}

thread_local! {
    /// Inputs in the layout of kernels, for one layer after another.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl Layer for ConvolutionLayer {
    fn op(&self) -> String {
        "conv".to_owned()
    }

    fn kernel(&self) -> String {
        match &*self.kernel {
            ConvolutionKernel::Product(convolution) => convolution.form().name(),
            ConvolutionKernel::Depthwise(_) => "depthwise",
        }
        .to_owned()
    }

    fn output_facts(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(f32::fact(&*self.output)))
    }

    fn run(&self, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let mut output = blank(&self.output)?;
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
                    ConvolutionKernel::Product(convolution) => SCRATCH.with_borrow_mut(|scratch| {
                        convolution.run(&self.threads, input, residual, output, scratch);
                    }),
                    ConvolutionKernel::Depthwise(depthwise) => depthwise.run(&self.threads, input, residual, output),
                }
            }
        }
        Ok(tvec!(output.into_tvalue()))
    }
}

fn pool(context: &mut Context, model: &TypedModel, node: &TypedNode) -> TractResult<Option<TypedModelPatch>> {
    let Some(pool) = node.op_as::<TractMaxPool>().filter(|pool| pool.with_index_outputs.is_none()) else {
        return Ok(None);
    };
    let Some(input) = concrete_floats(model, node.inputs[0])? else { return Ok(None) };
    let Some((_, window)) = window(&pool.pool_spec, input)? else { return Ok(None) };
    let Some(kernel) = MaxPool::new(context.isa, window) else { return Ok(None) };
    rows_layer(context, model, node, RowsKernel::MaxPool(kernel), &format!("{window:?}"))
}

/// Sums over the last axes, which are most of a global average pool.
fn sum(context: &mut Context, model: &TypedModel, node: &TypedNode) -> TractResult<Option<TypedModelPatch>> {
    let Some(reduce) = node.op_as::<Reduce>().filter(|reduce| reduce.reducer == Reducer::Sum) else { return Ok(None) };
    let Some(input) = concrete_floats(model, node.inputs[0])? else { return Ok(None) };
    let mut axes = reduce.axes.clone();
    axes.sort_unstable();
    let last = axes.iter().copied().eq(input.len() - axes.len()..input.len());
    // A sum over one axis may be part of a layer normalisation, which another pass looks for.
    if axes.len() < 2 || !last || input.contains(&0) {
        return Ok(None);
    }
    rows_layer(context, model, node, RowsKernel::Sum(context.isa), &format!("{axes:?}"))
}

fn rows_layer(
    context: &mut Context,
    model: &TypedModel,
    node: &TypedNode,
    kernel: RowsKernel,
    what: &str,
) -> TractResult<Option<TypedModelPatch>> {
    let layer = RowsLayer { kernel, output: concrete_shape(model, node.id.into())? };
    let build = || Ok(LayerOp::boxed(layer.clone()));
    let candidates = [Candidate { kernel: layer.kernel(), build: Box::new(build) }];
    let region = Region::of_node(node, 1);
    let op = context.choose(model, &region, &layer.op(), what, &candidates)?;
    op.map(|op| region.replaced(model, op)).transpose()
}

/// A layer that works row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RowsLayer {
    kernel: RowsKernel,
    output: TVec<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum RowsKernel {
    MaxPool(MaxPool),
    Sum(Isa),
}

impl Layer for RowsLayer {
    fn op(&self) -> String {
        match self.kernel {
            RowsKernel::MaxPool(_) => "max pool".to_owned(),
            RowsKernel::Sum(_) => "sum".to_owned(),
        }
    }

    fn kernel(&self) -> String {
        "rows".to_owned()
    }

    fn output_facts(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(f32::fact(&*self.output)))
    }

    fn run(&self, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let mut output = blank(&self.output)?;
        let (input, mut to) = (inputs[0].try_as_plain_ram()?, output.try_as_plain_ram_mut()?);
        let (input, to) = (input.as_slice::<f32>()?, to.as_slice_mut::<f32>()?);
        match &self.kernel {
            RowsKernel::MaxPool(pool) => pool.run(input, to),
            RowsKernel::Sum(isa) => pool_sum::sums(*isa, input, to),
        }
        Ok(tvec!(output.into_tvalue()))
    }
}
