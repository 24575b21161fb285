//! Reproducible workspaces for swarms of agents and CI fixtures: Git worktrees and blocks of ports, declared in one
//! manifest, planned, reviewed, and applied all or nothing.
//!
//! # The main idea
//!
//! Everything is decided before anything is done. Planning is a pure function of a manifest and of an [`Observation`]
//! of the host. The resulting [`Plan`] leaves the run no choice. So a plan can be reviewed, saved, compared, and
//! applied exactly or refused as stale. Any session may name the paths and ports of any other. The plan, on disk before
//! the first effect, is all that recovery needs: recovery walks the plan and removes everything in it that exists.
//!
//! # The flow
//!
//! ```text
//!  text ──manifest──► Manifest ─┐
//!                               ├─plan──► Plan ──apply──► leases ──► discovery files
//!  host ──observe───► Observation ┘
//! ```
//!
//! The modules, in the order of the flow. None uses a module below it, except in tests:
//!
//! | module | does | touches |
//! |---|---|---|
//! | [`name`] | ids, scoped names, blocks of ports | nothing |
//! | [`host`] | processes, Git and files, hardened; the registry of leases | the outside, for all other modules |
//! | [`manifest`] | text to [`Manifest`], every diagnostic at its location | nothing |
//! | [`observe`] | queries to [`Observation`] | reads |
//! | [`template`] | strict templates | nothing |
//! | [`provider`] | the kinds of resources; one folder a kind | its `plan` halves nothing, the rest the outside |
//! | [`plan`] | ([`Manifest`], [`Observation`], applied swarm) to [`Plan`] | nothing |
//! | [`review`] | a plan as people review it | nothing |
//! | [`state`] | intents, applied plans, locks | the state directory |
//! | [`discovery`] | discovery files | writes them |
//! | [`apply`] | order, parallelism, rollback, release, recovery | through `provider`, `state`, `discovery` |
//! | [`collect`] | commits, conflicts and landing of sessions | reads |
//! | [`doctor`] | problems of a host, a repository and a plan | reads; reaps orphaned leases |
//! | [`orchestrator`] | one session at a time, without a manifest | through `apply` |
//! | [`report`] | documents that commands print with `--json` | nothing |
//!
//! The command line is a module of the binary, out of the library's reach. The library never prints, never reads the
//! environment, and never exits. A list of disallowed methods in `clippy.toml` ensures this, and the purity of
//! `manifest` and `plan`. Modules that may have effects lift the list by name.
//!
//! # All or nothing
//!
//! A run moves aside what it replaces or destroys, provisions everything new, and is then committed by one rename. Only
//! after that is anything released. Until the commit, a failure, Ctrl-C or crash is rolled back: new resources are
//! released, and what was moved aside is brought back unchanged. Only an interrupted `destroy` is finished instead.
//!
//! Both are reconciliation, not replay: [`provider::Provider::release`] and [`provider::Provider::bring_back`] are
//! idempotent, work on anything that exists half-made, and touch only what carries the swarm's ownership marker. A run
//! is alive as long as its flock is owned. Git children inherit the flock; process ids are not used.
//!
//! Unsaved work is checked twice ([`provider::Provider::unsaved_work`]): before the run, to refuse early, and again
//! once the lease is aside, where no other program changes it any more. There it is saved, if requested
//! ([`provider::Provider::rescue`]).
//!
//! # Using it
//!
//! For one session at a time, see [`orchestrator`], `examples/library.rs` and `examples/embedded.rs`. For a swarm:
//!
//! ```
//! use std::time::Duration;
//! use seedbed::{apply, host::Host, manifest, plan, provider::Registry, review::Review, state::Swarm};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let (repository, state) = (directory.path().join("repository"), directory.path().join("state"));
//! # std::fs::create_dir(&repository)?;
//! # let git = |arguments: &[&str]| {
//! #     let user = ["-c", "user.name=example", "-c", "user.email=example@example.org"];
//! #     std::process::Command::new("git").args(user).args(arguments).current_dir(&repository).status()
//! # };
//! # assert!(git(&["init", "--quiet"])?.success());
//! # assert!(git(&["commit", "--quiet", "--allow-empty", "--message", "first"])?.success());
//! let text = r#"
//!     version = 1
//!     swarm = "example"
//!     [session.lead]
//!     resources = ["git-worktree", "port-range"]
//! "#;
//! let host = Host::new(std::env::vars_os().collect(), state);
//! let registry = Registry::built_in();
//! let manifest = manifest::parse(text, &registry.kinds())?;
//! let swarm = Swarm::new(&host, &repository, &manifest.swarm)?.lock(Duration::ZERO, "example")?;
//! let context = apply::Context::new(&swarm, &registry);
//!
//! // An interrupted run is recovered first: until then, nothing is applied or destroyed.
//! apply::recover(&context, apply::Options::default())?;
//! let input = apply::planning_input(&swarm, &registry, &manifest)?;
//! let plan = plan::plan(&manifest, &registry, &input.observation, input.applied.as_ref())?;
//! println!("{}", Review::new(&plan).with_observation(&input.observation).markdown());
//! apply::apply(&context, &plan, input.record.as_ref(), apply::Options::default())?;
//!
//! // Unsaved work is never lost: if there is any, this is an error, and nothing is released.
//! if let Some(applied) = swarm.applied()? {
//!     apply::destroy(&context, &applied, &apply::Destroy::default())?;
//! }
//! swarm.unlock()?;
//! # Ok(())
//! # }
//! ```
//!
//! Crates whose types occur in signatures are re-exported: [`minijinja`], [`schemars`], [`serde_json`].
//!
//! [`Manifest`]: manifest::Manifest
//! [`Observation`]: observe::Observation
//! [`Plan`]: plan::Plan

pub use {minijinja, schemars, serde_json};

pub mod name;
pub mod host;
pub mod manifest;
pub mod observe;
pub mod template;
pub mod provider;
pub mod plan;
pub mod review;
pub mod state;
pub mod discovery;
pub mod apply;
pub mod fleet;
pub mod collect;
pub mod doctor;
pub mod orchestrator;
#[expect(
    clippy::exhaustive_enums,
    clippy::exhaustive_structs,
    reason = "the command line, a crate of its own, builds these documents field by field"
)]
pub mod report;

// Tests of the library share files with the integration tests.
#[cfg(test)]
extern crate self as seedbed;
#[cfg(test)]
mod fuzz;
