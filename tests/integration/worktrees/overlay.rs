//! Tests of `checkout = "overlay"`: worktrees that are mounts over one checkout.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::sandbox::{Outcome, Sandbox, assert_same, wait_until};

const FOUR: &str = r#"
[session.a]
count = 4
resources = [{ kind = "git-worktree", checkout = "overlay", branch = "work/{{ session.name }}" }]
"#;

/// Creates a sandbox; prints a notice and returns `None` if overlays cannot be mounted.
fn lab(manifest: &str) -> Option<Sandbox> {
    let sandbox = Sandbox::new();
    sandbox.manifest(manifest);
    sandbox.can_mount().then_some(sandbox)
}

const NOTHING: [PathBuf; 0] = [];

#[test]
fn sessions_share_one_checkout_and_see_nothing_of_one_another() {
    let Some(lab) = lab(FOUR) else { return };
    let before = lab.inventory();
    lab.ok(&["apply"]);
    let worktrees = lab.directories();
    assert_eq!(lab.mounts().len(), 4);
    let bases: Vec<_> =
        glob(&lab.state().join("overlays"), 3).into_iter().filter(|path| path.ends_with("tree")).collect();
    assert!(bases.is_empty(), "{bases:?}");
    for worktree in &worktrees {
        lab.assert_clean(worktree);
        assert_eq!(fs::read_to_string(worktree.join("app/main.txt")).unwrap(), "app/main.txt\n");
        assert_eq!(fs::read_link(worktree.join("link")).unwrap(), Path::new("README.md"));
        assert_eq!(fs::metadata(worktree.join("tools/run.sh")).unwrap().mode() & 0o777, 0o755);
    }
    fs::write(worktrees[0].join("app/main.txt"), "APP/main.txt\n").unwrap();
    fs::remove_file(worktrees[0].join("README.md")).unwrap();
    lab.git_in(&worktrees[0], &["mv", "tools", "moved"]);
    assert_eq!(
        lab.git_in(&worktrees[0], &["status", "--short"]),
        " D README.md\n M app/main.txt\nR  tools/run.sh -> moved/run.sh".trim_start_matches('\n')
    );
    for worktree in &worktrees[1..] {
        lab.assert_clean(worktree);
        assert_eq!(fs::read_to_string(worktree.join("app/main.txt")).unwrap(), "app/main.txt\n");
    }
    lab.seedbed(&["destroy"]).expect(69);
    assert_eq!(lab.mounts().len(), 4, "a refusal touches nothing");
    lab.ok(&["destroy", "--discard"]);
    assert_eq!(lab.mounts(), NOTHING);
    assert_same(&before, &lab.inventory());
}

#[test]
fn the_first_status_opens_no_tracked_file() {
    let Some(lab) = lab(FOUR) else { return };
    lab.ok(&["apply"]);
    for worktree in lab.directories() {
        let debug = lab.git_in(&worktree, &["ls-files", "--debug", "app/main.txt"]);
        let file = fs::metadata(worktree.join("app/main.txt")).unwrap();
        assert!(
            debug.contains(&format!("ino: {}", file.ino())) || file.ino() > u64::from(u32::MAX),
            "{debug}"
        );
        assert!(debug.contains(&format!("mtime: {}:{}", file.mtime(), file.mtime_nsec())), "{debug}");
        assert!(debug.contains(&format!("ctime: {}:{}", file.ctime(), file.ctime_nsec())), "{debug}");
        let index = lab.git_in(&worktree, &["rev-parse", "--git-path", "index"]);
        let index = fs::metadata(worktree.join(index)).unwrap();
        assert!(file.mtime() + 1 < index.mtime(), "git would read what is as new as its index");
    }
}

