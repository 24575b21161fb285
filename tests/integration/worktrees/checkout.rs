//! Tests of the checkout method of each worktree, as the plan names it.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use seedbed::apply::{self, Event, Phase};
use seedbed::manifest::Options;
use seedbed::observe::{Observation, Query};
use seedbed::provider::{
    self, Allocation, Allocator, Condition, PathSet, Planner, Provider, Registry, Scope, Task,
};
use seedbed::state::Swarm;
use seedbed::{manifest, plan};

use crate::fake_kind::Fake;
use crate::library_sandbox;
use crate::sandbox::Sandbox;

/// Returns, for each session of the plan, the session whose worktree is copied.
fn from(sandbox: &Sandbox) -> Vec<(String, Option<String>)> {
    let plan = sandbox.plan();
    let changes = plan["changes"].as_array().unwrap();
    let made = changes.iter().filter(|change| !change["provision"].as_array().unwrap().is_empty());
    made.map(|change| {
        let from = change["from"]["git-worktree"].as_str().map(str::to_owned);
        (change["session"].as_str().unwrap().to_owned(), from)
    })
    .collect()
}

#[track_caller]
fn check(sandbox: &Sandbox, expected: &[(&str, Option<&str>)]) {
    let from = from(sandbox);
    let from: Vec<_> = from.iter().map(|(session, from)| (session.as_str(), from.as_deref())).collect();
    assert_eq!(from, expected);
}

const ALL: &str = r#"
[session.a]
resources = ["git-worktree"]
[session.b]
resources = ["git-worktree"]
[session.old]
resources = [{ kind = "git-worktree", base-ref = "HEAD~1" }]
[session.part]
resources = [{ kind = "git-worktree", target-path = "app" }]
[session.part-too]
resources = [{ kind = "git-worktree", target-path = "app", branch = "part" }]
[session.plain]
resources = [{ kind = "git-worktree", checkout = "git" }]
[session.z]
resources = [{ kind = "git-worktree", base-ref = "main" }]
"#;

#[test]
fn git_checks_out_one_worktree_of_each_commit_and_target() {
    let sandbox = Sandbox::new();
    sandbox.commit("second");
    sandbox.manifest(ALL);
    let expected = [
        ("a", None),
        ("b", Some("a")),
        ("old", None),
        ("part", None),
        ("part-too", Some("part")),
        ("plain", None),
        ("z", Some("a")),
    ];
    check(&sandbox, &expected);
    let said = sandbox.ok(&["plan"]).stdout;
    assert_eq!(said.matches("  copied from a\n").count(), 2, "{said}");
    assert_eq!(said.matches("  copied from part\n").count(), 1, "{said}");
    assert_eq!(said.matches("  checked out\n").count(), 3, "{said}");
    assert_eq!(said.matches("  by git\n").count(), 1, "{said}");
    sandbox.ok(&["apply"]);
    for session in crate::sandbox::sessions(&sandbox.plan()) {
        let directory = sandbox.repository.join(session["workingDirectory"].as_str().unwrap());
        sandbox.assert_clean(&directory);
    }
}

#[test]
fn active_worktrees_are_never_donors() {
    let sandbox = Sandbox::new();
    let manifest = |count: u32| {
        sandbox.manifest(&format!("[session.a]\ncount = {count}\nresources = [\"git-worktree\"]\n"));
    };
    manifest(2);
    sandbox.ok(&["apply"]);
    manifest(4);
    check(&sandbox, &[("a-2", None), ("a-3", Some("a-2"))]);
}

