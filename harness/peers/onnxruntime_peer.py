"""Runs a model with onnxruntime as the runner runs it with its own engine, to compare both in one table.

    python3 harness/peers/onnxruntime_peer.py time|memory|score|profile --model FILE [--inputs FILE]
        [--shape NAME=1x128]... [--warmup N] [--iterations N] [--min-time-ms N] [--cpus 1,2] [--threads N]

needs `pip install numpy onnxruntime`. It has the runner's protocol (`harness/protocol`): one job as flags, JSON lines
on stdout, `hello` first and `finished` last, also when the job failed. Inputs are the same files, or synthetic ones
that are equal to the bit, and an invocation has the same steps in the same order. One call into onnxruntime is timed,
with everything bound beforehand, so that little of Python is in it.
"""

import functools
import gc
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import time

from peer_board import board_state, cpu_features, phase, reset_high_water
from peer_protocol import HEARTBEAT_SECONDS, PROTOCOL, Refused, Reporter, Shortest, parse

# As in the runner: inputs that are prepared before timing, inferences of a memory job, times per line, samples per line
# of predictions, output values per sample that are sent to the host, layers per line.
PREPARED, INFERENCES, CHUNK, SAMPLES, MAX_VALUES, LAYERS = 64, 3, 512, 16, 1024, 16
# `Job::MOST_TIMES`.
MOST_TIMES = 1_000_000
# Values per line of what a job asks for.
LINE_VALUES = 8192
# Larger outputs have no digest: in Python this hash takes a second for ten megabytes.
MOST_HASHED = 4 << 20


def main(args):
    reporter = Reporter()
    reporter.emit(
        "hello",
        protocol=PROTOCOL,
        runner=f"Python {platform.python_version()}",
        arch=platform.machine(),
        pid=os.getpid(),
        engine=engine(),
        cpu_features=cpu_features(),
    )
    try:
        run(reporter, args)
    except BaseException as error:  # includes onnxruntime's own types, and interrupts
        text = str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
        reporter.emit("failed", stage=reporter.stage, message=" ".join(text.split()))
        reporter.emit("finished")
        return 1
    reporter.emit("finished")
    return 0


def run(reporter, args):
    job = parse(args)
    if job.cpus:
        # Before onnxruntime is loaded, because it looks at the CPUs then.
        try:
            os.sched_setaffinity(0, job.cpus)
        except (OSError, ValueError) as error:
            raise Refused(f"cannot stay on CPUs {job.cpus}: {error}") from None
    state = functools.partial(board_state, job.cpus[0] if job.cpus else 0)
    reporter.emit("state", **state())
    modes = {"time": time_job, "memory": memory_job, "score": score_job, "profile": profile_job}
    after = modes[job.mode](reporter, job, state)
    reporter.enter("start", 0)
    reporter.emit("state", **after)


def time_job(reporter, job, state):
    ready = Ready(reporter, job)
    prepared = [ready.bind(index) for index in range(min(PREPARED, ready.samples.count))]
    infer, clock = ready.session.run_with_iobinding, time.perf_counter_ns

    start = clock()
    infer(prepared[0])
    first = clock() - start
    reporter.emit("first", ns=first, digest=digest(prepared[0].get_outputs()))

    at = 1 % len(prepared)
    reporter.enter("warm_up", job.warmup)
    for _ in range(job.warmup):
        infer(prepared[at])
        at = (at + 1) % len(prepared)
        reporter.step()

    reporter.enter("time", job.iterations)
    # A heartbeat between two inferences is enough, unless an inference takes longer than the host waits.
    reporter.set_quiet(first < HEARTBEAT_SECONDS * 1_000_000_000)
    gc.collect()
    gc.disable()
    times, spent, least = [], 0, job.min_time_ms * 1_000_000
    most = max(job.iterations, MOST_TIMES)
    while len(times) < job.iterations or (len(times) < most and spent < least):
        binding = prepared[at]
        start = clock()
        infer(binding)
        took = clock() - start
        times.append(took)
        spent += took
        at = (at + 1) % len(prepared)
        reporter.step()
    after = state()
    gc.enable()
    reporter.set_quiet(False)
    for at in range(0, len(times), CHUNK):
        reporter.emit("timed", ns=times[at : at + CHUNK])
    return after


def memory_job(reporter, job, state):
    """Every phase includes Python and onnxruntime. Allocations are not counted: they are 0."""
    load_packages()
    phases = [phase("start", False)]
    reset = reset_high_water()
    ready = Ready(reporter, job)
    phases.append(phase("load", reset))
    reporter.enter("memory", INFERENCES)
    reset = reset_high_water()
    for index in range(INFERENCES):
        ready.run(index)
        reporter.step()
    phases.append(phase("infer", reset))
    reporter.emit("memory", phases=phases, peak_rss=max(phase["peak_rss"] for phase in phases), peak_allocated=0)
    return state()