#[test]
fn apply_after_a_reboot_mounts_overlays_with_their_work() {
    let Some(lab) = lab(FOUR) else { return };
    lab.ok(&["apply"]);
    let worktrees = lab.directories();
    fs::write(worktrees[2].join("work.txt"), "work\n").unwrap();
    lab.unmount_all();

    let status = lab.ok(&["status"]).stdout;
    assert!(status.contains("is not mounted"), "{status}");
    assert!(!worktrees[2].join("work.txt").exists());
    lab.seedbed(&["destroy"]).expect(69);
    assert_eq!(lab.mounts(), NOTHING);

    lab.ok(&["apply"]);
    assert_eq!(lab.mounts().len(), 4);
    assert_eq!(fs::read_to_string(worktrees[2].join("work.txt")).unwrap(), "work\n");
    lab.assert_clean(&worktrees[1]);
    let status = lab.ok(&["status"]).stdout;
    assert!(status.contains("1 untracked") && !status.contains("is not mounted"), "{status}");
    assert!(worktrees[1].join(".agent-context/resources.json").is_file());
    // A session without any writes cannot lose work.
    fs::remove_file(worktrees[2].join("work.txt")).unwrap();
    lab.unmount_all();
    lab.ok(&["destroy"]);
    assert!(!lab.state().join("overlays").join("sessions").exists());
}

/// Every change is found, for every form that the kernel gives it in the upper layer, mounted or not.
#[test]
#[ignore = "`every_case` runs it"]
fn work_in_an_overlay_is_always_found_in_every_case() {
    let two = r#"
        [session.a]
        resources = [{ kind = "git-worktree", checkout = "overlay" }]
        [session.b]
        resources = [{ kind = "git-worktree", checkout = "overlay", target-path = "app/lib" }]
    "#;
    let Some(lab) = lab(two) else { return };
    for (session, script) in [
        ("a", "echo x > new"),
        ("a", "echo x >> README.md"),
        ("a", "rm README.md"),
        ("a", "rm -r app && mkdir app"),
        ("a", "mv app moved"),
        ("a", "chmod 600 tools/run.sh; chmod 755 README.md"),
        ("a", "git update-index --chmod=+x README.md"),
        ("a", "git rm -q --cached README.md; git read-tree HEAD; git rm -q --cached README.md"),
        ("b", "rm deep.txt"),
        ("b", "cd .. && mv lib x && mkdir lib && mv x/.agent-context lib && rm -r x"),
    ] {
        lab.ok(&["apply"]);
        lab.ok(&["destroy", "--dry-run"]);
        let directory = lab.directory(session);
        let mut shell = lab.program("sh", &directory);
        assert!(shell.args(["-e", "-c", script]).status().unwrap().success(), "{script}");
        lab.seedbed(&["destroy", "--dry-run"]).expect(69);
        lab.unmount_all();
        lab.seedbed(&["destroy", "--dry-run"]).expect(69);
        lab.ok(&["destroy", "--discard"]);
    }
}

#[test]
fn unwritten_overlay_needs_no_git_status() {
    let Some(lab) = lab(FOUR) else { return };
    lab.ok(&["apply"]);
    // git would fail to count the changes of what it cannot read.
    for directory in lab.directories() {
        lab.git_in(&directory, &["config", "extensions.worktreeConfig", "true"]);
        lab.git_in(&directory, &["config", "--worktree", "status.showUntrackedFiles", "nonsense"]);
    }
    let status = lab.ok(&["status"]).stdout;
    assert_eq!(status.matches("clean").count(), 4, "{status}");
}

#[test]
fn overlays_work_with_every_index_setting() {
    for (key, value) in [
        ("core.splitIndex", "true"),
        ("core.untrackedCache", "true"),
        ("index.version", "4"),
        ("index.skipHash", "true"),
    ] {
        let Some(lab) = lab(FOUR) else { return };
        lab.git(&["config", key, value]);
        lab.ok(&["apply"]);
        let directories = lab.directories();
        for directory in &directories {
            lab.assert_clean(directory);
            fs::write(directory.join("app/main.txt"), "APP/main.txt\n").unwrap();
            assert_eq!(lab.git_in(directory, &["diff", "--name-only"]), "app/main.txt", "{key}");
        }
        lab.ok(&["destroy", "a-0", "--discard"]);
        assert_eq!(lab.git_in(&directories[1], &["diff", "--name-only"]), "app/main.txt", "{key}");
    }
}

