//! Problems of templates, in words for authors of manifests.

use std::ops::Range;

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

use super::filters::FILTERS;
use super::path::{self, Path, Segment};
use crate::manifest::rule::{self, Rule};
use crate::manifest::{Diagnostic, Location};
use crate::name::nearest;

/// Problem of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// Rule that the template violates.
    pub rule: &'static Rule,
    /// Description of the problem, one line.
    pub message: String,
    /// Bytes of the template that the problem is about; `None` for the whole template.
    pub range: Option<Range<usize>>,
    /// Text to show at the range, a few words.
    pub label: String,
    /// Suggested correction or the available names; `None` if there is no suggestion.
    pub help: Option<String>,
}

/// Name of a hidden table in a session's names, which no template can write.
///
/// The table maps each name that depends on a resource to the kind of the resource.
pub(crate) const KINDS: &str = " kinds";

/// Name of the table of a session's resources in its names.
pub(crate) const RESOURCES: &str = "resources";

/// Name of the table of a session's environment in its names.
pub(crate) const ENV: &str = "env";

/// Name of a hidden text in a value that is not known yet, which no template can write: the reason.
pub(crate) const UNPLANNED: &str = " unplanned";

/// Maximum number of described problems of one template: as many as a report prints.
const PROBLEMS_MAX: usize = 100;

/// Maximum number of available names in a message.
const LISTED: usize = 12;

impl Problem {
    /// Returns the diagnostic of a manifest that has the template at `location`.
    pub fn at(self, location: &Location) -> Diagnostic {
        let location = location.clone();
        Diagnostic {
            rule: self.rule,
            location: match self.range {
                Some(range) => location.within(range),
                None => location,
            },
            message: self.message,
            label: self.label,
            help: self.help.map(String::into_boxed_str),
        }
    }

    /// Creates the problem for an error that is not about a name.
    pub(super) fn from_error(error: &Error, source: &str) -> Self {
        // The engine's lexer counts bytes, and may stop inside a character.
        let range = error
            .range()
            .map(|range| source.floor_char_boundary(range.start)..source.ceil_char_boundary(range.end));
        let range = range.filter(|range| range.start < range.end);
        let problem = |message: String, range, label: &str, help: String| Self {
            rule: rule::TEMPLATE_SYNTAX,
            message,
            range,
            label: label.to_owned(),
            help: Some(help).filter(|help| !help.is_empty()),
        };
        let detail = error.detail().unwrap_or_default();
        if detail.starts_with("unexpected end of input")
            && let Some((open, close)) = unclosed(source)
        {
            let what = &source[open.clone()];
            let message = format!("the template has `{what}` without `{close}`");
            return problem(message, Some(open), "is never closed", format!("write `{close}` where it ends"));
        }
        if error.kind() == ErrorKind::UnknownFilter
            && let Some(range) = range.clone()
            && let Some(name) = source.get(range.clone())
        {
            return Self::unlisted("filter", name, range, &FILTERS);
        }
        if error.kind() == ErrorKind::OutOfFuel {
            return Self::endless();
        }
        let why = if detail.is_empty() { error.kind().to_string() } else { detail.to_owned() };
        problem(format!("the template cannot be rendered: {why}"), range, "in this template", String::new())
    }

    /// Creates the problem of a statement, filter or test that is not part of the template language.
    pub(super) fn unlisted(what: &str, name: &str, range: Range<usize>, there: &[&str]) -> Self {
        let label = nearest(name, there.iter().copied())
            .map_or_else(|| format!("no such {what}"), |near| format!("did you mean `{near}`?"));
        let of = if what == "statement" { " of templates" } else { "" };
        Self {
            rule: rule::TEMPLATE_SYNTAX,
            message: format!("`{name}` is not a {what}{of}"),
            range: Some(range),
            label,
            help: Some(format!("there are {}", all_listed(there))),
        }
    }

