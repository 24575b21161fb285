//! Paths at which a process sees the directories of areas.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::Footprint;

/// Paths of directories in one mount namespace, with the index of the area that each belongs to.
#[derive(Debug, Default)]
pub(super) struct PathAliases(HashMap<PathBuf, usize>);

impl PathAliases {
    /// Returns the area of the innermost directory that is or contains `path`.
    pub(super) fn footprint(&self, path: &Path) -> Option<usize> {
        if !path.is_absolute() {
            return None;
        }
        path.ancestors().find_map(|above| self.0.get(above).copied())
    }
}

/// A directory by its file system, so that it is recognised at any path at which it is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Located {
    device: String,
    /// Path in the file system.
    path: PathBuf,
    footprint: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    /// Device, as `MAJOR:MINOR`.
    device: String,
    /// Directory of the file system that is mounted.
    root: PathBuf,
    /// Path of the mount point.
    point: PathBuf,
}

/// Names of areas in every mount namespace that has a process.
#[derive(Debug)]
pub(super) struct Namespaces {
    located: Vec<Located>,
    own: Arc<PathAliases>,
    own_namespace: Option<PathBuf>,
    others: Mutex<HashMap<PathBuf, Arc<PathAliases>>>,
}

impl Namespaces {
    pub(super) fn new(footprints: &[Footprint]) -> Self {
        let mounts = mounts(Path::new("/proc/self"));
        let located = located(footprints, &mounts);
        let mut own = aliases(&located, &mounts);
        // Directories that this process names keep these names, regardless of the mount table.
        for (at, footprint) in footprints.iter().enumerate() {
            own.0.extend(footprint.directories.iter().map(|directory| (directory.clone(), at)));
        }
        Self {
            located,
            own: Arc::new(own),
            own_namespace: std::fs::read_link("/proc/self/ns/mnt").ok(),
            others: Mutex::default(),
        }
    }

    /// Returns the names that are valid for a process, by its directory in `/proc`.
    pub(super) fn of_process(&self, process: &Path) -> Arc<PathAliases> {
        let namespace = std::fs::read_link(process.join("ns/mnt")).ok();
        let Some(namespace) = namespace.filter(|found| self.own_namespace.as_ref() != Some(found)) else {
            return Arc::clone(&self.own);
        };
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let names =
            others.entry(namespace).or_insert_with(|| Arc::new(aliases(&self.located, &mounts(process))));
        Arc::clone(names)
    }
}

/// Returns the mount table of a process; empty if it cannot be read.
fn mounts(process: &Path) -> Vec<Mount> {
    let table = std::fs::read(process.join("mountinfo")).unwrap_or_default();
    table.split(|byte| *byte == b'\n').filter_map(parse).collect()
}

/// Parses a line of `mountinfo` (`proc_pid_mountinfo(5)`).
fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ').skip(2);
    let device = String::from_utf8(fields.next()?.to_vec()).ok()?;
    Some(Mount { device, root: unescaped(fields.next()?), point: unescaped(fields.next()?) })
}

/// Resolves escapes: the kernel writes a blank, a tab, a line feed and a backslash as `\` and three octal digits.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal =
            after.get(..3).filter(|_| first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(byte);
            rest = &after[3..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// Returns mounts by their mount points. The last mount at a path hides the others.
fn by_point(mounts: &[Mount]) -> HashMap<&Path, &Mount> {
    mounts.iter().map(|mount| (mount.point.as_path(), mount)).collect()
}

/// Returns the mount that shows `path`.
fn mount_of<'m>(path: &Path, by_point: &HashMap<&Path, &'m Mount>) -> Option<&'m Mount> {
    path.ancestors().find_map(|above| by_point.get(above).copied())
}

/// Finds the directories of the areas in their file systems.
///
/// A directory that is a mount is found twice: the mounted directory, and the directory under it, which a namespace
/// without that mount shows.
fn located(footprints: &[Footprint], mounts: &[Mount]) -> Vec<Located> {
    let by_point = by_point(mounts);
    let locate = |path: &Path, name: &OsStr, footprint: usize| {
        let mount = mount_of(path, &by_point)?;
        let path = joined(&mount.root, path.strip_prefix(&mount.point).ok()?);
        Some(Located { device: mount.device.clone(), path: joined(&path, Path::new(name)), footprint })
    };
    let mut located = Vec::new();
    for (at, footprint) in footprints.iter().enumerate() {
        for directory in &footprint.directories {
            located.extend(locate(directory, OsStr::new(""), at));
            if by_point.contains_key(directory.as_path())
                && let (Some(parent), Some(name)) = (directory.parent(), directory.file_name())
            {
                located.extend(locate(parent, name, at));
            }
        }
    }
    located
}

