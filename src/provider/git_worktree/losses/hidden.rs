//! Changes that bits of the index hide: `assume-unchanged` and `skip-worktree` tell git not to look.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;

use super::changes::File;
use crate::host::git::Git;
use crate::provider::Error;
use crate::provider::git_worktree::site::Site;

/// How many of these files git does not look at, that are there, and that are not what the index has. What is not there
/// is a sparse checkout's, or a deletion, and nothing of it is lost.
pub(super) fn changed(git: &Git<'_>, site: &Site, files: &[File<'_>]) -> Result<usize, Error> {
    let mut changed = 0;
    // A submodule has its own say.
    for file in files.iter().filter(|file| file.hidden && file.mode != "160000") {
        changed += usize::from(differs(git, site, file)?);
    }
    Ok(changed)
}

#[expect(clippy::disallowed_methods, reason = "looks at what git was told not to look at")]
fn differs(git: &Git<'_>, site: &Site, file: &File<'_>) -> Result<bool, Error> {
    let path = site.worktree.join(file.path);
    let Ok(found) = std::fs::symlink_metadata(&path) else { return Ok(false) };
    if found.is_dir() {
        // git would call what is in it untracked, and does.
        return Ok(false);
    }
    let executable = found.permissions().mode() & 0o100 != 0;
    let as_expected = match file.mode {
        "120000" => found.is_symlink(),
        mode => found.is_file() && executable == (mode == "100755"),
    };
    if !as_expected {
        return Ok(true);
    }
    let object = if found.is_symlink() {
        let target = std::fs::read_link(&path).unwrap_or_default();
        git.run_with_input(["hash-object", "--stdin"], target.as_os_str().as_bytes().to_vec())?
    } else {
        git.run([OsStr::new("hash-object"), OsStr::new("--"), file.path.as_os_str()])?
    };
    Ok(object.trim_ascii_end() != file.object.as_bytes())
}
