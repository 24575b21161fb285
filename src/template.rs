//! Templates: strings that may name any session's paths and ports. Strict: an unknown name is an error at its place.

use std::ops::Range;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value};

use crate::manifest::rule::{self, Rule};
use crate::manifest::{Fault, Place};

/// Why a template could not be rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What it is an instance of.
    pub rule: &'static Rule,
    /// What is wrong, one line.
    pub message: String,
    /// Which bytes of the template it is about.
    pub range: Option<Range<usize>>,
    /// What there is instead.
    pub help: Option<String>,
}

impl Problem {
    /// The fault of a manifest that has the template at `place`.
    pub fn at(self, place: &Place) -> Fault {
        let place = place.clone();
        Fault {
            rule: self.rule,
            place: match self.range {
                Some(range) => place.within(range),
                None => place,
            },
            message: self.message,
            label: "in this template".to_owned(),
            help: self.help.map(String::into_boxed_str),
        }
    }
}

/// Renders one template.
pub fn render(source: &str, names: &Value) -> Result<String, Problem> {
    let mut templates = Templates::default();
    templates.add(source)?;
    templates.render(source, names)
}

/// Templates, each compiled once however many sessions it is rendered for.
#[derive(Debug)]
pub struct Templates<'s> {
    environment: Environment<'s>,
}

impl Default for Templates<'_> {
    fn default() -> Self {
        let mut environment = Environment::new();
        // A section of a prompt ends as it was written.
        if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
            environment.set_syntax(syntax);
        }
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        Self { environment }
    }
}

impl<'s> Templates<'s> {
    /// Compiles a template, unless it is known.
    pub fn add(&mut self, source: &'s str) -> Result<(), Problem> {
        if is_plain(source) || self.environment.get_template(source).is_ok() {
            return Ok(());
        }
        self.environment.add_template(source, source).map_err(|error| problem(&error, source, None))
    }

    /// Renders a template that has been added.
    pub fn render(&self, source: &str, names: &Value) -> Result<String, Problem> {
        if is_plain(source) {
            return Ok(source.to_owned());
        }
        let template =
            self.environment.get_template(source).map_err(|error| problem(&error, source, None))?;
        let text = template
            .render(names)
            .map_err(|error| problem(&error, source, Some((&self.environment, names))))?;
        if text.contains('\0') {
            let message =
                "the template comes to a NUL, which no environment and no argument can hold".to_owned();
            return Err(Problem { rule: rule::TEMPLATE_VALUE, message, range: None, help: None });
        }
        Ok(text)
    }
}

/// Most strings have nothing to render.
fn is_plain(source: &str) -> bool {
    !["{{", "{%", "{#"].iter().any(|open| source.contains(open))
}

fn problem(error: &minijinja::Error, source: &str, context: Option<(&Environment<'_>, &Value)>) -> Problem {
    let range = error.range().filter(|range| range.end <= source.len() && range.start < range.end);
    let expression = range.clone().and_then(|range| source.get(range)).map(str::trim);
    if let (ErrorKind::UndefinedError, Some(expression), Some((environment, names))) =
        (error.kind(), expression, context)
    {
        return unknown_name(expression, range, environment, names);
    }
    let message = match error.detail() {
        Some(detail) => format!("the template cannot be rendered: {detail}"),
        None => format!("the template cannot be rendered: {}", error.kind()),
    };
    Problem { rule: rule::TEMPLATE_SYNTAX, message, range, help: None }
}

/// Walks the expression as far as it names something, and says what there is beyond.
fn unknown_name(
    expression: &str,
    range: Option<Range<usize>>,
    environment: &Environment<'_>,
    names: &Value,
) -> Problem {
    let evaluate = |expression: &str| {
        let value = environment.compile_expression(expression).ok()?.eval(names).ok()?;
        (!value.is_undefined()).then_some(value)
    };
    let ends = expression
        .char_indices()
        .filter(|(_, c)| matches!(c, '.' | '['))
        .map(|(at, _)| at)
        .chain([expression.len()]);
    let mut known = (0, names.clone());
    let mut unknown = expression;
    for end in ends.filter(|end| *end > 0) {
        match evaluate(&expression[..end]) {
            Some(value) => known = (end, value),
            None if !expression[..end].ends_with(['\'', '"']) => {
                unknown = &expression[known.0..end];
                break;
            }
            None => {}
        }
    }
    let unknown = unknown.trim_matches(|c| ".[]'\" ".contains(c));
    let there: Vec<String> =
        known.1.try_iter().map(|keys| keys.map(|key| key.to_string()).collect()).unwrap_or_default();
    let owner = &expression[..known.0];
    let nearest = there
        .iter()
        .map(|name| (strsim::damerau_levenshtein(name, unknown), name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 3)
        .min();
    let has = if owner.is_empty() { "there is".to_owned() } else { format!("`{owner}` has") };
    let list = match there.len() {
        0 => "nothing".to_owned(),
        1..=12 => there.join(", "),
        many => format!("{}, … ({many} in all)", there[..12].join(", ")),
    };
    let help = match nearest {
        Some((_, name)) => format!("did you mean `{name}`? {has} {list}"),
        None => format!("{has} {list}"),
    };
    Problem {
        rule: rule::TEMPLATE_NAME,
        message: format!("`{expression}` names nothing"),
        range,
        help: Some(help),
    }
}
