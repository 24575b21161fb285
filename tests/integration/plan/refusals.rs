//! Tests that foreseeable failures are refused during planning, at their line of the manifest, and that nothing is
//! written anywhere.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;

use crate::sandbox::{Inventory, Outcome, Sandbox, walk};

/// Expects that the manifest is refused at `line` with `value` underlined, and that nothing changes.
#[track_caller]
fn check_refused(sandbox: &Sandbox, rest: &str, value: &str, said: &[&str]) {
    sandbox.manifest(rest);
    let text = sandbox.manifest_text(rest);
    let line = 1 + text.lines().position(|line| line.contains(value)).expect("the value is in the manifest");
    sandbox.unchanged(|| {
        for command in ["validate", "plan", "apply"] {
            let outcome = sandbox.seedbed(&[command]).expect(65).says(said);
            let at = format!("[seedbed.toml:{line}:");
            assert!(outcome.stderr.contains(&at), "not at {at}\n{}", outcome.stderr);
            assert!(outcome.stderr.contains('┬') || outcome.stderr.contains('^'), "{}", outcome.stderr);
        }
    });
    let diagnostics = sandbox.seedbed(&["validate", "--json"]).expect(65).json();
    let diagnostic = &diagnostics["diagnostics"][0];
    assert_eq!(diagnostic["line"], line);
    let column = usize::try_from(diagnostic["column"].as_u64().unwrap()).unwrap() - 1;
    let length = usize::try_from(diagnostic["length"].as_u64().unwrap()).unwrap();
    let underlined: String = text.lines().nth(line - 1).unwrap().chars().skip(column).take(length).collect();
    assert_eq!(underlined, value);
}

fn worktree(option: &str) -> String {
    format!("[session.a]\nresources = [{{ kind = \"git-worktree\", {option} }}]\n")
}

#[test]
fn a_base_ref_is_never_an_option_of_git() {
    let sandbox = Sandbox::new();
    for option in ["--lock", "-b", "--orphan", "-f", "-", "--stdin", "-x", "--all"] {
        let value = format!("\"{option}\"");
        check_refused(&sandbox, &worktree(&format!("base-ref = {value}")), &value, &["names no commit"]);
    }
}

#[test]
fn unknown_branch_is_reported_with_similar_ones() {
    let sandbox = Sandbox::new();
    sandbox.git(&["branch", "feature/checkout"]);
    check_refused(
        &sandbox,
        &worktree("base-ref = \"feature/chekcout\""),
        "\"feature/chekcout\"",
        &["names no commit", "did you mean `feature/checkout`?"],
    );
}

#[test]
fn a_target_path_has_to_be_a_directory_of_the_commit() {
    let sandbox = Sandbox::new();
    symlink("app", sandbox.repository.join("alias")).unwrap();
    sandbox.commit("a link to a directory");
    let check = |target: &str, said: &[&str]| {
        let value = format!("\"{target}\"");
        check_refused(&sandbox, &worktree(&format!("target-path = {value}")), &value, said);
    };
    check("app/lbi", &["does not exist", "did you mean `app/lib`?"]);
    check("README.md", &["is a file", "not a directory"]);
    check("alias", &["is a symbolic link", "not a directory"]);
    check("alias/lib", &[]);
    check("../outside", &[]);
    check("/etc", &[]);
    for option in ["-f", "--lock", "-b", "--orphan", "-", "--stdin", "-x"] {
        check(option, &["does not exist"]);
    }
}

#[test]
fn a_tracked_discovery_path_is_refused() {
    for kind in ["file", "link", "directory", "submodule"] {
        let sandbox = Sandbox::new();
        let outside = sandbox.top.join("outside");
        fs::create_dir(&outside).unwrap();
        let path = sandbox.repository.join("app/.agent-context");
        match kind {
            "file" => fs::write(&path, "mine\n").unwrap(),
            "link" => symlink(&outside, &path).unwrap(),
            "submodule" => {
                let head = sandbox.git(&["rev-parse", "HEAD"]);
                let entry = format!("160000,{head},app/.agent-context");
                sandbox.git(&["update-index", "--add", "--cacheinfo", &entry]);
                // Otherwise a commit of all files would record the submodule's removal.
                fs::create_dir(&path).unwrap();
            }
            _ => sandbox.write("app/.agent-context/resources.json", "{}\n"),
        }
        sandbox.commit("tracks the discovery path");
        let rest = worktree("target-path = \"app\"");
        sandbox.manifest(&rest);
        let refused = sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(65));
        refused.says(&["tracks `app/.agent-context`"]);
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        // Elsewhere it causes no conflict.
        sandbox.manifest(&worktree("base-ref = \"main\""));
        sandbox.ok(&["apply"]);
    }
}

