//! TOML to JSON, the form that schemas and document types read.

use rayon::prelude::*;
use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::fault::Fault;
use super::rule;
use super::way::Way;
use super::words::quoted;

/// Turns a parsed document into JSON. What JSON has no form for becomes `null`, which TOML cannot say otherwise, and
/// is a fault each.
pub(super) fn from_toml(mut table: DeTable<'_>, faults: &mut Vec<Fault>) -> Value {
    let sessions = table.remove("session");
    let mut entries = Converter { faults }.table(table, &Way::ROOT);
    if let Some(sessions) = sessions {
        entries.insert("session".to_owned(), session_tables(sessions, faults));
    }
    Value::Object(entries)
}

/// Most of a large manifest: on all cores.
fn session_tables(sessions: Spanned<DeValue<'_>>, faults: &mut Vec<Fault>) -> Value {
    let at = Way::ROOT.key("session");
    let tables = match sessions.into_inner() {
        DeValue::Table(tables) => tables,
        // Which is a fault of its own.
        other => return Converter { faults }.value(other, &at),
    };
    let tables: Vec<_> = tables.into_iter().collect();
    let converted: Vec<_> = tables
        .into_par_iter()
        .map(|(name, table)| {
            let mut faults = Vec::new();
            let name = name.into_inner().into_owned();
            let table = Converter { faults: &mut faults }.value(table.into_inner(), &at.key(&name));
            ((name, table), faults)
        })
        .collect();
    let entry = |(entry, found): (_, Vec<Fault>)| {
        faults.extend(found);
        entry
    };
    Value::Object(converted.into_iter().map(entry).collect())
}

struct Converter<'f> {
    faults: &'f mut Vec<Fault>,
}

impl Converter<'_> {
    fn table(&mut self, table: DeTable<'_>, at: &Way<'_>) -> Map<String, Value> {
        let mut entries = Map::new();
        for (key, value) in table {
            let key = key.into_inner().into_owned();
            let value = self.value(value.into_inner(), &at.key(&key));
            entries.insert(key, value);
        }
        entries
    }

    fn value(&mut self, value: DeValue<'_>, at: &Way<'_>) -> Value {
        let mut fault = |message: String, label: &str, help: &str| {
            self.faults.push(Fault::new(rule::NO_SUCH_VALUE, at.place(), message, label).with_help(help));
            Value::Null
        };
        match value {
            DeValue::String(text) => Value::String(text.into_owned()),
            DeValue::Boolean(boolean) => Value::Bool(boolean),
            DeValue::Integer(integer) => match to_i64(&integer) {
                Some(integer) => Value::Number(integer.into()),
                None => fault(
                    format!("{} is too large a number", quoted(integer.as_str())),
                    "does not fit 64 bits",
                    "where digits alone are meant, write it in quotes",
                ),
            },
            DeValue::Float(float) => match float.as_str().parse().ok().and_then(Number::from_f64) {
                Some(float) => Value::Number(float),
                None => fault(
                    format!("{} is not a finite number", quoted(float.as_str())),
                    "no number here",
                    "where the word is meant, write it in quotes",
                ),
            },
            DeValue::Datetime(datetime) => fault(
                "nothing in a manifest is a date or a time".to_owned(),
                "a date or time",
                &format!("write it in quotes: `\"{datetime}\"`"),
            ),
            DeValue::Array(items) => {
                let items = items.into_iter().enumerate();
                items.map(|(index, item)| self.value(item.into_inner(), &at.index(index))).collect()
            }
            DeValue::Table(table) => Value::Object(self.table(table, at)),
        }
    }
}

fn to_i64(integer: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}
