//! Tests of the setup of sessions: untracked files of the workspace that are copied, and commands that run in the
//! sessions.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::sandbox::Sandbox;

/// Creates a sandbox with a manifest whose commands append to `log`, beside the repository; `{log}` is replaced by that
/// path.
fn with_log(rest: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.manifest(&rest.replace("{log}", sandbox.top.join("log").to_str().unwrap()));
    sandbox
}

fn log(sandbox: &Sandbox) -> Vec<String> {
    let text = fs::read_to_string(sandbox.top.join("log")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn untracked_files_are_copied_and_linked() {
    let sandbox = Sandbox::new();
    sandbox.write(".gitignore", ".env\n/cache\n*.local\n");
    sandbox.commit("ignores");
    sandbox.write(".env", "SECRET=1\n");
    fs::set_permissions(sandbox.repository.join(".env"), fs::Permissions::from_mode(0o600)).unwrap();
    sandbox.write("config/a.local", "a\n");
    sandbox.write("config/b.local", "b\n");
    sandbox.write("cache/large.bin", "large\n");
    sandbox.manifest(
        "[session.a]\ncount = 2\nresources = [{ kind = \"git-worktree\", copy = [\".env\", \"config/*.local\"], link = [\"cache\"] }]\n\
         setup = [\"grep -q SECRET=1 .env && test -e cache/large.bin\"]\n",
    );
    sandbox.unchanged(|| {
        sandbox.ok(&["apply"]);
        for directory in sandbox.directories() {
            assert_eq!(fs::read_to_string(directory.join(".env")).unwrap(), "SECRET=1\n");
            assert_eq!(fs::metadata(directory.join(".env")).unwrap().permissions().mode() & 0o777, 0o600);
            assert!(!fs::symlink_metadata(directory.join(".env")).unwrap().is_symlink());
            assert_eq!(fs::read_to_string(directory.join("config/b.local")).unwrap(), "b\n");
            assert!(directory.join("README.md").is_file());
            assert_eq!(fs::read_to_string(directory.join("cache/large.bin")).unwrap(), "large\n");
            let real = directory.join("cache/large.bin").canonicalize().unwrap();
            assert_eq!(real, sandbox.repository.join("cache/large.bin"));
        }
        // A copy is the session's own.
        fs::write(sandbox.directory("a-0").join(".env"), "SECRET=2\n").unwrap();
        assert_eq!(fs::read_to_string(sandbox.directory("a-1").join(".env")).unwrap(), "SECRET=1\n");
        sandbox.ok(&["destroy"]);
    });
}

#[test]
fn copies_that_git_sees_are_no_work_until_they_change() {
    let sandbox = Sandbox::new();
    sandbox.write("notes.txt", "from the workspace\n");
    sandbox.manifest(
        "[session.a]\nresources = [{ kind = \"git-worktree\", copy = [\"notes.txt\"] }]\n[session.b]\nresources = [{ kind = \"git-worktree\", link = [\"notes.txt\"] }]\n",
    );
    sandbox.unchanged(|| {
        sandbox.ok(&["apply"]);
        sandbox.ok(&["destroy"]);
    });
    sandbox.ok(&["apply"]);
    fs::write(sandbox.directory("a").join("notes.txt"), "changed by the session\n").unwrap();
    sandbox.unchanged(|| sandbox.seedbed(&["destroy"]).expect(69).says(&["a: ", "1 untracked"]));
}

#[test]
fn unchanged_copy_is_no_work_when_the_workspace_changes() {
    let sandbox = Sandbox::new();
    sandbox.write("notes.txt", "one\n");
    sandbox.write("other.txt", "one\n");
    sandbox.manifest(
        "[session.a]\ncount = 2\nresources = [{ kind = \"git-worktree\", copy = [\"*.txt\"], branch = \"b/{{ session.name }}\" }]\n",
    );
    sandbox.ok(&["apply"]);
    sandbox.write("notes.txt", "two\n");
    fs::remove_file(sandbox.repository.join("other.txt")).unwrap();
    let edited = sandbox.directory("a-1").join("notes.txt");
    fs::write(&edited, "mine\n").unwrap();
    let status = sandbox.ok(&["status", "--json"]).json();
    assert_eq!(status["sessions"][0]["unsaved"], serde_json::json!([]));
    sandbox.seedbed(&["destroy"]).expect(69).says(&["a-1: ", "1 untracked"]);
    fs::write(&edited, "two\n").unwrap();
    sandbox.ok(&["destroy"]);
}

#[test]
fn tracked_or_missing_file_to_copy_is_a_diagnostic_at_its_option() {
    let sandbox = Sandbox::new();
    sandbox.write("untracked/a", "12345");
    sandbox.write("untracked/b", &"x".repeat(1234));
    sandbox.manifest(
        "[session.a]\nresources = [{ kind = \"git-worktree\", copy = [\".env\", \"README.md\", \"./untracked\", \"*.none\"], link = [\"untracked/a\"] }]\n",
    );
    let found = sandbox.seedbed(&["validate", "--format", "json"]).expect(65).json();
    let diagnostics = found["diagnostics"].as_array().unwrap();
    let rules: Vec<_> = diagnostics.iter().map(|diagnostic| diagnostic["rule"].as_str().unwrap()).collect();
    assert_eq!(rules, ["copied-file", "copied-file"]);
    sandbox.seedbed(&["plan"]).expect(65).says(&[
        "no file `.env`",
        "does not exist",
        "Git tracks `README.md`",
        "is tracked",
    ]);
    sandbox.write(".env", "1\n");
    let manifest = fs::read_to_string(sandbox.repository.join("seedbed.toml")).unwrap();
    fs::write(sandbox.repository.join("seedbed.toml"), manifest.replace("\"README.md\", ", "")).unwrap();
    let plan = sandbox.ok(&["plan", "-o", "saved"]).stdout;
    for line in [
        "copies .env, ./untracked, *.none  links untracked/a",
        "note: copied into worktrees: `.env` (1 file, 2 bytes), `./untracked` (2 files, 1.2 kB), `*.none` (0 files, 0 bytes)",
        "note: linked into worktrees: `untracked/a` (1 file, 5 bytes)",
    ] {
        assert!(plan.contains(line), "{line}\n{plan}");
    }
    fs::remove_file(sandbox.repository.join(".env")).unwrap();
    sandbox.seedbed(&["apply", "saved"]).expect(69).says(&["the workspace has no file `.env` any more"]);
    sandbox.write(".env", "1\n");
    sandbox.ok(&["apply", "saved"]);
    // What is there already needs it no more.
    fs::remove_file(sandbox.repository.join(".env")).unwrap();
    sandbox.ok(&["plan"]);
}

#[test]
fn setup_runs_in_order_in_the_session_with_its_environment() {
    let sandbox = with_log(
        r#"
[session.a]
resources = ["git-worktree", { kind = "port-range", names = ["http"] }]
env = { GREETING = "it's $HOME" }
setup = [
  ["sh", "-c", 'printf "%s\n" "$0" "$PWD" >> {log}', "*"],
  'printf "%s\n" "$AGENT_SESSION_ID" "$AGENT_PORT_HTTP" "$GREETING" >> {log}',
  ["touch", "a b.log", "$HOME.log"],
  'printf "%s\n" "{{ port.http }}" "$HOME" >> {log}',
]
"#,
    );
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("a");
    let port = sandbox.ok(&["env", "a", "--format", "json"]).json()["environment"]["AGENT_PORT_HTTP"].clone();
    let port = port.as_str().unwrap();
    let (top, there) = (sandbox.top.to_str().unwrap(), directory.to_str().unwrap());
    assert_eq!(log(&sandbox), ["*", there, "shop/a", port, "it's $HOME", port, top]);
    // An array is arguments, not words for a shell.
    assert!(directory.join("a b.log").is_file() && directory.join("$HOME.log").is_file());
    sandbox.ok(&["apply"]);
    assert_eq!(log(&sandbox).len(), 7, "setup ran again");
}

#[test]
fn setup_runs_before_a_sessions_children_and_teardown_after_them() {
    let sandbox = with_log(
        r#"
[session.a]
resources = ["git-worktree"]
setup = ['echo "up $AGENT_SESSION_ID" >> {log}']
teardown = ['echo "down $AGENT_SESSION_ID $PWD" >> {log}', 'test -e README.md && echo files >> {log}']
[session.a.child.b]
setup = ['echo "up $AGENT_SESSION_ID" >> {log}']
teardown = ['echo "down $AGENT_SESSION_ID $PWD" >> {log}']
"#,
    );
    sandbox.unchanged(|| {
        sandbox.ok(&["apply"]);
        let (a, b) = (sandbox.directory("a"), sandbox.directory("a/b"));
        sandbox.ok(&["destroy"]);
        let down = [format!("down shop/a/b {}", b.display()), format!("down shop/a {}", a.display())];
        assert_eq!(log(&sandbox), ["up shop/a", "up shop/a/b", &down[0], &down[1], "files"]);
    });
}

#[test]
fn teardown_runs_where_setup_had_begun_when_a_run_is_undone() {
    let sandbox = with_log(
        r#"
[session.a]
resources = ["git-worktree"]
setup = ['echo "up a" >> {log}']
teardown = ['echo "down a" >> {log}']
[session.a.child.b]
setup = ['echo "up b" >> {log}; exit 1']
teardown = ['echo "down b" >> {log}']
[session.a.child.b.child.c]
setup = ['echo "up c" >> {log}']
teardown = ['echo "down c" >> {log}']
"#,
    );
    sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(1).says(&["a/b: setup: "]));
    assert_eq!(log(&sandbox), ["up a", "up b", "down b", "down a"]);
}

#[test]
fn failed_teardown_is_reported_and_stops_nothing() {
    let sandbox = with_log(
        r#"
[session.a]
count = 2
resources = ["git-worktree", "port-range"]
teardown = ['echo cannot stop $((6 * 7)); exit 3', 'echo never >> {log}']
"#,
    );
    sandbox.unchanged(|| {
        sandbox.ok(&["apply"]);
        sandbox.seedbed(&["destroy"]).expect(72).says(&[
            "a-0: teardown: ",
            "a-1: teardown: ",
            "cannot stop 42",
            "the sessions were released anyway",
        ]);
    });
    assert_eq!(log(&sandbox), Vec::<String>::new());
}

/// `apply` replaces what was removed, and `destroy` releases the rest; neither runs a command in a directory that an
/// agent chose.
#[test]
fn teardown_without_its_directory_is_skipped_and_reported() {
    let sandbox = with_log(
        "[session.a]\nresources = [\"git-worktree\"]\nteardown = ['echo \"down $PWD\" >> {log}; touch ran']\n",
    );
    let (worktree, victim) = (sandbox.repository.join(".ai_ops/worktrees"), sandbox.top.join("victim"));
    fs::create_dir(&victim).unwrap();
    sandbox.unchanged(|| {
        sandbox.ok(&["apply"]);
        let worktree = worktree.join(sandbox.directory("a").file_name().unwrap());
        fs::remove_dir_all(&worktree).unwrap();
        sandbox.ok(&["apply", "--yes", "--discard"]).says(&["a: teardown was not run: ", " does not exist"]);
        fs::remove_dir_all(&worktree).unwrap();
        std::os::unix::fs::symlink(&victim, &worktree).unwrap();
        let exec = sandbox.seedbed(&["exec", "a", "--", "touch", "ran"]);
        exec.expect(125)
            .says(&["session a has no directory to work in: ", "is a symbolic link, which is not followed"]);
        let refused = sandbox.seedbed(&["destroy", "--discard"]).expect(69);
        refused.says(&["is a symbolic link, which is not followed"]);
        fs::remove_file(&worktree).unwrap();
        sandbox.ok(&["destroy", "--discard"]);
    });
    sandbox.unchanged(|| {
        sandbox.ok(&["apply"]);
        fs::remove_dir_all(sandbox.directory("a")).unwrap();
        sandbox.ok(&["destroy", "--discard"]).says(&["a: teardown was not run: ", "nothing is left"]);
    });
    assert_eq!(log(&sandbox), Vec::<String>::new());
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
}

#[test]
fn a_missing_program_is_named() {
    let sandbox = Sandbox::new();
    sandbox.manifest(
        "[session.a]\nresources = [\"git-worktree\"]\nsetup = [[\"no-such-program\", \"--fast\"]]\n",
    );
    let outcome = sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(1));
    outcome.says(&["a: setup: ", "`no-such-program`", "there is no such program in PATH"]);
}

