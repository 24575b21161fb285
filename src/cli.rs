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
        $crate::cli::output::print_message(&format!($($text)*))
    };
}

mod repeated_steps;
mod applied_here;
mod apply;
mod collect;
mod completions;
mod destroy;
mod doctor;
mod relocation;
mod env;
mod example;
mod exec;
mod exit;
mod explain;
mod export;
mod fleet;
mod plan_format;
mod init;
mod last_runs;
mod list;
mod lock;
mod man;
mod observe;
mod plan;
mod plan_file;
mod overrides;
mod output;
mod output_file;
mod progress;
mod rescue;
mod schema;
mod project;
mod run;
mod signals;
mod start;
mod spawn;
mod hook;
mod own_session;
mod suggestion;
mod logs;
mod lookup;
mod status;
mod terminal;
mod tmux_windows;
mod unfinished_runs;
mod release_options;
mod validate;
mod yaml;

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{ArgAction, Args, ColorChoice, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use seedbed::host::process::Cancel;
use seedbed::report::error;

use self::exit::{Failure, Status};

/// Reproducible workspaces for swarms of agents and CI fixtures
///
/// One manifest declares a tree of sessions, and the Git worktree and the ports of each. seedbed computes every path and
/// port in advance, shows this plan, and applies it in parallel: completely, or not at all.
#[derive(Debug, Parser)]
#[command(
    name = "seedbed",
    version,
    propagate_version = true,
    disable_help_flag = true,
    disable_version_flag = true,
    after_help = exit::HELP
)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Common options")]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own on the command line")]
struct Global {
    /// Read this manifest [default: `seedbed.toml` in the current directory or above]
    #[arg(short = 'f', long, value_name = "FILE", global = true)]
    manifest: Option<PathBuf>,
    /// Act on this applied swarm of the workspace, without its manifest
    #[arg(long, value_name = "NAME", global = true)]
    swarm: Option<String>,
    /// Run as if started in this directory
    #[arg(short = 'C', value_name = "DIR", global = true)]
    directory: Option<PathBuf>,
    /// Number of parallel jobs [default: number of CPUs]
    #[arg(long, value_name = "N", global = true, value_parser = number_of_jobs)]
    jobs: Option<NonZeroUsize>,
    /// Print JSON: one document, or one event per line while a command changes something
    #[arg(long, global = true)]
    json: bool,
    /// Print no messages except errors
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Print every step, and all data of every session
    #[arg(short, long, global = true)]
    verbose: bool,
    /// Answer every question with yes
    #[arg(short, long, global = true)]
    yes: bool,
    /// Use colours
    #[arg(long, value_name = "WHEN", default_value = "auto", global = true)]
    color: terminal::Color,
    /// Wait up to this time (`90`, `2m`) for another run on the same swarm [default: 0; 5m for spawn, release and hook; 1m for
    /// programs of a killed run]
    #[arg(long, value_name = "TIME", value_parser = duration, global = true)]
    lock_timeout: Option<Duration>,
    /// Print help (`-h` prints a summary)
    #[arg(short, long, action = ArgAction::Help, global = true)]
    help: Option<bool>,
    /// Print the version
    #[arg(short = 'V', long, action = ArgAction::Version, global = true)]
    version: Option<bool>,
    /// Request of a Ctrl-C, for every command that reacts to it.
    #[arg(skip)]
    cancel: Cancel,
    /// `true` if the command runs programs that a Ctrl-C would leave behind.
    #[arg(skip)]
    runs_programs: bool,
    /// `true` if the command reads or writes the state directory, and fails if no state directory can be determined.
    #[arg(skip)]
    needs_state: bool,
    /// Time to wait for another run if `lock_timeout` is `None`.
    #[arg(skip)]
    patience: Duration,
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
    /// Write a commented manifest for this repository
    ///
    /// The manifest uses what the repository has: its branch, its lock files, its untracked `.env` files. An existing file
    /// is never overwritten.
    #[command(after_help = example::help("init"))]
    Init,
    /// Check the manifest, and report every problem in it
    ///
    /// Each diagnostic names its line, its rule and a remedy. Nothing is changed, and no program that the manifest names is
    /// run.
    #[command(after_help = example::help("validate"))]
    Validate(validate::Arguments),
    /// Show what `apply` would do, and change nothing
    ///
    /// A plan contains every path, port and command. A saved plan can be reviewed, and then applied exactly.
    #[command(after_help = example::help("plan"))]
    Plan(plan::Arguments),
    /// Show a saved plan
    ///
    /// Neither the manifest nor the repository has to exist, so that a plan can be reviewed on another host.
    #[command(after_help = example::help("show"))]
    Show(plan_file::Arguments),
    /// Apply the manifest, or exactly a saved plan
    ///
    /// All sessions are created in parallel. If anything fails, everything is rolled back. Unsaved work is never lost
    /// without consent.
    #[command(after_help = example::help("apply"))]
    Apply(apply::Arguments),
    /// Apply, run a command in a session, and destroy: for CI
    ///
    /// Exits with the command's code. The swarm is an instance of its own, beside others of the manifest. Its sessions are removed
    /// with all their files.
    #[command(after_help = example::help("run"))]
    Run(run::Arguments),
    /// Show every session: state, unsaved work, branch, ports, last commit
    ///
    /// A session is broken if it differs from what was applied. Unsaved work is work that `destroy` refuses to lose.
    #[command(after_help = example::help("status"))]
    Status(status::Arguments),
    /// Run a command in sessions, with their environment
    ///
    /// Exits with the command's code, or with 125, 126 or 127 if the command could not be run. In several sessions, the
    /// command runs in parallel, and the largest code counts.
    #[command(after_help = example::help("exec"))]
    Exec(exec::Arguments),
    /// Run the `command` of sessions until all have ended
    ///
    /// The command works in the session: an agent, or a test. All run in parallel, each with a log of its own. Background
    /// processes of a command are ended with it. Exits with the largest code. With `--tmux`, it opens windows and exits at
    /// once.
    #[command(after_help = example::help("start"))]
    Start(start::Arguments),
    /// Print the output of the command that runs in each session, or of the last one
    ///
    /// `start` writes these logs, and `exec` in several sessions. The last ten of each session are kept until it is released.
    #[command(after_help = example::help("logs"))]
    Logs(logs::Arguments),
    /// Write the commands of sessions for tmux, process-compose or systemd, or their mounts for containers
    ///
    /// These are the commands, directories and variables of `start`, for a program that runs them in the background, shows
    /// them and restarts them. For containers, they are the mounts with which Git works inside, and the ports.
    #[command(after_help = example::help("export"))]
    Export(export::Arguments),
    /// Print the environment of a session
    ///
    /// The variables are those of the session's ports, paths and `env`, in a format that shells and tools read.
    #[command(after_help = example::help("env"))]
    Env(env::Arguments),
    /// Print a prompt, with the facts of the session before it
    ///
    /// The facts are the session's directory, ports, parent and children, and the `prompt` of the manifest.
    #[command(after_help = example::help("prompt"))]
    Prompt(env::PromptArguments),
    /// Print the facts of the own session, or of the session around the current directory
    ///
    /// They come from the discovery file that `AGENT_DISCOVERY_FILE` names, or else from the one in the current directory or
    /// above. So neither a manifest nor the state directory is needed.
    #[command(after_help = example::help("whoami"))]
    Whoami,
    /// Add a session to the swarm, beside the manifest: for agents
    ///
    /// Inside a session, the new one is a child of it; elsewhere, it is at the top of the tree. It is planned and applied like a
    /// session of the manifest, and stays until it or its parent is released.
    #[command(after_help = example::help("spawn"))]
    Spawn(spawn::Arguments),
    /// Release a spawned session and its children
    ///
    /// Unsaved work is a reason to refuse, as for `destroy`. A spawned session is also released with its parent.
    #[command(after_help = example::help("release"))]
    Release(spawn::ReleaseArguments),
    /// Make the worktrees of a coding agent: its hooks call this
    ///
    /// A hook of the agent runs this command instead of `git worktree`. Standard output has only what the agent reads.
    #[command(after_help = example::help("hook"))]
    Hook(hook::Arguments),
    /// Show the owner of a port, a path or a session
    ///
    /// The answer names the deciding rule, the line of the manifest, and the programs that listen there.
    #[command(after_help = example::help("explain"))]
    Explain(explain::Arguments),
    /// Show the results of sessions: commits, changes, conflicts
    ///
    /// Nothing is merged or changed. The report shows which sessions conflict, which have landed, and how to merge the rest.
    #[command(after_help = example::help("collect"))]
    Collect(collect::Arguments),
    /// Write what planning needs of this host, to plan a fleet elsewhere
    ///
    /// The observation has paths, ports and commits, and nothing of the environment. Nothing is changed.
    #[command(after_help = example::help("observe"))]
    Observe(observe::Arguments),
    /// Plan and apply one manifest on several hosts
    ///
    /// `[fleet]` of the manifest has the number of shards. All hosts take up their part, or none does.
    #[command(after_help = example::help("fleet"))]
    Fleet(fleet::Arguments),
    /// Release sessions, children first
    ///
    /// Worktrees are removed and ports are released. Unsaved work is a reason to refuse, unless `--rescue` or `--discard`
    /// is given.
    #[command(after_help = example::help("destroy"))]
    Destroy(destroy::Arguments),
    /// Finish or roll back an interrupted run
    ///
    /// An interrupted apply is rolled back, and an interrupted destroy is finished. `apply` and `destroy` do this first,
    /// too.
    #[command(after_help = example::help("recover"))]
    Recover(destroy::RecoverArguments),
    /// Check host, repository and manifest for problems
    ///
    /// Each finding has a remedy. Exits with 1 if a problem makes commands fail, and with 0 if there are only warnings.
    #[command(after_help = example::help("doctor"))]
    Doctor(doctor::Arguments),
    /// List, restore and delete work that `--rescue` has saved
    ///
    /// Rescues are refs in the repository. Neither a manifest nor a swarm has to exist.
    #[command(after_help = example::help("rescue"))]
    Rescue(rescue::Arguments),
    /// List all swarms on this host
    ///
    /// Each line shows a swarm's workspace, sessions and ports, and whether a run was interrupted. No manifest is needed.
    #[command(after_help = example::help("list"))]
    List(list::Arguments),
    /// Print a completion script for a shell
    ///
    /// The script completes commands, options, and the names of sessions.
    #[command(after_help = example::help("completions"))]
    Completions {
        /// Shell that reads the script
        shell: completions::Shell,
    },
    /// Print a manual page, or write all manual pages
    ///
    /// Each command has a page of its own, such as seedbed-plan(1).
    #[command(after_help = example::help("man"))]
    Man(man::Arguments),
    /// Print completion candidates for the scripts of `completions`
    #[command(name = "__complete", hide = true)]
    Complete(completions::Request),
    /// Record the end of a command in a window of `start --tmux`
    #[command(name = "__ended", hide = true)]
    Ended(start::tmux::Ended),
    /// Print a JSON schema
    ///
    /// There is a schema for the manifest, the discovery file, and every JSON output.
    #[command(after_help = example::help("schema"))]
    Schema(schema::Arguments),
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
            | Self::Collect(_)
            | Self::Explain(_)
            | Self::Observe(_)
            | Self::Fleet(_)
            | Self::Spawn(_)
            | Self::Release(_)
            | Self::Hook(_)
            | Self::Destroy(_)
            | Self::Recover(_)
            | Self::Rescue(_)
            | Self::Doctor(_) => true,
            Self::Show(_)
            | Self::Exec(_)
            | Self::Start(_)
            | Self::Logs(_)
            | Self::Export(_)
            | Self::Env(_)
            | Self::Prompt(_)
            | Self::Whoami
            | Self::List(_)
            | Self::Completions { .. }
            | Self::Man(_)
            | Self::Complete(_)
            | Self::Ended(_)
            | Self::Schema(_) => false,
        }
    }
}

