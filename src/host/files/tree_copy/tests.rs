#![expect(clippy::disallowed_methods, reason = "tests look at the real thing")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::time::{Duration, UNIX_EPOCH};

use super::*;

/// Sets the time of modification, in seconds.
fn set_time(path: &Path, seconds: u64) {
    fs::File::open(path).unwrap().set_modified(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
}

#[test]
fn tree_is_copied_with_modes_links_and_times() {
    let directory = tempfile::tempdir().unwrap();
    let at = |path: &str| directory.path().join(path);
    for path in ["from/a/b", "from/empty", "one", "two"] {
        fs::create_dir_all(at(path)).unwrap();
    }
    fs::write(at("from/a/b/text"), "text").unwrap();
    fs::write(at("from/a/large"), vec![7; 300 << 10]).unwrap();
    fs::write(at("from/run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(at("from/run"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::hard_link(at("from/run"), at("from/hard")).unwrap();
    symlink("../run", at("from/a/link")).unwrap();
    symlink("/nowhere", at("from/dangling")).unwrap();
    for number in 0..600 {
        fs::write(at(&format!("from/a/{number}")), number.to_string()).unwrap();
    }
    set_time(&at("from/run"), 1_000);
    set_time(&at("from/a/large"), 3_000);
    fs::set_permissions(at("from/a/b"), fs::Permissions::from_mode(0o555)).unwrap();
    let (top, to) = (Root::open(&at("from")).unwrap(), ["one", "two"].map(|to| Root::open(&at(to)).unwrap()));
    let listing = Listing::read(&top).unwrap();
    listing.copy(&top, &to, 2_000, &Cancel::default()).unwrap();
    for copy in ["one", "two"] {
        let at = |path: &str| directory.path().join(copy).join(path);
        assert_eq!(fs::read(at("a/b/text")).unwrap(), b"text");
        assert_eq!(fs::read(at("a/large")).unwrap(), vec![7; 300 << 10]);
        assert_eq!(fs::read_to_string(at("a/599")).unwrap(), "599");
        assert_eq!(fs::read_link(at("a/link")).unwrap(), Path::new("../run"));
        assert_eq!(fs::read_link(at("dangling")).unwrap(), Path::new("/nowhere"));
        assert!(fs::read_dir(at("empty")).unwrap().next().is_none());
        let run = fs::metadata(at("run")).unwrap();
        assert_eq!((run.mode() & 0o777, run.mtime(), run.nlink()), (0o755, 1_000, 1));
        assert_eq!(fs::metadata(at("a/b")).unwrap().mode() & 0o777, 0o555);
        for path in ["a/large", "a/b", "a/1"] {
            assert_eq!(fs::metadata(at(path)).unwrap().mtime(), 2_000, "{path} is not newer");
        }
        let copied = Listing::read(&Root::open(&directory.path().join(copy)).unwrap()).unwrap();
        assert_eq!((copied.files, copied.bytes), (listing.files, listing.bytes));
    }
    assert_eq!(listing.files, 606);
    let mut links = listing.links(&top).unwrap();
    links.sort();
    assert_eq!(links, [("a/link", "../run"), ("dangling", "/nowhere")].map(|(a, b)| (a.into(), b.into())));
    assert!(listing.small_files(10).contains(&PathBuf::from("a/b/text")));
    assert!(!listing.small_files(1 << 10).contains(&PathBuf::from("a/large")));
    // What exists is never overwritten, and the error names the copy.
    assert!(matches!(listing.copy(&top, &to[..1], 0, &Cancel::default()), Err((Some(0), Failure::File(_)))));
}

#[test]
fn copy_ends_when_the_run_is_cancelled() {
    let directory = tempfile::tempdir().unwrap();
    let at = |path: &str| directory.path().join(path);
    fs::create_dir(at("from")).unwrap();
    fs::create_dir(at("to")).unwrap();
    fs::write(at("from/file"), "").unwrap();
    let (top, to) = (Root::open(&at("from")).unwrap(), [Root::open(&at("to")).unwrap()]);
    let cancel = Cancel::default();
    cancel.request();
    let copied = Listing::read(&top).unwrap().copy(&top, &to, 0, &cancel);
    assert!(matches!(copied, Err((None, Failure::Cancelled))));
}
