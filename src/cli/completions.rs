//! `completions`: scripts for shells, and the command that they call.
//!
//! The scripts only pass the words of the line to `seedbed __complete` and show its output. So they are equal in every
//! shell, match the program's version, and complete sessions, which no generated script can know.
//!
//! clap's completion engine is used, but not clap's dynamic scripts. These scripts switch the program by an environment
//! variable, and the PowerShell script evaluates the line that is being typed.

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser as _, ValueEnum};
use clap_complete::engine::{
    self, ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter as _,
};
use seedbed::host::text::printable;
use seedbed::plan::Session;
use seedbed::report::error;
use seedbed::review;

use super::exit::{Failure, Status};
use super::lookup::Family;
use super::project::Project;
use super::{Arguments as CommandLine, Global, output, project};

/// Shells with a completion script.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Shell {
    /// `source <(seedbed completions bash)`
    Bash,
    /// `source <(seedbed completions zsh)`, after `compinit`; or as a file `_seedbed` in `$fpath`
    Zsh,
    /// `seedbed completions fish | source`
    Fish,
    /// `seedbed completions powershell | Out-String | Invoke-Expression`
    #[value(name = "powershell", alias = "pwsh")]
    Power,
}

/// Request of a completion script.
#[derive(Debug, Args)]
pub(super) struct Request {
    /// The word that is being typed, as far as it is
    #[arg(long, require_equals = true)]
    current: OsString,
    /// The words before it, the program's name first
    #[arg(last = true)]
    before: Vec<OsString>,
}

/// Prints the script for a shell.
pub(super) fn run(shell: Shell) -> ExitCode {
    output::print(match shell {
        Shell::Bash => include_str!("completions/seedbed.bash"),
        Shell::Zsh => include_str!("completions/seedbed.zsh"),
        Shell::Fish => include_str!("completions/seedbed.fish"),
        Shell::Power => include_str!("completions/seedbed.ps1"),
    });
    Status::Done.into()
}

/// Prints the candidates for the current word, one per line; a tab and the help follow, if there is help.
pub(super) fn complete(global: &Global, request: &Request) -> Result<ExitCode, Failure> {
    if request.before.iter().any(|word| word == "--") {
        // The shell itself completes the command to run.
        return Ok(Status::Done.into());
    }
    let mut words = request.before.clone();
    let mut command = CommandLine::command();
    words.push(request.current.clone());
    let index = words.len() - 1;
    let directory = project::directory(global).ok();
    let candidates = engine::complete(&mut command, words, index, directory.as_deref())
        .map_err(|error| Failure::new(error::COMPLETIONS_FAILED, error.to_string()))?;
    for candidate in candidates {
        // A file name with a line feed would become two candidates.
        let Some(value) = candidate.get_value().to_str().filter(|value| printable(value) == **value) else {
            continue;
        };
        let help = candidate.get_help().map(ToString::to_string).unwrap_or_default();
        let help = help.lines().next().unwrap_or_default();
        output::print(&if help.is_empty() { format!("{value}\n") } else { format!("{value}\t{help}\n") });
    }
    Ok(Status::Done.into())
}

/// Completes an active session.
pub(super) fn active_sessions() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| sessions(current, active_candidates))
}

/// Completes a session of the manifest.
pub(super) fn planned() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| sessions(current, planned_candidates))
}

/// Completes an active or planned session, or a path.
pub(super) fn session_or_path() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let mut found = sessions(current, active_candidates);
        for planned in sessions(current, planned_candidates) {
            if !found.iter().any(|applied| applied.get_value() == planned.get_value()) {
                found.push(planned);
            }
        }
        found.extend(PathCompleter::any().complete(current));
        found
    })
}

fn sessions(current: &OsStr, all: fn(&Project) -> Vec<CompletionCandidate>) -> Vec<CompletionCandidate> {
    let project = elsewhere().and_then(|global| Project::find_applied(&global).ok());
    let mut sessions = project.as_ref().map(all).unwrap_or_default();
    sessions.retain(|session| begins_with(session.get_value(), current));
    sessions
}

fn begins_with(value: &OsStr, current: &OsStr) -> bool {
    value.as_encoded_bytes().starts_with(current.as_encoded_bytes())
}

/// Reads the options that locate the command from the line that is being typed; the rest of the line may be incomplete.
///
/// clap passes only the current word to completers. So the line is read from the arguments of this process.
fn elsewhere() -> Option<Global> {
    let mut words = vec![OsString::from("seedbed"), "--quiet".into()];
    let mut typed =
        std::env::args_os().skip_while(|word| word != "--").skip(2).take_while(|word| word != "--");
    while let Some(word) = typed.next() {
        if word == "-C" || word == "-f" || word == "--manifest" || word == "--swarm" {
            words.extend([word, typed.next()?]);
        } else if ["--manifest=", "--swarm="].iter().any(|option| begins_with(&word, option.as_ref())) {
            words.push(word);
        }
    }
    words.push("list".into());
    CommandLine::try_parse_from(words).ok().map(|arguments| arguments.global)
}

/// Returns the active sessions, with the ports of each.
fn active_candidates(project: &Project) -> Vec<CompletionCandidate> {
    let family = project.swarm().and_then(|swarm| Family::find(swarm, project.name()));
    let sessions = family.as_ref().map(Family::sessions).unwrap_or_default();
    let candidate = |session: &Session| {
        let ports = Some(review::ports(&project.registry, session)).filter(|ports| ports != "-");
        CompletionCandidate::new(session.path.as_str())
            .help(ports.map(|ports| format!("ports {ports}").into()))
    };
    sessions.iter().map(|active| candidate(active.session)).collect()
}

/// Returns the sessions that the manifest declares.
fn planned_candidates(project: &Project) -> Vec<CompletionCandidate> {
    let sessions = project.manifest().map(|manifest| manifest.sessions).unwrap_or_default();
    sessions.iter().map(|session| CompletionCandidate::new(session.path.as_str())).collect()
}