#[test]
fn a_linked_ai_ops_is_refused_and_nothing_is_written_through_it() {
    for (link, committed) in
        [(".ai_ops", false), (".ai_ops", true), (".ai_ops/worktrees", false), (".ai_ops/locks", true)]
    {
        let sandbox = Sandbox::new();
        let outside = sandbox.top.join("outside");
        fs::create_dir(&outside).unwrap();
        let path = sandbox.repository.join(link);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(&outside, &path).unwrap();
        if committed {
            sandbox.commit("a link");
        }
        sandbox.manifest("[session.a]\nresources = [\"git-worktree\", \"port-range\"]\n");
        let refused = sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(65));
        refused.says(&[&format!("`{link}` is a symbolic link")]);
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }
}

#[test]
fn a_link_that_comes_after_planning_is_not_written_through() {
    let sandbox = Sandbox::new();
    let outside = sandbox.top.join("outside");
    fs::create_dir(&outside).unwrap();
    // The session's own setup replaces the directory that its discovery file is about to lie in.
    sandbox.manifest(&format!(
        "[session.a]\nresources = [\"git-worktree\"]\nsetup = [\"ln -s '{}' .agent-context\"]\n",
        outside.display()
    ));
    sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(1).says(&["a: discovery file: "]));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn every_diagnostic_is_reported_at_once() {
    let sandbox = Sandbox::new();
    sandbox.manifest(
        r#"
[session.a]
resources = [{ kind = "git-worktree", base-ref = "nowhere" }]
[session.b]
resources = [{ kind = "git-worktree", target-path = "nothing" }]
[session.c]
resources = [{ kind = "port-range", block-size = 8, names = ["http", "HTTP"] }]
"#,
    );
    let said = ["`nowhere` names no commit", "`nothing` does not exist", "`HTTP` cannot name a port"];
    sandbox.seedbed(&["apply"]).expect(65).says(&said);
}

#[test]
fn a_directory_that_is_no_repository_is_refused() {
    let sandbox = Sandbox::new();
    let plain = sandbox.top.join("plain");
    fs::create_dir(&plain).unwrap();
    let text = sandbox.manifest_text("[session.a]\nresources = [\"git-worktree\"]\n");
    fs::write(plain.join("seedbed.toml"), text).unwrap();
    sandbox.seedbed_in(&plain, &["apply"]).expect(65).says(&["repository"]);
    // A session with only ports needs none.
    let text = sandbox.manifest_text("[session.a]\nresources = [\"port-range\"]\n");
    fs::write(plain.join("seedbed.toml"), text).unwrap();
    sandbox.seedbed_in(&plain, &["apply"]).expect(0);
    sandbox.seedbed_in(&plain, &["destroy"]).expect(0);
    assert_eq!(fs::read_dir(&plain).unwrap().count(), 1);
}

/// Git fails with paths of about 4,070 bytes, and file systems with names of more than 255 bytes.
#[test]
fn a_path_that_is_too_long_is_refused() {
    let sandbox = Sandbox::new();
    for (root, said) in
        [("d/".repeat(2000) + "d", "bytes, more than 4000"), ("d".repeat(256), "name too long")]
    {
        let root = format!("\"{root}\"");
        sandbox.manifest(&worktree(&format!("root-directory = {root}")));
        for command in ["validate", "plan", "apply"] {
            let refused = sandbox.unchanged(|| sandbox.seedbed(&[command]).expect(65));
            let message = refused.stderr.replace(['\n', '│', ' '], "").to_lowercase();
            assert!(message.contains(&said.replace(' ', "")), "{command}: {}", refused.stderr);
        }
    }
}

#[test]
fn a_workspace_whose_path_is_no_text_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [\"git-worktree\", \"port-range\"]\n");
    let odd = sandbox.top.join(std::ffi::OsStr::from_bytes(b"n\xff"));
    fs::rename(&sandbox.repository, &odd).unwrap();
    let before = walked(&odd);
    for command in ["validate", "plan", "apply"] {
        sandbox.seedbed_in(&odd, &[command]).expect(65).says(&["the path of the workspace is not UTF-8"]);
    }
    assert_eq!(walked(&odd), before);
    assert!(!sandbox.state().join("swarms").read_dir().is_ok_and(|mut entries| entries.next().is_some()));
}

fn walked(directory: &std::path::Path) -> Inventory {
    let mut found = Inventory::new();
    walk(directory, std::path::Path::new(""), &mut found);
    found
}

#[test]
fn worktrees_and_locks_need_a_directory_of_their_own() {
    let sandbox = Sandbox::new();
    for root in [".", "..", "app/.."] {
        let value = format!("\"{root}\"");
        let said = ["need a directory of their own"];
        check_refused(&sandbox, &worktree(&format!("root-directory = {value}")), &value, &said);
        let ports =
            format!("[session.a]\nresources = [{{ kind = \"port-range\", lock-directory = {value} }}]\n");
        check_refused(&sandbox, &ports, &value, &said);
    }
}

