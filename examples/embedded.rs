//! Embeds the library in another program, without the command line (`default-features = false`): a session, a child of
//! that session, and a run that is cancelled. Run it with `cargo run --example embedded --no-default-features
//! REPOSITORY STATE`.
#![expect(clippy::disallowed_methods, reason = "a program may do what the library does not")]

use std::error::Error;
use std::path::{Path, PathBuf};

use seedbed::host::{Host, process::Cancel};
use seedbed::orchestrator::{self, Orchestrator, ResourceRequest};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(repository), Some(state)) = (arguments.next(), arguments.next()) else {
        return Err("name a repository and a directory for state".into());
    };
    run(&repository, &state)
}

pub(crate) fn run(repository: &Path, state: &Path) -> Result<(), Box<dyn Error>> {
    let host = Host::new(std::env::vars_os().collect(), state.to_owned());
    let orchestrator = Orchestrator::new(host.clone());
    let requests = [ResourceRequest::new("git-worktree"), ResourceRequest::new("port-range")];
    let lead = orchestrator.provision("lead", &requests, repository)?;
    let coder = orchestrator.provision_child(lead.snapshot(), "lead/coder", 0, 1)?;
    println!("{} and {}", lead.working_directory().display(), coder.working_directory().display());

    // Any thread may cancel, here at the first event. Nothing of the cancelled run remains, and other runs continue.
    let cancel = Cancel::default();
    let cancelled =
        Orchestrator::new(host.with_cancel(cancel.clone())).with_events(move |_| cancel.request());
    let late = cancelled.provision("late", &requests, repository);
    assert!(matches!(late, Err(orchestrator::Error::Interrupted)), "{late:?}");

    coder.release()?;
    lead.release()?;
    Ok(())
}
