//! Examples in the help of every command run as they are printed.

use std::path::Path;

use crate::sandbox::{Outcome, Sandbox};

/// Commands whose examples leave the swarm as it is, so that the next example need not apply it again.
const READ: [&str; 15] = [
    "collect",
    "completions",
    "doctor",
    "env",
    "exec",
    "explain",
    "export",
    "list",
    "logs",
    "man",
    "prompt",
    "schema",
    "show",
    "status",
    "whoami",
];

/// Returns the commands that have examples, in the order of the help: the order in which a user needs them.
fn commands(sandbox: &Sandbox) -> Vec<Vec<String>> {
    let list = |args: &[&str]| {
        let help = sandbox.ok(args).stdout;
        let (_, list) = help.split_once("\nCommands:\n").unwrap();
        let list = list.split("\n\n").next().unwrap().lines();
        let names = list.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        let names = names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned);
        names.filter(|name| name != "help").collect::<Vec<_>>()
    };
    let mut commands: Vec<_> = list(&["--help"]).into_iter().map(|name| vec![name]).collect();
    for above in ["rescue", "fleet"] {
        let below = list(&[above, "--help"]).into_iter().map(|name| vec![above.to_owned(), name]);
        let after = commands.iter().position(|command| command == &[above]).unwrap() + 1;
        commands.splice(after..after, below.collect::<Vec<_>>());
    }
    commands
}

/// Returns the examples of a command: the line, and the exit code that its purpose names.
fn examples(sandbox: &Sandbox, command: &[String]) -> Vec<(String, i32)> {
    let args: Vec<_> = command.iter().map(String::as_str).chain(["--help"]).collect();
    let help = sandbox.ok(&args).stdout;
    let (_, examples) =
        help.split_once("\nExamples:\n").unwrap_or_else(|| panic!("{command:?} has no example"));
    let mut lines = examples.lines().map(str::trim);
    let mut found = Vec::new();
    while let Some(purpose) = lines.next() {
        let purpose = purpose.strip_prefix("# ").unwrap_or_else(|| panic!("{command:?}: {purpose}"));
        let code = purpose.split_once("exits with ").map_or(0, |(_, rest)| {
            rest.split(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("{purpose}"))
        });
        found.push((lines.next().unwrap().to_owned(), code));
    }
    assert!((1..=3).contains(&found.len()), "{command:?}: {found:?}");
    found
}

/// Brings the swarm into the state that the example starts from. `is_applied` is true if the swarm is applied as its
/// manifest is.
fn prepare(sandbox: &Sandbox, command: &[String], line: &str, is_applied: bool) {
    if command.last().is_some_and(|command| command == "start") {
        let manifest = std::fs::read_to_string(sandbox.repository.join("seedbed.toml")).unwrap();
        let with_command =
            manifest.replacen("[session.lead]\n", "[session.lead]\ncommand = \"echo done\"\n", 1);
        sandbox.write("seedbed.toml", if manifest.contains("echo done") { &manifest } else { &with_command });
    }
    match command[0].as_str() {
        "init" | "validate" | "plan" => {}
        "run" => drop(sandbox.ok(&["destroy", "--discard", "--yes"])),
        _ if is_applied && command[0] != "start" => {}
        _ => drop(sandbox.ok(&["apply", "--yes", "--quiet"])),
    }
    if line.contains("--observations ") {
        std::fs::create_dir_all(sandbox.repository.join("observations")).unwrap();
        sandbox.ok(&["observe", "--quiet", "-o", "observations/n0.json"]);
    }
    if line.contains(" swarm.plan") && command[0] != "plan" {
        sandbox.ok(&["plan", "--quiet", "-o", "swarm.plan"]);
    }
}

/// Leaves work in a session and rescues it; returns the name of the rescue.
fn rescue(sandbox: &Sandbox) -> String {
    std::fs::write(sandbox.directory("lead/coder-0").join("work.txt"), "work\n").unwrap();
    sandbox.ok(&["destroy", "coder-0", "--rescue", "--yes"]);
    let list = sandbox.ok(&["rescue", "list"]).stdout;
    list.lines().last().unwrap().split_whitespace().last().unwrap().to_owned()
}

/// Writes a program `ssh` whose hosts are clones with a state directory of their own.
fn fake_ssh(sandbox: &Sandbox) {
    let top = sandbox.top.display();
    let script = format!(
        "#!/bin/sh\nset -e\nhost={top}/$1\nshift\n\
         test -d $host || git clone -q {top}/repository $host\ncp {top}/repository/seedbed.toml $host\n\
         export SEEDBED_STATE_DIR=$host.state\n\
         exec sh -c \"$(echo \"$*\" | sed \"s# -C [^ ]* # -C $host #\")\"\n"
    );
    let path = sandbox.top.join("ssh");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn every_example_in_the_help_runs() {
    let sandbox = Sandbox::new();
    sandbox.write("test.sh", "#!/bin/sh\ntest -n \"$ROLE\"\n");
    sandbox.write("task.md", "Fix the tests\n");
    sandbox.git(&["add", "."]);
    sandbox.git(&["update-index", "--chmod=+x", "test.sh"]);
    sandbox.git(&["commit", "--quiet", "--message", "test"]);
    fake_ssh(&sandbox);
    let bin = Path::new(env!("CARGO_BIN_EXE_seedbed")).parent().unwrap().to_str().unwrap().to_owned();
    let path = format!("{}:{bin}:{}", sandbox.top.display(), std::env::var("PATH").unwrap());
    let mut is_applied = false;
    for command in commands(&sandbox) {
        for (mut line, code) in examples(&sandbox, &command) {
            prepare(&sandbox, &command, &line, is_applied);
            is_applied = READ.contains(&command[0].as_str());
            if line.contains("RESCUE") {
                line = line.replace("RESCUE", &rescue(&sandbox));
            }
            if command == ["fleet", "start"] {
                line = format!("seedbed fleet apply ../fleet --yes --quiet && {line}");
            }
            let mut shell = sandbox.program("bash", &sandbox.repository);
            let outcome = Outcome::of(shell.args(["-c", &line]).env("PATH", &path).output().unwrap());
            assert_eq!(outcome.code, code, "{line}\n{}{}", outcome.stdout, outcome.stderr);
            if command == ["init"] {
                let manifest = std::fs::read_to_string(sandbox.repository.join("seedbed.toml")).unwrap();
                let ports = format!("base-port = {}\nblock-size = 16", sandbox.base_port);
                sandbox.write("seedbed.toml", &manifest.replace("block-size = 16", &ports));
            }
        }
    }
}
