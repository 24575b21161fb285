//! Implements a kind of resource whose actions a test defines.

use std::env;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use seedbed::host::Host;
use seedbed::manifest::{Diagnostics, Options};
use seedbed::observe::Observation;
use seedbed::orchestrator::{Orchestrator, ResourceRequest};
use seedbed::provider::{
    self, Allocation, Allocator, Condition, Parent, Planned, Planner, Provider, Registry, Request, Scope,
    Task,
};
use serde::{Deserialize, Serialize};

use crate::library_sandbox::Sandbox;

/// Step that a fake is asked to perform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Provision,
    Release,
}

type Act = Box<dyn Fn(Step, &Task<'_>) -> Result<(), provider::Error> + Send + Sync>;

/// Provider without options that runs a closure.
pub(crate) struct Fake {
    kind: &'static str,
    act: Act,
    is_claim: bool,
    panics_in: &'static str,
    planned: Arc<AtomicUsize>,
}

impl Fake {
    /// Returns the built-in kinds together with this one.
    pub(crate) fn beside_the_built_in(
        kind: &'static str,
        act: impl Fn(Step, &Task<'_>) -> Result<(), provider::Error> + Send + Sync + 'static,
    ) -> Registry {
        let mut registry = Registry::built_in();
        registry.register(Box::new(Self::new(kind, act))).expect("the kind is new");
        registry
    }

    pub(crate) fn new(
        kind: &'static str,
        act: impl Fn(Step, &Task<'_>) -> Result<(), provider::Error> + Send + Sync + 'static,
    ) -> Self {
        Self { kind, act: Box::new(act), is_claim: false, panics_in: "", planned: Arc::default() }
    }

    /// Returns the number of resources that this kind has planned.
    pub(crate) fn calls(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.planned)
    }

    /// Returns this kind, provisioned together with the claims of a run.
    pub(crate) fn claimed(self) -> Self {
        Self { is_claim: true, ..self }
    }

    /// Returns a kind that has no effects and panics in one of its steps.
    pub(crate) fn panicking(kind: &'static str, panics_in: &'static str) -> Self {
        Self { panics_in, ..Self::new(kind, |_, _| Ok(())) }
    }

    fn step(&self, name: &str) {
        assert_ne!(self.panics_in, name, "the test asked for it");
    }
}

/// Variable with the task of [`the_program_that_is_killed`].
const PROGRAM: &str = "SEEDBED_TEST_PROGRAM";

/// Session that a separate program provisions.
#[derive(Serialize, Deserialize)]
struct Program {
    state: PathBuf,
    workspace: PathBuf,
    id: String,
    resources: Vec<ResourceRequest>,
}

/// Provisions a session in a separate process, which SIGKILL ends at the resource of the kind `crash`.
pub(crate) fn crash_during(sandbox: &Sandbox, id: &str, resources: &[ResourceRequest]) {
    let program = Program {
        state: sandbox.host.state.clone(),
        workspace: sandbox.repo.clone(),
        id: id.to_owned(),
        resources: resources.to_owned(),
    };
    let status = Command::new(env::current_exe().unwrap())
        .args(["--exact", "fake_kind::the_program_that_is_killed", "--ignored"])
        .env_clear()
        .envs(sandbox.host.environment.iter().cloned())
        .env(PROGRAM, serde_json::to_string(&program).unwrap())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.signal(), Some(9), "it did not get as far as the crash: {status}");
}

/// Returns the kinds of the program that [`crash_during`] kills.
pub(crate) fn kinds_of_the_crash() -> Registry {
    Fake::beside_the_built_in("crash", |_, _| Ok(()))
}

#[test]
#[ignore = "a program that `crash_during` runs"]
fn the_program_that_is_killed() {
    let Ok(program) = env::var(PROGRAM) else { return };
    let Program { state, workspace, id, resources } = serde_json::from_str(&program).unwrap();
    let registry = Fake::beside_the_built_in("crash", |step, _| match step {
        Step::Provision => loop {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
        },
        Step::Release => Ok(()),
    });
    let host = Host::new(env::vars_os().collect(), state);
    let provisioned = Orchestrator::with_registry(host, registry).provision(&id, &resources, &workspace);
    panic!("it went past the crash: {provisioned:?}");
}

impl Planner for Fake {
    fn kind(&self) -> &str {
        self.kind
    }

    fn options(&self, own: &Options, _parent: Option<&Options>, _defaults: &Options) -> Options {
        own.clone()
    }

    fn allocator<'o>(&'o self, _observation: &'o Observation, _scope: &Scope<'_>) -> Box<dyn Allocator + 'o> {
        Box::new(self)
    }

    fn is_in_place(&self, _allocation: &Allocation, _scoped_name: &str) -> bool {
        true
    }

    fn is_claim(&self, _allocation: &Allocation) -> bool {
        self.is_claim
    }
}

impl Provider for Fake {
    fn provision(&self, task: &Task<'_>) -> Result<(), provider::Error> {
        self.step("provision");
        (self.act)(Step::Provision, task)
    }

    fn populate(&self, tasks: &[Task<'_>]) -> Vec<(usize, provider::Error)> {
        // On a thread of the run, as the built-in kinds do.
        tasks.par_iter().for_each(|_| self.step("fill"));
        Vec::new()
    }

    fn finish(&self, _task: &Task<'_>) -> Result<(), provider::Error> {
        self.step("finish");
        Ok(())
    }

    fn inspect(&self, _task: &Task<'_>) -> Result<Condition, provider::Error> {
        self.step("inspect");
        Ok(Condition::Healthy)
    }

    fn unsaved_work(&self, _task: &Task<'_>) -> Result<provider::UnsavedWork, provider::Error> {
        self.step("losses");
        let work = if self.panics_in == "rescue" { vec!["work".to_owned()] } else { Vec::new() };
        let mut unsaved_work = provider::UnsavedWork::default();
        unsaved_work.work = work;
        Ok(unsaved_work)
    }

    fn rescue(&self, _task: &Task<'_>) -> Result<provider::Rescue, provider::Error> {
        self.step("rescue");
        Err(provider::Error::Refused("a fake has nothing to rescue".to_owned()))
    }

    fn release(&self, task: &Task<'_>) -> Result<(), provider::Error> {
        self.step("release");
        (self.act)(Step::Release, task)
    }
}

impl Allocator for &Fake {
    fn allocate(&mut self, _request: &Request<'_>) -> Result<Planned, Diagnostics> {
        self.planned.fetch_add(1, Ordering::Relaxed);
        Ok(Planned::default())
    }

    fn sub_allocate(&mut self, request: &Request<'_>, parent: &Parent<'_>) -> Result<Planned, Diagnostics> {
        let mut planned = self.allocate(request)?;
        planned.allocation.insert("share".to_owned(), format!("{}/{}", parent.index, parent.count).into());
        planned.within_parent = true;
        Ok(planned)
    }
}
