//! Requests of each session table, with defaults and the parent's options applied.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use crate::manifest::{Declaration, Diagnostic, From, Location, Manifest, Options, SessionText};
use crate::provider::Registry;
use crate::template::Problem;

/// Requests of one session; shared by the replicas of a table.
pub(super) struct Demand<'m> {
    pub(super) wishes: Vec<Wish<'m>>,
}

impl Demand<'_> {
    /// Returns the position of the request for this kind.
    pub(super) fn position(&self, kind: &str) -> Option<usize> {
        self.wishes.iter().position(|wish| wish.kind == kind)
    }
}

/// One requested resource.
#[derive(Clone)]
pub(super) struct Wish<'m> {
    pub(super) kind: &'m str,
    /// `true` if the request is for a share of the parent's allocation.
    pub(super) shared: bool,
    pub(super) options: Arc<InForce>,
    /// Options of the request itself.
    pub(super) own: &'m Options,
    pub(super) location: &'m Location,
}

/// Options of an inherited request, which no table declares.
static NOTHING: LazyLock<Options> = LazyLock::new(Options::new);

/// Effective options of a request; shared by all requests with equal options.
pub(super) struct InForce {
    /// All options.
    pub(super) all: Arc<Options>,
    /// Options that differ from the kind's own defaults.
    pub(super) said: Options,
}

/// Requests of all sessions of a manifest.
pub(super) struct Demands<'m> {
    /// Requests of each session, in the manifest's order.
    pub(super) each: Vec<Arc<Demand<'m>>>,
    /// All distinct effective options with their kind, in no order.
    pub(super) options: Vec<(&'m str, Arc<InForce>)>,
}

/// Computes the requests of each session.
pub(super) fn demands<'m>(manifest: &'m Manifest, registry: &'m Registry) -> Demands<'m> {
    let mut demander = Demander { manifest, registry, in_force: HashMap::new() };
    let sessions = manifest.sessions.len();
    let mut known: HashMap<*const Declaration, Arc<Demand<'m>>> = HashMap::with_capacity(sessions);
    let mut demands: Vec<Arc<Demand<'m>>> = Vec::with_capacity(sessions);
    for session in &manifest.sessions {
        let key = std::ptr::from_ref(session.declaration.as_ref());
        let parent = session.parent.map(|parent| Arc::clone(&demands[parent]));
        let demand = known
            .entry(key)
            .or_insert_with(|| Arc::new(demander.demand(&session.declaration, parent.as_deref())));
        demands.push(Arc::clone(demand));
    }
    let options = demander.in_force.into_iter().map(|((kind, ..), options)| (kind, options)).collect();
    Demands { each: demands, options }
}

struct Demander<'m> {
    manifest: &'m Manifest,
    registry: &'m Registry,
    /// Effective options by kind, by the request's own options, and by the parent's options, which are shared as well.
    in_force: HashMap<(&'m str, &'m Options, Option<*const InForce>), Arc<InForce>>,
}

impl<'m> Demander<'m> {
    fn demand(&mut self, declaration: &'m Declaration, parent: Option<&Demand<'m>>) -> Demand<'m> {
        let of_parent =
            |kind: &str| parent.and_then(|parent| parent.wishes.iter().find(|wish| wish.kind == kind));
        let wishes = match (&declaration.resources, parent) {
            (Some(requests), _) => requests
                .iter()
                .map(|request| {
                    let above = of_parent(&request.kind).filter(|_| request.from == From::Parent);
                    self.wish(&request.kind, above, &request.options, &request.location)
                })
                .collect(),
            (None, Some(parent)) => parent
                .wishes
                .iter()
                .map(|above| self.wish(above.kind, Some(above), &NOTHING, &declaration.location))
                .collect(),
            (None, None) => Vec::new(),
        };
        Demand { wishes }
    }

    fn wish(
        &mut self,
        kind: &'m str,
        above: Option<&Wish<'m>>,
        own: &'m Options,
        location: &'m Location,
    ) -> Wish<'m> {
        let key = (kind, own, above.map(|above| Arc::as_ptr(&above.options)));
        let (manifest, registry) = (self.manifest, self.registry);
        let options = self
            .in_force
            .entry(key)
            .or_insert_with(|| Arc::new(in_force(manifest, registry, kind, above, own)));
        Wish { kind, shared: above.is_some(), options: Arc::clone(options), own, location }
    }
}

fn in_force(
    manifest: &Manifest,
    registry: &Registry,
    kind: &str,
    above: Option<&Wish<'_>>,
    own: &Options,
) -> InForce {
    let Some(provider) = registry.get(kind) else {
        return InForce { all: Arc::new(own.clone()), said: own.clone() };
    };
    let none = Options::new();
    let defaults = manifest.defaults.get(kind).unwrap_or(&none);
    let all = provider.options(own, above.map(|wish| &*wish.options.all), defaults);
    let of_the_kind = provider.options(&none, None, &none);
    let said = all.iter().filter(|(key, value)| of_the_kind.get(*key) != Some(*value));
    let said = said.map(|(key, value)| (key.clone(), value.clone())).collect();
    InForce { all: Arc::new(all), said }
}

/// Renders every template of a session table; returns every diagnostic, not only the first.
pub(super) fn render(
    declaration: &Declaration,
    render: impl Fn(&str) -> Result<String, Vec<Problem>>,
) -> Result<SessionText<'static>, Vec<Diagnostic>> {
    let mut diagnostics = Vec::new();
    let text = declaration.text.map(&|| declaration.location.clone(), &mut |source, location| {
        render(source).unwrap_or_else(|problems| {
            diagnostics.extend(problems.into_iter().map(|problem| problem.at(&location())));
            String::new()
        })
    });
    if diagnostics.is_empty() { Ok(text) } else { Err(diagnostics) }
}
