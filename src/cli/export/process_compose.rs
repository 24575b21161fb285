//! Configuration file of process-compose for the commands of sessions. Pure.
//!
//! process-compose replaces `$NAME` in the whole file, and templates (`{{ … }}`) in directories and variables, but not
//! in `entrypoint`.

use std::fmt::Write as _;

use super::Export;

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
         # `seedbed export` wrote this file for plan {digest}.\n\
         # Write it again after `seedbed apply`.\n\
         version: {}\nname: {}\nprocesses:\n",
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

/// Returns a double-quoted scalar of YAML without `$` and without characters that YAML forbids.
fn quoted(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            ' '..='~' if c != '$' => quoted.push(c),
            c if c.is_alphanumeric() => quoted.push(c),
            c if u32::from(c) <= 0xffff => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => {
                let _ = write!(quoted, "\\U{:08x}", u32::from(c));
            }
        }
    }
    quoted + "\""
}
