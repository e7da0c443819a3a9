//! `inspect`: a model's inputs and outputs, what of it can be pruned, and why the rest cannot.

use anyhow::{Context as _, Result};
use clap::Args;
use espalier_bench::exit::ExitStatus;
use espalier_protocol::text::sanitise;
use espalier_prune::{
    Axis, Bytes, Inspection, Port,
    structure::{self, Report},
};

use crate::{
    context::{Context, usage},
    progress::Progress,
    pruning::{self, refused, units},
    recipe_flags::Subject,
    terminal::{print, print_json},
};

#[derive(Args)]
pub struct Flags {
    /// A model by its file's name in models/, or an ONNX file
    #[arg(value_name = "MODEL|FILE.onnx")]
    model: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(flags: Flags) -> Result<ExitStatus> {
    let context = Context::open()?;
    let subject = Subject::find(&context, &flags.model, &Progress::new(false))?;
    let file = espalier_prune::file::read(&subject.source).map_err(usage)?;
    let failed = || format!("failed to inspect `{}`", subject.source.display());
    let inspection = espalier_prune::inspect(&file).map_err(refused).with_context(failed)?;
    // Finding channel groups takes a run by the engine; a model that it cannot run is inspected without them.
    let structure = structure::inspect(&file, &structure::Options::default()).map_err(|error| error.to_string());
    let runner = pruning::for_the_runner(&file);
    if flags.json {
        print_json(&(serde_json::to_string_pretty(&json(&file, &inspection, &structure, &runner))? + "\n"))?;
    } else {
        print(text(&flags.model, &file, &inspection, &structure) + &pruning::runner_text(&runner))?;
    }
    Ok(ExitStatus::Ok)
}

type Structure = Result<Report, String>;

fn text(name: &str, file: &Bytes, inspection: &Inspection, structure: &Structure) -> String {
    let opsets = inspection.opsets.iter().map(|(domain, version)| {
        if domain.is_empty() { format!("opset {version}") } else { format!("{} {version}", sanitise(domain)) }
    });
    let mut facts = vec![format!("{} bytes", file.len()), format!("IR {}", inspection.ir_version)];
    facts.extend(opsets);
    if !inspection.producer.is_empty() {
        facts.push(format!("by {}", sanitise(&inspection.producer)));
    }
    let mut text = format!("{name}: {}\n", facts.join(", "));
    for (what, ports) in [("input", &inspection.inputs), ("output", &inspection.outputs)] {
        for port in ports {
            text += &format!("  {what:<6} {:<33} {} {}\n", sanitise(&port.name), port.dtype, axes(port));
        }
    }
    text += &format!("{} parameters, {} of them prunable weights\n", inspection.parameters, inspection.prunable);
    match &inspection.macs {
        Some(macs) => {
            let sum = |part: fn(&(u64, u64)) -> u64| macs.iter().map(part).fold(0, u64::saturating_add);
            let (all, nonzero) = (sum(|macs| macs.0), sum(|macs| macs.1));
            text += &format!("{all} multiply-accumulates a sample, {nonzero} of them with a weight that is not zero\n");
        }
        None => text += "the number of multiply-accumulates is not known from the file\n",
    }
    for (index, tensor) in inspection.tensors.iter().enumerate() {
        let macs = inspection.macs.as_ref().and_then(|macs| macs.get(index));
        let share = 100.0 * tensor.zeros as f64 / tensor.weights.max(1) as f64;
        text += &format!(
            "  {:<40} {:>10} weights {:<18} {share:5.1} % zero{}\n",
            sanitise(&tensor.name),
            tensor.weights,
            format!("{:?}", tensor.shape),
            macs.map(|(all, _)| format!(" {all:>12} MACs")).unwrap_or_default()
        );
    }
    for untouched in &inspection.untouched {
        text += &format!(
            "  {:<40} {:>10} not pruned: {}\n",
            sanitise(&untouched.name),
            untouched.parameters,
            sanitise(&untouched.reason.to_string())
        );
    }
    match structure {
        Ok(report) => text + &structure_text(report),
        Err(why) => text + &format!("no tensor can be made smaller: {}\n", sanitise(why)),
    }
}

fn axes(port: &Port) -> String {
    let Some(axes) = &port.axes else {
        return "of unknown rank".to_owned();
    };
    let axes = axes.iter().map(|axis| match axis {
        Axis::Fixed(length) => length.to_string(),
        Axis::Free(name) if name.is_empty() => "?".to_owned(),
        Axis::Free(name) => sanitise(name),
    });
    format!("[{}]", axes.collect::<Vec<_>>().join(", "))
}

fn structure_text(report: &Report) -> String {
    let mut text = format!("{} dimensions whose units can be removed\n", report.groups.len());
    for group in &report.groups {
        let units = units(group.units as u64, group.kind.name());
        let axes = group.axes.iter().map(|(tensor, axis)| format!("{}[{axis}]", sanitise(tensor)));
        text += &format!("  {:<40} {units:>20}: {}\n", sanitise(&group.name), axes.collect::<Vec<_>>().join(", "));
    }
    for branch in &report.branches {
        text += &format!("  {:<40} residual branch, {} parameters\n", sanitise(&branch.node), branch.parameters);
    }
    for kept in &report.kept {
        text += &format!("  {:<40} axis {} stays: {}\n", sanitise(&kept.tensor), kept.axis, sanitise(&kept.why));
    }
    for (op, count) in &report.unknown {
        text += &format!("  {:<40} {count}: no rule for this operator, so tensors it uses stay\n", sanitise(op));
    }
    text
}

fn json(
    file: &Bytes,
    inspection: &Inspection,
    structure: &Structure,
    runner: &Result<bool, String>,
) -> serde_json::Value {
    let port = |port: &Port| {
        let axis = |axis: &Axis| match axis {
            Axis::Fixed(length) => serde_json::json!(length),
            Axis::Free(name) => serde_json::json!(name),
        };
        let axes = port.axes.as_ref().map(|axes| axes.iter().map(axis).collect::<Vec<_>>());
        serde_json::json!({ "name": port.name, "dtype": port.dtype, "axes": axes })
    };
    let ports = |ports: &[Port]| ports.iter().map(port).collect::<Vec<_>>();
    let tensors = inspection.tensors.iter().enumerate().map(|(index, tensor)| {
        let macs = inspection.macs.as_ref().and_then(|macs| macs.get(index));
        serde_json::json!({
            "name": tensor.name, "shape": tensor.shape, "weights": tensor.weights, "zeros": tensor.zeros,
            "macs": macs.map(|macs| macs.0), "macs_nonzero": macs.map(|macs| macs.1),
        })
    });
    let untouched = inspection.untouched.iter().map(|untouched| {
        serde_json::json!({
            "name": untouched.name, "shape": untouched.shape, "parameters": untouched.parameters,
            "reason": untouched.reason, "why": untouched.reason.to_string(),
        })
    });
    let opsets =
        inspection.opsets.iter().map(|(domain, version)| serde_json::json!({ "domain": domain, "version": version }));
    serde_json::json!({
        "kind": "espalier-inspection",
        "bytes": file.len(),
        "ir_version": inspection.ir_version,
        "opsets": opsets.collect::<Vec<_>>(),
        "producer": inspection.producer,
        "inputs": ports(&inspection.inputs),
        "outputs": ports(&inspection.outputs),
        "parameters": inspection.parameters,
        "prunable": inspection.prunable,
        "tensors": tensors.collect::<Vec<_>>(),
        "untouched": untouched.collect::<Vec<_>>(),
        "structure": structure.as_ref().ok(),
        "structure_refused": structure.as_ref().err(),
        "runner_refuses": runner.as_ref().err(),
    })
}
