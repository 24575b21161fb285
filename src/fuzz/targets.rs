//! Targets that use the interface of the library.

#[path = "../../tests/integration/friendly.rs"]
mod friendly;

use std::collections::BTreeMap;

use miette::{GraphicalReportHandler, GraphicalTheme};
use serde_json::{Value, json};

use super::{Random, bytes, json as mutated, manifests, run};
use crate::manifest::diagnostic::LocationPart;
use crate::manifest::{self, Diagnostic, Diagnostics, Manifest, Report};
use crate::observe::Observation;
use crate::plan::{self, Plan};
use crate::provider::Registry;
use crate::template::{self, Bounds};

/// Words of manifests, templates, plans and answers.
#[rustfmt::skip]
const WORDS: &[&str] = &[
    "\"", "'''", "\"\"\"", "[", "]]", "{", "}", "=", ".", "\n", "\r\n", "#", "\u{feff}", "\u{202e}", "é", "🙂", "\\u0000", "\\", "\t",
    "[session.a]", "[session.a.child.b]", "count = ", "resources = ", "kind = ", "env = ", "version = 1", "{{ ", " }}",
    "{% for a in [1,2] %}", "{% endfor %}", "{% if a %}", "{% endif %}", "{% raw %}", "{# ", "port.primary", "session.name",
    "sessions['a']", "parent.", "worktree.path", "|replace('a', 'aa')", "|join", "|int", " * 9", " ~ ", "(", ")", "not ",
    " is defined", " in ", "0x", "-1", "1e999", "9999999999999999999", "1979-05-27T07:32:00Z", "true", "../", "/",
    "{{ workspace.root }}", "~", "*", "**", "[!a]", "from", "env", "provider", "protocol", "allocations", "AGENT_X", "PATH",
];

/// Number of sessions up to which a manifest is planned.
const SESSIONS_MAX: usize = 300;

/// A manifest with one external kind, whose plan needs only the answer of the program.
const THINGS: &str = "version = 1\nswarm = \"s\"\n[provider.thing]\ncommand = [\"thing\"]\n[session.a]\nresources = [{ kind = \
                      \"thing\", size = 3 }]\nenv = { A = \"b\" }\nprompt = [\"p\"]\nsetup = [\"true\"]\n[session.a.child.b]\ncount = 2\n";

/// Plans a manifest for a [`friendly`] host.
fn planned(manifest: &Manifest, registry: &Registry) -> Result<Plan, Diagnostics> {
    plan::plan(manifest, registry, &friendly::friendly(&plan::queries(manifest, registry)), None)
}

/// Checks that a plan can be written and read again, and that writing it again gives the same bytes.
fn check_saved(plan: &Plan, registry: &Registry) {
    let (mut written, mut again) = (Vec::new(), Vec::new());
    plan.write(&mut written).unwrap();
    let read = Plan::read(&written, registry).expect("a plan that was written can be read");
    assert_eq!(&read, plan);
    assert_eq!(read.digest, read.computed_digest());
    read.write(&mut again).unwrap();
    assert!(written == again, "the bytes differ");
}

/// Checks that each diagnostic points at characters of one line of the text, in every output.
fn check_report(text: &str, diagnostics: Vec<Diagnostic>) {
    for diagnostic in &diagnostics {
        if let LocationPart::Bytes(start, end) = diagnostic.location.part {
            assert!(text.get(start..end).is_some(), "{diagnostic:?}");
        }
    }
    let report = Report::new("seedbed.toml", text, diagnostics);
    for diagnostic in report.diagnostics() {
        let line = text.split('\n').nth(diagnostic.line - 1).expect("the line exists");
        let is_inside =
            diagnostic.column >= 1 && diagnostic.column - 1 + diagnostic.length <= line.chars().count();
        assert!(
            is_inside && diagnostic.end_column == diagnostic.column + diagnostic.length,
            "{diagnostic:?}"
        );
        let texts = [Some(&diagnostic.message), Some(&diagnostic.label), diagnostic.help.as_ref()];
        let is_harmless = |text: &str| !text.chars().any(|c| c.is_control() && c != '\n');
        assert!(texts.into_iter().flatten().all(|text| is_harmless(text)), "{diagnostic:?}");
    }
    serde_json::to_vec(&report.validation()).unwrap();
    serde_json::to_vec(&report.sarif("1")).unwrap();
    report.github();
    let mut drawn = String::new();
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(80);
    handler.render_report(&mut drawn, &report.printing(50)).unwrap();
}

#[test]
fn fuzz_manifests_and_their_diagnostics() {
    let (corpus, registry) = (manifests(), Registry::built_in().with_external_kinds());
    let kinds = registry.kinds();
    run(
        "manifest",
        |random| bytes(random, &corpus, WORDS),
        |input| {
            let (text, diagnostic) = manifest::decode(input.to_vec());
            let manifest::Reading { manifest, mut diagnostics } = manifest::read(&text, &kinds);
            diagnostics.extend(diagnostic);
            manifest::locate(&text);
            let manifest = manifest.filter(|manifest| manifest.sessions.len() <= SESSIONS_MAX);
            let plan = manifest.map(|manifest| planned(&manifest, &registry));
            let is_accepted = diagnostics.is_empty() && matches!(plan, Some(Ok(_)));
            match plan {
                Some(Ok(plan)) if diagnostics.is_empty() => check_saved(&plan, &registry),
                Some(Err(more)) => diagnostics.extend(more.iter().cloned()),
                _ => {}
            }
            check_report(&text, diagnostics);
            is_accepted
        },
    );
}

