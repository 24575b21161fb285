//! Seeds: directories such as `node_modules` that one command has populated, and that sessions get copies of.
//!
//! ```text
//! STATE/seeds/DIGEST/seed.json   document of the seed
//! STATE/seeds/DIGEST/tree        the directory
//! STATE/seeds/DIGEST.lock        flock: one run at a time makes, copies or removes the seed
//! STATE/seeds/DIGEST.log         output of the command that populates the seed
//! ```
//!
//! A seed is complete from its first moment: it is renamed into place. A run that is killed before leaves a temporary
//! directory, which the next run removes.

mod relocation;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::failpoint::crashpoint;
use super::files::tree_copy::{Failure, Listing};
use super::files::{self, Root};
use super::process::Cancel;
use super::{Host, clock};
use crate::name::sha256_hex;

/// Version of the format of [`Seed`].
pub const SCHEMA_VERSION: u32 = 1;

/// Time after which [`reap`] removes a seed that no session was given a copy of.
pub const UNUSED_MAX: Duration = Duration::from_hours(14 * 24);

const DIRECTORY: &str = "seeds";
const DOCUMENT: &str = "seed.json";
const TREE: &str = "tree";
const LOCK: &str = "lock";
const LOG: &str = "log";

/// Size limit of a document, in bytes.
const DOCUMENT_MAX: usize = 4 << 20;

/// Interval of attempts while waiting for a lock.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// Number of hexadecimal digits of a name.
const NAME_DIGITS: usize = 32;

/// Document of a seed, `seed.json` beside its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("$id" = "urn:seedbed:seed:1"))]
#[non_exhaustive]
pub struct Seed {
    /// Version of the format of this document, [`SCHEMA_VERSION`].
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// Digest of everything that decides the content, as hexadecimal SHA-256.
    pub key: String,
    /// Common Git directory of the repository, absolute.
    pub repository: PathBuf,
    /// Path of the directory, relative to the working directory of sessions.
    pub path: String,
    /// Program and arguments that populated the directory.
    pub command: Vec<String>,
    /// Worktree in which the command ran, absolute.
    pub origin: PathBuf,
    /// Text files that name the worktree, relative to the directory. Each copy names its own worktree instead.
    pub relocated: Vec<PathBuf>,
    /// Time of creation, in UTC as RFC 3339.
    pub created: String,
    /// Time of the last copy, in UTC as RFC 3339.
    pub used: String,
    /// Number of files and links.
    pub files: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Bytes that share blocks on the disk with the first worktree, as copies will with the seed. 0 if the file system
    /// cannot share blocks.
    pub shared_bytes: u64,
}

/// Everything that decides a seed, except its files.
#[derive(Clone, Debug)]
pub(crate) struct Origin<'a> {
    /// Path of the directory, relative to the working directory of sessions.
    pub(crate) path: &'a str,
    /// Program and arguments that populated the directory.
    pub(crate) command: Vec<String>,
    /// Worktree in which the command ran, absolute.
    pub(crate) worktree: &'a Path,
}

impl Seed {
    /// Returns the time since the creation.
    pub fn age(&self) -> Duration {
        since(&self.created)
    }

    /// Returns the time since the last copy.
    pub fn unused_for(&self) -> Duration {
        since(&self.used)
    }

    /// Returns the directory of the seed in the state directory of a host.
    pub fn directory(&self, host: &Host) -> PathBuf {
        host.state.join(DIRECTORY).join(name(&self.repository, &self.key))
    }
}

fn since(time: &str) -> Duration {
    Duration::from_secs(clock::parse(time).map_or(0, |time| clock::seconds().saturating_sub(time)))
}

fn name(repository: &Path, key: &str) -> String {
    let identity = format!("{}\0{key}", repository.to_string_lossy());
    sha256_hex(identity.as_bytes())[..NAME_DIGITS].to_owned()
}

/// Returns the complete seeds of this host. Those that cannot be read are left out.
pub fn all(host: &Host) -> Vec<Seed> {
    let Ok(seeds) = Root::open(&host.state.join(DIRECTORY)) else { return Vec::new() };
    let names = seeds.names().unwrap_or_default();
    let mut all: Vec<Seed> = names.iter().filter_map(|name| read(&seeds, name)).collect();
    all.sort_by(|one, other| {
        (&one.repository, &one.path, &one.created, &one.key).cmp(&(
            &other.repository,
            &other.path,
            &other.created,
            &other.key,
        ))
    });
    all
}

