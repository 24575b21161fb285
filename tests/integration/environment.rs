//! `env`: what it prints is what a session gets, whatever reads it and whatever the values are.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::sandbox::{Outcome, Sandbox};
use crate::shells::installed;

/// Values that a shell or a reader would make something of.
const HOSTILE: [&str; 22] = [
    "it's",
    "\"double\"",
    "$HOME ${PATH}",
    "$(touch executed)",
    "`touch executed`",
    "back\\slash\\",
    "\\'; touch executed; '\\",
    "\\\\'; touch executed; #",
    "'; touch executed; '",
    "a && b || c | d > e < f &",
    "*?[a-z]~",
    "!history #comment",
    "  spaces  at both ends  ",
    "",
    "ünïcödé → 🌱 'quoted' \\'",
    "two\nlines\nand an end\n",
    "tab\tand\r\nreturn",
    "\u{1b}[31mred\u{7}",
    "(touch executed)",
    "%s %n {a,b} ^x",
    "=cat",
    "a\\nb",
];

/// A swarm in a directory whose own name is hostile, and the environment of its session `a`.
fn hostile(values: &[&str]) -> (Sandbox, PathBuf, BTreeMap<String, String>) {
    let sandbox = Sandbox::new();
    let mut manifest = "[session.a]\nresources = [\"git-worktree\"]\n[session.a.env]\n".to_owned();
    for (at, value) in values.iter().enumerate() {
        let value = serde_json::to_string(value).unwrap();
        writeln!(manifest, "V{at} = {}", value.replace('\u{7f}', "\\u007f")).unwrap();
    }
    sandbox.manifest(&manifest);
    let clone = sandbox.clone_to("it's $(touch executed) \"here\" `x` \\");
    sandbox.seedbed_in(&clone, &["apply"]).expect(0);
    let env = sandbox.seedbed_in(&clone, &["env", "a", "--format", "json"]).expect(0).json();
    let env: BTreeMap<String, String> = serde_json::from_value(env).unwrap();
    for (at, value) in values.iter().enumerate() {
        assert_eq!(env[&format!("V{at}")], *value);
    }
    assert_eq!(env["AGENT_REPO_ROOT"], clone.to_str().unwrap());
    (sandbox, clone, env)
}

/// Runs a program that ends in `env -0`, and expects every variable in it.
#[track_caller]
fn check(command: &mut Command, expected: &BTreeMap<String, String>) {
    let outcome = Outcome::of(command.output().unwrap()).expect(0);
    let read: BTreeMap<_, _> =
        outcome.stdout.split_terminator('\0').filter_map(|line| line.split_once('=')).collect();
    for (name, value) in expected {
        assert_eq!(read.get(name.as_str()), Some(&value.as_str()), "{name}: {command:?}");
    }
}

/// Puts `seedbed` in front of the path of a program.
fn program(sandbox: &Sandbox, name: &str, directory: &Path) -> Command {
    let bin = Path::new(env!("CARGO_BIN_EXE_seedbed")).parent().unwrap();
    let mut command = sandbox.program(name, directory);
    command.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    command
}

#[test]
fn every_value_survives_every_shell() {
    let (sandbox, clone, env) = hostile(&HOSTILE);
    for shell in ["sh", "dash", "bash", "zsh"] {
        if installed(shell) {
            for format in ["shell", "direnv"] {
                let script = format!("eval \"$(seedbed env a --format {format})\" && env -0");
                check(program(&sandbox, shell, &clone).args(["-c", &script]), &env);
            }
        }
    }
    if installed("fish") {
        let script = "seedbed env a --format fish | source; and env -0";
        check(program(&sandbox, "fish", &clone).args(["--no-config", "-c", script]), &env);
    }
    assert!(!clone.join("executed").exists());
}

/// fish has an `export` of its own, which tempts to evaluate what is for other shells.
#[test]
fn what_is_for_other_shells_runs_nothing_in_fish() {
    if !installed("fish") {
        return;
    }
    let (sandbox, clone, env) = hostile(&HOSTILE);
    let one_line = env.into_iter().filter(|(_, value)| !value.contains('\n')).collect();
    let script = "seedbed env a | source; and env -0";
    check(program(&sandbox, "fish", &clone).args(["--no-config", "-c", script]), &one_line);
    assert!(!clone.join("executed").exists());
}

