//! A run with known truth, for tests: one model at three ratios on two devices, five rounds.
//!
//! On `local` dense takes 1.00 ms and ratio 0.5 takes 0.80 ms exactly (geometric means over the rounds), ratio 0.9
//! never ran for times. Ratio 0.5 loses 3 samples of 200 and wins 1. `virt-riscv64` is emulated, ten times slower, and
//! sends hostile text.

use espalier_protocol::{
    BoardState, CandidateTime, Hello, LayerKernel, LayerTime, Loaded, Macs, Memory, Mode, Predictions,
};

use crate::{
    engine::{self, Engine},
    record::{
        Case, DeviceInfo, Entry, FORMAT, Failure, FailureStage, Measurement, MeasuringProtocol, ModelInfo, Outcome,
        PackedInfo, PeerInfo, Provenance, Record, Run, RunHeader, RunnerInfo, VariantInfo,
    },
};

pub const RATIOS: [f64; 3] = [0.0, 0.5, 0.9];
pub const SAMPLES: usize = 200;
pub const ROUNDS: u32 = 5;

/// Shared by all variants of a round, so that pairing removes it; the product over the rounds is 1.
const DRIFT: [f64; 5] = [0.0, 0.02, -0.02, 0.01, -0.01];
/// Of one invocation; the sum over the rounds is 0 for each variant.
const NOISE: [[f64; 5]; 3] =
    [[0.004, -0.004, 0.0, 0.002, -0.002], [-0.003, 0.003, 0.001, -0.001, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]];

pub fn run() -> Run {
    let mut records = Vec::new();
    for device in ["local", "virt-riscv64"] {
        for (variant, ratio) in RATIOS.into_iter().enumerate() {
            let case = Case::new("digits-cnn", ratio, device);
            let mut push = |mode: Mode, round: u32, outcome: Outcome| {
                let sequence = records.len() as u32;
                let (start_ms, wall_ms) = (u64::from(sequence) * 100, 90);
                records.push(Record {
                    case: case.clone(),
                    mode,
                    round,
                    sequence,
                    start_ms,
                    wall_ms,
                    trial: None,
                    outcome,
                });
            };
            push(
                Mode::Score,
                0,
                measured(device, |measurement| {
                    measurement.loaded.macs =
                        Some(Macs { executed: 410_000, nonzero: 410_000 - (ratio * 400_000.0) as u64 });
                    measurement.predictions = Some(predictions(variant, device));
                }),
            );
            push(
                Mode::Memory,
                0,
                measured(device, |measurement| {
                    let peak_rss = 9_437_184 + variant as u64 * 65_536;
                    measurement.memory = Some(Memory { phases: vec![], peak_rss, peak_allocated: peak_rss / 3 });
                }),
            );
            for round in 0..ROUNDS {
                let failed = device == "local" && ratio == 0.9;
                push(Mode::Time, round, if failed { stopped() } else { timed(device, variant, round) });
            }
        }
    }
    Run { header: header(), records }
}

/// The same on `local` alone, with peers: plain tract takes twice as long at every ratio, onnxruntime one and a half
/// times; onnxruntime predicts another class for one sample of ratio 0.5. Dense and ratio 0.5 have layer times.
pub fn run_with_peers() -> Run {
    let mut run = run();
    run.header.devices.truncate(1);
    run.header.protocol.profile = true;
    run.header.engines = vec![Engine::Espalier, Engine::Tract, Engine::Onnxruntime];
    run.header.peers = vec![PeerInfo {
        engine: Engine::Onnxruntime,
        sha256: "99aabbcc".into(),
        versions: "onnxruntime 1.32.0, numpy 2.4.0, Python 3.11.7".into(),
    }];
    let local: Vec<Record> = run.records.into_iter().filter(|record| record.case.device == "local").collect();
    run.records = Vec::new();
    for (engine, factor, name) in [
        (Engine::Espalier, 1.0, "espalier 0.1.0 (tract 0.23.9)"),
        (Engine::Tract, 2.0, "tract 0.23.9"),
        (Engine::Onnxruntime, 1.5, "onnxruntime 1.32.0"),
    ] {
        for record in &local {
            let mut record = record.clone();
            record.case.engine = engine;
            if let Outcome::Measured(measurement) = &mut record.outcome {
                measurement.hello.engine = name.into();
                measurement.timed_ns.iter_mut().for_each(|ns| *ns = (*ns as f64 * factor).round() as u64);
                if engine == Engine::Onnxruntime {
                    as_onnxruntime(measurement, record.case.ratio);
                }
                if engine == Engine::Espalier {
                    measurement.kernels = kernels(record.case.ratio);
                }
            }
            run.records.push(record);
        }
    }
    for ratio in [0.0, 0.5] {
        let mut record = local[0].clone();
        (record.case.ratio, record.mode) = (ratio, Mode::Profile);
        record.outcome = measured("local", |measurement| measurement.profile = profile(ratio));
        run.records.push(record);
    }
    run
}

