//! `man`: prints or writes manual pages.
#![expect(clippy::disallowed_methods, reason = "writes the pages that the user asks for")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use seedbed::host::clock;
use seedbed::host::text::printable;
use seedbed::report::error;

use super::example::examples;
use super::exit::{self, Failure, Status};
use super::{Arguments as CommandLine, Global, output, project};

/// Arguments of `man`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Command of the page [default: seedbed itself]
    #[arg(conflicts_with = "output")]
    command: Option<String>,
    /// Write all pages into this directory, as seedbed.1, seedbed-plan.1 and so on
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut command = CommandLine::command().disable_help_subcommand(true);
    command.build();
    if let Some(directory) = &arguments.output {
        let directory = project::directory(global)?.join(directory);
        let pages = write(&command, &directory).map_err(|error| {
            let directory = printable(&directory.to_string_lossy());
            Failure::from_file_error(format!("cannot write manual pages into {directory}: {error}"))
        })?;
        if !global.quiet {
            say!("wrote {pages} manual pages");
        }
        return Ok(Status::Done.into());
    }
    let wanted = match &arguments.command {
        None => &command,
        Some(name) => {
            command.find_subcommand(name).filter(|command| !command.is_hide_set()).ok_or_else(|| {
                Failure::new(
                    error::COMMAND_UNKNOWN,
                    format!("there is no command `{name}`\nhelp: `seedbed help` lists the commands"),
                )
            })?
        }
    };
    let page = page(wanted).map_err(|error| Failure::from_file_error(error.to_string()))?;
    output::print(&page);
    Ok(Status::Done.into())
}

fn write(command: &clap::Command, directory: &Path) -> std::io::Result<usize> {
    std::fs::create_dir_all(directory)?;
    let commands = command.get_subcommands().filter(|command| !command.is_hide_set());
    let mut pages = 0;
    for command in std::iter::once(command).chain(commands) {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name());
        std::fs::write(directory.join(format!("{name}.1")), page(command)?)?;
        pages += 1;
    }
    Ok(pages)
}

fn page(command: &clap::Command) -> std::io::Result<String> {
    let whole = command.get_name() == "seedbed";
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    heading(command).to_writer(&mut page)?;
    man.render_name_section(&mut page)?;
    synopsis(command).to_writer(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if whole {
        man.render_subcommands_section(&mut page)?;
        exit_status().to_writer(&mut page)?;
    } else {
        example_section(command.get_name()).to_writer(&mut page)?;
        let mut also = Roff::new();
        also.control("SH", ["SEE ALSO"]).text([bold("seedbed"), roman("(1), "), bold("seedbed help")]);
        also.to_writer(&mut page)?;
    }
    let page = String::from_utf8_lossy(&page);
    // Every section defines the apostrophe again, and an empty line between two breaks is a warning.
    let body = page.replace(APOSTROPHE, "").replace("\n.br\n\n.br\n", "\n.sp\n");
    Ok(format!("{APOSTROPHE}{body}"))
}

/// Text that `roff` puts at the start of all its output.
const APOSTROPHE: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";

/// Returns the heading of a page. The heading of `clap_mangen` omits the date, so that the next field takes its
/// position.
fn heading(command: &clap::Command) -> Roff {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_uppercase();
    let version = concat!("seedbed ", env!("CARGO_PKG_VERSION"));
    let mut roff = Roff::new();
    roff.control("TH", [name.as_str(), "1", &date(), version, "seedbed"]);
    roff
}

/// Returns the date of the page: today, or the date of a reproducible build.
fn date() -> String {
    let epoch = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok());
    let mut date = clock::rfc3339(epoch.unwrap_or_else(clock::seconds));
    date.truncate("2000-01-01".len());
    date
}

/// Returns the synopsis of a command. The synopsis of `clap_mangen` names every option, but no values.
fn synopsis(command: &clap::Command) -> Roff {
    let usage = command.clone().render_usage().to_string();
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([roman(usage.trim_start_matches("Usage: "))]);
    roff
}

/// Returns the examples of a command, one paragraph each.
fn example_section(command: &str) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXAMPLES"]);
    for (purpose, line) in examples(command) {
        roff.control("TP", []);
        roff.text([roman(*purpose)]);
        roff.text([bold(*line)]);
    }
    roff
}

/// Returns the exit codes, one paragraph each.
fn exit_status() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for line in exit::HELP.lines() {
        let Some((code, meaning)) = line.trim().split_once(char::is_whitespace) else { continue };
        if code.parse::<u8>().is_ok() {
            roff.control("TP", []);
            roff.text([roman(code)]);
            roff.text([roman(meaning.trim())]);
        }
    }
    roff
}
