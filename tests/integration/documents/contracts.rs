//! Contracts for programs: each command prints JSON that the committed schema describes completely, in the judgement of two
//! validators, and that the types of the library read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use seedbed::discovery::Snapshot;
use seedbed::fleet::directory::Index;
use seedbed::fleet::report::FleetStatus;
use seedbed::fleet::{FleetPlan, HostObservation};
use seedbed::manifest::Validation;
use seedbed::plan::Plan;
use seedbed::provider::external::protocol::PROTOCOL;
use seedbed::report::collected::CollectedSwarm;
use seedbed::report::error::{self, ErrorId};
use seedbed::report::event::Line;
use seedbed::report::status::SwarmStatus;
use seedbed::report::{Diagnosis, Environment, Explanation, Initialized, List, Prompt, Rescues};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::fixtures::repository;
use crate::manifest::editors::client;
use crate::sandbox::{Outcome, Sandbox, bin};

/// Every command, and the schema of its output with `--json`; `None` if its output is the same with and without
/// `--json`.
const COMMANDS: [(&str, Option<&str>); 41] = [
    ("apply", Some("events")),
    ("collect", Some("collected")),
    ("completions", None),
    ("destroy", Some("events")),
    ("doctor", Some("doctor")),
    ("env", Some("env")),
    ("exec", Some("events")),
    ("explain", Some("explain")),
    ("export", None),
    ("fleet apply", Some("fleet-index")),
    ("fleet collect", Some("collected")),
    ("fleet destroy", Some("fleet-index")),
    ("fleet exec", Some("events")),
    ("fleet kubernetes", None),
    ("fleet plan", Some("fleet")),
    ("fleet recover", Some("fleet-index")),
    ("fleet repair", Some("fleet-index")),
    ("fleet start", Some("events")),
    ("fleet status", Some("fleet-status")),
    ("hook claude create", None),
    ("hook claude remove", None),
    ("init", Some("init")),
    ("list", Some("list")),
    ("logs", None),
    ("man", None),
    ("observe", Some("observation")),
    ("plan", Some("plan")),
    ("prompt", Some("prompt")),
    ("recover", Some("events")),
    ("release", Some("events")),
    ("rescue drop", Some("rescues")),
    ("rescue list", Some("rescues")),
    ("rescue restore", Some("rescues")),
    ("run", Some("events")),
    ("schema", None),
    ("show", Some("plan")),
    ("spawn", Some("discovery")),
    ("start", Some("events")),
    ("status", Some("status")),
    ("validate", Some("diagnostics")),
    ("whoami", Some("discovery")),
];

/// The commands that also have `--format json`.
const WITH_FORMAT: [&str; 7] = ["collect", "env", "fleet collect", "fleet plan", "plan", "show", "validate"];

/// Documents by the names of their schemas.
type Documents = BTreeMap<&'static str, Vec<Value>>;

/// Returns the schema of a command's output with `--json`.
fn schema_of(command: &str) -> Option<&'static str> {
    COMMANDS.iter().find(|(name, _)| *name == command).and_then(|(_, schema)| *schema)
}

/// Returns the commands that help lists below one, or below seedbed itself, with the help of each.
fn commands(sandbox: &Sandbox, above: &[&str]) -> BTreeMap<String, String> {
    let help = sandbox.ok(&[above, &["-h"]].concat()).stdout;
    let Some((_, listed)) = help.split_once("\nCommands:\n") else {
        return BTreeMap::from([(above.join(" "), help)]);
    };
    let names = listed.lines().take_while(|line| !line.is_empty()).filter_map(|line| {
        let name = line.strip_prefix("  ")?.split(' ').next()?;
        (!name.is_empty() && name != "help").then_some(name)
    });
    names.flat_map(|name| commands(sandbox, &[above, &[name]].concat())).collect()
}

#[test]
fn table_has_every_command_of_the_command_line() {
    let found = commands(&Sandbox::new(), &[]);
    assert!(found.values().all(|help| help.contains("--json")), "--json is for every command");
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(names, COMMANDS.map(|(name, _)| name), "add the command here, and to what is recorded below");
    let has_format = |(_, help): &(&String, &String)| {
        let described = help.split("--format").nth(1).unwrap_or_default();
        described.split("\n  -").next().unwrap().split("\n      -").next().unwrap().contains("json")
    };
    let formats: Vec<&str> = found.iter().filter(has_format).map(|(name, _)| name.as_str()).collect();
    assert_eq!(formats, WITH_FORMAT);
}

