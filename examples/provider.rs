//! Implements a kind outside of the library: `scratch-dir`, a directory for each session that requests one.
//!
//! Run it with `cargo run --example provider`. The documentation of `seedbed::provider` lists what a kind has to
//! promise.
#![expect(clippy::disallowed_methods, reason = "a kind has effects")]
#![expect(clippy::needless_pass_by_value, reason = "`map_err` passes errors by value")]

use std::error::Error as StdError;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use seedbed::host::Host;
use seedbed::manifest::Diagnostics;
use seedbed::observe::Observation;
use seedbed::orchestrator::{Orchestrator, ResourceRequest};
use seedbed::provider::{
    Allocation, Allocator, Condition, Context, Error, Planned, Planner, Provider, Registry, Request, Scope,
    Task, UnsavedWork, WORKSPACE_ROOT,
};

struct ScratchDir;

impl Allocator for &ScratchDir {
    fn allocate(&mut self, request: &Request<'_>) -> Result<Planned, Diagnostics> {
        let path = format!(".scratch-{}", request.scoped_name);
        Ok(Planned::new([("path".to_owned(), path.into())].into_iter().collect()))
    }
}

impl Planner for ScratchDir {
    fn kind(&self) -> &'static str {
        "scratch-dir"
    }

    fn allocator<'o>(&'o self, _: &'o Observation, _: &Scope<'_>) -> Box<dyn Allocator + 'o> {
        Box::new(self)
    }

    fn context(&self, allocation: &Allocation) -> Context {
        Context::default().with_env("SCRATCH_DIR", format!("{WORKSPACE_ROOT}/{}", path(allocation)))
    }

    fn is_in_place(&self, allocation: &Allocation, scoped_name: &str) -> bool {
        path(allocation) == format!(".scratch-{scoped_name}")
    }
}

impl Provider for ScratchDir {
    fn provision(&self, task: &Task<'_>) -> Result<(), Error> {
        // The directory has the swarm's ownership marker in its name, so that it is recognised from the first moment.
        // It is complete once it is renamed.
        let [path, own] = paths(task);
        let created = fs::create_dir(&own).and_then(|()| fs::write(own.join(".owner"), task.owner));
        created.and_then(|()| fs::rename(own, path)).map_err(refused)
    }

    fn inspect(&self, task: &Task<'_>) -> Result<Condition, Error> {
        let gone = || Condition::Broken(format!("the scratch directory of {} is gone", task.session));
        Ok(if is_ours(task) { Condition::Healthy } else { gone() })
    }

    fn unsaved_work(&self, _: &Task<'_>) -> Result<UnsavedWork, Error> {
        Ok(UnsavedWork::default()) // It is scratch: nothing in it is unsaved work.
    }

    fn release(&self, task: &Task<'_>) -> Result<(), Error> {
        let [path, own] = paths(task);
        unless_gone(fs::remove_dir_all(&own))?; // An earlier run was killed.
        if is_ours(task) {
            fs::rename(path, &own).map_err(refused)?;
        }
        unless_gone(fs::remove_dir_all(own))
    }
}

fn path(allocation: &Allocation) -> &str {
    allocation.allocation.get("path").and_then(|path| path.as_str()).unwrap_or_default()
}

fn paths(task: &Task<'_>) -> [PathBuf; 2] {
    let path = path(task.allocation);
    [task.workspace.join(path), task.workspace.join(format!("{path}.{}", task.owner))]
}

fn is_ours(task: &Task<'_>) -> bool {
    fs::read_to_string(paths(task)[0].join(".owner")).is_ok_and(|owner| owner == task.owner)
}

fn unless_gone(removed: io::Result<()>) -> Result<(), Error> {
    removed.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(refused(error)) })
}

fn refused(error: io::Error) -> Error {
    Error::Refused(error.to_string())
}

// The kind ends here. The rest provisions a session that uses it.

fn main() -> Result<(), Box<dyn StdError>> {
    let directory = tempfile::tempdir()?;
    println!("{}", tour(directory.path())?.display());
    Ok(())
}

/// Provisions a session with a scratch directory below `directory`, releases it, and returns where the scratch was.
pub(crate) fn tour(directory: &Path) -> Result<PathBuf, Box<dyn StdError>> {
    let workspace = directory.join("workspace");
    fs::create_dir(&workspace)?;
    let mut registry = Registry::built_in();
    registry.register(Box::new(ScratchDir))?;
    let host = Host::new(std::env::vars_os().collect(), directory.join("state"));
    let orchestrator = Orchestrator::with_registry(host, registry);
    let session = orchestrator.provision("lead", &[ResourceRequest::new("scratch-dir")], &workspace)?;
    let scratch = PathBuf::from(&session.snapshot().soft_constraints.env["SCRATCH_DIR"]);
    fs::write(scratch.join("note"), "kept nowhere\n")?;
    session.release()?;
    Ok(scratch)
}
