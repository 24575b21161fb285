//! Tests of external kinds: programs that plan, create and release resources, correct ones and many kinds of others.

mod example;
mod pool;
mod templates;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::process::Signal;
use seedbed::provider::external::protocol::Protocol;
use serde_json::{Value, json};

use crate::faults::one_in;
use crate::sandbox::{Outcome, Sandbox, send, sessions, wait_until};

/// Manifest of two sessions with a worktree and a thing each, one session below the other.
const THINGS: &str = r#"
[provider.thing]
command = ["./tools/thing"]
timeout = 100
[session.a]
resources = ["git-worktree", { kind = "thing", size = 3 }]
[session.b]
resources = ["git-worktree", "thing"]
"#;

/// Answer of a correct program to `plan`.
const PLAN: &str = r#"{"protocol": 2, "allocations": {
    "shop/a": {"allocation": {"name": "thing of a"}, "env": {"THING": "a in {{ workspace.root }}"}},
    "shop/b": {"allocation": {"name": "thing of b"}, "notes": ["b is the larger one"]}}}"#;

/// Part of [`PLAN`] for session `b`.
const B: &str = r#",
    "shop/b": {"allocation": {"name": "thing of b"}, "notes": ["b is the larger one"]}"#;

/// Creates a sandbox with a program of kind `thing`. The program records its requests in the file `asked`, one on each
/// line, and runs the operation's shell function.
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
done='{{"protocol": 2}}'
plan() {{ cat <<'END'
{PLAN}
END
}}
provision() {{ echo "$done"; }}
inspect() {{ echo '{{"protocol": 2, "condition": "healthy"}}'; }}
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

/// Returns the requests to the program since the last call.
fn asked(sandbox: &Sandbox) -> Vec<Value> {
    let path = sandbox.top.join("asked");
    let text = fs::read_to_string(&path).unwrap_or_default();
    let _ = fs::remove_file(path);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Returns operation and session of each request, in order of the text.
fn steps(requests: &[Value]) -> Vec<String> {
    let text = |request: &Value, key: &str| request[key].as_str().unwrap_or_default().to_owned();
    let mut steps: Vec<_> = requests
        .iter()
        .map(|request| format!("{} {}", text(request, "operation"), text(request, "session")))
        .collect();
    steps.sort();
    steps
}

/// A plan is the same in every clone, so that it has markers of values which differ there. People read the markers.
#[test]
fn markers_in_a_plan_name_their_session() {
    let sandbox = things(
        r#"plan() {
    hash=$(printf %s "$request" | grep -o '"name":"shop-a-[0-9a-f]*"' | grep -o '[0-9a-f]\{12\}')
    printf '{"protocol": 2, "allocations": {
        "shop/a": {"allocation": {"name": "db_%s"}, "env": {"THING": "at %s"}, "notes": ["created as db_%s"]},
        "shop/b": {"allocation": {"name": "b"}}}}' "$hash" "$hash" "$hash"
}"#,
    );
    for format in [&[][..], &["--verbose"], &["--json"], &["--format", "markdown"], &["--format", "html"]] {
        let plan = sandbox.ok(&[&["plan"], format].concat()).stdout;
        assert!(plan.contains("db_{{ session.hash shop/a }}"), "{format:?}: {plan}");
        let mut markers = plan.split("{{ session.hash ").skip(1);
        assert!(markers.all(|marker| marker.starts_with("shop/")), "{format:?}: {plan}");
    }
    sandbox.ok(&["apply"]);
    let env = sandbox.ok(&["env", "a", "--format", "json"]).json()["environment"].take();
    let hash = env["AGENT_SESSION_HASH"].as_str().unwrap();
    assert_eq!((hash.len(), &env["THING"]), (12, &json!(format!("at {hash}"))));
    sandbox.ok(&["destroy"]);
}

