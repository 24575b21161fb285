//! Shared code of the worktree benchmarks: a repository in memory, and programs that cannot see the user's settings.
#![expect(clippy::disallowed_methods, reason = "a benchmark sets the host up")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Directory in `/dev/shm` that contains a repository.
pub(crate) struct Ground(TempDir);

impl Ground {
    /// Creates the directory, without a repository yet.
    pub(crate) fn new() -> Self {
        Self(tempfile::Builder::new().prefix("seedbed-bench").tempdir_in("/dev/shm").unwrap())
    }

    /// Returns the path of `name` in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Returns the path of the repository.
    pub(crate) fn repository(&self) -> PathBuf {
        self.path("repository")
    }

    /// Creates the repository from the files in its directory: one commit, packed as after a clone.
    pub(crate) fn commit(&self) {
        self.git(&["init", "--quiet"]);
        self.git(&["add", "--all"]);
        let who = ["-c", "user.name=bench", "-c", "user.email=bench@example.org"];
        self.git(&[&who[..], &["commit", "--quiet", "--message", "all"]].concat());
        self.git(&["repack", "-adq"]);
        self.git(&["prune-packed", "-q"]);
    }

    /// Runs Git in the repository, and expects success.
    #[track_caller]
    pub(crate) fn git(&self, args: &[&str]) {
        run(self.program("git", &self.repository()).args(args));
    }

    /// Returns a command of seedbed in the repository, not started yet.
    #[allow(dead_code, reason = "the benchmark of fleets starts seedbed in shells")]
    pub(crate) fn seedbed(&self, args: &[&str]) -> Command {
        let mut seedbed = self.program(env!("CARGO_BIN_EXE_seedbed"), self.0.path());
        seedbed.args(args).args(["--yes", "--quiet"]);
        seedbed
    }

    /// Returns a command that sees neither the user's settings nor the machine's, and has an empty standard input.
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

/// Runs a program, and expects success.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Returns the duration of `act`.
pub(crate) fn timed(act: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    act();
    begun.elapsed()
}

/// Returns the median; `times` has at least one item.
pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Returns a time in the format of the tables.
pub(crate) fn shown(time: Duration) -> String {
    if time < Duration::from_millis(20) {
        format!("{:.1} ms", time.as_secs_f64() * 1000.0)
    } else if time < Duration::from_secs(10) {
        format!("{:.0} ms", time.as_secs_f64() * 1000.0)
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}
