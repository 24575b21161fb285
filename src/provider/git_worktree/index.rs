//! git's index (`gitformat-index`), as far as a copied worktree needs one of its own: which files there are, and the same
//! index with what a file system says of the copies.
//!
//! An entry's fields have one length whatever they say, so that those of a copy are put in where the source's stood.
//! What is not understood, or says that the worktree is not simply what its commit has, is no [`Index`].

use std::ops::Range;

use rustix::fs::Stat;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::name::hex;

/// The most that is read of an index, in bytes: that of some ten million files. It stands in memory as a whole.
pub(super) const MAX: usize = 1 << 30;

/// `DIRC`, the version, the number of entries: four bytes each.
const HEADER: usize = 12;

/// The ten numbers that an entry begins with, four bytes each: ctime and mtime in seconds and nanoseconds, device,
/// inode, mode, uid, gid, size.
const STAT: usize = 40;

/// Where the mode is among them.
const MODE: usize = 24;

/// What git writes into the mode of an entry.
const MODE_FILE: u32 = 0o100_644;
const MODE_EXECUTABLE: u32 = 0o100_755;
const MODE_LINK: u32 = 0o120_000;
const MODE_SUBMODULE: u32 = 0o160_000;
const MODE_DIRECTORY: u32 = 0o040_000;

/// The bits of an entry's flags, and of those that follow them where they are extended.
const EXTENDED: u16 = 0x4000;
const STAGE: u16 = 0x3000;
const SKIP_WORKTREE: u16 = 0x4000;
const INTENT_TO_ADD: u16 = 0x2000;

/// The part of the flags that is the length of the name, and of one that is longer.
const NAME_MAX: u16 = 0x0fff;

/// Extensions that hold of any worktree of the same entries: trees already hashed, conflicts resolved before, and that
/// there are directories among the entries.
const KEPT: [&[u8; 4]; 3] = [b"TREE", b"REUC", b"sdir"];

/// Extensions that say where in the file the entries and extensions are; they hold as long as nothing is left out.
const PLACES: [&[u8; 4]; 2] = [b"EOIE", b"IEOT"];

/// An index that is understood.
#[derive(Debug)]
pub(super) struct Index {
    /// Everything but the checksum and the extensions that do not hold of another worktree.
    bytes: Vec<u8>,
    names: Vec<u8>,
    entries: Vec<Entry>,
    /// How many bytes an object id has.
    id: usize,
    /// What the extension says that holds trees already hashed.
    tree: Option<Vec<u8>>,
    checksum: Checksum,
}

/// A path that the worktree has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// What it is.
    pub(super) what: What,
    /// Where its stat fields are.
    at: usize,
    name: Range<usize>,
}

/// What an entry is in the worktree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A file, executable or not.
    File,
    /// A symbolic link; a file where `core.symlinks` is off.
    Link,
    /// A submodule: a directory, which is empty until its own repository is cloned.
    Submodule,
}

/// What an index ends with.
#[derive(Clone, Copy, Debug)]
enum Checksum {
    Sha1,
    Sha256,
    /// Zeros of this length: `index.skipHash`.
    Skipped(usize),
}

impl Index {
    /// Reads an index of a repository whose object ids have `id` bytes; `None` where anything in it is not understood.
    pub(super) fn read(bytes: &[u8], id: usize) -> Option<Self> {
        let (content, checksum) = bytes.split_at_checked(bytes.len().checked_sub(id)?)?;
        let checksum = Checksum::of(content, checksum)?;
        let version = number(content, 4)?;
        if content.get(..4)? != b"DIRC" || !(2..=4).contains(&version) {
            return None;
        }
        let count = usize::try_from(number(content, 8)?).ok()?;
        let mut reader = Reader { content, version, id, at: HEADER, names: Vec::new(), last: 0..0 };
        // A count that lies must not cost memory.
        let mut entries = Vec::with_capacity(count.min(content.len() / (STAT + id)));
        for _ in 0..count {
            reader.entry(&mut entries)?;
        }
        let bytes = content[..reader.at].to_vec();
        let mut index = Self { bytes, names: reader.names, entries, id, tree: None, checksum };
        index.keep_extensions(&content[reader.at..])?;
        Some(index)
    }

    /// What the worktree has, in the order of the names' bytes. What a sparse checkout leaves out is not there.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// An entry's path, its parts divided by slashes: plain names, never `.git`.
    pub(super) fn name(&self, entry: &Entry) -> &[u8] {
        &self.names[entry.name.clone()]
    }

