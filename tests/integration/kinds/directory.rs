//! Tests of scratch directories: created, copied, kept with their work, and removed like worktrees.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::faults::crash;
use crate::fixtures::repository;
use crate::sandbox::{Outcome, Sandbox, assert_same};

const PAIR: &str = "[session.lead]\nresources = [{ kind = \"directory\" }]\nenv = { SCRATCH = \"{{ directory.path }}\" }\n\
                    [session.lead.child.coder]\n";

const COPY: &str =
    "[session.a]\nresources = [\"git-worktree\", { kind = \"directory\", copy-from = \"fixture\" }]\n";

fn sandbox(manifest: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.repository.join("fixture/deep")).unwrap();
    sandbox.write("fixture/data.txt", "data\n");
    sandbox.write("fixture/deep/run", "#!/bin/sh\n");
    let run = sandbox.repository.join("fixture/deep/run");
    fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
    symlink("../data.txt", run.with_file_name("link")).unwrap();
    sandbox.commit("fixture");
    sandbox.manifest(manifest);
    sandbox
}

fn applied(manifest: &str) -> Sandbox {
    let sandbox = sandbox(manifest);
    sandbox.ok(&["apply"]);
    sandbox
}

/// Returns the directory of a session, from the record of its swarm.
#[track_caller]
fn directory(sandbox: &Sandbox, session: &str) -> PathBuf {
    let env = sandbox.ok(&["env", session, "--json"]).json();
    let text = env.to_string();
    let begin = text.find("AGENT_DIRECTORY_PATH").expect("the session has a directory");
    let path = text[begin..].split('"').nth(2).unwrap();
    PathBuf::from(path)
}

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_directory_is_created_empty_for_each_session_and_removed_without_a_trace() {
    let sandbox = sandbox(PAIR);
    let before = sandbox.inventory();
    sandbox.ok(&["apply"]);
    let (lead, coder) = (directory(&sandbox, "lead"), directory(&sandbox, "coder"));
    assert_ne!(lead, coder);
    for path in [&lead, &coder] {
        assert_eq!(names(path), [""; 0]);
        assert!(path.starts_with(sandbox.repository.join(".ai_ops/directories")), "{path:?}");
    }
    let env = sandbox.ok(&["env", "lead"]).stdout;
    assert!(
        env.contains(&format!("SCRATCH='{}'", lead.display()))
            || env.contains(&format!("SCRATCH={}", lead.display())),
        "{env}"
    );
    let prompt = sandbox.ok(&["prompt", "lead", "Begin."]).stdout;
    assert!(prompt.contains(&format!("Scratch directory: {}", lead.display())), "{prompt}");
    sandbox.assert_clean(&sandbox.repository);
    assert!(
        sandbox.ok(&["apply"]).stderr.contains("2 to keep")
            || sandbox.ok(&["plan"]).stdout.contains("2 to keep")
    );
    sandbox.ok(&["destroy"]);
    assert_same(&before, &sandbox.inventory());
}

#[test]
fn a_copy_has_the_files_modes_and_links_of_its_original_and_is_no_work() {
    let sandbox = sandbox(COPY);
    let before = sandbox.inventory();
    sandbox.ok(&["apply"]);
    let copy = directory(&sandbox, "a");
    assert_eq!(names(&copy), ["data.txt", "deep"]);
    assert_eq!(fs::read_to_string(copy.join("deep/link")).unwrap(), "data\n");
    assert_eq!(fs::metadata(copy.join("deep/run")).unwrap().permissions().mode() & 0o777, 0o755);
    let plan = sandbox.ok(&["plan", "--verbose"]).stdout;
    assert!(plan.contains("copy of fixture"), "{plan}");
    let explained = sandbox.ok(&["explain", copy.join("deep/run").to_str().unwrap()]).stdout;
    assert!(explained.contains("is in the directory of shop/a"), "{explained}");
    let explained = sandbox.ok(&["explain", "a"]).stdout;
    assert!(explained.contains("copy of fixture"), "{explained}");
    // Files that the copy lacks are still in the original.
    fs::remove_file(copy.join("data.txt")).unwrap();
    sandbox.ok(&["destroy"]);
    assert_same(&before, &sandbox.inventory());
}

