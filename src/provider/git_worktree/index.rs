//! Reads and writes Git's index (`gitformat-index`) to the extent that a copied worktree needs. This is the list of
//! files, and the same index with the stat data of the copies.
//!
//! The stat fields of an entry have a fixed length, so that those of a copy replace those of the source in place. An
//! index is not supported if a part of it is unknown, or if it shows that the worktree differs from its commit.

use std::ops::Range;

use rustix::fs::Stat;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::name::hex;

/// Size limit of an index, in bytes, enough for some ten million files. The index is in memory as a whole.
pub(super) const MAX: usize = 1 << 30;

/// Length of `DIRC`, the version and the number of entries: four bytes each.
const HEADER: usize = 12;

/// Length of the ten numbers that begin an entry, four bytes each: ctime and mtime in seconds and nanoseconds, device,
/// inode, mode, uid, gid, size.
const STAT: usize = 40;

/// Offset of the seconds of the mtime among the ten numbers.
const MODIFIED: usize = 8;

/// Offset of the mode among the ten numbers.
const MODE: usize = 24;

/// Values that Git writes into the mode of an entry.
const MODE_FILE: u32 = 0o100_644;
const MODE_EXECUTABLE: u32 = 0o100_755;
const MODE_LINK: u32 = 0o120_000;
const MODE_SUBMODULE: u32 = 0o160_000;
const MODE_DIRECTORY: u32 = 0o040_000;

/// Bits of an entry's flags, and of the extended flags.
const EXTENDED: u16 = 0x4000;
const STAGE: u16 = 0x3000;
const SKIP_WORKTREE: u16 = 0x4000;
const INTENT_TO_ADD: u16 = 0x2000;

/// Mask of the name's length in the flags, and its value for all longer names.
const NAME_MAX: u16 = 0x0fff;

/// Extensions that are valid for any worktree with the same entries: trees already hashed, conflicts resolved before,
/// and the presence of directories among the entries.
const KEPT: [&[u8; 4]; 3] = [b"TREE", b"REUC", b"sdir"];

/// Extensions with the positions of entries and extensions in the file. They are valid as long as nothing is left out.
const PLACES: [&[u8; 4]; 2] = [b"EOIE", b"IEOT"];

/// A supported index.
#[derive(Debug)]
pub(super) struct Index {
    /// All bytes except the checksum and the extensions that are not valid for another worktree.
    bytes: Vec<u8>,
    names: Vec<u8>,
    entries: Vec<Entry>,
    /// Length of an object id, in bytes.
    id: usize,
    /// Content of the extension with the trees already hashed.
    tree: Option<Vec<u8>>,
    checksum: Checksum,
}

/// A path that the worktree has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Type of the path.
    pub(super) what: EntryType,
    /// Offset of the stat fields.
    at: usize,
    name: Range<usize>,
}

/// Type of an entry in the worktree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryType {
    /// A file, executable or not.
    File,
    /// A symbolic link; a file if `core.symlinks` is off.
    Link,
    /// A submodule: a directory, which is empty until its own repository is cloned.
    Submodule,
}

/// Checksum at the end of an index.
#[derive(Clone, Copy, Debug)]
enum Checksum {
    Sha1,
    Sha256,
    /// Zeros of this length: `index.skipHash`.
    Skipped(usize),
}

impl Index {
    /// Reads an index of a repository whose object ids have `id` bytes; `None` if any part of the index is not
    /// supported.
    pub(super) fn read(bytes: &[u8], id: usize) -> Option<Self> {
        let (content, checksum) = bytes.split_at_checked(bytes.len().checked_sub(id)?)?;
        let checksum = Checksum::verified(content, checksum)?;
        let version = number(content, 4)?;
        if content.get(..4)? != b"DIRC" || !(2..=4).contains(&version) {
            return None;
        }
        let count = usize::try_from(number(content, 8)?).ok()?;
        let mut reader = Reader { content, version, id, at: HEADER, names: Vec::new(), last: 0..0 };
        // A wrong count must not cost memory.
        let mut entries = Vec::with_capacity(count.min(content.len() / (STAT + id)));
        for _ in 0..count {
            reader.entry(&mut entries)?;
        }
        let bytes = content[..reader.at].to_vec();
        let mut index = Self { bytes, names: reader.names, entries, id, tree: None, checksum };
        index.keep_extensions(&content[reader.at..])?;
        Some(index)
    }

    /// Returns the entries of the worktree, in the order of the names' bytes. Files that a sparse checkout leaves out
    /// are not included.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns an entry's path, its parts separated by slashes: plain names, never `.git`.
    pub(super) fn name(&self, entry: &Entry) -> &[u8] {
        &self.names[entry.name.clone()]
    }

