//! Copies a directory of the workspace. Files share their blocks with the original if the file system can.

use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, fchmod, fstat};
use rustix::io::Errno;

use super::paths::DirectoryPaths;
use crate::host::clock;
use crate::host::failpoint::crashpoint;
use crate::host::files::copies::{self, Files};
use crate::host::files::{self, Root};
use crate::provider::{Error, Task};

/// Copies everything in `from`, a directory of the workspace, into the empty directory at `paths`. Links are copied as
/// links; a device, a pipe or a socket is an error.
pub(super) fn copy(task: &Task<'_>, from: &Path, paths: &DirectoryPaths) -> Result<(), Error> {
    let missing = |path: &Path| Error::Refused(format!("{} does not exist", path.display()));
    let source = Root::open(task.workspace)?.directory(from)?.ok_or_else(|| missing(from))?;
    let target = paths.directory()?.ok_or_else(|| missing(&paths.path()))?;
    let mut left = vec![PathBuf::new()];
    let mut copied = Vec::new();
    while let Some(path) = left.pop() {
        let Some(from) = source.directory(&path)? else { continue };
        let to = target.directory(&path)?.ok_or_else(|| missing(&target.path().join(&path)))?;
        left.extend(copy_files(task, &from, &to)?.into_iter().map(|name| path.join(name)));
        crashpoint!("directory.copied");
        copied.push((path, mode(&from)?));
    }
    // A directory's own mode is set after its files exist, because the mode may forbid writing.
    copied.into_iter().rev().try_for_each(|(path, mode)| {
        let to = target.directory(&path)?.ok_or_else(|| missing(&target.path().join(&path)))?;
        fchmod(&to, mode).map_err(failed("set the mode of", &to))
    })
}

/// Copies the files of one directory and creates its subdirectories; returns the names of the subdirectories.
fn copy_files(task: &Task<'_>, from: &Root, to: &Root) -> Result<Vec<PathBuf>, Error> {
    let mut directories = Vec::new();
    let names = from.names()?;
    let mut files = Files::new(from, i64::try_from(clock::seconds()).unwrap_or(i64::MAX));
    for name in &names {
        if task.host.cancel.is_requested() {
            return Err(Error::Interrupted);
        }
        match from.file_type(name) {
            Some(FileType::Directory) => {
                copies::make_directory(to, name)?;
                directories.push(PathBuf::from(name));
            }
            Some(FileType::Symlink) => drop(files.link(name, |_| true)?),
            Some(FileType::RegularFile) => files.file(name, |_| true)?,
            _ => {
                let path = from.path().join(name);
                return Err(Error::Refused(format!(
                    "{} is neither a file nor a directory nor a link, and cannot be copied",
                    path.display()
                )));
            }
        }
        if files.are_many() {
            files.write(to)?;
            files.clear();
        }
    }
    files.write(to)?;
    Ok(directories)
}

/// Returns the permissions of a directory.
fn mode(directory: &Root) -> Result<Mode, Error> {
    let stat = fstat(directory).map_err(failed("read the mode of", directory))?;
    Ok(Mode::from_raw_mode(stat.st_mode & 0o777))
}

fn failed(action: &'static str, directory: &Root) -> impl FnOnce(Errno) -> Error {
    let path = directory.path().to_owned();
    move |error| files::Error::Io { action, path, source: error.into() }.into()
}
