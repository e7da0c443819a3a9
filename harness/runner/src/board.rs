//! The state of the board as its kernel reports it. Everything is optional: containers, emulators and old kernels lack
//! files.

use std::{fs, path::Path};

use anyhow::{Result, bail};
use espalier_protocol::BoardState;

/// Reads `proc` and `sys` below `root` (`/`, or a synthetic tree in tests). Frequencies are those of CPU `cpu`.
pub fn state(root: &Path, cpu: u32) -> BoardState {
    let text = |path: &str| -> Option<String> {
        let content = fs::read_to_string(root.join(path)).ok()?;
        Some(content.trim_matches(['\0', '\n', ' ']).to_owned()).filter(|content| !content.is_empty())
    };
    let number = |path: &str| -> Option<u64> { text(path)?.parse().ok() };
    let frequency = format!("sys/devices/system/cpu/cpu{cpu}/cpufreq");
    let memory = text("proc/meminfo");
    let kib = |key: &str| -> Option<u64> { Some(field(memory.as_deref()?, key)?.parse::<u64>().ok()? * 1024) };
    BoardState {
        kernel: text("proc/sys/kernel/osrelease").map(Into::into),
        cpu: text("proc/cpuinfo")
            .and_then(|info| cpu_name(&info))
            .or_else(|| text("proc/device-tree/model"))
            .map(Into::into),
        cpus: text("sys/devices/system/cpu/online").and_then(|list| count_cpus(&list)),
        governor: text(&format!("{frequency}/scaling_governor")).map(Into::into),
        frequency_khz: number(&format!("{frequency}/scaling_cur_freq")),
        max_frequency_khz: number(&format!("{frequency}/scaling_max_freq")),
        temperature_millicelsius: hottest(root),
        throttled: throttled(root),
        load_percent: text("proc/loadavg")
            .and_then(|load| load.split(' ').next()?.parse::<f64>().ok())
            .map(|load| (load * 100.0).round() as u64),
        memory_total: kib("MemTotal"),
        memory_available: kib("MemAvailable"),
        swap_ins: text("proc/vmstat").and_then(|stat| field(&stat, "pswpin")?.parse().ok()),
        busy_ms: text("proc/stat").and_then(|stat| busy_ticks(&stat)).and_then(milliseconds),
        own_cpu_ms: text("proc/self/stat").and_then(|stat| own_ticks(&stat)).and_then(milliseconds),
    }
}

/// The name of the processor.
pub fn cpu() -> Option<String> {
    fs::read_to_string("/proc/cpuinfo").ok().and_then(|info| cpu_name(&info))
}

/// Keeps this process on these CPUs.
pub fn pin(cpus: &[u32]) -> Result<()> {
    // SAFETY: an all-zero set is a valid empty set; CPU_SET gets numbers inside it; the set outlives the call.
    let done = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for cpu in cpus {
            if *cpu as usize >= libc::CPU_SETSIZE as usize {
                bail!("cannot stay on CPU {cpu}: there is no such CPU");
            }
            libc::CPU_SET(*cpu as usize, &mut set);
        }
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    if done != 0 {
        bail!("cannot stay on CPUs {cpus:?}: {}", std::io::Error::last_os_error());
    }
    Ok(())
}

/// Features, detected at run time, by which the engine chooses its kernels.
#[cfg(target_arch = "x86_64")]
pub fn cpu_features() -> Vec<String> {
    let found = [
        ("avx", is_x86_feature_detected!("avx")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
    ];
    found.into_iter().filter(|(_, on)| *on).map(|(name, _)| name.to_owned()).collect()
}

/// Features of the processor as the kernel reports them. The standard library detects few of them on stable Rust.
#[cfg(not(target_arch = "x86_64"))]
pub fn cpu_features() -> Vec<String> {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let words = field(&info, "Features").or_else(|| field(&info, "isa")).unwrap_or_default();
    words.split_whitespace().map(str::to_owned).collect()
}

/// The value after `key` in lines of `key: value` or `key value`.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix(key)?;
        let value = rest.strip_prefix([':', ' ', '\t'])?.trim_start_matches([':', ' ', '\t']);
        Some(value.trim_end_matches(" kB").trim())
    })
}

