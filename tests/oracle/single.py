"""Makes models of one operator each, over all attributes, opsets 7 to 22, types and shapes, with onnxruntime's answers.

    python3 tests/oracle/single.py FOLDER COUNT SEED

needs `pip install numpy onnx onnxruntime`. A case is `NUMBER.onnx`, whose first output is the one to compare, its
samples as the runner reads them in `NUMBER.in`, and onnxruntime's first output as a TensorProto in `NUMBER.out`. What
onnxruntime refuses is drawn again, as often as it takes. An input whose first axis is not 1 is fed flat and reshaped in
the model, because a runner takes samples one by one. Prints one JSON object: `cases` by operator, `refused` (drawn but
refused by onnxruntime).

`FAMILIES` in `single_ops.py` says what is drawn of each operator.
"""

import json
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from single_ops import FAMILIES, Draw


def main(folder, count, seed):
    folder = pathlib.Path(folder)
    tally, refused = {}, 0
    for number in range(int(count)):
        name, make = FAMILIES[number % len(FAMILIES)]
        for attempt in range(40):
            draw = Draw(np.random.default_rng([int(seed), number, attempt]))
            try:
                case = make(draw)
                if case is None:
                    continue
                model, fed = model_of(case, draw)
                expected = answer(model, fed)
            except Exception:  # noqa: BLE001: whatever it is, onnxruntime or onnx refuses this draw
                refused += 1
                continue
            if not comparable(expected):
                continue
            stem = folder / f"{number:06}"
            onnx.save(model, stem.with_suffix(".onnx"))
            stem.with_suffix(".in").write_bytes(wire(fed))
            if expected.dtype == np.float16:
                expected = expected.astype(np.float32)
            stem.with_suffix(".out").write_bytes(numpy_helper.from_array(expected).SerializeToString())
            tally[name] = tally.get(name, 0) + 1
            break
    print(json.dumps({"cases": tally, "refused": refused}))


def comparable(value):
    """Few enough that the runner sends all values, numbers, and none that differs by how overflow is rounded."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub" or not 0 < value.size <= 1024:
        return False
    return bool(np.isfinite(value).all()) and bool((np.abs(value.astype(np.float64)) < 1e9).all())


def model_of(case, draw):
    """The model, and the values fed to it by name."""
    nodes, inputs, constants, fed, names = [], [], [], {}, []
    for index, value in enumerate(case.inputs):
        if value is None:
            names.append("")
            continue
        name = f"x{index}"
        array, is_fed = value if isinstance(value, tuple) else (value, False)
        if is_fed == "shape":
            inputs.append(helper.make_tensor_value_info(name + "f", onnx.TensorProto.FLOAT, [1, *array]))
            fed[name + "f"] = np.ones([1, *array], np.float32)
            nodes.append(helper.make_node("Shape", [name + "f"], [name]))
        elif not is_fed:
            constants.append(numpy_helper.from_array(array, name))
        elif array.ndim and array.shape[0] == 1:
            inputs.append(
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            )
            fed[name] = array
        else:
            flat = array.reshape(1, -1)
            inputs.append(
                helper.make_tensor_value_info(name + "f", helper.np_dtype_to_tensor_dtype(flat.dtype), flat.shape)
            )
            fed[name + "f"] = flat
            constants.append(numpy_helper.from_array(np.array(array.shape, np.int64), name + "s"))
            nodes.append(helper.make_node("Reshape", [name + "f", name + "s"], [name]))
        names.append(name)
    while names and names[-1] == "":
        names.pop()
    outputs = [f"y{index}" if wanted else "" for index, wanted in enumerate(case.outputs)]
    node = helper.make_node(case.op, names, outputs, name="the_node", domain=case.domain)
    node.attribute.extend(helper.make_attribute(key, value) for key, value in case.attributes.items())
    nodes.append(node)
    judged = draw.pick(*[output for output in outputs if output])
    graph = helper.make_graph(nodes, "g", inputs, [onnx.ValueInfoProto(name=judged)], constants)
    imports = [helper.make_opsetid("", case.opset)] + [helper.make_opsetid(case.domain, 1)] * bool(case.domain)
    model = helper.make_model(graph, opset_imports=imports)
    model.ir_version = 8 if case.opset < 21 else 10
    return model, fed


def answer(model, fed):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    [expected] = session.run(None, fed)
    return expected


def wire(fed):
    """The file of prepared inputs: a JSON header line, then raw values."""
    headers, values = [], []
    for name, array in fed.items():
        kind, dtype = ("f32", np.float32) if array.dtype.kind == "f" else ("i64", np.int64)
        headers.append({"name": name, "dtype": kind, "shape": list(array.shape)})
        values.append(np.ascontiguousarray(array, dtype).tobytes())
    return json.dumps(headers).encode() + b"\n" + b"".join(values)


if __name__ == "__main__":
    main(*sys.argv[1:])
