//! Table that `collect` prints.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use seedbed::collect::{Landed, Outcome, Work, WorktreeName};
use seedbed::host::text::printable;
use seedbed::name::SessionPath;
use seedbed::report::collected::{CollectedSwarm, CollectedWorktree};

use super::super::{last_runs, output};

/// Number of commits of a worktree, and of paths, that are shown without `--verbose`.
const SHOWN: usize = 5;

/// Optional columns of a table of worktrees, and the names of the worktrees in sentences.
pub(super) struct Columns<'d> {
    /// Sessions with several worktrees.
    several: BTreeSet<&'d SessionPath>,
    /// `true` if a session has several worktrees, and a column shows their names.
    pub(super) has_worktree: bool,
    /// `true` if a worktree is of another repository than the workspace's own, and a column shows the repositories.
    pub(super) has_repository: bool,
}

impl<'d> Columns<'d> {
    pub(super) fn new(swarm: &'d CollectedSwarm) -> Self {
        let mut sessions = BTreeSet::new();
        let outcomes = || swarm.worktrees.iter().map(|worktree| &worktree.outcome);
        let several = outcomes().map(|outcome| &outcome.session).filter(|session| !sessions.insert(*session));
        let several: BTreeSet<&SessionPath> = several.collect();
        let has_repository = outcomes().any(|outcome| outcome.repository.is_some());
        Self { has_worktree: !several.is_empty(), has_repository, several }
    }

    /// Returns the session of a worktree, with the name of the worktree if the session has several.
    pub(super) fn label(&self, WorktreeName { session, resource, .. }: &WorktreeName) -> String {
        if self.several.contains(session) { format!("{session} {resource}") } else { session.to_string() }
    }

    /// Returns the labels of several worktrees.
    pub(super) fn labels(&self, names: &[WorktreeName]) -> Vec<String> {
        names.iter().map(|name| self.label(name)).collect()
    }

    /// Returns a row whose first cell is followed by the cells of the optional columns.
    fn row(&self, first: String, worktree: &str, repository: &str, rest: [String; 6]) -> Vec<String> {
        let mut row = vec![first];
        row.extend(self.has_worktree.then(|| worktree.to_owned()));
        row.extend(self.has_repository.then(|| repository.to_owned()));
        row.extend(rest);
        row
    }
}

/// Returns one row for each worktree with its commits and unsaved work below, then overlaps, conflicts and the commands
/// that merge.
pub(super) fn text(swarm: &CollectedSwarm, verbose: bool) -> String {
    let limit = if verbose { usize::MAX } else { SHOWN };
    let columns = Columns::new(swarm);
    let head = ["BRANCH", "COMMITS", "FILES", "LINES", "UNSAVED", "LANDED"].map(str::to_owned);
    let head = columns.row("SESSION".to_owned(), "WORKTREE", "REPOSITORY", head);
    let rows = swarm.worktrees.iter().map(|worktree| row(&columns, worktree));
    let table = output::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>());
    let mut lines = table.lines();
    let mut text = lines.next().map(|head| format!("{head}\n")).unwrap_or_default();
    let mut add = |indent: &str, line: &str| {
        let _ = writeln!(text, "{indent}{}", printable(line));
    };
    for (line, worktree) in lines.zip(&swarm.worktrees) {
        add("", line);
        for detail in details(worktree, limit) {
            add("    ", &detail);
        }
    }
    for overlap in swarm.overlaps.iter().take(limit) {
        let names = columns.labels(&overlap.worktrees);
        add("", &format!("{} was changed by {}", overlap.path, names.join(", ")));
    }
    if let Some(more) = more(swarm.overlaps.len(), limit) {
        add("", &format!("and {more} paths were changed by several sessions"));
    }
    for conflict in &swarm.conflicts {
        let names = columns.labels(&conflict.worktrees);
        add("", &format!("{} conflict in {}", names.join(" and "), listed(&conflict.paths, limit)));
    }
    for CollectedWorktree { outcome, .. } in &swarm.worktrees {
        let paths = outcome.work.as_ref().map(|work| &work.conflicts).filter(|paths| !paths.is_empty());
        if let Some(paths) = paths {
            let (name, into) = (columns.label(&outcome.name()), &outcome.into);
            add("", &format!("{name} conflicts with {into} in {}", listed(paths, limit)));
        }
    }
    if let Some(why) = &swarm.conflicts_unknown {
        add("", &format!("conflicts are unknown: {why}"));
    }
    if !swarm.merge_commands.is_empty() {
        add("", "merge with:");
        for command in &swarm.merge_commands {
            add("    ", command);
        }
    }
    text
}