/// Reads the document of a seed; `None` if there is none, or if it belongs to another name.
fn read(seeds: &Root, of: &OsStr) -> Option<Seed> {
    let bytes = seeds.read(&Path::new(of).join(DOCUMENT), DOCUMENT_MAX).ok()??;
    let seed: Seed = serde_json::from_slice(&bytes).ok()?;
    (seed.schema_version == SCHEMA_VERSION && *name(&seed.repository, &seed.key) == *of).then_some(seed)
}

/// Removes the seeds that no session will need: those of repositories that no longer exist, those that were not copied
/// for [`UNUSED_MAX`], and what incomplete ones left. A seed that a run uses now is left. Returns the complete seeds that
/// were removed.
///
/// # Errors
///
/// The state directory cannot be changed.
pub fn reap(host: &Host) -> Result<Vec<Seed>, files::Error> {
    let directory = host.state.join(DIRECTORY);
    let Ok(seeds) = Root::open(&directory) else { return Ok(Vec::new()) };
    seeds.sweep()?;
    let is_name = |name: &str| name.len() == NAME_DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let names = seeds.names()?.into_iter().filter_map(|name| name.into_string().ok());
    let names = names.map(|name| name.split('.').next().unwrap_or_default().to_owned());
    let mut reaped = Vec::new();
    for name in names.filter(|name| is_name(name)).collect::<BTreeSet<_>>() {
        let Some(locked) = LockedSeed::try_lock(Root::open(&directory)?, name)? else { continue };
        let seed = read(&locked.seeds, locked.name.as_ref());
        let is_needed = |seed: &Seed| Root::open(&seed.repository).is_ok() && seed.unused_for() < UNUSED_MAX;
        if !seed.as_ref().is_some_and(is_needed) {
            locked.remove()?;
            reaped.extend(seed);
        }
    }
    Ok(reaped)
}

/// A seed that only this run makes, copies or removes, until it is dropped. It need not exist.
pub(crate) struct LockedSeed {
    seeds: Root,
    name: String,
    _lock: File,
}

/// A complete seed that has all its files.
pub(crate) struct CompleteSeed {
    pub(crate) seed: Seed,
    tree: Root,
    listing: Listing,
}

impl LockedSeed {
    /// Waits until no other run makes or copies the seed; `None` if the run is cancelled meanwhile.
    ///
    /// Waits without a limit: the other run may install dependencies for minutes. A run holds no second lock while it
    /// waits, so two runs never wait for each other.
    pub(crate) fn lock(
        host: &Host,
        repository: &Path,
        key: &str,
        cancel: &Cancel,
    ) -> Result<Option<Self>, files::Error> {
        Root::create_private(&host.state)?;
        while !cancel.is_requested() {
            let seeds = Root::create(&host.state.join(DIRECTORY))?;
            if let Some(locked) = Self::try_lock(seeds, name(repository, key))? {
                locked.seeds.sweep()?;
                return Ok(Some(locked));
            }
            std::thread::sleep(LOCK_POLL);
        }
        Ok(None)
    }