fn as_onnxruntime(measurement: &mut Measurement, ratio: f64) {
    measurement.loaded.macs = None;
    if let Some(memory) = &mut measurement.memory {
        memory.peak_allocated = 0;
    }
    let Some(predictions) = &mut measurement.predictions else { return };
    predictions.values.iter_mut().flatten().filter(|value| **value > 0.0).for_each(|value| *value += f32::EPSILON);
    if ratio == 0.5 {
        predictions.classes[100] += 1;
    }
}

fn kernels(ratio: f64) -> Vec<LayerKernel> {
    let layer = |name: &str, op: &str, kernel: &str| LayerKernel {
        name: name.into(),
        op: op.into(),
        kernel: kernel.into(),
        candidates: vec![CandidateTime { kernel: kernel.into(), ns: 1000 }],
        cached: false,
        unsure: false,
        note: None,
    };
    let pruned = if ratio > 0.0 { "block 4x1" } else { "dense" };
    vec![layer("conv1", "conv 3x3", "dense"), layer("conv2", "conv 1x1", pruned), layer("fc", "matmul", pruned)]
}

fn profile(ratio: f64) -> Vec<LayerTime> {
    let layer = |name: &str, op: &str, kernel: &str, median_ns: u64| LayerTime {
        name: name.into(),
        op: op.into(),
        kernel: kernel.into(),
        calls: 1,
        median_ns,
    };
    let pruned = ratio > 0.0;
    let (kernel, part) = if pruned { ("block 4x1", 4) } else { ("dense", 1) };
    let mut layers = vec![
        layer("conv1", "conv 3x3", "dense", 200_000),
        layer("conv2", "conv 1x1", kernel, 600_000 / part),
        layer("fc|\u{1b}", "matmul", kernel, 199_000 / part),
        layer("flatten", "reshape", "tract", 1_000),
    ];
    // Only one of them has it.
    if pruned {
        layers.push(layer("softmax", "softmax", "tract", 60_000));
    }
    layers
}

/// The run's file.
pub fn lines(run: &Run) -> String {
    let header = Entry::Header(Box::new(run.header.clone()));
    let records = run.records.iter().map(|record| Entry::Record(Box::new(record.clone())));
    [header].into_iter().chain(records).map(|entry| serde_json::to_string(&entry).unwrap() + "\n").collect()
}

pub fn header() -> RunHeader {
    let variant = |ratio: f64| VariantInfo {
        ratio,
        sha256: format!("{:064x}", (ratio * 100.0) as u64),
        bytes: 215_040,
        prunable: 52_000,
        // At 0.9 a layer kept more than its share.
        removed: if ratio == 0.9 { 46_540 } else { (ratio * 52_000.0) as u64 },
        parameters: 52_200,
        zeros: (ratio * 52_000.0) as u64,
        // Of one only, as where another was too large to be packed.
        packed: (ratio == 0.5).then_some(PackedInfo { lossless: 98_304, bitmap_codebook: Some(24_576) }),
        ..VariantInfo::default()
    };
    let device = |name: &str, triple: &str, emulated: bool| DeviceInfo {
        name: name.into(),
        target: triple.split('-').next().unwrap().into(),
        triple: triple.into(),
        emulated,
        threads: 1,
        runner: Some(RunnerInfo {
            sha256: "1a2b3c4d5e6f".into(),
            bytes: 4_299_161,
            builder: "cargo, rustc 1.91.0".into(),
        }),
    };
    RunHeader {
        format: FORMAT,
        id: "20261123T191500Z-3f9a".into(),
        started: "2026-11-23T19:15:00Z".into(),
        provenance: Provenance {
            espalier: "0.1.0".into(),
            revision: Some("7c7533f+".into()),
            host: "workbench".into(),
            command: vec!["cargo".into(), "xtask".into(), "bench".into()],
        },
        shapes: Vec::new(),
        protocol: MeasuringProtocol { runs: ROUNDS, warmup: 20, iterations: 100, min_time_ms: 500, profile: false },
        models: vec![ModelInfo {
            name: "digits-cnn".into(),
            source: "digits-cnn/dense.onnx".into(),
            eval: None,
            recipe: "magnitude, global, weight".into(),
            labels: Some(labels()),
            truth: None,
            task: None,
            samples: None,
            inputs: Some("abcd".into()),
            variants: RATIOS.map(variant).to_vec(),
            max_accuracy_drop: Some(0.01),
        }],
        devices: vec![
            device("local", "x86_64-unknown-linux-gnu", false),
            device("virt-riscv64", "riscv64gc-unknown-linux-gnu", true),
        ],
        engines: engine::default_engines(),
        skip_below: None,
        nested: false,
        unit: None,
        peers: Vec::new(),
        reference_device: Some("local".into()),
    }
}

