//! File for docker compose with a service for each session. Pure.

use std::fmt::Write as _;

use seedbed::provider::MountAccess;

use super::containers::Containers;
use super::origin;
use crate::cli::exit::Failure;
use crate::cli::yaml::quoted_without_dollar as quoted;

/// Returns the file. Its services are called like the files of their sessions, because names of services have no slash.
pub(super) fn file(containers: &Containers<'_>) -> Result<String, Failure> {
    let Containers { swarm, digest, image, sessions } = containers;
    let mut text = format!(
        "# Services of the sessions of swarm {swarm}: mounts, variables and ports.\n\
         #\n\
         #     docker compose -f FILE -f OTHER up\n\
         #\n\
         {}services:\n",
        origin(digest)
    );
    for session in sessions {
        let _ = writeln!(text, "  # session {}\n  {}:", session.path, quoted(&session.scoped_name));
        if let Some(image) = image {
            let _ = writeln!(text, "    image: {}", literal(image));
        }
        let _ = writeln!(text, "    working_dir: {}", literal(session.text(&session.directory)?));
        text.push_str("    environment:\n");
        for (name, value) in &session.environment {
            let _ = writeln!(text, "      {}: {}", quoted(name), literal(value));
        }
        if !session.ports.is_empty() {
            text.push_str("    ports:\n");
        }
        for port in &session.ports {
            let _ = writeln!(text, "      - \"127.0.0.1:{port}:{port}\"");
        }
        text.push_str("    volumes:\n");
        for (path, access) in &session.mounts {
            let path = literal(session.text(path)?);
            let _ = writeln!(
                text,
                "      - {{ type: bind, source: {path}, target: {path}, read_only: {}, bind: {{ create_host_path: false }} }}",
                *access == MountAccess::ReadOnly
            );
        }
    }
    Ok(text)
}

/// Returns a scalar that docker compose reads as `text`: it expands variables.
fn literal(text: &str) -> String {
    quoted(&text.replace('$', "$$"))
}