#[test]
fn setup_that_lists_the_words_of_one_command_gets_a_hint() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = ['git-worktree']\nsetup = ['false', 'ci']\n");
    let hint = r#"setup = [["false","ci"]]"#;
    sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(1).says(&["a command of its own", hint]));
    sandbox.manifest("[session.a]\nresources = ['git-worktree']\nsetup = ['false ci', 'ci']\n");
    assert!(!sandbox.seedbed(&["apply"]).expect(1).stderr.contains("of its own"));
}

#[test]
fn a_setup_that_leaves_something_running_is_not_waited_for() {
    let sandbox = Sandbox::new();
    let (pid, stop) = (sandbox.top.join("pid"), sandbox.top.join("stop"));
    sandbox.manifest(&format!(
        "[session.a]\nresources = [\"git-worktree\"]\nsetup = ['(until test -e {}; do sleep 0.1; done) & echo $! > {}']\n",
        stop.display(),
        pid.display()
    ));
    sandbox.ok(&["apply"]);
    let alive = || {
        let pid = fs::read_to_string(&pid).unwrap();
        fs::metadata(format!("/proc/{}", pid.trim())).is_ok()
    };
    assert!(alive());
    // Nor does it hold the swarm's lock; it is named, because no teardown is there to end it.
    sandbox.seedbed(&["destroy"]).expect(69).says(&[fs::read_to_string(&pid).unwrap().trim()]);
    fs::write(stop, "").unwrap();
    crate::sandbox::wait_until("it has ended", || !alive());
    sandbox.ok(&["destroy"]);
}