#[test]
fn committed_schemas_are_what_the_command_prints() {
    let sandbox = Sandbox::new();
    let help = sandbox.ok(&["schema", "-h"]).stdout;
    let names = help.split("[possible values: ").nth(1).unwrap().split(']').next().unwrap();
    let names: BTreeSet<&str> = names.split(',').map(str::trim).collect();
    let entries = fs::read_dir(repository("schemas")).unwrap().map(|entry| entry.unwrap().file_name());
    let committed: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
    let committed: BTreeSet<&str> =
        committed.iter().map(|name| name.strip_suffix(".schema.json").unwrap()).collect();
    assert_eq!(names, committed);
    for name in names {
        let printed = sandbox.ok(&["schema", name]).json();
        assert_eq!(schema(name), printed, "cargo run -- schema {name} > schemas/{name}.schema.json");
        let version = if name == "provider" { PROTOCOL } else { 1 };
        assert_eq!(printed["$id"], format!("urn:seedbed:{name}:{version}"));
    }
}

fn schema(name: &str) -> Value {
    let text = fs::read(repository(&format!("schemas/{name}.schema.json"))).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Runs commands and keeps the documents that they print.
struct Recorder<'a> {
    sandbox: &'a Sandbox,
    documents: Documents,
    commands: BTreeSet<&'static str>,
}

impl Recorder<'_> {
    /// Runs a command with `--json` in the repository, and expects an exit code.
    #[track_caller]
    fn run(&mut self, code: i32, command: &'static str, args: &[&str]) -> Vec<Value> {
        let repository = self.sandbox.repository.clone();
        self.run_in(&repository, code, command, args)
    }

    #[track_caller]
    fn run_in(&mut self, at: &Path, code: i32, command: &'static str, args: &[&str]) -> Vec<Value> {
        let words: Vec<&str> = command.split(' ').chain(["--json"]).chain(args.iter().copied()).collect();
        let outcome = self.sandbox.seedbed_in(at, &words).expect(code);
        self.commands.insert(command);
        // `collect -o` writes only to a new directory.
        let is_repeatable = command != "collect" || !args.contains(&"-o");
        if WITH_FORMAT.contains(&command) && code == 0 && is_repeatable {
            let words: Vec<&str> =
                command.split(' ').chain(["--format", "json"]).chain(args.iter().copied()).collect();
            assert_eq!(self.sandbox.seedbed_in(at, &words).expect(code).stdout, outcome.stdout, "{words:?}");
        }
        let documents = documents(&outcome);
        for document in &documents {
            let name = if document["event"] == "failed" { "events" } else { schema_of(command).unwrap() };
            self.documents.entry(name).or_default().push(document.clone());
        }
        documents
    }
}

/// Returns the JSON documents of an outcome, in lines or not.
#[track_caller]
fn documents(outcome: &Outcome) -> Vec<Value> {
    let documents = serde_json::Deserializer::from_str(&outcome.stdout).into_iter::<Value>();
    documents.map(|document| document.unwrap_or_else(|error| panic!("{error}: {}", outcome.stdout))).collect()
}

