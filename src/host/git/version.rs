//! Version of Git, determined once for each program of a host, before any other call.

#![expect(clippy::disallowed_methods, reason = "tells a program from the one that is put in its place")]

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{Error, Git};
use crate::host::{Host, process};

/// Oldest Git that works: `rev-parse --path-format` was added in it.
pub(crate) const OLDEST: (u32, u32) = (2, 31);

/// Oldest Git with every feature that seedbed uses: `git hook run` and `core.fsync`.
pub(crate) const WANTED: (u32, u32) = (2, 36);

/// Identity of a program file when its version was determined: path, inode, and time of its last change.
pub(super) type Program = (PathBuf, u64, (i64, i64));

/// Version text of each program. A Git that replaces another one is asked again.
pub(super) type Texts = Mutex<HashMap<Program, String>>;

/// Returns the version text of Git: `git version 2.47.3`.
pub(crate) fn text(host: &Host) -> Result<String, Error> {
    let program = program(&host.environment);
    // A second thread waits for the answer that the first one gets.
    let mut known = host.git.texts.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(text) = program.as_ref().and_then(|program| known.get(program)) {
        return Ok(text.clone());
    }
    let process = Git::discover(host, Path::new("/")).process_without_version(["version"])?;
    let command = process.command();
    let printed = process.output()?.success(command)?;
    let text = String::from_utf8_lossy(&printed).trim().to_owned();
    if let Some(program) = program {
        known.insert(program, text.clone());
    }
    Ok(text)
}

/// Checks that Git exists and is not older than [`OLDEST`]. A Git with an unknown version counts as new enough.
pub(crate) fn require(host: &Host) -> Result<(), Error> {
    match number(&text(host)?) {
        Some(number) if number < OLDEST => Err(Error::TooOld {
            program: "git".to_owned(),
            version: format!("{}.{}", number.0, number.1),
            needed: format!("{}.{}", OLDEST.0, OLDEST.1),
        }),
        _ => Ok(()),
    }
}

/// Parses `git version 2.47.3`, with any suffix of a vendor.
pub(crate) fn number(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.strip_prefix("git version ")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn program(variables: &[(OsString, OsString)]) -> Option<Program> {
    let path = PathBuf::from(process::found("git".as_ref(), variables)?);
    let file = std::fs::metadata(&path).ok()?;
    Some((path, file.ino(), (file.mtime(), file.mtime_nsec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Such as a program that chooses among several by a variable of the environment.
    #[test]
    fn version_is_cached_for_each_host() {
        let directory = tempfile::tempdir().unwrap();
        let git = directory.path().join("git");
        std::fs::write(&git, "#!/bin/sh\necho \"git version $CHOSEN\"\n").unwrap();
        std::fs::set_permissions(&git, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let host = |chosen: &str| {
            let variables = [("PATH", directory.path().as_os_str()), ("CHOSEN", chosen.as_ref())];
            let variables = variables.map(|(name, value)| (name.into(), value.to_owned()));
            Host::new(variables.into(), directory.path().join("state"))
        };
        let (old, new) = (host("2.20.0"), host("2.47.0"));
        assert!(matches!(require(&old), Err(Error::TooOld { .. })));
        assert!(require(&new).is_ok());
        assert_eq!(text(&old.clone()).unwrap(), "git version 2.20.0");
    }

    #[test]
    fn git_versions_are_parsed() {
        for (text, expected) in [
            ("git version 2.47.3", Some((2, 47))),
            ("git version 2.39.5 (Apple Git-154)", Some((2, 39))),
            ("git version 2.20", Some((2, 20))),
            ("git version 3.0.rc1.windows.1", Some((3, 0))),
            ("hub version 2", None),
            ("", None),
        ] {
            assert_eq!(number(text), expected, "{text:?}");
        }
    }
}
