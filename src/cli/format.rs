//! Formats of a plan, for every command that prints one.

use clap::ValueEnum;
use seedbed::report::error;
use seedbed::review::Review;

use super::exit::Failure;
use super::{Global, print, terminal};

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

impl Format {
    /// Returns the requested format; `--json` is one of the formats.
    pub(super) fn chosen(global: &Global, format: Option<Self>) -> Result<Self, Failure> {
        match (format, global.json) {
            (None, true) => Ok(Self::Json),
            (Some(format), true) if format != Self::Json => {
                Err(Failure::new(error::USAGE, "`--json` and `--format` exclude each other; use one of them"))
            }
            (format, _) => Ok(format.unwrap_or_default()),
        }
    }

    /// Prints the plan to stdout; `full` is text with the complete data of every session.
    pub(super) fn show(self, global: &Global, review: &Review<'_>, full: bool) {
        match self {
            Self::Text => {
                let style = terminal::style(global, &std::io::stdout());
                print::out(&review.text(style.with_full(full)));
            }
            Self::Json => print::plan(review.plan),
            Self::Markdown => print::out(&review.markdown()),
            Self::Mermaid => print::out(&review.mermaid()),
            Self::Html => print::out(&review.html()),
        }
    }
}
