//! Measures the creation and removal of worktrees: `cargo bench --bench worktrees`.
//!
//! The benchmark compares seedbed, with copies and with overlays, to `git worktree add`, one at a time and two at a
//! time. It also runs the system calls that every tool needs for the same files: mkdir, open, write and close on all
//! cores; unlink and rmdir.
//!
//! All files lie in memory, in `/dev/shm`, and the methods take turns, so that other load on the machine affects all of
//! them alike. Numbers are medians; only their ratios mean anything. `-- full` measures every size, which takes half an
//! hour, and `-- 16 5000` one of them. Overlays begin and end without any files, even those of the shared checkout. If
//! overlays cannot be mounted, the benchmark reports that and leaves them out.
#![expect(clippy::disallowed_methods, reason = "a benchmark sets the host up and times it")]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use support::{Ground, median, run, shown, timed};

/// Approximate number of files in one directory of the tree.
const FILES_A_DIRECTORY: usize = 10;

/// Method to create and remove worktrees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Copy,
    Overlay,
    Git,
    GitTwice,
    Calls,
}

const WAYS: [Way; 5] = [Way::Copy, Way::Overlay, Way::Git, Way::GitTwice, Way::Calls];

fn main() {
    // `cargo bench` passes `--bench` to every benchmark.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let full = arguments.iter().any(|argument| argument == "full");
    let all = [1, 16, 64].map(|worktrees| [500, 5_000, 20_000].map(|files| (worktrees, files)));
    let mut cases: Vec<(usize, usize)> = all.into_iter().flatten().collect();
    cases.retain(|(worktrees, files)| full || worktrees * files <= 100_000);
    let numbers: Vec<usize> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    if let [worktrees, files] = numbers[..] {
        cases = vec![(worktrees, files)];
    }
    println!("{} cores, {}, {}", cores(), kernel(), said("git", &["--version"]));
    println!();
    println!(
        "| worktrees x files | | copies | overlays | git | git, two at a time | calls alone | git / copies | two / copies | copies / calls | git / overlays |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for (worktrees, files) in cases {
        let rounds = match worktrees * files {
            0..=10_000 => 9,
            10_001..=100_000 => 5,
            _ => 3,
        };
        measure(worktrees, files, rounds);
    }
}

fn measure(worktrees: usize, files: usize, rounds: usize) {
    let lab = Lab::new(worktrees, files);
    let ways: Vec<Way> = WAYS.into_iter().filter(|way| *way != Way::Overlay || lab.can_mount()).collect();
    let mut made = WAYS.map(|_| Vec::new());
    let mut gone = WAYS.map(|_| Vec::new());
    // The first round warms caches up, and does not count.
    for round in 0..=rounds {
        for way in &ways {
            let create = timed(|| lab.create(*way));
            lab.check(*way);
            let remove = timed(|| lab.remove(*way));
            assert!(!lab.place(*way).exists(), "{way:?} left something");
            if round > 0 {
                made[*way as usize].push(create);
                gone[*way as usize].push(remove);
            }
        }
    }
    for (what, times) in [("create", made), ("remove", gone)] {
        let [copies, overlays, git, twice, calls] =
            times.map(|times| (!times.is_empty()).then(|| median(times)));
        let time = |time: Option<Duration>| time.map_or_else(|| "-".to_owned(), shown);
        let over = |one: Option<Duration>, other: Option<Duration>| match (one, other) {
            (Some(one), Some(other)) => format!("{:.2}", one.as_secs_f64() / other.as_secs_f64()),
            _ => "-".to_owned(),
        };
        println!(
            "| {worktrees} x {files} | {what} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            time(copies),
            time(overlays),
            time(git),
            time(twice),
            time(calls),
            over(git, copies),
            over(twice, copies),
            over(copies, calls),
            over(git, overlays),
        );
    }
}

/// Repository of one commit, with a manifest for each of seedbed's methods and directories for worktrees.
struct Lab {
    ground: Ground,
    worktrees: usize,
    tree: Tree,
}

