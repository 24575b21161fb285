//! Tests of swarms whose manifest was deleted, or names another swarm.

use std::fs;

use serde_json::json;

use crate::sandbox::Sandbox;

const SESSIONS: &str = r#"
[session.a]
resources = [{ kind = "git-worktree", branch = "agents/a" }]
command = ["pwd"]
[session.b]
resources = ["port-range"]
"#;

#[test]
fn applied_swarm_is_inspected_and_released_without_its_manifest() {
    let sandbox = Sandbox::new();
    sandbox.manifest(SESSIONS);
    let text = fs::read_to_string(sandbox.repository.join("seedbed.toml")).unwrap();
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("a");
    fs::write(directory.join("work"), "work").unwrap();

    // Renamed: each command that finds nothing names the applied swarm.
    sandbox.write("seedbed.toml", &text.replace("\"shop\"", "\"store\""));
    let named = ["swarm applied here: shop", "`seedbed status --swarm shop`"];
    sandbox.seedbed(&["plan"]).expect(65).says(&named);
    sandbox.seedbed(&["apply"]).expect(65).says(&named);
    sandbox.seedbed(&["status"]).expect(64).says(&named);
    sandbox.seedbed(&["destroy"]).expect(0).says(&["nothing is applied", named[0]]);
    sandbox.seedbed(&["destroy", "--dry-run"]).expect(0).says(&["nothing is applied", named[0]]);
    sandbox.seedbed(&["recover"]).expect(0).says(&["nothing to recover", named[0]]);
    sandbox.seedbed(&["apply", "--swarm", "shop"]).expect(64).says(&["reads a manifest"]);
    sandbox.seedbed(&["status", "--swarm", "shopp"]).expect(64).says(&["no swarm `shopp`", named[0]]);
    // Suggested commands repeat the option.
    let refused = sandbox.seedbed(&["--swarm", "shop", "exec", "c", "--", "true"]).expect(125);
    refused.says(&["`seedbed --swarm shop status`"]);

    // Deleted: the only applied swarm is meant, from inside of its sessions too.
    fs::remove_file(sandbox.repository.join("seedbed.toml")).unwrap();
    sandbox.seedbed(&["plan"]).expect(64).says(&["no seedbed.toml", named[0]]);
    sandbox.seedbed(&["-f", "other.toml", "status"]).expect(64).says(&["cannot read", named[0]]);
    for place in [&sandbox.repository, &sandbox.repository.join("app"), &directory] {
        let status = sandbox.seedbed_in(place, &["status", "--json"]).expect(0).json();
        assert_eq!(status["swarm"], "shop");
    }
    let shown = sandbox.ok(&["start", "a"]).says(&["the swarm is shop"]);
    assert!(shown.stdout.contains(directory.to_str().unwrap()), "{}", shown.stdout);
    sandbox.seedbed(&["destroy"]).expect(69).says(&["untracked"]);

    // Several: a choice is required.
    sandbox.write("seedbed.toml", &text.replace("\"shop\"", "\"store\"").replace("agents/a", "agents/c"));
    sandbox.ok(&["apply"]).says(&["swarm store is not applied here yet", named[0]]);
    fs::remove_file(sandbox.repository.join("seedbed.toml")).unwrap();
    sandbox.unchanged(|| {
        for command in ["destroy", "status", "recover"] {
            sandbox.seedbed(&[command]).expect(64).says(&["swarms applied here: shop, store"]);
        }
    });
    sandbox.ok(&["destroy", "--swarm", "shop", "--rescue"]);
    let left = sandbox.ok(&["list", "--json"]).json();
    assert_eq!(left["swarms"].as_array().unwrap().len(), 1);

    // An interrupted run is recovered; `--gone` refuses with the command to run.
    let mut killed = sandbox.command(&["destroy", "-y"]);
    killed.env("SEEDBED_FAILPOINT", "release.allocation=crash").output().unwrap();
    let gone = sandbox.seedbed_in(&sandbox.top, &["destroy", "store", "--gone"]).expect(69);
    gone.says(&[&format!("seedbed -C {} destroy --swarm store", sandbox.repository.display())]);
    sandbox.ok(&["recover"]).says(&["finished an interrupted destroy"]);
    assert_eq!(sandbox.ok(&["list", "--json"]).json()["swarms"], json!([]));
}
