#![expect(clippy::disallowed_methods, reason = "has git write indexes, and reads them")]

use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

/// An index that Git wrote, of a given object format and version.
struct Written {
    bytes: Vec<u8>,
    names: Vec<Vec<u8>>,
    id: usize,
}

fn git(directory: &Path, args: &[&str], input: &[u8]) -> Vec<u8> {
    use std::io::Write as _;

    let mut child = Command::new("git")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", directory)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .current_dir(directory)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "git {args:?}");
    output.stdout
}

/// Makes Git write an index of these paths, all of the empty blob.
fn written(format: &str, config: &[&str], names: &[Vec<u8>]) -> Written {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    git(directory, &["init", "-q", &format!("--object-format={format}")], b"");
    let blob = git(directory, &["hash-object", "-w", "--stdin"], b"");
    let blob = String::from_utf8(blob.trim_ascii_end().to_vec()).unwrap();
    let mut input = Vec::new();
    for name in names {
        input.extend_from_slice(format!("100644 {blob}\t").as_bytes());
        input.extend_from_slice(name);
        input.push(0);
    }
    let update = [config, &["update-index", "--add", "-z", "--index-info"]].concat();
    git(directory, &update, &input);
    let listed = git(directory, &["ls-files", "-z"], b"");
    Written {
        bytes: std::fs::read(directory.join(".git/index")).unwrap(),
        names: listed.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect(),
        id: blob.len() / 2,
    }
}

#[test]
fn path_that_git_refuses_is_not_plain() {
    let directory = tempfile::tempdir().unwrap();
    git(directory.path(), &["init", "-q"], b"");
    let blob = git(directory.path(), &["hash-object", "-w", "--stdin"], b"");
    let blob = std::str::from_utf8(blob.trim_ascii_end()).unwrap();
    let is_refused = |mode: &str, name: &str| {
        let added = Command::new("git")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .current_dir(directory.path())
            .args(["-c", "core.protectHFS=true", "update-index", "--add", "--cacheinfo"])
            .args([mode, blob, name])
            .output()
            .unwrap();
        !added.status.success()
    };
    for name in [
        ".git",
        "a/.GIT/x",
        "git~1",
        "a/GIT~1/x",
        ".git ",
        ".git. ./x",
        ".git:x",
        ".git::$INDEX_ALLOCATION/x",
        "a\\.git\\x",
        ".git\\x",
        ".g\u{200c}it/x",
        "../x",
        "a/./x",
    ] {
        assert!(is_refused("100644", name), "{name:?}");
        assert!(!is_plain(name.as_bytes(), EntryType::File), "{name:?}");
    }
    for name in
        [".gitmodules", "a/.GITMODULES", "gitmod~1", "GI7EBA~1", ".gitmodules. ", ".git\u{200d}modules"]
    {
        assert!(is_refused("120000", name), "{name:?}");
        assert!(!is_plain(name.as_bytes(), EntryType::Link), "{name:?}");
    }
    for name in
        [".gitmodules", ".gitignore", ".github/x", ".git.x", "x.git", "git~2", "gitmod~1", "a\\b", "ä/b~"]
    {
        assert!(!is_refused("100644", name), "{name:?}");
        assert!(is_plain(name.as_bytes(), EntryType::File), "{name:?}");
    }
}

fn names() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let part = proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'.'), Just(b'-'), 1..=255_u8], 1..12);
    let part = part.prop_map(|mut part| {
        part.retain(|byte| *byte != b'/');
        // The first letter keeps directories and files apart, because no other part begins with it.
        part.insert(0, b'Z');
        part
    });
    let path = (proptest::collection::vec(part.clone(), 0..4), part).prop_map(|(above, mut last)| {
        last[0] = b'Y';
        above.into_iter().chain([last]).collect::<Vec<_>>().join(&b'/')
    });
    proptest::collection::vec(path, 1..40)
}

fn version() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("index.version=2"), Just("index.version=4")]
}

