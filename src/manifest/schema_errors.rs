//! Schema check of a manifest: rewords every validator error for authors of manifests.

use std::collections::BTreeSet;

use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use jsonschema::{JsonType, ValidationError};
use serde_json::Value;

use super::Options;
use super::diagnostic::{Diagnostic, Location, Step};
use super::document::{AGE_PATTERN, ENV_PATTERN};
use super::lifetime::EXPIRES_PATTERN;
use super::ready::WITHIN_PATTERN;
use super::rule::{self, Rule};
use super::text::{listed, quoted, toml_of, type_of};
use super::validator::validator;
use crate::name::{NAME_PATTERN, is_name, nearest};

/// Checks `manifest` against `schema` and removes the parts that do not match, so that the rest can be read.
///
/// Fails if `schema` is not a valid schema, an error in the kind that defines the schema.
pub(super) fn check(
    manifest: &mut Value,
    schema: &Value,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<(), String> {
    let validator = validator(schema)?;
    let mut wrong = Vec::new();
    {
        let errors: Vec<ValidationError<'_>> = validator.iter_errors(manifest).collect();
        let mut specific = Vec::new();
        for error in &errors {
            unpack(error, &mut specific);
        }
        let mistyped: BTreeSet<&str> = specific
            .iter()
            .filter(|error| is_of_type(error.kind()))
            .map(|error| error.instance_path().as_str())
            .collect();
        for error in specific {
            let at = InvalidValue::new(manifest, schema, error);
            // `null` replaces values that have been reported already. For a value of the wrong type, no other error is
            // useful.
            if !at.value.is_null()
                && (is_of_type(error.kind()) || !mistyped.contains(error.instance_path().as_str()))
            {
                at.explain(error.kind(), diagnostics);
            }
            wrong.push(Removal::new(&at, error.kind()));
        }
    }
    for wrong in &wrong {
        wrong.remove(manifest);
    }
    Ok(())
}

/// Returns the diagnostics of the options of a request by the JSON schema of its kind, at locations below the request.
///
/// Fails if `schema` is not a valid schema.
pub(crate) fn options(options: &Options, schema: &Value) -> Result<Vec<Diagnostic>, String> {
    let mut diagnostics = Vec::new();
    check(&mut Value::Object(options.clone()), schema, &mut diagnostics)?;
    Ok(diagnostics)
}

fn is_of_type(kind: &Kind) -> bool {
    matches!(kind, Kind::Type { .. } | Kind::Custom { .. })
}

/// Replaces the error of a choice by the errors of the intended alternative, if one can be identified.
fn unpack<'e>(error: &'e ValidationError<'e>, into: &mut Vec<&'e ValidationError<'e>>) {
    let (Kind::AnyOf { context } | Kind::OneOfNotValid { context }) = error.kind() else {
        into.push(error);
        return;
    };
    let at = error.instance_path().as_str();
    let rules_out = |inner: &ValidationError<'_>| {
        let path = inner.instance_path().as_str();
        match inner.kind() {
            Kind::Type { .. } | Kind::Custom { .. } | Kind::Enum { .. } => path == at,
            // A `kind = ..` of another alternative.
            Kind::Constant { .. } | Kind::Not { .. } => {
                path == at || path.rsplit_once('/').is_some_and(|(parent, _)| parent == at)
            }
            _ => false,
        }
    };
    // Among equal branches the last one wins: the more lenient alternatives are written last.
    let meant =
        context.iter().rev().filter(|branch| !branch.iter().any(rules_out)).min_by_key(|branch| branch.len());
    match meant {
        Some(branch) => branch.iter().for_each(|inner| unpack(inner, into)),
        None => into.push(error),
    }
}

/// Location of one validator error.
struct InvalidValue<'a> {
    location: Location,
    /// Value at the location.
    value: &'a Value,
    /// Part of the schema that the value does not meet.
    schema: &'a Value,
    /// Whole schema.
    root: &'a Value,
}

