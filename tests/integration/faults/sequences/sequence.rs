//! One sequence in its sandbox: its state, its calls of seedbed, and the oracle of every moment.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::between::git_works;
use super::files::Identity;
use super::process::Process;
use super::random::Random;
use super::setting;
use super::shape::Shape;
use super::tokens::{Safety, Written, repositories, tokens};
use crate::faults::traced;
use crate::sandbox::{Inventory, Outcome, Sandbox, assert_same};

/// Points in the steps of providers, where a panic is that step's failure.
const PANICS: [&str; 5] =
    ["apply.allocation", "register.branched", "register.placed", "lease.granted", "overlay.layered"];

/// One sequence in its sandbox.
pub(super) struct Sequence<'s> {
    pub(super) sandbox: &'s Sandbox,
    pub(super) random: Random,
    pub(super) shape: Shape,
    pub(super) written: Vec<Written>,
    /// Number of the last token.
    pub(super) next: u64,
    /// The steps that were done, for the report of a failure.
    pub(super) steps: Vec<String>,
    /// Paths outside of the repository that are the steps' own, and are removed at the end.
    pub(super) outside: Vec<PathBuf>,
    pub(super) mounts: Vec<PathBuf>,
    /// Manifests of swarms inside of sessions.
    pub(super) inner: Vec<PathBuf>,
    /// Linked worktrees inside of sessions.
    pub(super) linked: Vec<PathBuf>,
    /// Programs at work in sessions.
    pub(super) processes: Vec<Process>,
    /// `true` if the interrupted run was started with `--discard`.
    pub(super) discards: bool,
    /// `true` if a run gave up what is in the other repository.
    pub(super) given_up: bool,
    /// The commit of `main` in the workspace's repository.
    pub(super) main: String,
    /// The commit of `main` in the other repository.
    pub(super) main_of_web: String,
}

/// Directory in which steps work: of a session with one worktree, or a worktree of a session with several.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Path of the session, and `/@RESOURCE` for one of several worktrees.
    pub(super) name: String,
    /// Path of the session.
    pub(super) session: String,
    pub(super) directory: PathBuf,
}

impl Place {
    /// Returns the places of a session, given its directory and its worktrees, each with its name and path.
    fn of(session: &str, directory: PathBuf, worktrees: &[(String, PathBuf)]) -> Vec<Self> {
        let session = session.to_owned();
        if worktrees.len() < 2 {
            return vec![Self { name: session.clone(), session, directory }];
        }
        let place = |(name, path): &(String, PathBuf)| Self {
            name: format!("{session}/@{name}"),
            session: session.clone(),
            directory: path.clone(),
        };
        worktrees.iter().map(place).collect()
    }
}

impl<'s> Sequence<'s> {
    pub(super) fn new(sandbox: &'s Sandbox, seed: u64) -> Self {
        let mut random = Random(seed);
        let shape = Shape::new(&mut random);
        Self {
            sandbox,
            random,
            shape,
            written: Vec::new(),
            next: 0,
            steps: Vec::new(),
            outside: Vec::new(),
            mounts: Vec::new(),
            inner: Vec::new(),
            linked: Vec::new(),
            processes: Vec::new(),
            discards: false,
            given_up: false,
            main: sandbox.git(&["rev-parse", "main"]),
            main_of_web: sandbox.git_in(&sandbox.top.join("web"), &["rev-parse", "main"]),
        }
    }

    /// Records a step; a single sequence prints it.
    pub(super) fn note(&mut self, step: String) {
        if setting("SEEDBED_SEQUENCE").is_some() {
            eprintln!("{step}");
        }
        self.steps.push(step);
    }

    /// Prints what a command reported, if only one sequence is played.
    pub(super) fn show(&self, outcome: &Outcome) {
        if setting("SEEDBED_SEQUENCE").is_some() {
            let top = format!("{}/", self.sandbox.top.display());
            eprintln!("    {}", outcome.stderr.trim_end().replace(&top, "").replace('\n', "\n    "));
        }
    }

    pub(super) fn manifest(&self) {
        self.sandbox.manifest(&self.shape.manifest());
    }