    /// Tells whether the file that `stat` is of is the one that git saw when it wrote the index.
    pub(super) fn is_of(&self, entry: &Entry, stat: &Stat) -> bool {
        let field = &self.bytes[entry.at..entry.at + STAT];
        let own = fields(stat);
        // git's mode says less than the file's, and a size that is a multiple of 4 GiB is not written as zero.
        let size = number(field, 36);
        field[..24] == own[..24]
            && field[28..36] == own[28..36]
            && (size == Some(low(stat.st_size)) || (stat.st_size > 0 && size == Some(1 << 31)))
    }

    /// Tells whether these bytes are the blob of an entry: that of a file as the repository has it, or where a link leads.
    pub(super) fn is_blob(&self, entry: &Entry, content: &[u8]) -> bool {
        self.object_id("blob", content) == self.id(entry)
    }

    /// The id of the object of this kind, in the repository that the index is of.
    pub(super) fn object_id(&self, kind: &str, content: &[u8]) -> Vec<u8> {
        object_id(self.id, kind, content)
    }

    /// The id of an entry's blob, or of a submodule's commit.
    pub(super) fn id(&self, entry: &Entry) -> &[u8] {
        &self.bytes[entry.at + STAT..entry.at + STAT + self.id]
    }

    /// An entry's mode, as it is in its tree.
    pub(super) fn mode(&self, entry: &Entry) -> u32 {
        number(&self.bytes, entry.at + MODE).unwrap_or_default()
    }

    /// Tells whether an entry is a file that is executable.
    pub(super) fn is_executable(&self, entry: &Entry) -> bool {
        self.mode(entry) == MODE_EXECUTABLE
    }

    /// The tree that the entries are together, in hexadecimal; `None` where the index does not say, as after whatever
    /// changes it.
    pub(super) fn root_tree(&self) -> Option<String> {
        // A zero for the empty path of the top, how many entries it has, how many trees are in it, its id.
        let tree = self.tree.as_ref()?.strip_prefix(b"\0")?;
        let end = tree.iter().position(|byte| *byte == b'\n')?;
        let (count, _) = std::str::from_utf8(&tree[..end]).ok()?.split_once(' ')?;
        // -1 says that the tree has changed since.
        count.parse::<u32>().ok()?;
        Some(hex(tree.get(end + 1..)?.get(..self.id)?))
    }

    /// Tells whether another index has the same entries at the same places, so that what is put into one entry of it is
    /// of that entry here.
    pub(super) fn is_laid_out_as(&self, other: &Self) -> bool {
        self.entries == other.entries && self.names == other.names
    }

    /// The index that `git read-tree` writes of the same entries: it says nothing of files yet. Flags and extensions are
    /// left behind, but for `trees`, which the entries are together. `None` where git writes another version.
    pub(super) fn unseen(&self, trees: Vec<u8>) -> Option<Self> {
        if number(&self.bytes, 4) != Some(2) {
            return None;
        }
        let mut bytes = self.bytes[..8].to_vec();
        bytes.extend(u32::try_from(self.entries.len()).ok()?.to_be_bytes());
        let mut entries = self.entries.clone();
        for (entry, unseen) in self.entries.iter().zip(&mut entries) {
            let (start, name) = (bytes.len(), self.name(entry));
            unseen.at = start;
            bytes.resize(start + STAT, 0);
            bytes[start + MODE..start + MODE + 4].copy_from_slice(&self.mode(entry).to_be_bytes());
            bytes.extend_from_slice(self.id(entry));
            bytes.extend(
                u16::try_from(name.len()).map_or(NAME_MAX, |length| length.min(NAME_MAX)).to_be_bytes(),
            );
            bytes.extend_from_slice(name);
            bytes.resize(start + padded(bytes.len() - start), 0);
        }
        bytes.extend_from_slice(b"TREE");
        bytes.extend(u32::try_from(trees.len()).ok()?.to_be_bytes());
        bytes.extend_from_slice(&trees);
        let (names, tree) = (self.names.clone(), Some(trees));
        Some(Self { bytes, names, entries, id: self.id, tree, checksum: self.checksum })
    }

    /// Has the index say of its entries what that of a copy does which was made of it.
    pub(super) fn say_as(&mut self, copy: &OfACopy) {
        self.bytes.clone_from(&copy.bytes);
    }

