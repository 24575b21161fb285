//! A kind of resource that does as a test says.

use std::panic::{self, AssertUnwindSafe};

use schemars::Schema;
use seedbed::manifest::{Fault, Options};
use seedbed::observe::{Observation, Question};
use seedbed::provider::{
    self, Allocation, Condition, Parent, Planned, Planner, Provider, Registry, Request, Task,
};

/// What a fake is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Provision,
    Release,
}

type Act = Box<dyn Fn(Step, &Task<'_>) -> Result<(), provider::Error> + Send + Sync>;

/// A provider without options that runs a closure.
pub(crate) struct Fake {
    kind: &'static str,
    act: Act,
    is_claim: bool,
}

impl Fake {
    /// The built-in kinds, and this one.
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
        Self { kind, act: Box::new(act), is_claim: false }
    }

    /// The same kind, provisioned with the claims of a run.
    pub(crate) fn claimed(self) -> Self {
        Self { is_claim: true, ..self }
    }
}

/// Runs `act`, which provisions a resource of the kind `crash`: that ends the run as a kill does, and nothing is rolled
/// back.
pub(crate) fn crash_during(act: impl FnOnce(Registry)) {
    let registry = Fake::beside_the_built_in("crash", |step, _| match step {
        Step::Provision => panic!("the crash that the test asked for"),
        Step::Release => Ok(()),
    });
    let crashed = panic::catch_unwind(AssertUnwindSafe(|| act(registry)));
    assert!(crashed.is_err(), "it did not get as far as the crash");
}

impl Provider for Fake {
    fn kind(&self) -> &str {
        self.kind
    }

    fn options_schema(&self) -> Schema {
        schemars::json_schema!({ "type": "object" })
    }

    fn options(&self, own: &Options, _parent: Option<&Options>, _defaults: &Options) -> Options {
        own.clone()
    }

    fn questions(&self, _options: &Options) -> Vec<Question> {
        Vec::new()
    }

    fn planner<'o>(&'o self, _observation: &'o Observation) -> Box<dyn Planner + 'o> {
        Box::new(self)
    }

    fn context(&self, _allocation: &Allocation) -> provider::Context {
        provider::Context::default()
    }

    fn is_in_place(&self, _allocation: &Allocation, _scoped_name: &str) -> bool {
        true
    }

    fn notices(&self, _allocation: &Allocation, _observation: &Observation) -> Vec<String> {
        Vec::new()
    }

    fn stale(&self, _allocation: &Allocation, _observation: &Observation) -> Vec<String> {
        Vec::new()
    }

    fn path_fields(&self) -> &'static [&'static str] {
        &[]
    }

    fn is_claim(&self) -> bool {
        self.is_claim
    }

    fn provision(&self, task: &Task<'_>) -> Result<(), provider::Error> {
        (self.act)(Step::Provision, task)
    }

    fn inspect(&self, _task: &Task<'_>) -> Result<Condition, provider::Error> {
        Ok(Condition::Sound)
    }

    fn losses(&self, _task: &Task<'_>) -> Result<provider::Losses, provider::Error> {
        Ok(provider::Losses::default())
    }

    fn release(&self, task: &Task<'_>) -> Result<(), provider::Error> {
        (self.act)(Step::Release, task)
    }
}

impl Planner for &Fake {
    fn keep(&mut self, _session: &str, _parent: Option<&str>, _allocation: &Allocation) {}

    fn free(&mut self, _allocation: &Allocation) {}

    fn allocate(&mut self, _request: &Request<'_>) -> Result<Planned, Vec<Fault>> {
        Ok(Planned::default())
    }

    fn sub_allocate(&mut self, request: &Request<'_>, _parent: &Parent<'_>) -> Result<Planned, Vec<Fault>> {
        self.allocate(request)
    }
}