#[test]
fn logs_go_with_their_session_except_those_that_a_failure_has_named() {
    let sandbox = Sandbox::new();
    let manifest = |setup: &str, teardown: &str| {
        sandbox.manifest(&format!(
            "[session.a]\nresources = [\"git-worktree\"]\nsetup = [\"{setup}\"]\nteardown = [\"{teardown}\"]\n"
        ));
    };
    let logs = || -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for directory in fs::read_dir(sandbox.state().join("logs")).into_iter().flatten() {
            let path = directory.unwrap().path();
            found.push("directory".to_owned());
            let names =
                fs::read_dir(path).unwrap().map(|log| log.unwrap().file_name().into_string().unwrap());
            found.extend(names.map(|name| name.split_once('.').unwrap().1.to_owned()));
        }
        found.sort();
        found
    };
    manifest("true", "true");
    sandbox.ok(&["apply"]);
    assert_eq!(logs(), ["directory", "setup.log"]);
    sandbox.ok(&["destroy"]);
    assert_eq!(logs(), Vec::<String>::new());
    manifest("echo broken; false", "true");
    sandbox.seedbed(&["apply"]).expect(1).says(&["complete log: "]);
    assert_eq!(logs(), ["directory", "setup.log"]);
    manifest("true", "false");
    sandbox.ok(&["apply"]);
    sandbox.seedbed(&["destroy"]).expect(72).says(&["complete log: "]);
    assert_eq!(logs(), ["directory", "teardown.log"]);
    manifest("true", "true");
    sandbox.ok(&["apply"]);
    sandbox.ok(&["destroy"]);
    assert_eq!(logs(), Vec::<String>::new());
}

/// What a failed `setup` leaves may keep the manifest from being planned again, which is not the cause.
#[test]
fn a_failed_setup_is_reported_if_planning_is_impossible_afterwards() {
    let sandbox = Sandbox::new();
    sandbox.git(&["branch", "base"]);
    let session = "resources = [{ kind = \"git-worktree\", base-ref = \"base\" }]\n";
    let setup = format!("setup = ['git -C {} branch -D base && exit 3']\n", sandbox.repository.display());
    sandbox.manifest(&format!("[session.a]\n{session}{setup}"));
    sandbox.seedbed(&["apply"]).expect(1).says(&["a: setup: "]);
    // The same for a session that is spawned.
    sandbox.git(&["branch", "base"]);
    sandbox.manifest("[session.b]\nresources = []\n");
    sandbox.ok(&["apply"]);
    sandbox.manifest(&format!("[session.a]\n{session}{setup}[session.b]\nresources = []\n"));
    sandbox.seedbed(&["spawn", "c", "--template", "a"]).expect(1).says(&["c: setup: "]);
}