#[test]
fn a_repair_mounts_again() {
    let Some(lab) = lab(FOUR) else { return };
    lab.ok(&["apply"]);
    fs::write(lab.directories()[0].join("work.txt"), "work\n").unwrap();
    lab.unmount_all();
    lab.ok(&["status", "--repair"]);
    assert_eq!(lab.mounts().len(), 4);
    assert!(lab.directories()[0].join("work.txt").is_file());
    assert!(!lab.ok(&["plan"]).stdout.contains("not mounted"));
    // The discovery file of a session is written in the mount, not beneath it.
    let directories = lab.directories();
    lab.unmount_all();
    for directory in directories {
        let names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [".git"]);
    }
    lab.ok(&["status", "--repair"]);
}

/// The base is checked out again from its commit; only what the session has written is lost with its layer.
#[test]
fn overlay_whose_layers_are_lost_is_mounted_again_or_discarded() {
    let Some(lab) = lab(FOUR) else { return };
    lab.ok(&["apply"]);
    let worktrees = lab.directories();
    let layers = fs::read_dir(lab.state().join("overlays")).unwrap().map(|entry| entry.unwrap().path());
    let layers = layers.into_iter().find(|path| path.is_dir()).unwrap();
    fs::write(worktrees[0].join("work.txt"), "work\n").unwrap();

    // While they are mounted: what is moved aside is mounted there again, and back.
    fs::remove_dir_all(layers.join("bases")).unwrap();
    lab.seedbed(&["destroy", "a-0", "--yes"]).expect(69).says(&["uncommitted"]);
    lab.ok(&["destroy", "a-0", "--yes", "--rescue"]).says(&["refs/seedbed/rescue/shop/a-0"]);

    // Unmounted, as after a reboot.
    fs::write(worktrees[1].join("work.txt"), "work\n").unwrap();
    lab.unmount_all();
    assert!(!layers.join("bases").exists(), "it went with its only known user");
    lab.seedbed(&["destroy", "--rescue"]).expect(69).says(&["`seedbed apply` mounts it again"]);
    lab.ok(&["status", "--repair"]);
    assert_eq!(lab.mounts().len(), 3);
    assert!(worktrees[1].join("work.txt").is_file());
    assert_eq!(fs::read_to_string(worktrees[2].join("app/main.txt")).unwrap(), "app/main.txt\n");
    lab.assert_clean(&worktrees[2]);
    lab.ok(&["apply"]).says(&["1 created"]);

    // The layer of the work itself.
    let own = layers.join("sessions").join(worktrees[1].file_name().unwrap());
    fs::rename(&own, lab.top.join("moved")).unwrap();
    for option in ["--rescue", "--discard"] {
        let refused = lab.seedbed(&["destroy", "--yes", option]).expect(69);
        refused.says(&["is mounted, and its layer", "move that back, or `umount"]);
    }
    assert_eq!(lab.mounts().len(), 4);
    lab.unmount_all();
    lab.seedbed(&["destroy", "--rescue"]).expect(69).says(&["so what was written in it is unknown"]);
    lab.seedbed(&["apply"]).expect(69).says(&["so what was written in it is unknown"]);
    lab.ok(&["apply", "--yes", "--discard"]);
    assert_eq!(lab.mounts().len(), 4);
    lab.ok(&["destroy", "--yes", "--discard"]);
    let rescue = lab.git(&["for-each-ref", "--format=%(refname)", "refs/seedbed"]);
    assert_eq!(lab.git(&["show", &format!("{rescue}:work.txt")]), "work");
    assert_eq!(lab.git(&["diff", "--name-status", &format!("{rescue}^"), &rescue]), "A\twork.txt");
    assert_eq!(lab.mounts(), NOTHING);
}

/// After a reboot `git checkout` works in the directory below the mount, and so does everything else.
#[test]
fn files_written_to_an_unmounted_overlay_are_work_and_never_covered() {
    let Some(lab) = lab(FOUR) else { return };
    lab.ok(&["apply"]);
    let directory = lab.directories().swap_remove(1);
    fs::write(directory.join("above"), "written in the mount\n").unwrap();
    lab.unmount_all();
    lab.git_in(&directory, &["checkout", "--", "."]);
    fs::write(directory.join("below"), "written without it\n").unwrap();
    let says = ["is not mounted", "files were written into the directory", "and 3 more", "move them away"];
    lab.seedbed(&["destroy"]).expect(69).says(&says);
    lab.seedbed(&["destroy", "--rescue"]).expect(69).says(&says);
    lab.seedbed(&["apply"]).expect(69).says(&says);
    lab.seedbed(&["status", "--repair"]).expect(1);
    let status = lab.ok(&["status"]).stdout;
    assert!(status.contains("files were written into the directory"), "{status}");
    assert!(directory.join("below").is_file());
    // The `.git` file is enough: the rest of the files can be checked out again.
    for entry in fs::read_dir(&directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != ".git" {
            fs::rename(entry.path(), lab.top.join(entry.file_name())).unwrap();
        }
    }
    lab.ok(&["apply"]);
    assert!(directory.join("above").is_file() && !directory.join("below").exists());
    lab.ok(&["destroy", "--discard"]);
}