/// Expects that `write` creates unsaved work in the directory, which only `--discard` removes.
fn check_work(manifest: &str, write: impl Fn(&Path), named: &str) {
    let sandbox = applied(manifest);
    write(&directory(&sandbox, "a"));
    sandbox.unchanged(|| {
        let why = [named, "written since it was created", "no rescue saves"];
        for args in [&["destroy"][..], &["destroy", "--rescue"], &["destroy", "--dry-run"]] {
            let outcome = sandbox.seedbed(args).expect(69);
            let text = outcome.stdout + &outcome.stderr;
            assert!(why.iter().all(|why| text.contains(why)), "{text}");
        }
        let status = sandbox.seedbed(&["status"]).stdout;
        assert!(status.contains("unsaved") && status.contains(named), "{status}");
    });
    sandbox.ok(&["destroy", "--discard"]);
    assert!(!sandbox.repository.join(".ai_ops").exists());
}

#[test]
fn files_written_since_are_unsaved_work() {
    check_work(COPY, |copy| fs::write(copy.join("new"), "work\n").unwrap(), "1 file that was");
    // Of the same length, and with the old time.
    let edit = |copy: &Path| {
        let path = copy.join("data.txt");
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, "work\n").unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    };
    check_work(COPY, edit, "data.txt");
    let empty = "[session.a]\nresources = [\"directory\"]\n";
    check_work(empty, |path| symlink("nowhere", path.join("link")).unwrap(), "link");
}

#[test]
fn scratch_is_removed_with_what_was_written_there() {
    let sandbox = applied("[session.a]\nresources = [{ kind = \"directory\", keep = false }]\n");
    let path = directory(&sandbox, "a");
    fs::create_dir(path.join("locked")).unwrap();
    fs::write(path.join("locked/file"), "scratch\n").unwrap();
    fs::set_permissions(path.join("locked"), fs::Permissions::from_mode(0o500)).unwrap();
    sandbox.ok(&["destroy"]);
    assert!(!sandbox.repository.join(".ai_ops").exists());
}

#[test]
fn worktrees_swarms_and_processes_inside_keep_a_directory_from_being_removed() {
    let sandbox = applied("[session.a]\nresources = [{ kind = \"directory\", keep = false }]\n");
    let path = directory(&sandbox, "a");
    let inside = path.join("tree");
    sandbox.git(&["worktree", "add", "--quiet", "--detach", inside.to_str().unwrap()]);
    sandbox.unchanged(|| {
        sandbox.seedbed(&["destroy", "--discard"]).expect(69).says(&["git worktree remove"]);
    });
    // As Git writes it with `worktree.useRelativePaths`.
    let above = "../".repeat(inside.strip_prefix(&sandbox.repository).unwrap().components().count());
    fs::write(inside.join(".git"), format!("gitdir: {above}.git/worktrees/tree\n")).unwrap();
    sandbox.unchanged(|| {
        sandbox.seedbed(&["destroy", "--discard"]).expect(69).says(&["git worktree remove"]);
    });
    sandbox.git(&["worktree", "remove", "--force", inside.to_str().unwrap()]);

    let mut sleeper = Command::new("sleep").arg("1000").current_dir(&path).spawn().unwrap();
    sandbox.seedbed(&["destroy", "--discard"]).expect(69).says(&[&format!("pid {}", sleeper.id())]);
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();

    let clone = path.join("clone");
    sandbox.git(&["clone", "--quiet", sandbox.repository.to_str().unwrap(), clone.to_str().unwrap()]);
    let inner = sandbox.manifest_text("[session.inner]\nresources = [\"git-worktree\"]\n");
    fs::write(clone.join("seedbed.toml"), inner.replace("swarm = \"shop\"", "swarm = \"inner\"")).unwrap();
    sandbox.seedbed_in(&clone, &["apply"]).expect(0);
    sandbox.seedbed(&["destroy", "--discard"]).expect(69).says(&["inner"]);
    sandbox.seedbed_in(&clone, &["destroy", "--discard"]).expect(0);
    sandbox.ok(&["destroy"]);
}

