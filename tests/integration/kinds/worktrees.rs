//! Tests of sessions with several worktrees: side by side in a directory of the session, which is theirs alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::sandbox::{Sandbox, assert_same, sessions};

const ONE: &str = "{ kind = \"git-worktree\", name = \"api\" }";
const TWO: &str = "{ kind = \"git-worktree\", name = \"api\" }, \
                   { kind = \"git-worktree\", name = \"web\", base-ref = \"old\", branch = \"agents/{{ session.name }}-{{ resource.name }}\" }";

/// Returns a sandbox whose repository has two commits, the first of which is `old`.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.git(&["branch", "old"]);
    sandbox.write("new.txt", "new\n");
    sandbox.commit("new");
    sandbox
}

fn manifest(sandbox: &Sandbox, resources: &str, more: &str) {
    sandbox.manifest(&format!("[session.lead]\nresources = [{resources}]\n{more}"));
}

/// Returns the directory of the only session, from the record of its swarm.
#[track_caller]
fn directory(sandbox: &Sandbox) -> PathBuf {
    let env = sandbox.ok(&["env", "lead", "--json"]).json();
    PathBuf::from(
        env["environment"]["AGENT_SESSION_DIRECTORY"].as_str().expect("the session has a directory"),
    )
}

fn applied(resources: &str) -> (Sandbox, PathBuf) {
    let sandbox = sandbox();
    manifest(&sandbox, resources, "");
    sandbox.ok(&["apply"]);
    let directory = directory(&sandbox);
    (sandbox, directory)
}

fn change(plan: &Value) -> &Value {
    plan["changes"].as_array().unwrap().iter().find(|change| change["session"] == "lead").unwrap()
}

#[test]
fn two_worktrees_lie_side_by_side_and_are_told_apart_everywhere() {
    let sandbox = sandbox();
    manifest(&sandbox, TWO, "env = { WEB = \"{{ resources.web.path }}\" }\n");
    let before = sandbox.inventory();
    let shown = sandbox.ok(&["plan"]).stdout;
    assert!(shown.contains("with api, web") && shown.contains("agents/lead-web"), "{shown}");
    sandbox.ok(&["apply"]);
    let top = directory(&sandbox);
    assert!(top.join("api/new.txt").exists() && !top.join("web/new.txt").exists());
    let env = sandbox.ok(&["env", "lead", "--json"]).json();
    let env = &env["environment"];
    let check = |name: &str, path: &Path| assert_eq!(env[name], path.to_str().unwrap(), "{name}");
    check("AGENT_WORKTREE_PATH", &top.join("api"));
    check("AGENT_API_WORKTREE_PATH", &top.join("api"));
    check("AGENT_WEB_WORKTREE_PATH", &top.join("web"));
    check("WEB", &top.join("web"));
    check("AGENT_DISCOVERY_FILE", &top.join(".agent-context/resources.json"));
    let snapshot: Value =
        serde_json::from_slice(&fs::read(top.join(".agent-context/resources.json")).unwrap()).unwrap();
    let listed = snapshot["hardConstraints"].as_array().unwrap().iter();
    let listed: Vec<_> = listed.map(|held| (held["kind"].as_str().unwrap(), held["name"].as_str())).collect();
    assert_eq!(listed, [("git-worktree", Some("api")), ("git-worktree", Some("web"))]);
    assert_eq!(sandbox.ok(&["exec", "lead", "--", "pwd"]).stdout.trim(), top.to_str().unwrap());
    for inside in [top.clone(), top.join("api"), top.join("web")] {
        let whoami = sandbox.seedbed_in(&inside, &["whoami"]);
        assert!(whoami.stdout.contains("session shop/lead"), "{}: {whoami:?}", inside.display());
    }
    let explained = sandbox.ok(&["explain", top.join("web/f").to_str().unwrap()]).stdout;
    assert!(
        explained.contains("is in the worktree of shop/lead") && explained.contains("name = \"web\""),
        "{explained}"
    );
    assert_eq!(sandbox.seedbed(&["plan", "--detailed-exitcode"]).code, 0);
    sandbox.assert_clean(&sandbox.repository);
    sandbox.ok(&["destroy"]);
    assert_same(&before, &sandbox.inventory());
}

