//! Second pass: renders the templates of every session.
//!
//! Rendering is parallel: the first pass has decided every name that a template can use.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::PathBuf;

use rayon::prelude::*;

use super::allocate::Allocated;
use super::conditions;
use super::contributions::{contributed, directory_of, name_variables};
use super::dedupe::too_much;
use super::requests;
use super::resolve_variables::{ROUNDS_MAX, Resolver};
use super::session_identity::Identity;
use super::template_files;
use super::template_scope::{ExternalValues, SessionScope, ShardHost, TemplateScopes};
use super::template_variables::MissingVariables;
use super::{Session, compose_prompt, discovery_file};
use crate::manifest::{Declaration, Diagnostic, Manifest, SessionText, rule};
use crate::provider::{Allocation, Context, Registry};
use crate::template::{Problem, Templates};

/// Renders every template and assembles the sessions. `hosts` is empty for a swarm on one host. Returns every diagnostic, including those of the allocations.
pub(super) fn render(
    manifest: &Manifest,
    registry: &Registry,
    allocated: Allocated,
    compiled: Compiled<'_>,
    hosts: Vec<ShardHost>,
) -> Result<Vec<Session>, Vec<Diagnostic>> {
    let Allocated { identities, allocations, unresolved, is_undecided, mut diagnostics } = allocated;
    let Compiled { templates, diagnostics: broken } = compiled;
    diagnostics.extend(broken);
    let external_values = if is_undecided { ExternalValues::Any } else { ExternalValues::Planned };
    let names = TemplateScopes::new(
        manifest,
        registry,
        &identities,
        allocations,
        &unresolved,
        external_values,
        hosts,
    );
    let renderer = TextRenderer { manifest, registry, templates: &templates, names: &names };
    let mut attempts: Vec<Attempt> =
        (0..manifest.sessions.len()).into_par_iter().map(|at| renderer.attempt(at)).collect();
    diagnostics.extend(renderer.complete(&mut attempts));
    let texts: Vec<SessionText<'_>> = attempts
        .into_iter()
        .zip(unresolved)
        .filter_map(|(attempt, unresolved)| {
            // Results that follow from a placeholder for an unknown value are meaningless.
            let has_unknown = unresolved || is_undecided || attempt.missing.has_failed;
            let is_reported =
                |diagnostic: &Diagnostic| !has_unknown || diagnostic.rule == rule::TEMPLATE_NAME;
            let has_failed = attempt.missing.has_failed;
            let text =
                attempt.text.map_err(|found| diagnostics.extend(found.into_iter().filter(is_reported)));
            text.ok().filter(|_| !has_failed)
        })
        .collect();
    if !templates.is_within_bounds() {
        diagnostics.push(too_much());
    }
    if !diagnostics.is_empty() || texts.len() < manifest.sessions.len() {
        return Err(diagnostics);
    }
    let assembler = SessionAssembler { manifest, registry, children: children(manifest) };
    let parts = identities.into_par_iter().zip(names.into_allocations()).zip(texts);
    let sessions = parts
        .enumerate()
        .map(|(at, ((identity, allocations), text))| assembler.session(at, identity, allocations, text));
    Ok(sessions.collect())
}

/// Renders the templates of sessions.
struct TextRenderer<'r, 'm> {
    manifest: &'m Manifest,
    registry: &'r Registry,
    templates: &'r Templates<'m>,
    names: &'r TemplateScopes,
}

/// Text of a session, and the variables of sessions that were missing.
struct Attempt {
    text: Result<SessionText<'static>, Vec<Diagnostic>>,
    missing: MissingVariables,
}

impl<'m> TextRenderer<'_, 'm> {
    /// Renders the templates of one session.
    fn attempt(&self, at: usize) -> Attempt {
        let scope = self.names.scope(at);
        let session = &self.manifest.sessions[at];
        let text = self.text(session.declaration.as_ref(), at, &scope).map_err(|mut diagnostics| {
            // A table that many sessions have text from does not say which of them is wrong.
            let own = &session.declaration.location.steps;
            for diagnostic in diagnostics.iter_mut().filter(|it| !it.location.steps.starts_with(own)) {
                diagnostic.message = format!("session `{}`: {}", session.path, diagnostic.message);
            }
            diagnostics
        });
        Attempt { text, missing: scope.missing.take() }
    }

    fn text(
        &self,
        declaration: &'m Declaration,
        at: usize,
        scope: &SessionScope,
    ) -> Result<SessionText<'static>, Vec<Diagnostic>> {
        let render = |source: &str| self.templates.render(source, &scope.names);
        let rendered = requests::render(declaration, render);
        let (ports, unmet) = conditions::ports(declaration, self.names.allocations(at), self.registry);
        if !unmet.is_empty() {
            return Err([rendered.err().unwrap_or_default(), unmet].concat());
        }
        let mut text = rendered?;
        text.ready.to_mut().iter_mut().zip(ports).for_each(|(condition, port)| condition.set_port(port));
        if declaration.text.command.is_some() {
            let of_resources = contributed(self.names.allocations(at), self.registry).prompt_sections;
            let sections = of_resources.iter().chain(text.prompt.iter()).map(String::as_str);
            let prompt = compose_prompt(sections, "");
            let names = self.names.scope_with_prompt(at, prompt.trim_end(), &scope.missing);
            let render = |source: &str| self.templates.render(source, &names);
            text.command = requests::render_command(declaration, render)?.map(Cow::Owned);
        }
        Ok(text)
    }

    /// Renders again the sessions that use variables of sessions, after these variables; returns the diagnostics of
    /// circles.
    fn complete(&self, attempts: &mut [Attempt]) -> Vec<Diagnostic> {
        let mut resolver = Resolver::new(self.manifest, self.templates, self.names);
        for (at, attempt) in attempts.iter_mut().enumerate() {
            for _ in 0..ROUNDS_MAX {
                if attempt.missing.unrendered.is_empty() {
                    break;
                }
                for variable in std::mem::take(&mut attempt.missing.unrendered) {
                    resolver.resolve(variable);
                }
                *attempt = self.attempt(at);
            }
            if !attempt.missing.unrendered.is_empty() {
                let location = &self.manifest.sessions[at].declaration.location;
                attempt.text = Err(vec![Problem::endless().at(location)]);
            }
        }
        resolver.diagnostics
    }
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
            let locate = |key, entry| declaration.locate(key, entry);
            declaration.text.visit(&locate, &mut |source, location| {
                let problems = templates.add(source).err().into_iter().flatten();
                diagnostics
                    .extend(problems.map(|problem| template_files::diagnostic(problem, &location(), source)));
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
        let Context { mut env, mut prompt_sections, mut metadata, working_directory, .. } =
            contributed(&allocations, self.registry);
        let chosen = self.manifest.sessions[at].declaration.directory.clone();
        let directory = match &chosen {
            Some(name) => directory_of(&allocations, name, self.registry),
            None => working_directory,
        };
        env.extend(name_variables(&identity.id, identity.index, identity.replica, &identity.slug));
        env.extend(text.env.into_owned());
        prompt_sections.extend(text.prompt.into_owned());
        metadata.extend(text.metadata.into_owned());
        let files = text.files.into_owned();
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
            directory: chosen,
            expires: session.declaration.expires.clone(),
            allocations,
            env,
            prompt_sections,
            metadata,
            files,
            setup: text.setup.into_owned(),
            ready: text.ready.into_owned(),
            teardown: text.teardown.into_owned(),
            command: text.command.map(Cow::into_owned),
            spawned: session.spawned.as_deref().cloned(),
        }
    }
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
