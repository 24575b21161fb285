//! Selection of planning diagnostics: one for all replicas, and none that only follows from others.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use crate::manifest::{Diagnostic, Location, Rule, rule};

/// Rules that depend on counts and options, and cannot be judged if some of these were rejected.
const ARITHMETIC: [&Rule; 7] = [
    rule::NO_FREE_BLOCK,
    rule::NO_FREE_ITEM,
    rule::NO_PORT_TO_SHARE,
    rule::SLOTS,
    rule::PORT_NAMES_DO_NOT_FIT,
    rule::PRIMARY_PORT,
    rule::RESERVE,
];

/// Returns the diagnostic of a manifest whose templates together take too long, or produce too much text.
pub(super) fn too_much() -> Diagnostic {
    let message = "the templates of the manifest compute too much, all together".to_owned();
    Diagnostic::new(rule::TOO_LARGE, Location::default().key("session"), message, "too much work, or too much text").with_help(
        "each replica counts: move long texts into files that the sessions read, lower a `count`, or loop less",
    )
}

/// Returns one diagnostic for each rule and location, in order of discovery, with the number of other affected
/// sessions.
///
/// `has_every_request` is `false` if rejected parts of the manifest may change the number or the options of the requests.
pub(super) fn deduplicated(diagnostics: Vec<Diagnostic>, has_every_request: bool) -> Vec<Diagnostic> {
    let mut deduplicated: Vec<(Diagnostic, HashSet<String>)> = Vec::new();
    let mut positions: HashMap<(&Rule, Location), usize> = HashMap::new();
    for diagnostic in diagnostics {
        if !has_every_request && ARITHMETIC.contains(&diagnostic.rule) {
            continue;
        }
        let position =
            *positions.entry((diagnostic.rule, diagnostic.location.clone())).or_insert(deduplicated.len());
        match deduplicated.get_mut(position) {
            None => deduplicated.push((diagnostic, HashSet::new())),
            // The message names the session, so each affected session has its own message.
            Some((first, others)) => {
                if first.message != diagnostic.message {
                    others.insert(diagnostic.message);
                }
            }
        }
    }
    let deduplicated = deduplicated.into_iter().map(|(mut diagnostic, others)| {
        match others.len() {
            0 => {}
            1 => diagnostic.message.push_str(", and so for another session"),
            more => {
                let _ = write!(diagnostic.message, ", and so for {more} other sessions");
            }
        }
        diagnostic
    });
    deduplicated.collect()
}
