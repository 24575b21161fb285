//! Part of one host in `fleet exec` and `fleet start`.

use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use seedbed::fleet::commands::{CommandRequest, CommandResults};
use seedbed::fleet::directory::FleetDirectory;
use seedbed::name::SessionPath;
use seedbed::report::error;
use seedbed::report::event::CommandEvent;
use seedbed::state::Exited;

use crate::cli::exec::FAILED;
use crate::cli::exec::parallel::{self, Job, Manner};
use crate::cli::exit::Failure;
use crate::cli::lookup::{Active, Family};
use crate::cli::project::Project;
use crate::cli::{Global, output, start};

/// Pause between two looks at the reader of the output.
const PAUSE: Duration = Duration::from_millis(100);

/// Pause between two looks at the file of the coordinator, which may be on another host.
const READ_PAUSE: Duration = Duration::from_secs(1);

/// Runs the command of a request in the sessions of this host, and writes the results. `prepare` is done first.
pub(super) fn run(
    global: &Global,
    project: &Project,
    directory: &FleetDirectory,
    (host, request): (&str, &str),
    prepare: impl FnOnce() -> Result<(), Failure>,
) -> Result<ExitCode, Failure> {
    let request = directory.command(request)?;
    global.catch_signals()?;
    let is_over = AtomicBool::new(false);
    let ended = thread::scope(|scope| {
        scope.spawn(|| watch(global, directory, &request, &is_over));
        let ended = prepare().and_then(|()| in_sessions(global, project, &request, host));
        is_over.store(true, Ordering::SeqCst);
        ended
    });
    let results = ended.as_ref().map(Clone::clone).map_err(Failure::summary);
    directory.write_results(&CommandResults::new(&request.request, host, results))?;
    let code = ended?.iter().map(|ended| ended.exit_code).max().unwrap_or(0);
    Ok(ExitCode::from(code))
}

/// Stops the commands when the coordinator requests it, or is gone: when nothing reads the output any more, or no sign of
/// life arrives.
fn watch(global: &Global, directory: &FleetDirectory, request: &CommandRequest, is_over: &AtomicBool) {
    let silence = Duration::from_secs(request.silence);
    let (mut last_beat, mut heard, mut read) = (None, Instant::now(), Instant::now());
    while !is_over.load(Ordering::SeqCst) && !global.cancel.is_requested() {
        if !has_reader() {
            global.cancel.request();
        }
        if read.elapsed() >= READ_PAUSE {
            read = Instant::now();
            // A file that cannot be read is no sign of life.
            let beat = directory.last_beat(&request.request).ok().flatten();
            if beat.is_some() && beat != last_beat {
                (last_beat, heard) = (beat, Instant::now());
            }
            if beat.is_some_and(|beat| beat.stop) || heard.elapsed() > silence {
                global.cancel.request();
            }
        }
        thread::sleep(PAUSE);
    }
}

/// Returns whether the reader of standard output has not closed it.
fn has_reader() -> bool {
    let stdout = std::io::stdout();
    let stdout = stdout.as_fd();
    let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let _ = poll(&mut polled, Some(&now));
    !polled[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

/// Runs the command in the sessions of this host, and returns its end in each.
fn in_sessions(
    global: &Global,
    project: &Project,
    request: &CommandRequest,
    host: &str,
) -> Result<Vec<Exited>, Failure> {
    let family = Family::find(project.swarm()?, project.name())?;
    let (mut jobs, mut all) = (Vec::new(), Vec::new());
    for path in request.sessions.get(host).into_iter().flatten() {
        let Some(session) = family.record.plan.session(path) else {
            all.push(not_run(path, &unknown(path)));
            continue;
        };
        let active = Active { swarm: &family.swarm, record: &family.record, session };
        match &request.words {
            Some(words) => jobs.push(Job { active, words: words.clone(), mark: None }),
            None => match start::job(active) {
                Some(job) => jobs.push(job),
                None if request.is_named => all.push(not_run(path, &start::without_command(path))),
                None => {}
            },
        }
    }
    let is_start = request.words.is_none();
    if is_start {
        start::refuse_running(&jobs)?;
    }
    for ended in &all {
        output::print_line(CommandEvent::Exited(ended.clone()));
    }
    let supervision = request.limits.into();
    let manner = Manner { global, registry: &project.registry, supervision, ends_group: is_start };
    let ended = parallel::run(manner, &jobs);
    all.extend(jobs.iter().map(|job| {
        let session = job.active.session;
        let stopped = || not_run(&session.path, &Failure::Interrupted);
        ended.get(session.id.as_str()).map_or_else(stopped, |ended| ended.event(&session.path))
    }));
    Ok(all)
}

fn unknown(path: &SessionPath) -> Failure {
    let why =
        format!("session {path} is not active on its host\nhelp: `seedbed fleet status DIR` shows the hosts");
    Failure::new(error::SESSION_UNKNOWN, why)
}

/// Returns the end of a command that was not run.
fn not_run(path: &SessionPath, failure: &Failure) -> Exited {
    Exited {
        session: path.clone(),
        exit_code: FAILED,
        signal: None,
        error: Some(failure.summary()),
        id: Some(failure.id().id.to_owned()),
        milliseconds: 0,
        log: None,
    }
}
