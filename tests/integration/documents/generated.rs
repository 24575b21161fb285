//! Tests of reference pages that are generated from the program, and of tables that list its ids.
//!
//! `SNAPSHOTS=overwrite cargo test --test integration documents::` writes the pages again.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use schemars::schema_for;
use seedbed::doctor::Id;
use seedbed::manifest::{self, rule};
use seedbed::provider::Registry;
use seedbed::report::error::{self, ErrorId};
use serde_json::Value;
use snapbox::{Data, assert_data_eq};

use super::pages::Page;
use super::root;

/// Compares a generated page with the committed one.
fn check(name: &str, body: &str) {
    let head = "<!-- Generated: SNAPSHOTS=overwrite cargo test --test integration documents:: -->\n\n";
    let path = root().join("docs/src/reference").join(name);
    assert_data_eq!(format!("{head}{}\n", body.trim_end()), Data::read_from(&path, None).raw());
}

#[test]
fn the_page_of_rules_lists_every_rule() {
    let rows = rule::ALL.iter().map(|rule| format!("| `{}` | {} |\n", rule.id, rule.about));
    let text = "# Rules of the manifest\n\n\
                Every diagnostic of a manifest has the id of the rule that it breaks: in its first line (`[unknown-key]`), and\n\
                as a field with `validate --format json`, `sarif` or `github`. An id keeps its meaning from version to version.\n\
                [Writing a manifest](../guide/manifest.md#diagnostics) shows a diagnostic.\n\n\
                | id | rule |\n|---|---|\n";
    check("rules.md", &format!("{text}{}", rows.collect::<String>()));
}

#[test]
fn the_page_of_errors_lists_every_error() {
    let row = |error: &&ErrorId| {
        format!("| `{}` | {} | {} | {} |\n", error.id, error.exit_code, error.meaning, error.remedy)
    };
    let text = "# Errors\n\n\
                Every error has an id, which keeps its meaning and its exit code from version to version. It is the `id` of the\n\
                `failed` line with `--json`, and in brackets at the end of the first line without it. A `help:` line has the\n\
                remedy for this case:\n\n\
                ```text\nerror: the swarm of seedbed.toml is not applied here [swarm-not-applied]\nhelp: run `seedbed apply`\n```\n\n\
                `exec` exits with 125 for an error with a code below 126. Diagnostics of a manifest have the ids of its\n\
                [rules](rules.md), and findings of `doctor` [ids of their own](doctor.md).\n\n\
                | id | exit code | meaning | remedy |\n|---|---|---|---|\n";
    check("errors.md", &format!("{text}{}", error::ALL.iter().map(row).collect::<String>()));
}

#[test]
fn the_page_of_the_doctor_lists_every_id() {
    let page = Page::read("docs/src/reference/doctor.md");
    let ids = page.text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let listed: Vec<_> = ids.map(str::to_owned).collect();
    let schema = schema_for!(Id).to_value();
    let ids = schema["oneOf"].as_array().unwrap().iter().map(|id| id["const"].as_str().unwrap().to_owned());
    assert_eq!(listed.iter().collect::<BTreeSet<_>>(), ids.collect::<Vec<_>>().iter().collect());
}

/// Returns the first column of the lines of a listing, after a prefix.
fn first_column<'t>(text: &'t str, prefix: &str) -> Vec<&'t str> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(prefix));
    lines.filter_map(|line| line.split(['`', ' ', ';']).next()).collect()
}

#[test]
fn the_page_of_the_architecture_lists_every_module_in_order() {
    let page = Page::read("docs/src/internals/architecture.md");
    let library = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let listed = page.text.split_once("\n## ").unwrap().0;
    assert_eq!(first_column(listed, "| `"), first_column(&library, "pub mod "));
}

#[test]
fn the_page_of_the_state_directory_lists_every_file() {
    let page = Page::read("docs/src/internals/state.md");
    let listing = page.blocks()[0].text;
    let module = fs::read_to_string(root().join("src/state.rs")).unwrap();
    let listed = first_column(listing, "").into_iter().filter(|path| *path != "sessions/");
    assert_eq!(listed.collect::<Vec<_>>(), first_column(&module, "//! STATE/"));
}

/// Prints the help of a command.
fn help(command: &[String]) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_seedbed")).args(command).arg("--help").env_clear().output().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the names of the commands that a help lists.
fn commands(help: &str) -> Vec<String> {
    let Some((_, list)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    let list = list.split("\n\n").next().unwrap();
    let names = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned);
    names.filter(|name| name != "help").collect()
}

