//! Tests of another repository at the path of one that a swarm has worktrees of: no command takes it for the first, and
//! every command takes the first one again once it is back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::sandbox::{Sandbox, assert_same};

const SESSIONS: &str = r#"
[repository.web]
root = "../web"
[session.both]
resources = [{ kind = "git-worktree", name = "api", branch = "agents/both" }, { kind = "git-worktree", name = "web", repository = "web", branch = "agents/both" }, "port-range"]
"#;

/// Repository that is put in place of the first one.
#[derive(Clone, Copy, Debug)]
enum Other {
    /// Clone that is older than the swarm.
    OlderClone,
    /// Empty repository, created after the first one was moved away.
    Initialised,
}

struct Lab {
    sandbox: Sandbox,
    /// Path of the repository that is replaced.
    path: PathBuf,
    /// Path to which the repository is moved.
    moved: PathBuf,
    /// Clone that is older than the swarm.
    clone: PathBuf,
}

impl Lab {
    /// Applies the swarm. The workspace's own repository is replaced, or the other one.
    fn new(is_own: bool) -> Self {
        let sandbox = Sandbox::in_memory();
        let web = sandbox.other_repository("web");
        sandbox.manifest(SESSIONS);
        let path = if is_own { sandbox.repository.clone() } else { web };
        let (moved, clone) = (sandbox.top.join("moved"), sandbox.top.join("clone"));
        sandbox.git_in(&path, &["clone", "--quiet", ".", clone.to_str().unwrap()]);
        sandbox.ok(&["apply"]);
        Self { sandbox, path, moved, clone }
    }

    fn replace(&self, other: Other) {
        fs::rename(&self.path, &self.moved).unwrap();
        match other {
            Other::OlderClone => fs::rename(&self.clone, &self.path).unwrap(),
            Other::Initialised => {
                fs::create_dir(&self.path).unwrap();
                self.sandbox.git_in(&self.path, &["init", "--quiet"]);
            }
        }
        if let Ok(manifest) = fs::read(self.moved.join("seedbed.toml")) {
            fs::write(self.path.join("seedbed.toml"), manifest).unwrap();
        }
    }

    /// Moves the first repository back.
    fn bring_back(&self) {
        fs::remove_dir_all(&self.path).unwrap();
        fs::rename(&self.moved, &self.path).unwrap();
    }

    /// Expects that every command that would change something refuses, and names the remedies.
    fn check(&self, what: &str, remedies: &[&str], id: &str) {
        let sandbox = &self.sandbox;
        for args in [
            &["plan"][..],
            &["apply", "--rescue"],
            &["apply", "--discard"],
            &["destroy", "--discard", "both"],
        ] {
            let refused = sandbox.unchanged(|| sandbox.seedbed(args).expect(69));
            refused.says(&[what, id]).says(remedies);
        }
        sandbox.unchanged(|| sandbox.ok(&["status"]).says(&["is another repository than that of the swarm"]));
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

#[test]
#[ignore = "`every_case` runs it"]
fn repository_at_the_path_of_the_workspaces_own_is_not_taken_for_it_in_every_case() {
    let lab = Lab::new(true);
    let sandbox = &lab.sandbox;
    let applied = sandbox.inventory();
    for other in [Other::OlderClone, Other::Initialised] {
        lab.replace(other);
        let remedies = ["`seedbed recover --moved` there", "--gone`"];
        lab.check("is another repository than that in which shop is applied", &remedies, "[workspace-moved]");
        for args in [&["recover"][..], &["spawn", "more"]] {
            sandbox.unchanged(|| sandbox.seedbed(args).expect(69).says(&["[workspace-moved]"]));
        }
        sandbox
            .seedbed(&["exec", "both", "--", "true"])
            .expect(125)
            .says(&["[repository-unusable]", "--gone`"]);
        let found = sandbox.seedbed(&["doctor"]).stdout;
        assert!(found.contains("unusable-repository") && found.contains("--gone"), "{found}");
        lab.bring_back();
        assert_same(&applied, &sandbox.inventory());
    }
    let plan = sandbox.ok(&["plan"]).stdout;
    assert!(plan.contains("is kept"), "{plan}");
}

#[test]
#[ignore = "`every_case` runs it"]
fn repository_at_the_path_of_another_one_is_not_taken_for_it_in_every_case() {
    let lab = Lab::new(false);
    let sandbox = &lab.sandbox;
    for other in [Other::OlderClone, Other::Initialised] {
        lab.replace(other);
        lab.check("is another repository than that of the swarm", &["--forget web"], "[repository-unusable]");
        // A session in the workspace's own repository does not make the other one that of the swarm.
        sandbox.ok(&["spawn", "more"]);
        lab.check("is another repository than that of the swarm", &["--forget web"], "[repository-unusable]");
        sandbox.ok(&["release", "more"]);
        lab.bring_back();
    }
    // A copy of the repository as it is, like a restored backup, is the first one.
    fs::rename(&lab.path, &lab.moved).unwrap();
    copy(&lab.moved, &lab.path);
    let plan = sandbox.ok(&["plan"]).stdout;
    assert!(plan.contains("is kept"), "{plan}");
    lab.bring_back();
    // So is the first one without its worktrees.
    sandbox.git_in(
        &lab.path,
        &["worktree", "remove", "-f", "-f", sandbox.directory_of("both").join("web").to_str().unwrap()],
    );
    sandbox.ok(&["apply"]).says(&["1 repaired"]);
    sandbox.ok(&["destroy"]);
}

#[test]
fn recovery_does_not_take_another_repository_for_that_of_the_interrupted_run() {
    for is_own in [true, false] {
        let lab = Lab::new(is_own);
        let sandbox = &lab.sandbox;
        let mut killed = sandbox.command(&["destroy"]);
        assert!(!killed.env("SEEDBED_FAILPOINT", "run.given-way=crash").output().unwrap().status.success());
        lab.replace(Other::OlderClone);
        for args in [&["recover"][..], &["destroy", "--discard"]] {
            sandbox.seedbed(args).expect(69).says(&["another repository than that"]);
        }
        lab.bring_back();
        sandbox.ok(&["recover"]).says(&["finished"]);
    }
}