    /// Creates the problem of a call: the template language has no functions.
    pub(super) fn call(name: &str, range: Range<usize>) -> Self {
        let is_filter = FILTERS.contains(&name);
        Self {
            rule: rule::TEMPLATE_SYNTAX,
            message: format!("`{name}` cannot be called"),
            range: Some(range),
            label: "templates have no functions".to_owned(),
            help: Some(if is_filter {
                format!("write the filter behind its value: `VALUE | {name}`")
            } else {
                format!("there are filters, written `VALUE | FILTER`: {}", all_listed(&FILTERS))
            }),
        }
    }

    /// Creates the problem of a template that is longer, or nests deeper, than can be compiled safely.
    pub(super) fn too_long(message: String, range: Option<Range<usize>>, help: String) -> Self {
        Self { rule: rule::TEMPLATE_SIZE, message, range, label: "too long".to_owned(), help: Some(help) }
    }

    /// Creates the problem of a template that computes for too long, or produces too much text.
    pub(crate) fn endless() -> Self {
        Self {
            rule: rule::TEMPLATE_SIZE,
            message: "the template computes too much".to_owned(),
            range: None,
            label: "too much work, or too long a text".to_owned(),
            help: Some(format!(
                "a template may expand to {} bytes, in {} steps",
                super::TEXT_MAX,
                super::FUEL_MAX
            )),
        }
    }

    /// Creates the problem of a variable's template, whose use of the variable `next` of a session is part of a circle.
    pub(crate) fn circle(source: &str, next: &str, message: String) -> Self {
        let is_use =
            |path: &Path| path.segments.windows(2).position(|two| two[0].name == ENV && two[1].name == next);
        let range =
            path::paths(source).iter().find_map(|path| Some(path.segments[is_use(path)? + 1].range.clone()));
        Self {
            rule: rule::TEMPLATE_CIRCLE,
            message,
            range,
            label: "part of the circle".to_owned(),
            help: Some("write one of these values without the others".to_owned()),
        }
    }

    /// Creates the problem of a rendered text that contains a NUL.
    pub(super) fn nul() -> Self {
        Self {
            rule: rule::TEMPLATE_VALUE,
            message:
                "the result of the template contains NUL, which no environment and no argument can contain"
                    .to_owned(),
            range: None,
            label: "results in NUL".to_owned(),
            help: None,
        }
    }
}

/// Returns every problem of a template whose rendering failed with `error`, at least one.
pub(super) fn rendering_problems(error: &Error, source: &str, names: &Value) -> Vec<Problem> {
    if error.kind() != ErrorKind::UndefinedError {
        return vec![Problem::from_error(error, source)];
    }
    let is_at = |path: &Path| {
        error.range().is_some_and(|range| path.range.start < range.end && range.start < path.range.end)
    };
    // A statement may define names itself: then only the path that failed is known to be wrong.
    let names_its_own = source.contains("{%");
    let lost: Vec<Problem> = path::paths(source)
        .iter()
        .filter(|path| is_at(path) || !names_its_own && !path.may_be_missing)
        .filter_map(|path| {
            path::lost(path, names).map(|(at, value)| unknown(source, path, at, &value, names))
        })
        .take(PROBLEMS_MAX)
        .collect();
    if lost.is_empty() { vec![Problem::from_error(error, source)] } else { lost }
}

