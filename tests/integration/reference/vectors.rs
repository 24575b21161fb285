//! Tests that pure functions return the same values as those of the reference implementation ("the seed"), for some
//! hundred inputs.

use seedbed::discovery::Snapshot;
use seedbed::name::{HashDigits, hash_u32, scoped_name};
use seedbed::orchestrator::{ResourceRequest, child_requests};
use seedbed::provider::Registry;
use seedbed::provider::git_worktree::normalize_target_path;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Vectors {
    scoped_names: Vec<ScopedName>,
    preferred_blocks: Vec<PreferredBlock>,
    target_paths: Vec<TargetPath>,
    children: Vec<Child>,
}

#[derive(Deserialize)]
struct ScopedName {
    id: String,
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PreferredBlock {
    id: String,
    block_count: u32,
    block: u32,
}

#[derive(Deserialize)]
struct TargetPath {
    value: String,
    ok: Option<String>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Child {
    input: ChildInput,
    ok: Option<Vec<ResourceRequest>>,
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChildInput {
    child_index: u32,
    child_count: u32,
    parent_snapshot: Snapshot,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../vectors/seed.json")).expect("the vectors are of this shape")
}

#[test]
fn scoped_names() {
    for ScopedName { id, name } in vectors().scoped_names {
        assert_eq!(scoped_name(&id, HashDigits::Eight), name, "{id:?}");
    }
}

#[test]
fn preferred_blocks() {
    for PreferredBlock { id, block_count, block } in vectors().preferred_blocks {
        assert_eq!(hash_u32(&id) % block_count, block, "{id:?} of {block_count}");
    }
}

/// The wording of an error may differ from the reference implementation's, but not the error itself.
#[test]
fn target_paths() {
    for TargetPath { value, ok, error } in vectors().target_paths {
        let kind = |message: &str| match () {
            () if message.contains("relative path") => "not relative",
            () if message.contains("..") => "leads up",
            () => "unknown",
        };
        let expected = match &error {
            Some(error) => Err(kind(error)),
            None => Ok(ok),
        };
        let found = normalize_target_path(&value);
        assert_eq!(found.map_err(|error| kind(&error)), expected, "{value:?}");
    }
}

#[test]
fn children() {
    let children = vectors().children;
    assert_eq!(children.len(), 60);
    for Child { input, ok, error } in children {
        let found = child_requests(
            &Registry::built_in(),
            &input.parent_snapshot,
            input.child_index,
            input.child_count,
        );
        let expected = match error {
            Some(error) => Err(error),
            None => Ok(ok.expect("a result or an error")),
        };
        let parent = &input.parent_snapshot;
        let at = format!("{} of {} of {parent:#?}", input.child_index, input.child_count);
        assert_eq!(found.map_err(|error| error.to_string()), expected, "{at}");
    }
}

#[test]
fn errors_of_the_reference_implementation_outside_the_vectors_match() {
    let check = |allocation: serde_json::Value, index, count, expected: &str| {
        let parent = serde_json::json!({
            "sessionId": "a", "workspaceRoot": "/w", "workingDirectory": "/w",
            "hardConstraints": [allocation],
            "softConstraints": { "env": {}, "promptSections": [], "metadata": {} },
        });
        let parent: Snapshot =
            serde_json::from_value(parent).expect("a snapshot of the seed's is one of ours");
        let error = child_requests(&Registry::built_in(), &parent, index, count).expect_err(expected);
        assert_eq!(error.to_string(), expected);
    };
    let ports = |fields: serde_json::Value| serde_json::json!({ "kind": "port-range", "allocation": fields });
    let worktree = serde_json::json!({ "kind": "git-worktree", "allocation": { "worktreePath": " " } });
    check(ports(serde_json::json!({})), 0, 0, "childCount must be a positive integer.");
    check(ports(serde_json::json!({})), 2, 2, "childIndex must be an integer in [0, childCount).");
    check(ports(serde_json::json!({})), 0, 1, "Allocation field \"startPort\" must be an integer.");
    let block = serde_json::json!({ "startPort": 1, "endPort": 2.5, "primaryPort": 1, "lockPath": "l" });
    check(ports(block), 0, 1, "Allocation field \"endPort\" must be an integer.");
    let block = serde_json::json!({ "startPort": 1, "endPort": 2, "primaryPort": 1, "lockPath": "" });
    check(ports(block), 0, 1, "Allocation field \"lockPath\" must be a non-empty string.");
    check(worktree, 0, 1, "Allocation field \"worktreePath\" must be a non-empty string.");
}
