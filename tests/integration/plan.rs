//! Tests of plans: what they promise, what they refuse, and how people review and save them.

mod base_age;
mod fetch;
mod changed_manifests;
mod determinism;
mod formats;
mod invariants;
mod refusals;
pub(crate) mod review;
pub(crate) mod review_page;
mod saved_plans;
