//! Tests of completions and manual pages, in the real shells and formatters. For one that is not installed, a notice is
//! printed past the capture of the test runner; `.ci/run` installs all of them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::sandbox::{Outcome, Sandbox, wait_until};

const SWARM: &str = r#"
[session.lead]
resources = ["git-worktree", "port-range"]
[session.lead.child.coder]
count = 2
resources = []
[session.reviewer]
resources = []
prompt = ["You review."]
"#;

pub(crate) fn installed(program: &str) -> bool {
    let there =
        Command::new("sh").args(["-c", "command -v \"$0\"", program]).output().unwrap().status.success();
    if !there {
        not_tested(program);
    }
    there
}

/// Prints the program that a test skips, past the capture of the test runner.
pub(crate) fn not_tested(program: &str) {
    let _ = writeln!(std::io::stderr(), "NOT TESTED: {program} is not installed");
}

fn applied() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.manifest(SWARM);
    sandbox.ok(&["apply"]);
    sandbox
}

/// Returns a command of a program in the sandbox with `seedbed` in its `PATH`.
fn program(sandbox: &Sandbox, program: &str, directory: &Path) -> Command {
    let bin = Path::new(env!("CARGO_BIN_EXE_seedbed")).parent().unwrap();
    let mut command = sandbox.program(program, directory);
    command.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap())).env("TERM", "vt100");
    command
}

/// Returns the completions of `current` after the words of `line`, without the help texts.
fn candidates(sandbox: &Sandbox, line: &[&str], current: &str) -> Vec<String> {
    let current = format!("--current={current}");
    let asked = [&["__complete", &current, "--", "seedbed"], line].concat();
    let found = sandbox.ok(&asked).stdout;
    found.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
}

#[test]
fn sessions_are_completed_in_every_session_argument() {
    let sandbox = applied();
    let all = ["lead", "lead/coder-0", "lead/coder-1", "reviewer"];
    for command in ["exec", "env", "prompt", "destroy"] {
        assert_eq!(candidates(&sandbox, &[command], "lead/")[..], all[1..3], "{command}");
        assert_eq!(candidates(&sandbox, &[command], "re"), ["reviewer"], "{command}");
    }
    assert_eq!(candidates(&sandbox, &["exec", "lead"], "rev"), ["reviewer"]);
    assert_eq!(candidates(&sandbox, &["exec", "lead", "--"], "rev"), [] as [&str; 0]);
    // A session that a run would create need not be active yet.
    sandbox.write("other.toml", &sandbox.manifest_text("[session.planned]\n").replace("shop", "other"));
    assert_eq!(candidates(&sandbox, &["run", "-f", "other.toml", "--session"], "pl"), ["planned"]);
    assert_eq!(candidates(&sandbox, &["exec", "-f", "other.toml"], "pl"), [] as [&str; 0]);
    assert_eq!(candidates(&sandbox, &["exec", "--manifest=seedbed.toml"], "re"), ["reviewer"]);
    let above = sandbox.seedbed_in(
        &sandbox.top,
        &["__complete", "--current=re", "--", "seedbed", "-C", "repository", "env"],
    );
    assert_eq!(above.expect(0).stdout, "reviewer\n");
    let ports = sandbox.ok(&["__complete", "--current=lead", "--", "seedbed", "env"]).stdout;
    assert!(ports.starts_with("lead\tports "), "{ports}");
}

#[test]
fn commands_options_and_values_are_completed() {
    let sandbox = applied();
    assert_eq!(candidates(&sandbox, &[], "wh"), ["whoami"]);
    assert_eq!(candidates(&sandbox, &["env", "lead"], "--for"), ["--format"]);
    assert_eq!(candidates(&sandbox, &["env", "lead", "--format"], "d"), ["dotenv", "direnv"]);
    assert_eq!(candidates(&sandbox, &["env", "lead"], "--format=js"), ["--format=json"]);
    assert_eq!(candidates(&sandbox, &["plan", "-f"], "seed"), ["seedbed.toml"]);
    assert!(!candidates(&sandbox, &[], "").iter().any(|command| command.starts_with('_')));
}

#[test]
fn completing_is_silent_and_changes_nothing_after_any_error() {
    let sandbox = Sandbox::new();
    let quiet = |args: &[&str]| {
        let outcome = sandbox
            .unchanged(|| sandbox.ok(&[&["__complete", "--current=x", "--", "seedbed"], args].concat()));
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("", ""), "{args:?}");
    };
    quiet(&["exec"]);
    sandbox.write("seedbed.toml", "swarm = [");
    quiet(&["exec"]);
    quiet(&["exec", "-f", "nowhere.toml"]);
    quiet(&["exec", "-C", "nowhere"]);
    quiet(&["exec", "-f"].map(|word| if word == "-f" { "--manifest=\u{1b}[2J" } else { word }));
}

