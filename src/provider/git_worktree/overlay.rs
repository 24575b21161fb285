//! `checkout = "overlay"`: worktrees that are mounts over one checkout, which all of a commit and part share.
//!
//! ```text
//! STATE/overlays/.guard                          flock: who uses which base
//! STATE/overlays/OWNER/bases/HASH/tree           what git checked out, once; never written again
//! STATE/overlays/OWNER/bases/HASH/index          its index; once that is there, the base is whole
//! STATE/overlays/OWNER/bases/HASH/users/ENTRY    who uses it
//! STATE/overlays/OWNER/sessions/ENTRY/upper      what the session has written: its work
//! STATE/overlays/OWNER/sessions/ENTRY/work       the kernel's own
//! ```
//!
//! A base belongs to a swarm, and goes with its last user. On one file system an overlay shows the
//! inodes and times of its lower layer, so that the base's index is every session's: git compares, and opens no file.
//! The directory below a mount has a `.git` file too, so that unmounted, as after a reboot, it is still the worktree
//! of its entry; [`mend`] mounts it again over what the session has written.

mod base;
mod written;

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::names::list;
use super::site::{Site, io};
use super::{Checkout, Worktree, worktree};
use crate::host::failpoint::crashpoint;
use crate::host::files::{self, Root};
use crate::host::mounts::{self, Layers};
use crate::provider::{Error, Location, Losses, Task};

/// The directory of all overlays, in the state directory.
const DIRECTORY: &str = "overlays";

/// The file whose flock orders who uses which base.
const GUARD: &str = ".guard";

/// Whether a worktree is a mount.
pub(super) fn is_wanted(worktree: &Worktree) -> bool {
    worktree.checkout == Checkout::Overlay
}

/// The directory of the layers of a worktree, relative to that of the swarm's overlays.
fn session_at(location: Location, worktree: &Worktree) -> PathBuf {
    let entry = &worktree.entry;
    let name = match location {
        Location::Home => entry.clone(),
        Location::Aside => format!(".aside-{entry}"),
    };
    Path::new("sessions").join(name)
}

/// The directory of what one worktree keeps, relative to the state directory: its layer of what was written, and the
/// kernel's own.
pub(super) fn layers(task: &Task<'_>, worktree: &Worktree) -> PathBuf {
    Path::new(DIRECTORY).join(task.owner).join(session_at(task.location, worktree))
}

