//! Tests of the library's sessions: their information, their release, and possible errors.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use seedbed::apply::{self, Destroy, Unsaved};
use seedbed::discovery;
use seedbed::host::process::Cancel;
use seedbed::orchestrator::{Error, Orchestrator, Provisioned, Recovery, ResourceRequest};
use seedbed::provider::{self, Registry};
use seedbed::state::{self, Swarm};
use serde_json::{Value, json};

use crate::fake_kind::{Fake, Step, crash_during, kinds_of_the_crash};
use crate::library_sandbox::{Sandbox, free_ports};
use crate::sandbox::Outcome;

fn ports(base: u16, size: u16, count: u16) -> ResourceRequest {
    ResourceRequest::new("port-range")
        .with("base-port", base)
        .with("block-size", size)
        .with("block-count", count)
}

fn worktree() -> ResourceRequest {
    ResourceRequest::new("git-worktree")
}

#[test]
fn session_gets_its_context() {
    let sandbox = Sandbox::new();
    let orchestrator = Orchestrator::new(sandbox.host.clone());
    let base = free_ports(4);
    let session = orchestrator.provision("a", &[worktree(), ports(base, 4, 1)], &sandbox.repo).unwrap();
    let path = session.working_directory().to_str().unwrap();
    let head = format!(
        "Runtime resource constraints are already enforced by the orchestrator:\n- Git worktree: {path}\n\
         - Worktree base ref: HEAD\n- Assigned deterministic port range: {base}-{}\n- Primary port: {base}\n",
        base + 3
    );
    assert_eq!(session.compose_prompt("Do it.", &[]), format!("{head}\nDo it."));
    assert_eq!(session.compose_prompt("Do it.", &["More."]), format!("{head}- More.\n\nDo it."));

    let base_env = [("A", "1"), ("AGENT_PORT_PRIMARY", "of the caller")].map(|(n, v)| (n.into(), v.into()));
    let told = session.runtime_injection(None, base_env.clone()).unwrap();
    let mut expected = session.injected_env(base_env);
    assert_eq!(
        (expected["A"].as_str(), expected["AGENT_PORT_PRIMARY"].as_str()),
        ("1", base.to_string().as_str())
    );
    let file = session.working_directory().join(".agent-context/resources.json");
    expected.insert("AGENT_DISCOVERY_FILE".into(), file.to_str().unwrap().into());
    assert_eq!((told.env, &told.discovery_file), (expected, &file));
    let read: discovery::Snapshot = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    assert_eq!(read, *session.snapshot());

    for path in ["resources.json", "src/resources.json", "../x/y", "/x/y"] {
        let error = session.runtime_injection(Some(Path::new(path)), []).unwrap_err();
        assert!(matches!(error, Error::Discovery { .. }), "{path}: {error}");
    }
    session.release().unwrap();
    assert!(matches!(session.runtime_injection(None, []), Err(Error::Released(_))));

    let nothing = orchestrator.provision("b", &[], &sandbox.repo).unwrap();
    assert_eq!(nothing.compose_prompt("Do it.", &[]), "Do it.");
    assert_eq!(nothing.working_directory(), sandbox.repo);
    nothing.release().unwrap();
}

#[test]
fn id_is_any_text_without_control_characters() {
    let sandbox = Sandbox::new();
    let before = sandbox.trace();
    let orchestrator = Orchestrator::new(sandbox.host.clone());
    let long = "x/".repeat(3000);
    let base = free_ports(4 * 16);
    let request = worktree().with("branch", "agents/one");
    for id in
        ["two  spaces and ünicode 🙂", "../../up", "-", "--force", "{{ swarm }}", ".", " ", &long, "%s\\"]
    {
        let session = orchestrator.provision(id, &[request.clone(), ports(base, 4, 16)], &sandbox.repo);
        let session = session.unwrap_or_else(|error| panic!("{id:?}: {error}"));
        assert_eq!(session.snapshot().session_id, id);
        let child = orchestrator.provision_child(session.snapshot(), &format!("{id}'s child"), 0, 1).unwrap();
        assert_eq!(fs::read_dir(sandbox.host.state.join("sessions")).unwrap().count(), 4, "{id}: 2 each");
        child.release().unwrap();
        orchestrator.active(id, &sandbox.repo).unwrap().expect("it is active").release().unwrap();
        assert_eq!(sandbox.trace(), before, "{id:?}");
    }
    for id in ["", "a\nb", "\u{1b}[2J", "\0"] {
        assert!(matches!(orchestrator.provision(id, &[], &sandbox.repo), Err(Error::SessionId(_))), "{id:?}");
    }
}

