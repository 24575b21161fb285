//! Tests of children that a program provisions from a swarm's session through the library: every command recognises
//! them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::thread;
use std::time::Duration;

use seedbed::apply::Unsaved;
use seedbed::discovery::Snapshot;
use seedbed::orchestrator::{ChildError, Error, Orchestrator, Provisioned, ResourceRequest};
use seedbed::provider::Registry;
use seedbed::state::Swarm;
use serde_json::{Value, json};

use crate::cli::shells::installed;
use crate::fake_kind::Fake;
use crate::library::orchestrator::{seedbed, seedbed_command};
use crate::library_sandbox::{Sandbox, free_ports};
use crate::sandbox::Outcome;

/// Returns a manifest of `lead` with `coders` coders, and of `other`.
fn manifest(base: u16, coders: u32) -> String {
    let coder =
        if coders == 0 { String::new() } else { format!("[session.lead.child.coder]\ncount = {coders}\n") };
    format!(
        "version = 1\nswarm = \"s\"\n[session.lead]\nresources = [\"git-worktree\", {{ kind = \"port-range\", \
         base-port = {base}, block-size = 16, block-count = 2, slots = 4 }}]\n{coder}[session.other]\nresources = []\n"
    )
}

struct Stage {
    sandbox: Sandbox,
    base: u16,
    orchestrator: Orchestrator,
    before: crate::library_sandbox::Trace,
}

impl Stage {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let base = free_ports(32);
        sandbox.write("seedbed.toml", &manifest(base, 0));
        sandbox.commit("a manifest");
        let before = sandbox.trace();
        seedbed(&sandbox, &["apply"]).expect(0);
        let orchestrator = Orchestrator::new(sandbox.host.clone());
        Self { sandbox, base, orchestrator, before }
    }

    fn lead(&self) -> Snapshot {
        let whoami = self.run(&["exec", "lead", "--", "cat", ".agent-context/resources.json"]);
        serde_json::from_str(&whoami.expect(0).stdout).unwrap()
    }

    /// Provisions `helper` from `lead`, and `grandchild` from `helper`.
    fn two(&self) -> [Provisioned; 2] {
        let helper = self.orchestrator.provision_child(&self.lead(), "helper", 0, 4).unwrap();
        let below = self.orchestrator.provision_child(helper.snapshot(), "grandchild", 0, 2).unwrap();
        [helper, below]
    }

    fn run(&self, args: &[&str]) -> Outcome {
        seedbed(&self.sandbox, args)
    }

    fn end(self) {
        assert_eq!(self.sandbox.trace(), self.before);
    }
}

fn start(session: &Provisioned) -> u64 {
    session.snapshot().allocation("port-range").unwrap()["startPort"].as_u64().unwrap()
}

