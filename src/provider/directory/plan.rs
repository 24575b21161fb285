//! Plans directories. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use serde_json::{Map, Value};

use super::{Directory, KIND, Options, PathSet};
use crate::host::absolute;
use crate::manifest::{Diagnostic, Diagnostics, Location, rule};
use crate::observe::{self, Observation};
use crate::provider::placeholders::absolute_path;
use crate::provider::{
    Allocation, Allocator, Context, OptionsCache, Parent, Planned, Request, allocation_fields, check_root,
    is_in_git_directory,
};

/// Allocator of one plan.
pub(super) struct Allocations<'o> {
    observation: &'o Observation,
    options: OptionsCache<Options>,
    free: FreePaths<'o>,
}

/// Paths at which directories can be created.
pub(super) struct FreePaths<'o> {
    observation: &'o Observation,
    /// Directories that are released before any new one is created.
    released: BTreeSet<PathBuf>,
}

impl<'o> FreePaths<'o> {
    pub(super) fn new(observation: &'o Observation) -> Self {
        Self { observation, released: BTreeSet::new() }
    }

    /// Marks a directory as released.
    pub(super) fn vacate(&mut self, directory: &Path) {
        self.released.insert(directory.to_owned());
    }

    /// Refuses a directory at a path at which something exists.
    pub(super) fn check(&self, directory: &Directory, location: &Location) -> Result<(), Diagnostic> {
        if self.released.contains(&directory.directory_path) || !exists(directory, self.observation) {
            return Ok(());
        }
        let message = format!("`{}` exists and is not this swarm's", directory.directory_path.display());
        let diagnostic = Diagnostic::new(
            rule::PATH_EXISTS,
            location.key("root-directory"),
            message,
            "would be created there",
        );
        Err(diagnostic.with_help("move it away, or name another `root-directory`"))
    }
}

impl<'o> Allocations<'o> {
    pub(super) fn new(observation: &'o Observation) -> Self {
        Self { observation, options: OptionsCache::default(), free: FreePaths::new(observation) }
    }

    fn options(&mut self, request: &Request<'_>) -> Result<Rc<Options>, Diagnostics> {
        self.options.read(request.options).map_err(|error| {
            let message = format!("the options of `{KIND}` cannot be read: {error}");
            Diagnostic::new(rule::BROKEN_KIND, request.location.clone(), message, "here").into()
        })
    }

    fn check_source(&self, options: &Options, location: &Location) -> Result<(), Diagnostic> {
        let Some(from) = &options.copy_from else { return Ok(()) };
        let refused = |message: String, label: &str, help: &str| {
            let diagnostic =
                Diagnostic::new(rule::COPIED_DIRECTORY, location.key("copy-from"), message, label);
            Err(diagnostic.with_help(help))
        };
        let shown = from.display();
        if !is_below(from) {
            let message = format!("`{shown}` is not a path below the workspace");
            return refused(message, "leads elsewhere", "name a directory of the workspace: `fixtures/data`");
        }
        let workspace = &self.observation.workspace;
        if absolute(workspace, &options.root_directory).starts_with(absolute(workspace, from)) {
            let message = format!("`{shown}` contains the directory that its copies are created in");
            return refused(message, "would be copied into itself", "name a directory beside it");
        }
        match self.observation.directories.get(from) {
            Some(observe::Directory::Listed(_)) | None => Ok(()),
            Some(observe::Directory::Missing) => {
                let message = format!("the workspace has no directory `{shown}` to copy");
                refused(message, "does not exist", "create it, or remove this option")
            }
            Some(observe::Directory::Link(component) | observe::Directory::NotADirectory(component)) => {
                let message = format!("`{}` is not a directory", component.display());
                refused(message, "leads there", "name a directory of the workspace")
            }
            Some(observe::Directory::Unreadable(why)) => refused(
                format!("`{shown}` cannot be read: {why}"),
                "here",
                "permit it, or remove this option",
            ),
        }
    }
}

