//! Tests of `seedbed rescue`: the work that `--rescue` has saved is listed, restored and deleted; only the repository
//! has to exist.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::sandbox::Sandbox;

/// Creates a repository with one rescue, without its original manifest and state, and returns the rescue's name.
fn rescued() -> (Sandbox, String) {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.coder]\nresources = [\"git-worktree\"]\n");
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("coder");
    fs::write(directory.join("README.md"), "changed\n").unwrap();
    fs::write(directory.join("it's new"), "new\n").unwrap();
    sandbox.git_in(&directory, &["add", "README.md"]);
    let printed = sandbox.ok(&["destroy", "--rescue"]).stdout;
    let name =
        printed.strip_prefix("seedbed rescue restore ").expect("one short command").trim_end().to_owned();
    fs::remove_file(sandbox.repository.join("seedbed.toml")).unwrap();
    let _ = fs::remove_dir_all(sandbox.state());
    (sandbox, name)
}

fn listed(sandbox: &Sandbox) -> Vec<Value> {
    let document = sandbox.ok(&["rescue", "list", "--json"]).json();
    let schema = sandbox.ok(&["schema", "rescues"]).json();
    let errors: Vec<_> =
        jsonschema::validator_for(&schema).unwrap().iter_errors(&document).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
    document["rescues"].as_array().unwrap().clone()
}

/// Creates a ref of the repository as another program could, and returns its name for `seedbed rescue`.
fn plant(sandbox: &Sandbox, name: &str, object: &str) -> String {
    sandbox.git(&["update-ref", &format!("refs/seedbed/rescue/{name}"), object]);
    name.to_owned()
}

#[test]
fn rescue_is_listed_restored_and_dropped_without_a_manifest() {
    let (sandbox, name) = rescued();
    let [found] = &listed(&sandbox)[..] else { panic!("one rescue") };
    assert_eq!(found["session"], "shop/coder");
    assert_eq!(found["name"], name.as_str());
    assert_eq!(found["files"], 2);
    assert_eq!(found["valid"], true);
    assert!(found["saved"].as_str().unwrap().starts_with("20"), "{found}");
    let text = sandbox.ok(&["rescue", "list"]).stdout;
    assert!(text.starts_with("SESSION") && text.contains(&name), "{text}");

    let beside = sandbox.ok(&["rescue", "restore", &name]).stdout;
    let outcome = sandbox.ok(&[
        "rescue",
        "restore",
        &format!("refs/seedbed/rescue/{name}"),
        "--into",
        "../back",
        "--json",
    ]);
    let document = outcome.json();
    assert_eq!(document["action"], "restored");
    let directory = document["directory"].as_str().unwrap().to_owned();
    for directory in [beside.trim_end(), &directory] {
        let directory = std::path::Path::new(directory);
        assert_eq!(fs::read_to_string(directory.join("it's new")).unwrap(), "new\n");
        let status = sandbox.git_in(directory, &["status", "--porcelain"]);
        assert_eq!(status, "M  README.md\n?? \"it's new\"");
    }

    sandbox.unchanged(|| sandbox.seedbed(&["rescue", "drop", &name]).expect(69)).says(&["--yes", &name]);
    let dropped = sandbox.ok(&["rescue", "drop", &name, &name, "--yes", "--json"]).json();
    assert_eq!((&dropped["action"], dropped["rescues"].as_array().unwrap().len()), (&json!("dropped"), 1));
    assert_eq!(listed(&sandbox), Vec::<Value>::new());
    sandbox.ok(&["rescue", "list"]).says(&["no rescue"]);
}

#[test]
fn restore_overwrites_nothing_and_names_what_was_meant() {
    let (sandbox, name) = rescued();
    let taken = sandbox.repository.with_file_name("taken");
    fs::create_dir(&taken).unwrap();
    sandbox.unchanged(|| {
        let refused = sandbox.seedbed(&["rescue", "restore", &name, "--into", "../taken"]).expect(69);
        refused.says(&["taken exists, and nothing is overwritten"]);
        let other = name.replace("coder", "codex");
        sandbox.seedbed(&["rescue", "restore", &other]).expect(64).says(&["did you mean", &name]);
        sandbox.seedbed(&["rescue", "drop", &name, &other, "--yes"]).expect(64).says(&["did you mean"]);
    });
    let nowhere = sandbox.repository.parent().unwrap();
    sandbox.seedbed_in(nowhere, &["rescue", "list"]).expect(64).says(&["no repository around"]);
}

