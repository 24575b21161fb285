//! What is rescued comes back as it was: each test rescues, releases, collects garbage, runs the command that was
//! told, and compares.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::losses::losses;
use super::super::rescue::rescue;
use super::{Lab, SESSION};
use crate::provider::Rescue;
use crate::provider::git_worktree::Worktree;

/// Everything that can be told of a worktree.
#[derive(Debug, PartialEq)]
struct Picture {
    head: String,
    status: String,
    index: String,
    debug: String,
    files: BTreeMap<PathBuf, String>,
}

impl Picture {
    fn of(lab: &Lab, path: &Path) -> Self {
        let mut files = BTreeMap::new();
        walk(path, path, &mut files);
        let head = lab.try_git(path, &["rev-parse", "HEAD"]).stdout;
        let debug = lab.git_in(path, &["ls-files", "--debug"]);
        // Of what git keeps of a file beside its content, only the flags are the session's.
        let flags = debug.lines().map(|line| line.split("flags:").last().unwrap_or(line));
        let debug =
            flags.filter(|line| !line.contains("time:") && !line.contains("dev:") && !line.contains("uid:"));
        Self {
            head: String::from_utf8(head).unwrap(),
            debug: debug.collect::<Vec<_>>().join("\n"),
            status: lab.git_in(path, &["status", "--porcelain=v2", "--untracked-files=all", "--no-renames"]),
            index: lab.git_in(path, &["ls-files", "-v", "--stage"]),
            files,
        }
    }
}

fn walk(top: &Path, directory: &Path, files: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(top).unwrap().to_owned();
        let found = fs::symlink_metadata(&path).unwrap();
        if name == Path::new(".git") {
        } else if found.is_symlink() {
            files.insert(name, format!("-> {}", fs::read_link(&path).unwrap().display()));
        } else if found.is_dir() {
            walk(top, &path, files);
        } else {
            let executable = found.mode() & 0o100 != 0;
            files.insert(name, format!("{executable} {}", fs::read(&path).unwrap().escape_ascii()));
        }
    }
}

/// Has `work` done in a worktree, rescues and releases it, and brings it back.
#[track_caller]
fn round_trip(lab: &Lab, worktree: &Worktree, work: impl FnOnce(&Path)) -> (Rescue, PathBuf) {
    lab.make(worktree);
    let path = lab.path(worktree);
    work(&path);
    let before = Picture::of(lab, &path);
    let entry = lab.entry(worktree);
    let index = fs::read(entry.join("index")).unwrap();
    assert!(!losses(&lab.task(), worktree).unwrap().work.is_empty(), "there is something to rescue");
    let rescued = rescue(&lab.task(), worktree).unwrap();
    assert_eq!(fs::read(entry.join("index")).unwrap(), index, "the session's index is left alone");
    assert_eq!(Picture::of(lab, &path), before, "and so is its worktree");
    assert!(!leftovers(lab), "nothing temporary is left");
    let place = bring_back(lab, worktree, &rescued);
    assert_eq!(Picture::of(lab, &place), before);
    (rescued, place)
}

fn bring_back(lab: &Lab, worktree: &Worktree, rescued: &Rescue) -> PathBuf {
    lab.release(worktree);
    lab.git(&["reflog", "expire", "--expire=now", "--all"]);
    lab.git(&["gc", "--quiet", "--prune=now"]);
    let outcome = Command::new("sh")
        .args(["-c", &rescued.command])
        .env_clear()
        .envs(lab.host.environment.iter().cloned())
        .current_dir("/")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&outcome.stderr);
    assert!(outcome.status.success(), "{}\n{said}", rescued.command);
    let listed = lab.git(&["worktree", "list", "--porcelain"]);
    let places: Vec<_> = listed.lines().filter_map(|line| line.strip_prefix("worktree ")).collect();
    PathBuf::from(places.into_iter().find(|place| place.contains("-rescued-")).unwrap())
}

fn leftovers(lab: &Lab) -> bool {
    let Ok(entries) = fs::read_dir(lab.repo.join(".ai_ops/worktrees")) else { return false };
    entries.map(|entry| entry.unwrap().file_name()).any(|name| name.to_string_lossy().starts_with(".rescue"))
}

