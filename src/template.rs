//! Templates: strings that may name any session's paths and ports. Strict: an unknown name is an error at its place.

mod path;
mod problem;

use std::collections::HashSet;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior, Value};

pub(crate) use problem::OF_KINDS;
pub use problem::Problem;

use crate::name::{SessionPath, Slug};

/// Renders one template; the error holds everything that is wrong with it, at least one problem.
pub fn render(source: &str, names: &Value) -> Result<String, Vec<Problem>> {
    let mut templates = Templates::default();
    templates.add(source)?;
    templates.render(source, names)
}

/// Returns what templates see as `session.*`; `hash` is there where a marker of it is filled later.
pub(crate) fn of_session(
    path: &SessionPath,
    id: &str,
    index: u32,
    replica: Option<u32>,
    slug: &Slug,
    hash: Option<(&'static str, Value)>,
) -> Value {
    let names = [
        ("id", Value::from(id)),
        ("path", Value::from(path.as_str())),
        ("name", Value::from(path.name())),
        ("index", Value::from(index)),
        ("replica", Value::from(replica.unwrap_or(0))),
        ("slug", Value::from(slug.as_str())),
    ];
    Value::from_pairs(names.into_iter().chain(hash))
}

/// Templates, each compiled once however many sessions it is rendered for.
#[derive(Debug)]
pub struct Templates<'s> {
    environment: Environment<'s>,
    /// Those that cannot be compiled.
    broken: HashSet<&'s str>,
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
        Self { environment, broken: HashSet::new() }
    }
}

impl<'s> Templates<'s> {
    /// Compiles a template, unless it is known.
    pub fn add(&mut self, source: &'s str) -> Result<(), Vec<Problem>> {
        if is_plain(source) || self.environment.get_template(source).is_ok() {
            return Ok(());
        }
        self.environment.add_template(source, source).map_err(|error| {
            self.broken.insert(source);
            vec![Problem::of(&error, source)]
        })
    }

    /// Renders a template that has been added; where that failed, there is nothing to say any more.
    pub fn render(&self, source: &str, names: &Value) -> Result<String, Vec<Problem>> {
        if is_plain(source) {
            return Ok(source.to_owned());
        }
        if self.broken.contains(source) {
            return Err(Vec::new());
        }
        let template =
            self.environment.get_template(source).map_err(|error| vec![Problem::of(&error, source)])?;
        let text = template.render(names).map_err(|error| problem::of_rendering(&error, source, names))?;
        if text.contains('\0') {
            return Err(vec![Problem::nul()]);
        }
        Ok(text)
    }
}

/// Most strings have nothing to render.
fn is_plain(source: &str) -> bool {
    let opens = |at: usize| matches!(source.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#'));
    !source.match_indices('{').any(|(at, _)| opens(at))
}
