//! Tests that a plan depends on the content of its manifest, not on its format, its location or the user.

use std::fs;

use crate::sandbox::Sandbox;

/// Rest of the first of two manifests with the same content.
const ONE: &str = r#"
[session.lead]
resources = ["git-worktree", { kind = "port-range", names = ["http", "db"], block-size = 16 }]
env = { A = "1", B = "{{ port.db }}", ROOT = "{{ workspace.root }}" }
metadata = { team = "checkout", size = 3 }
[session.lead.child.coder]
resources = ["git-worktree", { kind = "port-range", names = [] }]
count = 3
[session.Zed]
resources = ["port-range"]
[session.abe]
resources = ["git-worktree"]
prompt = ["one", "two"]
"#;

const OTHER: &str = r#"
# The same, by somebody else.
[session.abe]
prompt    = [
  "one",   # first
  "two",
]
resources = [{ kind = "git-worktree" }]

[session.Zed]
resources = ["port-range"]

[session.lead.child.coder]
count = 3
resources = [
  "git-worktree",
  { names = [], kind = "port-range" },
]

[session.lead]
metadata.size = 3
metadata.team = 'checkout'
env.ROOT = "{{ workspace.root }}"
env.B = "{{ port.db }}"
env.A = "\u0031"
resources = ["git-worktree", { block-size = 0x10, kind = "port-range", names = ["http", "db"] }]
"#;

fn bytes(sandbox: &Sandbox) -> String {
    sandbox.ok(&["plan", "--json"]).stdout
}

#[test]
fn a_manifest_written_otherwise_gives_the_same_bytes() {
    let sandbox = Sandbox::new();
    sandbox.manifest(ONE);
    let one = bytes(&sandbox);
    assert_eq!(bytes(&sandbox), one);
    sandbox.manifest(OTHER);
    assert_eq!(bytes(&sandbox), one);
    let text = sandbox.manifest_text(OTHER).replace('\n', "\r\n");
    sandbox.write("seedbed.toml", &text);
    assert_eq!(bytes(&sandbox), one);
    // Manifests with different content have different digests.
    sandbox.manifest(&OTHER.replace("\"two\"", "\"three\""));
    assert_ne!(bytes(&sandbox), one);
}

#[test]
fn a_clone_in_another_directory_gives_the_same_bytes() {
    let sandbox = Sandbox::new();
    sandbox.manifest(ONE);
    let one = bytes(&sandbox);
    let clone = sandbox.clone_to("somewhere else");
    assert_eq!(sandbox.seedbed_in(&clone, &["plan", "--json"]).expect(0).stdout, one);
    let below = clone.join("app/lib");
    assert_eq!(sandbox.seedbed_in(&below, &["plan", "--json"]).expect(0).stdout, one);
    let (manifest, directory) = (clone.join("seedbed.toml"), sandbox.top.clone());
    let args = ["plan", "--json", "-f", manifest.to_str().unwrap(), "--jobs", "7"];
    assert_eq!(sandbox.seedbed_in(&directory, &args).expect(0).stdout, one);
    let saved = sandbox.top.join("plan.json");
    sandbox.seedbed_in(&clone, &["plan", "-o", saved.to_str().unwrap()]).expect(0);
    assert_eq!(fs::read_to_string(saved).unwrap(), one);
}

#[test]
fn planning_changes_nothing() {
    let sandbox = Sandbox::new();
    sandbox.manifest(ONE);
    sandbox.unchanged(|| {
        sandbox.ok(&["plan"]);
        sandbox.ok(&["validate"]);
        sandbox.seedbed(&["plan", "--detailed-exitcode"]).expect(2);
    });
    assert!(!sandbox.state().exists(), "planning wrote to the state directory");
}

#[test]
fn the_environment_of_the_caller_is_no_part_of_a_plan() {
    let sandbox = Sandbox::new();
    sandbox.manifest(ONE);
    let one = bytes(&sandbox);
    let mut command = sandbox.command(&["plan", "--json"]);
    command.env("LANG", "tr_TR.UTF-8").env("TZ", "Asia/Kathmandu").env("A", "9").env("AGENT_SESSION_ID", "x");
    assert_eq!(String::from_utf8(command.output().unwrap().stdout).unwrap(), one);
}
