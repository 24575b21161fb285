//! The words that everything else is said in: session paths and ids, scoped names, port blocks, hashes. Pure.
//!
//! A [`PortBlock`], a [`SessionPath`] or a [`Slug`] that is none cannot be built, nor deserialised.

mod similar;

use std::fmt;

use data_encoding::HEXLOWER;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest as _, Sha256};

pub use similar::{nearest, similar};

/// The longest name a session or swarm may have, in bytes (one DNS label, so that it can be part of host names).
pub const NAME_MAX: usize = 63;

/// The pattern of a session's or swarm's name, as it stands in the manifest's JSON schema.
pub const NAME_PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$";

/// Tells whether `name` matches [`NAME_PATTERN`].
pub fn is_name(name: &str) -> bool {
    name.len() <= NAME_MAX
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Path of a session in its swarm's tree: names joined by `/`, e.g. `lead/coder-0`. For a standalone session it is the id: any
/// text that is not empty and has no control character.
///
/// Its order is that of the text; the canonical order, replicas by number, is that of `Manifest::sessions`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct SessionPath(String);

/// A text that is not the path of a session.
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
    /// Returns the path of a session of a swarm: [names](is_name) joined by `/`.
    pub fn parse(path: &str) -> Result<Self, InvalidPath> {
        let is_path = path.split('/').all(is_name);
        if is_path { Ok(Self(path.to_owned())) } else { Err(InvalidPath(path.to_owned())) }
    }

    /// Returns the path of a standalone session, which is its id.
    pub fn standalone(id: &str) -> Result<Self, InvalidPath> {
        let is_id = !id.is_empty() && !id.contains(char::is_control);
        if is_id { Ok(Self(id.to_owned())) } else { Err(InvalidPath(id.to_owned())) }
    }

    /// The path of a session at the top of the tree. `name` has been checked to be a name.
    pub(crate) fn top(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The path of a session on its own, which is its id; that has been checked.
    pub(crate) fn alone(id: &str) -> Self {
        Self(id.to_owned())
    }

    /// The path of this session's child `name`, which has been checked to be a name.
    #[must_use]
    pub(crate) fn child(&self, name: &str) -> Self {
        Self(format!("{}/{name}", self.0))
    }

    /// The path as the user writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last part of the path.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// Returns whether this is the session at `top`, or one below it.
    pub fn is_at_or_below(&self, top: &Self) -> bool {
        self.0.strip_prefix(&top.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The id of this session in `swarm`: `SWARM/PATH`; for a session on its own, whose swarm is empty, the path.
    pub fn id(&self, swarm: &str) -> String {
        if swarm.is_empty() { self.0.clone() } else { format!("{swarm}/{}", self.0) }
    }
}

impl fmt::Display for SessionPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How many hexadecimal digits of the id's hash end a scoped name; 16 where two ids share the first 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HashDigits {
    /// The seed's length, 32 bits.
    Eight,
    /// 64 bits, for ids of one plan whose first 32 bits meet.
    Sixteen,
}

/// The file name of a session: its id made safe and cut at 32, then `-` and the head of its hash.
///
/// The seed's `buildScopedName`: every character outside `[A-Za-z0-9_-]` becomes `-`, runs of `-` are folded.
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

/// A session's path as one DNS label, which databases, containers and file systems take as a name too: 1 to 63 of
/// `a-z`, `0-9` and `-`, with no hyphen at either end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Slug(#[schemars(regex(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))] String);

impl Slug {
    /// Returns the path in lower case, with `-` for each run of other characters, cut at 63. Two paths may have the same
    /// one.
    pub fn short(path: &SessionPath) -> Self {
        Self::of_length(path, NAME_MAX)
    }

    /// Returns the same, cut shorter, with 16 digits of the path's hash behind it: no two paths have the same one.
    pub fn with_hash(path: &SessionPath) -> Self {
        let hash = &sha256_hex(path.as_str().as_bytes())[..16];
        Self(format!("{}-{hash}", Self::of_length(path, NAME_MAX - 1 - hash.len()).0))
    }

    /// Returns the slug as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the same as [`Slug::short`], cut at `length`, which is at least 7.
    pub(crate) fn of_length(path: &SessionPath, length: usize) -> Self {
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

/// The first 32 bits of the id's SHA-256, big-endian: the seed's `hashToUnsignedInt`, from which a port block is
/// chosen.
pub fn hash_u32(id: &str) -> u32 {
    let hash: [u8; 32] = Sha256::digest(id.as_bytes()).into();
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

/// SHA-256 in lower-case hexadecimal, 64 digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Takes the SHA-256 of what it is given, so that it need not be in memory at once.
#[derive(Debug, Default)]
pub(crate) struct Sha256Hasher(Sha256);

impl Sha256Hasher {
    /// Goes on with these bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash in lower-case hexadecimal, 64 digits.
    pub(crate) fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

/// Bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// A run of ports, both ends included; never empty, never port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortBlock {
    start: u16,
    end: u16,
}

impl PortBlock {
    /// The block `start..=end`, or `None` where that is empty, holds port 0 or passes 65535.
    pub fn new(start: u32, end: u32) -> Option<Self> {
        let (start, end) = (u16::try_from(start).ok()?, u16::try_from(end).ok()?);
        (start > 0 && start <= end).then_some(Self { start, end })
    }

    /// The block that holds `port` alone; `None` for port 0.
    pub fn single(port: u16) -> Option<Self> {
        Self::new(port.into(), port.into())
    }

    /// The first port.
    pub fn start(self) -> u16 {
        self.start
    }

    /// The last port, which belongs to the block.
    pub fn end(self) -> u16 {
        self.end
    }

    /// How many ports the block holds, 1 to 65535.
    pub fn size(self) -> u32 {
        u32::from(self.end - self.start) + 1
    }

    /// Tells whether the two blocks share a port.
    pub fn overlaps(self, other: Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    /// Tells whether every port of `other` is in this block.
    pub fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// Every port of the block, ascending.
    pub fn ports(self) -> impl Iterator<Item = u16> {
        self.start..=self.end
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