#[test]
fn requests_that_cannot_be_met_touch_nothing() {
    let sandbox = Sandbox::new();
    let before = sandbox.trace();
    let orchestrator = Orchestrator::new(sandbox.host.clone());
    let check = |requests: &[ResourceRequest], expected: &str| {
        let error = orchestrator.provision("a", requests, &sandbox.repo).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(sandbox.trace(), before);
    };
    check(&[ResourceRequest::new("vm")], "No provider registered for resource kind \"vm\".");
    check(&[worktree(), worktree()], "git-worktree");
    check(&[worktree().with("baseRef", 1)], "base-ref");
    check(&[worktree().with("base", "main")], "base");
    check(&[ResourceRequest::new("port-range").with("blockSize", 0)], "block-size");
    check(&[ResourceRequest::new("port-range").with("blockCount", 0)], "block-count");
    check(&[ports(60_000, 32, 512)], "65535");
    check(&[ports(16_000, 4, 1).with("primaryPortOffset", 4)], "primary port");
    let error = orchestrator.provision("a", &[], &sandbox.outside("nowhere")).unwrap_err();
    assert!(matches!(error, Error::Workspace { .. }), "{error}");

    let again = Registry::built_in().register(Box::new(Fake::new("port-range", |_, _| Ok(())))).unwrap_err();
    assert_eq!(again.to_string(), "resource provider \"port-range\" is already registered");
}

#[test]
fn a_failure_puts_everything_back() {
    let sandbox = Sandbox::new();
    let before = sandbox.trace();
    let registry = Fake::beside_the_built_in("fails", |step, _| match step {
        Step::Provision => Err(provider::Error::Refused("not today".to_owned())),
        Step::Release => Ok(()),
    });
    let orchestrator = Orchestrator::with_registry(sandbox.host.clone(), registry);
    let requests = [worktree(), ports(free_ports(4), 4, 1), ResourceRequest::new("fails")];
    let error = orchestrator.provision("a", &requests, &sandbox.repo).unwrap_err();
    assert_eq!(error.to_string(), "Resource provisioning failed: provision fails: not today");
    assert_eq!(sandbox.trace(), before);
}

#[test]
fn a_panic_in_a_provider_is_a_failure_of_its_step() {
    let sandbox = Sandbox::new();
    let before = sandbox.trace();
    let base = free_ports(4);
    let with = |step| {
        let mut registry = Registry::built_in();
        registry.register(Box::new(Fake::panicking("fake", step))).unwrap();
        Orchestrator::with_registry(sandbox.host.clone(), registry)
    };
    let requests = [worktree(), ResourceRequest::new("fake"), ports(base, 4, 1)];
    for step in ["provision", "fill", "finish"] {
        let error = with(step).provision("a", &requests, &sandbox.repo).unwrap_err();
        assert!(matches!(&error, Error::Provision { leftovers, .. } if leftovers.is_empty()), "{error}");
        assert!(error.to_string().contains("provision fake: a bug: it panicked"), "{error}");
        assert_eq!(sandbox.trace(), before, "{step}");
    }

    let session = with("").provision("a", &requests, &sandbox.repo).unwrap();
    let applied = sandbox.trace();
    let found = |step| with(step).active("a", &sandbox.repo).unwrap().unwrap();
    // Work that cannot be inspected is not called saved.
    let error = found("losses").release().unwrap_err();
    assert!(matches!(error, Error::WouldLose(_)), "{error}");
    let error = found("rescue").release_rescuing(|_| {}).unwrap_err();
    assert!(error.to_string().contains("rescue fake: a bug: it panicked"), "{error}");
    assert_eq!(sandbox.trace(), applied);
    let error = found("release").release().unwrap_err();
    assert!(error.to_string().contains("release fake: a bug: it panicked"), "{error}");
    assert!(!session.working_directory().exists(), "the rest goes all the same");
    session.release().unwrap();
    assert_eq!(sandbox.trace(), before);
}

