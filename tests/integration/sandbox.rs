//! Provides a host for one test: a temporary directory with a home, a state directory and a repository, in which the
//! real binary runs with a minimal environment.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::fmt::Write as _;
use std::fs;
use std::hash::{BuildHasher as _, Hasher as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Once};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::StatVfsMountFlags;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tempfile::TempDir;

/// First port of the tests' regions of [`REGION_SIZE`] ports, below the ephemeral range.
const FIRST_PORT: u64 = 10_000;
const REGIONS: u64 = 42;
const REGION_SIZE: u64 = 512;

/// Maximum time that a test waits for an expected event; far longer than the event takes.
const PATIENCE: Duration = Duration::from_mins(2);

/// Variable with which all tests use a real disk.
const ON_DISK: &str = "SEEDBED_TESTS_ON_DISK";

/// Free memory, in bytes, that is required to create sandboxes in memory. One sandbox takes a megabyte or two, those of
/// the soak with thousands of files some hundred, and a few exist at once.
const MEMORY_MIN: u64 = 1 << 30;

/// Every path with its mode and content; equal before and after if nothing was changed.
pub(crate) type Inventory = BTreeMap<String, String>;

/// Host with one repository, on its branch `main`.
pub(crate) struct Sandbox {
    pub(crate) top: PathBuf,
    pub(crate) repository: PathBuf,
    /// First of the ports that only this test uses: binding is host-wide, and tests run in parallel.
    pub(crate) base_port: u64,
    /// User and group that every program runs as; `None` for those of the test.
    user: Option<u32>,
    _directory: TempDir,
}

/// Number of the user and group `nobody`, which have no privileges.
const NOBODY: u32 = 65534;

/// Names of repositories beside the sandbox's own that an inventory contains.
const OTHERS: [&str; 2] = ["web", "docs"];

/// Exit and output of a program.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Drop for Sandbox {
    /// Unmounts the mounts that a failed test has left, which would keep the directory from being removed.
    fn drop(&mut self) {
        self.unmount_all();
    }
}

impl Sandbox {
    /// Creates a repository of a few files, one of them executable, one a link.
    pub(crate) fn new() -> Self {
        Self::in_directory(temporary_directory())
    }

    /// Creates the repository in memory, even if [`ON_DISK`] is set. This is for suites that run the program hundreds of
    /// times.
    pub(crate) fn in_memory() -> Self {
        Self::in_directory(directory_in_memory())
    }

    fn in_directory(directory: TempDir) -> Self {
        let sandbox = Self::empty(directory);
        for path in ["README.md", "app/main.txt", "app/lib/deep.txt", "tools/run.sh"] {
            sandbox.write(path, &format!("{path}\n"));
        }
        sandbox.write(".gitignore", "*.log\n.env\n");
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(sandbox.repository.join("tools/run.sh"), executable).unwrap();
        std::os::unix::fs::symlink("README.md", sandbox.repository.join("link")).unwrap();
        sandbox.commit("first");
        sandbox
    }

    /// Gives all files to a user who is not root, and runs every program as that user from now on. A test that root
    /// does not run is not changed.
    pub(crate) fn without_root(mut self) -> Self {
        if rustix::process::geteuid().is_root() {
            // The build may lie where only root can go.
            let binary = self.top.join("seedbed");
            let built = env!("CARGO_BIN_EXE_seedbed");
            if fs::hard_link(built, &binary).is_err() {
                // Not in this process: a program that another test starts meanwhile would inherit the open file, and
                // the copy could not be started.
                let copied = Command::new("cp").arg(built).arg(&binary).status().unwrap();
                assert!(copied.success());
            }
            let nobody = format!("{NOBODY}:{NOBODY}");
            let owned = [self.top.join("repository"), self.top.clone()];
            let recursive = Command::new("chown").args(["-R", &nobody]).arg(&owned[0]).status().unwrap();
            let top = Command::new("chown").arg(&nobody).arg(&owned[1]).status().unwrap();
            assert!(recursive.success() && top.success());
            self.user = Some(NOBODY);
        }
        self
    }

