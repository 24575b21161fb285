//! Waits until sessions are ready, as their conditions describe.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, Instant};

use super::provision::SET_UP;
use super::{Failure, Phase, Run, commands};
use crate::discovery;
use crate::host::failpoint::crashpoint;
use crate::host::listeners;
use crate::host::occupants::{MARK, mark_of};
use crate::host::process::{self, Cancel, Process};
use crate::host::text::{printable, printable_command};
use crate::manifest::{After, CommandLine, Probe, Ready};
use crate::name::{PortBlock, SessionPath};
use crate::plan::{Change, Session};
use crate::state::{NotSetUp, Swarm};

/// Name of the step in failures of a wait.
const READY: &str = "ready";

/// Shortest and longest pause between two checks of a condition.
const PAUSE: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// Time that the first check of a condition has at least.
const FIRST: Duration = Duration::from_secs(1);

/// Number of sessions that are waited for at once. A wait does almost nothing.
const WAITS_MAX: usize = 64;

/// Reason for which a session is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotReady {
    /// A condition did not hold in time.
    Late {
        /// The condition.
        condition: Ready,
        /// Result of the last check that had one.
        last: String,
    },
    /// The command that the session is waited for has ended, before this condition held.
    Ended(Ready),
    /// The run was interrupted.
    Interrupted,
}

impl fmt::Display for NotReady {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late { condition, last } => {
                let within = &condition.within;
                write!(formatter, "{} was not ready within {within}: {last}", shown(condition))
            }
            Self::Ended(condition) => {
                write!(formatter, "the command ended before {} was ready", shown(condition))
            }
            Self::Interrupted => formatter.write_str("the wait was interrupted"),
        }
    }
}

fn shown(condition: &Ready) -> String {
    printable_command(&condition.to_string())
}

/// A session, and the directory in which its conditions are checked.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "names everything that a wait needs")]
pub struct Wait<'a> {
    /// Swarm of the session.
    pub swarm: &'a Swarm<'a>,
    /// The session.
    pub session: &'a Session,
    /// Absolute directory of the session.
    pub directory: &'a Path,
    /// Commands after which the wait happens; conditions after others are skipped.
    pub after: After,
    /// Value of [`MARK`] in the environment of the commands that conditions run.
    pub mark: &'a str,
    /// Interruption of the wait.
    pub cancel: &'a Cancel,
}

impl Wait<'_> {
    /// Waits until all conditions hold. Their time begins at `begun`; each is checked at least once. `is_alive` returns
    /// whether the command still runs that brings the session up.
    ///
    /// # Errors
    ///
    /// A condition does not hold in time, the command ended, or the wait was interrupted.
    pub fn wait(&self, begun: Instant, is_alive: impl Fn() -> bool) -> Result<(), NotReady> {
        for condition in conditions(self.session, self.after) {
            crashpoint!("ready.check");
            let within = condition.within.duration();
            let (mut minimum, mut pause, mut answer) = (FIRST, PAUSE, None);
            loop {
                let left = within.saturating_sub(begun.elapsed());
                let checked = self.check(&condition.probe, left.max(minimum));
                if !is_alive() {
                    return Err(NotReady::Ended(condition.clone()));
                }
                if self.cancel.is_requested() {
                    return Err(NotReady::Interrupted);
                }
                match checked {
                    Ok(()) => break,
                    Err(Unmet::Answer(why)) => answer = Some(why),
                    Err(Unmet::NoAnswer) => {}
                }
                let left = within.saturating_sub(begun.elapsed());
                if left.is_zero() {
                    let last = answer.unwrap_or_else(|| "the command did not end".to_owned());
                    return Err(NotReady::Late { condition: condition.clone(), last });
                }
                std::thread::sleep(pause.min(left));
                (minimum, pause) = (PAUSE, (pause * 2).min(PAUSE_MAX));
            }
        }
        Ok(())
    }

    fn check(&self, probe: &Probe, time: Duration) -> Result<(), Unmet> {
        match probe {
            Probe::Port { number, .. } => self.check_port(*number).map_err(Unmet::Answer),
            Probe::Command(command) => self.check_command(command, time),
        }
    }

    /// Returns an error if no process listens on a port, or only processes of other sessions do. A process without a mark
    /// counts: servers in containers have none.
    fn check_port(&self, port: u16) -> Result<(), String> {
        let block = PortBlock::single(port).ok_or_else(|| "there is no such port".to_owned())?;
        let listening = listeners::on(block).into_iter().filter(|listener| listener.protocol == "tcp");
        let mut others = Vec::new();
        for listener in listening {
            let foreign: Vec<_> = listener
                .processes
                .iter()
                .filter_map(|process| {
                    Some((process, other_session(&mark_of(process.pid)?, &self.session.id)?))
                })
                .collect();
            if foreign.len() == listener.processes.len() && !foreign.is_empty() {
                others.extend(foreign.iter().map(|(process, session)| {
                    let command = printable_command(&process.command);
                    format!("pid {} ({command}) of {} listens on it", process.pid, printable(session))
                }));
            } else {
                return Ok(());
            }
        }
        Err(others.into_iter().next().unwrap_or_else(|| "no process listens on it".to_owned()))
    }

    fn check_command(&self, command: &CommandLine, time: Duration) -> Result<(), Unmet> {
        let words = discovery::command(command, self.swarm.workspace());
        let Some((program, arguments)) = words.split_first() else { return Ok(()) };
        let output = Process::new(program)
            .args(arguments)
            .current_dir(self.directory)
            .envs(discovery::command_environment(self.swarm, self.session, self.directory))
            .envs([(MARK.into(), self.mark.into())])
            .deadline(time)
            .cancel(self.cancel)
            .ending_its_group()
            .output();
        match output {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => {
                let lines = output.tail().lines().fold(String::new(), |text, line| text + "\n    " + line);
                Err(Unmet::Answer(format!("{}{lines}", output.status)))
            }
            Err(process::Error::Deadline { .. }) => Err(Unmet::NoAnswer),
            Err(error) => Err(Unmet::Answer(error.to_string())),
        }
    }
}

