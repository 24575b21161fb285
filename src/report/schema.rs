//! JSON schemas of documents.

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use crate::provider::Registry;

/// Definitions of objects with a `kind` and an `allocation`, in a plan and in a discovery file.
const WITH_ALLOCATION: [&str; 2] = ["Allocation", "HardConstraint"];

/// Returns the JSON schema (draft 2020-12) of a document that seedbed writes, with the allocations of the registered kinds.
///
/// Fields that the schema does not describe are valid: a later release may add some.
pub fn generate<T: JsonSchema>(registry: &Registry) -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with_transform(RecursiveTransform(open));
    let mut generator = settings.into_generator();
    let schema = generator.root_schema_for::<T>();
    let has_allocations = |name: &&str| generator.definitions().contains_key(*name);
    let definitions: Vec<&str> = WITH_ALLOCATION.into_iter().filter(has_allocations).collect();
    if definitions.is_empty() {
        return of_one_document(schema.to_value());
    }
    let mut kinds = Vec::new();
    for provider in registry.iter() {
        if let Some(allocation) = provider.allocation_schema(&mut generator) {
            kinds.push(json!({
                "if": { "properties": { "kind": { "const": provider.kind() } } },
                "then": { "properties": { "allocation": allocation } },
            }));
        }
    }
    let mut schema = generator.root_schema_for::<T>().to_value();
    for name in definitions {
        schema["$defs"][name]["allOf"] = Value::Array(kinds.clone());
    }
    of_one_document(schema)
}

/// Removes the ids of documents inside this one: references below them would be relative to them.
fn of_one_document(mut schema: Value) -> Value {
    let definitions = schema.get_mut("$defs").and_then(Value::as_object_mut);
    for definition in definitions.into_iter().flat_map(|definitions| definitions.values_mut()) {
        if let Some(definition) = definition.as_object_mut() {
            definition.remove("$id");
        }
    }
    schema
}

/// Allows fields that are not described.
fn open(schema: &mut Schema) {
    if schema.get("additionalProperties") == Some(&Value::Bool(false)) {
        schema.remove("additionalProperties");
    }
}
