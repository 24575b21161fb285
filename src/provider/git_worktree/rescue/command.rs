//! Builds the command that restores a rescue. It uses plain Git and `tar`: a rescue must be usable without seedbed.
//! Pure.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use crate::host::text::shell_quoted;
use crate::name::{HashDigits, scoped_name};
use crate::provider::git_worktree::paths::WorktreePaths;

/// Maximum number of files that the command writes one by one. Each takes some 200 characters, and a terminal limits
/// the length of a line.
pub(super) const CONVERTED_MAX: usize = 20;

/// Returns a command for a POSIX shell that works in any directory: it creates a new worktree beside the repository.
///
/// Files come first, by Git's own checkout, and then the files of the admin directory, including the index.
///
/// `converted` are files that a checkout would convert; their bytes are written as they are.
pub(super) fn bring_back(
    paths: &WorktreePaths,
    session: &str,
    reference: &str,
    sparse: bool,
    converted: &BTreeSet<PathBuf>,
) -> String {
    let quoted = |path: &Path| shell_quoted(&path.to_string_lossy());
    let directory = place(&paths.repo_root, session, reference);
    let (root, place) = (quoted(&paths.repo_root), quoted(&directory));
    let commit = |which: &str| shell_quoted(&format!("{reference}{which}"));
    let mut steps =
        vec![format!("git -C {root} worktree add --no-checkout --detach {place} {}", commit("^"))];
    let patterns = commit("^3:info/sparse-checkout");
    if sparse {
        steps.push(format!(
            "git -C {root} cat-file blob {patterns} | git -C {place} sparse-checkout set --no-cone --stdin"
        ));
    }
    steps.push(format!("git -C {place} -c core.symlinks=true read-tree -m -u {}", commit("")));
    if sparse {
        // Files outside of the sparse checkout may be changed too.
        steps.push(format!(
            "git -C {place} diff-tree -r -z --no-renames --diff-filter=d --name-only {} {} | git -C {place} \
             checkout-index -f -z --stdin --ignore-skip-worktree-bits",
            commit("^"),
            commit(""),
        ));
    }
    for path in converted.iter().take(CONVERTED_MAX) {
        let bytes = commit(&format!(":{}", path.to_string_lossy()));
        let to = quoted(&directory.join(path));
        steps.push(format!("git -C {root} cat-file blob {bytes} > {to}"));
    }
    steps.push(format!(
        "git -C {place} -c core.autocrlf=false archive {} | tar -x -C \"$(git -C {place} rev-parse \
         --absolute-git-dir)\"",
        commit("^3")
    ));
    steps.join(" && ")
}

/// Returns a path beside the repository whose name describes its content.
pub(super) fn place(root: &Path, session: &str, reference: &str) -> PathBuf {
    let time = reference.rsplit('@').next().unwrap_or_default();
    let session = scoped_name(session, HashDigits::Eight);
    let mut name = root.file_name().map(|name| name.as_bytes().to_vec()).unwrap_or_default();
    name.extend(format!("-rescued-{session}-{time}").bytes());
    root.with_file_name(OsString::from_vec(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rescue_has_a_place_of_its_own() {
        let place = |session, reference| place(Path::new("/srv/repo.git"), session, reference);
        let one = place("shop/a/b", "refs/seedbed/rescue/shop/a/b/@20261125T120000Z");
        assert_eq!(one, Path::new("/srv/repo.git-rescued-shop-a-b-6ad4d9d1-20261125T120000Z"));
        assert_ne!(one, place("shop/a-b", "refs/seedbed/rescue/shop/a-b/@20261125T120000Z"));
        assert_ne!(one, place("shop/a/b", "refs/seedbed/rescue/shop/a/b/@20261125T120000Z-2"));
    }
}