/// Splits a help into blocks, one for each option and one for the text between options.
fn options(help: &str) -> Vec<String> {
    let mut blocks = vec![String::new()];
    let mut is_paragraph = false;
    for line in help.lines() {
        if line.trim_start().starts_with('-') && line.starts_with(' ') && !line.starts_with("        ")
            || !line.is_empty() && !line.starts_with(' ') && !is_paragraph
        {
            blocks.push(String::new());
        }
        is_paragraph = !line.is_empty() && !line.starts_with(' ');
        let block = blocks.last_mut().unwrap();
        block.push_str(line.trim_end());
        block.push('\n');
    }
    blocks.iter().map(|block| block.trim_end().to_owned()).filter(|block| !block.is_empty()).collect()
}

/// Adds the section of a command, and of those below it, without the options that every command has.
fn describe(command: &[String], global: &BTreeSet<String>, page: &mut String) {
    let help = help(command);
    let mut text = String::new();
    let mut blocks = options(&help).into_iter().filter(|block| !global.contains(block)).peekable();
    while let Some(block) = blocks.next() {
        let is_heading = block.ends_with("ptions:") || block.ends_with(':') && !block.contains('\n');
        if !is_heading || blocks.peek().is_some_and(|next| next.starts_with(' ')) {
            text.push_str(&block);
            text.push_str(if is_heading { "\n" } else { "\n\n" });
        }
    }
    let text = text.trim_end();
    let name = command.join(" ");
    writeln!(page, "## `seedbed {name}`\n\n```text\n{text}\n```\n").unwrap();
    for below in commands(&help) {
        let command: Vec<_> = command.iter().cloned().chain([below]).collect();
        describe(&command, global, page);
    }
}

#[test]
fn the_page_of_commands_has_the_help_of_every_command() {
    let top = help(&[]);
    let global = options(&top).into_iter().filter(|block| block.starts_with(' ')).collect();
    let mut page = "# Commands\n\nThis is what `seedbed COMMAND --help` prints. Options that every command has are listed \
                    once, here:\n\n"
        .to_owned();
    writeln!(page, "```text\n{}\n```\n", top.trim_end()).unwrap();
    for command in commands(&top) {
        describe(&[command], &global, &mut page);
    }
    check("commands.md", &page);
}

/// Returns the type of a value in words, with its bounds.
fn kind(schema: &Value) -> String {
    if schema.get("const").is_some() {
        return format!("always `{}`", schema["const"]);
    }
    match schema["type"].as_str() {
        Some("integer") if schema.get("maximum").is_some() => {
            format!("integer, {} to {}", schema["minimum"], schema["maximum"])
        }
        Some("array") => match schema["items"]["type"].as_str() {
            Some(item) => format!("array of {item}s"),
            None => "array".to_owned(),
        },
        Some("object") => "table".to_owned(),
        Some(other) => other.to_owned(),
        None => "string".to_owned(),
    }
}