/// Creates the problem of a path whose segment at `at` is missing in `value`; the segments before it name `value`.
fn unknown(source: &str, path: &Path, at: usize, value: &Value, scope: &Value) -> Problem {
    let segment = &path.segments[at];
    let until = |segment: &Segment| match source[segment.range.end..].chars().next() {
        // The quote, and the bracket behind it.
        Some('"' | '\'') => segment.range.end + 2,
        Some(']') => segment.range.end + 1,
        _ => segment.range.end,
    };
    let named = &source[path.range.start..until(segment).min(path.range.end)];
    let owner = at.checked_sub(1).map(|at| &source[path.range.start..until(&path.segments[at])]);
    let is_table = value.kind() == ValueKind::Map;
    let keys = value.try_iter().ok().filter(|_| is_table);
    let there: Vec<String> = keys.into_iter().flatten().map(|key| key.to_string()).collect();
    let name = segment.name.as_str();
    let inside = if owner.is_none() { path_within(value, name) } else { None };
    let kind = scope.get_attr(KINDS).and_then(|kinds| kinds.get_attr(name)).ok();
    let kind = kind.as_ref().and_then(Value::as_str);
    let near = inside.or_else(|| nearest(name, there.iter().map(String::as_str)).map(str::to_owned));
    let near = near.map(|near| format!("did you mean `{near}`?"));
    let unplanned = value.get_attr(UNPLANNED).ok();
    let (why, label, help) = match unplanned.as_ref().and_then(Value::as_str) {
        Some(why) => (
            why.to_owned(),
            "not known yet".to_owned(),
            "use resources of other kinds in options of external kinds".to_owned(),
        ),
        None if is_table && owner.is_some() && there.is_empty() => {
            let owner = owner.unwrap_or_default();
            (format!("`{owner}` is empty"), format!("not in `{owner}`"), format!("leave `{name}` out"))
        }
        None => because(source, path, owner, (name, kind), (value, &there), near),
    };
    Problem {
        rule: rule::TEMPLATE_NAME,
        message: if why.is_empty() {
            format!("`{named}` names nothing")
        } else {
            format!("`{named}` names nothing: {why}")
        },
        range: Some(segment.range.clone()),
        label,
        help: Some(help),
    }
}

/// Returns the path of a value called `name` one level below the top, names of the session first: for `name`,
/// `session.name`.
fn path_within(names: &Value, name: &str) -> Option<String> {
    let has_it = |owner: &String| {
        let keys = names.get_attr(owner).ok().and_then(|owner| owner.try_iter().ok());
        keys.is_some_and(|mut keys| keys.any(|key| key.as_str() == Some(name)))
    };
    let kinds = names.get_attr(KINDS).ok().and_then(|kinds| kinds.try_iter().ok());
    let kinds = kinds.into_iter().flatten().map(|name| name.to_string());
    let mut owners = ["session".to_owned()].into_iter().chain(kinds).chain(["workspace".to_owned()]);
    owners.find(has_it).map(|owner| format!("{owner}.{name}"))
}