/// The median of a round's raw values, in ns and unrounded.
pub fn median_ns(device: &str, variant: usize, round: u32) -> f64 {
    let truth = [1.00e6, 0.80e6, 0.70e6][variant] * if device == "local" { 1.0 } else { 10.0 };
    truth * (DRIFT[round as usize] + NOISE[variant][round as usize]).exp()
}

pub fn timed(device: &str, variant: usize, round: u32) -> Outcome {
    let median = median_ns(device, variant, round);
    measured(device, |measurement| {
        measurement.first_ns = Some((median * 3.0) as u64);
        // An odd number of values, evenly around the median; the highest a tenth above it.
        measurement.timed_ns = (0..121).map(|i| (median * (1.0 + f64::from(i - 60) / 600.0)).round() as u64).collect();
    })
}

pub fn measured(device: &str, change: impl FnOnce(&mut Measurement)) -> Outcome {
    let hostile = device != "local";
    let state = BoardState {
        kernel: Some("6.1.0".into()),
        cpu: Some(if hostile { "QEMU | \u{1b}[31mvirt @root".into() } else { "Bench CPU 3000".into() }),
        cpus: Some(if hostile { 1 } else { 2 }),
        governor: Some("performance".into()),
        frequency_khz: Some(3_000_000),
        max_frequency_khz: Some(3_000_000),
        throttled: Some(false),
        ..BoardState::default()
    };
    let mut measurement = Measurement {
        hello: Hello {
            protocol: espalier_protocol::VERSION,
            runner: "0.1.0".into(),
            arch: "x86_64".into(),
            pid: 1,
            engine: "tract 0.23.9".into(),
            cpu_features: vec![],
        },
        loaded: Loaded {
            parse_ns: 4_000_000,
            optimise_ns: 8_500_000,
            inputs: vec![],
            outputs: vec![],
            macs: None,
            ratios: vec![],
        },
        first_ns: None,
        first_digest: None,
        timed_ns: vec![],
        memory: None,
        predictions: None,
        kernels: vec![],
        profile: vec![],
        switched: vec![],
        before: state.clone(),
        after: state,
    };
    change(&mut measurement);
    Outcome::Measured(Box::new(measurement))
}

fn stopped() -> Outcome {
    let message = "the runner was cut off before `finished`: signal 9 | \u{1b}]0;x\u{7}".to_owned();
    Outcome::Failed(Failure { stage: FailureStage::Run, message: message.into() })
}

fn labels() -> Vec<i64> {
    (0..SAMPLES as i64).map(|sample| sample % 10).collect()
}

/// Dense is wrong on samples 0 to 3, ratio 0.5 on 1 to 6, ratio 0.9 on 1 to 20.
fn predictions(variant: usize, device: &str) -> Predictions {
    let wrong = [0..4, 1..7, 1..21][variant].clone();
    let class = |sample: usize| (sample as u32 % 10 + u32::from(wrong.contains(&sample))) % 10;
    let classes: Vec<u32> = (0..SAMPLES).map(class).collect();
    let value = if device == "local" { 1.0 } else { 1.0 + f32::EPSILON };
    let values = classes.iter().map(|class| (0..10).map(|i| if i == *class { value } else { 0.0 }).collect()).collect();
    Predictions { start: 0, classes, values, ..Predictions::default() }
}
