//! Tests of random sequences of commands, kills and other processes' work, in swarms whose sessions have worktrees of two
//! repositories.
//!
//! Each file or commit that a step writes carries a token. After each step, no token is lost unless the command was
//! allowed to discard it. No command ran in the main checkout, which is unchanged. Every command ended with a
//! documented code, and a refusal or a failure has changed nothing. No process lost its directory. A file that Git
//! ignores is lost only with its worktree. A refresh leaves nothing to copy again. At the end, only
//! branches with commits, stashes and rescue refs remain.
//!
//! Each sequence follows only from its seed, and a failure reports it with its steps:
//!
//! ```sh
//! cargo test --test integration faults::sequences -- --ignored      # the soak: 600 sequences of 12 steps
//! SEEDBED_SEQUENCE=1055 cargo test --test integration faults::sequences -- --ignored --nocapture
//! SEEDBED_SEQUENCES=0-50 SEEDBED_SEQUENCE_LENGTH=20 cargo test --test integration faults::sequences -- --ignored
//! ```
//!
//! To add something that happens, add a [`Step`] and its weight.

mod asked;
mod between;
mod elsewhere;
mod end;
mod files;
mod process;
mod random;
mod sequence;
mod shape;
mod tokens;

use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use self::end::Before;
use self::sequence::Sequence;
use super::{check_all, sandbox};
use crate::fixtures::repository;
use crate::sandbox::Sandbox;

/// Command of seedbed, or another event between two commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Apply,
    Destroy,
    DestroyOne,
    DestroyWhere,
    Spawn,
    Release,
    Forget,
    DryRun,
    Recover,
    Repair,
    Run,
    Exec,
    Start,
    Collect,
    RestoreInto,
    ChangeSource,
    EditCopy,
    Commit,
    CommitDetached,
    Write,
    WriteIgnored,
    Stage,
    Edit,
    Stash,
    RemoveWorktree,
    RemovePointer,
    MoveWorktree,
    CopyWorktree,
    MountInside,
    InnerSwarm,
    LinkedWorktree,
    Child,
    Process,
    LeaveProcess,
    Reboot,
    Prune,
    Gc,
    CommitToMain,
    Land,
    ChangeRef,
    CopyRepository,
    MoveRepository,
    MoveOther,
    DeleteRepository,
}

/// Weights of the steps.
const STEPS: [(u64, Step); 44] = [
    (22, Step::Apply),
    (4, Step::Destroy),
    (4, Step::DestroyOne),
    (3, Step::DestroyWhere),
    (4, Step::Spawn),
    (2, Step::Release),
    (2, Step::Forget),
    (3, Step::DryRun),
    (4, Step::Recover),
    (3, Step::Repair),
    (3, Step::Run),
    (3, Step::Exec),
    (2, Step::Start),
    (2, Step::Collect),
    (3, Step::RestoreInto),
    (3, Step::ChangeSource),
    (3, Step::EditCopy),
    (9, Step::Commit),
    (3, Step::CommitDetached),
    (7, Step::Write),
    (3, Step::WriteIgnored),
    (3, Step::Stage),
    (3, Step::Edit),
    (2, Step::Stash),
    (3, Step::RemoveWorktree),
    (2, Step::RemovePointer),
    (2, Step::MoveWorktree),
    (1, Step::CopyWorktree),
    (2, Step::MountInside),
    (2, Step::InnerSwarm),
    (2, Step::LinkedWorktree),
    (2, Step::Child),
    (2, Step::Process),
    (2, Step::LeaveProcess),
    (3, Step::Reboot),
    (2, Step::Prune),
    (2, Step::Gc),
    (2, Step::CommitToMain),
    (3, Step::Land),
    (3, Step::ChangeRef),
    (2, Step::CopyRepository),
    (2, Step::MoveRepository),
    (2, Step::MoveOther),
    (1, Step::DeleteRepository),
];

