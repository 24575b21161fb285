//! Checks out one directory instead of the whole tree: the patterns, and the setting that the repository shares.
//!
//! Git reads `config.worktree` of an admin directory only if the shared config sets `extensions.worktreeConfig`. It is
//! set once, and removed with the last worktree that needs it. If the file has not been changed since, it is restored
//! byte for byte.

#![expect(clippy::disallowed_methods, reason = "edits the repository's config by git's own protocol")]

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Worktree;
use super::paths::{WorktreePaths, io};
use super::repository::Lock;
use crate::host::failpoint::{crashpoint, failpoint};
use crate::host::git::Git;
use crate::host::git::config::{self, Settings, is_on};
use crate::name::sha256_hex;
use crate::provider::{Error, Task};

/// Content of `config.worktree` in the admin directory, as `git sparse-checkout set --cone` writes it.
pub(super) const CONFIG: &str = "[core]\n\tsparseCheckout = true\n\tsparseCheckoutCone = true\n";

const SETTING: &str = "extensions.worktreeconfig";
const CONFIG_MAX: usize = 4 * 1024 * 1024;
/// Maximum number of attempts to change the shared config while another process changes it or has its lock. With the
/// pauses this takes two seconds, as long as Git itself waits for an important lock.
const TRIES: u64 = 20;

/// Returns the `info/sparse-checkout` of the admin directory for one directory, in cone mode, as `git sparse-checkout
/// set --cone` writes it.
///
/// The files beside every directory on the path are part of a cone. A name with a line break cannot be written.
pub(super) fn patterns(target: &str) -> Result<String, Error> {
    if target.contains(['\n', '\0']) {
        return Err(Error::Refused(format!(
            "{target:?} has a line break, which a sparse checkout cannot have"
        )));
    }
    let mut text = String::from("/*\n!/*/\n");
    let mut path = String::new();
    let mut names = target.split('/').peekable();
    while let Some(name) = names.next() {
        path.push('/');
        for c in name.chars() {
            if matches!(c, '*' | '?' | '[' | '\\') {
                path.push('\\');
            }
            path.push(c);
        }
        text.push_str(&path);
        text.push_str("/\n");
        if names.peek().is_some() {
            text.push('!');
            text.push_str(&path);
            text.push_str("/*/\n");
        }
    }
    Ok(text)
}

/// Record of a repository whose shared config has our setting.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Record {
    schema_version: u32,
    /// Config before the change.
    before: String,
    /// SHA-256 of the config after the change.
    after: String,
}

/// Makes Git read the config of admin directories, unless it does already.
pub(super) fn enable(task: &Task<'_>, paths: &WorktreePaths, lock: &Lock) -> Result<(), Error> {
    let before = config(paths)?;
    if record(lock)?.is_some_and(|record| record.after == sha256_hex(before.as_bytes())) {
        return Ok(());
    }
    let settings = settings(task, paths)?;
    if is_on(&settings, SETTING) {
        return Ok(());
    }
    for (name, refused) in [
        ("core.bare", is_on(&settings, "core.bare")),
        ("core.worktree", settings.contains_key("core.worktree")),
    ] {
        if refused {
            return Err(Error::Refused(format!(
                "{} sets {name}, which git would apply to every worktree once extensions.worktreeConfig is on, as a \
                 target-path needs, and files of a session that the repository does not ignore; leave them out",
                paths.common.path().join("config").display()
            )));
        }
    }
    let line_break = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
    let after = format!("{before}{line_break}[extensions]\n\tworktreeConfig = true\n");
    let record = Record { schema_version: 1, before: before.clone(), after: sha256_hex(after.as_bytes()) };
    let json = serde_json::to_vec(&record).map_err(|error| Error::Refused(error.to_string()))?;
    lock.records.replace(&lock.record, &json)?;
    crashpoint!("sparse.recorded");
    if change(paths, &before, &after, &record)? { Ok(()) } else { Err(busy(paths)) }
}

