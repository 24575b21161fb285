//! Tests of saved plans: exactly the reviewed plan is applied, or nothing.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;

use crate::sandbox::{Sandbox, ports, sessions};

const CODERS: &str = "[session.coder]\ncount = 2\nresources = [\"git-worktree\", \"port-range\"]\n";

/// Creates a sandbox with a saved plan of this manifest.
fn saved(rest: &str) -> (Sandbox, PathBuf) {
    let sandbox = Sandbox::new();
    sandbox.manifest(rest);
    sandbox.write(".env", "A=1\n");
    let file = sandbox.top.join("plan.json");
    sandbox.ok(&["plan", "-o", "../plan.json"]).says(&["apply exactly this"]);
    (sandbox, file)
}

#[test]
fn exactly_the_saved_plan_is_applied() {
    let (sandbox, file) = saved(CODERS);
    let plan: serde_json::Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let commit = sandbox.git(&["rev-parse", "HEAD"]);
    // A manifest that changes afterwards does not matter: the plan was reviewed, not the manifest.
    sandbox.manifest(&CODERS.replace("count = 2", "count = 5"));
    sandbox.ok(&["apply", "../plan.json"]);
    let status = sandbox.ok(&["status", "--json"]).json();
    assert_eq!(status["plan"], plan["digest"]);
    assert_eq!(sessions(&status).count(), 2);
    for session in sessions(&plan) {
        let directory = sandbox.repository.join(session["workingDirectory"].as_str().unwrap());
        assert_eq!(sandbox.git_in(&directory, &["rev-parse", "HEAD"]), commit);
    }
}

/// Changes the host after the plan was saved, and expects that the plan is refused as stale for this reason.
#[track_caller]
fn check_stale<T>(happens: impl FnOnce(&Sandbox, &serde_json::Value) -> T, said: &str) {
    let (sandbox, file) = saved(CODERS);
    let plan = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let held = happens(&sandbox, &plan);
    let refused = sandbox.unchanged(|| sandbox.seedbed(&["apply", "../plan.json"]).expect(69));
    refused.says(&["the plan is stale; nothing was changed", said, "seedbed plan -o"]);
    drop(held);
}

#[test]
fn a_plan_is_stale_when_its_ref_has_moved() {
    check_stale(|sandbox, _| sandbox.commit("second"), "coder-0: ");
}

#[test]
fn only_the_expected_plan_is_applied_and_another_one_is_shown() {
    let (sandbox, file) = saved(CODERS);
    let digest = sandbox.ok(&["plan", "--json"]).json()["digest"].as_str().unwrap().to_owned();
    let expect = |args: &[&str], code: i32| {
        sandbox.seedbed(&[&["apply", "--expect", &digest], args].concat()).expect(code)
    };
    sandbox.manifest(&CODERS.replace("count = 2", "count = 3"));
    let refused = sandbox.unchanged(|| expect(&[], 69));
    refused.says(&["since the expected plan was made", "coder-2", "--expect sha256:", "[plan-unexpected]"]);
    sandbox.manifest(CODERS);
    expect(&[], 0);
    sandbox.manifest(&CODERS.replace("count = 2", "count = 3"));
    let refused = sandbox.unchanged(|| expect(&[], 69));
    refused.says(&["the expected plan is applied, and the manifest or the host has changed", "coder-2"]);
    assert!(file.exists());
    sandbox.ok(&["destroy"]);
    let other = format!("sha256:{}", "0".repeat(64));
    sandbox.unchanged(|| sandbox.seedbed(&["apply", "../plan.json", "--expect", &other]).expect(69));
    expect(&["../plan.json"], 0);
    sandbox.seedbed(&["apply", "--expect", "abc"]).expect(64).says(&["a digest is `sha256:` and 64 digits"]);
}

