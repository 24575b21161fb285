//! Progress of a run: a bar on a terminal, lines elsewhere, events for programs.
//!
//! A bar shows only long phases: a phase that ends before the bar is drawn leaves no trace. On an interruption the bar
//! is removed at once. So a second Ctrl-C, which ends the process immediately, leaves the terminal clean too.

use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use seedbed::apply::{Event, Phase};
use seedbed::host::process::Cancel;
use seedbed::host::text::{printable, printable_command, shell_quoted, tree_size};
use seedbed::provider::git_worktree::rescue;

use super::exit::uninspected;
use super::{Global, output, terminal};

/// Interval of drawing the bar, and delay before it is first drawn.
const TICK: Duration = Duration::from_millis(100);
/// Without a terminal: minimum duration of a phase that is worth a line, in seconds, and interval of progress lines.
const LASTS: f64 = 1.0;
const LINE: Duration = Duration::from_secs(10);

const INTERRUPTED: &str = "interrupted: rolling back; a second Ctrl-C leaves that to `seedbed recover`";

/// Display of one run's progress; removes the bar when dropped.
pub(super) struct Progress {
    shown: Mode,
    verbose: bool,
    state: Arc<Mutex<State>>,
    /// Thread that draws the bar, and the flag that ends it.
    drawing: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Errors only.
    Nothing,
    /// Events, one per line, on stdout.
    Events,
    /// Lines on stderr.
    Lines,
    /// Bar on stderr.
    Bar,
}

/// State of the current phase.
#[derive(Default)]
struct State {
    phase: Option<Phase>,
    sessions: usize,
    passed: usize,
    begun: Option<Instant>,
    /// Time of the last progress line.
    if_verbose: Option<Instant>,
    bar: Option<ProgressBar>,
    interrupted: bool,
}

impl Progress {
    /// Starts the display of a run that `cancel` interrupts.
    pub(super) fn new(global: &Global, cancel: &Cancel) -> Self {
        let shown = if global.json {
            Mode::Events
        } else if global.quiet {
            Mode::Nothing
        } else if std::io::stderr().is_terminal() && !terminal::is_dumb() {
            Mode::Bar
        } else {
            Mode::Lines
        };
        let state = Arc::new(Mutex::new(State::default()));
        let drawing = (shown == Mode::Bar).then(|| {
            let over = Arc::new(AtomicBool::new(false));
            let (state, cancel, ended) = (Arc::clone(&state), cancel.clone(), Arc::clone(&over));
            let thread = std::thread::spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    std::thread::park_timeout(TICK);
                    locked(&state).draw(&cancel);
                }
            });
            (over, thread)
        });
        Self { shown, verbose: global.verbose, state, drawing }
    }

    /// Handles one event, from any thread.
    pub(super) fn handle(&self, event: &Event) {
        match self.shown {
            Mode::Nothing => print_data(event),
            Mode::Events => output::print_line(event.clone()),
            Mode::Lines | Mode::Bar => {
                let mut state = locked(&self.state);
                let lines = state.handle(event, self.verbose, self.shown == Mode::Lines);
                state.above_bar(|| {
                    print_data(event);
                    for line in &lines {
                        say!("{line}");
                    }
                });
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((over, thread)) = self.drawing.take() {
            over.store(true, Ordering::Relaxed);
            thread.thread().unpark();
            // A panic of the thread is ignored: the outcome of the run is what counts.
            let _ = thread.join();
        }
        locked(&self.state).clear();
    }
}

impl State {
    /// Updates the state for an event, and returns the lines to print.
    fn handle(&mut self, event: &Event, verbose: bool, lines: bool) -> Vec<String> {
        match event {
            Event::Begun { phase, sessions } => {
                self.clear();
                let now = Some(Instant::now());
                (self.phase, self.sessions, self.passed) = (Some(*phase), *sessions, 0);
                (self.begun, self.if_verbose) = (now, now);
                Vec::new()
            }
            Event::Passed { .. } => {
                self.passed += 1;
                let due = self.if_verbose.is_some_and(|if_verbose| if_verbose.elapsed() >= LINE);
                if !(lines && due) {
                    return Vec::new();
                }
                self.if_verbose = Some(Instant::now());
                let words = self.phase.map_or("", |phase| phase_words(phase).0);
                vec![format!("{words}: {} of {} sessions", self.passed, self.sessions)]
            }
            Event::Ended { phase, sessions, milliseconds } => {
                self.clear();
                self.phase = None;
                let seconds = Duration::from_millis(*milliseconds).as_secs_f64();
                let (_, done, noun) = phase_words(*phase);
                let count = match self.sessions {
                    all if all == *sessions => output::count(all, noun),
                    all => format!("{sessions} of {}", output::count(all, noun)),
                };
                let line = format!("{done} {count} in {seconds:.1} s");
                if_verbose(verbose || lines && seconds >= LASTS, || line)
            }
            Event::Rescued { session, reference, missing, .. } => {
                let mut lines = vec![format!("{session}: rescued to {reference}")];
                lines.extend(missing.iter().map(|line| format!("  {}", printable(line))));
                lines
            }
            Event::AlsoRemoved { session, description }
            | Event::NotUpdated { session, description }
            | Event::NotReverted { session, description } => {
                vec![format!("{session}: {}", printable(description))]
            }
            Event::BranchKept(kept) => vec![output::kept_branch(kept)],
            Event::NotTornDown { session, why } => {
                vec![format!("{session}: teardown was not run: {}", printable(why))]
            }
            Event::Uninspected { processes } => if_verbose(verbose, || uninspected(*processes)),
            Event::Stopped { session, pid, command, killed } => {
                let how = if *killed { "killed" } else { "ended" };
                vec![format!("{session}: {how} pid {pid} (`{}`)", printable_command(command))]
            }
            Event::GivenUp { session, resource: kind, remains, why } => {
                let mut lines = vec![format!("{session}: {kind} remains: {}", printable(why))];
                lines.extend(remains.iter().map(|line| format!("  {}", printable(line))));
                lines
            }
            Event::ArtifactsSaved { directory, files, .. } => {
                vec![saved(*files, directory)]
            }
            Event::RollingBack => vec!["rolling back".to_owned()],
            Event::Provisioned { session, resource } => {
                if_verbose(verbose, || format!("{session}: {resource}"))
            }
            Event::Repaired { session, resource } => {
                if_verbose(verbose, || format!("{session}: {resource} repaired"))
            }
            Event::Updated { session, resource } => {
                if_verbose(verbose, || format!("{session}: {resource} updated"))
            }
            Event::Seeded { session, path, copied, files, bytes, shared_bytes, .. } => {
                let path = printable(path);
                let size = tree_size(*files, *bytes, *shared_bytes);
                if *copied {
                    if_verbose(verbose, || format!("{session}: copied the seed of {path}: {size}"))
                } else {
                    vec![format!("{session}: populated {path}: {size}")]
                }
            }
            Event::SetUp { session } => if_verbose(verbose, || format!("{session}: set up")),
            Event::NotRefreshed { session, description } => {
                vec![format!("{session}: not refreshed: {}", printable(description))]
            }
            Event::SetUpAgain { session } => {
                vec![format!("{session}: restored, and set up again after its teardown")]
            }
            Event::TornDown { session } => if_verbose(verbose, || format!("{session}: torn down")),
            Event::Ready { session } => if_verbose(verbose, || format!("{session}: ready")),
            Event::Released { session, resource: kind } => {
                if_verbose(verbose, || format!("{session}: {kind} released"))
            }
            _ => Vec::new(),
        }
    }

    /// Prints above the bar, if there is one.
    fn above_bar(&self, say: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(say),
            None => say(),
        }
    }

    /// Draws the bar at the progress of the phase; never after an interruption.
    fn draw(&mut self, cancel: &Cancel) {
        if cancel.is_requested() && !self.interrupted {
            self.interrupted = true;
            self.clear();
            say!("{INTERRUPTED}");
        }
        let Some(phase) = self.phase.filter(|_| !self.interrupted) else { return };
        let lasts = self.begun.is_some_and(|begun| begun.elapsed() >= TICK);
        if self.bar.is_none() && lasts {
            let bar = ProgressBar::with_draw_target(Some(self.sessions as u64), ProgressDrawTarget::stderr());
            let template = "{msg} [{bar:24}] {pos} of {len} sessions, {elapsed} so far{left}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.with_key("left", time_left).progress_chars("=> "));
            }
            bar.set_message(phase_words(phase).0);
            self.bar = Some(bar);
        }
        if let Some(bar) = &self.bar {
            bar.set_position(self.passed as u64);
            bar.tick();
        }
    }

    /// Removes the bar from the terminal.
    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// Prints the command that restores a rescue.
