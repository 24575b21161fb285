//! Tests of `seedbed export`: the exported commands do what those of `start` do, in real programs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::sandbox::{Outcome, Sandbox, wait_until};

/// Script that writes its directory, arguments and variables into a file, and fails.
const REPORT: &str = r#"#!/bin/sh
{ pwd; printf '%s\n' "$PWD" "${OLDPWD-}" "${GIT_DIR-}" "$VALUE" "$SEEDBED_COMMAND" "$AGENT_DISCOVERY_FILE" "$#" "$@"; } > report
exit 3
"#;

/// Text that shells, tmux, systemd, process-compose and YAML could misread.
const HOSTILE: &str = "it's \"$HOME\" ${x} $$ `id` #{pid} #[bg] %H \\n {{ '{{' }} x }} \u{e9}";

/// Creates a swarm of two sessions in a directory with a hostile name, and returns its sandbox.
pub(super) fn applied() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("report.sh", REPORT);
    fs::set_permissions(sandbox.repository.join("report.sh"), PermissionsExt::from_mode(0o755)).unwrap();
    sandbox.commit("report");
    let value = format!("'''{}'''", HOSTILE.replace("'{{'", "\"{{\""));
    let table = format!("resources = [\"git-worktree\"]\nenv = {{ VALUE = {value} }}\n");
    let line = "./report.sh \"$VALUE\"";
    sandbox.manifest(&format!(
        "[session.a]\n{table}command = [\"./report.sh\", \"\", {value}]\n\
         [session.a.child.b]\n{table}command = {line:?}\n\
         [session.c]\nresources = []\n"
    ));
    sandbox.ok(&["apply"]);
    sandbox
}

/// Returns the reports of both sessions, and removes them.
pub(super) fn reports(sandbox: &Sandbox) -> Vec<String> {
    let files: Vec<PathBuf> = ["a", "a/b"].map(|path| sandbox.directory(path).join("report")).into();
    wait_until("both commands have run", || {
        files.iter().all(|file| fs::read_to_string(file).is_ok_and(|text| text.contains('\n')))
    });
    let take = |file: PathBuf| {
        let text = fs::read_to_string(&file).unwrap();
        fs::remove_file(file).unwrap();
        text
    };
    files.into_iter().map(take).collect()
}

/// Returns a command with variables that tie it to another directory.
fn program(sandbox: &Sandbox, program: &str, args: &[&str]) -> Command {
    let mut command = sandbox.program(program, &sandbox.repository);
    command
        .args(args)
        .env("GIT_DIR", "/elsewhere")
        .env("OLDPWD", "/elsewhere")
        .env("PWD", &sandbox.repository);
    command.env("SHELL", "/bin/false").env("LC_ALL", "C.UTF-8");
    command
}

fn run(command: &mut Command) -> Outcome {
    Outcome::of(command.output().unwrap())
}

