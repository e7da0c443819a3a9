//! A measurement with nothing in it, for tests to fill.

use espalier_bench::record::Measurement;
use espalier_protocol::{BoardState, Hello, Loaded};

pub fn measurement() -> Measurement {
    Measurement {
        hello: Hello {
            protocol: espalier_protocol::VERSION,
            runner: "0.1.0".into(),
            arch: "aarch64".into(),
            pid: 1,
            engine: "tract".into(),
            cpu_features: vec![],
        },
        loaded: Loaded { parse_ns: 1, optimise_ns: 1, inputs: vec![], outputs: vec![], macs: None, ratios: vec![] },
        first_ns: None,
        first_digest: None,
        timed_ns: vec![],
        memory: None,
        predictions: None,
        kernels: vec![],
        profile: vec![],
        switched: vec![],
        before: BoardState::default(),
        after: BoardState::default(),
    }
}
