#![expect(clippy::disallowed_methods, reason = "tests look at the real thing")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::{CWD, mkdirat};

use super::*;

fn sandbox() -> (tempfile::TempDir, Root) {
    let directory = tempfile::tempdir().unwrap();
    let root = Root::open(directory.path()).unwrap();
    (directory, root)
}

fn p(path: &str) -> &Path {
    Path::new(path)
}

/// Returns every path below `directory`, with a slash after directories, and the content of files.
fn inventory(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(directory).unwrap().display().to_string();
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                found.push(name + "/");
                left.push(path);
            } else {
                found.push(format!("{name}={}", fs::read_to_string(&path).unwrap_or_default()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn only_plain_relative_paths_are_accepted() {
    let (_directory, root) = sandbox();
    for path in ["..", "a/..", "../a", "/a", "/", "./a/../.."] {
        assert!(matches!(root.read(p(path), 9), Err(Error::Outside { .. })), "{path}");
        assert!(matches!(root.create_directories(p(path)), Err(Error::Outside { .. })), "{path}");
        assert!(matches!(root.remove_all(p(path)), Err(Error::Outside { .. })), "{path}");
    }
    assert!(root.directory(p("")).unwrap().is_some() && root.directory(p(".")).unwrap().is_some());
    assert!(matches!(root.remove_all(p(".")), Err(Error::Outside { .. })));
    assert!(matches!(root.replace(p(""), b""), Err(Error::Outside { .. })));
}

#[test]
fn a_root_is_created_private() {
    let (directory, _) = sandbox();
    let root = Root::create(&directory.path().join("a/b")).unwrap();
    assert_eq!(fs::metadata(directory.path().join("a")).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(root.path()).unwrap().permissions().mode() & 0o777, 0o700);
    Root::create(root.path()).unwrap();
    assert!(Root::open(&directory.path().join("none")).is_err());
}

#[test]
fn files_are_written_read_renamed_and_removed() {
    let (directory, root) = sandbox();
    assert!(root.replace(p("a/f"), b"1").is_err(), "what it lies in is not made on the way");
    let below = root.create_directories(p("a/b")).unwrap();
    assert_eq!(below.path(), directory.path().join("a/b"));
    assert_eq!(root.read(p("a/b/f"), 9).unwrap(), None);
    assert_eq!(root.read(p("none/f"), 9).unwrap(), None);
    root.replace(p("a/b/f"), b"1").unwrap();
    below.replace(p("f"), b"two").unwrap();
    assert_eq!(root.read(p("a/b/f"), 3).unwrap().unwrap(), b"two");
    assert!(matches!(root.read(p("a/b/f"), 2), Err(Error::TooLarge { limit: 2, .. })));
    assert!(!root.create_new(p("a/b/f"), b"3").unwrap());
    assert!(root.create_new(p("a/b/g"), b"3").unwrap());
    assert_eq!(below.names().unwrap(), ["f", "g"].map(OsString::from).into());

    assert!(root.rename(p("a/b/f"), p("a/f")).unwrap());
    assert!(!root.rename(p("a/b/f"), p("a/h")).unwrap() && !root.rename(p("none/f"), p("a/h")).unwrap());
    assert!(root.rename(p("a/f"), p("none/f")).is_err());
    assert!(!root.remove_directory(p("a/b")).unwrap(), "it is not empty");
    assert!(root.remove_file(p("a/b/g")).unwrap() && !root.remove_file(p("a/b/g")).unwrap());
    assert!(root.remove_directory(p("a/b")).unwrap() && !root.remove_directory(p("a/b")).unwrap());
    assert_eq!(inventory(directory.path()), ["a/", "a/f=two"]);

    let long = "n".repeat(255);
    root.replace(p(&long), b"").unwrap();
    root.create_directories(p("a/d")).unwrap();
    assert!(root.replace(p("a/d"), b"").is_err(), "a directory is not replaced");
    assert_eq!(
        inventory(directory.path()),
        ["a/", "a/d/", "a/f=two", &format!("{long}=")],
        "no temporary stays"
    );
}

#[test]
fn a_lock_is_opened_or_created() {
    let (directory, root) = sandbox();
    let file = root.open_or_create(p("lock")).unwrap();
    file.lock().unwrap();
    assert!(root.open_or_create(p("lock")).unwrap().try_lock().is_err());
    assert_eq!(fs::metadata(directory.path().join("lock")).unwrap().permissions().mode() & 0o777, 0o600);
    symlink(directory.path().join("target"), directory.path().join("link")).unwrap();
    assert!(matches!(root.open_or_create(p("link")), Err(Error::Link { .. })));
    assert!(matches!(root.open_or_create(p(".")), Err(Error::Outside { .. })));
    assert!(!directory.path().join("target").exists());
}

#[test]
fn irregular_file_is_refused_without_waiting() {
    let (directory, root) = sandbox();
    let at = |name: &str| directory.path().join(name);
    let fifo = std::process::Command::new("mkfifo").arg(at("fifo")).status().unwrap();
    assert!(fifo.success());
    let _socket = UnixListener::bind(at("socket")).unwrap();
    fs::create_dir(at("directory")).unwrap();
    for name in ["fifo", "socket", "directory"] {
        assert!(matches!(root.read(p(name), 9), Err(Error::Irregular { .. })), "{name}");
    }
    File::create(at("huge")).unwrap().set_len(1 << 40).unwrap();
    assert!(matches!(root.read(p("huge"), 1 << 16), Err(Error::TooLarge { .. })));
    symlink("huge", at("link")).unwrap();
    assert!(matches!(root.read(p("link"), 9), Err(Error::Link { .. })));
    root.replace(p("link"), b"file").unwrap();
    root.replace(p("fifo"), b"file").unwrap();
    assert_eq!(root.read(p("link"), 9).unwrap().unwrap(), b"file");
    assert_eq!(fs::metadata(at("huge")).unwrap().len(), 1 << 40);
}

#[test]
fn no_link_is_followed() {
    let (directory, root) = sandbox();
    let (victim, _) = sandbox();
    fs::write(victim.path().join("f"), "mine").unwrap();
    let before = inventory(victim.path());
    let link = directory.path().join("link");
    symlink(victim.path(), &link).unwrap();
    let is_link = |result: Result<(), Error>| {
        assert!(matches!(&result, Err(Error::Link { path }) if *path == link), "{result:?}");
    };
    for below in ["link/f", "link/sub/f"] {
        let below = p(below);
        is_link(root.read(below, 9).map(|_| ()));
        is_link(root.replace(below, b""));
        is_link(root.create_new(below, b"").map(|_| ()));
        is_link(root.remove_file(below).map(|_| ()));
        is_link(root.remove_directory(below).map(|_| ()));
        is_link(root.remove_all(below));
        is_link(root.rename(below, p("x")).map(|_| ()));
        is_link(root.directory(below).map(|_| ()));
        is_link(root.create_directories(below).map(|_| ()));
        is_link(root.create_hidden(below).map(|_| ()));
        is_link(root.remove_hidden(below));
    }
    is_link(root.remove_directory(p("link")).map(|_| ()));
    root.remove_all(p("link")).unwrap();
    assert_eq!(inventory(victim.path()), before);
    assert!(inventory(directory.path()).is_empty());
}

/// Runs `act` repeatedly while `root/d` is swapped with a link to a victim directory, which must stay unchanged.
fn while_swapped(times: u32, act: impl Fn(&Root)) {
    let (directory, root) = sandbox();
    let (victim, _) = sandbox();
    fs::write(victim.path().join("f"), "mine").unwrap();
    let before = inventory(victim.path());
    let (d, aside) = (directory.path().join("d"), directory.path().join("aside"));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = fs::create_dir(&d);
                let _ = fs::rename(&d, &aside);
                let _ = symlink(victim.path(), &d);
                let _ = fs::remove_file(&d);
                let _ = fs::rename(&aside, &d);
            }
        });
        for _ in 0..times {
            act(&root);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(inventory(victim.path()), before);
}

#[test]
fn a_directory_swapped_with_a_link_lets_no_write_out() {
    while_swapped(3000, |root| {
        let _ = root.replace(p("d/f"), b"escaped");
    });
    while_swapped(500, |root| {
        let _ = root.create_directories(p("d/sub"));
        let _ = root.create_hidden(p("d/hidden"));
        let _ = root.remove_hidden(p("d/hidden"));
    });
}

#[test]
fn a_directory_swapped_with_a_link_lets_no_removal_out() {
    while_swapped(3000, |root| {
        let _ = root.create_new(p("d/f"), b"inside");
        let _ = root.remove_file(p("d/f"));
        let _ = root.remove_all(p("d"));
    });
}

#[test]
fn a_reader_sees_a_whole_file() {
    let (_directory, root) = sandbox();
    root.replace(p("f"), &vec![0; 100_000]).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..300 {
                root.replace(p("f"), &vec![u8::try_from(round % 256).unwrap(); 100_000]).unwrap();
            }
            stop.store(true, Ordering::Relaxed);
        });
        while !stop.load(Ordering::Relaxed) {
            let bytes = root.read(p("f"), 1 << 20).unwrap().unwrap();
            assert!(bytes.len() == 100_000 && bytes.iter().all(|byte| *byte == bytes[0]));
        }
    });
}

