//! Provides the `session-directory` kind: the directory of a session that has several worktrees, which lie in it side
//! by side. Planning requests it; manifests cannot.
//!
//! It is a directory like those of the `directory` kind, with an ownership marker and a record of its files. The
//! resources in it are its session's too, and each answers for itself: they are set aside and released before it.

use std::path::{Path, PathBuf};

use schemars::{Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Directories, Directory};
use crate::host::occupants::Footprint;
use crate::manifest::{self, Diagnostic, Diagnostics, rule};
use crate::observe::{Observation, Query};
use crate::provider::placeholders::absolute_path;
use crate::provider::{
    Allocation, Allocator, Condition, Context, Error, InterruptedRun, PathSet, Planned, Planner, Provider,
    Request, Scope, Task, UnsavedWork, allocation_fields, is_in_git_directory,
};

/// Name of the kind.
pub const KIND: &str = "session-directory";

/// Options of the request that planning adds to a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Options {
    root_directory: PathBuf,
    contains: Vec<String>,
}

/// Returns the options of the request for a directory in `root` that contains resources with these names.
pub(crate) fn options(root: &Path, contains: &[&str]) -> manifest::Options {
    let contains = contains.iter().map(|name| (*name).to_owned()).collect();
    allocation_fields(&Options { root_directory: root.to_owned(), contains })
}

/// Provider of `session-directory`.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "it has no state")]
pub struct SessionDirectories;

/// Returns the directory that is planned for a session of this scoped name.
fn planned(options: Options, scoped_name: &str) -> Directory {
    Directory {
        directory_path: options.root_directory.join(scoped_name),
        directory_root: options.root_directory,
        copy_from: None,
        keep: true,
        contains: options.contains,
    }
}

impl Planner for SessionDirectories {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn is_implied(&self) -> bool {
        true
    }

    fn allocation_schema(&self, generator: &mut SchemaGenerator) -> Option<Schema> {
        Directories.allocation_schema(generator)
    }

    fn queries(&self, options: &manifest::Options) -> Vec<Query> {
        let options = Options::deserialize(options).ok();
        options.map(|options| Query::Directory { path: options.root_directory }).into_iter().collect()
    }

    /// Updates the names of the resources in it.
    fn is_update(&self, from: &Allocation, to: &Allocation) -> bool {
        let (Some(from), Some(to)) = (Directory::from_allocation(from), Directory::from_allocation(to))
        else {
            return false;
        };
        Directory { contains: to.contains.clone(), ..from } == to
    }

    fn allocator<'o>(&'o self, observation: &'o Observation, _scope: &Scope<'_>) -> Box<dyn Allocator + 'o> {
        Box::new(SessionAllocations { free: super::plan::FreePaths::new(observation) })
    }

    fn context(&self, allocation: &Allocation) -> Context {
        let Some(directory) = Directory::from_allocation(allocation) else { return Context::default() };
        let path = absolute_path(&directory.directory_path);
        Context {
            prompt_sections: vec![format!("Working directory: {path}")],
            metadata: Map::from_iter([("session_directory_path".to_owned(), Value::from(path.clone()))]),
            working_directory: Some(directory.directory_path),
            ..Context::default()
        }
        .with_env("AGENT_SESSION_DIRECTORY", path)
    }

    fn directory(&self, allocation: &Allocation) -> Option<PathBuf> {
        Directories.directory(allocation)
    }

    fn is_in_place(&self, allocation: &Allocation, scoped_name: &str) -> bool {
        let Ok(options) = Options::deserialize(&allocation.options) else { return false };
        let planned = planned(options, scoped_name);
        !is_in_git_directory(&planned.directory_path)
            && Directory::from_allocation(allocation) == Some(planned)
    }

    fn stale(
        &self,
        allocation: &Allocation,
        replaced: Option<&Allocation>,
        released: &PathSet,
        observation: &Observation,
    ) -> Vec<String> {
        Directories.stale(allocation, replaced, released, observation)
    }

    fn path_fields(&self) -> &'static [&'static str] {
        Directories.path_fields()
    }

    fn summary(&self, allocation: &Allocation, _is_new: bool) -> Option<String> {
        let Directory { directory_path, contains, .. } = Directory::from_allocation(allocation)?;
        Some(format!("{}  with {}", directory_path.display(), contains.join(", ")))
    }

    fn summary_of_many(&self, allocations: &[&Allocation], _are_new: bool) -> Option<String> {
        let Directory { directory_root, contains, .. } = Directory::from_allocation(allocations.first()?)?;
        let count = allocations.len();
        Some(format!("{count} in {}  with {}", directory_root.display(), contains.join(", ")))
    }
}