#[test]
fn a_directory_that_cannot_be_listed_is_unknown_and_hides_no_worktree() {
    let sandbox =
        sandbox("[session.a]\nresources = [{ kind = \"directory\", keep = false }]\n").without_root();
    sandbox.ok(&["apply"]);
    let path = directory(&sandbox, "a");
    let inside = path.join("tree");
    sandbox.git(&["worktree", "add", "--quiet", "--detach", inside.to_str().unwrap()]);
    let closed = ["closed", "zclosed"].map(|name| path.join(name));
    for closed in &closed {
        let made = sandbox.program("mkdir", &path).arg(closed).status().unwrap();
        assert!(made.success());
        fs::set_permissions(closed, fs::Permissions::from_mode(0o000)).unwrap();
    }
    sandbox.seedbed(&["destroy", "--discard"]).expect(69).says(&["git worktree remove"]);
    sandbox.git(&["worktree", "remove", "--force", inside.to_str().unwrap()]);
    sandbox.seedbed(&["destroy"]).expect(69).says(&["cannot be listed (closed, zclosed)", "chmod u+rwx"]);
    sandbox.ok(&["destroy", "--discard"]);
    assert!(!path.exists());
}

#[test]
fn a_directory_of_another_user_is_named_before_anything_is_released() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT TESTED, only root can make directories of another user");
        return;
    }
    let sandbox =
        sandbox("[session.a]\nresources = [{ kind = \"directory\", keep = false }]\n").without_root();
    sandbox.ok(&["apply"]);
    let path = directory(&sandbox, "a");
    fs::create_dir(path.join("database")).unwrap();
    fs::write(path.join("database/data"), "data").unwrap();
    for args in [&["destroy"][..], &["destroy", "--discard"]] {
        sandbox.seedbed(args).expect(69).says(&["directories of other users", "database", "chown"]);
        assert!(path.join("database/data").exists());
    }
    fs::remove_dir_all(path.join("database")).unwrap();
    sandbox.ok(&["destroy"]);
}

#[test]
fn missing_directory_is_created_again_and_one_without_its_record_is_left_alone() {
    let sandbox = applied(COPY);
    let path = directory(&sandbox, "a");
    fs::remove_dir_all(&path).unwrap();
    let status = sandbox.seedbed(&["status"]).stdout;
    assert!(status.contains("broken") && status.contains("does not exist"), "{status}");
    sandbox.ok(&["apply", "--yes"]);
    assert_eq!(names(&path), ["data.txt", "deep"]);

    let record = path.with_file_name(format!(".record-{}", path.file_name().unwrap().to_str().unwrap()));
    let text = fs::read(&record).unwrap();
    fs::remove_file(&record).unwrap();
    sandbox.unchanged(|| {
        sandbox.seedbed(&["destroy"]).expect(69).says(&["is not this swarm's"]);
    });
    fs::write(record, text).unwrap();
    sandbox.ok(&["destroy"]);
}

/// A kill before the run has recorded its own directory leaves an empty one at most.
#[test]
fn files_of_another_program_survive_recovery_after_a_kill_before_the_directory_was_recorded() {
    let sandbox = applied(COPY);
    let path = directory(&sandbox, "a");
    let record = path.with_file_name(format!(".record-{}", path.file_name().unwrap().to_str().unwrap()));
    sandbox.ok(&["destroy"]);
    for point in ["directory.recorded#1", "directory.made#1"] {
        crash(&sandbox, &["apply"], point);
        sandbox.ok(&["recover"]);
        assert!(!path.exists() && !record.exists(), "{point}");

        crash(&sandbox, &["apply"], point);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("precious"), "precious\n").unwrap();
        sandbox.ok(&["recover"]);
        assert_eq!(names(&path), ["precious"], "{point}");
        assert!(!record.exists(), "{point}");
        fs::remove_dir_all(&path).unwrap();
    }
}

