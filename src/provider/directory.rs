//! Provides the `directory` kind: scratch space of a session's own, empty or a copy of a directory of the workspace.

mod aside;
mod copy;
mod unsaved;
mod plan;
mod record;
mod release;
mod paths;
pub mod session;

use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, schema_for};
use serde::{Deserialize, Serialize};

use self::paths::DirectoryPaths;
use self::record::{Record, Stage};
use super::placeholders::absolute_path;
use super::{
    Allocation, Allocator, Condition, Context, Error, Examination, InterruptedRun, Leftover, Location,
    PathSet, Planner, Provider, RootDirectory, Scope, Task, UnsavedWork, effective_options,
    is_in_git_directory,
};
use crate::host::absolute;
use crate::host::failpoint::crashpoint;
use crate::host::files::copies;
use crate::host::occupants::Footprint;
use crate::manifest;
use crate::observe::{Observation, Query};

/// Name of the kind.
pub const KIND: &str = "directory";

/// Options of a `directory`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Options {
    /// Directory in which the sessions' directories are created, relative to the workspace root.
    #[schemars(length(min = 1))]
    pub root_directory: PathBuf,
    /// Directory of the workspace to copy into each new directory, relative to the workspace root. Files share blocks
    /// with the original if the file system can. Default: new directories are empty.
    #[schemars(length(min = 1))]
    #[schemars(extend("examples" = ["fixtures/database"]))]
    pub copy_from: Option<PathBuf>,
    /// `true` if files written in the directory since it was created are unsaved work, for which `destroy` refuses.
    /// With `false` they are scratch, and removed with the session.
    pub keep: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { root_directory: PathBuf::from(".ai_ops/directories"), copy_from: None, keep: true }
    }
}

/// A planned directory. Paths are relative to the workspace root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Directory {
    /// Path of the directory around it.
    pub directory_root: PathBuf,
    /// Path of the directory itself.
    pub directory_path: PathBuf,
    /// Path of the original of a copy; `None` if the directory is created empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_from: Option<PathBuf>,
    /// `true` if files written in the directory are unsaved work.
    pub keep: bool,
    /// Names in the directory that are directories of other resources of the session, which answer for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contains: Vec<String>,
}

impl Directory {
    /// Reads an allocation of this kind; `None` if planning did not make the allocation.
    pub fn from_allocation(allocation: &Allocation) -> Option<Self> {
        Self::deserialize(&allocation.allocation).ok()
    }
}

/// Provider of `directory`.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "it has no state")]
pub struct Directories;

impl Planner for Directories {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn options_schema(&self) -> Schema {
        schema_for!(Options)
    }

    fn allocation_schema(&self, generator: &mut SchemaGenerator) -> Option<Schema> {
        Some(generator.subschema_for::<Directory>())
    }

    fn options(
        &self,
        own: &manifest::Options,
        parent: Option<&manifest::Options>,
        defaults: &manifest::Options,
    ) -> manifest::Options {
        effective_options::<Options>(own, parent, defaults, &[])
    }

    fn queries(&self, options: &manifest::Options) -> Vec<Query> {
        let Ok(options) = Options::deserialize(options) else { return Vec::new() };
        let file_paths =
            [Some(options.root_directory), options.copy_from.filter(|from| plan::is_below(from))];
        file_paths.into_iter().flatten().map(|path| Query::Directory { path }).collect()
    }

    fn allows_several(&self) -> bool {
        true
    }

    /// Updates `keep` in place.
    fn is_update(&self, from: &Allocation, to: &Allocation) -> bool {
        let (Some(from), Some(to)) = (Directory::from_allocation(from), Directory::from_allocation(to))
        else {
            return false;
        };
        Directory { keep: to.keep, ..from } == to
    }

