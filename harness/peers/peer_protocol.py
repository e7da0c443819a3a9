"""The messages between peer and host: one job as flags, and lines of JSON, as in `harness/protocol`."""

import collections
import json
import os
import re
import sys
import threading
import time

PROTOCOL = 1
HEARTBEAT_SECONDS = 5
MODES = ("time", "memory", "score", "profile")


class Refused(Exception):
    """The job cannot be done; the message is the runner's."""


FIELDS = "mode model inputs shapes warmup iterations min_time_ms cpus threads output argmax"
Job = collections.namedtuple("Job", FIELDS)


def parse(args):
    modes = "time, memory, score or profile"
    if not args:
        raise Refused(f"no mode given: {modes}")
    if args[0] not in MODES:
        raise Refused(f"unknown mode `{args[0]}`: {modes}")
    found = {"model": None, "inputs": None, "shapes": [], "warmup": 0, "iterations": 1, "min_time_ms": 0}
    found.update(cpus=[], threads=1, output=None, argmax=None)
    rest = iter(args[1:])
    for flag in rest:
        value = next(rest, None)
        if value is None:
            raise Refused(f"`{flag}` has no value")
        if flag in ("--model", "--inputs"):
            found[flag[2:]] = value
        elif flag == "--shape":
            found["shapes"].append(value)
        elif flag in ("--warmup", "--iterations", "--min-time-ms", "--threads", "--output", "--argmax"):
            found[flag[2:].replace("-", "_")] = number(flag, value)
        elif flag == "--cpus":
            found["cpus"] = [number(flag, cpu) for cpu in value.split(",")]
        else:
            raise Refused(f"unknown flag `{flag}`")
    if not found["model"]:
        raise Refused("`--model` is missing")
    if found["threads"] == 0:
        raise Refused("`--threads` wants at least 1")
    return Job(mode=args[0], **found)


def number(flag, value):
    if not re.fullmatch("[0-9]{1,19}", value):
        raise Refused(f"`{flag}` wants a whole number, not `{value}`")
    return int(value)


class Shortest(list):
    """float32 values, printed with as many digits as are needed to read back the same bits; what is not finite as text,
    because JSON has no number for it."""

    NAMES = {"nan": "NaN", "inf": "inf", "-inf": "-inf"}

    def __init__(self, values):
        super().__init__(self.NAMES.get(str(value)) or float(str(value)) for value in values)


class Reporter:
    """Sends lines, and heartbeats between them; while inferences are timed, only between two inferences."""

    def __init__(self):
        self.condition = threading.Condition()
        self.stage, self.done, self.total = "start", 0, 0
        self.last, self.quiet = time.monotonic(), False
        threading.Thread(target=self.beat, daemon=True).start()

    def emit(self, line, **fields):
        with self.condition:
            self.write(line, fields)

    def enter(self, stage, total):
        """Begins a stage of `total` steps, 0 where unknown."""
        with self.condition:
            self.stage, self.done, self.total = stage, 0, total

    def set_quiet(self, quiet):
        with self.condition:
            self.quiet = quiet
            self.condition.notify_all()

    def step(self):
        self.done += 1
        if time.monotonic() - self.last >= HEARTBEAT_SECONDS:
            with self.condition:
                self.write_beat()

    def beat(self):
        with self.condition:
            while True:
                silent = time.monotonic() - self.last
                if self.quiet:
                    self.condition.wait()
                elif silent >= HEARTBEAT_SECONDS:
                    self.write_beat()
                else:
                    self.condition.wait(HEARTBEAT_SECONDS - silent)

    def write_beat(self):
        self.write("heartbeat", {"doing": self.stage, "done": self.done, "total": self.total})

    def write(self, line, fields):
        text = json.dumps({"line": line, **fields}, allow_nan=False, separators=(",", ":")) + "\n"
        try:
            sys.stdout.buffer.write(text.encode())
            sys.stdout.buffer.flush()
        except OSError:
            # The host does not read any more, so this process has nothing left to do.
            os._exit(1)
        self.last = time.monotonic()