/// Result of a check of a condition that does not hold.
enum Unmet {
    /// Reason for which it does not hold.
    Answer(String),
    /// The command did not end in time.
    NoAnswer,
}

/// Returns the conditions of a session after these commands.
pub fn conditions(session: &Session, after: After) -> impl Iterator<Item = &Ready> {
    session.ready.iter().filter(move |condition| condition.after.unwrap_or(After::Setup) == after)
}

/// Returns the id of the session of a mark (`STEP:ID` or `STEP:OWNER:ID`) if it is neither this one nor one above.
fn other_session(mark: &str, session: &str) -> Option<String> {
    let id = mark.rsplit(':').next()?;
    let below = session.strip_prefix(id);
    let is_own = below.is_some_and(|below| below.is_empty() || below.starts_with('/'));
    (!is_own).then(|| id.to_owned())
}

impl Run<'_> {
    /// Waits for the sessions that this run has set up, except `not_set_up`, and for those whose conditions it changes.
    pub(super) fn wait_until_ready(&self, not_set_up: &BTreeMap<SessionPath, NotSetUp>) -> Vec<Failure> {
        crashpoint!("apply.waiting");
        let concerned = |session: &Session, change: &Change| {
            (change.runs_setup() || change.changes_conditions())
                && conditions(session, After::Setup).next().is_some()
                && !not_set_up.contains_key(&session.path)
        };
        let plan = &self.record.plan;
        let sessions = plan.sessions.iter().zip(&plan.changes);
        let count = sessions.filter(|(session, change)| concerned(session, change)).count();
        let jobs = NonZeroUsize::new(count.min(WAITS_MAX)).unwrap_or(NonZeroUsize::MIN);
        let begun = Instant::now();
        self.each(Phase::Wait, jobs, &concerned, &|session, change| {
            self.await_session(session, change, begun)
        })
    }

    fn await_session(&self, session: &Session, change: &Change, begun: Instant) -> Result<(), Failure> {
        let swarm = self.context.swarm;
        let failure = |cause: String| Failure::new(session, READY, cause);
        let directory = discovery::directory(swarm, session).map_err(failure)?;
        let mark = commands::mark(SET_UP, session);
        let (cancel, after) = (&self.host.cancel, After::Setup);
        let wait = Wait { swarm, session, directory: &directory, after, mark: &mark, cancel };
        wait.wait(begun, || true).map_err(|why| {
            let log = commands::end_of_log(swarm, session, SET_UP);
            let hint = match &why {
                NotReady::Late { .. } if !change.runs_setup() => {
                    "\nhelp: nothing was started in this run: `seedbed apply --setup` runs `setup` again"
                }
                _ => "",
            };
            failure(format!("{why}{log}{hint}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::other_session;

    #[test]
    fn marks_of_a_session_and_of_those_above_are_its_own() {
        let check = |mark: &str, expected: Option<&str>| {
            assert_eq!(other_session(mark, "shop/lead/coder").as_deref(), expected, "{mark}");
        };
        check("setup:shop/lead/coder", None);
        check("start:shop-0123:shop/lead/coder", None);
        check("setup:shop/lead", None);
        check("setup:shop/lead/coder-2", Some("shop/lead/coder-2"));
        check("setup:shop/le", Some("shop/le"));
        check("setup:shop/lead/coder/child", Some("shop/lead/coder/child"));
    }
}