/// Finds every path of a namespace that shows one of the directories, or a directory in one of them.
fn aliases(located: &[Located], mounts: &[Mount]) -> PathAliases {
    let by_point = by_point(mounts);
    let mut by_device: HashMap<&str, Vec<&Mount>> = HashMap::new();
    for mount in mounts {
        by_device.entry(&mount.device).or_default().push(mount);
    }
    let mut names = HashMap::new();
    // From the outermost directory to the innermost, so that the innermost counts if one mount shows both.
    let mut located: Vec<&Located> = located.iter().collect();
    located.sort_by_key(|directory| directory.path.components().count());
    for directory in located {
        for mount in by_device.get(directory.device.as_str()).into_iter().flatten() {
            let name = if let Ok(below) = directory.path.strip_prefix(&mount.root) {
                joined(&mount.point, below)
            } else if mount.root.starts_with(&directory.path) {
                mount.point.clone()
            } else {
                continue;
            };
            let is_shown = mount_of(&name, &by_point).is_some_and(|shown| std::ptr::eq(shown, *mount));
            if is_shown {
                names.insert(name, directory.footprint);
            }
        }
    }
    PathAliases(names)
}

/// Joins `directory` and a path in it, which may be empty.
fn joined(directory: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { directory.to_owned() } else { directory.join(below) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(device: &str, root: &str, point: &str) -> Mount {
        Mount { device: device.to_owned(), root: root.into(), point: point.into() }
    }

    #[test]
    fn a_line_of_the_mount_table_is_parsed() {
        let line = b"36 35 98:0 /mnt1 /a\\040b\\134c rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(parse(line), Some(mount("98:0", "/mnt1", "/a b\\c")));
        assert_eq!(parse(b"36 35 98:0 /mnt1"), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn a_directory_is_found_wherever_a_mount_shows_it_or_a_part_of_it() {
        let footprints = [
            Footprint { directories: vec!["/home/w".into()], ..Footprint::default() },
            Footprint { directories: vec!["/home/w/nested".into()], ..Footprint::default() },
            Footprint { directories: vec!["/home/overlay".into()], ..Footprint::default() },
        ];
        let host = [
            mount("8:1", "/", "/"),
            mount("8:2", "/", "/home"),
            mount("0:50", "/", "/home/overlay"),
            mount("8:2", "/w/build", "/elsewhere"),
        ];
        let located = located(&footprints, &host);
        let check = |names: &PathAliases, path: &str, footprint: Option<usize>| {
            assert_eq!(names.footprint(Path::new(path)), footprint, "{path}");
        };
        let names = aliases(&located, &host);
        check(&names, "/home/w", Some(0));
        check(&names, "/home/w/a", Some(0));
        check(&names, "/home/w/nested/a", Some(1));
        check(&names, "/home/ww", None);
        check(&names, "/home", None);
        check(&names, "/elsewhere/a", Some(0));
        check(&names, "/home/overlay/a", Some(2));
        check(&names, "socket:[1]", None);
        let container = [
            mount("0:60", "/", "/"),
            mount("8:2", "/w", "/work"),
            mount("8:2", "/overlay", "/under"),
            mount("0:50", "/sub", "/sub"),
            mount("8:2", "/other", "/home/w"),
            mount("8:2", "/", "/all"),
            mount("0:60", "/", "/all/w"),
        ];
        let names = aliases(&located, &container);
        check(&names, "/work/a", Some(0));
        check(&names, "/work/nested/a", Some(1));
        check(&names, "/under/a", Some(2));
        check(&names, "/sub/a", Some(2));
        check(&names, "/home/w/a", None);
        check(&names, "/all/w/a", None);
        check(&names, "/all/w/nested/a", None);
        check(&names, "/all/overlay", Some(2));
    }
}
