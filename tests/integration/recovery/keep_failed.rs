//! Tests of `apply --keep-failed`: new sessions remain after a failed `setup`, and the next apply continues from there.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::sandbox::Sandbox;

/// Swarm of which `a` is set up before its child `a/b`, whose setup fails, and `a/b/c` is not reached.
struct Kept {
    sandbox: Sandbox,
    log: PathBuf,
}

impl Kept {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let log = sandbox.top.join("log");
        let kept = Self { sandbox, log };
        kept.manifest("echo broken; exit 3", "");
        kept
    }

    fn manifest(&self, setup_of_b: &str, more: &str) {
        let log = self.log.display();
        let session = |name: &str, setup: &str| {
            format!(
                "{name}\nsetup = ['echo \"up $AGENT_SESSION_ID\" >> {log}; {setup}']\n\
                 teardown = ['echo \"down $AGENT_SESSION_ID\" >> {log}']\n"
            )
        };
        self.sandbox.manifest(&format!(
            "{}{}{}{more}",
            session("[session.a]\nresources = [\"git-worktree\", \"port-range\"]", "true"),
            session("[session.a.child.b]", setup_of_b),
            session("[session.a.child.b.child.c]", "true"),
        ));
    }

    fn apply(&self) {
        self.sandbox.seedbed(&["apply", "--keep-failed"]).expect(1).says(&[
            "a/b: setup: ",
            "broken",
            "complete log: ",
            "the sessions were kept, marked as broken",
        ]);
    }

    fn log(&self) -> Vec<String> {
        fs::read_to_string(&self.log).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn discovery(&self, session: &str) -> Value {
        let file = self.sandbox.directory_of(session).join(".agent-context/resources.json");
        serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
    }
}

#[test]
fn failed_setup_is_kept_and_the_next_apply_continues() {
    let kept = Kept::new();
    let sandbox = &kept.sandbox;
    kept.apply();
    assert_eq!(kept.log(), ["up shop/a", "up shop/a/b"]);
    let status = sandbox.seedbed(&["status", "--detailed-exitcode"]).expect(2).stdout;
    for line in ["setup: failed: ", "setup: was not run: another one failed before"] {
        assert!(status.contains(line), "{status}");
    }
    assert!(sandbox.ok(&["list"]).stdout.contains("broken: the setup of 2 sessions failed or was not run"));
    assert_eq!(sandbox.ok(&["list", "--json"]).json()["swarms"][0]["notSetUp"], json!(["a/b", "a/b/c"]));
    assert_eq!(kept.discovery("a")["swarm"].get("setup"), None);
    assert!(kept.discovery("a/b")["swarm"]["setup"].as_str().unwrap().starts_with("failed: "));
    let repair = sandbox.seedbed(&["status", "--repair"]).expect(1);
    repair.says(&["only `seedbed apply` repairs: setup: failed"]);
    sandbox.ok(&["exec", "a/b", "--", "touch", "installed"]);
    // A setup that fails again without the option leaves the swarm unchanged.
    sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(1).says(&["a/b: setup: "]));
    kept.manifest("true", "");
    let plan = sandbox.ok(&["plan"]).stdout;
    assert!(plan.contains("because its setup failed: "), "{plan}");
    fs::remove_file(&kept.log).unwrap();
    sandbox.ok(&["apply"]).says(&["2 repaired, 1 kept"]);
    assert_eq!(kept.log(), ["up shop/a/b", "up shop/a/b/c"]);
    assert!(sandbox.directory("a/b").join("installed").is_file());
    assert_eq!(kept.discovery("a/b")["swarm"].get("setup"), None);
    sandbox.ok(&["apply"]).says(&["nothing to do"]);
    assert!(!sandbox.ok(&["list"]).stdout.contains("broken"));
}

#[test]
fn kept_session_is_destroyed_without_a_teardown_if_its_setup_never_began() {
    let kept = Kept::new();
    let sandbox = &kept.sandbox;
    sandbox.unchanged(|| {
        kept.apply();
        fs::write(sandbox.directory_of("a/b").join("work"), "").unwrap();
        sandbox.seedbed(&["destroy"]).expect(69).says(&["a/b: ", "1 untracked"]);
        fs::remove_file(sandbox.directory_of("a/b").join("work")).unwrap();
        sandbox.ok(&["destroy", "a/b/c"]);
        assert_eq!(sandbox.ok(&["list", "--json"]).json()["swarms"][0]["notSetUp"], json!(["a/b"]));
        sandbox.ok(&["destroy"]);
    });
    assert_eq!(kept.log(), ["up shop/a", "up shop/a/b", "down shop/a/b", "down shop/a"]);
}

#[test]
fn a_run_that_replaces_releases_what_it_replaced_and_keeps_what_failed() {
    let kept = Kept::new();
    let sandbox = &kept.sandbox;
    let more = |branch: &str, setup: &str| {
        format!(
            "[session.d]\nresources = [{{ kind = \"git-worktree\", branch = \"{branch}\" }}]\nsetup = [\"{setup}\"]\n"
        )
    };
    kept.manifest("true", &more("one", "true"));
    sandbox.ok(&["apply"]);
    kept.manifest("true", &more("two", "false"));
    sandbox.seedbed(&["apply", "--keep-failed", "--yes"]).expect(1).says(&["d: setup: "]);
    assert_eq!(sandbox.git(&["branch", "--list", "--format=%(refname:short)", "one", "two"]), "two");
    kept.manifest("true", &more("two", "true"));
    sandbox.ok(&["apply"]).says(&["1 repaired, 3 kept"]);
    sandbox.ok(&["destroy"]);
}

/// Only sessions with a failed `setup` are kept: half a lease is of no use.
#[test]
fn failure_before_setup_is_rolled_back() {
    let sandbox = Sandbox::new();
    sandbox.manifest(
        "[session.a]\nresources = [{ kind = \"git-worktree\", git-hooks = true }]\nsetup = [\"true\"]\n",
    );
    let hook = sandbox.repository.join(".git/hooks/post-checkout");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(&hook, "#!/bin/sh\nexit 7\n").unwrap();
    fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    sandbox.unchanged(|| {
        sandbox.seedbed(&["apply", "--keep-failed"]).expect(1).says(&["was rolled back"]);
    });
}