#[test]
fn diagnostic_is_shown_at_its_option() {
    let sandbox = Sandbox::new();
    let value = "\"nowhere\"";
    let sessions =
        "[session.a]\nresources = [\"git-worktree\"]\n[session.b]\nresources = [\"git-worktree\"]\n";
    let defaults = format!("[defaults.git-worktree]\nbase-ref = {value}\n{sessions}");
    check_refused(&sandbox, &defaults, value, &["has 1 error", "names no commit"]);
    let parent = format!(
        "[session.a]\nresources = [{{ kind = \"git-worktree\", base-ref = {value} }}]\n[session.a.child.b]\ncount = 3\n"
    );
    check_refused(&sandbox, &parent, value, &["has 1 error", "names no commit"]);
}

#[test]
fn diagnostics_of_every_stage_are_reported_in_one_run_without_consequences() {
    let sandbox = Sandbox::new();
    sandbox.manifest(
        r#"
[session.lead]
cuont = 2
resources = [{ kind = "port-range", naems = ["http"] }]
env = { URL = "http://localhost:{{ port.http }}", OTHER = "{{ nope }}" }
[session.coder]
resources = [{ kind = "git-worktree", base-ref = "mian" }, "port-range"]
env = { LEAD = "{{ sessions['lead-0'].port.http }}", OWN = "{{ port.htpp }}" }
[session.broken]
prompt = ["not closed"
[session.tester]
resources = [{ kind = "git-worktree", target-path = "app/lbi" }]
"#,
    );
    let found = sandbox.seedbed(&["validate", "--json"]).expect(65).json();
    let found: Vec<_> = found["diagnostics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|diagnostic| (diagnostic["rule"].as_str().unwrap(), diagnostic["label"].as_str().unwrap()))
        .collect();
    let expected = [
        ("unknown-key", "did you mean `count`?"),
        ("unknown-key", "did you mean `names`?"),
        ("template-name", "not a name"),
        ("unknown-ref", "did you mean `main`?"),
        ("syntax", "opened here"),
        ("target-path", "did you mean `app/lib`?"),
    ];
    assert_eq!(found, expected);
}

#[test]
fn missing_workspace_root_is_a_diagnostic_of_the_manifest() {
    let sandbox = Sandbox::new();
    let text = "version = 1\nswarm = \"shop\"\n[workspace]\nroot = \"ap/lib\"\n[session.a]\ncuont = 1\n";
    sandbox.write("seedbed.toml", text);
    let refused = sandbox.seedbed(&["validate"]).expect(65);
    refused.says(&["[seedbed.toml:4:8]", "did you mean `app`?", "[seedbed.toml:6:1]"]);
    sandbox.write("seedbed.toml", &text.replace("cuont = 1\n", ""));
    for command in ["validate", "plan", "apply", "status"] {
        sandbox.seedbed(&[command]).expect(65).says(&["[seedbed.toml:4:8]", "did you mean `app`?"]);
    }
}

#[test]
fn binary_manifest_is_reported_as_no_text() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.repository.join("seedbed.toml"), b"version = 1\nswarm = \"sh\xff\"\n").unwrap();
    sandbox.seedbed(&["validate"]).expect(65).says(&["[seedbed.toml:2:12]", "byte 0xff is not UTF-8"]);
    let utf16: Vec<u8> = "\u{feff}version = 1\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    fs::write(sandbox.repository.join("seedbed.toml"), utf16).unwrap();
    sandbox.seedbed(&["validate"]).expect(65).says(&["[seedbed.toml:1:1]", "this is UTF-16"]);
    sandbox.seedbed(&["-f", "app", "validate"]).expect(64).says(&["is a directory", "app/seedbed.toml"]);
}

#[test]
fn a_work_tree_that_a_setting_leads_elsewhere_is_refused_before_anything_is_made() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [\"git-worktree\", \"port-range\"]\n");
    let elsewhere = sandbox.top.join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    for other in [elsewhere, sandbox.clone_to("clone")] {
        sandbox.git(&["config", "core.worktree", other.to_str().unwrap()]);
        sandbox.seedbed(&["apply"]).expect(65).says(&["core.worktree"]);
        sandbox.seedbed(&["recover"]).expect(0).says(&["nothing to recover"]);
        sandbox.git(&["config", "--unset", "core.worktree"]);
    }
    // A setting that leads where the work tree is changes nothing.
    sandbox.git(&["config", "core.worktree", sandbox.repository.to_str().unwrap()]);
    sandbox.ok(&["apply"]);
    sandbox.ok(&["destroy"]);
}

#[test]
fn a_relative_state_directory_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\n");
    for args in [&["plan"][..], &["apply"], &["list"], &["status"]] {
        let mut command = sandbox.command(args);
        let outcome = Outcome::of(command.env("SEEDBED_STATE_DIR", "state").output().unwrap());
        outcome.expect(64).says(&["SEEDBED_STATE_DIR is state, and has to be an absolute path"]);
    }
    assert!(!sandbox.repository.join("state").exists());
}
