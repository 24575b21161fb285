//! Reads and writes ownership markers: lines of text by which a swarm recognises what it created.

use super::Task;

/// Ownership marker of a session's resource.
#[derive(Debug)]
pub(crate) struct OwnershipMarker {
    /// Session, with the white space in its id replaced.
    pub(crate) session: String,
    /// Ownership marker of the swarm.
    pub(crate) owner: String,
}

impl OwnershipMarker {
    /// Returns the line that marks a resource as the task's. It always has three words, because Git folds white space
    /// in a stored line. Only the last word identifies the owner.
    pub(crate) fn line(task: &Task<'_>) -> String {
        let session: String = task.session.chars().map(|c| if c.is_whitespace() { '_' } else { c }).collect();
        format!("seedbed {session} {}", task.owner)
    }

    /// Parses the line that [`OwnershipMarker::line`] returns.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let words: Vec<&str> = text.split_whitespace().collect();
        let ["seedbed", session, owner] = words[..] else { return None };
        Some(Self { session: session.to_owned(), owner: owner.to_owned() })
    }
}