fn row(columns: &Columns<'_>, worktree: &CollectedWorktree) -> Vec<String> {
    let Outcome { session, resource, repository, branch, work, .. } = &worktree.outcome;
    let of_work = |text: &dyn Fn(&Work) -> String| work.as_ref().map_or_else(|| "unknown".to_owned(), text);
    let rest = [
        // The branch of a worktree that cannot be read is unknown too.
        match branch {
            Some(branch) => branch.clone(),
            None => of_work(&|_| "detached".to_owned()),
        },
        of_work(&|work| work.commits.len().to_string()),
        of_work(&|work| work.files.len().to_string()),
        of_work(&lines),
        match (&worktree.unsaved[..], &worktree.unsaved_unknown[..]) {
            ([], []) => "no",
            ([], _) => "unknown",
            _ => "yes",
        }
        .to_owned(),
        of_work(&|work| landed(work).to_owned()),
    ];
    columns.row(session.to_string(), resource, repository.as_deref().unwrap_or("-"), rest)
}

/// Returns the number of added and deleted lines: `+12 -3`.
pub(super) fn lines(work: &Work) -> String {
    let (added, deleted) = work.files.iter().fold((0, 0), |(added, deleted), file| {
        (added + file.added.unwrap_or(0), deleted + file.deleted.unwrap_or(0))
    });
    format!("+{added} -{deleted}")
}

/// Returns the way in which the commits have landed.
pub(super) fn landed(work: &Work) -> &'static str {
    match work.landed {
        Some(Landed::Ancestor) if work.commits.is_empty() => "nothing left",
        Some(Landed::Ancestor) => "yes",
        Some(Landed::Patches) => "as patches",
        Some(Landed::Squash) => "squashed",
        Some(Landed::Tree) => "same content",
        None if work.commits.is_empty() => "-",
        _ => "no",
    }
}

fn details(worktree: &CollectedWorktree, limit: usize) -> Vec<String> {
    let CollectedWorktree { outcome, unsaved, unsaved_unknown, exported, last_run, received, .. } = worktree;
    let mut details: Vec<String> = outcome.error.iter().map(|error| format!("commits: {error}")).collect();
    let Outcome { base_ref, into, is_base_gone, .. } = outcome;
    if *is_base_gone && into == base_ref {
        details.push(format!("{base_ref} is gone: compared with the commit that the worktree was made from"));
    }
    if let Some(received) = received {
        details.push(format!("host {}: {}", received.host, received.reference));
        if let Some(old) = &received.moved_from {
            details.push(format!("the ref had {old} before, which the new commit does not contain"));
        }
    }
    if let Some(work) = &outcome.work {
        let commits = work.commits.iter().take(limit);
        details.extend(commits.map(|commit| format!("{:.10} {}", commit.id, commit.subject)));
        details.extend(more(work.commits.len(), limit).map(|more| format!("and {more} more commits")));
    }
    details.extend(unsaved.iter().map(|line| format!("unsaved: {line}")));
    details.extend(unsaved_unknown.iter().map(|line| format!("unsaved work is unknown: {line}")));
    details.extend(last_run.as_ref().and_then(last_runs::described));
    if let Some(exported) = exported {
        let files = exported.bundle.iter().chain(&exported.patch).chain(&exported.artifacts);
        details.extend(files.map(|file| format!("wrote {}", file.display())));
    }
    details
}

fn more(number: usize, limit: usize) -> Option<usize> {
    number.checked_sub(limit).filter(|more| *more > 0)
}

fn listed(paths: &[String], limit: usize) -> String {
    let shown: Vec<_> = paths.iter().take(limit).map(String::as_str).collect();
    match more(paths.len(), limit) {
        Some(more) => format!("{} and {more} more", shown.join(", ")),
        None => shown.join(", "),
    }
}