fn cpu_name(info: &str) -> Option<String> {
    ["model name", "Model", "Hardware", "uarch", "isa"].iter().find_map(|key| field(info, key)).map(str::to_owned)
}

/// The first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal. User includes guests
/// (proc_stat(5)).
fn busy_ticks(stat: &str) -> Option<u64> {
    let times: Vec<u64> = field(stat.lines().next()?, "cpu")?.split(' ').map_while(|time| time.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal] = *times.first_chunk()?;
    Some(user + nice + system + irq + softirq + steal)
}

/// utime and stime of `/proc/self/stat`, the 14th and 15th field (proc_pid_stat(5)). The second field, the program's
/// name, may contain spaces and brackets.
fn own_ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(") ")?;
    let mut times = behind_name.split(' ').skip(11).map_while(|time| time.parse::<u64>().ok());
    Some(times.next()? + times.next()?)
}

fn milliseconds(ticks: u64) -> Option<u64> {
    // SAFETY: sysconf only reads a setting.
    let a_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    ticks.checked_mul(1000)?.checked_div(u64::try_from(a_second).ok()?)
}

/// The number of CPUs in a list: 5 for `0-3,5`.
fn count_cpus(list: &str) -> Option<u32> {
    list.split(',').try_fold(0, |sum, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?.checked_add(1)?.checked_add(sum)
    })
}

/// The content of the file `name` in each folder below `class` that begins with `prefix`, with the folder.
fn each(root: &Path, class: &str, prefix: &str, name: &str) -> Vec<(std::path::PathBuf, String)> {
    let Ok(entries) = fs::read_dir(root.join(class)) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .filter_map(|entry| Some((entry.path(), fs::read_to_string(entry.path().join(name)).ok()?.trim().to_owned())))
        .collect()
}

fn hottest(root: &Path) -> Option<i64> {
    let zones = each(root, "sys/class/thermal", "thermal_zone", "temp");
    zones.iter().filter_map(|(_, temperature)| temperature.parse().ok()).max()
}

