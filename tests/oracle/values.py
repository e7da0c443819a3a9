"""Runs an ONNX file on made-up inputs with onnxruntime and keeps inputs and outputs.

    python3 tests/oracle/values.py FILE.onnx VALUES.npz

needs `pip install numpy onnxruntime`. Open axes get small sizes, those of one name the same; integers are 0 or 1. Graph
optimisations are off, so that each node is computed as the file says. VALUES gets `in0`, `in1`, … and `out0`, `out1`,
…, in the order of the file.
"""

import sys

import numpy as np
from same import DTYPES, SIZES, session


def main():
    model, values = sys.argv[1:]
    reference = session(model)
    random = np.random.default_rng(1)
    feeds, sizes = {}, {}
    for item in reference.get_inputs():
        shape = [n if isinstance(n, int) else sizes.setdefault(n, SIZES[len(sizes) % len(SIZES)]) for n in item.shape]
        dtype = DTYPES[item.type]
        drawn = random.standard_normal(shape) if dtype == np.float32 else random.integers(0, 2, shape)
        feeds[item.name] = drawn.astype(dtype)
    inputs = {f"in{index}": value for index, value in enumerate(feeds.values())}
    outputs = {f"out{index}": value for index, value in enumerate(reference.run(None, feeds))}
    np.savez(values, **inputs, **outputs)


if __name__ == "__main__":
    main()
