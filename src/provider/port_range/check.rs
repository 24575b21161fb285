//! Checks options that no host could satisfy. Pure.

use std::collections::BTreeMap;

use super::Options;
use super::context::variable;
use crate::manifest::rule::Rule;
use crate::manifest::{Diagnostic, Location, rule};

/// Names that a port cannot have: they are fields of `port.*`, or would set a variable of the reference implementation.
const RESERVED: [&str; 5] = ["start", "end", "primary", "range-start", "range-end"];

/// Returns the diagnostics of options that no host could satisfy.
///
/// The rules for a block of its own do not apply to a share.
pub(super) fn diagnostics(options: &Options, location: &Location, is_share: bool) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    let last = u64::from(options.base_port) + u64::from(options.block_size) * u64::from(options.blocks()) - 1;
    if last > 65535 {
        let fit = (65536 - options.base_port.min(65535)) / options.block_size;
        diagnostics.push(diagnostic(
            rule::PORTS_PAST_END,
            &location.key(cause(options)),
            &format!(
                "{} of {} from {} on {} at {last}, past the last port, 65535",
                count(options.blocks(), "block"),
                count(options.block_size, "port"),
                options.base_port,
                if options.blocks() == 1 { "ends" } else { "end" },
            ),
            "too many ports",
            &match fit {
                0 => "no block of this size fits there: lower `block-size` or `base-port`".to_owned(),
                fit => format!("at most {} of this size fit there", count(fit, "block")),
            },
        ));
    }
    if let Some(reserve) = options.reserve.filter(|reserve| !is_share && *reserve > options.block_size) {
        diagnostics.push(diagnostic(
            rule::RESERVE,
            &location.key("reserve"),
            &format!(
                "{} cannot be kept of a block of {}",
                count(reserve, "port"),
                count(options.block_size, "port")
            ),
            &format!("at most {}", options.block_size),
            "lower it so that its children find ports in the rest, or raise `block-size`",
        ));
    }
    if options.primary_port_offset >= options.block_size {
        diagnostics.push(diagnostic(
            rule::PRIMARY_PORT,
            &location.key("primary-port-offset"),
            &format!("the primary port is outside its block of {} ports", options.block_size),
            &format!("counts from 0, so at most {}", options.block_size - 1),
            "lower it, or raise `block-size`",
        ));
    }
    let mut seen = BTreeMap::new();
    for (index, name) in options.names.iter().enumerate() {
        let location = location.key("names").index(index);
        if !is_port_name(name) {
            diagnostics.push(diagnostic(
                rule::PORT_NAME,
                &location,
                &format!("`{}` cannot name a port", name.escape_debug()),
                "not a name",
                "a port's name is a lower-case letter, then lower-case letters, digits, `-` or `_`, at most 32 in all",
            ));
        } else if RESERVED.contains(&name.replace('_', "-").as_str()) {
            diagnostics.push(diagnostic(
                rule::PORT_NAME,
                &location,
                &format!("`{name}` is a name that every block has already"),
                "taken",
                "every session finds `port.start`, `port.end` and `port.primary` without asking",
            ));
        } else if let Some(first) = seen.insert(variable(name), name) {
            diagnostics.push(diagnostic(
                rule::PORT_NAME,
                &location,
                &format!("`{first}` and `{name}` would both be `{}`", variable(name)),
                "meets another name",
                "give it another name",
            ));
        }
    }
    diagnostics
}

/// Returns the most likely cause among the explicit options that decide the end of the range.
fn cause(options: &Options) -> &'static str {
    if options.block_count.is_some() {
        "block-count"
    } else if options.block_size == Options::default().block_size {
        "base-port"
    } else {
        "block-size"
    }
}

/// Returns a count with its noun: `1 port`, `2 ports`.
pub(super) fn count(count: u32, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn is_port_name(name: &str) -> bool {
    name.len() <= 32
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
}

pub(super) fn diagnostic(
    rule: &'static Rule,
    location: &Location,
    message: &str,
    label: &str,
    help: &str,
) -> Diagnostic {
    Diagnostic {
        rule,
        location: location.clone(),
        message: message.to_owned(),
        label: label.to_owned(),
        help: (!help.is_empty()).then(|| help.into()),
    }
}