/// Runs every command that has a document in every state that changes what it prints.
fn record(sandbox: &Sandbox) -> Documents {
    let mut recorder = Recorder { sandbox, documents: Documents::new(), commands: BTreeSet::new() };
    let r = &mut recorder;
    r.run(0, "init", &["-f", "new.toml"]);
    fs::remove_file(sandbox.repository.join("new.toml")).unwrap();
    sandbox.manifest("[session.a]\nresource = []\n");
    r.run(65, "validate", &[]);
    r.run(65, "plan", &[]);
    sandbox.manifest(
        "[session.a]\nprompt = [\"Hello.\"]\ncommand = \"exit 2\"\nsetup = [\"true\"]\nteardown = [\"true\"]\nmetadata = { team = \"x\" }\n\
         resources = [{ kind = \"git-worktree\", branch = \"agents/a\", target-path = \"app\" }, { kind = \"port-range\", names = [\"http\"] }]\n\
         [session.a.child.b]\nresources = [{ kind = \"git-worktree\", branch = \"agents/b\" }, \"port-range\"]\n[session.c]\nresources = []\n",
    );
    r.run(0, "validate", &[]);
    r.run(0, "plan", &["-o", "../saved"]);
    fs::create_dir(sandbox.top.join("observed")).unwrap();
    r.run(0, "observe", &["-o", "../observed/n0.json"]);
    r.run(0, "fleet plan", &["--observations", "../observed", "-o", "../parts"]);
    r.run(0, "show", &["../saved"]);
    r.run(0, "explain", &["a"]);
    r.run(0, "doctor", &["--reap"]);
    r.run(64, "status", &[]);
    r.run(0, "apply", &["../saved"]);
    let directory = sandbox.directory("a");
    r.run(0, "apply", &[]);
    r.run(69, "run", &["--in-place", "--", "true"]);
    r.run(0, "list", &[]);
    r.run(0, "observe", &["-o", "../observed/n0.json"]);
    r.run(0, "status", &[]);
    sandbox.git_in(&directory, &["commit", "--quiet", "--allow-empty", "--message", "work"]);
    r.run(0, "collect", &[]);
    r.run(0, "collect", &["-o", "../results"]);
    r.run(0, "env", &["a"]);
    r.run(0, "prompt", &["a", "Do it."]);
    r.run_in(&directory, 0, "whoami", &[]);
    r.run_in(&directory, 0, "spawn", &["d"]);
    r.run(0, "status", &[]);
    r.run(0, "plan", &[]);
    r.run(0, "release", &["d"]);
    r.run(0, "explain", &[directory.to_str().unwrap()]);
    let port = sandbox.base_port.to_string();
    r.run(0, "explain", &[&port]);
    r.run(4, "exec", &["--all", "--", "sh", "-c", "echo out; exit 4"]);
    r.run(2, "start", &[]);
    r.run(0, "status", &[]);
    r.run(0, "recover", &[]);
    r.run(0, "destroy", &["--dry-run"]);
    fs::remove_dir_all(directory.join(".agent-context")).unwrap();
    r.run(0, "status", &[]);
    r.run(0, "status", &["--repair"]);
    fs::write(directory.join("work"), "").unwrap();
    fs::write(directory.join("x.log"), "").unwrap();
    r.run(0, "status", &[]);
    r.run(69, "destroy", &[]);
    let mut process = Command::new("sleep").arg("1000").current_dir(&directory).spawn().unwrap();
    r.run(69, "destroy", &["--dry-run", "--rescue"]);
    r.run(69, "destroy", &["--rescue"]);
    r.run(0, "destroy", &["--rescue", "--stop"]);
    process.wait().unwrap();
    let rescue = r.run(0, "rescue list", &[])[0]["rescues"][0]["name"].as_str().unwrap().to_owned();
    r.run(0, "rescue restore", &[&rescue, "--into", "../restored"]);
    r.run(0, "rescue drop", &[&rescue, "--yes"]);
    r.run(0, "run", &["--session", "c", "--", "true"]);
    let launcher = format!("PATH={}:$PATH sh -c {{command}}", bin().display());
    r.run(0, "fleet apply", &["../fleet", "--hosts", "n0", "--launcher", &launcher]);
    r.run(0, "fleet status", &["../fleet"]);
    r.run(0, "fleet recover", &["../fleet"]);
    r.run(0, "fleet repair", &["../fleet"]);
    r.run(0, "fleet exec", &["../fleet", "--all", "--", "true"]);
    r.run(0, "fleet collect", &["../fleet"]);
    r.run(2, "fleet start", &["../fleet"]);
    r.run(0, "fleet destroy", &["../fleet", "--discard", "--yes"]);
    let with_document = COMMANDS.iter().filter(|(_, schema)| schema.is_some()).map(|(name, _)| *name);
    assert_eq!(recorder.commands, with_document.collect(), "a command is not run here");
    recorder.documents
}

