"""The samples of a model: those of a prepared file, or synthetic ones that equal the runner's to the bit."""

import functools
import json
import operator
import re

import numpy
from peer_protocol import Refused

# By onnxruntime's names: numpy's name and the runner's name.
DTYPES = {
    "tensor(float)": ("float32", "f32"),
    "tensor(double)": ("float64", "f64"),
    "tensor(float16)": ("float16", "f16"),
    "tensor(int64)": ("int64", "i64"),
    "tensor(int32)": ("int32", "i32"),
    "tensor(int16)": ("int16", "i16"),
    "tensor(int8)": ("int8", "i8"),
    "tensor(uint64)": ("uint64", "u64"),
    "tensor(uint32)": ("uint32", "u32"),
    "tensor(uint16)": ("uint16", "u16"),
    "tensor(uint8)": ("uint8", "u8"),
    "tensor(bool)": ("bool", "bool"),
}


def fact(name, dtype, shape):
    # An open axis has the size of one sample.
    axes = [axis if isinstance(axis, int) and axis > 0 else 1 for axis in shape]
    return {"name": name, "dtype": DTYPES.get(dtype, (None, dtype))[1], "shape": axes}


class Samples:
    """For every input of the model, in the model's order; the first axis counts samples."""

    def __init__(self, job, declared):
        if not declared:
            raise Refused("the model has no inputs")
        if job.inputs is not None:
            tensors, self.batch = from_file(job.inputs, declared), 1
        else:
            tensors = synthetic(job, declared)
            self.batch = len(tensors[0]) if tensors[0].ndim else 1
        self.names, self.tensors = [item.name for item in declared], tensors
        self.count = len(tensors[0]) if tensors[0].ndim else 1
        if self.count == 0:
            raise Refused("the inputs hold no samples")
        if job.inputs is not None and any(len(tensor) != self.count for tensor in tensors):
            raise Refused("the inputs differ in their number of samples")

    def shapes(self):
        return [[self.batch, *tensor.shape[1:]] for tensor in self.tensors]

    def get(self, index):
        """The inputs of the `index`-th run. After the last sample comes the first one again."""
        start = index * self.batch % self.count
        # A scalar has no axis of samples: it is the same in each run.
        one = lambda tensor: tensor[start : start + self.batch] if tensor.ndim else tensor
        return {name: numpy.ascontiguousarray(one(tensor)) for name, tensor in zip(self.names, self.tensors)}


def from_file(path, declared):
    try:
        with open(path, "rb") as file:
            given = decode(file.read())
    except OSError as error:
        raise Refused(f"cannot read the inputs `{path}`: {error.strerror}") from None
    except ValueError as error:
        raise Refused(f"the inputs `{path}` are damaged: {error}") from None
    tensors = []
    for index, item in enumerate(declared):
        names = (item.name, "x") if index == 0 else (item.name,)
        at = next((at for at, (name, _) in enumerate(given) if name in names), None)
        if at is None:
            raise Refused(f"the inputs have no `{item.name}`, which the model needs")
        tensor = given.pop(at)[1]
        fits = tensor.ndim == len(item.shape) and all(
            not isinstance(axis, int) or axis == length for axis, length in zip(item.shape[1:], tensor.shape[1:])
        )
        if not fits or tensor.ndim == 0:
            shapes = f"{describe(item.shape)}, the samples have the shape {list(tensor.shape)}"
            raise Refused(f"input `{item.name}` takes {shapes}")
        if isinstance(item.shape[0], int) and item.shape[0] != 1:
            raise Refused(
                f"input `{item.name}` takes {describe(item.shape)}: a fixed batch of {item.shape[0]}; samples go in "
                "one by one, so export the model with a free or single batch"
            )
        tensors.append(tensor.astype(dtype_of(item), copy=False))
    if given:
        raise Refused(f"the inputs hold `{given[0][0]}`, which the model does not take")
    return tensors


def decode(file):
    """Decodes one JSON line of headers and the raw values of each tensor. Sizes are checked first."""
    end = file.find(b"\n")
    if end < 0:
        raise ValueError("no header line")
    headers, tensors = json.loads(file[:end]), []
    is_header = lambda header: isinstance(header, dict) and header.keys() >= {"name", "dtype", "shape"}
    if not isinstance(headers, list) or not all(map(is_header, headers)):
        raise ValueError("bad header")
    at = end + 1
    for header in headers:
        dtype = {"f32": numpy.dtype("<f4"), "i64": numpy.dtype("<i8")}.get(header["dtype"])
        shape = header["shape"]
        if dtype is None or not isinstance(shape, list) or not all(type(axis) is int and axis >= 0 for axis in shape):
            raise ValueError(f"`{header['name']}` has an impossible type or shape")
        count = functools.reduce(operator.mul, shape, 1)
        if count * dtype.itemsize > len(file) - at:
            raise ValueError(f"`{header['name']}` needs {count * dtype.itemsize} bytes, {len(file) - at} are left")
        tensors.append((header["name"], numpy.frombuffer(file, dtype, count, at).reshape(shape)))
        at += count * dtype.itemsize
    if at < len(file):
        raise ValueError(f"{len(file) - at} bytes too many")
    return tensors


def synthetic(job, declared):
    """As in the runner: real numbers in [0, 1), integers 0 or 1, from Marsaglia's xorshift64."""
    given = dict(parse_shape(text) for text in job.shapes)
    tensors, random = [], xorshift(0x9E37_79B9_7F4A_7C15)
    for item in declared:
        shape = given.pop(item.name, None) or closed(item)
        count = functools.reduce(operator.mul, shape, 1)
        if count > 1 << 30:
            raise Refused("that many inputs do not fit into memory")
        values = numpy.fromiter(random, numpy.float32, count)
        dtype = numpy.dtype(dtype_of(item))
        if dtype.kind != "f":
            values = numpy.floor(values + numpy.float32(0.5))
        tensors.append(values.reshape(shape).astype(dtype))
    if given:
        raise Refused(f"there is no input `{next(iter(given))}` to give a shape")
    return tensors


def xorshift(state):
    mask = (1 << 64) - 1
    while True:
        state ^= state << 13 & mask
        state ^= state >> 7
        state ^= state << 17 & mask
        yield (state >> 40) / (1 << 24)


def parse_shape(text):
    name, equals, axes = text.rpartition("=")
    if not equals or not re.fullmatch("[1-9][0-9]{0,9}(x[1-9][0-9]{0,9})*", axes):
        raise Refused(f"`{text}` is not a shape: write `NAME=1x128`")
    return name, [int(axis) for axis in axes.split("x")]


def closed(item):
    """The declared shape, with a batch of one for an open first axis."""
    shape = [1 if index == 0 and not isinstance(axis, int) else axis for index, axis in enumerate(item.shape)]
    if all(isinstance(axis, int) for axis in shape):
        return shape
    example = "x".join(str(axis) if isinstance(axis, int) else "1" for axis in shape)
    raise Refused(
        f"input `{item.name}` takes {describe(item.shape)}: say what the open dimensions are, e.g. "
        f"`--shape {item.name}={example}`"
    )


def describe(shape):
    return f"[{', '.join(str(axis) if isinstance(axis, int) else '?' for axis in shape)}]"


def dtype_of(item):
    if item.type not in DTYPES:
        raise Refused(f"input `{item.name}` takes {item.type}, which no sample can be made into")
    return DTYPES[item.type][0]
