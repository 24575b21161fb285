//! Tests of SIGKILL at random moments, of every error at every step, and of disks that are full or cannot be written.

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::errors::{With, check_apply, check_destroy, check_layers, check_recover};
use super::{PAIR, TREE, assert_put_back, check_all, sandbox, with_overlays};
use crate::sandbox::{Outcome, Sandbox, assert_same, send};

/// Adds `files` to the repository's commit, in one pack: thousands of loose objects would be read for every inventory.
fn fill(sandbox: &Sandbox, files: usize) {
    for file in 0..files {
        sandbox.write(&format!("app/many/{}/{file}.txt", file % 50), &format!("{file}\n").repeat(20));
    }
    sandbox.commit("many");
    sandbox.git(&["gc", "--quiet"]);
}

/// Returns the duration of an apply that is not killed; measured once in each sandbox.
fn length(sandbox: &Sandbox) -> Duration {
    let known = sandbox.top.join("milliseconds");
    if let Ok(text) = fs::read_to_string(&known) {
        return Duration::from_millis(text.parse().unwrap());
    }
    let begun = Instant::now();
    sandbox.ok(&["apply"]);
    let took = begun.elapsed();
    sandbox.ok(&["destroy"]);
    fs::write(known, took.as_millis().to_string()).unwrap();
    took
}

/// Kills `args` after `delay`; returns `false` if the run had already ended.
fn kill_after(sandbox: &Sandbox, args: &[&str], delay: Duration) -> bool {
    let mut run = sandbox.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    thread::sleep(delay);
    let alive = run.try_wait().unwrap().is_none();
    if alive {
        send(Signal::KILL, &run);
    }
    run.wait().unwrap();
    alive
}

/// Kills apply, destroy and recover at moments spread over their length, `times` times each.
fn soak(files: usize, times: u32) {
    let cases: Vec<String> = (0..times)
        .flat_map(|time| ["apply", "destroy", "recover"].map(|what| format!("{what} {time}")))
        .collect();
    let killed = std::sync::atomic::AtomicUsize::new(0);
    let tree = with_overlays(TREE);
    check_all(&tree, &cases, |sandbox, case| {
        let (what, time) = case.split_once(' ').unwrap();
        if !sandbox.repository.join("app/many").exists() {
            fill(sandbox, files);
        }
        let before = sandbox.inventory();
        let took = length(sandbox);
        // Golden-ratio steps fall everywhere, and the same in every run of the test.
        let share = (f64::from(time.parse::<u32>().unwrap()) * 0.618_034 + 0.01).fract();
        let delay = took.mul_f64(share);
        let hit = if what == "destroy" {
            sandbox.ok(&["apply"]);
            kill_after(sandbox, &["destroy"], delay.mul_f64(0.6))
        } else {
            let hit = kill_after(sandbox, &["apply"], delay);
            if what == "recover" { kill_after(sandbox, &["recover"], took.mul_f64(share / 4.0)) } else { hit }
        };
        killed.fetch_add(usize::from(hit), std::sync::atomic::Ordering::Relaxed);
        sandbox.ok(&["recover"]);
        sandbox.ok(&["destroy"]);
        assert_put_back(&before, sandbox);
        sandbox.git(&["worktree", "list"]);
    });
    let killed = killed.into_inner();
    assert!(killed * 4 > cases.len(), "only {killed} of {} were killed under way", cases.len());
}

#[test]
fn random_kills_on_a_repository_of_three_hundred_files() {
    soak(300, 2);
}

#[test]
#[ignore = "soak: 300 kills take minutes"]
fn random_kills_hundreds_of_times_on_three_hundred_files() {
    soak(300, 100);
}

#[test]
#[ignore = "soak: 102 kills of runs over six worktrees of 6,000 files take five minutes"]
fn random_kills_on_six_thousand_files() {
    soak(6000, 34);
}

#[test]
#[ignore = "soak: every step fails with every error, which takes minutes"]
fn every_step_fails_with_every_error() {
    check_apply(PAIR, With::All, |_| true);
    check_destroy(PAIR, With::All, |_| true);
    check_recover(PAIR, With::All, |_| true);
    check_layers(With::All);
}

