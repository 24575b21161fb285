//! Tests against the reference implementation.

mod defects;
mod snapshots;
mod vectors;
