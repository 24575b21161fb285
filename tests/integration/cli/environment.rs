//! Tests of `env`: its output is the environment of the session, for every reader and every value.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli::shells::installed;
use crate::sandbox::{Outcome, Sandbox};

/// Values that a shell or another reader could interpret.
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

/// Creates a swarm in a directory whose own name is hostile, and returns the environment of its session `a`.
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
    let env =
        sandbox.seedbed_in(&clone, &["env", "a", "--format", "json"]).expect(0).json()["environment"].take();
    let env: BTreeMap<String, String> = serde_json::from_value(env).unwrap();
    for (at, value) in values.iter().enumerate() {
        assert_eq!(env[&format!("V{at}")], *value);
    }
    assert_eq!(env["AGENT_REPO_ROOT"], clone.to_str().unwrap());
    (sandbox, clone, env)
}

/// Runs a program that ends with `env -0`, and expects every variable in the output.
#[track_caller]
fn check(command: &mut Command, expected: &BTreeMap<String, String>) {
    let outcome = Outcome::of(command.output().unwrap()).expect(0);
    let read: BTreeMap<_, _> =
        outcome.stdout.split_terminator('\0').filter_map(|line| line.split_once('=')).collect();
    for (name, value) in expected {
        assert_eq!(read.get(name.as_str()), Some(&value.as_str()), "{name}: {command:?}");
    }
}

/// Returns a command of a program whose `PATH` begins with `seedbed`.
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

