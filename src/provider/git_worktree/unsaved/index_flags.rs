//! Finds changes that bits of the index hide: `assume-unchanged` and `skip-worktree` make Git skip the file.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::listed_file::ListedFile;
use crate::host::git::Git;
use crate::provider::Error;
use crate::provider::git_worktree::index;
use crate::provider::git_worktree::paths::WorktreePaths;

/// Returns the number of skipped files that exist and differ from the index. A skipped file that does not exist was
/// left out by a sparse checkout or deleted, so that nothing of it can be lost.
pub(super) fn changed(
    git: &Git<'_>,
    paths: &WorktreePaths,
    files: &[ListedFile<'_>],
) -> Result<usize, Error> {
    let mut changed = 0;
    let mut to_hash = Vec::new();
    // Submodules are inspected separately.
    for file in files.iter().filter(|file| file.hidden && file.mode != "160000") {
        match look(paths, file) {
            Look::Same => {}
            Look::Differs => changed += 1,
            Look::Content => to_hash.push(file),
        }
    }
    let file_paths: Vec<_> = to_hash.iter().map(|file| file.path).collect();
    let objects = hash(git, &file_paths, Filters::Apply)?;
    Ok(changed + to_hash.iter().zip(&objects).filter(|(file, object)| file.object != **object).count())
}

/// Result of comparing a file with the index without opening the file.
enum Look {
    Same,
    Differs,
    /// The content has to be compared.
    Content,
}

#[expect(clippy::disallowed_methods, reason = "looks at what git was told not to look at")]
fn look(paths: &WorktreePaths, file: &ListedFile<'_>) -> Look {
    let path = paths.worktree.join(file.path);
    let found = match std::fs::symlink_metadata(&path) {
        // Git reports the content of a directory as untracked.
        Ok(found) if found.is_dir() => return Look::Same,
        Ok(found) => found,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Look::Same;
        }
        Err(_) => return Look::Differs,
    };
    if found.is_symlink() {
        let target = std::fs::read_link(&path).unwrap_or_default();
        let is_same = file.mode == "120000" && index::is_blob_of(file.object, target.as_os_str().as_bytes());
        return if is_same { Look::Same } else { Look::Differs };
    }
    let executable = found.permissions().mode() & 0o100 != 0;
    let as_expected = found.is_file() && file.mode != "120000" && executable == (file.mode == "100755");
    if as_expected { Look::Content } else { Look::Differs }
}

/// Mode of hashing: with or without conversions and filters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Filters {
    Apply,
    Leave,
}

/// Returns the ids of the blobs that files make, in the order of `file_paths`. One process hashes all files, except
/// those whose path cannot be a line of a list: they have one process each.
pub(super) fn hash(git: &Git<'_>, file_paths: &[&Path], filters: Filters) -> Result<Vec<String>, Error> {
    let leave = (filters == Filters::Leave).then_some("--no-filters");
    let is_line = |path: &Path| {
        let bytes = path.as_os_str().as_bytes();
        !bytes.contains(&b'\n') && !bytes.starts_with(b"\"")
    };
    let (lines, others): (Vec<&Path>, Vec<&Path>) = file_paths.iter().partition(|path| is_line(path));
    let mut objects = HashMap::new();
    if !lines.is_empty() {
        let input = lines.iter().flat_map(|path| [path.as_os_str().as_bytes(), b"\n"].concat()).collect();
        let args = ["hash-object", "--stdin-paths"].into_iter().chain(leave);
        let hashed = git.run_with_input(args, input)?;
        let hashed = String::from_utf8_lossy(&hashed).into_owned();
        objects.extend(lines.iter().copied().zip(hashed.lines().map(str::to_owned)));
    }
    for path in others {
        let args = ["hash-object"].into_iter().chain(leave).chain(["--"]).map(OsStr::new);
        objects.insert(path, git.line(args.chain([path.as_os_str()]))?);
    }
    // If Git printed fewer ids than requested, the rest counts as changed.
    Ok(file_paths.iter().map(|path| objects.remove(path).unwrap_or_default()).collect())
}