/// Types into a shell at a terminal, once `load` has been run, and waits for it to end.
fn at_a_terminal(sandbox: &Sandbox, shell: &str, load: &str, typed: &str) -> String {
    let mut script = program(sandbox, "script", &sandbox.repository);
    let mut script = script
        .args(["-qec", shell, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut keys, mut screen) = (script.stdin.take().unwrap(), script.stdout.take().unwrap());
    let shown = Arc::new(Mutex::new(Vec::new()));
    let reader = std::thread::spawn({
        let shown = Arc::clone(&shown);
        move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                shown.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        }
    });
    let text = || String::from_utf8_lossy(&shown.lock().unwrap()).into_owned();
    // The echo of typed text is not part of the output.
    keys.write_all(format!("{load}; printf 'RE%s\\n' ADY\n").as_bytes()).unwrap();
    wait_until("the shell is ready", || text().contains("READY"));
    keys.write_all(typed.as_bytes()).unwrap();
    keys.write_all(b"\nexit\n").unwrap();
    wait_until("the shell ends", || reader.is_finished());
    script.wait().unwrap();
    drop(keys);
    text()
}

fn check_shell(shell: &str, load: &str) {
    let program = shell.split(' ').next().unwrap();
    if !installed(program) || !installed("script") {
        return;
    }
    let sandbox = applied();
    let clone = sandbox.clone_to("repository/two words");
    sandbox.seedbed_in(&clone, &["apply"]).expect(0);
    let file = |name: &str| fs::read_to_string(sandbox.repository.join(name)).unwrap_or_default();

    let screen = at_a_terminal(&sandbox, shell, load, "seedbed pro\trev\thello >out.txt");
    assert_eq!(file("out.txt"), sandbox.ok(&["prompt", "reviewer", "hello"]).stdout, "{screen}");
    let screen = at_a_terminal(&sandbox, shell, load, "seedbed env lead/coder-1 --format=js\t>out.json");
    assert_eq!(file("out.json"), sandbox.ok(&["env", "lead/coder-1", "--format", "json"]).stdout, "{screen}");
    let screen = at_a_terminal(&sandbox, shell, load, "seedbed -C 'two words' env rev\t>'two words/out'");
    let expected = sandbox.seedbed_in(&clone, &["env", "reviewer"]).expect(0).stdout;
    assert_eq!(file("two words/out"), expected, "{screen}");
    let screen = at_a_terminal(&sandbox, shell, load, "seedbed init -f READ\t; echo >>kept");
    assert!(screen.contains("README.md exists already"), "{screen}");
    // A tab runs nothing of what is typed; the line is thrown away.
    let screen =
        at_a_terminal(&sandbox, shell, load, "seedbed exec $(touch executed) `touch executed` re\t\u{15}");
    assert!(!sandbox.repository.join("executed").exists(), "{screen}");
}

#[test]
fn bash_completes_at_a_terminal() {
    check_shell("bash --norc --noprofile -i", "source <(seedbed completions bash)");
}

#[test]
fn zsh_completes_at_a_terminal() {
    check_shell("zsh -f -i", "autoload -Uz compinit; compinit -u -D; source <(seedbed completions zsh)");
}

#[test]
fn zsh_completes_from_a_file_of_its_function_path() {
    if !installed("zsh") || !installed("script") {
        return;
    }
    let sandbox = applied();
    fs::create_dir(sandbox.top.join("functions")).unwrap();
    fs::write(sandbox.top.join("functions/_seedbed"), sandbox.ok(&["completions", "zsh"]).stdout).unwrap();
    let load = "fpath=(~/functions $fpath); autoload -Uz compinit; compinit -u -D";
    let screen = at_a_terminal(&sandbox, "zsh -f -i", load, "seedbed prompt rev\thello >out.txt");
    let file = fs::read_to_string(sandbox.repository.join("out.txt")).unwrap_or_default();
    assert_eq!(file, sandbox.ok(&["prompt", "reviewer", "hello"]).stdout, "{screen}");
}