/// fish has an `export` of its own, which could be misused to evaluate output for other shells.
#[test]
fn output_for_other_shells_runs_nothing_in_fish() {
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

/// Values that every reader of such files reads unchanged.
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
fn dotenv_has_every_value_that_it_can_express() {
    let sandbox = Sandbox::new();
    let mut manifest = "[session.a]\n[session.a.env]\n".to_owned();
    for (at, value) in SAFE.iter().enumerate() {
        writeln!(manifest, "V{at} = {}", serde_json::to_string(value).unwrap()).unwrap();
    }
    sandbox.manifest(&manifest);
    sandbox.ok(&["apply"]);
    let written = sandbox.ok(&["env", "a", "--format", "dotenv"]).stdout;
    let expected: BTreeMap<String, String> =
        serde_json::from_value(sandbox.ok(&["env", "a", "--format", "json"]).json()["environment"].take())
            .unwrap();
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
        crate::cli::shells::not_tested("python-dotenv");
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
        let refused = refused.says(&["VALUE has ", "use `--format` with `shell`"]);
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

/// Prints both variables as a program finds them that does not set them itself, as a shell would.
const WHERE: &str = "env | grep -E '^(OLD)?PWD=' | tr '\\n' ' '";

#[test]
fn programs_of_a_session_find_its_own_directory_in_pwd() {
    let sandbox = Sandbox::new();
    sandbox.write("tools/where", "#!/bin/sh\nprintf '%s\\n' \"$PWD$OLDPWD\" >>$1; request=$(cat); case $request in\n*'\"operation\":\"plan\"'*) echo '{\"protocol\": 2, \"allocations\": {\"shop/a\": {\"allocation\": {}}}}' ;;\n*'\"operation\":\"inspect\"'*) echo '{\"protocol\": 2, \"condition\": \"healthy\"}' ;;\n*) echo '{\"protocol\": 2}' ;; esac\n");
    fs::set_permissions(
        sandbox.repository.join("tools/where"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    sandbox.write("app/Makefile", "where:\n\t@echo $(PWD)\n");
    sandbox.commit("a program");
    let (commands, programs) = (sandbox.top.join("commands"), sandbox.top.join("programs"));
    let note = format!(
        "printf '%s\\n' \"$(env -u _ /usr/bin/env | grep -E '^(OLD)?PWD=' | tr '\\n' ' ')\" >>{}",
        commands.display()
    );
    sandbox.manifest(&format!(
        "[provider.where]\ncommand = ['./tools/where', '{}']\n[session.a]\nresources = [{{ kind = 'git-worktree', target-path = 'app' }}, 'where']\nsetup = [\"{1}\"]\nteardown = [\"{1}\"]\n[session.b]\nresources = ['git-worktree']\n",
        programs.display(),
        note.replace('\\', "\\\\").replace('"', "\\\"")
    ));
    let run = |args: &[&str]| {
        let mut command = sandbox.command(args);
        let command = command.env("PWD", &sandbox.repository).env("OLDPWD", sandbox.top.join("before"));
        Outcome::of(command.output().unwrap()).expect(0).stdout
    };
    run(&["apply", "--quiet"]);
    let directory = sandbox.directory("a");
    let own = format!("PWD={}", directory.display());
    assert_eq!(run(&["exec", "a", "--", "sh", "-c", WHERE]).trim(), own);
    // A program that is no shell.
    assert!(run(&["exec", "a", "--", "env"]).lines().any(|line| line == own));
    let all = run(&["exec", "--all", "--", "env"]);
    let of_b = format!("b: PWD={}", sandbox.directory("b").display());
    assert!(
        all.lines().any(|line| line == format!("a: {own}")) && all.lines().any(|line| line == of_b),
        "{all}"
    );
    assert!(!all.contains("OLDPWD"), "{all}");
    if installed("make") {
        assert_eq!(run(&["exec", "a", "--", "make", "-s", "where"]).trim(), directory.to_str().unwrap());
    }
    run(&["destroy"]);
    let inside = run(&["run", "--in-place", "--session", "a", "--quiet", "--", "env"]);
    assert!(inside.lines().any(|line| line == own) && !inside.contains("OLDPWD"), "{inside}");
    let noted = fs::read_to_string(commands).unwrap();
    assert_eq!(
        noted.lines().map(str::trim).collect::<Vec<_>>(),
        [own.as_str(); 4],
        "setup and teardown, twice"
    );
    let top = sandbox.repository.to_str().unwrap();
    let asked = fs::read_to_string(programs).unwrap();
    assert!(asked.lines().count() >= 4 && asked.lines().all(|line| line == top), "{asked}");
}

#[test]
fn a_manifest_cannot_set_pwd() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nenv = { PWD = \"/\", OLDPWD = \"/\" }\n");
    let refused = sandbox.unchanged(|| sandbox.seedbed(&["plan"]).expect(65));
    refused.says(&["`PWD` cannot be set", "`OLDPWD` cannot be set"]);
}

#[test]
fn commands_work_without_home() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [\"git-worktree\"]\n");
    let run = |args: &[&str], state: Option<&Path>| {
        let mut command = sandbox.command(args);
        command.env_remove("HOME").env_remove("SEEDBED_STATE_DIR");
        if let Some(state) = state {
            command.env("XDG_STATE_HOME", state);
        }
        Outcome::of(command.output().unwrap())
    };
    let state = sandbox.top.join("xdg");
    run(&["apply"], Some(&state)).expect(0);
    assert!(state.join("seedbed").is_dir());
    run(&["exec", "a", "--", "true"], Some(&state)).expect(0);
    run(&["destroy"], Some(&state)).expect(0);
    // The user database names a home directory; nothing is written there.
    run(&["validate"], None).expect(0);
}

/// A user without an entry in any user database, as in a container.
#[test]
fn commands_that_keep_no_state_need_no_place_for_it() {
    if !rustix::process::getuid().is_root() || !installed("setpriv") {
        crate::cli::shells::not_tested("a user without a home directory");
        return;
    }
    let sandbox = Sandbox::new();
    let open =
        |path: &Path| fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    open(&sandbox.top);
    let directory = sandbox.top.join("of-nobody");
    fs::create_dir(&directory).unwrap();
    open(&directory);
    fs::write(directory.join("seedbed.toml"), "version = 1\nswarm = \"x\"\n[session.a]\n").unwrap();
    let run = |args: &[&str]| {
        let mut command = sandbox.program("setpriv", &directory);
        command.args(["--reuid=54321", "--regid=54321", "--clear-groups", env!("CARGO_BIN_EXE_seedbed")]);
        command.args(args).env_remove("HOME").env_remove("SEEDBED_STATE_DIR");
        Outcome::of(command.output().unwrap())
    };
    if run(&["--version"]).code != 0 {
        crate::cli::shells::not_tested("a user without a home directory, who cannot run the binary");
        return;
    }
    run(&["validate"]).expect(0);
    run(&["schema"]).expect(0);
    run(&["list"]).expect(64).says(&["there is no directory for state", "SEEDBED_STATE_DIR"]);
}

#[test]
fn a_session_knows_its_replica_its_slug_and_its_hash() {
    let sandbox = Sandbox::new();
    let long = "x".repeat(40);
    sandbox.manifest(&format!(
        "[session.Lead]\nenv = {{ PEER = \"{{{{ sessions['Lead/coder_a-1'].session.hash }}}}\", DB = \"app-{{{{ session.hash }}}}\" }}\n\
         [session.Lead.child.coder_a]\ncount = 2\nenv = {{ TOLD = \"{{{{ session.replica }}}} {{{{ session.slug }}}} {{{{ parent.session.slug }}}}\" }}\n\
         [session.lead-coder-a-0]\n[session.{long}]\n[session.{long}.child.{long}]\n"
    ));
    let clone = sandbox.clone_to("other");
    assert_eq!(sandbox.plan(), sandbox.plan_in(&clone), "the plan has the same bytes in every clone");
    sandbox.ok(&["apply"]);
    sandbox.seedbed_in(&clone, &["apply"]).expect(0);
    let env = |directory: &Path, session: &str| {
        let env = sandbox.seedbed_in(directory, &["env", session, "--format", "json"]).expect(0).json()["environment"].take();
        serde_json::from_value::<BTreeMap<String, String>>(env).unwrap()
    };
    let here = |session: &str| env(&sandbox.repository, session);
    let child = here("Lead/coder_a-1");
    assert_eq!(child["TOLD"], "1 lead-coder-a-1 lead");
    assert_eq!(
        (child["AGENT_SESSION_REPLICA"].as_str(), child["AGENT_SESSION_SLUG"].as_str()),
        ("1", "lead-coder-a-1")
    );
    let sessions =
        ["Lead", "Lead/coder_a-0", "Lead/coder_a-1", "lead-coder-a-0", &long, &format!("{long}/{long}")];
    let mut hashes = std::collections::BTreeSet::new();
    for name in ["AGENT_SESSION_SLUG", "AGENT_SESSION_HASH"] {
        let mut seen = std::collections::BTreeSet::new();
        for session in sessions {
            let value = here(session)[name].clone();
            assert!((1..=63).contains(&value.len()), "{value}");
            assert!(
                value.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'),
                "{value}"
            );
            assert!(seen.insert(value), "{session} shares its {name}");
        }
        hashes = seen;
    }
    let lead = here("Lead");
    assert_eq!(lead["DB"], format!("app-{}", lead["AGENT_SESSION_HASH"]));
    assert_eq!(lead["PEER"], child["AGENT_SESSION_HASH"]);
    assert!(sessions.iter().all(|session| !hashes.contains(&env(&clone, session)["AGENT_SESSION_HASH"])));
    // An active session keeps its slug, regardless of new sessions beside it.
    sandbox.manifest("[session.a.child.b]\n[session.a]\n");
    sandbox.ok(&["apply", "--yes"]);
    assert_eq!(here("a/b")["AGENT_SESSION_SLUG"], "a-b");
    sandbox.manifest("[session.a.child.b]\n[session.a]\n[session.a-b]\n");
    sandbox.ok(&["apply", "--yes"]);
    assert_eq!(here("a/b")["AGENT_SESSION_SLUG"], "a-b");
    assert!(here("a-b")["AGENT_SESSION_SLUG"].starts_with("a-b-"));
}

/// A shell evaluates the names of variables as it does their values.
#[test]
fn a_name_that_a_shell_would_run_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nenv = { A = \"1\" }\n");
    sandbox.ok(&["apply"]);
    let swarms = fs::read_dir(sandbox.state().join("swarms")).unwrap().map(|entry| entry.unwrap().path());
    let record = swarms.map(|swarm| swarm.join("applied.json")).find(|record| record.exists()).unwrap();
    let text = fs::read_to_string(&record).unwrap();
    let edited = text.replacen("\"A\":\"1\"", "\"A;touch PWNED;B\":\"1\"", 1);
    assert_ne!(edited, text);
    fs::write(&record, edited).unwrap();
    for format in ["shell", "direnv", "fish", "dotenv"] {
        sandbox
            .seedbed(&["env", "a", "--format", format])
            .expect(1)
            .says(&["cannot be the name of a variable"]);
    }
    sandbox.ok(&["env", "a", "--format", "json"]);
}
