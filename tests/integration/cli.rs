//! Tests of the commands: their output, their exit codes, and the information that they give.

mod collect;
mod collect_worktrees;
mod consent;
mod destroy_where;
mod doctor;
mod environment;
mod exec;
mod exit_codes;
mod explain;
mod help_examples;
mod inside_sessions;
mod list;
mod overrides;
mod progress;
pub(crate) mod shells;
mod slot;
mod status;
mod validate;
mod without_manifest;
