//! Basic vocabulary of all modules: session paths and ids, scoped names, port blocks, keys of items, hashes. Pure.
//!
//! An invalid [`PortBlock`], [`SessionPath`] or [`Slug`] cannot be built, nor deserialised.

mod ranges;
mod similar;

use std::fmt;

use data_encoding::HEXLOWER;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest as _, Sha256};

pub(crate) use ranges::{range, stem};
pub use similar::{nearest, similar};

/// Maximum length of a session's or swarm's name, in bytes (one DNS label, so that it can be part of host names).
pub const NAME_MAX: usize = 63;

/// Number of random hexadecimal digits at the end of the name of an instance.
pub(crate) const INSTANCE_DIGITS: usize = 8;

/// Text between the name of a swarm and the digits of an instance.
pub(crate) const INSTANCE_MARK: &str = "-run-";

/// Returns the name of an instance of a swarm: `NAME-run-XXXXXXXX`, with NAME cut so that the whole has at most
/// [`NAME_MAX`] bytes. `random` are at least eight random hexadecimal digits.
pub fn instance_name(swarm: &str, random: &str) -> String {
    let end = format!("{INSTANCE_MARK}{}", &random[..INSTANCE_DIGITS]);
    format!("{}{end}", &swarm[..swarm.len().min(NAME_MAX - end.len())])
}

/// Pattern of a session's or swarm's name, as in the manifest's JSON schema.
pub const NAME_PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$";

/// Returns the name of a resource as it is written in names of variables: `web-api` is `WEB_API`.
pub(crate) fn variable_part(name: &str) -> String {
    name.to_ascii_uppercase().replace(['-', '.'], "_")
}

