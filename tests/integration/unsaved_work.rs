//! Tests that no work in a session is lost.

mod foreign_files;
mod interrupted_runs;
mod refusals;
mod rescue_command;
mod rescues;
mod restore_in_session;
