//! Tests of seeds: directories that one command populates, and that every session gets a copy of.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli::shells::not_tested;
use crate::fixtures::repository;
use crate::sandbox::{Sandbox, sessions, wait_until};

/// Command that populates `deps` from `lock`, and writes a line to the log beside the repository.
const INSTALL: &str = "mkdir -p deps/bin && cp lock deps/lock && printf '#!%s/deps/bin/tool' $PWD > deps/bin/run && ln -s ../lock deps/bin/lock && echo ${AGENT_SESSION_ID:-none} >> ../../../../installs";

/// Returns a manifest of `count` sessions with a seed that `command` populates.
fn manifest(count: usize, command: &str) -> String {
    format!(
        "[session.a]\ncount = {count}\nresources = [{{ kind = \"git-worktree\", seed = [{{ path = \"deps\", key = [\"lock\"], command = {command:?} }}] }}]\n"
    )
}

fn with_seed(count: usize, command: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("lock", "one\n");
    sandbox.commit("lock");
    sandbox.manifest(&manifest(count, command));
    sandbox
}

/// Returns the number of times that [`INSTALL`] has run.
fn installs(sandbox: &Sandbox) -> usize {
    let log = fs::read_to_string(sandbox.top.join("installs")).unwrap_or_default();
    assert!(log.lines().all(|line| line == "none"), "the command has no variables of a session: {log}");
    log.lines().count()
}

/// Returns the directories of complete seeds in the state directory.
fn stored(sandbox: &Sandbox) -> Vec<PathBuf> {
    let entries = fs::read_dir(sandbox.state().join("seeds")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.join("seed.json").is_file()).collect()
}

