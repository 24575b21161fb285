//! Collects the integration tests in one binary. `sandbox` serves tests that run the program, and
//! `library_sandbox` those that call the library. Every folder has the tests of one part.
#![expect(clippy::disallowed_methods, reason = "tests set the host up and look at it")]

mod fake_kind;
mod fixtures;
mod friendly;
mod library_sandbox;
mod sandbox;

mod cli;
mod documents;
mod faults;
mod fleet;
mod kinds;
mod library;
mod manifest;
mod plan;
mod recovery;
mod reference;
mod sessions;
mod unsaved_work;
mod worktrees;