    /// Creates a repository without commits, with a manifest that is not in the repository.
    fn empty(directory: TempDir) -> Self {
        static RANDOM: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish() >> 1);
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let region = (*RANDOM + NEXT.fetch_add(1, Ordering::Relaxed)) % REGIONS;
        let top = directory.path().canonicalize().unwrap();
        let sandbox = Self {
            repository: top.join("repository"),
            base_port: FIRST_PORT + region * REGION_SIZE,
            top,
            user: None,
            _directory: directory,
        };
        fs::create_dir(&sandbox.repository).unwrap();
        sandbox.git(&["init", "--quiet", "--initial-branch=main"]);
        identify(&sandbox.repository);
        sandbox
    }

    /// Creates another clone of the repository, with the same manifest.
    pub(crate) fn clone_to(&self, name: &str) -> PathBuf {
        let clone = self.top.join(name);
        self.git(&["clone", "--quiet", ".", clone.to_str().unwrap()]);
        identify(&clone);
        fs::copy(self.repository.join("seedbed.toml"), clone.join("seedbed.toml")).unwrap();
        clone
    }

    /// Creates another repository beside this one, one of [`OTHERS`], with a commit of its own.
    pub(crate) fn other_repository(&self, name: &str) -> PathBuf {
        assert!(OTHERS.contains(&name), "the inventory contains it");
        let other = self.top.join(name);
        self.git(&["clone", "--quiet", ".", other.to_str().unwrap()]);
        identify(&other);
        self.git_in(&other, &["commit", "--quiet", "--allow-empty", "--message", name]);
        other
    }

    /// Writes the manifest: `rest` after the head, with ports in this test's region.
    pub(crate) fn manifest(&self, rest: &str) {
        self.write("seedbed.toml", &self.manifest_text(rest));
    }

    pub(crate) fn manifest_text(&self, rest: &str) -> String {
        format!(
            "version = 1\nswarm = \"shop\"\n[defaults.port-range]\nbase-port = {}\nblock-size = 4\nblock-count = 128\n{rest}",
            self.base_port
        )
    }

    /// Writes a file of the repository.
    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.repository.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Commits everything in the repository, and returns the commit.
    pub(crate) fn commit(&self, message: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    pub(crate) fn git(&self, args: &[&str]) -> String {
        self.git_in(&self.repository, args)
    }

    /// Runs Git, and returns its output without the last line's end.
    #[track_caller]
    pub(crate) fn git_in(&self, directory: &Path, args: &[&str]) -> String {
        let outcome = Outcome::of(self.program("git", directory).args(args).output().unwrap());
        outcome.expect(0).stdout.trim_end().to_owned()
    }

    /// Returns a command of a program in this host's environment.
    pub(crate) fn program(&self, program: &str, directory: &Path) -> Command {
        ignore_by_catching();
        let mut command = Command::new(program);
        command
            .current_dir(directory)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", &self.top)
            .env("SEEDBED_STATE_DIR", self.state())
            // Tests beside one another would keep one another from ports.
            .env("SEEDBED_PORT_REGISTRY", "none")
            // A server of tmux of the user is not part of a test.
            .env("TMUX_TMPDIR", &self.top)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    /// Returns a command of the binary in the repository.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let binary = match self.user {
            Some(_) => self.top.join("seedbed"),
            None => env!("CARGO_BIN_EXE_seedbed").into(),
        };
        let mut command = self.program(binary.to_str().unwrap(), &self.repository);
        command.args(args);
        command
    }

    pub(crate) fn seedbed(&self, args: &[&str]) -> Outcome {
        self.seedbed_in(&self.repository, args)
    }

    pub(crate) fn seedbed_in(&self, directory: &Path, args: &[&str]) -> Outcome {
        Outcome::of(self.command(args).current_dir(directory).output().unwrap())
    }

    /// Runs the binary and expects success.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> Outcome {
        self.seedbed(args).expect(0)
    }

    /// Starts the binary with its output captured.
    pub(crate) fn start(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    #[track_caller]
    pub(crate) fn plan(&self) -> Value {
        self.plan_in(&self.repository)
    }

    #[track_caller]
    pub(crate) fn plan_in(&self, directory: &Path) -> Value {
        serde_json::from_str(&self.seedbed_in(directory, &["plan", "--json"]).expect(0).stdout).unwrap()
    }

    /// Returns the working directory of a session, from the plan.
    #[track_caller]
    pub(crate) fn directory(&self, session: &str) -> PathBuf {
        let plan = self.plan();
        let found = sessions(&plan).find(|found| found["path"] == session).expect("the session is planned");
        self.repository.join(found["workingDirectory"].as_str().unwrap())
    }

    /// Returns the working directory of an active session, even if no plan can be made.
    #[track_caller]
    pub(crate) fn directory_of(&self, session: &str) -> PathBuf {
        let status = self.ok(&["status", "--json"]).json();
        let found = status["sessions"].as_array().unwrap().iter().find(|found| found["session"] == session);
        self.repository.join(found.expect("the session stands")["workingDirectory"].as_str().unwrap())
    }

    /// Returns the working directory of every session, from the plan.
    #[track_caller]
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        let plan = self.plan();
        sessions(&plan)
            .map(|found| self.repository.join(found["workingDirectory"].as_str().unwrap()))
            .collect()
    }

    /// Returns whether overlays can be mounted here, as the manifest requests; prints a notice if they cannot.
    pub(crate) fn can_mount(&self) -> bool {
        let outcome = self.seedbed(&["validate"]);
        if outcome.code != 0 && outcome.stderr.contains("overlays cannot be mounted") {
            eprintln!("NOT TESTED, overlays cannot be mounted here: {}", outcome.stderr);
            return false;
        }
        outcome.expect(0);
        true
    }

    /// Returns the mounts below this test's directory.
    pub(crate) fn mounts(&self) -> Vec<PathBuf> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let places = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        places.filter(|place| place.starts_with(&self.top)).collect()
    }

    /// Unmounts everything, as a reboot does. `git commit` leaves a process that works in the worktree for a moment, so a
    /// mount in use is waited for.
    pub(crate) fn unmount_all(&self) {
        use rustix::mount::{UnmountFlags, unmount};
        for place in self.mounts() {
            for _ in 0..500 {
                if unmount(&place, UnmountFlags::empty()) != Err(rustix::io::Errno::BUSY) {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.top.join("state")
    }

    /// Returns the inventory of the repository, and of the [`OTHERS`] that exist, with all of `.git`, the output of `git status`, and the state directory.
    /// It leaves out `.git/index`, which `git status` refreshes, and the logs, seeds and empty directories of the state,
    /// which are kept.
    pub(crate) fn inventory(&self) -> Inventory {
        let mut found = Inventory::new();
        walk(&self.repository, Path::new("repository"), &mut found);
        found.remove("repository/.git/index");
        for name in OTHERS.into_iter().filter(|name| self.top.join(name).exists()) {
            let other = self.top.join(name);
            walk(&other, Path::new(name), &mut found);
            found.remove(&format!("{name}/.git/index"));
            for args in [&["worktree", "list", "--porcelain"][..], &["for-each-ref"]] {
                found.insert(format!("{name}: git {}", args[0]), self.git_in(&other, args));
            }
        }
        found.extend(self.git_inventory(&self.repository, &self.state()));
        found
    }

    /// Returns the inventory of a repository and a state directory, as [`Sandbox::inventory`] does.
    pub(crate) fn inventory_of(&self, repository: &Path, state: &Path) -> Inventory {
        let mut found = Inventory::new();
        walk(repository, Path::new("repository"), &mut found);
        found.remove("repository/.git/index");
        found.extend(self.git_inventory(repository, state));
        found
    }

    /// Returns what Git lists of a repository, and the inventory of a state directory.
    fn git_inventory(&self, repository: &Path, directory: &Path) -> Inventory {
        let mut state = Inventory::new();
        if directory.exists() {
            walk(directory, Path::new("state"), &mut state);
        }
        let is_temporary = |name: &std::ffi::OsStr| name.to_string_lossy().contains(".seedbed-");
        let is_kept = |path: &str| {
            path.starts_with("state/logs/")
                || path.starts_with("state/seeds/") && !Path::new(path).iter().any(is_temporary)
                || path == "state/leases/.guard"
                || path == "state/.guard"
                || path == "state/overlays/.guard"
                || path.starts_with("state/repositories/")
                    && Path::new(path).extension() == Some("lock".as_ref())
        };
        state.retain(|path, what| !what.ends_with("directory") && !is_kept(path));
        let listed = self.git_in(repository, &["worktree", "list", "--porcelain"]);
        state.insert("git worktree list".to_owned(), listed);
        state.insert("git for-each-ref".to_owned(), self.git_in(repository, &["for-each-ref"]));
        state
    }

    /// Returns the inventory without the records of applied swarms, which list what their last run did.
    pub(crate) fn inventory_without_records(&self) -> Inventory {
        let mut found = self.inventory();
        found.retain(|path, _| !path.ends_with("/applied.json"));
        found
    }

    /// Runs `act`, and expects an unchanged inventory.
    #[track_caller]
    pub(crate) fn unchanged<T>(&self, act: impl FnOnce() -> T) -> T {
        let before = self.inventory();
        let done = act();
        assert_same(&before, &self.inventory());
        done
    }

    /// Expects a clean `git status` in `directory`, in which only ignored files are hidden.
    #[track_caller]
    pub(crate) fn assert_clean(&self, directory: &Path) {
        assert_eq!(self.git_in(directory, &["status", "--porcelain", "--untracked-files=all"]), "");
    }
}

impl Outcome {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        // Without a code, a signal ended the program; shells report 128 and the signal's number.
        let signal =
            || std::os::unix::process::ExitStatusExt::signal(&output.status).map(|signal| 128 + signal);
        let code = output.status.code().or_else(signal).unwrap();
        Self { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Expects all of this text in stderr.
    #[track_caller]
    pub(crate) fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.stderr.contains(part), "not said: {part}\nstderr:\n{}", self.stderr);
        }
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

/// Returns the directory of the binary.
pub(crate) fn bin() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_seedbed")).parent().unwrap()
}

/// Returns the sessions of a plan.
pub(crate) fn sessions(plan: &Value) -> impl Iterator<Item = &Value> {
    plan["sessions"].as_array().unwrap().iter()
}

/// Returns the first and last port of a planned session.
#[track_caller]
pub(crate) fn ports(session: &Value) -> (u64, u64) {
    let held = session["allocations"].as_array().unwrap();
    let held = held.iter().find(|held| held["kind"] == "port-range").expect("the session has ports");
    let port = |key: &str| held["allocation"][key].as_u64().unwrap();
    (port("startPort"), port("endPort"))
}

/// Catches and drops the signals that this process was started to ignore, by `nohup` or in the background of a script.
/// Every started program inherits an ignored signal, but not a caught one.
fn ignore_by_catching() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
        let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
        for signal in [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 1)
        {
            signal_hook::flag::register(signal, Arc::default()).unwrap();
        }
    });
}

