//! Steps with files that come from the workspace, and with rescues.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::SystemTime;

use super::between::top;
use super::sequence::{Place, Sequence};
use super::tokens::Safety;

/// Identity of a worktree's directory: a worktree that is created again has another one.
pub(super) type Identity = (u64, u64, Option<SystemTime>);

impl Sequence<'_> {
    /// Changes a file of the workspace that sessions copy.
    pub(super) fn change_source(&mut self) {
        let name = self.random.pick(&[".env", ".env.new", "cache/large.bin", "app/.env"]).unwrap();
        self.sandbox.write(name, &format!("of the workspace, {}\n", self.steps.len()));
        self.note(format!("change {name} in the workspace"));
    }

    /// Writes a session's own version of a file that is, or may be, copied into it.
    pub(super) fn edit_copy(&mut self) {
        let Some(Place { name, directory, .. }) = self.plain() else { return };
        let copy = top(&directory).join(self.random.pick(&[".env", ".env.new", "cache/large.bin"]).unwrap());
        let above = copy.parent().unwrap();
        let is_linked = fs::symlink_metadata(above).is_ok_and(|found| !found.is_dir()) || copy.is_symlink();
        if is_linked {
            return;
        }
        fs::create_dir_all(above).unwrap();
        let token = self.token(&name, Safety::Ignored);
        let text = fs::read_to_string(&copy).unwrap_or_default();
        fs::write(&copy, text + &token).unwrap();
        self.note(format!("edit {} with {token} in {name}", copy.display()));
    }

    /// Restores one of the rescues in one of the sessions.
    pub(super) fn restore_into(&mut self) {
        let listed = self.sandbox.seedbed(&["rescue", "list", "--json"]);
        let Some(session) = self.one() else { return };
        if listed.code != 0 {
            return;
        }
        let listed = listed.json();
        let rescues: Vec<_> = listed["rescues"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|rescue| rescue["name"].as_str())
            .collect();
        let Some(name) = self.random.pick(&rescues) else { return };
        self.ask(&["rescue", "restore", name, "--into", &session.session], None);
    }

    /// Returns the identity of each session's worktree.
    pub(super) fn identities(&self) -> Vec<(String, Identity)> {
        let identity = |Place { name, directory, .. }: Place| {
            let found = fs::metadata(top(&directory)).ok()?;
            Some((name, (found.dev(), found.ino(), found.created().ok())))
        };
        self.workplaces().into_iter().filter_map(identity).collect()
    }
}
