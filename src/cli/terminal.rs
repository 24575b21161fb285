//! Colour and width of all output: text, diagnostics and help.
#![expect(clippy::disallowed_methods, reason = "the command line is what reads the environment")]

use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::sync::OnceLock;

use clap::ValueEnum;
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, SourceCode};
use seedbed::manifest::Report;
use seedbed::review::text::Style;

use super::Global;

/// Width of diagnostics that another program reads, in columns.
const WIDTH_OF_DIAGNOSTICS: usize = 80;

/// Labels of lines for people, and their colours as parameters of an ANSI sequence.
const LABELS: [(&str, &str); 3] = [("error:", "1;31"), ("note:", "1"), ("help:", "1;36")];

/// Use of colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    /// On a terminal, unless `NO_COLOR` is set; always if `FORCE_COLOR` or `CLICOLOR_FORCE` is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Value of `--color`.
static REQUESTED: OnceLock<Color> = OnceLock::new();

/// Sets the value of `--color`, once.
pub(super) fn set_color(color: Color) {
    let _ = REQUESTED.set(color);
}

/// Finds `--color` in arguments that are not parsed yet: errors and help of the parser are coloured too.
pub(super) fn color_among(arguments: impl Iterator<Item = OsString>) -> Color {
    let mut arguments = arguments.take_while(|argument| argument != "--");
    let mut color = Color::Auto;
    while let Some(argument) = arguments.next() {
        let Some(rest) = argument.to_str().and_then(|argument| argument.strip_prefix("--color")) else {
            continue;
        };
        let value = match rest.strip_prefix('=') {
            Some(value) => Some(value.to_owned()),
            None if rest.is_empty() => arguments.next().and_then(|value| value.into_string().ok()),
            None => None,
        };
        color = value.and_then(|value| Color::from_str(&value, false).ok()).unwrap_or(color);
    }
    color
}

/// Returns the style of text on `stream`.
pub(super) fn style(global: &Global, stream: &(impl IsTerminal + AsFd)) -> Style {
    Style::default().with_width(width(stream)).with_color(has_color(stream)).with_full(global.verbose)
}

/// Returns whether output on `stream` is coloured.
///
/// `NO_COLOR` (no-color.org) takes precedence over `FORCE_COLOR` (force-color.org) and `CLICOLOR_FORCE`
/// (bixense.com/clicolors).
pub(super) fn has_color(stream: &impl IsTerminal) -> bool {
    match REQUESTED.get().copied().unwrap_or_default() {
        Color::Always => return true,
        Color::Never => return false,
        Color::Auto => {}
    }
    let is_forced =
        ["FORCE_COLOR", "CLICOLOR_FORCE"].into_iter().filter_map(variable).any(|value| value != "0");
    let is_fit = stream.is_terminal() && !is_dumb() && variable("CLICOLOR").as_deref() != Some("0");
    variable("NO_COLOR").is_none() && (is_forced || is_fit)
}

/// Returns the value of an environment variable that is set and not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns the number of columns of a terminal; `COLUMNS` takes precedence over the terminal's own size.
///
/// Output for another program is never wrapped, for any value of `COLUMNS`.
pub(super) fn width(stream: &(impl IsTerminal + AsFd)) -> Option<usize> {
    if !stream.is_terminal() {
        return None;
    }
    let columns = variable("COLUMNS").and_then(|columns| columns.parse().ok());
    columns
        .or_else(|| Some(rustix::termios::tcgetwinsize(stream).ok()?.ws_col.into()))
        .filter(|width| *width > 0)
}

/// Returns whether the terminal supports only plain text.
pub(super) fn is_dumb() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb")
}

/// Returns lines with coloured labels, if `stream` has colours.
pub(super) fn with_colored_labels(text: &str, stream: &impl IsTerminal) -> String {
    if !has_color(stream) {
        return text.to_owned();
    }
    let colored = |line: &str| {
        let label = LABELS.iter().find(|(label, _)| line.starts_with(label));
        label.map_or_else(
            || line.to_owned(),
            |(label, color)| format!("\x1b[{color}m{label}\x1b[0m{}", &line[label.len()..]),
        )
    };
    text.split_inclusive('\n').map(colored).collect()
}

/// Draws the printed diagnostics of a manifest for `stream`: the message with its rule, the lines of the manifest, and
/// the suggested correction.
pub(super) fn diagnostics(report: &Report, stream: &(impl IsTerminal + AsFd)) -> String {
    let mut text = String::new();
    for shown in report.related().into_iter().flatten() {
        let rule = shown.code().map(|rule| rule.to_string()).unwrap_or_default();
        let _ = writeln!(text, "error: {shown} [{rule}]");
        // The first line is for the message, which is printed already.
        let drawn = diagnostic(&Excerpt(shown), stream);
        text.push_str(drawn.trim_start_matches('\n').split_once('\n').map_or("", |(_, lines)| lines));
        if let Some(help) = shown.help() {
            let _ = writeln!(text, "help: {help}");
        }
        text.push('\n');
    }
    text
}

/// Lines of a manifest that a diagnostic underlines, without the message.
#[derive(Debug)]
struct Excerpt<'a>(&'a dyn Diagnostic);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl std::error::Error for Excerpt<'_> {}

impl Diagnostic for Excerpt<'_> {
    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.0.source_code()
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.0.labels()
    }
}

/// Draws a diagnostic for `stream`.
pub(super) fn diagnostic(shown: &dyn Diagnostic, stream: &(impl IsTerminal + AsFd)) -> String {
    let theme = match (has_unicode(stream), has_color(stream)) {
        (true, true) => GraphicalTheme::unicode(),
        (true, false) => GraphicalTheme::unicode_nocolor(),
        (false, true) => GraphicalTheme::ascii(),
        (false, false) => GraphicalTheme::none(),
    };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_links(false)
        .with_width(width(stream).unwrap_or(WIDTH_OF_DIAGNOSTICS));
    let mut text = String::new();
    let drawn = handler.render_report(&mut text, shown);
    if drawn.is_err() {
        text = shown.to_string();
    }
    text
}

/// Returns whether line-drawing characters can be shown: the locale must be UTF-8, and the Linux console lacks most of
/// them.
fn has_unicode(stream: &impl IsTerminal) -> bool {
    if !stream.is_terminal() {
        return true;
    }
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(variable).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    (locale.ends_with("utf-8") || locale.ends_with("utf8")) && variable("TERM").as_deref() != Some("linux")
}
