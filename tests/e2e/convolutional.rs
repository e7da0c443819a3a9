//! Convolutional networks by the runner's own kernels and by plain tract: as exported, with normalisations, and pruned.

use espalier_protocol::{Engine, Job};
use espalier_tests::{Shelf, cache};

use crate::linear::{check_close, job, runner, score, synthetic_inputs};

#[test]
fn convolutional_nets_agree_with_plain_tract() {
    let shelf = Shelf::new("convolutional_nets_agree_with_plain_tract");
    let runner = runner(&shelf);
    for net in ["mobile", "mobile-bn", "residual", "residual-bn", "densenet", "se", "shufflenet", "ds-cnn"] {
        for exporter in ["dynamo", "script"] {
            let name = format!("{net}-{exporter}");
            let path = espalier_fixtures::write(&name, &shelf.path("fixtures"));
            let inputs = synthetic_inputs(&shelf, &name, &path, 3);
            let job = job(&shelf, path.to_str().unwrap(), &inputs);
            let tracts = score(&runner, Job { engine: Engine::Tract, ..job.clone() });
            let ours = score(&runner, job.clone());
            check_close(&name, &ours.values, &tracts.values);
            assert!(ours.kernels.iter().any(|kernel| kernel.starts_with("conv: ")), "{name}: {:?}", ours.kernels);
            let threads = score(&runner, Job { threads: 2, ..job });
            check_close(&format!("{name}, two threads"), &threads.values, &tracts.values);
        }
    }
}

#[test]
fn a_convolutional_net_pruned_agrees_with_plain_tract() {
    let shelf = Shelf::new("a_convolutional_net_pruned_agrees_with_plain_tract");
    let runner = runner(&shelf);
    shelf.bench(&["--model", "digits-cnn", "--ratios", "0"]).expect(0);
    let inputs = shelf.newest_run().header.models[0].inputs.clone().expect("digits-cnn has an eval set");
    let inputs = cache().root.join("blobs").join(inputs).to_str().unwrap().to_owned();
    for unit in ["weight", "block-4x1", "block-8x1", "channel"] {
        let file = format!("{unit}.onnx");
        shelf.run(&["prune", "digits-cnn", "--ratio", "0.5", "--unit", unit, "-o", &file]).expect(0);
        let job = job(&shelf, shelf.path(&file).to_str().unwrap(), &inputs);
        let tracts = score(&runner, Job { engine: Engine::Tract, ..job.clone() });
        check_close(unit, &score(&runner, job).values, &tracts.values);
    }
}