#[test]
fn a_mount_inside_keeps_a_directory_from_being_removed() {
    let sandbox = applied(PAIR);
    let within = |script: &str| {
        let mut unshare = sandbox.program("unshare", &sandbox.repository);
        unshare.env("SEEDBED", env!("CARGO_BIN_EXE_seedbed")).env("INSIDE", directory(&sandbox, "lead"));
        let script = format!("mkdir $INSIDE/mounted; mount --bind fixture $INSIDE/mounted; {script}");
        Outcome::of(
            unshare.args(["--user", "--map-root-user", "--mount", "sh", "-euc", &script]).output().unwrap(),
        )
    };
    let trial = within("umount $INSIDE/mounted; rmdir $INSIDE/mounted");
    if trial.code != 0 {
        eprintln!("NOT TESTED, nothing can be mounted in a user namespace here: {}", trial.stderr);
        return;
    }
    // It is refused before anything is changed.
    let refused =
        "$SEEDBED destroy --yes --discard || code=$?; test \"$code\" = 69; test -e fixture/data.txt";
    let outcome = within(refused).expect(0).says(&["is a mount", "the sessions cannot be released"]);
    assert!(!outcome.stderr.contains("--discard"), "{outcome:?}");
    sandbox.ok(&["destroy"]);
}

#[test]
fn status_describes_directories() {
    let sandbox = applied(PAIR);
    let status = sandbox.ok(&["status", "--json"]).json();
    let resource = status["sessions"][0]["resources"]["directory"].as_str().unwrap();
    assert!(resource.starts_with(".ai_ops/directories/shop-lead-"), "{status}");
    let text = sandbox.ok(&["status", "--verbose"]).stdout;
    assert!(text.contains(&format!("directory: {resource}\n")), "{text}");
}

#[test]
fn doctor_names_what_a_killed_run_left_beside_directories() {
    let sandbox = applied(PAIR);
    let beside = directory(&sandbox, "lead").with_file_name("x");
    for name in [".aside-", ".trash-", ".record-.aside-"] {
        fs::write(beside.with_file_name(format!("{name}{}-lead", "0".repeat(32))), "").unwrap();
    }
    let found = sandbox.seedbed(&["doctor", "--json"]).stdout;
    assert_eq!(found.matches("\"leftover\"").count(), 3, "{found}");
}

#[test]
fn a_directory_that_exists_already_is_refused_before_anything_is_done() {
    let sandbox = applied(COPY);
    let path = directory(&sandbox, "a");
    sandbox.ok(&["destroy"]);
    fs::create_dir_all(&path).unwrap();
    sandbox.unchanged(|| {
        sandbox.seedbed(&["apply"]).expect(65).says(&["exists and is not this swarm's"]);
    });
}

#[test]
fn a_replaced_directory_keeps_its_work_and_comes_back_when_the_run_fails() {
    let sandbox = applied(COPY);
    let path = directory(&sandbox, "a");
    let smaller = COPY.replace("\"fixture\"", "\"fixture/deep\"");
    fs::write(path.join("work"), "work\n").unwrap();
    sandbox.manifest(&smaller);
    sandbox.unchanged(|| {
        sandbox.seedbed(&["apply", "--yes"]).expect(69).says(&["work"]);
    });
    fs::remove_file(path.join("work")).unwrap();
    sandbox.manifest(&format!("{smaller}setup = [\"false\"]\n"));
    sandbox.unchanged(|| {
        sandbox.seedbed(&["apply", "--yes"]).expect(1);
    });
    assert_eq!(names(&path), ["data.txt", "deep"]);
    sandbox.manifest(&smaller);
    sandbox.ok(&["apply", "--yes"]);
    assert_eq!(names(&path), ["link", "run"]);
    sandbox.ok(&["destroy"]);
}

