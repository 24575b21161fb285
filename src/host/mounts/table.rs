//! Mounts that this process sees.

#![expect(clippy::disallowed_methods, reason = "reads the table of mounts")]

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::files;

/// Table of mounts, in the kernel's order: a later mount covers an earlier one at the same path.
const TABLE: &str = "/proc/self/mountinfo";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Absolute path of the mount point. A path that is not UTF-8 has replacement characters.
    pub(crate) place: String,
    /// Type of the file system: `overlay`, `ext4`.
    pub(crate) file_system: String,
    /// Device or name that is mounted.
    pub(crate) source: String,
    /// Options of the file system, separated by commas: `lowerdir=…,upperdir=…`.
    pub(crate) options: String,
}

/// Returns the table of mounts as the kernel prints it, for [`at_or_below`]; empty on systems without one, such as all
/// but Linux.
pub(crate) fn table() -> Result<String, files::Error> {
    match std::fs::read(TABLE) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound && cfg!(not(target_os = "linux")) => {
            Ok(String::new())
        }
        Err(source) => Err(files::Error::Io { action: "read", path: PathBuf::from(TABLE), source }),
    }
}

/// Returns the mounts of a table at a path and below it.
pub(crate) fn at_or_below(table: &str, path: &Path) -> Vec<Mount> {
    // The table escapes four bytes. A line without the beginning of the path need not be parsed.
    let text = path.to_string_lossy();
    let plain = text.split([' ', '\t', '\n', '\\']).next().unwrap_or_default();
    let lines = table.lines().filter(|line| line.contains(plain));
    lines
        .filter_map(parse)
        .filter(|mount| {
            mount.place.strip_prefix(&*text).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
        .collect()
}

/// Parses a line: `ID PARENT DEVICE ROOT PLACE OPTIONS [TAG...] - TYPE SOURCE OPTIONS`.
fn parse(line: &str) -> Option<Mount> {
    let (mount, file_system) = line.split_once(" - ")?;
    let place = mount.split(' ').nth(4)?;
    let mut words = file_system.split(' ');
    let (file_system, source) = (words.next()?, words.next()?);
    Some(Mount {
        place: unescaped(place),
        file_system: file_system.to_owned(),
        source: unescaped(source),
        options: unescaped(words.next().unwrap_or_default()),
    })
}

/// Resolves the kernel's escapes: a backslash and three octal digits.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        if let Some(byte) = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            plain.push(char::from(byte));
            plain.push_str(&part[3..]);
        } else {
            plain.push('\\');
            plain.push_str(part);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_read_as_the_kernel_escapes_it() {
        let table = "24 1 254:0 / / rw - ext4 /dev/vda rw\n\
                     30 24 254:0 /else\\040where /w/a\\040b/build rw shared:1 master:2 - ext4 /dev/vda rw\n\
                     31 24 0:40 / /w/a\\040b rw - overlay seedbed rw,upperdir=/s/x\\054y\n\
                     32 24 0:41 / /w/a\\040b-c rw - tmpfs none rw\n";
        let found = at_or_below(table, Path::new("/w/a b"));
        let shown: Vec<_> =
            found.iter().map(|mount| (mount.place.as_str(), mount.file_system.as_str())).collect();
        assert_eq!(shown, [("/w/a b/build", "ext4"), ("/w/a b", "overlay")]);
        assert_eq!(found[1].source, "seedbed");
        assert_eq!(found[1].options, "rw,upperdir=/s/x,y");
        assert_eq!(at_or_below(table, Path::new("/w/a")), []);
    }
}
