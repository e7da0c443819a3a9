"""The state of the board as the kernel reports it. A value that cannot be read is None, not zero."""

import os
import platform
import re

from peer_protocol import Refused


def text(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip("\0\n ") or None
    except OSError:
        return None


def integer(path):
    found = text(path) or ""
    return int(found) if re.fullmatch("-?[0-9]{1,18}", found) else None


def field(path, key):
    """The value after `key` in lines of `key: value` or `key value`."""
    found = re.search(rf"^{key}[: \t]+(.*?)(?: kB)?$", text(path) or "", re.MULTILINE)
    return found[1].strip() if found else None


def field_number(path, key, factor=1):
    found = field(path, key) or ""
    return int(found) * factor if re.fullmatch("[0-9]{1,18}", found) else None


def cpu_features():
    known = ("avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni")
    names = ("flags", "Features", "isa")
    flags = next(filter(None, (field("/proc/cpuinfo", name) for name in names)), "").split()
    if platform.machine() != "x86_64":
        return flags
    return [flag.replace("_", "") for flag in known if flag in flags]


def board_state(cpu):
    frequency = f"/sys/devices/system/cpu/cpu{cpu}/cpufreq"
    load = (text("/proc/loadavg") or "").split(" ")[0]
    temperatures = [integer(f"{zone}/temp") for zone in folders("thermal_zone")]
    return {
        "kernel": text("/proc/sys/kernel/osrelease"),
        "cpu": field("/proc/cpuinfo", "model name")
        or field("/proc/cpuinfo", "Model")
        or text("/proc/device-tree/model"),
        "cpus": count_cpus(text("/sys/devices/system/cpu/online") or ""),
        "governor": text(f"{frequency}/scaling_governor"),
        "frequency_khz": integer(f"{frequency}/scaling_cur_freq"),
        "max_frequency_khz": integer(f"{frequency}/scaling_max_freq"),
        "temperature_millicelsius": max(filter(None, temperatures), default=None),
        "throttled": throttled(),
        "load_percent": round(float(load) * 100) if re.fullmatch("[0-9.]+", load) else None,
        "memory_total": field_number("/proc/meminfo", "MemTotal", 1024),
        "memory_available": field_number("/proc/meminfo", "MemAvailable", 1024),
        "swap_ins": field_number("/proc/vmstat", "pswpin"),
        "busy_ms": busy_ms(),
        "own_cpu_ms": round(sum(os.times()[:2]) * 1000),
    }


def count_cpus(ranges):
    if not re.fullmatch("[0-9]{1,9}(-[0-9]{1,9})?(,[0-9]{1,9}(-[0-9]{1,9})?)*", ranges):
        return None
    ends = [[int(end) for end in part.split("-")] for part in ranges.split(",")]
    return sum(end[-1] - end[0] + 1 for end in ends)


def folders(prefix):
    thermal = "/sys/class/thermal"
    try:
        return [f"{thermal}/{name}" for name in sorted(os.listdir(thermal)) if name.startswith(prefix)]
    except OSError:
        return []


def throttled():
    """Whether a cooling device of a processor is active."""
    types = {folder: (text(f"{folder}/type") or "").lower() for folder in folders("cooling_device")}
    states = [integer(f"{folder}/cur_state") for folder, of in types.items() if re.search("cpu|processor", of)]
    states = [state for state in states if state is not None]
    return any(states) if states else None


def busy_ms():
    """user, nice, system, irq, softirq and steal of all CPUs, without idle and iowait (proc_stat(5))."""
    times = re.match(r"cpu +((?:\d+ ?){8})", text("/proc/stat") or "")
    if not times:
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, times[1].split())
    return (user + nice + system + irq + softirq + steal) * 1000 // os.sysconf("SC_CLK_TCK")


def phase(name, reset):
    peak = field_number("/proc/self/status", "VmHWM", 1024)
    if peak is None:
        raise Refused("`/proc/self/status` has no `VmHWM`")
    return {"name": name, "peak_rss": peak, "allocated": 0, "reset": reset}


def reset_high_water():
    """Resets the kernel's high-water mark to what is resident now."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
        return True
    except OSError:
        return False