/// Only an overlay of seedbed's is unmounted, and only its layers are removed.
#[test]
fn mount_of_another_program_keeps_an_overlay() {
    let Some(lab) = lab(FOUR) else { return };
    lab.ok(&["apply"]);
    let directory = lab.directories().swap_remove(1);
    let elsewhere = lab.top.join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("precious"), "x").unwrap();
    for place in [directory.clone(), directory.join("app")] {
        rustix::mount::mount_bind(&elsewhere, &place).unwrap();
        let says = format!("umount {}", place.display());
        for flags in [&[][..], &["--discard"]] {
            lab.seedbed(&[&["destroy"][..], flags].concat()).expect(69).says(&[&says]);
        }
        assert!(elsewhere.join("precious").is_file());
        assert_eq!(lab.mounts().len(), 5);
        rustix::mount::unmount(&place, rustix::mount::UnmountFlags::empty()).unwrap();
    }
    lab.ok(&["destroy"]);
    assert!(elsewhere.join("precious").is_file());
}

/// Unmounted, it is in the layer that holds what the session has written.
#[test]
fn linked_worktree_in_an_unmounted_overlay_refuses_even_a_discard() {
    let Some(lab) = lab(FOUR) else { return };
    lab.ok(&["apply"]);
    let directory = lab.directories().swap_remove(1);
    let linked = directory.join("linked");
    lab.git_in(&directory, &["worktree", "add", "--quiet", "--detach", "linked"]);
    fs::write(linked.join("work"), "work\n").unwrap();
    lab.unmount_all();
    let ends = format!("`git worktree remove {}`", linked.display());
    for flags in [&[][..], &["--rescue"], &["--discard"]] {
        let outcome = lab.seedbed(&[&["destroy"][..], flags].concat()).expect(69);
        outcome.says(&["`seedbed status --repair` mounts", &ends]);
    }
    lab.ok(&["status", "--repair"]);
    assert!(linked.join("work").is_file());
    lab.git(&["worktree", "remove", "--force", linked.to_str().unwrap()]);
    lab.ok(&["destroy", "--discard"]);
}

