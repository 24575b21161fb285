//! What benchmarks of worktrees have in common: a repository in memory, and programs that see nothing of the user's.
#![expect(clippy::disallowed_methods, reason = "a benchmark sets the host up")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A directory in `/dev/shm`, with a repository in it.
pub(crate) struct Ground(TempDir);

impl Ground {
    /// With no repository yet.
    pub(crate) fn new() -> Self {
        Self(tempfile::Builder::new().prefix("seedbed-bench").tempdir_in("/dev/shm").unwrap())
    }

    /// What `name` is called there.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The repository.
    pub(crate) fn repository(&self) -> PathBuf {
        self.path("repository")
    }

    /// Makes the repository of what lies there, one commit, packed as after a clone.
    pub(crate) fn commit(&self) {
        self.git(&["init", "--quiet"]);
        self.git(&["add", "--all"]);
        let who = ["-c", "user.name=bench", "-c", "user.email=bench@example.org"];
        self.git(&[&who[..], &["commit", "--quiet", "--message", "all"]].concat());
        self.git(&["repack", "-adq"]);
        self.git(&["prune-packed", "-q"]);
    }

    /// Runs git in the repository, which has to succeed.
    #[track_caller]
    pub(crate) fn git(&self, args: &[&str]) {
        run(self.program("git", &self.repository()).args(args));
    }

    /// seedbed's program beside the repository, not started yet.
    pub(crate) fn seedbed(&self, args: &[&str]) -> Command {
        let mut seedbed = self.program(env!("CARGO_BIN_EXE_seedbed"), self.0.path());
        seedbed.args(args).args(["--yes", "--quiet"]);
        seedbed
    }

    /// A program that sees neither the user's settings nor the machine's, and nothing on its standard input.
    pub(crate) fn program(&self, program: &str, directory: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(directory)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.0.path())
            .env("SEEDBED_STATE_DIR", self.path("state"))
            .env("SEEDBED_PORT_REGISTRY", "none")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .stdin(Stdio::null());
        command
    }
}

/// Runs a program, which has to succeed.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// How long `act` takes.
pub(crate) fn timed(act: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    act();
    begun.elapsed()
}

/// The middle one; at least one is given.
pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// A time as the tables have it.
pub(crate) fn shown(time: Duration) -> String {
    if time < Duration::from_millis(20) {
        format!("{:.1} ms", time.as_secs_f64() * 1000.0)
    } else if time < Duration::from_secs(10) {
        format!("{:.0} ms", time.as_secs_f64() * 1000.0)
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}
