//! External kinds: programs that plan, make and take away resources, sound ones and all sorts of others.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::process::Signal;
use seedbed::provider::external::protocol::Protocol;
use serde_json::{Value, json};

use crate::sandbox::{Outcome, Sandbox, send, sessions, wait_until};
use crate::shells::installed;
use crate::support::repository;

/// The manifest of two sessions with a worktree and a thing each, one of them below the other.
const THINGS: &str = r#"
[provider.thing]
command = ["./tools/thing"]
timeout = 100
[session.a]
resources = ["git-worktree", { kind = "thing", size = 3 }]
[session.b]
resources = ["git-worktree", "thing"]
"#;

/// What a sound program answers to `plan`.
const PLAN: &str = r#"{"protocol": 1, "allocations": {
    "shop/a": {"allocation": {"name": "thing of a"}, "env": {"THING": "a in {{ workspace.root }}"}},
    "shop/b": {"allocation": {"name": "thing of b"}, "notes": ["b is the larger one"]}}}"#;

/// The part of it that session `b` has.
const B: &str = r#",
    "shop/b": {"allocation": {"name": "thing of b"}, "notes": ["b is the larger one"]}"#;

/// A sandbox whose program of kind `thing` notes what it is asked in the file `asked`, one request a line, and does what
/// the shell function of the operation does.
fn things(operations: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    program(&sandbox, operations);
    sandbox.manifest(THINGS);
    sandbox
}

fn program(sandbox: &Sandbox, operations: &str) {
    let top = sandbox.top.display();
    let script = format!(
        r#"#!/bin/sh
request=$(cat)
printf '%s\n' "$request" >>'{top}/asked'
done='{{"protocol": 1}}'
plan() {{ cat <<'END'
{PLAN}
END
}}
provision() {{ echo "$done"; }}
inspect() {{ echo '{{"protocol": 1, "condition": "sound"}}'; }}
release() {{ echo "$done"; }}
is_of() {{ case $request in *"\"session\":\"shop/$1\""*) ;; *) false ;; esac; }}
top='{top}'
{operations}
operation=${{request#*'"operation":"'}}
"${{operation%%'"'*}}"
"#
    );
    sandbox.write("tools/thing", &script);
    let path = sandbox.repository.join("tools/thing");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    sandbox.commit("the program");
}

