//! Tests of the library, without the command line.

mod children;
mod examples;
mod lifecycle;
pub(crate) mod orchestrator;
mod several;
