//! Tests of sessions that have lost their worktree: no command runs for them anywhere else, least of all in the main
//! checkout.

use std::fs;
use std::path::Path;

use crate::sandbox::{Sandbox, sessions};

const PAIR: &str = "[session.coder]\ncount = 2\nresources = [{ kind = \"git-worktree\", CHECKOUT }, \"port-range\"]\nteardown = [\"touch torn-down; git rev-parse --show-toplevel\"]\n";

fn applied(checkout: &str) -> Option<Sandbox> {
    let sandbox = Sandbox::new();
    sandbox.manifest(&PAIR.replace("CHECKOUT", &format!("checkout = \"{checkout}\"")));
    if !sandbox.can_mount() {
        return None;
    }
    sandbox.ok(&["apply"]);
    Some(sandbox)
}

/// Removes coder-0's worktree with `lose`. Expects that no command works there any more, and that every command works
/// in coder-1.
fn check(checkout: &str, lose: impl Fn(&Sandbox, &Path)) {
    let Some(sandbox) = applied(checkout) else { return };
    let directory = sandbox.directory("coder-0");
    lose(&sandbox, &directory);
    sandbox.unchanged(|| {
        for args in [&["exec", "coder-0", "--"][..], &["exec", "coder-0", "--json", "--"]] {
            let outcome = sandbox.seedbed(&[args, &["touch", "here"]].concat()).expect(125);
            let text = outcome.stdout + &outcome.stderr;
            assert!(text.contains("has no directory to work in: "), "{text}");
        }
        for command in ["env", "prompt"] {
            sandbox
                .seedbed(&[command, "coder-0"])
                .expect(69)
                .says(&["session coder-0 has no directory to work in: ", "`seedbed apply` creates it again"]);
        }
        let outcome = sandbox.seedbed(&["exec", "--all", "--", "pwd"]).expect(125);
        assert_eq!(outcome.stdout.trim(), format!("coder-1: {}", sandbox.directory("coder-1").display()));
        let status = sandbox.ok(&["status", "--json"]).json();
        let drift = |name: &str| {
            let found = sessions(&status).find(|found| found["session"] == name).unwrap();
            found["drift"].as_array().unwrap().len()
        };
        assert_eq!((drift("coder-0").min(1), drift("coder-1")), (1, 0), "{status:#}");
    });
    // The commands before its release are skipped as well.
    let outcome = sandbox.seedbed(&["destroy", "coder-0", "--discard"]);
    assert!(!sandbox.repository.join("torn-down").exists(), "{outcome:?}");
}

#[test]
fn a_worktree_that_was_removed() {
    check("auto", |_, directory| fs::remove_dir_all(directory).unwrap());
}

#[test]
fn a_worktree_that_was_moved() {
    check("auto", |sandbox, directory| fs::rename(directory, sandbox.top.join("moved")).unwrap());
}

#[test]
fn worktree_with_a_missing_or_foreign_git_file_runs_no_command() {
    check("auto", |_, directory| fs::remove_file(directory.join(".git")).unwrap());
    check("auto", |sandbox, directory| {
        let other = sandbox.repository.join(".git");
        fs::write(directory.join(".git"), format!("gitdir: {}\n", other.display())).unwrap();
    });
    check("auto", |_, directory| {
        fs::remove_file(directory.join(".git")).unwrap();
        fs::create_dir(directory.join(".git")).unwrap();
    });
}

#[test]
fn worktree_without_its_admin_directory_runs_no_command() {
    check("auto", |sandbox, directory| {
        let entry = sandbox.repository.join(".git/worktrees").join(directory.file_name().unwrap());
        fs::remove_dir_all(entry).unwrap();
    });
}

#[test]
fn an_overlay_that_is_not_mounted() {
    check("overlay", |_, directory| {
        rustix::mount::unmount(directory, rustix::mount::UnmountFlags::empty()).unwrap();
    });
}

#[test]
fn a_session_that_asks_for_no_directory_works_in_the_workspace() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.server]\nresources = [\"port-range\"]\n");
    sandbox.ok(&["apply"]);
    assert_eq!(
        sandbox.ok(&["exec", "server", "--", "pwd"]).stdout.trim(),
        sandbox.repository.to_str().unwrap()
    );
    sandbox.ok(&["env", "server"]);
}

#[test]
fn a_lost_worktree_is_refused_while_a_file_that_it_copies_is_missing() {
    let sandbox = Sandbox::new();
    sandbox.manifest(
        "[session.a]\nresources = [{ kind = \"git-worktree\", copy = [\".env\"], link = [\"modules\"] }]\n",
    );
    sandbox.write(".env", "");
    sandbox.write("modules/one", "");
    sandbox.ok(&["apply"]);
    fs::remove_dir_all(sandbox.directory("a")).unwrap();
    fs::remove_file(sandbox.repository.join(".env")).unwrap();
    fs::remove_dir_all(sandbox.repository.join("modules")).unwrap();
    sandbox.unchanged(|| {
        for command in ["plan", "apply"] {
            sandbox.seedbed(&[command]).expect(65).says(&[
                "the workspace has no file `.env` to bring into worktrees",
                "the workspace has no file `modules` to bring into worktrees",
            ]);
        }
    });
    sandbox.write(".env", "");
    sandbox.write("modules/one", "");
    sandbox.ok(&["apply"]);
    assert!(sandbox.directory("a").join("modules/one").is_file());
}

#[test]
fn commands_that_a_refusal_prints_for_a_moved_worktree_bring_it_back_or_give_it_up() {
    for remedy in ["bring that back: `", "give it up: `"] {
        let sandbox = Sandbox::new();
        sandbox.manifest("[session.a]\nresources = [\"git-worktree\"]\n");
        sandbox.ok(&["apply"]);
        let (directory, moved) = (sandbox.directory("a"), sandbox.top.join("moved away"));
        let moving = [directory.to_str().unwrap(), moved.to_str().unwrap()];
        sandbox.git(&[&["worktree", "move", "-f", "-f"][..], &moving].concat());
        let refused = sandbox.unchanged(|| sandbox.seedbed(&["destroy"]).expect(69)).stderr;
        let text = refused.split_whitespace().collect::<Vec<_>>().join(" ");
        let command = text.split_once(remedy).expect(&text).1.split_once('`').unwrap().0;
        let ran = sandbox.program("sh", &sandbox.repository).args(["-c", command]).output().unwrap();
        assert!(ran.status.success(), "{command}: {ran:?}");
        assert!(!moved.exists(), "{command}");
        sandbox.ok(&["destroy"]);
    }
}
