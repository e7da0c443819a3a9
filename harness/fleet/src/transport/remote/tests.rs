//! Processes on a board, over connections that are cut where SSH's could not be: the same code, without a server.

use std::{
    fs,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Instant,
};

use super::{
    super::{Transport, loopback},
    *,
};

const LIMITS: Limits = Limits { command: Duration::from_secs(600), idle: Duration::from_secs(120) };

fn open() -> (loopback::Board, Transport) {
    let board = loopback::Board::default();
    let there = board.clone();
    let connect = Box::new(move |_, _: &Cancel| there.connect().map(Connection::Loopback));
    let remote = Remote::open(connect, Duration::from_secs(60), &Cancel::default()).unwrap();
    (board, Transport::Remote(Box::new(remote)))
}

/// Runs a script and collects its lines; `on_line` too gets each of them.
fn run(
    transport: &mut Transport,
    script: &str,
    limits: Limits,
    on_line: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> (Result<Exit, TransportError>, Vec<String>) {
    let argv = ["sh", "-c", script].map(str::to_owned);
    let mut lines = Vec::new();
    let result = transport.run(&argv, limits, &Cancel::default(), &mut |line| {
        lines.push(line.to_owned());
        on_line(line)
    });
    (result, lines)
}

fn go_on(_: &str) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// The connection still works.
#[track_caller]
fn expect_usable(transport: &mut Transport) {
    assert!(run(transport, "true", LIMITS, &mut go_on).0.unwrap().success());
}

/// Seconds to sleep that no other test sleeps, and so the mark of its process.
fn unique() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("60.{:05}{}", std::process::id(), NUMBER.fetch_add(1, Ordering::SeqCst))
}

fn runs(seconds: &str) -> bool {
    let expected = format!("sleep\0{seconds}\0");
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .any(|entry| fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == expected.as_bytes()))
}

#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(300), "not within 300 s: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[track_caller]
fn expect_gone(seconds: &str) {
    wait_until("the command's end", || !runs(seconds));
}

#[test]
fn output_and_exit_code_come_without_what_the_login_shell_prints() {
    let (_, mut transport) = open();
    let (exit, lines) = run(&mut transport, "echo one; printf two; echo oops >&2; exit 7", LIMITS, &mut go_on);
    assert_eq!(lines, ["one", "two"]);
    assert_eq!(exit.unwrap(), Exit { code: Some(7), stderr: "oops".into(), ..Exit::default() });
    let (exit, lines) = run(&mut transport, "kill -9 $$", LIMITS, &mut go_on);
    assert_eq!((exit.unwrap().signal.as_deref(), lines.len()), (Some("KILL"), 0));
}

#[test]
fn input_arrives_whole_and_need_not_be_read() {
    let (_, mut transport) = open();
    let data = vec![b'x'; 1_000_000];
    let mut sent = 0;
    let mut feed = |script: &str, sent: &mut u64| {
        let argv = ["sh", "-c", script].map(str::to_owned);
        transport.feed(&argv, &mut &data[..], &mut |bytes| *sent += bytes, LIMITS, &Cancel::default()).unwrap()
    };
    let output = feed("wc -c", &mut sent);
    assert_eq!((output.stdout.trim(), sent), ("1000000", 1_000_000));
    assert_eq!(feed("exit 3", &mut 0).exit.code, Some(3));
}

#[test]
fn a_caller_that_breaks_off_ends_the_command_and_its_children() {
    let (board, mut transport) = open();
    for script in ["echo up; sleep SECONDS; echo no", "trap '' TERM; echo up; sleep SECONDS; sleep SECONDS"] {
        let seconds = unique();
        let script = script.replace("SECONDS", &seconds);
        let (exit, lines) = run(&mut transport, &script, LIMITS, &mut |_| ControlFlow::Break(()));
        let exit = exit.unwrap();
        assert!(exit.stopped && !exit.success() && lines == ["up"], "{exit:?} {lines:?}");
        expect_gone(&seconds);
        expect_usable(&mut transport);
    }
    assert_eq!(board.connections(), 1, "over the connection there was");
}

