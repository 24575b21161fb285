//! Conversion of TOML to JSON, the form that schemas and document types read.

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeInteger, DeString, DeTable, DeValue};

use super::diagnostic::Diagnostic;
use super::key_path::KeyPath;
use super::rule;
use super::text::quoted;

/// Converts a parsed document to JSON.
///
/// Each value without a JSON form is reported and becomes `null`, which TOML cannot express otherwise.
pub(super) fn from_toml(table: &DeTable<'_>, diagnostics: &mut Vec<Diagnostic>) -> Value {
    Value::Object(entries(table, &KeyPath::ROOT, diagnostics))
}

/// Converts entries of the table at `at` to JSON.
pub(super) fn entries<'t, 'i: 't>(
    entries: impl IntoIterator<Item = Entry<'t, 'i>>,
    at: &KeyPath<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Map<String, Value> {
    Converter { diagnostics }.entries(entries, at)
}

/// Key and its value.
pub(super) type Entry<'t, 'i> = (&'t Spanned<DeString<'i>>, &'t Spanned<DeValue<'i>>);

struct Converter<'f> {
    diagnostics: &'f mut Vec<Diagnostic>,
}

impl Converter<'_> {
    fn entries<'t, 'i: 't>(
        &mut self,
        entries: impl IntoIterator<Item = Entry<'t, 'i>>,
        at: &KeyPath<'_>,
    ) -> Map<String, Value> {
        let entry = |(key, value): Entry<'t, 'i>| {
            let key = key.get_ref();
            (key.clone().into_owned(), self.value(value.get_ref(), &at.key(key)))
        };
        entries.into_iter().map(entry).collect()
    }

    fn value(&mut self, value: &DeValue<'_>, at: &KeyPath<'_>) -> Value {
        let mut diagnostic = |message: String, label: &str, help: &str| {
            self.diagnostics
                .push(Diagnostic::new(rule::NO_SUCH_VALUE, at.location(), message, label).with_help(help));
            Value::Null
        };
        match value {
            DeValue::String(text) => Value::String(text.clone().into_owned()),
            DeValue::Boolean(boolean) => Value::Bool(*boolean),
            DeValue::Integer(integer) => match to_i64(integer) {
                Some(integer) => Value::Number(integer.into()),
                None => diagnostic(
                    format!("{} is too large a number", quoted(integer.as_str())),
                    "does not fit 64 bits",
                    "if only digits are meant, write it in quotes",
                ),
            },
            DeValue::Float(float) => match float.as_str().parse().ok().and_then(Number::from_f64) {
                Some(float) => Value::Number(float),
                None => diagnostic(
                    format!("{} is not a finite number", quoted(float.as_str())),
                    "no number here",
                    "where the word is meant, write it in quotes",
                ),
            },
            DeValue::Datetime(datetime) => diagnostic(
                "nothing in a manifest is a date or a time".to_owned(),
                "a date or time",
                &format!("write it in quotes: `\"{datetime}\"`"),
            ),
            DeValue::Array(items) => {
                let items = items.iter().enumerate();
                items.map(|(index, item)| self.value(item.get_ref(), &at.index(index))).collect()
            }
            DeValue::Table(table) => Value::Object(self.entries(table, at)),
        }
    }
}

fn to_i64(integer: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}