impl<'a> InvalidValue<'a> {
    fn new(manifest: &'a Value, schema: &'a Value, error: &ValidationError<'_>) -> Self {
        let mut value = manifest;
        let mut location = Location::default();
        for segment in error.instance_path().as_str().split('/').skip(1) {
            let segment = segment.replace("~1", "/").replace("~0", "~");
            (location, value) = match value {
                Value::Array(items) => {
                    let index = segment.parse().unwrap_or_default();
                    (location.index(index), &items[index])
                }
                value => (location.key(&segment), &value[segment.as_str()]),
            };
        }
        let keyword = error.schema_path().as_str();
        let parent = keyword.rsplit_once('/').map_or("", |(parent, _)| parent);
        Self { location, value, schema: schema.pointer(parent).unwrap_or(&Value::Null), root: schema }
    }

    fn explain(&self, kind: &Kind, diagnostics: &mut Vec<Diagnostic>) {
        if let Kind::AdditionalProperties { unexpected } = kind {
            diagnostics.extend(unexpected.iter().map(|key| self.unexpected(key)));
            return;
        }
        diagnostics.push(match kind {
            Kind::Required { property } => self.missing(property.as_str().unwrap_or_default()),
            Kind::Type { kind } => self.mistyped(&types(kind)),
            Kind::Custom { .. } => self.mistyped(&[JsonType::Integer]),
            Kind::Enum { options } => {
                self.not_among(&options.as_array().into_iter().flatten().collect::<Vec<_>>())
            }
            Kind::Constant { expected_value } => self.not_among(&[&**expected_value]),
            Kind::AnyOf { context } | Kind::OneOfNotValid { context } => self.no_alternative(context),
            Kind::Pattern { pattern } => self.unlike(pattern),
            Kind::Minimum { limit } => self.bounded(&format!("at least {limit}")),
            Kind::Maximum { limit } => self.bounded(&format!("at most {limit}")),
            Kind::ExclusiveMinimum { limit } => self.bounded(&format!("more than {limit}")),
            Kind::ExclusiveMaximum { limit } => self.bounded(&format!("less than {limit}")),
            Kind::MultipleOf { multiple_of } => self.bounded(&format!("a multiple of {multiple_of}")),
            Kind::MinItems { limit: 1 } | Kind::MinLength { limit: 1 } => {
                self.diagnostic(rule::WRONG_SIZE, format!("{} is empty", self.name()), "must not be empty")
            }
            Kind::MinItems { limit } => self.sized(&format!("at least {limit} entries")),
            Kind::MaxItems { limit } => self.sized(&format!("at most {limit} entries")),
            Kind::MinLength { limit } => self.sized(&format!("at least {limit} characters")),
            Kind::MaxLength { limit } => self.sized(&format!("at most {limit} characters")),
            Kind::UniqueItems => self.diagnostic(
                rule::NOT_ALLOWED,
                format!("{} lists a value twice", self.name()),
                "has a value twice",
            ),
            other => {
                let message = format!("{} does not meet `{}` of the schema", self.name(), other.keyword());
                self.diagnostic(rule::NOT_ALLOWED, message, "not allowed")
            }
        });
    }

    /// Creates a diagnostic of the value at this location, with an example from the schema if there is one.
    fn diagnostic(&self, rule: &'static Rule, message: String, label: &str) -> Diagnostic {
        let diagnostic = Diagnostic::new(rule, self.location.clone(), message, label);
        match self.example() {
            Some(example) => diagnostic.with_help(format!("for example: `{example}`")),
            None => diagnostic,
        }
    }