/// With any number of files, Git is asked about none.
#[test]
fn untouched_overlays_are_recognised_by_their_admin_directories() {
    let manifest = |count: u32| {
        format!(
            "[session.a]\ncount = {count}\nresources = [{{ kind = \"git-worktree\", checkout = \"overlay\" }}]\n"
        )
    };
    let Some(lab) = lab(&manifest(2)) else { return };
    let (tools, log) = (lab.top.join("tools"), lab.top.join("calls"));
    fs::create_dir(&tools).unwrap();
    let git = std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|directory| directory.join("git"))
        .find(|git| git.is_file())
        .unwrap();
    let script = format!("#!/bin/sh\necho \"$*\" >> {}\nexec {} \"$@\"\n", log.display(), git.display());
    fs::write(tools.join("git"), script).unwrap();
    fs::set_permissions(tools.join("git"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let calls = |args: &[&str]| {
        let _ = fs::remove_file(&log);
        let outcome = Outcome::of(lab.command(args).env("PATH", &path).output().unwrap()).expect(0);
        (outcome, fs::read_to_string(&log).unwrap_or_default().lines().count())
    };
    let mut counts = Vec::new();
    for count in [2, 6] {
        lab.manifest(&manifest(count));
        lab.ok(&["apply"]);
        let (status, mounted) = calls(&["status"]);
        assert_eq!(status.stdout.matches("clean").count(), count as usize, "{}", status.stdout);
        lab.unmount_all();
        counts.push((mounted, calls(&["status"]).1, calls(&["destroy", "--dry-run"]).1));
    }
    assert_eq!(counts[0], counts[1]);
    lab.ok(&["destroy"]);
}

#[test]
fn overlay_in_use_is_not_removed() {
    let Some(lab) = lab(FOUR) else { return };
    lab.ok(&["apply"]);
    let worktrees = lab.directories();
    let mut sleeper = lab.program("sleep", &worktrees[3]).arg("600").spawn().unwrap();
    let outcome = lab.unchanged(|| lab.seedbed(&["destroy"]));
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    outcome.expect(69).says(&[&format!("pid {} (`sleep 600`)", sleeper.id())]);
    assert_eq!(lab.mounts().len(), 4, "all of them are still there");
    lab.ok(&["destroy"]);
    assert_eq!(lab.mounts(), NOTHING);
    assert!(!worktrees[3].exists());
}

#[test]
fn a_failure_unmounts_what_the_run_mounted() {
    let failing = r#"
        [session.a]
        count = 2
        resources = [{ kind = "git-worktree", checkout = "overlay" }]
        [session.b]
        resources = [{ kind = "git-worktree", checkout = "overlay", target-path = "app" }]
        setup = ["exit 1"]
    "#;
    let Some(lab) = lab(failing) else { return };
    let before = lab.inventory();
    lab.seedbed(&["apply"]).expect(1);
    assert_eq!(lab.mounts(), NOTHING);
    assert_same(&before, &lab.inventory());
}

#[test]
fn a_killed_run_is_undone_mounts_and_all() {
    let killing = r#"
        [session.a]
        count = 3
        resources = [{ kind = "git-worktree", checkout = "overlay" }]
        setup = ["kill -9 $PPID"]
    "#;
    let Some(lab) = lab(killing) else { return };
    let before = lab.inventory();
    lab.seedbed(&["apply", "--jobs", "1"]).expect(128 + 9);
    assert_eq!(lab.mounts().len(), 3, "it was killed with all of them mounted");
    wait_until("the setup ends with its parent", || lab.seedbed(&["recover"]).code == 0);
    assert_eq!(lab.mounts(), NOTHING);
    assert_same(&before, &lab.inventory());
}

#[test]
fn base_is_removed_with_its_last_session_and_serves_new_ones() {
    let manifest = |count: u32| {
        format!(
            "[session.a]\ncount = {count}\nresources = [{{ kind = \"git-worktree\", checkout = \"overlay\" }}]\n"
        )
    };
    let Some(lab) = lab(&manifest(2)) else { return };
    lab.ok(&["apply"]);
    let bases = || {
        glob(&lab.state().join("overlays"), 2)
            .into_iter()
            .filter(|path| path.ends_with("bases"))
            .collect::<Vec<_>>()
    };
    let [bases] = &bases()[..] else { panic!("one swarm") };
    let base = |at: &Path| {
        fs::read_dir(at).into_iter().flatten().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    let [first] = &base(bases)[..] else { panic!("one base") };
    let inode = fs::metadata(first.join("tree/README.md")).unwrap().ino();
    lab.manifest(&manifest(3));
    lab.ok(&["apply"]);
    assert_eq!(fs::metadata(first.join("tree/README.md")).unwrap().ino(), inode, "it was not made again");
    lab.assert_clean(&lab.directories()[2]);
    lab.ok(&["destroy", "a-0", "a-1"]);
    assert!(first.is_dir());
    lab.ok(&["destroy"]);
    assert!(!first.exists() && !bases.exists());
}

#[test]
fn a_part_of_the_tree_is_shared_too() {
    let part = r#"
        [session.a]
        count = 2
        resources = [{ kind = "git-worktree", checkout = "overlay", target-path = "app/lib" }]
    "#;
    let Some(lab) = lab(part) else { return };
    lab.ok(&["apply"]);
    for directory in lab.directories() {
        assert!(directory.ends_with("app/lib") && directory.join("deep.txt").is_file());
        assert!(!directory.join("../../tools").exists());
        lab.assert_clean(&directory);
    }
    lab.ok(&["destroy"]);
}

#[test]
fn a_rescue_saves_what_was_written() {
    let Some(lab) = lab(FOUR) else { return };
    lab.ok(&["apply"]);
    fs::write(lab.directories()[0].join("work.txt"), "work\n").unwrap();
    lab.ok(&["destroy", "--rescue"]);
    let refs = lab.git(&["for-each-ref", "--format=%(refname)", "refs/seedbed/rescue"]);
    assert_eq!(lab.git(&["show", &format!("{refs}:work.txt")]), "work");
    assert_eq!(lab.mounts(), NOTHING);
}

#[test]
fn unmountable_overlay_is_a_diagnostic_at_its_option() {
    let Some(lab) = lab(FOUR) else { return };
    lab.ok(&["apply"]);
    // A state directory on an overlay, for instance in a session.
    let state = lab.directories()[0].join("state");
    let mut program = lab.program(env!("CARGO_BIN_EXE_seedbed"), &lab.repository);
    let output = program.arg("plan").env("SEEDBED_STATE_DIR", &state).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(65), "{stderr}");
    assert!(stderr.contains("overlays cannot be mounted in the state directory"), "{stderr}");
    assert!(stderr.contains("checkout = \"auto\"") && stderr.contains("seedbed.toml:10:50"), "{stderr}");
    assert!(!state.exists(), "looking leaves nothing");
}

#[test]
fn mounts_do_not_lie_inside_one_another() {
    let nested = r#"
        [defaults.git-worktree]
        layout = "nested"
        [session.a]
        resources = [{ kind = "git-worktree", checkout = "overlay" }]
        [session.a.child.b]
        resources = ["git-worktree"]
    "#;
    let sandbox = Sandbox::new();
    sandbox.manifest(nested);
    let outcome = sandbox.seedbed(&["validate"]).expect(65);
    assert!(outcome.stderr.contains("cannot contain another, or be inside one"), "{}", outcome.stderr);
}

/// Returns all paths down to `depth` levels below `directory`.
fn glob(directory: &Path, depth: u32) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path());
    let deeper = |path: PathBuf| {
        let below = if depth > 1 { glob(&path, depth - 1) } else { Vec::new() };
        std::iter::once(path).chain(below)
    };
    entries.flat_map(deeper).collect()
}

