//! Templates: strings that may name any session's paths and ports. Strict: an unknown name is an error at its location.

mod filters;
mod language;
mod path;
mod problem;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value};

pub use problem::Problem;
pub(crate) use problem::{ENV, KINDS, RESOURCES, UNPLANNED};

use crate::name::{SessionPath, Slug};

/// Maximum work of rendering one template, in units of the engine's fuel.
///
/// An instruction costs one unit, and so do 64 bytes created or read. A list of 10,000 sessions takes 100,000; the
/// maximum takes a tenth of a second, and 32 MB.
const FUEL_MAX: u64 = 500_000;

/// Maximum length of a rendered template, in bytes.
///
/// An environment cannot contain much more: Linux accepts 128 KiB for one variable.
const TEXT_MAX: usize = 1 << 20;

/// Maximum work, in fuel, and maximum text, in bytes, of all templates of one plan.
///
/// 100,000 sessions with twenty templates each fit, and a plan of this much text still fits in memory.
const TOTAL_FUEL_MAX: u64 = 50_000_000;
const TOTAL_TEXT_MAX: u64 = 256 << 20;

/// Renders one template, within the rest of `bounds`; the error contains every problem of the template, at least one.
pub fn render(source: &str, names: &Value, bounds: &Bounds) -> Result<String, Vec<Problem>> {
    let mut templates = Templates::default();
    templates.add(source)?;
    let rendered = templates.render(source, names);
    let spent = bounds.spend(templates.bounds.fuel.into_inner(), templates.bounds.text.into_inner());
    rendered.and_then(|text| spent.map(|()| text).map_err(|()| vec![Problem::endless()]))
}

/// Counters of work and text for all templates of one plan. After a counter has passed its limit, nothing more is
/// rendered.
#[derive(Debug, Default)]
pub struct Bounds {
    /// Fuel that rendering has used so far.
    fuel: AtomicU64,
    /// Bytes of rendered text so far.
    text: AtomicU64,
}

impl Bounds {
    fn are_kept(&self) -> bool {
        self.fuel.load(Ordering::Relaxed) <= TOTAL_FUEL_MAX
            && self.text.load(Ordering::Relaxed) <= TOTAL_TEXT_MAX
    }

    fn spend(&self, fuel: u64, bytes: u64) -> Result<(), ()> {
        self.fuel.fetch_add(fuel, Ordering::Relaxed);
        self.text.fetch_add(bytes, Ordering::Relaxed);
        if self.are_kept() { Ok(()) } else { Err(()) }
    }
}

/// Returns the names that templates use as `session.*`; `hash` is present if its marker is replaced later.
pub(crate) fn session_value(
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

/// Converts a JSON value.
pub(crate) fn from_json(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(boolean) => Value::from(*boolean),
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(values) => values.iter().map(from_json).collect(),
        serde_json::Value::Object(fields) => {
            Value::from_pairs(fields.iter().map(|(key, value)| (key.clone(), from_json(value))))
        }
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::from(number),
            (None, Some(number)) => Value::from(number),
            (None, None) => Value::from(number.as_f64()),
        },
    }
}

/// Set of templates, each compiled once for any number of sessions.
#[derive(Debug)]
pub struct Templates<'s> {
    environment: Environment<'s>,
    /// Templates that cannot be compiled.
    broken: HashSet<&'s str>,
    bounds: Bounds,
}

impl Default for Templates<'_> {
    fn default() -> Self {
        let mut environment = Environment::new();
        // The trailing newline of a prompt section is kept.
        if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
            environment.set_syntax(syntax);
        }
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_fuel(Some(FUEL_MAX));
        // The documented template language has no functions.
        let functions: Vec<String> = environment.globals().map(|(name, _)| name.to_owned()).collect();
        for name in &functions {
            environment.remove_global(name);
        }
        Self { environment, broken: HashSet::new(), bounds: Bounds::default() }
    }
}

impl<'s> Templates<'s> {
    /// Compiles a template, unless it is compiled already.
    pub fn add(&mut self, source: &'s str) -> Result<(), Vec<Problem>> {
        if is_plain(source) || self.environment.get_template(source).is_ok() {
            return Ok(());
        }
        let checked = language::check(source);
        let compiled = checked.and_then(|()| {
            self.environment.add_template(source, source).map_err(|error| Problem::from_error(&error, source))
        });
        compiled.map_err(|problem| {
            self.broken.insert(source);
            vec![problem]
        })
    }

    /// Renders a template that has been added; the error is empty if the template could not be compiled, which was
    /// reported then.
    pub fn render(&self, source: &str, names: &Value) -> Result<String, Vec<Problem>> {
        if is_plain(source) {
            self.spend(0, source.len())?;
            return Ok(source.to_owned());
        }
        if self.broken.contains(source) {
            return Err(Vec::new());
        }
        let template = self
            .environment
            .get_template(source)
            .map_err(|error| vec![Problem::from_error(&error, source)])?;
        self.spend(0, 0)?;
        let rendered = template.render_captured(names).map_err(|error| {
            // A failed rendering has done work too, and may fail for every session.
            let _ = self.spend(if error.kind() == ErrorKind::OutOfFuel { FUEL_MAX } else { 1 }, 0);
            problem::rendering_problems(&error, source, names)
        })?;
        let fuel = rendered.state().fuel_levels().map_or(0, |(consumed, _)| consumed);
        let text = rendered.into_output();
        if text.len() > TEXT_MAX {
            return Err(vec![Problem::endless()]);
        }
        self.spend(fuel, text.len())?;
        if text.contains('\0') {
            return Err(vec![Problem::nul()]);
        }
        Ok(text)
    }

    /// Returns whether all renderings, including failed ones, stayed within the limits of one plan.
    pub(crate) fn is_within_bounds(&self) -> bool {
        self.bounds.are_kept()
    }

    /// Counts the work of one rendering. The error is empty: no single template passes the limits of a plan.
    fn spend(&self, fuel: u64, bytes: usize) -> Result<(), Vec<Problem>> {
        self.bounds.spend(fuel, bytes as u64).map_err(|()| Vec::new())
    }
}

/// Returns whether a string has nothing to render, as most strings do.
pub(crate) fn is_plain(source: &str) -> bool {
    let opens = |at: usize| matches!(source.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#'));
    !source.match_indices('{').any(|(at, _)| opens(at))
}
