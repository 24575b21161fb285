//! Tests of the example of an external kind in this repository.

use std::fmt::Write as _;
use std::fs;

use super::{asked, things, validate};
use crate::cli::shells::installed;
use crate::fixtures::repository;
use crate::sandbox::{Sandbox, sessions};

/// Creates a sandbox with the example of this repository, with Python's own JSON.
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
            let env = sandbox.ok(&["env", session, "--format", "json"]).json()["environment"].take();
            sandbox.repository.join(env["DATABASE_DIR"].as_str().unwrap())
        };
        let database = directory("api");
        assert_eq!(fs::read_to_string(database.join("users.json")).unwrap(), "[]\n");
        assert_eq!(directory("worker-1"), database, "a share is the parent's database");
        sandbox.ok(&["apply"]).says(&["nothing to do"]);
        fs::remove_dir_all(&database).unwrap();
        assert!(sandbox.ok(&["plan"]).stdout.contains("was removed or replaced"));
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
    sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(1).says(&["belongs to another owner"]));
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
fn the_examples_of_the_protocol_fit_its_schema() {
    let page = fs::read_to_string(repository("docs/src/reference/external-kinds.md")).unwrap();
    for operation in ["plan", "provision", "inspect", "release"] {
        let section =
            page.split_once(&format!("\n### `{operation}`\n")).unwrap().1.split("\n##").next().unwrap();
        let blocks: Vec<serde_json::Value> = section
            .split("```json\n")
            .skip(1)
            .map(|block| serde_json::from_str(block.split("```").next().unwrap()).unwrap())
            .collect();
        let (request, answers) = blocks.split_first().unwrap();
        validate("request", request);
        assert_eq!(request["operation"], operation);
        assert!(!answers.is_empty());
        for answer in answers {
            validate(operation, answer);
        }
    }
}

/// A schema is checked without running the program, also one that a stranger wrote.
#[test]
fn a_schema_that_cannot_be_used_is_a_diagnostic() {
    let sandbox = things("");
    sandbox.manifest(
        "[provider.thing]\ncommand = ['./tools/thing']\nschema = 'schema.json'\n[session.a]\nresources = [{ kind = 'thing', size = 3 }]\n",
    );
    let check = |schema: &str, expected: &str| {
        sandbox.write("schema.json", schema);
        sandbox.seedbed(&["validate"]).expect(65).says(&[expected, "schema.json"]);
    };
    sandbox.seedbed(&["validate"]).expect(65).says(&["has no file `schema.json`", "[options-schema]"]);
    check("{", "cannot be used");
    check("{ \"type\": 1 }", "cannot be used");
    check("{ \"$ref\": \"#\" }", "it has a reference");
    check("{ \"allOf\": [{ \"$dynamicRef\": \"https://example.org\" }] }", "it has a reference");
    check(&format!("\"{}\"", "x".repeat(70_000)), "is larger than 64 KiB");
    check("{}\0", "contains NUL");
    fs::remove_file(sandbox.repository.join("schema.json")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", sandbox.repository.join("schema.json")).unwrap();
    sandbox.seedbed(&["validate"]).expect(65).says(&["`schema.json` is a link"]);
    fs::remove_file(sandbox.repository.join("schema.json")).unwrap();
    sandbox.write("schema.json", r#"{ "type": "object", "properties": { "size": { "maximum": 2 } } }"#);
    sandbox.seedbed(&["validate"]).expect(65).says(&["size = 3", "[out-of-range]"]);
    sandbox.write("schema.json", r#"{ "type": "object", "properties": { "size": { "maximum": 3 } } }"#);
    sandbox.ok(&["validate"]);
    assert!(asked(&sandbox).is_empty());
}
