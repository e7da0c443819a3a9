//! Where an ONNX file's weights are, for packing, and on which side of each its outputs are.

use anyhow::Result;
use espalier_prune::{
    Bytes, OnnxError,
    layout::{Direction, Layout},
    onnx::{GraphProto, Model, TensorProto, tensor_proto::DataType},
    survey,
    tensor::Values,
};
use espalier_weights::{Channels, pack::Span};

/// Other tensors stay in the graph unless they have at least so many bytes.
const WORTH_CUTTING: usize = 4096;

/// The tensors of a model that can be packed. Those stored as lists of floats (an older form) stay in the graph.
pub struct Spans {
    pub weights: Vec<Span>,
    /// Embeddings, biases and other large f32 tensors. They were not pruned and are not rounded.
    pub others: Vec<Span>,
}

impl Spans {
    pub fn of(file: &Bytes) -> Result<Spans> {
        let model = Model::decode(file)?;
        let graph = model.graph();
        let survey = survey(&model)?;
        let mut spans = Spans { weights: Vec::new(), others: Vec::new() };
        for weight in &survey.weights {
            let tensor = weight.place.tensor(graph);
            spans.weights.extend(span(&model, &weight.name, tensor, weight.layout.as_ref())?);
        }
        for (name, tensor) in constants(graph) {
            let large = tensor.data_type() == DataType::Float as i32 && tensor.raw_data().len() >= WORTH_CUTTING;
            if large && !spans.weights.iter().any(|weight| weight.name == name) {
                spans.others.extend(span(&model, name, tensor, None)?);
            }
        }
        Ok(spans)
    }
}

/// `None` for a tensor without raw bytes.
fn span(model: &Model, name: &str, tensor: &TensorProto, layout: Option<&Layout>) -> Result<Option<Span>, OnnxError> {
    let Values::Raw(values) = Values::of(name, tensor)? else { return Ok(None) };
    let Some(offset) = tensor.raw_data.as_ref().and_then(|raw| model.offset(raw)).filter(|_| !values.is_empty()) else {
        return Ok(None);
    };
    // Not negative: `Values::of` has checked the dimensions.
    let shape: Vec<u64> = tensor.dims.iter().map(|axis| *axis as u64).collect();
    let (rows, channels) = matrix(&shape, layout);
    Ok(Some(Span { name: name.to_owned(), shape, rows, channels, offset: offset as u64 }))
}

/// The number of rows of a tensor as a matrix, and the side of its outputs. Where outputs come first, as in Conv, the
/// axes up to and including them are rows; where they come last, as in MatMul, the axes before them.
fn matrix(shape: &[u64], layout: Option<&Layout>) -> (u64, Channels) {
    let place = |direction| layout.and_then(|layout| layout.axes.iter().position(|axis| *axis == direction));
    let (row_axes, channels) = match (place(Direction::Output), place(Direction::Input)) {
        (Some(output), Some(input)) if input < output => (output, Channels::Columns),
        (Some(output), _) => (output + 1, Channels::Rows),
        (None, _) => (usize::from(shape.len() > 1), Channels::Rows),
    };
    (shape[..row_axes].iter().product(), channels)
}

/// All dense constants of a graph with their names.
fn constants(graph: &GraphProto) -> impl Iterator<Item = (&str, &TensorProto)> {
    let initializers = graph.initializer.iter().map(|tensor| (tensor.name(), tensor));
    let nodes = graph.node.iter().filter(|node| node.op_type() == "Constant");
    initializers.chain(nodes.filter_map(|node| {
        let tensor = node.attribute.iter().find_map(|attribute| attribute.t.as_ref())?;
        Some((node.output.first()?.as_str(), tensor))
    }))
}

#[cfg(test)]
mod tests {
    use espalier_prune::layout::LayerKind;

    use super::*;

    #[test]
    fn outputs_are_found_on_their_side() {
        use Direction::{Batch, Input, Output};
        let check = |axes: &[Direction], shape: &[u64], rows: u64, channels: Channels| {
            let layout = Layout { kind: LayerKind::MatMul, axes: axes.to_vec() };
            assert_eq!(matrix(shape, Some(&layout)), (rows, channels), "{axes:?}");
        };
        check(&[Output, Input, Input, Input], &[64, 3, 7, 7], 64, Channels::Rows);
        check(&[Input, Output], &[512, 1000], 512, Channels::Columns);
        check(&[Batch, Output, Input], &[2, 400, 30], 800, Channels::Rows);
        check(&[Batch, Input, Output], &[2, 30, 40], 60, Channels::Columns);
        check(&[Input, Output, Output, Output], &[16, 8, 3, 3], 16, Channels::Columns);
        check(&[Input], &[30], 1, Channels::Rows);
        assert_eq!(matrix(&[1000, 64], None), (1000, Channels::Rows));
        assert_eq!(matrix(&[64], None), (1, Channels::Rows));
        assert_eq!(matrix(&[], None), (1, Channels::Rows));
    }
}
