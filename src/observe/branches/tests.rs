#![expect(clippy::disallowed_methods, reason = "tests set the host up")]

use super::super::sandbox::{Sandbox, own};
use super::super::{Query, branch_ref};
use super::*;
use crate::observe::TreeEntry;

#[test]
fn names_of_a_template_are_those_that_it_can_give() {
    let check = |source: &str, prefix: &str, suffix: &str| {
        let names = BranchNames::from_template(source);
        assert_eq!((names.prefix.as_str(), names.suffix.as_str()), (prefix, suffix), "{source}");
    };
    check("agents/{{ session.name }}", "agents/", "");
    check("agents/{{ swarm }}-{{ session.name }}/work", "agents/", "/work");
    check("{{ session.name }}", "", "");
    check("fixed", "fixed", "");
    check("a/{%- if true %}b{% endif %}", "a/", "");
    assert!(!BranchNames::from_template("ab{{ x }}bc").cover("abc"), "prefix and suffix do not overlap");
    assert!(BranchNames::from_template("ab{{ x }}bc").cover("abbc"));
}

#[test]
fn distances_start_at_the_requested_commit() {
    let sandbox = Sandbox::with_files(&["a"]);
    let first = sandbox.git(&["rev-parse", "HEAD"]);
    sandbox.git(&["branch", "agents/same"]);
    sandbox.git(&["checkout", "--quiet", "-b", "agents/ahead"]);
    sandbox.write("app/b", "b");
    sandbox.commit();
    sandbox.git(&["checkout", "--quiet", "-b", "agents/merged"]);
    sandbox.commit();
    sandbox.git(&["checkout", "--quiet", "main"]);
    sandbox.git(&["checkout", "--quiet", "--orphan", "agents/apart"]);
    sandbox.write("apart", "apart");
    sandbox.commit();
    sandbox.git(&["checkout", "--quiet", "main"]);
    sandbox.commit();
    let query = |base_ref: &str| Query::Branch {
        repository: own(),
        base_ref: base_ref.to_owned(),
        names: BranchNames::from_template("agents/{{ session.name }}"),
    };
    let tree =
        Query::Tree { repository: own(), base_ref: first.clone(), path: "app".to_owned(), required: true };
    let observed = sandbox.observe_repository([query(&first), query("main"), tree]);
    let distance = |base: &str, name: &str| {
        let distance = &observed.distances[&(base.to_owned(), name.to_owned())];
        (distance.ahead, distance.contains)
    };
    assert_eq!(distance(&first, "agents/same"), (0, true));
    assert_eq!(distance(&first, "agents/ahead"), (1, true));
    assert_eq!(distance(&first, "agents/merged"), (2, true));
    assert_eq!(distance(&first, "agents/apart"), (1, false));
    assert_eq!(distance("main", "agents/same"), (0, false));
    assert_eq!(distance("main", "agents/ahead"), (1, false));
    let branches = observed.repository.unwrap().unwrap().branches;
    assert_eq!(branches["main"].checkouts.len(), 1);
    assert_eq!(branches["main"].checkouts[0].path, sandbox.workspace);
    assert_eq!(branches["agents/same"].checkouts, []);
    assert_eq!(branches["agents/same"].first_log_entry.as_ref().unwrap().commit, first);
    assert_eq!(branches["main"].first_log_entry, None, "no query covers it");
    let at = |name: &str| observed.trees.get(&(name.to_owned(), "app".to_owned())).cloned();
    assert!(matches!(at(&first), Some(TreeEntry::Missing { .. })));
    assert_eq!(at(&branch_ref("agents/ahead")), Some(TreeEntry::Directory));
}

#[test]
fn a_branch_that_a_rebase_returns_to_is_checked_out() {
    let sandbox = Sandbox::with_files(&["a"]);
    let path = sandbox.directory.path().canonicalize().unwrap().join("other");
    sandbox.git(&["worktree", "add", "--quiet", "-b", "agents/one", path.to_str().unwrap()]);
    let entry = sandbox.workspace.join(".git/worktrees/other");
    std::fs::write(entry.join("HEAD"), "1".repeat(40) + "\n").unwrap();
    std::fs::create_dir(entry.join("rebase-merge")).unwrap();
    std::fs::write(entry.join("rebase-merge/head-name"), "refs/heads/agents/one\n").unwrap();
    let common = Root::open(&sandbox.workspace.join(".git")).unwrap();
    let found = checkouts::checkouts(&common).unwrap();
    assert_eq!(found["agents/one"][0].path, path);
    assert_eq!(found["agents/one"][0].admin_directory.as_deref(), Some("other"));
}