#[test]
fn a_digest_approves_no_release_that_nobody_has_reviewed() {
    let (sandbox, _file) = saved(CODERS);
    // Elsewhere, nothing is applied, and the same manifest releases nothing.
    let elsewhere = sandbox.ok(&["plan", "--json"]).json()["digest"].as_str().unwrap().to_owned();
    sandbox.manifest(&CODERS.replace("count = 2", "count = 3"));
    sandbox.ok(&["apply"]);
    sandbox.manifest(CODERS);
    let refused =
        sandbox.unchanged(|| sandbox.seedbed(&["apply", "--yes", "--expect", &elsewhere]).expect(69));
    refused.says(&["also releases resources of this host", "coder-2"]);
    let shown = sandbox.ok(&["plan"]).stdout;
    let approved = shown.split_whitespace().find(|word| word.starts_with("sha256:")).unwrap();
    assert_ne!(approved, elsewhere);
    sandbox.ok(&["apply", "--yes", "--expect", approved]);
    sandbox.ok(&["apply", "--yes", "--expect", &elsewhere]);
}

#[test]
fn a_stale_plan_is_refused_with_each_reason() {
    let (sandbox, file) = saved(CODERS);
    let plan: serde_json::Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let before = sandbox.git(&["rev-parse", "--short=10", "HEAD"]);
    sandbox.commit("second");
    let after = sandbox.git(&["rev-parse", "--short=10", "HEAD"]);
    let directory = plan["sessions"][1]["workingDirectory"].as_str().unwrap();
    fs::create_dir_all(sandbox.repository.join(directory)).unwrap();
    let (start, end) = ports(&plan["sessions"][0]);
    let taken =
        [start, end].map(|port| TcpListener::bind(("127.0.0.1", u16::try_from(port).unwrap())).unwrap());
    let refused = sandbox.unchanged(|| sandbox.seedbed(&["apply", "../plan.json"]).expect(69));
    refused.says(&[
        &format!("coder-0: `HEAD` has moved from {} to {}", before.trim(), after.trim()),
        &format!("coder-1: `HEAD` has moved from {} to {}", before.trim(), after.trim()),
        &format!("coder-1: `{directory}` exists"),
        &format!("coder-0: ports {start}-{end} are not free any more: tcp port {start} is in use"),
        &format!("coder-0: ports {start}-{end} are not free any more: tcp port {end} is in use"),
    ]);
    drop(taken);
}

#[test]
fn a_saved_plan_is_shown_without_its_manifest() {
    let (sandbox, file) = saved(CODERS);
    let planned = sandbox.ok(&["plan", "-v"]).stdout;
    // The age of a base depends on the clone.
    let planned = planned.split("\nnote: HEAD is of ").next().unwrap().to_owned();
    let elsewhere = sandbox.top.join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(sandbox.seedbed_in(&elsewhere, &["show", file]).expect(0).stdout, planned);
    let json = sandbox.seedbed_in(&elsewhere, &["show", "--json", file]).expect(0).json();
    assert_eq!(json, serde_json::from_str::<serde_json::Value>(&fs::read_to_string(file).unwrap()).unwrap());
    let markdown = sandbox.seedbed_in(&elsewhere, &["show", "--format", "markdown", file]).expect(0).stdout;
    assert!(markdown.contains("coder"), "{markdown}");
    sandbox
        .seedbed_in(&elsewhere, &["show", "nowhere.json"])
        .expect(65)
        .says(&["nowhere.json cannot be read"]);
}

#[test]
fn a_plan_is_stale_when_a_path_has_come_into_being() {
    check_stale(
        |sandbox, plan| {
            let directory = plan["sessions"][1]["workingDirectory"].as_str().unwrap();
            fs::create_dir_all(sandbox.repository.join(directory)).unwrap();
        },
        "coder-1: ",
    );
}