/// Allocator of one plan.
struct SessionAllocations<'o> {
    free: super::plan::FreePaths<'o>,
}

impl Allocator for SessionAllocations<'_> {
    fn vacate(&mut self, directory: &Path) {
        self.free.vacate(directory);
    }

    fn update(
        &mut self,
        request: &Request<'_>,
        _allocation: &Allocation,
    ) -> Option<Result<Map<String, Value>, Diagnostics>> {
        let options = Options::deserialize(&**request.options).ok()?;
        Some(Ok(allocation_fields(&planned(options, request.scoped_name))))
    }

    fn allocate(&mut self, request: &Request<'_>) -> Result<Planned, Diagnostics> {
        let options = Options::deserialize(&**request.options).map_err(|error| {
            let message = format!("the options of `{KIND}` cannot be read: {error}");
            vec![Diagnostic::new(rule::BROKEN_KIND, request.location.clone(), message, "here")]
        })?;
        let directory = planned(options, request.scoped_name);
        self.free.check(&directory, request.location).map_err(|diagnostic| vec![diagnostic])?;
        Ok(Planned::new(allocation_fields(&directory)))
    }
}

impl Provider for SessionDirectories {
    fn provision(&self, task: &Task<'_>) -> Result<(), Error> {
        Directories.provision(task)
    }

    fn finish(&self, task: &Task<'_>) -> Result<(), Error> {
        Directories.finish(task)
    }

    fn inspect(&self, task: &Task<'_>) -> Result<Condition, Error> {
        Directories.inspect(task)
    }

    fn unsaved_work(&self, task: &Task<'_>) -> Result<UnsavedWork, Error> {
        Directories.unsaved_work(task)
    }

    fn unsaved_work_since(&self, task: &Task<'_>, run: InterruptedRun) -> Result<UnsavedWork, Error> {
        Directories.unsaved_work_since(task, run)
    }

    fn blockers(&self, task: &Task<'_>) -> Result<Vec<String>, Error> {
        Directories.blockers(task)
    }

    fn moves_aside(&self) -> bool {
        Directories.moves_aside()
    }

    fn left_aside(&self, task: &Task<'_>) -> Vec<String> {
        Directories.left_aside(task)
    }

    fn set_aside(&self, task: &Task<'_>) -> Result<(), Error> {
        Directories.set_aside(task)
    }

    fn bring_back(&self, task: &Task<'_>) -> Result<(), Error> {
        Directories.bring_back(task)
    }

    fn release(&self, task: &Task<'_>) -> Result<(), Error> {
        Directories.release(task)
    }

    fn has_ownership_marker(&self, task: &Task<'_>) -> bool {
        Directories.has_ownership_marker(task)
    }

    fn adopt(&self, task: &Task<'_>, original: &Task<'_>) -> Result<Option<Allocation>, Error> {
        Directories.adopt(task, original)
    }

    fn unsaved_work_outside(&self, task: &Task<'_>) -> Result<UnsavedWork, Error> {
        Directories.unsaved_work_outside(task)
    }

    fn forget(&self, task: &Task<'_>) -> Result<(), Error> {
        Directories.forget(task)
    }

    fn manual_cleanup(&self, task: &Task<'_>) -> Vec<String> {
        Directories.manual_cleanup(task)
    }

    fn footprint(&self, task: &Task<'_>) -> Footprint {
        Directories.footprint(task)
    }

    fn temporary_file_directories(&self, task: &Task<'_>) -> Result<Vec<PathBuf>, Error> {
        Directories.temporary_file_directories(task)
    }
}