#[test]
fn reviews_and_notes_name_the_worktrees_and_their_repositories() {
    let sandbox = sandbox();
    let web = sandbox.other_repository("web");
    let of_web = "{ kind = \"git-worktree\", name = \"web\", repository = \"web\", base-ref = \"main\" }";
    let own = "{ kind = \"git-worktree\", name = \"api\", base-ref = \"main\" }";
    let ports = "{ kind = \"port-range\", names = [\"http\"] }, { kind = \"port-range\", name = \"debug\", \
                 names = [\"inspector\"] }";
    let more = format!("[repository.web]\nroot = \"../web\"\n[session.solo]\nresources = [{of_web}]\n");
    manifest(&sandbox, &format!("{own}, {of_web}, {ports}"), &more);
    let graph = sandbox.ok(&["plan", "--format", "mermaid"]).stdout;
    for part in
        ["<br/>api#58; .ai_ops/", "<br/>web#58; .ai_ops/", "  of web  ", "<br/>debug#58; ", "<br/>web#58; "]
    {
        assert!(graph.contains(part), "{part}: {graph}");
    }
    sandbox.ok(&["apply"]);
    let status = sandbox.ok(&["status", "--verbose"]).stdout;
    assert!(status.contains("web of web: detached"), "{status}");
    let status = sandbox.ok(&["status", "--json"]).json();
    assert_eq!(status["sessions"][0]["otherWorktrees"][0]["repository"], "web");
    let explained = sandbox.ok(&["explain", "lead"]).stdout;
    assert!(explained.contains("debug: block ") && explained.contains("web: it is of ../web"), "{explained}");

    // Each note has the command for its worktree, and that is what the command changes.
    sandbox.write("more.txt", "more\n");
    sandbox.commit("more");
    sandbox.git_in(&web, &["commit", "--quiet", "--allow-empty", "--message", "more"]);
    let plan = sandbox.ok(&["plan"]).stdout;
    let notes = plan.split_whitespace().collect::<Vec<_>>().join(" ");
    let commands =
        ["lead -- git -C api rebase main", "lead -- git -C web rebase main", "solo -- git rebase main"];
    assert!(notes.contains("main of web has 1 commit that lead lacks in web"), "{notes}");
    for command in commands {
        assert!(notes.contains(&format!("`seedbed exec {command}`")), "{command}: {notes}");
        sandbox.ok(&[&["exec"], &command.split(' ').collect::<Vec<_>>()[..]].concat());
    }
    let behind = sandbox.plan()["behind"].clone();
    assert_eq!(behind, json!(null), "every worktree has its base");
    assert!(directory(&sandbox).join("api/more.txt").exists());
}

#[test]
fn work_in_either_worktree_or_beside_them_refuses_a_release() {
    let (sandbox, top) = applied(TWO);
    for file in ["api/work", "web/work", "notes.txt"] {
        fs::write(top.join(file), "work\n").unwrap();
        sandbox.unchanged(|| {
            let refused = sandbox.seedbed(&["destroy"]).expect(69);
            let place = file.rsplit('/').next_back().unwrap_or_default();
            assert!(refused.stderr.contains(place), "{file}: {}", refused.stderr);
        });
        fs::remove_file(top.join(file)).unwrap();
    }
    // Both have the same work, and each rescue is brought back.
    fs::write(top.join("api/work"), "work\n").unwrap();
    fs::write(top.join("web/work"), "work\n").unwrap();
    sandbox.ok(&["destroy", "--rescue"]);
    let rescues = sandbox.ok(&["rescue", "list", "--json"]).json();
    let names: Vec<_> =
        rescues["rescues"].as_array().unwrap().iter().map(|saved| saved["resource"].clone()).collect();
    assert_eq!(names, [json!("api"), json!("web")], "{rescues:#}");
    sandbox.ok(&["apply"]);
    for saved in rescues["rescues"].as_array().unwrap() {
        sandbox.ok(&["rescue", "restore", saved["name"].as_str().unwrap(), "--into", "lead"]);
    }
    assert!(top.join("api/work").exists() && top.join("web/work").exists());
    sandbox.ok(&["destroy", "--discard"]);
    assert!(!sandbox.repository.join(".ai_ops").exists());
}

/// R4: what lies elsewhere is replaced, and work in it refuses that.
#[test]
fn a_second_worktree_replaces_the_first_and_back() {
    let sandbox = sandbox();
    manifest(&sandbox, ONE, "");
    sandbox.ok(&["apply"]);
    let alone = PathBuf::from(sandbox.ok(&["exec", "lead", "--", "pwd"]).stdout.trim());
    let check = |resources: &str, work: &Path, release: Value, provision: Value| {
        manifest(&sandbox, resources, "");
        let plan = sandbox.plan();
        let change = change(&plan);
        assert_eq!((&change["release"], &change["provision"]), (&release, &provision), "{change:#}");
        let reasons = change["reasons"].to_string();
        assert!(reasons.contains("api lies in"), "{reasons}");
        fs::write(work, "work\n").unwrap();
        sandbox.unchanged(|| sandbox.seedbed(&["apply", "--yes"]).expect(69));
        fs::remove_file(work).unwrap();
        sandbox.ok(&["apply", "--yes"]);
        assert_eq!(sandbox.seedbed(&["plan", "--detailed-exitcode"]).code, 0);
    };
    check(TWO, &alone.join("work"), json!(["api"]), json!(["session-directory", "api", "web"]));
    assert!(alone.join("web/.git").exists());
    // A third one is added, and the others stay.
    manifest(&sandbox, &format!("{TWO}, \"git-worktree\""), "");
    let plan = sandbox.plan();
    let third = change(&plan);
    assert_eq!((&third["release"], &third["provision"]), (&json!([]), &json!(["git-worktree"])), "{third:#}");
    fs::write(alone.join("web/work"), "work\n").unwrap();
    sandbox.ok(&["apply", "--yes"]);
    assert!(alone.join("web/work").exists() && alone.join("git-worktree/.git").exists());
    manifest(&sandbox, TWO, "");
    sandbox.ok(&["apply", "--yes"]);
    assert!(alone.join("web/work").exists() && !alone.join("git-worktree").exists());
    fs::remove_file(alone.join("web/work")).unwrap();
    check(ONE, &alone.join("notes"), json!(["web", "api", "session-directory"]), json!(["api"]));
    assert!(alone.join("new.txt").exists());
    sandbox.ok(&["destroy"]);
    assert!(!sandbox.repository.join(".ai_ops").exists());
}