#[test]
fn panic_during_an_inspection_is_reported_as_damage() {
    let sandbox = Sandbox::new();
    let manifest = "version = 1\nswarm = \"s\"\n[session.a]\nresources = [\"fake\"]\n";
    let registry = |step| {
        let mut registry = Registry::built_in();
        registry.register(Box::new(Fake::panicking("fake", step))).unwrap();
        registry
    };
    sandbox.apply_with(&registry(""), manifest).unwrap();
    let plan = sandbox.plan_with(&registry("inspect"), manifest).unwrap();
    assert!(plan.changes()[0].reasons[0].contains("a bug: it panicked"), "{:?}", plan.changes()[0]);
    sandbox.destroy_with(&registry("inspect"), "s", false).unwrap();
}

/// Provisions a resource that another process claims the first `times` times, and has released before the next
/// inspection.
fn overtaken(times: u32) -> (Result<Provisioned, Error>, u32) {
    let sandbox = Sandbox::new();
    let tries = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&tries);
    let registry = Fake::beside_the_built_in("contended", move |step, _| match step {
        Step::Provision if counted.fetch_add(1, Ordering::SeqCst) < times => {
            Err(provider::Error::Conflict("another has it".to_owned()))
        }
        Step::Provision | Step::Release => Ok(()),
    });
    let orchestrator = Orchestrator::with_registry(sandbox.host.clone(), registry);
    let provisioned = orchestrator.provision("a", &[ResourceRequest::new("contended")], &sandbox.repo);
    (provisioned, tries.load(Ordering::SeqCst))
}

#[test]
fn run_that_loses_to_a_failing_run_tries_again_a_few_times() {
    let (provisioned, tries) = overtaken(3);
    assert!(provisioned.is_ok());
    assert_eq!(tries, 4);
    let (provisioned, tries) = overtaken(u32::MAX);
    let error = provisioned.expect_err("it is never free").to_string();
    assert_eq!(error, "Resource provisioning failed: provision contended: another has it");
    assert_eq!(tries, 17);
}

#[test]
fn release_is_in_reverse_continues_after_failures_and_can_be_repeated() {
    let sandbox = Sandbox::new();
    let before = sandbox.trace();
    let stuck = Arc::new(AtomicBool::new(true));
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut registry = Registry::built_in();
    for kind in ["one", "two", "three"] {
        let (stuck, order) = (Arc::clone(&stuck), Arc::clone(&order));
        let fake = Fake::new(kind, move |step, _| {
            if step == Step::Release {
                order.lock().unwrap().push(kind);
            }
            if step == Step::Release && kind != "two" && stuck.load(Ordering::Relaxed) {
                return Err(provider::Error::Refused(format!("{kind} is stuck")));
            }
            Ok(())
        });
        registry.register(Box::new(fake)).unwrap();
    }
    let orchestrator = Orchestrator::with_registry(sandbox.host.clone(), registry);
    let requests = ["one", "git-worktree", "two", "three"].map(ResourceRequest::new);
    let session = orchestrator.provision("a", &requests, &sandbox.repo).unwrap();
    let error = session.release().unwrap_err();
    assert_eq!(
        error.to_string(),
        "Failed to release provisioned resources: release three: three is stuck | release one: one is stuck"
    );
    assert_eq!(*order.lock().unwrap(), ["three", "two", "one"]);
    assert!(!fs::exists(session.working_directory()).unwrap(), "the worktree between them is gone");
    session.release().unwrap_err();
    stuck.store(false, Ordering::Relaxed);
    session.release().unwrap();
    assert_eq!(sandbox.trace(), before);
    order.lock().unwrap().clear();
    session.release().unwrap();
    assert!(order.lock().unwrap().is_empty());
}

