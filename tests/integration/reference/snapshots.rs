//! Tests against the discovery snapshots of the reference implementation ("the seed"): sessions of the library and of a
//! manifest have the same snapshots.
//!
//! `snapshots.json` has the snapshots that the reference implementation wrote for these requests in a repository at
//! `$REPO`. Its default ports lie in the range of outgoing connections, so that a test moves them to its own region.

use std::collections::BTreeMap;

use seedbed::discovery::{self, Snapshot};
use seedbed::orchestrator::{Orchestrator, Provisioned, ResourceRequest};
use seedbed::provider::Registry;
use serde::Deserialize;
use serde_json::Value;

use crate::library_sandbox::{Sandbox, free_ports};

/// First port and number of ports of the reference implementation's default range.
const SEED_PORTS: (u32, u32) = (36_000, 32 * 512);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    /// Request of a session at the top.
    #[serde(default)]
    requests: Vec<ResourceRequest>,
    parent: Option<String>,
    child_index: Option<u32>,
    child_count: Option<u32>,
    snapshot: Value,
}

/// Returns the reference implementation's entries for this repository, with its default range beginning at `base`.
fn entries(sandbox: &Sandbox, base: u32) -> Vec<Entry> {
    let text = include_str!("../../vectors/snapshots.json");
    let repo = sandbox.repo.to_str().expect("the path of a temporary directory is UTF-8");
    serde_json::from_str(&moved(text, base).replace("$REPO", repo)).expect("the snapshots are of this shape")
}

/// Moves every number of the reference implementation's range to one that begins at `base`.
fn moved(text: &str, base: u32) -> String {
    let mut moved = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_alphanumeric()) {
        let (before, word) = rest.split_at(at);
        let end = word.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(word.len());
        let (word, after) = word.split_at(end);
        let offset = word.parse::<u32>().ok().and_then(|port| port.checked_sub(SEED_PORTS.0));
        moved.push_str(before);
        match offset.filter(|offset| *offset < SEED_PORTS.1) {
            Some(offset) => moved.push_str(&(base + offset).to_string()),
            None => moved.push_str(word),
        }
        rest = after;
    }
    moved + rest
}

/// Returns a base such that the blocks of `parents` are free and below the ephemeral range.
fn base(sandbox: &Sandbox) -> u32 {
    let starts: Vec<u32> = entries(sandbox, 0)
        .iter()
        .filter(|entry| entry.parent.is_none())
        .map(|entry| u32::try_from(port(&entry.snapshot)).expect("a port"))
        .collect();
    let free = |base: u32| {
        starts.iter().all(|start| {
            let block = seedbed::name::PortBlock::new(base + start, base + start + 31).expect("a block");
            seedbed::host::leases::probe(block).is_ok()
        })
    };
    // The first port of a test belongs to no other test.
    let first = u32::from(free_ports(32)) % 10_000 + 4_000;
    (first..).step_by(32).find(|base| free(*base)).expect("some ports are free")
}

fn port(snapshot: &Value) -> u64 {
    snapshot["hardConstraints"][1]["allocation"]["startPort"].as_u64().expect("a port-range comes second")
}

/// Returns the first path at which `found` differs from `expected`; `found` may have more keys.
fn difference(found: &Value, expected: &Value, path: &str) -> Option<String> {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => expected.iter().find_map(|(key, expected)| {
            difference(found.get(key).unwrap_or(&Value::Null), expected, &format!("{path}.{key}"))
        }),
        (Value::Array(found), Value::Array(expected)) if found.len() == expected.len() => found
            .iter()
            .zip(expected)
            .enumerate()
            .find_map(|(at, (found, expected))| difference(found, expected, &format!("{path}[{at}]"))),
        _ => (found != expected).then(|| format!("{path}: {found} is not the seed's {expected}")),
    }
}

#[track_caller]
fn assert_contains(found: &Snapshot, expected: &Value) {
    let found = serde_json::to_value(found).expect("a snapshot is JSON");
    assert_eq!(difference(&found, expected, "snapshot"), None);
}

#[test]
fn sessions_of_the_library() {
    let sandbox = Sandbox::new();
    let before = sandbox.trace();
    let base = base(&sandbox);
    let orchestrator = Orchestrator::new(sandbox.host.clone())
        .with_defaults(&ResourceRequest::new("port-range").with("basePort", base));
    let mut applied: BTreeMap<String, Provisioned> = BTreeMap::new();
    for entry in entries(&sandbox, base) {
        let id = entry.snapshot["sessionId"].as_str().expect("an id");
        let provisioned = match (entry.parent, entry.child_index, entry.child_count) {
            (Some(parent), Some(index), Some(count)) => {
                orchestrator.provision_child(applied[&parent].snapshot(), id, index, count)
            }
            _ => orchestrator.provision(id, &entry.requests, &sandbox.repo),
        };
        let provisioned = provisioned.unwrap_or_else(|error| panic!("{id}: {error}"));
        assert_contains(provisioned.snapshot(), &entry.snapshot);
        assert_eq!(provisioned.snapshot().swarm, None);
        applied.insert(id.to_owned(), provisioned);
    }
    assert_eq!(sandbox.git(&["status", "--porcelain"]), "");
    for (id, session) in applied.iter().rev() {
        session.release().unwrap_or_else(|error| panic!("{id}: {error}"));
    }
    assert_eq!(sandbox.trace(), before);
}

#[test]
fn sessions_of_a_manifest() {
    let sandbox = Sandbox::new();
    let base = base(&sandbox);
    let manifest = format!(
        r#"
        version = 1
        swarm = "fixture"
        [defaults.git-worktree]
        base-ref = "main"
        layout = "nested"
        [defaults.port-range]
        base-port = {base}
        reserve = 0
        [session.lead]
        resources = ["git-worktree", "port-range"]
        [session.lead.child.coder]
        count = 2
        [session.docs]
        resources = [
            {{ kind = "git-worktree", target-path = "services/api" }},
            {{ kind = "port-range", primary-port-offset = 20 }},
        ]
        [session.docs.child.writer]
        count = 2
        "#
    );
    let record = sandbox.apply(&manifest).expect("applies");
    let entries = entries(&sandbox, base);
    assert_eq!(record.plan.sessions().len(), entries.len());
    for entry in entries {
        let session = record.plan.sessions().iter().find(|session| entry.snapshot["sessionId"] == session.id);
        let session = session.expect("the seed's session is one of the plan's");
        let registry = Registry::built_in();
        let snapshot = discovery::snapshot(&record, session, &registry, &sandbox.repo, &sandbox.host.state);
        assert_contains(&snapshot, &entry.snapshot);
        let file = sandbox.repo.join(session.discovery_file.as_ref().expect("it has a worktree"));
        assert_eq!(std::fs::read(file).expect("it was written"), snapshot.to_bytes());
    }
}