#[test]
fn the_directory_of_a_resource_can_be_the_working_directory() {
    let sandbox = sandbox();
    let resources = format!("{TWO}, {{ kind = \"directory\", name = \"notes\" }}, \"directory\"");
    let works_in = |name: &str| {
        manifest(&sandbox, &resources, &format!("directory = \"{name}\"\n"));
        sandbox.ok(&["apply", "--yes"]);
        assert_eq!(sandbox.seedbed(&["plan", "--detailed-exitcode"]).code, 0);
        PathBuf::from(sandbox.ok(&["exec", "lead", "--", "pwd"]).stdout.trim())
    };
    let web = works_in("web");
    assert!(web.ends_with("web") && web.join(".agent-context/resources.json").exists());
    // Nothing is released, so unsaved work stays.
    fs::write(web.join("work"), "work\n").unwrap();
    let notes = works_in("notes");
    assert!(web.join("work").exists());
    assert_eq!(notes.extension(), Some("notes".as_ref()), "{}", notes.display());
    assert!(!web.join(".agent-context").exists() && notes.join(".agent-context/resources.json").exists());
    manifest(&sandbox, &format!("{resources}, \"port-range\""), "directory = \"port-range\"\n");
    let refused = sandbox.seedbed(&["plan"]).expect(65).stderr;
    assert!(refused.contains("which has no directory"), "{refused}");
    manifest(&sandbox, &resources, "directory = \"wbe\"\n");
    let refused = sandbox.seedbed(&["validate"]).expect(65).stderr;
    assert!(refused.contains("did you mean `web`?"), "{refused}");
    fs::write(notes.join("work"), "work\n").unwrap();
    assert_eq!(works_in("web"), web);
    assert!(notes.join("work").exists() && !notes.join(".agent-context").exists());
    sandbox.ok(&["destroy", "--discard"]);
    assert!(!sandbox.repository.join(".ai_ops").exists());
}

#[test]
fn worktrees_that_cannot_lie_side_by_side_are_refused() {
    let sandbox = sandbox();
    let check = |resources: &str, why: &str| {
        manifest(&sandbox, resources, "");
        let refused = sandbox.seedbed(&["plan"]).expect(65).stderr;
        assert!(refused.contains(why), "{refused}");
    };
    let other = "{ kind = \"git-worktree\", name = \"b\", root-directory = \"elsewhere\" }";
    check(&format!("{ONE}, {other}"), "lie side by side");
    check(&format!("{ONE}, {{ kind = \"git-worktree\", name = \"b.lock\" }}"), "Git would refuse it");
    let branch = |name: &str| format!("{{ kind = \"git-worktree\", name = \"{name}\", branch = \"b\" }}");
    check(&format!("{}, {}", branch("a"), branch("b")), "resource.name");
}

#[test]
fn children_share_worktrees_by_name() {
    let sandbox = sandbox();
    let nested = TWO.replace("kind", "layout = \"nested\", kind");
    let children = "[session.lead.child.all]\n[session.lead.child.web]\nresources = [{ kind = \"git-worktree\", name = \"web\", branch = \"x\" }]\n";
    for resources in [TWO, &nested] {
        manifest(&sandbox, resources, children);
        let before = sandbox.inventory();
        sandbox.ok(&["apply"]);
        let plan = sandbox.plan();
        let of = |path: &str| -> Vec<String> {
            let session = sessions(&plan).find(|session| session["path"] == path).unwrap();
            let held = session["allocations"].as_array().unwrap().iter();
            held.map(|held| held["name"].as_str().or(held["kind"].as_str()).unwrap().to_owned()).collect()
        };
        assert_eq!(of("lead/all"), ["session-directory", "api", "web"]);
        assert_eq!(of("lead/web"), ["web"]);
        let log =
            Command::new("git").args(["worktree", "list"]).current_dir(&sandbox.repository).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&log.stdout).lines().count(), 6);
        sandbox.ok(&["destroy"]);
        assert_same(&before, &sandbox.inventory());
    }
}