type Removal = fn(&Root, &Path) -> Result<(), Error>;

/// Both functions that remove a tree.
const REMOVALS: [Removal; 2] = [Root::remove_all, Root::remove_all_in_parallel];

#[test]
fn tree_of_any_content_is_removed() {
    for remove in REMOVALS {
        let (directory, root) = sandbox();
        let at = |name: &str| directory.path().join(name);
        remove(&root, p("none")).unwrap();
        remove(&root, p("none/none")).unwrap();
        root.create_directories(p("t/read-only/deep")).unwrap();
        root.create_directories(p("t/closed/deep")).unwrap();
        root.create_directories(p("t/listed/deep")).unwrap();
        for name in ["read-only", "closed", "listed"] {
            fs::write(at("t").join(name).join("deep/f"), "").unwrap();
        }
        symlink("/", at("t/link")).unwrap();
        symlink("none", at("t/dangling")).unwrap();
        let mode =
            |name: &str, mode| fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
        mode("t/read-only", 0o555);
        mode("t/closed", 0);
        mode("t/listed", 0o400);
        remove(&root, p("t")).unwrap();
        assert!(inventory(directory.path()).is_empty());
        root.replace(p("f"), b"").unwrap();
        remove(&root, p("f")).unwrap();
        assert!(inventory(directory.path()).is_empty());
    }
}

