"""What `single.py` draws of each operator: inputs, attributes and opsets. Draws that onnx or onnxruntime refuse are
drawn again, so a family need not know every rule; it must not leave out an attribute."""

import dataclasses

import numpy as np

F = np.float32


@dataclasses.dataclass
class Case:
    op: str
    opset: int
    inputs: list
    attributes: dict
    outputs: tuple = (True,)
    domain: str = ""


class Draw:
    def __init__(self, random):
        self.random = random

    def pick(self, *values):
        return values[self.random.integers(len(values))]

    def some(self, chance=0.5):
        return self.random.random() < chance

    def int(self, low, high):
        """With both ends."""
        return int(self.random.integers(low, high + 1))

    def ints(self, count, low, high):
        return [self.int(low, high) for _ in range(count)]

    def opset(self, low=7, high=22):
        return self.int(max(low, 7), high)

    def shape(self, low=1, high=4, most=5):
        return self.ints(self.int(low, high), 1, most)

    def floats(self, shape, scale=1.0):
        return (self.random.standard_normal(shape) * scale).astype(F)

    def values(self, shape, dtype=F):
        if np.dtype(dtype).kind == "f":
            return self.floats(shape, 2.0).astype(dtype)
        if dtype == np.bool_:
            return self.random.integers(0, 2, shape).astype(bool)
        low = -9 if np.dtype(dtype).kind == "i" else 0
        return self.random.integers(low, 10, shape).astype(dtype)

    def attributes(self, **values):
        """Each of them or not."""
        return {key: value for key, value in values.items() if value is not None and self.some(0.6)}

    def fed(self, array):
        return (array, True)

    def maybe_fed(self, array):
        """A constant or an input."""
        return (array, True) if self.some() else array


FAMILIES = []


def family(*names):
    def register(make):
        for name in names:
            FAMILIES.append((name, lambda draw, name=name: make(draw, name)))
        return make

    return register


UNARY = {
    "Abs": 6, "Neg": 6, "Ceil": 6, "Floor": 6, "Round": 11, "Sqrt": 6, "Exp": 6, "Log": 6, "Sin": 7, "Cos": 7, "Tan": 7,
    "Asin": 7, "Acos": 7, "Atan": 7, "Sinh": 9, "Cosh": 9, "Asinh": 9, "Acosh": 9, "Atanh": 9, "Erf": 9, "Sign": 9,
    "Reciprocal": 6, "Relu": 6, "Sigmoid": 6, "Tanh": 6, "Softplus": 1, "Softsign": 1, "Identity": 1, "Mish": 18,
    "HardSwish": 14, "IsNaN": 9, "Not": 1, "BitwiseNot": 18,
}  # fmt: skip


@family(*UNARY)
def unary(d, op):
    dtype = d.pick(F, F, F, np.float64, np.int32, np.int64, np.int8, np.uint8)
    dtype = {"Not": np.bool_, "BitwiseNot": d.pick(np.int32, np.uint8, np.int64)}.get(op, dtype)
    x = d.values(d.shape(), dtype)
    if op == "Round":
        x = np.where(d.values(x.shape) > 0, np.round(x * 2) / 2, x).astype(x.dtype)
    if op == "IsNaN":
        x[d.values(x.shape) > 1] = np.nan
    if op in ("Sqrt", "Log"):
        x = np.abs(x)
    if op in ("Asin", "Acos", "Atanh"):
        # Nearer to 1 a rounding error of the input alone is more than the tolerance.
        x = np.tanh(x) * x.dtype.type(0.99)
    if op == "Acosh":
        x = np.abs(x) + 1
    if op in ("Tan", "Reciprocal"):
        x = np.clip(x, 0.3, 1.2)
    return Case(op, d.opset(UNARY[op]), [d.fed(x)], {})


@family("IsInf")
def is_inf(d, op):
    x = d.floats(d.shape())
    x[x > 0.7], x[x < -0.7] = np.inf, -np.inf
    return Case(op, d.opset(10), [d.fed(x)], d.attributes(detect_positive=d.int(0, 1), detect_negative=d.int(0, 1)))


PARAMETRIC = {
    "Elu": (6, ["alpha"]), "LeakyRelu": (6, ["alpha"]), "Selu": (6, ["alpha", "gamma"]), "Celu": (12, ["alpha"]),
    "ThresholdedRelu": (10, ["alpha"]), "HardSigmoid": (6, ["alpha", "beta"]), "Shrink": (9, ["bias", "lambd"]),
}  # fmt: skip


@family(*PARAMETRIC)
def parametric(d, op):
    since, names = PARAMETRIC[op]
    values = {name: float(d.pick(0.3, 1.0, 1.7, 0.0, -0.4)) for name in names}
    return Case(op, d.opset(since), [d.fed(d.values(d.shape()))], d.attributes(**values))


@family("Gelu")
def gelu(d, op):
    return Case(op, d.opset(20), [d.fed(d.values(d.shape()))], d.attributes(approximate=d.pick("none", "tanh")))


@family("PRelu")
def prelu(d, op):
    shape = d.shape(1, 4)
    start = d.int(0, len(shape))
    slope = [d.pick(n, 1) for n in shape[start:]]
    return Case(op, d.opset(7), [d.fed(d.values(shape)), d.maybe_fed(d.floats(slope))], {})


@family("Clip", "Clip")
def clip(d, op):
    opset = d.opset(7)
    low, high = sorted(d.floats(2).tolist())
    if d.some(0.1):
        low, high = high, low
    if opset < 11:
        return Case(op, opset, [d.fed(d.values(d.shape()))], d.attributes(min=low, max=high))
    dtype = d.pick(F, F, np.int32, np.int64, np.uint8, np.float64) if opset >= 12 else F
    bounds = [np.array(value * 3, dtype) if d.some(0.7) else None for value in (low, high)]
    return Case(op, opset, [d.fed(d.values(d.shape(), dtype)), *bounds], {})