#[test]
fn program_plans_once_before_the_review() {
    let sandbox = things("");
    let plan = sandbox.unchanged(|| sandbox.plan());
    let requests = asked(&sandbox);
    let expected = json!({
        "operation": "plan", "protocol": 2, "kind": "thing", "swarm": "shop",
        "sessions": [
            { "request": "shop/a", "session": "shop/a", "path": "a", "index": 0, "name": "", "shareOf": null, "share": null, "shares": 0,
              "applied": null, "ports": {}, "options": { "size": 3 } },
            { "request": "shop/b", "session": "shop/b", "path": "b", "index": 1, "name": "", "shareOf": null, "share": null, "shares": 0,
              "applied": null, "ports": {}, "options": {} },
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
fn planned_resource_is_provisioned_kept_and_released() {
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
    assert_eq!(of_a["directory"], json!(sandbox.directory("a")));
    assert_eq!(of_a["allocation"], json!({ "name": "thing of a" }));
    assert_eq!(of_a["owner"].as_str().unwrap().len(), 32);
    fs::remove_file(sandbox.repository.join("saved.json")).unwrap();

    let env = sandbox.ok(&["env", "a", "--format", "json"]).json()["environment"].take();
    assert_eq!(env["THING"], format!("a in {}", sandbox.repository.display()));
    let found = sandbox.ok(&["exec", "a", "--", "cat", ".agent-context/resources.json"]).json();
    assert_eq!(
        found["hardConstraints"][1],
        json!({ "kind": "thing", "allocation": { "name": "thing of a" } })
    );
    asked(&sandbox);
    sandbox.ok(&["apply"]).says(&["nothing to do"]);
    assert_eq!(steps(&asked(&sandbox)), ["inspect shop/a", "inspect shop/b", "plan "]);
    // The program that created a resource releases it, regardless of the current manifest.
    sandbox.manifest("[session.other]\n");
    sandbox.ok(&["destroy"]);
    let requests = asked(&sandbox);
    assert!(steps(&requests).ends_with(&["release shop/a".to_owned(), "release shop/b".to_owned()]));
    sandbox.manifest(THINGS);
    crate::sandbox::assert_same(&before, &sandbox.inventory());
}

#[test]
fn children_take_shares() {
    let operations = r#"plan() { echo '{"protocol": 2, "allocations": {"shop/a": {"allocation": {}}, "shop/a/c": {"allocation": {"part": 1}}}}'; }"#;
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

#[test]
fn checking_a_manifest_runs_no_program() {
    let sandbox = things("exit 1");
    sandbox.unchanged(|| sandbox.ok(&["validate"]));
    sandbox.unchanged(|| sandbox.seedbed(&["doctor"]));
    let explained = sandbox.unchanged(|| sandbox.ok(&["explain", "a"])).stdout;
    assert!(
        explained.contains("thing is planned by ./tools/thing, which `explain` does not run"),
        "{explained}"
    );
    sandbox.ok(&["__complete", "--current=", "--", "seedbed", "run", "--session"]);
    sandbox.manifest(&THINGS.replace("[session.b]", "[session.b]\nresource = []"));
    sandbox.unchanged(|| sandbox.seedbed(&["plan"]).expect(65));
    assert_eq!(asked(&sandbox), [] as [Value; 0]);
    sandbox.manifest(THINGS);
    sandbox.seedbed(&["plan"]).expect(65);
    assert_eq!(asked(&sandbox).len(), 1);
}

#[test]
fn program_without_a_plan_is_a_diagnostic_of_its_command() {
    let slow = THINGS.replace("timeout = 100", "timeout = 1");
    let cases = [
        ("plan() { echo broken >&2; exit 3; }", THINGS, &["exit status: 3", "broken"][..]),
        ("plan() { kill -KILL $$; }", THINGS, &["signal: 9"]),
        ("plan() { sleep 1000; }", &slow, &["was ended after 1 s without a result"]),
        ("plan() { :; }", THINGS, &["cannot be read", "nothing"]),
        ("plan() { printf 'hello \\033[2J'; }", THINGS, &["cannot be read", "hello \\u{1b}[2J"]),
        ("plan() { echo '[]'; }", THINGS, &["cannot be read"]),
        ("plan() { echo '{\"protocol\": 2, \"allocation\": {}}'; }", THINGS, &["unknown field"]),
        ("plan() { echo '{\"protocol\": 3}'; }", THINGS, &["version 3 of the protocol"]),
        ("plan() { echo '{\"protocol\": 2}'; }", THINGS, &["planned nothing for `shop/a`"]),
        (
            "plan() { echo '{\"protocol\": 2, \"allocations\": {\"shop/c\": {\"allocation\": {}}}}'; }",
            THINGS,
            &["its answer names `shop/c`"],
        ),
        (
            "plan() { echo '{\"protocol\": 2, \"allocations\": {\"shop/a\": {\"allocation\": {}, \"env\": {\"PATH\": \"/\"}}}}'; }",
            THINGS,
            &["`PATH` is reserved"],
        ),
        (
            "plan() { echo '{\"protocol\": 2, \"allocations\": {\"shop/a\": {\"allocation\": {}, \"env\": {\"a b\": \"\"}}}}'; }",
            THINGS,
            &["`a b` cannot be the name of a variable"],
        ),
        ("", &THINGS.replace("tools/thing", "tools/none"), &["cannot start", "tools/none"]),
    ];
    for (operations, manifest, said) in one_in(4, cases) {
        let sandbox = things(operations);
        sandbox.manifest(manifest);
        for command in ["plan", "apply"] {
            let outcome = sandbox.unchanged(|| sandbox.seedbed(&[command, "--json"]).expect(65));
            let document = outcome.json();
            let diagnostics = document["diagnostics"].as_array().unwrap();
            let at_the_command =
                |diagnostic: &Value| diagnostic["line"] == 9 && diagnostic["label"] == "gave no plan";
            assert!(diagnostics.iter().all(at_the_command), "{operations}: {diagnostics:?}");
            for said in said {
                let says = |diagnostic: &Value| diagnostic["message"].as_str().unwrap().contains(said);
                assert!(diagnostics.iter().any(says), "{operations}: {said} is not in {diagnostics:?}");
            }
            let text = sandbox.seedbed(&[command]).expect(65).stderr;
            assert!(text.contains("[seedbed.toml:9:11]") && !text.contains('\u{1b}'), "{text:?}");
        }
    }
}

#[test]
fn diagnostic_of_a_program_is_at_the_option() {
    let operations = r#"plan() { echo '{"protocol": 2, "diagnostics": [
        {"session": "shop/a", "option": "size", "message": "3 is too small", "help": "write 4"},
        {"session": "shop/b", "message": "there is no room for it"}]}'; }"#;
    let sandbox = things(operations);
    let diagnostics = sandbox.unchanged(|| sandbox.seedbed(&["plan", "--json"]).expect(65).json());
    let diagnostics = diagnostics["diagnostics"].as_array().unwrap();
    assert_eq!(diagnostics.len(), 2, "{diagnostics:#?}");
    let text = fs::read_to_string(sandbox.repository.join("seedbed.toml")).unwrap();
    let at = |diagnostic: &Value| {
        let position = |key: &str| usize::try_from(diagnostic[key].as_u64().unwrap()).unwrap();
        let line = text.lines().nth(position("line") - 1).unwrap();
        line[position("column") - 1..position("column") - 1 + position("length")].to_owned()
    };
    assert_eq!((at(&diagnostics[0]).as_str(), &diagnostics[0]["message"]), ("3", &json!("3 is too small")));
    assert_eq!(diagnostics[0]["help"], "write 4");
    assert_eq!(
        (at(&diagnostics[1]).as_str(), &diagnostics[1]["message"]),
        ("\"thing\"", &json!("there is no room for it"))
    );
}

#[test]
fn a_failure_takes_everything_away_again() {
    let slow = THINGS.replace("timeout = 100", "timeout = 1");
    for (operation, manifest, said) in [
        ("echo '{\"protocol\": 2, \"error\": \"no room for b\"}'", THINGS, "no room for b"),
        ("echo 'no luck' >&2; exit 4", THINGS, "no luck"),
        ("kill -KILL $$", THINGS, "137"),
        ("echo garbage", THINGS, "cannot be read"),
        ("sleep 1000", &slow, "was ended after 1 s"),
    ] {
        let sandbox =
            things(&format!("provision() {{ if is_of b; then {operation}; else echo \"$done\"; fi; }}"));
        sandbox.manifest(manifest);
        let outcome = sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(1));
        outcome.says(&["b: provision thing", said, "was rolled back"]);
        let steps = steps(&asked(&sandbox));
        for step in ["release shop/a", "release shop/b"] {
            assert!(steps.iter().any(|asked| asked == step), "{operation}: {steps:?}");
        }
    }
}

#[test]
fn failed_release_is_reported_and_tried_again() {
    let sandbox =
        things("release() { test -e \"$top/repaired\" && echo \"$done\" || { echo stuck >&2; exit 1; }; }");
    let before = sandbox.inventory();
    sandbox.ok(&["apply"]);
    sandbox.seedbed(&["destroy"]).expect(73).says(&["a: release thing", "stuck", "seedbed recover"]);
    fs::write(sandbox.top.join("repaired"), "").unwrap();
    sandbox.ok(&["recover"]);
    crate::sandbox::assert_same(&before, &sandbox.inventory());
}

#[test]
fn release_that_would_lose_work_is_refused() {
    let sandbox = things(
        r#"inspect() { echo '{"protocol": 2, "condition": "healthy", "unsavedWork": ["12 rows"]}'; }"#,
    );
    sandbox.ok(&["apply"]);
    sandbox.unchanged(|| sandbox.seedbed(&["destroy"]).expect(69).says(&["12 rows"]));
    sandbox.ok(&["destroy", "--discard"]);
}

/// The server of a lease does not run.
#[test]
fn uninspectable_resource_is_unknown_and_refused() {
    let operations = r#"inspect() { test -e "$top/down" && { echo "connection refused" >&2; exit 1; }; echo '{"protocol": 2, "condition": "healthy"}'; }"#;
    let sandbox = things(operations);
    sandbox.ok(&["apply"]);
    fs::write(sandbox.top.join("down"), "").unwrap();
    let unknown =
        ["the state of its thing is unknown", "connection refused", "start what `./tools/thing` needs"];
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
    assert!(plan.contains("apply refuses this: a: the state of"), "{plan}");
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
    echo '{"protocol": 2, "condition": "healthy"}'
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
    // Resources that a plan releases are inspected for unsaved work as well.
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
fn broken_resource_is_created_again_and_repairable_one_repaired() {
    let operations =
        r#"inspect() { cat "$top/found" 2>/dev/null || echo '{"protocol": 2, "condition": "healthy"}'; }"#;
    for (condition, expected) in [
        ("broken", &["provision shop/a", "provision shop/b", "release shop/a", "release shop/b"][..]),
        ("repairable", &["provision shop/a", "provision shop/b"]),
    ] {
        let sandbox = things(operations);
        sandbox.ok(&["apply"]);
        let found = json!({ "protocol": 2, "condition": condition, "why": "it has a crack" });
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

/// A program that still creates a resource must not be overtaken by the program that releases the resource.
#[test]
fn recovery_waits_for_the_program_after_a_kill() {
    let operations = r#"provision() {
        echo $$ >"$top/started"; while test -d "$top" && ! test -e "$top/go"; do sleep 0.02; done
        echo "$done"; }"#;
    let sandbox = things(operations);
    sandbox.manifest(&THINGS.replace("[session.b]\nresources = [\"git-worktree\", \"thing\"]\n", ""));
    program(
        &sandbox,
        &format!(
            "{operations}\nplan() {{ echo '{{\"protocol\": 2, \"allocations\": {{\"shop/a\": {{\"allocation\": {{}}}}}}}}'; }}"
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
    let left = format!("locked by programs that an ended run left running: pid {pid} ");
    sandbox
        .seedbed(&["recover", "--lock-timeout", "0"])
        .expect(75)
        .says(&["left running", &format!("pid {pid} ")]);
    assert_eq!(asked(&sandbox), [] as [Value; 0]);
    // Without a limit of its own, the run waits and reports what it waits for.
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

/// Checks a request, or the answer to an operation, against the schema of the protocol.
fn validate(part: &str, instance: &Value) {
    let mut schema = schemars::schema_for!(Protocol).to_value();
    schema["required"] = json!([part]);
    let validator = jsonschema::validator_for(&schema).unwrap();
    let document = json!({ part: instance });
    let diagnostics: Vec<_> = validator.iter_errors(&document).map(|error| error.to_string()).collect();
    assert!(diagnostics.is_empty(), "{instance}: {diagnostics:?}");
}

#[test]
fn requests_and_answers_fit_the_schema() {
    let sandbox = things("");
    sandbox.ok(&["apply"]);
    sandbox.ok(&["destroy"]);
    let requests = asked(&sandbox);
    assert!(requests.len() >= 6);
    for request in &requests {
        validate("request", request);
    }
    validate("plan", &serde_json::from_str(PLAN).unwrap());
    validate("inspect", &json!({ "protocol": 2, "condition": "broken", "why": "gone" }));
    validate("release", &json!({ "protocol": 2, "error": "stuck" }));
}