    fn unexpected(&self, key: &str) -> Diagnostic {
        let location = self.location.key(key).the_key();
        let patterns = self.schema["patternProperties"].as_object();
        if let Some(pattern) = patterns.and_then(|patterns| patterns.keys().next()) {
            let (what, form) = pattern_in_words(pattern);
            return Diagnostic::new(
                rule::NOT_A_NAME,
                location,
                format!("{} is not {what}", quoted(key)),
                format!("not {what}"),
            )
            .with_help(form);
        }
        let owner = self.schema["title"].as_str().unwrap_or("this table");
        let allowed: Vec<&str> = self.schema["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key.as_str())
            .collect();
        let label = match nearest(key, allowed.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("not a key of {owner}"),
        };
        let mut help = format!("allowed here: {}", listed(allowed, "and"));
        if let Some(belongs) = self.elsewhere(key) {
            help = format!("{belongs}; {help}");
        }
        Diagnostic::new(rule::UNKNOWN_KEY, location, format!("unknown key {} in {owner}", quoted(key)), label)
            .with_help(help)
    }

    /// Describes the table that accepts `key`, when the table here does not.
    fn elsewhere(&self, key: &str) -> Option<String> {
        let has = |schema: &Value| schema["properties"].get(key).is_some();
        if has(self.root) {
            return Some(format!("`{key}` belongs to the top of the file, before the first `[header]`"));
        }
        let definitions = self.root["$defs"].as_object()?;
        if has(definitions.get("session")?) {
            return Some(format!("`{key}` is a key of a session, `[session.NAME]`"));
        }
        let (request, _) =
            definitions.iter().find(|(name, schema)| name.ends_with(".request") && has(schema))?;
        let kind = request.trim_end_matches(".request");
        let entry = format!("resources = [{{ kind = \"{kind}\", {key} = .. }}]");
        Some(format!("`{key}` is an option of `{kind}`: `{entry}`"))
    }

    fn missing(&self, property: &str) -> Diagnostic {
        let owner = self.schema["title"].as_str().unwrap_or("this table");
        let message = format!("{owner} needs `{property}`");
        let diagnostic = Diagnostic::new(
            rule::MISSING_KEY,
            self.location.clone(),
            message,
            format!("`{property}` is missing"),
        );
        match example_in(&self.schema["properties"][property]) {
            Some(example) if self.location.steps.is_empty() => {
                // Below the root, such a line would belong to a table.
                diagnostic.with_help(format!("add a line at the top of the file: `{property} = {example}`"))
            }
            Some(example) => diagnostic.with_help(format!("for example: `{property} = {example}`")),
            None => diagnostic,
        }
    }

    fn mistyped(&self, expected: &[JsonType]) -> Diagnostic {
        let words: Vec<&str> = expected.iter().map(|expected| type_in_words(*expected)).collect();
        let expected_words = words.join(" or ");
        let message = format!("{} must be {expected_words}, not {}", self.name(), type_of(self.value));
        let help = match self.value {
            Value::Bool(_) | Value::Number(_) if expected == [JsonType::String] => {
                Some(format!("write it in quotes: `\"{}\"`", self.value))
            }
            Value::String(text) if expected.contains(&JsonType::Integer) && text.parse::<i64>().is_ok() => {
                Some(format!("write it without quotes: `{text}`"))
            }
            Value::String(text) if expected.contains(&JsonType::Boolean) && text.parse::<bool>().is_ok() => {
                Some(format!("write it without quotes: `{text}`"))
            }
            Value::String(_) if expected.contains(&JsonType::Array) => {
                let inner = toml_of(self.value);
                Some(format!("write it in brackets: `[{inner}]`"))
            }
            Value::Array(items) if expected == [JsonType::Object] && items.iter().all(Value::is_object) => {
                self.tables_instead(items)
            }
            Value::Object(_) if expected == [JsonType::Array] => {
                self.header().map(|header| format!("write `[{header}]`, one a table, or an array"))
            }
            _ if expected == [JsonType::Object] => {
                self.header().map(|header| format!("write a table: `{header}`"))
            }
            _ => self.example().map(|example| format!("for example: `{example}`")),
        };
        Diagnostic {
            help: help.map(String::into_boxed_str),
            ..Diagnostic::new(
                rule::WRONG_TYPE,
                self.location.clone(),
                message,
                format!("expected {expected_words}"),
            )
        }
    }

    /// Returns help that replaces an array of tables by the right form.
    fn tables_instead(&self, items: &[Value]) -> Option<String> {
        let header = self.header()?;
        let header = header.trim_matches(['[', ']']);
        if matches!(self.location.steps.last(), Some(Step::Key(key)) if key == "session" || key == "child") {
            let name = items.first().and_then(|item| item["name"].as_str()).filter(|name| is_name(name));
            return Some(format!("give each a table with its name: `[{header}.{}]`", name.unwrap_or("NAME")));
        }
        Some(format!("write it with single brackets: `[{header}]`"))
    }

    fn not_among(&self, allowed: &[&Value]) -> Diagnostic {
        let message = format!("{} cannot be {}", self.name(), quoted_value(self.value));
        let names: Vec<String> = allowed.iter().map(|value| plain(value)).collect();
        let near = self.value.as_str().and_then(|text| nearest(text, names.iter().map(String::as_str)));
        let label =
            near.map_or_else(|| "not one of the values".to_owned(), |near| format!("did you mean `{near}`?"));
        let list = listed(names.iter().map(String::as_str), "or");
        Diagnostic::new(rule::NOT_ALLOWED, self.location.clone(), message, label)
            .with_help(format!("allowed: {list}"))
    }

    /// Creates the diagnostic of a value that fits no alternative; the message lists the allowed types or values.
    fn no_alternative(&self, context: &[Vec<ValidationError<'_>>]) -> Diagnostic {
        let mut expected = Vec::new();
        let mut values = Vec::new();
        for error in context.iter().flatten() {
            match error.kind() {
                Kind::Type { kind } => expected.extend(types(kind)),
                Kind::Enum { options } => values.extend(options.as_array().into_iter().flatten()),
                Kind::Constant { expected_value } => values.push(expected_value),
                _ => {}
            }
        }
        let same_type = |value: &&Value| type_of(value) == type_of(self.value);
        if values.iter().any(same_type) {
            return self.not_among(&values);
        }
        expected.sort_by_key(|expected| type_in_words(*expected));
        expected.dedup();
        if expected.is_empty() && values.iter().any(|value| value.is_string()) {
            expected.push(JsonType::String);
        }
        self.mistyped(&expected)
    }

    fn unlike(&self, pattern: &str) -> Diagnostic {
        let (what, form) = pattern_in_words(pattern);
        Diagnostic::new(
            if pattern == NAME_PATTERN || pattern == ENV_PATTERN {
                rule::NOT_A_NAME
            } else {
                rule::NOT_ALLOWED
            },
            self.location.clone(),
            format!("{} is {}, which is not {what}", self.name(), quoted_value(self.value)),
            format!("not {what}"),
        )
        .with_help(form)
    }

    fn bounded(&self, bound: &str) -> Diagnostic {
        self.diagnostic(
            rule::OUT_OF_RANGE,
            format!("{} is {}, and must be {bound}", self.name(), self.value),
            &format!("must be {bound}"),
        )
    }

    fn sized(&self, bound: &str) -> Diagnostic {
        self.diagnostic(
            rule::WRONG_SIZE,
            format!("{} must have {bound}", self.name()),
            &format!("must have {bound}"),
        )
    }

    fn example(&self) -> Option<String> {
        let example = example_in(self.schema)?;
        Some(match self.location.steps.last() {
            Some(Step::Key(key)) => format!("{key} = {example}"),
            _ => example,
        })
    }

    /// Returns the header of the table that is expected here; `None` inside arrays.
    fn header(&self) -> Option<String> {
        let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let keys = self.location.steps.iter().map(|step| match step {
            Step::Key(key) if !key.is_empty() && key.chars().all(is_bare) => Some(key.clone()),
            Step::Key(key) => Some(toml_of(&Value::from(key.as_str()))),
            Step::Index(_) => None,
        });
        Some(format!("[{}]", keys.collect::<Option<Vec<String>>>()?.join(".")))
    }

    /// Returns the name of the value in messages: its key, or an entry of its array.
    fn name(&self) -> String {
        let key = self.location.steps.iter().rev().find_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        });
        match (self.location.steps.last(), key) {
            (Some(Step::Index(_)), Some(key)) => format!("an entry of {}", quoted(key)),
            (_, Some(key)) => quoted(key),
            (_, None) => "the manifest".to_owned(),
        }
    }
}

