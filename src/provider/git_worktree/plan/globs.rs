//! Checks the globs of `copy` and `link`, and the patterns of `.worktreeinclude`. Pure.

use super::check::{check_copied, check_glob};
use super::{Options, Worktree, Worktrees, diagnostic, repository_of, source};
use crate::manifest::{Diagnostic, Location, rule};
use crate::observe::{WorkspaceFile, worktree_include};

/// Returns the patterns of an observed `.worktreeinclude`, or the reason for which there are none.
pub(super) fn patterns(repository: &str, observed: &WorkspaceFile) -> Result<Vec<String>, String> {
    match observed {
        WorkspaceFile::Text(text) => worktree_include::patterns(text),
        WorkspaceFile::Missing => {
            Err(format!("{} has no file `{}`", source(repository), worktree_include::FILE))
        }
        WorkspaceFile::Unusable(why) => Err(format!("`{}` {why}", worktree_include::FILE)),
    }
}

impl Worktrees<'_> {
    /// Returns the diagnostics of the globs that an active worktree does not have yet; of all globs if `active` is
    /// `None`.
    pub(super) fn glob_diagnostics(
        &self,
        location: &Location,
        options: &Options,
        active: Option<&Worktree>,
    ) -> Vec<Diagnostic> {
        let lists = [
            ("copy", &options.copy, active.map(|active| &active.copy)),
            ("link", &options.link, active.map(|active| &active.link)),
        ];
        let globs = lists.into_iter().flat_map(|(key, globs, active)| {
            let is_new = move |glob: &String| {
                glob == worktree_include::ENTRY || active.is_none_or(|active| !active.contains(glob))
            };
            let new = globs.iter().enumerate().filter(move |(_, glob)| is_new(glob));
            new.map(move |(index, glob)| (key, glob, location.key(key).index(index)))
        });
        let check = |(key, glob, location): (&str, &String, Location)| {
            let checked = match (key, glob.as_str()) {
                (_, worktree_include::ENTRY) => {
                    self.check_included(options, key, active.is_some(), &location)
                }
                _ => check_glob(glob, &location)
                    .and_then(|()| check_copied(self.observed(options), options, glob, &location)),
            };
            checked.err()
        };
        globs.filter_map(check).collect()
    }

    /// Returns the patterns of the `.worktreeinclude` that `copy` requests, or the reason for which there are none;
    /// `None` if it requests none, or the file was not observed.
    pub(super) fn included(&self, options: &Options) -> Option<&Result<Vec<String>, String>> {
        let is_requested = options.copy.iter().any(|glob| glob == worktree_include::ENTRY);
        self.included.get(repository_of(options)).filter(|_| is_requested)
    }

    /// Checks that the patterns of a `.worktreeinclude` can be used. An active worktree outlasts the file.
    fn check_included(
        &self,
        options: &Options,
        key: &str,
        is_active: bool,
        location: &Location,
    ) -> Result<(), Diagnostic> {
        let refused = |message: &str, label: &str, help: &str| {
            Err(diagnostic(rule::COPIED_FILE, location, message, label, Some(help.to_owned())))
        };
        if key != "copy" {
            let message = format!("`{}` is an entry of `copy`", worktree_include::ENTRY);
            return refused(&message, "would be linked", "move it to `copy`");
        }
        match self.included(options) {
            Some(Err(_)) if is_active && self.is_included_missing(options) => Ok(()),
            Some(Err(why)) => refused(
                why,
                "reads the patterns of this file",
                "write a pattern of ignored files on each line, as in a `.gitignore`",
            ),
            // Git may be unable to list the files.
            _ => check_copied(self.observed(options), options, worktree_include::ENTRY, location),
        }
    }

    pub(super) fn is_included_missing(&self, options: &Options) -> bool {
        self.observed(options).worktree_include == Some(WorkspaceFile::Missing)
    }
}
