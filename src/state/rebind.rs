//! Records of a workspace that was moved, copied or deleted.

use std::io::ErrorKind;
use std::path::Path;

use serde_json::Value;

use super::{Error, LockedSwarm, RECORD_MAX, Record};
use crate::host::failpoint::crashpoint;
use crate::host::files::{self, Root};

impl LockedSwarm<'_> {
    /// Takes over the records of `old`, a swarm or session of this name, whose workspace was moved to this one.
    ///
    /// No record is ever missing: each is rewritten in its directory, then all are renamed in one step. A killed run is
    /// repeated.
    pub fn take_over(&self, old: &LockedSwarm<'_>) -> Result<(), Error> {
        let collection = Root::create(&self.host.state.join(self.collection))?;
        if let Some(logs) = Root::open(&self.host.state)?.directory(Path::new("logs"))?
            && logs.directory(Path::new(&old.key))?.is_some()
        {
            // Logs of earlier sessions of this workspace that are no longer recorded.
            logs.remove_all(Path::new(&self.key))?;
            logs.rename(Path::new(&old.key), Path::new(&self.key))?;
        }
        crashpoint!("moved.logs");
        if let Some(records) = collection.directory(Path::new(&old.key))? {
            for name in records.names()? {
                if Path::new(&name).extension().is_some_and(|extension| extension == "json") {
                    self.rewrite(&records, Path::new(&name))?;
                    crashpoint!("moved.record");
                }
            }
            collection.rename(Path::new(&old.key), Path::new(&self.key))?;
            crashpoint!("moved.renamed");
            collection.sync()?;
        }
        Ok(())
    }

    fn rewrite(&self, records: &Root, name: &Path) -> Result<(), Error> {
        let path = records.path().join(name);
        let unreadable =
            |error: serde_json::Error| Error::Unreadable { path: path.clone(), why: error.to_string() };
        let Some(bytes) = records.read(name, RECORD_MAX)? else { return Ok(()) };
        let mut value: Value = serde_json::from_slice(&bytes).map_err(unreadable)?;
        let workspace = serde_json::to_value(&self.workspace).map_err(unreadable)?;
        if set_workspace(&mut value, &workspace) {
            let bytes = serde_json::to_vec(&value).map_err(unreadable)?;
            records.replace(name, &bytes)?;
        }
        Ok(())
    }

    /// Makes `record` the applied one. Everything in the record already exists.
    pub fn adopt(&self, record: &Record) -> Result<(), Error> {
        self.write("applied.json", record)
    }

    /// Removes all records: the workspace was deleted with all its sessions.
    pub fn forget(&self) -> Result<(), Error> {
        let logs = Root::open(&self.host.state)?.directory(Path::new("logs"))?;
        if let Some(logs) = logs {
            logs.remove_all(Path::new(&self.key))?;
        }
        let collection = Root::create(&self.host.state.join(self.collection))?;
        crashpoint!("gone.logs");
        if let Some(records) = collection.directory(Path::new(&self.key))? {
            // The canonical discovery files first: as long as a record exists, it names what may remain.
            records.remove_all(Path::new("sessions"))?;
            crashpoint!("gone.sessions");
        }
        Ok(collection.remove_all(Path::new(&self.key))?)
    }
}

/// Replaces the workspace in every record of a file. Returns whether any record had another workspace.
fn set_workspace(value: &mut Value, workspace: &Value) -> bool {
    let Value::Object(fields) = value else { return false };
    let mut changed = false;
    if fields.contains_key("owner")
        && fields.contains_key("plan")
        && let Some(found) = fields.get_mut("workspace").filter(|found| *found != workspace)
    {
        *found = workspace.clone();
        changed = true;
    }
    // A record is the top value of a file, or in one of its fields; never in a plan.
    for (name, field) in fields.iter_mut() {
        if name != "plan" {
            changed |= set_workspace(field, workspace);
        }
    }
    changed
}

/// Returns whether no directory exists at an absolute path; `false` if this cannot be determined.
pub fn is_gone(workspace: &Path) -> bool {
    let missing = [ErrorKind::NotFound, ErrorKind::NotADirectory];
    matches!(Root::open(workspace), Err(files::Error::Io { source, .. }) if missing.contains(&source.kind()))
}