#[test]
fn a_saved_plan_with_another_source_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\ncount = 3\nresources = [\"git-worktree\"]\n");
    sandbox.ok(&["plan", "-o", "plan.json"]);
    let path = sandbox.repository.join("plan.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let edited = text.replacen(r#""git-worktree": "a-0""#, r#""git-worktree": "a-2""#, 1);
    let edited = if edited == text {
        text.replacen(r#""git-worktree":"a-0""#, r#""git-worktree":"a-2""#, 1)
    } else {
        edited
    };
    assert_ne!(edited, text, "the plan says where files come from");
    std::fs::write(&path, edited).unwrap();
    sandbox.seedbed(&["apply", "plan.json"]).expect(65).says(&["was edited"]);
}

/// Kind whose allocations all have one group key, and which records its steps.
struct Shared(Fake, Arc<Mutex<Vec<String>>>);

impl Shared {
    fn note(&self, what: &str, task: &Task<'_>) {
        self.1.lock().unwrap().push(format!("{what} {}", task.session));
    }
}

impl Planner for Shared {
    fn kind(&self) -> &str {
        self.0.kind()
    }

    fn options_schema(&self) -> schemars::Schema {
        self.0.options_schema()
    }

    fn options(&self, own: &Options, parent: Option<&Options>, defaults: &Options) -> Options {
        self.0.options(own, parent, defaults)
    }

    fn queries(&self, options: &Options) -> Vec<Query> {
        self.0.queries(options)
    }

    fn allocator<'o>(&'o self, observation: &'o Observation, scope: &Scope<'_>) -> Box<dyn Allocator + 'o> {
        self.0.allocator(observation, scope)
    }

    fn context(&self, allocation: &Allocation) -> provider::Context {
        self.0.context(allocation)
    }

    fn is_in_place(&self, allocation: &Allocation, scoped_name: &str) -> bool {
        self.0.is_in_place(allocation, scoped_name)
    }

    fn notices(&self, allocation: &Allocation, observation: &Observation) -> Vec<String> {
        self.0.notices(allocation, observation)
    }

    fn stale(
        &self,
        allocation: &Allocation,
        replaced: Option<&Allocation>,
        released: &PathSet,
        observation: &Observation,
    ) -> Vec<String> {
        self.0.stale(allocation, replaced, released, observation)
    }

    fn group_key(&self, _allocation: &Allocation) -> Option<String> {
        Some("the same".to_owned())
    }
}

impl Provider for Shared {
    fn provision(&self, task: &Task<'_>) -> Result<(), provider::Error> {
        self.note("provision", task);
        Ok(())
    }