/// What the program was asked since the last call.
fn asked(sandbox: &Sandbox) -> Vec<Value> {
    let path = sandbox.top.join("asked");
    let text = fs::read_to_string(&path).unwrap_or_default();
    let _ = fs::remove_file(path);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Operation and session of each request, in order of the text.
fn steps(requests: &[Value]) -> Vec<String> {
    let text = |request: &Value, key: &str| request[key].as_str().unwrap_or_default().to_owned();
    let mut steps: Vec<_> = requests
        .iter()
        .map(|request| format!("{} {}", text(request, "operation"), text(request, "session")))
        .collect();
    steps.sort();
    steps
}

#[test]
fn a_plan_is_asked_once_and_stands_for_review() {
    let sandbox = things("");
    let plan = sandbox.unchanged(|| sandbox.plan());
    let requests = asked(&sandbox);
    let expected = json!({
        "operation": "plan", "protocol": 1, "kind": "thing", "swarm": "shop",
        "sessions": [
            { "session": "shop/a", "path": "a", "index": 0, "name": "", "shareOf": null, "share": null, "shares": 0,
              "standing": null, "options": { "size": 3 } },
            { "session": "shop/b", "path": "b", "index": 1, "name": "", "shareOf": null, "share": null, "shares": 0,
              "standing": null, "options": {} },
        ],
    });
    let mut requests = requests;
    for (session, slug) in
        requests[0]["sessions"].as_array_mut().unwrap().iter_mut().zip(["shop-a-", "shop-b-"])
    {
        let name = session["name"].as_str().unwrap();
        assert!(name.starts_with(slug) && name.len() == slug.len() + 12, "{name}");
        session["name"] = "".into();
    }
    assert_eq!(requests, [expected]);
    let held = &sessions(&plan).next().unwrap()["allocations"][1];
    assert_eq!(held["allocation"], json!({ "name": "thing of a" }));
    assert_eq!(held["external"]["command"], json!(["./tools/thing"]));
    assert_eq!(held["external"]["timeout"], 100);
    let text = sandbox.ok(&["plan"]).stdout;
    for part in ["thing of a", "b is the larger one", "a program of the manifest: ./tools/thing"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn what_was_planned_is_made_told_kept_and_taken_away() {
    let sandbox = things("");
    let before = sandbox.inventory();
    sandbox.ok(&["plan", "-o", "saved.json", "--quiet"]);
    asked(&sandbox);
    sandbox.ok(&["apply", "saved.json"]);
    let requests = asked(&sandbox);
    assert_eq!(
        steps(&requests),
        ["provision shop/a", "provision shop/b"],
        "a saved plan is not planned again"
    );
    let of_a = requests.iter().find(|request| request["session"] == "shop/a").unwrap();
    assert_eq!(of_a["options"], json!({ "size": 3 }));
    assert_eq!(of_a["allocation"], json!({ "name": "thing of a" }));
    assert_eq!(of_a["owner"].as_str().unwrap().len(), 32);
    fs::remove_file(sandbox.repository.join("saved.json")).unwrap();

    let env = sandbox.ok(&["env", "a", "--format", "json"]).json();
    assert_eq!(env["THING"], format!("a in {}", sandbox.repository.display()));
    let found = sandbox.ok(&["exec", "a", "--", "cat", ".agent-context/resources.json"]).json();
    assert_eq!(
        found["hardConstraints"][1],
        json!({ "kind": "thing", "allocation": { "name": "thing of a" } })
    );
    asked(&sandbox);
    sandbox.ok(&["apply"]).says(&["nothing to do"]);
    assert_eq!(steps(&asked(&sandbox)), ["inspect shop/a", "inspect shop/b", "plan "]);
    // Who made it takes it away, whatever the manifest says by then.
    sandbox.manifest("[session.other]\n");
    sandbox.ok(&["destroy"]);
    let requests = asked(&sandbox);
    assert!(steps(&requests).ends_with(&["release shop/a".to_owned(), "release shop/b".to_owned()]));
    sandbox.manifest(THINGS);
    crate::sandbox::assert_same(&before, &sandbox.inventory());
}

#[test]
fn children_take_shares() {
    let operations = r#"plan() { echo '{"protocol": 1, "allocations": {"shop/a": {"allocation": {}}, "shop/a/c": {"allocation": {"part": 1}}}}'; }"#;
    let sandbox = things(operations);
    sandbox.manifest("[provider.thing]\ncommand = ['./tools/thing']\n[session.a]\nresources = [{ kind = 'thing', size = 1 }]\n[session.a.child.c]\n");
    let plan = sandbox.plan();
    let request = &asked(&sandbox)[0];
    assert_eq!(request["sessions"][0]["shares"], 1);
    assert_eq!(request["sessions"][1]["shareOf"], "shop/a");
    assert_eq!(
        (&request["sessions"][0]["share"], &request["sessions"][1]["share"]),
        (&Value::Null, &json!(0))
    );
    assert_eq!(request["sessions"][1]["options"], json!({ "size": 1 }), "options are taken along");
    let child = &sessions(&plan).nth(1).unwrap()["allocations"][0];
    assert_eq!((&child["shared"], &child["withinParent"]), (&json!(true), &json!(true)));
}

/// The program of a pool: the lowest number that no session has.
const POOL: &str = r#"#!/usr/bin/env python3
import json, sys
request = json.load(sys.stdin)
answer = {"protocol": 1}
if request["operation"] == "plan":
    sessions = request["sessions"]
    taken = {s["standing"]["number"] for s in sessions if s["standing"]}
    allocations = answer["allocations"] = {}
    for session in sessions:
        number = next(n for n in range(99) if n not in taken)
        held = session["standing"] or {"number": number, "name": session["name"]}
        taken.add(held["number"])
        allocations[session["session"]] = {"allocation": held, "env": {"POOL_NAME": session["name"]}}
elif request["operation"] == "inspect":
    answer["condition"] = "sound"
elif request["allocation"]["name"] != request["name"]:
    answer["error"] = "another name than planned: " + json.dumps(request)
print(json.dumps(answer))
"#;

#[test]
fn a_program_plans_from_a_pool_by_what_stands() {
    if !installed("python3") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write("tools/pool", POOL);
    let path = sandbox.repository.join("tools/pool");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    sandbox.commit("the program");
    let manifest = |sessions: &[&str]| {
        let table = |text: String, name: &&str| text + "[session." + name + "]\nresources = ['pool']\n";
        let tables = sessions.iter().fold(String::new(), table);
        sandbox.manifest(&format!("[provider.pool]\ncommand = ['./tools/pool']\n{tables}"));
    };
    let number = |session: &str| {
        let plan = sandbox.plan();
        let found = sessions(&plan).find(|found| found["path"] == session).unwrap();
        found["allocations"][0]["allocation"]["number"].as_u64().unwrap()
    };
    manifest(&["a", "c"]);
    let clone = sandbox.clone_to("other");
    assert_eq!(sandbox.plan(), sandbox.plan_in(&clone), "the same bytes in every clone");
    sandbox.ok(&["apply"]);
    manifest(&["a", "b", "c"]);
    assert_eq!((number("a"), number("b"), number("c")), (0, 2, 1), "who comes between gets what is free");
    sandbox.ok(&["apply"]);
    sandbox.seedbed_in(&clone, &["apply"]).expect(0);
    let name = |directory: &Path| {
        sandbox.seedbed_in(directory, &["env", "a", "--format", "json"]).expect(0).json()["POOL_NAME"].clone()
    };
    assert_ne!(name(&sandbox.repository), name(&clone));
    sandbox.ok(&["destroy"]);
    sandbox.seedbed_in(&clone, &["destroy"]).expect(0);
}

/// The program of a pool that all swarms of the host share: what is in use lies in the directory `TOP/pool`, a file for
/// each number, which holds its owner. `plan` gives the lowest that is free. It waits for `TOP/both` once it has chosen, so
/// that two runs choose the same.
const SHARED_POOL: &str = r#"#!/usr/bin/env python3
import json, os, sys, time
top = os.environ["POOL"]
request = json.load(sys.stdin)
answer = {"protocol": 1}
file = lambda number: os.path.join(top, str(number))
def owner(number):
    try:
        return open(file(number)).read()
    except FileNotFoundError:
        return None
if request["operation"] == "plan":
    held, allocations = set(), answer.setdefault("allocations", {})
    for session in request["sessions"]:
        number = next(n for n in range(99) if n not in held and owner(n) is None)
        held.add(number)
        allocations[session["session"]] = {"allocation": session["standing"] or {"number": number}}
    planned = os.path.join(top, "planned-" + str(os.getppid()))
    if not os.path.exists(planned):
        open(planned, "w").close()
        while sum(name.startswith("planned-") for name in os.listdir(top)) < 2:
            time.sleep(0.01)
elif request["operation"] == "provision":
    number, mine = request["allocation"]["number"], request["owner"]
    new = file(f".new-{os.getpid()}")
    with open(new, "w") as made:
        made.write(mine)
    try:
        os.link(new, file(number))
    except FileExistsError:
        if owner(number) != mine:
            answer["taken"] = f"number {number} is in use by {owner(number)}"
    os.remove(new)
elif request["operation"] == "inspect":
    answer["condition"] = "sound" if owner(request["allocation"]["number"]) == request["owner"] else "broken"
elif owner(request["allocation"]["number"]) == request["owner"]:
    os.remove(file(request["allocation"]["number"]))
print(json.dumps(answer))
"#;

/// R45, R46: of two swarms that race for one external resource, the loser is told before it makes a worktree, and plans
/// again.
#[test]
fn a_swarm_that_loses_an_external_resource_to_another_plans_again() {
    if !installed("python3") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write("tools/pool", SHARED_POOL);
    let path = sandbox.repository.join("tools/pool");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    sandbox.commit("the program");
    sandbox.manifest(
        "[provider.pool]\ncommand = ['./tools/pool']\nclaim = true\n\
         [session.a]\nresources = ['git-worktree', 'pool']\n[session.b]\nresources = ['git-worktree', 'pool']\n",
    );
    let clone = sandbox.clone_to("other");
    let pool = sandbox.top.join("pool");
    fs::create_dir(&pool).unwrap();
    let apply = |directory: &Path| {
        let mut command = sandbox.command(&["apply", "-v"]);
        let command = command.current_dir(directory).env("POOL", &pool).stdout(std::process::Stdio::piped());
        command.stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let runs = [apply(&sandbox.repository), apply(&clone)];
    let runs = runs.map(|run| Outcome::of(run.wait_with_output().unwrap()).expect(0));
    let losers: Vec<_> = runs.iter().filter(|run| run.stderr.contains("planning again")).collect();
    let [loser] = losers[..] else {
        panic!("one of two has to lose: {}\n{}", runs[0].stderr, runs[1].stderr)
    };
    let tried = loser.stderr.split("planning again").next().unwrap();
    assert!(tried.contains("is in use by"), "{tried}");
    assert!(!tried.contains("a: git-worktree\n"), "no worktree before the claims: {tried}");
    let mut owners: Vec<_> =
        (0..4).map(|at| fs::read_to_string(pool.join(at.to_string())).unwrap()).collect();
    owners.sort();
    assert!(owners[0] == owners[1] && owners[1] != owners[2] && owners[2] == owners[3], "{owners:?}");
    for directory in [&sandbox.repository, &clone] {
        let destroyed =
            sandbox.command(&["destroy"]).current_dir(directory).env("POOL", &pool).output().unwrap();
        Outcome::of(destroyed).expect(0);
    }
    assert!((0..9).all(|at| !pool.join(at.to_string()).exists()), "nothing is left in use");
}

#[test]
fn program_that_plans_what_it_reports_as_taken_is_named() {
    let sandbox = things(
        r#"plan() { echo '{"protocol": 1, "allocations": {"shop/a": {"allocation": {"db": 1}}, "shop/b": {"allocation": {"db": 2}}}}'; }
provision() { echo '{"protocol": 1, "taken": "db 1 is in use"}'; }"#,
    );
    let said = "db 1 is in use; `./tools/thing` plans the same allocation again";
    let failed = sandbox.seedbed(&["apply"]).expect(1).says(&[said]);
    assert_eq!(failed.stderr.matches("planning again").count(), 2, "{}", failed.stderr);
    assert!(!sandbox.repository.join(".ai_ops").exists());
}

#[test]
fn one_allocation_for_two_sessions_that_share_none_is_a_fault() {
    let same = r#"plan() { echo '{"protocol": 1, "allocations": {"shop/a": {"allocation": {"db": 1}}, "shop/b": {"allocation": {"db": 1}}}}'; }"#;
    let sandbox = things(same);
    let refused = sandbox.unchanged(|| sandbox.seedbed(&["apply", "--json"]).expect(65));
    assert!(
        refused.stdout.contains("one allocation to `shop/a` and to `shop/b`, which share none"),
        "{refused:?}"
    );
    // A child shares its parent's.
    let shared = same.replace("shop/b", "shop/a/b");
    let sandbox = things(&shared);
    sandbox.manifest("[provider.thing]\ncommand = ['./tools/thing']\n[session.a]\nresources = ['thing']\n[session.a.child.b]\n");
    sandbox.ok(&["apply"]);
    // What is kept counts too, whatever the program answers for it.
    program(
        &sandbox,
        r#"plan() { echo '{"protocol": 1, "allocations": {"shop/a": {"allocation": {"db": 9}}, "shop/a/b": {"allocation": {"db": 9}}, "shop/c": {"allocation": {"db": 1}}}}'; }"#,
    );
    sandbox.manifest("[provider.thing]\ncommand = ['./tools/thing']\n[session.a]\nresources = ['thing']\n[session.a.child.b]\n[session.c]\nresources = ['thing']\n");
    let refused = sandbox.unchanged(|| sandbox.seedbed(&["plan", "--json"]).expect(65));
    assert!(refused.stdout.contains("one allocation to `shop/a` and to `shop/c`"), "{refused:?}");
}

#[test]
fn checking_a_manifest_runs_no_program() {
    let sandbox = things("exit 1");
    sandbox.unchanged(|| sandbox.ok(&["validate"]));
    sandbox.unchanged(|| sandbox.seedbed(&["doctor"]));
    let explained = sandbox.unchanged(|| sandbox.ok(&["explain", "a"])).stdout;
    assert!(explained.contains("thing is planned by ./tools/thing, which is not asked here"), "{explained}");
    sandbox.ok(&["__complete", "--current=", "--", "seedbed", "run", "--session"]);
    sandbox.manifest(&THINGS.replace("[session.b]", "[session.b]\nresource = []"));
    sandbox.unchanged(|| sandbox.seedbed(&["plan"]).expect(65));
    assert_eq!(asked(&sandbox), [] as [Value; 0]);
    sandbox.manifest(THINGS);
    sandbox.seedbed(&["plan"]).expect(65);
    assert_eq!(asked(&sandbox).len(), 1);
}

#[test]
fn a_program_that_gives_no_plan_is_a_fault_of_its_command() {
    let slow = THINGS.replace("timeout = 100", "timeout = 1");
    for (operations, manifest, said) in [
        ("plan() { echo broken >&2; exit 3; }", THINGS, &["exit status: 3", "broken"][..]),
        ("plan() { kill -KILL $$; }", THINGS, &["signal: 9"]),
        ("plan() { sleep 1000; }", &slow, &["was ended after 1 s without a result"]),
        ("plan() { :; }", THINGS, &["cannot be read", "nothing"]),
        ("plan() { printf 'hello \\033[2J'; }", THINGS, &["cannot be read", "hello \\u{1b}[2J"]),
        ("plan() { echo '[]'; }", THINGS, &["cannot be read"]),
        ("plan() { echo '{\"protocol\": 1, \"allocation\": {}}'; }", THINGS, &["unknown field"]),
        ("plan() { echo '{\"protocol\": 2}'; }", THINGS, &["version 2 of the protocol"]),
        ("plan() { echo '{\"protocol\": 1}'; }", THINGS, &["planned nothing for `shop/a`"]),
        (
            "plan() { echo '{\"protocol\": 1, \"allocations\": {\"shop/c\": {\"allocation\": {}}}}'; }",
            THINGS,
            &["speaks of `shop/c`"],
        ),
        (
            "plan() { echo '{\"protocol\": 1, \"allocations\": {\"shop/a\": {\"allocation\": {}, \"env\": {\"PATH\": \"/\"}}}}'; }",
            THINGS,
            &["`PATH` is not a session's to set"],
        ),
        (
            "plan() { echo '{\"protocol\": 1, \"allocations\": {\"shop/a\": {\"allocation\": {}, \"env\": {\"a b\": \"\"}}}}'; }",
            THINGS,
            &["`a b` cannot be the name of a variable"],
        ),
        ("", &THINGS.replace("tools/thing", "tools/none"), &["cannot start", "tools/none"]),
    ] {
        let sandbox = things(operations);
        sandbox.manifest(manifest);
        for command in ["plan", "apply"] {
            let outcome = sandbox.unchanged(|| sandbox.seedbed(&[command, "--json"]).expect(65));
            let document = outcome.json();
            let faults = document["faults"].as_array().unwrap();
            let at_the_command = |fault: &Value| fault["line"] == 9 && fault["label"] == "gave no plan";
            assert!(faults.iter().all(at_the_command), "{operations}: {faults:?}");
            for said in said {
                let says = |fault: &Value| fault["message"].as_str().unwrap().contains(said);
                assert!(faults.iter().any(says), "{operations}: {said} is not in {faults:?}");
            }
            let text = sandbox.seedbed(&[command]).expect(65).stderr;
            assert!(text.contains("[seedbed.toml:9:11]") && !text.contains('\u{1b}'), "{text:?}");
        }
    }
}

#[test]
fn a_fault_that_a_program_finds_stands_at_the_option() {
    let operations = r#"plan() { echo '{"protocol": 1, "faults": [
        {"session": "shop/a", "option": "size", "message": "3 is too small", "help": "write 4"},
        {"session": "shop/b", "message": "there is no room for it"}]}'; }"#;
    let sandbox = things(operations);
    let faults = sandbox.unchanged(|| sandbox.seedbed(&["plan", "--json"]).expect(65).json());
    let faults = faults["faults"].as_array().unwrap();
    assert_eq!(faults.len(), 2, "{faults:#?}");
    let text = fs::read_to_string(sandbox.repository.join("seedbed.toml")).unwrap();
    let at = |fault: &Value| {
        let position = |key: &str| usize::try_from(fault[key].as_u64().unwrap()).unwrap();
        let line = text.lines().nth(position("line") - 1).unwrap();
        line[position("column") - 1..position("column") - 1 + position("length")].to_owned()
    };
    assert_eq!((at(&faults[0]).as_str(), &faults[0]["message"]), ("3", &json!("3 is too small")));
    assert_eq!(faults[0]["help"], "write 4");
    assert_eq!(
        (at(&faults[1]).as_str(), &faults[1]["message"]),
        ("\"thing\"", &json!("there is no room for it"))
    );
}

#[test]
fn a_failure_takes_everything_away_again() {
    let slow = THINGS.replace("timeout = 100", "timeout = 1");
    for (operation, manifest, said) in [
        ("echo '{\"protocol\": 1, \"error\": \"no room for b\"}'", THINGS, "no room for b"),
        ("echo 'no luck' >&2; exit 4", THINGS, "no luck"),
        ("kill -KILL $$", THINGS, "137"),
        ("echo garbage", THINGS, "cannot be read"),
        ("sleep 1000", &slow, "was ended after 1 s"),
    ] {
        let sandbox =
            things(&format!("provision() {{ if is_of b; then {operation}; else echo \"$done\"; fi; }}"));
        sandbox.manifest(manifest);
        let outcome = sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(1));
        outcome.says(&["b: provision thing", said, "taken away again"]);
        let steps = steps(&asked(&sandbox));
        for step in ["release shop/a", "release shop/b"] {
            assert!(steps.iter().any(|asked| asked == step), "{operation}: {steps:?}");
        }
    }
}

#[test]
fn a_release_that_fails_is_told_and_tried_again() {
    let sandbox =
        things("release() { test -e \"$top/mended\" && echo \"$done\" || { echo stuck >&2; exit 1; }; }");
    let before = sandbox.inventory();
    sandbox.ok(&["apply"]);
    sandbox.seedbed(&["destroy"]).expect(73).says(&["a: release thing", "stuck", "seedbed recover"]);
    fs::write(sandbox.top.join("mended"), "").unwrap();
    sandbox.ok(&["recover"]);
    crate::sandbox::assert_same(&before, &sandbox.inventory());
}

#[test]
fn what_would_be_lost_is_refused() {
    let sandbox =
        things(r#"inspect() { echo '{"protocol": 1, "condition": "sound", "losses": ["12 rows"]}'; }"#);
    sandbox.ok(&["apply"]);
    sandbox.unchanged(|| sandbox.seedbed(&["destroy"]).expect(69).says(&["12 rows"]));
    sandbox.ok(&["destroy", "--discard"]);
}

/// The server that a lease is on does not run.
#[test]
fn what_cannot_be_inspected_is_unknown_and_refused() {
    let operations = r#"inspect() { test -e "$top/down" && { echo "connection refused" >&2; exit 1; }; echo '{"protocol": 1, "condition": "sound"}'; }"#;
    let sandbox = things(operations);
    sandbox.ok(&["apply"]);
    fs::write(sandbox.top.join("down"), "").unwrap();
    let unknown =
        ["nobody can say how its thing is", "connection refused", "start what `./tools/thing` needs"];
    for args in [
        &["apply"][..],
        &["apply", "--rescue"],
        &["destroy"],
        &["destroy", "--rescue"],
        &["destroy", "--dry-run"],
    ] {
        let refused = sandbox.unchanged(|| sandbox.seedbed(args).expect(69));
        let said = refused.stdout + &refused.stderr;
        for part in unknown {
            assert!(said.contains(part), "{args:?}: {part}: {said}");
        }
        assert!(!said.contains("commit it to a branch"), "{args:?}: {said}");
    }
    let plan = sandbox.unchanged(|| sandbox.ok(&["plan"])).stdout;
    assert!(plan.contains("apply refuses this as it stands: a: nobody can say"), "{plan}");
    asked(&sandbox);
    let status = sandbox.unchanged(|| sandbox.ok(&["status"])).stdout;
    assert!(unknown.iter().all(|part| status.contains(part)), "{status}");
    fs::remove_file(sandbox.top.join("down")).unwrap();
    asked(&sandbox);
    sandbox.ok(&["status"]);
    assert_eq!(steps(&asked(&sandbox)), ["inspect shop/a", "inspect shop/b"], "once per lease and command");
    sandbox.ok(&["destroy"]);
}

/// Each inspection waits until the other has begun, for three seconds at most.
#[test]
fn leases_are_inspected_at_once_and_once_in_a_command() {
    let operations = r#"inspect() {
    echo begins >>"$top/inspected"
    n=0
    while test "$(grep -c begins "$top/inspected")" -lt 2 && test $n -lt 100; do n=$((n + 1)); sleep 0.03; done
    echo ends >>"$top/inspected"
    echo '{"protocol": 1, "condition": "sound"}'
}"#;
    let sandbox = things(operations);
    sandbox.ok(&["apply"]);
    asked(&sandbox);
    for args in [&["status"][..], &["plan"], &["apply"], &["destroy", "--dry-run"], &["destroy"]] {
        let _ = fs::remove_file(sandbox.top.join("inspected"));
        sandbox.ok(args);
        let steps = steps(&asked(&sandbox));
        let inspected: Vec<_> = steps.iter().filter(|step| step.starts_with("inspect")).collect();
        assert_eq!(inspected, ["inspect shop/a", "inspect shop/b"], "{args:?}: {steps:?}");
        let times = fs::read_to_string(sandbox.top.join("inspected")).unwrap();
        assert!(times.starts_with("begins\nbegins\n"), "{args:?}: {times}");
    }
    // What a plan releases is inspected for its unsaved work too.
    sandbox.ok(&["apply"]);
    sandbox.manifest(THINGS.split("[session.b]").next().unwrap());
    sandbox.write(
        "tools/thing",
        &fs::read_to_string(sandbox.repository.join("tools/thing")).unwrap().replace(B, ""),
    );
    asked(&sandbox);
    let _ = fs::remove_file(sandbox.top.join("inspected"));
    sandbox.ok(&["plan"]);
    assert_eq!(steps(&asked(&sandbox)), ["inspect shop/a", "inspect shop/b", "plan "]);
}

#[test]
fn what_is_broken_is_made_again_and_what_can_be_mended_is() {
    let operations =
        r#"inspect() { cat "$top/found" 2>/dev/null || echo '{"protocol": 1, "condition": "sound"}'; }"#;
    for (condition, expected) in [
        ("broken", &["provision shop/a", "provision shop/b", "release shop/a", "release shop/b"][..]),
        ("mendable", &["provision shop/a", "provision shop/b"]),
    ] {
        let sandbox = things(operations);
        sandbox.ok(&["apply"]);
        let found = json!({ "protocol": 1, "condition": condition, "why": "it has a crack" });
        fs::write(sandbox.top.join("found"), found.to_string()).unwrap();
        assert!(sandbox.ok(&["plan"]).stdout.contains("thing: it has a crack"));
        asked(&sandbox);
        sandbox.ok(&["apply"]);
        let mut steps = steps(&asked(&sandbox));
        steps.retain(|step| step.starts_with("provision") || step.starts_with("release"));
        assert_eq!(steps, expected, "{condition}");
        fs::remove_file(sandbox.top.join("found")).unwrap();
        sandbox.ok(&["destroy"]);
    }
}

/// A program that is still making something must not be overtaken by the one that takes it away.
#[test]
fn after_a_kill_recovery_waits_for_the_program() {
    let operations = r#"provision() {
        echo $$ >"$top/started"; while test -d "$top" && ! test -e "$top/go"; do sleep 0.02; done
        echo "$done"; }"#;
    let sandbox = things(operations);
    sandbox.manifest(&THINGS.replace("[session.b]\nresources = [\"git-worktree\", \"thing\"]\n", ""));
    program(
        &sandbox,
        &format!(
            "{operations}\nplan() {{ echo '{{\"protocol\": 1, \"allocations\": {{\"shop/a\": {{\"allocation\": {{}}}}}}}}'; }}"
        ),
    );
    let before = sandbox.inventory();
    let mut run = sandbox.start(&["apply"]);
    let started = || fs::read_to_string(sandbox.top.join("started")).unwrap_or_default();
    wait_until("the program runs", || started().ends_with('\n'));
    let pid: i32 = started().trim().parse().unwrap();
    send(Signal::KILL, &run);
    run.wait().unwrap();
    asked(&sandbox);
    let left = format!("locked by what a killed run left running: pid {pid} ");
    sandbox
        .seedbed(&["recover", "--lock-timeout", "0"])
        .expect(75)
        .says(&["left running", &format!("pid {pid} ")]);
    assert_eq!(asked(&sandbox), [] as [Value; 0]);
    // Without a limit of its own it waits, and says for what.
    let mut command = sandbox.command(&["recover"]);
    let mut recover = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut said = std::io::BufReader::new(recover.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    assert!(line.contains("waiting up to 60 s") && line.contains(&left[..20]), "{line}");
    assert_eq!(asked(&sandbox), [] as [Value; 0]);
    fs::write(sandbox.top.join("go"), "").unwrap();
    assert!(recover.wait().unwrap().success());
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "it has ended by then");
    assert_eq!(steps(&asked(&sandbox)), ["release shop/a"]);
    crate::sandbox::assert_same(&before, &sandbox.inventory());
}

