//! Tests of manifests: what is read, and what is reported.

pub(crate) mod editors;
mod hostile;
mod reports;