/// Creates a temporary directory in memory, or on disk if [`ON_DISK`] is set.
///
/// A run waits for the disk most of its time: it syncs each file. A killed process leaves the same files in memory.
pub(crate) fn temporary_directory() -> TempDir {
    if std::env::var_os(ON_DISK).is_some() { TempDir::new().unwrap() } else { directory_in_memory() }
}

fn directory_in_memory() -> TempDir {
    let memory = memory().and_then(|memory| TempDir::new_in(memory).ok());
    memory.unwrap_or_else(|| TempDir::new().unwrap())
}

/// Returns a file system in memory on which programs can be run, with enough free space for all suites at once.
fn memory() -> Option<&'static Path> {
    let path = Path::new("/dev/shm");
    let found = rustix::fs::statvfs(path).ok()?;
    let fits = found.f_bavail * found.f_frsize >= MEMORY_MIN;
    (fits && !found.f_flag.contains(StatVfsMountFlags::NOEXEC)).then_some(path)
}

/// Sends a signal to a child that has not been waited for.
pub(crate) fn send(signal: Signal, child: &Child) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Waits for an expected event.
#[track_caller]
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Panics with only the differences.
#[track_caller]
pub(crate) fn assert_same(before: &Inventory, after: &Inventory) {
    let mut differs = String::new();
    let paths: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    for path in paths {
        match (before.get(path), after.get(path)) {
            (Some(before), Some(after)) if before == after => {}
            (before, after) => {
                let shown =
                    |what: Option<&String>| what.map_or("nothing".to_owned(), |what| format!("{what:.500}"));
                let _ = writeln!(differs, "{path}: {} -> {}", shown(before), shown(after));
            }
        }
    }
    assert!(differs.is_empty(), "changed:\n{differs}");
}

/// Adds all paths below `directory`, as `name`, with their modes, and their content if it is no longer than a screen.
pub(crate) fn walk(directory: &Path, name: &Path, found: &mut Inventory) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), name.join(entry.file_name()));
        let metadata = fs::symlink_metadata(&path).unwrap();
        let what = if metadata.is_symlink() {
            format!("link to {}", fs::read_link(&path).unwrap().display())
        } else if metadata.is_dir() {
            walk(&path, &name, found);
            "directory".to_owned()
        } else if metadata.is_file() {
            fs::read(&path).unwrap().escape_ascii().to_string()
        } else {
            "neither".to_owned()
        };
        found.insert(name.to_string_lossy().into_owned(), format!("{:o} {what}", metadata.mode()));
    }
}

/// Gives commits of a repository an author, and hides the manifest there from Git.
fn identify(repository: &Path) {
    let config = repository.join(".git/config");
    let settings = fs::read_to_string(&config).unwrap();
    fs::write(config, settings + "[user]\n\tname = tester\n\temail = tester@example.org\n").unwrap();
    fs::create_dir_all(repository.join(".git/info")).unwrap();
    fs::write(repository.join(".git/info/exclude"), "/seedbed.toml\n").unwrap();
}
