//! Tests of `validate` for people, programs and code review: the same diagnostics in every form.

use std::fs;

use serde_json::{Value, json};

use crate::fixtures::repository;
use crate::sandbox::Sandbox;

/// Manifest with two errors, the second behind wide characters.
const FAULTY: &str = "[session.a]\ncuont = 2\nmetadata = { \"日本 🦀\" = \"100%, é\", since = 2026-01-31 }\n";

fn schema(path: &str) -> jsonschema::Validator {
    let schema: Value = serde_json::from_slice(&fs::read(repository(path)).unwrap()).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

#[track_caller]
fn check_fits(document: &Value, schema_path: &str) {
    let diagnostics: Vec<_> =
        schema(schema_path).iter_errors(document).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(diagnostics.is_empty(), "{diagnostics:#?}\n{document:#}");
}

#[test]
fn diagnostics_as_json_fit_their_schema_and_have_location_and_help() {
    let sandbox = Sandbox::new();
    sandbox.manifest(FAULTY);
    let lines = sandbox.manifest_text(FAULTY);
    let line = 1 + lines.lines().position(|line| line.starts_with("cuont")).unwrap();
    let found = sandbox.seedbed(&["validate", "--format", "json"]).expect(65).json();
    assert_eq!(found, sandbox.seedbed(&["validate", "--json"]).expect(65).json());
    check_fits(&found, "schemas/diagnostics.schema.json");
    assert_eq!(found["valid"], false);
    assert_eq!(found["file"], "seedbed.toml");
    let diagnostic = &found["diagnostics"][0];
    assert_eq!(diagnostic["rule"], "unknown-key");
    assert_eq!([&diagnostic["line"], &diagnostic["endLine"]], [line, line]);
    assert_eq!([&diagnostic["column"], &diagnostic["endColumn"]], [1, 6]);
    assert_eq!(diagnostic["label"], "did you mean `count`?");
    // Columns count characters: eight before the date that are not ASCII or escaped would count twice otherwise.
    let before = "metadata = { \"日本 🦀\" = \"100%, é\", since = ".chars().count();
    assert_eq!(found["diagnostics"][1]["rule"], "no-such-value");
    assert_eq!(found["diagnostics"][1]["column"], before + 1);
    assert_eq!(found["diagnostics"][1]["endColumn"], before + 11);
}

#[test]
fn valid_manifest_is_reported_valid_in_every_format() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\ncount = 2\n");
    assert_eq!(sandbox.ok(&["validate"]).stdout, "seedbed.toml is valid: 2 sessions\n");
    let found = sandbox.ok(&["validate", "--json"]).json();
    check_fits(&found, "schemas/diagnostics.schema.json");
    assert_eq!([&found["valid"], &found["sessions"]], [&json!(true), &json!(2)]);
    let sarif = sandbox.ok(&["validate", "--format", "sarif"]).json();
    check_fits(&sarif, "tests/sarif-essentials.schema.json");
    assert_eq!(sarif["runs"][0]["results"], json!([]));
    assert_eq!(sandbox.ok(&["validate", "--format", "github"]).stdout, "");
    let both = sandbox.seedbed(&["validate", "--json", "--format", "sarif"]).expect(64).json();
    assert!(both["message"].as_str().unwrap().contains("use one of them"), "{both}");
}

#[test]
fn diagnostics_as_sarif_name_their_rules_and_columns() {
    let sandbox = Sandbox::new();
    sandbox.manifest(FAULTY);
    let sarif = sandbox.seedbed(&["validate", "--format", "sarif"]).expect(65).json();
    check_fits(&sarif, "tests/sarif-essentials.schema.json");
    let run = &sarif["runs"][0];
    assert_eq!(run["columnKind"], "unicodeCodePoints");
    let diagnostics = sandbox.seedbed(&["validate", "--json"]).expect(65).json();
    let diagnostics = diagnostics["diagnostics"].as_array().unwrap();
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), diagnostics.len());
    for (result, diagnostic) in results.iter().zip(diagnostics) {
        let rule = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(run["tool"]["driver"]["rules"][rule]["id"], result["ruleId"]);
        assert_eq!(result["ruleId"], diagnostic["rule"]);
        let location = &result["locations"][0]["physicalLocation"];
        assert_eq!(location["artifactLocation"]["uri"], "seedbed.toml");
        let region = &location["region"];
        for (of_sarif, of_json) in [
            ("startLine", "line"),
            ("startColumn", "column"),
            ("endLine", "endLine"),
            ("endColumn", "endColumn"),
        ] {
            assert_eq!(region[of_sarif], diagnostic[of_json], "{of_sarif}");
        }
    }
}

#[test]
fn the_schema_of_sarif_refuses_what_is_not_sarif() {
    let schema = schema("tests/sarif-essentials.schema.json");
    let sandbox = Sandbox::new();
    sandbox.manifest(FAULTY);
    let good = sandbox.seedbed(&["validate", "--format", "sarif"]).expect(65).json();
    assert!(schema.is_valid(&good));
    for (place, wrong) in [
        ("/version", json!("2.0.0")),
        ("/runs/0/columnKind", json!("bytes")),
        ("/runs/0/results/0/level", json!("fatal")),
        ("/runs/0/results/0/message", json!({})),
        ("/runs/0/results/0/locations/0/physicalLocation/region/startColumn", json!(0)),
        ("/runs/0/tool/driver/name", json!(null)),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(place).expect("the place is there") = wrong;
        assert!(!schema.is_valid(&bad), "{place}");
    }
}

#[test]
fn github_shows_each_diagnostic_at_its_line() {
    let sandbox = Sandbox::new();
    sandbox.manifest(FAULTY);
    let text = sandbox.manifest_text(FAULTY);
    let line = 1 + text.lines().position(|line| line.starts_with("cuont")).unwrap();
    let annotations = sandbox.seedbed(&["validate", "--format", "github"]).expect(65).stdout;
    let annotations: Vec<_> = annotations.lines().collect();
    assert_eq!(annotations.len(), 2);
    let head = format!(
        "::error file=seedbed.toml,line={line},endLine={line},col=1,endColumn=6,title=seedbed%3A unknown-key::unknown \
         key `cuont`"
    );
    assert!(annotations[0].starts_with(&head), "{}", annotations[0]);
    assert!(annotations[0].contains("%0Aallowed here: "), "{}", annotations[0]);
}

#[test]
fn thousand_diagnostics_are_cut_for_people_and_complete_for_programs() {
    let sandbox = Sandbox::new();
    let sessions: Vec<_> = (0..1000).map(|at| format!("[session.s{at}]\ncuont = 1\n")).collect();
    sandbox.manifest(&sessions.concat());
    let shown = sandbox.seedbed(&["validate"]).expect(65).stderr;
    assert!(shown.contains("has 1000 errors, of which these are the first 100"), "{shown:.400}");
    assert_eq!(shown.matches("unknown key `cuont`").count(), 100);
    let found = sandbox.seedbed(&["validate", "--json"]).expect(65).json();
    assert_eq!(found["diagnostics"].as_array().unwrap().len(), 1000);
}