#[test]
fn every_command_knows_a_child_of_the_library() {
    let stage = Stage::new();
    let [helper, below] = stage.two();

    let list = stage.run(&["list"]).expect(0).stdout;
    let rows: Vec<_> =
        list.lines().skip(1).map(|row| row.split_whitespace().take(2).collect::<Vec<_>>()).collect();
    assert_eq!(rows[0][0], "s");
    assert_eq!(rows[1..], [["└", "grandchild"], ["└", "helper"]], "{list}");
    let list = stage.run(&["list", "--json"]).expect(0).json();
    let children = list["swarms"][0]["children"].as_array().unwrap();
    assert_eq!(children[1]["id"], "helper");
    assert_eq!(children[1]["childOf"], "s/lead");
    assert_eq!(children[1]["childIndex"], 0);

    fs::write(below.working_directory().join("new"), "work\n").unwrap();
    let status = stage.run(&["status"]).expect(0).stdout;
    let column: Vec<_> =
        status.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!((column[0][0], column[4][0]), ("lead", "other"), "{status}");
    assert_eq!((&column[1][..2], &column[2][..2]), (&["└", "helper"][..], &["└", "grandchild"][..]));
    assert!(status.lines().nth(4).unwrap().contains("1 untracked"), "{status}");
    let status = stage.run(&["status", "--json"]).expect(0).json();
    let of_child = &status["sessions"][2];
    assert_eq!((&of_child["id"], &of_child["childOf"]), (&json!("grandchild"), &json!("helper")));

    let told =
        stage.run(&["exec", "helper", "--", "sh", "-c", "echo $AGENT_SESSION_ID $AGENT_PORT_PRIMARY; pwd"]);
    let directory = helper.working_directory().display();
    assert_eq!(told.expect(0).stdout, format!("helper {}\n{directory}\n", start(&helper)));
    let all = stage.run(&["exec", "--all", "--", "sh", "-c", "echo $AGENT_SESSION_ID"]).expect(0).stdout;
    let all: BTreeSet<_> = all.lines().filter_map(|line| line.split(": ").nth(1)).collect();
    assert_eq!(all, BTreeSet::from(["s/lead", "helper", "grandchild", "s/other"]));
    let env = stage.run(&["env", "grandchild", "--format", "json"]).expect(0).json()["environment"].take();
    assert_eq!(env["AGENT_SESSION_ID"], "grandchild");
    assert!(stage.run(&["prompt", "helper", "Go."]).expect(0).stdout.ends_with("Go.\n"));

    let mut whoami = seedbed_command(&stage.sandbox, &["whoami"]);
    let whoami =
        Outcome::of(whoami.current_dir(below.working_directory()).output().unwrap()).expect(0).stdout;
    assert!(whoami.starts_with("session grandchild\n"), "{whoami}");
    let explained = stage.run(&["explain", &start(&below).to_string()]).expect(0).stdout;
    assert!(explained.contains("belongs to grandchild (applied)"), "{explained}");
    let path = helper.working_directory().join("README");
    let explained = stage.run(&["explain", path.to_str().unwrap()]).expect(0).stdout;
    assert!(explained.contains("of helper (applied)"), "{explained}");
    stage.run(&["explain", "helper"]).expect(0).says(&[]);
    let completed = stage.run(&["__complete", "h", "exec"]);
    assert!(completed.stdout.contains("helper") || completed.code != 0, "{completed:?}");

    fs::remove_file(below.working_directory().join("new")).unwrap();
    let destroyed = stage.run(&["destroy"]).expect(0);
    destroyed.says(&["4 sessions released; nothing is left"]);
    assert!(matches!(helper.runtime_injection(None, []), Err(Error::Released(_))));
    stage.end();
}

#[test]
fn destroying_a_session_judges_its_children_and_ends_them_first() {
    let stage = Stage::new();
    let [helper, below] = stage.two();
    let work = below.working_directory().join("new");
    fs::write(&work, "work\n").unwrap();
    let applied = stage.sandbox.trace();

    let dry = stage.run(&["destroy", "lead", "--dry-run"]).expect(69).stdout;
    assert!(dry.contains("would release grandchild, helper, lead\n"), "{dry}");
    assert!(dry.contains("  grandchild: refused: "), "{dry}");
    stage.run(&["destroy", "lead"]).expect(69).says(&["grandchild: ", "1 untracked", "nothing was changed"]);
    // By itself, too.
    stage.run(&["destroy", "helper"]).expect(69).says(&["grandchild: ", "1 untracked"]);
    assert_eq!(stage.sandbox.trace(), applied);

    // If only the session itself has work, its children remain as well.
    let of_lead = stage.lead().working_directory.join("new");
    fs::rename(&work, &of_lead).unwrap();
    stage.run(&["destroy", "lead"]).expect(69).says(&["lead: ", "1 untracked", "nothing was changed"]);
    fs::rename(&of_lead, &work).unwrap();
    assert_eq!(stage.sandbox.trace(), applied);

    // A plan that removes the session refuses because of its children, with every policy for their work.
    stage.sandbox.write("seedbed.toml", "version = 1\nswarm = \"s\"\n[session.other]\nresources = []\n");
    let refused = stage.run(&["apply", "-y", "--discard"]).expect(69);
    refused.says(&["its child `helper` is active", "seedbed destroy"]);
    stage.sandbox.git(&["checkout", "-q", "."]);
    assert_eq!(stage.sandbox.trace(), applied);

    stage.run(&["destroy", "grandchild", "--rescue"]).expect(0).says(&["3 still active"]);
    assert!(helper.working_directory().is_dir());
    let rescued = stage.sandbox.git(&["for-each-ref", "--format=%(refname)", "refs/seedbed/rescue"]);
    stage.sandbox.git(&["update-ref", "-d", rescued.trim_end()]);
    fs::write(helper.working_directory().join("new"), "work\n").unwrap();
    stage.run(&["destroy", "lead", "--discard"]).expect(0).says(&["2 sessions released, 1 still active"]);
    stage.run(&["destroy"]).expect(0);
    stage.end();
}

