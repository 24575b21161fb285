//! Table that `status` prints.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use seedbed::host::text::{printable, shell_quoted};
use seedbed::report::status::{Commits, ExpiryStatus, PortStatus, SessionStatus, Work, WorktreeStatus};

use super::super::suggestion::pasteable;
use super::super::{last_runs, output, plan};

/// Maximum length of a commit's subject in the table, in characters.
const SUBJECT_MAX: usize = 30;

/// Returns one row for each session, and below it damage and unsaved work; with `verbose` everything that is known.
///
/// `broken` are the ids of the sessions that do not work as they were applied.
pub(super) fn text(sessions: &[SessionStatus], broken: &BTreeSet<String>, verbose: bool) -> String {
    let head = ["SESSION", "STATE", "WORK", "BRANCH", "PORTS", "LAST COMMIT"].map(str::to_owned);
    let rows = sessions.iter().map(|session| row(session, broken.contains(&session.id)));
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let table = output::table(&rows);
    let mut lines = table.lines();
    let mut text = lines.next().map(|head| format!("{head}\n")).unwrap_or_default();
    for (line, session) in lines.zip(sessions) {
        let _ = writeln!(text, "{line}");
        for detail in details(session, verbose) {
            let _ = writeln!(text, "    {}", printable(&detail));
        }
    }
    text
}

fn row(session: &SessionStatus, is_broken: bool) -> [String; 6] {
    let progress = session.worktree.as_ref().map(|worktree| worktree.progress.as_ref());
    let (branch, last) = match progress {
        None => ("-".to_owned(), "-".to_owned()),
        Some(None) => ("unknown".to_owned(), "unknown".to_owned()),
        Some(Some(commits)) => (branch(commits), last_commit(commits)),
    };
    let ports: Vec<_> = session.ports.iter().map(port).collect();
    [
        format!("{}{}", if session.child_of.is_some() { "└ " } else { "" }, session.session),
        state(session, is_broken),
        work(session),
        branch,
        if ports.is_empty() { "-".to_owned() } else { ports.join(" ") },
        last,
    ]
}

fn state(session: &SessionStatus, is_broken: bool) -> String {
    let state = if is_broken { "broken" } else { "healthy" };
    format!("{state}{}", if session.spawned { ", spawned" } else { "" })
}

fn work(session: &SessionStatus) -> String {
    let work = match session.work {
        Work::Clean => "clean",
        Work::Unsaved => "unsaved",
        Work::Unknown => "unknown",
    };
    match session.ignored {
        0 => work.to_owned(),
        ignored => format!("{work}, {ignored} ignored"),
    }
}

fn details(session: &SessionStatus, verbose: bool) -> Vec<String> {
    let mut details = session.drift.clone();
    details.extend(session.unsaved.iter().cloned());
    let refresh = |line| pasteable(&format!("{line}: `seedbed apply --refresh {}`", session.session));
    details.extend(session.outdated.iter().map(refresh));
    let others = session.other_worktrees.iter().filter_map(|worktree| {
        let commits = worktree.progress.as_ref()?;
        Some(format!("{}: {}  {}", named(worktree), branch(commits), last_commit(commits)))
    });
    details.extend(others);
    for worktree in session.worktree.iter().chain(&session.other_worktrees) {
        details.extend(worktree.error.iter().map(|error| format!("commits: {error}")));
        details.extend(worktree.progress.as_ref().and_then(|commits| {
            let to = plan::rebase_target(&worktree.base_ref, &commits.base);
            let what = output::count(commits.behind, "commit");
            (commits.behind > 0).then(|| {
                let (base_ref, path) = (&worktree.base_ref, &session.session);
                let git = if session.other_worktrees.is_empty() {
                    "git".to_owned()
                } else {
                    format!("git -C {}", shell_quoted(&worktree.path.to_string_lossy()))
                };
                pasteable(&format!(
                    "{base_ref} has {what} that this branch lacks: `seedbed exec {path} -- {git} rebase {to}`"
                ))
            })
        }));
    }
    let others =
        session.listening.iter().filter(|port| session.ports.iter().all(|named| named.port != **port));
    let others: Vec<_> = others.map(u16::to_string).collect();
    details.extend((!others.is_empty()).then(|| format!("also listens on {}", others.join(", "))));
    details.extend(session.last_run.as_ref().and_then(last_runs::described));
    details.extend(session.expiry.as_ref().and_then(|expiry| {
        let ExpiryStatus { after, at, expired } = expiry;
        let at = at.as_deref().unwrap_or("an unknown time");
        let word = if *expired { "expired" } else { "expires" };
        (*expired || verbose).then(|| format!("{word} at {at}, {after} after its creation"))
    }));
    details.extend(session.usage.as_ref().map(|usage| {
        let changed = usage.changed.as_deref().unwrap_or("unknown");
        format!("{} on disk, last change {changed}", output::size(usage.bytes))
    }));
    if verbose {
        details.extend(session.also_removed.iter().map(|line| format!("not kept: {line}")));
        details.push(format!("directory: {}", session.working_directory.display()));
        let worktrees = session.worktree.iter().chain(&session.other_worktrees);
        details.extend(worktrees.map(|worktree| format!("{}: {}", named(worktree), worktree.path.display())));
        details.extend(session.resources.iter().map(|(kind, resource)| format!("{kind}: {resource}")));
        let commits = session.worktree.as_ref().and_then(|worktree| worktree.progress.as_ref());
        details.extend(commits.map(|commits| {
            format!("last commit: {} at {}, {}", &commits.head, commits.committed, commits.subject)
        }));
    }
    details
}

/// Returns the name of a worktree, with its repository if this is not the workspace's own.
fn named(WorktreeStatus { name, repository, .. }: &WorktreeStatus) -> String {
    repository.as_ref().map_or_else(|| name.clone(), |repository| format!("{name} of {repository}"))
}

fn branch(commits: &Commits) -> String {
    let mut shown = commits.branch.clone().unwrap_or_else(|| "detached".to_owned());
    for (count, word) in [(commits.ahead, "ahead"), (commits.behind, "behind")] {
        if count > 0 {
            let _ = write!(shown, ", {count} {word}");
        }
    }
    shown
}

fn last_commit(commits: &Commits) -> String {
    let cut: String = commits.subject.chars().take(SUBJECT_MAX).collect();
    let more = if cut.len() < commits.subject.len() { "…" } else { "" };
    format!("{:.10} {cut}{more}", commits.head)
}

fn port(port: &PortStatus) -> String {
    format!("{}={}{}", port.name, port.port, if port.listens { " (listens)" } else { "" })
}
