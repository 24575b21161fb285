//! The table that `status` prints.

use std::fmt::Write as _;

use seedbed::host::text::printable;

use super::{Commits, PortStatus, SessionStatus};
use crate::cli::print;

/// Maximum length of a commit's subject in the table, in characters.
const SUBJECT_MAX: usize = 30;

/// Returns one row per session, followed by its damage and unsaved work; with `verbose`, by all data.
pub(super) fn text(sessions: &[SessionStatus], verbose: bool) -> String {
    let head = ["SESSION", "STATE", "WORK", "BRANCH", "PORTS", "LAST COMMIT"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(sessions.iter().map(SessionStatus::row)).collect();
    let table = print::table(&rows);
    let mut lines = table.lines();
    let mut text = lines.next().map(|head| format!("{head}\n")).unwrap_or_default();
    for (line, session) in lines.zip(sessions) {
        let _ = writeln!(text, "{line}");
        for detail in session.details(verbose) {
            let _ = writeln!(text, "    {}", printable(&detail));
        }
    }
    text
}

impl SessionStatus {
    fn row(&self) -> [String; 6] {
        let progress = self.worktree.as_ref().map(|worktree| worktree.progress.as_ref());
        let (branch, last) = match progress {
            None => ("-".to_owned(), "-".to_owned()),
            Some(None) => ("unknown".to_owned(), "unknown".to_owned()),
            Some(Some(commits)) => (commits.shown(), commits.last()),
        };
        let ports: Vec<_> = self.ports.iter().map(PortStatus::shown).collect();
        [
            format!("{}{}", if self.child_of.is_some() { "└ " } else { "" }, self.session),
            if self.drift.is_empty() { "sound" } else { "broken" }.to_owned(),
            self.work(),
            branch,
            if ports.is_empty() { "-".to_owned() } else { ports.join(" ") },
            last,
        ]
    }

    /// Returns `clean`, `unsaved`, or `unknown` if the directory is missing, and the number of files that Git ignores.
    fn work(&self) -> String {
        let work = match (self.unsaved.is_empty(), self.has_directory) {
            (false, _) => "unsaved",
            (true, true) => "clean",
            (true, false) => "unknown",
        };
        match self.ignored() {
            0 => work.to_owned(),
            ignored => format!("{work}, {ignored} ignored"),
        }
    }

    /// Returns the number of files and directories that Git ignores.
    fn ignored(&self) -> usize {
        self.goes_along.iter().map(|line| counted(line)).sum()
    }

    fn details(&self, verbose: bool) -> Vec<String> {
        let mut details = self.drift.clone();
        details.extend(self.unsaved.iter().cloned());
        let refresh = |line| format!("{line}: seedbed apply --refresh {}", self.session);
        details.extend(self.outdated.iter().map(refresh));
        if let Some(worktree) = &self.worktree {
            details.extend(worktree.error.iter().map(|error| format!("commits: {error}")));
            details.extend(worktree.progress.as_ref().and_then(|commits| {
                let to = crate::cli::plan::rebase_target(&worktree.base_ref, &commits.base);
                let what = if commits.behind == 1 {
                    "1 commit".to_owned()
                } else {
                    format!("{} commits", commits.behind)
                };
                (commits.behind > 0).then(|| {
                    format!(
                        "{} has {what} that it has not: seedbed exec {} -- git rebase {to}",
                        worktree.base_ref, self.session
                    )
                })
            }));
        }
        let others = self.listening.iter().filter(|port| self.ports.iter().all(|named| named.port != **port));
        let others: Vec<_> = others.map(u16::to_string).collect();
        details.extend((!others.is_empty()).then(|| format!("listens on {} too", others.join(", "))));
        if verbose {
            details.extend(self.goes_along.iter().map(|line| format!("not kept: {line}")));
            details.push(format!("directory: {}", self.working_directory.display()));
            let commits = self.worktree.as_ref().and_then(|worktree| worktree.progress.as_ref());
            details.extend(commits.map(|commits| {
                format!("last commit: {} of {}, {}", &commits.head, commits.committed, commits.subject)
            }));
        }
        details
    }
}

/// Returns the number of ignored files in a line about a release.
fn counted(line: &str) -> usize {
    let before = line.split_once(" ignored files").map(|(before, _)| before);
    before.and_then(|before| before.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

impl Commits {
    fn shown(&self) -> String {
        let mut shown = self.branch.clone().unwrap_or_else(|| "detached".to_owned());
        for (count, word) in [(self.ahead, "ahead"), (self.behind, "behind")] {
            if count > 0 {
                let _ = write!(shown, ", {count} {word}");
            }
        }
        shown
    }

    fn last(&self) -> String {
        let cut: String = self.subject.chars().take(SUBJECT_MAX).collect();
        let more = if cut.len() < self.subject.len() { "…" } else { "" };
        format!("{:.10} {cut}{more}", self.head)
    }
}

impl PortStatus {
    fn shown(&self) -> String {
        format!("{}={}{}", self.name, self.port, if self.listens { " (listens)" } else { "" })
    }
}
