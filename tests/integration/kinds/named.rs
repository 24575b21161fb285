//! Tests of resources by name: a session with two ranges of ports, and what happens to them when the manifest changes.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::sandbox::{Sandbox, sessions};

/// Returns a manifest of one session with these entries of `resources`, and a child.
fn manifest(sandbox: &Sandbox, resources: &str, child: &str) {
    sandbox.manifest(&format!(
        "[session.lead]\nresources = [{resources}]\nenv = {{ INSPECTOR = \"{{{{ resources.debug.inspector }}}}\" }}\n\
         [session.lead.child.coder]\nresources = [{child}]\n"
    ));
}

const WEB: &str = "{ kind = \"port-range\", block-size = 4, names = [\"http\"] }";
const DEBUG: &str =
    "{ kind = \"port-range\", name = \"debug\", block-size = 8, names = [\"inspector\"], reserve = 2 }";
const SHARE: &str = "{ kind = \"port-range\", name = \"debug\", names = [] }";

/// Returns the first and last port of each resource of a session of a plan, by name.
fn blocks(plan: &Value, path: &str) -> BTreeMap<String, (u64, u64)> {
    let session = sessions(plan).find(|session| session["path"] == path).unwrap();
    let port = |held: &Value, field: &str| held["allocation"][field].as_u64().unwrap();
    let held = session["allocations"].as_array().unwrap().iter();
    let name = |held: &Value| held["name"].as_str().or(held["kind"].as_str()).unwrap().to_owned();
    held.map(|held| (name(held), (port(held, "startPort"), port(held, "endPort")))).collect()
}

fn change<'p>(plan: &'p Value, path: &str) -> &'p Value {
    plan["changes"].as_array().unwrap().iter().find(|change| change["session"] == path).unwrap()
}

#[test]
fn two_ranges_of_a_session_are_told_apart_everywhere() {
    let sandbox = Sandbox::new();
    manifest(&sandbox, &format!("{WEB}, {DEBUG}"), SHARE);
    let plan = sandbox.plan();
    let (own, shared) = (blocks(&plan, "lead"), blocks(&plan, "lead/coder"));
    let (web, debug) = (own["port-range"], own["debug"]);
    assert_eq!((web.1 - web.0, debug.1 - debug.0), (3, 7));
    assert!(web.1 < debug.0 || debug.1 < web.0, "{own:?}");
    assert_eq!(shared, BTreeMap::from([("debug".to_owned(), (debug.0 + 2, debug.1))]));

    let shown = sandbox.ok(&["plan"]).stdout;
    assert!(shown.contains("port-range") && shown.contains("debug"), "{shown}");
    sandbox.ok(&["apply"]);
    let env = sandbox.ok(&["env", "lead", "--json"]).json();
    let env = &env["environment"];
    let check = |name: &str, port: u64| assert_eq!(env[name], port.to_string(), "{name}");
    check("AGENT_PORT_RANGE_START", web.0);
    check("AGENT_PORT_PRIMARY", web.0);
    check("AGENT_PORT_HTTP", web.0);
    check("AGENT_DEBUG_PORT_RANGE_START", debug.0);
    check("AGENT_DEBUG_PORT_RANGE_END", debug.1);
    check("AGENT_DEBUG_PORT_PRIMARY", debug.0);
    check("AGENT_PORT_INSPECTOR", debug.0);
    check("INSPECTOR", debug.0);
    // The only range of the child has the variables of the reference implementation as well.
    let coder = sandbox.ok(&["env", "lead/coder", "--json"]).json();
    assert_eq!(coder["environment"]["AGENT_PORT_RANGE_START"], (debug.0 + 2).to_string());
    assert_eq!(coder["environment"]["AGENT_DEBUG_PORT_RANGE_START"], (debug.0 + 2).to_string());

    let prompt = sandbox.ok(&["prompt", "lead"]).stdout;
    let line = |name: &str, (start, end): (u64, u64)| {
        format!("{name}Assigned deterministic port range: {start}-{end}")
    };
    assert!(prompt.contains(&line("- ", web)) && prompt.contains(&line("- debug: ", debug)), "{prompt}");
    let explained = sandbox.ok(&["explain", &debug.1.to_string()]).stdout;
    assert!(explained.contains("share 1 of 1") && explained.contains("name = \"debug\""), "{explained}");
    let explained = sandbox.ok(&["explain", &debug.0.to_string()]).stdout;
    assert!(explained.contains("inspector"), "{explained}");

    assert!(!sandbox.plan()["changes"].as_array().unwrap().iter().any(|change| change["action"] != "keep"));
    sandbox.ok(&["destroy"]);
    assert!(!sandbox.repository.join(".ai_ops").exists());
}

