//! Tests of the kinds of resources other than worktrees.

mod directory;
mod external;
mod external_example;
mod named;
mod ports;
