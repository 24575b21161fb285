//! Tests of exported mounts: sessions work in sandboxes of bubblewrap, and change nothing that the host runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::manifest::editors;
use crate::sandbox::{Outcome, Sandbox, assert_same, wait_until};

const TWO: &str = r#"
[session.s]
count = 2
env = { GREETING = "it's $HOME \"x\"" }
resources = [{ kind = "git-worktree", branch = "agents/{{ session.name }}" }, { kind = "port-range", names = ["http"] }]
"#;

/// Creates a sandbox with an applied manifest, in a workspace with a hostile name; `None` without bubblewrap.
fn applied(manifest: &str) -> Option<Sandbox> {
    let mut sandbox = Sandbox::in_memory();
    if !has_bubblewrap(&sandbox) {
        return None;
    }
    let repository = sandbox.top.join("it's, a \"work\" space");
    fs::rename(&sandbox.repository, &repository).unwrap();
    sandbox.repository = repository;
    sandbox.manifest(manifest);
    sandbox.ok(&["apply"]);
    Some(sandbox)
}

/// Returns whether bubblewrap can make a sandbox; prints a notice if it cannot.
fn has_bubblewrap(sandbox: &Sandbox) -> bool {
    let mut probe = sandbox.program("bwrap", &sandbox.top);
    let probed = probe.args(["--ro-bind", "/", "/", "--dev", "/dev", "true"]).output();
    let can = probed.as_ref().is_ok_and(|probed| probed.status.success());
    if !can {
        eprintln!("NOT TESTED, bubblewrap cannot make a sandbox here; .ci/setup installs it: {probed:?}");
    }
    can
}

/// Sandbox of bubblewrap with the mounts of an exported dev container.
struct Inside {
    mounts: Vec<String>,
    environment: BTreeMap<String, String>,
    directory: PathBuf,
}

impl Inside {
    /// Reads the exported `devcontainer.json` of a session as its readers do.
    #[track_caller]
    fn exported(sandbox: &Sandbox, session: &str) -> Self {
        let exported = sandbox.ok(&["export", session, "--format", "devcontainer", "--image", "debian"]);
        assert_eq!(
            exported.stdout,
            sandbox.ok(&["export", session, "--format", "devcontainer", "--image", "debian"]).stdout
        );
        let container = exported.json();
        check_schema(&container);
        let mut mounts: Vec<_> = container["mounts"].as_array().unwrap().iter().map(mount).collect();
        mounts.push(mount(&container["workspaceMount"]));
        // Docker orders mounts by their depth.
        mounts.sort_by_key(|(path, _)| Path::new(path).components().count());
        let options = mounts.into_iter().flat_map(|(path, is_read_only)| {
            [if is_read_only { "--ro-bind" } else { "--bind" }.to_owned(), path.clone(), path]
        });
        Self {
            mounts: options.collect(),
            environment: serde_json::from_value(container["containerEnv"].clone()).unwrap(),
            directory: container["workspaceFolder"].as_str().unwrap().into(),
        }
    }

    /// Returns a command that runs a script of the shell inside.
    fn command(&self, sandbox: &Sandbox, script: &str) -> Command {
        let mut command = sandbox.program("bwrap", &sandbox.top);
        command.args(["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]);
        command.args(&self.mounts).arg("--chdir").arg(&self.directory);
        command.args(["--", "bash", "-c", script]).envs(&self.environment);
        command
    }

    #[track_caller]
    fn run(&self, sandbox: &Sandbox, script: &str) -> Outcome {
        Outcome::of(self.command(sandbox, script).output().unwrap())
    }
}

/// Reads the value of an option `--mount` of docker: fields of CSV. Returns the path, and whether the mount is read-only.
#[track_caller]
fn mount(value: &Value) -> (String, bool) {
    let mut fields = vec![String::new()];
    let mut is_quoted = false;
    let mut characters = value.as_str().unwrap().chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' if is_quoted && characters.peek() == Some(&'"') => {
                fields.last_mut().unwrap().extend(characters.next());
            }
            '"' => {
                assert!(is_quoted || fields.last().unwrap().is_empty(), "a bare quote: {value}");
                is_quoted = !is_quoted;
            }
            ',' if !is_quoted => fields.push(String::new()),
            c => fields.last_mut().unwrap().push(c),
        }
    }
    let pairs: BTreeMap<_, _> =
        fields.iter().map(|field| field.split_once('=').unwrap_or((field, ""))).collect();
    assert_eq!((pairs["type"], pairs["source"]), ("bind", pairs["target"]));
    (pairs["source"].to_owned(), pairs.contains_key("readonly"))
}

