//! Provides the `existing-directory` kind: a directory that another tool has made and removes, such as a worktree, in
//! which a session works.
//!
//! seedbed creates and removes nothing of it. A run only writes the session's discovery file into it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, schema_for};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::placeholders::absolute_path;
use super::{
    Allocation, Allocator, Condition, Context, DISCOVERY_DIRECTORY, DISCOVERY_FILE, Error, IGNORE,
    IGNORE_HEAD, IGNORE_MAX, Parent, PathSet, Planned, Planner, Provider, Request, Scope, Task, UnsavedWork,
    allocation_fields, contains_workspace, is_in_git_directory,
};
use crate::host::files::Root;
use crate::host::{absolute, text::printable};
use crate::manifest::{Diagnostic, Diagnostics, Location, rule};
use crate::observe::{self, Observation, Query};

/// Name of the kind.
pub const KIND: &str = "existing-directory";

/// Options in a manifest.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(title = "an existing directory")]
struct Options {
    /// Path of the directory, relative to the workspace root.
    #[schemars(extend("examples" = [".claude/worktrees/feature"]))]
    path: PathBuf,
}

/// Allocation of `existing-directory`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct ExistingDirectory {
    /// Path of the directory.
    pub directory_path: PathBuf,
}

impl ExistingDirectory {
    /// Reads an allocation of this kind; `None` if planning did not make the allocation.
    pub fn from_allocation(allocation: &Allocation) -> Option<Self> {
        Self::deserialize(&allocation.allocation).ok()
    }
}

/// Provider of `existing-directory`.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "it has no state")]
pub struct ExistingDirectories;

impl Planner for ExistingDirectories {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn options_schema(&self) -> Schema {
        schema_for!(Options)
    }

    fn allocation_schema(&self, generator: &mut SchemaGenerator) -> Option<Schema> {
        Some(generator.subschema_for::<ExistingDirectory>())
    }

    fn queries(&self, options: &crate::manifest::Options) -> Vec<Query> {
        let options = Options::deserialize(options).ok();
        options.map(|options| Query::Directory { path: options.path }).into_iter().collect()
    }

    fn allocator<'o>(&'o self, observation: &'o Observation, _scope: &Scope<'_>) -> Box<dyn Allocator + 'o> {
        Box::new(Allocations { observation, used: BTreeMap::new() })
    }

    fn context(&self, allocation: &Allocation) -> Context {
        let Some(directory) = ExistingDirectory::from_allocation(allocation) else {
            return Context::default();
        };
        let path = absolute_path(&directory.directory_path);
        Context {
            prompt_sections: vec![format!("Working directory: {path}")],
            metadata: Map::from_iter([("existing_directory_path".to_owned(), Value::from(path.clone()))]),
            working_directory: Some(directory.directory_path),
            ..Context::default()
        }
        .with_env("AGENT_SESSION_DIRECTORY", path)
    }

    fn foreign_directory(&self, allocation: &Allocation) -> Option<PathBuf> {
        ExistingDirectory::from_allocation(allocation).map(|directory| directory.directory_path)
    }

    fn is_in_place(&self, allocation: &Allocation, _scoped_name: &str) -> bool {
        let options = Options::deserialize(&allocation.options).ok();
        let directory = ExistingDirectory::from_allocation(allocation);
        options.zip(directory).is_some_and(|(options, directory)| {
            directory.directory_path == options.path && !is_in_git_directory(&options.path)
        })
    }

    fn stale(
        &self,
        allocation: &Allocation,
        _replaced: Option<&Allocation>,
        _released: &PathSet,
        observation: &Observation,
    ) -> Vec<String> {
        let Some(directory) = ExistingDirectory::from_allocation(allocation) else { return Vec::new() };
        problem(observation, &directory.directory_path).into_iter().collect()
    }

    fn path_fields(&self) -> &'static [&'static str] {
        &["directoryPath"]
    }

    fn summary(&self, allocation: &Allocation, _is_new: bool) -> Option<String> {
        let directory = ExistingDirectory::from_allocation(allocation)?;
        Some(format!("{}  of another tool", directory.directory_path.display()))
    }
}

/// Allocator of one plan.
struct Allocations<'o> {
    observation: &'o Observation,
    /// Sessions by the directory that they work in.
    used: BTreeMap<PathBuf, String>,
}