#[test]
fn plan_is_stale_when_a_port_is_in_use() {
    check_stale(
        |_, plan| {
            let (_, end) = ports(&plan["sessions"][1]);
            TcpListener::bind(("127.0.0.1", u16::try_from(end).unwrap())).unwrap()
        },
        "are not free any more",
    );
}

#[test]
fn a_plan_is_stale_when_a_branch_has_come_into_being() {
    let (sandbox, _) =
        saved("[session.a]\nresources = [{ kind = \"git-worktree\", branch = \"agents/a\" }]\n");
    sandbox.git(&["branch", "agents/a"]);
    let refused = sandbox.unchanged(|| sandbox.seedbed(&["apply", "../plan.json"]).expect(69));
    refused.says(&["agents/a"]);
}

#[test]
fn plan_is_stale_when_the_swarm_is_applied() {
    check_stale(|sandbox, _| sandbox.ok(&["apply"]), "the swarm is applied already");
}

#[test]
fn a_plan_of_a_difference_is_stale_when_the_swarm_changed_or_went() {
    let (sandbox, _) = saved(CODERS);
    sandbox.ok(&["apply", "../plan.json"]);
    sandbox.manifest(&CODERS.replace("count = 2", "count = 3"));
    sandbox.ok(&["plan", "-o", "../next.json"]);
    sandbox.ok(&["destroy", "coder-0"]);
    let refused = sandbox.unchanged(|| sandbox.seedbed(&["apply", "../next.json"]).expect(69));
    refused.says(&["the swarm has been changed since"]);
    sandbox.ok(&["destroy"]);
    let refused = sandbox.unchanged(|| sandbox.seedbed(&["apply", "../next.json"]).expect(69));
    refused.says(&["is no longer applied"]);
}

#[test]
fn a_plan_of_a_difference_is_stale_when_something_else_has_to_be_done() {
    let (sandbox, _) = saved(CODERS);
    sandbox.ok(&["apply", "../plan.json"]);
    sandbox.manifest(&CODERS.replace("count = 2", "count = 3"));
    sandbox.ok(&["plan", "-o", "../next.json"]);
    fs::remove_dir_all(sandbox.directory("coder-1")).unwrap();
    let refused = sandbox.unchanged(|| sandbox.seedbed(&["apply", "../next.json"]).expect(69));
    refused.says(&["coder-1: ", "does not exist"]);
}

#[test]
fn an_edited_plan_is_invalid() {
    let (sandbox, file) = saved(CODERS);
    let text = fs::read_to_string(&file).unwrap();
    let check = |edited: String, said: &str| {
        assert_ne!(edited, text);
        fs::write(&file, edited).unwrap();
        let refused = sandbox.unchanged(|| sandbox.seedbed(&["apply", "../plan.json"]).expect(65));
        refused.says(&[said]);
    };
    check(text.replace("shop-coder-0", "other-coder-0"), "was edited");
    check(text.replace(".ai_ops/worktrees", "../elsewhere"), "was edited");
    check(text.replacen("\"schemaVersion\": 1", "\"schemaVersion\": 2", 1), "a newer seedbed wrote it");
    check(text.replacen("\"swarm\"", "\"swarms\"", 1), "is not a plan");
    check("{}".to_owned(), "is not a plan");
    check("not json".to_owned(), "is not a plan");
    check(text[..text.len() / 2].to_owned(), "is not a plan");
    // The actions are part of the reviewed plan.
    check(text.replacen("\"action\": \"create\"", "\"action\": \"keep\"", 1), "was edited");
    check(text.replacen("\"provision\": [\n        \"git-worktree\",", "\"provision\": [", 1), "was edited");
}

#[test]
fn a_plan_of_another_swarm_is_invalid() {
    let (sandbox, _) = saved(CODERS);
    sandbox.write("seedbed.toml", &sandbox.manifest_text(CODERS).replace("\"shop\"", "\"other\""));
    sandbox.seedbed(&["apply", "../plan.json"]).expect(65).says(&["swarm `shop`", "`other`"]);
    sandbox.seedbed(&["apply", "../nowhere.json"]).expect(65).says(&["nowhere.json"]);
}