fn set_executable(path: &Path, executable: bool) {
    fs::set_permissions(path, fs::Permissions::from_mode(if executable { 0o755 } else { 0o644 })).unwrap();
}

#[test]
fn files_of_every_kind() {
    let lab = Lab::with_files(&[
        ("kept", "kept\n"),
        ("modified", "one\n"),
        ("staged", "one\n"),
        ("both", "one\n"),
        ("deleted", "one\n"),
        ("removed", "one\n"),
        ("mode", "one\n"),
        ("becomes-link", "one\n"),
        ("becomes-directory", "one\n"),
        ("moved/away", "one\n"),
        (".gitignore", "*.log\n"),
    ]);
    let (rescued, place) = round_trip(&lab, &lab.worktree("w"), |path| {
        fs::write(path.join("modified"), "two\n").unwrap();
        fs::write(path.join("staged"), "two\n").unwrap();
        fs::write(path.join("both"), "two\n").unwrap();
        lab.git_in(path, &["add", "staged", "both"]);
        fs::write(path.join("both"), "three\n").unwrap();
        fs::remove_file(path.join("deleted")).unwrap();
        lab.git_in(path, &["rm", "--quiet", "removed"]);
        lab.git_in(path, &["mv", "moved", "to"]);
        set_executable(&path.join("mode"), true);
        fs::remove_file(path.join("becomes-link")).unwrap();
        symlink("kept", path.join("becomes-link")).unwrap();
        fs::remove_file(path.join("becomes-directory")).unwrap();
        fs::create_dir(path.join("becomes-directory")).unwrap();
        fs::write(path.join("becomes-directory/in"), "in\n").unwrap();
        // Untracked: empty, executable, dangling, large, oddly named.
        fs::write(path.join("empty"), "").unwrap();
        fs::write(path.join("script"), "#!/bin/sh\n").unwrap();
        set_executable(&path.join("script"), true);
        symlink("/no/such", path.join("dangling")).unwrap();
        fs::write(path.join("large"), vec![b'x'; 3 << 20]).unwrap();
        for name in
            ["-dash", " space ", "line\nbreak", "tab\t", "quote'\"", "ü", ":(top)x", "*", "a,b", "\u{1}"]
        {
            fs::create_dir_all(path.join("odd")).unwrap();
            fs::write(path.join("odd").join(name), name).unwrap();
            fs::write(path.join(name), name).unwrap();
        }
        // Only in the index: staged, then gone from the tree.
        fs::write(path.join("index-only"), "index\n").unwrap();
        lab.git_in(path, &["add", "index-only"]);
        fs::remove_file(path.join("index-only")).unwrap();
        fs::write(path.join("intended"), "to add\n").unwrap();
        lab.git_in(path, &["add", "--intent-to-add", "intended"]);
    });
    assert_eq!(rescued.missing, Vec::<String>::new());
    assert!(
        rescued.reference.starts_with(&format!("refs/seedbed/rescue/{SESSION}/@")),
        "{}",
        rescued.reference
    );
    // The ref alone tells how: parents, and the command in the message.
    let show =
        |what: &str| lab.git(&["rev-parse", &format!("{}{what}", rescued.reference)]).trim().to_owned();
    assert_eq!(show("^1"), lab.commit);
    assert_eq!(show("^2^1"), lab.commit);
    assert_eq!(lab.git(&["show", &format!("{}:odd/line\nbreak", rescued.reference)]), "line\nbreak");
    assert_eq!(lab.git(&["show", &format!("{}^2:both", rescued.reference)]), "two\n");
    assert!(lab.git(&["log", "-1", "--format=%B", &rescued.reference]).contains(&rescued.command));
    assert!(!place.join("noise.log").exists());
}

#[test]
fn ignored_files_are_not_rescued() {
    let lab = Lab::with_files(&[(".gitignore", "*.log\n/build/\n"), ("a", "a\n")]);
    let worktree = lab.worktree("w");
    lab.make(&worktree);
    let path = lab.path(&worktree);
    fs::create_dir(path.join("build")).unwrap();
    for name in ["noise.log", "build/object", "work"] {
        fs::write(path.join(name), name).unwrap();
    }
    let rescued = rescue(&lab.task(), &worktree).unwrap();
    let listed = lab.git(&["ls-tree", "-r", "--name-only", &rescued.reference]);
    assert_eq!(listed, ".gitignore\na\nwork\n");
}