#[test]
fn a_handle_does_not_release_what_came_after_it() {
    let sandbox = Sandbox::new();
    let orchestrator = Orchestrator::new(sandbox.host.clone());
    let old = orchestrator.provision("a", &[worktree()], &sandbox.repo).unwrap();
    orchestrator.active("a", &sandbox.repo).unwrap().unwrap().release().unwrap();
    let new = orchestrator.provision("a", &[worktree()], &sandbox.repo).unwrap();
    old.release().unwrap();
    assert!(fs::exists(new.working_directory()).unwrap());
    new.release().unwrap();
}

#[test]
fn a_parent_is_not_released_under_its_children() {
    let sandbox = Sandbox::new();
    let before = sandbox.trace();
    let orchestrator = Orchestrator::new(sandbox.host.clone());
    let parent =
        orchestrator.provision("a", &[worktree(), ports(free_ports(8), 8, 1)], &sandbox.repo).unwrap();
    let child = orchestrator.provision_child(parent.snapshot(), "b", 0, 2).unwrap();
    let grandchild = orchestrator.provision_child(child.snapshot(), "c", 0, 2).unwrap();
    for session in [&parent, &child] {
        for release in [session.release(), session.release_discarding()] {
            let error = release.unwrap_err();
            assert!(matches!(error, Error::WouldLose(_)), "{error}");
            assert!(error.to_string().contains("`c`"), "{error}");
        }
    }
    assert!(fs::exists(grandchild.working_directory()).unwrap());
    for session in [grandchild, child, parent] {
        session.release().unwrap();
    }
    assert_eq!(sandbox.trace(), before);
}

#[test]
fn a_child_of_a_manifests_session() {
    let sandbox = Sandbox::new();
    let before = sandbox.trace();
    let base = free_ports(16);
    let manifest = format!(
        "version = 1\nswarm = \"swarm\"\n[session.lead]\nresources = [\"git-worktree\", {{ kind = \"port-range\", \
         base-port = {base}, block-size = 16, block-count = 1, names = [\"http\", \"db\"], primary-port-offset = 0 }}]\n"
    );
    let record = sandbox.apply(&manifest).unwrap();
    let file = sandbox.repo.join(record.plan.sessions()[0].discovery_file.as_ref().unwrap());
    let parent = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let orchestrator = Orchestrator::new(sandbox.host.clone());
    let child = orchestrator.provision_child(&parent, "helper", 0, 1).unwrap();
    let block = child.snapshot().allocation("port-range").unwrap();
    assert_eq!(block["startPort"], base + 2, "the parent keeps what it has named");
    assert_eq!(block["endPort"], base + 15);

    let refused = sandbox.destroy("swarm", false).unwrap_err();
    assert!(refused.contains("`helper`"), "{refused}");
    child.release().unwrap();
    sandbox.destroy("swarm", false).unwrap();
    assert_eq!(sandbox.trace(), before);
}

#[test]
fn a_crash_in_the_middle_of_a_child_is_undone_by_the_next_attempt() {
    let sandbox = Sandbox::new();
    let before = sandbox.trace();
    let orchestrator = Orchestrator::with_registry(sandbox.host.clone(), kinds_of_the_crash());
    let parent =
        orchestrator.provision("a", &[worktree(), ports(free_ports(8), 8, 1)], &sandbox.repo).unwrap();
    let with_parent = sandbox.trace();
    let requests = [worktree(), ResourceRequest::new("crash")];
    crash_during(&sandbox, "b", &requests);
    assert_ne!(sandbox.trace(), with_parent);
    let child = orchestrator.provision_child(parent.snapshot(), "b", 0, 1).unwrap();
    child.release().unwrap();
    assert_eq!(sandbox.trace(), with_parent);
    parent.release().unwrap();
    assert_eq!(sandbox.trace(), before);
}

const ONE: &str = "version = 1\nswarm = \"s\"\n[session.a]\nresources = [\"git-worktree\"]\n";