/// Time for which a command of an agent waits for other runs: a swarm of agents spawns at once, and each spawn takes
/// about a second.
const PATIENCE: Duration = Duration::from_mins(5);

/// Runs the command line.
pub(crate) fn main() -> ExitCode {
    let mut arguments = match parse() {
        Ok(arguments) => arguments,
        Err(error) => return print_unparsed(&error),
    };
    terminal::set_color(arguments.global.color);
    suggestion::keep_options(&arguments.global);
    arguments.global.runs_programs = arguments.command.runs_programs();
    arguments.global.needs_state = !matches!(
        arguments.command,
        Command::Init | Command::Validate(_) | Command::Rescue(_) | Command::Ended(_)
    );
    if matches!(arguments.command, Command::Spawn(_) | Command::Release(_) | Command::Hook(_)) {
        arguments.global.patience = PATIENCE;
    }
    if matches!(arguments.command, Command::Hook(_)) {
        // The contract of the agent decides what is printed, and no person answers.
        (arguments.global.json, arguments.global.yes) = (false, true);
    }
    let json = arguments.global.json;
    // Rust has printed the location of the panic already.
    let code = match std::panic::catch_unwind(|| run(&arguments.command, &arguments.global)) {
        Ok(Ok(code)) => code,
        Ok(Err(failure)) => report(failure, &arguments.global.cancel, json),
        Err(_) => Failure::new(error::BUG, "this is a bug in seedbed").report(json),
    };
    output::finish(code)
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
    let text = error.render();
    if error.use_stderr() {
        let message = usage_message(&text.to_string());
        return Failure::new(error::USAGE, message).report(is_json(std::env::args_os()));
    }
    let has_color = terminal::has_color(&std::io::stdout());
    output::print(&if has_color { text.ansi().to_string() } else { text.to_string() });
    output::finish(Status::Done.into())
}

