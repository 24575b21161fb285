//! Second pass: renders the templates of every session.
//!
//! Rendering is parallel: the first pass has decided every name that a template can use.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::PathBuf;

use rayon::prelude::*;

use super::allocate::Allocated;
use super::dedupe::too_much;
use super::requests;
use super::session_identity::Identity;
use super::template_scope::TemplateScopes;
use super::{Session, compose_prompt, discovery_file};
use crate::manifest::{Diagnostic, Manifest, SessionText, rule};
use crate::name::Slug;
use crate::provider::{Allocation, Context, Registry, placeholders};
use crate::template::Templates;

/// Renders every template and assembles the sessions; returns every diagnostic, including those of the allocations.
pub(super) fn render(
    manifest: &Manifest,
    registry: &Registry,
    allocated: Allocated,
    compiled: Compiled<'_>,
) -> Result<Vec<Session>, Vec<Diagnostic>> {
    let Allocated { identities, allocations, unresolved, mut diagnostics } = allocated;
    let Compiled { templates, diagnostics: broken } = compiled;
    diagnostics.extend(broken);
    let names = TemplateScopes::new(manifest, registry, &identities, allocations, &unresolved);
    let rendered: Vec<Result<SessionText<'_>, Vec<Diagnostic>>> = manifest
        .sessions
        .par_iter()
        .enumerate()
        .map(|(at, session)| {
            let scope = names.scope(at);
            let declaration = session.declaration.as_ref();
            let mut text = requests::render(declaration, |source| templates.render(source, &scope))?;
            if declaration.text.command.is_some() {
                let of_resources = contributed(names.allocations(at), registry).prompt_sections;
                let sections = of_resources.iter().chain(text.prompt.iter()).map(String::as_str);
                let scope = names.scope_with_prompt(at, compose_prompt(sections, "").trim_end());
                let command =
                    requests::render_command(declaration, |source| templates.render(source, &scope))?;
                text.command = command.map(Cow::Owned);
            }
            Ok(text)
        })
        .collect();
    let rendered: Vec<SessionText<'_>> = rendered
        .into_iter()
        .zip(unresolved)
        .filter_map(|(rendered, unresolved)| {
            // Results that follow from a placeholder for an unknown value are meaningless.
            let is_told = |diagnostic: &Diagnostic| !unresolved || diagnostic.rule == rule::TEMPLATE_NAME;
            rendered.map_err(|found| diagnostics.extend(found.into_iter().filter(is_told))).ok()
        })
        .collect();
    if !templates.is_within_bounds() {
        diagnostics.push(too_much());
    }
    if !diagnostics.is_empty() || rendered.len() < manifest.sessions.len() {
        return Err(diagnostics);
    }
    let assembler = SessionAssembler { manifest, registry, children: children(manifest) };
    let parts = identities.into_par_iter().zip(names.into_allocations()).zip(rendered);
    let sessions = parts
        .enumerate()
        .map(|(at, ((identity, allocations), text))| assembler.session(at, identity, allocations, text));
    Ok(sessions.collect())
}

/// Templates of a manifest, and the diagnostics of those that cannot be compiled.
#[derive(Default)]
pub(super) struct Compiled<'m> {
    templates: Templates<'m>,
    diagnostics: Vec<Diagnostic>,
}

/// Compiles the templates of each session table once, independent of the number of its sessions.
pub(super) fn compile(manifest: &Manifest) -> Compiled<'_> {
    let mut templates = Templates::default();
    let mut diagnostics = Vec::new();
    let mut seen = HashSet::new();
    for session in &manifest.sessions {
        let declaration = session.declaration.as_ref();
        if seen.insert(std::ptr::from_ref(declaration)) {
            declaration.text.visit(&|| declaration.location.clone(), &mut |source, location| {
                let problems = templates.add(source).err().into_iter().flatten();
                diagnostics.extend(problems.map(|problem| problem.at(&location())));
            });
        }
    }
    Compiled { templates, diagnostics }
}

/// Shared data for assembling sessions.
struct SessionAssembler<'m> {
    manifest: &'m Manifest,
    registry: &'m Registry,
    children: Vec<Vec<usize>>,
}

impl SessionAssembler<'_> {
    fn session(
        &self,
        at: usize,
        identity: Identity,
        allocations: Vec<Allocation>,
        text: SessionText<'_>,
    ) -> Session {
        let Context { mut env, mut prompt_sections, mut metadata, working_directory: directory, .. } =
            contributed(&allocations, self.registry);
        env.extend(named(&identity.id, identity.index, identity.replica, &identity.slug));
        env.extend(text.env.into_owned());
        prompt_sections.extend(text.prompt.into_owned());
        metadata.extend(text.metadata.into_owned());
        let session = &self.manifest.sessions[at];
        let path = |at: usize| self.manifest.sessions[at].path.clone();
        Session {
            id: identity.id,
            path: session.path.clone(),
            scoped_name: identity.scoped_name,
            index: identity.index,
            replica: identity.replica,
            slug: identity.slug,
            parent: session.parent.map(path),
            children: self.children[at].iter().copied().map(path).collect(),
            discovery_file: directory.as_deref().map(discovery_file),
            working_directory: directory.unwrap_or_else(|| PathBuf::from(".")),
            allocations,
            env,
            prompt_sections,
            metadata,
            setup: text.setup.into_owned(),
            teardown: text.teardown.into_owned(),
            command: text.command.map(Cow::into_owned),
        }
    }
}

/// Returns the data that a session receives from its allocations and its names.
pub(super) fn given(session: &Session, registry: &Registry) -> Context {
    let mut given = contributed(&session.allocations, registry);
    given.env.extend(named(&session.id, session.index, session.replica, &session.slug));
    given
}

/// Returns the data that all allocations of a session contribute, each overriding those before it.
fn contributed(allocations: &[Allocation], registry: &Registry) -> Context {
    let mut all = Context::default();
    for (at, held) in allocations.iter().enumerate() {
        let Some(provider) = registry.get(&held.kind) else { continue };
        let is_first = allocations[..at].iter().all(|earlier| earlier.kind != held.kind);
        let context = provider.context(held).for_resource(&held.kind, held.name(), is_first);
        all.env.extend(context.env);
        all.prompt_sections.extend(context.prompt_sections);
        all.metadata.extend(context.metadata);
        all.working_directory = context.working_directory.or(all.working_directory);
    }
    all
}

/// Returns the variables that name a session.
fn named(id: &str, index: u32, replica: Option<u32>, slug: &Slug) -> [(String, String); 5] {
    [
        ("AGENT_SESSION_ID", id.to_owned()),
        ("AGENT_SESSION_INDEX", index.to_string()),
        ("AGENT_SESSION_REPLICA", replica.unwrap_or(0).to_string()),
        ("AGENT_SESSION_SLUG", slug.as_str().to_owned()),
        ("AGENT_SESSION_HASH", placeholders::session_hash_placeholder(id)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
}

fn children(manifest: &Manifest) -> Vec<Vec<usize>> {
    let mut children = vec![Vec::new(); manifest.sessions.len()];
    for (at, session) in manifest.sessions.iter().enumerate() {
        if let Some(parent) = session.parent {
            children[parent].push(at);
        }
    }
    children
}
