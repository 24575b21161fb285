//! Runs that are in progress or were interrupted, as `status` and `list` describe them.

use seedbed::apply;
use seedbed::name::SessionPath;
use seedbed::plan::{Action, Change};
use seedbed::state::{self, Record, RecordedSwarm, Swarm, Unfinished};

/// Maximum number of sessions that a line names.
const NAMED: usize = 3;

/// Returns one line for each unfinished part of a run: its kind, the command, the start, and the effect of `recover`.
///
/// Empty if no run is in progress or was interrupted.
pub(super) fn described(found: &RecordedSwarm) -> Vec<String> {
    let by = found.holder.as_ref().map(|holder| format!(" {holder}")).unwrap_or_default();
    let line = |unfinished: &Unfinished<'_>| {
        let (what, remedy) = match unfinished {
            Unfinished::Rescue => ("a rescue", "removes its temporary files beside the worktrees".to_owned()),
            Unfinished::Apply(record) => ("an apply", format!("rolls it back for {}", provisioned(record))),
            Unfinished::Release(record) => ("a release", format!("finishes it for {}", released(record))),
            Unfinished::Command(record) => (
                "the command of a run",
                format!("removes {}, with everything in their directories", all(record)),
            ),
            _ => ("a run", "finishes it or rolls it back".to_owned()),
        };
        if found.is_interrupted() {
            return format!("{what}{by} was interrupted: `seedbed recover` {remedy}");
        }
        let phase = found.phase.as_ref().filter(|_| !matches!(unfinished, Unfinished::Command(_)));
        let phase = phase.map(|(name, since)| format!(", in the phase `{name}` since {since}"));
        format!("{what} is in progress{by}{}", phase.unwrap_or_default())
    };
    found.unfinished().iter().map(line).collect()
}

/// Describes unfinished runs of one swarm, and the later work in sessions that an interrupted run had provisioned.
///
/// Recovery refuses to remove such work.
pub(super) fn explained(found: &RecordedSwarm, swarm: &Swarm<'_>) -> Result<Vec<String>, state::Error> {
    let mut lines = described(found);
    if found.is_interrupted() {
        let stake = apply::impact_of_recovery(swarm, &super::project::registry())?;
        let findings = stake.refused(state::Unsaved::Keep);
        lines.extend(findings.iter().map(|finding| {
            let (session, what) = (&finding.session, &finding.description);
            if finding.is_unknown() {
                return format!(
                    "{session}: recovery cannot check this; repair it, or give it up with `seedbed recover --give-up`: {what}"
                );
            }
            format!("{session}: recovery would remove this, so it needs --rescue or --discard: {what}")
        }));
    }
    Ok(lines)
}

fn provisioned(record: &Record) -> String {
    let is_undone = |change: &&Change| !matches!(change.action, Action::Keep | Action::Destroy);
    let changes = record.plan.changes().iter().filter(is_undone);
    named(&changes.map(|change| change.session.as_str()).collect::<Vec<_>>())
}

fn released(record: &Record) -> String {
    let sessions = record.release.iter().flat_map(|release| release.kinds.keys());
    named(&sessions.map(SessionPath::as_str).collect::<Vec<_>>())
}

fn all(record: &Record) -> String {
    named(&record.plan.sessions().iter().map(|session| session.path.as_str()).collect::<Vec<_>>())
}

fn named(sessions: &[&str]) -> String {
    let plural = if sessions.len() == 1 { "session" } else { "sessions" };
    let more = if sessions.len() > NAMED { ", …" } else { "" };
    let shown = sessions[..sessions.len().min(NAMED)].join(", ");
    format!("{} {plural} ({shown}{more})", sessions.len())
}
