//! Requests of each session table, with defaults and the parent's options applied.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use super::template_files;
use crate::manifest::{
    CommandLine, Declaration, Diagnostic, From, Locate, Location, Manifest, Options, Replace, SessionText,
};
use crate::provider::{Registry, ResourceOptions};
use crate::template::Problem;

/// Requests of one session; shared by the replicas of a table.
pub(super) struct SessionRequests<'m> {
    pub(super) requests: Vec<EffectiveRequest<'m>>,
}

impl<'m> SessionRequests<'m> {
    /// Returns the position of the request for the resource of this name.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.requests.iter().position(|wanted| wanted.name == name)
    }

    /// Returns the request for the resource of this name and kind.
    pub(super) fn find(&self, name: &str, kind: &str) -> Option<&EffectiveRequest<'m>> {
        self.requests.iter().find(|wanted| wanted.name == name && wanted.kind == kind)
    }
}

/// One requested resource.
#[derive(Clone)]
pub(super) struct EffectiveRequest<'m> {
    pub(super) kind: &'m str,
    /// Name of the resource, unique in its session.
    pub(super) name: &'m str,
    /// `true` if the request is for a share of the parent's allocation.
    pub(super) shared: bool,
    /// `true` if the session requests several resources of the kind.
    pub(super) several: bool,
    pub(super) options: Arc<EffectiveOptions>,
    /// Options of the request itself.
    pub(super) own: &'m Options,
    pub(super) location: &'m Location,
}

impl EffectiveRequest<'_> {
    /// Returns the name and the options of the requested resource.
    fn resource(&self) -> ResourceOptions<'_> {
        ResourceOptions { name: self.name, options: &self.options.all, shared: self.shared }
    }
}

/// Options of an inherited request, which no table declares.
static NOTHING: LazyLock<Options> = LazyLock::new(Options::new);

/// Effective options of a request; shared by all requests with equal options.
pub(super) struct EffectiveOptions {
    /// All options.
    pub(super) all: Arc<Options>,
    /// Options that differ from the kind's own defaults.
    pub(super) explicit: Options,
}

/// Requests of all sessions of a manifest.
pub(super) struct AllRequests<'m> {
    /// Requests of each session, in the manifest's order.
    pub(super) each: Vec<Arc<SessionRequests<'m>>>,
    /// All distinct effective options with their kind, in no order.
    pub(super) options: Vec<(&'m str, Arc<EffectiveOptions>)>,
}

/// Computes the requests of each session.
pub(super) fn all_requests<'m>(manifest: &'m Manifest, registry: &'m Registry) -> AllRequests<'m> {
    let mut resolver = RequestResolver { manifest, registry, effective: HashMap::new(), implied: Vec::new() };
    let sessions = manifest.sessions.len();
    let mut known: HashMap<*const Declaration, Arc<SessionRequests<'m>>> = HashMap::with_capacity(sessions);
    let mut all_requests: Vec<Arc<SessionRequests<'m>>> = Vec::with_capacity(sessions);
    for session in &manifest.sessions {
        let key = std::ptr::from_ref(session.declaration.as_ref());
        let parent = session.parent.map(|parent| Arc::clone(&all_requests[parent]));
        let session_requests = known
            .entry(key)
            .or_insert_with(|| Arc::new(resolver.session_requests(&session.declaration, parent.as_deref())));
        all_requests.push(Arc::clone(session_requests));
    }
    let effective = resolver.effective.into_iter().map(|((kind, ..), options)| (kind, options));
    AllRequests { each: all_requests, options: effective.chain(resolver.implied).collect() }
}

struct RequestResolver<'m> {
    manifest: &'m Manifest,
    registry: &'m Registry,
    /// Effective options by kind, by the request's own options, and by the parent's options, which are shared as well.
    effective: HashMap<(&'m str, &'m Options, Option<*const EffectiveOptions>), Arc<EffectiveOptions>>,
    /// Options of implied requests, with their kind.
    implied: Vec<(&'m str, Arc<EffectiveOptions>)>,
}

/// Returns the kinds and options of the requests that follow from the requests of a session, each given with its kind.
pub(super) fn implied<'r>(
    registry: &Registry,
    resources: impl Iterator<Item = (&'r str, ResourceOptions<'r>)>,
) -> Vec<(&'static str, Options)> {
    let mut by_kind: BTreeMap<&str, Vec<ResourceOptions<'_>>> = BTreeMap::new();
    for (kind, resource) in resources {
        by_kind.entry(kind).or_default().push(resource);
    }
    let several = by_kind.iter().filter(|(_, resources)| resources.len() > 1);
    several.filter_map(|(kind, resources)| registry.get(kind)?.enclosure(resources)).collect()
}