#[test]
fn direnv_loads_every_value() {
    if !installed("direnv") {
        return;
    }
    let (sandbox, clone, env) = hostile(&HOSTILE);
    let written = sandbox.seedbed_in(&clone, &["env", "a", "--format", "direnv"]).expect(0).stdout;
    let directory = sandbox.top.join("shell");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join(".envrc"), written).unwrap();
    Outcome::of(program(&sandbox, "direnv", &directory).arg("allow").output().unwrap()).expect(0);
    check(program(&sandbox, "direnv", &directory).args(["exec", ".", "env", "-0"]), &env);
    assert!(!directory.join("executed").exists());
}

/// Values that every reader of such files takes as they are.
const SAFE: [&str; 7] = [
    "plain",
    "$HOME $(touch executed)",
    "\"double\" # no comment",
    "",
    "  spaces  ",
    "a\\nb \\\"c",
    "=`x` ünï 🌱 !",
];

#[test]
fn a_dotenv_file_says_what_it_can_say() {
    let sandbox = Sandbox::new();
    let mut manifest = "[session.a]\n[session.a.env]\n".to_owned();
    for (at, value) in SAFE.iter().enumerate() {
        writeln!(manifest, "V{at} = {}", serde_json::to_string(value).unwrap()).unwrap();
    }
    sandbox.manifest(&manifest);
    sandbox.ok(&["apply"]);
    let written = sandbox.ok(&["env", "a", "--format", "dotenv"]).stdout;
    let expected: BTreeMap<String, String> =
        serde_json::from_value(sandbox.ok(&["env", "a", "--json"]).json()).unwrap();
    fs::write(sandbox.top.join(".env"), written).unwrap();
    check(program(&sandbox, "sh", &sandbox.top).args(["-c", "set -a; . ./.env; env -0"]), &expected);
    // Node's own reader and Python's most used one.
    if installed("node") {
        let script = "for (const [k, v] of Object.entries(process.env)) process.stdout.write(`${k}=${v}\\0`)";
        let mut node = program(&sandbox, "node", &sandbox.top);
        check(node.args(["--no-warnings", "--env-file=.env", "-e", script]), &expected);
    }
    let python =
        "import dotenv\nfor k, v in dotenv.dotenv_values('.env').items(): print(f'{k}={v}', end='\\0')";
    let has_reader = Command::new("python3").args(["-c", "import dotenv"]).output();
    if has_reader.is_ok_and(|outcome| outcome.status.success()) {
        check(program(&sandbox, "python3", &sandbox.top).args(["-c", python]), &expected);
    } else {
        crate::shells::not_tested("python-dotenv");
    }
    assert!(!sandbox.top.join("executed").exists());
}

#[test]
fn a_dotenv_file_that_cannot_say_a_value_is_refused() {
    for value in ["it's", "two\nlines", "\u{1b}[31m", "back\\slash\\", "\\\\server", "a\\'", "${PATH}"] {
        let sandbox = Sandbox::new();
        let value = serde_json::to_string(value).unwrap();
        sandbox.manifest(&format!("[session.a]\nenv = {{ VALUE = {value} }}\n"));
        sandbox.ok(&["apply"]);
        let refused = sandbox.unchanged(|| sandbox.seedbed(&["env", "a", "--format", "dotenv"]).expect(1));
        let refused = refused.says(&["VALUE has ", "--format shell"]);
        assert_eq!(refused.stdout, "", "nothing half-said: {value}");
    }
}

#[test]
fn a_terminal_is_shown_what_it_would_act_on() {
    if !installed("script") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nenv = { VALUE = \"\\u001b[2J\" }\n");
    sandbox.ok(&["apply"]);
    for format in ["shell", "fish"] {
        let mut script = program(&sandbox, "script", &sandbox.repository);
        let shown =
            script.args(["-qec", &format!("seedbed env a --format {format}"), "/dev/null"]).output().unwrap();
        let shown = Outcome::of(shown).expect(0).stdout;
        assert!(shown.contains("\\u{1b}[2J") && !shown.contains('\u{1b}'), "{shown:?}");
    }
    let piped = sandbox.ok(&["env", "a"]).stdout;
    assert!(piped.contains("'\u{1b}[2J'"), "{piped:?}");
}