fn types(kind: &TypeKind) -> Vec<JsonType> {
    match kind {
        TypeKind::Single(one) => vec![*one],
        TypeKind::Multiple(several) => several.iter().collect(),
    }
}

fn type_in_words(expected: JsonType) -> &'static str {
    match expected {
        JsonType::Null => "nothing",
        JsonType::Boolean => "a boolean",
        JsonType::Integer => "an integer",
        JsonType::Number => "a number",
        JsonType::String => "a string",
        JsonType::Array => "an array",
        JsonType::Object => "a table",
    }
}

/// Returns a pattern's meaning in words, and the rule as help.
fn pattern_in_words(pattern: &str) -> (&'static str, String) {
    match pattern {
        NAME_PATTERN => (
            "a name",
            "a name has letters, digits, `.`, `_` and `-`, begins with a letter or digit, and is at most 63 long".into(),
        ),
        ENV_PATTERN => (
            "the name of a variable",
            "it has capital letters, digits and `_`, and does not begin with a digit: `DATABASE_URL`".into(),
        ),
        AGE_PATTERN => ("a length of time", "write a number and a unit: `12h`, `1d` or `2w`".into()),
        WITHIN_PATTERN => ("a length of a wait", "write a number from 1 to 99999 and `ms`, `s` or `m`: `500ms`, `30s` or `2m`".into()),
        EXPIRES_PATTERN => ("a lifetime", "write a number from 1 to 9999 and `m`, `h`, `d` or `w`, such as `3d`, or `never`".into()),
        other => ("allowed", format!("it has to match the regular expression `{other}`")),
    }
}