impl<'m> RequestResolver<'m> {
    fn session_requests(
        &mut self,
        declaration: &'m Declaration,
        parent: Option<&SessionRequests<'m>>,
    ) -> SessionRequests<'m> {
        let requests = match (&declaration.resources, parent) {
            (Some(requests), _) => requests
                .iter()
                .map(|request| {
                    let parent = parent.filter(|_| request.from == From::Parent);
                    let above = parent.and_then(|parent| parent.find(request.name(), &request.kind));
                    let (kind, name) = (&request.kind, request.name());
                    self.wanted(kind, name, above, &request.options, &request.location)
                })
                .collect(),
            (None, Some(parent)) => parent
                .requests
                .iter()
                .filter(|above| !self.registry.is_implied(above.kind))
                .collect::<Vec<_>>()
                .into_iter()
                .map(|above| {
                    self.wanted(above.kind, above.name, Some(above), &NOTHING, &declaration.location)
                })
                .collect(),
            (None, None) => Vec::new(),
        };
        self.with_implied(requests, &declaration.location)
    }

    /// Returns the requests of a session with those that follow from them, which come first.
    fn with_implied(
        &mut self,
        mut requests: Vec<EffectiveRequest<'m>>,
        location: &'m Location,
    ) -> SessionRequests<'m> {
        let of_kind = |kind: &str| requests.iter().filter(|wanted| wanted.kind == kind).count();
        let several: Vec<bool> = requests.iter().map(|wanted| of_kind(wanted.kind) > 1).collect();
        for (wanted, several) in requests.iter_mut().zip(several) {
            wanted.several = several;
        }
        let resources = requests.iter().map(|wanted| (wanted.kind, wanted.resource()));
        let implied = implied(self.registry, resources).into_iter().map(|(kind, options)| {
            let options = EffectiveOptions { all: Arc::new(options.clone()), explicit: options };
            let (options, own) = (Arc::new(options), &*NOTHING);
            self.implied.push((kind, Arc::clone(&options)));
            EffectiveRequest { kind, name: kind, shared: false, several: false, options, own, location }
        });
        let implied: Vec<_> = implied.collect();
        SessionRequests { requests: implied.into_iter().chain(requests).collect() }
    }

    fn wanted(
        &mut self,
        kind: &'m str,
        name: &'m str,
        above: Option<&EffectiveRequest<'m>>,
        own: &'m Options,
        location: &'m Location,
    ) -> EffectiveRequest<'m> {
        let key = (kind, own, above.map(|above| Arc::as_ptr(&above.options)));
        let (manifest, registry) = (self.manifest, self.registry);
        let options = self
            .effective
            .entry(key)
            .or_insert_with(|| Arc::new(effective(manifest, registry, kind, above, own)));
        let (shared, options) = (above.is_some(), Arc::clone(options));
        EffectiveRequest { kind, name, shared, several: false, options, own, location }
    }
}

fn effective(
    manifest: &Manifest,
    registry: &Registry,
    kind: &str,
    above: Option<&EffectiveRequest<'_>>,
    own: &Options,
) -> EffectiveOptions {
    let Some(provider) = registry.get(kind) else {
        return EffectiveOptions { all: Arc::new(own.clone()), explicit: own.clone() };
    };
    let none = Options::new();
    let defaults = manifest.defaults.get(kind).unwrap_or(&none);
    let all = provider.options(own, above.map(|wanted| &*wanted.options.all), defaults);
    let of_the_kind = provider.options(&none, None, &none);
    let explicit = all.iter().filter(|(key, value)| of_the_kind.get(*key) != Some(*value));
    let explicit = explicit.map(|(key, value)| (key.clone(), value.clone())).collect();
    EffectiveOptions { all: Arc::new(all), explicit }
}

/// Renders every template of a session table except its command; returns every diagnostic, not only the first.
pub(super) fn render(
    declaration: &Declaration,
    render: impl Fn(&str) -> Result<String, Vec<Problem>>,
) -> Result<SessionText<'static>, Vec<Diagnostic>> {
    rendered(declaration, render, |locate, replace| declaration.text.map(locate, replace))
}

/// Renders the command of a session table; returns every diagnostic, not only the first.
pub(super) fn render_command(
    declaration: &Declaration,
    render: impl Fn(&str) -> Result<String, Vec<Problem>>,
) -> Result<Option<CommandLine>, Vec<Diagnostic>> {
    rendered(declaration, render, |locate, replace| declaration.text.map_command(locate, replace))
}

fn rendered<'d, T>(
    declaration: &'d Declaration,
    render: impl Fn(&str) -> Result<String, Vec<Problem>>,
    map: impl FnOnce(&Locate<'_>, &mut Replace<'_, 'd>) -> T,
) -> Result<T, Vec<Diagnostic>> {
    let mut diagnostics = Vec::new();
    let text = map(&|key, entry| declaration.locate(key, entry), &mut |source, location| {
        render(source).unwrap_or_else(|problems| {
            let problems = problems.into_iter();
            diagnostics
                .extend(problems.map(|problem| template_files::diagnostic(problem, &location(), source)));
            String::new()
        })
    });
    if diagnostics.is_empty() { Ok(text) } else { Err(diagnostics) }
}