    /// Returns the earliest time of modification that Git saw, in seconds; `None` if it saw none.
    pub(super) fn oldest(&self) -> Option<i64> {
        let times = self.entries.iter().filter_map(|entry| number(&self.bytes, entry.at + MODIFIED));
        times.filter(|time| *time != 0).min().map(i64::from)
    }

    /// Returns whether `stat` belongs to the file that Git saw when it wrote the index.
    pub(super) fn is_of(&self, entry: &Entry, stat: &Stat) -> bool {
        let field = &self.bytes[entry.at..entry.at + STAT];
        let own = fields(stat);
        // Git's mode contains less than the file's, and a size that is a multiple of 4 GiB is not written as zero.
        let size = number(field, 36);
        field[..24] == own[..24]
            && field[28..36] == own[28..36]
            && (size == Some(low(stat.st_size)) || (stat.st_size > 0 && size == Some(1 << 31)))
    }

    /// Returns whether these bytes are the blob of an entry: the content of a file as in the repository, or the target
    /// of a link.
    pub(super) fn is_blob(&self, entry: &Entry, content: &[u8]) -> bool {
        self.object_id("blob", content) == self.id(entry)
    }

    /// Returns the id of an object of this kind, in the format of the index's repository.
    pub(super) fn object_id(&self, kind: &str, content: &[u8]) -> Vec<u8> {
        object_id(self.id, kind, content)
    }

    /// Returns the id of an entry's blob, or of a submodule's commit.
    pub(super) fn id(&self, entry: &Entry) -> &[u8] {
        &self.bytes[entry.at + STAT..entry.at + STAT + self.id]
    }

    /// Returns an entry's mode, as it is in its tree.
    pub(super) fn mode(&self, entry: &Entry) -> u32 {
        number(&self.bytes, entry.at + MODE).unwrap_or_default()
    }

    /// Returns whether an entry is an executable file.
    pub(super) fn is_executable(&self, entry: &Entry) -> bool {
        self.mode(entry) == MODE_EXECUTABLE
    }

    /// Returns the id of the tree of all entries, in hexadecimal; `None` if the index does not contain it, as after any
    /// change.
    pub(super) fn root_tree(&self) -> Option<String> {
        // A zero for the empty path of the top, the number of entries, the number of subtrees, and the id.
        let tree = self.tree.as_ref()?.strip_prefix(b"\0")?;
        let end = tree.iter().position(|byte| *byte == b'\n')?;
        let (count, _) = std::str::from_utf8(&tree[..end]).ok()?.split_once(' ')?;
        // -1 means that the tree has changed since.
        count.parse::<u32>().ok()?;
        Some(hex(tree.get(end + 1..)?.get(..self.id)?))
    }

    /// Returns whether another index has the same entries at the same positions. Then a value for one entry of the
    /// other index is valid for the same entry here.
    pub(super) fn has_same_entries(&self, other: &Self) -> bool {
        self.entries == other.entries && self.names == other.names
    }

    /// Returns the index that `git read-tree` writes of the same entries, without stat data. Flags and extensions are
    /// dropped, except for `trees`, which are the trees of the entries. Returns `None` if Git writes another version.
    pub(super) fn without_stat_data(&self, trees: Vec<u8>) -> Option<Self> {
        if number(&self.bytes, 4) != Some(2) {
            return None;
        }
        let mut bytes = self.bytes[..8].to_vec();
        bytes.extend(u32::try_from(self.entries.len()).ok()?.to_be_bytes());
        let mut entries = self.entries.clone();
        for (entry, without_stat_data) in self.entries.iter().zip(&mut entries) {
            let (start, name) = (bytes.len(), self.name(entry));
            without_stat_data.at = start;
            bytes.resize(start + STAT, 0);
            bytes[start + MODE..start + MODE + 4].copy_from_slice(&self.mode(entry).to_be_bytes());
            bytes.extend_from_slice(self.id(entry));
            bytes.extend(name_length(name.len()).to_be_bytes());
            bytes.extend_from_slice(name);
            bytes.resize(start + padded(bytes.len() - start), 0);
        }
        bytes.extend_from_slice(b"TREE");
        bytes.extend(u32::try_from(trees.len()).ok()?.to_be_bytes());
        bytes.extend_from_slice(&trees);
        let (names, tree) = (self.names.clone(), Some(trees));
        Some(Self { bytes, names, entries, id: self.id, tree, checksum: self.checksum })
    }

    /// Takes over the stat data of a copy that was made from this index.
    pub(super) fn take_stat_data(&mut self, copy: &CopyIndex) {
        self.bytes.clone_from(&copy.bytes);
    }

    /// Returns the same index for a copy of the worktree, without any stat data of the copy yet.
    pub(super) fn for_copy(&self) -> CopyIndex {
        CopyIndex { bytes: self.bytes.clone(), checksum: self.checksum }
    }

