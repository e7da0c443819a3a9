"""Runs two ONNX files on the same made-up inputs with onnxruntime, and tells how far apart their outputs are.

    python3 tests/oracle/same.py FIRST.onnx SECOND.onnx [SECOND.onnx...]

needs `pip install numpy onnx onnxruntime`. Each file but the first has to pass `onnx.checker` with full check (shape
inference included). Open axes get small sizes, those of one name the same; integers are 0 or 1. Graph optimisations are
off, so that each node is computed as the file says.

Prints one JSON object: by file after the first, `difference` is the largest of all outputs, relative to the largest
value of the first file's; `largest` is that value.
"""

import json
import sys

import numpy as np
import onnx
import onnxruntime

SIZES = [2, 6, 9, 4]
DTYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_}


def session(path):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def main():
    first, *others = sys.argv[1:]
    reference = session(first)
    random = np.random.default_rng(1)
    feeds, sizes = {}, {}
    for item in reference.get_inputs():
        shape = [n if isinstance(n, int) else sizes.setdefault(n, SIZES[len(sizes) % len(SIZES)]) for n in item.shape]
        dtype = DTYPES[item.type]
        values = random.standard_normal(shape) if dtype == np.float32 else random.integers(0, 2, shape)
        feeds[item.name] = values.astype(dtype)
    expected = reference.run(None, feeds)
    report = {}
    for path in others:
        onnx.checker.check_model(path, full_check=True)
        found = session(path).run(None, feeds)
        largest = max(float(np.abs(a).max()) for a in expected)
        difference = max(float(np.abs(a - b).max()) for a, b in zip(expected, found, strict=True))
        report[path] = {"difference": difference / largest, "largest": largest}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
