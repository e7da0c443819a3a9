//! What runs a model: the runner, or an engine it is compared with. The engine is part of a case's identity. Where a
//! name or a record leaves it out, as those of earlier releases do, it is the runner.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// The runner with its own kernels. Before it had any this was plain tract, as the `hello` of such records says.
    #[default]
    Espalier,
    /// The runner without its own kernels.
    Tract,
    /// onnxruntime, in a process of its own; on this host only.
    Onnxruntime,
    /// The runner with `--skip-below`: layers with dense weights leave out activations that are zero or close to it.
    Skipping,
}

impl Engine {
    pub const ALL: [Engine; 4] = [Engine::Espalier, Engine::Tract, Engine::Onnxruntime, Engine::Skipping];

    pub fn name(self) -> &'static str {
        match self {
            Engine::Espalier => "espalier",
            Engine::Tract => "tract",
            Engine::Onnxruntime => "onnxruntime",
            Engine::Skipping => "skipping",
        }
    }

    /// # Errors
    /// Lists the known names.
    pub fn parse(text: &str) -> Result<Engine, String> {
        let known = || Engine::ALL.map(Engine::name).join(", ");
        let engine = Engine::ALL.into_iter().find(|engine| engine.name() == text);
        engine.ok_or_else(|| format!("unknown engine `{}` (known: {})", text.escape_debug(), known()))
    }

    /// Whether names and records leave it out, so that the series of earlier releases continue.
    pub fn is_default(&self) -> bool {
        *self == Engine::default()
    }

    /// Whether the runner is started for it, on any board, and not a program that only this host has.
    pub fn is_in_runner(self) -> bool {
        self != Engine::Onnxruntime
    }

    /// Whether it reads packed models.
    pub fn reads_packs(self) -> bool {
        self.is_in_runner()
    }
}

/// The engines of a run that names none.
pub fn default_engines() -> Vec<Engine> {
    vec![Engine::default()]
}

pub(crate) fn are_default(engines: &[Engine]) -> bool {
    engines == [Engine::default()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for engine in Engine::ALL {
            assert_eq!(Engine::parse(engine.name()), Ok(engine));
            assert_eq!(serde_json::to_string(&engine).unwrap(), format!("\"{}\"", engine.name()));
        }
        let expected = "unknown engine `ort` (known: espalier, tract, onnxruntime, skipping)";
        assert_eq!(Engine::parse("ort"), Err(expected.to_owned()));
    }
}
