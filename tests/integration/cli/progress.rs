//! Tests of the progress of a run: events for programs, a bar on a terminal, lines elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::process::{Child, Stdio};

use seedbed::apply::{Event, Phase};
use serde_json::Value;

use crate::fixtures::repository;
use crate::sandbox::{Outcome, Sandbox, wait_until};

/// Creates a lead with two coders. The setup of one coder ends if one file exists, and fails if another one does.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    let top = sandbox.top.display();
    sandbox.manifest(&format!(
        r#"
[session.lead]
resources = ["git-worktree", {{ kind = "port-range", names = ["http"] }}]
teardown = ["true"]
[session.lead.child.coder]
count = 2
setup = ['''
test "$AGENT_SESSION_ID" = shop/lead/coder-1 || exit 0
trap '' INT TERM
touch {top}/waits
while ! test -e {top}/go; do test -d {top} || exit 1; sleep 0.05; done
test ! -e {top}/fail
''']
"#
    ));
    sandbox
}

impl Sandbox {
    fn tell(&self, name: &str) {
        std::fs::write(self.top.join(name), "").unwrap();
    }
}

/// Returns the lines of an outcome, each checked against the committed schema.
#[track_caller]
fn lines(outcome: &Outcome) -> Vec<Value> {
    let schema = std::fs::read(repository("schemas/events.schema.json")).unwrap();
    let validator = jsonschema::validator_for(&serde_json::from_slice(&schema).unwrap()).unwrap();
    let lines: Vec<Value> = outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &lines {
        let faults: Vec<_> = validator.iter_errors(line).map(|error| error.to_string()).collect();
        assert!(faults.is_empty(), "{line}: {faults:?}");
    }
    lines
}

fn names(lines: &[Value]) -> BTreeSet<&str> {
    lines.iter().map(|line| line["event"].as_str().unwrap()).collect()
}

/// Returns the phases in order, each with the number of sessions at its begin and at its end. Checks that as many
/// sessions pass a phase as its end reports.
#[track_caller]
fn phases(lines: &[Value]) -> Vec<(String, u64, u64)> {
    let mut phases = Vec::new();
    let mut under_way: Option<(String, u64, u64)> = None;
    for line in lines {
        let phase = line["phase"].as_str().unwrap_or_default();
        match line["event"].as_str().unwrap() {
            "begun" => {
                assert_eq!(under_way, None, "{line}");
                under_way = Some((phase.to_owned(), line["sessions"].as_u64().unwrap(), 0));
            }
            "passed" => {
                let (name, _, passed) = under_way.as_mut().unwrap();
                assert_eq!(name, phase);
                *passed += 1;
            }
            "ended" => {
                let (name, began, passed) = under_way.take().unwrap();
                assert_eq!((name.as_str(), passed), (phase, line["sessions"].as_u64().unwrap()));
                assert!(line["milliseconds"].is_u64());
                phases.push((name, began, passed));
            }
            _ => {}
        }
    }
    assert_eq!(under_way, None);
    phases
}

#[test]
fn the_committed_schema_of_events_is_what_the_program_prints() {
    let printed = Sandbox::new().ok(&["schema", "events"]).json();
    let committed = std::fs::read(repository("schemas/events.schema.json")).unwrap();
    let committed: Value = serde_json::from_slice(&committed).unwrap();
    assert_eq!(committed, printed, "renew it: cargo run -- schema events > schemas/events.schema.json");
    // The types of the library are all in it.
    let lines = committed["$defs"]["Event"]["oneOf"].as_array().unwrap();
    for event in schemars::schema_for!(Event).to_value()["oneOf"].as_array().unwrap() {
        assert!(lines.contains(event), "{event}");
    }
    for phase in [Phase::TearDown, Phase::Populate, Phase::RollBack] {
        let name = serde_json::to_value(phase).unwrap();
        let known = committed["$defs"]["Phase"]["oneOf"].as_array().unwrap();
        assert!(known.iter().any(|known| known["const"] == name), "{name}");
    }
}

#[test]
fn run_reports_every_phase() {
    let sandbox = sandbox();
    sandbox.tell("go");
    let applied = lines(&sandbox.ok(&["apply", "--json"]));
    let phase = |name: &str, sessions: u64| (name.to_owned(), sessions, sessions);
    let expected =
        [("claim", 3), ("create", 3), ("populate", 3), ("finish", 3), ("setUp", 2), ("writeDiscovery", 3)];
    assert_eq!(phases(&applied), expected.map(|(name, sessions)| phase(name, sessions)));
    assert_eq!(
        names(&applied),
        BTreeSet::from(["begun", "passed", "ended", "provisioned", "setUp", "ready", "done"])
    );
    assert_eq!(applied.last().unwrap()["event"], "done");
    // A second apply has nothing to report.
    assert_eq!(names(&lines(&sandbox.ok(&["apply", "--json"]))), BTreeSet::from(["done"]));

    let destroyed = lines(&sandbox.ok(&["destroy", "--json"]));
    let expected = [("tearDown", 1), ("setAside", 3), ("giveWay", 3), ("release", 3)];
    assert_eq!(phases(&destroyed), expected.map(|(name, sessions)| phase(name, sessions)));
    // Processes that cannot be inspected depend on the host.
    let mut told = names(&destroyed);
    told.remove("uninspected");
    assert_eq!(told, BTreeSet::from(["begun", "passed", "ended", "tornDown", "released", "done"]));
    assert_eq!(lines(&sandbox.ok(&["recover", "--json"]))[0]["recovered"], "nothing");
}

