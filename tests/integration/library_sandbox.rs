//! Provides a repository, a state directory and ports for tests that call the library.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use std::{env, fs};

use seedbed::apply::{self, Context, Destroy, Unsaved};
use seedbed::host::{Host, leases, listeners};
use seedbed::manifest;
use seedbed::name::PortBlock;
use seedbed::plan::{self, Plan};
use seedbed::provider::Registry;
use seedbed::state::{LockedSwarm, Record, Swarm};
use tempfile::TempDir;

use crate::sandbox::{temporary_directory, wait_until};

pub(crate) struct Sandbox {
    pub(crate) host: Host,
    pub(crate) repo: PathBuf,
    root: TempDir,
}

/// State that a run without effects leaves unchanged.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    worktrees: String,
    branches: String,
    status: String,
    config: String,
    files: BTreeSet<PathBuf>,
}

impl Sandbox {
    /// Creates a repository of one commit on `main`, with `src` and `services/api` in it.
    pub(crate) fn new() -> Self {
        let root = temporary_directory();
        let repo = root.path().canonicalize().unwrap().join("repo");
        let path = env::var_os("PATH").expect("tests need git, and git a PATH");
        let environment = [
            ("PATH".into(), path),
            ("HOME".into(), root.path().into()),
            ("GIT_CONFIG_NOSYSTEM".into(), "1".into()),
        ];
        let mut host = Host::new(environment.into(), root.path().join("state"));
        host.jobs = NonZeroUsize::new(4).unwrap();
        let sandbox = Self { host, repo, root };
        fs::create_dir(&sandbox.repo).unwrap();
        sandbox.git(&["init", "-q", "-b", "main"]);
        for (file, text) in [("README", "a\n"), ("src/main", "b\n"), ("services/api/server", "c\n")] {
            sandbox.write(file, text);
        }
        sandbox.commit("first");
        sandbox
    }