impl Sequence<'_> {
    fn step(&mut self, step: Step) {
        match step {
            Step::Apply => self.apply(),
            Step::Destroy => self.destroy(None),
            Step::DestroyOne => {
                if let Some(session) = self.one() {
                    self.destroy(Some(&session.session));
                }
            }
            Step::DestroyWhere => self.destroy_where(),
            Step::Spawn => self.spawn(),
            Step::Release => self.release(),
            Step::Forget => self.forget(),
            Step::DryRun => self.dry_run(),
            Step::Recover => self.recover(),
            Step::Repair => drop(self.ask(&["status", "--repair"], None)),
            Step::Run => self.run(),
            Step::Exec => self.exec(),
            Step::Start => self.start(),
            Step::Collect => self.collect(),
            Step::RestoreInto => self.restore_into(),
            Step::ChangeSource => self.change_source(),
            Step::EditCopy => self.edit_copy(),
            Step::Commit | Step::CommitDetached => self.commit(step == Step::CommitDetached),
            Step::Write | Step::WriteIgnored | Step::Stage | Step::Edit | Step::Stash => self.write(step),
            Step::RemoveWorktree | Step::RemovePointer | Step::MoveWorktree | Step::CopyWorktree => {
                self.displace(step);
            }
            Step::MountInside | Step::InnerSwarm | Step::LinkedWorktree | Step::Child => self.nest(step),
            Step::Process => self.start_process(),
            Step::LeaveProcess => self.leave_process(),
            Step::Reboot => self.reboot(),
            Step::Prune => self.in_every_repository(&["worktree", "prune"]),
            Step::Gc => self.in_every_repository(&["gc", "--quiet"]),
            Step::CommitToMain => self.commit_to_main(),
            Step::Land => self.land(),
            Step::ChangeRef => self.change_ref(),
            Step::CopyRepository => self.copy_repository(),
            Step::MoveRepository => self.move_repository(),
            Step::MoveOther => self.move_other(),
            Step::DeleteRepository => self.delete_repository(),
        }
        self.check();
    }
}

/// Creates a repository of three commits, `old` at the first, the tag `v1` at the second, `main` at the third, and another
/// repository. In some of them, `git worktree add` registers the worktrees.
fn lab(seed: u64) -> Sandbox {
    let sandbox = sandbox("");
    sandbox.write(".git/info/exclude", "/seedbed.toml\n/cache\n/.env*\n/app/.env\n/.scratch-databases\n");
    let example = repository("examples/external/scratch-database");
    sandbox.write("tools/scratch-database", &fs::read_to_string(example).unwrap());
    let program = sandbox.repository.join("tools/scratch-database");
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    sandbox.commit("tools");
    sandbox.git(&["branch", "old"]);
    sandbox.write(".env.new", "NEW=1\n");
    sandbox.write("app/second.txt", "second\n");
    sandbox.commit("second");
    sandbox.git(&["tag", "v1"]);
    sandbox.write("third.txt", "third\n");
    sandbox.commit("third");
    let web = sandbox.other_repository("web");
    for (every, repository) in [(4, &web), (10, &sandbox.repository)] {
        if seed.is_multiple_of(every) {
            sandbox.git_in(repository, &["config", "core.sharedRepository", "group"]);
        }
    }
    sandbox
}

/// Plays the sequence that follows from a seed.
fn play(seed: u64, length: u64) {
    let sandbox = &lab(seed);
    let before = Before::new(sandbox);
    let mut sequence = Sequence::new(sandbox, seed);
    let played = catch_unwind(AssertUnwindSafe(|| {
        sequence.step(Step::Apply);
        for _ in 0..length {
            let step = sequence.random.weighted(&STEPS);
            sequence.step(step);
        }
        sequence.end(&before);
    }));
    sequence.end_processes();
    if let Err(cause) = played {
        let text = cause.downcast_ref::<String>().cloned();
        let text = text.or_else(|| cause.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let steps = sequence.steps.join("\n  ");
        panic!("{}\nSEEDBED_SEQUENCE={seed}, after\n  {steps}\n", text.unwrap_or_default());
    }
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Returns the seeds that the environment requests.
fn requested() -> Option<Vec<String>> {
    if let Some(seed) = setting("SEEDBED_SEQUENCE") {
        return Some(vec![seed]);
    }
    let range = setting("SEEDBED_SEQUENCES")?;
    let (from, to) = range.split_once('-').expect("FROM-TO");
    let seeds = from.parse::<u64>().unwrap()..to.parse().unwrap();
    Some(seeds.map(|seed| seed.to_string()).collect())
}

fn sequences(seeds: Range<u64>, length: u64) {
    let seeds = requested().unwrap_or_else(|| seeds.map(|seed| seed.to_string()).collect());
    let length = setting("SEEDBED_SEQUENCE_LENGTH").map_or(length, |length| length.parse().unwrap());
    check_all("", &seeds, |_, seed| play(seed.parse().unwrap(), length));
}

#[test]
fn random_sequences_lose_no_work_and_can_be_destroyed() {
    sequences(0..3, 4);
}

#[test]
#[ignore = "soak: 600 sequences of 12 steps take 50 minutes on one core"]
fn six_hundred_random_sequences_lose_no_work_and_can_be_destroyed() {
    sequences(1000..1600, 12);
}
