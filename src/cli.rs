//! Command line: clap types and dispatch, with one file per command beside this module.
//!
//! Only this module reads the environment, prints and exits. stdout is for data, stderr for messages.

#![warn(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "these panic when no reader is left: see `say!`"
)]

/// Prints like `eprintln!`, but ignores a closed stderr: no run stops half-way because its messages have no reader.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::cli::print::err(&format!("{}\n", format_args!($($text)*)))
    };
}

mod again;
mod apply;
mod completions;
mod destroy;
mod doctor;
mod elsewhere;
mod env;
mod exec;
mod exit;
mod explain;
mod format;
mod init;
mod list;
mod locked;
mod man;
mod plan;
mod plan_file;
mod print;
mod progress;
mod rescue;
mod schema;
mod setting;
mod signals;
mod standing;
mod status;
mod terminal;
mod unfinished;
mod unsaved;
mod validate;

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Args, ColorChoice, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use seedbed::host::process::Cancel;
use seedbed::report::error;

use self::exit::{Failure, Status};

/// Reproducible workspaces for swarms of agents and CI fixtures.
///
/// One manifest declares a tree of sessions and what each needs: git worktrees, blocks of ports. seedbed computes every
/// path and port up front, shows that plan, and makes it real in parallel: all of it, or none of it.
#[derive(Debug, Parser)]
#[command(name = "seedbed", version, propagate_version = true, after_help = exit::HELP)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own on the command line")]
struct Global {
    /// The manifest; found by walking up from the current directory to `seedbed.toml`
    #[arg(short = 'f', long, value_name = "FILE", global = true)]
    manifest: Option<PathBuf>,
    /// Runs as if started in this directory
    #[arg(short = 'C', value_name = "DIR", global = true)]
    directory: Option<PathBuf>,
    /// How much is done at once; default: the cores
    #[arg(long, value_name = "N", global = true)]
    jobs: Option<NonZeroUsize>,
    /// Prints one JSON document (one event a line for what changes something)
    #[arg(long, global = true)]
    json: bool,
    /// Says nothing but faults
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Says every step; shows every session of a plan, with all that it is told
    #[arg(short, long, global = true)]
    verbose: bool,
    /// Answers every question with yes
    #[arg(short, long, global = true)]
    yes: bool,
    /// When to colour
    #[arg(long, value_name = "WHEN", default_value = "auto", global = true)]
    color: terminal::Color,
    /// Waits this long (`90`, `2m`) for another run on the same swarm to end; default: 0, and 1m for what a killed one left
    /// running
    #[arg(long, value_name = "TIME", value_parser = duration, global = true)]
    lock_timeout: Option<Duration>,
    /// Request of a Ctrl-C, for every command that reacts to it.
    #[arg(skip)]
    cancel: Cancel,
    /// `true` if the command runs programs that a Ctrl-C would leave behind.
    #[arg(skip)]
    runs_programs: bool,
    /// `true` if the command reads or writes the state directory, and fails if no state directory can be determined.
    #[arg(skip)]
    needs_state: bool,
}

impl Global {
    /// Catches signals from now on: the first requests the command to stop, end its programs and roll back. A second
    /// Ctrl-C or SIGTERM ends the command immediately; `recover` then repairs the rest.
    ///
    /// Before there is something to roll back, signals end the command by default. Otherwise a read of a manifest from
    /// a pipe would continue after a caught signal.
    fn catch_signals(&self) -> Result<(), Failure> {
        static CAUGHT: AtomicBool = AtomicBool::new(false);
        if CAUGHT.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        signals::catch(&self.cancel).map_err(|error| {
            Failure::new(error::SIGNALS_UNAVAILABLE, format!("cannot listen for signals: {error}"))
        })
    }

