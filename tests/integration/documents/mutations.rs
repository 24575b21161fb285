//! Tests of the mutation patches: each is listed, applies, and names a test that exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::root;

/// Returns the mutation patches, in no order.
fn patches() -> impl Iterator<Item = PathBuf> {
    let files = fs::read_dir(root().join("tests/mutations")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "patch"))
}

/// Returns the value of a field in the header of a patch.
fn field(patch: &str, name: &str) -> String {
    patch.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned()
}

/// Every defence that has a mutation patch is in the table with the patch's text, and the table has no other.
#[test]
fn every_mutation_is_listed() {
    let table = fs::read_to_string(root().join("tests/mutations.md")).unwrap();
    let listed: Vec<_> = table.lines().filter(|line| line.starts_with("| `")).map(str::to_owned).collect();
    let row = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap();
        format!("| `{name}` | {} | `cargo test {}` |", field(&text, "defence: "), field(&text, "test: "))
    };
    let mut rows: Vec<_> = patches().map(row).collect();
    rows.sort();
    assert_eq!(listed, rows);
}

/// A patch that no longer applies removes no defence any more.
#[test]
fn every_mutation_applies() {
    for patch in patches() {
        let mut apply = Command::new("git");
        let applied = apply.current_dir(root()).args(["apply", "--check"]).arg(&patch).output().unwrap();
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    }
}

/// A filter that selects no test would let any patch pass.
#[test]
fn every_mutation_names_a_test_that_exists() {
    let (mut library, mut integration) = (BTreeSet::new(), BTreeSet::new());
    tests_below(&root().join("src"), "", &mut library);
    tests_below(&root().join("tests/integration"), "", &mut integration);
    for patch in patches() {
        let text = fs::read_to_string(&patch).unwrap();
        let command = field(&text, "test: ");
        let (tests, filter) = match command.split(' ').collect::<Vec<_>>()[..] {
            ["--lib", filter] => (&library, filter),
            ["--test", "integration", filter] => (&integration, filter),
            _ => panic!("{}: `test:` has another form: {command}", patch.display()),
        };
        let selects = tests.iter().any(|test| test.contains(filter));
        assert!(selects, "{}: no test matches `{filter}`", patch.display());
    }
}

/// Adds the names of the tests in the files of a directory, as `cargo test` prints them.
fn tests_below(directory: &Path, module: &str, tests: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let is_root = module.is_empty() && matches!(name, "lib" | "main");
        let module = if is_root { String::new() } else { format!("{module}{name}::") };
        if path.is_dir() {
            tests_below(&path, &module, tests);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            tests_of(&fs::read_to_string(&path).unwrap(), &module, tests);
        }
    }
}

/// Adds the names of the tests in the text of a file.
fn tests_of(text: &str, module: &str, tests: &mut BTreeSet<String>) {
    let (mut inner, mut is_test) = (String::new(), false);
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("mod ").and_then(|line| line.strip_suffix(" {")) {
            inner = format!("{name}::");
        }
        let line = line.trim_start();
        is_test |= line.starts_with("#[test]");
        if let Some(name) = line.strip_prefix("fn ").filter(|_| is_test) {
            let name = name.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
            tests.insert(format!("{module}{inner}{name}"));
            is_test = false;
        }
    }
}