/// Returns the reason for a missing name, the label, and the help.
///
/// `owner` is the value that lacks the name, or `None` for the template's own session.
fn because(
    source: &str,
    path: &Path,
    owner: Option<&str>,
    (name, kind): (&str, Option<&str>),
    (value, there): (&Value, &[String]),
    near: Option<String>,
) -> (String, String, String) {
    let is_session = value.get_attr("session").is_ok_and(|session| !session.is_undefined());
    match (owner, kind) {
        (Some("sessions"), _) => {
            let label = in_path(name, there).or(near).unwrap_or_else(|| "no such session".to_owned());
            let why = "no session has this path".to_owned();
            (why, label, format!("there are {}", listed(there)))
        }

        (Some(owner), _) if owner.rsplit('.').next() == Some(RESOURCES) => {
            let longer = there.iter().find(|other| other.starts_with(&format!("{name}-")));
            let in_brackets = longer.map(|other| format!("did you mean `{owner}['{other}']`?"));
            let label = in_brackets.or(near).unwrap_or_else(|| "no such resource".to_owned());
            let help = if there.is_empty() {
                "there are none".to_owned()
            } else {
                format!("there are {}", listed(there))
            };
            ("the session has no resource of this name".to_owned(), label, help)
        }
        (Some(_), Some(kind)) if is_session => (
            format!("that session has no `{kind}`"),
            format!("needs a `{kind}`"),
            format!("add \"{kind}\" to the `resources` of that session, or leave this out"),
        ),
        (None, Some(kind)) => (
            format!("this session has no `{kind}`"),
            format!("needs a `{kind}`"),
            format!(
                "add \"{kind}\" to its `resources`, or name another session's: `sessions['PATH'].{name}`"
            ),
        ),
        (None, _) if name == "parent" => (
            "a session at the top has no parent".to_owned(),
            "no parent here".to_owned(),
            "name another session by its path: `sessions['PATH']`".to_owned(),
        ),
        (None, _) if in_a_hyphenated_path(source, path) => (
            "a name with `-` in it needs brackets and quotes".to_owned(),
            "read as a subtraction".to_owned(),
            "write `sessions['NAME']` instead of `sessions.NAME`".to_owned(),
        ),
        (None, _) if name == "env" => (
            "templates do not see the machine's environment".to_owned(),
            "not a name".to_owned(),
            "name the environment of a session: `sessions['PATH'].env`".to_owned(),
        ),
        (None, _) => {
            let label = near.unwrap_or_else(|| "not a name".to_owned());
            (String::new(), label, format!("there are {}", listed(there)))
        }
        (Some(owner), _) if there.is_empty() => (
            format!("`{owner}` is a value without parts"),
            "nothing below it".to_owned(),
            format!("write `{owner}`"),
        ),
        (Some(owner), _) => {
            let label = near.unwrap_or_else(|| format!("not in `{owner}`"));
            let mut help = format!("`{owner}` has {}", listed(there));
            if owner.rsplit('.').next() == Some("port") {
                help.push_str("; `names` of the session's `port-range` adds more");
            }
            (String::new(), label, help)
        }
    }
}

/// Returns a label with the intended path for a path that does not exist: the replicas of a table, or a child without
/// its parents.
fn in_path(name: &str, there: &[String]) -> Option<String> {
    let is_replica = |path: &&String| {
        let number = path.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    };
    let replicas: Vec<_> = there.iter().filter(is_replica).collect();
    if let (Some(first), Some(last)) = (replicas.first(), replicas.last()) {
        return Some(if first == last {
            format!("has a `count`: did you mean `{first}`?")
        } else {
            format!("has a `count`: did you mean one of `{first}` to `{last}`?")
        });
    }
    let below =
        there.iter().find(|path| path.strip_suffix(name).is_some_and(|above| above.ends_with('/')))?;
    Some(format!("did you mean `{below}`?"))
}

/// Returns whether the path follows a `-`: the engine reads `sessions.a-b.port` as `sessions.a` minus `b.port`.
fn in_a_hyphenated_path(source: &str, path: &Path) -> bool {
    let before = source[..path.range.start].strip_suffix('-');
    before.is_some_and(|before| {
        path::paths(before)
            .last()
            .is_some_and(|other| other.range.end == before.len() && other.segments[0].name == "sessions")
    })
}

/// Returns the last opener without a closer, and the missing closer.
fn unclosed(source: &str) -> Option<(Range<usize>, &'static str)> {
    let openers = [("{{", "}}"), ("{%", "%}"), ("{#", "#}")];
    let found = openers.iter().filter_map(|(open, close)| Some((source.rfind(open)?, *close)));
    let (at, close) = found.max_by_key(|(at, _)| *at)?;
    (!source[at..].contains(close)).then_some((at..at + 2, close))
}