#[test]
fn a_moved_workspace_keeps_its_directories_and_a_copied_one_has_its_own() {
    let sandbox = applied(COPY);
    let work = directory(&sandbox, "a").join("work");
    fs::write(&work, "work\n").unwrap();
    let elsewhere = sandbox.top.join("elsewhere");
    fs::rename(&sandbox.repository, &elsewhere).unwrap();
    sandbox.seedbed_in(&elsewhere, &["recover", "--moved"]).expect(0);
    // Only the work is work.
    sandbox.seedbed_in(&elsewhere, &["destroy"]).expect(69).says(&["1 file that was"]);

    let copied = Command::new("cp").arg("-a").args([&elsewhere, &sandbox.repository]).status().unwrap();
    assert!(copied.success());
    sandbox.ok(&["recover", "--copied"]);
    sandbox.seedbed(&["destroy"]).expect(69).says(&["written since it was created"]);
    sandbox.ok(&["destroy", "--discard"]);
    assert!(elsewhere.join(work.strip_prefix(&sandbox.repository).unwrap()).exists());
    sandbox.seedbed_in(&elsewhere, &["destroy", "--discard"]).expect(0);
}

#[test]
fn a_directory_whose_move_was_killed_belongs_to_its_moved_and_its_copied_workspace() {
    for flag in ["--moved", "--copied"] {
        let manifest = "[session.a]\nresources = [{ kind = \"directory\", copy-from = \"fixture\" }]\n";
        let sandbox = applied(manifest);
        let path = directory(&sandbox, "a");
        sandbox.manifest(&manifest.replace("\"fixture\"", "\"fixture/deep\""));
        crash(&sandbox, &["apply", "--yes"], "directory.aside#1");
        assert!(!path.exists());
        let elsewhere = sandbox.top.join("elsewhere");
        if flag == "--moved" {
            fs::rename(&sandbox.repository, &elsewhere).unwrap();
        } else {
            let copied = Command::new("cp").arg("-a").args([&sandbox.repository, &elsewhere]).status();
            assert!(copied.unwrap().success());
        }
        sandbox.seedbed_in(&elsewhere, &["recover", flag]).expect(0);
        assert_eq!(
            names(&elsewhere.join(path.strip_prefix(&sandbox.repository).unwrap())),
            ["data.txt", "deep"]
        );
    }
}

#[test]
fn wrong_options_are_reported_at_their_locations() {
    let check = |options: &str, says: &[&str]| {
        let sandbox = sandbox(&format!("[session.a]\nresources = [{{ kind = \"directory\", {options} }}]\n"));
        sandbox.unchanged(|| sandbox.seedbed(&["plan"]).expect(65).says(says));
    };
    check("copy-from = \"none\"", &["the workspace has no directory `none` to copy", "does not exist"]);
    check("copy-from = \"../x\"", &["is not a path below the workspace"]);
    check("copy-from = \"README.md\"", &["is not a directory"]);
    check("copy-from = \".git\"", &["is not a path below the workspace"]);
    check("copy-from = \"app\", root-directory = \"app/scratch\"", &["copied into itself"]);
    check("root-directory = \".\"", &["directories need a directory of their own"]);
    check("copi-from = \"app\"", &["copy-from"]);
    check("keep = \"no\"", &["keep"]);
}

#[test]
fn a_pipe_in_the_original_is_refused_and_the_run_rolled_back() {
    let sandbox = sandbox(COPY);
    let pipe = sandbox.repository.join("fixture/pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    sandbox.unchanged(|| {
        sandbox.seedbed(&["apply"]).expect(1).says(&["is neither a file nor a directory nor a link"]);
    });
}

#[test]
fn the_example_is_applied() {
    let sandbox = sandbox("");
    let example = fs::read_to_string(repository("examples/directory.toml")).unwrap();
    sandbox.write("seedbed.toml", &example);
    sandbox.write("fixtures/data/seed.sql", "select 1;\n");
    let before = sandbox.inventory();
    sandbox.ok(&["apply"]);
    assert_eq!(names(&directory(&sandbox, "lead")), ["seed.sql"]);
    sandbox.ok(&["destroy"]);
    assert_same(&before, &sandbox.inventory());
}