    /// Keeps the extensions that are valid for any worktree of these entries, and drops optional ones; `None` if
    /// another one is required.
    fn keep_extensions(&mut self, extensions: &[u8]) -> Option<()> {
        let mut kept = Vec::new();
        let mut all = true;
        let mut rest = extensions;
        while !rest.is_empty() {
            let length = usize::try_from(number(rest, 4)?).ok()?.checked_add(8)?;
            let (extension, after) = rest.split_at_checked(length)?;
            let signature: &[u8; 4] = extension.first_chunk()?;
            if signature == b"TREE" {
                self.tree = extension.get(8..).map(<[u8]>::to_vec);
            }
            if KEPT.contains(&signature) || PLACES.contains(&signature) {
                kept.push((signature, extension));
            } else if signature[0].is_ascii_uppercase() {
                all = false;
            } else {
                return None;
            }
            rest = after;
        }
        for (signature, extension) in kept {
            if all || !PLACES.contains(&signature) {
                self.bytes.extend_from_slice(extension);
            }
        }
        Some(())
    }
}

/// Returns whether `content` makes the blob of this id, in hexadecimal.
pub(super) fn is_blob_of(id: &str, content: &[u8]) -> bool {
    hex(&object_id(id.len() / 2, "blob", content)) == id
}

/// Returns the id of an object, with the given number of bytes.
fn object_id(bytes: usize, kind: &str, content: &[u8]) -> Vec<u8> {
    let head = format!("{kind} {}\0", content.len());
    if bytes == 32 {
        Sha256::new().chain_update(head).chain_update(content).finalize().to_vec()
    } else {
        Sha1::new().chain_update(head).chain_update(content).finalize().to_vec()
    }
}

/// Index of a copied worktree.
#[derive(Debug)]
pub(super) struct CopyIndex {
    bytes: Vec<u8>,
    checksum: Checksum,
}

impl CopyIndex {
    /// Writes the stat data of an entry's copy. A size that does not fit into four bytes stays that of the source, as
    /// the source's Git wrote it.
    pub(super) fn put(&mut self, entry: &Entry, stat: &Stat) {
        let own = fields(stat);
        let field = &mut self.bytes[entry.at..entry.at + STAT];
        field[..24].copy_from_slice(&own[..24]);
        let end = if u32::try_from(stat.st_size).is_ok() { STAT } else { STAT - 4 };
        field[28..end].copy_from_slice(&own[28..end]);
    }

    /// Returns the bytes of the file, with its checksum.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let checksum = self.checksum.over(&self.bytes);
        self.bytes.extend_from_slice(&checksum);
        self.bytes
    }
}

impl Checksum {
    /// Returns the type of the checksum at the end of an index; `None` if the checksum is wrong.
    fn verified(content: &[u8], written: &[u8]) -> Option<Self> {
        if written.iter().all(|byte| *byte == 0) {
            return Some(Self::Skipped(written.len()));
        }
        let checksum = if written.len() == 32 { Self::Sha256 } else { Self::Sha1 };
        (checksum.over(content) == written).then_some(checksum)
    }

    fn over(self, content: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha1 => Sha1::digest(content).to_vec(),
            Self::Sha256 => Sha256::digest(content).to_vec(),
            Self::Skipped(length) => vec![0; length],
        }
    }
}

/// Reads the entries one after another.
struct Reader<'b> {
    content: &'b [u8],
    version: u32,
    id: usize,
    at: usize,
    /// All names, one after another: a file of version 4 does not contain complete names.
    names: Vec<u8>,
    last: Range<usize>,
}

