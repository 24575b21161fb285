//! Changes of the working tree and the index that no commit has.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::{hidden, list};
use crate::host::git::Git;
use crate::provider::git_worktree::site::{Content, Site, read};
use crate::provider::git_worktree::{Worktree, files};
use crate::provider::{DISCOVERY_DIRECTORY, DISCOVERY_FILE, Error, Losses, Task};

/// Adds what `git status` tells, and what bits of the index keep from it.
pub(super) fn add(
    task: &Task<'_>,
    worktree: &Worktree,
    site: &Site,
    losses: &mut Losses,
) -> Result<(), Error> {
    Git::can_read(&site.worktree)?;
    let entry = site.entry_path();
    let git = Git::of(task.host, &entry, Some(&site.worktree)).holding(task.lock);
    let status = git.run([
        "status",
        "--porcelain=v1",
        "-z",
        "--untracked-files=all",
        "--ignored=matching",
        "--ignore-submodules=none",
        "--no-renames",
    ])?;
    let (mut modified, mut staged, mut unmerged, mut untracked) = (0_usize, 0_usize, 0_usize, 0_usize);
    let (mut ignored, mut repositories) = (BTreeSet::new(), BTreeSet::new());
    for change in status.split(|byte| *byte == 0) {
        match *change {
            [b'?', b'?', b' ', ref path @ ..] if path.ends_with(b"/") => {
                repositories.insert(OsStr::from_bytes(path).to_owned());
            }
            [b'?', b'?', b' ', ref path @ ..] => {
                let path = Path::new(OsStr::from_bytes(path));
                untracked += usize::from(
                    !is_discovery(worktree, path) && !files::is_the_workspaces(worktree, site, path),
                );
            }
            [b'!', b'!', b' ', ref path @ ..] => {
                let path = Path::new(OsStr::from_bytes(path));
                let of_seedbed = is_discovery(worktree, path) || path.starts_with(files::HIDDEN);
                if !of_seedbed && !files::is_the_workspaces(worktree, site, path) {
                    ignored.insert(path.as_os_str().to_owned());
                }
            }
            [b'U', _, b' ', ..] | [_, b'U', b' ', ..] | [b'A', b'A', b' ', ..] | [b'D', b'D', b' ', ..] => {
                unmerged += 1;
            }
            // A branch may track them; what seedbed puts back there is nobody's work.
            [b' ', _, b' ', ref path @ ..] if is_discovery(worktree, Path::new(OsStr::from_bytes(path))) => {}
            [index, tree, b' ', ..] => {
                staged += usize::from(index != b' ');
                modified += usize::from(tree != b' ');
            }
            _ => {}
        }
    }
    let listed = git.run(["ls-files", "-v", "--stage", "-z"])?;
    let files: Vec<_> = listed.split(|byte| *byte == 0).filter_map(File::parse).collect();
    let hidden = hidden::changed(&git, site, &files)?;
    let submodules = submodules(site, &files)?;
    let path = site.worktree.display();
    let counts: Vec<String> = [
        (modified, "modified"),
        (staged, "staged"),
        (unmerged, "unmerged"),
        (untracked, "untracked"),
        (hidden, "hidden from `git status` by assume-unchanged or skip-worktree"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    if !counts.is_empty() {
        losses.work.push(format!("{path} has uncommitted changes: {}", counts.join(", ")));
    }
    if !repositories.is_empty() {
        losses.beyond_rescue.push(format!(
            "{path} holds repositories of their own ({}), which git cannot take into a commit; move them away",
            list(&repositories)
        ));
    }
    if !submodules.is_empty() {
        losses.beyond_rescue.push(format!(
            "{path} has submodules checked out ({}), whose commits may be nowhere else; push those, then `git submodule \
             deinit --all` there",
            list(&submodules)
        ));
    }
    if !ignored.is_empty() {
        let (count, named) = (ignored.len(), list(&ignored));
        losses.passing.push(format!("{path} has {count} ignored files or directories: {named}"));
    }
    Ok(())
}

/// One file as the index has it.
pub(in super::super) struct File<'l> {
    /// Whether git was told not to look at it. In lower case the tag says `assume-unchanged`, `S` is `skip-worktree`.
    pub(in super::super) hidden: bool,
    pub(in super::super) mode: &'l str,
    pub(in super::super) object: &'l str,
    pub(in super::super) path: &'l Path,
}

impl<'l> File<'l> {
    /// `TAG MODE OBJECT STAGE`, a tab, and the path.
    pub(in super::super) fn parse(line: &'l [u8]) -> Option<Self> {
        let tab = line.iter().position(|byte| *byte == b'\t')?;
        let mut words = std::str::from_utf8(&line[..tab]).ok()?.split(' ');
        let (tag, mode, object) = (words.next()?, words.next()?, words.next()?);
        let hidden = tag == "S" || tag.chars().all(|c| c.is_ascii_lowercase());
        Some(Self { hidden, mode, object, path: Path::new(OsStr::from_bytes(&line[tab + 1..])) })
    }
}

/// The submodules that are checked out.
fn submodules(site: &Site, files: &[File<'_>]) -> Result<BTreeSet<OsString>, Error> {
    let Some(directory) = site.directory()? else { return Ok(BTreeSet::new()) };
    let links = files.iter().filter(|file| file.mode == "160000");
    Ok(links
        // What cannot be looked at may be one.
        .filter(|file| read(&directory, &file.path.join(".git")).map_or(true, |it| it != Content::Missing))
        .map(|file| file.path.as_os_str().to_owned())
        .collect())
}

/// Tells whether a path is one of the files that tell the session what it owns.
pub(super) fn is_discovery(worktree: &Worktree, path: &Path) -> bool {
    let top = worktree.target_path.as_deref().map_or(Path::new(""), Path::new);
    let Ok(path) = path.strip_prefix(top.join(DISCOVERY_DIRECTORY)) else { return false };
    [".gitignore", DISCOVERY_FILE].iter().any(|name| path == Path::new(name))
}