fn example_in(schema: &Value) -> Option<String> {
    schema["examples"].get(0).map(toml_of)
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn quoted_value(value: &Value) -> String {
    quoted(&plain(value))
}

/// Part of the manifest that must be removed before the manifest can be read.
enum Removal {
    /// Keys of the table at these steps.
    Keys(Vec<Step>, Vec<String>),
    /// Array entry at these steps. The entry becomes `null`; removing it would shift the entries behind it.
    Entry(Vec<Step>),
}

impl Removal {
    fn new(at: &InvalidValue<'_>, kind: &Kind) -> Self {
        let mut steps = at.location.steps.clone();
        if let Kind::AdditionalProperties { unexpected } = kind {
            return Self::Keys(steps, unexpected.clone());
        }
        // A table that requires the wrong value is removed too: a provider without command, a resource without kind.
        if steps.first() == Some(&Step::Key("provider".to_owned())) {
            steps.truncate(2);
        }
        if let [.., Step::Index(_), Step::Key(key)] = steps.as_slice()
            && key == "kind"
        {
            steps.pop();
        }
        // For an entry within an entry, such as an argument of a command, the outer entry is removed.
        while let [.., Step::Index(_), Step::Index(_)] = steps.as_slice() {
            steps.pop();
        }
        match steps.pop() {
            Some(Step::Key(key)) => Self::Keys(steps, vec![key]),
            Some(index) => {
                steps.push(index);
                Self::Entry(steps)
            }
            None => Self::Keys(steps, Vec::new()),
        }
    }

    fn remove(&self, manifest: &mut Value) {
        let (Self::Keys(steps, _) | Self::Entry(steps)) = self;
        let found = steps.iter().try_fold(manifest, |value, step| match step {
            Step::Key(key) => value.get_mut(key),
            Step::Index(index) => value.get_mut(index),
        });
        match (self, found) {
            (Self::Keys(_, keys), Some(Value::Object(table))) => {
                for key in keys {
                    table.remove(key);
                }
            }
            (Self::Entry(_), Some(entry)) => *entry = Value::Null,
            _ => {}
        }
    }
}
