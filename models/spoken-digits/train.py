"""Trains the demonstration model `spoken-digits` and writes the files next to this one: dense.onnx and the sets train,
calibration and eval.

Its results are checked in, so nobody needs to run it. To make them again (some minutes):

    apt-get install espeak-ng
    python3 -m venv venv && venv/bin/pip install numpy onnx onnxruntime torch
    venv/bin/python models/spoken-digits/train.py

Data: espeak-ng says the ten digits in English, in every voice variant it has and eight accents, at many pitches and
speeds; noise is added. Every random number comes from one seed; the same versions of the packages on the same kind of
CPU give the same bytes. Whole families of voices are held out. They decide nothing here (no early stopping, no choice
among epochs), so the held-out accuracy is not biased.
"""

import io
import pathlib
import re
import subprocess
import wave

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

SEED = 20
WORDS = "zero one two three four five six seven eight nine".split()
ACCENTS = ["en-us", "en-gb", "en-gb-scotland", "en-029", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-us-nyc"]
TAKES = 4
CALIBRATION = 320

RATE = 22050
FRAMES = 40
HOP = 480
WINDOW = 640
BANDS = 12
LEVELS = 12
DECIBELS_A_LEVEL = 4.0
SIGNAL_TO_NOISE = (5.0, 30.0)

HIDDEN = 96
EPOCHS = 40
BATCH = 40
PEAK_RATE = 4e-3
WEIGHT_DECAY = 1e-2
BLUR = 1.2
FOLDER = pathlib.Path(__file__).parent


def main():
    random = np.random.default_rng(SEED)
    train_set, eval_set = recorded(random)
    order = random.permutation(len(train_set["y"]))
    train_set = {name: values[order] for name, values in train_set.items()}

    net = trained(train_set["x"], train_set["y"], random)
    onnx.save(to_onnx(net), FOLDER / "dense.onnx")
    np.savez_compressed(FOLDER / "train.npz", **train_set)
    calibration = {name: values[:CALIBRATION] for name, values in train_set.items()}
    np.savez_compressed(FOLDER / "calibration.npz", **calibration)
    np.savez_compressed(FOLDER / "eval.npz", **eval_set)

    onnx.checker.check_model(str(FOLDER / "dense.onnx"), full_check=True)
    session = onnxruntime.InferenceSession(FOLDER / "dense.onnx", providers=["CPUExecutionProvider"])
    x = eval_set["x"].astype(np.float32)
    logits = session.run(None, {"input": x})[0]
    difference = np.abs(logits - net(torch.from_numpy(x)).detach().numpy()).max()
    print(f"{len(train_set['y'])} samples to train on, {len(eval_set['y'])} held out")
    print(f"largest difference between onnxruntime and torch: {difference:.1e}")
    print(f"held-out accuracy: {(logits.argmax(1) == eval_set['y']).mean():.4f}")


# ---------------------------------------------------------------------------------------------------- speech


def recorded(random):
    """Both sets: `x` uint8 [N, FRAMES, BANDS] in levels of 4 dB, `y` int64 [N].

    A family is all voices with the same name and different numbers.
    """
    listed = subprocess.run(["espeak-ng", "--voices=variant"], check=True, capture_output=True, text=True).stdout
    variants = sorted(set(re.findall(r"!v/(\S+)", listed)))
    families = sorted({family(variant) for variant in variants})
    held_out = set(random.choice(families, len(families) // 6, replace=False))
    sets = {False: ([], []), True: ([], [])}
    for variant in variants:
        for word, text in enumerate(WORDS):
            for _ in range(TAKES):
                x, y = sets[family(variant) in held_out]
                x.append(features(noisy(spoken(text, variant, random), random)))
                y.append(word)
    print(f"{len(variants)} voices in {len(families)} families, held out: {' '.join(sorted(held_out))}")
    return [{"x": np.stack(x), "y": np.array(y, np.int64)} for x, y in (sets[False], sets[True])]


def family(variant):
    return variant.rstrip("0123456789").lower()


def spoken(text, variant, random):
    """Sound at RATE, silence at both ends cut off."""
    voice = f"{random.choice(ACCENTS)}+{variant}"
    pitch, speed = random.integers(20, 81), random.integers(120, 221)
    command = ["espeak-ng", "-v", voice, "-p", str(pitch), "-s", str(speed), "--stdout", text]
    output = subprocess.run(command, check=True, capture_output=True).stdout
    with wave.open(io.BytesIO(output)) as file:
        assert file.getframerate() == RATE and file.getnchannels() == 1
        # espeak writes no length when it writes to a pipe.
        sound = np.frombuffer(output[44:], "<i2") / 32768
    loud = np.flatnonzero(np.abs(sound) > 0.02 * np.abs(sound).max())
    return sound[loud[0] : loud[-1] + 1]


def noisy(sound, random):
    """The word somewhere in FRAMES frames of white, pink or brown noise, 5 to 30 dB below it."""
    length = FRAMES * HOP + WINDOW
    sound = sound[: length - 200]
    spectrum = np.fft.rfft(random.standard_normal(length))
    spectrum[1:] /= np.arange(1, len(spectrum)) ** random.choice([0.0, 0.5, 1.0])
    spectrum[0] = 0
    noise = np.fft.irfft(spectrum, length)
    ratio = random.uniform(*SIGNAL_TO_NOISE)
    noise *= np.sqrt((sound**2).mean() / (noise**2).mean()) * 10 ** (-ratio / 20)
    start = random.integers(0, min(length - len(sound), RATE // 8) + 1)
    noise[start : start + len(sound)] += sound
    return noise


def features(sound):
    """Energies in BANDS bands on the mel scale, in levels below the loudest: uint8 [FRAMES, BANDS]."""
    starts = np.arange(FRAMES) * HOP
    frames = np.stack([sound[start : start + WINDOW] for start in starts]) * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(frames, 1024)) ** 2
    decibels = 10 * np.log10(power @ filters().T + 1e-10)
    levels = (decibels - decibels.max()) / DECIBELS_A_LEVEL + LEVELS - 1
    return np.clip(np.round(levels), 0, LEVELS - 1).astype(np.uint8)


def filters(lowest=100.0, highest=6000.0):
    """Triangles evenly spaced in mel: [BANDS, bins]."""
    mel = lambda hertz: 1127 * np.log(1 + hertz / 700)
    edges = 700 * (np.exp(np.linspace(mel(lowest), mel(highest), BANDS + 2) / 1127) - 1)
    bins = np.fft.rfftfreq(1024, 1 / RATE)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.clip(np.minimum(rising, falling), 0, None)


# ------------------------------------------------------------------------------------------------- the model


class Net(torch.nn.Module):
    """Levels [N, FRAMES, BANDS] to logits [N, 10], by the state after the last frame."""

    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(BANDS, HIDDEN, batch_first=True)
        self.classifier = torch.nn.Linear(HIDDEN, len(WORDS))

    def forward(self, x):
        return self.classifier(self.lstm((x - 5.5) / 3)[1][0][0])


def trained(x, y, random):
    """Adam with a cosine schedule, on samples shifted in time and blurred by a random level or two."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    net = Net()
    x, y = torch.from_numpy(x).float(), torch.from_numpy(y)
    steps = len(x) // BATCH * EPOCHS
    optimiser = torch.optim.AdamW(net.parameters(), PEAK_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=steps, pct_start=0.1)
    for epoch in range(EPOCHS):
        order = random.permutation(len(x))
        for start in range(0, len(x) // BATCH * BATCH, BATCH):
            chosen = order[start : start + BATCH]
            shifted = torch.roll(x[chosen], int(random.integers(-3, 4)), 1)
            shifted = shifted + torch.from_numpy(random.normal(0, BLUR, shifted.shape)).float()
            loss = torch.nn.functional.cross_entropy(net(shifted), y[chosen])
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        if epoch % 5 == 4:
            print(f"epoch {epoch + 1}: loss {loss.item():.4f}", flush=True)
    return net.eval()


def to_onnx(net):
    # torch has gates in the order input, forget, cell, output; ONNX wants input, output, forget, cell.
    def gates(parameter):
        i, f, c, o = np.split(parameter.detach().numpy(), 4)
        return np.concatenate([i, o, f, c])[None]

    lstm = net.lstm
    tensors = {
        "middle": np.float32(5.5),
        "scale": np.float32(1 / 3),
        "lstm.W": gates(lstm.weight_ih_l0),
        "lstm.R": gates(lstm.weight_hh_l0),
        "lstm.B": np.concatenate([gates(lstm.bias_ih_l0), gates(lstm.bias_hh_l0)], 1),
        "direction": np.array([0], np.int64),
        "classifier.weight": net.classifier.weight.detach().numpy(),
        "classifier.bias": net.classifier.bias.detach().numpy(),
    }
    node = helper.make_node
    nodes = [
        node("Sub", ["input", "middle"], ["centred"], "centre"),
        node("Mul", ["centred", "scale"], ["scaled"], "scale"),
        node("Transpose", ["scaled"], ["frames"], "transpose", perm=[1, 0, 2]),
        node("LSTM", ["frames", "lstm.W", "lstm.R", "lstm.B"], ["", "state"], "lstm", hidden_size=HIDDEN),
        node("Squeeze", ["state", "direction"], ["last"], "squeeze"),
        node("Gemm", ["last", "classifier.weight", "classifier.bias"], ["logits"], "classifier", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "spoken-digits",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", FRAMES, BANDS])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", len(WORDS)])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in tensors.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="espalier models/spoken-digits"
    )


if __name__ == "__main__":
    main()