/// Returns whether `name` matches [`NAME_PATTERN`].
pub fn is_name(name: &str) -> bool {
    name.len() <= NAME_MAX
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Path of a session in its swarm's tree: names joined by `/`, e.g. `lead/coder-0`.
///
/// The path of a standalone session is its id: any text that is not empty and has no control character. Paths are
/// ordered as text; the canonical order, replicas by number, is the order of `Manifest::sessions`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct SessionPath(String);

/// Text that is not the path of a session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the path of a session")]
#[non_exhaustive]
pub struct InvalidPath(pub String);

impl<'de> Deserialize<'de> for SessionPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::standalone(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl SessionPath {
    /// Parses the path of a session of a swarm: [names](is_name) joined by `/`.
    pub fn parse(path: &str) -> Result<Self, InvalidPath> {
        let is_path = path.split('/').all(is_name);
        if is_path { Ok(Self(path.to_owned())) } else { Err(InvalidPath(path.to_owned())) }
    }

    /// Parses the path of a standalone session, which is its id.
    pub fn standalone(id: &str) -> Result<Self, InvalidPath> {
        let is_id = !id.is_empty() && !id.contains(char::is_control);
        if is_id { Ok(Self(id.to_owned())) } else { Err(InvalidPath(id.to_owned())) }
    }

    /// Creates the path of a session at the top of the tree. The caller has checked that `name` is a name.
    pub(crate) fn top(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// Creates the path of a standalone session, which is its id. The caller has checked the id.
    pub(crate) fn from_id(id: &str) -> Self {
        Self(id.to_owned())
    }

    /// Returns the path of this session's child `name`. The caller has checked that `name` is a name.
    #[must_use]
    pub(crate) fn child(&self, name: &str) -> Self {
        Self(format!("{}/{name}", self.0))
    }

    /// Returns the path as the user writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the last part of the path.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// Returns whether this is the session at `top`, or one below it.
    pub fn is_at_or_below(&self, top: &Self) -> bool {
        self.0.strip_prefix(&top.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Returns the id of this session in `swarm`: `SWARM/PATH`; for a standalone session, whose swarm is empty, the
    /// path.
    pub fn id(&self, swarm: &str) -> String {
        if swarm.is_empty() { self.0.clone() } else { format!("{swarm}/{}", self.0) }
    }
}

impl fmt::Display for SessionPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Number of hexadecimal digits of the id's hash at the end of a scoped name; 16 if two ids share the first 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HashDigits {
    /// 32 bits, the length in the reference implementation.
    Eight,
    /// 64 bits, for ids of one plan that share the first 32 bits.
    Sixteen,
}

/// Returns the file name of a session: its id in safe characters and cut at 32, then `-` and the head of its hash.
///
/// This is `buildScopedName` of the reference implementation: every character outside `[A-Za-z0-9_-]` becomes `-`, and
/// runs of `-` are folded.
pub fn scoped_name(id: &str, digits: HashDigits) -> String {
    let mut base = String::with_capacity(32);
    for c in id.chars() {
        let c = if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
        if !(c == '-' && base.ends_with('-')) {
            base.push(c);
        }
        if base.len() == 32 {
            break;
        }
    }
    if base.is_empty() {
        base.push_str("session");
    }
    let digits = match digits {
        HashDigits::Eight => 8,
        HashDigits::Sixteen => 16,
    };
    format!("{base}-{}", &sha256_hex(id.as_bytes())[..digits])
}

/// Path of a session as one DNS label: 1 to 63 of `a-z`, `0-9` and `-`, with no hyphen at either end.
///
/// Databases, containers and file systems accept such a label as a name too.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Slug(#[schemars(regex(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))] String);

impl Slug {
    /// Returns the path in lower case, with `-` for each run of other characters, cut at 63. Two paths may have the
    /// same short slug.
    pub fn short(path: &SessionPath) -> Self {
        Self::cut(path, NAME_MAX)
    }

    /// Returns a shorter slug of the path, followed by 16 digits of the path's hash: no two paths have the same slug
    /// with hash.
    pub fn with_hash(path: &SessionPath) -> Self {
        let hash = &sha256_hex(path.as_str().as_bytes())[..16];
        Self(format!("{}-{hash}", Self::cut(path, NAME_MAX - 1 - hash.len()).0))
    }

    /// Returns the slug as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the slug of [`Slug::short`], cut at `length`, which is at least 7.
    pub(crate) fn cut(path: &SessionPath, length: usize) -> Self {
        let mut slug = String::with_capacity(path.as_str().len().min(length));
        for c in path.as_str().chars().map(|c| c.to_ascii_lowercase()) {
            let is_kept = c.is_ascii_lowercase() || c.is_ascii_digit();
            if slug.len() == length {
                break;
            } else if is_kept {
                slug.push(c);
            } else if !slug.is_empty() && !slug.ends_with('-') {
                slug.push('-');
            }
        }
        slug.truncate(slug.trim_end_matches('-').len());
        if slug.is_empty() {
            slug.push_str("session");
        }
        Self(slug)
    }
}

impl TryFrom<String> for Slug {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_kept = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_slug = (1..=NAME_MAX).contains(&text.len())
            && text.bytes().all(is_kept)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if is_slug { Ok(Self(text)) } else { Err(format!("{text:?} is not a slug")) }
    }
}

impl From<Slug> for String {
    fn from(slug: Slug) -> Self {
        slug.0
    }
}

/// Returns the first 32 bits of the id's SHA-256, big-endian.
///
/// This is `hashToUnsignedInt` of the reference implementation; it chooses a port block.
pub fn hash_u32(id: &str) -> u32 {
    let hash: [u8; 32] = Sha256::digest(id.as_bytes()).into();
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

/// Returns the SHA-256 in lower-case hexadecimal, 64 digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of data that arrives in parts, so that it need not be in memory at once.
#[derive(Debug, Default)]
pub(crate) struct Sha256Hasher(Sha256);

impl Sha256Hasher {
    /// Adds these bytes to the hash.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the hash in lower-case hexadecimal, 64 digits.
    pub(crate) fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

/// Returns the bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// Hash of an item and of the name of its pool: the same for the same item of the same pool, in every manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct ItemKey(u64);

impl ItemKey {
    /// Returns the key of an item: the first 64 bits of the hash of both names.
    pub fn new(pool: &str, item: &str) -> Self {
        let hash: [u8; 32] = Sha256::digest(format!("{pool}\0{item}").as_bytes()).into();
        Self(hash[..8].iter().fold(0, |key, byte| key << 8 | u64::from(*byte)))
    }

    /// Parses a key from 16 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let is_hash = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hash.then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

impl TryFrom<String> for ItemKey {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("a key of an item has 16 hexadecimal digits")
    }
}

impl From<ItemKey> for String {
    fn from(key: ItemKey) -> Self {
        key.to_string()
    }
}

impl fmt::Display for ItemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Run of ports, both ends included; never empty, never port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "(u16, u16)", into = "(u16, u16)")]
pub struct PortBlock {
    start: u16,
    end: u16,
}

impl PortBlock {
    /// Creates the block `start..=end`; `None` if the block would be empty, contain port 0 or pass 65535.
    pub fn new(start: u32, end: u32) -> Option<Self> {
        let (start, end) = (u16::try_from(start).ok()?, u16::try_from(end).ok()?);
        (start > 0 && start <= end).then_some(Self { start, end })
    }

    /// Creates the block of only `port`; `None` for port 0.
    pub fn single(port: u16) -> Option<Self> {
        Self::new(port.into(), port.into())
    }

    /// Returns the first port.
    pub fn start(self) -> u16 {
        self.start
    }

    /// Returns the last port, which belongs to the block.
    pub fn end(self) -> u16 {
        self.end
    }

    /// Returns the number of ports of the block, 1 to 65535.
    pub fn size(self) -> u32 {
        u32::from(self.end - self.start) + 1
    }

    /// Returns whether the two blocks share a port.
    pub fn overlaps(self, other: Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    /// Returns whether every port of `other` is in this block.
    pub fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// Returns every port of the block, ascending.
    pub fn ports(self) -> impl Iterator<Item = u16> {
        self.start..=self.end
    }

    /// Merges blocks that touch or overlap; the lowest comes first.
    pub fn merged(mut blocks: Vec<Self>) -> Vec<Self> {
        blocks.sort_unstable();
        let mut merged: Vec<Self> = Vec::new();
        for block in blocks {
            match merged.last_mut() {
                Some(last) if u32::from(block.start) <= u32::from(last.end) + 1 => {
                    last.end = last.end.max(block.end);
                }
                _ => merged.push(block),
            }
        }
        merged
    }
}

impl TryFrom<(u16, u16)> for PortBlock {
    type Error = String;

    fn try_from((start, end): (u16, u16)) -> Result<Self, String> {
        Self::new(start.into(), end.into()).ok_or_else(|| format!("{start}-{end} is no block of ports"))
    }
}

impl From<PortBlock> for (u16, u16) {
    fn from(block: PortBlock) -> Self {
        (block.start, block.end)
    }
}

impl fmt::Display for PortBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_touch_are_merged() {
        let block = |start, end| PortBlock::new(start, end).unwrap();
        let given = vec![block(20, 29), block(1, 9), block(10, 19), block(40, 65535), block(41, 42)];
        assert_eq!(PortBlock::merged(given), [block(1, 29), block(40, 65535)]);
    }

    #[test]
    fn a_path_that_is_none_cannot_be_built_or_deserialised() {
        assert_eq!(SessionPath::parse("lead/coder-0").unwrap().name(), "coder-0");
        for path in ["", "/", "lead/", "a b", "..", "-a", "lead//coder"] {
            assert_eq!(SessionPath::parse(path), Err(InvalidPath(path.to_owned())));
        }
        let deserialised = serde_json::from_str::<SessionPath>;
        assert_eq!(deserialised("\"any id, ünicode\"").unwrap().as_str(), "any id, ünicode");
        for id in ["\"\"", "\"a\\nb\"", "1"] {
            deserialised(id).unwrap_err();
        }
    }
}
