//! Whether options can mean anything at all, on whatever host. Pure.

use std::collections::BTreeMap;

use super::Options;
use super::plan::{fault, variable};
use crate::manifest::{Fault, Place, rule};

/// Names that a port cannot have: they are fields of `port.*`, or would set one of the seed's own variables.
const RESERVED: [&str; 5] = ["start", "end", "primary", "range-start", "range-end"];

/// What no host could make true.
pub(super) fn faults(options: &Options, place: &Place) -> Vec<Fault> {
    let mut faults = Vec::new();
    let last = u64::from(options.base_port) + u64::from(options.block_size) * u64::from(options.blocks()) - 1;
    if last > 65535 {
        let fit = (65536 - options.base_port.min(65535)) / options.block_size;
        faults.push(fault(
            rule::PORTS_PAST_END,
            &place.key("block-count"),
            &format!(
                "{} blocks of {} ports from {} on end at {last}, past the last port, 65535",
                options.blocks(),
                options.block_size,
                options.base_port
            ),
            "too many",
            &format!("at most {fit} blocks of this size fit there"),
        ));
    }
    if options.primary_port_offset >= options.block_size {
        faults.push(fault(
            rule::PRIMARY_PORT,
            &place.key("primary-port-offset"),
            &format!("the primary port lies outside its block of {} ports", options.block_size),
            &format!("counts from 0, so at most {}", options.block_size - 1),
            "lower it, or raise `block-size`",
        ));
    }
    let mut seen = BTreeMap::new();
    for (index, name) in options.names.iter().enumerate() {
        let place = place.key("names").index(index);
        if !is_port_name(name) {
            faults.push(fault(
                rule::PORT_NAME,
                &place,
                &format!("`{}` cannot name a port", name.escape_debug()),
                "not a name",
                "a port's name is a lower-case letter, then lower-case letters, digits, `-` or `_`, at most 32 in all",
            ));
        } else if RESERVED.contains(&name.replace('_', "-").as_str()) {
            faults.push(fault(
                rule::PORT_NAME,
                &place,
                &format!("`{name}` is a name that every block has already"),
                "taken",
                "every session finds `port.start`, `port.end` and `port.primary` without asking",
            ));
        } else if let Some(first) = seen.insert(variable(name), name) {
            faults.push(fault(
                rule::PORT_NAME,
                &place,
                &format!("`{first}` and `{name}` would both be `{}`", variable(name)),
                "meets another name",
                "give it another name",
            ));
        }
    }
    faults
}

fn is_port_name(name: &str) -> bool {
    name.len() <= 32
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
}
