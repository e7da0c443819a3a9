"""Trains the demonstration model `word-language` and writes the files next to this one: dense.onnx and the sets train,
calibration and eval.

Its results are checked in, so nobody needs to run it. To make them again (some minutes):

    apt-get install wamerican wspanish wpolish hunspell-lt hunspell-fr-classical hunspell-tr
    python3 -m venv venv && venv/bin/pip install numpy onnx onnxruntime torch
    venv/bin/python models/word-language/train.py

Data: pairs of words of one of six languages, from lists in Debian (see README.md). Every random number comes from one
seed; the same versions of the packages on the same kind of CPU give the same bytes. Words with the same first four
letters, mostly forms of one word, are on the same side of the split. The held-out part decides nothing here (no early
stopping, no choice among epochs), so its accuracy is not biased.
"""

import collections
import pathlib

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

SEED = 20
LANGUAGES = {
    "English": ("/usr/share/dict/american-english", "utf-8"),
    "French": ("/usr/share/hunspell/fr.dic", "utf-8"),
    "Spanish": ("/usr/share/dict/spanish", "utf-8"),
    "Polish": ("/usr/share/dict/polish", "utf-8"),
    "Lithuanian": ("/usr/share/hunspell/lt_LT.dic", "iso8859-13"),
    "Turkish": ("/usr/share/hunspell/tr_TR.dic", "utf-8"),
}
LETTERS = "abcdefghijklmnopqrstuvwxyzàâçèéêëîïôöùûüœáíñóúąćęłńśźżčėįšųūžğış"
SHORTEST, LONGEST = 4, 10
TRAIN, HELD_OUT = 2500, 100  # pairs of each language
CALIBRATION = 480

# Token 0 is padding after the second word. Token 1 comes before each word; the output at the first one is classified.
PAD, START, FIRST_LETTER = 0, 1, 2
LENGTH = 2 * (1 + LONGEST)
TOKENS = FIRST_LETTER + len(LETTERS)
WIDTH, HEADS, FEED_FORWARD, LAYERS = 48, 4, 128, 2

EPOCHS = 30
BATCH = 64
PEAK_RATE = 3e-3
WEIGHT_DECAY = 1e-2
DROPOUT = 0.1
FOLDER = pathlib.Path(__file__).parent


def main():
    random = np.random.default_rng(SEED)
    train_words, eval_words = words(random)
    train_set, eval_set = pairs(train_words, random), pairs(eval_words, random)

    net = trained(train_words, random)
    onnx.save(to_onnx(net), FOLDER / "dense.onnx")
    np.savez_compressed(FOLDER / "train.npz", **train_set)
    calibration = {name: values[:CALIBRATION] for name, values in train_set.items()}
    np.savez_compressed(FOLDER / "calibration.npz", **calibration)
    np.savez_compressed(FOLDER / "eval.npz", **eval_set)

    onnx.checker.check_model(str(FOLDER / "dense.onnx"), full_check=True)
    session = onnxruntime.InferenceSession(FOLDER / "dense.onnx", providers=["CPUExecutionProvider"])
    x = eval_set["x"].astype(np.int64)
    logits = session.run(None, {"tokens": x})[0]
    difference = np.abs(logits - net(torch.from_numpy(x)).detach().numpy()).max()
    print(f"{len(train_set['y'])} pairs to train on, {len(eval_set['y'])} held out")
    print(f"largest difference between onnxruntime and torch: {difference:.1e}")
    print(f"held-out accuracy: {(logits.argmax(1) == eval_set['y']).mean():.4f}")
    mistaken = np.zeros((len(LANGUAGES), len(LANGUAGES)), int)
    np.add.at(mistaken, (eval_set["y"], logits.argmax(1)), 1)
    print(mistaken)