#[test]
fn a_child_of_a_kind_that_only_its_program_knows_keeps_the_swarm() {
    let stage = Stage::new();
    let registry = Fake::beside_the_built_in("own", |_, _| Ok(()));
    let program = Orchestrator::with_registry(stage.sandbox.host.clone(), registry);
    let [helper, below] = stage.two();
    below.release().unwrap();
    helper.release().unwrap();
    let helper = program.provision_child(&stage.lead(), "helper", 0, 1).unwrap();
    // As a program would that gives its child more than a share.
    let directory = fs::read_dir(stage.sandbox.host.state.join("sessions")).unwrap();
    let record = directory.map(|entry| entry.unwrap().path().join("applied.json")).find(|path| path.exists());
    let record = record.unwrap();
    let mut own: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    let held = own["plan"]["sessions"][0]["allocations"].as_array_mut().unwrap();
    held.push(json!({ "kind": "own", "options": {}, "allocation": {}, "shared": false, "notes": [] }));
    fs::write(&record, own.to_string()).unwrap();
    let applied = stage.sandbox.trace();
    for args in [&["destroy"][..], &["destroy", "--discard"], &["destroy", "helper"]] {
        stage.run(args).expect(69).says(&["session `helper`", "`own`", "release it with that program"]);
        assert_eq!(stage.sandbox.trace(), applied);
    }
    stage.run(&["status"]).expect(0);
    let helper = program.active("helper", &helper.snapshot().workspace_root).unwrap().unwrap();
    helper.release().unwrap();
    stage.run(&["destroy"]).expect(0);
    stage.end();
}

