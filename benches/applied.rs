//! Measures an applied swarm and overlays: `cargo bench --bench applied`.
//!
//! First, the benchmark starts the program and checks a small manifest. Then it runs an apply without changes and
//! `status`, over 1,000 sessions with a worktree and ports each. It collects the results of 64 sessions with a commit each,
//! and applies and destroys 16 sessions with worktrees of one and of three repositories, of 5,000 files each. Last, it
//! creates 200 worktrees as overlays over 5,000 files, beside `git worktree add`, which is measured for one worktree at a
//! time. `-- collect` and `-- repositories` measure only that. All files lie in memory, in
//! `/dev/shm`; times are medians, and only their ratios mean anything. `-- N` uses N sessions instead. If overlays
//! cannot be mounted, the benchmark reports that and leaves them out.
#![expect(clippy::disallowed_methods, reason = "a benchmark sets the host up and times it")]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use support::{Ground, median, run, shown, timed};

/// Number of measurements of each action.
const ROUNDS: usize = 7;

fn main() {
    // `cargo bench` passes `--bench` to every benchmark.
    let number = std::env::args().skip(1).find_map(|argument| argument.parse::<usize>().ok());
    let (applied, mounted) = (number.unwrap_or(1000), number.unwrap_or(200));
    println!("| what | sessions | time |");
    println!("|---|---|---|");
    let is_only = |name: &str| std::env::args().any(|argument| argument == name);
    if is_only("collect") {
        return measure_collect(number.unwrap_or(64));
    }
    if is_only("repositories") {
        return measure_repositories(number.unwrap_or(16));
    }
    measure_start();
    measure_applied(applied);
    measure_collect(number.unwrap_or(64));
    measure_repositories(number.unwrap_or(16));
    measure_overlays(mounted);
}

fn row(what: &str, sessions: usize, value: &str) {
    println!("| {what} | {sessions} | {value} |");
}

fn measure_start() {
    let lab = Lab::new(10);
    lab.manifest("[session.a]\ncount = 10\nresources = [\"git-worktree\", \"port-range\"]\n");
    row("--version", 0, &shown(median_of(|| lab.seedbed("--version"), || ())));
    row("validate", 10, &shown(median_of(|| lab.seedbed("validate"), || ())));
}

fn measure_applied(sessions: usize) {
    let lab = Lab::new(10);
    lab.manifest(&format!(
        "[defaults.port-range]\nblock-size = 10\nblock-count = 1600\n\
         [session.a]\ncount = {sessions}\nresources = [\"git-worktree\", \"port-range\"]\n"
    ));
    lab.seedbed("apply");
    row("apply with nothing to do", sessions, &shown(median_of(|| lab.seedbed("apply"), || ())));
    row("status, nothing changed", sessions, &shown(median_of(|| lab.seedbed("status"), || ())));
    lab.seedbed("destroy");
}

fn measure_collect(sessions: usize) {
    let lab = Lab::new(5000);
    lab.manifest(&format!(
        "[session.a]\ncount = {sessions}\n\
         resources = [{{ kind = \"git-worktree\", branch = \"agents/{{{{ session.name }}}}\" }}]\n"
    ));
    lab.seedbed("apply");
    let who = ["-c", "user.name=bench", "-c", "user.email=bench@example.org"];
    let entries = fs::read_dir(lab.ground.path("worktrees")).unwrap().map(|entry| entry.unwrap().path());
    for (at, worktree) in entries.filter(|path| path.is_dir()).enumerate() {
        fs::write(worktree.join(format!("new-{at}.txt")), "new\n").unwrap();
        let git = |args: &[&str]| run(lab.ground.program("git", &worktree).args(who).args(args));
        git(&["add", "--all"]);
        git(&["commit", "--quiet", "--message", "new"]);
    }
    row("collect, a commit each", sessions, &shown(median_of(|| lab.seedbed("collect"), || ())));
    lab.seedbed("destroy");
}

fn measure_repositories(sessions: usize) {
    const OTHERS: [&str; 2] = ["web", "docs"];
    let lab = Lab::new(5000);
    for name in OTHERS {
        lab.ground.git(&["clone", "--quiet", ".", lab.ground.path(name).to_str().unwrap()]);
    }
    let measure = |what: &str, others: &[&str]| {
        let tables = others.iter().map(|name| format!("[repository.{name}]\nroot = \"{name}\"\n"));
        let of = |name: &&str| {
            format!(", {{ kind = \"git-worktree\", name = \"{name}\", repository = \"{name}\" }}")
        };
        lab.manifest(&format!(
            "{}[session.a]\ncount = {sessions}\nresources = [\"git-worktree\"{}]\n",
            tables.collect::<String>(),
            others.iter().map(of).collect::<String>()
        ));
        let apply = median_of(|| lab.seedbed("apply"), || lab.seedbed("destroy"));
        row(&format!("apply, {what}"), sessions, &shown(apply));
        let destroys = (0..ROUNDS).map(|_| {
            lab.seedbed("apply");
            timed(|| lab.seedbed("destroy"))
        });
        row(&format!("destroy, {what}"), sessions, &shown(median(destroys.collect())));
    };
    measure("one repository", &[]);
    measure("three repositories", &OTHERS);
}