/// Mounts worktrees of one basis, over a base that the first of them gets checked out where there is none.
pub(super) fn fill(tasks: &[Task<'_>]) -> Vec<(usize, Error)> {
    let Some(first) = tasks.first() else { return Vec::new() };
    let begun = tasks.iter().try_for_each(|task| Overlay::of(task, &worktree(task)?)?.begin());
    // The others link to the index of the first: on another file system than the base's it is copied once.
    let begun = begun.and_then(|()| {
        let worktree = worktree(first)?;
        base::make(first, &worktree, &Overlay::of(first, &worktree)?)?;
        mount_new(first, None)
    });
    let first_index = match begun {
        Ok(index) => index,
        Err(error) => return vec![(0, error)],
    };
    let others = tasks.par_iter().enumerate().skip(1);
    others.filter_map(|(at, task)| Some((at, mount_new(task, Some(&first_index)).err()?))).collect()
}

/// Mounts a worktree for the first time, with a link to the index at `index`, or one of the base's own; gives where
/// its index is.
fn mount_new(task: &Task<'_>, index: Option<&Path>) -> Result<PathBuf, Error> {
    let worktree = worktree(task)?;
    let site = Site::of(task, &worktree)?;
    let overlay = Overlay::of(task, &worktree)?;
    let upper = overlay.top.create_directories(&overlay.session.join("upper"))?;
    overlay.top.create_directories(&overlay.session.join("work"))?;
    upper.remove_file(Path::new(".git"))?;
    upper.create_new(Path::new(".git"), &site.dot_git_line())?;
    let own = site.entry_path().join("index");
    base::link_index(index.unwrap_or(&overlay.base_path().join("index")), &own)?;
    crashpoint!("overlay.layered");
    overlay.mount(&site)?;
    task.filled.tell();
    Ok(own)
}

/// What is wrong with a worktree whose registration is sound; `None` where nothing is.
pub(super) enum Fault {
    /// It is not mounted, and can be.
    Unmounted(String),
    /// A layer of it is gone.
    Gone(String),
}

/// Looks whether the worktree is mounted, and if not, whether it can be.
pub(super) fn fault(task: &Task<'_>, worktree: &Worktree, site: &Site) -> Result<Option<Fault>, Error> {
    if !is_unmounted(worktree, site)? {
        return Ok(None);
    }
    let gone = |path: PathBuf| {
        let (worktree, path) = (site.home.display(), path.display());
        Ok(Some(Fault::Gone(format!("{worktree} is not mounted, and {path} is gone"))))
    };
    let Some(overlay) = Overlay::existing(task, worktree)? else {
        return gone(task.host.state.join(DIRECTORY).join(task.owner));
    };
    for layer in [overlay.base.join("tree"), overlay.session.join("upper"), overlay.session.join("work")] {
        if overlay.top.directory(&layer)?.is_none() {
            return gone(overlay.top.path().join(layer));
        }
    }
    if let Some(why) = covered(worktree, site)? {
        return Ok(Some(Fault::Gone(why)));
    }
    Ok(Some(Fault::Unmounted(format!("{} is not mounted", site.home.display()))))
}

/// Returns what was written into the directory of a worktree that is not mounted, where a mount would hide it, in words;
/// `None` where nothing was.
pub(super) fn covered(worktree: &Worktree, site: &Site) -> Result<Option<String>, Error> {
    if !is_unmounted(worktree, site)? {
        return Ok(None);
    }
    let Some(directory) = site.directory()? else { return Ok(None) };
    if written::is_nothing(directory.path(), worktree)? {
        return Ok(None);
    }
    let names = directory.names()?.into_iter().filter(|name| *name != ".git").collect();
    let path = site.home.display();
    Ok(Some(format!(
        "{path} is not mounted, and files were written into the directory meanwhile ({}), which a mount would hide; move \
         them away, then `seedbed apply` mounts it",
        list(&names)
    )))
}

/// Mounts the worktree again, if it is not.
pub(super) fn mend(task: &Task<'_>, worktree: &Worktree, site: &Site) -> Result<(), Error> {
    match fault(task, worktree, site)? {
        None => Ok(()),
        Some(Fault::Gone(why)) => Err(Error::Refused(why)),
        Some(Fault::Unmounted(_)) => Overlay::of(task, worktree)?.mount(site),
    }
}

/// Whether the session has written anything that is not seedbed's, into a worktree that is not mounted, and whose
/// changes git therefore cannot tell.
pub(super) fn hides_work(task: &Task<'_>, worktree: &Worktree, site: &Site) -> Result<bool, Error> {
    match hidden_layer(task, worktree, site)? {
        Some(layer) => Ok(!written::is_nothing(&layer, worktree)?),
        None => Ok(false),
    }
}

/// Returns the layer that holds what the session has written, if the worktree is not mounted; `None` if it is, or if the
/// layer does not exist.
pub(super) fn hidden_layer(
    task: &Task<'_>,
    worktree: &Worktree,
    site: &Site,
) -> Result<Option<PathBuf>, Error> {
    if !is_unmounted(worktree, site)? {
        return Ok(None);
    }
    let Some(overlay) = Overlay::existing(task, worktree)? else { return Ok(None) };
    let layer = overlay.top.directory(&overlay.session.join("upper"))?;
    Ok(layer.map(|layer| layer.path().to_owned()))
}

/// Returns whether the worktree is its base, for certain, without asking git: nothing was written but what is seedbed's,
/// the index is the base's, and HEAD is at the base's commit. It need not be mounted.
pub(super) fn is_untouched(task: &Task<'_>, worktree: &Worktree, site: &Site) -> Result<bool, Error> {
    if !is_wanted(worktree) || covered(worktree, site)?.is_some() {
        return Ok(false);
    }
    match Overlay::existing(task, worktree)? {
        Some(overlay) => overlay.is_as_made(site, worktree),
        None => Ok(false),
    }
}

/// Returns the directory of what the session has written, absolute, mounted or not; `None` for a worktree that is no overlay.
pub(super) fn upper(task: &Task<'_>, worktree: &Worktree) -> Option<PathBuf> {
    is_wanted(worktree).then(|| task.host.state.join(layers(task, worktree)).join("upper"))
}

/// Unmounts the worktree; one that somebody uses is [`Error::Refused`].
pub(super) fn unmount(worktree: &Worktree, site: &Site) -> Result<(), Error> {
    if is_wanted(worktree)
        && let Some(parent) = site.base.directory(&site.parent)?
    {
        mounts::unmount(&parent, &site.name).map_err(refused)?;
    }
    Ok(())
}

/// Gives the layers of an unmounted worktree another name, and mounts it at `aside` if something was done in it, so that
/// git can tell what.
pub(super) fn set_aside(task: &Task<'_>, worktree: &Worktree, aside: &Site) -> Result<(), Error> {
    rename_layers(task, worktree, Location::Home, Location::Aside)?;
    let at_aside = Task { location: Location::Aside, ..*task };
    if !is_wanted(worktree) || aside.directory()?.is_none() || !is_unmounted(worktree, aside)? {
        return Ok(());
    }
    match Overlay::existing(&at_aside, worktree)? {
        Some(overlay) if !overlay.is_as_made(aside, worktree)? => overlay.mount(aside),
        _ => Ok(()),
    }
}

/// Unmounts the worktree at `aside`, and gives its layers their name back.
pub(super) fn bring_back(task: &Task<'_>, worktree: &Worktree, aside: &Site) -> Result<(), Error> {
    unmount(worktree, aside)?;
    rename_layers(task, worktree, Location::Aside, Location::Home)
}

/// Mounts the worktree where it was, unless its layers are gone.
pub(super) fn mount_again(task: &Task<'_>, worktree: &Worktree, home: &Site) -> Result<(), Error> {
    let at_home = Task { location: Location::Home, ..*task };
    match fault(&at_home, worktree, home)? {
        Some(Fault::Unmounted(_)) if home.directory()?.is_some() => mend(&at_home, worktree, home),
        _ => Ok(()),
    }
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

/// Removes what an unmounted worktree had written, and the base that nobody else uses.
pub(super) fn remove(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    if !is_wanted(worktree) {
        return Ok(());
    }
    let Some(overlay) = Overlay::existing(task, worktree)? else { return Ok(()) };
    let user = overlay.user();
    let Overlay { overlays, top, session, base } = overlay;
    let owner = Path::new(task.owner);
    let trash = PathBuf::from(format!(".trash-{}", worktree.entry));
    top.remove_all(&trash)?;
    {
        let _guard = guard(&overlays)?;
        // Another session's release, beside this one, may have left nothing in it and taken it away.
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
    // Without the guard: this takes as long as what the session has written.
    top.remove_all(&trash)?;
    let _guard = guard(&overlays)?;
    for empty in ["sessions", "bases"] {
        top.remove_directory(Path::new(empty))?;
    }
    overlays.remove_directory(owner)?;
    Ok(())
}

/// Writes the worktree's `.git` file where the session's writes are kept, aside too; the worktree is not mounted.
pub(super) fn rebind(task: &Task<'_>, worktree: &Worktree, site: &Site) -> Result<(), Error> {
    if !is_wanted(worktree) {
        return Ok(());
    }
    for location in [Location::Home, Location::Aside] {
        if let Some(overlay) = Overlay::existing(&Task { location, ..*task }, worktree)?
            && let Some(upper) = overlay.top.directory(&overlay.session.join("upper"))?
        {
            upper.replace(Path::new(".git"), &site.dot_git_line())?;
        }
    }
    Ok(())
}

/// Returns what [`remove`] would lose of a worktree whose repository is gone. A mount that still shows it is
/// [`Error::Refused`].
pub(super) fn kept(task: &Task<'_>, worktree: &Worktree) -> Result<Losses, Error> {
    let mut losses = Losses::default();
    if !is_wanted(worktree) {
        return Ok(losses);
    }
    let Some(overlay) = Overlay::existing(task, worktree)? else { return Ok(losses) };
    let Some(upper) = overlay.top.directory(&overlay.session.join("upper"))? else { return Ok(losses) };
    let path = upper.path().display();
    if let Some(place) = mounts::shown_at(upper.path()) {
        return Err(Error::Refused(format!("{path} is still mounted at {}: unmount it", place.display())));
    }
    if !written::is_nothing(upper.path(), worktree)? {
        losses
            .beyond_rescue
            .push(format!("{path} holds what was written in the worktree: copy it elsewhere"));
    }
    Ok(losses)
}

/// Whether the worktree is a mount that is not there, as after a reboot.
pub(super) fn is_unmounted(worktree: &Worktree, site: &Site) -> Result<bool, Error> {
    if !is_wanted(worktree) {
        return Ok(false);
    }
    Ok(match site.base.directory(&site.parent)? {
        Some(parent) => !parent.is_mount_point(&site.name)?,
        None => true,
    })
}

/// Where the layers of one worktree lie.
struct Overlay {
    /// The directory of all overlays.
    overlays: Root,
    /// That of the swarm's.
    top: Root,
    /// Relative to `top`, as is `base`.
    session: PathBuf,
    base: PathBuf,
}

impl Overlay {
    fn of(task: &Task<'_>, worktree: &Worktree) -> Result<Self, Error> {
        let overlays = Root::create(&task.host.state.join(DIRECTORY))?;
        let top = overlays.create_directories(Path::new(task.owner))?;
        Ok(Self::below(overlays, top, task.location, worktree))
    }

    /// The same where it exists, for who only looks.
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

    /// The file that says that the session uses its base, relative to `top`.
    fn user(&self) -> PathBuf {
        self.base.join("users").join(self.session.file_name().unwrap_or_default())
    }

    /// Returns whether nothing was done in the worktree, mounted or not: nothing was written but what is seedbed's, the
    /// index is the base's, and HEAD is at the base's commit.
    fn is_as_made(&self, site: &Site, worktree: &Worktree) -> Result<bool, Error> {
        let Some(upper) = self.top.directory(&self.session.join("upper"))? else { return Ok(false) };
        Ok(written::is_at(site, worktree)?
            && base::is_index(&self.base_path().join("index"), &site.entry_path().join("index"))
            && written::is_nothing(upper.path(), worktree)?)
    }

    /// Says that the session uses its base, before there is one: from here on nobody takes it away.
    fn begin(&self) -> Result<(), Error> {
        let _guard = guard(&self.overlays)?;
        let users = self.top.create_directories(&self.base.join("users"))?;
        users.open_or_create(Path::new(self.session.file_name().unwrap_or_default()))?;
        crashpoint!("overlay.begun");
        Ok(())
    }

    fn mount(&self, site: &Site) -> Result<(), Error> {
        let session = self.top.path().join(&self.session);
        let (lower, upper, work) =
            (self.base_path().join("tree"), session.join("upper"), session.join("work"));
        let directory = site.standing()?;
        mounts::mount(Layers { lower: &lower, upper: &upper, work: &work }, &directory).map_err(refused)
    }
}

/// Holds every other change of who uses which base off, until the file is dropped. Held for a few file operations.
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