#[test]
fn line_ends_and_filters() {
    let lab = Lab::with_files(&[
        (
            ".gitattributes",
            "*.txt text=auto\n*.dos text eol=crlf\n*.unix text eol=lf\n*.up filter=up\n*.id ident\n",
        ),
        ("old.txt", "one\n"),
        ("old.dos", "one\n"),
    ]);
    // A filter that does not come back: `clean` drops what `smudge` cannot know.
    lab.git(&["config", "filter.up.clean", "tr a-z A-Z"]);
    lab.git(&["config", "filter.up.smudge", "cat"]);
    let (rescued, _) = round_trip(&lab, &lab.worktree("w"), |path| {
        for extension in ["txt", "dos", "unix", "up", "bin"] {
            let name = |kind: &str| path.join(format!("{kind}.{extension}"));
            fs::write(name("crlf"), "one\r\ntwo\r\n").unwrap();
            fs::write(name("lf"), "one\ntwo\n").unwrap();
            fs::write(name("cr"), "one\rtwo\r").unwrap();
        }
        fs::write(path.join("mixed.txt"), "one\r\ntwo\n").unwrap();
        fs::write(path.join("old.txt"), "one\r\ntwo\r\n").unwrap();
        fs::write(path.join("old.dos"), "one\r\ntwo\r\n").unwrap();
        fs::write(path.join("x.id"), "$Id: somebody else's $\n").unwrap();
    });
    assert_eq!(rescued.missing, Vec::<String>::new());
    // The one of which git makes another, whatever is saved, is written byte by byte.
    assert!(
        rescued.command.contains(&format!("cat-file blob {}:lf.dos > ", rescued.reference)),
        "{rescued:?}"
    );
    assert_eq!(rescued.command.matches("cat-file").count(), 1);
}

#[test]
fn files_that_come_back_converted_are_told_where_they_are_many() {
    let lab = Lab::with_files(&[(".gitattributes", "*.dos text eol=crlf\n")]);
    let worktree = lab.worktree("w");
    lab.make(&worktree);
    for number in 0..25 {
        fs::write(lab.path(&worktree).join(format!("{number}.dos")), "one\ntwo\n").unwrap();
    }
    let rescued = rescue(&lab.task(), &worktree).unwrap();
    assert_eq!(rescued.missing.len(), 1);
    assert!(rescued.missing[0].starts_with("25 files come back"), "{rescued:?}");
    assert_eq!(lab.git(&["cat-file", "blob", &format!("{}:24.dos", rescued.reference)]), "one\ntwo\n");
}

#[test]
fn commits_and_where_they_were() {
    let lab = Lab::new();
    let worktree = lab.worktree("w");
    let mut commits = Vec::new();
    let (rescued, place) = round_trip(&lab, &worktree, |path| {
        let mut commit = |message: &str| {
            lab.git_in(path, &["commit", "-q", "--allow-empty", "-m", message]);
            commits.push(lab.git_in(path, &["rev-parse", "HEAD"]).trim().to_owned());
        };
        commit("left behind");
        lab.git_in(path, &["checkout", "-q", "--detach", "main"]);
        commit("of its own ref");
        lab.git_in(path, &["update-ref", "refs/worktree/kept", "HEAD"]);
        commit("reset away");
        lab.git_in(path, &["reset", "-q", "--hard", "main"]);
        commit("HEAD");
    });
    for commit in &commits {
        lab.git(&["merge-base", "--is-ancestor", commit, &rescued.reference]);
    }
    assert_eq!(lab.git(&["rev-parse", &format!("{}^", rescued.reference)]).trim(), commits[3]);
    assert_eq!(lab.git_in(&place, &["rev-parse", "refs/worktree/kept"]).trim(), commits[1]);
}

