//! Tests of swarms with a repository that was moved or deleted, or that this user may not write to.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use crate::sandbox::{Sandbox, assert_same};

/// Sessions in the workspace's repository, in another one, and in both.
const SESSIONS: &str = r#"
[repository.web]
root = "../web"
[session.api]
resources = [{ kind = "git-worktree", branch = "agents/api" }]
[session.both]
resources = [{ kind = "git-worktree", name = "api" }, { kind = "git-worktree", name = "web", repository = "web", branch = "agents/both" }, "port-range"]
setup = ["true"]
teardown = ["true"]
[session.web]
resources = [{ kind = "git-worktree", repository = "web", branch = "agents/web" }]
"#;

/// Applied swarm with the other repository.
struct Lab {
    sandbox: Sandbox,
    web: PathBuf,
    moved: PathBuf,
}

impl Lab {
    fn new() -> Self {
        let sandbox = Sandbox::in_memory().without_root();
        let web = sandbox.other_repository("web");
        sandbox.manifest(SESSIONS);
        let moved = sandbox.top.join("moved");
        Self { sandbox, web, moved }
    }

    fn take_away(&self) {
        fs::rename(&self.web, &self.moved).unwrap();
    }

    fn bring_back(&self) {
        fs::rename(&self.moved, &self.web).unwrap();
    }

    /// Returns the directories of the worktrees of the other repository.
    fn worktrees(&self) -> [PathBuf; 2] {
        [self.sandbox.directory_of("both").join("web"), self.sandbox.directory_of("web")]
    }
}

#[test]
#[ignore = "`every_case` runs it"]
fn repository_that_is_gone_is_named_before_any_effect_in_every_case() {
    let lab = Lab::new();
    let sandbox = &lab.sandbox;
    let before = sandbox.inventory();
    sandbox.ok(&["apply"]);
    let check = |what: &str| {
        let remedy = "seedbed destroy --forget web";
        let cases: [(&[&str], i32); 8] = [
            (&["plan"], 65),
            (&["apply"], 65),
            (&["destroy", "web"], 69),
            (&["destroy", "both", "web", "--discard"], 69),
            (&["destroy", "--dry-run"], 69),
            (&["env", "web"], 69),
            (&["spawn", "below", "--parent", "web"], 69),
            (&["exec", "web", "--", "true"], 125),
        ];
        for (args, code) in cases {
            let refuse = || {
                let refused = sandbox.seedbed(args).expect(code);
                let text = format!("{}{}", refused.stdout, refused.stderr).replace("\n  │ ", " ");
                assert!(text.contains(what) && text.contains("--forget web"), "{args:?}: {refused:?}");
            };
            // An inventory is one of repositories.
            if lab.web.exists() { refuse() } else { sandbox.unchanged(refuse) }
        }
        sandbox.ok(&["status"]).says(&[what, remedy, "both, web have worktrees of it"]);
        sandbox.ok(&["recover"]);
        let collected = sandbox.ok(&["collect", "--json"]).json();
        let mut worktrees = collected["worktrees"].as_array().unwrap().iter();
        let worktree = worktrees.find(|worktree| worktree["id"] == "shop/web").unwrap();
        let of_unsaved =
            ["unsaved", "unsavedUnknown"].map(|name| worktree[name].as_array().unwrap().is_empty());
        assert_eq!(of_unsaved, [true, false], "{collected:#}");
        let found = sandbox.seedbed(&["doctor"]).stdout;
        assert!(found.contains("unusable-repository") && found.contains("destroy --forget web"), "{found}");
    };
    lab.take_away();
    check("does not exist");
    // The mount point of a file system that is not mounted.
    fs::create_dir(&lab.web).unwrap();
    check("a git repository");
    fs::remove_dir(&lab.web).unwrap();
    sandbox.git(&["clone", "--quiet", ".", lab.web.to_str().unwrap()]);
    let what = "is another repository than that of the swarm";
    sandbox.unchanged(|| sandbox.seedbed(&["destroy", "web"]).expect(69).says(&[what]));
    fs::remove_dir_all(&lab.web).unwrap();
    lab.bring_back();
    let of_git = lab.web.join(".git");
    let mode = |mode| fs::set_permissions(&of_git, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o555);
    sandbox.unchanged(|| sandbox.seedbed(&["destroy", "web"]).expect(69).says(&["Permission denied"]));
    mode(0o755);
    lab.take_away();
    // The rest is released, in one run.
    sandbox.seedbed(&["destroy"]).expect(69).says(&[
        "both, web have worktrees of it",
        "web: not released",
        "1 session released, 2 still active",
    ]);
    lab.bring_back();
    sandbox.ok(&["destroy"]).says(&["2 sessions released; nothing is left"]);
    assert_same(&before, &sandbox.inventory());
}

