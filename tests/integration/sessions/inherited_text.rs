//! Tests of text that sessions have from `[defaults.session]` and from the sessions above them.

use serde_json::{Value, json};

use crate::sandbox::{Sandbox, sessions};

const TREE: &str = r#"
[defaults.session]
env = { LEVEL = "default", PORT = "{{ port.http | default('none') }}" }
prompt = ["Commit early."]
metadata = { team = "shop", area = "all" }
setup = ["echo default"]
teardown = ["echo bye"]
command = ["agent", "{{ session.name }}"]

[session.lead]
resources = [{ kind = "port-range", names = ["http"], block-size = 9, reserve = 1, slots = 4 }]
env = { LEVEL = "lead", API = "{{ session.path }}" }
prompt = ["You coordinate."]
metadata = { area = "lead" }
setup = ["echo lead"]
teardown = ["echo bye lead"]

[session.lead.child.coder]
env = { LEVEL = "coder" }
prompt = ["You code."]
setup = ["echo coder"]
teardown = ["echo bye coder"]
command = "code"

[session.lead.child.tester]
inherit = false

[session.lead.child.bare]
inherit = false
defaults = false
env = { ONLY = "own" }
"#;

/// Returns these keys of a planned session; of its environment, the variables of tables.
fn text(plan: &Value, path: &str) -> Value {
    let session = sessions(plan).find(|session| session["path"] == path).unwrap();
    let env = session["env"].as_object().unwrap().iter();
    let env = env.filter(|(name, _)| !name.starts_with("AGENT_"));
    json!({
        "env": env.map(|(name, value)| format!("{name}={}", value.as_str().unwrap())).collect::<Vec<_>>(),
        "prompt": session["promptSections"].as_array().unwrap().iter().rev().take_while(|line| {
            !line.as_str().unwrap().contains("port")
        }).collect::<Vec<_>>(),
        "setup": session["setup"].as_array().unwrap().iter().map(|line| &line["shell"]).collect::<Vec<_>>(),
        "teardown": session["teardown"].as_array().unwrap().iter().map(|line| &line["shell"]).collect::<Vec<_>>(),
        "team": session["metadata"]["team"],
        "area": session["metadata"]["area"],
        "command": session["command"],
    })
}

#[test]
fn sessions_have_the_text_of_the_defaults_and_of_their_parents() {
    let sandbox = Sandbox::new();
    sandbox.manifest(TREE);
    let plan = sandbox.plan();
    let lead = sessions(&plan).find(|session| session["path"] == "lead").unwrap();
    let port = lead["env"]["AGENT_PORT_HTTP"].as_str().unwrap();
    assert_eq!(
        text(&plan, "lead"),
        json!({
            "env": ["API=lead", "LEVEL=lead", format!("PORT={port}")],
            "prompt": ["You coordinate.", "Commit early."],
            "setup": ["echo default", "echo lead"],
            "teardown": ["echo bye lead", "echo bye"],
            "team": "shop",
            "area": "lead",
            "command": { "arguments": ["agent", "lead"] },
        })
    );
    let coder = sessions(&plan).find(|session| session["path"] == "lead/coder").unwrap();
    let port = coder["env"]["AGENT_PORT_HTTP"].as_str().unwrap();
    assert_eq!(
        text(&plan, "lead/coder"),
        json!({
            "env": ["API=lead/coder", "LEVEL=coder", format!("PORT={port}")],
            "prompt": ["You code.", "You coordinate.", "Commit early."],
            "setup": ["echo default", "echo lead", "echo coder"],
            "teardown": ["echo bye coder", "echo bye lead", "echo bye"],
            "team": "shop",
            "area": "lead",
            "command": { "shell": "code" },
        })
    );
    let tester = text(&plan, "lead/tester");
    assert_eq!(tester["prompt"], json!(["Commit early."]));
    assert_eq!(tester["area"], "all");
    assert_eq!(tester["command"], json!({ "arguments": ["agent", "tester"] }));
    assert_eq!(text(&plan, "lead/bare")["env"], json!(["ONLY=own"]));
    assert_eq!(text(&plan, "lead/bare")["command"], json!(null));

    let explained = sandbox.ok(&["explain", "lead/coder", "--json"]).json();
    let rules: Vec<_> = explained["rules"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for rule in [
        "`env.PORT` is `defaults.session.env.PORT` of the manifest",
        "`env.API` is `session.lead.env.API` of the manifest",
        "`prompt[0]` is `defaults.session.prompt[0]` of the manifest",
        "`setup[1]` is `session.lead.setup[0]` of the manifest",
        "`teardown[2]` is `defaults.session.teardown[0]` of the manifest",
    ] {
        assert!(rules.contains(&rule), "{rule} is not in {rules:#?}");
    }
    assert!(!rules.iter().any(|rule| rule.starts_with("`env.LEVEL`")), "{rules:#?}");

    let set = sandbox.ok(&["plan", "--json", "--set", "defaults.session.env.LEVEL=low"]).json();
    assert_eq!(text(&set, "lead/tester")["env"][0], "LEVEL=low");

    // A spawned session has the text as it is now, and keeps it.
    sandbox.ok(&["apply"]);
    let env = |snapshot: &Value| snapshot["softConstraints"]["env"].clone();
    let helper = env(&sandbox.ok(&["spawn", "helper", "--parent", "lead", "--json"]).json());
    assert_eq!((&helper["LEVEL"], &helper["API"]), (&json!("lead"), &json!("lead/helper")));
    let top = env(&sandbox.ok(&["spawn", "top", "--json"]).json());
    assert_eq!((&top["LEVEL"], &top["API"]), (&json!("default"), &json!(null)));
    sandbox.manifest(&TREE.replace("LEVEL = \"default\"", "LEVEL = \"other\""));
    let plan = sandbox.plan();
    assert_eq!(text(&plan, "lead/tester")["env"][0], "LEVEL=other");
    assert_eq!(text(&plan, "top")["env"][0], "LEVEL=default");
}

#[test]
fn children_inherit_only_where_the_manifest_has_default_text() {
    let sandbox = Sandbox::new();
    let tree = "[session.lead]\nenv = { A = \"lead\" }\n[session.lead.child.coder]\n";
    let check = |manifest: &str, variables: Value| {
        sandbox.manifest(manifest);
        assert_eq!(text(&sandbox.plan(), "lead/coder")["env"], variables, "{manifest}");
    };
    check(tree, json!([]));
    check(&format!("[defaults.session]\n{tree}"), json!(["A=lead"]));
    check(&format!("[defaults.session]\ninherit = false\n{tree}"), json!([]));
    check(&format!("{tree}inherit = true\n"), json!(["A=lead"]));
    check(&format!("[defaults.session]\nenv = {{ B = \"b\" }}\n{tree}inherit = false\n"), json!(["B=b"]));
}
