//! Faults of syntax, in better words than the parser's.

use std::ops::Range;

use toml::de::Error;

use super::fault::{Fault, Place};
use super::rule;
use super::words::{escaped, quoted};

/// The faults behind the parser's errors.
pub(super) fn faults(errors: &[Error], text: &str) -> Vec<Fault> {
    let span = |error: &Error| error.span().unwrap_or(text.len()..text.len());
    // The parser reads on inside an array that is not closed, and finds every line that follows to be wrong.
    let runaway = errors.iter().any(|error| error.message().starts_with("unclosed array"));
    let in_array = |error: &&Error| runaway && error.message().contains("array");
    let others = errors.iter().filter(|error| !in_array(error));
    let mut faults: Vec<Fault> = others.map(|error| fault(error.message(), span(error), text)).collect();
    if let Some(first) = errors.iter().filter(in_array).map(span).min_by_key(|span| span.start) {
        let fault = Fault::new(
            rule::SYNTAX,
            Place::bytes(first),
            "an array is not closed",
            "expected `]` before this",
        );
        faults.push(fault.with_help("nothing that follows can be checked until it is closed"));
    }
    faults
}

fn fault(message: &str, span: Range<usize>, text: &str) -> Fault {
    let (what, expected) = match message.split_once(", expected ") {
        Some((what, expected)) => (what, Some(expected)),
        None => (message, None),
    };
    let meant = text.get(span.clone()).unwrap_or_default();
    let is_string = matches!(what, "invalid basic string" | "invalid literal string");
    let place = Place::bytes(span);
    if let Some(control) = meant.chars().next().filter(|c| is_string && c.is_control()) {
        let message = format!("a string holds the control character {}", quoted(&control.to_string()));
        return Fault::new(rule::SYNTAX, place, message, "a control character").with_help("take it out");
    }
    match (what, expected) {
        ("string values must be quoted", _) if meant.is_empty() => {
            Fault::new(rule::SYNTAX, place, "a value is missing", "expected a value")
        }
        ("string values must be quoted", _) => {
            Fault::new(rule::SYNTAX, place, "a string stands without quotes", "needs quotes")
                .with_help(format!("write `\"{}\"`", escaped(meant)))
        }
        ("duplicate key", _) => Fault::new(
            rule::DUPLICATE_KEY,
            place,
            format!("{} is given twice", quoted(meant)),
            "given before",
        )
        .with_help("keep one of them, or merge the two"),
        ("recursion limit", _) => {
            Fault::new(rule::SYNTAX, place, "tables or arrays are nested too deep", "too deep")
        }
        (_, Some(expected)) if is_string && meant.is_empty() => {
            Fault::new(rule::SYNTAX, place, "a string is not closed", format!("expected {expected}"))
        }
        (what, Some(expected)) => Fault::new(rule::SYNTAX, place, what, format!("expected {expected}")),
        (what, None) => Fault::new(rule::SYNTAX, place, what, "here"),
    }
}
