//! Conditions of `ready` in sessions whose command is started.

use std::fmt::Display;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use seedbed::apply::{NotReady, Wait, conditions};
use seedbed::host::listeners;
use seedbed::host::process::{self, Cancel, Output, Process};
use seedbed::host::text::printable_command;
use seedbed::manifest::{After, Probe};
use seedbed::name::PortBlock;
use seedbed::report::error;

use super::super::exit::Failure;
use super::parallel::Job;

/// Returns an error if a port that a command is waited to serve is served before the command starts: the wait would say
/// nothing about the command.
pub(in super::super) fn refuse_served(jobs: &[Job<'_>]) -> Result<(), Failure> {
    for job in jobs {
        let session = job.active.session;
        for condition in conditions(session, After::Command) {
            let Probe::Port { number, .. } = &condition.probe else { continue };
            let listening = PortBlock::single(*number).map(listeners::on).unwrap_or_default();
            let Some(listener) = listening.iter().find(|listener| listener.protocol == "tcp") else {
                continue;
            };
            let by = listener.processes.first().map_or_else(String::new, |process| {
                format!(" by pid {} ({})", process.pid, printable_command(&process.command))
            });
            let path = &session.path;
            let message = format!(
                "{condition} of session {path} is served already{by}, before its command starts\n\
                 help: end that process, or remove the condition"
            );
            return Err(Failure::new(error::PORTS_IN_USE, message));
        }
    }
    Ok(())
}

/// Runs the command of a job, and waits meanwhile until its session is ready, which `announce` reports. If it is not ready
/// in time, the command is ended.
pub(super) fn run(
    job: &Job<'_>,
    mark: &str,
    directory: &Path,
    process: Process,
    stop: &Cancel,
    announce: &(dyn Fn(Duration) + Sync),
) -> (Result<Output, process::Error>, Option<NotReady>) {
    let (ending, waiting) = (stop.below(), stop.below());
    let is_over = AtomicBool::new(false);
    let begun = Instant::now();
    let not_ready = Mutex::new(None);
    let wait = || {
        let found = wait(job, mark, directory, &waiting, begun, || !is_over.load(Ordering::SeqCst));
        match found {
            Ok(()) => announce(begun.elapsed()),
            Err(found) => {
                if matches!(found, NotReady::Late { .. }) {
                    ending.request();
                }
                *not_ready.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
            }
        }
    };
    let ended = std::thread::scope(|scope| {
        scope.spawn(wait);
        let ended = process.cancel(&ending).output();
        is_over.store(true, Ordering::SeqCst);
        waiting.request();
        ended
    });
    (ended, not_ready.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Waits for the conditions that the command of a job has to meet.
pub(in super::super) fn wait(
    job: &Job<'_>,
    mark: &str,
    directory: &Path,
    cancel: &Cancel,
    begun: Instant,
    is_alive: impl Fn() -> bool,
) -> Result<(), NotReady> {
    let (swarm, session, after) = (job.active.swarm, job.active.session, After::Command);
    Wait { swarm, session, directory, after, mark, cancel }.wait(begun, is_alive)
}

/// Returns whether a session has conditions that its command has to meet.
pub(in super::super) fn is_waited_for(job: &Job<'_>) -> bool {
    conditions(job.active.session, After::Command).next().is_some()
}

/// Returns the reason for which a command was not ready. `status` is that with which it ended by itself.
pub(in super::super) fn explained(found: &NotReady, status: Option<&dyn Display>) -> String {
    status.map_or_else(|| found.to_string(), |status| format!("{found} ({status})"))
}