/// Files of the commit, as they are checked out.
struct Tree {
    directories: Vec<PathBuf>,
    files: Vec<(PathBuf, Vec<u8>, u32)>,
    links: Vec<PathBuf>,
}

impl Lab {
    fn new(worktrees: usize, files: usize) -> Self {
        let lab = Self { ground: Ground::new(), worktrees, tree: Tree::of(files) };
        let repository = lab.ground.repository();
        fs::create_dir(&repository).unwrap();
        lab.tree.write(&repository);
        fs::write(repository.join(".gitattributes"), "*.bat text eol=crlf\n").unwrap();
        lab.ground.commit();
        for (name, checkout) in [("copy", "auto"), ("overlay", "overlay")] {
            let manifest = format!(
                "version = 1\nswarm = \"{name}\"\n[workspace]\nroot = \"repository\"\n\
                 [defaults.git-worktree]\nroot-directory = \"../{name}\"\ncheckout = \"{checkout}\"\n\
                 [session.a]\ncount = {worktrees}\nresources = [\"git-worktree\"]\n"
            );
            fs::write(lab.ground.path(&format!("{name}.toml")), manifest).unwrap();
        }
        lab
    }

    /// Returns whether overlays can be mounted here; prints the reason if they cannot.
    fn can_mount(&self) -> bool {
        let tried = self.ground.seedbed(&["validate", "-f", "overlay.toml"]).output().unwrap();
        if !tried.status.success() {
            eprintln!("no overlays here: {}", String::from_utf8_lossy(&tried.stderr));
        }
        tried.status.success()
    }

    /// Returns the directory in which a method creates its worktrees.
    fn place(&self, way: Way) -> PathBuf {
        self.ground.path(match way {
            Way::Copy => "copy",
            Way::Overlay => "overlay",
            Way::Git => "git",
            Way::GitTwice => "git-twice",
            Way::Calls => "calls",
        })
    }

    fn paths(&self, way: Way) -> impl Iterator<Item = PathBuf> {
        let place = self.place(way);
        (0..self.worktrees).map(move |at| place.join(format!("w{at}")))
    }

    fn create(&self, way: Way) {
        match way {
            Way::Copy => self.seedbed("apply", "copy.toml"),
            Way::Overlay => self.seedbed("apply", "overlay.toml"),
            Way::Git => {
                for path in self.paths(way) {
                    self.git(&["worktree", "add", "--quiet", "--detach", path.to_str().unwrap()]);
                }
            }
            Way::GitTwice => self.git_twice(&["add", "--quiet", "--detach"]),
            Way::Calls => {
                fs::create_dir(self.place(way)).unwrap();
                self.on_all_cores(way, |path| self.tree.write(path));
            }
        }
    }

    fn remove(&self, way: Way) {
        match way {
            Way::Copy => self.seedbed("destroy", "copy.toml"),
            Way::Overlay => self.seedbed("destroy", "overlay.toml"),
            Way::Git => {
                for path in self.paths(way) {
                    self.git(&["worktree", "remove", path.to_str().unwrap()]);
                }
                fs::remove_dir(self.place(way)).unwrap();
            }
            Way::GitTwice => {
                self.git_twice(&["remove"]);
                fs::remove_dir(self.place(way)).unwrap();
            }
            Way::Calls => {
                self.on_all_cores(way, |path| self.tree.remove(path));
                fs::remove_dir(self.place(way)).unwrap();
            }
        }
    }

    /// Checks that every worktree has every file.
    fn check(&self, way: Way) {
        let tops: Vec<_> =
            fs::read_dir(self.place(way)).unwrap().map(|entry| entry.unwrap().path()).collect();
        let tops: Vec<_> = tops.into_iter().filter(|top| top.is_dir()).collect();
        assert_eq!(tops.len(), self.worktrees, "{way:?}");
        for top in tops {
            for (path, ..) in &self.tree.files {
                assert!(top.join(path).is_file(), "{way:?}: {} is missing", path.display());
            }
        }
    }

    fn seedbed(&self, command: &str, manifest: &str) {
        run(&mut self.ground.seedbed(&[command, "-f", manifest]));
    }

