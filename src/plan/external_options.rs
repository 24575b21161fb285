//! Rendering of external kinds' options: templates that use the planned results of all other kinds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::AppliedPlan;
use super::allocate::{self, Allocated};
use super::dedupe::too_much;
use super::requests::{EffectiveOptions, EffectiveRequest, SessionRequests, all_requests};
use super::template_scope::{ExternalValues, TemplateScopes};
use crate::manifest::{Diagnostic, Location, Manifest, Options, map_strings, rule};
use crate::observe::Observation;
use crate::provider::{Allocation, Planner, Registry};
use crate::template::{Templates, is_plain};

/// Allocates for every session; collects every diagnostic, not only the first.
pub(super) fn allocate(
    manifest: &Manifest,
    registry: &Registry,
    observation: &Observation,
    applied: Option<&AppliedPlan>,
) -> Allocated {
    let requests = all_requests(manifest, registry).each;
    let has_lost =
        requests.iter().map(|session_requests| allocate::kinds(session_requests)).collect::<Vec<_>>();
    let Resolved { each, without, diagnostics, .. } =
        resolve(manifest, registry, observation, applied, requests);
    let mut allocated = allocate::pass(manifest, registry, observation, applied, &each);
    allocated.diagnostics.extend(diagnostics);
    if !without.is_empty() {
        for (at, session) in manifest.sessions.iter().enumerate() {
            let above = session.parent.is_some_and(|parent| allocated.unresolved[parent]);
            allocated.unresolved[at] |= above || has_lost[at].iter().any(|kind| without.contains(kind));
        }
    }
    allocated
}

/// Requests of each session, with the options of external kinds rendered.
pub(super) struct Resolved<'m> {
    pub(super) each: Vec<Arc<SessionRequests<'m>>>,
    /// Kinds with an option that cannot be rendered for a session; all their requests have been dropped.
    pub(super) without: BTreeSet<&'m str>,
    pub(super) diagnostics: Vec<Diagnostic>,
    /// Ports of each session by name; `None` if no option is a template.
    pub(super) ports: Option<Vec<BTreeMap<String, u16>>>,
}

/// Renders the options of external kinds for each session; collects every diagnostic, not only the first.
pub(super) fn resolve<'m>(
    manifest: &'m Manifest,
    registry: &'m Registry,
    observation: &Observation,
    applied: Option<&AppliedPlan>,
    all_requests: Vec<Arc<SessionRequests<'m>>>,
) -> Resolved<'m> {
    let is_external = |wanted: &EffectiveRequest<'_>| is_external(manifest, registry, wanted);
    let is_template =
        |wanted: &&EffectiveRequest<'_>| is_external(wanted) && has_templates(&wanted.options.all);
    if !all_requests
        .iter()
        .any(|session_requests| session_requests.requests.iter().any(|wanted| is_template(&wanted)))
    {
        let (without, diagnostics) = (BTreeSet::new(), Vec::new());
        return Resolved { each: all_requests, without, diagnostics, ports: None };
    }
    let others = without_external(manifest, registry, &all_requests);
    let Allocated { identities, allocations, unresolved, .. } =
        allocate::pass(manifest, registry, observation, applied, &others);
    let ports = Some(named_ports(registry, &allocations));
    let later = all_requests.iter().map(|session_requests| {
        let external = session_requests.requests.iter().filter(|wanted| is_external(wanted));
        external.map(|wanted| wanted.name.to_owned()).collect()
    });
    let later = ExternalValues::Later(later.collect());
    let names =
        TemplateScopes::new(manifest, registry, &identities, allocations, &unresolved, later, Vec::new());

    let mut templates = Templates::default();
    let mut without = BTreeSet::new();
    let mut diagnostics = Vec::new();
    let mut each = Vec::with_capacity(all_requests.len());
    for (at, session_requests) in all_requests.iter().enumerate() {
        if !session_requests.requests.iter().any(|wanted| is_template(&wanted)) {
            each.push(Arc::clone(session_requests));
            continue;
        }
        let scope = names.scope(at).names;
        let mut requests = Vec::with_capacity(session_requests.requests.len());
        for wanted in &session_requests.requests {
            let mut wanted = wanted.clone();
            if is_template(&&wanted) {
                let mut found = Vec::new();
                let all = rendered(&session_requests.requests, &wanted, &mut templates, &scope, &mut found);
                // Results that follow from a placeholder for an unknown value are meaningless.
                found.retain(|diagnostic| !unresolved[at] || diagnostic.rule == rule::TEMPLATE_NAME);
                let explicit = wanted.options.explicit.keys();
                let explicit =
                    explicit.filter_map(|key| Some((key.clone(), all.get(key)?.clone()))).collect();
                if !found.is_empty() {
                    without.insert(wanted.kind);
                }
                let of_wanted = &wanted;
                let found = found.into_iter();
                diagnostics.extend(found.map(|diagnostic| {
                    allocate::at_the_setting_table(manifest, &all_requests, at, of_wanted, &diagnostic)
                }));
                wanted.options = Arc::new(EffectiveOptions { all: Arc::new(all), explicit });
            }
            requests.push(wanted);
        }
        each.push(Arc::new(SessionRequests { requests }));
    }
    if !templates.is_within_bounds() {
        diagnostics.push(too_much());
    }
    if !without.is_empty() {
        each = retained(&each, |wanted| !without.contains(wanted.kind));
    }
    Resolved { each, without, diagnostics, ports }
}