#[test]
fn an_interruption_ends_the_program_and_takes_away_what_it_made() {
    let operations = r#"provision() { echo x >"$top/started"; sleep 1000; }"#;
    let sandbox = things(operations);
    let before = sandbox.inventory();
    let run = sandbox.start(&["apply"]);
    wait_until("the program runs", || sandbox.top.join("started").exists());
    send(Signal::INT, &run);
    Outcome::of(run.wait_with_output().unwrap()).expect(130);
    crate::sandbox::assert_same(&before, &sandbox.inventory());
    let steps = steps(&asked(&sandbox));
    assert!(steps.iter().any(|step| step.starts_with("release")), "{steps:?}");
}

#[test]
fn requests_and_answers_fit_the_schema() {
    let schema = schemars::schema_for!(Protocol).to_value();
    let validate = |part: &str, instance: &Value| {
        let mut schema = schema.clone();
        schema["required"] = json!([part]);
        let validator = jsonschema::validator_for(&schema).unwrap();
        let faults: Vec<_> =
            validator.iter_errors(&json!({ part: instance })).map(|error| error.to_string()).collect();
        assert!(faults.is_empty(), "{instance}: {faults:?}");
    };
    let sandbox = things("");
    sandbox.ok(&["apply"]);
    sandbox.ok(&["destroy"]);
    let requests = asked(&sandbox);
    assert!(requests.len() >= 6);
    for request in &requests {
        validate("request", request);
    }
    validate("plan", &serde_json::from_str(PLAN).unwrap());
    validate("inspect", &json!({ "protocol": 1, "condition": "broken", "why": "gone" }));
    validate("release", &json!({ "protocol": 1, "error": "stuck" }));
}

