//! Checks copies of generated repositories, with changes of their work trees at the same time.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use proptest::prelude::*;

use super::super::Lab;
use super::rewrite;

/// A file or link of a generated repository.
#[derive(Clone, Debug)]
enum Made {
    File { text: Vec<u8>, executable: bool },
    Link(Vec<u8>),
}

fn trees() -> impl Strategy<Value = BTreeMap<Vec<u8>, Made>> {
    let odd = prop_oneof![
        Just(b"a".to_vec()),
        Just(b"A".to_vec()),
        Just("\u{e4}\u{fc}".as_bytes().to_vec()),
        Just(b"\xff\xfe".to_vec()),
        Just(b"new\nline".to_vec()),
        Just(b" \t\"'\\*?[".to_vec()),
        Just(vec![b'x'; 200]),
        Just(b"-rf".to_vec()),
    ];
    let part = |kind: &'static [u8]| odd.clone().prop_map(move |part| [kind, &part].concat());
    let endings =
        prop_oneof![Just(".txt"), Just(".crlf"), Just(".id"), Just(".utf16"), Just(".up"), Just("")];
    let path = (proptest::collection::vec(part(b"d"), 0..5), part(b"f"), endings).prop_map(
        |(above, last, ending)| {
            let last = [&last[..], ending.as_bytes()].concat();
            above.into_iter().chain([last]).collect::<Vec<_>>().join(&b'/')
        },
    );
    let text = prop_oneof![
        Just(Vec::new()),
        Just(b"one\ntwo\n".to_vec()),
        Just(b"$Id$\n".to_vec()),
        Just(vec![b'z'; 64 * 1024]),
        Just(vec![b'z'; 64 * 1024 + 1]),
        Just(vec![b'y'; 300_000]),
    ];
    let made = prop_oneof![
        4 => (text, any::<bool>()).prop_map(|(text, executable)| Made::File { text, executable }),
        1 => prop_oneof![Just(b"a".to_vec()), Just(b"../../nowhere".to_vec()), Just(b"/etc".to_vec())].prop_map(Made::Link),
    ];
    proptest::collection::btree_map(path, made, 1..25)
}

/// Change of a file or link in the work tree.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// Other bytes, with the same length and time.
    Content,
    Removal,
    Directory,
    Link,
    Executable,
}

fn changes() -> impl Strategy<Value = Change> {
    use Change::{Content, Directory, Executable, Link, Removal};

    proptest::sample::select(vec![Content, Removal, Directory, Link, Executable])
}

impl Change {
    fn make(self, path: &Path) {
        // An earlier change may have removed or replaced the file.
        let Ok(found) = fs::symlink_metadata(path) else { return };
        match self {
            Self::Content | Self::Executable if !found.is_file() => {}
            Self::Content => {
                let other: Vec<u8> = fs::read(path).unwrap().iter().map(|byte| byte ^ 1).collect();
                rewrite(path, &other, Some(found.modified().unwrap()));
            }
            Self::Executable => {
                fs::set_permissions(path, fs::Permissions::from_mode(found.mode() ^ 0o111)).unwrap();
            }
            _ if found.is_dir() => {}
            Self::Removal => fs::remove_file(path).unwrap(),
            Self::Directory => {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
            }
            Self::Link => {
                let aside = path.with_file_name("aside");
                fs::rename(path, aside).unwrap();
                symlink("aside", path).unwrap();
            }
        }
    }
}

/// Settings that change a checkout or an index, in any combination.
fn settings() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let all = [
        ("index.version", "4"),
        ("index.skipHash", "true"),
        ("core.untrackedCache", "true"),
        ("core.splitIndex", "true"),
        ("core.fileMode", "false"),
        ("core.symlinks", "false"),
        ("core.autocrlf", "true"),
        ("core.ignoreStat", "true"),
        ("core.checkStat", "minimal"),
        ("index.threads", "2"),
        ("index.sparse", "true"),
        ("feature.manyFiles", "true"),
    ];
    // Git itself does not support a split index that is sparse, and cannot read a split index that it wrote without a
    // checksum.
    let works =
        |settings: &Vec<(&str, &str)>| settings.len() < 2 || !settings.contains(&("core.splitIndex", "true"));
    proptest::sample::subsequence(all.to_vec(), 0..4).prop_filter("git fails", works)
}

const ATTRIBUTES: &str =
    "*.crlf text eol=crlf\n*.id ident\n*.utf16 working-tree-encoding=UTF-16LE text\n*.up filter=up\n";

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_copy_is_what_git_makes(
        tree in trees(),
        settings in settings(),
        sha256 in any::<bool>(),
        sparse in any::<bool>(),
        changed in proptest::collection::vec((any::<proptest::sample::Index>(), changes()), 0..5),
    ) {
        let format = if sha256 { "--object-format=sha256" } else { "--object-format=sha1" };
        let mut lab = Lab::with_init(&[format], &[(".gitattributes", ATTRIBUTES), ("d/in", "in\n"), ("out", "out\n")]).unwrap();
        lab.config(&[("filter.up.clean", "tr A-Z a-z"), ("filter.up.smudge", "tr a-z A-Z")]);
        lab.config(&settings);
        for (name, made) in &tree {
            let path = lab.repo.join(if sparse { "d" } else { "" }).join(OsStr::from_bytes(name));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match made {
                Made::Link(to) => symlink(OsStr::from_bytes(to), path).unwrap(),
                Made::File { text, executable } => {
                    let wide: Vec<u8> = text.iter().flat_map(|byte| [*byte, 0]).collect();
                    fs::write(&path, if name.ends_with(b".utf16") { &wide } else { text }).unwrap();
                    let mode = if *executable { 0o755 } else { 0o644 };
                    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                }
            }
        }
        lab.commit();
        // Later changes in the work tree reach no worktree.
        for (which, change) in &changed {
            let names: Vec<_> = tree.keys().collect();
            let name = OsStr::from_bytes(which.get(&names).as_slice());
            change.make(&lab.repo.join(if sparse { "d" } else { "" }).join(name));
        }
        let mut worktrees: Vec<_> = (0..3).map(|at| lab.worktree(&format!("w{at}"))).collect();
        if sparse {
            for worktree in &mut worktrees {
                worktree.target_path = Some("d".to_owned());
            }
        }
        let failed = lab.populate(&worktrees);
        prop_assert!(failed.is_empty(), "{failed:?}");
        let understood = !settings.contains(&("core.splitIndex", "true"));
        for copy in &worktrees[1..] {
            prop_assert_eq!(lab.is_copied(copy), understood, "{:?}", settings);
        }
        lab.check(&worktrees);
        if understood && !settings.iter().any(|(key, _)| *key == "core.ignoreStat") {
            lab.check_index(&worktrees[1]);
        }
    }
}
