//! Faults of planning as they are told: once for all replicas, and only where they do not follow from others.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use crate::manifest::{Fault, Place, Rule, rule};

/// What follows from counts and options, and cannot be said where some of them were wrong.
const ARITHMETIC: [&Rule; 6] = [
    rule::NO_FREE_BLOCK,
    rule::NO_PORT_TO_SHARE,
    rule::SLOTS,
    rule::PORT_NAMES_DO_NOT_FIT,
    rule::PRIMARY_PORT,
    rule::RESERVE,
];

/// Returns the fault of a manifest whose templates take too long, or come to too much text, all together.
pub(super) fn too_much() -> Fault {
    let message = "the templates of the manifest compute too much, all together".to_owned();
    Fault::new(rule::TOO_LARGE, Place::default().key("session"), message, "too much work, or too much text").with_help(
        "each replica counts: move long texts into files that the sessions read, lower a `count`, or loop less",
    )
}

/// One fault for each rule and place, in the order in which they were found, with how many more sessions have it; `whole`
/// tells whether nothing of the manifest was wrong before.
pub(super) fn told(faults: Vec<Fault>, whole: bool) -> Vec<Fault> {
    let mut told: Vec<(Fault, HashSet<String>)> = Vec::new();
    let mut positions: HashMap<(&Rule, Place), usize> = HashMap::new();
    for fault in faults {
        if !whole && ARITHMETIC.contains(&fault.rule) {
            continue;
        }
        let position = *positions.entry((fault.rule, fault.place.clone())).or_insert(told.len());
        match told.get_mut(position) {
            None => told.push((fault, HashSet::new())),
            // The message names the session, so that each that has the fault has a message of its own.
            Some((first, others)) => {
                if first.message != fault.message {
                    others.insert(fault.message);
                }
            }
        }
    }
    let told = told.into_iter().map(|(mut fault, others)| {
        match others.len() {
            0 => {}
            1 => fault.message.push_str(", and so for another session"),
            more => {
                let _ = write!(fault.message, ", and so for {more} other sessions");
            }
        }
        fault
    });
    told.collect()
}
