use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use super::*;

/// Returns `sh -c script`, with a PATH and a deadline that only a hang reaches.
fn sh(script: &str) -> Process {
    Process::new("sh").args(["-c", script]).envs([path()]).deadline(Duration::from_mins(1))
}

fn path() -> (OsString, OsString) {
    ("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())
}

fn printed(process: Process) -> String {
    String::from_utf8(process.run().unwrap()).unwrap()
}

/// Waits until the process has ended. A zombie may remain.
fn assert_gone(pid: &str) {
    for _ in 0..200 {
        let state = printed(sh(&format!("ps -o stat= -p {pid} || true")));
        if state.trim().is_empty() || state.starts_with('Z') {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("{pid} still runs");
}

#[test]
fn both_streams_and_the_status_come_back() {
    let output = sh("echo out; echo err >&2; exit 3").output().unwrap();
    assert_eq!(output.stdout, b"out\n");
    assert_eq!(output.stderr, b"err\n");
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn program_gets_only_the_given_environment() {
    let env = printed(Process::new("env").envs([path(), ("A".into(), "1".into()), ("A".into(), "2".into())]));
    assert_eq!(env, "A=2\nPATH=/usr/local/bin:/usr/bin:/bin\n");
}

#[test]
fn a_child_leads_its_own_group_and_reads_nothing() {
    assert_eq!(printed(sh("cat; test $(ps -o pgid= -p $$) = $$ && echo leader")), "leader\n");
}

#[test]
fn failure_shows_the_command_and_the_last_lines_escaped() {
    let script = "printf 'first\\n\\nlast \\033[31m\\n' >&2; exit 7";
    let error = sh(script).run().unwrap_err().to_string();
    assert!(error.starts_with("`sh -c 'printf 'first"), "{error}");
    assert!(error.ends_with("` failed (exit status: 7)\n  first\n  last \\u{1b}[31m"), "{error}");

    let error = sh("for i in $(seq 9999); do echo line $i >&2; done; exit 1").run().unwrap_err();
    let Error::Failed { tail, .. } = error else { panic!("{error}") };
    assert!(tail.starts_with("line 9992\n") && tail.ends_with("line 9999"), "{tail}");

    let error = sh("head -c 5000 /dev/zero | tr '\\0' x >&2; exit 1").run().unwrap_err();
    let Error::Failed { tail, .. } = error else { panic!("{error}") };
    assert_eq!(tail.chars().count(), crate::host::text::LAST_LINES_MAX + 1);
}

#[test]
fn a_command_is_shown_bounded() {
    let process = Process::new("p").unreported_args(["-c", "a=b"]).arg("x\ny").arg("").arg("z".repeat(9999));
    let command = process.command();
    assert!(command.starts_with("p x\\ny '' zzz") && command.ends_with("z…"), "{command}");
    assert_eq!(command.chars().count(), COMMAND_MAX + 1);
}

#[test]
fn program_that_cannot_start_is_reported_with_the_reason() {
    let check = |process: Process, expected: &str| {
        assert_eq!(process.run().unwrap_err().to_string(), expected);
    };
    check(
        Process::new("no-such-\tprogram").envs([path()]),
        "cannot start `no-such-\\tprogram`: there is no such program in PATH",
    );
    check(
        sh("true").current_dir(Path::new("/no/such")),
        "cannot start `sh`: there is no directory /no/such to run it in",
    );
    let empty = [("PATH".into(), "/var/empty".into())];
    check(Process::new("sh").envs(empty), "cannot start `sh`: there is no such program in PATH");
}

#[test]
fn a_program_is_found_in_the_path_that_it_is_given() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for name in ["directory/tool", "plain", "first", "second"] {
        std::fs::create_dir_all(at(name)).unwrap();
    }
    for (name, mode) in [("plain/tool", 0o644), ("first/tool", 0o755), ("second/tool", 0o755)] {
        std::fs::write(at(name), format!("#!/bin/sh\necho {name}\n")).unwrap();
        std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let run = |path: &str| {
        let path =
            path.split(':').map(|name| at(name).into_os_string()).collect::<Vec<_>>().join(":".as_ref());
        printed(Process::new("tool").envs([("PATH".into(), path)]))
    };
    assert_eq!(run("none:directory:plain:first:second"), "first/tool\n");
    assert_eq!(run("second:first"), "second/tool\n");

    let relative = Process::new("tool").envs([("PATH".into(), "first".into())]).current_dir(directory.path());
    assert_eq!(printed(relative), "first/tool\n");
    assert_eq!(printed(sh("ps -o args= -p $$")).split(' ').next(), Some("sh"));
}

#[test]
fn input_and_output_larger_than_any_pipe_do_not_deadlock() {
    let bytes: Vec<u8> = (0..5_000_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    let process = sh("cat; echo done >&2").stdin(Stdin::Bytes(bytes.clone()));
    assert!(process.run().unwrap() == bytes);
    // One program prints everything before it reads, one reads nothing, and one has no input.
    let late = sh("head -c 5000000 /dev/zero; wc -c").stdin(Stdin::Bytes(bytes.clone()));
    assert!(late.run().unwrap().ends_with(b"5000000\n"));
    sh("exec <&-; exit 0").stdin(Stdin::Bytes(bytes)).run().unwrap();
    assert_eq!(printed(sh("wc -c").stdin(Stdin::Bytes(Vec::new()))).trim(), "0");
}

#[test]
fn standard_error_is_kept_from_its_end() {
    let output = sh("head -c 3000000 /dev/zero >&2; printf end >&2").output().unwrap();
    assert_eq!(output.stderr.len(), 64 << 10);
    assert!(output.stderr.ends_with(b"\0end"));
}

#[test]
fn a_child_that_prints_for_ever_is_ended() {
    let mut process = sh("echo $$ >&2; exec yes");
    process.stdout_max = 1 << 20;
    let log = tempfile::NamedTempFile::new().unwrap();
    let error = process.log(log.reopen().unwrap()).run().unwrap_err();
    assert!(matches!(error, Error::TooMuch { limit: 1_048_576, .. }), "{error}");
}

#[test]
fn a_deadline_ends_the_whole_group() {
    let directory = tempfile::tempdir().unwrap();
    let script =
        "sh -c 'echo $$ >grandchild; trap \"\" TERM; while :; do sleep 1; done' & echo $$ >child; wait";
    let process = sh(script).current_dir(directory.path()).deadline(Duration::from_millis(500));
    let error = process.run().unwrap_err();
    assert!(error.to_string().ends_with("was ended after 0 s without a result"), "{error}");
    for file in ["child", "grandchild"] {
        assert_gone(std::fs::read_to_string(directory.path().join(file)).unwrap().trim());
    }
}

#[test]
fn a_child_that_tidies_up_after_sigterm_is_left_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let script = "trap 'sleep 0.3; : >tidy; exit' TERM; exec >&- 2>&-; while :; do sleep 0.1; done";
    let started = Instant::now();
    let process = sh(script).current_dir(directory.path()).deadline(Duration::from_millis(300));
    assert!(matches!(process.run().unwrap_err(), Error::Deadline { .. }));
    assert!(directory.path().join("tidy").is_file());
    assert!(started.elapsed() < Duration::from_secs(5), "one that obeys SIGTERM is not waited for longer");
}

#[test]
fn a_cancel_ends_a_running_child_and_starts_no_other() {
    let cancel = Cancel::default();
    let other = cancel.clone();
    let asker = thread::spawn(move || {
        thread::sleep(Duration::from_millis(200));
        other.request();
    });
    let error = sh("sleep 1000").cancel(&cancel).run().unwrap_err();
    asker.join().unwrap();
    assert_eq!(error.to_string(), "`sh -c 'sleep 1000'` was interrupted");

    let directory = tempfile::tempdir().unwrap();
    let process = sh(": >started").current_dir(directory.path()).cancel(&cancel);
    assert!(matches!(process.run().unwrap_err(), Error::Cancelled { .. }));
    assert!(!directory.path().join("started").exists());
}

#[test]
fn background_process_is_not_waited_for() {
    let started = Instant::now();
    let pids = printed(sh("sleep 30 & echo $!; yes >&2 & echo $!; seq 10000 | tail -1"));
    assert!(started.elapsed() < Duration::from_secs(20));
    assert!(pids.ends_with("\n10000\n"), "{pids}");
    printed(sh(&format!("kill {}", pids.lines().take(2).collect::<Vec<_>>().join(" "))));
}

#[test]
fn log_gets_both_streams_after_its_content() {
    let mut log = tempfile::NamedTempFile::new().unwrap();
    log.write_all(b"before\n").unwrap();
    let append = File::options().append(true).open(log.path()).unwrap();
    sh("echo out; sleep 0.2; echo err >&2").log(append).run().unwrap();
    assert_eq!(std::fs::read_to_string(log.path()).unwrap(), "before\nout\nerr\n");
}

#[test]
fn child_inherits_the_lock_that_is_its_input() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lock");
    let file = File::create(&path).unwrap();
    file.lock().unwrap();
    let process = sh("echo ready >&2; while ! test -e stop; do sleep 0.05; done");
    let process = process.current_dir(directory.path()).stdin(Stdin::File(file));
    let child = thread::spawn(move || process.run());
    thread::sleep(Duration::from_millis(300));

    let other = File::open(&path).unwrap();
    assert!(other.try_lock().is_err(), "this process has dropped the lock, the child has not");
    std::fs::write(directory.path().join("stop"), "").unwrap();
    child.join().unwrap().unwrap();
    other.lock().unwrap();
}

#[test]
fn a_program_that_is_being_written_is_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("program");
    let mut file = File::create(&path).unwrap();
    file.set_permissions(std::fs::Permissions::from_mode(0o755)).unwrap();
    file.write_all(b"#!/bin/sh\necho ran\n").unwrap();
    let writer = thread::spawn(move || {
        thread::sleep(Duration::from_millis(60));
        drop(file);
    });
    assert_eq!(printed(Process::new(&path)), "ran\n");
    writer.join().unwrap();
}

#[test]
fn a_quick_child_is_not_waited_for_in_ticks() {
    let started = Instant::now();
    for _ in 0..40 {
        Process::new("true").envs([path()]).run().unwrap();
    }
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[test]
fn input_file_is_read_from_its_position() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"text").unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    file.read_exact(&mut [0; 2]).unwrap();
    assert_eq!(printed(Process::new("cat").envs([path()]).stdin(Stdin::File(file))), "xt");
}