    /// Returns the places of active sessions that exist.
    pub(super) fn active(&self) -> Vec<Place> {
        let status = self.sandbox.seedbed(&["status", "--json"]);
        if status.code != 0 {
            return Vec::new();
        }
        let status = status.json();
        let sessions = status["sessions"].as_array().unwrap().iter();
        let places = sessions.filter_map(|found| {
            let worktrees = std::iter::once(&found["worktree"])
                .chain(found["otherWorktrees"].as_array().into_iter().flatten());
            let worktrees = worktrees.filter_map(|worktree| {
                Some((worktree["name"].as_str()?.to_owned(), PathBuf::from(worktree["path"].as_str()?)))
            });
            let directory = self.sandbox.repository.join(found["workingDirectory"].as_str()?);
            Some(Place::of(found["session"].as_str()?, directory, &worktrees.collect::<Vec<_>>()))
        });
        self.existing(places.flatten())
    }

    /// Returns the places in which steps work: the active ones, and those that only an interrupted run has made.
    pub(super) fn workplaces(&self) -> Vec<Place> {
        let mut workplaces = self.active();
        for place in self.pending() {
            if !workplaces.iter().any(|active| active.directory == place.directory) {
                workplaces.push(place);
            }
        }
        workplaces
    }

    /// Returns the places of sessions of interrupted runs that exist.
    fn pending(&self) -> Vec<Place> {
        let repository = &self.sandbox.repository;
        let records = self.records().filter_map(|record| fs::read(record.join("intent.json")).ok());
        let records = records.map(|record| serde_json::from_slice::<Value>(&record).unwrap());
        let own = records.filter(|record| record["workspace"] == *repository.to_str().unwrap());
        let sessions = own.flat_map(|record| record["plan"]["sessions"].as_array().unwrap().clone());
        let places = sessions.filter_map(|session| {
            let worktrees = session["allocations"].as_array().into_iter().flatten().filter_map(|held| {
                let path = repository.join(held["allocation"]["worktreePath"].as_str()?);
                Some((held["name"].as_str().unwrap_or("git-worktree").to_owned(), path))
            });
            let directory = repository.join(session["workingDirectory"].as_str()?);
            Some(Place::of(session["path"].as_str()?, directory, &worktrees.collect::<Vec<_>>()))
        });
        self.existing(places.flatten())
    }

    fn existing(&self, places: impl Iterator<Item = Place>) -> Vec<Place> {
        let exists = |place: &Place| place.directory != self.sandbox.repository && place.directory.is_dir();
        places.filter(exists).collect()
    }

    /// Returns the directories of the records of swarms and of standalone sessions.
    fn records(&self) -> impl Iterator<Item = PathBuf> {
        let collections = ["swarms", "sessions"].map(|name| self.sandbox.state().join(name));
        let records = collections.into_iter().flat_map(|path| fs::read_dir(path).into_iter().flatten());
        records.map(|entry| entry.unwrap().path())
    }

    /// Returns whether a swarm of `run` is left, which is discarded with its work.
    fn is_temporary(&self) -> bool {
        self.records().any(|record| {
            ["releasing.json", "intent.json", "applied.json"].iter().any(|name| {
                let record = fs::read(record.join(name)).unwrap_or_default();
                serde_json::from_slice::<Value>(&record).unwrap_or_default()["temporary"] == true
            })
        })
    }

    /// Returns one of the places of active sessions.
    pub(super) fn one(&mut self) -> Option<Place> {
        let active = self.active();
        self.random.pick(&active).cloned()
    }

    /// Returns an active session where Git works, with no mount, swarm or linked worktree inside.
    pub(super) fn plain(&mut self) -> Option<Place> {
        let mut active = self.workplaces();
        active.retain(|one| {
            let holds = |path: &PathBuf| path.starts_with(&one.directory);
            let works = git_works(self.sandbox, &one.directory);
            works && ![&self.mounts, &self.inner, &self.linked].iter().any(|paths| paths.iter().any(holds))
        });
        self.random.pick(&active).cloned()
    }

    /// Returns a new token, which is about to be written.
    pub(super) fn token(&mut self, session: &str, safety: Safety) -> String {
        self.next += 1;
        let token = format!("<<{}>>", self.next);
        self.written.push(Written { token: token.clone(), safety, session: session.to_owned() });
        token
    }

    /// Forgets the tokens that are lost and were allowed to be.
    pub(super) fn forgive(&mut self, is_forgiven: impl Fn(&Written) -> bool) {
        let there = tokens(self.sandbox);
        self.written.retain(|written| there.contains(&written.token) || !is_forgiven(written));
    }

    /// Forgets what a release may lose of the sessions for which `is_in_scope` is true.
    pub(super) fn forgive_release(&mut self, discards: bool, is_in_scope: impl Fn(&Written) -> bool) {
        self.forgive_release_except(&[], discards, is_in_scope);
    }

