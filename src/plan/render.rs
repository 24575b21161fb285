//! The second pass: what every session is told.
//!
//! In parallel: by now every name that a template can say is known.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use rayon::prelude::*;
use serde_json::Map;

use super::allocate::Allocated;
use super::identity::Identity;
use super::names::Names;
use super::{Session, demand, discovery_file};
use crate::manifest::{Fault, Manifest, rule};
use crate::provider::{Allocation, Context, Registry};
use crate::template::Templates;

/// Renders every template and puts the sessions together; every fault, those of the allocations too, not only the first.
pub(super) fn render(
    manifest: &Manifest,
    registry: &Registry,
    allocated: Allocated,
) -> Result<Vec<Session>, Vec<Fault>> {
    let mut templates = Templates::default();
    let mut faults = allocated.faults;
    faults.extend(compile(manifest, &mut templates));
    let context = |allocation: &Allocation| Some(registry.get(&allocation.kind)?.context(allocation));
    let contexts: Vec<Vec<Context>> =
        allocated.allocations.par_iter().map(|held| held.iter().filter_map(context).collect()).collect();
    let pass = Pass {
        manifest,
        names: Names::new(manifest, &allocated.identities, &contexts, &allocated.open),
        children: children(manifest),
        templates,
    };
    let rendered: Vec<Result<Session, Vec<Fault>>> = allocated
        .identities
        .into_par_iter()
        .zip(allocated.allocations)
        .zip(contexts)
        .enumerate()
        .map(|(at, ((identity, allocations), contexts))| pass.session(at, identity, allocations, contexts))
        .collect();
    let mut sessions = Vec::with_capacity(rendered.len());
    for (session, open) in rendered.into_iter().zip(allocated.open) {
        match session {
            Ok(session) => sessions.push(session),
            // What comes of a name that stands for anything says nothing.
            Err(found) => {
                faults.extend(found.into_iter().filter(|fault| !open || fault.rule == rule::TEMPLATE_NAME));
            }
        }
    }
    if faults.is_empty() { Ok(sessions) } else { Err(faults) }
}

/// Compiles the templates of each session table once, however many sessions it stands for.
fn compile<'m>(manifest: &'m Manifest, templates: &mut Templates<'m>) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut seen = HashSet::new();
    for session in &manifest.sessions {
        let declaration = session.declaration.as_ref();
        if seen.insert(std::ptr::from_ref(declaration)) {
            demand::visit(declaration, &mut |source, place| {
                let problems = templates.add(source).err().into_iter().flatten();
                faults.extend(problems.map(|problem| problem.at(&place())));
            });
        }
    }
    faults
}

/// The pass over all sessions.
struct Pass<'m> {
    manifest: &'m Manifest,
    names: Names,
    children: Vec<Vec<usize>>,
    templates: Templates<'m>,
}

impl Pass<'_> {
    fn session(
        &self,
        at: usize,
        identity: Identity,
        allocations: Vec<Allocation>,
        contexts: Vec<Context>,
    ) -> Result<Session, Vec<Fault>> {
        let session = &self.manifest.sessions[at];
        let scope = self.names.scope(at);
        let own = demand::render(&session.declaration, |source| self.templates.render(source, &scope))?;
        let mut env = BTreeMap::new();
        let mut prompt_sections = Vec::new();
        let mut metadata = Map::new();
        let mut directory = None;
        for context in contexts {
            env.extend(context.env);
            prompt_sections.extend(context.prompt_sections);
            metadata.extend(context.metadata);
            directory = context.working_directory.or(directory);
        }
        env.insert("AGENT_SESSION_ID".to_owned(), identity.id.clone());
        env.insert("AGENT_SESSION_INDEX".to_owned(), identity.index.to_string());
        env.extend(own.env);
        prompt_sections.extend(own.prompt);
        metadata.extend(own.metadata);
        let path = |at: usize| self.manifest.sessions[at].path.clone();
        Ok(Session {
            id: identity.id,
            path: session.path.clone(),
            scoped_name: identity.scoped_name,
            index: identity.index,
            parent: session.parent.map(path),
            children: self.children[at].iter().copied().map(path).collect(),
            discovery_file: directory.as_deref().map(discovery_file),
            working_directory: directory.unwrap_or_else(|| PathBuf::from(".")),
            allocations,
            env,
            prompt_sections,
            metadata,
            setup: own.setup,
            teardown: own.teardown,
        })
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
