"""Runs every case in a folder with onnxruntime: the meaning of single operators, from an engine that shares nothing
with ours.

    python3 tests/oracle/ops.py FOLDER

needs `pip install numpy onnx onnxruntime`. A case is `NAME.onnx` with its fed inputs as `NAME.in.0`, `NAME.in.1`, …
(TensorProto each). Leaves `NAME.out.0`, … beside it, or `NAME.refused` with onnxruntime's words. Prints one JSON
object: `run`, `refused`.
"""

import json
import pathlib
import sys

import onnx
import onnxruntime
from onnx import numpy_helper


def main(folder):
    run = refused = 0
    for path in sorted(pathlib.Path(folder).glob("*.onnx")):
        stem = path.with_suffix("")
        try:
            outputs = outputs_of(path, stem)
        except Exception as error:  # noqa: BLE001: whatever it is, it is the answer
            stem.with_suffix(".refused").write_text(str(error))
            refused += 1
            continue
        for index, value in enumerate(outputs):
            stem.with_suffix(f".out.{index}").write_bytes(numpy_helper.from_array(value).SerializeToString())
        run += 1
    print(json.dumps({"run": run, "refused": refused}))


def outputs_of(path, stem):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feeds = {}
    for index, item in enumerate(session.get_inputs()):
        tensor = onnx.TensorProto.FromString(stem.with_suffix(f".in.{index}").read_bytes())
        feeds[item.name] = numpy_helper.to_array(tensor)
    return session.run(None, feeds)


if __name__ == "__main__":
    main(sys.argv[1])