/// Returns the message of an error in the arguments in the form of other errors: the last lines are tips as `help:`, or
/// the help of the command.
fn usage_message(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with("For more information"));
    let (tips, mut lines): (Vec<_>, Vec<_>) = lines.partition(|line| line.starts_with("  tip: "));
    let mut help: Vec<_> = tips.iter().map(|tip| tip.replacen("  tip: ", "help: ", 1)).collect();
    let usage = lines.iter().find_map(|line| line.strip_prefix("Usage: seedbed "));
    let command = usage.and_then(|usage| usage.split(' ').next()).unwrap_or_default();
    if help.is_empty() && Arguments::command().find_subcommand(command).is_some() {
        help.push(format!("help: run `seedbed help {command}`"));
    }
    lines.extend(help.iter().map(String::as_str));
    let message = lines.join("\n");
    message.strip_prefix("error: ").unwrap_or(&message).to_owned()
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
        Command::Run(arguments) => run::run(global, arguments),
        Command::Status(arguments) => status::run(global, arguments),
        Command::Collect(arguments) => collect::run(global, arguments),
        Command::Exec(arguments) => Ok(exec::run(global, arguments)),
        Command::Start(arguments) => start::run(global, arguments),
        Command::Logs(arguments) => logs::run(global, arguments),
        Command::Export(arguments) => export::run(global, arguments),
        Command::Env(arguments) => env::run(global, arguments),
        Command::Prompt(arguments) => env::prompt(global, arguments),
        Command::Whoami => env::whoami(global),
        Command::Spawn(arguments) => spawn::run(global, arguments),
        Command::Release(arguments) => spawn::release(global, arguments),
        Command::Hook(arguments) => hook::run(global, arguments),
        Command::Explain(arguments) => explain::run(global, arguments),
        Command::Observe(arguments) => observe::run(global, arguments),
        Command::Fleet(arguments) => fleet::run(global, arguments),
        Command::Destroy(arguments) => destroy::run(global, arguments),
        Command::Doctor(arguments) => doctor::run(global, arguments),
        Command::Recover(arguments) => destroy::recover(global, arguments),
        Command::Rescue(arguments) => rescue::run(global, arguments),
        Command::List(arguments) => list::run(global, arguments),
        Command::Completions { shell } => Ok(completions::run(*shell)),
        Command::Man(arguments) => man::run(global, arguments),
        Command::Complete(arguments) => completions::complete(global, arguments),
        Command::Ended(arguments) => start::tmux::ended(arguments),
        Command::Schema(arguments) => schema::run(global, arguments),
    }
}

/// Parses the number of parallel jobs.
fn number_of_jobs(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "write a number from 1".to_owned())
}

/// Parses a number of seconds (`90`, `0.5`) or a span of time with units (`2m`, `1h 30m`).
fn duration(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds
        .or_else(|| humantime::parse_duration(text).ok())
        .ok_or_else(|| format!("`{text}` is not a time: write `90`, `2m` or `1h 30m`"))
}

/// Parses a limit of time, as [`duration`] does. No limit is 0: it would end a command at once.
fn time_limit(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => {
            Err("a limit of 0 ends every command at once; without the option, there is no limit".into())
        }
        limit => Ok(limit),
    }
}
