//! Text files of a seed that name the directory in which the seed was populated.
//!
//! Scripts of a Python environment begin with `#!/DIRECTORY/.venv/bin/python`, and files for the compiler's
//! dependencies list absolute paths. A copy that kept these paths would run the program, or import the code, of another
//! session. So each copy gets its own directory in their place. Binary files are copied as they are.

use std::ffi::OsStr;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rustix::fs::{Mode, OFlags};

use crate::host::failpoint::failpoint;
use crate::host::files::tree_copy::{Listing, split};
use crate::host::files::{Error, Root};

/// Size limit of a text file, in bytes: generated lists of paths are shorter.
const TEXT_MAX: u64 = 4 << 20;

/// Returns the text files that name `directory`, or a path below it.
pub(super) fn find(top: &Root, listing: &Listing, directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let has_path = |path: &PathBuf| {
        let limit = usize::try_from(TEXT_MAX).unwrap_or(usize::MAX);
        let bytes = top.read(path, limit)?.unwrap_or_default();
        Ok((!bytes.contains(&0) && replaced(&bytes, directory, directory).is_some()).then(|| path.clone()))
    };
    let found: Vec<Result<_, Error>> = listing.small_files(TEXT_MAX).par_iter().map(has_path).collect();
    found.into_iter().filter_map(Result::transpose).collect()
}

/// Writes `into` in place of the directory `from` in these files of a copy, which keep their permissions and times.
pub(super) fn rewrite(copy: &Root, files: &[PathBuf], from: &Path, into: &Path) -> Result<(), Error> {
    files.iter().try_for_each(|path| {
        rewrite_file(copy, path, from, into).map_err(|error| match error {
            Rewrite::File(error) => error,
            Rewrite::Io(source) => Error::Io { action: "rewrite", path: copy.path().join(path), source },
        })
    })
}

enum Rewrite {
    File(Error),
    Io(std::io::Error),
}

impl<E: Into<std::io::Error>> From<E> for Rewrite {
    fn from(error: E) -> Self {
        Self::Io(error.into())
    }
}

fn rewrite_file(copy: &Root, path: &Path, from: &Path, into: &Path) -> Result<(), Rewrite> {
    let (directory, name) = split(copy, path).map_err(Rewrite::File)?;
    let open = |flags: OFlags| {
        rustix::fs::openat(&directory, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    };
    let original = rustix::fs::fstat(&open(OFlags::RDONLY)?)?;
    let mode = Mode::from_raw_mode(original.st_mode & 0o777);
    failpoint!("seeds.rewrite")?;
    rustix::fs::fchmod(open(OFlags::RDONLY)?, mode | Mode::WUSR)?;
    let mut file = std::fs::File::from(open(OFlags::RDWR)?);
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    if let Some(bytes) = replaced(&bytes, from, into) {
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(&bytes)?;
    }
    rustix::fs::futimens(&file, &crate::host::files::copies::times_of(&original, i64::MAX))?;
    Ok(rustix::fs::fchmod(&file, mode)?)
}

/// Returns the text with `into` in place of `from`, wherever the latter ends there; `None` if it does not occur.
fn replaced(text: &[u8], from: &Path, into: &Path) -> Option<Vec<u8>> {
    let (from, into) = (from.as_os_str().as_bytes(), into.as_os_str().as_bytes());
    let mut written = Vec::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(found) = find_bytes(&text[at..], from) {
        let (start, end) = (at + found, at + found + from.len());
        // `/work/coder` does not occur in `/work/coder-2`, nor in `/old/work/coder`.
        let is_whole = |byte: &u8| !(byte.is_ascii_alphanumeric() || b"-_.".contains(byte) || *byte >= 0x80);
        let begins = start == 0 || is_whole(&text[start - 1]);
        if begins && text.get(end).is_none_or(is_whole) {
            written.extend(&text[copied..start]);
            written.extend(into);
            copied = end;
        }
        at = end;
    }
    (copied > 0).then(|| {
        written.extend(&text[copied..]);
        written
    })
}

fn find_bytes(text: &[u8], wanted: &[u8]) -> Option<usize> {
    let last = *OsStr::from_bytes(wanted).as_bytes().last()?;
    // Few bytes of a text are the last one of a path, so that most windows are not compared.
    let mut end = wanted.len();
    while end <= text.len() {
        end += text[end - 1..].iter().position(|byte| *byte == last)?;
        if text[end - wanted.len()..end] == *wanted {
            return Some(end - wanted.len());
        }
        end += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(text: &str) -> Option<String> {
        let moved = replaced(text.as_bytes(), Path::new("/w/coder"), Path::new("/w/tester-2"));
        moved.map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn only_whole_paths_are_replaced() {
        let text = "#!/w/coder/.venv/bin/python\nHOME=\"/w/coder\"\nfile:///w/coder/x:/w/coder";
        let new = "#!/w/tester-2/.venv/bin/python\nHOME=\"/w/tester-2\"\nfile:///w/tester-2/x:/w/tester-2";
        assert_eq!(moved(text).as_deref(), Some(new));
        for text in ["", "/w/coder2", "/w/coder.old/x", "/w/coder-2", "a/w/coder", "/w/code", "/w/coderé"] {
            assert_eq!(moved(text), None, "{text}");
        }
        assert_eq!(moved("/w/coder2 /w/coder/").as_deref(), Some("/w/coder2 /w/tester-2/"));
    }
}