/// Two branches that change one file, and a worktree on one of them.
fn diverged(lab: &Lab, path: &Path) {
    lab.git_in(path, &["checkout", "-q", "-b", "theirs"]);
    fs::write(path.join("a.txt"), "theirs\n").unwrap();
    fs::write(path.join("new.txt"), "theirs\n").unwrap();
    lab.git_in(path, &["add", "--all"]);
    lab.git_in(path, &["commit", "-q", "-m", "theirs"]);
    lab.git_in(path, &["checkout", "-q", "-b", "ours", "main"]);
    fs::write(path.join("a.txt"), "ours\n").unwrap();
    lab.git_in(path, &["rm", "-q", "other/x"]);
    lab.git_in(path, &["commit", "-q", "-a", "-m", "ours"]);
}

#[test]
fn a_merge_goes_on_where_it_stopped() {
    let lab = Lab::new();
    let (_, place) = round_trip(&lab, &lab.worktree("w"), |path| {
        diverged(&lab, path);
        assert!(!lab.try_git(path, &["merge", "theirs"]).status.success());
        fs::write(path.join("a.txt"), "half resolved\n").unwrap();
    });
    fs::write(place.join("a.txt"), "resolved\n").unwrap();
    lab.git_in(&place, &["add", "a.txt"]);
    lab.git_in(&place, &["commit", "-q", "--no-edit"]);
    assert_eq!(lab.git_in(&place, &["log", "-1", "--format=%P"]).split_whitespace().count(), 2);
}

#[test]
fn a_rebase_goes_on_where_it_stopped() {
    let lab = Lab::new();
    let (_, place) = round_trip(&lab, &lab.worktree("w"), |path| {
        diverged(&lab, path);
        lab.git_in(path, &["checkout", "-q", "--detach"]);
        lab.git_in(path, &["branch", "-q", "-D", "ours"]);
        fs::write(path.join("second"), "").unwrap();
        lab.git_in(path, &["add", "second"]);
        lab.git_in(path, &["commit", "-q", "-m", "second"]);
        assert!(!lab.try_git(path, &["rebase", "theirs"]).status.success());
    });
    fs::write(place.join("a.txt"), "resolved\n").unwrap();
    lab.git_in(&place, &["add", "a.txt"]);
    lab.git_in(&place, &["-c", "core.editor=true", "rebase", "--continue"]);
    assert_eq!(lab.git_in(&place, &["log", "--format=%s"]), "second\nours\ntheirs\none\n");
}

#[test]
fn a_cherry_pick_and_a_bisection_go_on_where_they_stopped() {
    let lab = Lab::new();
    let (_, place) = round_trip(&lab, &lab.worktree("w"), |path| {
        diverged(&lab, path);
        assert!(!lab.try_git(path, &["cherry-pick", "theirs"]).status.success());
    });
    fs::write(place.join("a.txt"), "resolved\n").unwrap();
    lab.git_in(&place, &["add", "a.txt"]);
    lab.git_in(&place, &["-c", "core.editor=true", "cherry-pick", "--continue"]);
    assert_eq!(lab.git_in(&place, &["log", "--format=%s"]), "theirs\nours\none\n");

    let lab = Lab::new();
    for number in 0..8 {
        lab.git(&["commit", "-q", "--allow-empty", "-m", &number.to_string()]);
    }
    let worktree =
        Worktree { commit: lab.git(&["rev-parse", "HEAD"]).trim().to_owned(), ..lab.worktree("w") };
    let (_, place) = round_trip(&lab, &worktree, |path| {
        lab.git_in(path, &["bisect", "start", "HEAD", "HEAD~8"]);
        lab.git_in(path, &["bisect", "bad"]);
    });
    lab.git_in(&place, &["bisect", "bad"]);
    let found = lab.git_in(&place, &["bisect", "bad"]);
    assert!(found.contains("is the first bad commit"), "{found}");
}

#[test]
fn a_sparse_worktree() {
    let lab = Lab::new();
    let worktree = Worktree { target_path: Some("packages/app".into()), ..lab.worktree("w") };
    let (_, place) = round_trip(&lab, &worktree, |path| {
        fs::write(path.join("packages/app/main.rs"), "changed\n").unwrap();
        fs::write(path.join("packages/app/new"), "").unwrap();
        // Outside of the sparse checkout: a new file, and one of the commit's, there again and changed.
        fs::create_dir(path.join("elsewhere")).unwrap();
        fs::write(path.join("elsewhere/new"), "new\n").unwrap();
        fs::create_dir(path.join("other")).unwrap();
        fs::write(path.join("other/x"), "changed\n").unwrap();
        lab.git_in(path, &["status"]);
    });
    assert!(!place.join("packages/side.txt").exists() || place.join("a.txt").exists());
    assert_eq!(lab.git_in(&place, &["config", "core.sparseCheckout"]), "true\n");
}