    /// Forgets as [`Self::forgive_release`] does, except in worktrees that still are what they were `before`.
    fn forgive_release_except(
        &mut self,
        before: &[(String, Identity)],
        discards: bool,
        is_in_scope: impl Fn(&Written) -> bool,
    ) {
        let now = if before.is_empty() { Vec::new() } else { self.identities() };
        let is_left_alone = |session: &str| before.iter().any(|one| one.0 == session && now.contains(one));
        self.forgive(|written| {
            is_in_scope(written)
                && !is_left_alone(&written.session)
                && (written.safety == Safety::Ignored || discards && written.safety == Safety::Unsaved)
        });
    }

    /// Checks what has to hold at every moment: no token is lost, and the main checkout is what it was.
    #[track_caller]
    pub(super) fn check(&self) {
        let there = tokens(self.sandbox);
        let lost: Vec<_> = self.written.iter().filter(|written| !there.contains(&written.token)).collect();
        assert!(lost.is_empty(), "lost {lost:?}");
        for (index, repository) in repositories(self.sandbox).iter().enumerate() {
            let git = |args: &[&str]| self.sandbox.git_in(repository, args);
            assert_eq!(git(&["symbolic-ref", "HEAD"]), "refs/heads/main");
            assert_eq!(git(&["rev-parse", "main"]), *if index == 0 { &self.main } else { &self.main_of_web });
            let status = git(&["status", "--porcelain"]);
            // The directory of worktrees hides itself once it has its name.
            let changed: Vec<_> =
                status.lines().filter(|line| !line.starts_with("?? ..ai_ops.seedbed-")).collect();
            assert!(changed.is_empty(), "a main checkout was changed: {changed:?}");
            for name in ["made.log", "ran.log"] {
                assert!(!repository.join(name).exists(), "{name} was made in a main checkout");
            }
        }
    }

    /// Returns whether a run is interrupted.
    pub(super) fn is_interrupted(&self) -> bool {
        self.records().any(|record| {
            let pending = ["releasing.json", "intent.json", "rescuing.json"];
            let applied = fs::read(record.join("applied.json")).unwrap_or_default();
            let applied: Value = serde_json::from_slice(&applied).unwrap_or_default();
            pending.iter().any(|name| record.join(name).exists()) || !applied["release"].is_null()
        })
    }

    /// Runs seedbed, perhaps with a kill or an error at some step, and checks the outcome. Returns the exit code. `scope`
    /// is the session that is released; `None` for all.
    #[track_caller]
    pub(super) fn ask(&mut self, args: &[&str], scope: Option<&str>) -> i32 {
        let fault = self.fault();
        self.ask_with(args, scope, fault.as_deref())
    }

    /// Returns a failpoint and what happens there; `None` for most runs.
    pub(super) fn fault(&mut self) -> Option<String> {
        let what = match self.random.below(100) {
            0..25 => "crash",
            25..31 => "eio",
            31..37 => "enospc",
            37..40 => {
                let at = self.random.pick(&PANICS).unwrap();
                return Some(format!("{at}#{}=panic", 1 + self.random.below(4)));
            }
            _ => return None,
        };
        Some(format!("*#{}={what}", 1 + self.random.below(220)))
    }