/// Small file system in memory that is unmounted with the test.
struct Tmpfs(std::path::PathBuf);

impl Tmpfs {
    /// Mounts the file system; `None` if this user may not mount.
    fn mount(sandbox: &Sandbox, path: &std::path::Path, size: &str) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let options = format!("size={size},mode=755");
        let mut mount = sandbox.program("mount", &sandbox.top);
        mount.args(["-t", "tmpfs", "-o", &options, "seedbed-test"]).arg(path).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then(|| Self(path.to_owned()))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn full_disk_is_reported_and_nothing_is_left() {
    let sandbox = sandbox(TREE);
    fill(&sandbox, 300);
    for (place, size) in [(".ai_ops", "300k"), (".ai_ops", "1200k"), ("../state", "8k"), ("../state", "40k")]
    {
        let path = sandbox.repository.join(place);
        let before = sandbox.inventory();
        let Some(disk) = Tmpfs::mount(&sandbox, &path, size) else {
            eprintln!("NOT TESTED: this user may not mount a small file system to fill up");
            fs::remove_dir_all(&path).unwrap();
            return;
        };
        let empty = sandbox.inventory();
        let outcome = sandbox.seedbed(&["apply"]);
        assert_eq!(outcome.code, 1, "{place} {size}: {outcome:?}");
        // git names the files that it cannot write, not the reason.
        let said = ["No space left on device", "unable to write file"];
        assert!(said.iter().any(|said| outcome.stderr.contains(said)), "{place} {size}: {outcome:?}");
        assert_same(&empty, &sandbox.inventory());
        drop(disk);
        let _ = fs::remove_dir_all(&path);
        assert_same(&before, &sandbox.inventory());
    }
    sandbox.ok(&["apply"]);
}

#[test]
fn read_only_file_system_is_reported_and_nothing_is_left() {
    let sandbox = sandbox(PAIR);
    fs::create_dir_all(sandbox.state()).unwrap();
    for place in [".git", ".", "../state"] {
        let path = sandbox.repository.join(place);
        let mount = |args: &[&str]| {
            let mut mount = sandbox.program("mount", &sandbox.top);
            mount.args(args).arg(&path).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        };
        let before = sandbox.inventory();
        if !mount(&["--bind", path.to_str().unwrap()]) {
            eprintln!("NOT TESTED: this user may not mount a directory over itself");
            return;
        }
        let bound = Tmpfs(path.clone());
        assert!(mount(&["-o", "remount,bind,ro"]));
        let outcome = sandbox.seedbed(&["apply"]);
        drop(bound);
        outcome.expect(1).says(&["Read-only file system"]);
        assert_same(&before, &sandbox.inventory());
    }
    sandbox.ok(&["apply"]);
}

/// Runs as a user without write permission for the required directories; root may write everywhere.
#[test]
fn unwritable_directory_is_reported_and_nothing_is_left() {
    let sandbox = sandbox(PAIR);
    if !rustix::process::geteuid().is_root() {
        for place in [".git", "."] {
            use std::os::unix::fs::PermissionsExt as _;
            let path = sandbox.repository.join(place);
            let set = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            set(0o555);
            let outcome = sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(1));
            set(0o755);
            outcome.says(&["Permission denied"]);
        }
        return;
    }
    for place in [".git", "."] {
        let path = sandbox.repository.join(place);
        let immutable =
            |flag: &str| sandbox.program("chattr", &path).args([flag, "."]).stderr(Stdio::null()).status();
        if !immutable("+i").is_ok_and(|status| status.success()) {
            eprintln!(
                "NOT TESTED: root may write everywhere, and this file system has no immutable directories"
            );
            return;
        }
        let outcome = sandbox.inventory();
        let run = Outcome::of(sandbox.command(&["apply"]).output().unwrap());
        let after = sandbox.inventory();
        assert!(immutable("-i").unwrap().success());
        assert_same(&outcome, &after);
        run.expect(1).says(&["Operation not permitted"]);
    }
    sandbox.ok(&["apply"]);
}
