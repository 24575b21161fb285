//! Mounts worktrees with `checkout = "overlay"` over one checkout that all worktrees of a commit and target path share.
//!
//! ```text
//! STATE/overlays/.guard                          flock: orders changes of the users of bases
//! STATE/overlays/OWNER/bases/HASH/tree           the checkout of Git, made once and never changed
//! STATE/overlays/OWNER/bases/HASH/index          its index; created last, when the base is complete
//! STATE/overlays/OWNER/bases/HASH/users/ENTRY    one file for each worktree that uses the base
//! STATE/overlays/OWNER/sessions/ENTRY/upper      files that the session has written: its work
//! STATE/overlays/OWNER/sessions/ENTRY/work       used by the kernel
//! ```
//!
//! A base belongs to a swarm, and is removed with its last user. If everything is on one file system, an overlay shows
//! the inodes and times of its lower layer. So the base's index is valid for every session, and Git opens no file to
//! compare.
//!
//! The directory below a mount also has a `.git` file. So an unmounted worktree, for instance after a reboot, still
//! belongs to its admin directory. [`repair`] mounts the worktree again over the files that the session has written.

mod base;
mod upper_layer;

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::paths::{WorktreePaths, io};
use super::{Checkout, Worktree, worktree};
use crate::host::failpoint::crashpoint;
use crate::host::files::{self, Root};
use crate::host::mounts::{self, Layers};
use crate::provider::name_list::list;
use crate::provider::{Error, Location, Task};

/// Directory of all overlays, in the state directory.
const DIRECTORY: &str = "overlays";

/// File whose flock orders the changes of the users of bases.
const GUARD: &str = ".guard";

/// Returns whether a worktree is planned as a mount.
pub(super) fn is_wanted(worktree: &Worktree) -> bool {
    worktree.checkout == Checkout::Overlay
}

/// Returns the directory of a worktree's layers, relative to the swarm's overlays.
fn session_at(location: Location, worktree: &Worktree) -> PathBuf {
    let name = &worktree.admin_directory;
    let name = match location {
        Location::Home => name.clone(),
        Location::Aside => format!(".aside-{name}"),
    };
    Path::new("sessions").join(name)
}

/// Returns the directory of a worktree's layers, relative to the state directory: its written files, and the kernel's
/// working directory.
pub(super) fn layers(task: &Task<'_>, worktree: &Worktree) -> PathBuf {
    Path::new(DIRECTORY).join(task.owner).join(session_at(task.location, worktree))
}

