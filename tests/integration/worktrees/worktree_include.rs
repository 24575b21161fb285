//! Tests of `copy = ["@worktreeinclude"]`: ignored files that match the patterns of `.worktreeinclude`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;

use crate::sandbox::{Sandbox, assert_same};

/// Manifest of a session with these options of its worktree.
fn manifest(sandbox: &Sandbox, options: &str) {
    sandbox.manifest(&format!("[session.a]\nresources = [{{ kind = \"git-worktree\", {options} }}]\n"));
}

/// Creates a sandbox with ignored files, with a manifest that copies those of its `.worktreeinclude`.
fn sandbox(patterns: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write(".gitignore", ".env*\n/modules/\n*.key\n");
    sandbox.write(".worktreeinclude", patterns);
    sandbox.git(&["add", "--force", "."]);
    sandbox.write("tracked.key", "tracked\n");
    sandbox.git(&["add", "--force", "tracked.key"]);
    sandbox.commit("ignores");
    for path in
        [".env", ".env.test", "app/.env", "app/site.key", "modules/a/index.js", "modules/b/b.key", "plain"]
    {
        sandbox.write(path, path);
    }
    symlink("a/index.js", sandbox.repository.join("modules/link")).unwrap();
    sandbox.git(&["init", "-q", "modules/nested"]);
    sandbox.write("modules/nested/file", "nested");
    manifest(&sandbox, "copy = [\"@worktreeinclude\"]");
    sandbox
}

/// Returns the ignored files of a directory, as Git lists them.
fn ignored(sandbox: &Sandbox, directory: &Path, exclude: &str) -> BTreeSet<String> {
    let listed = sandbox.git_in(directory, &["ls-files", "--others", "--ignored", exclude]);
    let is_file = |name: &&str| !name.ends_with('/') && !name.starts_with(".a");
    listed.lines().filter(is_file).map(str::to_owned).collect()
}

/// Returns the files that a worktree is expected to have beside those of its commit.
fn expected(sandbox: &Sandbox) -> BTreeSet<String> {
    let listed = |exclude: &str| ignored(sandbox, &sandbox.repository, exclude);
    &listed("--exclude-standard") & &listed("--exclude-from=.worktreeinclude")
}

#[test]
fn ignored_files_that_the_patterns_match_are_copied() {
    let sandbox =
        sandbox("# for every worktree\r\n.env*\r\n!.env.test\nmodules/\n!modules/a/\n*.key\nplain\n");
    // Files that are listed for another glob are not ignored for that.
    manifest(&sandbox, "copy = [\"@worktreeinclude\", \"*.none\"]");
    let before = sandbox.inventory();
    let plan = sandbox.ok(&["plan"]).stdout;
    assert!(plan.contains("copied into worktrees: `@worktreeinclude` (6 files, "), "{plan}");
    let allocation = &sandbox.plan()["sessions"][0]["allocations"][0]["allocation"];
    let patterns = json!([".env*", "!.env.test", "modules/", "!modules/a/", "*.key", "plain"]);
    assert_eq!(
        (&allocation["copy"], &allocation["worktreeInclude"]),
        (&json!(["@worktreeinclude", "*.none"]), &patterns)
    );
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("a");
    let copied = ignored(&sandbox, &directory, "--exclude-standard");
    assert_eq!(copied, expected(&sandbox));
    assert_eq!(copied.len(), 6, "{copied:?}");
    assert_eq!(fs::read_to_string(directory.join("app/site.key")).unwrap(), "app/site.key");
    assert_eq!(fs::read_link(directory.join("modules/link")).unwrap(), Path::new("a/index.js"));
    sandbox.unchanged(|| sandbox.ok(&["apply"]).says(&["nothing to do"]));
    sandbox.ok(&["status"]);
    // Copies are no unsaved work. An ignored file is named if the session has edited it.
    let again = sandbox.ok(&["destroy"]).stderr;
    assert!(!again.contains(".env"), "{again}");
    sandbox.ok(&["apply"]);
    fs::write(directory.join(".env"), "mine\n").unwrap();
    sandbox.ok(&["destroy"]).says(&["ignored files", ".env"]);
    assert_same(&before, &sandbox.inventory_without_records());
}