    /// Runs seedbed as [`Self::ask`] does, with this fault.
    #[track_caller]
    pub(super) fn ask_with(&mut self, args: &[&str], scope: Option<&str>, fault: Option<&str>) -> i32 {
        let interrupted = self.is_interrupted();
        let is_temporary = self.is_temporary();
        let before = self.sandbox.inventory();
        let identities = self.identities();
        let outcome = traced(self.sandbox, args, fault).outcome;
        let code = outcome.code;
        self.note(format!("{} {} -> {code}", args.join(" "), fault.unwrap_or_default()));
        self.show(&outcome);
        // A repair and a restore do not recover.
        let is_locked = code == 75 && interrupted && matches!(args[0], "status" | "rescue");
        let documented = is_locked || is_documented(code, fault);
        assert!(documented, "{args:?}: {outcome:?}");
        let discards = args.contains(&"--discard");
        let may_discard = discards || is_temporary || interrupted && self.discards;
        // A repair does what it can, and fails for the rest. A restore that fails is continued by the next one.
        let is_partial = args[0] == "status" || args[0] == "rescue" && fault.is_some();
        if matches!(code, 1 | 64 | 65 | 69) && !interrupted && !is_partial {
            assert_same(&settled(before), &settled(self.sandbox.inventory()));
        } else {
            let scope = scope.filter(|_| !interrupted);
            let is_in_scope = |written: &Written| {
                scope.is_none_or(|scope| {
                    let below = written.session.strip_prefix(scope);
                    below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                })
            };
            self.forgive_release_except(&identities, may_discard, is_in_scope);
        }
        let is_interrupted = self.is_interrupted();
        self.discards = is_interrupted && (self.discards || discards);
        if is_interrupted && fault.is_some() {
            // Changes within this time after the last sign of life may be the run's.
            thread::sleep(Duration::from_millis(510));
        }
        if code == 0 && args[0] != "run" {
            let expected =
                !is_interrupted || matches!(args[0], "exec" | "status") || args.contains(&"--dry-run");
            assert!(expected, "{args:?} left an interrupted run: {outcome:?}");
        }
        if args.iter().any(|arg| arg.starts_with("--stop")) {
            // Also a run that was killed may have ended them before.
            self.processes.retain_mut(|process| !process.has_ended());
        }
        if code != 137 {
            self.check_processes();
        }
        self.check();
        code
    }

    /// Checks that every process lives, and that no directory was removed under one.
    #[track_caller]
    fn check_processes(&mut self) {
        for process in &mut self.processes {
            assert!(!process.has_ended(), "a process in {} was ended unasked", process.directory.display());
            assert_eq!(process.works_in(), process.directory, "taken away under a process");
        }
    }

    pub(super) fn end_processes(&mut self) {
        std::mem::take(&mut self.processes).into_iter().for_each(Process::end);
    }

    /// Returns `--stop` now and then while a process is at work.
    pub(super) fn stop(&mut self) -> Option<&'static str> {
        (!self.processes.is_empty() && self.random.percent(50)).then_some("--stop=2")
    }

    /// Returns the requested option for unsaved work.
    pub(super) fn flag(&mut self) -> Option<&'static str> {
        *self.random.pick(&[None, None, Some("--rescue"), Some("--discard")]).unwrap()
    }
}

/// Returns whether a command may end with this code, with a fault at one of its steps.
pub(super) fn is_documented(code: i32, fault: Option<&str>) -> bool {
    matches!(code, 0 | 1 | 2 | 64 | 65 | 69)
        || match fault.and_then(|fault| fault.rsplit('=').next()) {
            None => false,
            Some("crash") => code == 137,
            // A panic in a provider is that step's failure, and one elsewhere a bug that was requested.
            Some("panic") => matches!(code, 70 | 73 | 101),
            Some(_) => code == 73,
        }
}

/// Returns an inventory without what a run that is rolled back may leave: rescues, objects and logs of deleted refs,
/// and locks.
pub(super) fn settled(inventory: Inventory) -> Inventory {
    let is_passing_of_git = |path: &str| {
        path.starts_with("objects/")
            // Git reports the refs, regardless of where they are stored.
            || path == "packed-refs"
            || path.starts_with("refs/heads/agents")
            || path.starts_with("logs/refs/seedbed")
            // A rescue remains, regardless of the result of its run.
            || path.starts_with("refs/seedbed")
    };
    let is_passing = |path: &str| {
        path.split_once("/.git/").is_some_and(|(repository, path)| !repository.contains('/') && is_passing_of_git(path))
            || path.starts_with("state/") && ["holder", "lock"].iter().any(|end| Path::new(path).extension() == Some(end.as_ref()))
            // Half-written files go with the next lock.
            || path.starts_with("state/") && path.contains(".seedbed-")
            // A directory that was emptied by hand.
            || ["", "/worktrees", "/.gitignore"].iter().any(|name| path == format!("repository/.ai_ops{name}"))
    };
    let settled = inventory.into_iter().filter(|(path, _)| !is_passing(path));
    settled
        .map(|(path, what)| {
            let what = match what.split_once("planDigest") {
                // A discovery file that is written again names the plan that applies, not the one that changed it last.
                Some((head, tail)) if path.ends_with("resources.json") => {
                    format!("{head}{}", tail.split_once("\\n").map_or("", |(_, rest)| rest))
                }
                _ if path.ends_with("git for-each-ref") => {
                    let refs = what.lines().filter(|line| !line.contains("refs/seedbed/rescue/"));
                    refs.collect::<Vec<_>>().join("\n")
                }
                _ => what,
            };
            (path, what)
        })
        .collect()
}
