//! Table that `collect` prints.

use std::fmt::Write as _;

use seedbed::collect::{Landed, Outcome, Work};
use seedbed::host::text::printable;
use seedbed::name::SessionPath;
use seedbed::report::collected::{CollectedSession, CollectedSwarm};

use super::super::output;

/// Number of commits of a session, and of paths, that are shown without `--verbose`.
const SHOWN: usize = 5;

/// Returns one row for each session with its commits and unsaved work below, then overlaps, conflicts and the commands
/// that merge.
pub(super) fn text(swarm: &CollectedSwarm, verbose: bool) -> String {
    let limit = if verbose { usize::MAX } else { SHOWN };
    let head = ["SESSION", "BRANCH", "COMMITS", "FILES", "LINES", "UNSAVED", "LANDED"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(swarm.sessions.iter().map(row)).collect();
    let table = output::table(&rows);
    let mut lines = table.lines();
    let mut text = lines.next().map(|head| format!("{head}\n")).unwrap_or_default();
    let mut add = |indent: &str, line: &str| {
        let _ = writeln!(text, "{indent}{}", printable(line));
    };
    for (line, session) in lines.zip(&swarm.sessions) {
        add("", line);
        for detail in details(session, limit) {
            add("    ", &detail);
        }
    }
    for overlap in swarm.overlaps.iter().take(limit) {
        let sessions: Vec<_> = overlap.sessions.iter().map(SessionPath::as_str).collect();
        add("", &format!("{} was changed by {}", overlap.path, sessions.join(", ")));
    }
    if let Some(more) = more(swarm.overlaps.len(), limit) {
        add("", &format!("and {more} paths were changed by several sessions"));
    }
    for conflict in &swarm.conflicts {
        let [one, other] = &conflict.sessions;
        add("", &format!("{one} and {other} conflict in {}", listed(&conflict.paths, limit)));
    }
    for CollectedSession { outcome, .. } in &swarm.sessions {
        let paths = outcome.work.as_ref().map(|work| &work.conflicts).filter(|paths| !paths.is_empty());
        if let Some(paths) = paths {
            let (session, into) = (&outcome.session, &outcome.into);
            add("", &format!("{session} conflicts with {into} in {}", listed(paths, limit)));
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

fn row(session: &CollectedSession) -> [String; 7] {
    let Outcome { session: path, branch, work, .. } = &session.outcome;
    let of_work = |text: &dyn Fn(&Work) -> String| work.as_ref().map_or_else(|| "unknown".to_owned(), text);
    [
        path.to_string(),
        branch.clone().unwrap_or_else(|| "detached".to_owned()),
        of_work(&|work| work.commits.len().to_string()),
        of_work(&|work| work.files.len().to_string()),
        of_work(&lines),
        if session.unsaved.is_empty() { "no" } else { "yes" }.to_owned(),
        of_work(&|work| landed(work).to_owned()),
    ]
}

/// Returns the number of added and deleted lines: `+12 -3`.
pub(super) fn lines(work: &Work) -> String {
    let (added, deleted) = work.files.iter().fold((0, 0), |(added, deleted), file| {
        (added + file.added.unwrap_or(0), deleted + file.deleted.unwrap_or(0))
    });
    format!("+{added} -{deleted}")
}

/// Returns the way in which a session's commits have landed.
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

fn details(session: &CollectedSession, limit: usize) -> Vec<String> {
    let mut details: Vec<String> =
        session.outcome.error.iter().map(|error| format!("commits: {error}")).collect();
    let Outcome { base_ref, into, is_base_gone, .. } = &session.outcome;
    if *is_base_gone && into == base_ref {
        details.push(format!("{base_ref} is gone: compared with the commit that the session was created at"));
    }
    if let Some(work) = &session.outcome.work {
        let commits = work.commits.iter().take(limit);
        details.extend(commits.map(|commit| format!("{:.10} {}", commit.id, commit.subject)));
        details.extend(more(work.commits.len(), limit).map(|more| format!("and {more} more commits")));
    }
    details.extend(session.unsaved.iter().map(|line| format!("unsaved: {line}")));
    if let Some(exported) = &session.exported {
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
