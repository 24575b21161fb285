//! JSON schema of manifests: the schema of the document types, with the options of every kind added.

use std::collections::BTreeMap;

use schemars::Schema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::document::Document;
use crate::name::NAME_PATTERN;

/// Existing kinds of resources, each with the JSON schema of its options: an object whose keys are kebab-case.
pub type Kinds = BTreeMap<String, Schema>;

/// Returns the JSON schema (draft 2020-12) of manifests that may use `kinds`; editors complete and check with this
/// schema.
///
/// The schema accepts a kind outside of `kinds` with any options. Such a kind may be external, and only the manifest
/// declares external kinds. Afterwards, [`parse`](super::parse) checks these kinds.
pub fn schema(kinds: &Kinds) -> Value {
    let settings = SchemaSettings::draft2020_12().for_deserialize();
    let mut schema = settings.into_generator().into_root_schema_for::<Document>().to_value();
    let mut definitions: Map<String, Value> = Map::new();
    for (kind, options) in kinds {
        let mut options = options.clone().to_value();
        add_kind(&mut definitions, kind, &mut options);
    }
    definitions.insert("resource".to_owned(), resource(kinds));
    if let Some(own) = schema["$defs"].as_object_mut() {
        own.extend(definitions);
    }
    let reference = |kind: &String| (kind.clone(), json!({ "$ref": format!("#/$defs/{kind}") }));
    if let Some(defaults) = schema["properties"]["defaults"]["properties"].as_object_mut() {
        defaults.extend(kinds.keys().map(reference));
    }
    schema["properties"]["defaults"]["additionalProperties"] = json!({ "type": "object" });
    schema["$id"] = json!("urn:seedbed:manifest:1");
    tidy(&mut schema);
    schema
}

/// Defines the options of `kind` (`KIND`), and the table of `resources` that requests the kind (`KIND.request`).
fn add_kind(definitions: &mut Map<String, Value>, kind: &str, options: &mut Value) {
    if let Some(Value::Object(inner)) = options.as_object_mut().and_then(|options| options.remove("$defs")) {
        for (name, mut definition) in inner {
            prefix_references(&mut definition, kind);
            definitions.insert(format!("{kind}.{name}"), definition);
        }
    }
    prefix_references(options, kind);
    if let Some(options) = options.as_object_mut() {
        options.remove("$schema");
        // Defaults and requests complete one another, so neither has to be complete.
        options.remove("required");
        options.insert("title".to_owned(), Value::String(format!("`{kind}`")));
    }
    definitions.insert(kind.to_owned(), options.clone());

    let mut properties = request_properties(&json!({ "const": kind }));
    if let Some(own) = options.get_mut("properties").and_then(Value::as_object_mut) {
        properties.extend(std::mem::take(own));
    }
    options["properties"] = Value::Object(properties);
    options["required"] = json!(["kind"]);
    definitions.insert(format!("{kind}.request"), options.clone());
}

fn request_properties(kind: &Value) -> Map<String, Value> {
    let mut described = kind.clone();
    described["description"] = json!("The kind of resource.");
    let from = json!({
        "description": "Source of the resource: `\"parent\"`, a share of the parent's (the default in a child), or \
                        `\"pool\"`, one of its own (always, at the top of the tree).",
        "enum": ["parent", "pool"],
    });
    let name = json!({
        "description": "Name of the resource, unique in the session. Default: the kind. A child takes a share of its \
                        parent's resource of the same name.",
        "type": "string",
        "pattern": NAME_PATTERN,
        "examples": ["debug"],
    });
    let properties = [("kind", described), ("name", name), ("from", from)];
    properties.into_iter().map(|(key, property)| (key.to_owned(), property)).collect()
}

/// Returns the schema of an entry of `resources`.
///
/// The alternatives for known kinds come first: editors complete from them. The last alternative, for external kinds,
/// is the most lenient; an entry without `kind` is checked against this alternative.
fn resource(kinds: &Kinds) -> Value {
    let names: Vec<&String> = kinds.keys().collect();
    let example = names.first().map_or("port-range", |name| name.as_str());
    let mut alternatives = vec![json!({ "enum": names }), json!({ "type": "string" })];
    alternatives.extend(kinds.keys().map(|kind| json!({ "$ref": format!("#/$defs/{kind}.request") })));
    alternatives.push(json!({
        "title": "a resource",
        "type": "object",
        "properties": request_properties(&json!({
            "type": "string",
            "not": { "enum": names },
            "examples": [example],
        })),
        "required": ["kind"],
    }));
    json!({
        "title": "a resource",
        "description": "The name of a kind, or a table with `kind` and its options.",
        "examples": [example, { "kind": example }],
        "anyOf": alternatives,
    })
}

/// Makes the references of a kind's own schema point to the prefixed definitions.
fn prefix_references(schema: &mut Value, kind: &str) {
    match schema {
        Value::Object(entries) => {
            for (key, value) in entries {
                match value {
                    Value::String(target) if key == "$ref" => {
                        if let Some(name) = target.strip_prefix("#/$defs/") {
                            *target = format!("#/$defs/{kind}.{name}");
                        }
                    }
                    value => prefix_references(value, kind),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| prefix_references(item, kind)),
        _ => {}
    }
}

/// Removes the schema details that schemars derives from Rust types.
///
/// These are `null` for every `Option`, which TOML lacks, and number formats such as `uint32`, which editors do not
/// know.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(entries) => {
            if entries.get("default").is_some_and(Value::is_null) {
                entries.remove("default");
            }
            if entries.get("format").and_then(Value::as_str).is_some_and(|format| format.contains("int")) {
                entries.remove("format");
            }
            for list in ["type", "enum", "anyOf"] {
                let Some(Value::Array(items)) = entries.get_mut(list) else { continue };
                items.retain(|item| !item.is_null() && item != "null" && item["type"] != "null");
                if let (1, "type" | "anyOf") = (items.len(), list) {
                    let only = items.remove(0);
                    entries.remove(list);
                    match only {
                        Value::Object(only) => entries.extend(only),
                        only => drop(entries.insert(list.to_owned(), only)),
                    }
                }
            }
            entries.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}