#[test]
fn what_the_index_hides() {
    let lab = Lab::new();
    round_trip(&lab, &lab.worktree("w"), |path| {
        lab.git_in(path, &["update-index", "--assume-unchanged", "a.txt"]);
        lab.git_in(path, &["update-index", "--skip-worktree", "other/x", "packages/side.txt"]);
        fs::write(path.join("a.txt"), "hidden").unwrap();
        fs::write(path.join("other/x"), "hidden too").unwrap();
    });
}

#[test]
fn a_torn_entry_keeps_the_files() {
    for (torn, said) in [("HEAD", "torn or gone"), ("index", "index is gone"), ("", "torn or gone")] {
        let lab = Lab::new();
        let worktree = lab.worktree("w");
        lab.make(&worktree);
        let path = lab.path(&worktree);
        fs::write(path.join("a.txt"), "changed\n").unwrap();
        fs::write(path.join("new"), "new\n").unwrap();
        if torn.is_empty() {
            fs::remove_dir_all(lab.entry(&worktree)).unwrap();
        } else {
            fs::write(lab.entry(&worktree).join(torn), "").unwrap();
        }
        let mut files = BTreeMap::new();
        walk(&path, &path, &mut files);
        assert!(!losses(&lab.task(), &worktree).unwrap().work.is_empty());
        let rescued = rescue(&lab.task(), &worktree).unwrap();
        assert!(rescued.missing.iter().any(|line| line.contains(said)), "{torn}: {rescued:?}");
        if torn.is_empty() {
            // Only a directory that no entry belongs to is left; nothing says that it may be removed.
            fs::remove_dir_all(&path).unwrap();
        }
        let place = bring_back(&lab, &worktree, &rescued);
        let mut restored = BTreeMap::new();
        walk(&place, &place, &mut restored);
        assert_eq!(restored, files, "{torn}");
        let status = lab.git_in(&place, &["status", "--porcelain"]);
        assert_eq!(status, " M a.txt\n?? new\n", "{torn}");
    }
}

#[test]
fn commits_of_a_directory_that_is_gone() {
    let lab = Lab::new();
    let worktree = lab.worktree("w");
    lab.make(&worktree);
    let path = lab.path(&worktree);
    fs::write(path.join("a.txt"), "work\n").unwrap();
    lab.git_in(&path, &["commit", "-q", "-a", "-m", "work"]);
    let commit = lab.git_in(&path, &["rev-parse", "HEAD"]);
    fs::remove_dir_all(&path).unwrap();
    assert_eq!(losses(&lab.task(), &worktree).unwrap().work.len(), 1);
    let rescued = rescue(&lab.task(), &worktree).unwrap();
    let place = bring_back(&lab, &worktree, &rescued);
    assert_eq!(lab.git_in(&place, &["rev-parse", "HEAD"]), commit);
    assert_eq!(lab.git_in(&place, &["status", "--porcelain"]), "");
}

#[test]
fn the_same_is_rescued_once_and_what_is_new_again() {
    let lab = Lab::new();
    let worktree = lab.worktree("w");
    lab.make(&worktree);
    let work = lab.path(&worktree).join("work");
    fs::write(&work, "one").unwrap();
    let first = rescue(&lab.task(), &worktree).unwrap();
    assert_eq!(rescue(&lab.task(), &worktree).unwrap(), first);
    fs::write(&work, "two").unwrap();
    let second = rescue(&lab.task(), &worktree).unwrap();
    assert_ne!(second.reference, first.reference);
    fs::write(&work, "one").unwrap();
    assert_eq!(rescue(&lab.task(), &worktree).unwrap(), first);
    let refs = lab.git(&["for-each-ref", "--format=%(refname)", "refs/seedbed/rescue"]);
    assert_eq!(refs.lines().count(), 2);
    // What only says that it is this rescue is not taken for it.
    let message = lab.git(&["log", "-1", "--format=%B", &first.reference]);
    let tree = format!("{}^{{tree}}", worktree.commit);
    let forged = lab.git(&["commit-tree", "-m", &message, &tree]);
    lab.git(&["update-ref", &first.reference, forged.trim()]);
    assert_ne!(rescue(&lab.task(), &worktree).unwrap().reference, first.reference);
    // Another session whose name begins the same does not take it for its own.
    let other = crate::provider::Task { session: "swarm", ..lab.task() };
    assert_ne!(rescue(&other, &worktree).unwrap().reference, first.reference);
}