///
/// Without this command, the user cannot find the rescue. So the command is data on stdout, in every mode.
fn print_data(event: &Event) {
    if let Event::Rescued { command, reference, .. } = event {
        let short = rescue::short_name(reference);
        let short = short.map(|name| format!("seedbed rescue restore {}", shell_quoted(name)));
        output::print(&format!("{}\n", printable(&short.unwrap_or_else(|| command.clone()))));
    }
}

/// Describes files that were saved in a directory.
pub(super) fn saved(files: usize, directory: &Path) -> String {
    format!("saved {} in {}", output::count(files, "artifact"), printable(&directory.to_string_lossy()))
}

fn if_verbose(verbose: bool, line: impl FnOnce() -> String) -> Vec<String> {
    if verbose { vec![line()] } else { Vec::new() }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes the estimated rest of a phase; nothing if the rest is less than a second or unknown.
fn time_left(state: &ProgressState, text: &mut dyn std::fmt::Write) {
    if state.eta() >= Duration::from_secs(1) {
        let _ = write!(text, ", {:#} to go", HumanDuration(state.eta()));
    }
}

/// Returns the words for a phase: while it runs, after its end, and the noun of its count.
fn phase_words(phase: Phase) -> (&'static str, &'static str, &'static str) {
    let (running, done) = match phase {
        Phase::Rescue => ("rescuing unsaved work", "rescued unsaved work of"),
        Phase::TearDown => ("tearing down", "tore down"),
        Phase::SetAside => ("moving aside", "moved aside"),
        Phase::GiveWay => ("freeing the names of", "freed the names of"),
        Phase::Release => ("releasing", "released"),
        Phase::Claim => ("reserving ports", "reserved ports for"),
        Phase::Create => ("creating", "created"),
        Phase::Populate => ("checking out", "checked out"),
        Phase::Finish => ("finishing", "finished"),
        Phase::Seed => ("seeding", "seeded"),
        Phase::SetUp => ("setting up", "set up"),
        Phase::Wait => ("waiting for", "waited for"),
        Phase::WriteDiscovery => return ("writing discovery files", "wrote", "discovery file"),
        Phase::RollBack => ("rolling back", "rolled back"),
        Phase::BringBack => ("restoring", "restored"),
        _ => ("running", "ran"),
    };
    (running, done, "session")
}