/// R4, R6: a resource whose name, kind and options stay the same is not moved, whatever is done to the others.
#[test]
fn a_changed_name_replaces_that_resource_alone() {
    let sandbox = Sandbox::new();
    let both = format!("{WEB}, {DEBUG}");
    manifest(&sandbox, &both, "");
    sandbox.ok(&["apply"]);
    let before = blocks(&sandbox.plan(), "lead");
    let check = |resources: &str, release: &[&str], provision: &[&str]| {
        manifest(&sandbox, resources, "");
        let plan = sandbox.plan();
        let change = change(&plan, "lead");
        assert_eq!(change["release"], serde_json::json!(release), "{change:#}");
        assert_eq!(change["provision"], serde_json::json!(provision), "{change:#}");
        let now = blocks(&plan, "lead");
        for (name, block) in before.iter().filter(|(name, _)| !release.contains(&name.as_str())) {
            assert_eq!(now.get(name), Some(block), "{name}");
        }
        sandbox.ok(&["apply", "--yes"]);
        assert_eq!(sandbox.seedbed(&["plan", "--detailed-exitcode"]).code, 0);
        manifest(&sandbox, &both, "");
        sandbox.ok(&["apply", "--yes"]);
    };
    // In another order, nothing is done.
    check(&format!("{DEBUG}, {WEB}"), &[], &[]);
    check(&format!("{DEBUG}, {}", WEB.replace("kind", "name = \"web\", kind")), &["port-range"], &["web"]);
    let third = "{ kind = \"port-range\", name = \"third\", block-size = 2 }";
    check(&format!("{both}, {third}"), &[], &["third"]);
    check(DEBUG, &["port-range"], &[]);
    // Each has the other's name.
    let swapped = format!(
        "{}, {}",
        DEBUG.replace("name = \"debug\", ", "").replace("inspector", "inspector2"),
        WEB.replace("kind", "name = \"debug\", kind").replace("http", "inspector")
    );
    check(&swapped, &["debug", "port-range"], &["port-range", "debug"]);
    sandbox.ok(&["destroy"]);
    assert!(!sandbox.repository.join(".ai_ops").exists());
}

/// The shares of one block are counted apart from those of another block of the same session.
#[test]
fn a_new_child_takes_its_share_of_each_block_separately() {
    let sandbox = Sandbox::new();
    let shared =
        |name: &str| format!("{{ kind = \"port-range\", name = \"{name}\", slots = 4, reserve = 0 }}");
    let children = |second: &str| {
        sandbox.manifest(&format!(
            "[session.lead]\nresources = [{}, {}]\n[session.lead.child.a]\nresources = [{}]\n\
             [session.lead.child.b]\nresources = [{second}]\n",
            shared("one"),
            shared("two"),
            "{ kind = \"port-range\", name = \"one\" }"
        ));
    };
    children("");
    sandbox.ok(&["apply"]);
    children("{ kind = \"port-range\", name = \"two\" }");
    let plan = sandbox.plan();
    let (own, a, b) = (blocks(&plan, "lead"), blocks(&plan, "lead/a"), blocks(&plan, "lead/b"));
    assert_eq!((a["one"].0, b["two"].0), (own["one"].0, own["two"].0), "{plan:#}");
}

#[test]
fn template_uses_the_environment_of_other_sessions() {
    let sandbox = Sandbox::new();
    sandbox.manifest(
        r#"
[session.api]
resources = [{ kind = "port-range", names = ["http"] }]
env = { URL = "http://localhost:{{ port.http }}{{ sessions['web'].env.BASE }}" }
[session.api.child.job]
count = 2
env = { PARENT = "{{ parent.env.URL }}", LAST = "{{ sessions['web'].env.ALL }}" }
[session.web]
env = { BASE = "/{{ sessions['api'].env.AGENT_PORT_HTTP }}", API = "{{ sessions['api'].env.URL }}", ALL = "{% for path, session in sessions | items %}{{ path }}={{ session.env.AGENT_SESSION_INDEX }} {% endfor %}" }
prompt = ["The API listens on {{ sessions['api'].env.URL }}."]
command = ["echo", "{{ sessions['api/job-1'].env.PARENT }}"]
"#,
    );
    let plan = sandbox.plan();
    let session = |path: &str| sessions(&plan).find(|session| session["path"] == path).unwrap();
    let port = &session("api")["env"]["AGENT_PORT_HTTP"].as_str().unwrap();
    let url = format!("http://localhost:{port}/{port}");
    assert_eq!(session("web")["env"]["API"], url);
    assert_eq!(session("api/job-0")["env"]["PARENT"], url);
    assert_eq!(session("api/job-1")["env"]["LAST"], "api=0 api/job-0=1 api/job-1=2 web=3 ");
    assert_eq!(session("web")["promptSections"][0], format!("The API listens on {url}."));
    assert_eq!(session("web")["command"]["arguments"][1], url);
}

/// A chain as long as the manifest needs no stack of its length.
#[test]
fn chain_of_variables_is_as_long_as_the_manifest() {
    let sandbox = Sandbox::new();
    let last = "{% if session.replica > 0 %}{{ sessions['s-' ~ (session.replica - 1)].env.X }}{% endif %}+";
    sandbox.manifest(&format!("[session.s]\ncount = 300\nenv = {{ X = \"{last}\" }}\n"));
    let plan = sandbox.plan();
    assert_eq!(sessions(&plan).last().unwrap()["env"]["X"], "+".repeat(300));
}
