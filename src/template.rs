//! Templates: strings that may name any session's paths and ports. Strict: an unknown name is an error at its place.

mod filters;
mod language;
mod path;
mod problem;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value};

pub(crate) use problem::OF_KINDS;
pub use problem::Problem;

use crate::name::{SessionPath, Slug};

/// The most work that rendering one template may take, in the engine's fuel: one for an instruction, one for 64 bytes made or
/// read. A list of 10,000 sessions takes 100,000; this many take a tenth of a second, and 32 MB.
const FUEL_MAX: u64 = 500_000;

/// The longest text that a template may come to, in bytes. An environment cannot hold much more: Linux takes 128 KiB for one
/// variable.
const TEXT_MAX: usize = 1 << 20;

/// The most that all templates of one plan may take and come to, in fuel and in bytes: 100,000 sessions with twenty templates
/// each fit, and a plan of this much text still fits in memory.
const TOTAL_FUEL_MAX: u64 = 50_000_000;
const TOTAL_TEXT_MAX: u64 = 256 << 20;

/// Renders one template, within what is left of `bounds`; the error holds everything that is wrong with it, at least one
/// problem.
pub fn render(source: &str, names: &Value, bounds: &Bounds) -> Result<String, Vec<Problem>> {
    let mut templates = Templates::default();
    templates.add(source)?;
    let rendered = templates.render(source, names);
    let spent = bounds.spend(templates.bounds.fuel.into_inner(), templates.bounds.text.into_inner());
    rendered.and_then(|text| spent.map(|()| text).map_err(|()| vec![Problem::endless()]))
}

/// Counts the work and the text of all templates of one plan. Past the bounds of one plan nothing is rendered any more.
#[derive(Debug, Default)]
pub struct Bounds {
    /// Fuel that rendering has taken until now.
    fuel: AtomicU64,
    /// Bytes that templates have come to until now.
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
    bounds: Bounds,
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
        environment.set_fuel(Some(FUEL_MAX));
        // Functions, of which the language of templates has none.
        let functions: Vec<String> = environment.globals().map(|(name, _)| name.to_owned()).collect();
        for name in &functions {
            environment.remove_global(name);
        }
        Self { environment, broken: HashSet::new(), bounds: Bounds::default() }
    }
}

impl<'s> Templates<'s> {
    /// Compiles a template, unless it is known.
    pub fn add(&mut self, source: &'s str) -> Result<(), Vec<Problem>> {
        if is_plain(source) || self.environment.get_template(source).is_ok() {
            return Ok(());
        }
        let checked = language::check(source);
        let compiled = checked.and_then(|()| {
            self.environment.add_template(source, source).map_err(|error| Problem::of(&error, source))
        });
        compiled.map_err(|problem| {
            self.broken.insert(source);
            vec![problem]
        })
    }

    /// Renders a template that has been added; where that failed, there is nothing to say any more.
    pub fn render(&self, source: &str, names: &Value) -> Result<String, Vec<Problem>> {
        if is_plain(source) {
            self.spend(0, source.len())?;
            return Ok(source.to_owned());
        }
        if self.broken.contains(source) {
            return Err(Vec::new());
        }
        let template =
            self.environment.get_template(source).map_err(|error| vec![Problem::of(&error, source)])?;
        self.spend(0, 0)?;
        let rendered = template.render_captured(names).map_err(|error| {
            // What fails has taken something too, and may fail for every session.
            let _ = self.spend(if error.kind() == ErrorKind::OutOfFuel { FUEL_MAX } else { 1 }, 0);
            problem::of_rendering(&error, source, names)
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

    /// Returns whether all that was rendered, or could not be, stayed within the bounds of one plan.
    pub(crate) fn is_within_bounds(&self) -> bool {
        self.bounds.are_kept()
    }

    /// Counts what rendering took. The error is empty: the bounds are passed at no template of its own.
    fn spend(&self, fuel: u64, bytes: usize) -> Result<(), Vec<Problem>> {
        self.bounds.spend(fuel, bytes as u64).map_err(|()| Vec::new())
    }
}

/// Most strings have nothing to render.
pub(crate) fn is_plain(source: &str) -> bool {
    let opens = |at: usize| matches!(source.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#'));
    !source.match_indices('{').any(|(at, _)| opens(at))
}
