//! `[task]` of a model's file: what the model's answers mean. What fits which kind is checked when the outputs are
//! known.

use espalier_tasks::{Kind, OutputName, Scale, Spec};

use super::{
    document::{Table, Value},
    values,
};

pub fn read_task(mut table: Table<'_, '_>) -> Spec {
    let kind = table.take("kind").and_then(|value| {
        value.parse(|text| values::choose("kind of task", text, &Kind::ALL.map(|kind| (kind.name(), kind))))
    });
    let scale = table.take("scale").and_then(|value| {
        value.parse(|text| values::choose("scale", text, &Scale::ALL.map(|scale| (scale.name(), scale))))
    });
    let spec = Spec {
        kind,
        output: table.take("output").and_then(output),
        axis: table.take("axis").and_then(|value| whole(value, 64.0)).map(|axis| axis as i32),
        top: table.take("top").and_then(|value| value.integer(1, 1000)),
        scale,
        ignore: table.take("ignore").and_then(|value| whole(value, 9e15)),
    };
    table.close();
    spec
}

/// A name, or a place from 0.
fn output(value: Value<'_, '_>) -> Option<OutputName> {
    if value.is_text() {
        return value.parse(|text| values::filled("the output", text)).map(OutputName::Name);
    }
    value.integer(0, 1 << 16).map(OutputName::Index)
}

fn whole(value: Value<'_, '_>, most: f64) -> Option<i64> {
    let number = value.number("a whole number", |number| number.fract() == 0.0 && number.abs() <= most);
    number.map(|number| number as i64)
}