#[test]
fn a_new_session_gets_no_share_that_a_child_of_the_library_has() {
    let stage = Stage::new();
    let helper = stage.orchestrator.provision_child(&stage.lead(), "helper", 0, 4).unwrap();
    stage.sandbox.write("seedbed.toml", &manifest(stage.base, 3));
    stage.run(&["apply", "-y"]).expect(0);
    let status = stage.run(&["status", "--json"]).expect(0).json();
    let sessions = status["sessions"].as_array().unwrap();
    let indices: BTreeSet<_> = sessions.iter().map(|session| session["index"].as_u64().unwrap()).collect();
    assert_eq!(indices.len(), 6, "{status}");
    let plan = stage.run(&["plan", "--json"]).expect(0).json();
    let mut starts: Vec<_> = plan["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|session| session["path"].as_str().unwrap().starts_with("lead/"))
        .map(|session| session["allocations"][1]["allocation"]["startPort"].as_u64().unwrap())
        .collect();
    starts.push(start(&helper));
    starts.sort_unstable();
    let base = start(&helper);
    assert_eq!(starts, [base, base + 4, base + 8, base + 12]);
    // All shares are given: the next one has a block of its own.
    stage.sandbox.write("seedbed.toml", &manifest(stage.base, 4));
    stage.run(&["apply", "-y"]).expect(0);
    stage.run(&["destroy"]).expect(0).says(&["7 sessions released"]);
    stage.sandbox.git(&["checkout", "-q", "."]);
    stage.end();
}

#[test]
fn siblings_have_numbers_of_their_own() {
    let stage = Stage::new();
    let (orchestrator, lead) = (&stage.orchestrator, &stage.lead());
    let children: Vec<_> = thread::scope(|scope| {
        let provision =
            |at: u32| scope.spawn(move || orchestrator.provision_child(lead, &format!("c{at}"), at, 4));
        let threads: Vec<_> = (0..4).map(provision).collect();
        threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect()
    });
    let number = |session: &Provisioned| session.injected_env([])["AGENT_SESSION_INDEX"].clone();
    let numbers: BTreeSet<_> = children.iter().map(number).collect();
    assert_eq!(
        numbers,
        BTreeSet::from(["2", "3", "4", "5"].map(str::to_owned)),
        "0 and 1 are the swarm's own"
    );
    let taken = orchestrator.provision_child(lead, "another", 2, 8).unwrap_err();
    assert!(
        matches!(&taken, Error::Child(ChildError::Conflict { index: 2, session }) if session == "c2"),
        "{taken}"
    );
    // A share that is free again is allocated again.
    let free = number(&children[2]);
    children[2].release().unwrap();
    let again = orchestrator.provision_child(lead, "another", 2, 4).unwrap();
    assert_eq!(number(&again), free);
    stage.run(&["destroy", "-y"]).expect(0);
    stage.end();

    let sandbox = Sandbox::new();
    let orchestrator = Orchestrator::new(sandbox.host.clone());
    let parent = orchestrator.provision("a", &[ResourceRequest::new("git-worktree")], &sandbox.repo).unwrap();
    let one = orchestrator.provision_child(parent.snapshot(), "b", 0, 2).unwrap();
    let other = orchestrator.provision_child(parent.snapshot(), "c", 1, 2).unwrap();
    assert_ne!(number(&one), number(&other));
    assert!(orchestrator.provision_child(parent.snapshot(), "d", 1, 3).is_err());
    for session in [other, one, parent] {
        session.release().unwrap();
    }
}

/// Program of a divisible kind: sizes of a disk. A child of `lead` with the last share is refused. Requests are
/// recorded beside the program, and each disk is a file there.
const DISK: &str = r#"#!/usr/bin/env python3
import json, os, sys
request = json.load(sys.stdin)
top = os.environ["HOME"]
answer = {"protocol": 2}
if request["operation"] == "plan":
    with open(os.path.join(top, "asked"), "w") as asked:
        json.dump(request, asked)
    sessions = {s["session"]: s for s in request["sessions"]}
    allocations = answer["allocations"] = {}
    for name, session in sessions.items():
        held = session["applied"]
        if held is None and session["shareOf"] is None:
            held = {"from": 0, "to": 64}
        if held is None:
            above = sessions[session["shareOf"]]
            size = (allocations[above["session"]]["allocation"]["to"] - allocations[above["session"]]["allocation"]["from"]) // above["shares"]
            start = allocations[above["session"]]["allocation"]["from"] + session["share"] * size
            held = {"from": start, "to": start + size}
            if session["options"].get("whole"):
                answer["diagnostics"] = [{"session": name, "message": "a disk that is whole cannot be divided"}]
        allocations[name] = {"allocation": held, "env": {"DISK": "{from}-{to}".format(**held)}}
elif request["operation"] == "provision":
    open(os.path.join(top, "disk-" + request["session"].replace("/", "-")), "w").close()
elif request["operation"] == "inspect":
    answer["condition"] = "healthy"
else:
    try:
        os.remove(os.path.join(top, "disk-" + request["session"].replace("/", "-")))
    except FileNotFoundError:
        pass
print(json.dumps(answer))
"#;

/// Creates a stage whose `lead` also has a disk with these options; `None` without Python.
fn with_a_disk(options: &str) -> Option<Stage> {
    if !installed("python3") {
        return None;
    }
    let sandbox = Sandbox::new();
    let base = free_ports(32);
    let manifest =
        manifest(base, 0).replace("slots = 4 }", &format!("slots = 4 }}, {{ kind = \"disk\"{options} }}"));
    sandbox.write("seedbed.toml", &format!("{manifest}[provider.disk]\ncommand = [\"./disk\"]\n"));
    sandbox.write("disk", DISK);
    fs::set_permissions(sandbox.repo.join("disk"), fs::Permissions::from_mode(0o755)).unwrap();
    sandbox.commit("a manifest");
    let before = sandbox.trace();
    seedbed(&sandbox, &["apply"]).expect(0);
    let registry = Registry::built_in().with_external_kinds();
    let orchestrator = Orchestrator::with_registry(sandbox.host.clone(), registry);
    Some(Stage { sandbox, base, orchestrator, before })
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_child_takes_its_share_of_an_external_kind_in_every_case() {
    let Some(stage) = with_a_disk("") else { return };
    let disk = |session: &Provisioned| {
        let held = session.snapshot().allocation("disk").unwrap();
        (held["from"].as_u64().unwrap(), held["to"].as_u64().unwrap())
    };
    let asked = || {
        let text = fs::read(stage.sandbox.outside("asked")).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()["sessions"].clone()
    };
    let lead = stage.lead();
    let helper = stage.orchestrator.provision_child(&lead, "helper", 1, 4).unwrap();
    assert_eq!(disk(&helper), (16, 32));
    assert_eq!(helper.injected_env([])["DISK"], "16-32");
    assert!(stage.sandbox.outside("disk-helper").exists());
    let sessions = asked();
    assert_eq!((&sessions[0]["session"], &sessions[0]["shares"]), (&json!("s/lead"), &json!(4)));
    assert_eq!(sessions[0]["applied"], json!({ "from": 0, "to": 64 }));
    assert_eq!(
        (&sessions[1]["session"], &sessions[1]["shareOf"], &sessions[1]["share"], &sessions[1]["applied"]),
        (&json!("helper"), &json!("s/lead"), &json!(1), &Value::Null)
    );

    let below = stage.orchestrator.provision_child(helper.snapshot(), "grandchild", 1, 2).unwrap();
    assert_eq!(disk(&below), (24, 32));
    let second = stage.orchestrator.provision_child(&lead, "second", 0, 4).unwrap();
    assert_eq!(disk(&second), (0, 16));
    let sessions = asked();
    let known: Vec<_> = sessions.as_array().unwrap().iter().map(|session| &session["session"]).collect();
    assert_eq!(known, ["s/lead", "helper", "grandchild", "second"], "the program is told of all that stands");
    assert_eq!(sessions[2]["applied"], json!({ "from": 24, "to": 32 }));

    let ports_alone = Orchestrator::new(stage.sandbox.host.clone());
    let third = ports_alone.provision_child(&lead, "third", 2, 4).unwrap();
    assert_eq!(third.snapshot().allocation("disk"), None, "its registry does not know the kind");
    third.release().unwrap();

    stage.run(&["status"]).expect(0);
    // The program gets the children in its request as well when the swarm is planned again.
    stage.run(&["apply"]).expect(0);
    let sessions = asked();
    let applied = |name: &str| {
        let mut sessions = sessions.as_array().unwrap().iter();
        sessions.find(|session| session["session"] == name).map(|session| session["applied"].clone())
    };
    assert_eq!(applied("helper"), Some(json!({ "from": 16, "to": 32 })));
    assert_eq!(applied("grandchild"), Some(json!({ "from": 24, "to": 32 })));
    assert_eq!(applied("second"), Some(json!({ "from": 0, "to": 16 })));
    assert_eq!((&sessions[0]["session"], &sessions[0]["shares"]), (&json!("s/lead"), &json!(4)));
    below.release().unwrap();
    assert!(!stage.sandbox.outside("disk-grandchild").exists());
    stage.run(&["destroy"]).expect(0).says(&["4 sessions released"]);
    for name in ["s-lead", "helper", "second"] {
        assert!(!stage.sandbox.outside(&format!("disk-{name}")).exists(), "{name}");
    }
    let error = stage.orchestrator.provision_child(&lead, "late", 3, 4).unwrap_err();
    assert!(matches!(&error, Error::Released(id) if id == "s/lead"), "{error}");
    stage.end();
}

#[test]
fn a_child_is_refused_what_a_program_does_not_divide() {
    let Some(stage) = with_a_disk(", whole = true") else { return };
    let applied = stage.sandbox.trace();
    let error = stage.orchestrator.provision_child(&stage.lead(), "helper", 0, 4).unwrap_err();
    assert!(error.to_string().contains("a disk that is whole cannot be divided"), "{error}");
    assert_eq!(stage.sandbox.trace(), applied);
    let ports_alone = Orchestrator::new(stage.sandbox.host.clone());
    ports_alone.provision_child(&stage.lead(), "helper", 0, 4).unwrap().release().unwrap();
    stage.run(&["destroy"]).expect(0);
    stage.end();
}

#[test]
fn a_child_takes_its_share_of_a_kind_of_its_program() {
    let sandbox = Sandbox::new();
    let before = sandbox.trace();
    let orchestrator =
        Orchestrator::with_registry(sandbox.host.clone(), Fake::beside_the_built_in("own", |_, _| Ok(())));
    let request = ResourceRequest::new("own").with("size", 3);
    let parent = orchestrator.provision("parent", &[request], &sandbox.repo).unwrap();
    let child = orchestrator.provision_child(parent.snapshot(), "child", 1, 3).unwrap();
    assert_eq!(child.snapshot().allocation("own").unwrap()["share"], "1/3");
    let below = orchestrator.provision_child(child.snapshot(), "below", 0, 2).unwrap();
    assert_eq!(below.snapshot().allocation("own").unwrap()["share"], "0/2");
    let again = orchestrator.active("below", &sandbox.repo).unwrap().unwrap();
    assert_eq!(again.snapshot(), below.snapshot());
    for session in [below, child, parent] {
        session.release().unwrap();
    }
    assert_eq!(sandbox.trace(), before);
}

#[test]
fn child_cannot_begin_in_a_session_that_is_being_released() {
    let stage = Stage::new();
    let lead = stage.lead();
    let mut kill = seedbed_command(&stage.sandbox, &["destroy"]);
    Outcome::of(kill.env("SEEDBED_FAILPOINT", "run.intended=crash").output().unwrap()).expect(137);
    let error = stage.orchestrator.provision_child(&lead, "helper", 0, 4).unwrap_err();
    assert!(matches!(error, Error::Released(_)), "{error}");
    stage.run(&["recover"]).expect(0);

    // Nor is anything released under a child that is begun in the meantime.
    stage.run(&["apply"]).expect(0);
    let lead = stage.lead();
    let swarm = Swarm::new(&stage.sandbox.host, &stage.sandbox.repo, "s").unwrap();
    assert!(swarm.applied().unwrap().is_some());
    let helper = stage.orchestrator.provision_child(&lead, "helper", 0, 4).unwrap();
    let refused = stage.sandbox.destroy_with(&Registry::built_in(), "s", true).unwrap_err();
    assert!(refused.contains("`helper`"), "{refused}");
    helper.release().unwrap();
    stage.run(&["destroy"]).expect(0);
    stage.end();
}

#[test]
fn interrupted_child_is_released_with_its_session() {
    let stage = Stage::new();
    let [helper, below] = stage.two();
    let mut kill = seedbed_command(&stage.sandbox, &["destroy"]);
    // The grandchild no longer exists, and of the helper only its record.
    Outcome::of(kill.env("SEEDBED_FAILPOINT", "run.forgotten#2=crash").output().unwrap()).expect(137);
    assert!(!below.working_directory().exists());
    assert!(!helper.working_directory().exists());
    let list = stage.run(&["list"]).expect(0).stdout;
    assert!(list.contains("└ helper"), "{list}");
    stage.run(&["destroy"]).expect(0);
    let nothing =
        stage.orchestrator.recover(&stage.sandbox.repo, Unsaved::Keep.into(), Duration::ZERO).unwrap();
    assert!(nothing.is_empty(), "{nothing:?}");
    stage.end();
}
