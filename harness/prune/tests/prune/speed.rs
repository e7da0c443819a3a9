//! A model of ResNet50's size must not keep anybody waiting.

use std::time::Instant;

use espalier_prune::{Recipe, prune};

use crate::build::*;

#[test]
fn twenty_five_million_weights_in_a_second_and_a_half() {
    // A linear congruential sequence: no two layers alike, no two runs different.
    let mut state = 1u32;
    let mut random = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state as i32 as f32 * 1e-10
    };
    let (mut tensors, mut nodes) = (Vec::new(), Vec::new());
    for layer in 0..25 {
        let values: Vec<f32> = (0..1 << 20).map(|_| random()).collect();
        tensors.push(raw(&format!("w{layer}"), &[1024, 1024], &values));
        nodes.push(node("MatMul", &format!("{layer} w{layer}"), &format!("{}", layer + 1)));
    }
    let file = model(graph(tensors, nodes));
    let times = (0..3).map(|_| {
        let start = Instant::now();
        let pruned = prune(&file, &Recipe::magnitude(0.9), None).unwrap();
        assert_eq!(pruned.manifest.removed, 23_592_960);
        start.elapsed()
    });
    let best = times.min().unwrap();
    println!("{best:?}");
    assert!(best.as_secs_f64() <= 1.5, "{best:?}");
}
