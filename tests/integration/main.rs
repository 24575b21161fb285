//! One test binary. `sandbox` is for tests that run the program, `in_process` for those that call the library; then one
//! file a stage or promise.
#![expect(clippy::disallowed_methods, reason = "tests set the host up and look at it")]

mod fake;
mod in_process;
mod sandbox;
mod support;

mod branches;
mod browser;
mod change;
mod checkout;
mod children;
mod codes;
mod crowd;
mod determinism;
mod doctor;
mod documents;
mod editors;
mod elsewhere;
mod environment;
mod exec;
mod explain;
mod external;
mod failure;
mod faults;
mod faults_of_the_seed;
mod foreign;
mod formats;
mod hostile;
mod inherited;
mod inside;
mod interrupt;
mod library;
mod lifecycle;
mod list;
mod loss;
mod manifest;
mod orchestrator;
mod overlay;
mod planning;
mod ports;
mod progress;
mod recipe;
mod refused;
mod repair;
mod rescue;
mod reverse;
mod review;
mod run;
mod saved;
mod seed_snapshots;
mod seed_vectors;
mod setup;
mod shells;
mod standing;
mod validate;
