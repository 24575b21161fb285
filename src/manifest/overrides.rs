//! Values of a manifest that the caller changes for one run: `session.coder.count=8`.
//!
//! They replace values of the parsed text, so every later stage reads and checks them like the rest of the manifest.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::diagnostic::{Diagnostic, Location, LocationPart, Step};
use super::rule;
use super::text::quoted;
use crate::name::nearest;

/// Keys that other commands read from the file to find what was applied.
const FIXED: [&str; 3] = ["version", "swarm", "repository"];

/// Value of a manifest that the caller changes for one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Text as the caller has written it: `PATH=VALUE`.
    argument: String,
    /// Keys of the path, each with its bytes in the argument; at least one.
    keys: Vec<Key>,
    /// Bytes of the value in the argument.
    value: Range<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    name: String,
    bytes: Range<usize>,
}

impl Override {
    /// Parses `PATH=VALUE`. The path has the syntax of a TOML key: `session.coder.count`. A value that is not TOML is a
    /// string, unless it begins like a string, an array or a table.
    ///
    /// # Errors
    ///
    /// The reason, on one line, for which the text is no override.
    pub fn parse(argument: &str) -> Result<Self, String> {
        let mut equals = argument.match_indices('=').map(|(at, _)| at);
        let path = equals.find_map(|at| Some((keys(&argument[..at])?, at)));
        let Some((keys, at)) = path else {
            return Err("write `PATH=VALUE`, such as `session.coder.count=8`".to_owned());
        };
        let (begin, end) = (at + 1, argument.len());
        let text = &argument[begin..end];
        let begin = begin + (text.len() - text.trim_start().len());
        let value = begin..begin + text.trim().len();
        let text = &argument[value.clone()];
        let is_template = text.starts_with("{{") || text.starts_with("{%");
        if text.starts_with(['"', '\'', '[', '{']) && !is_template && DeValue::parse(text).is_err() {
            return Err(format!("{} is not a TOML value", quoted(text)));
        }
        Ok(Self { argument: argument.to_owned(), keys, value })
    }

    /// Returns the text as the caller has written it.
    pub fn argument(&self) -> &str {
        &self.argument
    }

    /// Returns the value, or its text if the value is not TOML.
    fn value(&self) -> Spanned<DeValue<'_>> {
        let text = &self.argument[self.value.clone()];
        DeValue::parse(text)
            .unwrap_or_else(|_| Spanned::new(self.value.clone(), DeValue::String(text.into())))
    }

    /// Returns the location of the value in a manifest: a resource has an index there.
    fn steps(&self, root: &DeTable<'_>) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        let mut table = Some(root);
        let mut array: Option<&DeArray<'_>> = None;
        for key in &self.keys {
            let value = if let Some(items) = array {
                let index = position(items, &key.name);
                steps.push(index.map_or_else(|| Step::Key(key.name.clone()), Step::Index));
                index.and_then(|index| items.get(index))
            } else {
                steps.push(Step::Key(key.name.clone()));
                table.and_then(|table| table.get(key.name.as_str()))
            };
            table = value.and_then(|value| value.get_ref().as_table());
            array = value.and_then(|value| value.get_ref().as_array());
        }
        steps
    }
}

/// Returns the keys of a path, if the text is one key of TOML.
fn keys(path: &str) -> Option<Vec<Key>> {
    if path.contains(['\n', '\r', '#']) {
        return None;
    }
    let statement = format!("{path} = 0");
    let root = DeTable::parse(&statement).ok()?;
    let mut keys = Vec::new();
    let mut table = root.get_ref();
    loop {
        let (key, value) = table.iter().next()?;
        keys.push(Key { name: key.get_ref().clone().into_owned(), bytes: key.span() });
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => return Some(keys),
        }
    }
}

/// Table in which a key is looked up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    /// Table of sessions or of other named tables, in words. Its keys are names that the user chooses.
    Names(&'static str),
    Session,
    Other,
}

impl Level {
    /// Returns the level of the value of `key`.
    fn below(self, key: &str) -> Self {
        match (self, key) {
            (Self::Root, "session") | (Self::Session, "child") => Self::Names("session"),
            (Self::Root, "provider") => Self::Names("provider"),
            (Self::Names("session"), _) => Self::Session,
            _ => Self::Other,
        }
    }
}

/// Sets the values of `overrides` in a manifest, the last one of a path. A value without a place is a diagnostic, and is
/// left out.
pub(super) fn set<'t>(root: &mut DeTable<'t>, overrides: &'t [Override], diagnostics: &mut Vec<Diagnostic>) {
    for given in overrides {
        let steps = given.steps(root);
        let first = given.keys[0].name.as_str();
        let is_root = first == "workspace" && given.keys.get(1).is_none_or(|key| key.name == "root");
        if FIXED.contains(&first) || is_root {
            let message = format!("{} cannot be set for one run", quoted(given.path()));
            let label = "other commands find the swarm by it";
            diagnostics.push(at(&steps, message, label).with_help("change it in the manifest"));
        } else if let Err(diagnostic) = set_in(root, Level::Root, given, 0, &steps) {
            diagnostics.push(diagnostic);
        }
    }
}

