//! Uses seedbed as a library: one session, a child that works inside the session, and both prompts.
//!
//! Run it with `cargo run --example library`. It makes a repository of its own in a temporary directory.
#![expect(
    clippy::disallowed_methods,
    reason = "a program that uses the library may do what the library does not"
)]

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;

use seedbed::host::Host;
use seedbed::orchestrator::{Orchestrator, ResourceRequest};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    for prompt in tour(directory.path())? {
        println!("{prompt}\n");
    }
    Ok(())
}

/// Provisions a session and a child of the session in a new repository below `directory`, and returns their prompts.
pub(crate) fn tour(directory: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let repository = directory.join("repository");
    make_repository(&repository)?;

    // The library does not read the environment and chooses no directory for its state: the caller passes both.
    let host = Host::new(std::env::vars_os().collect(), directory.join("state"));
    let orchestrator = Orchestrator::new(host);

    let resources = [
        ResourceRequest::new("git-worktree").with("base-ref", "main"),
        // One port of the block, `http`, is the session's own; children divide the others.
        ResourceRequest::new("port-range").with("block-size", 16).with("names", ["http"].as_slice()),
    ];
    let lead = orchestrator.provision("lead", &resources, &repository)?;

    // A child needs nothing but its parent's snapshot, which may have been read from the discovery file.
    let coder = orchestrator.provision_child(lead.snapshot(), "lead/coder-0", 0, 2)?;

    let prompts = vec![
        lead.compose_prompt("Plan the release.", &["Leave the tests to the coders."]),
        coder.compose_prompt("Write the tests.", &[]),
    ];

    // An agent is started with a directory, an environment and a file that describes both.
    let start = coder.runtime_injection(None, std::env::vars())?;
    let told = Command::new("git")
        .args(["status", "--porcelain"])
        .current_dir(&start.working_directory)
        .envs(&start.env)
        .output()?;
    assert!(told.stdout.is_empty(), "git sees nothing of the discovery file");

    // Children first; work that is not committed would be refused.
    coder.release()?;
    lead.release()?;
    Ok(prompts)
}

fn make_repository(path: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir(path)?;
    fs::write(path.join("README"), "An example.\n")?;
    let name = ["-c", "user.name=example", "-c", "user.email=example@example.org"];
    let steps: [&[&str]; 3] = [
        &["init", "--quiet", "--initial-branch=main"],
        &["add", "--all"],
        &["commit", "--quiet", "-m", "first"],
    ];
    for step in steps {
        let status = Command::new("git").args(name).args(step).current_dir(path).status()?;
        assert!(status.success(), "git {step:?}");
    }
    Ok(())
}