def words(random):
    """To train on and held out: for each language, an even number of words that no other of them has."""
    lists = [candidates(*place) for place in LANGUAGES.values()]
    languages = collections.Counter(word for listed in lists for word in listed)
    beginnings = sorted({word[:4] for word in languages})
    held_out_beginnings = set(random.choice(beginnings, len(beginnings) // 8, replace=False))
    sets = [], []
    for listed in lists:
        mine = [word for word in listed if languages[word] == 1]
        random.shuffle(mine)
        for part, count in enumerate([2 * TRAIN, 2 * HELD_OUT]):
            chosen = [word for word in mine if (word[:4] in held_out_beginnings) == bool(part)][:count]
            assert len(chosen) == count
            sets[part].append(chosen)
    return sets


def pairs(languages, random):
    """Each word once, in random pairs of one language, in random order: `x` uint8 [N, LENGTH], `y` int64 [N]."""
    made = []
    for language, listed in enumerate(languages):
        shuffled = [listed[index] for index in random.permutation(len(listed))]
        made.extend((encoded(pair), language) for pair in zip(shuffled[::2], shuffled[1::2]))
    x, y = zip(*(made[index] for index in random.permutation(len(made))))
    return {"x": np.array(x, np.uint8), "y": np.array(y, np.int64)}


def candidates(path, encoding):
    """Words of lower-case letters, in the list's order.

    A line of a hunspell dictionary is a word, a slash, and the endings it takes.
    """
    lines = pathlib.Path(path).read_text(encoding).splitlines()
    listed = dict.fromkeys(line.split("/")[0].split("\t")[0].strip() for line in lines)
    return [word for word in listed if SHORTEST <= len(word) <= LONGEST and all(letter in LETTERS for letter in word)]


def encoded(pair):
    tokens = [token for word in pair for token in [START] + [FIRST_LETTER + LETTERS.index(letter) for letter in word]]
    return tokens + [PAD] * (LENGTH - len(tokens))


class Net(torch.nn.Module):
    """Tokens [N, LENGTH] to logits [N, languages]: a pre-norm encoder."""

    def __init__(self):
        super().__init__()
        self.letters = torch.nn.Parameter(torch.randn(TOKENS, WIDTH) * 0.5)
        self.positions = torch.nn.Parameter(torch.randn(1, LENGTH, WIDTH) * 0.5)
        self.layers = torch.nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = torch.nn.LayerNorm(WIDTH)
        self.classifier = torch.nn.Linear(WIDTH, len(LANGUAGES))

    def forward(self, tokens):
        x = self.letters[tokens] + self.positions
        mask = (1 - tokens.float().clamp(0, 1))[:, None, None, :] * -1e4
        for layer in self.layers:
            x = layer(x, mask)
        return self.classifier(self.norm(x[:, 0]))


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = torch.nn.LayerNorm(WIDTH), torch.nn.LayerNorm(WIDTH)
        self.query, self.key, self.value, self.out = (torch.nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = torch.nn.Linear(WIDTH, FEED_FORWARD), torch.nn.Linear(FEED_FORWARD, WIDTH)

    def forward(self, x, mask):
        def split(t):
            return t.view(-1, LENGTH, HEADS, WIDTH // HEADS).transpose(1, 2)

        y = self.norm1(x)
        scores = split(self.query(y)) @ split(self.key(y)).transpose(2, 3) * (WIDTH // HEADS) ** -0.5 + mask
        mixed = scores.softmax(-1) @ split(self.value(y))
        x = x + self.dropped(self.out(mixed.transpose(1, 2).reshape(-1, LENGTH, WIDTH)))
        return x + self.dropped(self.down(torch.relu(self.up(self.norm2(x)))))

    def dropped(self, x):
        return torch.nn.functional.dropout(x, DROPOUT, self.training)


def trained(languages, random):
    """Adam with decoupled weight decay, warm-up and a cosine schedule.

    Each epoch uses other pairs of the same words.
    """
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    net = Net()
    count = TRAIN * len(languages)
    steps = count // BATCH * EPOCHS
    optimiser = torch.optim.AdamW(net.parameters(), PEAK_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=steps, pct_start=0.1)
    for epoch in range(EPOCHS):
        fresh = pairs(languages, random)
        x, y = torch.from_numpy(fresh["x"]).long(), torch.from_numpy(fresh["y"])
        for start in range(0, count // BATCH * BATCH, BATCH):
            loss = torch.nn.functional.cross_entropy(net(x[start : start + BATCH]), y[start : start + BATCH])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        if epoch % 5 == 4:
            print(f"epoch {epoch + 1}: loss {loss.item():.4f}", flush=True)
    return net.eval()


def to_onnx(net):
    tensors = {name: value.detach().numpy() for name, value in net.named_parameters()}
    nodes = []

    def add(operator, inputs, output, **attributes):
        nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output

    def linear(x, name, output):
        """A matrix with inputs as rows, as MatMul takes it."""
        weight = tensors.pop(f"{name}.weight")
        tensors[f"{name}.weight"] = np.ascontiguousarray(weight.T)
        return add("Add", [add("MatMul", [x, f"{name}.weight"], f"{output}.product"), f"{name}.bias"], output)

    def norm(x, name, output):
        return add("LayerNormalization", [x, f"{name}.weight", f"{name}.bias"], output, axis=-1, epsilon=1e-5)

    def split(x):
        return add("Transpose", [add("Reshape", [x, "split"], f"{x}.split")], f"{x}.heads", perm=[0, 2, 1, 3])

    tensors["split"] = np.array([0, LENGTH, HEADS, WIDTH // HEADS], np.int64)
    tensors["join"] = np.array([0, LENGTH, WIDTH], np.int64)
    tensors["heads and queries"] = np.array([1, 2], np.int64)
    tensors["first"] = np.array(0, np.int64)
    for name, value in {"nought": 0, "one": 1, "never": -1e4, "scale": (WIDTH // HEADS) ** -0.5}.items():
        tensors[name] = np.array(value, np.float32)

    number = add("Cast", ["tokens"], "numbers", to=TensorProto.FLOAT)
    absent = add("Sub", ["one", add("Clip", [number, "nought", "one"], "present")], "absent")
    mask = add("Mul", [add("Unsqueeze", [absent, "heads and queries"], "absent.wide"), "never"], "mask")
    x = add("Add", [add("Gather", ["letters", "tokens"], "embedded"), "positions"], "x0")
    for index in range(LAYERS):
        at = f"layers.{index}"
        y = norm(x, f"{at}.norm1", f"{at}.y")
        query, key, value = (split(linear(y, f"{at}.{part}", f"{at}.{part}")) for part in ("query", "key", "value"))
        turned = add("Transpose", [key], f"{at}.turned", perm=[0, 1, 3, 2])
        scores = add("Mul", [add("MatMul", [query, turned], f"{at}.products"), "scale"], f"{at}.scores")
        shares = add("Softmax", [add("Add", [scores, mask], f"{at}.masked")], f"{at}.shares", axis=-1)
        mixed = add("MatMul", [shares, value], f"{at}.mixed")
        mixed = add("Transpose", [mixed], f"{at}.turned back", perm=[0, 2, 1, 3])
        attended = linear(add("Reshape", [mixed, "join"], f"{at}.joined"), f"{at}.out", f"{at}.attended")
        x = add("Add", [x, attended], f"{at}.x")
        up = add("Relu", [linear(norm(x, f"{at}.norm2", f"{at}.z"), f"{at}.up", f"{at}.up")], f"{at}.relu")
        x = add("Add", [x, linear(up, f"{at}.down", f"{at}.down")], f"x{index + 1}")
    whole = norm(add("Gather", [x, "first"], "word", axis=1), "norm", "word.norm")
    add("Gemm", [whole, "classifier.weight", "classifier.bias"], "logits", transB=1)

    graph = helper.make_graph(
        nodes,
        "word-language",
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["N", LENGTH])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", len(LANGUAGES)])],
        [
            numpy_helper.from_array(np.ascontiguousarray(value) if value.ndim else value, name)
            for name, value in tensors.items()
        ],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="espalier models/word-language"
    )


if __name__ == "__main__":
    main()