/// The Raspberry Pi's firmware reports this (bits 0-3: under-voltage, capped, throttled, soft limit). Elsewhere the
/// processor is throttled if one of its cooling devices is active.
fn throttled(root: &Path) -> Option<bool> {
    let firmware = fs::read_to_string(root.join("sys/devices/platform/soc/soc:firmware/get_throttled"));
    if let Some(bits) =
        firmware.ok().and_then(|bits| u32::from_str_radix(bits.trim().trim_start_matches("0x"), 16).ok())
    {
        return Some(bits & 0xf != 0);
    }
    let coolers = each(root, "sys/class/thermal", "cooling_device", "type");
    let processors = coolers.iter().filter(|(_, kind)| {
        let kind = kind.to_lowercase();
        kind.contains("cpu") || kind.contains("processor")
    });
    let states: Vec<u64> = processors
        .filter_map(|(folder, _)| fs::read_to_string(folder.join("cur_state")).ok()?.trim().parse().ok())
        .collect();
    if states.is_empty() { None } else { Some(states.iter().any(|state| *state > 0)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> std::path::PathBuf {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("espalier-board-{}-{number}", std::process::id()));
        for (path, content) in files {
            let file = root.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        }
        root
    }

    #[test]
    fn a_board_without_files_has_no_numbers() {
        assert_eq!(state(Path::new("/nonexistent"), 0), BoardState::default());
    }

    #[test]
    fn a_raspberry_pi_that_is_held_back() {
        let root = tree(&[
            ("proc/sys/kernel/osrelease", "6.6.31+rpt-rpi-v8\n"),
            ("proc/cpuinfo", "processor\t: 0\nBogoMIPS\t: 108.00\n\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n"),
            ("proc/meminfo", "MemTotal:        3884332 kB\nMemAvailable:    3400000 kB\n"),
            ("proc/vmstat", "pswpin 17\npswpout 3\n"),
            ("proc/loadavg", "0.25 0.10 0.02 1/200 999\n"),
            ("proc/stat", "cpu  1000 200 30 99999 88888 4 5 6 700 80\ncpu0 1 1 1 1 1 1 1 1 1 1\nintr 17\n"),
            ("proc/self/stat", "42 (a (b) c) R 1 42 42 0 -1 4194304 500 0 0 0 123 45 7 8 20 0 2 0 99 1000 200\n"),
            ("sys/devices/system/cpu/online", "0-3\n"),
            ("sys/devices/system/cpu/cpu3/cpufreq/scaling_governor", "performance\n"),
            ("sys/devices/system/cpu/cpu3/cpufreq/scaling_cur_freq", "600000\n"),
            ("sys/devices/system/cpu/cpu3/cpufreq/scaling_max_freq", "1800000\n"),
            ("sys/class/thermal/thermal_zone0/temp", "82300\n"),
            ("sys/class/thermal/thermal_zone1/temp", "61000\n"),
            ("sys/devices/platform/soc/soc:firmware/get_throttled", "50004\n"),
        ]);
        let expected = BoardState {
            kernel: Some("6.6.31+rpt-rpi-v8".into()),
            cpu: Some("Raspberry Pi 4 Model B Rev 1.4".into()),
            cpus: Some(4),
            governor: Some("performance".into()),
            frequency_khz: Some(600_000),
            max_frequency_khz: Some(1_800_000),
            temperature_millicelsius: Some(82_300),
            throttled: Some(true),
            load_percent: Some(25),
            memory_total: Some(3_884_332 * 1024),
            memory_available: Some(3_400_000 * 1024),
            swap_ins: Some(17),
            // A tick is 10 ms on every Linux that runners are built for.
            busy_ms: Some((1000 + 200 + 30 + 4 + 5 + 6) * 10),
            own_cpu_ms: Some((123 + 45) * 10),
        };
        assert_eq!(state(&root, 3), expected);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn cut_short_cpu_times_are_no_numbers() {
        assert_eq!(busy_ticks("cpu  1 2 3 4 5 6 7\n"), None);
        assert_eq!(busy_ticks("intr 1 2 3 4 5 6 7 8\n"), None);
        assert_eq!(own_ticks("42 (runner) R 1 42 42 0 -1 4194304 500 0 0 0 123"), None);
        assert_eq!(own_ticks("42"), None);
    }

    #[test]
    fn this_process_is_part_of_what_is_busy() {
        let state = state(Path::new("/"), 0);
        assert!(state.busy_ms.unwrap() >= state.own_cpu_ms.unwrap());
    }

    #[test]
    fn a_cooling_device_in_use_is_throttling() {
        let files = |level| {
            tree(&[
                ("sys/class/thermal/cooling_device0/type", "Fan\n"),
                ("sys/class/thermal/cooling_device0/cur_state", "3\n"),
                ("sys/class/thermal/cooling_device1/type", "cpufreq-cpu0\n"),
                ("sys/class/thermal/cooling_device1/cur_state", level),
            ])
        };
        for (level, expected) in [("0\n", Some(false)), ("2\n", Some(true)), ("?\n", None)] {
            let root = files(level);
            assert_eq!(state(&root, 0).throttled, expected);
            fs::remove_dir_all(root).unwrap();
        }
    }

    #[test]
    fn cpu_lists() {
        for (list, expected) in [("0", Some(1)), ("0-3,5", Some(5)), ("3-0", None), ("", None), ("0-4294967295", None)]
        {
            assert_eq!(count_cpus(list), expected, "{list}");
        }
    }
}
