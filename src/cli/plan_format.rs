//! Formats of a plan, for every command that prints one, and the choice of a format.

use clap::ValueEnum;
use seedbed::report::error;
use seedbed::review::Review;

use super::exit::Failure;
use super::{Global, output, terminal};

/// Formats of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Tree of sessions
    #[default]
    Text,
    /// Plan document, as `-o` saves it
    Json,
    /// Comment for a pull request
    Markdown,
    /// Mermaid graph
    Mermaid,
    /// Self-contained HTML page
    Html,
}

/// Returns the requested one of a command's formats; `--json` requests the format `json`.
pub(super) fn choose<F: Default + PartialEq>(
    global: &Global,
    format: Option<F>,
    json: F,
) -> Result<F, Failure> {
    match (format, global.json) {
        (None, true) => Ok(json),
        (Some(format), true) if format != json => Err(Failure::new(
            error::USAGE,
            "`--json` and `--format` exclude each other\nhelp: use one of them",
        )),
        (format, _) => Ok(format.unwrap_or_default()),
    }
}

impl Format {
    /// Prints the plan to stdout; `full` is text with the complete data of every session.
    pub(super) fn show(self, global: &Global, review: &Review<'_>, full: bool) {
        match self {
            Self::Text => {
                let style = terminal::style(global, &std::io::stdout());
                output::print(&review.text(style.with_full(full)));
            }
            Self::Json => output::print_plan(review.plan),
            Self::Markdown => output::print(&review.markdown()),
            Self::Mermaid => output::print(&review.mermaid()),
            Self::Html => output::print(&review.html()),
        }
    }
}