@family("Softmax", "Softmax", "LogSoftmax", "Hardmax")
def softmax(d, op):
    shape = d.shape(1, 4)
    axis = d.int(-len(shape), len(shape) - 1)
    opset = d.opset()
    return Case(op, opset, [d.fed(d.values(shape))], d.attributes(axis=axis if opset >= 11 else abs(axis) % len(shape)))


BINARY = {
    "Add": 7, "Sub": 7, "Mul": 7, "Div": 7, "Pow": 7, "Equal": 7, "Greater": 7, "Less": 7, "GreaterOrEqual": 12,
    "LessOrEqual": 12, "And": 7, "Or": 7, "Xor": 7, "BitwiseAnd": 18, "BitwiseOr": 18, "BitwiseXor": 18, "Mod": 10,
    "BitShift": 11, "Max": 8, "Min": 8, "Sum": 8, "Mean": 8,
}  # fmt: skip


def broadcast(d, shape):
    start = d.pick(0, 0, d.int(0, len(shape)))
    return [d.pick(n, n, 1) for n in shape[start:]]


@family(*BINARY, "Mod", "BitShift", "Pow", "Div")
def binary(d, op):
    shape = d.shape(0, 4)
    dtype = d.pick(F, F, np.int32, np.int64, np.uint8, np.int8, np.float64)
    if op in ("And", "Or", "Xor"):
        dtype = np.bool_
    if op.startswith("Bitwise"):
        dtype = d.pick(np.int32, np.uint8, np.int64)
    if op == "BitShift":
        dtype = d.pick(np.uint8, np.uint32, np.uint64)
    if op == "Equal":
        dtype = d.pick(F, np.int32, np.int64, np.bool_)
    a, b = d.values(broadcast(d, shape), dtype), d.values(broadcast(d, shape), dtype)
    attributes = {}
    opset = d.opset(BINARY[op])
    if op in ("Div", "Mod"):
        b = np.where(b == 0, np.array(3, dtype), b).astype(dtype)
    if op == "Mod":
        attributes = d.attributes(fmod=d.int(0, 1))
    if op == "BitShift":
        attributes, b = {"direction": d.pick("LEFT", "RIGHT")}, (b % 5).astype(dtype)
    if op == "Pow":
        a = np.abs(a) if d.some() and np.dtype(dtype).kind != "u" else a
        b = (np.abs(b.astype(F)) % 4).astype(d.pick(dtype, F, np.int32, np.int64) if opset >= 12 else dtype)
        if np.dtype(b.dtype).kind == "f" and (a < 0).any():
            b = np.round(b)
    if op in ("Max", "Min", "Sum", "Mean"):
        more = [d.maybe_fed(d.values(broadcast(d, shape), dtype)) for _ in range(d.int(0, 2))]
        return Case(op, opset, [d.fed(a), d.maybe_fed(b), *more], {})
    return Case(op, opset, [d.fed(a), d.maybe_fed(b)], attributes)


@family("Where")
def where(d, op):
    shape, dtype = d.shape(), d.pick(F, np.int64)
    test = d.values(broadcast(d, shape), np.bool_)
    a, b = d.values(broadcast(d, shape), dtype), d.values(broadcast(d, shape), dtype)
    return Case(op, d.opset(9), [d.fed(test), d.fed(a), d.maybe_fed(b)], {})


REDUCE = ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum"]
REDUCE += ["ReduceLogSumExp", "ReduceSumSquare"]


@family(*REDUCE, *REDUCE)
def reduce(d, op):
    shape = d.shape(1, 4)
    opset = d.opset()
    axes = sorted(set(d.ints(d.int(0, len(shape)), 0, len(shape) - 1)))
    if opset >= 11:
        axes = [axis - d.pick(0, len(shape)) for axis in axes]
    dtype = d.pick(F, F, F, np.int32, np.int64, np.float64, np.int8, np.uint8)
    x = d.values(shape, F if "Log" in op else dtype)
    if op == "ReduceLogSum":
        x = np.abs(x) + 1
    attributes = d.attributes(keepdims=d.int(0, 1))
    if opset >= 18 or opset >= 13 and op == "ReduceSum":
        attributes |= d.attributes(noop_with_empty_axes=d.int(0, 1))
        given = np.array(axes, np.int64) if axes or d.some() else None
        return Case(op, opset, [d.fed(x), given], attributes)
    return Case(op, opset, [d.fed(x)], attributes | ({"axes": axes} if axes else {}))


@family("ArgMax", "ArgMin")
def arg(d, op):
    shape, opset = d.shape(1, 4), d.opset()
    attributes = d.attributes(keepdims=d.int(0, 1), axis=d.int(-len(shape) if opset >= 11 else 0, len(shape) - 1))
    if opset >= 12:
        attributes |= d.attributes(select_last_index=d.int(0, 1))
    return Case(op, opset, [d.fed(np.round(d.values(shape, d.pick(F, F, np.int32))))], attributes)