#[test]
fn a_run_is_not_begun_over_an_interrupted_one() {
    let sandbox = Sandbox::new();
    fs::write(
        sandbox.outside("seedbed.toml"),
        ONE.replace("[session.a]", "[workspace]\nroot = \"repo\"\n[session.a]"),
    )
    .unwrap();
    let before = sandbox.trace();
    let manifest = sandbox.outside("seedbed.toml");
    let kill = |command: &str, point: &str| {
        let args = ["-f", manifest.to_str().unwrap(), command];
        let mut command = seedbed_command(&sandbox, &args);
        Outcome::of(command.env("SEEDBED_FAILPOINT", format!("{point}=crash")).output().unwrap()).expect(137);
        sandbox.trace()
    };
    let recover = || {
        sandbox.locked(&Registry::built_in(), "s", |context| {
            apply::recover(context, apply::Options::default()).unwrap();
        });
    };
    let plan = sandbox.plan(ONE).unwrap();
    let half_made = kill("apply", "apply.told");
    sandbox.locked(&Registry::built_in(), "s", |context| {
        let error = apply::apply(context, &plan, None, apply::Options::default()).unwrap_err();
        assert!(matches!(error, apply::Error::State(state::Error::Unrecovered { .. })), "{error}");
    });
    assert_eq!(sandbox.trace(), half_made);
    recover();
    assert_eq!(sandbox.trace(), before);

    let record = sandbox.apply(ONE).unwrap();
    let half_gone = kill("destroy", "run.intended");
    sandbox.locked(&Registry::built_in(), "s", |context| {
        let error = apply::destroy(context, &record, &Destroy::default()).unwrap_err();
        assert!(matches!(error, apply::Error::State(state::Error::Unrecovered { .. })), "{error}");
        let error = context.swarm.begin(&record).unwrap_err();
        assert!(error.to_string().contains("recover it first"), "{error}");
    });
    assert_eq!(sandbox.trace(), half_gone);
    recover();
    assert_eq!(sandbox.trace(), before);
}

#[test]
fn a_workspace_is_one_however_a_path_leads_there() {
    let sandbox = Sandbox::new();
    let link = sandbox.outside("link");
    std::os::unix::fs::symlink(&sandbox.repo, &link).unwrap();
    let swarm = |path: &Path| Swarm::new(&sandbox.host, path, "s").unwrap();
    let session = |path: &Path| Swarm::for_session(&sandbox.host, path, "a").unwrap();
    let up = sandbox.repo.join("src/../services/./..");
    for path in [link.as_path(), &up, &sandbox.repo.join("")] {
        assert_eq!(swarm(path).workspace(), sandbox.repo);
        assert_eq!(swarm(path).key(), swarm(&sandbox.repo).key());
        assert_eq!(session(path).key(), session(&sandbox.repo).key());
    }
    for path in [sandbox.repo.join("README"), sandbox.outside("nowhere")] {
        let error = Swarm::new(&sandbox.host, &path, "s").unwrap_err();
        assert!(matches!(error, state::Error::Workspace { .. }), "{error}");
    }
    sandbox.write("seedbed.toml", ONE);
    sandbox.apply(ONE).unwrap();
    let mut command = seedbed_command(&sandbox, &["status"]);
    Outcome::of(command.current_dir(&link).output().unwrap()).expect(0);
}