#[track_caller]
fn check_schema(container: &Value) {
    let schema = include_str!("../../devcontainer-essentials.schema.json");
    let schema = serde_json::from_str(schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<_> = validator.iter_errors(container).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}\n{container:#}");
}

/// Everyday work in Git, each line of which has to succeed.
const WORK: &str = r#"
set -ex
test "$PWD" = "$(git rev-parse --show-toplevel)"
test "$GREETING" = "it's \$HOME \"x\""
test "$(git rev-parse --path-format=absolute --git-common-dir)" = "$AGENT_GIT_COMMON_DIR"
name=$AGENT_SESSION_SLUG
for at in 1 2 3 4 5; do echo $at > "$name-$at"; git add .; git commit -qm "$name $at"; done
echo changed >> README.md; git stash -q; git stash pop -q; git commit -qam "$name stashed"
git checkout -qb "$name-topic" HEAD~2; echo topic > topic; git add .; git commit -qm topic
git tag "$name-tag"; git tag -d "$name-tag"
git checkout -q "agents/$name"; git merge -q --no-edit "$name-topic"
git branch -d "$name-topic"
git checkout -qb "$name-rebased" HEAD~1; echo rebased > rebased; git add .; git commit -qm rebased; git rebase -q "agents/$name"
git checkout -q "agents/$name"; git cherry-pick "$name-rebased" ; git commit -q --amend -m "$name done"
git branch -D "$name-rebased"; git pack-refs --all; git reset -q --soft HEAD~1; git commit -qm "$name done"
test -z "$(git status --porcelain)"
"#;

#[test]
fn two_sessions_work_in_containers_at_once_and_the_host_sees_their_commits() {
    let Some(sandbox) = applied(TWO) else { return };
    let sessions = ["s-0", "s-1"].map(|session| Inside::exported(&sandbox, session));
    let running = sessions.each_ref().map(|inside| {
        inside.command(&sandbox, WORK).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    });
    for running in running {
        Outcome::of(running.wait_with_output().unwrap()).expect(0);
    }
    let collected = sandbox.ok(&["collect", "--json"]).json();
    for session in ["s-0", "s-1"] {
        let subject = sandbox.git(&["log", "-1", "--format=%s", &format!("agents/{session}")]);
        assert_eq!(subject, format!("{session} done"));
        let head = sandbox.git(&["rev-parse", &format!("agents/{session}")]);
        assert!(collected.to_string().contains(&format!("\"head\":\"{head}\"")), "{collected:#}");
    }
    sandbox.git(&["fsck", "--strict"]);
    let status = sandbox.ok(&["status"]).stdout;
    assert_eq!(status.matches(" healthy ").count(), 2, "{status}");
    sandbox.ok(&["apply"]).says(&["nothing to do"]);
    sandbox.ok(&["destroy", "--discard"]);
}

/// Attempts of a session to change what the host runs, or another session, each of which has to fail. `$git` is the
/// common Git directory, `$own` the admin directory of the session's worktree, `$other` that of the other session.
const ATTEMPTS: [&str; 34] = [
    "mkdir -p \"$git/hooks\" && cp \"$trap\" \"$git/hooks/post-commit\"",
    "mv \"$git/hooks\" \"$git/away\"",
    "rm -rf \"$git/hooks\"",
    "git config core.hooksPath \"$PWD/evil\"",
    "echo '[core] hooksPath = /evil' >> \"$git/config\"",
    "mv \"$git/config\" \"$git/away\"",
    "cp evil/config \"$git/away\" && mv \"$git/away\" \"$git/config\"",
    "rm \"$git/config\"",
    "echo '[core] hooksPath = /evil' >> \"$git/config.worktree\"",
    "mv evil/config \"$git/config.worktree\"",
    "echo '* filter=evil' >> \"$git/info/attributes\"",
    "mv \"$git/info\" \"$git/away\"",
    "echo /evil > \"$git/objects/info/alternates\"",
    "mv \"$git/objects/info\" \"$git/away\"",
    "mkdir -p \"$git/modules/sub\"",
    "mv \"$git/modules\" \"$git/away\"",
    "echo > \"$other/HEAD\"",
    "rm \"$other/index\"",
    "mkdir \"$git/worktrees/new\"",
    "rm -rf \"$other\"",
    "mv \"$git/worktrees\" \"$git/away\"",
    "mv \"$own\" \"$git/away\"",
    "git worktree add -q --detach evil/new",
    "git config --worktree core.hooksPath \"$PWD/evil\"",
    "echo '[core] hooksPath = /evil' > \"$own/config.worktree\"",
    "mv evil/config \"$own/config.worktree\"",
    "echo \"$PWD/evil\" > \"$own/commondir\"",
    "rm \"$own/commondir\"",
    "git worktree unlock \"$PWD\"",
    "rm \"$own/locked\"",
    "echo > \"$own/seedbed\"",
    "rm .git",
    "echo \"gitdir: $PWD/evil\" > .git",
    "mv .git evil/away",
];

#[test]
fn nothing_that_a_container_writes_runs_on_the_host_or_changes_another_session() {
    let Some(sandbox) = applied(TWO) else { return };
    // Without the directory, a container could create it.
    fs::remove_dir_all(sandbox.repository.join(".git/hooks")).unwrap();
    sandbox.git(&["config", "extensions.worktreeConfig", "true"]);
    sandbox.git(&["config", "--worktree", "a.b", "c"]);
    let trapped = sandbox.top.join("trapped");
    let inside = Inside::exported(&sandbox, "s-0");
    inside
        .run(
            &sandbox,
            &format!(
                "mkdir evil && printf '#!/bin/sh\\ntouch {0:?}\\n' > evil/trap && chmod +x evil/trap && \
                 cp evil/trap evil/post-commit && printf '[core]\\n\\thooksPath = %s\\n' \"$PWD/evil\" > evil/config",
                trapped.display().to_string()
            ),
        )
        .expect(0);
    // The real `mv` copies what it cannot rename.
    let head = "git=$AGENT_GIT_COMMON_DIR own=$(git rev-parse --absolute-git-dir) trap=$PWD/evil/trap \
                other=$(ls -d \"$git\"/worktrees/*s-1*)\n\
                mv() { perl -e 'rename $ARGV[0], $ARGV[1] or exit 1' \"$@\"; }\n";
    // A rename that nothing protects succeeds.
    inside.run(&sandbox, &format!("{head}touch evil/a; mv evil/a evil/b && rm evil/b")).expect(0);
    let before = sandbox.inventory();
    for attempt in ATTEMPTS {
        let outcome = inside.run(&sandbox, &format!("{head}{attempt}"));
        assert_ne!(outcome.code, 0, "succeeded: {attempt}\n{outcome:?}");
        let _ = fs::remove_file(sandbox.repository.join(".git/away"));
    }
    assert_same(&before, &sandbox.inventory());
    let worktrees = [sandbox.repository.clone(), sandbox.directory("s-0"), sandbox.directory("s-1")];
    for directory in worktrees {
        fs::write(directory.join("README.md"), "host\n").unwrap();
        sandbox.git_in(&directory, &["status"]);
        sandbox.git_in(&directory, &["commit", "--quiet", "-am", "host"]);
    }
    assert!(!trapped.exists());
    sandbox.ok(&["destroy", "--discard"]);
}

#[test]
fn setting_that_the_host_changes_is_writable_inside_until_the_container_starts_again() {
    let Some(sandbox) = applied(TWO) else { return };
    let inside = Inside::exported(&sandbox, "s-0");
    let attempt = "git config --file \"$AGENT_GIT_COMMON_DIR/config\" a.b inside";
    let waiting =
        format!("! {attempt} || exit 9; touch ready; until [ -e go ]; do sleep 0.01; done; {attempt}");
    let running =
        inside.command(&sandbox, &waiting).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let directory = sandbox.directory("s-0");
    wait_until("the container runs", || directory.join("ready").exists());
    sandbox.seedbed(&["destroy", "--discard"]).expect(69).says(&["s-0", "bash"]);
    // Git replaces the file by a rename, which ends the mount over it.
    sandbox.git(&["config", "c.d", "host"]);
    fs::write(directory.join("go"), "").unwrap();
    Outcome::of(running.wait_with_output().unwrap()).expect(0);
    assert_eq!(sandbox.git(&["config", "a.b"]), "inside");
    sandbox.git(&["config", "--unset", "a.b"]);
    assert_ne!(inside.run(&sandbox, attempt).code, 0);
    assert_ne!(Inside::exported(&sandbox, "s-0").run(&sandbox, attempt).code, 0);
}

#[test]
fn session_with_worktrees_of_two_repositories_commits_to_both_in_one_container() {
    let manifest = "[repository.web]\nroot = \"../web\"\n[session.a]\nresources = [\
                    { kind = \"git-worktree\", branch = \"agents/a\" }, \
                    { kind = \"git-worktree\", name = \"site\", repository = \"web\", branch = \"agents/a\", target-path = \"app\" }, \
                    { kind = \"directory\", name = \"scratch\" }]\n";
    let sandbox = Sandbox::in_memory();
    let web = sandbox.other_repository("web");
    sandbox.manifest(manifest);
    sandbox.ok(&["apply"]);
    if !has_bubblewrap(&sandbox) {
        return;
    }
    let inside = Inside::exported(&sandbox, "a");
    let script = "set -e; for tree in $(ls -d */.git); do cd \"$(dirname \"$tree\")\"; git commit -q --allow-empty -m inside; cd ..; done\n\
                  test -r \"$AGENT_DISCOVERY_FILE\"; touch \"$AGENT_DIRECTORY_PATH/file\"";
    inside.run(&sandbox, script).expect(0);
    for repository in [&sandbox.repository, &web] {
        assert_eq!(sandbox.git_in(repository, &["log", "-1", "--format=%s", "agents/a"]), "inside");
    }
    sandbox.ok(&["destroy", "--discard"]);
}

#[test]
fn services_of_compose_have_the_mounts_variables_and_ports_of_their_sessions() {
    let Some(sandbox) = applied(TWO) else { return };
    let text = sandbox.ok(&["export", "--format", "compose-mounts", "--image", "debian:13"]).stdout;
    if let Some(mut python) = editors::client("check-jsonschema") {
        let file = sandbox.top.join("services.yaml");
        fs::write(&file, &text).unwrap();
        let checked = python.args(["--builtin-schema", "vendor.compose-spec"]).arg(&file).output().unwrap();
        Outcome::of(checked).expect(0);
    }
    let scalar = |text: &str| serde_json::from_str::<String>(text).unwrap().replace("$$", "$");
    let services: Vec<&str> = text.split("\n  # session ").skip(1).collect();
    assert_eq!(services.len(), 2);
    for service in services {
        let session = service.lines().next().unwrap();
        let inside = Inside::exported(&sandbox, session);
        let after = |start: &str| {
            service
                .lines()
                .filter_map(|line| line.trim_start().strip_prefix(start).map(str::to_owned))
                .collect::<Vec<_>>()
        };
        let mounts = after("- { type: bind, source: ").into_iter().flat_map(|line| {
            let (path, rest) = line.split_once(", target: ").unwrap();
            let (target, rest) = rest.split_once(", read_only: ").unwrap();
            assert_eq!((path, rest.ends_with(", bind: { create_host_path: false } }")), (target, true));
            let option = if rest.starts_with("true,") { "--ro-bind" } else { "--bind" };
            [option.to_owned(), scalar(path), scalar(path)]
        });
        let mut mounts: Vec<_> = mounts.collect();
        let mut expected = inside.mounts.clone();
        let sort = |mounts: &mut Vec<String>| {
            let mut chunks: Vec<_> = mounts.chunks(3).map(<[String]>::to_vec).collect();
            chunks.sort();
            *mounts = chunks.concat();
        };
        sort(&mut mounts);
        sort(&mut expected);
        assert_eq!(mounts, expected);
        for (name, value) in &inside.environment {
            let found = after(&format!("{name:?}: "));
            assert_eq!(found.first().map(|text| scalar(text)).as_ref(), Some(value), "{name}");
        }
        assert_eq!(
            after("working_dir: ").iter().map(|text| scalar(text).into()).collect::<Vec<PathBuf>>(),
            [inside.directory]
        );
        let port = &inside.environment["AGENT_PORT_HTTP"];
        assert!(service.contains(&format!("    ports:\n      - \"127.0.0.1:{port}:{port}\"\n")), "{service}");
    }
}

#[test]
fn exported_script_of_bubblewrap_runs_a_program_in_its_session() {
    let Some(sandbox) = applied(TWO) else { return };
    let file = sandbox.top.join("it's a script");
    let file = file.to_str().unwrap();
    sandbox.ok(&["export", "s-0", "--format", "bubblewrap", "-o", file]).says(&["start a program"]);
    let mut command = sandbox.program("sh", &sandbox.top);
    Outcome::of(command.args([file, "bash", "-c", WORK]).output().unwrap()).expect(0);
    let mut command = sandbox.program("sh", &sandbox.top);
    command.args([file, "touch"]).arg(sandbox.repository.join("new"));
    command.output().unwrap();
    assert!(!sandbox.repository.join("new").exists());
    sandbox
        .seedbed(&["export", "--format", "bubblewrap"])
        .expect(64)
        .says(&["has one session", "export s-0"]);
}

#[test]
fn session_that_cannot_be_protected_or_written_is_refused() {
    let sandbox = Sandbox::in_memory();
    let table = "resources = [{ kind = \"git-worktree\", branch = \"agents/{{ session.name }}\" }]\n";
    sandbox.manifest(&format!("[session.a]\n{table}[session.b]\n{table}env = {{ X = \"${{localEnv:HOME}}\" }}\n[session.c]\nresources = []\n"));
    sandbox.ok(&["apply"]);
    let export = |session: &str, format: &str| {
        sandbox.seedbed(&["export", session, "--format", format, "--image", "debian"])
    };
    export("b", "devcontainer").expect(64).says(&["session b: X has `${`"]);
    let services = export("b", "compose-mounts").expect(0).stdout;
    assert!(services.contains(r#""X": "\u0024\u0024{localEnv:HOME}""#), "{services}");
    sandbox
        .seedbed(&["export", "--format", "devcontainer", "--image", "x"])
        .expect(64)
        .says(&["has one session"]);
    sandbox.seedbed(&["export", "a", "--format", "devcontainer"]).expect(64).says(&["--image"]);
    export("a", "bubblewrap").expect(64).says(&["other formats have no image"]);
    export("c", "compose-mounts")
        .expect(1)
        .says(&["session c cannot work in a container: it has no directory"]);
    let git = sandbox.repository.join(".git");
    for (name, why) in [("hooks", "hooks"), ("info", "info"), ("config", "config is not a file")] {
        let (path, away) = (git.join(name), git.join("away"));
        fs::rename(&path, &away).unwrap();
        std::os::unix::fs::symlink("away", &path).unwrap();
        export("a", "devcontainer").expect(1).says(&["session a cannot work in a container", why]);
        fs::remove_file(&path).unwrap();
        fs::rename(&away, &path).unwrap();
    }
    export("a", "devcontainer").expect(0);
    sandbox.ok(&["apply"]).says(&["nothing to do"]);
    // The files that the export has created are no work.
    sandbox.ok(&["destroy"]);
}
