//! What was done to a standing swarm by hand is put right, and no work is lost over it.

use std::fs;

use crate::sandbox::Sandbox;

const PAIR: &str = "[session.lead]\nresources = [{ kind = \"git-worktree\", layout = \"nested\" }, \"port-range\"]\n\
                    [session.lead.child.coder]\n";

#[test]
fn an_unlocked_worktree_is_locked_again_and_nothing_else_is_touched() {
    let sandbox = Sandbox::new();
    sandbox.manifest(PAIR);
    sandbox.ok(&["apply"]);
    let (lead, coder) = (sandbox.directory("lead"), sandbox.directory("lead/coder"));
    fs::write(lead.join("work"), "unsaved").unwrap();
    fs::write(coder.join("work"), "unsaved").unwrap();
    sandbox.git(&["worktree", "unlock", lead.to_str().unwrap()]);
    sandbox.ok(&["apply"]).says(&["1 repair"]);
    assert_eq!(fs::read_to_string(lead.join("work")).unwrap(), "unsaved");
    assert_eq!(fs::read_to_string(coder.join("work")).unwrap(), "unsaved");
    assert_eq!(sandbox.git(&["worktree", "list", "--porcelain"]).matches("\nlocked seedbed").count(), 2);
    sandbox.ok(&["apply"]).says(&["nothing to do"]);
}

#[test]
fn repairing_a_parent_asks_for_the_work_of_the_children_inside_it() {
    let sandbox = Sandbox::new();
    sandbox.manifest(PAIR);
    sandbox.ok(&["apply"]);
    let (lead, coder) = (sandbox.directory("lead"), sandbox.directory("lead/coder"));
    fs::write(coder.join("work"), "unsaved").unwrap();
    fs::write(sandbox.repository.join(".git/worktrees").join(lead.file_name().unwrap()).join("HEAD"), "")
        .unwrap();
    let refused = sandbox.seedbed(&["apply", "--yes"]).expect(69);
    assert!(refused.stderr.contains("lead/coder: "), "{}", refused.stderr);
    assert_eq!(fs::read_to_string(coder.join("work")).unwrap(), "unsaved");
    fs::remove_file(coder.join("work")).unwrap();
    // What is broken cannot be called saved either.
    sandbox.ok(&["apply", "--yes", "--discard"]);
    sandbox.assert_clean(&lead);
    sandbox.assert_clean(&coder);
}

#[test]
fn lost_lock_files_are_written_again_while_the_ports_are_in_use() {
    let sandbox = Sandbox::new();
    sandbox.manifest(PAIR);
    sandbox.ok(&["apply"]);
    let plan = sandbox.plan();
    let port = crate::sandbox::ports(crate::sandbox::sessions(&plan).next().unwrap()).0;
    let _server = std::net::TcpListener::bind(("127.0.0.1", u16::try_from(port).unwrap())).unwrap();
    fs::remove_dir_all(sandbox.repository.join(".ai_ops/locks")).unwrap();
    sandbox.ok(&["apply"]);
    assert!(sandbox.repository.join(".ai_ops/locks/ports").is_dir());
    sandbox.ok(&["apply"]).says(&["nothing to do"]);
    let again = sandbox.plan();
    assert_eq!(again["sessions"], plan["sessions"]);
}

#[test]
fn a_replacement_that_fails_leaves_no_directory_that_looks_like_a_worktree() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [\"git-worktree\", \"port-range\"]\n");
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("a");
    sandbox.manifest(
        "[session.a]\nresources = [{ kind = \"git-worktree\", target-path = \"app\" }, \"port-range\"]\n\
         setup = [\"exit 3\"]\n",
    );
    let failed = sandbox.seedbed(&["apply", "--yes"]).expect(73);
    assert!(failed.stderr.contains("could not be put back"), "{}", failed.stderr);
    assert!(!directory.exists(), "{}", directory.display());
    sandbox.manifest("[session.a]\nresources = [\"git-worktree\", \"port-range\"]\n");
    sandbox.ok(&["apply", "--yes"]);
    sandbox.assert_clean(&directory);
    sandbox.ok(&["destroy"]);
    assert!(!sandbox.repository.join(".ai_ops").exists());
}

#[test]
fn a_base_that_only_the_session_still_has_is_not_lost() {
    let sandbox = Sandbox::new();
    sandbox.git(&["checkout", "--quiet", "-b", "feature"]);
    sandbox.commit("only here");
    sandbox.git(&["checkout", "--quiet", "-"]);
    sandbox.manifest("[session.a]\nresources = [{ kind = \"git-worktree\", base-ref = \"feature\" }]\n");
    sandbox.ok(&["apply"]);
    sandbox.git(&["branch", "-D", "feature"]);
    let refused = sandbox.unchanged(|| sandbox.seedbed(&["destroy"]).expect(69));
    assert!(refused.stderr.contains("no ref"), "{}", refused.stderr);
    sandbox.ok(&["destroy", "--discard"]);
}
