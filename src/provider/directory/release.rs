//! Removes a directory and its record.

use std::path::Path;

use rustix::fs::FileType;

use super::Directory;
use super::paths::DirectoryPaths;
use super::record::{self, Record, Stage};
use crate::host::failpoint::crashpoint;
use crate::provider::{Error, Task};

/// Removes everything that exists of the directory at the task's location. A directory of another owner is
/// [`Error::Refused`], and nothing is removed.
pub(super) fn release(task: &Task<'_>, directory: &Directory) -> Result<(), Error> {
    let paths = DirectoryPaths::new(task, directory)?;
    let record = record::owned(task, &paths)?;
    if record.as_ref().is_some_and(|record| record.stage != Stage::Planned) {
        paths.refuse_others(directory)?;
    }
    if paths.base.directory(&paths.parent)?.is_some() {
        // An earlier release may have been killed.
        paths.base.remove_all_in_parallel(&paths.trash())?;
        if matches!(record, Some(Record { stage: Stage::Planned, .. })) {
            remove_if_empty(&paths)?;
        } else {
            paths.base.rename(&paths.below(), &paths.trash())?;
        }
        crashpoint!("directory.trash");
        paths.base.remove_all_in_parallel(&paths.trash())?;
        crashpoint!("directory.gone");
        paths.base.remove_file(&paths.record())?;
        crashpoint!("directory.record-gone");
    }
    Ok(paths.base.remove_hidden(&paths.parent)?)
}

/// Removes the directory if it is empty. A run that was killed before it recorded its own directory leaves it empty:
/// files in it belong to another program, which has created or uses the directory.
fn remove_if_empty(paths: &DirectoryPaths) -> Result<(), Error> {
    let Some(parent) = paths.base.directory(&paths.parent)? else { return Ok(()) };
    if parent.file_type(paths.name.as_ref()) == Some(FileType::Directory) {
        parent.remove_directory(Path::new(&paths.name))?;
    }
    Ok(())
}