/// Appends a valid checksum to changed content.
fn sealed(content: &[u8], id: usize) -> Vec<u8> {
    let checksum = if id == 32 { Checksum::Sha256 } else { Checksum::Sha1 };
    [content, &checksum.over(content)].concat()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn index_of_git_is_read_and_written_unchanged(
        names in names(),
        version in version(),
        format in prop_oneof![Just("sha1"), Just("sha256")],
        skip in any::<bool>(),
    ) {
        let skip = format!("index.skipHash={skip}");
        let written = written(format, &["-c", version, "-c", &skip], &names);
        let index = Index::read(&written.bytes, written.id).expect("git wrote it");
        let read: Vec<_> = index.entries().iter().map(|entry| index.name(entry).to_vec()).collect();
        prop_assert_eq!(&read, &written.names);
        prop_assert_eq!(index.for_copy().finish(), written.bytes);
    }

    #[test]
    fn tampered_index_never_leads_out_or_panics(
        names in names(),
        version in version(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let written = written("sha1", &["-c", version], &names);
        let mut content = written.bytes[..written.bytes.len() - written.id].to_vec();
        for (at, byte) in changes {
            let at = at.index(content.len());
            content[at] = byte;
        }
        if let Some(index) = Index::read(&sealed(&content, written.id), written.id) {
            let mut before: Option<&[u8]> = None;
            for entry in index.entries() {
                let name = index.name(entry);
                prop_assert!(is_plain(name, entry.what));
                prop_assert!(before.is_none_or(|before| before < name));
                before = Some(name);
            }
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), id in prop_oneof![Just(20_usize), Just(32)]) {
        prop_assert!(Index::read(&bytes, id).is_none());
        let content = [b"DIRC\0\0\0\x02\0\0\0\x01".as_slice(), &bytes].concat();
        let _ = Index::read(&sealed(&content, id), id);
    }
}

/// Reads an index with one entry of version 2, and with `after` behind the entries.
fn index_of(name: &[u8], mode: u32, flags: u16, after: &[u8]) -> Option<Index> {
    let mut content = b"DIRC\0\0\0\x02\0\0\0\x01".to_vec();
    let mut entry = vec![0; STAT + 20];
    entry[24..28].copy_from_slice(&mode.to_be_bytes());
    entry.extend_from_slice(&(flags | u16::try_from(name.len()).unwrap()).to_be_bytes());
    entry.extend_from_slice(name);
    entry.resize((entry.len() + 8) & !7, 0);
    content.extend_from_slice(&entry);
    content.extend_from_slice(after);
    Index::read(&sealed(&content, 20), 20)
}

#[test]
fn names_that_lead_elsewhere_are_not_understood() {
    assert!(index_of(b"a/b", MODE_FILE, 0, b"").is_some());
    for name in
        ["", "/a", "a/", "a//b", "..", "../a", "a/../b", "./a", ".git/config", "a/.GIT/config", ".git"]
    {
        assert!(index_of(name.as_bytes(), MODE_FILE, 0, b"").is_none(), "{name:?}");
    }
}

#[test]
fn only_an_index_of_a_checkout_is_accepted() {
    for mode in [MODE_FILE, MODE_EXECUTABLE, MODE_LINK, MODE_SUBMODULE] {
        assert!(index_of(b"a", mode, 0, b"").is_some());
    }
    for (mode, flags) in
        [(0o100_600, 0), (MODE_DIRECTORY, 0), (0, 0), (MODE_FILE, 0x1000), (MODE_FILE, EXTENDED)]
    {
        assert!(index_of(b"a", mode, flags, b"").is_none(), "{mode:o} {flags:x}");
    }
}

#[test]
fn an_index_whose_flags_give_another_length_is_not_understood() {
    // Git reads the first byte of the name only, and looks for the next entry elsewhere.
    let mut bytes = written("sha1", &["-c", "index.version=4"], &[b"ab".to_vec(), b"b".to_vec()]).bytes;
    let flags = HEADER + STAT + 20;
    assert_eq!(bytes[flags..flags + 2], [0, 2]);
    bytes[flags + 1] = 1;
    assert!(Index::read(&sealed(&bytes[..bytes.len() - 20], 20), 20).is_none());
}

#[test]
fn extensions_are_kept_dropped_or_not_understood() {
    let extension = |name: &[u8; 4], content: &[u8]| {
        [name.as_slice(), &u32::try_from(content.len()).unwrap().to_be_bytes(), content].concat()
    };
    let left = |after: &[Vec<u8>]| {
        let index = index_of(b"a", MODE_FILE, 0, &after.concat())?;
        Some(index.bytes[76..].to_vec())
    };
    let tree = extension(b"TREE", b"abc");
    let places = extension(b"EOIE", &[1; 24]);
    assert_eq!(left(&[tree.clone(), places.clone()]).unwrap(), [tree.clone(), places.clone()].concat());
    for dropped in [b"UNTR", b"FSMN", b"ABCD"] {
        let dropped = extension(dropped, b"of the source alone");
        assert_eq!(left(&[tree.clone(), dropped, places.clone()]).unwrap(), tree);
    }
    for unknown in [b"link", b"abcd"] {
        assert_eq!(left(&[extension(unknown, b"")]), None);
    }
    assert_eq!(left(&[b"TREE\0\0\0\x09abc".to_vec()]), None, "longer than the file");
    assert_eq!(left(&[b"TRE".to_vec()]), None);
}

#[test]
fn a_wrong_checksum_is_not_understood() {
    let written = written("sha1", &[], &[b"a".to_vec()]);
    let mut bytes = written.bytes;
    assert!(Index::read(&bytes, 20).is_some());
    assert!(Index::read(&bytes, 32).is_none());
    bytes[20] ^= 1;
    assert!(Index::read(&bytes, 20).is_none());
}

/// A repository whose index is replaced, to ask git how it reads one.
struct Reference(tempfile::TempDir);

impl Reference {
    fn new(format: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        git(directory.path(), &["init", "-q", &format!("--object-format={format}")], b"");
        Self(directory)
    }

    /// Returns the lines of `git ls-files` for the files of an index that are checked out.
    fn read(&self, index: &[u8]) -> Vec<Vec<u8>> {
        std::fs::write(self.0.path().join(".git/index"), index).unwrap();
        let listed = git(self.0.path(), &["ls-files", "--stage", "-t", "-z"], b"");
        let lines = listed.split(|byte| *byte == 0).filter(|line| !line.is_empty());
        lines.filter_map(|line| line.strip_prefix(b"H ")).map(<[u8]>::to_vec).collect()
    }
}

/// Returns the entries of an index as `git ls-files --stage` writes them.
fn lines(index: &Index) -> Vec<Vec<u8>> {
    let line = |entry: &Entry| {
        let head = format!("{:06o} {} 0\t", index.mode(entry), hex(index.id(entry)));
        [head.as_bytes(), index.name(entry)].concat()
    };
    index.entries().iter().map(line).collect()
}

#[test]
fn fuzz_indexes() {
    let names = [&b"a"[..], b"b/c", b"b/d e", "b/\u{fc}".as_bytes(), &[b'x'; 300]].map(<[u8]>::to_vec);
    let mut corpus = Vec::new();
    for (format, version) in [("sha1", "2"), ("sha1", "4"), ("sha256", "2"), ("sha256", "4")] {
        let version = format!("index.version={version}");
        let Written { bytes, id, .. } = written(format, &["-c", &version], &names);
        corpus.push((bytes[..bytes.len() - id].to_vec(), id));
    }
    let words = ["TREE", "EOIE", "IEOT", "REUC", "sdir", "link", ".git", "../", "DIRC", "\0\0\0\u{1}"];
    let mutate = |random: &mut crate::fuzz::Random| {
        let (_, id) = *random.pick(&corpus);
        let of_format = corpus.iter().filter(|(_, other)| *other == id);
        let contents: Vec<_> = of_format.map(|(content, _)| content.clone()).collect();
        let mut content = crate::fuzz::bytes(random, &contents, &words);
        let checksum = match (random.below(16), id) {
            (0, _) => Checksum::Skipped(id),
            (_, 32) => Checksum::Sha256,
            _ => Checksum::Sha1,
        };
        content.extend(checksum.over(&content));
        content
    };
    let references = [(20, Reference::new("sha1")), (32, Reference::new("sha256"))];
    crate::fuzz::run("index", mutate, |input| {
        let mut is_accepted = false;
        for (id, reference) in &references {
            let Some(index) = Index::read(input, *id) else { continue };
            is_accepted = true;
            index.root_tree();
            let lines = lines(&index);
            assert!(reference.read(input) == lines, "git reads another index");
            let copy = index.for_copy().finish();
            let again = Index::read(&copy, *id).expect("what is written can be read");
            assert!(again.has_same_entries(&index));
            assert!(reference.read(&copy) == lines, "git reads another index of the copy");
            for entry in index.entries() {
                let name = String::from_utf8_lossy(index.name(entry));
                let is_inside = name.split('/').all(|part| !["", ".", "..", ".git"].contains(&part));
                assert!(is_inside, "{name}");
            }
        }
        is_accepted
    });
}