    /// Returns a path outside of the repository.
    pub(crate) fn outside(&self, name: &str) -> PathBuf {
        self.root.path().canonicalize().unwrap().join(name)
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        let path = self.repo.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn commit(&self, message: &str) {
        self.git(&["add", "-A"]);
        self.git(&["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", message]);
    }

    pub(crate) fn git(&self, args: &[&str]) -> String {
        self.git_in(&self.repo, args)
    }

    pub(crate) fn git_in(&self, directory: &Path, args: &[&str]) -> String {
        let output = Command::new("git")
            .args(args)
            .current_dir(directory)
            .env_clear()
            .envs(self.host.environment.iter().cloned())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "git {args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// Returns the state of the repository and its tree, and the lease files and records.
    pub(crate) fn trace(&self) -> Trace {
        let mut files = BTreeSet::new();
        collect(&self.repo, &mut files);
        collect(&self.host.state, &mut files);
        files.retain(|path| {
            !path.starts_with(self.repo.join(".git")) || path.starts_with(self.repo.join(".git/worktrees"))
        });
        // Guards of locks, which have no content.
        files.retain(|path| {
            let directories = ["", "leases", "repositories", "swarms", "sessions", "logs"]
                .map(|name| self.host.state.join(name));
            let guard = path.file_name().is_some_and(|name| name == ".guard")
                || path.extension().is_some_and(|extension| extension == "lock")
                    && path.starts_with(self.host.state.join("repositories"));
            // Who held a lock when it was killed, for messages.
            let holder = path.extension().is_some_and(|extension| extension == "holder");
            !guard && !holder && !directories.contains(path)
        });
        Trace {
            worktrees: self.git(&["worktree", "list", "--porcelain"]),
            branches: self.git(&["for-each-ref"]),
            status: self.git(&["status", "--porcelain", "--ignored"]),
            config: fs::read_to_string(self.repo.join(".git/config")).unwrap(),
            files,
        }
    }

    /// Plans a manifest's text against the current state.
    pub(crate) fn plan(&self, text: &str) -> Result<Plan, String> {
        self.plan_with(&Registry::built_in(), text)
    }

    /// Plans as [`Self::plan`] does, with other kinds.
    pub(crate) fn plan_with(&self, registry: &Registry, text: &str) -> Result<Plan, String> {
        let manifest =
            manifest::parse(text, &registry.kinds()).map_err(|diagnostics| format!("{diagnostics:#?}"))?;
        let swarm = Swarm::new(&self.host, &self.repo, &manifest.swarm).unwrap();
        let input = apply::planning_input(&swarm, registry, &manifest).map_err(|error| error.to_string())?;
        plan::plan(&manifest, registry, &input.observation, input.applied.as_ref())
            .map_err(|diagnostics| format!("{diagnostics:#?}"))
    }

    /// Plans and applies a manifest's text.
    pub(crate) fn apply(&self, text: &str) -> Result<Record, String> {
        self.apply_with(&Registry::built_in(), text)
    }

    /// Applies as [`Self::apply`] does, with other kinds.
    pub(crate) fn apply_with(&self, registry: &Registry, text: &str) -> Result<Record, String> {
        let plan = self.plan_with(registry, text)?;
        self.locked(registry, plan.swarm(), |context| {
            let applied = context.swarm.applied().unwrap();
            apply::apply(context, &plan, applied.as_ref(), apply::Options::default())
                .map_err(|error| format!("{error:?}"))?;
            Ok(context.swarm.applied().unwrap().unwrap())
        })
    }

    pub(crate) fn destroy(&self, swarm: &str, discard: bool) -> Result<(), String> {
        self.destroy_with(&Registry::built_in(), swarm, discard)
    }

    /// Destroys a swarm, with other kinds.
    pub(crate) fn destroy_with(&self, registry: &Registry, swarm: &str, discard: bool) -> Result<(), String> {
        self.locked(registry, swarm, |context| {
            let applied = context.swarm.applied().unwrap().unwrap();
            let unsaved = if discard { Unsaved::Discard } else { Unsaved::Keep };
            let mut destroy = Destroy::default();
            destroy.unsaved = unsaved;
            apply::destroy(context, &applied, &destroy)
                .map(|after| assert_eq!(after, None))
                .map_err(|error| format!("{error:?}"))
        })
    }

    /// Runs `act` under the lock of a swarm.
    pub(crate) fn locked<T>(
        &self,
        registry: &Registry,
        swarm: &str,
        act: impl FnOnce(&Context<'_>) -> T,
    ) -> T {
        let swarm = Swarm::new(&self.host, &self.repo, swarm).unwrap();
        let locked: LockedSwarm<'_> = swarm.lock(Duration::ZERO, "a test").unwrap();
        let result = act(&Context::new(&locked, registry));
        locked.unlock().unwrap();
        result
    }
}

fn collect(directory: &Path, found: &mut BTreeSet<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.map(Result::unwrap) {
        found.insert(entry.path());
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), found);
        }
    }
}

/// Returns the first of `count` ports that are free on this host, below the ephemeral range, and used by no other test.
pub(crate) fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two test processes at once begin at different ends of the range, which ends below the blocks of other tests.
    let offset = u16::try_from(std::process::id() % 64).unwrap() * 124;
    loop {
        let start = 12_000 + (offset + NEXT.fetch_add(count, Ordering::Relaxed)) % 7_936;
        let block = PortBlock::new(start.into(), u32::from(start + count) - 1).unwrap();
        if leases::probe(block).is_ok() {
            return start;
        }
    }
}

/// Closes a listening socket and waits until no process has it: a process that another test has just forked has a copy
/// until it executes its program.
pub(crate) fn close(listener: TcpListener) {
    let port = u32::from(listener.local_addr().unwrap().port());
    drop(listener);
    wait_until("the port is free", || listeners::on(PortBlock::new(port, port).unwrap()).is_empty());
}