/// The example of this repository, with Python's own JSON.
fn databases(rest: &str) -> Option<Sandbox> {
    if !installed("python3") {
        return None;
    }
    let sandbox = Sandbox::new();
    let example = repository("examples/external/scratch-database");
    sandbox.write("tools/scratch-database", &fs::read_to_string(&example).unwrap());
    let path = sandbox.repository.join("tools/scratch-database");
    fs::set_permissions(path, fs::metadata(example).unwrap().permissions()).unwrap();
    sandbox.write("seed/users.json", "[]\n");
    sandbox.commit("a program and a seed");
    let mut manifest = "[provider.scratch-database]\ncommand = ['./tools/scratch-database']\n".to_owned();
    let _ = write!(manifest, "{rest}");
    sandbox.manifest(&manifest);
    Some(sandbox)
}

const DATABASE: &str = "[session.api]\nresources = [{ kind = 'scratch-database', seed = 'seed' }]\n[session.api.child.worker]\ncount = 2\n";

#[test]
fn the_example_makes_databases_and_leaves_nothing() {
    let Some(sandbox) = databases(DATABASE) else { return };
    sandbox.unchanged(|| {
        sandbox.ok(&["apply"]);
        sandbox.assert_clean(&sandbox.repository);
        let directory = |session: &str| {
            let env = sandbox.ok(&["env", session, "--format", "json"]).json();
            sandbox.repository.join(env["DATABASE_DIR"].as_str().unwrap())
        };
        let database = directory("api");
        assert_eq!(fs::read_to_string(database.join("users.json")).unwrap(), "[]\n");
        assert_eq!(directory("worker-1"), database, "a share is the parent's database");
        sandbox.ok(&["apply"]).says(&["nothing to do"]);
        fs::remove_dir_all(&database).unwrap();
        assert!(sandbox.ok(&["plan"]).stdout.contains("is gone, or not what was made"));
        sandbox.ok(&["apply"]);
        assert!(database.join("users.json").exists());
        sandbox.ok(&["destroy"]);
    });
}