impl Allocator for Allocations<'_> {
    fn keep(&mut self, session: &str, _parent: Option<&str>, allocation: &Allocation) {
        if let Some(directory) = ExistingDirectory::from_allocation(allocation) {
            self.used.insert(directory.directory_path, session.to_owned());
        }
    }

    fn allocate(&mut self, request: &Request<'_>) -> Result<Planned, Diagnostics> {
        let location = request.location.key("path");
        let options = Options::deserialize(&**request.options).map_err(|error| {
            let message = format!("the options of `{KIND}` cannot be read: {error}");
            vec![Diagnostic::new(rule::BROKEN_KIND, request.location.clone(), message, "here")]
        })?;
        let path = options.path;
        let refused = |message: String, label: &str, help: &str| -> Result<Planned, Diagnostics> {
            Err(vec![existing(&location, message, label).with_help(help)].into())
        };
        let shown = printable(&path.to_string_lossy());
        if contains_workspace(&self.observation.workspace, &path) || is_in_git_directory(&path) {
            let message = format!("`{shown}` is the workspace, contains it, or is in a Git directory");
            return refused(message, "is not a directory of a session", "name a worktree of another tool");
        }
        if request.is_instance {
            let message = format!("every `run` would work in `{shown}`, and two can run at once");
            let (label, help) = ("is only one directory", "run one at a time: `seedbed run --in-place`");
            return Err(
                vec![Diagnostic::new(rule::INSTANCE, location, message, label).with_help(help)].into()
            );
        }
        if let Some(message) = problem(self.observation, &path) {
            return refused(message, "cannot be used", "create the directory first, or name another");
        }
        if let Some(other) = self.used.insert(path.clone(), request.session.to_owned()) {
            let message = format!("`{other}` works in `{shown}` already");
            return refused(message, "would have two discovery files", "name another directory");
        }
        Ok(Planned::new(allocation_fields(&ExistingDirectory { directory_path: path })))
    }

    fn sub_allocate(&mut self, request: &Request<'_>, parent: &Parent<'_>) -> Result<Planned, Diagnostics> {
        let message =
            format!("`{}` works in a directory of another tool, which cannot be divided", parent.session);
        let diagnostic =
            Diagnostic::new(rule::INDIVISIBLE, request.location.clone(), message, "requests a share");
        Err(vec![diagnostic.with_help("request a `git-worktree` for the child")].into())
    }
}

fn existing(location: &Location, message: String, label: &str) -> Diagnostic {
    Diagnostic::new(rule::EXISTING_DIRECTORY, location.clone(), message, label)
}

/// Returns the reason for which no session can work in a directory, one line.
fn problem(observation: &Observation, path: &Path) -> Option<String> {
    let shown = printable(&path.to_string_lossy());
    match observation.directories.get(path) {
        Some(observe::Directory::Listed(_)) | None => None,
        Some(observe::Directory::Missing) => Some(format!("`{shown}` does not exist")),
        Some(observe::Directory::Link(component) | observe::Directory::NotADirectory(component)) => {
            Some(format!("`{}` is not a directory", printable(&component.to_string_lossy())))
        }
        Some(observe::Directory::Unreadable(why)) => Some(format!("`{shown}` cannot be read: {why}")),
    }
}

/// Returns the reason for which the directory of a task cannot be used; `None` if it can.
fn missing(task: &Task<'_>) -> Result<Option<String>, Error> {
    let directory = ExistingDirectory::from_allocation(task.allocation).ok_or_else(|| {
        Error::Refused(format!("the directory allocation of {} cannot be read", task.session))
    })?;
    let path = absolute(task.workspace, &directory.directory_path);
    let (root, below) = Root::toward(task.workspace, &path)?;
    Ok(match root.directory(&below)? {
        Some(_) => None,
        None => Some(format!(
            "{} does not exist; release the session (`seedbed release {}`), or create the directory again",
            path.display(),
            task.session.split_once('/').map_or(task.session, |(_, path)| path)
        )),
    })
}

/// Maximum length of a discovery file, in bytes: a thousand times that of a large one.
const DISCOVERY_MAX: usize = 64 << 20;

/// Returns whether a discovery file is of the session with this id.
fn is_of(content: &[u8], session: &str) -> bool {
    let document: Option<Value> = serde_json::from_slice(content).ok();
    document.is_some_and(|document| document["sessionId"] == session)
}

impl Provider for ExistingDirectories {
    fn provision(&self, task: &Task<'_>) -> Result<(), Error> {
        missing(task)?.map_or(Ok(()), |why| Err(Error::Refused(why)))
    }

    fn inspect(&self, task: &Task<'_>) -> Result<Condition, Error> {
        Ok(missing(task)?.map_or(Condition::Healthy, Condition::Absent))
    }

    fn unusable(&self, task: &Task<'_>) -> Result<Option<String>, Error> {
        missing(task)
    }

    /// Returns no work: nothing in the directory is removed.
    fn unsaved_work(&self, _task: &Task<'_>) -> Result<UnsavedWork, Error> {
        Ok(UnsavedWork::default())
    }

    /// Removes the discovery file of the session. Everything else in the directory belongs to another tool.
    fn release(&self, task: &Task<'_>) -> Result<(), Error> {
        let Some(directory) = ExistingDirectory::from_allocation(task.allocation) else { return Ok(()) };
        let path = absolute(task.workspace, &directory.directory_path).join(DISCOVERY_DIRECTORY);
        // The tool may have removed the directory, or put a link in its place.
        let Ok((root, below)) = Root::toward(task.workspace, &path) else { return Ok(()) };
        let Ok(Some(own)) = root.directory(&below) else { return Ok(()) };
        let (file, ignore) = (Path::new(DISCOVERY_FILE), Path::new(IGNORE));
        if let Some(content) = own.read(file, DISCOVERY_MAX)? {
            if !is_of(&content, task.session) {
                return Ok(());
            }
            own.remove_file(file)?;
        }
        let hides =
            own.read(ignore, IGNORE_MAX)?.is_some_and(|hides| hides.starts_with(IGNORE_HEAD.as_bytes()));
        if hides && own.names()?.iter().eq([IGNORE]) {
            own.remove_file(ignore)?;
            root.remove_directory(&below)?;
        }
        Ok(())
    }

    fn manual_cleanup(&self, _task: &Task<'_>) -> Vec<String> {
        Vec::new()
    }
}
