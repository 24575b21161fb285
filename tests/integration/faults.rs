//! Tests of kills and errors at every point: no work is lost, and no resource is left.
//!
//! Each file has one suite. The oracle is the full inventory of [`Sandbox::inventory`] before and after. A crash counts
//! only if the run's trace records its death at the requested point.

mod beside;
mod crash;
mod day;
pub(crate) mod errors;
mod git;
mod orphan;
mod planted;
mod races;
mod replace;
mod seeds;
mod repositories;
pub(crate) mod shim;
mod sequences;
mod soak;
mod torn;
mod traps;
mod update;
mod waits;
mod writers;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::fixtures::repository;
use crate::sandbox::{Inventory, Outcome, Sandbox, assert_same};

/// Eight sessions on three levels, with every feature that a session can have.
pub(crate) const TREE: &str = r#"
[session.lead]
resources = [{ kind = "git-worktree", branch = "agents/{{ session.index }}", copy = [".env"] }, { kind = "port-range", block-size = 16, block-count = 32, names = ["http"] }]
setup = ["echo made > made.log"]
ready = [{ command = ["test", "-e", "made.log"] }]
teardown = ["test -e README.md"]
files = { ".env" = { text = "PORT={{ port.http }}", mode = "section" }, "deep/root.txt" = "{{ workspace.root }}" }
[session.lead.child.coder]
count = 2
resources = [{ kind = "git-worktree" }, "port-range"]
[session.lead.child.coder.child.tester]
[session.sparse]
resources = [{ kind = "git-worktree", target-path = "app", branch = "agents/sparse" }]
[session.free]
resources = ["port-range", { kind = "directory", copy-from = "app" }, { kind = "pool", items = ["0", "1"] }]
[session.linked]
resources = [{ kind = "git-worktree", link = ["cache"], relative = true }]
"#;

/// Two sessions that together have the same features, for tests that run hundreds of times.
pub(crate) const PAIR: &str = r#"
[session.lead]
resources = [{ kind = "git-worktree", target-path = "app", branch = "agents/lead", copy = [".env"] }, "port-range"]
setup = ["echo made > made.log"]
ready = [{ command = ["test", "-e", "made.log"] }]
teardown = ["true"]
[session.linked]
resources = [{ kind = "git-worktree", link = ["cache"], relative = true }]
"#;

/// Sessions that are mounts over one checkout.
const OVERLAYS: &str = r#"
[session.mounted]
count = 2
resources = [{ kind = "git-worktree", checkout = "overlay", branch = "agents/{{ session.name }}" }]
"#;

/// Returns `manifest` with sessions that are mounts. If mounting is not possible, prints that and returns `manifest`
/// alone.
pub(crate) fn with_overlays(manifest: &str) -> String {
    let whole = format!("{manifest}{OVERLAYS}");
    if sandbox(&whole).can_mount() { whole } else { manifest.to_owned() }
}

/// Returns whether a point is reached only if an overlay is mounted.
pub(crate) fn is_of_overlays(point: &str) -> bool {
    ["base.", "mounts.", "overlay."].iter().any(|part| point.starts_with(part))
}

/// Expects an unchanged inventory and no mounts.
#[track_caller]
pub(crate) fn assert_put_back(before: &Inventory, sandbox: &Sandbox) {
    assert!(sandbox.mounts().is_empty(), "still mounted: {:?}", sandbox.mounts());
    assert_same(before, &sandbox.inventory());
}

/// Creates a sandbox in memory with untracked files to copy, and `manifest`.
pub(crate) fn sandbox(manifest: &str) -> Sandbox {
    let sandbox = Sandbox::in_memory();
    sandbox.write("app/.env", "SECRET=1\n");
    sandbox.write(".env", "SECRET=1\n");
    sandbox.write("cache/large.bin", "large\n");
    sandbox.write(".git/info/exclude", "/seedbed.toml\n/cache\n");
    sandbox.manifest(manifest);
    sandbox
}

/// Creates a commit on `main`, and puts the branch of a session at the commit before it, as a landed branch of an earlier
/// run.
pub(crate) fn land(sandbox: &Sandbox, session: &str) {
    sandbox.commit("next");
    let message = format!("seedbed shop/{session} 0123456789abcdef0123456789abcdef");
    let name = format!("refs/heads/agents/{session}");
    sandbox.git(&["update-ref", "--create-reflog", "-m", &message, &name, "HEAD~1"]);
}

/// Result of a run with an action at a failpoint.
pub(crate) struct Traced {
    pub(crate) outcome: Outcome,
    /// Points that were reached, in order, and the action at one of them.
    pub(crate) trace: Vec<String>,
}

impl Traced {
    /// Returns the number of times that each point was reached.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for line in self.trace.iter().filter(|line| !line.contains(' ')) {
            *counts.entry(line.split('#').next().unwrap().to_owned()).or_insert(0) += 1;
        }
        counts
    }

    /// Expects that the run died at the requested point.
    #[track_caller]
    pub(crate) fn crashed_at(&self, point: &str) {
        assert_eq!(self.outcome.code, 137, "at {point}: {:?}", self.outcome);
        let said = format!("crash {point}");
        let crashed = self
            .trace
            .iter()
            .any(|line| *line == said || point.starts_with('*') && line.starts_with("crash "));
        assert!(crashed, "it did not die at {point}, but after {:?}", self.trace.last());
    }
}

