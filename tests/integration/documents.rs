//! Tests that files beside the code agree with the code: schemas, examples, the README and the book in `docs`.

mod blocks;
mod changes;
mod ci_recipe;
mod contracts;
mod generated;
mod links;
mod modules;
mod mutations;
mod pages;
mod test_workers;
mod words;

use std::collections::BTreeMap;
use std::path::PathBuf;

use seedbed::manifest;
use seedbed::plan::{self, Plan};
use seedbed::provider::Registry;
use seedbed::report::schema::generate;
use serde_json::Value;
use toml::de::{DeTable, DeValue};

use crate::friendly::friendly;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn examples() -> Vec<(String, String)> {
    let mut examples: Vec<_> = std::fs::read_dir(root().join("examples"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| {
            (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(path).unwrap())
        })
        .collect();
    examples.sort();
    assert!(examples.len() >= 3, "{examples:?}");
    examples
}

#[test]
fn every_example_is_valid_and_plans_without_a_word_of_warning() {
    let registry = Registry::built_in().with_external_kinds();
    for (name, text) in examples() {
        let manifest = manifest::parse(&text, &registry.kinds())
            .unwrap_or_else(|diagnostics| panic!("{name}: {diagnostics:#?}"));
        let observation = friendly(&plan::queries(&manifest, &registry));
        let plan = plan::plan(&manifest, &registry, &observation, None)
            .unwrap_or_else(|diagnostics| panic!("{name}: {diagnostics:#?}"));
        assert!(!plan.sessions().is_empty(), "{name}");
        for allocation in plan.sessions().iter().flat_map(|session| &session.allocations) {
            assert_eq!(allocation.notes, Vec::<String>::new(), "{name}");
            let provider = registry.get(&allocation.kind).unwrap();
            let notices = provider.notices(allocation, &observation);
            assert!(!notices.iter().any(|notice| notice.contains("ephemeral")), "{name}: {notices:?}");
        }
    }
}

#[test]
fn a_plan_document_fits_its_own_schema() {
    let registry = Registry::built_in().with_external_kinds();
    let validator = jsonschema::validator_for(&generate::<Plan>(&registry)).unwrap();
    for (name, text) in examples() {
        let manifest = manifest::parse(&text, &registry.kinds()).unwrap();
        let observation = friendly(&plan::queries(&manifest, &registry));
        let plan = plan::plan(&manifest, &registry, &observation, None).unwrap();
        let document = serde_json::to_value(&plan).unwrap();
        let diagnostics: Vec<_> = validator.iter_errors(&document).map(|error| error.to_string()).collect();
        assert!(diagnostics.is_empty(), "{name}: {diagnostics:?}");
        let mut no_tree = document.clone();
        no_tree["sessions"][0]["parent"] = "another".into();
        assert_eq!(serde_json::from_value::<Plan>(document).unwrap(), plan, "{name}");
        let error = serde_json::from_value::<Plan>(no_tree).unwrap_err().to_string();
        assert!(error.contains("is not below its parent"), "{name}: {error}");
    }
}

/// R1 to R31 have at least one test each, and every test exists at the path in the table.
#[test]
fn every_requirement_names_tests_that_exist() {
    let table = std::fs::read_to_string(root().join("tests/requirements.md")).unwrap();
    let rows: Vec<_> = table.lines().filter(|line| line.starts_with("| R")).collect();
    let numbers = rows.iter().map(|row| row[3..].split(' ').next().unwrap().parse::<u32>().unwrap());
    let numbers: Vec<_> = numbers.collect();
    assert!(numbers.starts_with(&(1..=31).collect::<Vec<_>>()) && numbers.is_sorted(), "{numbers:?}");
    for (row, number) in rows.iter().zip(numbers) {
        let (_, tests) = row.trim_end_matches(" |").rsplit_once(" | ").unwrap();
        let named: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "{row}");
        for name in named {
            let (module, test) = name.rsplit_once("::").unwrap();
            let path = module.replace("::", "/");
            let inside = path.trim_end_matches("/tests");
            let places = [
                format!("tests/integration/{path}.rs"),
                format!("src/{path}.rs"),
                format!("src/{inside}.rs"),
            ];
            let code: String =
                places.iter().filter_map(|place| std::fs::read_to_string(root().join(place)).ok()).collect();
            assert!(code.contains(&format!("fn {test}()")), "R{number}: {name}");
        }
    }
}

/// Returns the strings of a list in `deny.toml`; of tables, the value of their key `crate`.
fn rules(deny: &DeTable<'_>, section: &str, list: &str) -> Vec<String> {
    let rules = deny[section].get_ref().get(list).unwrap().get_ref().as_array().unwrap();
    let text = |rule: &DeValue<'_>| {
        rule.get("crate").map_or(rule.as_str(), |name| name.get_ref().as_str()).map(str::to_owned)
    };
    rules.iter().map(|rule| text(rule.get_ref()).unwrap()).collect()
}

#[test]
fn dependencies_obey_deny_toml() {
    let deny = std::fs::read_to_string(root().join("deny.toml")).unwrap();
    let deny = DeTable::parse(&deny).unwrap().into_inner();
    let (licenses, banned) = (rules(&deny, "licenses", "allow"), rules(&deny, "bans", "deny"));
    let metadata = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--all-features"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        *versions.entry(name).or_default() += 1;
        let license = package["license"].as_str().unwrap_or_default();
        let is_allowed = |license: &str| licenses.iter().any(|allowed| allowed == license);
        let alternatives = license.replace(['(', ')'], "").replace('/', " OR ");
        let is_fine = alternatives.split(" AND ").all(|part| part.split(" OR ").any(is_allowed));
        assert!(is_fine, "{name} has the licence {license:?}");
        assert!(!banned.iter().any(|banned| banned == name), "{name} is banned");
    }
    let twice: Vec<_> = versions.iter().filter(|(_, count)| **count > 1).map(|(name, _)| *name).collect();
    let mut known = rules(&deny, "bans", "skip");
    known.sort_unstable();
    assert_eq!(twice, known, "crates in two versions");
}
