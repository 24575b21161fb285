//! Validator of manifests against their schema.

use jsonschema::{Keyword, ValidationError, Validator};
use serde_json::Value;

/// Creates the validator of `schema`; fails if `schema` is not a valid schema.
pub(super) fn validator(schema: &Value) -> Result<Validator, String> {
    let mut strict = schema.clone();
    tell_integers_from_floats(&mut strict);
    jsonschema::options()
        .with_keyword(NO_FLOAT, |_, _, _| Ok(Box::new(NoFloat)))
        .build(&strict)
        .map_err(|error| error.to_string())
}

/// Keyword that seedbed adds, never in the published schema: `4.0` is an integer in JSON schema, and a float in TOML.
const NO_FLOAT: &str = "seedbed-no-float";

struct NoFloat;

impl<'i> Keyword<'i> for NoFloat {
    fn validate(&self, instance: &'i Value) -> Result<(), ValidationError<'i>> {
        if self.is_valid(instance) { Ok(()) } else { Err(ValidationError::custom("a float")) }
    }

    fn is_valid(&self, instance: &'i Value) -> bool {
        !instance.is_f64()
    }
}

fn tell_integers_from_floats(schema: &mut Value) {
    match schema {
        Value::Object(entries) => {
            entries.values_mut().for_each(tell_integers_from_floats);
            if entries.get("type").is_some_and(|expected| expected == "integer") {
                entries.insert(NO_FLOAT.to_owned(), Value::Bool(true));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(tell_integers_from_floats),
        _ => {}
    }
}
