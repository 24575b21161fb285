//! Rendering of external kinds' options: templates that use the planned results of all other kinds.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::AppliedPlan;
use super::allocate::{self, Allocated};
use super::dedupe::too_much;
use super::demand::{Demand, InForce, Wish, demands};
use super::names::Names;
use crate::manifest::{Diagnostic, Location, Manifest, Options, map_strings, rule};
use crate::observe::Observation;
use crate::provider::{Planner, Registry};
use crate::template::{Templates, is_plain};

/// Allocates for every session; collects every diagnostic, not only the first.
pub(super) fn allocate(
    manifest: &Manifest,
    registry: &Registry,
    observation: &Observation,
    applied: Option<&AppliedPlan>,
) -> Allocated {
    let asked = demands(manifest, registry).each;
    let has_lost = asked.iter().map(|demand| allocate::kinds(demand)).collect::<Vec<_>>();
    let Resolved { each, without, diagnostics } = resolve(manifest, registry, observation, applied, asked);
    let mut allocated = allocate::pass(manifest, registry, observation, applied, &each);
    allocated.diagnostics.extend(diagnostics);
    if !without.is_empty() {
        for (at, session) in manifest.sessions.iter().enumerate() {
            let above = session.parent.is_some_and(|parent| allocated.open[parent]);
            allocated.open[at] |= above || has_lost[at].iter().any(|kind| without.contains(kind));
        }
    }
    allocated
}

/// Requests of each session, with the options of external kinds rendered.
pub(super) struct Resolved<'m> {
    pub(super) each: Vec<Arc<Demand<'m>>>,
    /// Kinds with an option that cannot be rendered for a session; all their requests have been dropped.
    pub(super) without: BTreeSet<&'m str>,
    pub(super) diagnostics: Vec<Diagnostic>,
}

/// Renders the options of external kinds for each session; collects every diagnostic, not only the first.
pub(super) fn resolve<'m>(
    manifest: &'m Manifest,
    registry: &'m Registry,
    observation: &Observation,
    applied: Option<&AppliedPlan>,
    demands: Vec<Arc<Demand<'m>>>,
) -> Resolved<'m> {
    let is_external =
        |wish: &Wish<'_>| registry.planned_by(manifest, wish.kind).is_some_and(Planner::follows_other_kinds);
    let is_template = |wish: &&Wish<'_>| is_external(wish) && has_templates(&wish.options.all);
    if !demands.iter().any(|demand| demand.wishes.iter().any(|wish| is_template(&wish))) {
        return Resolved { each: demands, without: BTreeSet::new(), diagnostics: Vec::new() };
    }
    let others = retained(&demands, |wish| !is_external(wish));
    let Allocated { identities, allocations, open, .. } =
        allocate::pass(manifest, registry, observation, applied, &others);
    let names = Names::new(manifest, registry, &identities, allocations, &open);

    let mut templates = Templates::default();
    let mut without = BTreeSet::new();
    let mut diagnostics = Vec::new();
    let mut each = Vec::with_capacity(demands.len());
    for (at, demand) in demands.iter().enumerate() {
        if !demand.wishes.iter().any(|wish| is_template(&wish)) {
            each.push(Arc::clone(demand));
            continue;
        }
        let scope = names.scope(at);
        let mut wishes = Vec::with_capacity(demand.wishes.len());
        for wish in &demand.wishes {
            let mut wish = wish.clone();
            if is_template(&&wish) {
                let mut found = Vec::new();
                let all = rendered(&demand.wishes, &wish, &mut templates, &scope, &mut found);
                // Results that follow from a placeholder for an unknown value are meaningless.
                found.retain(|diagnostic| !open[at] || diagnostic.rule == rule::TEMPLATE_NAME);
                let said = wish.options.said.keys();
                let said = said.filter_map(|key| Some((key.clone(), all.get(key)?.clone()))).collect();
                if !found.is_empty() {
                    without.insert(wish.kind);
                }
                let of_wish = &wish;
                let found = found.into_iter();
                diagnostics.extend(found.map(|diagnostic| {
                    allocate::where_it_is_said(manifest, &demands, at, of_wish, &diagnostic)
                }));
                wish.options = Arc::new(InForce { all: Arc::new(all), said });
            }
            wishes.push(wish);
        }
        each.push(Arc::new(Demand { wishes }));
    }
    if !templates.is_within_bounds() {
        diagnostics.push(too_much());
    }
    if !without.is_empty() {
        each = retained(&each, |wish| !without.contains(wish.kind));
    }
    Resolved { each, without, diagnostics }
}

/// Returns the options of a request, rendered for one session.
fn rendered<'d>(
    wishes: &'d [Wish<'_>],
    wish: &Wish<'_>,
    templates: &mut Templates<'d>,
    scope: &minijinja::Value,
    diagnostics: &mut Vec<Diagnostic>,
) -> Options {
    let mut render = |text: &'d str, location: &dyn Fn() -> Location| {
        templates.add(text).and_then(|()| templates.render(text, scope)).unwrap_or_else(|problems| {
            diagnostics.extend(problems.into_iter().map(|problem| problem.at(&location())));
            String::new()
        })
    };
    // These equal options live as long as the templates.
    let source = wishes.iter().filter(|of| of.kind == wish.kind).take(1);
    let source = source.flat_map(|of| of.options.all.iter());
    source
        .map(|(option, value)| {
            (option.clone(), map_strings(value, &|| wish.location.key(option), &mut render))
        })
        .collect()
}

fn has_templates(options: &Options) -> bool {
    fn has(value: &Value) -> bool {
        match value {
            Value::String(text) => !is_plain(text),
            Value::Array(values) => values.iter().any(has),
            Value::Object(values) => values.values().any(has),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }
    options.values().any(has)
}

/// Returns the requests without those that are not kept, shared between sessions as before.
fn retained<'m>(demands: &[Arc<Demand<'m>>], keep: impl Fn(&Wish<'m>) -> bool) -> Vec<Arc<Demand<'m>>> {
    let mut known: HashMap<*const Demand<'_>, Arc<Demand<'m>>> = HashMap::new();
    let retained = |demand: &Arc<Demand<'m>>| {
        let wishes = demand.wishes.iter().filter(|wish| keep(wish)).cloned().collect();
        Arc::new(Demand { wishes })
    };
    demands
        .iter()
        .map(|demand| Arc::clone(known.entry(Arc::as_ptr(demand)).or_insert_with(|| retained(demand))))
        .collect()
}