#[test]
fn documents_of_every_command_fit_their_schemas() {
    let sandbox = Sandbox::new();
    let documents = record(&sandbox);
    for (name, documents) in &documents {
        let validator = jsonschema::validator_for(&closed(schema(name))).unwrap();
        for document in documents {
            let errors: Vec<_> = validator.iter_errors(document).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{name}: {errors:?}\n{document:#}");
            assert_eq!(document["schemaVersion"], 1, "{name}");
            assert_eq!(&read_by_the_library(name, document), document, "{name}");
        }
    }
    check_independently(&sandbox, &documents);
}

/// Reads a document into its type, and returns the value serialized again.
fn read_by_the_library(name: &str, document: &Value) -> Value {
    fn again<T: DeserializeOwned + Serialize>(document: &Value) -> Value {
        serde_json::to_value(serde_json::from_value::<T>(document.clone()).unwrap()).unwrap()
    }
    match name {
        "collected" => again::<CollectedSwarm>(document),
        "discovery" => again::<Snapshot>(document),
        "doctor" => again::<Diagnosis>(document),
        "env" => again::<Environment>(document),
        "events" => again::<Line>(document),
        "explain" => again::<Explanation>(document),
        "diagnostics" => again::<Validation>(document),
        "fleet-index" => again::<Index>(document),
        "fleet-status" => again::<FleetStatus>(document),
        "fleet" => again::<FleetPlan>(document),
        "observation" => again::<HostObservation>(document),
        "init" => again::<Initialized>(document),
        "list" => again::<List>(document),
        "plan" => again::<Plan>(document),
        "prompt" => again::<Prompt>(document),
        "rescues" => again::<Rescues>(document),
        "status" => again::<SwarmStatus>(document),
        other => panic!("no type of the library is known for {other}"),
    }
}

/// Checks the schemas and the documents with another implementation of JSON schemas.
fn check_independently(sandbox: &Sandbox, documents: &Documents) {
    let Some(mut validator) = client("check-jsonschema") else { return };
    // One schema of all, each embedded by its `$id`, and one document of all: the client takes a second to start.
    let names: Vec<&str> = documents.keys().copied().collect();
    let lists: serde_json::Map<String, Value> = names
        .iter()
        .map(|name| {
            let id = format!("urn:seedbed:{name}:1");
            ((*name).to_owned(), json!({ "type": "array", "minItems": 1, "items": { "$ref": id } }))
        })
        .collect();
    let schemas: serde_json::Map<String, Value> =
        names.iter().map(|name| ((*name).to_owned(), schema(name))).collect();
    let all = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "properties": lists,
        "required": names,
        "$defs": schemas,
    });
    let write = |name: &str, value: &Value| {
        let path = sandbox.top.join(name);
        fs::write(&path, value.to_string()).unwrap();
        path
    };
    let schema = write("all.schema.json", &all);
    let good = write("good.json", &serde_json::to_value(documents).unwrap());
    let mut bad = documents.clone();
    bad.get_mut("status").unwrap()[0]["sessions"][0]["ports"] = json!("none");
    let bad = write("bad.json", &serde_json::to_value(&bad).unwrap());
    let checked = validator.arg("--schemafile").arg(schema).args([good, bad]).output().unwrap();
    let said = String::from_utf8([checked.stdout, checked.stderr].concat()).unwrap();
    assert!(!checked.status.success() && !said.contains("good.json") && said.contains("bad.json"), "{said}");
}

/// Returns the schema with every object closed, so that a printed field without a description is an error.
fn closed(mut schema: Value) -> Value {
    close(&mut schema, true);
    schema
}

/// Closes the objects in a schema. `is_whole` means that the schema alone describes the value.
fn close(schema: &mut Value, is_whole: bool) {
    let Value::Object(keywords) = schema else { return };
    for (keyword, value) in keywords.iter_mut() {
        match (keyword.as_str(), value) {
            ("properties", Value::Object(each)) => each.values_mut().for_each(|one| close(one, true)),
            ("$defs", Value::Object(each)) => each.values_mut().for_each(|one| close(one, false)),
            ("items" | "additionalProperties", one) => close(one, true),
            ("then", one) => close(one, false),
            ("oneOf" | "anyOf" | "allOf", Value::Array(each)) => {
                for one in each {
                    close(one, false);
                }
            }
            _ => {}
        }
    }
    let describes = ["properties", "$ref", "oneOf", "anyOf", "allOf"];
    if is_whole && describes.iter().any(|keyword| keywords.contains_key(*keyword)) {
        keywords.insert("unevaluatedProperties".to_owned(), false.into());
    }
}

