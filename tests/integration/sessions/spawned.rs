//! Tests of sessions that are spawned beside the manifest: they are planned, kept and released like the others.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::{Value, json};

use crate::sandbox::{Outcome, Sandbox, ports, sessions};

/// A lead with room for three children, of which the manifest declares one.
const TREE: &str = r#"
[session.lead]
resources = [{ kind = "git-worktree", branch = "agents/{{ session.slug }}" }, { kind = "port-range", names = ["http"], reserve = 1, block-size = 7, slots = 3 }]
env = { BRACES = "{{ '{{ x }}' }}" }
[session.lead.child.coder]
count = 1
resources = ["git-worktree", { kind = "port-range", names = [] }]
env = { NUMBER = "{{ session.replica }}", BRACES = "{{ parent.env.BRACES }}" }
[session.alone]
resources = ["port-range"]
"#;

fn applied() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.manifest(TREE);
    sandbox.ok(&["apply"]);
    sandbox
}

/// Returns the paths of the active sessions that were spawned.
fn spawned(sandbox: &Sandbox) -> Vec<String> {
    let status = sandbox.ok(&["status", "--json"]).json();
    let spawned = sessions(&status).filter(|session| session["spawned"] == true);
    spawned.map(|session| session["session"].as_str().unwrap().to_owned()).collect()
}

/// Returns the first and the last port of a discovery document.
fn range(snapshot: &Value) -> (u64, u64) {
    let env = &snapshot["softConstraints"]["env"];
    let port = |name: &str| env[name].as_str().unwrap().parse().unwrap();
    (port("AGENT_PORT_RANGE_START"), port("AGENT_PORT_RANGE_END"))
}