#[test]
fn fuzz_templates() {
    let corpus = [
        "{{ swarm }}/{{ session.name|upper }} {{ port.http + 1 }}",
        "{% for a in [1, 2, 3] if a is odd %}{{ loop.index }}{% else %}-{% endfor %}",
        "{% if session.index > 1 and not parent %}{{ 'a' ~ \"b\" }}{% elif 0 %}{% endif %}{# x #}{% raw %}{{{% endraw %}",
        "{{ sessions['a/b'].port['primary']|default('x')|replace('a', 'b')|split(',')|join('-') }}",
        "{{ ('a,b'|split(',')|first)[0:1] if 1 in [1] else {'a': [1.5]}.a|length }}",
    ];
    let corpus = corpus.map(|text| text.as_bytes().to_vec());
    let object =
        |pairs: &[(&'static str, minijinja::Value)]| minijinja::Value::from_pairs(pairs.iter().cloned());
    let ports = object(&[("http", 1.into()), ("primary", 1.into())]);
    let session = object(&[("name", "a".into()), ("index", 1.into())]);
    let other = object(&[("a/b", object(&[("port", ports.clone())]))]);
    let names = object(&[("swarm", "s".into()), ("session", session), ("port", ports), ("sessions", other)]);
    run(
        "template",
        |random| bytes(random, &corpus, WORDS),
        |input| {
            let source = String::from_utf8_lossy(input);
            let rendered = template::render(&source, &names, &Bounds::default());
            match &rendered {
                // A manifest refuses a NUL that is written in it.
                Ok(text) => assert!(text.len() <= 1 << 20 && (!text.contains('\0') || source.contains('\0'))),
                Err(problems) => {
                    assert!(!problems.is_empty(), "a template that cannot be rendered has a problem");
                    for problem in problems {
                        let diagnostic = problem.clone().at(&manifest::Location::default());
                        if let LocationPart::Within(start, end) = diagnostic.location.part {
                            assert!(source.get(start..end).is_some(), "{diagnostic:?}");
                        }
                    }
                }
            }
            rendered.is_ok()
        },
    );
}

/// Plans [`THINGS`] by the answer of its program.
fn planned_by(registry: &Registry, answer: Vec<u8>) -> Option<Plan> {
    let manifest = manifest::parse(THINGS, &registry.kinds()).unwrap();
    let programs = Some(BTreeMap::from([("thing".to_owned(), Ok(answer))]));
    let observation = Observation { programs, ..Observation::new("/w".into()) };
    plan::plan(&manifest, registry, &observation, None).ok()
}

/// Returns what a program answers to [`THINGS`].
fn answer() -> Value {
    let planned = |name: &str| {
        json!({ "allocation": { "name": name, "n": [1, { "a": null }] }, "env": { "A_B": "{{ workspace.root }}/x" },
            "promptSections": ["p"], "metadata": { "m": 1.5 }, "notes": ["n"] })
    };
    json!({ "protocol": 2, "allocations": { "s/a": planned("a"), "s/a/b-0": planned("b"), "s/a/b-1": planned("c") } })
}

/// Returns plans of the examples and of [`THINGS`].
fn plans(registry: &Registry) -> Vec<Value> {
    let texts = manifests().into_iter().filter_map(|bytes| String::from_utf8(bytes).ok());
    let manifests = texts.filter_map(|text| manifest::parse(&text, &registry.kinds()).ok());
    let small = manifests.filter(|manifest| manifest.sessions.len() <= 10);
    let plans = small.filter_map(|manifest| planned(&manifest, registry).ok());
    let things = planned_by(registry, serde_json::to_vec(&answer()).unwrap());
    plans.chain(things).map(|plan| serde_json::to_value(plan).unwrap()).collect()
}

#[test]
fn fuzz_plan_files() {
    let registry = Registry::built_in().with_external_kinds();
    let corpus = plans(&registry);
    assert!(corpus.len() > 4, "the examples can be planned");
    let raw: Vec<_> = corpus.iter().map(|plan| serde_json::to_vec(plan).unwrap()).collect();
    let mutate = |random: &mut Random| {
        if random.below(8) == 0 {
            return bytes(random, &raw, WORDS);
        }
        let document = mutated(random, &corpus, WORDS);
        let Ok(mut plan) = serde_json::from_value::<Plan>(document.clone()) else {
            return serde_json::to_vec(&document).unwrap();
        };
        // An attacker who edits a plan computes its digest again.
        plan.changes = plan.changes_from(&registry, None);
        plan.digest = plan.computed_digest();
        serde_json::to_vec(&plan).unwrap()
    };
    run("plan", mutate, |input| {
        let plan = Plan::read(input, &registry);
        match &plan {
            Ok(plan) => check_saved(plan, &registry),
            Err(error) => assert!(!error.to_string().contains(|c: char| c.is_control()), "{error:?}"),
        }
        plan.is_ok()
    });
}

#[test]
fn fuzz_plans_of_programs() {
    let registry = Registry::built_in().with_external_kinds();
    let corpus = [answer()];
    let raw = corpus.clone().map(|answer| serde_json::to_vec(&answer).unwrap());
    let mutate = |random: &mut Random| match random.below(4) {
        0 => bytes(random, &raw, WORDS),
        _ => serde_json::to_vec(&mutated(random, &corpus, WORDS)).unwrap(),
    };
    run("answer", mutate, |input| {
        let plan = planned_by(&registry, input.to_vec());
        if let Some(plan) = &plan {
            check_saved(plan, &registry);
        }
        plan.is_some()
    });
}
