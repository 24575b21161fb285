//! Last commands that `start` or `exec` ran in sessions, and how they ended.

use std::collections::BTreeMap;

use seedbed::host::occupants::{self, Marked};
use seedbed::state::SessionRun;

use super::lookup::Active;
use super::start;

/// Returns the last run of each session, by session id.
///
/// The `error` of a run whose end was not recorded, because a process was killed, is that reason.
pub(super) fn last_runs(sessions: &[Active<'_>]) -> BTreeMap<String, SessionRun> {
    let runs = sessions.iter().filter_map(|active| {
        let run = active.swarm.last_run(&active.session.scoped_name)?;
        Some((start::mark(active), (active.session.id.clone(), run)))
    });
    let mut runs: BTreeMap<String, (String, SessionRun)> = runs.collect();
    let is_lost = |run: &SessionRun| run.ended.is_none() && !run.is_running();
    let lost: Vec<String> =
        runs.iter().filter(|(_, (_, run))| is_lost(run)).map(|(mark, _)| mark.clone()).collect();
    if !lost.is_empty() {
        let processes = occupants::marked(&lost.iter().cloned().collect());
        for mark in lost {
            let own: Vec<_> = processes.iter().filter(|process| process.mark == mark).collect();
            if let Some((_, run)) = runs.get_mut(&mark) {
                run.error = Some(without_end(&own));
            }
        }
    }
    runs.into_values().collect()
}

/// Returns the reason for which a run has no end. `processes` are those of its session that still run.
fn without_end(processes: &[&Marked]) -> String {
    let killed = "the process that would have recorded its end was killed";
    if processes.is_empty() {
        return format!("ended without a result: {killed}");
    }
    let pids: Vec<_> = processes.iter().map(|process| process.pid.to_string()).collect();
    format!("has no result: {killed}; still runs as pid {}", pids.join(", "))
}

/// Describes how a run ended, or that it still runs; `None` if it succeeded.
pub(super) fn described(run: &SessionRun) -> Option<String> {
    match (&run.error, &run.ended, run.exit_code) {
        (Some(error), ..) => Some(format!("last command: {error}")),
        (None, None, _) => Some(format!("a command runs since {}", run.started)),
        (None, Some(_), Some(0)) => None,
        (None, Some(_), Some(code)) => Some(format!("last command: exit code {code}")),
        (None, Some(_), None) => Some("last command: ended with an unknown exit code".to_owned()),
    }
}
