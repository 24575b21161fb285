//! Tests of templates in the plans and in the options of external kinds.

use serde_json::{Value, json};

use super::{PLAN, THINGS, asked, program, things};
use crate::sandbox::sessions;

#[test]
fn program_gets_the_workspace_root_if_its_plan_requests_it() {
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

/// Two sessions with a port each, whose thing has options of all types; `OPTIONS` is a placeholder in the first one.
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
        let env = sandbox.ok(&["env", session, "--format", "json"]).json()["environment"].take();
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
    // A second apply renders the same options and keeps the resources.
    sandbox.ok(&["apply"]).says(&["nothing to do"]);
    sandbox.ok(&["destroy"]);
}

#[test]
fn environment_uses_fields_and_variables_of_an_external_resource() {
    let plan =
        PLAN.replace("\"name\": \"thing of a\"", "\"name\": \"thing of a\", \"server\": {\"port\": 5432}");
    let sandbox = things(&format!("plan() {{ cat <<'END'\n{plan}\nEND\n}}\n"));
    sandbox.manifest(
        r#"
[provider.thing]
command = ["./tools/thing"]
[session.a]
resources = ["thing"]
env = { SERVER = "{{ resources.thing.name }}: {{ resources.thing.server.port }}", COPY = "{{ resources.thing.env.THING }}" }
[session.b]
resources = ["thing"]
"#,
    );
    let planned = sandbox.plan();
    let env = &sessions(&planned).next().unwrap()["env"];
    assert_eq!(env["SERVER"], "thing of a: 5432");
    assert_eq!(env["COPY"], "a in {{ workspace.root }}");
}

#[test]
fn session_has_two_resources_of_an_external_kind() {
    let plan = r#"{"protocol": 2, "allocations": {
        "shop/a": {"allocation": {"name": "first"}, "env": {"THING": "1"}},
        "shop/a#more": {"allocation": {"name": "second"}, "env": {"THING_MORE": "2"}}}}"#;
    let sandbox = things(&format!("plan() {{ cat <<'END'\n{plan}\nEND\n}}\n"));
    let manifest = |resources: &str| {
        sandbox.manifest(&format!(
            "[provider.thing]\ncommand = [\"./tools/thing\"]\n[session.a]\nresources = [{resources}]\n\
             env = {{ NAME = \"{{{{ resources.more.name }}}}\" }}\n"
        ));
    };
    manifest("\"thing\", { kind = \"thing\", name = \"more\", size = 2 }");
    sandbox.ok(&["apply"]);
    let provisioned = |operation: &str| {
        let requests = asked(&sandbox).into_iter().filter(|request| request["operation"] == operation);
        let mut names: Vec<_> =
            requests.map(|one| (one["resource"].clone(), one["allocation"]["name"].clone())).collect();
        names.sort_by_key(|(resource, _)| resource.is_string());
        names
    };
    let both = [(json!(null), json!("first")), (json!("more"), json!("second"))];
    assert_eq!(provisioned("provision"), both);
    let env = &sandbox.ok(&["env", "a", "--json"]).json()["environment"];
    assert_eq!(["THING", "THING_MORE", "NAME"].map(|name| env[name].as_str().unwrap()), ["1", "2", "second"]);
    sandbox.ok(&["apply"]).says(&["nothing to do"]);
    // Without the entry, only that resource is released.
    asked(&sandbox);
    manifest("{ kind = \"thing\", name = \"more\", size = 2 }");
    let plan = plan.replace(r#""shop/a": {"allocation": {"name": "first"}, "env": {"THING": "1"}},"#, "");
    program(&sandbox, &format!("plan() {{ cat <<'END'\n{plan}\nEND\n}}\n"));
    asked(&sandbox);
    sandbox.ok(&["apply", "--yes"]);
    assert_eq!(provisioned("release"), both[..1]);
    sandbox.ok(&["destroy", "--yes"]);
    assert_eq!(provisioned("release"), both[1..]);
}

#[test]
fn option_uses_a_resource_of_the_parent() {
    let sandbox = things("");
    sandbox.manifest(
        r#"
[provider.thing]
command = ["./tools/thing"]
[session.a]
resources = [{ kind = "port-range", name = "debug", names = ["db"] }]
[session.a.child.b]
resources = [{ kind = "thing", from = "pool", url = "{{ parent.resources.debug.db }}" }]
"#,
    );
    sandbox.seedbed(&["plan"]).expect(65);
    let port = asked(&sandbox)[0]["sessions"][0]["options"]["url"].as_str().unwrap().parse::<u16>();
    assert!(port.is_ok_and(|port| port > 0));
}

#[test]
fn values_that_no_program_gave_are_named() {
    let sandbox = things("");
    let check = |value: &str, says: &[&str]| {
        sandbox.manifest(&format!("{THINGS}env = {{ X = \"{value}\" }}\n"));
        sandbox.seedbed(&["plan"]).expect(65).says(says);
        // Without its program, nothing is known of the resource of the kind.
        sandbox.ok(&["validate"]);
        asked(&sandbox);
    };
    check(
        "{{ resources.thing.url }}",
        &["`resources.thing.url` names nothing", "`resources.thing` has `env`, `name`"],
    );
    check(
        "{{ sessions['a'].resources.thing.env.TING }}",
        &["did you mean `THING`?", "`sessions['a'].resources.thing.env` has `THING`"],
    );
    check(
        "{{ sessions['a'].env.TING }}",
        &["`sessions['a'].env.TING` names nothing", "did you mean `THING`?"],
    );

    let option = |option: &str| THINGS.replace("size = 3", &format!("size = \"{option}\""));
    for (value, why) in [
        ("{{ sessions['b'].resources.thing.name }}", "its program plans after"),
        ("{{ sessions['b'].env.THING }}", "environments are rendered after"),
    ] {
        sandbox.manifest(&option(value));
        let outcome = sandbox.seedbed(&["validate", "--json"]).expect(65);
        assert!(
            outcome.stdout.contains(why) && outcome.stdout.contains("not known yet"),
            "{}",
            outcome.stdout
        );
    }
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
    // A setting for all sessions is underlined at its own line.
    sandbox.manifest(&PORTS.replace("OPTIONS", "size = 1").replace("port.db", "port.web"));
    sandbox.seedbed(&["plan"]).expect(65).says(&["port.web", "[defaults.thing]"]);
    assert_eq!(asked(&sandbox), Vec::<Value>::new(), "no program is asked in vain");
}