#[test]
fn failed_run_reports_its_progress() {
    let sandbox = sandbox();
    sandbox.tell("go");
    sandbox.tell("fail");
    let failed = lines(&sandbox.seedbed(&["apply", "--json", "--jobs", "1"]).expect(1));
    let phases: BTreeMap<_, _> =
        phases(&failed).into_iter().map(|(name, began, passed)| (name, (began, passed))).collect();
    assert_eq!(phases["setUp"], (2, 1), "{failed:#?}");
    assert_eq!(phases["rollBack"], (3, 3));
    assert!(!phases.contains_key("writeDiscovery"));
    assert_eq!(failed.last().unwrap()["failures"][0]["session"], "lead/coder-1");
    assert!(names(&failed).contains("rollingBack"));
}

#[test]
fn elsewhere_lines_tell_what_lasts() {
    let sandbox = sandbox();
    sandbox.tell("go");
    let quick = sandbox.ok(&["apply", "-v"]);
    quick.says(&["checked out 3 sessions in ", "set up 2 sessions in ", "lead/coder-0: ready"]);
    let destroyed = sandbox.ok(&["destroy", "-q"]);
    assert_eq!((destroyed.stdout.as_str(), destroyed.stderr.as_str()), ("", ""));
    let silent = sandbox.ok(&["apply", "-q"]);
    assert_eq!((silent.stdout.as_str(), silent.stderr.as_str()), ("", ""));
}

/// Program in a terminal of its own, 100 columns wide, run by `script`.
struct Terminal {
    script: Child,
}

impl Terminal {
    fn start(sandbox: &Sandbox, columns: u32, command: &str) -> Self {
        let program = env!("CARGO_BIN_EXE_seedbed");
        let line = format!("stty cols {columns} rows 40; {}", command.replace("seedbed", program));
        let script = sandbox
            .program("timeout", &sandbox.repository)
            // What is waited for in vain ends the wait.
            .args(["120", "script"])
            .args(["--quiet", "--return", "--flush", "--echo", "never", "--command", &line, "/dev/null"])
            .env("TERM", "xterm")
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { script }
    }

    /// Presses Ctrl-C.
    fn interrupt(&mut self) {
        let stdin = self.script.stdin.as_mut().unwrap();
        stdin.write_all(b"\x03").unwrap();
        stdin.flush().unwrap();
    }

    /// Reads until the terminal has received `wanted`.
    fn read_until(&mut self, wanted: &str, sent: &mut String) {
        let stdout = self.script.stdout.as_mut().unwrap();
        let mut bytes = Vec::new();
        while !String::from_utf8_lossy(&bytes).contains(wanted) {
            let mut byte = [0];
            assert_eq!(
                stdout.read(&mut byte).unwrap(),
                1,
                "never said: {wanted}\n{}",
                String::from_utf8_lossy(&bytes)
            );
            bytes.extend(byte);
        }
        sent.push_str(
            &String::from_utf8(bytes)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        );
    }

    /// Waits for the end, and returns the exit code and the final content of the terminal.
    fn end(mut self, mut sent: String) -> (i32, String) {
        let mut rest = Vec::new();
        self.script.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
        sent.push_str(&String::from_utf8_lossy(&rest));
        (self.script.wait().unwrap().code().unwrap(), screen(&sent))
    }
}

/// Returns the content of a terminal after this output: lines, the cursor moved by carriage returns and the few
/// sequences that erase and move up.
fn screen(sent: &str) -> String {
    let mut lines: Vec<Vec<char>> = vec![Vec::new()];
    let (mut row, mut column) = (0, 0);
    let mut characters = sent.chars();
    while let Some(c) = characters.next() {
        match c {
            '\r' => column = 0,
            '\n' => {
                row += 1;
                if row == lines.len() {
                    lines.push(Vec::new());
                }
            }
            '\u{1b}' => {
                assert_eq!(characters.next(), Some('['), "{sent:?}");
                let mut number = String::new();
                let what = loop {
                    match characters.next().expect("a sequence ends") {
                        c if c.is_ascii_alphabetic() => break c,
                        c => number.push(c),
                    }
                };
                match (number.as_str(), what) {
                    (_, 'm') => {}
                    ("2", 'K') => lines[row].clear(),
                    ("" | "0", 'K') => lines[row].truncate(column),
                    (up, 'A') => row -= up.parse().unwrap_or(1),
                    _ => panic!("{number}{what} in {sent:?}"),
                }
            }
            c => {
                if lines[row].len() <= column {
                    lines[row].resize(column + 1, ' ');
                }
                lines[row][column] = c;
                column += 1;
            }
        }
    }
    lines.iter().map(|line| line.iter().collect::<String>().trim_end().to_owned() + "\n").collect()
}

