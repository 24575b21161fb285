//! Tests of kinds whose programs allocate from a pool that several swarms share.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{program, things};
use crate::cli::shells::installed;
use crate::sandbox::{Outcome, Sandbox, sessions};

/// Program of a pool: it allocates the lowest number that no session has.
const POOL: &str = r#"#!/usr/bin/env python3
import json, sys
request = json.load(sys.stdin)
answer = {"protocol": 2}
if request["operation"] == "plan":
    sessions = request["sessions"]
    taken = {s["applied"]["number"] for s in sessions if s["applied"]}
    allocations = answer["allocations"] = {}
    for session in sessions:
        number = next(n for n in range(99) if n not in taken)
        held = session["applied"] or {"number": number, "name": session["name"]}
        taken.add(held["number"])
        allocations[session["session"]] = {"allocation": held, "env": {"POOL_NAME": session["name"]}}
elif request["operation"] == "inspect":
    answer["condition"] = "healthy"
elif request["allocation"]["name"] != request["name"]:
    answer["error"] = "another name than planned: " + json.dumps(request)
print(json.dumps(answer))
"#;

#[test]
fn program_plans_from_a_pool_by_active_allocations() {
    if !installed("python3") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write("tools/pool", POOL);
    let path = sandbox.repository.join("tools/pool");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    sandbox.commit("the program");
    let manifest = |sessions: &[&str]| {
        let table = |text: String, name: &&str| text + "[session." + name + "]\nresources = ['slot']\n";
        let tables = sessions.iter().fold(String::new(), table);
        sandbox.manifest(&format!("[provider.slot]\ncommand = ['./tools/pool']\n{tables}"));
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
        sandbox.seedbed_in(directory, &["env", "a", "--format", "json"]).expect(0).json()["environment"]["POOL_NAME"].take()
    };
    assert_ne!(name(&sandbox.repository), name(&clone));
    sandbox.ok(&["destroy"]);
    sandbox.seedbed_in(&clone, &["destroy"]).expect(0);
}

/// Program of a pool that all swarms of the host share. Allocations lie in the directory `TOP/pool`, a file with the
/// owner for each number. `plan` returns the lowest free number. It waits for `TOP/both` once it has chosen, so that
/// two runs choose the same number.
const SHARED_POOL: &str = r#"#!/usr/bin/env python3
import json, os, sys, time
top = os.environ["POOL"]
request = json.load(sys.stdin)
answer = {"protocol": 2}
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
        allocations[session["session"]] = {"allocation": session["applied"] or {"number": number}}
    planned = os.path.join(top, "planned-" + str(os.getppid()))
    if not os.path.exists(planned):
        open(planned, "w").close()
        while sum(name.startswith("planned-") for name in os.listdir(top)) < 2:
            time.sleep(0.01)
elif request["operation"] == "provision":
    if os.path.isdir(".git/worktrees") and os.listdir(".git/worktrees"):
        sys.exit("a worktree was created before this claim")
    number, mine = request["allocation"]["number"], request["owner"]
    new = file(f".new-{os.getpid()}")
    with open(new, "w") as made:
        made.write(mine)
    try:
        os.link(new, file(number))
    except FileExistsError:
        if owner(number) != mine:
            answer["conflict"] = f"number {number} is in use by {owner(number)}"
    os.remove(new)
elif request["operation"] == "inspect":
    answer["condition"] = "healthy" if owner(request["allocation"]["number"]) == request["owner"] else "broken"
elif owner(request["allocation"]["number"]) == request["owner"]:
    os.remove(file(request["allocation"]["number"]))
print(json.dumps(answer))
"#;

/// R45, R46: when two swarms race for one external resource, the loser gets an error before it creates a worktree, and
/// plans again.
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
        "[provider.slot]\ncommand = ['./tools/pool']\nclaim = true\n\
         [session.a]\nresources = ['git-worktree', 'slot']\n[session.b]\nresources = ['git-worktree', 'slot']\n",
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
fn program_that_plans_a_taken_resource_is_named() {
    let sandbox = things(
        r#"plan() { echo '{"protocol": 2, "allocations": {"shop/a": {"allocation": {"db": 1}}, "shop/b": {"allocation": {"db": 2}}}}'; }
provision() { echo '{"protocol": 2, "conflict": "db 1 is in use"}'; }"#,
    );
    let said = "db 1 is in use; `./tools/thing` plans the same allocation again";
    let failed = sandbox.seedbed(&["apply"]).expect(1).says(&[said]);
    assert_eq!(failed.stderr.matches("planning again").count(), 2, "{}", failed.stderr);
    assert!(!sandbox.repository.join(".ai_ops").exists());
}

#[test]
fn one_allocation_for_two_sessions_is_a_diagnostic() {
    let same = r#"plan() { echo '{"protocol": 2, "allocations": {"shop/a": {"allocation": {"db": 1}}, "shop/b": {"allocation": {"db": 1}}}}'; }"#;
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
    // Recorded allocations count as well, regardless of the program's answer.
    program(
        &sandbox,
        r#"plan() { echo '{"protocol": 2, "allocations": {"shop/a": {"allocation": {"db": 9}}, "shop/a/b": {"allocation": {"db": 9}}, "shop/c": {"allocation": {"db": 1}}}}'; }"#,
    );
    sandbox.manifest("[provider.thing]\ncommand = ['./tools/thing']\n[session.a]\nresources = ['thing']\n[session.a.child.b]\n[session.c]\nresources = ['thing']\n");
    let refused = sandbox.unchanged(|| sandbox.seedbed(&["plan", "--json"]).expect(65));
    assert!(refused.stdout.contains("one allocation to `shop/a` and to `shop/c`"), "{refused:?}");
}