impl Override {
    /// Returns the path as the caller has written it.
    fn path(&self) -> &str {
        let end = self.keys.last().map_or(0, |key| key.bytes.end);
        &self.argument[..end]
    }
}

/// Sets a value in `table`, which the keys before `depth` lead to.
fn set_in<'t>(
    table: &mut DeTable<'t>,
    level: Level,
    given: &'t Override,
    depth: usize,
    steps: &[Step],
) -> Result<(), Diagnostic> {
    let Key { name, bytes } = &given.keys[depth];
    if let Level::Names(what) = level
        && !table.contains_key(name.as_str())
    {
        let names = table.keys().map(|key| &**key.get_ref());
        let message = format!("the manifest has no {what} {}", quoted(name));
        let help = format!("`--set` changes values; declare the {what} in the manifest");
        return Err(at(&steps[..=depth], message, &meant(name, names, "not declared")).with_help(help));
    }
    let key = || Spanned::new(bytes.clone(), name.as_str().into());
    if depth + 1 == given.keys.len() {
        table.insert(key(), given.value());
        return Ok(());
    }
    if !table.contains_key(name.as_str()) {
        table.insert(key(), Spanned::new(bytes.clone(), DeValue::Table(DeTable::new())));
    }
    let Some(value) = table.get_mut(name.as_str()) else { return Ok(()) };
    match value.get_mut() {
        DeValue::Table(inner) => set_in(inner, level.below(name), given, depth + 1, steps),
        DeValue::Array(items) if level == Level::Session && name == "resources" => {
            set_in_resource(items, given, depth + 1, steps)
        }
        other => {
            let (what, path) = (other.type_str(), &given.argument[..bytes.end]);
            let message = format!("{} is no table, but of type {what}", quoted(path));
            Err(at(steps, message, "leads into it").with_help(format!("set it as a whole: `{path}=VALUE`")))
        }
    }
}

/// Sets an option of the resource that the key at `depth` names, or the entry of the resource.
fn set_in_resource<'t>(
    items: &mut DeArray<'t>,
    given: &'t Override,
    depth: usize,
    steps: &[Step],
) -> Result<(), Diagnostic> {
    let Key { name, bytes } = &given.keys[depth];
    let Some(index) = position(items, name) else {
        let names = items.iter().filter_map(|item| entry_name(item.get_ref()));
        let message = format!("the session requests no resource {}", quoted(name));
        let help = format!("request it in the manifest, or set the default: `defaults.{name}.OPTION=VALUE`");
        return Err(at(&steps[..=depth], message, &meant(name, names, "not requested")).with_help(help));
    };
    let Some(entry) = items.get_mut(index) else { return Ok(()) };
    if depth + 1 == given.keys.len() {
        *entry = given.value();
        return Ok(());
    }
    // A string is short for a table with a kind.
    if entry.get_ref().is_str() {
        let span = entry.span();
        let kind = std::mem::replace(entry, Spanned::new(span.clone(), DeValue::Boolean(false)));
        let table = DeTable::from_iter([(Spanned::new(span.clone(), "kind".into()), kind)]);
        *entry = Spanned::new(span, DeValue::Table(table));
    }
    match entry.get_mut() {
        DeValue::Table(table) => set_in(table, Level::Other, given, depth + 1, steps),
        _ => Err(at(steps, format!("{} is no table", quoted(&given.argument[..bytes.end])), "leads into it")),
    }
}

/// Returns the position of the entry of `resources` that has this name.
fn position(items: &DeArray<'_>, name: &str) -> Option<usize> {
    items.iter().position(|item| entry_name(item.get_ref()) == Some(name))
}

/// Returns the name of an entry of `resources`; `None` if it is no entry.
fn entry_name<'v>(entry: &'v DeValue<'_>) -> Option<&'v str> {
    let Some(table) = entry.as_table() else { return entry.as_str() };
    table.get("name").or_else(|| table.get("kind"))?.get_ref().as_str()
}

/// Returns a diagnostic at the last of these steps.
fn at(steps: &[Step], message: String, label: &str) -> Diagnostic {
    let location = Location { steps: steps.to_vec(), part: LocationPart::Key };
    Diagnostic::new(rule::OVERRIDE, location, message, label)
}

fn meant<'n>(name: &str, names: impl Iterator<Item = &'n str>, otherwise: &str) -> String {
    nearest(name, names).map_or_else(|| otherwise.to_owned(), |near| format!("did you mean `{near}`?"))
}

/// Finds the override that a location is about, and the bytes of its argument; `None` if the location is in the text of
/// the manifest.
pub(super) fn find<'o>(
    root: &DeTable<'_>,
    overrides: &'o [Override],
    location: &Location,
) -> Option<(&'o Override, Range<usize>)> {
    let (wanted, part) = (&location.steps, &location.part);
    overrides.iter().rev().find_map(|given| {
        let steps = given.steps(root);
        if wanted.starts_with(&steps) {
            let last =
                given.keys.last().filter(|_| *part == LocationPart::Key && wanted.len() == steps.len());
            return Some((given, last.map_or_else(|| given.value.clone(), |key| key.bytes.clone())));
        }
        // A key that only the override has.
        let is_on_path = !wanted.is_empty() && steps.starts_with(wanted) && !exists(root, wanted);
        is_on_path.then(|| (given, given.keys[wanted.len() - 1].bytes.clone()))
    })
}