    fn git(&self, args: &[&str]) {
        self.ground.git(args);
    }

    /// Runs two Git processes at a time. Sometimes one of them fails because of the other (`failed to read
    /// .../commondir`). The failed commands are repeated afterwards, as any user of this method has to.
    fn git_twice(&self, args: &[&str]) {
        let paths: Vec<_> = self.paths(Way::GitTwice).collect();
        let input: Vec<_> = paths.iter().map(|path| path.to_str().unwrap()).collect();
        let mut xargs = self.ground.program("xargs", &self.ground.repository());
        xargs.args(["-P2", "-n1", "git", "worktree"]).args(args).stdin(Stdio::piped()).stderr(Stdio::null());
        let mut child = xargs.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.join("\n").as_bytes()).unwrap();
        if child.wait().unwrap().success() {
            return;
        }
        let adds = args[0] == "add";
        for path in paths.iter().filter(|path| path.join(".gitattributes").exists() != adds) {
            let force = if adds { ["add", "-f"] } else { ["remove", "--force"] };
            self.git(&[&["worktree"], &force[..], &args[1..], &[path.to_str().unwrap()]].concat());
        }
    }

    fn on_all_cores(&self, way: Way, act: impl Fn(&Path) + Sync) {
        let paths: Vec<_> = self.paths(way).collect();
        let cores = cores();
        thread::scope(|scope| {
            for core in 0..cores {
                let mine = paths.iter().skip(core).step_by(cores);
                let act = &act;
                scope.spawn(move || mine.for_each(|path| act(path)));
            }
        });
    }
}

impl Tree {
    /// Creates files of 100 bytes to 8 KB, ten in a directory, directories three deep. One in fifty is executable, one
    /// in fifty has carriage returns, and one in a hundred is a link.
    fn of(files: usize) -> Self {
        let mut tree = Self { directories: Vec::new(), files: Vec::new(), links: Vec::new() };
        for at in 0..files {
            let group = at / FILES_A_DIRECTORY;
            let directory = PathBuf::from(format!("area-{}/part-{}/unit-{group}", group % 7, group % 31));
            if at % FILES_A_DIRECTORY == 0 {
                let above = directory.ancestors().filter(|above| *above != Path::new(""));
                let mut above: Vec<_> = above.map(Path::to_owned).collect();
                above.reverse();
                above.retain(|above| !tree.directories.contains(above));
                tree.directories.extend(above);
            }
            if at % 100 == 99 {
                tree.links.push(directory.join(format!("link-{at}")));
                continue;
            }
            let ending = if at % 50 == 7 { "bat" } else { "txt" };
            let line_end = if ending == "bat" { "\r\n" } else { "\n" };
            let mut text = String::new();
            let size = 100 + at * 7919 % 8000;
            for line in 0.. {
                if text.len() >= size {
                    break;
                }
                let _ = write!(text, "line {line} of file {at} says nothing in particular{line_end}");
            }
            let mode = if at % 50 == 11 { 0o777 } else { 0o666 };
            tree.files.push((directory.join(format!("file-{at}.{ending}")), text.into_bytes(), mode));
        }
        tree
    }

    fn write(&self, top: &Path) {
        if !top.exists() {
            fs::create_dir(top).unwrap();
        }
        for directory in &self.directories {
            fs::create_dir(top.join(directory)).unwrap();
        }
        for (path, text, mode) in &self.files {
            let mut options = fs::OpenOptions::new();
            options.write(true).create_new(true).mode(*mode);
            options.open(top.join(path)).unwrap().write_all(text).unwrap();
        }
        for link in &self.links {
            symlink("nowhere", top.join(link)).unwrap();
        }
    }

    fn remove(&self, top: &Path) {
        for path in self.files.iter().map(|(path, ..)| path).chain(&self.links) {
            fs::remove_file(top.join(path)).unwrap();
        }
        for directory in self.directories.iter().rev() {
            fs::remove_dir(top.join(directory)).unwrap();
        }
        fs::remove_dir(top).unwrap();
    }
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}", release.trim().split('-').next().unwrap_or_default())
}

fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
