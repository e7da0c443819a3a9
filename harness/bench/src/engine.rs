//! What runs a model: the runner as it is, or something to be compared with it. Part of a case's identity; where nothing is said, here and in records of
//! earlier releases, it is the runner as it is.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// The runner as it is. Before it had kernels of its own that was plain tract, as the `hello` of such records says.
    #[default]
    Espalier,
    /// The same runner without kernels of its own.
    Tract,
    /// A program of this host beside the runner.
    Onnxruntime,
}

impl Engine {
    pub const ALL: [Engine; 3] = [Engine::Espalier, Engine::Tract, Engine::Onnxruntime];

    pub fn name(self) -> &'static str {
        match self {
            Engine::Espalier => "espalier",
            Engine::Tract => "tract",
            Engine::Onnxruntime => "onnxruntime",
        }
    }

    /// # Errors
    /// Lists the names there are.
    pub fn parse(text: &str) -> Result<Engine, String> {
        let known = || Engine::ALL.map(Engine::name).join(", ");
        let engine = Engine::ALL.into_iter().find(|engine| engine.name() == text);
        engine.ok_or_else(|| format!("unknown engine `{}` (known: {})", text.escape_debug(), known()))
    }

    /// Whether names and records leave it out, so that series of earlier releases go on.
    pub fn is_default(&self) -> bool {
        *self == Engine::default()
    }

    /// Whether it is the runner that is started, on whatever board, and not a program of this host alone.
    pub fn is_in_runner(self) -> bool {
        self != Engine::Onnxruntime
    }

    /// Whether it reads packed models.
    pub fn reads_packs(self) -> bool {
        self.is_in_runner()
    }
}

/// What a run without a word about engines is made with.
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
        let expected = "unknown engine `ort` (known: espalier, tract, onnxruntime)";
        assert_eq!(Engine::parse("ort"), Err(expected.to_owned()));
    }
}
