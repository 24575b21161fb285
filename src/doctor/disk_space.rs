//! Compares the space that new resources need with the free space.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use rustix::fs::{stat, statvfs};

use super::Severity::{Fails, Warns};
use super::host::nearest;
use super::{Findings, Id};
use crate::provider::{Examination, Registry};

/// Needed or free space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amount {
    bytes: u64,
    inodes: u64,
}

/// Space that new resources need on one file system.
#[derive(Debug, Default)]
struct Needed {
    path: PathBuf,
    count: usize,
    amount: Amount,
    remedies: BTreeSet<&'static str>,
}

pub(super) fn inspect(examination: &Examination<'_>, findings: &mut Findings) {
    // By the device of the file system.
    let mut needed: BTreeMap<u64, Needed> = BTreeMap::new();
    for space in Registry::built_in().iter().flat_map(|kind| kind.needed_space(examination)) {
        let space = match space {
            Ok(space) => space,
            Err(uncounted) => {
                findings.add(Warns, Id::DiskSpace, uncounted.description, uncounted.remedy);
                continue;
            }
        };
        let path = nearest(&space.directory);
        let Ok(there) = stat(&path) else { continue };
        let sum = needed.entry(there.st_dev).or_insert_with(|| Needed { path, ..Needed::default() });
        sum.count += 1;
        sum.amount.bytes = sum.amount.bytes.saturating_add(space.bytes);
        sum.amount.inodes = sum.amount.inodes.saturating_add(space.inodes);
        sum.remedies.insert(space.remedy);
    }
    for needed in needed.into_values() {
        if let Ok(there) = statvfs(&needed.path) {
            let free = Amount {
                bytes: there.f_bavail.saturating_mul(there.f_frsize),
                // Some file systems have as many inodes as there is space.
                inodes: if there.f_files == 0 { u64::MAX } else { there.f_favail },
            };
            compare(&needed, free, findings);
        }
    }
}

/// Reports resources that do not fit, and also those that need more than nine tenths of the free space.
fn compare(needed: &Needed, free: Amount, findings: &mut Findings) {
    let tight = |needed: u64, free: u64| {
        if needed > free {
            Some(Fails)
        } else if needed > free - free / 10 {
            Some(Warns)
        } else {
            None
        }
    };
    let Needed { path, count, amount: needed, remedies } = needed;
    let shown = path.display();
    let remedies: Vec<&str> = std::iter::once("make room").chain(remedies.iter().copied()).collect();
    let remedy = remedies.join(", ");
    if let Some(severity) = tight(needed.bytes, free.bytes) {
        let (needed, free) = (mebibytes(needed.bytes), mebibytes(free.bytes));
        let what =
            format!("{count} new resources need up to {needed} MiB, and {free} MiB are free at {shown}");
        findings.add(severity, Id::DiskSpace, what, remedy.as_str());
    }
    if let Some(severity) = tight(needed.inodes, free.inodes) {
        let (needed, free) = (needed.inodes, free.inodes);
        let what = format!("{count} new resources need {needed} inodes, and {free} are free at {shown}");
        findings.add(severity, Id::Inodes, what, remedy);
    }
}

fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lack_of_space_is_an_error_and_nearly_full_is_a_warning() {
        let check = |needed: (u64, u64), free: (u64, u64), expected: &[(super::super::Severity, Id)]| {
            let mut findings = Findings::default();
            let amount = |(bytes, inodes)| Amount { bytes, inodes };
            let needed = Needed { amount: amount(needed), ..Needed::default() };
            compare(&needed, amount(free), &mut findings);
            let found: Vec<_> = findings.0.iter().map(|finding| (finding.severity, finding.id)).collect();
            assert_eq!(found, expected);
        };
        check((90, 90), (100, 100), &[]);
        check((91, 1), (100, 100), &[(Warns, Id::DiskSpace)]);
        check((101, 101), (100, 100), &[(Fails, Id::DiskSpace), (Fails, Id::Inodes)]);
        check((0, 95), (0, 100), &[(Warns, Id::Inodes)]);
        check((1, 1), (0, u64::MAX), &[(Fails, Id::DiskSpace)]);
    }
}