#[test]
fn objects_that_are_taken_away_meanwhile_are_missed() {
    let mut lab = Lab::new();
    let worktree = lab.worktree("w");
    lab.make(&worktree);
    fs::write(lab.path(&worktree).join("work"), "not yet saved\n").unwrap();
    let id = {
        let path = lab.path(&worktree).join("work");
        lab.git(&["hash-object", path.to_str().unwrap()]).trim().to_owned()
    };
    let blob = lab.repo.join(".git/objects").join(&id[..2]).join(&id[2..]);
    // A git that takes it away the moment before there is a ref.
    let shim = lab.host.state.with_file_name("shim");
    fs::create_dir_all(&shim).unwrap();
    let path = lab.host.environment.iter().find(|(name, _)| name == "PATH").unwrap().1.clone();
    let real = std::env::split_paths(&path).map(|path| path.join("git")).find(|path| path.is_file()).unwrap();
    let script = format!(
        "#!/bin/sh\nfor word; do test \"$word\" = update-ref && rm -f {}; done\nexec {} \"$@\"\n",
        blob.display(),
        real.display()
    );
    fs::write(shim.join("git"), script).unwrap();
    set_executable(&shim.join("git"), true);
    let honest = lab.host.environment.clone();
    for (name, value) in &mut lab.host.environment {
        if name == "PATH" {
            let mut first = shim.clone().into_os_string();
            first.push(":");
            first.push(&*value);
            *value = first;
        }
    }
    let error = rescue(&lab.task(), &worktree).unwrap_err().to_string();
    assert!(error.contains("is not whole"), "{error}");
    assert_eq!(
        lab.git(&["for-each-ref", "refs/seedbed/rescue"]),
        "",
        "a broken ref would be in everybody's way"
    );
    // Another attempt writes what is missing.
    lab.host.environment = honest;
    let rescued = rescue(&lab.task(), &worktree).unwrap();
    assert_eq!(lab.git(&["show", &format!("{}:work", rescued.reference)]), "not yet saved\n");
    assert_eq!(lab.git(&["for-each-ref", "refs/seedbed/rescue"]).lines().count(), 1);
}

#[test]
fn a_repository_inside_is_not_passed_over() {
    // Where the index cannot be read, nothing has found it before.
    for torn in [false, true] {
        let lab = Lab::new();
        let worktree = lab.worktree("w");
        lab.make(&worktree);
        let nested = lab.path(&worktree).join("nested");
        fs::create_dir(&nested).unwrap();
        lab.git_in(&nested, &["init", "-q"]);
        lab.git_in(
            &nested,
            &["-c", "user.name=a", "-c", "user.email=a", "commit", "-q", "--allow-empty", "-m", "m"],
        );
        if torn {
            fs::write(lab.entry(&worktree).join("index"), "torn").unwrap();
        }
        let error = rescue(&lab.task(), &worktree).unwrap_err().to_string();
        assert!(error.contains("(nested)"), "{error}");
        assert_eq!(lab.git(&["for-each-ref", "refs/seedbed"]), "");
    }
}