    fn allocator<'o>(&'o self, observation: &'o Observation, _scope: &Scope<'_>) -> Box<dyn Allocator + 'o> {
        Box::new(plan::Allocations::new(observation))
    }

    fn context(&self, allocation: &Allocation) -> Context {
        Directory::from_allocation(allocation).as_ref().map(plan::context).unwrap_or_default()
    }

    fn template_name(&self) -> Option<&'static str> {
        Some("directory")
    }

    fn template_value(&self, allocation: &Allocation) -> Option<minijinja::Value> {
        let path = absolute_path(&Directory::from_allocation(allocation)?.directory_path);
        Some(minijinja::Value::from_pairs([("path", path)]))
    }

    fn root_directory(&self, allocation: Option<&Allocation>) -> Option<RootDirectory> {
        let path = match allocation {
            Some(allocation) => Directory::from_allocation(allocation)?.directory_root,
            None => Options::default().root_directory,
        };
        Some(RootDirectory::new("the directory of scratch directories", path))
    }

    fn directory(&self, allocation: &Allocation) -> Option<PathBuf> {
        Directory::from_allocation(allocation).map(|directory| directory.directory_path)
    }

    fn is_in_place(&self, allocation: &Allocation, scoped_name: &str) -> bool {
        let options = self.options(&allocation.options, None, &manifest::Options::new());
        let (Ok(options), Some(directory)) =
            (Options::deserialize(&options), Directory::from_allocation(allocation))
        else {
            return false;
        };
        let planned = plan::planned(&options, scoped_name, allocation.name());
        directory == planned
            && !is_in_git_directory(&planned.directory_path)
            && planned.copy_from.as_deref().is_none_or(plan::is_below)
    }

    fn stale(
        &self,
        allocation: &Allocation,
        _replaced: Option<&Allocation>,
        released: &PathSet,
        observation: &Observation,
    ) -> Vec<String> {
        let directory = Directory::from_allocation(allocation);
        directory.map(|directory| plan::stale(&directory, released, observation)).unwrap_or_default()
    }

    fn path_fields(&self) -> &'static [&'static str] {
        &["directoryRoot", "directoryPath", "copyFrom"]
    }

    fn summary(&self, allocation: &Allocation, _is_new: bool) -> Option<String> {
        let Directory { directory_path, copy_from, keep, .. } = Directory::from_allocation(allocation)?;
        let copy = copy_from.map(|from| format!("  copy of {}", from.display())).unwrap_or_default();
        let scratch = if keep { "" } else { "  scratch" };
        Some(format!("{}{copy}{scratch}", directory_path.display()))
    }

    fn summary_of_many(&self, allocations: &[&Allocation], _are_new: bool) -> Option<String> {
        let root = Directory::from_allocation(allocations.first()?)?.directory_root;
        Some(format!("{} directories in {}", allocations.len(), root.display()))
    }
}

impl Provider for Directories {
    fn provision(&self, task: &Task<'_>) -> Result<(), Error> {
        let directory = directory(task)?;
        let paths = DirectoryPaths::new(task, &directory)?;
        let exists = || Error::Refused(format!("{} exists already", paths.path().display()));
        if paths.exists()? {
            return Err(exists());
        }
        record::create(task, &paths)?;
        crashpoint!("directory.recorded");
        let parent = paths.base.create_hidden(&paths.parent)?;
        if !copies::make_directory(&parent, paths.name.as_ref())? {
            // Another program has created it since. With the record, a release would remove it.
            paths.base.remove_file(&paths.record())?;
            return Err(exists());
        }
        crashpoint!("directory.made");
        record::set_created(task, &paths)?;
        crashpoint!("directory.created");
        match &directory.copy_from {
            Some(from) => copy::copy(task, from, &paths),
            None => Ok(()),
        }
    }

    fn finish(&self, task: &Task<'_>) -> Result<(), Error> {
        let directory = directory(task)?;
        let paths = DirectoryPaths::new(task, &directory)?;
        let Some(top) = paths.directory()? else {
            return Err(Error::Refused(format!("{} does not exist", paths.path().display())));
        };
        let contents = record::contents(&top, &directory.contains)?;
        crashpoint!("directory.listed");
        record::set_complete(task, &paths, &contents)
    }

    fn inspect(&self, task: &Task<'_>) -> Result<Condition, Error> {
        let paths = DirectoryPaths::new(task, &directory(task)?)?;
        let missing = || Condition::Broken(format!("{} does not exist", paths.path().display()));
        Ok(match record::owned(task, &paths) {
            Err(Error::Refused(why)) => Condition::Broken(why),
            Err(error) => return Err(error),
            Ok(None) => missing(),
            Ok(Some(_)) if paths.directory()?.is_none() => missing(),
            Ok(Some(Record { stage: Stage::Complete, .. })) => Condition::Healthy,
            Ok(Some(_)) => Condition::Broken(format!("{} was never completed", paths.path().display())),
        })
    }