#[test]
fn a_plan_file_cannot_say_where_things_are_written() {
    let (sandbox, file) = saved(CODERS);
    let good: serde_json::Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let session = "/sessions/0";
    let places = [
        ("/discoveryFile", ".git/config"),
        ("/discoveryFile", "../victim/resources.json"),
        ("/workingDirectory", "app"),
        ("/scopedName", "app"),
        ("/allocations/0/allocation/worktreePath", ".git"),
        ("/allocations/0/allocation/worktreeRoot", "app"),
        ("/allocations/1/allocation/lockPath", ".git/config"),
    ];
    for (field, place) in places {
        let mut bad = good.clone();
        *bad.pointer_mut(&format!("{session}{field}")).unwrap() = place.into();
        // A user who edits the file can compute its digest again.
        sign(&mut bad);
        fs::write(&file, serde_json::to_vec(&bad).unwrap()).unwrap();
        let refused = sandbox.unchanged(|| sandbox.seedbed(&["apply", "../plan.json"]).expect(65));
        refused.says(&["was edited"]);
    }
    for path in ["../x", ".git/config", "/tmp/x", "a/../../x", ".agent-context/resources.json"] {
        let edit = |plan: &mut serde_json::Value| {
            plan["sessions"][0]["files"] = serde_json::json!({ path: { "text": "x" } });
        };
        fs::write(&file, forged(&good, &edit)).unwrap();
        let refused = sandbox.unchanged(|| sandbox.seedbed(&["apply", "../plan.json"]).expect(65));
        refused.says(&["was edited"]);
    }
}

/// Returns a plan file as any user can write it: edited, with its digest computed again.
fn forged(good: &serde_json::Value, edit: &dyn Fn(&mut serde_json::Value)) -> Vec<u8> {
    let mut bad = good.clone();
    edit(&mut bad);
    let sessions = bad["sessions"].as_array().unwrap().clone();
    for (session, change) in sessions.iter().zip(bad["changes"].as_array_mut().unwrap()) {
        let resources = session["allocations"].as_array().unwrap();
        let name = |held: &serde_json::Value| held.get("name").unwrap_or(&held["kind"]).clone();
        change["session"] = session["path"].clone();
        change["provision"] = resources.iter().map(name).collect();
    }
    sign(&mut bad);
    serde_json::to_vec(&bad).unwrap()
}

/// Computes the digest of a plan file again.
fn sign(plan: &mut serde_json::Value) {
    let sessions: Vec<seedbed::plan::Session> = serde_json::from_value(plan["sessions"].clone()).unwrap();
    let content = serde_json::to_vec(&(&plan["schemaVersion"], &plan["swarm"], sessions)).unwrap();
    plan["digest"] = format!("sha256:{}", seedbed::name::sha256_hex(&content)).into();
}

/// A plan of the manifest keeps the table of a spawned session, so nothing except a spawn may bring one.
#[test]
fn plan_file_cannot_spawn_a_session() {
    let (sandbox, file) = saved(CODERS);
    let good: serde_json::Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let with = |table: serde_json::Value| {
        let edit = |plan: &mut serde_json::Value| {
            plan["sessions"][0]["spawned"] = serde_json::json!({ "table": table });
        };
        fs::write(&file, forged(&good, &edit)).unwrap();
        sandbox.seedbed(&["apply", "../plan.json"])
    };
    sandbox.unchanged(|| {
        let table = serde_json::json!({ "setup": [["touch", "PWNED"]], "resources": [] });
        with(table).expect(69).says(&["only `seedbed spawn` adds a session beside the manifest"]);
        with(serde_json::json!({ "env": { "PATH": "/tmp" } })).expect(65).says(&["cannot be set"]);
        let mut replicas = good.clone();
        replicas["sessions"][0]["spawned"] = serde_json::json!({ "table": { "count": 3 } });
        fs::write(&file, serde_json::to_vec(&replicas).unwrap()).unwrap();
        sandbox.seedbed(&["apply", "../plan.json"]).expect(65).says(&["has no `count`"]);
    });
    // A plan from before a spawn is out of date.
    fs::write(&file, serde_json::to_vec(&good).unwrap()).unwrap();
    sandbox.ok(&["apply", "../plan.json"]);
    sandbox.ok(&["plan", "-o", "../plan.json"]);
    sandbox.ok(&["spawn", "late", "--template", "coder"]);
    sandbox.unchanged(|| sandbox.seedbed(&["apply", "../plan.json"]).expect(69));
    sandbox.ok(&["plan", "-o", "../plan.json"]);
    sandbox.ok(&["apply", "../plan.json"]);
}