/// Parses the configuration of process-compose as that program does: the name, the directory, the words and the
/// variables of each process.
fn processes(text: &str) -> Vec<(String, String, Vec<String>, Vec<String>)> {
    assert!(!text.contains('$'), "the file has a variable: {text}");
    let parse = |text: &str| serde_json::from_str::<String>(text).unwrap();
    let rendered = |text: &str| parse(text).replace(r#"{{"{{"}}"#, "{{");
    let mut found: Vec<(String, String, Vec<String>, Vec<String>)> = Vec::new();
    for line in text.lines().skip_while(|line| *line != "processes:").skip(1) {
        let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
        let last = found.last_mut();
        match (indent.len(), rest.split_once(": "), last) {
            (2, ..) => {
                found.push((parse(rest.strip_suffix(':').unwrap()), String::new(), Vec::new(), Vec::new()));
            }
            (4, Some(("working_dir", value)), Some((_, directory, ..))) => *directory = rendered(value),
            (4, Some(("entrypoint", value)), Some((_, _, words, _))) => {
                *words = serde_json::from_str(value).unwrap();
            }
            (4, Some(("is_dotenv_disabled", value)), Some(_)) => assert_eq!(value, "true"),
            (4, None, Some(_)) => assert_eq!(rest, "environment:"),
            (6, _, Some((.., environment))) => environment.push(rendered(rest.strip_prefix("- ").unwrap())),
            _ => panic!("{line}"),
        }
    }
    found
}

#[test]
fn exported_commands_do_what_those_of_start_do() {
    let sandbox = applied();
    let file = "export it's.sh";
    sandbox.seedbed(&["start", "--quiet"]).expect(3);
    let expected = reports(&sandbox);
    assert!(
        expected[0].contains("it's \"$HOME\" ${x} $$ `id` #{pid} #[bg] %H \\n {{ x }} \u{e9}\n"),
        "{expected:?}"
    );

    sandbox
        .ok(&["export", "--format", "systemd", "-o", file])
        .says(&[r"run `sh 'export it'\''s.sh'` to start"]);
    for session in ["a", "a/b"] {
        run(&mut program(&sandbox, "sh", &[file, session])).expect(3);
    }
    assert_eq!(reports(&sandbox), expected);
    run(&mut program(&sandbox, "sh", &[file, "c"]))
        .expect(64)
        .says(&["there is no session c in this script"]);
    let line = r#"seedbed=$0; "$seedbed" export --format tmux | sh"#;
    let binary = env!("CARGO_BIN_EXE_seedbed");
    run(&mut program(&sandbox, "sh", &["-c", line, binary])).expect(64).says(&["save this script as a file"]);

    let yaml = sandbox.ok(&["export", "--format", "process-compose"]).stdout;
    let names = processes(&yaml).into_iter().map(|(name, directory, words, environment)| {
        let mut command = sandbox.program(&words[0], Path::new(&directory));
        command.args(&words[1..]).env("PWD", &directory);
        command.envs(environment.iter().map(|variable| variable.split_once('=').unwrap()));
        run(&mut command).expect(3);
        name
    });
    assert_eq!(names.collect::<Vec<_>>(), ["a", "a:b"]);
    assert_eq!(reports(&sandbox), expected);
    let one = sandbox.ok(&["export", "b", "--format", "process-compose"]).stdout;
    assert_eq!(processes(&one).len(), 1);
    sandbox.seedbed(&["export", "c", "--format", "tmux"]).expect(64).says(&["session c has no `command`"]);
}

#[test]
fn exported_script_starts_units_of_systemd_and_windows_of_tmux() {
    let sandbox = applied();
    sandbox.seedbed(&["start", "--quiet"]).expect(3);
    let expected = reports(&sandbox);
    let file = sandbox.top.join("it's $HOME #{x} %H.sh");
    let file = file.to_str().unwrap();

    // A stand-in that reads its arguments as systemd does, and starts a unit once.
    let units = sandbox.top.join("units");
    fs::create_dir(&units).unwrap();
    let stand_in = r#"#!/bin/bash
        while [ "$1" != -- ]; do [[ $1 = --unit=* ]] && unit=${1#--unit=}; [[ $1 = --setenv=PATH=* ]] && path=1; shift; done
        shift
        [ -n "$path" ] && mkdir "$UNITS/$unit" || exit 1
        exec "${@//'$$'/'$'}"
    "#;
    let bin = sandbox.top.join("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("systemd-run"), stand_in).unwrap();
    fs::set_permissions(bin.join("systemd-run"), PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    sandbox.ok(&["export", "--format", "systemd", "-o", file]);
    let mut script = program(&sandbox, "sh", &[file]);
    let outcome = run(script.env("PATH", path).env("UNITS", &units));
    assert_eq!(outcome.code, 1, "the commands fail, all are tried: {outcome:?}");
    assert_eq!(reports(&sandbox), expected);
    assert_eq!(fs::read_dir(&units).unwrap().count(), 2);

    let Some(tmux) = Tmux::of(&sandbox) else { return };
    sandbox.ok(&["export", "--format", "tmux", "-o", file]);
    let opened = run(&mut program(&sandbox, "sh", &[file])).expect(0);
    let name = opened.stdout.split(['=', '`']).nth(2).unwrap().to_owned();
    assert_eq!(opened.stdout, format!("attach with `tmux attach-session -t ={name}`\n"));
    assert_eq!(reports(&sandbox), expected);
    wait_until("both commands have ended", || tmux.windows() == "a 1\na/b 1\n");
    run(&mut program(&sandbox, "sh", &[file])).expect(69).says(&["exists already", "tmux kill-session"]);
}

#[test]
fn start_in_tmux_writes_logs_and_refuses_a_second_start() {
    let sandbox = Sandbox::new();
    let manifest = |line: &str| {
        let table = "resources = [\"git-worktree\"]\n";
        sandbox.manifest(&format!(
            "[session.a]\n{table}command = {line:?}\n[session.b]\n{table}command = \"printf 'x\\ny'; sleep 0.1; exit 4\"\n"
        ));
        sandbox.ok(&["apply"]);
    };
    manifest("test -t 0 && echo terminal; exec sleep 1010");
    let Some(tmux) = Tmux::of(&sandbox) else { return };
    // The windows of a user may be closed when no client is attached.
    fs::write(sandbox.top.join(".tmux.conf"), "set -g destroy-unattached on\n").unwrap();
    let start = |args: &[&str]| {
        let mut command = sandbox.command(args);
        run(command.env("SHELL", "/bin/false"))
    };
    start(&["start", "--tmux", "--stall", "1m"]).expect(64);
    let opened =
        start(&["start", "--tmux"]).expect(0).says(&["opened 2 windows in tmux session", "; attach with"]);
    let name = opened.stderr.split(['=', '`']).nth(2).unwrap().to_owned();
    let run_of = |at: usize| sandbox.ok(&["status", "--json"]).json()["sessions"][at]["lastRun"].clone();
    wait_until("one has ended", || tmux.windows() == "a 0\nb 1\n");
    assert_eq!(run_of(1)["exitCode"], 4);
    wait_until("the log is written", || {
        sandbox.ok(&["logs"]).stdout.lines().eq(["a: terminal", "b: x", "b: y"])
    });
    assert!(run_of(0)["ended"].is_null() && run_of(1)["error"].is_null());
    for again in [&["start", "--tmux"][..], &["start"], &["start", "a", "--quiet"]] {
        start(again).expect(69).says(&["a command runs in session a already"]);
    }
    sandbox.seedbed(&["destroy"]).expect(69).says(&["\n  a:", "sleep 1010"]);
    start(&["start", "b", "--tmux"]).expect(0).says(&["opened 1 window in tmux session"]);
    assert_eq!(tmux.windows().lines().count(), 2, "the window of the earlier command of b is closed");
    let following = sandbox.start(&["logs", "a", "--follow"]);
    tmux.run(&["kill-session", "-t", &format!("={name}")]).expect(0);
    assert!(following.wait_with_output().unwrap().status.success());
    let lost =
        |run: serde_json::Value| run["error"].as_str().is_some_and(|why| why.starts_with("ended without"));
    wait_until("the processes of a closed window have ended", || lost(run_of(0)));
    manifest("true");
    start(&["start", "--tmux", "--quiet"]).expect(0);
    wait_until("both commands have ended", || tmux.windows() == "a 1\nb 1\n");
    sandbox.ok(&["destroy", "a", "--discard"]);
    assert_eq!(tmux.windows(), "b 1\n", "the window of a released session is closed");
    manifest("sleep 1010");
    start(&["start", "a", "--tmux", "--quiet"]).expect(0);
    sandbox.ok(&["destroy", "--discard", "--stop"]);
    tmux.run(&["list-sessions"]).expect(1);
    assert!(fs::read_dir(sandbox.state().join("logs")).map_or(true, |mut logs| {
        logs.all(|directory| fs::read_dir(directory.unwrap().path()).unwrap().count() == 0)
    }));
    start(&["start", "--tmux"]).expect(64).says(&["not applied here"]);
}

/// Server of tmux of a sandbox, which ends with the test.
pub(crate) struct Tmux<'s>(&'s Sandbox);

impl<'s> Tmux<'s> {
    /// Returns the server; `None` if tmux is not installed.
    pub(crate) fn of(sandbox: &'s Sandbox) -> Option<Self> {
        if Command::new("tmux").arg("-V").output().is_err() {
            eprintln!("NOT TESTED: tmux is not on the PATH; .ci/run installs it");
            return None;
        }
        Some(Self(sandbox))
    }

    fn run(&self, args: &[&str]) -> Outcome {
        run(&mut program(self.0, "tmux", args))
    }

    /// Returns a line for each window: its name, and whether its command has ended.
    pub(crate) fn windows(&self) -> String {
        let format = "#{window_name} #{pane_dead}";
        self.run(&["list-panes", "-a", "-F", format]).expect(0).stdout
    }
}

impl Drop for Tmux<'_> {
    fn drop(&mut self) {
        self.run(&["kill-server"]);
    }
}
