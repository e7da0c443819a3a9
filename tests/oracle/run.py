"""Runs an ONNX file with onnxruntime and keeps every output in full precision: an engine that shares nothing with ours.

    python3 tests/oracle/run.py FILE.onnx INPUTS.npz OUTPUTS.npz [--check] [--batch N] [--values NAME...]

needs `pip install numpy onnx onnxruntime`. INPUTS has one array for each input of the model, by its name; `x` may stand
for the first, and arrays are cast to the type of the input. OUTPUTS gets one array for each output, by its name ("/"
becomes "|": the arrays of an `.npz` are files of a zip). Graph optimisations are off, so that each node is computed as
the file says.

--check     `onnx.checker` with full check (shape inference included) first; what it refuses fails here
--batch N   feeds N samples at a time and joins the outputs along their first axis, for models with a fixed batch axis
--values    also these values inside the graph, which become outputs of the copy that is run

Prints one JSON object: `outputs` (name to shape), `checked`, `seconds` (of the run alone).
"""

import argparse
import json
import time

import numpy as np
import onnx
import onnxruntime

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("inputs")
    parser.add_argument("outputs")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--values", nargs="*", default=[])
    args = parser.parse_args()

    if args.check:
        onnx.checker.check_model(args.model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(opened(args.model, args.values), options, providers=["CPUExecutionProvider"])

    inputs = session.get_inputs()
    arrays = dict(np.load(args.inputs))
    if "x" in arrays and "x" not in [item.name for item in inputs]:
        arrays[inputs[0].name] = arrays.pop("x")
    feeds = {item.name: arrays[item.name].astype(DTYPES[item.type]) for item in inputs}

    samples = len(next(iter(feeds.values()))) if feeds else 1
    batch = args.batch or max(samples, 1)
    parts = []
    started = time.perf_counter()
    for start in range(0, max(samples, 1), batch):
        # Inputs without an axis of samples (a scalar) go in whole each time.
        is_sliced = {name: bool(values.ndim and args.batch) for name, values in feeds.items()}
        slices = {
            name: values[start : start + batch] if is_sliced[name] else values for name, values in feeds.items()
        }
        parts.append(session.run(None, slices))
    seconds = time.perf_counter() - started

    names = [item.name for item in session.get_outputs()]
    joined = parts[0] if len(parts) == 1 else [np.concatenate(values) for values in zip(*parts)]
    outputs = dict(zip(names, joined))
    with open(args.outputs, "wb") as file:
        np.savez(file, **{name.replace("/", "|"): value for name, value in outputs.items()})
    shapes = {name: list(np.shape(value)) for name, value in outputs.items()}
    print(json.dumps({"outputs": shapes, "checked": args.check, "seconds": seconds}))


def opened(path, values):
    """The file itself, or a copy with more outputs."""
    if not values:
        return path
    model = onnx.load(path)
    known = {item.name for item in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in values if name not in known)
    return model.SerializeToString()


if __name__ == "__main__":
    main()