/// Root of a user namespace may mount, with extended attributes of its own in place of root's.
#[test]
fn a_user_namespace_of_ones_own_is_enough() {
    let sandbox = Sandbox::new();
    sandbox.manifest(FOUR);
    let within = |script: &str| {
        let mut unshare = sandbox.program("unshare", &sandbox.repository);
        unshare.env("SEEDBED", env!("CARGO_BIN_EXE_seedbed"));
        Outcome::of(
            unshare.args(["--user", "--map-root-user", "--mount", "sh", "-euc", script]).output().unwrap(),
        )
    };
    let trial = within(
        "mkdir -p ../trial/l ../trial/u ../trial/w ../trial/m
        cd ../trial
        mount -t overlay -o lowerdir=l,upperdir=u,workdir=w,userxattr trial m",
    );
    if trial.code != 0 {
        eprintln!("NOT TESTED, overlays cannot be mounted in a user namespace here: {}", trial.stderr);
        return;
    }
    let script = r#"
        $SEEDBED apply --yes --quiet
        test "$(grep -c userxattr /proc/self/mountinfo)" = 4
        for worktree in .ai_ops/worktrees/*; do test -z "$(git -C "$worktree" status --porcelain)"; done
        set -- .ai_ops/worktrees/*
        echo more >> "$1/README.md"
        test "$(git -C "$1" status --porcelain)" = " M README.md"
        test -z "$(git -C "$2" status --porcelain)"
        $SEEDBED destroy --yes && exit 1
        $SEEDBED destroy --yes --rescue
        ! grep userxattr /proc/self/mountinfo
    "#;
    within(script).expect(0);
    assert!(!sandbox.repository.join(".ai_ops").exists());
    assert_eq!(sandbox.git(&["worktree", "list"]).lines().count(), 1);
    let rescued = sandbox.git(&["for-each-ref", "--format=%(refname)", "refs/seedbed"]);
    assert_eq!(sandbox.git(&["show", &format!("{rescued}:README.md")]), "README.md\nmore");
}