impl Allocator for Allocations<'_> {
    fn vacate(&mut self, directory: &Path) {
        self.free.vacate(directory);
    }

    fn update(
        &mut self,
        request: &Request<'_>,
        _allocation: &Allocation,
    ) -> Option<Result<Map<String, Value>, Diagnostics>> {
        let options = self.options(request).ok()?;
        Some(Ok(allocation_fields(&planned(&options, request.scoped_name, request.resource))))
    }

    fn allocate(&mut self, request: &Request<'_>) -> Result<Planned, Diagnostics> {
        let options = self.options(request)?;
        let directory = planned(&options, request.scoped_name, request.resource);
        let location = request.location;
        let root = check_root(
            self.observation,
            &directory.directory_root,
            location,
            ("directories", ".ai_ops/directories"),
        );
        let free = root.is_ok().then(|| self.free.check(&directory, location));
        let checks = [Some(root), free, Some(self.check_source(&options, location))];
        let diagnostics: Vec<Diagnostic> = checks.into_iter().flatten().filter_map(Result::err).collect();
        if !diagnostics.is_empty() {
            return Err(diagnostics.into());
        }
        Ok(Planned { allocation: allocation_fields(&directory), ..Planned::default() })
    }

    /// Plans a share as a directory of the child's own, beside the parent's.
    fn sub_allocate(&mut self, request: &Request<'_>, _parent: &Parent<'_>) -> Result<Planned, Diagnostics> {
        self.allocate(request)
    }
}

/// Returns the directory that is planned with these options for the resource `name` of a session of this scoped name.
pub(super) fn planned(options: &Options, scoped_name: &str, name: &str) -> Directory {
    // A scoped name has no dot: no two resources have the same directory.
    let file_name = if name == KIND { scoped_name.to_owned() } else { format!("{scoped_name}.{name}") };
    Directory {
        directory_root: options.root_directory.clone(),
        directory_path: options.root_directory.join(file_name),
        copy_from: options.copy_from.clone(),
        keep: options.keep,
        contains: Vec::new(),
    }
}

/// Returns whether a path leads to a directory below the workspace, by plain names, and into no git directory.
pub(super) fn is_below(path: &Path) -> bool {
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    path.components().all(is_plain)
        && path.components().any(|part| part != Component::CurDir)
        && !is_in_git_directory(path)
}

/// Returns whether the name of the directory was observed in its root directory.
fn exists(directory: &Directory, observation: &Observation) -> bool {
    let name = directory.directory_path.file_name().unwrap_or_default().to_string_lossy();
    let found = observation.directories.get(&directory.directory_root);
    matches!(found, Some(observe::Directory::Listed(names)) if names.contains(&*name))
}

/// Returns the reasons why a planned directory can no longer be created.
pub(super) fn stale(directory: &Directory, released: &PathSet, observation: &Observation) -> Vec<String> {
    let mut stale = Vec::new();
    if !released.contains(&directory.directory_path) && exists(directory, observation) {
        stale.push(format!("`{}` exists", directory.directory_path.display()));
    }
    let from = directory.copy_from.as_ref().map(|from| (from, observation.directories.get(from)));
    if let Some((from, Some(found))) = from
        && !matches!(found, observe::Directory::Listed(_))
    {
        stale.push(format!("the workspace has no directory `{}` any more", from.display()));
    }
    stale
}

/// Returns the contribution of a directory to its session.
pub(super) fn context(directory: &Directory) -> Context {
    let path = absolute_path(&directory.directory_path);
    Context {
        env: BTreeMap::from([("AGENT_DIRECTORY_PATH".to_owned(), path.clone())]),
        prompt_sections: vec![format!("Scratch directory: {path}")],
        metadata: Map::from_iter([("directory_path".to_owned(), Value::from(path))]),
        ..Context::default()
    }
}