def window(d, n, kernel, dilations=True, ceil=False):
    attributes = d.attributes(strides=d.ints(n, 1, 3))
    if dilations:
        attributes |= d.attributes(dilations=d.ints(n, 1, 2))
    how = d.pick("none", "pads", "pads", "auto")
    if how == "pads":
        attributes["pads"] = [d.int(0, max(0, kernel[i % n] - 1)) for i in range(2 * n)]
    if how == "auto":
        attributes["auto_pad"] = d.pick("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    if ceil:
        attributes |= d.attributes(ceil_mode=d.int(0, 1))
    return attributes


@family("Conv", "Conv", "Conv", "Conv")
def conv(d, op):
    n = d.pick(1, 2, 2, 3)
    group = d.pick(1, 1, 2, 3)
    channels, outputs = group * d.int(1, 2), group * d.int(1, 3)
    kernel = d.ints(n, 1, 3)
    attributes = window(d, n, kernel) | d.attributes(kernel_shape=kernel)
    if group > 1:
        attributes["group"] = group
    x, w = d.floats([d.pick(1, 1, 2), channels, *d.ints(n, 5, 8 if n < 3 else 6)]), d.floats(
        [outputs, channels // group, *kernel]
    )
    return Case(
        op, d.opset(), [d.fed(x), d.pick(w, w, d.fed(w)), d.floats([outputs]) if d.some() else None], attributes
    )


@family("ConvTranspose", "ConvTranspose", "ConvTranspose", "ConvTranspose")
def conv_transpose(d, op):
    n = d.pick(1, 2, 2, 3)
    group = d.pick(1, 1, 2)
    channels, outputs = group * d.int(1, 2), d.int(1, 3)
    kernel = d.ints(n, 1, 4)
    attributes = window(d, n, kernel) | d.attributes(kernel_shape=kernel)
    strides, dilations = attributes.get("strides", [1] * n), attributes.get("dilations", [1] * n)
    size = d.ints(n, 2, 4)
    if d.some(0.4):
        attributes["output_padding"] = [d.int(0, max(0, max(s, k) - 1)) for s, k in zip(strides, dilations)]
    if d.some(0.4):
        full = [(i - 1) * s + (k - 1) * f + 1 for i, s, k, f in zip(size, strides, kernel, dilations)]
        attributes["output_shape"] = [max(1, length + d.int(-2, 1)) for length in full]
    if group > 1:
        attributes["group"] = group
    x, w = d.floats([d.pick(1, 1, 2), channels, *size]), d.floats([channels, outputs, *kernel])
    return Case(op, d.opset(), [d.fed(x), w, d.floats([outputs * group]) if d.some() else None], attributes)


@family("MaxPool", "MaxPool", "AveragePool", "AveragePool", "LpPool", "LpPool")
def pool(d, op):
    n = d.pick(1, 2, 2, 3)
    kernel = d.ints(n, 1, 4)
    opset = d.opset()
    with_dilations = opset >= {"MaxPool": 10, "AveragePool": 19, "LpPool": 18}[op]
    with_ceil = opset >= {"MaxPool": 10, "AveragePool": 10, "LpPool": 18}[op]
    attributes = window(d, n, kernel, with_dilations, with_ceil) | {"kernel_shape": kernel}
    outputs = (True,)
    if op == "AveragePool":
        attributes |= d.attributes(count_include_pad=d.int(0, 1))
    if op == "LpPool":
        attributes |= d.attributes(p=d.int(1, 4))
    if op == "MaxPool" and opset >= 8:
        attributes |= d.attributes(storage_order=d.int(0, 1))
        outputs = d.pick((True,), (True,), (True, True))
    x = d.floats([d.pick(1, 1, 2), d.int(1, 3), *d.ints(n, 4, 8 if n < 3 else 5)])
    if op == "MaxPool" and opset >= 12 and d.some(0.15):
        x = (x * 20).astype(d.pick(np.int8, np.uint8))
    return Case(op, opset, [d.fed(x)], attributes, outputs)


@family("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "GlobalLpPool")
def global_pool(d, op):
    attributes = d.attributes(p=d.int(1, 4)) if op == "GlobalLpPool" else {}
    return Case(op, d.opset(), [d.fed(d.floats([d.pick(1, 2), d.int(1, 3), *d.ints(d.int(1, 3), 1, 5)]))], attributes)


ACTIVATIONS = ["Relu", "Tanh", "Sigmoid", "Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu"]
ACTIVATIONS += ["Softsign", "Softplus"]
PARAMETERS = {"Affine": 2, "ScaledTanh": 2, "HardSigmoid": 2, "LeakyRelu": 1, "ThresholdedRelu": 1, "Elu": 1}


@family("LSTM", "GRU", "RNN", "LSTM", "GRU", "RNN", "LSTM", "GRU", "RNN")
def recurrent(d, op):
    gates, functions = {"LSTM": (4, 3), "GRU": (3, 2), "RNN": (1, 1)}[op]
    t, n, i, h = d.int(1, 5), d.pick(1, 1, 2), d.int(1, 4), d.int(1, 4)
    opset = d.opset()
    attributes = {"hidden_size": h} | d.attributes(direction=d.pick("forward", "reverse", "bidirectional"))
    k = 2 if attributes.get("direction") == "bidirectional" else 1
    if d.some(0.35):
        usual = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}[op]
        names = usual * k if d.some(0.3) else [d.pick(*ACTIVATIONS) for _ in range(functions * k)]
        attributes["activations"] = [d.pick(name, name.lower()) if d.some(0.1) else name for name in names]
        if d.some(0.6):
            attributes["activation_alpha"] = [float(d.pick(0.3, 0.7, 1.2)) for name in names if name in PARAMETERS]
            attributes["activation_beta"] = [float(d.pick(0.3, 0.6)) for name in names if PARAMETERS.get(name) == 2]
    if d.some(0.2):
        attributes["clip"] = float(d.pick(0.4, 1.0, 50.0))
    if op == "GRU":
        attributes |= d.attributes(linear_before_reset=d.int(0, 1))
    if op == "LSTM" and d.some(0.2):
        attributes["input_forget"] = d.int(0, 1)
    if opset >= 14 and d.some(0.2):
        attributes["layout"] = d.int(0, 1)
    layout = attributes.get("layout", 0)
    swap = (lambda a: np.ascontiguousarray(np.swapaxes(a, 0, 1))) if layout else (lambda a: a)
    x = swap(d.floats([t, n, i]))
    inputs = [d.fed(x), d.floats([k, gates * h, i]), d.floats([k, gates * h, h])]
    inputs.append(d.floats([k, 2 * gates * h]) if d.some(0.7) else None)
    lengths = [t] * n if d.some(0.6) else d.ints(n, 1, t)
    inputs.append(np.array(lengths, np.int32) if d.some(0.25) else None)
    inputs.append(d.maybe_fed(swap(d.floats([k, n, h]))) if d.some(0.35) else None)
    if op == "LSTM":
        inputs.append(d.maybe_fed(swap(d.floats([k, n, h]))) if d.some(0.35) else None)
        inputs.append(d.floats([k, 3 * h]) if d.some(0.25) else None)
    outputs = d.pick(
        (True,), (True, True), (False, True), (True, True, True), (False, False, True), (True, False, True)
    )
    return Case(
        op, opset, inputs, attributes, outputs if op == "LSTM" else outputs[:2] if any(outputs[:2]) else (True,)
    )


@family("BatchNormalization")
def batch_norm(d, op):
    c, opset = d.int(1, 4), d.opset()
    shape = [d.pick(1, 2), c, *d.ints(d.int(0, 3), 1, 4)]
    attributes = d.attributes(epsilon=d.pick(1e-3, 0.2), momentum=0.7)
    if opset >= 14:
        attributes |= d.attributes(training_mode=d.int(0, 1))
    if opset < 9:
        attributes |= d.attributes(spatial=d.int(0, 1))
    s, b, m, v = d.floats([c]), d.floats([c]), d.floats([c]), np.abs(d.floats([c])) + 0.1
    return Case(op, opset, [d.fed(d.floats(shape)), s, b, m, v], attributes)


@family("InstanceNormalization", "GroupNormalization", "LayerNormalization", "LRN", "LpNormalization")
def normalise(d, op):
    c = d.pick(2, 4, 6)
    shape = [d.pick(1, 2), c, *d.ints(d.int(1, 2), 2, 4)]
    x, e = d.fed(d.floats(shape)), d.attributes(epsilon=d.pick(1e-3, 0.2))
    if op == "InstanceNormalization":
        return Case(op, d.opset(), [x, d.floats([c]), d.floats([c])], e)
    if op == "LRN":
        values = d.attributes(alpha=0.3, beta=d.pick(0.5, 1.2), bias=d.pick(1.0, 2.0))
        return Case(op, d.opset(), [x], values | {"size": d.int(1, 4)})
    if op == "LpNormalization":
        return Case(op, d.opset(), [x], d.attributes(p=d.int(1, 2), axis=d.int(-1, len(shape) - 1)))
    if op == "GroupNormalization":
        groups, opset = d.pick(1, 2, c), d.opset(18)
        size = groups if opset < 21 else c
        return Case(op, opset, [x, d.floats([size]), d.floats([size])], e | {"num_groups": groups})
    axis = d.int(-len(shape), len(shape) - 1)
    attributes = e | d.attributes(axis=axis, stash_type=1)
    inner = shape[attributes.get("axis", -1) :]
    outputs = d.pick((True,), (True,), (True, True), (True, True, True))
    return Case(op, d.opset(17), [x, d.floats(inner), d.floats(inner) if d.some() else None], attributes, outputs)


@family("MeanVarianceNormalization")
def mvn(d, op):
    shape = [1, 3, 4, 2]
    return Case(op, d.opset(9), [d.fed(d.floats(shape))], d.attributes(axes=d.pick([0, 2, 3], [1], [2, 3], [-1])))


MODES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_half_pixel_for_nn"]
MODES += ["tf_crop_and_resize", "half_pixel_symmetric"]


@family(*["Resize"] * 12)
def resize(d, op):
    opset = d.opset(10)
    n = d.pick(1, 2, 2, 2, 3)
    shape = [1, d.int(1, 2), *d.ints(n, 2, 5 if n < 3 else 3)]
    mode = d.pick("nearest", "linear", "linear", "cubic")
    attributes = {"mode": mode} if d.some(0.9) else {}
    factor = lambda: d.pick(0.5, 0.6, 1.0, 1.3, 1.5, 1.7, 2.0, 2.3, 3.0, 4.0)  # noqa: E731
    scales = [1.0, 1.0, *[factor() for _ in range(n)]]
    if opset == 10:
        return Case(op, opset, [d.fed(d.floats(shape)), np.array(scales, F)], attributes)
    # Each mode beside its defaults as often as all of them mixed.
    attributes |= d.attributes(coordinate_transformation_mode=d.pick(*MODES))
    attributes |= d.attributes(
        nearest_mode=d.pick("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
        cubic_coeff_a=d.pick(-0.5, -0.75),
        exclude_outside=d.int(0, 1) if mode == "cubic" else None,
        extrapolation_value=d.pick(0.0, 2.5),
    )
    chosen = list(range(len(shape)))
    if opset >= 18:
        attributes |= d.attributes(antialias=d.int(0, 1) if d.some(0.4) else None)
        if d.some(0.3):
            chosen = list(range(2, len(shape)))
            attributes["axes"] = [axis - d.pick(0, len(shape)) for axis in chosen]
    roi = None
    if attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        starts = [0.0 if axis < 2 else d.pick(0.0, 0.2) for axis in chosen]
        roi = np.array(starts + [1.0 if axis < 2 else d.pick(1.0, 0.8, 1.2) for axis in chosen], F)
    elif opset < 13:
        roi = np.zeros(0, F)
    x = d.fed(d.floats(shape))
    if d.some(0.6):
        return Case(op, opset, [x, roi, np.array([scales[axis] for axis in chosen], F)], attributes)
    sizes = [shape[axis] if axis < 2 else d.int(1, 9) for axis in chosen]
    if opset >= 18 and d.some(0.4):
        attributes["keep_aspect_ratio_policy"] = d.pick("stretch", "not_larger", "not_smaller")
    scales = np.zeros(0, F) if opset < 13 else None
    return Case(op, opset, [x, roi, scales, np.array(sizes, np.int64)], attributes)


@family("Upsample", "Upsample", "Upsample")
def upsample(d, op):
    opset = d.int(7, 9)
    scales = [1.0, 1.0, d.pick(1.0, 1.5, 2.0, 3.0), d.pick(1.0, 2.0, 2.5)]
    attributes = {"mode": d.pick("nearest", "linear")} if d.some(0.8) else {}
    x = d.fed(d.floats([1, 2, *d.ints(2, 2, 4)]))
    if opset < 9:
        return Case(op, opset, [x], attributes | {"scales": scales})
    return Case(op, opset, [x, np.array(scales, F)], attributes)


@family("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Tile", "Concat")
def move(d, op):
    shape, opset = d.shape(1, 4), d.opset(8 if op == "Expand" else 7)
    rank = len(shape)
    dtype = d.pick(F, F, np.int64, np.int32, np.uint8, np.bool_)
    x = d.fed(d.values(shape, dtype))
    low = -rank if opset >= 11 else 0
    if op == "Reshape":
        target = [d.pick(n, n, 0) for n in shape] if d.some() else list(d.random.permutation(shape))
        if d.some():
            target[d.int(0, len(target) - 1)] = -1
        if d.some(0.3):
            target = [-1] if d.some() else [1, *target]
        attributes = d.attributes(allowzero=d.int(0, 1)) if opset >= 14 else {}
        return Case(op, opset, [x, np.array(target, np.int64)], attributes)
    if op == "Flatten":
        return Case(op, opset, [x], d.attributes(axis=d.int(low, rank)))
    if op == "Transpose":
        return Case(op, opset, [x], d.attributes(perm=[int(axis) for axis in d.random.permutation(rank)]))
    if op in ("Squeeze", "Unsqueeze"):
        if op == "Squeeze":
            ones = [axis for axis in range(rank) if shape[axis] == 1]
            axes = [axis for axis in ones if d.some(0.7)] or None
            if axes and opset >= 11:
                axes = [axis - d.pick(0, rank) for axis in axes]
            if not ones and d.some(0.8):
                return None
        else:
            more = d.int(1, 2)
            axes = [int(axis) for axis in d.random.permutation(rank + more)[:more]]
            if opset >= 11:
                axes = [axis - d.pick(0, rank + more) for axis in axes]
        if opset >= 13:
            return Case(op, opset, [x, np.array(axes, np.int64) if axes else None], {})
        return Case(op, opset, [x], {"axes": axes} if axes else {})
    if op == "Expand":
        target = [d.pick(n, 1, n * 2 if n == 1 else n) for n in shape]
        return Case(op, opset, [x, np.array(d.pick(target, [2, *target], target[-1:]), np.int64)], {})
    if op == "Tile":
        return Case(op, opset, [x, np.array(d.ints(rank, 1, 3), np.int64)], {})
    axis = d.int(low, rank - 1)
    parts = []
    for _ in range(d.int(1, 3)):
        other = list(shape)
        other[axis] = d.int(1, 3)
        parts.append(d.maybe_fed(d.values(other, dtype)))
    return Case(op, opset, [x, *parts], {"axis": axis})


@family("Split", "Split", "Slice", "Slice", "Slice", "Pad", "Pad", "Pad", "Pad")
def cut(d, op):
    shape = d.ints(d.int(1, 4), 2, 6)
    rank, opset = len(shape), d.opset()
    x = d.fed(d.values(shape, d.pick(F, F, np.int64, np.int32)))
    if op == "Split":
        axis = d.int(-rank if opset >= 11 else 0, rank - 1)
        parts = d.int(1, 3)
        cuts = np.diff([0, *sorted(d.ints(parts - 1, 0, shape[axis])), shape[axis]]).tolist()
        attributes = d.attributes(axis=axis)
        outputs = tuple([True] * parts)
        if d.some():
            return Case(
                op,
                opset,
                [x, np.array(cuts, np.int64)] if opset >= 13 else [x],
                attributes | ({} if opset >= 13 else {"split": cuts}),
                outputs,
            )
        return Case(op, opset, [x], attributes | ({"num_outputs": parts} if opset >= 18 else {}), outputs)
    if op == "Slice":
        axes = sorted(set(d.ints(d.int(1, rank), 0, rank - 1)))
        bound = lambda axis: d.pick(0, 1, d.int(-9, 9), -1, shape[axis], 2**31 - 1, -(2**31))  # noqa: E731
        starts, ends = [bound(axis) for axis in axes], [bound(axis) for axis in axes]
        if opset < 10:
            return Case(
                op,
                opset,
                [x],
                {"starts": starts, "ends": ends} | ({"axes": axes} if d.some(0.8) or len(axes) > 1 else {}),
            )
        axes = [axis - d.pick(0, rank) for axis in axes]
        kind = d.pick(np.int64, np.int32)
        steps = [d.pick(1, 1, 2, 3, -1, -2) for _ in axes]
        inputs = [x, np.array(starts, kind), np.array(ends, kind), np.array(axes, kind)]
        return Case(op, opset, inputs + ([np.array(steps, kind)] if d.some() else []), {})
    mode = d.pick("constant", "reflect", "edge", "wrap") if opset >= 19 else d.pick("constant", "reflect", "edge")
    pads = [d.pick(0, 1, 2, -1) if d.some(0.3) else d.int(0, 1) for _ in range(2 * rank)]
    attributes = d.attributes(mode=mode)
    if opset < 11:
        return Case(op, opset, [x], attributes | {"pads": pads} | d.attributes(value=1.5))
    value = np.array(3, x[0].dtype) if d.some() else None
    axes = None
    if opset >= 18 and d.some(0.4):
        axes = sorted(set(d.ints(d.int(1, rank), 0, rank - 1)))
        pads = [pads[axis] for axis in axes] + [pads[rank + axis] for axis in axes]
        axes = np.array([axis - d.pick(0, rank) for axis in axes], np.int64)
    return Case(op, opset, [x, np.array(pads, np.int64), value, axes], attributes)


@family(
    "Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterElements", "ScatterND", "ScatterND", "Scatter"
)
def gather(d, op):
    shape = d.ints(d.int(1, 3), 2, 5)
    rank = len(shape)
    since = {"GatherElements": 11, "GatherND": 11, "ScatterElements": 11, "ScatterND": 11, "Scatter": 9}
    opset = d.int(9, 10) if op == "Scatter" else d.opset(since.get(op, 7))
    x = d.fed(d.values(shape, d.pick(F, F, np.int64)))
    axis = d.int(-rank if opset >= 11 else 0, rank - 1)
    kind = d.pick(np.int64, np.int32) if not op.endswith("ND") else np.int64
    low = -1 if opset >= 11 else 0

    def indices(shape_of, length):
        chosen = d.random.integers(0, length, shape_of)
        return np.where(d.random.random(shape_of) < 0.3, chosen + low * length, chosen).astype(kind)

    if op == "Gather":
        at = indices(d.shape(0, 2, 3), shape[axis])
        return Case(op, opset, [x, d.maybe_fed(at)], d.attributes(axis=axis) if axis else {})
    reduction = {}
    if opset >= 16 and op.startswith("Scatter"):
        kinds = ["none", "add", "mul"] + (["max", "min"] if opset >= 18 else [])
        reduction = d.attributes(reduction=d.pick(*kinds))
    if op in ("GatherElements", "ScatterElements", "Scatter"):
        attributes = d.attributes(axis=axis)
        axis = attributes.get("axis", 0)
        other = [d.int(1, n) for n in shape]
        if op == "GatherElements":
            return Case(op, opset, [x, d.maybe_fed(indices(other, shape[axis]))], attributes)
        # Unless sums are asked for, no two updates meet.
        at = np.argsort(d.random.random([*other[: axis % rank], shape[axis], *other[axis % rank + 1 :]]), axis=axis)
        at = np.take(at, range(other[axis]), axis).astype(kind)
        if reduction.get("reduction", "none") != "none":
            at = indices(other, shape[axis])
        return Case(
            op, opset, [x, d.maybe_fed(at), d.maybe_fed(d.values(at.shape, x[0].dtype))], attributes | reduction
        )
    batch = d.int(0, min(1, rank - 1)) if op == "GatherND" and opset >= 12 else 0
    depth = d.int(1, rank - batch)
    lead = shape[:batch] + d.ints(d.int(1 - min(batch, 1), 1), 1, 3)
    at = np.stack([indices(lead, shape[batch + i]) for i in range(depth)], -1).astype(np.int64)
    if op == "GatherND":
        return Case(op, opset, [x, d.maybe_fed(at)], {"batch_dims": batch} if batch else {})
    at = np.unique(at.reshape(-1, depth) % np.array(shape[:depth]), axis=0)
    updates = d.values([len(at), *shape[depth:]], x[0].dtype)
    return Case(op, opset, [x, at.astype(np.int64), d.maybe_fed(updates)], reduction)


@family("Shape", "Size", "ConstantOfShape", "OneHot", "TopK", "TopK", "Trilu", "EyeLike", "CumSum", "CumSum")
def make(d, op):
    shape = d.shape(1, 3)
    rank, opset = len(shape), d.opset()
    x = d.fed(d.values(shape))
    if op == "Shape":
        ends = d.attributes(start=d.int(-rank, rank), end=d.int(-rank, rank)) if opset >= 15 else {}
        return Case(op, opset, [x], ends)
    if op == "Size":
        return Case(op, opset, [x], {})
    if op == "ConstantOfShape":
        from onnx import numpy_helper

        value = {"value": numpy_helper.from_array(np.array([3], d.pick(F, np.int64, np.bool_)))} if d.some() else {}
        return Case(op, d.opset(9), [(np.array(shape, np.int64), "shape")], value)
    if op == "OneHot":
        at = d.random.integers(-4, 4, d.shape(1, 2)).astype(d.pick(np.int64, F))
        depth = np.array(d.pick(4, [4]), d.pick(np.int64, F))
        return Case(
            op,
            d.opset(9),
            [d.fed(at), depth, d.pick(np.array([0, 1], F), np.array([2, 5], np.int64))],
            d.attributes(axis=d.int(-at.ndim - 1, at.ndim)),
        )
    if op == "TopK":
        axis = d.int(-rank if opset >= 11 else 0, rank - 1)
        attributes = d.attributes(axis=axis)
        k = d.int(1, shape[attributes.get("axis", -1)])
        x = d.fed(d.floats(shape))
        if opset < 10:
            return Case(op, opset, [x], attributes | {"k": k}, (True, True))
        if opset >= 11:
            attributes |= d.attributes(largest=d.int(0, 1), sorted=1)
        return Case(op, opset, [x, np.array([k], np.int64)], attributes, (True, True))
    if op == "Trilu":
        x = d.fed(d.values(d.shape(2, 4), d.pick(F, np.int64, np.bool_)))
        return Case(
            op,
            d.opset(14),
            [x, np.array(d.int(-3, 3), np.int64) if d.some() else None],
            d.attributes(upper=d.int(0, 1)),
        )
    if op == "EyeLike":
        return Case(op, d.opset(9), [d.fed(d.values(d.shape(2, 2)))], d.attributes(k=d.int(-2, 2), dtype=d.pick(1, 7)))
    axis = np.array(d.int(-rank, rank - 1), d.pick(np.int32, np.int64))
    x = d.fed(d.values(shape, d.pick(F, F, np.int32, np.int64)))
    return Case(op, d.opset(11), [x, axis], d.attributes(exclusive=d.int(0, 1), reverse=d.int(0, 1)))


@family("DepthToSpace", "SpaceToDepth", "ReverseSequence", "Einsum", "Dropout", "Cast", "Compress", "Det")
def other(d, op):
    opset = d.opset()
    if op == "DepthToSpace":
        b = d.int(1, 3)
        mode = d.attributes(mode=d.pick("DCR", "CRD")) if opset >= 11 else {}
        return Case(op, opset, [d.fed(d.floats([1, b * b * d.int(1, 2), 2, 3]))], {"blocksize": b} | mode)
    if op == "SpaceToDepth":
        b = d.int(1, 3)
        return Case(op, opset, [d.fed(d.floats([1, 2, b * 2, b]))], {"blocksize": b})
    if op == "ReverseSequence":
        x, time = d.floats([4, 4, 2]), d.int(0, 1)
        attributes = {"time_axis": time, "batch_axis": 1 - time} if d.some(0.8) else {}
        return Case(op, d.opset(10), [d.fed(x), np.array(d.ints(4, 1, 4), np.int64)], attributes)
    if op == "Einsum":
        text = d.pick(
            "bij,bjk->bik",
            "ij,jk->ki",
            "bij,bkj->bik",
            "bihd,bjhd->bhij",
            "ij->ji",
            "ii->i",
            "...ij,...jk->...ik",
            "ij,ij->i",
            "i,j->ij",
            "ij,j",
            "bij,bjk",
        )
        sizes = dict(zip("bijkhd", d.ints(6, 1, 4)))
        inputs = [[sizes[c] for c in part.replace("...", "")] for part in text.split("->")[0].split(",")]
        return Case(op, d.opset(12), [d.fed(d.floats(shape)) for shape in inputs], {"equation": text})
    if op == "Dropout":
        if opset < 12:
            return Case(op, opset, [d.fed(d.floats(d.shape()))], d.attributes(ratio=0.4), d.pick((True,), (True, True)))
        extra = [
            np.array(0.4, F) if d.some() else None,
            np.array(d.pick(False, False, False), np.bool_) if d.some() else None,
        ]
        return Case(
            op, opset, [d.fed(d.floats(d.shape())), *extra], d.attributes(seed=3), d.pick((True,), (True, True))
        )
    if op == "Cast":
        x = d.values(d.shape(), d.pick(F, np.int64, np.int32, np.bool_, np.float64, np.float16))
        if x.dtype.kind == "f":
            x = np.clip(x * 3, -100, 100)
        to = d.pick(1, 6, 7, 9, 10, 11, *([2, 3] if x.dtype.kind != "f" or (x >= 0).all() else []))
        if to == 2 and x.dtype.kind == "i":
            x = np.abs(x)
        return Case(op, opset, [d.fed(x)], {"to": to})
    if op == "Compress":
        x = d.floats(d.ints(2, 3, 4))
        axis = d.attributes(axis=d.int(-2 if opset >= 11 else 0, 1))
        return Case(op, d.opset(9), [d.fed(x), np.array([True, False, True])], axis)
    return Case(op, d.opset(11), [d.fed(d.floats([d.int(1, 2), 3, 3]))], {})


@family("Gemm", "Gemm", "MatMul", "MatMul")
def product(d, op):
    m, k, n = d.ints(3, 1, 5)
    dtype = d.pick(F, F, F, np.float64, np.int32)
    if op == "MatMul":
        lead = d.shape(0, 2, 3)
        a, b = [*broadcast(d, lead), m, k], [*broadcast(d, lead), k, n]
        if d.some(0.2):
            a = [k]
        if d.some(0.2):
            b = [k]
        return Case(op, d.opset(9), [d.fed(d.values(a, dtype)), d.maybe_fed(d.values(b, dtype))], {})
    attributes = d.attributes(alpha=0.5, beta=d.pick(0.0, 2.0), transA=d.int(0, 1), transB=d.int(0, 1))
    a = [k, m] if attributes.get("transA") else [m, k]
    b = [n, k] if attributes.get("transB") else [k, n]
    opset = d.opset()
    c = d.pick([n], [m, n], [1, n], [m, 1], [], [1]) if d.some(0.8) else None
    c = d.maybe_fed(d.values(c, dtype)) if c is not None else None if opset >= 11 else d.values([n], dtype)
    return Case(op, opset, [d.fed(d.values(a, dtype)), d.maybe_fed(d.values(b, dtype)), c], attributes)


@family(
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "ConvInteger",
    "QLinearMatMul",
    "QLinearConv",
)
def quantised(d, op):
    kind = d.pick(np.uint8, np.int8)
    opset = d.opset(13 if d.some() else 11)
    shape = [d.pick(1, 2), 3, 4]
    zero = lambda size=(): d.random.integers(0, 9, size).astype(kind)  # noqa: E731
    scale = lambda size=(): (np.abs(d.floats(size)) * 0.2 + 0.05).astype(F)  # noqa: E731
    if op in ("QuantizeLinear", "DequantizeLinear"):
        size = 3 if opset >= 13 and d.some() else ()
        x = d.floats(shape, 3) if op == "QuantizeLinear" else d.random.integers(0, 99, shape).astype(kind)
        attributes = {"axis": d.pick(1, -2)} if size and d.some(0.7) else {}
        if opset >= 19 and op == "QuantizeLinear":
            attributes |= d.attributes(saturate=1)
        if opset >= 21 and op == "QuantizeLinear":
            attributes |= d.attributes(output_dtype=d.pick(2, 3))
        return Case(op, opset, [d.fed(x), scale(size), zero(size) if d.some(0.8) else None], attributes)
    if op == "DynamicQuantizeLinear":
        return Case(op, opset, [d.fed(d.floats(shape))], {}, (True, True, True))
    a, b = d.random.integers(0, 99, [2, 3]).astype(kind), d.random.integers(0, 99, [3, 4]).astype(kind)
    if op == "MatMulInteger":
        return Case(op, opset, [d.fed(a), b, zero() if d.some() else None, zero() if d.some() else None], {})
    if op == "QLinearMatMul":
        return Case(op, opset, [d.fed(a), scale(), zero(), b, scale(), zero(), scale() + 3, zero()], {})
    group, n = d.pick(1, 2), 2
    kernel = d.ints(n, 1, 3)
    x = d.random.integers(0, 99, [1, 2 * group, 5, 6]).astype(kind)
    w = d.random.integers(0, 99, [2 * group, 2, *kernel]).astype(kind)
    attributes = window(d, n, kernel) | ({"group": group} if group > 1 else {})
    if op == "ConvInteger":
        return Case(op, opset, [d.fed(x), w, zero() if d.some() else None, zero() if d.some() else None], attributes)
    inputs = [d.fed(x), scale(), zero(), w, scale(), zero(), scale() + 5, zero()]
    return Case(
        op, opset, inputs + ([d.random.integers(-99, 99, [2 * group]).astype(np.int32)] if d.some() else []), attributes
    )


@family(
    "GridSample", "GridSample", "RoiAlign", "MaxUnpool", "NonMaxSuppression", "AffineGrid", "CenterCropPad", "Col2Im"
)
def vision(d, op):
    opset = d.opset(16)
    if op == "GridSample":
        modes = ("linear", "nearest", "cubic") if opset >= 20 else ("bilinear", "nearest", "bicubic")
        attributes = d.attributes(
            mode=d.pick(*modes), padding_mode=d.pick("zeros", "border", "reflection"), align_corners=d.int(0, 1)
        )
        return Case(op, opset, [d.fed(d.floats([1, 2, 4, 5])), d.fed(d.floats([1, 3, 2, 2], 0.7))], attributes)
    if op == "RoiAlign":
        attributes = d.attributes(
            mode=d.pick("avg", "max"),
            output_height=2,
            output_width=d.int(1, 3),
            sampling_ratio=d.int(0, 2),
            spatial_scale=0.5,
        )
        attributes |= d.attributes(coordinate_transformation_mode=d.pick("half_pixel", "output_half_pixel"))
        boxes = np.array([[0, 0, 4, 4], [1, 2, 6, 7]], F)
        return Case(op, opset, [d.fed(d.floats([1, 2, 8, 8])), boxes, np.zeros(2, np.int64)], attributes)
    if op == "MaxUnpool":
        at = np.array([[[[5, 7], [13, 15]]]], np.int64)
        return Case(
            op,
            opset,
            [d.fed(d.floats([1, 1, 2, 2])), at],
            {"kernel_shape": [2, 2], "strides": [2, 2]} | d.attributes(pads=[0, 0, 0, 0]),
        )
    if op == "NonMaxSuppression":
        boxes, scores = np.abs(d.floats([1, 6, 4])), np.abs(d.floats([1, 2, 6]))
        limits = [np.array([d.int(1, 3)], np.int64), np.array([0.3], F), np.array([0.1], F)]
        return Case(
            op, opset, [d.fed(boxes), d.fed(scores), *limits[: d.int(1, 3)]], d.attributes(center_point_box=d.int(0, 1))
        )
    if op == "AffineGrid":
        return Case(
            op,
            d.opset(20),
            [d.fed(d.floats([1, 2, 3])), np.array([1, 2, 3, 4], np.int64)],
            d.attributes(align_corners=d.int(0, 1)),
        )
    if op == "CenterCropPad":
        return Case(
            op,
            d.opset(18),
            [d.fed(d.floats([1, 4, 5])), np.array([3, 7], np.int64)],
            {"axes": d.pick([1, 2], [-2, -1])},
        )
    return Case(
        op,
        d.opset(18),
        [d.fed(d.floats([1, 8, 9])), np.array([4, 4], np.int64), np.array([2, 2], np.int64)],
        d.attributes(strides=[1, 1]),
    )


@family("DFT", "STFT", "FastGelu", "QuickGelu")
def signal(d, op):
    opset = d.opset(17)
    if op == "DFT":
        x = d.fed(d.floats([1, 6, 4, d.pick(1, 2)]))
        switches = d.attributes(inverse=d.int(0, 1), onesided=d.int(0, 1))
        if opset < 20:
            return Case(op, opset, [x], switches | d.attributes(axis=d.pick(1, 2, -2)))
        return Case(op, opset, [x, None, np.array(d.pick(1, -2), np.int64) if d.some() else None], switches)
    if op == "STFT":
        window_of = np.hanning(8).astype(F) if d.some() else None
        length = np.array(8, np.int64)
        return Case(
            op,
            opset,
            [d.fed(d.floats([1, 32, 1])), np.array(4, np.int64), window_of, length],
            d.attributes(onesided=d.int(0, 1)),
        )
    x = d.fed(d.floats([1, 3, 4]))
    values = d.attributes(alpha=1.2) if op == "QuickGelu" else {}
    return Case(
        op, opset, [x, d.floats([4]) if op == "FastGelu" and d.some() else None], values, domain="com.microsoft"
    )
