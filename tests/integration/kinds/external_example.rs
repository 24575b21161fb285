//! Tests of the example of an external kind in Rust. The orchestrator, which reports its steps, runs it as a program.

#[path = "../../../examples/external_kind.rs"]
#[expect(dead_code, reason = "its `main` is for `cargo run --example external_kind`")]
mod example;

use std::fs::{self, OpenOptions};
use std::io;
use std::sync::{Arc, Mutex};

use seedbed::apply::Event;
use seedbed::manifest::Program;
use seedbed::orchestrator::{Error, Orchestrator, ResourceRequest};

use crate::library_sandbox::Sandbox;

/// Variable that is set if [`the_program`] runs as a program.
const PROGRAM: &str = "SEEDBED_TEST_EXTERNAL_KIND";

/// Returns the command of [`the_program`]: the output of the test harness is discarded, and the answer is written to
/// standard output.
fn command() -> Vec<String> {
    let script = format!(
        "exec 4>&1 >/dev/null; {PROGRAM}=1 exec \"$0\" --exact kinds::external_example::the_program --ignored --nocapture"
    );
    let this = std::env::current_exe().unwrap().into_os_string().into_string().unwrap();
    vec!["sh".to_owned(), "-c".to_owned(), script, this]
}

#[test]
#[ignore = "a program that another test runs"]
fn the_program() {
    if std::env::var_os(PROGRAM).is_some() {
        let answers = OpenOptions::new().write(true).open("/dev/fd/4").unwrap();
        example::serve(io::stdin(), answers).unwrap();
    }
}

#[test]
fn an_orchestrator_offers_an_external_kind_and_reports_events() {
    let sandbox = Sandbox::new();
    let before = sandbox.trace();
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    let orchestrator = Orchestrator::new(sandbox.host.clone())
        .with_program("scratch", Program::new(command()))
        .with_events(move |event| heard.lock().unwrap().push(event.clone()));
    let requests = [ResourceRequest::new("scratch")];
    let parent = orchestrator.provision("parent", &requests, &sandbox.repo).unwrap();
    let provisioned = |event: &Event| matches!(event, Event::Provisioned { session, resource } if session.as_str() == "parent" && resource == "scratch");
    assert!(events.lock().unwrap().iter().any(provisioned), "{events:?}");
    let child = orchestrator.provision_child(parent.snapshot(), "child", 0, 2).unwrap();
    let (own, other) = (parent.injected_env([]), child.injected_env([]));
    assert_ne!(own["SCRATCH_DIR"], other["SCRATCH_DIR"]);

    let work = std::path::Path::new(&other["SCRATCH_DIR"]).join("work");
    fs::write(&work, "").unwrap();
    let refused = child.release().unwrap_err();
    assert!(matches!(&refused, Error::WouldLose(_)), "{refused}");
    assert!(refused.to_string().contains("1 scratch file(s)"), "{refused}");
    fs::remove_file(work).unwrap();
    child.release().unwrap();
    parent.release().unwrap();
    let released =
        |event: &&Event| matches!(event, Event::Released { resource, .. } if resource == "scratch");
    assert_eq!(events.lock().unwrap().iter().filter(released).count(), 2, "{events:?}");
    fs::remove_dir(sandbox.repo.join(".scratch")).unwrap();
    assert_eq!(sandbox.trace(), before);

    let unknown = orchestrator.provision("a", &[ResourceRequest::new("scrach")], &sandbox.repo).unwrap_err();
    assert!(matches!(unknown, Error::UnknownKind(_)), "{unknown}");
}
