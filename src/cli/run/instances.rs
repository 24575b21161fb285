//! Instances whose `run` was killed: the next `run` of the manifest recovers them, and `recover` does too.

use std::collections::BTreeMap;
use std::time::Duration;

use seedbed::apply::{self, Context, Event, Options, Recovered};
use seedbed::host::text::printable;
use seedbed::provider::Registry;
use seedbed::state::{self, RecordedSwarm, Swarm};

use super::super::Global;
use super::super::exit::Failure;
use super::super::progress::saved;

/// Result of the recovery of each instance, by its name.
pub(in super::super) type Recoveries = BTreeMap<String, Result<Recovered, Failure>>;

/// Recovers the instances of a swarm whose `run` was killed, together with what its command left running. An instance whose
/// lock another process owns is left as it is.
pub(in super::super) fn recover(
    global: &Global,
    declared: &Swarm<'_>,
    registry: &Registry,
    options: Options,
) -> Result<Recoveries, Failure> {
    let host = declared.host();
    let mut done = Recoveries::new();
    for found in state::swarms(host)?.iter().filter(|found| is_lost(found, declared)) {
        if host.cancel.is_requested() {
            break;
        }
        match recover_one(global, found, declared, registry, options) {
            Err(Failure::State(error)) if error.is_in_progress() => {}
            Ok(Recovered::Nothing) => {}
            recovered => drop(done.insert(found.name().to_owned(), recovered)),
        }
    }
    // What remains is no reason to fail: the next run sweeps it.
    let _ = state::sweep_instances(declared);
    Ok(done)
}

/// Returns whether this is an instance of a swarm, and its run was interrupted.
fn is_lost(found: &RecordedSwarm, declared: &Swarm<'_>) -> bool {
    let of = found.record().and_then(|record| record.instance_of.as_deref());
    of == Some(declared.name()) && found.workspace() == Some(declared.workspace()) && found.is_interrupted()
}

fn recover_one(
    global: &Global,
    found: &RecordedSwarm,
    declared: &Swarm<'_>,
    registry: &Registry,
    options: Options,
) -> Result<Recovered, Failure> {
    let swarm = found.swarm_in(declared.host(), declared.workspace())?;
    let locked = swarm.lock(Duration::ZERO, "recover")?;
    let events = |event: &Event| report_artifacts(global, found.name(), event);
    let recovered = apply::recover(&Context::new(&locked, registry).with_events(&events), options);
    // The result counts; at worst an empty lock file remains.
    let _ = locked.unlock();
    Ok(recovered?)
}

/// Prints the artifacts of an instance. Its other events are of no interest to the `run` that removes it.
fn report_artifacts(global: &Global, name: &str, event: &Event) {
    let Event::ArtifactsSaved { directory, files, failures } = event else { return };
    if global.json {
        return;
    }
    if !global.quiet && *files > 0 {
        say!("instance {}: {}", printable(name), saved(*files, directory));
    }
    for failure in failures {
        say!("warning: instance {}: artifacts are not saved: {failure}", printable(name));
    }
}

/// Prints the instances that were recovered, and warns of those that were not, which stay for the next attempt.
pub(super) fn report(global: &Global, recoveries: &Recoveries) {
    for (name, recovered) in recoveries.iter().filter(|_| !global.quiet && !global.json) {
        let name = printable(name);
        match recovered {
            Ok(recovered) => say!("instance {name}: {}", printable(&recovered.to_string())),
            Err(failure) => say!(
                "warning: instance {name} of a killed `run` was not removed: {}\nhelp: `seedbed recover` tries it again",
                printable(&failure.summary())
            ),
        }
    }
}