impl Reader<'_> {
    /// Reads the next entry, and adds it to `entries` if the worktree has it; `None` if the entry is not supported.
    fn entry(&mut self, entries: &mut Vec<Entry>) -> Option<()> {
        let at = self.at;
        let mode = number(self.content, at + MODE)?;
        let mut head = STAT + self.id;
        let flags = short(self.content, at + head)?;
        head += 2;
        let mut extended = 0;
        if flags & EXTENDED != 0 {
            if self.version < 3 {
                return None;
            }
            extended = short(self.content, at + head)?;
            head += 2;
        }
        let skipped = extended & SKIP_WORKTREE != 0;
        if flags & STAGE != 0 || extended & INTENT_TO_ADD != 0 {
            return None;
        }
        let name = self.name(at, head)?;
        // Git goes by the length that the flags give, not by the NUL that ends the name.
        if flags & NAME_MAX != name_length(name.len()) {
            return None;
        }
        let what = match mode {
            MODE_FILE | MODE_EXECUTABLE => EntryType::File,
            MODE_LINK => EntryType::Link,
            MODE_SUBMODULE => EntryType::Submodule,
            // A directory of a sparse index, of which nothing is checked out.
            MODE_DIRECTORY if skipped && self.names.ends_with(b"/") => return Some(()),
            _ => return None,
        };
        if skipped {
            return Some(());
        }
        if !is_plain(&self.names[name.clone()], what) {
            return None;
        }
        entries.push(Entry { what, at, name });
        Some(())
    }

    /// Reads the name of the entry at `at`, whose name begins after `head` bytes, and moves to the next entry.
    fn name(&mut self, at: usize, head: usize) -> Option<Range<usize>> {
        let start = self.names.len();
        let mut from = at + head;
        if self.version == 4 {
            let removed = varint(self.content, &mut from)?;
            let kept = self.last.len().checked_sub(removed)?;
            self.names.extend_from_within(self.last.start..self.last.start + kept);
        }
        let rest = self.content.get(from..)?;
        let length = rest.iter().position(|byte| *byte == 0)?;
        self.names.extend_from_slice(&rest[..length]);
        self.at = if self.version == 4 { from + length + 1 } else { at + padded(head + length) };
        let name = start..self.names.len();
        // Names are sorted and unique, so that the files of one directory are contiguous.
        let is_first = self.last == (0..0);
        if self.at > self.content.len()
            || (!is_first && self.names[self.last.clone()] >= self.names[name.clone()])
        {
            return None;
        }
        self.last = name.clone();
        Some(name)
    }
}

/// Returns the length of a name as flags give it.
fn name_length(bytes: usize) -> u16 {
    u16::try_from(bytes).map_or(NAME_MAX, |length| length.min(NAME_MAX))
}

/// Returns the length of an entry with the one to eight zeros that end it, up to a multiple of eight.
fn padded(length: usize) -> usize {
    (length + 8) & !7
}

/// Returns whether Git certainly checks a path out, even with protection of other systems enabled. No part leads
/// elsewhere, or is another name of `.git` or of a link `.gitmodules` (`core.protectNTFS`, `core.protectHFS`).
fn is_plain(path: &[u8], what: EntryType) -> bool {
    // Other systems separate paths at backslashes too.
    path.split(|byte| *byte == b'/').all(|part| !part.is_empty() && part != b"." && part != b"..")
        && !path.split(|byte| matches!(byte, b'/' | b'\\')).any(|part| may_be_of_git(part, what))
}

/// Returns whether some file system treats a name as one of Git's own. Such names have letters of either case, ignored
/// characters, short names (`GIT~1`), streams (`.git:x`), or spaces and periods at the end.
fn may_be_of_git(name: &[u8], what: EntryType) -> bool {
    let letters = name.iter().filter(|byte| byte.is_ascii()).map(u8::to_ascii_lowercase);
    let after = |start: &str| {
        let mut rest = letters.clone();
        start.bytes().all(|byte| rest.next() == Some(byte)).then_some(rest)
    };
    let is_git = [".git", "git~1"].into_iter().filter_map(after).any(|rest| {
        let mut ends = rest.take_while(|byte| *byte != b':');
        ends.all(|byte| matches!(byte, b' ' | b'.'))
    });
    is_git || (what == EntryType::Link && (after(".gitmodules").is_some() || name.contains(&b'~')))
}

/// Returns the stat data as Git writes it for a file: the lower four bytes of each number, independent of the number's
/// type in Rust.
fn fields(stat: &Stat) -> [u8; STAT] {
    #[expect(
        clippy::unnecessary_cast,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the types differ between systems, and git keeps four bytes of each"
    )]
    let numbers = [
        stat.st_ctime as u32,
        stat.st_ctime_nsec as u32,
        stat.st_mtime as u32,
        stat.st_mtime_nsec as u32,
        stat.st_dev as u32,
        stat.st_ino as u32,
        stat.st_mode as u32,
        stat.st_uid as u32,
        stat.st_gid as u32,
        low(stat.st_size),
    ];
    let mut fields = [0; STAT];
    for (field, number) in fields.chunks_exact_mut(4).zip(numbers) {
        field.copy_from_slice(&number.to_be_bytes());
    }
    fields
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "git keeps four bytes of a size")]
fn low(size: i64) -> u32 {
    size as u32
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Reads a number of version 4, as `OFS_DELTA` writes it: seven bits a byte, the highest first. Each byte that is
/// followed by another adds one.
fn varint(bytes: &[u8], at: &mut usize) -> Option<usize> {
    let mut value = 0_usize;
    loop {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value = value.checked_mul(128)?.checked_add(usize::from(byte & 127))?;
        if byte & 128 == 0 {
            return Some(value);
        }
        value = value.checked_add(1)?;
    }
}

#[cfg(test)]
mod tests;