/// Returns a value as TOML has it: strings, numbers and arrays look alike in JSON.
fn value(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(self::value).collect::<Vec<_>>().join(", ")),
        Value::Object(entries) => {
            let entry = |(key, entry): (&String, &Value)| format!("{key} = {}", self::value(entry));
            format!("{{ {} }}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// Returns the section of one key.
fn key(name: &str, schema: &Value, is_required: bool, definitions: &Value) -> String {
    let definition = schema["$ref"].as_str().map(|path| path.rsplit_once('/').unwrap().1);
    let target = definition.map_or(schema, |name| &definitions[name]);
    let choices = target["oneOf"].as_array();
    let mut facts = vec![if choices.is_some() { "one of the values below".to_owned() } else { kind(target) }];
    if is_required {
        facts.push("required".to_owned());
    }
    if let Some(default) = schema.get("default").filter(|default| !default.is_object()) {
        facts.push(format!("default `{}`", value(default)));
    }
    let description = schema["description"].as_str().or(target["description"].as_str()).unwrap_or_default();
    let mut text = format!("### `{name}`\n\n*{}*\n\n{description}\n\n", facts.join(", "));
    for choice in choices.into_iter().flatten() {
        let about = choice["description"].as_str().unwrap_or_default().replace('\n', "\n  ");
        writeln!(text, "- `{}`: {about}", value(&choice["const"])).unwrap();
    }
    if choices.is_some() {
        text.push('\n');
    }
    let examples = schema["examples"].as_array().into_iter().flatten().filter(|example| !example.is_object());
    let examples: Vec<_> = examples.map(|example| format!("`{name} = {}`", value(example))).collect();
    if !examples.is_empty() {
        let label = if examples.len() == 1 { "Example" } else { "Examples" };
        writeln!(text, "{label}: {}\n", examples.join(", ")).unwrap();
    }
    text
}

/// Returns the section of a table.
fn table(heading: &str, schema: &Value, definitions: &Value) -> String {
    let mut text = format!("## {heading}\n\n{}\n\n", schema["description"].as_str().unwrap());
    let required: Vec<_> = schema["required"].as_array().into_iter().flatten().collect();
    for (name, property) in schema["properties"].as_object().unwrap() {
        if name != "kind" {
            text += &key(name, property, required.iter().any(|required| *required == name), definitions);
        }
    }
    text
}

#[test]
fn the_page_of_the_manifest_describes_every_key() {
    let schema = manifest::schema(&Registry::built_in().kinds());
    let definitions = &schema["$defs"];
    let mut page = "# Manifest\n\nA manifest is a TOML file, `seedbed.toml` by default. This page is generated from its JSON \
                    schema, `schemas/manifest.schema.json`.\n[Writing a manifest](../guide/manifest.md) introduces it, \
                    [Kinds of resources](kinds.md) adds the rules between options,\nand [Templates](templates.md) describes \
                    the language of strings.\n\n"
        .to_owned();
    page += &table("Top level", &schema, definitions);
    for (heading, name) in [
        ("`[workspace]`", "Workspace"),
        ("`[defaults.session]`", "session-defaults"),
        ("`[session.NAME]`", "session"),
        ("`[provider.NAME]`", "Provider"),
        ("`[repository.NAME]`", "Repository"),
    ] {
        page += &table(heading, &definitions[name], definitions);
    }
    for (name, definition) in definitions.as_object().unwrap() {
        if let Some(kind) = name.strip_suffix(".request") {
            page += &table(&format!("`{kind}`"), definition, definitions);
        }
    }
    let command = definitions["command"]["description"].as_str().unwrap();
    writeln!(page, "## Commands of `setup` and `teardown`\n\n{command}").unwrap();
    check("manifest.md", &page);
}

/// Returns the type of a field in words, with the names of the tables that it refers to.
fn field_kind(schema: &Value) -> String {
    if let Some(path) = schema["$ref"].as_str() {
        return format!("`{}`", path.rsplit_once('/').unwrap().1);
    }
    if let Some(value) = schema.get("const") {
        return format!("`{value}`");
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ");
    }
    if let Some(choices) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
        return choices.iter().map(field_kind).collect::<Vec<_>>().join(" or ");
    }
    let name = |kind: &Value| match kind.as_str() {
        Some("array") if schema.get("items").is_some() => {
            format!("array of {}", field_kind(&schema["items"]))
        }
        Some(kind) => kind.to_owned(),
        None => "any".to_owned(),
    };
    match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().map(name).collect::<Vec<_>>().join(" or "),
        Some(kind) => name(kind),
        None => "any".to_owned(),
    }
}

/// Returns a description as one line of a table.
fn cell(schema: &Value) -> String {
    schema["description"]
        .as_str()
        .unwrap_or_default()
        .replace("\n\n", "<br>")
        .replace('\n', " ")
        .replace('|', "\\|")
}

/// Adds the fields of an object, or the values of a choice, as a table.
fn fields(schema: &Value, page: &mut String) {
    if let Some(properties) = schema["properties"].as_object().filter(|properties| !properties.is_empty()) {
        let required: Vec<_> = schema["required"].as_array().into_iter().flatten().collect();
        page.push_str("| field | type | |\n|---|---|---|\n");
        for (name, field) in properties {
            let mark = if required.iter().any(|required| *required == name) { "" } else { ", optional" };
            writeln!(page, "| `{name}` | {}{mark} | {} |", field_kind(field), cell(field)).unwrap();
        }
        page.push('\n');
    }
    for choice in schema["oneOf"].as_array().or(schema["anyOf"].as_array()).into_iter().flatten() {
        if choice["properties"].is_object() {
            writeln!(page, "{}\n", choice["description"].as_str().unwrap_or("One of the forms:")).unwrap();
            fields(choice, page);
        } else {
            writeln!(page, "- {}: {}\n", field_kind(choice), cell(choice)).unwrap();
        }
    }
}

#[test]
fn the_page_of_json_fields_describes_every_schema() {
    let mut page = "# JSON fields\n\nThis page lists the fields of every document in [JSON formats](json.md), from the schemas in \
                    `schemas/`.\n\n"
        .to_owned();
    let directory = fs::read_dir(root().join("schemas")).unwrap();
    let mut paths: Vec<_> = directory.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| !path.ends_with("manifest.schema.json")) {
        let schema: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap().split('.').next().unwrap();
        writeln!(page, "## `{name}`\n\n{}\n", schema["description"].as_str().unwrap_or_default()).unwrap();
        fields(&schema, &mut page);
        for (table, definition) in schema["$defs"].as_object().into_iter().flatten() {
            writeln!(
                page,
                "### `{name}`: `{table}`\n\n{}\n",
                definition["description"].as_str().unwrap_or_default()
            )
            .unwrap();
            fields(definition, &mut page);
        }
    }
    check("fields.md", &page);
}