#[test]
fn worktrees_of_a_repository_that_is_gone_are_given_up_only_if_requested() {
    let lab = Lab::new();
    let sandbox = &lab.sandbox;
    let refs = sandbox.git_in(&lab.web, &["for-each-ref", "--format=%(refname)"]);
    sandbox.ok(&["apply"]);
    let usable = ["the repository `web` (../web) can be used", "without `--forget`"];
    sandbox.unchanged(|| sandbox.seedbed(&["destroy", "--forget", "web"]).expect(69).says(&usable));
    let names = ["of a repository `docs`", "name one of these: web"];
    sandbox.unchanged(|| sandbox.seedbed(&["destroy", "--forget", "docs"]).expect(64).says(&names));
    let worktrees = lab.worktrees();
    let work = sandbox.directory_of("both").join("api/new.txt");
    fs::write(&work, "work\n").unwrap();
    lab.take_away();
    let kept: Vec<_> = worktrees.iter().map(|path| format!("{} has files", path.display())).collect();
    for rescue in [&["destroy", "--forget", "web"][..], &["destroy", "--forget", "web", "--rescue"]] {
        sandbox.unchanged(|| {
            let refused = sandbox.seedbed(rescue).expect(69).says(&["without its repository", "--discard"]);
            assert!(kept.iter().all(|kept| refused.stderr.contains(kept)), "{refused:?}");
        });
    }
    let (pointer, elsewhere) = (worktrees[1].join(".git"), worktrees[1].join("elsewhere"));
    fs::rename(&pointer, &elsewhere).unwrap();
    fs::write(&pointer, "gitdir: /elsewhere\n").unwrap();
    let discard = ["destroy", "--forget", "web", "--discard", "web"];
    sandbox.unchanged(|| sandbox.seedbed(&discard).expect(69).says(&["is not this swarm's"]));
    fs::rename(&elsewhere, &pointer).unwrap();
    // Its files were moved away, and the work in the other worktree is saved.
    let away = sandbox.top.join("away");
    fs::rename(&worktrees[0], &away).unwrap();
    sandbox.seedbed(&["destroy", "--forget", "web", "both"]).expect(69).says(&["1 untracked"]);
    let given_up = ["is given up", "branch agents/both of ../web"];
    sandbox.ok(&["destroy", "--forget", "web", "--rescue", "both"]).says(&given_up);
    assert!(sandbox.git(&["for-each-ref", "refs/seedbed"]).contains("shop"));
    sandbox.ok(&discard).says(&["1 session released, 1 still active", "branch agents/web"]);
    assert!(!worktrees[1].exists());
    // The repository comes back.
    lab.bring_back();
    let found = sandbox.seedbed_in(&lab.web, &["doctor", "--json"]).json();
    let found: Vec<_> =
        found["findings"].as_array().unwrap().iter().filter(|one| one["id"] == "unknown-worktree").collect();
    assert_eq!(found.len(), 2, "{found:?}");
    for one in found {
        let remedy = one["remedy"].as_str().unwrap();
        let command = &remedy[remedy.find("git -C").unwrap()..];
        let done = sandbox.program("sh", &sandbox.top).args(["-c", command]).output().unwrap();
        assert!(done.status.success(), "{command}: {done:?}");
    }
    assert_eq!(sandbox.git_in(&lab.web, &["worktree", "list"]).lines().count(), 1);
    for branch in ["agents/both", "agents/web"] {
        sandbox.git_in(&lab.web, &["branch", "--quiet", "-D", branch]);
    }
    assert_eq!(sandbox.git_in(&lab.web, &["for-each-ref", "--format=%(refname)"]), refs);
    sandbox.ok(&["destroy"]);
}

#[test]
fn plan_names_a_repository_that_is_gone_if_the_manifest_has_changed() {
    let lab = Lab::new();
    let sandbox = &lab.sandbox;
    sandbox.ok(&["apply"]);
    lab.take_away();
    let remedy = ["the repository `web` (../web) cannot be used", "`seedbed destroy --forget web`"];
    // Nothing of it is declared.
    sandbox.manifest("[session.api]\nresources = [{ kind = \"git-worktree\", branch = \"agents/api\" }]\n");
    for args in [&["plan"][..], &["apply", "--discard"]] {
        sandbox.seedbed(args).expect(69).says(&remedy);
    }
    // A link leads to the repository.
    sandbox.manifest(SESSIONS);
    std::os::unix::fs::symlink(&lab.moved, &lab.web).unwrap();
    sandbox.seedbed(&["destroy", "web"]).expect(69).says(&["by another path", "`seedbed recover --moved`"]);
    sandbox.ok(&["recover", "--moved"]);
    sandbox.ok(&["destroy"]);
}