#[test]
fn failed_restore_leaves_no_worktree() {
    let (sandbox, name) = rescued();
    fs::write(sandbox.repository.join(".git/info/attributes"), "README.md filter=broken\n").unwrap();
    sandbox.git(&["config", "filter.broken.smudge", "false"]);
    sandbox.git(&["config", "filter.broken.required", "true"]);
    sandbox.seedbed(&["rescue", "restore", &name, "--into", "../back"]).expect(1);
    assert!(!sandbox.repository.with_file_name("back").exists());
    assert_eq!(sandbox.git(&["worktree", "list"]).lines().count(), 1);
    assert_eq!(listed(&sandbox).len(), 1);
}

#[test]
fn planted_refs_are_escaped_and_cannot_act() {
    let (sandbox, name) = rescued();
    let reference = format!("refs/seedbed/rescue/{name}");
    let turned = plant(&sandbox, "shop/\u{202e}evil/@20261125T120000Z", "HEAD");
    let blob = sandbox.git(&["rev-parse", "HEAD:README.md"]);
    plant(&sandbox, "blob/@1", &blob);
    let text = sandbox.ok(&["rescue", "list"]).stdout;
    assert!(text.contains("\\u{202e}evil") && !text.contains('\u{202e}'), "{text}");
    assert_eq!(text.matches("no rescue").count(), 2, "{text}");
    sandbox.seedbed(&["rescue", "restore", &turned]).expect(69).says(&["form of a rescue"]);

    // A rescue whose state points the worktree at another repository, and whose message names a file outside.
    let state = |args: &[&str]| sandbox.git(args);
    let index = sandbox.top.join("planted");
    let plan = format!(
        "GIT_INDEX_FILE='{}'; export GIT_INDEX_FILE; git read-tree {reference}^3 && \
        git update-index --add --cacheinfo 100644,{blob},commondir --cacheinfo 100644,{blob},config.worktree && \
        git write-tree",
        index.display()
    );
    let tree = sandbox.program("sh", &sandbox.repository).args(["-c", &plan]).output().unwrap();
    let tree = String::from_utf8(tree.stdout).unwrap();
    let planted = state(&["commit-tree", tree.trim_end(), "-m", "state"]);
    let parents = ["^1", "^2"].map(|of| state(&["rev-parse", &format!("{reference}{of}")]));
    let files = format!("{reference}^{{tree}}");
    let message = "shop/x: unsaved work of its worktree\n\nSeedbed-Exact: ../README.md";
    let commit =
        state(&["commit-tree", &files, "-p", &parents[0], "-p", &parents[1], "-p", &planted, "-m", message]);
    plant(&sandbox, "shop/x/@20261125T120000Z", &commit);
    let outside = sandbox.repository.with_file_name("README.md");
    fs::write(&outside, "kept\n").unwrap();
    sandbox.ok(&["rescue", "restore", "shop/x/@20261125T120000Z", "--into", "../back"]);
    let back = sandbox.repository.with_file_name("back");
    assert_eq!(sandbox.git_in(&back, &["status", "--porcelain"]), "M  README.md\n?? \"it's new\"");
    let admin = sandbox.git_in(&back, &["rev-parse", "--absolute-git-dir"]);
    assert_eq!(fs::read_to_string(format!("{admin}/commondir")).unwrap(), "../..\n");
    assert!(!std::path::Path::new(&admin).join("config.worktree").exists());
    assert_eq!(fs::read_to_string(&outside).unwrap(), "kept\n");
    assert_eq!(fs::metadata(back.join("README.md")).unwrap().permissions().mode() & 0o111, 0);
}

#[test]
fn the_committed_schema_of_rescues_is_what_the_program_prints() {
    let printed = Sandbox::new().ok(&["schema", "rescues"]).json();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/rescues.schema.json");
    let committed: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert_eq!(committed, printed, "renew it: cargo run -- schema rescues > schemas/rescues.schema.json");
}
