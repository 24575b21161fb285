use super::super::sandbox::{Sandbox, commit, own, tree};
use super::*;
use crate::observe::Query;

fn missing(near: &[&str]) -> TreeEntry {
    TreeEntry::Missing { near: near.iter().map(|&name| name.to_owned()).collect() }
}

/// Requests all paths together, so that one Git process answers them.
fn check(sandbox: &Sandbox, expected: &[(&str, TreeEntry)]) {
    let observed = sandbox.observe_repository(expected.iter().map(|(path, _)| tree("HEAD", path)));
    for (path, entry) in expected {
        assert_eq!(&observed.trees[&("HEAD".to_owned(), (*path).to_owned())], entry, "{path:?}");
    }
    assert_eq!(observed.trees.len(), expected.len());
}

#[test]
fn entries_of_every_sort() {
    let sandbox = Sandbox::with_files(&["a/b/file", "top", "a/ü/file"]);
    std::os::unix::fs::symlink("a", sandbox.workspace.join("link")).unwrap();
    std::os::unix::fs::symlink("/etc", sandbox.workspace.join("a/.agent-context")).unwrap();
    let gitlink = format!("160000,{},sub", "1".repeat(40));
    sandbox.git(&["add", "--all"]);
    sandbox.git(&["update-index", "--add", "--cacheinfo", &gitlink]);
    sandbox.git(&["commit", "--quiet", "--message=y"]);
    check(
        &sandbox,
        &[
            ("a", TreeEntry::Directory),
            ("a/b", TreeEntry::Directory),
            ("a/b/file", TreeEntry::File),
            ("a/ü", TreeEntry::Directory),
            ("top", TreeEntry::File),
            ("link", TreeEntry::Link),
            ("a/.agent-context", TreeEntry::Link),
            ("sub", TreeEntry::Submodule),
            ("link/b", missing(&[])),
            ("sub/b", missing(&[])),
            ("top/below", missing(&[])),
            ("a/.agent-context/resources.json", missing(&[])),
        ],
    );
}

#[test]
fn paths_are_literal() {
    let sandbox = Sandbox::with_files(&[
        ":colon/f",
        "st*r/f",
        "stxr/f",
        "q?/f",
        "qx/f",
        "[a]/f",
        ":!ex/f",
        "-dash/f",
        "--stdin/f",
        "new\nline/f",
        "quo\"te/f",
        "tab\t/f",
        "back\\slash/f",
    ]);
    let found = [
        ":colon",
        "st*r",
        "q?",
        "[a]",
        ":!ex",
        "-dash",
        "--stdin",
        "new\nline",
        "quo\"te",
        "tab\t",
        "back\\slash",
    ];
    check(&sandbox, &found.map(|path| (path, TreeEntry::Directory)));

    let not_found = [":(top)st*r", "*", ":", ":/", "[b]", "q*", ":^ex", "--all"];
    let observed = sandbox.observe_repository(not_found.map(|path| tree("HEAD", path)));
    assert!(
        observed.trees.values().all(|entry| matches!(entry, TreeEntry::Missing { .. })),
        "{:?}",
        observed.trees
    );
}

#[test]
fn paths_that_no_tree_can_hold_spoil_no_other() {
    let sandbox = Sandbox::with_files(&["a/b/file"]);
    let long = "x/".repeat(PATH_MAX) + "x";
    let odd = ["", "/", "/a", "a/", "a//b", ".", "./a", "..", "../a", "a/../a", "a\0b", &long];
    let mut queries = vec![tree("HEAD", "a/b")];
    queries.extend(odd.map(|path| tree("HEAD", path)));
    let observed = sandbox.observe_repository(queries);
    for ((_, path), entry) in &observed.trees {
        assert_eq!(matches!(entry, TreeEntry::Missing { .. }), path != "a/b", "{path:?}: {entry:?}");
    }
    assert_eq!(observed.trees.len(), odd.len() + 1);
}

#[test]
fn near_misses_are_directories() {
    let sandbox = Sandbox::with_files(&["packages/web/f", "packages/api/f", "packages/wob", "docs/f"]);
    check(
        &sandbox,
        &[
            ("packages/wab", missing(&["packages/web"])),
            ("pakages/api", missing(&["packages/api"])),
            ("web", missing(&["packages/web"])),
            ("nothing", missing(&[])),
        ],
    );
}

#[test]
fn each_ref_has_its_own_tree() {
    let sandbox = Sandbox::with_files(&["old/f"]);
    sandbox.git(&["branch", "old"]);
    sandbox.git(&["branch", "same"]);
    sandbox.git(&["mv", "old", "new"]);
    sandbox.commit();
    let names = ["old", "same", "main"];
    let mut queries: Vec<_> = names.iter().flat_map(|name| [tree(name, "old"), tree(name, "new")]).collect();
    queries.push(tree("unknown", "old"));
    queries.push(commit("HEAD"));
    let observed = sandbox.observe_repository(queries);
    let is =
        |name: &str, path: &str| observed.trees[&(name.to_owned(), path.to_owned())] == TreeEntry::Directory;
    assert!(is("old", "old") && is("same", "old") && is("main", "new"));
    assert!(!is("old", "new") && !is("same", "new") && !is("main", "old"));
    assert_eq!(observed.trees.len(), 6);
    assert!(observed.commits["unknown"].is_err());
}

#[test]
fn a_workspace_below_the_top_asks_from_the_top() {
    let sandbox = Sandbox::with_files(&["a/b/file"]);
    let observed =
        sandbox.observe_repository_in(&sandbox.workspace.join("a"), [tree("HEAD", "a/b"), tree("HEAD", "b")]);
    let entries: Vec<&TreeEntry> = observed.trees.values().collect();
    assert_eq!(entries, [&TreeEntry::Directory, &missing(&["a/b"])]);
}

#[test]
fn many_paths_are_split_into_fitting_calls() {
    let paths: Vec<String> =
        (0..3000).map(|n| format!("directory/with-a-rather-long-name-{n:04}/{}", "x".repeat(90))).collect();
    let runs = chunks(paths.iter().map(String::as_str));
    assert!(runs.len() > 4);
    assert!(runs.iter().all(|run| run.iter().map(|path| path.len() + 1).sum::<usize>() <= ARGUMENTS_MAX + 1));
    assert_eq!(runs.concat(), paths);

    let sandbox = Sandbox::with_files(&[&format!("{}/f", paths[2999]), &format!("{}/f", paths[0])]);
    let observed = sandbox.observe_repository(paths.iter().map(|path| tree("HEAD", path)));
    let found: Vec<bool> = observed.trees.values().map(|entry| *entry == TreeEntry::Directory).collect();
    assert_eq!((found[0], found[2999], found.iter().filter(|found| **found).count()), (true, true, 2));
}

#[test]
fn unwanted_path_has_no_near_misses() {
    let sandbox = Sandbox::with_files(&["web/f"]);
    let ask = |required| Query::Tree {
        repository: own(),
        base_ref: "HEAD".to_owned(),
        path: "wab".to_owned(),
        required,
    };
    let found = |queries: &[Query]| {
        sandbox.observe_repository(queries.iter().cloned()).trees[&("HEAD".to_owned(), "wab".to_owned())]
            .clone()
    };
    assert_eq!(found(&[ask(false)]), missing(&[]));
    assert_eq!(found(&[ask(true)]), missing(&["web"]));
    assert_eq!(found(&[ask(false), ask(true)]), missing(&["web"]));
}