fn measure_overlays(sessions: usize) {
    let lab = Lab::new(5000);
    let manifest = |count: usize| {
        lab.manifest(&format!(
            "[session.a]\ncount = {count}\nresources = [{{ kind = \"git-worktree\", checkout = \"overlay\" }}]\n"
        ));
    };
    manifest(sessions);
    let tried = lab.ground.seedbed(&["validate"]).output().unwrap();
    if !tried.status.success() {
        println!("\nno overlays here: {}", String::from_utf8_lossy(&tried.stderr));
        return;
    }
    let add = median_of(
        || lab.ground.git(&["worktree", "add", "--quiet", "--detach", "../one"]),
        || lab.ground.git(&["worktree", "remove", "../one"]),
    );
    let all = median_of(|| lab.seedbed("apply"), || lab.seedbed("destroy"));
    row("overlays of 5,000 files, all of them", sessions, &shown(all));
    // Cost of only the base.
    manifest(1);
    lab.seedbed("apply");
    let base = lab.blocks();
    manifest(sessions);
    row("the same, where the base stands", sessions - 1, &shown(timed(|| lab.seedbed("apply"))));
    let each = lab.blocks().saturating_sub(base) / u64::try_from(sessions - 1).unwrap_or(1).max(1);
    let ratio = add.as_secs_f64() * sessions.to_string().parse::<f64>().unwrap_or(0.0) / all.as_secs_f64();
    row("`git worktree add` of one", 1, &shown(add));
    row("as many of those, over the overlays", sessions, &format!("{ratio:.0} times"));
    row("disk a session beyond the base", sessions, &format!("{} KB", each / 1024));
    let one = fs::read_dir(lab.ground.path("worktrees"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.is_dir());
    let one = one.expect("there are worktrees");
    let status = || {
        let output = run(lab.ground.program("git", &one).args(["status", "--porcelain"]));
        assert!(output.stdout.is_empty(), "the worktree is not clean");
    };
    row("`git status` in one", 1, &shown(median_of(status, || ())));
    row("status, nothing written", sessions, &shown(median_of(|| lab.seedbed("status"), || ())));
    row("destroy", sessions, &shown(timed(|| lab.seedbed("destroy"))));
}

/// Repository of one commit in memory, with a manifest beside it.
struct Lab {
    ground: Ground,
}

impl Lab {
    fn new(files: usize) -> Self {
        let ground = Ground::new();
        let repository = ground.repository();
        for at in 0..files {
            let path = repository.join(format!("part-{}/unit-{}/file-{at}.txt", at / 700, at / 10));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("a line of file {at}\n").repeat(100)).unwrap();
        }
        ground.commit();
        Self { ground }
    }

    fn manifest(&self, rest: &str) {
        let text = format!(
            "version = 1\nswarm = \"bench\"\n[workspace]\nroot = \"repository\"\n\
             [defaults.git-worktree]\nroot-directory = \"../worktrees\"\n{rest}"
        );
        fs::write(self.ground.path("seedbed.toml"), text).unwrap();
    }

    fn seedbed(&self, command: &str) {
        run(&mut self.ground.seedbed(&[command]));
    }

    /// Returns the bytes of the file system that all files here use, without what mounts show.
    fn blocks(&self) -> u64 {
        let top = self.ground.path("");
        let own = fs::metadata(&top).unwrap().dev();
        let mut left = vec![top];
        let (mut bytes, mut seen) = (0, std::collections::HashSet::new());
        while let Some(at) = left.pop() {
            let found = fs::symlink_metadata(&at).unwrap();
            if found.dev() != own || !seen.insert(found.ino()) {
                continue;
            }
            bytes += found.blocks() * 512;
            if found.is_dir() {
                left.extend(fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        bytes
    }
}

/// Returns the median duration of `act`; `undo` runs after each call and is not measured.
fn median_of(act: impl Fn(), undo: impl Fn()) -> Duration {
    let time = |_| {
        let time = timed(&act);
        undo();
        time
    };
    median((0..ROUNDS).map(time).collect())
}