#[test]
fn bar_is_shown_on_a_terminal_during_long_phases() {
    let sandbox = sandbox();
    let mut terminal = Terminal::start(&sandbox, 100, "seedbed apply");
    let mut sent = String::new();
    terminal.read_until("] 1 of 2 sessions, ", &mut sent);
    sandbox.tell("go");
    let (code, screen) = terminal.end(sent);
    assert_eq!(code, 0, "{screen}");
    assert!(
        screen.contains("swarm shop is applied: 3 created") && !screen.contains("setting up"),
        "{screen}"
    );
    assert!(!screen.contains('\u{1b}'));
}

#[test]
fn a_terminal_is_left_clean_by_a_failure() {
    let sandbox = sandbox();
    let mut terminal = Terminal::start(&sandbox, 100, "seedbed apply");
    let mut sent = String::new();
    terminal.read_until("setting up [", &mut sent);
    sandbox.tell("fail");
    sandbox.tell("go");
    let (code, screen) = terminal.end(sent);
    assert_eq!(code, 1, "{screen}");
    assert!(screen.contains("was rolled back") && !screen.contains("setting up"), "{screen}");
}

#[test]
fn a_terminal_is_left_clean_by_ctrl_c_and_by_a_second() {
    for again in [false, true] {
        let sandbox = sandbox();
        let mut terminal = Terminal::start(&sandbox, 100, "seedbed apply");
        let mut sent = String::new();
        terminal.read_until("setting up [", &mut sent);
        terminal.interrupt();
        terminal.read_until("a second Ctrl-C", &mut sent);
        // The setup does not end by itself: the next signal ends the run, not the other way round.
        if again {
            terminal.interrupt();
        } else {
            sandbox.tell("go");
        }
        let (code, screen) = terminal.end(sent);
        assert_eq!(code, 130, "{screen}");
        assert!(!screen.contains("setting up"), "{screen}");
        assert_eq!(screen.contains("was rolled back\n"), !again, "{screen}");
        sandbox.tell("go");
        wait_until("the lock is free", || sandbox.seedbed(&["recover"]).code == 0);
    }
}

/// Covers `seedbed apply -v 2>&1 | head -1`, and a full disk for the log.
#[test]
fn run_continues_if_its_output_is_not_read() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\ncount = 3\nresources = [\"git-worktree\", \"port-range\"]\n");
    sandbox.unchanged(|| {
        // Only output that is data reports that it could not be written.
        for (args, code) in
            [(&["apply", "--verbose"][..], 74), (&["status"], 74), (&["destroy", "--verbose"], 0)]
        {
            let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
            let closed = || {
                let (reader, writer) = std::io::pipe().unwrap();
                drop(reader);
                writer
            };
            let full = sandbox.command(args).stdout(full()).stderr(full()).status().unwrap();
            let closed = sandbox.command(args).stdout(closed()).stderr(closed()).status().unwrap();
            assert_eq!((full.code(), closed.code()), (Some(code), Some(0)), "{args:?}");
        }
    });
}

#[test]
fn ctrl_c_is_an_answer_to_a_question() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\ncount = 2\nresources = [\"git-worktree\"]\n");
    sandbox.ok(&["apply"]);
    sandbox.manifest("[session.a]\ncount = 1\nresources = [\"git-worktree\"]\n");
    sandbox.unchanged(|| {
        let mut terminal = Terminal::start(&sandbox, 100, "seedbed apply");
        let mut sent = String::new();
        terminal.read_until("[y/N] ", &mut sent);
        terminal.interrupt();
        let (code, screen) = terminal.end(sent);
        assert_eq!(code, 130, "{screen}");
    });
}

#[test]
fn a_plan_is_as_wide_as_the_terminal() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [\"git-worktree\", \"port-range\"]\n");
    let widest = |columns: u32, command: &str| {
        let (code, screen) = Terminal::start(&sandbox, columns, command).end(String::new());
        assert_eq!(code, 0, "{screen}");
        screen.lines().map(|line| line.chars().count()).max().unwrap()
    };
    assert!(widest(200, "seedbed plan") > 60);
    assert!(widest(50, "seedbed plan") <= 50);
    assert!(widest(200, "COLUMNS=40 seedbed plan") <= 40);
}
