//! Tests of a Git that fails, returns wrong output, dies, hangs, prints without end, or is missing.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;

use super::shim::Shim;
use super::{PAIR, check_all, crash, sandbox, some_of};
use crate::sandbox::{Outcome, Sandbox, assert_same};

/// Misbehaviours of the test's Git the first time that it is called with one subcommand.
const WAYS: [&str; 7] = ["transient", "after", "kill", "hang", "spam", "torn", "full"];

fn body(way: &str, command: &str) -> String {
    let act = match way {
        // Another git was in the way at that moment.
        "transient" => r#"echo "fatal: failed to read .git/worktrees/x/commondir: Success" >&2; exit 128"#,
        // It reports a failure, but has done the work.
        "after" => r#""$real" "$@" > "$top/said"; echo "fatal: it went wrong" >&2; exit 1"#,
        "kill" => "kill -9 $$",
        "hang" => r#"while test -d "$top"; do sleep 0.05; done"#,
        "spam" => "head -c 3000000 /dev/zero | tr '\\0' 'x' >&2",
        // It dies in the middle, and leaves what a power failure leaves of its entry.
        "torn" => {
            r#"for word in "$@"; do case $word in --git-dir=*/worktrees/*) : > "${word#--git-dir=}/commondir"; : > "${word#--git-dir=}/index.lock";; esac; done; exit 128"#
        }
        "full" => r#"echo "error: unable to write file: No space left on device" >&2; exit 128"#,
        way => panic!("{way}"),
    };
    // Making a directory is the one test for the first that two at once cannot both pass.
    format!(r#"if test "$command" = {command} && mkdir "$top/first" 2>/dev/null; then {act}; fi"#)
}

/// Returns the Git subcommands that a run uses.
fn used(sandbox: &Sandbox, args: &[&str]) -> BTreeSet<String> {
    let shim = Shim::new(sandbox, r#"echo "$command" >> "$top/used""#);
    let used = sandbox.top.join("used");
    let _ = fs::remove_file(&used);
    Outcome::of(shim.command(sandbox, args).output().unwrap()).expect(0);
    fs::read_to_string(used).unwrap().lines().map(str::to_owned).collect()
}

fn cases(commands: &BTreeSet<String>) -> Vec<String> {
    commands.iter().flat_map(|command| WAYS.map(|way| format!("{way} {command}"))).collect()
}

/// Runs a command with a Git that misbehaves once; returns the exit code.
#[track_caller]
fn run(sandbox: &Sandbox, args: &[&str], case: &str) -> i32 {
    let (way, command) = case.split_once(' ').unwrap();
    let _ = fs::remove_dir(sandbox.top.join("first"));
    let shim = Shim::new(sandbox, &body(way, command));
    let mut run = shim.command(sandbox, args);
    if way == "hang" {
        run.env("SEEDBED_GIT_TIMEOUT", "0.5");
    }
    let outcome = Outcome::of(run.output().unwrap());
    assert!(sandbox.top.join("first").exists(), "{case} did not happen");
    assert!(outcome.stderr.len() < 4000 && outcome.code != 70, "{case}: {outcome:?}");
    assert!(outcome.code == 0 || !outcome.stderr.is_empty(), "{case}: {outcome:?}");
    if way == "spam" {
        assert_eq!(outcome.code, 0, "{case}: {outcome:?}");
    }
    outcome.code
}

#[test]
fn apply_whose_git_fails_is_rolled_back() {
    let lab = sandbox(PAIR);
    let commands = used(&lab, &["apply"]);
    assert!(commands.contains("read-tree") && commands.contains("update-ref"), "{commands:?}");
    check_all(PAIR, &some_of(cases(&commands)), |sandbox, case| {
        let before = sandbox.inventory();
        match run(sandbox, &["apply"], case) {
            0 => drop(sandbox.ok(&["plan", "--detailed-exitcode"])),
            1 | 65 => assert_same(&before, &sandbox.inventory()),
            code => panic!("exit code {code}"),
        }
        if case == "transient update-ref" {
            sandbox.ok(&["plan", "--detailed-exitcode"]);
        }
        sandbox.ok(&["destroy"]);
        assert_same(&before, &sandbox.inventory());
    });
}

#[test]
fn destroy_whose_git_fails_is_finished_by_the_next() {
    let lab = sandbox(PAIR);
    lab.ok(&["apply"]);
    let commands = used(&lab, &["destroy"]);
    check_all(PAIR, &some_of(cases(&commands)), |sandbox, case| {
        let before = sandbox.inventory();
        sandbox.ok(&["apply"]);
        let stood = sandbox.inventory();
        match run(sandbox, &["destroy"], case) {
            0 | 73 => {}
            // Git itself cannot report the state of a worktree whose admin directory is torn.
            1 | 69 if case.starts_with("torn") => {}
            1 | 69 => assert_same(&stood, &sandbox.inventory()),
            code => panic!("exit code {code}"),
        }
        // A torn worktree cannot be called saved.
        sandbox.ok(&["destroy", "--discard"]);
        assert_same(&before, &sandbox.inventory());
    });
}

#[test]
fn host_without_git_is_reported() {
    let sandbox = sandbox(PAIR);
    let bin = sandbox.top.join("bin");
    fs::create_dir(&bin).unwrap();
    symlink("/bin/sh", bin.join("sh")).unwrap();
    for args in [&["apply"][..], &["plan"]] {
        let outcome =
            sandbox.unchanged(|| Outcome::of(sandbox.command(args).env("PATH", &bin).output().unwrap()));
        assert!(matches!(outcome.code, 1 | 65), "{outcome:?}");
        outcome.says(&["git is not installed, or not in PATH"]);
    }
}

/// Every command reports the required Git version, and changes nothing with an older one: at most it has asked Git to
/// read, besides asking for its version.
#[test]
fn old_git_is_refused_before_any_change() {
    let sandbox = sandbox(PAIR);
    let body = r#"if test "$command" = version; then echo "git version 2.30.9"; exit; fi; echo "$command" >> "$top/asked""#;
    let shim = Shim::new(&sandbox, body);
    let old = |args: &[&str], code: i32| {
        let outcome = sandbox.unchanged(|| Outcome::of(shim.command(&sandbox, args).output().unwrap()));
        assert_eq!(outcome.code, code, "{args:?}: {outcome:?}");
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(said.contains("git 2.30 is older than 2.31"), "{args:?}: {outcome:?}");
        let asked = fs::read_to_string(sandbox.top.join("asked")).unwrap_or_default();
        let is_read = |command: &str| ["cat-file", "config", "for-each-ref", "rev-parse"].contains(&command);
        assert!(asked.lines().all(is_read), "{args:?} asked it something else: {asked}");
        let _ = fs::remove_file(sandbox.top.join("asked"));
    };
    for args in [&["validate"][..], &["plan"], &["apply"]] {
        old(args, 65);
    }
    old(&["doctor"], 1);
    sandbox.ok(&["apply"]);
    fs::write(sandbox.directory("linked").join("work.txt"), "work\n").unwrap();
    let grown =
        format!("{PAIR}[session.more]\nresources = [{{ kind = \"git-worktree\", base-ref = \"main~0\" }}]\n");
    sandbox.manifest(&grown);
    old(&["plan"], 65);
    old(&["apply"], 65);
    sandbox.manifest(PAIR);
    let exits: [(&[&str], i32); 6] = [
        (&["status"], 0),
        (&["destroy", "--dry-run"], 69),
        (&["destroy"], 1),
        (&["destroy", "--rescue"], 1),
        (&["destroy", "--discard"], 1),
        (&["destroy", "linked", "--discard"], 1),
    ];
    for (args, code) in exits {
        old(args, code);
    }
    crash(&sandbox, &["destroy", "--discard"], "run.intended#1");
    sandbox.seedbed(&["plan"]).expect(75);
    let recover = Outcome::of(shim.command(&sandbox, &["recover"]).output().unwrap());
    recover.expect(1).says(&["git 2.30 is older than 2.31"]);
    assert!(sandbox.top.join("asked").metadata().is_err());
    sandbox.ok(&["recover"]);
    sandbox.seedbed(&["status"]).expect(64);
}

/// One question, however many there are after it.
#[test]
fn version_of_git_is_queried_once() {
    let sandbox = sandbox(PAIR);
    let shim = Shim::new(&sandbox, r#"test "$command" = version && echo >> "$top/versions""#);
    for args in [&["plan"][..], &["apply"], &["status"], &["destroy"]] {
        let _ = fs::remove_file(sandbox.top.join("versions"));
        Outcome::of(shim.command(&sandbox, args).output().unwrap()).expect(0);
        assert_eq!(fs::read_to_string(sandbox.top.join("versions")).unwrap(), "\n", "{args:?}");
    }
}

/// R2, R8, R23: arguments that Git never gets, and arguments that it always gets.
#[test]
fn git_is_hardened_in_every_call_and_never_cleans_up() {
    let sandbox = sandbox(super::TREE);
    let shim = Shim::new(
        &sandbox,
        r#"call=$(printf '%s\036' "$@"); printf '%s\035' "$call" >> "$top/calls"; env | grep -E '^(GIT_|LC_ALL=|LANG)' >> "$top/variables"; test -t 0 && echo tty >> "$top/variables""#,
    );
    let commands: [&[&str]; 9] = [
        &["plan"],
        &["apply"],
        &["status"],
        &["status", "--repair"],
        &["doctor"],
        &["destroy", "--dry-run"],
        &["destroy", "sparse"],
        &["recover"],
        &["destroy"],
    ];
    for args in commands {
        let mut command = shim.command(&sandbox, args);
        command
            .env("GIT_DIR", "/nowhere")
            .env("GIT_TRACE", "1")
            .env("LANG", "de_DE.UTF-8")
            .env("LC_ALL", "tr_TR.UTF-8");
        Outcome::of(command.output().unwrap()).expect(0);
    }
    let calls = fs::read_to_string(sandbox.top.join("calls")).unwrap();
    let calls: Vec<&str> = calls.split_terminator('\u{1d}').collect();
    assert!(calls.len() > 20);
    for call in calls {
        let words: Vec<&str> = call.trim_end_matches('\u{1e}').split('\u{1e}').collect();
        let has = |wanted: &[&str]| words.windows(wanted.len()).any(|window| window == wanted);
        for never in [&["worktree", "prune"][..], &["gc"], &["clean"], &["--hard"], &["prune"], &["stash"]] {
            assert!(!has(never), "{words:?}");
        }
        for always in ["core.fsmonitor=false", "protocol.allow=never", "core.sshCommand=false"] {
            assert!(has(&["-c", always]), "{words:?}");
        }
        // `doctor` reads the repository's settings of hooks, which runs no hook.
        assert!(has(&["-c", "core.hooksPath=/dev/null"]) || has(&["config"]), "{words:?}");
        // Never by a worktree's own `.git` file.
        let at = words.iter().position(|word| *word == "-C");
        assert!(at.is_none_or(|at| !words[at + 1].contains(".ai_ops")), "{words:?}");
    }
    let variables = fs::read_to_string(sandbox.top.join("variables")).unwrap();
    let allowed = [
        "GIT_TERMINAL_PROMPT=0",
        "GIT_NO_LAZY_FETCH=1",
        "GIT_ALLOW_PROTOCOL=none",
        "GIT_OPTIONAL_LOCKS=0",
        "GIT_FLUSH=0",
        "LC_ALL=C",
        "GIT_CONFIG_NOSYSTEM=1",
    ];
    for line in variables.lines() {
        assert!(allowed.contains(&line) || line.starts_with("GIT_INDEX_FILE="), "{line}");
    }
    // Every call has the same, so each stands there as often as the language does.
    let count = |wanted: &str| variables.lines().filter(|line| *line == wanted).count();
    assert!(count("LC_ALL=C") > 20);
    for always in ["GIT_NO_LAZY_FETCH=1", "GIT_ALLOW_PROTOCOL=none"] {
        assert_eq!(count(always), count("LC_ALL=C"), "{always}");
    }
}