#[test]
fn nothing_that_a_session_plants_runs() {
    let lab = Lab::new();
    let worktree = lab.worktree("w");
    lab.make(&worktree);
    let path = lab.path(&worktree);
    let trapped = lab.host.state.with_file_name("trapped");
    let trap = lab.repo.join(".git/trap");
    fs::write(&trap, format!("#!/bin/sh\necho $0 >> {}\n", trapped.display())).unwrap();
    set_executable(&trap, true);
    fs::create_dir_all(lab.repo.join(".git/hooks")).unwrap();
    for hook in ["reference-transaction", "post-index-change", "post-checkout", "pre-commit", "post-commit"] {
        symlink(&trap, lab.repo.join(".git/hooks").join(hook)).unwrap();
    }
    for (key, value) in [
        ("core.fsmonitor", trap.to_str().unwrap()),
        ("gpg.program", trap.to_str().unwrap()),
        ("commit.gpgSign", "true"),
        ("core.hooksPath", ".git/hooks"),
    ] {
        lab.git(&["config", key, value]);
    }
    fs::write(path.join("work"), "").unwrap();
    losses(&lab.task(), &worktree).unwrap();
    rescue(&lab.task(), &worktree).unwrap();
    assert!(!trapped.exists(), "{}", fs::read_to_string(&trapped).unwrap());
}

#[test]
fn other_formats() {
    for option in ["--object-format=sha256", "--ref-format=reftable"] {
        let Some(lab) = Lab::with_init(&[option], &[("a.txt", "one\n")]) else { continue };
        let registration = match option {
            "--ref-format=reftable" => super::Registration::Git,
            _ => super::Registration::Rename,
        };
        let worktree = Worktree { registration, ..lab.worktree("w") };
        round_trip(&lab, &worktree, |path| {
            lab.git_in(path, &["commit", "-q", "--allow-empty", "-m", "more"]);
            fs::write(path.join("a.txt"), "staged\n").unwrap();
            lab.git_in(path, &["add", "a.txt"]);
            fs::write(path.join("a.txt"), "changed\n").unwrap();
            fs::write(path.join("new"), "").unwrap();
        });
    }
}

#[test]
fn settings_of_the_repository_do_not_decide_what_is_saved() {
    let lab = Lab::with_files(&[(".gitattributes", "*.txt text\n"), ("a.txt", "one\n"), ("b", "one\n")]);
    for (key, value) in [
        ("core.fileMode", "false"),
        ("core.symlinks", "false"),
        ("core.safecrlf", "true"),
        ("core.splitIndex", "true"),
        ("core.untrackedCache", "true"),
        ("core.ignoreStat", "true"),
        ("index.version", "4"),
    ] {
        lab.git(&["config", key, value]);
    }
    let worktree = lab.worktree("w");
    lab.make(&worktree);
    let path = lab.path(&worktree);
    fs::write(path.join("a.txt"), "one\r\ntwo\n").unwrap();
    fs::write(path.join("b"), "two\n").unwrap();
    lab.git_in(&path, &["update-index", "--split-index", "b"]);
    fs::write(path.join("script"), "#!/bin/sh\n").unwrap();
    set_executable(&path.join("script"), true);
    symlink("b", path.join("link")).unwrap();
    let index = lab.git_in(&path, &["ls-files", "--stage"]);
    let mut files = BTreeMap::new();
    walk(&path, &path, &mut files);

    let rescued = rescue(&lab.task(), &worktree).unwrap();
    let place = bring_back(&lab, &worktree, &rescued);
    let mut restored = BTreeMap::new();
    walk(&place, &place, &mut restored);
    assert_eq!(restored, files);
    assert_eq!(lab.git_in(&place, &["ls-files", "--stage"]), index);
}

#[test]
fn a_rescue_stands_on_its_own() {
    let lab = Lab::new();
    let worktree = lab.worktree("w");
    lab.make(&worktree);
    let path = lab.path(&worktree);
    lab.git_in(&path, &["commit", "-q", "--allow-empty", "-m", "left"]);
    let left = lab.git_in(&path, &["rev-parse", "HEAD"]).trim().to_owned();
    lab.git_in(&path, &["checkout", "-q", "--detach", "main"]);
    let first = rescue(&lab.task(), &worktree).unwrap();
    assert_eq!(
        losses(&lab.task(), &worktree).unwrap().work,
        Vec::<String>::new(),
        "what is rescued is not lost"
    );
    assert_eq!(rescue(&lab.task(), &worktree).unwrap(), first);
    fs::write(path.join("new"), "").unwrap();
    let second = rescue(&lab.task(), &worktree).unwrap();
    lab.git(&["update-ref", "-d", &first.reference]);
    lab.git(&["merge-base", "--is-ancestor", &left, &second.reference]);
}