    /// Ends an interrupted command before it prints results: the programs that were ended have not answered.
    fn unless_interrupted(&self) -> Result<(), Failure> {
        if self.cancel.is_requested() { Err(Failure::Interrupted) } else { Ok(()) }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Writes a commented manifest for this repository
    Init,
    /// Checks the manifest, and reports every fault
    Validate(validate::Arguments),
    /// Shows what apply would do, and changes nothing
    Plan(plan::Arguments),
    /// Shows a saved plan; its manifest need not be there
    Show(plan_file::Arguments),
    /// Makes the manifest real, or exactly a saved plan
    Apply(apply::Arguments),
    /// For CI: applies, runs a command in a session, destroys; exits with the command's code
    Run(exec::RunArguments),
    /// Shows every session: what it holds, what of it is unsaved, what listens on its ports
    Status(status::Arguments),
    /// Runs a command in sessions, with their environment; exits with the command's code, else 125, 126 or 127
    Exec(exec::Arguments),
    /// Prints the environment of a session
    Env(env::Arguments),
    /// Prints a prompt with what the session has to know before it
    Prompt(env::PromptArguments),
    /// Prints the discovery file of the session around the current directory
    Whoami,
    /// Tells whose a port, a path or a session is, by which rule and line of the manifest, and what listens there
    Explain(explain::Arguments),
    /// Releases sessions, children first; never work that is not saved
    Destroy(destroy::Arguments),
    /// Finishes or undoes an interrupted run
    Recover(destroy::RecoverArguments),
    /// Looks for what of this host, repository and manifest will bite, and says what to do; exits with 1 where something
    /// will fail
    Doctor(doctor::Arguments),
    /// List, restore and delete what `--rescue` has saved; neither a manifest nor a swarm has to exist
    Rescue(rescue::Arguments),
    /// Shows every swarm on this host: its workspace, its sessions and ports, whether a run of it was interrupted
    List,
    /// Prints a script that completes commands, options and sessions in a shell
    Completions {
        /// Which
        shell: completions::Shell,
    },
    /// Prints a manual page, or writes all of them into a directory
    Man(man::Arguments),
    /// What the scripts of `completions` ask
    #[command(name = "__complete", hide = true)]
    Complete(completions::Asked),
    /// Prints a JSON schema
    Schema {
        /// Of what
        #[arg(default_value = "manifest")]
        what: schema::Schema,
    },
}

impl Command {
    /// Returns whether the command runs Git, or programs of the manifest, that a Ctrl-C would leave behind.
    ///
    /// Each such program has a process group of its own. `exec` is replaced by its command, or catches signals itself.
    fn runs_programs(&self) -> bool {
        match self {
            Self::Init
            | Self::Validate(_)
            | Self::Plan(_)
            | Self::Apply(_)
            | Self::Run(_)
            | Self::Status(_)
            | Self::Explain(_)
            | Self::Destroy(_)
            | Self::Recover(_)
            | Self::Rescue(_)
            | Self::Doctor(_) => true,
            Self::Show(_)
            | Self::Exec(_)
            | Self::Env(_)
            | Self::Prompt(_)
            | Self::Whoami
            | Self::List
            | Self::Completions { .. }
            | Self::Man(_)
            | Self::Complete(_)
            | Self::Schema { .. } => false,
        }
    }
}

/// Runs the command line.
pub(crate) fn main() -> ExitCode {
    let mut arguments = match parse() {
        Ok(arguments) => arguments,
        Err(error) => return print_unparsed(&error),
    };
    terminal::set_color(arguments.global.color);
    arguments.global.runs_programs = arguments.command.runs_programs();
    arguments.global.needs_state =
        !matches!(arguments.command, Command::Init | Command::Validate(_) | Command::Rescue(_));
    let json = arguments.global.json;
    // Rust has printed the location of the panic already.
    let code = match std::panic::catch_unwind(|| run(&arguments.command, &arguments.global)) {
        Ok(Ok(code)) => code,
        Ok(Err(failure)) => report(failure, &arguments.global.cancel, json),
        Err(_) => {
            let what = "this is a bug in seedbed; an interrupted run is put right by `seedbed recover`";
            Failure::new(error::BUG, what).report(json)
        }
    };
    print::finish(code)
}

/// Parses the arguments; help is as wide as the terminal.
fn parse() -> Result<Arguments, clap::Error> {
    let mut command = Arguments::command().color(ColorChoice::Always);
    if let Some(width) = terminal::width(&std::io::stdout()) {
        command = command.term_width(width);
    }
    Arguments::from_arg_matches_mut(&mut command.try_get_matches()?)
}

/// Prints help, the version, or the error in the arguments.
fn print_unparsed(error: &clap::Error) -> ExitCode {
    terminal::set_color(terminal::color_among(std::env::args_os()));
    let text = |has_color: bool| {
        let text = error.render();
        if has_color { text.ansi().to_string() } else { text.to_string() }
    };
    if error.use_stderr() && is_json(std::env::args_os()) {
        let message = text(false);
        let message = message.strip_prefix("error: ").unwrap_or(&message).trim_end();
        return Failure::new(error::USAGE, message).report(true);
    }
    if error.use_stderr() {
        print::err(&text(terminal::has_color(&std::io::stderr())));
        return Status::Usage.into();
    }
    print::out(&text(terminal::has_color(&std::io::stdout())));
    print::finish(Status::Done.into())
}

/// Returns whether arguments that cannot be parsed ask for JSON.
fn is_json(mut arguments: impl Iterator<Item = OsString>) -> bool {
    arguments.by_ref().take_while(|argument| argument != "--").any(|argument| argument == "--json")
}

fn report(failure: Failure, cancel: &Cancel, json: bool) -> ExitCode {
    if cancel.is_requested() {
        return failure.because(cancel).report(json);
    }
    // A manifest may have as many diagnostics as bytes.
    signals::while_computing(cancel, || failure.report(json))
}

fn run(command: &Command, global: &Global) -> Result<ExitCode, Failure> {
    match command {
        Command::Init => init::run(global),
        Command::Validate(arguments) => validate::run(global, arguments),
        Command::Plan(arguments) => plan::run(global, arguments),
        Command::Show(arguments) => plan_file::show(global, arguments),
        Command::Apply(arguments) => apply::run(global, arguments),
        Command::Run(arguments) => exec::run_and_destroy(global, arguments),
        Command::Status(arguments) => status::run(global, arguments),
        Command::Exec(arguments) => Ok(exec::run(global, arguments)),
        Command::Env(arguments) => env::run(global, arguments),
        Command::Prompt(arguments) => env::prompt(global, arguments),
        Command::Whoami => env::whoami(global),
        Command::Explain(arguments) => explain::run(global, arguments),
        Command::Destroy(arguments) => destroy::run(global, arguments),
        Command::Doctor(arguments) => doctor::run(global, arguments),
        Command::Recover(arguments) => destroy::recover(global, arguments),
        Command::Rescue(arguments) => rescue::run(global, arguments),
        Command::List => list::run(global),
        Command::Completions { shell } => Ok(completions::run(*shell)),
        Command::Man(arguments) => man::run(global, arguments),
        Command::Complete(asked) => completions::complete(global, asked),
        Command::Schema { what } => Ok(schema::run(*what)),
    }
}

/// Parses a number of seconds (`90`, `0.5`) or a span of time with units (`2m`, `1h 30m`).
fn duration(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds
        .or_else(|| humantime::parse_duration(text).ok())
        .ok_or_else(|| format!("`{text}` is not a time to wait: write `90`, `2m` or `1h 30m`"))
}
