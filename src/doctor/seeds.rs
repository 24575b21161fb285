//! Lists the seeds of the host.

use super::Severity::Notes;
use super::{Case, Findings, Id};
use crate::host::seeds::{self, Seed, UNUSED_MAX};
use crate::host::text::{largest_unit, tree_size};

/// Notes each seed, with its size and age.
pub(super) fn inspect(case: &Case<'_>, findings: &mut Findings) {
    for seed in seeds::all(case.host) {
        let Seed { path, repository, files, bytes, shared_bytes, .. } = &seed;
        let description = format!(
            "seed {path} of {}: {}, {} old, last used {} ago",
            repository.display(),
            tree_size(*files, *bytes, *shared_bytes),
            largest_unit(seed.age()),
            largest_unit(seed.unused_for()),
        );
        let remedy = format!(
            "seedbed doctor --reap removes it once it is unused for {}; sooner: rm -r {}",
            largest_unit(UNUSED_MAX),
            seed.directory(case.host).display()
        );
        findings.add(Notes, Id::Seed, description, remedy);
    }
}
