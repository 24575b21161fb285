//! Determines the state directory from values of the environment that the caller has read. Pure.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::text::printable;

/// Values that determine the state directory. An empty value counts as `None`.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Places<'a> {
    /// `SEEDBED_STATE_DIR`: the state directory itself.
    pub chosen: Option<&'a OsStr>,
    /// `XDG_STATE_HOME`: the directory of all programs' state.
    pub xdg: Option<&'a OsStr>,
    /// Home directory of the user.
    pub home: Option<&'a Path>,
}

/// Reason for which no state directory is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `SEEDBED_STATE_DIR` is relative: in another directory it would name another state, in which nothing is leased.
    #[error("SEEDBED_STATE_DIR is {}, and has to be an absolute path", printable(&.0.to_string_lossy()))]
    Relative(PathBuf),
    /// None of the values names a directory.
    #[error(
        "there is no directory for state: neither HOME nor the user database names a home directory; set SEEDBED_STATE_DIR \
         or XDG_STATE_HOME to an absolute path"
    )]
    Nowhere,
}

/// Returns the state directory: `SEEDBED_STATE_DIR`, else `seedbed` in an absolute `XDG_STATE_HOME`, else
/// `.local/state/seedbed` in the home directory.
///
/// A relative `XDG_STATE_HOME` counts as `None`, as the specification of XDG directories requires.
pub fn state_directory(places: Places<'_>) -> Result<PathBuf, Error> {
    let path = |value: Option<&OsStr>| value.filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(chosen) = path(places.chosen) {
        return if chosen.is_absolute() { Ok(chosen) } else { Err(Error::Relative(chosen)) };
    }
    let xdg = path(places.xdg).filter(|xdg| xdg.is_absolute()).map(|xdg| xdg.join("seedbed"));
    let home = || Some(path(places.home.map(Path::as_os_str))?.join(".local/state/seedbed"));
    xdg.or_else(home).ok_or(Error::Nowhere)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(chosen: &str, xdg: &str, home: &str, expected: Result<&str, Error>) {
        let places =
            Places { chosen: Some(chosen.as_ref()), xdg: Some(xdg.as_ref()), home: Some(home.as_ref()) };
        assert_eq!(state_directory(places), expected.map(PathBuf::from));
    }

    #[test]
    fn the_state_directory_is_the_first_that_is_named() {
        check("/chosen", "/xdg", "/home/me", Ok("/chosen"));
        check("", "/xdg", "/home/me", Ok("/xdg/seedbed"));
        check("", "relative", "/home/me", Ok("/home/me/.local/state/seedbed"));
        check("", "", "", Err(Error::Nowhere));
        check("relative", "/xdg", "/home/me", Err(Error::Relative("relative".into())));
        assert_eq!(state_directory(Places::default()), Err(Error::Nowhere));
    }
}
