"""Scores an ONNX file on an `.npz` eval set with onnxruntime: an engine that shares nothing with ours.

    python3 tests/oracle/accuracy.py FILE.onnx EVAL.npz

needs `pip install numpy onnx onnxruntime`. Prints one JSON object: `samples`, `accuracy` and `correct` (null where the
set has no `y`), `predicted` (the class of each sample: the first of the largest values of the first output) and
`checked` (`onnx.checker`, full check, passed). `x` stands for the model's first input, other arrays for the inputs of
their names, as in our own reader.
"""

import json
import sys

import numpy as np
import onnx
import onnxruntime

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(double)": np.float64,
}


def main(model_path, eval_path):
    onnx.checker.check_model(model_path, full_check=True)
    session = onnxruntime.InferenceSession(model_path, providers=["CPUExecutionProvider"])
    arrays = dict(np.load(eval_path))
    labels = arrays.pop("y", None)
    inputs = session.get_inputs()
    if "x" in arrays and "x" not in [item.name for item in inputs]:
        arrays[inputs[0].name] = arrays.pop("x")
    feeds = {item.name: arrays[item.name].astype(DTYPES[item.type]) for item in inputs}

    # A fixed batch axis is fed in slices of that length, a free one all at once.
    samples = len(next(iter(feeds.values())))
    batch = inputs[0].shape[0] if isinstance(inputs[0].shape[0], int) else samples
    predicted = []
    for start in range(0, samples, batch):
        slices = {name: values[start : start + batch] for name, values in feeds.items()}
        output = session.run(None, slices)[0]
        predicted.extend(int(row.argmax()) for row in output.reshape(len(output), -1))

    correct = None if labels is None else int((np.asarray(predicted) == labels).sum())
    print(
        json.dumps(
            {
                "samples": samples,
                "accuracy": None if correct is None else correct / samples,
                "correct": correct,
                "predicted": predicted,
                "checked": True,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