/// Returns the names, each quoted.
fn all_listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Returns the names, each quoted; of many names, only the first ones and the total.
fn listed<S: AsRef<str>>(names: &[S]) -> String {
    let quoted = |name: &S| format!("`{}`", name.as_ref().escape_debug());
    let shown: Vec<_> = names.iter().take(LISTED).map(quoted).collect();
    match names.len() {
        0 => "no names".to_owned(),
        1..=LISTED => shown.join(", "),
        many => format!("{}, … ({many} in all)", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use minijinja::{Value, context};

    use super::super::{Bounds, render};

    fn names() -> Value {
        let sessions = Value::from_pairs([
            ("lead", context! { port => context! { http => 1 } }),
            ("lead/coder-0", context! { session => context! { name => "coder-0" } }),
            ("lead/coder-1", context! { session => context! { name => "coder-1" } }),
        ]);
        Value::from_pairs([
            ("session", context! { name => "a" }),
            ("port", context! { http => 1, primary => 1 }),
            ("sessions", sessions),
            (super::KINDS, context! { port => "port-range" }),
        ])
    }

    /// Checks the underlined text, the message and the label of each problem.
    #[track_caller]
    fn check(source: &str, expected: &[(&str, &str, &str)]) {
        let problems = render(source, &names(), &Bounds::default()).expect_err("the template has a fault");
        let found: Vec<_> = problems
            .iter()
            .map(|problem| {
                let range = problem.range.clone().expect("it has a place");
                (&source[range], problem.message.as_str(), problem.label.as_str())
            })
            .collect();
        assert_eq!(found, expected, "{source}");
    }

    #[test]
    fn the_part_of_a_path_that_is_not_there_is_named() {
        check("x {{ name }}", &[("name", "`name` names nothing", "did you mean `session.name`?")]);
        check("x {{ http }}", &[("http", "`http` names nothing", "did you mean `port.http`?")]);
        check("x {{ port.htpp }}", &[("htpp", "`port.htpp` names nothing", "did you mean `http`?")]);
        let none = "names nothing: no session has this path";
        check(
            "{{ sessions['laed'].port.http }}",
            &[("laed", &format!("`sessions['laed']` {none}"), "did you mean `lead`?")],
        );
        check(
            "{{ sessions['lead/coder'].port.http }}",
            &[(
                "lead/coder",
                &format!("`sessions['lead/coder']` {none}"),
                "has a `count`: did you mean one of `lead/coder-0` to `lead/coder-1`?",
            )],
        );
        check(
            "{{ sessions[\"coder-1\"].port }}",
            &[("coder-1", &format!("`sessions[\"coder-1\"]` {none}"), "did you mean `lead/coder-1`?")],
        );
        check(
            "{{ sessions['lead/coder-0'].port.http }}",
            &[(
                "port",
                "`sessions['lead/coder-0'].port` names nothing: that session has no `port-range`",
                "needs a `port-range`",
            )],
        );
        check(
            "{{ session.name.x }}",
            &[(
                "x",
                "`session.name.x` names nothing: `session.name` is a value without parts",
                "nothing below it",
            )],
        );
        check(
            "{{ sessions.lead-x.port }}",
            &[(
                "x",
                "`x` names nothing: a name with `-` in it needs brackets and quotes",
                "read as a subtraction",
            )],
        );
    }

    #[test]
    fn every_name_of_a_template_is_looked_at() {
        check(
            "{{ port.x }} {{ port.http }} {{ nope }}",
            &[
                ("x", "`port.x` names nothing", "not in `port`"),
                ("nope", "`nope` names nothing", "not a name"),
            ],
        );
        // Names defined by a loop are unknown outside of the loop.
        check(
            "{% for p in [1] %}{{ p }}{{ port.x }}{% endfor %}",
            &[("x", "`port.x` names nothing", "not in `port`")],
        );
    }

    #[test]
    fn a_problem_is_about_whole_characters() {
        let message = "the template cannot be rendered: unexpected character";
        check("{{ parené }}", &[("é", message, "in this template")]);
        check("{{ a\u{2028}b }}", &[("\u{2028}", message, "in this template")]);
    }

    #[test]
    fn unclosed_template_is_shown_at_its_beginning() {
        check("a {{ port.http", &[("{{", "the template has `{{` without `}}`", "is never closed")]);
        check("a {% if x ", &[("{%", "the template has `{%` without `%}`", "is never closed")]);
        check("{{ port.http | uper }}", &[("uper", "`uper` is not a filter", "did you mean `upper`?")]);
    }
}
