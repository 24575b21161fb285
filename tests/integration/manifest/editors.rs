//! Tests of the published schema in the clients that editors and CI check manifests with. taplo, tombi and
//! check-jsonschema accept what seedbed accepts, and reject every error of syntax and structure.
//!
//! `.ci/run` installs the clients, and sets `SEEDBED_REQUIRE_EDITORS` to require them. Elsewhere, a client that is not
//! on the `PATH` is skipped, and the test prints that.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use seedbed::manifest::{self, rule};
use seedbed::provider::Registry;
use tempfile::TempDir;

use crate::fixtures::repository;

/// Returns every manifest of a folder.
fn manifests(folder: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(repository(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    found.sort();
    assert!(found.len() >= 3, "{folder}");
    found
}

/// Returns whether a client can find the error: an error of syntax or structure, not of meaning.
fn is_structural(path: &Path) -> bool {
    let text = fs::read_to_string(path).unwrap();
    let found = manifest::read(&text, &Registry::built_in().kinds()).diagnostics;
    let version = |diagnostic: &manifest::Diagnostic| diagnostic.rule == rule::VERSION;
    found.iter().any(|diagnostic| rule::STRUCTURAL.contains(&diagnostic.rule) || version(diagnostic))
}

/// Returns the client `name`; `None` if it is not installed and not required.
pub(crate) fn client(name: &str) -> Option<Command> {
    let found = env::split_paths(&env::var_os("PATH").unwrap())
        .map(|path| path.join(name))
        .find(|path| path.is_file());
    if let Some(path) = found {
        return Some(Command::new(path));
    }
    assert!(env::var_os("SEEDBED_REQUIRE_EDITORS").is_none(), "{name} is not on the PATH");
    eprintln!("NOT TESTED: {name} is not on the PATH; .ci/run installs it");
    None
}

/// Expects that the client, whose arguments `arguments` completes with a manifest, accepts valid manifests and rejects
/// invalid ones.
fn check(name: &str, arguments: &dyn Fn(&mut Command, &Path)) {
    if client(name).is_none() {
        return;
    }
    let accepts = |path: &Path| {
        let mut command = client(name).unwrap();
        arguments(&mut command, path);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    for path in ["examples", "tests/manifests/valid"].iter().flat_map(|folder| manifests(folder)) {
        let (accepted, said) = accepts(&path);
        assert!(accepted, "{name} rejects {}:\n{said}", path.display());
    }
    let (mut structural, mut others) = (0, 0);
    for path in manifests("tests/manifests/invalid") {
        let (accepted, said) = accepts(&path);
        if is_structural(&path) {
            structural += 1;
            assert!(!accepted, "{name} accepts {}:\n{said}", path.display());
        } else {
            others += 1;
        }
    }
    assert!(structural >= 40 && others >= 20, "{structural} structural faults, {others} others");
}

#[test]
fn taplo_reports_what_the_schema_rejects() {
    let schema = format!("file://{}", repository("schemas/manifest.schema.json").display());
    check("taplo", &|command, path| {
        command.args(["lint", "--schema", &schema]).arg(path);
    });
}

#[test]
fn tombi_reports_what_the_schema_rejects() {
    let top = TempDir::new().unwrap();
    let schema = repository("schemas/manifest.schema.json");
    let config = format!("[[schemas]]\npath = \"{}\"\ninclude = [\"*.toml\"]\n", schema.display());
    fs::write(top.path().join("tombi.toml"), config).unwrap();
    // It applies the schemas of a configuration to what lies below it.
    check("tombi", &|command, path| {
        let copy = top.path().join("seedbed.toml");
        fs::copy(path, &copy).unwrap();
        command.args(["lint", "--offline"]).arg("seedbed.toml").current_dir(top.path());
    });
}

#[test]
fn check_jsonschema_reports_what_the_schema_rejects() {
    let schema = repository("schemas/manifest.schema.json");
    check("check-jsonschema", &|command, path| {
        command.arg("--schemafile").arg(&schema).arg(path);
    });
}

/// Checks the text that editors show and complete: every key is described, and every option has a default or an
/// example. An entry of `resources` is identified by its kind.
#[test]
fn schema_has_messages_for_editors() {
    let schema = manifest::schema(&Registry::built_in().kinds());
    for kind in ["git-worktree", "port-range"] {
        let request = &schema["$defs"][format!("{kind}.request")];
        assert_eq!(request["properties"]["kind"]["const"], kind);
        for (option, described) in request["properties"].as_object().unwrap() {
            let place = format!("{kind}: {option}");
            assert!(described["description"].is_string() || described["$ref"].is_string(), "{place}");
            let says =
                ["default", "examples", "const", "enum"].iter().any(|key| described.get(key).is_some());
            assert!(says, "{place}");
        }
    }
    for table in ["session", "workspace", "provider"] {
        let table =
            schema["$defs"].as_object().unwrap().iter().find(|(name, _)| name.eq_ignore_ascii_case(table));
        let (name, table) = table.expect("the table is defined");
        for (key, described) in table["properties"].as_object().unwrap() {
            assert!(described["description"].is_string(), "{name}: {key}");
        }
    }
}