/// Runs seedbed with an action at a failpoint, `NAME#N=WHAT`, or without one.
pub(crate) fn traced(sandbox: &Sandbox, args: &[&str], failpoint: Option<&str>) -> Traced {
    traced_in(sandbox, &sandbox.repository, args, failpoint)
}

/// Runs seedbed as [`traced`] does, in another directory.
pub(crate) fn traced_in(
    sandbox: &Sandbox,
    directory: &Path,
    args: &[&str],
    failpoint: Option<&str>,
) -> Traced {
    let trace = sandbox.top.join("trace");
    let _ = fs::remove_file(&trace);
    let mut command = sandbox.command(args);
    command.current_dir(directory).env("SEEDBED_FAILPOINT_TRACE", &trace);
    if let Some(failpoint) = failpoint {
        command.env("SEEDBED_FAILPOINT", failpoint);
    }
    let outcome = Outcome::of(command.output().unwrap());
    let trace = fs::read_to_string(&trace).unwrap_or_default();
    Traced { outcome, trace: trace.lines().map(str::to_owned).collect() }
}

/// Kills `args` at `point`, and expects that it died there.
#[track_caller]
pub(crate) fn crash(sandbox: &Sandbox, args: &[&str], point: &str) {
    traced(sandbox, args, Some(&format!("{point}=crash"))).crashed_at(point);
}

/// Returns the names of all failpoints in the source.
pub(crate) fn listed() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    collect(&repository("src"), "point!(\"", &mut names);
    names
}

/// Returns the names of the failpoints at which an effect can be made to fail.
pub(crate) fn failing() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    collect(&repository("src"), "failpoint!(\"", &mut names);
    names
}

fn collect(directory: &Path, before: &str, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), before, names);
            continue;
        }
        let text = fs::read_to_string(entry.path()).unwrap();
        for (at, _) in text.match_indices(before) {
            let name = text[at + before.len()..].split('"').next().unwrap();
            assert!(names.insert(name.to_owned()), "two points are called {name}");
        }
    }
}

/// Returns the first and a middle occurrence of each point.
pub(crate) fn twice(counts: &BTreeMap<String, u64>) -> Vec<String> {
    let times = |(name, count): (&String, &u64)| {
        let middle = (*count > 2).then(|| format!("{name}#{}", count / 2 + 1));
        [Some(format!("{name}#1")), middle].into_iter().flatten().collect::<Vec<_>>()
    };
    counts.iter().flat_map(times).collect()
}

/// Variable that makes [`one_in`] keep every case.
const EVERY_CASE: &str = "SEEDBED_EVERY_CASE";

/// Returns every 96th case, as [`one_in`] does.
pub(crate) fn some_of(cases: Vec<String>) -> Vec<String> {
    one_in(96, cases)
}

/// Returns every `nth` case, evenly spread, so that the normal run takes minutes; [`every_case_of_every_sweep`] runs
/// all of them.
pub(crate) fn one_in<T>(nth: usize, cases: impl IntoIterator<Item = T>) -> Vec<T> {
    let step = if std::env::var_os(EVERY_CASE).is_some() { 1 } else { nth };
    cases.into_iter().step_by(step).collect()
}

#[test]
#[ignore = "takes minutes: the sweeps that try a part of their cases otherwise try them all"]
fn every_case_of_every_sweep() {
    let sweeps = Command::new(std::env::current_exe().unwrap())
        .args([
            "--include-ignored",
            "faults::beside",
            "faults::crash",
            "faults::day",
            "faults::errors",
            "faults::git",
            "faults::replace",
            "faults::update",
            "faults::repositories",
            "faults::seeds",
            "faults::torn",
            "faults::waits::fifo_in_a_worktree",
            "faults::races::manual_changes",
            "faults::races::sixteen_runs_that",
            "recovery::killed_commands",
            "recovery::give_up::a_give_up_killed",
            "recovery::relocation::an_interrupted_run",
            "kinds::external::program_without_a_plan",
            "sessions::instances::run_killed_anywhere",
            "sessions::occupants::destroy_names",
            "plan::fetch::killed_fetch",
            "elsewhere",
        ])
        .env(EVERY_CASE, "1")
        .status();
    assert!(sweeps.unwrap().success());
}

/// Checks every case, as many at once as there are cores, each worker in a sandbox of its own; reports all failures.
#[track_caller]
pub(crate) fn check_all(manifest: &str, cases: &[String], check: impl Fn(&Sandbox, &str) + Sync) {
    check_all_in(|| sandbox(manifest), cases, |own, case| check(own, case));
}

/// Checks every case, as [`check_all`] does. Each worker has what `make` returns, and another one after a failure.
#[track_caller]
pub(crate) fn check_all_in<T, C: Display + Sync>(
    make: impl Fn() -> T + Sync,
    cases: &[C],
    check: impl Fn(&T, &C) + Sync,
) {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    let workers = thread::available_parallelism().map_or(2, usize::from).min(8).min(cases.len());
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let mut own = make();
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let checked =
                        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&own, case)));
                    if let Err(cause) = checked {
                        let text = cause.downcast_ref::<String>().cloned();
                        let text =
                            text.or_else(|| cause.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                        failed.lock().unwrap().push(format!("{case}: {}", text.unwrap_or_default()));
                        own = make();
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {} cases:\n{}", failed.len(), cases.len(), failed.join("\n"));
    assert!(!cases.is_empty());
}
