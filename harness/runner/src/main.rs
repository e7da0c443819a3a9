use tract_onnx::prelude::*;
fn main() {
    let f = std::env::args().nth(1).unwrap();
    let m = tract_onnx::onnx().model_for_path(f).unwrap().into_optimized().unwrap().into_runnable().unwrap();
    println!("{:?}", m.model().nodes().len());
}
