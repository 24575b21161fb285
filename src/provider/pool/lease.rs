//! Leases and releases items in the host-wide registry, one lease for each item.

use super::Items;
use crate::host::Host;
use crate::host::leases::{self, Lease};
use crate::provider::error::of_leases;
use crate::provider::{Condition, Error, Location, Task};

pub(super) fn provision(task: &Task<'_>) -> Result<(), Error> {
    for lease in leases_of(task)? {
        leases::grant(task.host, &lease, task.ancestors).map_err(of_leases)?;
    }
    Ok(())
}

pub(super) fn inspect(task: &Task<'_>) -> Result<Condition, Error> {
    for lease in leases_of(task)? {
        if !leases::is_granted(task.host, &lease).map_err(of_leases)? {
            return Ok(Condition::Repairable(format!("the lease of {} does not exist", lease.resource)));
        }
    }
    Ok(Condition::Healthy)
}

/// Revokes the leases of the items, or those that are aside.
pub(super) fn release(task: &Task<'_>) -> Result<(), Error> {
    each(
        task,
        match task.location {
            Location::Home => leases::revoke,
            Location::Aside => leases::revoke_aside,
        },
    )
}

/// Does one step with the lease of each item.
pub(super) fn each(
    task: &Task<'_>,
    step: fn(&Host, &Lease) -> Result<(), leases::Error>,
) -> Result<(), Error> {
    for lease in leases_of(task)? {
        step(task.host, &lease).map_err(of_leases)?;
    }
    Ok(())
}

/// Returns a line for each lease that is granted, aside or not, or whose state cannot be determined.
pub(super) fn manual_cleanup(task: &Task<'_>) -> Vec<String> {
    let granted = leases::all(task.host);
    let own = leases_of(task).unwrap_or_default().into_iter();
    let exists = |lease: &Lease| granted.as_ref().map_or(true, |granted| granted.contains(lease));
    own.filter(exists).map(|lease| format!("lease of {}", lease.resource)).collect()
}

fn leases_of(task: &Task<'_>) -> Result<Vec<Lease>, Error> {
    let items = Items::from_allocation(task.allocation).ok_or_else(|| {
        Error::Refused(format!("the items of {} cannot be read from its allocation", task.session))
    })?;
    let lease = |resource| {
        Lease::new(task.session.to_owned(), task.owner.to_owned(), task.workspace.to_owned(), resource)
    };
    Ok(items.leased().map(lease).collect())
}