#[test]
fn the_example_leaves_alone_what_is_not_its_owners() {
    let Some(sandbox) = databases("[session.api]\nresources = ['scratch-database']\n") else { return };
    let plan = sandbox.plan();
    let path =
        sessions(&plan).next().unwrap()["allocations"][0]["allocation"]["path"].as_str().unwrap().to_owned();
    sandbox.write(&format!("{path}/precious"), "");
    sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(1).says(&["somebody else's"]));
}

#[test]
fn the_example_finds_every_wrong_option() {
    let Some(sandbox) = databases(
        "[session.a]\nresources = [{ kind = 'scratch-database', sed = 1 }]\n[session.b]\nresources = [{ kind = 'scratch-database', seed = 'none' }]\n",
    ) else {
        return;
    };
    let text = sandbox.unchanged(|| sandbox.seedbed(&["plan"]).expect(65)).stderr;
    for said in ["no option `sed`", "the only one is `seed`", "'none' is no directory"] {
        assert!(text.contains(said), "{said}: {text}");
    }
}

#[test]
fn a_program_gets_the_workspace_root_where_its_plan_says_so() {
    let plan =
        PLAN.replace("\"thing of a\"", "\"{{ workspace.root }}/a\", \"in\": [\"{{ workspace.root }}\"]");
    let sandbox = things(&format!("plan() {{ cat <<'END'\n{plan}\nEND\n}}\n"));
    let planned = sandbox.plan();
    let held = &sessions(&planned).next().unwrap()["allocations"][1]["allocation"];
    assert_eq!(held["name"], "{{ workspace.root }}/a", "a plan is the same in every clone");
    asked(&sandbox);
    sandbox.ok(&["apply"]);
    sandbox.ok(&["status"]);
    sandbox.ok(&["destroy"]);
    let root = sandbox.repository.to_str().unwrap();
    let allocation = json!({ "name": format!("{root}/a"), "in": [root] });
    let requests = asked(&sandbox);
    let of_a: Vec<_> = requests.iter().filter(|request| request["session"] == "shop/a").collect();
    for operation in ["provision", "inspect", "release"] {
        let mut of_operation = of_a.iter().filter(|request| request["operation"] == operation).peekable();
        assert!(of_operation.peek().is_some(), "{operation}");
        assert!(of_operation.all(|request| request["allocation"] == allocation), "{operation}: {of_a:?}");
    }
}

