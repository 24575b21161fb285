//! Files that `-o` names.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;

use seedbed::host::text::{printable, shell_quoted};
use seedbed::report::error;

use super::exit::Failure;
use super::{Global, output, project};

/// Number of bytes of a file in which the mark of an earlier output stands.
const BEGINNING: u64 = 1 << 16;

/// Writes a text into the file that `-o` names, as [`create`] does, or prints it. Returns the path as a word for a shell, unless
/// the text was printed or messages are off.
pub(super) fn write_or_print(
    global: &Global,
    path: Option<&Path>,
    mark: &str,
    text: &str,
) -> Result<Option<String>, Failure> {
    let Some(path) = path else {
        output::print(text);
        return Ok(None);
    };
    let file = project::directory(global)?.join(path);
    let mut created = create(&file, mark)?;
    created.write_all(text.as_bytes()).map_err(|error| unwritten(&file, &error))?;
    Ok((!global.quiet).then(|| shell_quoted(&printable(&path.to_string_lossy()))))
}

/// Creates the file that `-o` names, or replaces an earlier output: a file whose beginning contains `mark`. An error if it
/// has other content, such as a manifest.
#[expect(clippy::disallowed_methods, reason = "writes the file that the user names")]
pub(super) fn create(path: &Path, mark: &str) -> Result<File, Failure> {
    if !is_replaceable(path, mark) {
        let message =
            format!("{} exists, and this command did not write it", printable(&path.to_string_lossy()));
        return Err(Failure::new(error::OUTPUT_EXISTS, message));
    }
    File::create(path).map_err(|error| unwritten(path, &error))
}

/// Returns the error of a file that cannot be written.
pub(super) fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    let path = printable(&path.to_string_lossy());
    Failure::from_file_error(format!("cannot write {path}: {error}"))
}

/// Returns whether there is no file, an empty one, an earlier output, or something else than a file, such as a terminal.
#[expect(clippy::disallowed_methods, reason = "reads the file that the user names")]
fn is_replaceable(path: &Path, mark: &str) -> bool {
    let Ok(metadata) = std::fs::metadata(path) else { return true };
    if !metadata.is_file() || metadata.len() == 0 {
        return true;
    }
    let mut beginning = Vec::new();
    let read = File::open(path).and_then(|file| file.take(BEGINNING).read_to_end(&mut beginning));
    read.is_ok() && String::from_utf8_lossy(&beginning).contains(mark)
}
