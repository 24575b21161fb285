//! Fast path for a manifest without schema errors, read on all cores.
//!
//! Each session table is checked against the schema independently, and its intermediate JSON is dropped before the next
//! table is read. The fast path reports nothing: on any error, the whole manifest is read again by the normal path.

use rayon::prelude::*;
use serde_json::{Map, Value, json};
use toml::de::{DeTable, DeValue};

use super::document::{Document, SessionTable};
use super::key_path::KeyPath;
use super::schema::{Kinds, schema};
use super::validator::validator;
use super::{VERSION, is_reserved, to_json};

/// Number of session tables that are read as one unit: their JSON fits into the cache of a core.
const IN_ONE_GO: usize = 64;

/// Reads a manifest that may request `kinds`; `None` if the manifest violates the schema, or declares one of `kinds` as
/// external.
pub(super) fn document(root: &DeTable<'_>, kinds: &Kinds) -> Option<Document> {
    let validator = validator(&schema(kinds)).ok()?;
    let meets = |manifest: Value| validator.is_valid(&manifest).then_some(manifest);
    let converted = |entries: &[_], at: &KeyPath<'_>| -> Option<Map<String, Value>> {
        let mut diagnostics = Vec::new();
        let entries = to_json::entries(entries.iter().copied(), at, &mut diagnostics);
        diagnostics.is_empty().then_some(entries)
    };

    let (sessions, others): (Vec<_>, Vec<_>) = root.iter().partition(|(key, _)| key.get_ref() == "session");
    let manifest = meets(converted(&others, &KeyPath::ROOT)?.into())?;
    let mut document: Document = serde_json::from_value(manifest).ok()?;
    if document.provider.keys().any(|name| is_reserved(name, kinds)) {
        return None;
    }

    let tables: Vec<_> = match sessions.first().map(|(_, sessions)| sessions.get_ref()) {
        None => return Some(document),
        Some(DeValue::Table(tables)) => tables.iter().collect(),
        Some(_) => return None,
    };
    let read = |tables: &[_]| -> Option<Vec<(String, SessionTable)>> {
        let tables = converted(tables, &KeyPath::ROOT.key("session"))?;
        let mut standalone = meets(json!({ "version": VERSION, "swarm": "swarm", "session": tables }))?;
        let Value::Object(tables) = standalone["session"].take() else { return None };
        tables.into_iter().map(|(name, table)| Some((name, serde_json::from_value(table).ok()?))).collect()
    };
    let read: Option<Vec<_>> = tables.par_chunks(IN_ONE_GO).map(read).collect();
    document.session = read?.into_iter().flatten().collect();
    Some(document)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::super::{read, read_value, rule, syntax};
    use super::*;
    use crate::provider::Registry;

    /// Returns a manifest with more tables than one unit reads, and with all keys of a manifest.
    fn large() -> String {
        let mut text = include_str!("../../examples/swarm.toml").to_owned();
        for at in 0..3 * IN_ONE_GO {
            let _ = write!(
                text,
                "\n[session.t{at}]\ncount = 2\nresources = [{{ kind = \"port-range\", names = [\"p{at}\"] }}]\n\
                 env = {{ A = \"\\u0041{at}\" }}\nmetadata = {{ number = {at}, half = 0.5, none = [] }}\n\
                 setup = [[\"a\", \"b\"], \"c\"]\n[session.t{at}.child.c]\nprompt = ['''\nx''']\n"
            );
        }
        text
    }

    #[test]
    fn fast_path_agrees_with_full_validation() {
        let kinds = Registry::built_in().kinds();
        let external = include_str!("../../examples/external.toml").to_owned();
        for text in [large(), external, "version = 1\nswarm = \"s\"\n".to_owned()] {
            let Ok(table) = syntax::parse(&text) else { panic!("{text}") };
            assert!(document(table.get_ref(), &kinds).is_some(), "{text}");
            let mut diagnostics = Vec::new();
            let complete =
                read_value(to_json::from_toml(table.get_ref(), &mut diagnostics), &kinds, &mut diagnostics);
            assert_eq!(diagnostics, []);
            assert_eq!(format!("{:?}", read(&text, &kinds).manifest), format!("{complete:?}"));
        }
    }

    #[test]
    fn fast_path_leaves_any_diagnostic_to_full_validation() {
        let kinds = Registry::built_in().kinds();
        let check = |line: &str, with: &str, rule: &rule::Rule| {
            let text = large().replace(line, with);
            let Ok(table) = syntax::parse(&text) else { panic!("{text}") };
            assert!(document(table.get_ref(), &kinds).is_none(), "{with}");
            let reported: Vec<_> =
                read(&text, &kinds).diagnostics.iter().map(|diagnostic| diagnostic.rule).collect();
            assert_eq!(reported, [rule], "{with}");
        };
        check("[session.t100]\ncount = 2", "[session.t100]\ncount = 2.0", rule::WRONG_TYPE);
        check("[session.t100]\ncount = 2", "[session.t100]\ncount = 1979-05-27", rule::NO_SUCH_VALUE);
        check("[session.t100.child.c]", "[session.t100.child.\"c d\"]", rule::NOT_A_NAME);
        check("swarm = \"checkout\"", "swarm = \"\"", rule::NOT_A_NAME);
        check("version = 1", "version = 1\nsessions = 1", rule::UNKNOWN_KEY);
        check("version = 1", "version = 2", rule::VERSION);
        check("[session.t0]", "[provider.port-range]\ncommand = [\"x\"]\n[session.t0]", rule::KIND_CONFLICT);
    }
}