fn read(directory: &Path, path: &str) -> String {
    fs::read_to_string(directory.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn one_session_runs_the_command_and_the_others_get_copies() {
    let sandbox = with_seed(4, INSTALL);
    let plan = sandbox.ok(&["plan", "-o", "../saved"]);
    assert!(plan.stdout.contains("note: seed `deps` is new: `mkdir -p deps/bin"), "{}", plan.stdout);
    let applied = sandbox.ok(&["apply", "-v"]).stderr;
    assert_eq!(applied.matches(": populated deps: 3 files, ").count(), 1, "{applied}");
    assert_eq!(applied.matches(": copied the seed of deps: 3 files, ").count(), 3, "{applied}");
    assert!(applied.contains("seeded 4 sessions in"), "{applied}");
    for directory in sandbox.directories() {
        assert_eq!(read(&directory, "deps/lock"), "one\n");
        assert_eq!(read(&directory, "deps/bin/run"), format!("#!{}/deps/bin/tool", directory.display()));
        assert_eq!(fs::read_link(directory.join("deps/bin/lock")).unwrap(), Path::new("../lock"));
        // Git ignores `deps` in no other worktree.
        sandbox.assert_clean(&directory);
    }
    sandbox.write("deps/x", "");
    assert!(sandbox.git(&["status", "--porcelain"]).contains("?? deps/"));
    fs::remove_dir_all(sandbox.repository.join("deps")).unwrap();
    // Seeded files are no work, also when the session has changed them.
    fs::write(sandbox.directory("a-0").join("deps/lock"), "changed").unwrap();
    sandbox.ok(&["plan", "--detailed-exitcode"]);
    sandbox.ok(&["destroy"]);

    let plan = sandbox.ok(&["plan"]).stdout;
    assert!(plan.contains("note: seed `deps` exists and is copied: 3 files, "), "{plan}");
    let events = sandbox.ok(&["apply", "--json"]).stdout;
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seeded: Vec<_> = events.iter().filter(|event| event["event"] == "seeded").collect();
    assert_eq!(seeded.len(), 4);
    assert!(
        seeded.iter().all(|event| event["copied"] == true && event["files"] == 3 && event["path"] == "deps")
    );
    assert_eq!(read(&sandbox.directory("a-0"), "deps/lock"), "one\n", "the seed is as it was made");
    assert_eq!(installs(&sandbox), 1);
    sandbox.ok(&["destroy"]);

    // Another key is another seed; a saved plan has its key, and runs also after its seed has vanished.
    sandbox.write("lock", "two\n");
    sandbox.commit("two");
    sandbox.ok(&["apply"]);
    assert_eq!(read(&sandbox.directory("a-3"), "deps/lock"), "two\n");
    assert_eq!((installs(&sandbox), stored(&sandbox).len()), (2, 2));
    sandbox.ok(&["destroy"]);
    sandbox.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
    let saved = sandbox.top.join("again");
    sandbox.ok(&["plan", "-o", saved.to_str().unwrap()]);
    fs::remove_dir_all(sandbox.state().join("seeds")).unwrap();
    sandbox.ok(&["apply", saved.to_str().unwrap()]);
    assert_eq!((installs(&sandbox), read(&sandbox.directory("a-3"), "deps/lock")), (3, "one\n".to_owned()));
}

/// A build tool takes a result that is newer than a source for the result of that source.
#[test]
#[ignore = "`every_case` runs it"]
fn copy_is_older_than_the_sources_of_its_session_in_every_case() {
    let sandbox = with_seed(1, "true");
    let seed = format!("seed = [{{ path = \"deps\", key = [\"lock\"], command = {INSTALL:?} }}]");
    let session = |name: &str, checkout: &str| {
        format!(
            "[session.{name}]\nresources = [{{ kind = \"git-worktree\", checkout = \"{checkout}\", {seed} }}]\n"
        )
    };
    sandbox.manifest(&[session("a", "git"), session("b", "auto"), session("c", "git")].concat());
    sandbox.ok(&["apply"]);
    let modified = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    let is_older =
        |directory: &PathBuf| modified(&directory.join("deps/lock")) < modified(&directory.join("README.md"));
    assert_eq!(sandbox.directories().iter().filter(|directory| is_older(directory)).count(), 2);
    // Newer sources leave the times as they are.
    sandbox.ok(&["destroy", "c"]);
    thread::sleep(Duration::from_secs(5));
    sandbox.ok(&["apply"]);
    let stored = modified(&stored(&sandbox)[0].join("tree/lock"));
    assert_eq!(modified(&sandbox.directory("c").join("deps/lock")), stored);
}

#[test]
fn example_installs_each_of_its_dependencies_once() {
    let sandbox = Sandbox::new();
    let tools = sandbox.top.join("tools");
    fs::create_dir(&tools).unwrap();
    for (name, body) in [
        ("npm", "test \"$*\" = ci && mkdir node_modules && cp package-lock.json node_modules"),
        (
            "python3",
            "test \"$*\" = '-m venv .venv' && mkdir -p .venv/bin && printf '#!/bin/sh\\ncp requirements.txt .venv/' > .venv/bin/pip && chmod +x .venv/bin/pip",
        ),
    ] {
        let script = format!("#!/bin/sh\necho {name} >> {}/log\n{body}\n", sandbox.top.display());
        fs::write(tools.join(name), script).unwrap();
        fs::set_permissions(tools.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let example = fs::read_to_string(repository("examples/seeds.toml")).unwrap();
    sandbox.write("seedbed.toml", &example);
    sandbox.write("package-lock.json", "{}\n");
    sandbox.write("api/requirements.txt", "fastapi\n");
    sandbox.commit("dependencies");
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let applied = sandbox.command(&["apply"]).env("PATH", path).output().unwrap();
    assert!(applied.status.success(), "{applied:?}");
    assert_eq!(fs::read_to_string(sandbox.top.join("log")).unwrap(), "npm\npython3\n");
    for directory in sandbox.directories() {
        assert_eq!(read(&directory, "node_modules/package-lock.json"), "{}\n");
        assert_eq!(read(&directory, "api/.venv/requirements.txt"), "fastapi\n");
    }
}

#[test]
fn active_session_keeps_its_directory() {
    let sandbox = with_seed(2, INSTALL);
    sandbox.ok(&["apply"]);
    // The session may remove its copy: no other program knows whether it still needs the directory.
    let directory = sandbox.directory("a-0");
    fs::remove_dir_all(directory.join("deps")).unwrap();
    sandbox.ok(&["status"]);
    sandbox.ok(&["status", "--repair"]);
    sandbox.ok(&["plan", "--detailed-exitcode"]);
    assert!(!directory.join("deps").exists());
    fs::create_dir(directory.join("deps")).unwrap();
    fs::write(directory.join("deps/own"), "").unwrap();
    sandbox.assert_clean(&directory);

    // Another key, another command: only a session that is created now gets the new directory.
    sandbox.write("lock", "two\n");
    sandbox.commit("two");
    sandbox.manifest(&manifest(3, &INSTALL.replace("cp lock", "cp -p lock")));
    sandbox.ok(&["apply"]);
    assert_eq!(read(&sandbox.directory("a-1"), "deps/lock"), "one\n");
    assert_eq!(read(&sandbox.directory("a-2"), "deps/lock"), "two\n");
    assert_eq!(installs(&sandbox), 2);
    let explained = sandbox.ok(&["explain", "a-1"]).stdout;
    assert!(
        explained.contains("deps is seeded only in sessions that are created from now on"),
        "{explained}"
    );
    // Files that no option of the manifest describes any more are the session's.
    sandbox.seedbed(&["destroy", "a-1"]).expect(69).says(&["untracked"]);
    sandbox.ok(&["destroy", "a-2"]);
    sandbox.ok(&["destroy", "--discard"]);
}

#[test]
fn rescue_leaves_seeded_files_out() {
    let sandbox = with_seed(1, INSTALL);
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("a-0");
    fs::write(directory.join("new.txt"), "work\n").unwrap();
    fs::write(directory.join("deps/tracked"), "one\n").unwrap();
    sandbox.git_in(&directory, &["add", "--force", "deps/tracked"]);
    fs::write(directory.join("deps/tracked"), "two\n").unwrap();
    sandbox.ok(&["destroy", "--rescue"]);
    let name = sandbox.git(&["for-each-ref", "--format=%(refname)", "refs/seedbed/rescue"]);
    let saved = sandbox.git(&["ls-tree", "-r", "--name-only", name.trim()]);
    assert!(saved.contains("deps/tracked\n") && saved.contains("new.txt\n"), "{saved}");
    assert!(!saved.contains("deps/lock"), "{saved}");
    assert_eq!(sandbox.git(&["show", &format!("{}:deps/tracked", name.trim())]).trim(), "two");
}

#[test]
fn lost_worktree_is_seeded_again() {
    let sandbox = with_seed(2, INSTALL);
    sandbox.ok(&["apply"]);
    fs::remove_dir_all(sandbox.directory("a-1")).unwrap();
    sandbox.ok(&["apply"]);
    assert_eq!(read(&sandbox.directory("a-1"), "deps/lock"), "one\n");
    assert_eq!(installs(&sandbox), 1);
    sandbox.ok(&["destroy"]);
}

#[test]
fn damaged_seed_is_made_again() {
    let sandbox = with_seed(2, INSTALL);
    sandbox.ok(&["apply"]);
    sandbox.ok(&["destroy"]);
    let [seed] = &stored(&sandbox)[..] else { panic!("there is one seed") };
    fs::remove_file(seed.join("tree/bin/run")).unwrap();
    sandbox.ok(&["apply"]);
    assert_eq!(installs(&sandbox), 2);
    for directory in sandbox.directories() {
        assert!(directory.join("deps/bin/run").is_file());
    }
}

#[test]
fn failed_command_is_rolled_back_with_the_end_of_its_output() {
    let sandbox = with_seed(2, "mkdir deps; echo cannot resolve left-pad >&2; exit 3");
    sandbox.unchanged(|| {
        let failed = sandbox.seedbed(&["apply"]).expect(1);
        failed.says(&["cannot resolve left-pad", "exit status: 3", "complete log: ", "/seeds/"]);
        for entry in fs::read_dir(sandbox.state().join("seeds")).unwrap() {
            let path = entry.unwrap().path();
            assert!(path.extension().is_some_and(|end| end == "log" || end == "lock"), "{}", path.display());
        }
    });
    for (command, said) in [
        ("true", "`true` has succeeded, but has not created the directory `deps`"),
        ("mkdir deps && ln -s $PWD/lock deps/absolute", "`deps/absolute` is a link to "),
        ("mkdir deps && ln -s ../../outside deps/far", "`deps/far` is a link to ../../outside, relative"),
    ] {
        sandbox.manifest(&manifest(2, command));
        sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(1).says(&[said]));
        assert!(stored(&sandbox).is_empty());
    }
    let missing = manifest(1, "true").replace("command", "directory = \"none\", command");
    sandbox.manifest(&missing);
    sandbox
        .unchanged(|| sandbox.seedbed(&["apply"]).expect(1).says(&["the session has no directory `none`"]));
}

#[test]
fn seed_is_relative_to_the_working_directory() {
    let sandbox = Sandbox::new();
    sandbox.write("app/web/lock", "one\n");
    sandbox.commit("lock");
    let of = |target: &str| {
        format!(
            "[session.a]\ncount = 2\nresources = [{{ kind = \"git-worktree\"{target}, seed = [{{ path = \"web/deps\", key = [\"web/lock\"], directory = \"web\", command = [\"sh\", \"-c\", \"mkdir deps && cp lock deps\"] }}, {{ path = \"built\", key = [\"web/lock\"], command = \"cp -r web/deps built\" }}] }}]\n"
        )
    };
    sandbox.manifest(&of(", target-path = \"app\""));
    sandbox.ok(&["apply"]);
    for directory in sandbox.directories() {
        assert_eq!(read(&directory, "web/deps/lock"), "one\n");
        assert_eq!(read(&directory, "built/lock"), "one\n");
        sandbox.assert_clean(&directory);
    }
    sandbox.ok(&["destroy"]);
    assert_eq!(stored(&sandbox).len(), 2);
    sandbox.manifest(&of(""));
    sandbox.seedbed(&["plan"]).expect(65).says(&["`HEAD` has no file `web/lock`", "is part of the key"]);
}

#[test]
fn tracked_or_other_file_at_the_path_is_a_diagnostic_there() {
    let sandbox = with_seed(1, "true");
    sandbox.write("cache/x", "");
    sandbox.write(".git/info/exclude", "/seedbed.toml\n/cache\n");
    for (options, said) in [
        (
            "seed = [{ path = \"app/lib\", key = [\"lock\"], command = \"true\" }]",
            "tracks `app/lib` as a directory",
        ),
        (
            "seed = [{ path = \"link/x\", key = [\"lock\"], command = \"true\" }]",
            "tracks `link` as a symbolic link",
        ),
        ("seed = [{ path = \"d\", key = [\"app\"], command = \"true\" }]", "has a directory `app`"),
        (
            "link = [\"cache\"], seed = [{ path = \"cache\", key = [\"lock\"], command = \"true\" }]",
            "`cache` is in the seeded directory",
        ),
        (
            "copy = [\"cac*\"], seed = [{ path = \"cache\", key = [\"lock\"], command = \"true\" }]",
            "`copy` brings `cache`",
        ),
    ] {
        sandbox.manifest(&format!("[session.a]\nresources = [{{ kind = \"git-worktree\", {options} }}]\n"));
        sandbox.unchanged(|| sandbox.seedbed(&["plan"]).expect(65).says(&[said]));
    }
    let file = "[session.a.files]\n\"deps/x\" = \"text\"\n";
    sandbox.manifest(&(manifest(1, "true") + file));
    sandbox.seedbed(&["plan"]).expect(65).says(&["`seed` populates `deps`"]);
}

#[test]
fn swarms_at_the_same_time_run_the_command_once() {
    let sandbox = with_seed(2, &format!("sleep 1 && {INSTALL}"));
    let other = fs::read_to_string(sandbox.repository.join("seedbed.toml")).unwrap();
    let other = other.replace("swarm = \"shop\"", "swarm = \"other\"");
    sandbox.write("other.toml", &other);
    let runs = [vec!["apply"], vec!["--manifest", "other.toml", "apply"]];
    thread::scope(|scope| {
        for run in &runs {
            scope.spawn(|| sandbox.ok(run));
        }
    });
    assert_eq!((installs(&sandbox), sandbox.directories().len()), (1, 2));
    sandbox.ok(&["--manifest", "other.toml", "destroy"]);
    sandbox.ok(&["destroy"]);
}

#[test]
fn interrupted_run_does_not_wait_for_the_seed_of_another() {
    let sandbox = with_seed(1, "touch ../../../../begun && sleep 600");
    let other = fs::read_to_string(sandbox.repository.join("seedbed.toml")).unwrap();
    sandbox.write("other.toml", &other.replace("swarm = \"shop\"", "swarm = \"other\""));
    let mut first = sandbox.start(&["apply"]);
    wait_until("the command runs", || sandbox.top.join("begun").exists());
    let mut second = sandbox.start(&["--manifest", "other.toml", "apply"]);
    wait_until("the other run has its worktree", || {
        fs::read_dir(sandbox.repository.join(".ai_ops/worktrees")).is_ok_and(|found| found.count() >= 2)
    });
    let begun = Instant::now();
    for run in [&mut second, &mut first] {
        crate::sandbox::send(rustix::process::Signal::INT, run);
        assert!(!run.wait().unwrap().success());
    }
    // The command of the first one would sleep for ten minutes.
    assert!(begun.elapsed() < Duration::from_mins(1));
    assert!(sandbox.directories().iter().all(|directory| !directory.exists()));
}

#[test]
fn doctor_lists_and_reaps_seeds() {
    let sandbox = with_seed(1, INSTALL);
    sandbox.ok(&["apply"]);
    let doctor = sandbox.seedbed(&["doctor"]).stdout;
    for part in
        ["notes  seed: seed deps of ", ": 3 files, ", "last used ", "unused for 14 days; sooner: rm -r "]
    {
        assert!(doctor.contains(part), "{part}: {doctor}");
    }
    let reaped = sandbox.seedbed(&["doctor", "--reap", "--json"]).json();
    assert_eq!(reaped["reaped"]["seeds"], serde_json::json!([]));
    let document = stored(&sandbox)[0].join("seed.json");
    let mut seed: Value = serde_json::from_slice(&fs::read(&document).unwrap()).unwrap();
    seed["used"] = "2020-01-01T00:00:00Z".into();
    fs::write(&document, seed.to_string()).unwrap();
    assert!(sandbox.seedbed(&["doctor", "--reap"]).stderr.contains("reaped the seed deps of "));
    assert!(fs::read_dir(sandbox.state().join("seeds")).unwrap().next().is_none());
}

#[test]
fn children_and_several_worktrees_are_seeded() {
    let sandbox = with_seed(1, "true");
    let worktree = |name: &str| {
        format!(
            "{{ kind = \"git-worktree\", name = \"{name}\", seed = [{{ path = \"deps\", key = [\"lock\"], command = {INSTALL:?} }}] }}"
        )
    };
    sandbox.manifest(&format!(
        "[session.a]\nresources = [{}]\n[session.a.child.b]\n[session.a.child.b.child.c]\n",
        worktree("main")
    ));
    sandbox.ok(&["apply"]);
    assert_eq!(sandbox.directories().len(), 3);
    for directory in sandbox.directories() {
        assert!(directory.join("deps/lock").is_file(), "{}", directory.display());
    }
    assert_eq!(installs(&sandbox), 1);
    let spawned = sandbox.ok(&["spawn", "d", "--parent", "a"]);
    assert!(sandbox.directory_of("a/d").join("deps/lock").is_file(), "{spawned:?}");
    assert_eq!(installs(&sandbox), 1);
}

/// Runs a program in a session's directory, and returns its output.
fn run(sandbox: &Sandbox, directory: &Path, words: &[&str]) -> Output {
    let mut command: Command = sandbox.program(words[0], directory);
    command.args(&words[1..]);
    for name in ["CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    command.output().unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn python_environment_runs_the_code_of_its_own_session() {
    let sandbox = Sandbox::new();
    if Command::new("python3").args(["-m", "venv", "--help"]).output().is_err() {
        return not_tested("python3");
    }
    sandbox.write("requirements.txt", "");
    sandbox.write(".gitignore", "__pycache__\n");
    sandbox.write("own.py", "import os\nprint(os.path.dirname(os.path.abspath(__file__)))\n");
    // What `pip install --editable .` writes: a path of the sources, and a script that begins with the interpreter's path.
    sandbox.write(
        "install.py",
        "import os, site, sys\nopen(site.getsitepackages()[0] + '/__editable__.own.pth', 'w').write(os.getcwd() + '\\n')\n\
         script = sys.prefix + '/bin/own'\nopen(script, 'w').write('#!' + sys.executable + '\\nimport sys, own\\nprint(sys.prefix)\\n')\nos.chmod(script, 0o755)\n",
    );
    sandbox.commit("python");
    sandbox.manifest(
        "[session.a]\ncount = 3\nresources = [{ kind = \"git-worktree\", seed = [{ path = \".venv\", key = [\"requirements.txt\"], command = \"python3 -m venv --without-pip .venv && .venv/bin/python install.py\" }] }]\n",
    );
    sandbox.ok(&["apply"]);
    for directory in sandbox.directories() {
        let printed =
            stdout(&run(&sandbox, &directory, &[directory.join(".venv/bin/own").to_str().unwrap()]));
        let own = directory.display();
        assert_eq!(printed, format!("{own}\n{own}/.venv\n"));
        let sourced = "unset VIRTUAL_ENV; . .venv/bin/activate && command -v own";
        assert_eq!(
            stdout(&run(&sandbox, &directory, &["sh", "-c", sourced])),
            format!("{own}/.venv/bin/own\n")
        );
        sandbox.assert_clean(&directory);
    }
}

#[test]
#[ignore = "`every_case` runs it"]
fn pip_of_each_session_is_its_own_in_every_case() {
    let sandbox = Sandbox::new();
    let ensurepip = Command::new("python3").args(["-c", "import ensurepip"]).output();
    if !ensurepip.is_ok_and(|done| done.status.success()) {
        return not_tested("python3-venv");
    }
    sandbox.write("requirements.txt", "");
    sandbox.commit("python");
    sandbox.manifest(
        "[session.a]\ncount = 2\nresources = [{ kind = \"git-worktree\", seed = [{ path = \".venv\", key = [\"requirements.txt\"], command = [\"python3\", \"-m\", \"venv\", \".venv\"] }] }]\n",
    );
    sandbox.ok(&["apply"]);
    for directory in sandbox.directories() {
        let pip = directory.join(".venv/bin/pip");
        let version = stdout(&run(&sandbox, &directory, &[pip.to_str().unwrap(), "--version"]));
        assert!(version.contains(&format!("from {}/.venv/", directory.display())), "{version}");
    }
}

#[test]
#[ignore = "`every_case` runs it"]
fn eight_sessions_of_an_npm_project_install_once_in_every_case() {
    let sandbox = Sandbox::new();
    if Command::new("npm").arg("--version").output().is_err() {
        return not_tested("npm");
    }
    sandbox.write(
        "vendor/left/package.json",
        r#"{ "name": "left", "version": "1.0.0", "bin": { "left": "cli.js" } }"#,
    );
    sandbox.write("vendor/left/index.js", "module.exports = 'left';\n");
    sandbox.write("vendor/left/cli.js", "#!/usr/bin/env node\nconsole.log(require('.'), __dirname);\n");
    let packed =
        run(&sandbox, &sandbox.repository.join("vendor/left"), &["npm", "pack", "--offline", "--silent"]);
    let packed = stdout(&packed).trim().to_owned();
    let package = format!(
        r#"{{ "name": "app", "version": "1.0.0", "dependencies": {{ "left": "file:vendor/left/{packed}", "linked": "file:vendor/linked" }} }}"#
    );
    sandbox.write("vendor/linked/package.json", r#"{ "name": "linked", "version": "1.0.0" }"#);
    sandbox.write("vendor/linked/index.js", "module.exports = __dirname;\n");
    sandbox.write("package.json", &package);
    sandbox.write(".gitignore", "node_modules\n");
    let locked = ["npm", "install", "--offline", "--package-lock-only", "--ignore-scripts"];
    stdout(&run(&sandbox, &sandbox.repository, &locked));
    sandbox.commit("npm");
    sandbox.manifest(
        "[session.a]\ncount = 8\nresources = [{ kind = \"git-worktree\", seed = [{ path = \"node_modules\", key = [\"package-lock.json\"], command = \"npm ci --offline && echo none >> ../../../../installs\" }] }]\n",
    );
    sandbox.ok(&["apply"]);
    assert_eq!(installs(&sandbox), 1);
    let program = "console.log(require('left'), require('linked'))";
    for directory in sandbox.directories() {
        let own = directory.display();
        let printed = stdout(&run(&sandbox, &directory, &["node", "-e", program]));
        assert_eq!(printed, format!("left {own}/vendor/linked\n"));
        let printed = stdout(&run(&sandbox, &directory, &["node_modules/.bin/left"]));
        assert_eq!(printed, format!("left {own}/node_modules/left\n"));
        sandbox.assert_clean(&directory);
    }
    sandbox.ok(&["destroy"]);
    sandbox.ok(&["apply"]);
    assert_eq!(installs(&sandbox), 1);
}

/// A build tool takes a result that is newer than a source for the result of that source. So a copy must not be newer than
/// the sources of another commit that were checked out before the seed was made.
#[test]
#[ignore = "`every_case` runs it"]
fn cargo_builds_of_several_commits_are_those_of_a_clean_target_in_every_case() {
    let sandbox = Sandbox::new();
    sandbox.write("Cargo.toml", "[package]\nname = \"app\"\nversion = \"1.0.0\"\nedition = \"2021\"\n[dependencies]\nlib = { path = \"lib\" }\n[workspace]\n");
    sandbox.write("lib/Cargo.toml", "[package]\nname = \"lib\"\nversion = \"1.0.0\"\nedition = \"2021\"\n");
    sandbox.write("lib/src/lib.rs", "pub fn text() -> &'static str { \"one\" }\n");
    sandbox.write(
        "src/main.rs",
        "fn main() { println!(\"{} {}\", lib::text(), env!(\"CARGO_MANIFEST_DIR\")) }\n",
    );
    stdout(&run(&sandbox, &sandbox.repository, &["cargo", "generate-lockfile", "--offline"]));
    let first = sandbox.commit("one");
    sandbox.write("lib/src/lib.rs", "pub fn text() -> &'static str { \"two\" }\n");
    sandbox.commit("two");
    let session = |name: &str, base: &str| {
        format!(
            "[session.{name}]\nresources = [{{ kind = \"git-worktree\", base-ref = \"{base}\", seed = [{{ path = \"target\", key = [\"Cargo.lock\"], command = \"cargo build --offline && echo none >> ../../../../installs\" }}] }}]\n"
        )
    };
    let first = first.trim();
    sandbox.manifest(
        &[session("a", first), session("b", "main"), session("c", first), session("d", "main")].concat(),
    );
    let mut apply = sandbox.command(&["apply"]);
    for name in ["CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"] {
        apply.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    let home = std::env::var_os("HOME").unwrap();
    apply.env(
        "CARGO_HOME",
        std::env::var_os("CARGO_HOME").unwrap_or_else(|| Path::new(&home).join(".cargo").into()),
    );
    apply.env(
        "RUSTUP_HOME",
        std::env::var_os("RUSTUP_HOME").unwrap_or_else(|| Path::new(&home).join(".rustup").into()),
    );
    let applied = apply.output().unwrap();
    assert!(applied.status.success(), "{applied:?}");
    assert_eq!(installs(&sandbox), 1);
    for (name, text) in [("a", "one"), ("b", "two"), ("c", "one"), ("d", "two")] {
        let directory = sandbox.directory(name);
        stdout(&run(&sandbox, &directory, &["cargo", "build", "--offline"]));
        let printed = stdout(&run(&sandbox, &directory, &["target/debug/app"]));
        assert_eq!(printed, format!("{text} {}\n", directory.display()), "{name}");
        let clean = format!("../clean-{name}");
        let clean = stdout(&run(
            &sandbox,
            &directory,
            &["cargo", "run", "--offline", "--quiet", "--target-dir", clean.as_str()],
        ));
        assert_eq!(printed, clean);
    }
}

#[test]
fn planted_link_at_the_path_is_not_followed() {
    let sandbox = with_seed(2, INSTALL);
    sandbox.ok(&["apply"]);
    sandbox.ok(&["destroy"]);
    let outside = sandbox.top.join("outside");
    fs::create_dir(&outside).unwrap();
    let hook = sandbox.repository.join(".git/hooks/post-checkout");
    fs::write(&hook, format!("#!/bin/sh\nln -s {} deps\n", outside.display())).unwrap();
    fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    sandbox.manifest(&manifest(2, INSTALL).replace("seed =", "git-hooks = true, seed ="));
    sandbox.seedbed(&["apply"]).expect(1);
    assert!(fs::read_dir(&outside).unwrap().next().is_none());
    // The same for the store.
    fs::remove_file(&hook).unwrap();
    let seed = stored(&sandbox).remove(0);
    fs::remove_dir_all(seed.join("tree")).unwrap();
    symlink(&outside, seed.join("tree")).unwrap();
    sandbox.seedbed(&["apply"]).expect(1).says(&["tree is a symbolic link, which is not followed"]);
    assert!(fs::read_dir(&outside).unwrap().next().is_none());
    assert!(sessions(&sandbox.plan()).count() == 2);
}