/// Removes the setting if we made it and no worktree needs it any more.
pub(super) fn disable(task: &Task<'_>, paths: &WorktreePaths, lock: &Lock) -> Result<(), Error> {
    let Some(record) = record(lock)? else { return Ok(()) };
    if is_needed(paths)? {
        return Ok(());
    }
    let now = config(paths)?;
    if sha256_hex(now.as_bytes()) == record.after {
        if !change(paths, &now, &record.before, &record)? {
            return Err(busy(paths));
        }
    } else if is_on(&settings(task, paths)?, SETTING) {
        let unset = ["config", "--local", "--unset-all", SETTING];
        Git::open(task.host, paths.common.path(), None).run_beside_others(&unset)?;
    }
    remove_stale_lock(paths, &record)?;
    lock.records.remove_file(&lock.record)?;
    Ok(())
}

/// Returns whether this worktree may have made the setting necessary.
pub(super) fn is_wanted(task: &Task<'_>, worktree: &Worktree) -> bool {
    worktree.target_path.is_some() || !task.files.is_empty() || worktree.seeded().next().is_some()
}

fn is_needed(paths: &WorktreePaths) -> Result<bool, Error> {
    let own = Path::new("config.worktree");
    if paths.common.names()?.contains(own.as_os_str()) {
        return Ok(true);
    }
    let Some(entries) = paths.common.directory(Path::new("worktrees"))? else { return Ok(false) };
    for name in entries.names()? {
        if entries.directory(Path::new(&name))?.is_some_and(|admin| {
            // An admin directory that cannot be read may need the setting.
            admin.names().map_or(true, |names| names.contains(own.as_os_str()))
        }) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Replaces the shared config under Git's own lock for it. Returns `false` if the config is not `from`, or if another
/// process has the lock for too long.
fn change(paths: &WorktreePaths, from: &str, to: &str, record: &Record) -> Result<bool, Error> {
    let (path, lock) = (Path::new("config"), Path::new("config.lock"));
    let (full_path, full_lock) = (paths.common.path().join(path), paths.common.path().join(lock));
    remove_stale_lock(paths, record)?;
    for attempt in 0..TRIES {
        if paths.common.create_new(lock, to.as_bytes())? {
            let mode = fs::metadata(&full_path).map_err(io("inspect", &full_path))?.permissions();
            failpoint!("sparse.set-mode")
                .map_err(std::io::Error::from)
                .and_then(|()| fs::set_permissions(&full_lock, mode))
                .map_err(io("set the mode of", &full_lock))?;
            if config(paths)? == from {
                paths.common.rename(lock, path)?;
                crashpoint!("sparse.changed");
                return Ok(true);
            }
            paths.common.remove_file(lock)?;
            return Ok(false);
        }
        std::thread::sleep(std::time::Duration::from_millis(10 * attempt));
    }
    Ok(false)
}

/// Removes a `config.lock` that a killed run left. Such a lock has exactly the content to write, because it is complete
/// from its first moment. Any other lock belongs to another Git process.
fn remove_stale_lock(paths: &WorktreePaths, record: &Record) -> Result<(), Error> {
    let lock = Path::new("config.lock");
    let Some(bytes) = paths.common.read(lock, CONFIG_MAX)? else { return Ok(()) };
    if bytes == record.before.as_bytes() || sha256_hex(&bytes) == record.after {
        paths.common.remove_file(lock)?;
    }
    Ok(())
}

fn config(paths: &WorktreePaths) -> Result<String, Error> {
    let path = Path::new("config");
    let bytes = paths.common.read(path, CONFIG_MAX)?.unwrap_or_default();
    String::from_utf8(bytes).map_err(|_| {
        Error::Refused(format!(
            "{} is not UTF-8; leave out the target-path",
            paths.common.path().join(path).display()
        ))
    })
}

/// Reads the settings of only the shared config file, as Git does for extensions.
fn settings(task: &Task<'_>, paths: &WorktreePaths) -> Result<Settings, Error> {
    let file = paths.common.path().join("config");
    let args = ["config".as_ref(), "--file".as_ref(), file.as_os_str(), "-z".as_ref(), "--list".as_ref()];
    let listed = Git::open(task.host, paths.common.path(), None).run(args)?;
    Ok(config::parse(&listed))
}

fn record(lock: &Lock) -> Result<Option<Record>, Error> {
    // If the record cannot be read, the setting is treated as one that existed before.
    Ok(lock.records.read(&lock.record, 2 * CONFIG_MAX)?.and_then(|json| serde_json::from_slice(&json).ok()))
}

fn busy(paths: &WorktreePaths) -> Error {
    Error::Refused(format!(
        "{} is being changed by another program",
        paths.common.path().join("config").display()
    ))
}
