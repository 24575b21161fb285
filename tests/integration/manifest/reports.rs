//! Tests of the manifest stage: the values that are read, and the diagnostics of invalid manifests.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use miette::{GraphicalReportHandler, GraphicalTheme};
use seedbed::manifest::{self, Diagnostic, Diagnostics, Manifest, Reading, Report, rule};
use seedbed::plan;
use seedbed::provider::Registry;
use serde_json::{Value, json};
use snapbox::{Data, assert_data_eq};

use crate::fixtures::{kinds, repository};
use crate::friendly::friendly;

fn parse(text: &str) -> Result<Manifest, Diagnostics> {
    manifest::parse(text, &kinds())
}

fn report(text: &str) -> Report {
    Report::new("seedbed.toml", text, parse(text).expect_err("the manifest has 1 error"))
}

fn render(report: &Report) -> String {
    let mut out = String::new();
    GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
        .with_width(100)
        .render_report(&mut out, report)
        .expect("a report renders");
    out
}

/// Returns the underlined text and the message of every diagnostic.
#[track_caller]
fn check(text: &str, expected: &[(&str, &str)]) {
    let lines: Vec<&str> = text.lines().collect();
    let entries: Vec<_> = report(text)
        .diagnostics()
        .map(|entry| {
            let line: Vec<char> = lines.get(entry.line - 1).unwrap_or(&"").chars().collect();
            let underlined: String = line[entry.column - 1..][..entry.length].iter().collect();
            (underlined, entry.message)
        })
        .collect();
    let entries: Vec<_> = entries.iter().map(|(text, message)| (text.as_str(), message.as_str())).collect();
    assert_eq!(entries, expected);
}

fn paths(text: &str) -> Vec<String> {
    let manifest =
        parse(text).unwrap_or_else(|diagnostics| panic!("{}", render(&Report::new("x", text, diagnostics))));
    manifest.sessions.iter().map(|session| session.path.to_string()).collect()
}