#[test]
fn changed_patterns_update_the_worktree_in_place() {
    let sandbox = sandbox(".env\n");
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("a");
    fs::write(directory.join("draft"), "draft\n").unwrap();
    // Another comment is no change.
    sandbox.write(".worktreeinclude", "# comment\n.env\n");
    sandbox.unchanged(|| sandbox.ok(&["apply"]).says(&["nothing to do"]));
    sandbox.write(".worktreeinclude", ".env.*\n*.key\n");
    let plan = sandbox.ok(&["plan"]).stdout;
    assert!(plan.contains("1 to update") && plan.contains("`.env`"), "{plan}");
    sandbox.ok(&["apply"]).says(&["1 updated"]);
    assert_eq!(fs::read_to_string(directory.join("app/site.key")).unwrap(), "app/site.key");
    assert_eq!(fs::read_to_string(directory.join(".env")).unwrap(), ".env");
    assert_eq!(fs::read_to_string(directory.join("draft")).unwrap(), "draft\n");
    sandbox.unchanged(|| sandbox.ok(&["apply"]).says(&["nothing to do"]));
    // A file that is new in the workspace comes with a refresh.
    sandbox.write("new.key", "new");
    sandbox.write(".env.test", "changed");
    sandbox.ok(&["apply", "--refresh"]).says(&["1 updated"]);
    assert_eq!(fs::read_to_string(directory.join("new.key")).unwrap(), "new");
    assert_eq!(fs::read_to_string(directory.join(".env.test")).unwrap(), "changed");
    // An active worktree outlasts the file; a file that cannot be read is a diagnostic.
    fs::remove_file(sandbox.repository.join(".worktreeinclude")).unwrap();
    sandbox.unchanged(|| sandbox.ok(&["apply"]).says(&["nothing to do"]));
    sandbox.write(".worktreeinclude", "[a");
    sandbox.seedbed(&["apply"]).expect(65).says(&["line 1 of `.worktreeinclude`", "[copied-file]"]);
    fs::remove_file(directory.join("draft")).unwrap();
    sandbox.ok(&["destroy"]);
}

#[test]
fn a_file_that_cannot_be_used_is_a_diagnostic_at_its_entry() {
    let sandbox = sandbox("");
    let check = |expected: &str| {
        let entry = "copy = [\"@worktreeinclude\"]";
        sandbox.seedbed(&["validate"]).expect(65).says(&[expected, entry, "[copied-file]"]);
    };
    sandbox.write(".worktreeinclude", "a\n[[:alpha:]]\n");
    check("line 2 of `.worktreeinclude` is no pattern");
    fs::remove_file(sandbox.repository.join(".worktreeinclude")).unwrap();
    check("the workspace has no file `.worktreeinclude`");
    symlink("/etc/passwd", sandbox.repository.join(".worktreeinclude")).unwrap();
    check("`.worktreeinclude` is a link");
    manifest(&sandbox, "link = [\"@worktreeinclude\"]");
    sandbox.seedbed(&["validate"]).expect(65).says(&["`@worktreeinclude` is an entry of `copy`"]);
}

#[test]
fn a_saved_plan_is_stale_when_the_patterns_have_changed() {
    let sandbox = sandbox(".env\n");
    sandbox.ok(&["plan", "-o", "../plan.json"]);
    sandbox.write(".worktreeinclude", ".env\nmodules/\n");
    sandbox
        .seedbed(&["apply", "../plan.json"])
        .expect(69)
        .says(&["the plan is stale", "`.worktreeinclude` has changed"]);
    fs::remove_file(sandbox.repository.join(".worktreeinclude")).unwrap();
    sandbox.seedbed(&["apply", "../plan.json"]).expect(69).says(&["no file `.worktreeinclude` any more"]);
    sandbox.write(".worktreeinclude", "# comment\n.env\n");
    sandbox.ok(&["apply", "../plan.json"]);
}

#[test]
fn patterns_of_another_repository_are_those_in_its_work_tree() {
    let sandbox = sandbox(".env\n");
    let web = sandbox.other_repository("web");
    for (path, text) in
        [(".gitignore", "*.key\n"), (".worktreeinclude", "web.key\n"), ("web.key", "web"), ("x.key", "x")]
    {
        fs::write(web.join(path), text).unwrap();
    }
    sandbox.manifest(
        "[repository.web]\nroot = \"../web\"\n[session.a]\nresources = [{ kind = \"git-worktree\", repository = \"web\", copy = [\"@worktreeinclude\"] }]\n",
    );
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("a");
    assert_eq!(fs::read_to_string(directory.join("web.key")).unwrap(), "web");
    assert!(!directory.join("x.key").exists() && !directory.join(".env").exists());
    fs::remove_file(web.join(".worktreeinclude")).unwrap();
    sandbox.ok(&["destroy"]);
    sandbox.seedbed(&["plan"]).expect(65).says(&["the repository `web` has no file `.worktreeinclude`"]);
}