    /// The same index for a copy of the worktree, with nothing put in yet.
    pub(super) fn of_a_copy(&self) -> OfACopy {
        OfACopy { bytes: self.bytes.clone(), checksum: self.checksum }
    }

    /// Keeps what holds of any worktree of these entries, and drops what may be dropped; `None` where something may
    /// not.
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

/// Returns the id, of this many bytes, of an object.
fn object_id(bytes: usize, kind: &str, content: &[u8]) -> Vec<u8> {
    let head = format!("{kind} {}\0", content.len());
    if bytes == 32 {
        Sha256::new().chain_update(head).chain_update(content).finalize().to_vec()
    } else {
        Sha1::new().chain_update(head).chain_update(content).finalize().to_vec()
    }
}

/// The index of a copied worktree.
#[derive(Debug)]
pub(super) struct OfACopy {
    bytes: Vec<u8>,
    checksum: Checksum,
}

impl OfACopy {
    /// Puts in what the file system says of the copy of an entry. A size that four bytes cannot tell stays that of the
    /// source, as its git wrote it.
    pub(super) fn put(&mut self, entry: &Entry, stat: &Stat) {
        let own = fields(stat);
        let field = &mut self.bytes[entry.at..entry.at + STAT];
        field[..24].copy_from_slice(&own[..24]);
        let end = if u32::try_from(stat.st_size).is_ok() { STAT } else { STAT - 4 };
        field[28..end].copy_from_slice(&own[28..end]);
    }

    /// The file, with its checksum.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let checksum = self.checksum.over(&self.bytes);
        self.bytes.extend_from_slice(&checksum);
        self.bytes
    }
}

impl Checksum {
    /// Which one stands at the end of `content`; `None` where it is wrong.
    fn of(content: &[u8], written: &[u8]) -> Option<Self> {
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

/// Goes through the entries.
struct Reader<'b> {
    content: &'b [u8],
    version: u32,
    id: usize,
    at: usize,
    /// Every name, one after another: in version 4 a file does not hold them whole.
    names: Vec<u8>,
    last: Range<usize>,
}

impl Reader<'_> {
    /// Reads the next entry, and adds it to `entries` if the worktree has it; `None` where it is not understood.
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
        let what = match mode {
            MODE_FILE | MODE_EXECUTABLE => What::File,
            MODE_LINK => What::Link,
            MODE_SUBMODULE => What::Submodule,
            // A directory of a sparse index, none of which is checked out.
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

    /// Reads the name of the entry at `at`, whose name begins after `head` bytes, and goes to the next entry.
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
        // Sorted, and none twice: what lies in one directory comes in one piece.
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

/// How long an entry of this length is with the one to eight zeros that end it, up to a multiple of eight.
fn padded(length: usize) -> usize {
    (length + 8) & !7
}

/// Tells whether a path is certainly one that git checks out, whatever it protects other systems from: nothing of it
/// leads elsewhere, or is `.git` or a link `.gitmodules` under another name (`core.protectNTFS`, `core.protectHFS`).
fn is_plain(path: &[u8], what: What) -> bool {
    // Other systems divide paths at backslashes, too.
    path.split(|byte| *byte == b'/').all(|part| !part.is_empty() && part != b"." && part != b"..")
        && !path.split(|byte| matches!(byte, b'/' | b'\\')).any(|part| may_be_of_git(part, what))
}

/// Tells whether some file system takes a name for one of git's own: letters of either case, others that count for
/// nothing, short names (`GIT~1`), streams (`.git:x`), spaces and periods at the end.
fn may_be_of_git(name: &[u8], what: What) -> bool {
    let letters = name.iter().filter(|byte| byte.is_ascii()).map(u8::to_ascii_lowercase);
    let after = |start: &str| {
        let mut rest = letters.clone();
        start.bytes().all(|byte| rest.next() == Some(byte)).then_some(rest)
    };
    let is_git = [".git", "git~1"].into_iter().filter_map(after).any(|rest| {
        let mut ends = rest.take_while(|byte| *byte != b':');
        ends.all(|byte| matches!(byte, b' ' | b'.'))
    });
    is_git || (what == What::Link && (after(".gitmodules").is_some() || name.contains(&b'~')))
}

/// What git writes of a file that it has seen: the lower four bytes of each number, whatever its type is here.
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

/// A number of version 4, as `OFS_DELTA` writes it: seven bits a byte, the highest first, and each byte that is
/// followed by another counts one more.
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
