//! One `devices/<name>.toml`: a board, how it is reached, and the state it must be in to be measured.

use std::time::Duration;

use espalier_protocol::{HEARTBEAT_SECONDS, Job};

use super::{
    Conditions, Device, SshAddress, Timeouts, Transport,
    document::{Environment, Table, Value, Wrong},
    types::HOST_TARGET,
    values,
};

/// The folder for runners, models and inputs, unless the file names another.
pub const DEFAULT_WORKDIR: &str = "/var/tmp/espalier";

/// `targets` are the known names; `None` where they could not be read.
pub fn read_device(
    name: &str,
    mut table: Table<'_, '_>,
    targets: Option<&[&str]>,
    environment: &Environment<'_>,
) -> Device {
    let transport = table.require("transport", "{ ssh = { host = \"board.lab\" } }");
    // Only a local device may leave out its target, which is this host's.
    let transport = transport.and_then(|value| read_transport(value, environment));
    let target = match transport {
        Some(Transport::Local) => table.take("target"),
        _ => table.require("target", "\"aarch64-gnu\""),
    };
    let known_target = |text: &str| match targets {
        Some(known) if !known.contains(&text) => Err(Wrong::unknown("target", text, known.iter().copied())),
        _ => Ok(text.to_owned()),
    };
    let target = target.and_then(|value| value.parse(known_target));
    let description = table.take("description").and_then(|value| value.text());
    let workdir = table.take("workdir").and_then(|value| value.parse(|text| values::folder("workdir", text)));
    let kernels = table.take("kernels").and_then(|value| value.parse(|text| values::folder("kernels", text)));
    let runner = table.take("runner").map(|value| value.items("strings")).unwrap_or_default();
    let runner: Vec<String> =
        runner.iter().filter_map(|word| word.parse(|text| values::filled("a word", text))).collect();
    let emulated = table.take("emulated").and_then(|value| value.flag());
    let in_all = table.take("in-all").and_then(|value| value.flag()).unwrap_or(true);
    let threads = table.take("threads").map(|value| (value.place(), value.integer(1, Job::MOST_THREADS)));
    let conditions = table.take("conditions").and_then(|value| value.table()).map(read_conditions);
    let timeouts = table.take("timeouts").and_then(|value| value.table()).map(read_timeouts);
    let conditions: Conditions = conditions.unwrap_or_default();
    if let Some((place, Some(threads))) = &threads
        && !conditions.cpus.is_empty()
        && *threads as usize > conditions.cpus.len()
    {
        let listed = conditions.cpus.len();
        place.wrong(Wrong::new(format!(
            "{threads} threads would share what `conditions.cpus` lists ({listed}): list as many CPUs"
        )));
    }
    table.close();
    Device {
        name: name.to_owned(),
        target: target.unwrap_or_else(|| HOST_TARGET.to_owned()),
        description,
        transport: transport.unwrap_or(Transport::Local),
        workdir: workdir.unwrap_or_else(|| DEFAULT_WORKDIR.to_owned()),
        // A forgotten line must not turn times under an emulator into a board's.
        emulated: emulated.unwrap_or_else(|| runner.first().is_some_and(|program| is_emulator(program))),
        runner,
        in_all,
        threads: threads.and_then(|(_, threads)| threads).unwrap_or(1),
        kernels,
        conditions,
        timeouts: timeouts.unwrap_or_default(),
    }
}

fn is_emulator(program: &str) -> bool {
    program.rsplit('/').next().is_some_and(|file| file.starts_with("qemu-"))
}

fn read_transport(value: Value<'_, '_>, environment: &Environment<'_>) -> Option<Transport> {
    if value.is_table() {
        let mut table = value.table()?;
        let ssh = table.require("ssh", "{ host = \"board.lab\" }").and_then(|value| value.table());
        table.close();
        ssh.map(|table| Transport::Ssh(read_ssh(table, environment)))
    } else {
        value.parse(|text| match text {
            "local" => Ok(Transport::Local),
            "ssh" => {
                Err(Wrong::new("`transport` lacks the board's address")
                    .suggest(Some("{ ssh = { host = \"board.lab\" } }")))
            }
            _ => Err(Wrong::new(format!("unknown transport `{text}` (known: `\"local\"`, `{{ ssh = {{ … }} }}`)"))),
        })
    }
}

fn read_ssh(mut table: Table<'_, '_>, environment: &Environment<'_>) -> SshAddress {
    let path = |text: &str| home_relative(text, environment);
    let host = table.require("host", "\"board.lab\"").and_then(|value| value.parse(values::host));
    let address = SshAddress {
        host: host.unwrap_or_default(),
        port: table.take("port").and_then(|value| value.integer(1, u32::from(u16::MAX))).map(|port| port as u16),
        user: table.take("user").and_then(|value| value.parse(values::word)),
        identity: table.take("identity").and_then(|value| value.parse(path)),
        host_key: table.take("host-key").and_then(|value| value.parse(values::host_key)),
        config: table.take("config").and_then(|value| value.parse(path)),
        known_hosts: table.take("known-hosts").and_then(|value| value.parse(path)),
    };
    table.close();
    address
}

/// A path on this host; `~/` is the home folder, as in ssh's files.
fn home_relative(text: &str, environment: &Environment<'_>) -> Result<String, Wrong> {
    match text.strip_prefix("~/") {
        Some(rest) => match environment("HOME") {
            Some(home) => Ok(format!("{}/{rest}", home.trim_end_matches('/'))),
            None => Err(Wrong::new("`~/` is the home folder, but the environment variable `HOME` is not set")),
        },
        None => values::filled("the path", text),
    }
}

fn read_conditions(mut table: Table<'_, '_>) -> Conditions {
    let governor = table.take("governor").and_then(|value| value.parse(values::governor));
    let mut cpus = Vec::new();
    for value in table.take("cpus").map(|value| value.items("whole numbers")).unwrap_or_default() {
        match value.integer(0, 1023) {
            Some(cpu) if cpus.contains(&cpu) => value.wrong(Wrong::new(format!("CPU {cpu} is already in the list"))),
            Some(cpu) => cpus.push(cpu),
            None => {}
        }
    }
    let temperature = |celsius: f64| celsius > 0.0 && celsius <= 150.0;
    let max_start_celsius =
        table.take("max-start-celsius").and_then(|value| value.number("more than 0 and at most 150", temperature));
    table.close();
    Conditions { governor, cpus, max_start_celsius }
}

fn read_timeouts(mut table: Table<'_, '_>) -> Timeouts {
    let default = Timeouts::default();
    let mut take = |key| table.take(key).and_then(|value: Value<'_, '_>| value.parse(values::duration));
    let connect = take("connect").unwrap_or(default.connect);
    let command = take("command").unwrap_or(default.command);
    let longer_than_heartbeats = |text: &str| {
        let idle = values::duration(text)?;
        if idle > Duration::from_secs(HEARTBEAT_SECONDS) {
            Ok(idle)
        } else {
            Err(Wrong::new(format!("`{text}` is too short: a healthy runner is silent for up to {HEARTBEAT_SECONDS}s")))
        }
    };
    let idle = table.take("idle").and_then(|value| value.parse(longer_than_heartbeats)).unwrap_or(default.idle);
    table.close();
    Timeouts { connect, command, idle }
}
