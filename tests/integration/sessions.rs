//! Tests of applied sessions: what they have, what their commands do, and who uses them.

mod applied_swarm;
mod containers;
mod expiry;
pub(crate) mod export;
mod inherited_text;
mod instances;
mod occupants;
mod ready;
mod repeated_steps;
mod run_commands;
mod session_files;
mod setup;
mod spawned;
mod start;
mod systemd;
mod updates_in_place;
