//! The session that a command runs in, by its discovery file.
#![expect(
    clippy::disallowed_methods,
    reason = "reads the environment, and the discovery file around the current directory"
)]

use std::path::{Path, PathBuf};

use seedbed::discovery::Snapshot;
use seedbed::host::text::{printable, printable_lines};
use seedbed::plan::DISCOVERY_FILE;
use seedbed::provider::DISCOVERY_DIRECTORY;
use seedbed::report::error;

use super::exit::Failure;
use super::{Global, project};

/// Session that a command runs in.
pub(super) struct OwnSession {
    pub(super) snapshot: Snapshot,
    /// `true` if `AGENT_DISCOVERY_FILE` names the file; `false` if it is in the current directory or above.
    pub(super) is_named: bool,
}

/// Returns the path of discovery files, relative to the directories of their sessions.
pub(super) fn relative_file() -> PathBuf {
    Path::new(DISCOVERY_DIRECTORY).join(DISCOVERY_FILE)
}

impl OwnSession {
    /// Reads the discovery file that `AGENT_DISCOVERY_FILE` names, or else the one in the current directory or above;
    /// `None` outside of every session. With `-C DIR`, only DIR counts.
    pub(super) fn find(global: &Global) -> Result<Option<Self>, Failure> {
        // A program of a session may work in any directory. After its workspace was moved, the variable is out of date.
        let named = std::env::var_os("AGENT_DISCOVERY_FILE")
            .map(PathBuf::from)
            .filter(|file| global.directory.is_none() && file.is_file());
        match named {
            Some(file) => Ok(Some(Self { snapshot: read(&file)?, is_named: true })),
            None => Self::around(&project::directory(global)?),
        }
    }

    /// Returns whether a command in `directory` is about the swarm of this session. A variable of the environment may come
    /// from elsewhere: a directory with another manifest has precedence over it.
    pub(super) fn counts_in(&self, directory: &Path) -> bool {
        let of_session = [&self.snapshot.workspace_root, &self.snapshot.working_directory];
        !self.is_named
            || of_session.iter().any(|root| directory.starts_with(root))
            || project::above(directory).is_none()
    }

    /// Reads the discovery file in `directory` or above; `None` outside of every session.
    pub(super) fn around(directory: &Path) -> Result<Option<Self>, Failure> {
        let relative = relative_file();
        let file = directory.ancestors().map(|above| above.join(&relative)).find(|file| file.is_file());
        file.map(|file| Ok(Self { snapshot: read(&file)?, is_named: false })).transpose()
    }
}

fn read(file: &Path) -> Result<Snapshot, Failure> {
    let unreadable = |why: String| {
        Failure::new(error::DISCOVERY_UNREADABLE, format!("{} cannot be read: {why}", file.display()))
    };
    let bytes = std::fs::read(file).map_err(|error| unreadable(error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))
}

/// Returns the facts of a session, one line each.
pub(super) fn facts(snapshot: &Snapshot) -> Vec<String> {
    let mut lines = vec![
        format!("session {}", printable(&snapshot.session_id)),
        format!("works in {}", printable(&snapshot.working_directory.to_string_lossy())),
    ];
    if let Some(place) = &snapshot.swarm {
        lines.extend(place.parent.iter().map(|parent| format!("parent {}", printable(parent.as_str()))));
        lines.extend(place.children.iter().map(|child| format!("child {}", printable(child.as_str()))));
    }
    let sections = snapshot.soft_constraints.prompt_sections.iter();
    lines.extend(sections.map(|section| format!("- {}", printable_lines(section))));
    lines
}