def score_job(reporter, job, state):
    ready = Ready(reporter, job)
    numpy, _, _ = load_packages()
    runs = ready.samples.count // ready.samples.batch
    reporter.enter("score", runs)
    start, classes, values, nan, infinite = 0, [], [], [], []
    for index in range(runs):
        outputs = ready.run(index)
        if not outputs:
            raise Refused("the model has no output")
        if job.output is not None:
            answer = asked(outputs, job)
            for at in range(0, max(answer.size, 1), LINE_VALUES):
                piece, more = answer[at : at + LINE_VALUES], at + LINE_VALUES < answer.size
                reporter.emit("predictions", start=index, classes=[], values=[Shortest(piece)], more=more)
            reporter.step()
            continue
        output = numpy.asarray(outputs[0], dtype=numpy.float32).ravel()
        # The first of the largest values. NaN is never the largest.
        classes.append(int(numpy.where(numpy.isnan(output), -numpy.inf, output).argmax()) if output.size else 0)
        if not numpy.isfinite(output).all():
            (nan if numpy.isnan(output).any() else infinite).append(index)
        values.append(Shortest(output) if output.size <= MAX_VALUES else [])
        reporter.step()
        if len(classes) == SAMPLES or index + 1 == runs:
            reporter.emit("predictions", start=start, classes=classes, values=values, nan=nan, infinite=infinite)
            start, classes, values, nan, infinite = start + len(classes), [], [], [], []
    return state()


def asked(outputs, job):
    """The output that the job asks for, flattened, or where it is largest along an axis."""
    numpy, _, _ = load_packages()
    if job.output >= len(outputs):
        raise Refused(f"the model has no output {job.output}")
    output = numpy.asarray(outputs[job.output])
    if output.dtype.kind not in "fiub":
        raise Refused(f"output {job.output} has {output.dtype}, which are no numbers")
    if job.argmax is not None:
        if job.argmax >= output.ndim:
            raise Refused(f"output {job.output} of shape {list(output.shape)} has no axis {job.argmax}")
        output = numpy.where(numpy.isnan(output), -numpy.inf, output).argmax(job.argmax)
    return output.astype(numpy.float32).ravel()


def profile_job(reporter, job, state):
    """As onnxruntime's own profiler reports it, in whole microseconds."""
    with tempfile.TemporaryDirectory() as folder:
        ready = Ready(reporter, job, profile=f"{folder}/profile")
        untimed = 1 + job.warmup
        reporter.enter("profile", job.iterations)
        for index in range(untimed + job.iterations):
            ready.run(index)
            reporter.step()
        with open(ready.session.end_profiling(), encoding="utf-8") as file:
            events = json.load(file)
    times = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name, args = event["name"].removesuffix("_kernel_time"), event["args"]
            key = (args.get("node_index", ""), name, args.get("op_name", ""))
            times.setdefault(key, []).append(event["dur"] * 1000)
    layers = []
    for (_, name, op), spent in times.items():
        calls = max(len(spent) // (untimed + job.iterations), 1)
        each = [sum(spent[at : at + calls]) for at in range(untimed * calls, len(spent), calls)] or [sum(spent)]
        median = sorted(each)[len(each) // 2]
        layers.append(
            {"name": name[:160], "op": op[:160], "kernel": "onnxruntime", "calls": calls, "median_ns": median}
        )
    if not layers:
        raise Refused("the profile names no layers")
    for at in range(0, len(layers), LAYERS):
        reporter.emit("profile", layers=layers[at : at + LAYERS])
    return state()


# The model.


def load_packages():
    """Called after the process was pinned to its CPUs, and after `hello`."""
    import numpy
    import onnxruntime
    import peer_samples

    return numpy, onnxruntime, peer_samples


class Ready:
    """A session and its samples."""

    def __init__(self, reporter, job, profile=None):
        reporter.enter("load", 0)
        _, onnxruntime, samples = load_packages()
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.intra_op_num_threads = job.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, profile
        start = time.perf_counter_ns()
        try:
            self.session = onnxruntime.InferenceSession(job.model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise Refused(f"`{job.model}` is not a model onnxruntime can read: {error}") from None
        # Parsing and optimising are one call here, which counts as optimising.
        took = time.perf_counter_ns() - start
        reporter.enter("inputs", 0)
        self.samples = samples.Samples(job, self.session.get_inputs())
        reporter.enter("load", 0)
        shapes = zip(self.session.get_inputs(), self.samples.shapes())
        inputs = [samples.fact(item.name, item.type, shape) for item, shape in shapes]
        outputs = [samples.fact(item.name, item.type, item.shape) for item in self.session.get_outputs()]
        reporter.emit("loaded", parse_ns=0, optimise_ns=took, inputs=inputs, outputs=outputs, macs=None)

    def run(self, index):
        return self.session.run(None, self.samples.get(index))

    def bind(self, index):
        """Binds one sample. Each call allocates new outputs, as in the runner."""
        _, onnxruntime, _ = load_packages()
        binding = self.session.io_binding()
        for name, values in self.samples.get(index).items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(values))
        for item in self.session.get_outputs():
            binding.bind_output(item.name)
        return binding


def digest(outputs):
    """FNV-1a with 64 bits, as in the runner; None where an output is not plain numbers."""
    numpy, _, samples = load_packages()
    hashed, mask = 0xCBF2_9CE4_8422_2325, (1 << 64) - 1
    if not all(output.is_tensor() and output.data_type() in samples.DTYPES for output in outputs):
        return None
    pieces = [numpy.ascontiguousarray(output.numpy()).tobytes() for output in outputs]
    if sum(map(len, pieces)) > MOST_HASHED:
        return None
    for piece in pieces:
        for byte in piece:
            hashed = (hashed ^ byte) * 0x0100_0000_01B3 & mask
    return f"{hashed:016x}"


def engine():
    try:
        return f"onnxruntime {importlib.metadata.version('onnxruntime')}"
    except importlib.metadata.PackageNotFoundError:
        return "onnxruntime"


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    # Without cleaning up, because the interpreter may wait for threads of the engine.
    os._exit(code)