#[test]
fn fish_completes_sessions() {
    if !installed("fish") {
        return;
    }
    let sandbox = applied();
    let completed = |line: &str| {
        let script = "seedbed completions fish | source; complete --do-complete $argv[1]";
        let mut fish = program(&sandbox, "fish", &sandbox.repository);
        Outcome::of(fish.args(["--no-config", "-c", script, line]).output().unwrap()).expect(0).stdout
    };
    assert_eq!(completed("seedbed prompt rev"), "reviewer\n");
    assert!(completed("seedbed exec lead").starts_with("lead\tports "));
    assert_eq!(completed("seedbed env lead --format=js"), "--format=json\tJSON document, as with `--json`\n");
    assert!(completed("seedbed ").contains("whoami\tPrint the facts of the own session"));
    assert_eq!(completed("seedbed exec lead -- READ"), "README.md\n");
    completed("seedbed exec (touch executed) re");
    assert!(!sandbox.repository.join("executed").exists());
}

/// Debian has no PowerShell, so that no test parses the script there.
#[test]
fn the_script_for_powershell_is_balanced_and_evaluates_nothing() {
    let sandbox = Sandbox::new();
    let script = sandbox.ok(&["completions", "powershell"]).stdout;
    assert_eq!(script, sandbox.ok(&["completions", "pwsh"]).stdout);
    let code: Vec<_> = script.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let code = code.join("\n");
    let mut open = Vec::new();
    for c in code.chars() {
        match c {
            '(' | '[' | '{' => open.push(c),
            ')' => assert_eq!(open.pop(), Some('('), "{code}"),
            ']' => assert_eq!(open.pop(), Some('['), "{code}"),
            '}' => assert_eq!(open.pop(), Some('{'), "{code}"),
            _ => {}
        }
    }
    assert!(open.is_empty(), "{open:?}");
    assert_eq!(code.matches('\'').count() % 2, 0);
    assert_eq!(code.matches('"').count() % 2, 0);
    assert!(code.contains("Register-ArgumentCompleter -Native -CommandName seedbed"));
    assert!(!code.contains("Invoke-Expression"), "what is typed must not be run");
}

#[test]
fn an_unknown_shell_is_a_usage_error() {
    let sandbox = Sandbox::new();
    sandbox.seedbed(&["completions", "csh"]).expect(64).says(&["bash", "zsh", "fish", "powershell"]);
}

#[test]
fn there_is_a_page_for_every_command_and_no_formatter_complains() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["man", "--output", "pages"]);
    let pages = sandbox.repository.join("pages");
    let mut names: Vec<_> =
        fs::read_dir(&pages).unwrap().map(|page| page.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let mut expected: Vec<_> = candidates(&sandbox, &[], "")
        .into_iter()
        .filter(|command| !command.starts_with('-') && command != "help")
        .map(|command| format!("seedbed-{command}.1"))
        .collect();
    expected.push("seedbed.1".to_owned());
    expected.sort();
    assert_eq!(names, expected);
    for (formatter, args) in [
        ("mandoc", &["-T", "lint", "-W", "warning"][..]),
        ("groff", &["-man", "-ww", "-z", "-K", "utf8", "-T", "utf8"]),
        ("man", &["--warnings", "-l"]),
    ] {
        if !installed(formatter) {
            continue;
        }
        for name in &names {
            let mut command = program(&sandbox, formatter, &pages);
            let outcome =
                Outcome::of(command.env("MANPAGER", "cat").args(args).arg(name).output().unwrap()).expect(0);
            assert_eq!(outcome.stderr, "", "{formatter} {name}");
            let complaints = if formatter == "man" { "" } else { outcome.stdout.as_str() };
            assert_eq!(complaints, "", "{formatter} {name}");
        }
    }
}

#[test]
fn a_page_to_stdout_is_the_one_of_the_directory() {
    let sandbox = Sandbox::new();
    let mut at_once = sandbox.command(&["man", "-o", "pages"]);
    Outcome::of(at_once.env("SOURCE_DATE_EPOCH", "951782400").output().unwrap()).expect(0);
    for (args, name) in [(&["man"][..], "seedbed.1"), (&["man", "plan"], "seedbed-plan.1")] {
        let outcome = sandbox.command(args).env("SOURCE_DATE_EPOCH", "951782400").output().unwrap();
        let page = Outcome::of(outcome).expect(0).stdout;
        assert_eq!(page, fs::read_to_string(sandbox.repository.join("pages").join(name)).unwrap());
        assert!(page.contains(" 1 2000-02-29 \"seedbed "), "{page}");
    }
    let page = sandbox.ok(&["man"]).stdout;
    for code in ["EXIT STATUS", "\n64\nusage\n", "\n130\ninterrupted, and rolled back\n"] {
        assert!(page.contains(code), "{page}");
    }
    sandbox.seedbed(&["man", "pln"]).expect(64).says(&["no command `pln`"]);
    sandbox.seedbed(&["man", "__complete"]).expect(64);
}