/// Mounts worktrees of one group key over a base. If the base does not exist, the first worktree checks it out.
pub(super) fn populate(tasks: &[Task<'_>]) -> Vec<(usize, Error)> {
    let Some(first) = tasks.first() else { return Vec::new() };
    let begun = tasks.iter().try_for_each(|task| Overlay::create(task, &worktree(task)?)?.begin());
    // The others link to the index of the first. On another file system than that of the base, the index is copied only
    // once.
    let begun = begun.and_then(|()| {
        let worktree = worktree(first)?;
        base::make(first, &worktree, &Overlay::create(first, &worktree)?)?;
        mount_new(first, None)
    });
    let first_index = match begun {
        Ok(index) => index,
        Err(error) => return vec![(0, error)],
    };
    let others = tasks.par_iter().enumerate().skip(1);
    others.filter_map(|(at, task)| Some((at, mount_new(task, Some(&first_index)).err()?))).collect()
}

/// Mounts a worktree for the first time, with a link to the index at `index` or to the base's own. Returns the path of
/// the worktree's index.
fn mount_new(task: &Task<'_>, index: Option<&Path>) -> Result<PathBuf, Error> {
    let worktree = worktree(task)?;
    let paths = WorktreePaths::new(task, &worktree)?;
    let overlay = Overlay::create(task, &worktree)?;
    let upper = overlay.top.create_directories(&overlay.session.join("upper"))?;
    overlay.top.create_directories(&overlay.session.join("work"))?;
    upper.remove_file(Path::new(".git"))?;
    upper.create_new(Path::new(".git"), &paths.dot_git_line())?;
    let own = paths.admin_directory_path().join("index");
    base::link_index(index.unwrap_or(&overlay.base_path().join("index")), &own)?;
    crashpoint!("overlay.layered");
    overlay.mount(&paths)?;
    task.on_populated.notify();
    Ok(own)
}

/// Error of a worktree whose registration is valid.
pub(super) enum MountDamage {
    /// The worktree is not mounted, but can be.
    Unmounted(String),
    /// The layer with the files that the session has written does not exist, or a mount would hide others.
    Lost(String),
}

/// Checks whether the worktree is mounted, and if not, whether it can be. Returns `None` if it is mounted.
pub(super) fn fault(
    task: &Task<'_>,
    worktree: &Worktree,
    paths: &WorktreePaths,
) -> Result<Option<MountDamage>, Error> {
    if !is_unmounted(worktree, paths)? {
        return Ok(None);
    }
    let missing = |path: PathBuf| {
        let (worktree, path) = (paths.home.display(), path.display());
        Ok(Some(MountDamage::Lost(format!("{worktree} is not mounted, and {path} does not exist"))))
    };
    let Some(overlay) = Overlay::existing(task, worktree)? else {
        return missing(task.host.state.join(DIRECTORY).join(task.owner));
    };
    // The other layers have nothing of the session: they are created again.
    if !overlay.has_upper()? {
        return missing(overlay.top.path().join(overlay.session.join("upper")));
    }
    if let Some(why) = covered(worktree, paths)? {
        return Ok(Some(MountDamage::Lost(why)));
    }
    Ok(Some(MountDamage::Unmounted(format!("{} is not mounted", paths.home.display()))))
}

/// Returns the names that were written into the directory of an unmounted worktree, and that a mount would hide, as a
/// message; `None` if there are none.
pub(super) fn covered(worktree: &Worktree, paths: &WorktreePaths) -> Result<Option<String>, Error> {
    if !is_unmounted(worktree, paths)? {
        return Ok(None);
    }
    let Some(directory) = paths.directory()? else { return Ok(None) };
    if upper_layer::is_nothing(directory.path(), worktree)? {
        return Ok(None);
    }
    let names = directory.names()?.into_iter().filter(|name| *name != ".git").collect();
    let path = paths.home.display();
    Ok(Some(format!(
        "{path} is not mounted, and files were written into the directory meanwhile ({}), which a mount would hide; move \
         them away, then `seedbed apply` mounts it",
        list(&names)
    )))
}

/// Mounts the worktree again if it is not mounted.
pub(super) fn repair(task: &Task<'_>, worktree: &Worktree, paths: &WorktreePaths) -> Result<(), Error> {
    match fault(task, worktree, paths)? {
        None => Ok(()),
        Some(MountDamage::Lost(why)) => Err(Error::Refused(why)),
        Some(MountDamage::Unmounted(_)) => {
            Overlay::create(task, worktree)?.mount_again(task, worktree, paths)
        }
    }
}

/// Returns the reason why the files of an unmounted worktree cannot be inspected; `None` if it is mounted, or certainly
/// equals its base.
///
/// Without a mount, Git reports neither files that the session has written, besides seedbed's own, nor changes that only
/// the index has.
pub(super) fn uninspected(
    task: &Task<'_>,
    worktree: &Worktree,
    paths: &WorktreePaths,
) -> Result<Option<String>, Error> {
    if !is_unmounted(worktree, paths)? || is_untouched(task, worktree, paths)? {
        return Ok(None);
    }
    Ok(match fault(task, worktree, paths)? {
        None => None,
        Some(MountDamage::Lost(why)) => Some(format!("{why}, so what was written in it is unknown")),
        Some(MountDamage::Unmounted(why)) => {
            Some(format!("{why}, and what was written in it is unknown; `seedbed apply` mounts it again"))
        }
    })
}

/// Returns the reason why a mounted worktree could not be mounted again after it is moved; `None` if it could.
pub(super) fn stuck(
    task: &Task<'_>,
    worktree: &Worktree,
    paths: &WorktreePaths,
) -> Result<Option<String>, Error> {
    let Some(upper) = upper(task, worktree) else { return Ok(None) };
    let overlay = Overlay::existing(task, worktree)?;
    let has_upper = overlay.map_or(Ok(false), |overlay| overlay.has_upper())?;
    let is_lost = !has_upper && !is_unmounted(worktree, paths)?;
    Ok(is_lost.then(|| {
        let (path, upper) = (paths.home.display(), upper.display());
        format!("{path} is mounted, and its layer {upper} does not exist: move that back, or `umount {path}`")
    }))
}

/// Returns whether the session has written files into a worktree that is not mounted now, besides seedbed's own files.
/// Git cannot report these changes.
pub(super) fn hides_work(task: &Task<'_>, worktree: &Worktree, paths: &WorktreePaths) -> Result<bool, Error> {
    match hidden_layer(task, worktree, paths)? {
        Some(layer) => Ok(!upper_layer::is_nothing(&layer, worktree)?),
        None => Ok(false),
    }
}

/// Returns the layer with the files that the session has written, if the worktree is not mounted. Returns `None` if the
/// worktree is mounted or the layer does not exist.
pub(super) fn hidden_layer(
    task: &Task<'_>,
    worktree: &Worktree,
    paths: &WorktreePaths,
) -> Result<Option<PathBuf>, Error> {
    if !is_unmounted(worktree, paths)? {
        return Ok(None);
    }
    let Some(overlay) = Overlay::existing(task, worktree)? else { return Ok(None) };
    let layer = overlay.top.directory(&overlay.session.join("upper"))?;
    Ok(layer.map(|layer| layer.path().to_owned()))
}

/// Returns whether the worktree certainly equals its base, without running Git. That is so if only seedbed's files were
/// written, the index is the base's, and HEAD is at the base's commit. The worktree need not be mounted.
pub(super) fn is_untouched(
    task: &Task<'_>,
    worktree: &Worktree,
    paths: &WorktreePaths,
) -> Result<bool, Error> {
    if !is_wanted(worktree) || covered(worktree, paths)?.is_some() {
        return Ok(false);
    }
    match Overlay::existing(task, worktree)? {
        Some(overlay) => overlay.is_pristine(paths, worktree),
        None => Ok(false),
    }
}

/// Returns the absolute directory of the files that the session has written, mounted or not; `None` if the worktree is
/// no overlay.
pub(super) fn upper(task: &Task<'_>, worktree: &Worktree) -> Option<PathBuf> {
    is_wanted(worktree).then(|| task.host.state.join(layers(task, worktree)).join("upper"))
}

/// Unmounts the worktree. If a process uses it, this is [`Error::Refused`].
pub(super) fn unmount(worktree: &Worktree, paths: &WorktreePaths) -> Result<(), Error> {
    if is_wanted(worktree)
        && let Some(parent) = paths.base.directory(&paths.parent)?
    {
        mounts::unmount(&parent, &paths.name).map_err(refused)?;
    }
    Ok(())
}

/// Renames the layers of an unmounted worktree. Mounts the worktree at `aside` if anything in it was changed, so that
/// Git can list the changes.
pub(super) fn set_aside(task: &Task<'_>, worktree: &Worktree, aside: &WorktreePaths) -> Result<(), Error> {
    rename_layers(task, worktree, Location::Home, Location::Aside)?;
    let at_aside = Task { location: Location::Aside, ..*task };
    if !is_wanted(worktree) || aside.directory()?.is_none() || !is_unmounted(worktree, aside)? {
        return Ok(());
    }
    match Overlay::existing(&at_aside, worktree)? {
        Some(overlay) if overlay.has_upper()? && !overlay.is_pristine(aside, worktree)? => {
            // Work that cannot be inspected is refused when it is checked again, unless it is discarded.
            let _ = overlay.mount_again(&at_aside, worktree, aside);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Makes sure that a mounted worktree can be mounted again after it is moved: checks out its base if that is lost.
pub(super) fn keep_mountable(
    task: &Task<'_>,
    worktree: &Worktree,
    home: &WorktreePaths,
) -> Result<(), Error> {
    if !is_wanted(worktree) || is_unmounted(worktree, home)? {
        return Ok(());
    }
    Overlay::create(task, worktree)?.complete_base(task, worktree)
}

/// Unmounts the worktree at `aside`, and renames its layers back.
pub(super) fn bring_back(task: &Task<'_>, worktree: &Worktree, aside: &WorktreePaths) -> Result<(), Error> {
    unmount(worktree, aside)?;
    rename_layers(task, worktree, Location::Aside, Location::Home)
}

/// Mounts the worktree at its home again, if possible. One that cannot be mounted was not mounted before, either
/// ([`keep_mountable`]).
pub(super) fn mount_again(task: &Task<'_>, worktree: &Worktree, home: &WorktreePaths) -> Result<(), Error> {
    let at_home = Task { location: Location::Home, ..*task };
    if home.directory()?.is_some() {
        let _ = repair(&at_home, worktree, home);
    }
    Ok(())
}

fn rename_layers(task: &Task<'_>, worktree: &Worktree, from: Location, to: Location) -> Result<(), Error> {
    if !is_wanted(worktree) {
        return Ok(());
    }
    let existing = |location| Overlay::existing(&Task { location, ..*task }, worktree);
    let (Some(from), Some(to)) = (existing(from)?, existing(to)?) else { return Ok(()) };
    let _guard = guard(&from.overlays)?;
    if from.top.directory(&from.session)?.is_some() {
        from.top.rename(&from.session, &to.session)?;
    }
    crashpoint!("overlay.renamed");
    if from.top.directory(&from.base.join("users"))?.is_some() {
        from.top.rename(&from.user(), &to.user())?;
    }
    Ok(())
}

/// Removes the layers of an unmounted worktree, and its base if no other worktree uses it.
pub(super) fn remove(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    if !is_wanted(worktree) {
        return Ok(());
    }
    let Some(overlay) = Overlay::existing(task, worktree)? else { return Ok(()) };
    let user = overlay.user();
    let Overlay { overlays, top, session, base } = overlay;
    let owner = Path::new(task.owner);
    let trash = PathBuf::from(format!(".trash-{}", worktree.admin_directory));
    top.remove_all(&trash)?;
    {
        let _guard = guard(&overlays)?;
        // The release of another session, which runs at the same time, may have removed the empty directory.
        if overlays.directory(owner)?.is_none() {
            return Ok(());
        }
        top.create_directories(&trash)?;
        top.rename(&session, &trash.join("session"))?;
        crashpoint!("overlay.session-gone");
        let users = base.join("users");
        top.remove_file(&user)?;
        crashpoint!("overlay.no-user");
        if top.directory(&base)?.is_some()
            && (top.remove_directory(&users)? || top.directory(&users)?.is_none())
        {
            top.rename(&base, &trash.join("base"))?;
            crashpoint!("overlay.base-gone");
        }
    }
    // Not under the guard, because the time grows with the number of files that the session has written.
    top.remove_all(&trash)?;
    let _guard = guard(&overlays)?;
    for empty in ["sessions", "bases"] {
        top.remove_directory(Path::new(empty))?;
    }
    overlays.remove_directory(owner)?;
    Ok(())
}

/// Writes the `.git` file into the upper layers of an unmounted worktree, both at home and aside.
pub(super) fn rebind(task: &Task<'_>, worktree: &Worktree, paths: &WorktreePaths) -> Result<(), Error> {
    if !is_wanted(worktree) {
        return Ok(());
    }
    for location in [Location::Home, Location::Aside] {
        if let Some(overlay) = Overlay::existing(&Task { location, ..*task }, worktree)?
            && let Some(upper) = overlay.top.directory(&overlay.session.join("upper"))?
        {
            upper.replace(Path::new(".git"), &paths.dot_git_line())?;
        }
    }
    Ok(())
}

/// Returns whether a directory of the worktree has only files that seedbed wrote.
pub(super) fn is_bare(directory: &Path, worktree: &Worktree) -> Result<bool, Error> {
    upper_layer::is_nothing(directory, worktree)
}

/// Returns the unsaved work that [`remove`] would discard if the worktree's repository cannot be used, one line. If a
/// mount other than `own` still shows the layer, this is [`Error::Refused`].
pub(super) fn unsaved_work_outside(
    task: &Task<'_>,
    worktree: &Worktree,
    own: Option<&Path>,
) -> Result<Option<String>, Error> {
    if !is_wanted(worktree) {
        return Ok(None);
    }
    let Some(overlay) = Overlay::existing(task, worktree)? else { return Ok(None) };
    let Some(upper) = overlay.top.directory(&overlay.session.join("upper"))? else { return Ok(None) };
    let path = upper.path().display();
    if let Some(place) = mounts::shown_at(upper.path()).filter(|place| Some(place.as_path()) != own) {
        return Err(Error::Refused(format!("{path} is still mounted at {}: unmount it", place.display())));
    }
    let is_written = !upper_layer::is_nothing(upper.path(), worktree)?;
    Ok(is_written.then(|| format!("{path} has files that were written in the worktree: copy them elsewhere")))
}

/// Returns whether the worktree is planned as a mount but not mounted, for instance after a reboot.
pub(super) fn is_unmounted(worktree: &Worktree, paths: &WorktreePaths) -> Result<bool, Error> {
    if !is_wanted(worktree) {
        return Ok(false);
    }
    Ok(match paths.base.directory(&paths.parent)? {
        Some(parent) => !parent.is_mount_point(&paths.name)?,
        None => true,
    })
}

/// Locations of the layers of one worktree.
struct Overlay {
    /// Directory of all overlays.
    overlays: Root,
    /// Directory of the swarm's overlays.
    top: Root,
    /// Directory of the session's layers, relative to `top`, like `base`.
    session: PathBuf,
    base: PathBuf,
}

impl Overlay {
    fn create(task: &Task<'_>, worktree: &Worktree) -> Result<Self, Error> {
        let overlays = Root::create(&task.host.state.join(DIRECTORY))?;
        let top = overlays.create_directories(Path::new(task.owner))?;
        Ok(Self::below(overlays, top, task.location, worktree))
    }

    /// Opens the existing locations without creating a directory; `None` if they do not exist.
    fn existing(task: &Task<'_>, worktree: &Worktree) -> Result<Option<Self>, Error> {
        let overlays = match Root::open(&task.host.state) {
            Ok(state) => state.directory(Path::new(DIRECTORY))?,
            Err(files::Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        let Some(overlays) = overlays else { return Ok(None) };
        let top = overlays.directory(Path::new(task.owner))?;
        Ok(top.map(|top| Self::below(overlays, top, task.location, worktree)))
    }

    fn below(overlays: Root, top: Root, location: Location, worktree: &Worktree) -> Self {
        Self {
            overlays,
            top,
            session: session_at(location, worktree),
            base: Path::new("bases").join(base::name(worktree)),
        }
    }

    fn base_path(&self) -> PathBuf {
        self.top.path().join(&self.base)
    }

    /// Returns the file that records the session as a user of its base, relative to `top`.
    fn user(&self) -> PathBuf {
        self.base.join("users").join(self.session.file_name().unwrap_or_default())
    }

    /// Returns whether nothing was done in the worktree, mounted or not. That is so if only seedbed's files were
    /// written, the index is the base's, and HEAD is at the base's commit.
    fn is_pristine(&self, paths: &WorktreePaths, worktree: &Worktree) -> Result<bool, Error> {
        let Some(upper) = self.top.directory(&self.session.join("upper"))? else { return Ok(false) };
        Ok(upper_layer::is_at(paths, worktree)?
            && base::is_index(&self.base_path().join("index"), &paths.admin_directory_path().join("index"))
            && upper_layer::is_nothing(upper.path(), worktree)?)
    }

    /// Records the session as a user of its base before the base exists. From here on no other process removes the
    /// base.
    fn begin(&self) -> Result<(), Error> {
        let _guard = guard(&self.overlays)?;
        let users = self.top.create_directories(&self.base.join("users"))?;
        users.open_or_create(Path::new(self.session.file_name().unwrap_or_default()))?;
        crashpoint!("overlay.begun");
        Ok(())
    }

    fn has_upper(&self) -> Result<bool, Error> {
        Ok(self.top.directory(&self.session.join("upper"))?.is_some())
    }

    /// Mounts the worktree over the files that the session has written. Other layers that do not exist are created: the
    /// base is checked out from its commit.
    fn mount_again(&self, task: &Task<'_>, worktree: &Worktree, paths: &WorktreePaths) -> Result<(), Error> {
        self.complete_base(task, worktree)?;
        self.top.create_directories(&self.session.join("work"))?;
        self.mount(paths)
    }

    /// Checks the base out again if it is lost.
    fn complete_base(&self, task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
        if base::is_complete(self)? {
            return Ok(());
        }
        self.begin()?;
        base::make(task, worktree, self)
    }

    fn mount(&self, paths: &WorktreePaths) -> Result<(), Error> {
        let session = self.top.path().join(&self.session);
        let (lower, upper, work) =
            (self.base_path().join("tree"), session.join("upper"), session.join("work"));
        let directory = paths.open()?;
        mounts::mount(Layers { lower: &lower, upper: &upper, work: &work }, &directory).map_err(refused)
    }
}

/// Locks the users of bases against other changes, until the file is dropped. The lock is kept for a few file
/// operations only.
fn guard(overlays: &Root) -> Result<File, Error> {
    let file = overlays.open_or_create(Path::new(GUARD))?;
    file.lock().map_err(io("lock", &overlays.path().join(GUARD)))?;
    Ok(file)
}

fn refused(error: mounts::Error) -> Error {
    match error {
        mounts::Error::File(error) => Error::File(error),
        other => Error::Refused(other.to_string()),
    }
}
