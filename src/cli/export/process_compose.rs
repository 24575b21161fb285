//! Configuration file of process-compose for the commands of sessions. Pure.
//!
//! process-compose replaces `$NAME` in the whole file, and templates (`{{ … }}`) in directories and variables, but not
//! in `entrypoint`.

use std::fmt::Write as _;

use super::{Export, origin};
use crate::cli::yaml::quoted_without_dollar as quoted;

/// Version of the format, the newest one that process-compose documents.
const VERSION: &str = "0.5";

/// Returns the configuration file.
///
/// Its processes are named like the sessions, with a colon for each slash, which paths of the program's server cannot
/// have.
pub(super) fn configuration(export: &Export<'_>) -> String {
    let Export { swarm, digest, commands, .. } = export;
    let mut text = format!(
        "# Commands of the sessions of swarm {swarm}.\n\
         #\n\
         #     process-compose -f FILE\n\
         #\n\
         {}version: {}\nname: {}\nprocesses:\n",
        origin(digest),
        quoted(VERSION),
        quoted(swarm)
    );
    for command in commands {
        let words: Vec<_> = command.words.iter().map(|word| quoted(word)).collect();
        let _ = write!(
            text,
            "  {}:\n    working_dir: {}\n    entrypoint: [{}]\n    is_dotenv_disabled: true\n    environment:\n",
            quoted(&command.path.replace('/', ":")),
            quoted(&untemplated(&command.directory)),
            words.join(", ")
        );
        for (name, value) in &command.environment {
            let _ = writeln!(text, "      - {}", quoted(&untemplated(&format!("{name}={value}"))));
        }
    }
    text
}

/// Returns a template whose result is `text`.
fn untemplated(text: &str) -> String {
    text.replace("{{", r#"{{"{{"}}"#)
}