/// Returns the ports of each session by name, planned without external kinds.
pub(super) fn planned_ports(
    manifest: &Manifest,
    registry: &Registry,
    observation: &Observation,
    applied: Option<&AppliedPlan>,
    all_requests: &[Arc<SessionRequests<'_>>],
) -> Vec<BTreeMap<String, u16>> {
    let others = without_external(manifest, registry, all_requests);
    named_ports(registry, &allocate::pass(manifest, registry, observation, applied, &others).allocations)
}

fn named_ports(registry: &Registry, allocations: &[Vec<Allocation>]) -> Vec<BTreeMap<String, u16>> {
    let named = |of: &Allocation| Some(registry.get(&of.kind)?.named_ports(of));
    allocations.iter().map(|held| held.iter().filter_map(named).flatten().collect()).collect()
}

/// Returns the requests of the kinds that are planned before external ones.
fn without_external<'m>(
    manifest: &Manifest,
    registry: &Registry,
    all_requests: &[Arc<SessionRequests<'m>>],
) -> Vec<Arc<SessionRequests<'m>>> {
    retained(all_requests, |wanted| !is_external(manifest, registry, wanted))
}

fn is_external(manifest: &Manifest, registry: &Registry, wanted: &EffectiveRequest<'_>) -> bool {
    registry.planned_by(manifest, wanted.kind).is_some_and(Planner::follows_other_kinds)
}

/// Returns the options of a request, rendered for one session.
fn rendered<'d>(
    requests: &'d [EffectiveRequest<'_>],
    wanted: &EffectiveRequest<'_>,
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
    let source = requests.iter().filter(|of| of.name == wanted.name).take(1);
    let source = source.flat_map(|of| of.options.all.iter());
    source
        .map(|(option, value)| {
            (option.clone(), map_strings(value, &|| wanted.location.key(option), &mut render))
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
fn retained<'m>(
    all_requests: &[Arc<SessionRequests<'m>>],
    keep: impl Fn(&EffectiveRequest<'m>) -> bool,
) -> Vec<Arc<SessionRequests<'m>>> {
    let mut known: HashMap<*const SessionRequests<'_>, Arc<SessionRequests<'m>>> = HashMap::new();
    let retained = |session_requests: &Arc<SessionRequests<'m>>| {
        let requests = session_requests.requests.iter().filter(|wanted| keep(wanted)).cloned().collect();
        Arc::new(SessionRequests { requests })
    };
    all_requests
        .iter()
        .map(|session_requests| {
            Arc::clone(
                known.entry(Arc::as_ptr(session_requests)).or_insert_with(|| retained(session_requests)),
            )
        })
        .collect()
}