fn fixtures(folder: &str) -> Vec<(PathBuf, String)> {
    let mut fixtures: Vec<_> = fs::read_dir(repository("tests/manifests").join(folder))
        .expect("the folder is there")
        .map(|entry| entry.expect("an entry can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| (path.clone(), fs::read_to_string(path).expect("a manifest is text")))
        .collect();
    fixtures.sort();
    fixtures
}

/// Returns the diagnostics of reading and planning with the real kinds, on a host where everything that is named
/// exists.
fn every_diagnostic(text: &str) -> Vec<Diagnostic> {
    let registry = Registry::built_in();
    let Reading { manifest, mut diagnostics, .. } = manifest::read(text, &registry.kinds());
    if let Some(manifest) = manifest {
        let observation = friendly(&plan::queries(&manifest, &registry));
        diagnostics.extend(plan::plan(&manifest, &registry, &observation, None).err().unwrap_or_default());
    }
    diagnostics
}

#[test]
fn every_valid_manifest_is_read() {
    for (path, text) in fixtures("valid") {
        if let Err(diagnostics) = manifest::parse(&text, &Registry::built_in().kinds()) {
            panic!("{}:\n{}", path.display(), render(&Report::new("seedbed.toml", &text, diagnostics)));
        }
    }
}

/// `SNAPSHOTS=overwrite cargo test` rewrites the reports; read every one that changed.
#[test]
fn every_invalid_manifest_is_explained() {
    let fixtures = fixtures("invalid");
    assert!(fixtures.len() >= 80);
    for (path, text) in fixtures {
        let diagnostics = every_diagnostic(&text);
        assert!(!diagnostics.is_empty(), "{} was read without a fault", path.display());
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let rendered = render(&Report::new(name, &text, diagnostics));
        assert_data_eq!(rendered, Data::read_from(&path.with_extension("stderr"), None).raw());
    }
}

#[test]
fn canonical_order_is_depth_first_by_name_and_replica() {
    let text = r#"
        version = 1
        swarm = "s"
        [session.b]
        [session.a-]
        [session.a]
        count = 11
        [session.a.child.x]
        [session.B2.child.kid]
        count = 2
    "#;
    let paths = paths(text);
    assert_eq!(paths[..4], ["B2", "B2/kid-0", "B2/kid-1", "a-0"]);
    assert_eq!(paths[4..7], ["a-0/x", "a-1", "a-1/x"]);
    assert_eq!(paths[22..], ["a-9/x", "a-10", "a-10/x", "a-", "b"][..].to_vec());
}

#[test]
fn parsed_manifest_depends_on_content_alone() {
    let one = "version = 1\nswarm = 's'\n[session.a]\ncount = 2\n[session.b]\n";
    let other =
        "# words\n[session]\nb = {}\na.count = 0x2\n".replacen("# words", "swarm = \"s\"\nversion = 1", 1);
    assert_eq!(paths(one), paths(&other));
}

#[test]
fn replicas_share_their_declaration_and_know_their_parents() {
    let manifest = parse(
        "version = 1\nswarm = 's'\n[session.a]\ncount = 2\n[session.a.child.b]\nresources = []\n[session.a.child.c]\n",
    )
    .expect("no fault");
    let parents: Vec<_> = manifest.sessions.iter().map(|session| session.parent).collect();
    assert_eq!(parents, [None, Some(0), Some(0), None, Some(3), Some(3)]);
    let [first, second] = [&manifest.sessions[1], &manifest.sessions[4]];
    assert!(std::sync::Arc::ptr_eq(&first.declaration, &second.declaration));
    assert_eq!(manifest.sessions[3].replica, Some(1));
    let resources = |session: usize| manifest.sessions[session].declaration.resources.as_ref().map(Vec::len);
    assert_eq!([resources(0), resources(1), resources(2)], [Some(0), Some(0), None]);
}

#[test]
fn requests_come_from_the_pool_at_the_top_and_from_the_parent_below() {
    let manifest = parse(
        "version = 1\nswarm = 's'\n[session.a]\nresources = ['port-range', {kind = 'git-worktree', from = 'pool'}]\n\
         [session.a.child.b]\nresources = ['port-range', { kind = 'git-worktree', from = 'pool', branch = 'x' }]\n",
    )
    .expect("no fault");
    let request = |session: usize, request: usize| {
        &manifest.sessions[session].declaration.resources.as_ref().expect("it has resources")[request]
    };
    assert_eq!(request(0, 0).from, manifest::From::Pool);
    assert_eq!(request(1, 0).from, manifest::From::Parent);
    assert_eq!(request(1, 1).from, manifest::From::Pool);
    assert_eq!(Value::Object(request(1, 1).options.clone()), json!({ "branch": "x" }));
}

#[test]
fn spans_are_found_in_every_form_of_table() {
    let head = "version = 1\nswarm = 's'\n";
    let unknown = "unknown key `x` in a session";
    for body in [
        "session.a.x = 1",
        "session = { a = { x = 1 } }",
        "[session.a]\nx = 1",
        "[session]\na.x = 1",
        "[session]\n'a' = {\n  x = 1,\n}",
        "[ session . \"a\" ] # words\n  x = 1",
    ] {
        check(&format!("{head}{body}\n"), &[("x", unknown)]);
    }
    check(&format!("{head}[session.a]\n\"x\" = 1\n"), &[("\"x\"", unknown)]);
    check(&format!("{head}[session.\"ü\"]\n"), &[("\"ü\"", "`ü` is not a name")]);
}

#[test]
fn a_table_is_underlined_at_its_header() {
    check(
        "version = 1\nswarm = 's'\nenv = 1\n[session]\na = 1\n[session.b.env.C]\n[provider.'p'] # words\n",
        &[
            ("env", "unknown key `env` in a seedbed manifest"),
            ("1", "`a` must be a table, not an integer"),
            ("[session.b.env.C]", "`C` must be a string, not a table"),
            ("[provider.'p']", "a provider needs `command`"),
        ],
    );
}

#[test]
fn part_of_a_string_is_underlined_behind_any_escapes() {
    let diagnostic = |text: &str, value: &str| {
        let at = value.find('b').expect("the value has a b");
        let location = manifest::Location::default().key("k").within(at..at + 1);
        let entry = Report::new("x", text, vec![Diagnostic::new(rule::UNKNOWN_KEY, location, "m", "l")])
            .diagnostics()
            .next()
            .expect("one fault");
        (entry.line, entry.column, entry.length)
    };
    assert_eq!(diagnostic("k = \"a b c\"", "a b c"), (1, 8, 1));
    assert_eq!(diagnostic("k = 'ä b c'", "ä b c"), (1, 8, 1));
    assert_eq!(diagnostic("k = '''\na\nb'''", "a\nb"), (3, 1, 1));
    assert_eq!(diagnostic("k = \"\\u0061 b\"", "a b"), (1, 13, 1));
}

#[test]
fn diagnostic_of_a_missing_key_is_shown_at_its_table() {
    let location = manifest::Location::default().key("a").key("b").key("c");
    let report = Report::new(
        "x",
        "[a]\nd = 1\n",
        vec![Diagnostic::new(rule::UNKNOWN_KEY, location.clone(), "m", "l"); 2],
    );
    let entries: Vec<_> = report.diagnostics().collect();
    assert_eq!(entries.len(), 1, "repetitions are dropped");
    assert_eq!((entries[0].line, entries[0].length), (1, 3));
    let nowhere = Report::new("x", "", vec![Diagnostic::new(rule::UNKNOWN_KEY, location, "m", "l")]);
    assert!(render(&nowhere).contains('m'));
}

#[test]
fn control_characters_of_a_manifest_never_reach_the_terminal() {
    for text in [
        "version = 1\nswarm = 's'\n\"\\u001b]0;x\\u0007\" = 1\n",
        "version = 1\nswarm = 's'\nx = \"\u{1b}[31m\"\n",
        "version = 1\nswarm = 's\u{9b}31m\u{202e}'\n",
        "version = 1\nswarm = '\u{e0041}'\n",
        "version = 1\r\nswarm = 's'\rx\r\n",
    ] {
        let rendered = render(&report(text));
        assert!(!rendered.contains(|c: char| c.is_control() && c != '\n'), "{rendered:?}");
        assert!(!rendered.contains(['\u{202e}', '\u{e0041}']), "{rendered:?}");
    }
}

#[test]
fn depth_is_bounded() {
    for depth in [30, 79, 200, 50_000] {
        let keys = vec!["child.a"; depth].join(".");
        let text =
            format!("version = 1\nswarm = 's'\n[session.a.{keys}]\n{keys}.x = {}\n", "[".repeat(depth));
        assert!(parse(&text).is_err());
        let text = format!("version = 1\nswarm = 's'\n[session.a.{keys}]\n{keys} = {{}}\n");
        let _ = parse(&text).map_err(|diagnostics| render(&Report::new("x", &text, diagnostics)));
    }
}

#[test]
fn an_applied_swarm_is_found_in_a_broken_manifest() {
    let located =
        |text: &str| manifest::locate(text).map(|l| (l.swarm, l.workspace_root.display().to_string()));
    let found = |swarm: &str, root: &str| Some((swarm.to_owned(), root.to_owned()));
    assert_eq!(located("swarm = 's'\nworkspace.root = '..'\n[session.\nversion = 7\n"), found("s", ".."));
    assert_eq!(located("swarm = 's'\nnonsense = 1\n"), found("s", "."));
    assert_eq!(located("swarm = 's s'\n"), None);
    assert_eq!(located("version = 1\n"), None);
}

#[test]
fn external_kinds_keep_their_options() {
    let manifest = parse(
        "version = 1\nswarm = 's'\n[provider.db]\ncommand = ['./db', '-v']\n[defaults.db]\nsize = 1\n\
         [session.a]\nresources = [{ kind = 'db', any = { thing = [1] } }]\n",
    )
    .expect("no fault");
    let program = &manifest.providers["db"];
    assert_eq!((&program.command[..], program.timeout), (&["./db".to_owned(), "-v".to_owned()][..], 60));
    let resources = manifest.sessions[0].declaration.resources.as_ref().expect("it has resources");
    assert_eq!(Value::Object(resources[0].options.clone()), json!({ "any": { "thing": [1] } }));
}

#[test]
fn the_schema_is_one_that_editors_can_use() {
    let schema = manifest::schema(&kinds());
    jsonschema::meta::validate(&schema).expect("the schema is a JSON schema");
    let text = schema.to_string();
    for unwanted in ["null", "\"if\"", "unevaluated", "dependent"] {
        assert!(!text.contains(unwanted), "{unwanted}");
    }
    let mut references = Vec::new();
    collect_references(&schema, &mut references);
    for reference in references {
        assert!(schema.pointer(reference.trim_start_matches('#')).is_some(), "{reference} leads nowhere");
    }
    assert_eq!(schema["properties"]["defaults"]["properties"]["port-range"]["$ref"], "#/$defs/port-range");
}

fn collect_references(schema: &Value, into: &mut Vec<String>) {
    match schema {
        Value::Object(entries) => {
            into.extend(entries.get("$ref").and_then(Value::as_str).map(str::to_owned));
            entries.values().for_each(|value| collect_references(value, into));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, into)),
        _ => {}
    }
}

/// Bounds are ten times the duration in a release build, and hold in a debug build.
#[test]
fn large_manifests_take_linear_time() {
    let mut text = String::from("version = 1\nswarm = 's'\n");
    for lead in 0..1000 {
        write!(
            text,
            "[session.lead{lead}]\nresources = ['git-worktree']\n[session.lead{lead}.child.coder]\n"
        )
        .expect("a string takes anything");
        text.push_str("count = 100\nenv = { ROLE = 'coder' }\n");
    }
    let start = Instant::now();
    assert_eq!(parse(&text).expect("no fault").sessions.len(), 101_000);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn thousand_diagnostics_in_a_large_file_are_rendered_quickly() {
    let mut text = String::from("version = 1\nswarm = 's'\n");
    for session in 0..20_000 {
        write!(text, "[session.s{session}]\nprompt = [\"{}\"]\n", "words ".repeat(12))
            .expect("a string takes anything");
        if session % 20 == 0 {
            text.push_str("cuont = 2\n");
        }
    }
    assert!(text.len() > 2_000_000);
    let diagnostics = parse(&text).expect_err("there are faults");
    let start = Instant::now();
    let rendered = render(&Report::new("seedbed.toml", &text, diagnostics));
    assert_eq!(rendered.matches("did you mean").count(), 1000);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn a_long_line_is_shown_in_part() {
    let entries: Vec<String> = (0..20_000).map(|entry| format!("s{entry} = {{ x = 1 }}")).collect();
    let text = format!("version = 1\nswarm = 's'\nsession = {{ {} }}\n", entries.join(", "));
    let mut diagnostics = Vec::from(parse(&text).expect_err("there are faults"));
    diagnostics.truncate(100);
    let rendered = render(&Report::new("seedbed.toml", &text, diagnostics));
    assert!(rendered.len() < 200_000, "{}", rendered.len());
}