#[test]
fn a_tree_is_removed_however_deep() {
    for remove in REMOVALS {
        let (directory, root) = sandbox();
        let mut fd = rustix::fs::openat(CWD, directory.path(), DIRECTORY, Mode::empty()).unwrap();
        for level in 0..3000 {
            mkdirat(&fd, "d", Mode::RWXU).unwrap();
            let next = rustix::fs::openat(&fd, "d", DIRECTORY, Mode::empty()).unwrap();
            if level % 7 == 0 {
                rustix::fs::openat(&next, "f", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
                rustix::fs::fchmod(&next, Mode::RWXU).unwrap();
            }
            fd = next;
        }
        remove(&root, p("d")).unwrap();
        assert!(inventory(directory.path()).is_empty());
    }
}

#[test]
fn a_tree_is_removed_however_wide() {
    for remove in REMOVALS {
        let (directory, root) = sandbox();
        for d in 0..10 {
            let below = root.create_directories(p(&format!("t/{d}"))).unwrap();
            for f in 0..600 {
                File::create(below.path().join(f.to_string())).unwrap();
            }
        }
        remove(&root, p("t")).unwrap();
        assert!(inventory(directory.path()).is_empty());
    }
}

const MADE: &str = "# seedbed made this directory and removes it with the last session\n*\n";
const ADDED: &str = "# seedbed added this file and removes it with the last session\n*\n";

#[test]
fn hidden_directory_leaves_no_trace() {
    let (directory, root) = sandbox();
    root.create_hidden(p("o/w/x")).unwrap();
    root.create_hidden(p("o/locks")).unwrap();
    root.create_hidden(p("o/locks")).unwrap();
    let made = format!("o/.gitignore={MADE}");
    assert_eq!(inventory(directory.path()), ["o/", &made, "o/locks/", "o/w/", "o/w/x/"]);

    root.replace(p("o/locks/f"), b"").unwrap();
    root.remove_hidden(p("o/w/x")).unwrap();
    root.remove_hidden(p("o/locks")).unwrap();
    assert_eq!(inventory(directory.path()), ["o/", &made, "o/locks/", "o/locks/f="]);
    root.remove_all(p("o/locks")).unwrap();
    root.remove_hidden(p("o/locks")).unwrap();
    assert!(inventory(directory.path()).is_empty(), "it is enough that something above is left");
    root.remove_hidden(p("o/locks")).unwrap();
}

#[test]
fn a_mark_is_known_by_its_whole_text() {
    let (directory, root) = sandbox();
    root.create_directories(p("old")).unwrap();
    let path = directory.path().join("old/.gitignore");
    let check = |text: &str, expected: bool| {
        root.replace(p("old/.gitignore"), text.as_bytes()).unwrap();
        assert_eq!(hidden::is_mark(&path), expected, "{text}");
    };
    check(MADE, true);
    check(ADDED, true);
    check(&format!("{ADDED}!keep\n"), false);
    check("*\n", false);
}

#[test]
fn earlier_files_stay() {
    let (directory, root) = sandbox();
    let check = |expected: &[&str]| assert_eq!(inventory(directory.path()), expected);
    root.create_directories(p("old")).unwrap();
    root.create_hidden(p("old")).unwrap();
    check(&["old/", &format!("old/.gitignore={ADDED}")]);
    root.create_hidden(p("old/sub")).unwrap();
    root.remove_hidden(p("old/sub")).unwrap();
    check(&["old/"]);
    root.create_hidden(p("old/sub/x")).unwrap();
    check(&["old/", "old/sub/", &format!("old/sub/.gitignore={MADE}"), "old/sub/x/"]);
    root.remove_hidden(p("old/sub/x")).unwrap();
    check(&["old/"]);
    root.remove_hidden(p("old")).unwrap();
    check(&["old/"]);

    // A `.gitignore` of the user, a marker that the user has changed, and a file beside a marker.
    root.replace(p("old/.gitignore"), b"*.log\n").unwrap();
    root.create_hidden(p("old")).unwrap();
    root.remove_hidden(p("old")).unwrap();
    check(&["old/", "old/.gitignore=*.log\n"]);
    let changed = format!("{MADE}!keep\n");
    root.replace(p("old/.gitignore"), changed.as_bytes()).unwrap();
    root.remove_hidden(p("old")).unwrap();
    check(&["old/", &format!("old/.gitignore={changed}")]);
    root.replace(p("old/.gitignore"), ADDED.as_bytes()).unwrap();
    root.replace(p("old/f"), b"").unwrap();
    root.remove_hidden(p("old")).unwrap();
    check(&["old/", &format!("old/.gitignore={ADDED}"), "old/f="]);
}

/// No lock excludes a process that uses another root; at worst an empty directory is left.
#[test]
fn hiding_from_two_roots_fails_for_neither() {
    let (_directory, root) = sandbox();
    let within = root.create_directories(p("in")).unwrap();
    thread::scope(|scope| {
        for (root, path) in [(&root, "in/o"), (&within, "o"), (&root, "in/o/w"), (&within, "o/x")] {
            scope.spawn(move || {
                for _ in 0..50 {
                    root.create_hidden(p(path)).unwrap();
                    root.remove_hidden(p(path)).unwrap();
                }
            });
        }
    });
}

#[test]
fn hiding_survives_its_opposite() {
    let (directory, root) = sandbox();
    thread::scope(|scope| {
        for worker in 0..4 {
            let root = &root;
            scope.spawn(move || {
                let path = format!("o/w{worker}");
                for _ in 0..200 {
                    root.create_hidden(p(&path)).unwrap();
                    root.remove_hidden(p(&path)).unwrap();
                }
            });
        }
    });
    root.create_hidden(p("o")).unwrap();
    root.remove_hidden(p("o")).unwrap();
    let left = inventory(directory.path());
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn temporaries_of_the_dead_are_swept_and_nothing_else() {
    let (directory, root) = sandbox();
    let held = root.write_temporary(OsStr::new("held"), b"x", None).unwrap();
    let hidden = root.make_temporary_directory(OsStr::new("held")).unwrap();
    for name in [".a.seedbed-1-2", "..seedbed-1-2", ".a.b.seedbed-10-0"] {
        fs::write(directory.path().join(name), "x").unwrap();
    }
    fs::create_dir(directory.path().join(".d.seedbed-3-4")).unwrap();
    fs::write(directory.path().join(".d.seedbed-3-4/.gitignore"), "*").unwrap();
    let others = [".a.seedbed-1", ".a.seedbed-1-x", "a.seedbed-1-2", ".seedbed-1-2", ".a.seedbed-1-2-3"];
    for name in others {
        fs::write(directory.path().join(name), "x").unwrap();
    }
    std::os::unix::fs::symlink("a", directory.path().join(".l.seedbed-1-2")).unwrap();
    root.sweep().unwrap();
    let mut left: BTreeSet<_> = others.map(OsString::from).into();
    left.extend([".l.seedbed-1-2".into(), held.name.clone(), hidden.name.clone()]);
    assert_eq!(root.names().unwrap(), left);
    drop((held, hidden));
    root.sweep().unwrap();
    assert_eq!(root.names().unwrap().len(), others.len() + 1);
}

#[test]
fn private_directory_is_the_users_own() {
    let (directory, _) = sandbox();
    let path = directory.path().join("state");
    Root::create_private(&path).unwrap();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(matches!(Root::create_private(&link), Err(Error::Link { .. })));
    for (mode, private) in [(0o755, true), (0o775, false), (0o757, false), (0o700, true)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        match Root::create_private(&path) {
            Ok(_) => assert!(private, "{mode:o}"),
            Err(error) => assert!(!private && matches!(error, Error::Shared { .. }), "{mode:o}: {error}"),
        }
    }
}

/// A disk image of some gigabytes only needs space for its data.
#[test]
fn holes_are_copied_as_holes() {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};
    let directory = tempfile::tempdir().unwrap();
    let data = [(0, "start"), (5 << 20, "middle"), ((40 << 20) - 3, "end")];
    for (name, parts, size) in
        [("whole", &data[..], 40 << 20), ("ends", &data[..2], 64 << 20), ("none", &[], 9 << 20)]
    {
        let path = directory.path().join(name);
        let from = fs::File::create_new(&path).unwrap();
        for (at, text) in parts {
            from.write_all_at(text.as_bytes(), *at).unwrap();
        }
        from.set_len(size).unwrap();
        let from = fs::File::open(&path).unwrap();
        let copy = directory.path().join("copy");
        let mut to = fs::File::create(&copy).unwrap();
        super::copies::copy_large(&from, &mut to, size).unwrap();
        assert!(fs::read(&path).unwrap() == fs::read(&copy).unwrap(), "{name}");
        let taken = fs::metadata(&copy).unwrap().blocks() * 512;
        assert!(taken < 1 << 20, "{name} takes {taken} bytes");
    }
}