#[test]
fn child_spawned_from_inside_gets_a_share_and_the_commit_of_its_parent() {
    let sandbox = applied();
    let lead = sandbox.directory("lead");
    sandbox.git_in(&lead, &["commit", "--quiet", "--allow-empty", "--message", "of the lead"]);
    let before = sandbox.inventory_without_records();
    let document = sandbox.seedbed_in(&lead.join("app"), &["spawn", "helper", "--json"]).expect(0).json();
    let directory = PathBuf::from(document["workingDirectory"].as_str().unwrap());
    assert_eq!(document["sessionId"], "shop/lead/helper");
    let earlier =
        sandbox.seedbed_in(&lead, &["spawn", "earlier", "--base", "HEAD~1", "--json"]).expect(0).json();
    let at = PathBuf::from(earlier["workingDirectory"].as_str().unwrap());
    let head = |directory: &Path, at: &str| sandbox.git_in(directory, &["rev-parse", at]);
    assert_eq!(head(&at, "HEAD"), head(&lead, "HEAD~1"));
    sandbox.ok(&["release", "lead/earlier"]);
    assert_eq!(sandbox.git_in(&directory, &["log", "-1", "--format=%s"]), "of the lead");
    assert_eq!(sandbox.git_in(&directory, &["branch", "--show-current"]), "agents/lead-helper");
    assert_eq!(document["softConstraints"]["env"]["AGENT_WORKTREE_BASE_REF"], "agents/lead");
    let plan = sandbox.plan();
    let (first, last) = ports(sessions(&plan).find(|session| session["path"] == "lead").unwrap());
    let (start, end) = range(&document);
    assert!(first < start && end <= last, "{start}-{end} is in {first}-{last}");
    let file = fs::read(directory.join(".agent-context/resources.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&file).unwrap(), document);
    // The manifest has not changed, so nothing is to do for it.
    sandbox.ok(&["plan", "--detailed-exitcode"]);
    sandbox.ok(&["apply"]);
    assert_eq!(spawned(&sandbox), ["lead/helper"]);
    assert!(sandbox.ok(&["status"]).stdout.contains("lead/helper   healthy, spawned  clean"));
    assert!(sandbox.ok(&["plan"]).stdout.contains("helper  (spawned, is kept)"));
    for format in ["markdown", "mermaid", "html"] {
        assert!(sandbox.ok(&["plan", "--format", format]).stdout.contains("spawned"), "{format}");
    }
    // A child of the child, by the variable of the session.
    let below = sandbox.ok(&["exec", "helper", "--", env!("CARGO_BIN_EXE_seedbed"), "spawn", "below"]);
    assert!(below.stdout.starts_with("session shop/lead/helper/below\n"), "{}", below.stdout);
    assert!(below.stdout.contains("\nAGENT_PORT_PRIMARY="), "{}", below.stdout);
    sandbox.seedbed_in(&lead, &["release", "helper"]).expect(0);
    crate::sandbox::assert_same(&before, &sandbox.inventory_without_records());
}

#[test]
fn spawned_session_stays_as_long_as_its_parent() {
    let sandbox = applied();
    sandbox.ok(&["spawn", "helper", "--parent", "lead"]);
    sandbox.ok(&["spawn", "other", "--template", "alone"]);
    sandbox.manifest(&TREE.replace("[session.alone]", "[session.lone]"));
    let plan = sandbox.plan();
    let actions = |plan: &Value, action: &str| -> Vec<String> {
        let changes = plan["changes"].as_array().unwrap().iter().filter(|change| change["action"] == action);
        changes.map(|change| change["session"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(actions(&plan, "keep"), ["lead", "lead/coder-0", "lead/helper", "other"]);
    assert_eq!(actions(&plan, "destroy"), ["alone"]);
    // A spawn leaves the changes of the manifest to `apply`.
    sandbox.ok(&["spawn", "third", "--parent", "lead", "--base", "main"]);
    assert_eq!(actions(&sandbox.plan(), "destroy"), ["alone"]);
    assert_eq!(actions(&sandbox.plan(), "create"), ["lone"]);
    // The manifest takes over a session that it declares.
    let declared =
        format!("{TREE}[session.lead.child.helper]\n\n[session.other]\nresources = [\"port-range\"]\n");
    sandbox.manifest(&declared);
    sandbox.ok(&["apply", "--yes"]);
    assert_eq!(spawned(&sandbox), ["lead/third"]);
    sandbox.unchanged(|| sandbox.seedbed(&["release", "other"]).expect(64).says(&["seedbed destroy other"]));
    // Without its parent, it goes, with its work saved like that of others.
    fs::write(sandbox.directory("lead/third").join("work"), "work\n").unwrap();
    sandbox.unchanged(|| sandbox.seedbed(&["release", "third"]).expect(69).says(&["1 untracked"]));
    sandbox.manifest("[session.alone]\nresources = [\"port-range\"]\n");
    assert!(actions(&sandbox.plan(), "destroy").contains(&"lead/third".to_owned()));
    sandbox.unchanged(|| sandbox.seedbed(&["apply", "--yes"]).expect(69));
    sandbox.ok(&["apply", "--yes", "--rescue"]);
    assert_eq!(spawned(&sandbox), [""; 0]);
}

#[test]
fn template_brings_its_table_and_the_next_number() {
    let sandbox = applied();
    let spawn = |args: &[&str]| sandbox.ok(&[&["spawn", "--json"], args].concat()).json();
    let env = |document: &Value| {
        let env = &document["softConstraints"]["env"];
        ["AGENT_SESSION_INDEX", "NUMBER", "BRACES"].map(|name| env[name].as_str().unwrap().to_owned())
    };
    let first = spawn(&["extra", "--parent", "lead", "--template", "coder"]);
    let second = spawn(&["coder-7", "--parent", "lead", "--template", "lead/coder-0"]);
    assert_eq!(env(&first), ["3", "1", "{{ x }}"]);
    assert_eq!(env(&second), ["4", "7", "{{ x }}"]);
    // The manifest cannot declare a second session of this number, except for the session itself.
    let grown = |count: u32| sandbox.manifest(&TREE.replace("count = 1", &format!("count = {count}")));
    grown(2);
    let refused = sandbox.unchanged(|| sandbox.seedbed(&["plan"]).expect(65));
    refused.says(&[
        "`lead/coder-1` would have number 1, which spawned session `lead/extra` has",
        "`seedbed release lead/extra`",
    ]);
    grown(1);
    // A table at the top brings its children; spawned ones stay where they are.
    let pair = spawn(&["pair", "--template", "lead", "--base", "main"]);
    assert_eq!(pair["swarm"]["children"], json!(["pair/coder-0"]));
    assert_eq!(spawned(&sandbox), ["lead/extra", "lead/coder-7", "pair", "pair/coder-0"]);
    sandbox.ok(&["plan", "--detailed-exitcode"]);
    sandbox.ok(&["release", "pair"]);
    assert_eq!(spawned(&sandbox), ["lead/extra", "lead/coder-7"]);
    // A manifest with a shorter path does not make the files of the others look changed.
    fs::rename(sandbox.repository.join("seedbed.toml"), sandbox.repository.join("s")).unwrap();
    sandbox.ok(&["-f", "s", "spawn", "other", "--template", "alone"]);
    assert!(!sandbox.ok(&["-f", "s", "status"]).stdout.contains("broken"));
}

#[test]
fn spawn_that_cannot_be_is_refused_before_anything_changes() {
    let sandbox = applied();
    sandbox.ok(&["spawn", "one", "--parent", "lead"]);
    sandbox.ok(&["spawn", "two", "--parent", "lead"]);
    sandbox.manifest(&format!("{TREE}[session.new]\nresources = []\n"));
    let refusals: [(&[&str], i32, &str); 10] = [
        (&["three", "--parent", "lead"], 69, "every share of the ports of `shop/lead` is in use"),
        (&["ONE", "--parent", "lead"], 64, "`lead/one` is active already"),
        (&["new"], 64, "the manifest declares `new`"),
        (&["a/b"], 64, "is not a name"),
        (&["x", "--parent", "leda"], 64, "did you mean `lead`?"),
        (&["x", "--template", "codr"], 64, "did you mean `lead/coder`?"),
        (&["x", "--template", "coder"], 64, "`lead/coder` takes shares of its parent"),
        (&["x", "--parent", "alone", "--template", "coder"], 64, "`alone` has no git-worktree"),
        (&["x", "--base", "nowhere"], 69, "spawned session `x`: "),
        (&["x", "--template", "one"], 64, "`lead/one` takes shares"),
    ];
    sandbox.unchanged(|| {
        for (args, code, text) in refusals {
            let refused = sandbox.seedbed(&[&["spawn"], args].concat()).expect(code);
            let stderr = refused.stderr.split_whitespace().collect::<Vec<_>>().join(" ").replace(" │ ", " ");
            assert!(stderr.contains(text), "{text}\n{stderr}");
        }
        sandbox.seedbed(&["release", "coder-0"]).expect(64).says(&["seedbed destroy lead/coder-0"]);
    });
    // A session that is released makes room.
    sandbox.ok(&["release", "one"]);
    sandbox.ok(&["spawn", "three", "--parent", "lead"]);
    // In a workspace that was moved, and of a swarm that lives for one command, nothing is spawned.
    let moved = sandbox.top.join("moved");
    fs::rename(&sandbox.repository, &moved).unwrap();
    sandbox.seedbed_in(&moved, &["spawn", "x"]).expect(69).says(&["recover --moved"]);
    sandbox.seedbed_in(&moved, &["recover", "--moved"]).expect(0);
    let directory = moved.join(".ai_ops/worktrees");
    let lead = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let lead = lead.into_iter().find(|path| path.to_str().unwrap().contains("shop-lead-three-")).unwrap();
    sandbox.seedbed_in(&lead, &["spawn", "x"]).expect(0);
    sandbox.seedbed_in(&moved, &["destroy"]).expect(0);
    let run = ["run", "--session", "alone", "--", env!("CARGO_BIN_EXE_seedbed"), "spawn", "x"];
    sandbox.seedbed_in(&moved, &run).expect(75).says(&["exists only for the command of `seedbed run`"]);
}

/// A person may be editing the manifest while agents work.
#[test]
fn manifest_that_cannot_be_read_hides_no_answer_of_the_record() {
    let sandbox = applied();
    sandbox.ok(&["spawn", "one", "--parent", "lead"]);
    let text = sandbox.manifest_text(&format!("{TREE}[session.new]\nresources = [\"nothing\"]\n"));
    sandbox.write("seedbed.toml", &text);
    sandbox.unchanged(|| {
        sandbox
            .seedbed(&["spawn", "one", "--parent", "lead"])
            .expect(64)
            .says(&["`lead/one` is active already"]);
        sandbox.seedbed(&["spawn", "x", "--parent", "leda"]).expect(64).says(&["did you mean `lead`?"]);
        sandbox.seedbed(&["spawn", "x"]).expect(65).says(&["[manifest-invalid]"]);
    });
}

#[test]
fn worktree_of_another_tool_is_adopted_and_never_removed() {
    let sandbox = applied();
    let inside = sandbox.repository.join(".claude/worktrees/feature");
    let beside = sandbox.top.join("beside");
    for path in [&inside, &beside] {
        sandbox.git(&["worktree", "add", "--quiet", "--detach", path.to_str().unwrap()]);
    }
    fs::write(inside.join("work"), "work\n").unwrap();
    let before = sandbox.inventory_without_records();
    let adopt = |name: &str, path: &Path, args: &[&str]| {
        sandbox.seedbed(&[&["spawn", name, "--adopt", path.to_str().unwrap(), "--json"], args].concat())
    };
    let document = adopt("feature", &inside, &["--parent", "lead"]).expect(0).json();
    assert_eq!(document["workingDirectory"], inside.to_str().unwrap());
    let (start, end) = range(&document);
    let plan = sandbox.plan();
    let (first, last) = ports(sessions(&plan).find(|session| session["path"] == "lead").unwrap());
    assert!(first < start && end <= last);
    let file = fs::read(inside.join(".agent-context/resources.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&file).unwrap(), document);
    assert_eq!(sandbox.git_in(&inside, &["status", "--porcelain"]), "?? work");
    let other = adopt("other", &beside, &[]).expect(0).json();
    assert_eq!(other["workingDirectory"], beside.to_str().unwrap());
    range(&other);
    sandbox.ok(&["plan", "--detailed-exitcode"]);
    sandbox.ok(&["exec", "other", "--", "test", "-f", "README.md"]);
    adopt("again", &beside, &[]).expect(64);
    adopt("again", &sandbox.top.join("nowhere"), &[]).expect(64);
    adopt("again", &sandbox.repository, &[]).expect(69);
    // A session below it has a worktree, because a directory of another tool cannot be shared.
    let below = sandbox.seedbed_in(&beside, &["spawn", "below", "--json"]).expect(0).json();
    assert_eq!(below["sessionId"], "shop/other/below");
    assert_ne!(below["workingDirectory"], other["workingDirectory"]);
    // Work in the directory is no reason to refuse, because it stays.
    sandbox.seedbed_in(&beside, &["release", "other", "--yes"]).expect(0);
    sandbox.ok(&["destroy", "lead/feature"]);
    crate::sandbox::assert_same(&before, &sandbox.inventory_without_records());
    assert!(beside.join("README.md").is_file() && !beside.join(".agent-context").exists());
    // The tool removes it while a session works there: the session is released all the same.
    adopt("feature", &inside, &[]).expect(0);
    fs::remove_dir_all(&inside).unwrap();
    assert!(sandbox.ok(&["status"]).stdout.contains("does not exist"));
    sandbox.ok(&["release", "feature"]);
    assert!(!inside.exists());
}

#[test]
fn diagnostic_of_a_spawned_session_names_the_command_that_releases_it() {
    let sandbox = Sandbox::new();
    let tree = "[session.server]\nresources = [{ kind = \"port-range\", names = [\"http\"] }]\n\
                [session.client]\nenv = { SERVER = \"{{ sessions['server'].port.http }}\" }\n";
    sandbox.manifest(tree);
    sandbox.ok(&["apply"]);
    sandbox.ok(&["spawn", "second", "--template", "client"]);
    sandbox.manifest(&tree.replace("http", "web"));
    sandbox.seedbed(&["plan"]).expect(65).says(&["`seedbed release second` releases the session"]);
    sandbox.ok(&["release", "second"]);
    sandbox.ok(&["apply", "--yes"]);
}

#[test]
fn session_without_its_discovery_file_is_no_place_for_another_swarm() {
    let sandbox = Sandbox::new();
    sandbox.manifest(TREE);
    // The manifest is committed, so that each worktree has a copy.
    sandbox.git(&["add", "--force", "seedbed.toml"]);
    sandbox.commit("manifest");
    sandbox.ok(&["apply"]);
    let lead = sandbox.directory("lead");
    fs::remove_dir_all(lead.join(".agent-context")).unwrap();
    for command in [&["apply"][..], &["spawn", "helper"], &["run", "--", "true"]] {
        let refused = sandbox.unchanged(|| sandbox.seedbed_in(&lead, command).expect(69));
        refused.says(&["is in session shop/lead, whose discovery file is missing", "status --repair"]);
    }
    sandbox.ok(&["status", "--repair"]);
    let document = sandbox.seedbed_in(&lead, &["spawn", "helper", "--json"]).expect(0).json();
    assert_eq!(document["sessionId"], "shop/lead/helper");
    sandbox.ok(&["destroy"]);
}

#[test]
fn spawn_below_a_lost_worktree_leaves_its_repair_to_apply() {
    let sandbox = applied();
    let lead = sandbox.directory("lead");
    fs::remove_dir_all(&lead).unwrap();
    sandbox.ok(&["spawn", "kid", "--parent", "lead", "--base", "main"]);
    assert!(!lead.exists());
    sandbox.ok(&["apply"]);
    sandbox.assert_clean(&lead);
    assert!(lead.join(".agent-context/resources.json").is_file());
}

#[test]
fn variable_of_another_swarms_session_does_not_count_in_a_workspace() {
    let (first, second) = (applied(), applied());
    let file = first.directory("lead").join(".agent-context/resources.json");
    let run = |args: &[&str]| {
        let mut command = second.command(args);
        command.env("AGENT_DISCOVERY_FILE", &file).env("AGENT_SESSION_ID", "shop/lead");
        Outcome::of(command.output().unwrap())
    };
    let document = run(&["spawn", "helper", "--json"]).expect(0).json();
    assert_eq!(document["sessionId"], "shop/helper");
    assert!(spawned(&first).is_empty());
    run(&["release", "helper"]).expect(0);
    assert!(spawned(&second).is_empty());
}

#[test]
fn adopted_directory_inside_a_session_stays_when_the_session_is_released() {
    let sandbox = applied();
    let inside = sandbox.directory("lead").join("build/cache");
    sandbox.write(".git/info/exclude", "build/\n");
    fs::create_dir_all(&inside).unwrap();
    fs::write(inside.join("precious"), "work\n").unwrap();
    for parent in [&["--parent", "lead"][..], &[]] {
        let adopted = inside.to_str().unwrap();
        sandbox.ok(&[&["spawn", "kid", "--adopt", adopted][..], parent].concat());
        let kid = if parent.is_empty() { "kid" } else { "lead/kid" };
        for command in ["destroy --discard", "destroy --discard lead", "apply --discard"] {
            let args: Vec<&str> = command.split(' ').collect();
            if command.starts_with("apply") {
                sandbox.manifest(&TREE.replace("agents/{{ session.slug }}", "other/{{ session.slug }}"));
            }
            let refused = sandbox.seedbed(&args).expect(69);
            refused.says(&[&format!("in which {kid} works"), &format!("`seedbed release {kid}`")]);
            assert!(inside.join("precious").is_file());
        }
        sandbox.manifest(TREE);
        sandbox.ok(&["release", kid]);
        assert!(inside.join("precious").is_file());
    }
    sandbox.ok(&["destroy"]);
}

#[test]
fn apply_goes_on_without_an_adopted_directory_that_its_tool_removed() {
    let sandbox = applied();
    let beside = sandbox.top.join("beside");
    fs::create_dir(&beside).unwrap();
    sandbox.ok(&["spawn", "feature", "--adopt", beside.to_str().unwrap()]);
    fs::remove_dir_all(&beside).unwrap();
    sandbox.manifest(&format!("{TREE}[session.more]\nresources = [\"git-worktree\"]\n"));
    let plan = sandbox.ok(&["plan"]).stdout;
    assert!(plan.contains("seedbed release feature"), "{plan}");
    sandbox.ok(&["apply"]);
    assert!(sandbox.directory("more").is_dir());
    sandbox.seedbed(&["exec", "feature", "--", "true"]).expect(125).says(&["seedbed release feature"]);
    fs::create_dir(&beside).unwrap();
    sandbox.ok(&["apply"]);
    assert!(beside.join(".agent-context/resources.json").is_file());
    fs::remove_dir_all(&beside).unwrap();
    sandbox.ok(&["release", "feature"]);
    sandbox.ok(&["destroy"]);
}

/// Calls a hook as Claude Code does: with a request on standard input, in the directory that the request names.
fn hook(sandbox: &Sandbox, directory: &Path, event: &str, key: &str, value: &str) -> Outcome {
    Outcome::of(start_hook(sandbox, directory, event, key, value).wait_with_output().unwrap())
}

fn start_hook(
    sandbox: &Sandbox,
    directory: &Path,
    event: &str,
    key: &str,
    value: &str,
) -> std::process::Child {
    use std::io::Write as _;
    let (command, name) =
        if event == "create" { ("create", "WorktreeCreate") } else { ("remove", "WorktreeRemove") };
    let request = json!({
        "session_id": "abc123",
        "transcript_path": "/home/me/.claude/projects/shop/abc123.jsonl",
        "cwd": directory,
        "hook_event_name": name,
        (key): value,
    });
    let mut hook = sandbox.command(&["hook", "claude", command]);
    hook.current_dir(directory).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut hook = hook.spawn().unwrap();
    hook.stdin.take().unwrap().write_all(request.to_string().as_bytes()).unwrap();
    hook
}

#[test]
#[ignore = "`every_case` runs it"]
fn sixteen_hooks_at_once_get_worktrees_of_their_own_in_every_case() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.lead]\nresources = [\"git-worktree\"]\n");
    sandbox.ok(&["apply"]);
    let lead = sandbox.directory("lead");
    let before = sandbox.inventory_without_records();
    let hooks: Vec<_> =
        (0..16).map(|at| start_hook(&sandbox, &lead, "create", "name", &format!("agent-{at}"))).collect();
    let outputs: Vec<Output> = hooks.into_iter().map(|hook| hook.wait_with_output().unwrap()).collect();
    let paths: BTreeSet<PathBuf> = outputs
        .into_iter()
        .map(|output| {
            let outcome = Outcome::of(output).expect(0);
            let mut lines = outcome.stdout.lines();
            let path = PathBuf::from(lines.next().unwrap());
            assert_eq!(lines.next(), None, "only the path is printed");
            assert!(path.is_absolute() && path.join(".git").is_file(), "{}", path.display());
            path
        })
        .collect();
    assert_eq!(paths.len(), 16);
    assert_eq!(spawned(&sandbox).len(), 16);
    // Claude Code opens a worktree of an earlier session by its name.
    let again = hook(&sandbox, &lead, "create", "name", "agent-3").expect(0);
    assert!(paths.contains(Path::new(again.stdout.trim_end())), "{}", again.stdout);
    // A name that is no name of a session is made one.
    let odd = hook(&sandbox, &lead, "create", "worktree_name", "feature/log in").expect(0);
    let odd = PathBuf::from(odd.stdout.trim_end());
    assert!(odd.to_str().unwrap().contains("feature-log-in"), "{}", odd.display());
    let above = hook(&sandbox, &lead, "create", "name", "../../x").expect(0);
    let above = PathBuf::from(above.stdout.trim_end());
    // A directory that is gone is not named: its tool would fail in it.
    fs::remove_dir_all(&above).unwrap();
    hook(&sandbox, &lead, "create", "name", "../../x").expect(69).says(&["no directory", "`seedbed apply`"]);
    sandbox.ok(&["apply"]);
    hook(&sandbox, &lead, "create", "name", "../../x").expect(0);
    hook(&sandbox, &lead, "remove", "worktree_path", above.to_str().unwrap()).expect(0);
    // Unsaved work stays, and so does a session of the manifest.
    fs::write(odd.join("work"), "work\n").unwrap();
    hook(&sandbox, &odd, "remove", "worktree_path", odd.to_str().unwrap()).expect(69).says(&["1 untracked"]);
    fs::remove_file(odd.join("work")).unwrap();
    hook(&sandbox, &lead, "remove", "worktree_path", lead.to_str().unwrap()).expect(64);
    hook(&sandbox, &lead, "remove", "name", "agent-3").expect(1).says(&["no `worktree_path`"]);
    let removed: Vec<_> = paths
        .iter()
        .chain([&odd])
        .map(|path| start_hook(&sandbox, &lead, "remove", "worktree_path", path.to_str().unwrap()))
        .collect();
    for hook in removed {
        let outcome = Outcome::of(hook.wait_with_output().unwrap()).expect(0);
        assert_eq!(outcome.stdout, "");
    }
    crate::sandbox::assert_same(&before, &sandbox.inventory_without_records());
    // A session is released even if its manifest was renamed.
    let last = hook(&sandbox, &lead, "create", "name", "last").expect(0).stdout;
    fs::rename(sandbox.repository.join("seedbed.toml"), sandbox.repository.join("other.toml")).unwrap();
    hook(&sandbox, &lead, "remove", "worktree_path", last.trim_end()).expect(0);
    fs::rename(sandbox.repository.join("other.toml"), sandbox.repository.join("seedbed.toml")).unwrap();
    // What is gone already is no error.
    hook(&sandbox, &sandbox.repository, "remove", "worktree_path", odd.to_str().unwrap()).expect(0);
}
