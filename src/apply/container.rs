//! Needs of a session in a container.

use super::with_task;
use crate::host::absolute;
use crate::plan::Session;
use crate::provider::{ContainerNeeds, MountAccess, Registry};
use crate::state::{Record, Swarm};

/// Returns the parts of the host that a session needs in a container, or on one line the reason why it cannot work in one.
/// Creates files that are mounted and do not exist. The session's directories can be used.
pub fn container_needs(
    swarm: &Swarm<'_>,
    registry: &Registry,
    record: &Record,
    session: &Session,
) -> Result<ContainerNeeds, String> {
    let mut needs = ContainerNeeds::default();
    for allocation in &session.allocations {
        let Some(kind) = registry.get(&allocation.kind) else { continue };
        let directory = kind.directory(allocation).or_else(|| kind.foreign_directory(allocation));
        if let Some(directory) = directory {
            needs.mounts.insert(absolute(&record.workspace, &directory), MountAccess::Writable);
        }
        let own =
            with_task(swarm.host(), record, session, allocation, None, |task| kind.container_needs(task))
                .map_err(|error| error.to_string())?;
        needs.mounts.extend(own.mounts);
        needs.environment.extend(own.environment);
    }
    let working_directory = absolute(&record.workspace, &session.working_directory);
    if needs.mounts.keys().any(|path| working_directory.starts_with(path)) {
        return Ok(needs);
    }
    // The directory around several worktrees has the discovery file. Around other sessions it is the workspace.
    let is_own = needs.mounts.keys().any(|path| path.parent() == Some(&working_directory));
    if !is_own || record.workspace.starts_with(&working_directory) {
        return Err("it has no directory of its own".to_owned());
    }
    needs.mounts.insert(working_directory, MountAccess::Writable);
    Ok(needs)
}