/// R41: a value that no manifest can contain is refused in a plan, in the library as on the command line.
#[test]
fn the_rules_of_a_manifest_hold_for_a_plan_that_is_read() {
    let (sandbox, file) = saved(
        "[session.lead]\nresources = [{ kind = \"git-worktree\", branch = \"agents/{{ session.slug }}\", copy = [\".env\"] }, { kind = \"port-range\", names = [\"http\"] }]\nenv = { A = \"1\" }\nsetup = [[\"true\"]]\n[session.lead.child.coder]\ncount = 2\nresources = [\"git-worktree\", { kind = \"port-range\", from = \"pool\" }]\n",
    );
    let good: serde_json::Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let registry = seedbed::provider::Registry::built_in().with_external_kinds();
    let read = |bytes: &[u8]| seedbed::plan::Plan::read(bytes, &registry);
    read(&forged(&good, &|_| {})).expect("what was not edited is read");
    let edits: [(&str, serde_json::Value, &str); 38] = [
        ("/swarm", "a b".into(), "not a name"),
        ("/sessions/0/env/A;touch PWNED;B", "1".into(), "the name of a variable"),
        ("/sessions/0/env/lower", "1".into(), "the name of a variable"),
        ("/sessions/0/env/PATH", "/tmp".into(), "cannot be set"),
        ("/sessions/0/env/LD_PRELOAD", "/tmp/x.so".into(), "cannot be set"),
        ("/sessions/0/env/GIT_DIR", "/tmp".into(), "cannot be set"),
        ("/sessions/0/env/AGENT_PORT_HTTP", "1".into(), "AGENT_PORT_HTTP"),
        ("/sessions/0/env/AGENT_OTHER", "1".into(), "AGENT_OTHER"),
        ("/sessions/0/env/A", "a\0b".into(), "NUL"),
        ("/sessions/0/metadata/a", "a\0b".into(), "NUL"),
        ("/sessions/0/promptSections/0", "another".into(), "its prompt"),
        ("/sessions/0/setup/0", serde_json::json!({ "arguments": [] }), "is empty"),
        ("/sessions/0/setup/0", serde_json::json!({ "arguments": [""] }), "program is empty"),
        ("/sessions/0/setup/0", serde_json::json!({ "arguments": ["a\0"] }), "NUL"),
        ("/sessions/0/setup/0", serde_json::json!({ "shell": "" }), "is empty"),
        ("/sessions/0/path", "other".into(), ""),
        ("/sessions/1/path", "lead/a b".into(), "has a path"),
        ("/sessions/1/path", "lead/coder-1".into(), ""),
        ("/sessions/1/path", "lead/CODER-1".into(), ""),
        ("/sessions/1/parent", serde_json::Value::Null, "is not below its parent"),
        ("/sessions/0/children", serde_json::json!([]), "other children"),
        ("/sessions/1/index", 0.into(), "of another session"),
        ("/sessions/1/replica", 7.into(), "has a number"),
        ("/sessions/1/slug", "lead".into(), ""),
        ("/sessions/0/allocations/0/kind", "nothing".into(), "is not a kind"),
        ("/sessions/0/allocations/1/kind", "git-worktree".into(), "twice"),
        ("/sessions/0/allocations/1/name", "git-worktree".into(), "twice"),
        ("/sessions/0/allocations/1/name", "port-range".into(), "after its kind"),
        ("/sessions/0/allocations/1/name", "other".into(), "AGENT_OTHER_PORT"),
        ("/sessions/0/allocations/1/name", "a\nb".into(), ""),
        ("/sessions/0/allocations/0/options/base-ref", 1.into(), "must be a string"),
        ("/sessions/0/allocations/0/options/other", 1.into(), "unknown key"),
        ("/sessions/0/allocations/0/allocation/commit", "--help".into(), "these places"),
        ("/sessions/0/allocations/0/allocation/branch", "a..b".into(), "these places"),
        (
            "/sessions/0/allocations/0/allocation/copy",
            serde_json::json!(["../../etc/passwd"]),
            "these places",
        ),
        ("/sessions/0/allocations/0/allocation/worktreeInclude", serde_json::json!(["*"]), "these places"),
        ("/sessions/0/allocations/0/allocation/worktreeRoot", "app".into(), "these places"),
        ("/sessions/0/allocations/1/allocation/primaryPort", 80.into(), ""),
    ];
    let mut wrong = Vec::new();
    for (pointer, value, why) in edits {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let bytes = forged(&good, &|plan| match plan.pointer_mut(parent).unwrap() {
            serde_json::Value::Object(fields) => drop(fields.insert(key.to_owned(), value.clone())),
            serde_json::Value::Array(values) => values[key.parse::<usize>().unwrap()] = value.clone(),
            other => panic!("{other}"),
        });
        let error = read(&bytes).map_or_else(|error| error.to_string(), |_| "was read".to_owned());
        if !error.starts_with("was edited: ") || !error.contains(why) {
            wrong.push(format!("{pointer}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // The command line reads plans the same way, to show and to apply them.
    let edit = |plan: &mut serde_json::Value| plan["sessions"][0]["env"]["A;touch PWNED;B"] = "1".into();
    fs::write(&file, forged(&good, &edit)).unwrap();
    for command in ["show", "apply"] {
        let refused = sandbox.unchanged(|| sandbox.seedbed(&[command, "../plan.json"]).expect(65));
        refused.says(&["was edited", "A;touch PWNED;B"]);
    }
}

/// A plan file may be from a stranger: `show` prints all that it would set and run.
#[test]
fn show_prints_all_that_a_plan_sets_and_runs() {
    let (sandbox, _) = saved(
        "[session.coder]\ncount = 2\nenv = { TOKEN = \"x-{{ session.index }}\" }\nprompt = [\"Be kind.\"]\nsetup = [\"make all\"]\nteardown = [[\"make\", \"clean\"]]\n",
    );
    let shown = sandbox.ok(&["show", "../plan.json"]).stdout;
    for text in ["TOKEN=x-0", "TOKEN=x-1", "make all", "\"clean\"", "Be kind."] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
}

#[test]
fn output_file_replaces_only_an_earlier_output_of_the_command() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\ncommand = \"true\"\n");
    sandbox.ok(&["apply"]);
    for command in
        [&["plan"][..], &["export", "--format", "tmux"], &["export", "--format", "process-compose"]]
    {
        let write = |file: &str| sandbox.seedbed(&[command, &["-o", file]].concat());
        sandbox
            .unchanged(|| write("seedbed.toml").expect(64).says(&["seedbed.toml exists", "[output-exists]"]));
        for _ in 0..2 {
            write("../written").expect(0);
        }
        fs::write(sandbox.top.join("written"), "").unwrap();
        write("../written").expect(0);
        fs::remove_file(sandbox.top.join("written")).unwrap();
    }
}
