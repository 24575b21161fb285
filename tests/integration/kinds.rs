//! Tests of the kinds of resources, and of several in one session.

mod directory;
mod external;
mod external_example;
mod named;
mod pool;
mod ports;
mod providers;
mod worktrees;
