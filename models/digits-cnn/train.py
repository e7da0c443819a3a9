"""Trains the demonstration model `digits-cnn` and writes the files next to this one: dense.onnx and the sets train,
calibration and eval.

Its results are checked in, so nobody needs to run it. To make them again:

    python3 -m venv venv && venv/bin/pip install numpy onnx onnxruntime scikit-learn "jax[cpu]"
    venv/bin/python models/digits-cnn/train.py

Data: 1797 handwritten digits of 8x8 pixels (see README.md), 1300 to train on and 497 held out, stratified. Every random
number comes from one seed; the same versions of the packages on the same kind of CPU give the same bytes. The held-out
part decides nothing here (no early stopping, no choice among epochs), so its accuracy is not biased.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SEED = 20
HELD_OUT = 497
CALIBRATION = 320
EPOCHS = 60
BATCH = 50
PEAK_RATE = 2e-3
WEIGHT_DECAY = 1e-4
FOLDER = pathlib.Path(__file__).parent


def main():
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[:, None]
    train_x, eval_x, train_y, eval_y = train_test_split(
        images, digits.target.astype(np.int64), test_size=HELD_OUT, stratify=digits.target, random_state=SEED
    )

    parameters = train(train_x, train_y)

    onnx.save(to_onnx(parameters), FOLDER / "dense.onnx")
    np.savez_compressed(FOLDER / "eval.npz", x=eval_x, y=eval_y)
    np.savez_compressed(FOLDER / "train.npz", x=train_x, y=train_y)
    np.savez_compressed(FOLDER / "calibration.npz", x=train_x[:CALIBRATION], y=train_y[:CALIBRATION])

    onnx.checker.check_model(str(FOLDER / "dense.onnx"), full_check=True)
    session = onnxruntime.InferenceSession(FOLDER / "dense.onnx", providers=["CPUExecutionProvider"])
    logits = session.run(None, {"input": eval_x})[0]
    difference = np.abs(logits - np.asarray(forward(parameters, eval_x))).max()
    print(f"largest difference between onnxruntime and jax: {difference:.1e}")
    print(f"held-out accuracy: {(logits.argmax(1) == eval_y).mean():.4f}")


def initial(random):
    """He initialisation. The names are those of the initialisers in the ONNX file."""
    shapes = {
        "conv1.weight": (32, 1, 3, 3),
        "conv2.weight": (64, 32, 3, 3),
        "fc1.weight": (128, 256),
        "fc2.weight": (10, 128),
    }
    parameters = {}
    for name, shape in shapes.items():
        deviation = np.sqrt(2.0 / np.prod(shape[1:]))
        parameters[name] = (random.standard_normal(shape) * deviation).astype(np.float32)
        parameters[name.replace("weight", "bias")] = np.zeros(shape[0], np.float32)
    return {name: jnp.asarray(value) for name, value in parameters.items()}


def forward(parameters, x):
    """Images [N, 1, 8, 8] in [0, 1] to logits [N, 10]."""
    for layer in ("conv1", "conv2"):
        x = jax.lax.conv_general_dilated(
            x, parameters[f"{layer}.weight"], (1, 1), "SAME", dimension_numbers=("NCHW", "OIHW", "NCHW")
        )
        x = jax.nn.relu(x + parameters[f"{layer}.bias"][None, :, None, None])
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    x = x.reshape(x.shape[0], -1)
    x = jax.nn.relu(x @ parameters["fc1.weight"].T + parameters["fc1.bias"])
    return x @ parameters["fc2.weight"].T + parameters["fc2.bias"]


def train(images, labels):
    """Adam with decoupled weight decay and a cosine schedule, on randomly shifted images."""
    random = np.random.default_rng(SEED)
    parameters = initial(random)
    mean = {name: jnp.zeros_like(value) for name, value in parameters.items()}
    square = dict(mean)
    steps_per_epoch = len(images) // BATCH
    last_step = EPOCHS * steps_per_epoch

    def loss(parameters, x, y):
        return -jnp.take_along_axis(jax.nn.log_softmax(forward(parameters, x)), y[:, None], 1).mean()

    @jax.jit
    def update(parameters, mean, square, step, x, y):
        value, gradient = jax.value_and_grad(loss)(parameters, x, y)
        rate = PEAK_RATE * 0.5 * (1 + jnp.cos(jnp.pi * step / last_step))
        mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, gradient)
        square = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * g * g, square, gradient)

        def moved(p, m, s):
            m = m / (1 - 0.9 ** (step + 1))
            s = s / (1 - 0.999 ** (step + 1))
            return p - rate * (m / (jnp.sqrt(s) + 1e-8) + WEIGHT_DECAY * p)

        return jax.tree.map(moved, parameters, mean, square), mean, square, value

    step = 0
    for epoch in range(EPOCHS):
        order = random.permutation(len(images))
        for start in range(0, steps_per_epoch * BATCH, BATCH):
            chosen = order[start : start + BATCH]
            x = shifted(random, images[chosen])
            parameters, mean, square, value = update(parameters, mean, square, step, x, labels[chosen])
            step += 1
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: loss {float(value):.4f}")
    return parameters


def shifted(random, images):
    """Each image moved by up to one pixel in each direction; what comes in is background (0)."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    corners = random.integers(0, 3, (len(images), 2))
    return np.stack([image[:, i : i + 8, j : j + 8] for image, (i, j) in zip(padded, corners)])


def to_onnx(parameters):
    node = helper.make_node
    convolution = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        node("Conv", ["input", "conv1.weight", "conv1.bias"], ["conv1"], "conv1", **convolution),
        node("Relu", ["conv1"], ["relu1"], "relu1"),
        node("MaxPool", ["relu1"], ["pool1"], "pool1", **pool),
        node("Conv", ["pool1", "conv2.weight", "conv2.bias"], ["conv2"], "conv2", **convolution),
        node("Relu", ["conv2"], ["relu2"], "relu2"),
        node("MaxPool", ["relu2"], ["pool2"], "pool2", **pool),
        node("Flatten", ["pool2"], ["flat"], "flat", axis=1),
        node("Gemm", ["flat", "fc1.weight", "fc1.bias"], ["fc1"], "fc1", transB=1),
        node("Relu", ["fc1"], ["relu3"], "relu3"),
        node("Gemm", ["relu3", "fc2.weight", "fc2.bias"], ["logits"], "fc2", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits-cnn",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in parameters.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="espalier models/digits-cnn"
    )


if __name__ == "__main__":
    main()