    fn populate(&self, tasks: &[Task<'_>]) -> Vec<(usize, provider::Error)> {
        for task in tasks {
            self.note("fill", task);
            // The other sessions are reported only after all are populated. A repeated report does no harm.
            if !task.session.ends_with("/b") {
                task.on_populated.notify();
                task.on_populated.notify();
            }
        }
        let fails = |at: usize| tasks[at].session.ends_with('2');
        (0..tasks.len())
            .filter(|at| fails(*at))
            .map(|at| (at, provider::Error::Refused("two is too many".to_owned())))
            .collect()
    }

    fn finish(&self, task: &Task<'_>) -> Result<(), provider::Error> {
        self.note("finish", task);
        Ok(())
    }

    fn inspect(&self, task: &Task<'_>) -> Result<Condition, provider::Error> {
        self.0.inspect(task)
    }

    fn unsaved_work(&self, task: &Task<'_>) -> Result<provider::UnsavedWork, provider::Error> {
        self.0.unsaved_work(task)
    }

    fn release(&self, task: &Task<'_>) -> Result<(), provider::Error> {
        self.note("release", task);
        Ok(())
    }
}

/// Applies a manifest of `count` sessions of that kind; returns the result, and the steps in their order.
fn with_shared(count: u32) -> (Result<(), apply::Error>, Vec<String>) {
    let sandbox = library_sandbox::Sandbox::new();
    let done = Arc::new(Mutex::new(Vec::new()));
    let mut registry = Registry::built_in();
    registry.register(Box::new(Shared(Fake::new("shared", |_, _| Ok(())), Arc::clone(&done)))).unwrap();
    let text = format!(
        "version = 1\nswarm = \"s\"\n[session.a]\ncount = {count}\nresources = [\"shared\"]\n\
         [session.a.child.b]\nresources = [\"shared\"]\n"
    );
    let manifest = manifest::parse(&text, &registry.kinds()).unwrap();
    let swarm =
        Swarm::new(&sandbox.host, &sandbox.repo, "s").unwrap().lock(Duration::ZERO, "a test").unwrap();
    let input = apply::planning_input(&swarm, &registry, &manifest).unwrap();
    let plan = plan::plan(&manifest, &registry, &input.observation, None).unwrap();
    let events = |event: &Event| {
        if let Event::Passed { phase: Phase::Populate, session } = event {
            done.lock().unwrap().push(format!("passed {session}"));
        }
    };
    let context = apply::Context::new(&swarm, &registry).with_events(&events);
    let applied = apply::apply(&context, &plan, None, apply::Options::default());
    let done = done.lock().unwrap().clone();
    (applied, done)
}

#[test]
fn allocations_of_one_group_are_populated_in_one_call() {
    let (applied, done) = with_shared(2);
    applied.unwrap();
    let done: Vec<_> = done.into_iter().filter(|done| !done.starts_with("passed")).collect();
    let steps: Vec<_> = done.iter().map(|done| done.split(' ').next().unwrap()).collect();
    assert_eq!(steps, [["provision"; 4], ["fill"; 4], ["finish"; 4]].concat());
    assert_eq!(done[4..8], ["fill s/a-0", "fill s/a-0/b", "fill s/a-1", "fill s/a-1/b"]);
}

#[test]
fn events_report_each_populated_session_at_once() {
    let (applied, done) = with_shared(2);
    applied.unwrap();
    let filling: Vec<_> = done
        .iter()
        .map(String::as_str)
        .filter(|done| done.starts_with("fill") || done.starts_with("passed"))
        .collect();
    assert_eq!(
        filling,
        [
            "fill s/a-0",
            "passed a-0",
            "fill s/a-0/b",
            "fill s/a-1",
            "passed a-1",
            "fill s/a-1/b",
            "passed a-0/b",
            "passed a-1/b",
        ]
    );
}

#[test]
fn a_filling_that_fails_for_one_takes_all_back() {
    let (applied, done) = with_shared(3);
    let Err(apply::Error::Failed { failures, leftovers, .. }) = applied else { panic!("{applied:?}") };
    let said: Vec<_> = failures.iter().map(|failure| (failure.session.as_str(), &*failure.cause)).collect();
    assert_eq!(said, [("a-2", "two is too many")]);
    assert_eq!(failures[0].step, "provision shared");
    assert!(leftovers.is_empty());
    assert_eq!(done.iter().filter(|done| done.starts_with("release")).count(), 6);
    assert!(!done.iter().any(|done| done.starts_with("finish")), "{done:?}");
}

/// Mounts a file system that shares blocks between files; `None` if this user cannot or the host has none.
fn sharing_file_system(sandbox: &Sandbox) -> Option<PathBuf> {
    let (image, place) = (sandbox.top.join("image"), sandbox.top.join("shared"));
    fs::File::create(&image).unwrap().set_len(160 << 20).unwrap();
    fs::create_dir(&place).unwrap();
    let done = |program: &str, args: &[&str]| {
        let mut command = sandbox.program(program, &sandbox.top);
        command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let made = done("mkfs.btrfs", &["image"]) && done("mount", &["-o", "loop", "image", "shared"]);
    made.then_some(place)
}

#[test]
fn copies_share_the_blocks_of_large_files_where_the_file_system_can() {
    const SIZE: usize = 4 << 20;
    let sandbox = Sandbox::new();
    let Some(place) = sharing_file_system(&sandbox) else {
        eprintln!("NOT TESTED: no btrfs could be made and mounted here");
        return;
    };
    fs::write(sandbox.repository.join("large"), vec![b'x'; SIZE]).unwrap();
    sandbox.commit("large");
    sandbox.manifest(
        "[defaults.git-worktree]\nroot-directory = \"../shared/worktrees\"\n\
         [session.a]\ncount = 6\nresources = [\"git-worktree\"]\n",
    );
    let used = || {
        rustix::fs::syncfs(fs::File::open(&place).unwrap()).unwrap();
        let found = rustix::fs::statvfs(&place).unwrap();
        (found.f_blocks - found.f_bfree) * found.f_frsize
    };
    let before = used();
    sandbox.ok(&["apply"]);
    let taken = used() - before;
    assert!(taken > SIZE as u64 && taken < 3 * SIZE as u64, "six worktrees take {taken} bytes");
    for session in crate::sandbox::sessions(&sandbox.plan()) {
        let directory = sandbox.repository.join(session["workingDirectory"].as_str().unwrap());
        assert_eq!(fs::read(directory.join("large")).unwrap().len(), SIZE);
        sandbox.assert_clean(&directory);
    }
    sandbox.ok(&["destroy"]);
}