#[test]
fn a_cancel_ends_the_runs_under_way_and_no_later_one() {
    let sandbox = Sandbox::new();
    let before = sandbox.trace();
    let waits = Arc::new(AtomicBool::new(true));
    let (waiting, is_there) = (Arc::clone(&waits), Arc::new(AtomicBool::new(false)));
    let seen = Arc::clone(&is_there);
    let registry = Fake::beside_the_built_in("waits", move |step, task| {
        seen.store(true, Ordering::SeqCst);
        while step == Step::Provision && waiting.load(Ordering::SeqCst) && !task.host.cancel.is_requested() {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    });
    let orchestrator = Orchestrator::with_registry(sandbox.host.clone(), registry);
    let requests = [worktree(), ResourceRequest::new("waits")];
    for _ in 0..2 {
        is_there.store(false, Ordering::SeqCst);
        let cancelled = thread::scope(|scope| {
            let run = scope.spawn(|| orchestrator.provision("a", &requests, &sandbox.repo));
            while !is_there.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
            orchestrator.clone().cancel();
            run.join().unwrap()
        });
        assert!(matches!(cancelled, Err(Error::Interrupted)), "{cancelled:?}");
        assert_eq!(sandbox.trace(), before);
    }
    waits.store(false, Ordering::SeqCst);
    orchestrator.cancel();
    let session = orchestrator.provision("a", &requests, &sandbox.repo).unwrap();
    orchestrator.cancel();
    session.release().unwrap();
    assert_eq!(sandbox.trace(), before);

    // A cancel of all work with the host ends this as well.
    sandbox.host.cancel.request();
    assert!(matches!(orchestrator.provision("a", &requests, &sandbox.repo), Err(Error::Interrupted)));
    let host = sandbox.host.with_cancel(Cancel::default());
    Orchestrator::new(host).provision("a", &[worktree()], &sandbox.repo).unwrap().release().unwrap();
}

#[test]
fn the_command_line_leaves_what_only_another_program_can_release() {
    let sandbox = Sandbox::new();
    sandbox.write("seedbed.toml", ONE);
    let before = sandbox.trace();
    let registry = Fake::beside_the_built_in("own", |_, _| Ok(()));
    let with_own = format!("{ONE}[session.b]\nresources = [\"git-worktree\", \"own\"]\n");
    sandbox.apply_with(&registry, &with_own).unwrap();
    let applied = sandbox.trace();
    let check = |args: &[&str], says: &[&str]| {
        seedbed(&sandbox, args).expect(69).says(says);
        assert_eq!(sandbox.trace(), applied, "{args:?}");
    };
    let untouched = ["session `s/b`", "`own`", "with that program", "nothing was changed"];
    check(&["destroy"], &untouched);
    check(&["destroy", "b", "--discard"], &untouched);
    check(&["apply", "-y", "--discard"], &untouched);
    check(&["apply", "-y"], &untouched);
    let dry = seedbed(&sandbox, &["destroy", "--dry-run", "--discard"]).expect(69);
    assert!(dry.stdout.contains("b: refused: only the program that provisioned its `own`"), "{dry:?}");
    // It has no part in what else is released.
    seedbed(&sandbox, &["destroy", "a"]).expect(0);
    sandbox.destroy_with(&registry, "s", false).unwrap();
    assert_eq!(sandbox.trace(), before);
}

/// Runs the command line in the repository and with the state of the library.
pub(crate) fn seedbed(sandbox: &Sandbox, args: &[&str]) -> Outcome {
    Outcome::of(seedbed_command(sandbox, args).output().unwrap())
}

pub(crate) fn seedbed_command(sandbox: &Sandbox, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seedbed"));
    command.args(args).current_dir(&sandbox.repo).env_clear().envs(sandbox.host.environment.iter().cloned());
    command.env("SEEDBED_STATE_DIR", &sandbox.host.state).env("SEEDBED_PORT_REGISTRY", "none");
    command
}

/// Returns the id and the text of each finding of `doctor`.
fn findings(sandbox: &Sandbox) -> Vec<(String, String)> {
    let found = seedbed(sandbox, &["doctor", "--json"]).expect(0).json();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    found["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|found| (text(found, "id"), text(found, "description")))
        .collect()
}

#[test]
fn an_interrupted_session_is_named_by_doctor_and_finished_by_recover() {
    let sandbox = Sandbox::new();
    let before = sandbox.trace();
    seedbed(&sandbox, &["recover"]).expect(64).says(&["no seedbed.toml"]);
    let requests = [worktree(), ports(free_ports(8), 8, 1), ResourceRequest::new("crash")];
    crash_during(&sandbox, "half/made", &requests);
    let interrupted = |found: &[(String, String)]| {
        let [(id, what)] = found else { panic!("{found:?}") };
        assert_eq!(id, "interrupted-run");
        assert!(what.contains("a run of session half/made of "), "{what}");
    };
    interrupted(&findings(&sandbox));

    // A resource that only another program can release is left to that program.
    let half = sandbox.trace();
    let known = Orchestrator::new(sandbox.host.clone());
    let recovered = known.recover(&sandbox.repo, Unsaved::Keep.into(), Duration::ZERO).unwrap();
    assert!(
        matches!(&recovered[..], [Recovery { done: Err(Error::UnknownKind(kind)), .. }] if kind == "crash")
    );
    assert_eq!(sandbox.trace(), half);
    seedbed(&sandbox, &["recover"]).expect(69).says(&["session `half/made`", "`crash`", "with that program"]);
    assert_eq!(sandbox.trace(), half);
    interrupted(&findings(&sandbox));

    // As it would be without that resource.
    let records =
        fs::read_dir(sandbox.host.state.join("sessions")).unwrap().map(|entry| entry.unwrap().path());
    let intent = records.map(|path| path.join("intent.json")).find(|path| path.exists()).unwrap();
    let mut record: Value = serde_json::from_slice(&fs::read(&intent).unwrap()).unwrap();
    let session = &mut record["plan"]["sessions"][0];
    session["allocations"].as_array_mut().unwrap().retain(|held| held["kind"] != "crash");
    record["plan"]["changes"][0]["provision"].as_array_mut().unwrap().retain(|kind| kind != "crash");
    fs::write(&intent, record.to_string()).unwrap();
    let recovered = seedbed(&sandbox, &["recover", "--json"]).expect(0).json();
    assert_eq!(recovered["standaloneSessions"], json!({ "half/made": "rolledBack" }));
    assert_eq!(sandbox.trace(), before);
    assert_eq!(findings(&sandbox), []);
}

#[test]
fn work_that_is_not_saved_is_saved_before_a_session_is_released() {
    let sandbox = Sandbox::new();
    let before = sandbox.trace();
    let orchestrator = Orchestrator::new(sandbox.host.clone());
    let session = orchestrator.provision("team a/lead", &[worktree()], &sandbox.repo).unwrap();
    fs::write(session.working_directory().join("new"), "not committed\n").unwrap();
    assert!(matches!(session.release(), Err(Error::WouldLose(_))));
    assert!(session.working_directory().is_dir());

    let mut saved = Vec::new();
    session.release_rescuing(|one| saved.push(one)).unwrap();
    session.release_rescuing(|one| panic!("there was nothing to save any more: {one:?}")).unwrap();
    let [saved] = &saved[..] else { panic!("{saved:?}") };
    assert_eq!(
        sandbox.git(&["for-each-ref", "--format=%(refname)", "refs/seedbed"]).trim_end(),
        saved.reference
    );
    let mut command = Command::new("sh");
    command.args(["-e", "-c", &saved.command]).current_dir(&sandbox.repo);
    command.env_clear().envs(sandbox.host.environment.iter().cloned());
    Outcome::of(command.output().unwrap()).expect(0);
    let restored = sandbox.git(&["worktree", "list", "--porcelain"]);
    let restored = restored.lines().filter_map(|line| line.strip_prefix("worktree ")).nth(1).unwrap();
    assert_eq!(fs::read_to_string(Path::new(restored).join("new")).unwrap(), "not committed\n");
    assert_eq!(saved.missing, Vec::<String>::new());
    sandbox.git(&["worktree", "remove", "--force", restored]);
    sandbox.git(&["update-ref", "-d", &saved.reference]);
    assert_eq!(sandbox.trace(), before);
}

#[test]
fn many_at_once() {
    let sandbox = Sandbox::new();
    let before = sandbox.trace();
    let orchestrator = Orchestrator::new(sandbox.host.clone());
    let base = free_ports(4 * 8);
    let sessions: Vec<_> = thread::scope(|scope| {
        let provision = |at: u32| {
            let (orchestrator, repo) = (&orchestrator, &sandbox.repo);
            let requests = [worktree(), ports(base, 4, 8)];
            scope.spawn(move || orchestrator.provision(&format!("s{at}"), &requests, repo).unwrap())
        };
        let threads: Vec<_> = (0..8).map(provision).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let starts: BTreeSet<u64> = sessions
        .iter()
        .map(|session| session.snapshot().allocation("port-range").unwrap()["startPort"].as_u64().unwrap())
        .collect();
    assert_eq!(starts.len(), 8);
    thread::scope(|scope| {
        for session in &sessions {
            scope.spawn(|| session.release().unwrap());
        }
    });
    assert_eq!(sandbox.trace(), before);
}