/// Two sessions with a port each, whose thing has options of all shapes; `OPTIONS` stands in the first one's place.
const PORTS: &str = r#"
[provider.thing]
command = ["./tools/thing"]
[defaults.thing]
url = "http://{{ session.name }}:{{ port.db }}"
[session.a]
resources = [{ kind = "thing", OPTIONS }, { kind = "port-range", names = ["db"] }, "git-worktree"]
[session.b]
resources = ["thing", { kind = "port-range", names = ["db"] }]
"#;

#[test]
fn options_are_templates_of_what_is_planned_before_them() {
    let sandbox = things("");
    sandbox.manifest(&PORTS.replace(
        "OPTIONS",
        r#"of = ["{{ worktree.path }}", { port = "{{ port.db }}" }, 3], plain = "{ }", above = "{{ sessions['b'].port.db }}""#,
    ));
    sandbox.ok(&["apply"]);
    let requests = asked(&sandbox);
    let ports = ["a", "b"].map(|session| {
        let env = sandbox.ok(&["env", session, "--format", "json"]).json();
        env["AGENT_PORT_DB"].as_str().unwrap().to_owned()
    });
    let planned = requests.iter().find(|request| request["operation"] == "plan").unwrap();
    let of_b = json!({ "url": format!("http://b:{}", ports[1]) });
    assert_eq!(planned["sessions"][1]["options"], of_b);
    let provisioned = |session: &str| {
        let of = |request: &&Value| request["operation"] == "provision" && request["session"] == session;
        requests.iter().find(of).unwrap()["options"].clone()
    };
    assert_eq!(provisioned("shop/b"), of_b);
    let of_a = provisioned("shop/a");
    assert_eq!(of_a["url"], format!("http://a:{}", ports[0]));
    assert_eq!(of_a["plain"], "{ }");
    assert_eq!(of_a["above"], ports[1]);
    assert_eq!(of_a["of"][1]["port"], ports[0]);
    assert_eq!(of_a["of"][2], 3);
    let path = of_a["of"][0].as_str().unwrap();
    assert!(path.starts_with(sandbox.repository.to_str().unwrap()), "{path}");
    // The same again is kept, and what it is made from changes it.
    sandbox.ok(&["apply"]).says(&["nothing to do"]);
    sandbox.ok(&["destroy"]);
}

#[test]
fn an_option_that_names_what_is_not_there_is_underlined() {
    let sandbox = things("");
    let check = |options: &str, says: &[&str]| {
        sandbox.manifest(&PORTS.replace("OPTIONS", options));
        let outcome = sandbox.seedbed(&["validate"]).expect(65);
        let outcome = outcome.says(says);
        assert!(!outcome.stderr.contains("gave no plan"), "{}", outcome.stderr);
    };
    check(r#"port = "{{ port.cache }}""#, &["port.cache", "seedbed.toml"]);
    check(r#"deep = [["{{ nothing }}"]]"#, &["nothing"]);
    check(r#"broken = "{{ port.db""#, &["template"]);
    // What is said for all is underlined where it is said.
    sandbox.manifest(&PORTS.replace("OPTIONS", "size = 1").replace("port.db", "port.web"));
    sandbox.seedbed(&["plan"]).expect(65).says(&["port.web", "[defaults.thing]"]);
    assert_eq!(asked(&sandbox), Vec::<Value>::new(), "no program is asked in vain");
}