#[test]
fn every_command_fails_with_one_line() {
    let sandbox = Sandbox::new();
    let empty = sandbox.top.join("empty");
    fs::create_dir(&empty).unwrap();
    let validator = jsonschema::validator_for(&closed(schema("events"))).unwrap();
    let check = |words: &[&str], code: i32| {
        let outcome = sandbox.seedbed_in(&empty, words).expect(code);
        let documents = documents(&outcome);
        let [failed] = &documents[..] else { panic!("{words:?}: {documents:?}") };
        assert!(validator.is_valid(failed), "{words:?}: {failed}");
        assert_eq!((&failed["event"], &failed["exitCode"]), (&json!("failed"), &json!(code)), "{words:?}");
        assert_eq!(outcome.stderr, "", "{words:?}");
    };
    for (command, _) in COMMANDS {
        let words: Vec<&str> = command.split(' ').chain(["--json"]).collect();
        check(&[&words[..], &["--unknown"]].concat(), 64);
    }
    for (command, _) in COMMANDS.iter().filter(|(_, schema)| schema.is_some()) {
        let rest: &[&str] = match *command {
            "doctor" | "list" => continue,
            "exec" => &["--all", "--", "true"],
            "run" => &["--", "true"],
            "env" | "prompt" | "explain" | "show" | "rescue restore" | "rescue drop" => &["nothing"],
            _ => &[],
        };
        let words: Vec<&str> = command.split(' ').chain(["--json"]).chain(rest.iter().copied()).collect();
        let code = match *command {
            "exec" => 125,
            "show" => 65,
            _ => 64,
        };
        check(&words, code);
    }
}

#[test]
fn diagnostics_and_errors_in_arguments_are_printed_like_every_error() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\ncuont = 2\n");
    let text = sandbox.seedbed(&["validate"]).expect(65).stderr;
    assert!(
        text.starts_with("error: unknown key `cuont` in a session [unknown-key]\n   ╭─[seedbed.toml:"),
        "{text}"
    );
    assert!(
        text.contains("╰── did you mean `count`?\n") && text.contains("╰────\nhelp: allowed here: "),
        "{text}"
    );
    assert!(text.ends_with("\n\nerror: seedbed.toml has 1 error [manifest-invalid]\n"), "{text}");
    sandbox.manifest(
        "[session.a]\nenv = { PATH = \"x\" }\n[session.b]\nresources = [{ kind = \"port-range\", block-size = 2, reserve = 9 }]\n",
    );
    let text = sandbox.seedbed(&["validate"]).expect(65).stderr;
    assert!(text.contains(" [reserved-variable]\n") && text.contains(" [reserve]\n"), "{text}");
    let text = sandbox.seedbed(&["plan", "--fromat", "json"]).expect(64).stderr;
    assert!(text.starts_with("error: unexpected argument '--fromat' found [usage]\n"), "{text}");
    assert_eq!(text.lines().last(), Some("help: a similar argument exists: '--format'"), "{text}");
    let text = sandbox.seedbed(&["-f", "missing.toml", "--color", "always", "plan"]).expect(64).stderr;
    assert!(
        text.starts_with("\x1b[1;31merror:\x1b[0m ") && text.contains("[manifest-unreadable]\n"),
        "{text}"
    );
    assert_eq!(text.lines().last(), Some("\x1b[1;36mhelp:\x1b[0m pass the file with `-f FILE`"), "{text}");
}

#[test]
fn an_error_has_its_id_in_text_and_in_json() {
    let sandbox = Sandbox::new();
    let check = |args: &[&str], error: &ErrorId| {
        let code = error.exit_code.into();
        let text = sandbox.seedbed(args).expect(code).stderr;
        let first = text.lines().find(|line| line.starts_with("error: ")).unwrap();
        assert!(first.ends_with(&format!(" [{}]", error.id)), "{args:?}: {text}");
        let lines = documents(&sandbox.seedbed(&[&["--json"], args].concat()).expect(code));
        let failed = lines.last().unwrap();
        assert_eq!(failed["id"], error.id, "{args:?}: {failed}");
    };
    check(&["plan"], error::MANIFEST_MISSING);
    check(&["rescue", "restore", "nothing"], error::RESCUE_UNKNOWN);
    sandbox.manifest("[session.a]\nresources = [\"git-worktree\"]\n");
    check(&["status"], error::SWARM_NOT_APPLIED);
    check(&["show", "seedbed.toml"], error::PLAN_FILE_INVALID);
    sandbox.ok(&["plan", "-o", "saved"]);
    sandbox.ok(&["apply"]);
    fs::write(sandbox.directory("a").join("work"), "").unwrap();
    check(&["apply", "saved"], error::PLAN_STALE);
    check(&["destroy"], error::WORK_UNSAVED);
    check(&["run", "--in-place", "--", "true"], error::SWARM_APPLIED);
    check(&["explain", "99999"], error::PORT_INVALID);
    let missing = sandbox.seedbed(&["exec", "a", "--", "no-such-program"]).expect(127);
    missing.says(&["cannot run `no-such-program`", "[command-not-found]"]);
}