#[test]
fn a_silent_command_is_ended_over_another_connection() {
    let (board, mut transport) = open();
    let seconds = unique();
    let limits = Limits { idle: Duration::from_secs(5), ..LIMITS };
    let (result, lines) = run(&mut transport, &format!("echo up; exec sleep {seconds}"), limits, &mut go_on);
    assert!(matches!(result, Err(TransportError::Silent { .. })) && lines == ["up"], "{result:?}");
    expect_gone(&seconds);
    assert_eq!(board.connections(), 2);
    expect_usable(&mut transport);
    assert_eq!(board.connections(), 2);
}

/// What a lost connection leaves on the board is ended before the next command runs.
#[test]
fn an_orphan_is_ended_by_the_next_connection_that_works() {
    for is_silent in [false, true] {
        let (board, mut transport) = open();
        let seconds = unique();
        let limits = Limits { idle: Duration::from_secs(5), ..LIMITS };
        let script = format!("echo up; exec sleep {seconds}");
        let (result, lines) = run(&mut transport, &script, limits, &mut |_| {
            board.set_off(true);
            if !is_silent {
                board.cut();
            }
            ControlFlow::Continue(())
        });
        match result {
            Err(TransportError::Silent { .. }) => assert!(is_silent),
            Err(TransportError::Lost { .. }) => assert!(!is_silent),
            other => panic!("{other:?}"),
        }
        assert_eq!(lines, ["up"]);
        let (result, _) = run(&mut transport, "true", LIMITS, &mut go_on);
        assert!(matches!(result, Err(TransportError::Unreachable { .. })), "{result:?}");
        wait_until("the orphan, which nobody could end yet", || runs(&seconds));
        board.set_off(false);
        expect_usable(&mut transport);
        expect_gone(&seconds);
    }
}

#[test]
fn a_process_of_an_earlier_boot_is_left_alone() {
    let connection = Connection::Loopback(loopback::Board::default().connect().unwrap());
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned();
    let process = RemoteProcess { pid: child.id(), boot };
    kill(&connection, &RemoteProcess { boot: "another".into(), ..process.clone() }).unwrap();
    assert_eq!(child.try_wait().unwrap(), None);
    // This time it is meant, and a thread reaps it meanwhile.
    let waiting = thread::spawn(move || child.wait().unwrap());
    kill(&connection, &process).unwrap();
    assert!(!waiting.join().unwrap().success());
}

#[test]
fn the_process_is_found_behind_the_noise_of_a_login_shell() {
    let check = |output: &str, expected: Option<(u32, &str, &str)>| {
        let found = find_process(output.as_bytes());
        let found = found.as_ref().map(|(process, used)| (process.pid, process.boot.as_str(), &output[*used..]));
        assert_eq!(found, expected);
    };
    check("espalier-process 12 ab-c\n{}\n", Some((12, "ab-c", "{}\n")));
    check("Welcome!\n\x1b[0mespalier-process no\nespalier-process 7 \n", Some((7, "", "")));
    check("espalier-process 12 ab", None);
    let mut login = Login::default();
    assert_eq!(login.skip(&vec![b'x'; NOISE_LIMIT]), Ok(&[][..]));
    assert!(login.skip(b"x").unwrap_err().contains("before the command began"));
}

/// Every word comes through, and no login shell finds anything to replace.
#[test]
fn a_line_is_plain_for_every_login_shell() {
    let words = ["it's 100%\n", "a!b!!\\n\\0041", "'", "", "$HOME `id` \"x\" %s", "grün\n\n"].map(str::to_owned);
    let line = super::shell_line(r#"printf '<%s>' "$@""#, &words);
    // Quotes in pairs, and nothing special between them.
    let within: Vec<&str> = line.split('\'').skip(1).step_by(2).collect();
    assert!(line.matches('\'').count().is_multiple_of(2));
    assert!(within.iter().all(|text| !text.contains(['\n', '!'])) && !line.contains(['\n', '!']), "{line}");
    assert!(!line.contains(r"\\") && !line.contains(r"\'"), "{line}");
    let output = std::process::Command::new("sh").arg("-c").arg(&line).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), words.map(|word| format!("<{word}>")).concat());
    // A runner is started without any other process before it.
    let plain = super::shell_line(super::PREAMBLE, &["env".into(), "A=x y".into(), "runner".into()]);
    assert!(!plain.contains("printf") && !plain.contains(['\n', '!', '\\']), "{plain}");
}
