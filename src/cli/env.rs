//! `env`, `prompt`, `whoami`: data of a session for its programs.

use std::io::{IsTerminal as _, Read as _};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use seedbed::discovery;
use seedbed::host::text::{printable, printable_lines};
use seedbed::manifest::is_variable;
use seedbed::report::{Environment, Prompt, SCHEMA_VERSION, error};

use super::exit::{Failure, Status};
use super::lookup::{Active, Family};
use super::own_session::{self, OwnSession};
use super::plan_format::choose;
use super::project::{self, Project};
use super::{Global, completions, output};

/// Arguments of `env`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Path of the session, or its name if the name is unique
    #[arg(add = completions::active_sessions())]
    session: String,
    /// Output format [default: shell]
    #[arg(long)]
    format: Option<Format>,
}

/// Format of a written environment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// `export NAME='value'`, for `eval` in every shell with POSIX quoting; any value is safe
    #[default]
    Shell,
    /// `set --global --export NAME 'value'`, for `| source`; any value is safe
    Fish,
    /// `NAME='value'`; refuses values that dotenv readers parse differently
    Dotenv,
    /// JSON document, as with `--json`
    Json,
    /// `shell` format, for `.envrc`
    Direnv,
}

/// Arguments of `prompt`.
#[derive(Debug, Args)]
pub(super) struct PromptArguments {
    /// Path of the session, or its name if the name is unique
    #[arg(add = completions::active_sessions())]
    session: String,
    /// Text of the prompt [default: standard input, if it is piped]
    text: Option<String>,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let project = Project::find_applied(global)?;
    let family = Family::find(project.swarm()?, project.name())?;
    let active = family.session(&arguments.session)?;
    let working_directory = active.directory(&project.registry)?;
    let Active { swarm, session, .. } = active;
    let environment = discovery::environment(swarm, session);
    let format = choose(global, arguments.format, Format::Json)?;
    if format == Format::Json {
        output::print_json_pretty(&Environment {
            schema_version: SCHEMA_VERSION,
            session: session.id.clone(),
            working_directory,
            environment,
        });
        return Ok(Status::Done.into());
    }
    // A shell evaluates names too, and quotes do not help there.
    let is_no_name = |name: &&String| !is_variable(name);
    if let Some(name) = environment.keys().find(is_no_name) {
        return Err(Failure::new(
            error::VARIABLE_NAME,
            format!(
                "`{}` cannot be the name of a variable; the record of the swarm was edited",
                printable(name)
            ),
        ));
    }
    let lines = environment.iter().map(|(name, value)| match format {
        Format::Shell | Format::Direnv => Ok(format!("export {name}={}\n", shell(value))),
        Format::Fish => Ok(format!("set --global --export {name} {}\n", fish(value))),
        Format::Dotenv => Ok(format!("{name}='{}'\n", dotenv(name, value)?)),
        Format::Json => Ok(String::new()),
    });
    let text: String = lines.collect::<Result<_, Failure>>()?;
    if std::io::stdout().is_terminal() {
        // No shell evaluates this text.
        output::print(&printable_lines(&text));
    } else {
        output::print(&text);
    }
    Ok(Status::Done.into())
}

/// Quotes a value with single quotes, with every quote and backslash of the value outside of them.
///
/// Inside single quotes, a backslash is literal in POSIX shells, but an escape in fish, which would end the string
/// elsewhere.
fn shell(value: &str) -> String {
    let mut quoted = "'".to_owned();
    for c in value.chars() {
        match c {
            '\'' => quoted.push_str(r"'\''"),
            '\\' => quoted.push_str(r"'\\'"),
            c => quoted.push(c),
        }
    }
    quoted + "'"
}

/// Quotes a value with fish's single quotes, in which a backslash escapes itself and the quote.
fn fish(value: &str) -> String {
    format!("'{}'", value.replace('\\', r"\\").replace('\'', r"\'"))
}

/// Returns the value if all readers of dotenv files agree on it between single quotes.
///
/// No quoting preserves every value in all readers. Inside single quotes, all of them read nearly all characters
/// literally, including `#` and `$`. But some end the value at a line end, and some read a backslash before a backslash
/// or a quote as an escape. Python's reader even expands `${NAME}` there.
fn dotenv<'v>(name: &str, value: &'v str) -> Result<&'v str, Failure> {
    let refused = |what: &str| {
        Err(Failure::new(
            error::DOTENV_VALUE,
            format!(
                "{name} has {what}, which readers of dotenv files parse differently\nhelp: use `--format` with `shell`, `fish` or `json`"
            ),
        ))
    };
    if value.contains('\'') {
        refused("a quote")
    } else if value.contains(char::is_control) {
        refused("a line's end or another control character")
    } else if value.contains(r"\\") || value.ends_with('\\') {
        refused("a backslash before another or at its end")
    } else if value.contains("${") {
        refused("`${`")
    } else {
        Ok(value)
    }
}

pub(super) fn prompt(global: &Global, arguments: &PromptArguments) -> Result<ExitCode, Failure> {
    let project = Project::find_applied(global)?;
    let family = Family::find(project.swarm()?, project.name())?;
    let active = family.session(&arguments.session)?;
    active.directory(&project.registry)?;
    let Active { swarm, record, session } = active;
    let snapshot =
        discovery::snapshot(record, session, &project.registry, swarm.workspace(), &swarm.host().state);
    let text = match &arguments.text {
        Some(text) => text.clone(),
        None if std::io::stdin().is_terminal() => String::new(),
        None => {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            read.map_err(|error| {
                Failure::new(error::INPUT_UNREADABLE, format!("cannot read the prompt: {error}"))
            })?;
            text
        }
    };
    let sections = snapshot.soft_constraints.prompt_sections.iter().map(String::as_str);
    let prompt = discovery::compose_prompt(sections, &text);
    if global.json {
        output::print_json(&Prompt { schema_version: SCHEMA_VERSION, prompt });
    } else {
        output::print(&prompt);
        if !prompt.ends_with('\n') {
            output::print("\n");
        }
    }
    Ok(Status::Done.into())
}

pub(super) fn whoami(global: &Global) -> Result<ExitCode, Failure> {
    let Some(OwnSession { snapshot, .. }) = OwnSession::find(global)? else {
        return Err(Failure::new(
            error::OUTSIDE_SESSION,
            format!(
                "{} is in no session: there is no {} in it or above it, and AGENT_DISCOVERY_FILE names none\nhelp: run `seedbed exec SESSION -- seedbed whoami`",
                project::directory(global)?.display(),
                own_session::relative_file().display()
            ),
        ));
    };
    if global.json {
        output::print_json_pretty(&snapshot);
    } else {
        output::print(&(own_session::facts(&snapshot).join("\n") + "\n"));
    }
    Ok(Status::Done.into())
}
