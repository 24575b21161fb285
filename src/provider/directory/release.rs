//! Removes a directory and its record.

use super::Directory;
use super::record;
use super::site::Site;
use crate::host::failpoint::crashpoint;
use crate::provider::{Error, Task};

/// Removes everything that exists of the directory at the task's location. A directory of another owner is
/// [`Error::Refused`], and nothing is removed.
pub(super) fn release(task: &Task<'_>, directory: &Directory) -> Result<(), Error> {
    let site = Site::new(task, directory)?;
    record::owned(task, &site)?;
    if site.base.directory(&site.parent)?.is_some() {
        // An earlier release may have been killed.
        site.base.remove_all_in_parallel(&site.trash())?;
        site.base.rename(&site.below(), &site.trash())?;
        crashpoint!("directory.trash");
        site.base.remove_all_in_parallel(&site.trash())?;
        crashpoint!("directory.gone");
        site.base.remove_file(&site.record())?;
        crashpoint!("directory.record-gone");
    }
    Ok(site.base.remove_hidden(&site.parent)?)
}
