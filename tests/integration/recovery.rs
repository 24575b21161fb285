//! Tests of runs that fail or are interrupted, and of what comes after them.

mod give_up;
mod keep_failed;
mod killed_commands;
mod release_order;
mod replaced_repositories;
mod relocation;
mod repair;
mod rollback;
mod signals;