    fn try_lock(seeds: Root, name: String) -> Result<Option<Self>, files::Error> {
        let file = PathBuf::from(&name).with_extension(LOCK);
        let lock = seeds.open_or_create(&file)?;
        let path = seeds.path().join(&file);
        match lock.try_lock() {
            // The last owner may have removed the file after it was opened here.
            Ok(()) => Ok(is_at(&lock, &path).then_some(Self { seeds, name, _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(files::Error::Io { action: "lock", path, source }),
        }
    }

    /// Creates the log of the command that populates the seed, and returns it with its path.
    pub(crate) fn create_log(&self) -> Result<(File, PathBuf), files::Error> {
        let log = Path::new(&self.name).with_extension(LOG);
        self.seeds.remove_file(&log)?;
        Ok((self.seeds.open_or_create(&log)?, self.seeds.path().join(log)))
    }

    /// Returns the seed; `None` if it has to be made, because there is none or because files are missing.
    pub(crate) fn complete(&self) -> Result<Option<CompleteSeed>, files::Error> {
        let Some(seed) = read(&self.seeds, self.name.as_ref()) else { return Ok(None) };
        let Some(tree) = self.seeds.directory(&Path::new(&self.name).join(TREE))? else { return Ok(None) };
        let listing = Listing::read(&tree)?;
        let is_complete = (listing.files, listing.bytes) == (seed.files, seed.bytes);
        Ok(is_complete.then_some(CompleteSeed { seed, tree, listing }))
    }

    /// Makes the seed a copy of a directory, in one step.
    pub(crate) fn make(
        &self,
        repository: &Path,
        key: &str,
        origin: Origin<'_>,
        from: &Root,
        cancel: &Cancel,
    ) -> Result<(), Failure> {
        let listing = Listing::read(from)?;
        let created = clock::now();
        let seed = Seed {
            schema_version: SCHEMA_VERSION,
            key: key.to_owned(),
            repository: repository.to_owned(),
            path: origin.path.to_owned(),
            command: origin.command,
            origin: origin.worktree.to_owned(),
            relocated: relocation::find(from, &listing, origin.worktree)?,
            used: created.clone(),
            created,
            files: listing.files,
            bytes: listing.bytes,
            shared_bytes: 0,
        };
        crashpoint!("seeds.make");
        self.seeds.remove_all(Path::new(&self.name))?;
        let temporary = self.seeds.make_temporary_directory(self.name.as_ref())?;
        let path = Path::new(&temporary.name);
        let made = self.fill(path, seed, from, &listing, cancel);
        if made.is_err() {
            self.seeds.remove_all(path)?;
        }
        made
    }

    fn fill(
        &self,
        path: &Path,
        seed: Seed,
        from: &Root,
        listing: &Listing,
        cancel: &Cancel,
    ) -> Result<(), Failure> {
        let tree = self.seeds.create_directories(&path.join(TREE))?;
        let shared_bytes = listing.copy(from, &[tree], i64::MAX, cancel).map_err(|(_, failure)| failure)?;
        crashpoint!("seeds.copied");
        self.write(&path.join(DOCUMENT), &Seed { shared_bytes, ..seed })?;
        crashpoint!("seeds.place");
        self.seeds.rename(path, Path::new(&self.name))?;
        crashpoint!("seeds.placed");
        Ok(self.seeds.sync()?)
    }

    /// Records that the seed is used now.
    pub(crate) fn note_use(&self, seed: &CompleteSeed) -> Result<(), files::Error> {
        let seed = Seed { used: clock::now(), ..seed.seed.clone() };
        self.write(&Path::new(&self.name).join(DOCUMENT), &seed)
    }

    fn write(&self, path: &Path, seed: &Seed) -> Result<(), files::Error> {
        let written = serde_json::to_vec_pretty(seed);
        let mut bytes = written.map_err(|error| files::Error::Io {
            action: "write",
            path: self.seeds.path().join(path),
            source: error.into(),
        })?;
        bytes.push(b'\n');
        self.seeds.replace(path, &bytes)
    }

    /// Removes the seed with its log and its lock.
    fn remove(&self) -> Result<(), files::Error> {
        let path = Path::new(&self.name);
        crashpoint!("seeds.remove");
        // The document is removed first: an incomplete tree is no seed.
        self.seeds.remove_file(&path.join(DOCUMENT))?;
        self.seeds.remove_all_in_parallel(path)?;
        self.seeds.remove_file(&path.with_extension(LOG))?;
        self.seeds.remove_file(&path.with_extension(LOCK)).map(drop)
    }
}

impl CompleteSeed {
    /// Copies the seed to empty directories, each in the worktree beside it in `to`. Copies are not newer than `latest`, in
    /// seconds: build tools take a result that is newer than its source for the result of this source. Returns the bytes
    /// of one copy that share blocks with the seed. An error has the position of the directory, as in [`Listing::copy`].
    pub(crate) fn copy(
        &self,
        to: &[Root],
        worktrees: &[&Path],
        latest: i64,
        cancel: &Cancel,
    ) -> Result<u64, (Option<usize>, Failure)> {
        let shared = self.listing.copy(&self.tree, to, latest, cancel)?;
        crashpoint!("seeds.relocate");
        for (at, (to, worktree)) in to.iter().zip(worktrees).enumerate() {
            relocation::rewrite(to, &self.seed.relocated, &self.seed.origin, worktree)
                .map_err(|error| (Some(at), error.into()))?;
        }
        Ok(shared)
    }
}

/// Returns whether an open file is the one at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    let there = rustix::fs::lstat(path);
    there.is_ok_and(|there| file.metadata().is_ok_and(|own| own.ino() == there.st_ino))
}
