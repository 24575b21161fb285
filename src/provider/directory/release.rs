//! Removes a directory and its record.

use super::Directory;
use super::paths::DirectoryPaths;
use super::record;
use crate::host::failpoint::crashpoint;
use crate::provider::{Error, Task};

/// Removes everything that exists of the directory at the task's location. A directory of another owner is
/// [`Error::Refused`], and nothing is removed.
pub(super) fn release(task: &Task<'_>, directory: &Directory) -> Result<(), Error> {
    let paths = DirectoryPaths::new(task, directory)?;
    record::owned(task, &paths)?;
    if paths.base.directory(&paths.parent)?.is_some() {
        // An earlier release may have been killed.
        paths.base.remove_all_in_parallel(&paths.trash())?;
        paths.base.rename(&paths.below(), &paths.trash())?;
        crashpoint!("directory.trash");
        paths.base.remove_all_in_parallel(&paths.trash())?;
        crashpoint!("directory.gone");
        paths.base.remove_file(&paths.record())?;
        crashpoint!("directory.record-gone");
    }
    Ok(paths.base.remove_hidden(&paths.parent)?)
}