/// Returns whether the text of a manifest has a value at this location.
fn exists(root: &DeTable<'_>, steps: &[Step]) -> bool {
    let Some((Step::Key(first), rest)) = steps.split_first() else { return true };
    let mut value = root.get(first.as_str());
    for step in rest {
        value = value.and_then(|value| match (step, value.get_ref()) {
            (Step::Key(key), DeValue::Table(table)) => table.get(key.as_str()),
            (Step::Index(index), DeValue::Array(items)) => items.get(*index),
            _ => None,
        });
    }
    value.is_some()
}

#[cfg(test)]
mod tests {
    use super::super::{Report, read_with};
    use super::Override;
    use crate::provider::Registry;

    const MANIFEST: &str = "version = 1\nswarm = \"shop\"\n[session.coder]\ncount = 2\n\
                            resources = [\"port-range\", { kind = \"git-worktree\", name = \"web\" }]\n";

    fn overrides(arguments: &[&str]) -> Vec<Override> {
        arguments.iter().map(|argument| Override::parse(argument).unwrap()).collect()
    }

    #[test]
    fn overridden_values_are_read_like_those_of_the_text() {
        let check = |arguments: &[&str], text: &str, with: &str| {
            let kinds = Registry::built_in().kinds();
            let reading = read_with(MANIFEST, &overrides(arguments), &kinds);
            assert_eq!(reading.diagnostics, [], "{arguments:?}");
            let mut manifest = reading.manifest.unwrap();
            assert_eq!(std::mem::take(&mut manifest.overrides), arguments);
            let edited = MANIFEST.replace(text, with);
            let edited = super::super::read(&edited, &kinds).manifest.unwrap();
            assert_eq!(format!("{manifest:?}"), format!("{edited:?}"));
        };
        check(&[], "", "");
        check(&["session.coder.count=8"], "count = 2", "count = 8");
        check(&["session.coder.count=3", " session . coder.\"count\" = 8 "], "count = 2", "count = 8");
        check(&["session.coder.env.A=b = \"c\""], "count = 2", "env = { A = 'b = \"c\"' }\ncount = 2");
        check(&["session.coder.prompt=[\"x\"]"], "count = 2", "prompt = [\"x\"]\ncount = 2");
        check(&["session.coder.resources.web.base-ref=v1.0"], "\"web\"", "\"web\", base-ref = \"v1.0\"");
        check(
            &["session.coder.resources.port-range.block-size=4"],
            "\"port-range\"",
            "{ kind = \"port-range\", block-size = 4 }",
        );
        check(
            &["defaults.git-worktree.base-ref=main"],
            "[session",
            "[defaults.git-worktree]\nbase-ref = \"main\"\n[session",
        );
    }

    #[test]
    fn diagnostic_of_an_override_points_at_the_argument() {
        let check = |argument: &str, under: &str, texts: &[&str]| {
            let given = overrides(&[argument]);
            let reading = read_with(MANIFEST, &given, &Registry::built_in().kinds());
            let report = Report::with_overrides("seedbed.toml", MANIFEST, &given, reading.diagnostics);
            let entries: Vec<_> = report.diagnostics().collect();
            let [entry] = &entries[..] else { panic!("{argument}: {entries:?}") };
            assert_eq!(entry.argument.as_deref(), Some(argument));
            assert_eq!(argument.get(entry.column - 1..entry.end_column - 1), Some(under), "{entry:?}");
            let text = format!("{} {} {:?}", entry.message, entry.label, entry.help);
            assert!(texts.iter().all(|part| text.contains(part)), "{text}");
        };
        check("session.coder.cuont=8", "cuont", &["did you mean `count`?"]);
        check("sesion.coder.count=8", "sesion", &["did you mean `session`?"]);
        check("session.codr.count=8", "codr", &["no session `codr`", "did you mean `coder`?"]);
        check("session.coder.child.a.count=1", "a", &["no session `a`"]);
        check("session.coder.count=many", "many", &["must be"]);
        check("session.coder.count=0", "0", &["at least 1"]);
        check("session.coder.count.x=1", "x", &["no table", "session.coder.count=VALUE"]);
        check("session.coder.resources.wbe.base-ref=main", "wbe", &["did you mean `web`?"]);
        check("session.coder.resources.web.base-rf=main", "base-rf", &["did you mean `base-ref`?"]);
        check("swarm=other", "swarm", &["cannot be set for one run"]);
        check("workspace.root=..", "root", &["cannot be set for one run"]);
        check("repository.web.root=..", "root", &["cannot be set for one run"]);
    }

    #[test]
    fn text_without_a_path_or_with_half_a_value_is_no_override() {
        for text in ["", "count", "=1", "a.=1", "a b=1", "a\nb=1", "a=[1", "a=\"x", "a#=1"] {
            assert!(Override::parse(text).is_err(), "{text:?}");
        }
    }
}