    fn unsaved_work(&self, task: &Task<'_>) -> Result<UnsavedWork, Error> {
        unsaved::unsaved_work(task, &directory(task)?, None)
    }

    fn unsaved_work_since(&self, task: &Task<'_>, run: InterruptedRun) -> Result<UnsavedWork, Error> {
        unsaved::unsaved_work(task, &directory(task)?, Some(run))
    }

    fn blockers(&self, task: &Task<'_>) -> Result<Vec<String>, Error> {
        Ok(unsaved::unsaved_work(task, &Directory { keep: false, ..directory(task)? }, None)?.blockers)
    }

    fn moves_aside(&self) -> bool {
        true
    }

    fn left_aside(&self, task: &Task<'_>) -> Vec<String> {
        self.manual_cleanup(&Task { location: Location::Aside, ..*task })
    }

    fn set_aside(&self, task: &Task<'_>) -> Result<(), Error> {
        aside::set_aside(task, &directory(task)?)
    }

    fn bring_back(&self, task: &Task<'_>) -> Result<(), Error> {
        aside::bring_back(task, &directory(task)?)
    }

    fn release(&self, task: &Task<'_>) -> Result<(), Error> {
        release::release(task, &directory(task)?)
    }

    fn has_ownership_marker(&self, task: &Task<'_>) -> bool {
        let has_ownership_marker = |directory: Directory| aside::has_ownership_marker(task, &directory);
        directory(task).and_then(has_ownership_marker).unwrap_or(false)
    }

    fn adopt(&self, task: &Task<'_>, original: &Task<'_>) -> Result<Option<Allocation>, Error> {
        let is_adopted = aside::adopt(task, &directory(task)?, original.owner)?;
        Ok(is_adopted.then(|| task.allocation.clone()))
    }

    fn unsaved_work_outside(&self, task: &Task<'_>) -> Result<UnsavedWork, Error> {
        let directory = directory(task)?;
        if paths::is_within(task, &directory) { Ok(UnsavedWork::default()) } else { self.unsaved_work(task) }
    }

    fn forget(&self, task: &Task<'_>) -> Result<(), Error> {
        let directory = directory(task)?;
        if paths::is_within(task, &directory) { Ok(()) } else { self.release(task) }
    }

    fn manual_cleanup(&self, task: &Task<'_>) -> Vec<String> {
        let Some(directory) = Directory::from_allocation(task.allocation) else { return Vec::new() };
        match DirectoryPaths::new(task, &directory) {
            Ok(paths) if matches!(paths.exists(), Ok(false)) => Vec::new(),
            Ok(paths) if paths.name == paths.home_name => {
                vec![format!("directory {}", paths.path().display())]
            }
            Ok(paths) => vec![format!(
                "directory {}, which belongs at {}",
                paths.path().display(),
                paths.home_path().display()
            )],
            Err(_) => {
                let path = absolute(task.workspace, &directory.directory_path);
                vec![format!("directory {}", path.display())]
            }
        }
    }

    fn footprint(&self, task: &Task<'_>) -> Footprint {
        let paths = Directory::from_allocation(task.allocation)
            .and_then(|directory| DirectoryPaths::new(task, &directory).ok());
        Footprint { directories: paths.iter().map(DirectoryPaths::path).collect(), ..Footprint::default() }
    }

    fn temporary_file_directories(&self, task: &Task<'_>) -> Result<Vec<PathBuf>, Error> {
        let paths = DirectoryPaths::new(task, &directory(task)?)?;
        Ok(paths.parent.ancestors().map(|above| paths.base.path().join(above)).collect())
    }

    fn leftovers(&self, scope: &Examination<'_>) -> Vec<Leftover> {
        let planned = scope
            .allocations
            .iter()
            .filter_map(|allocation| Some(Directory::from_allocation(allocation)?.directory_root));
        paths::leftovers(scope, planned)
    }
}

fn directory(task: &Task<'_>) -> Result<Directory, Error> {
    let unreadable = || format!("the directory allocation of {} cannot be read", task.session);
    Directory::from_allocation(task.allocation).ok_or_else(|| Error::Refused(unreadable()))
}
