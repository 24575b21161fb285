//! Defines the resources that leases reserve: blocks of ports, and items of pools.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::{ItemKey, PortBlock};

/// Prefix of the keys of items in names of files.
const ITEM: &str = "item-";

/// Resource that a lease reserves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub enum Leased {
    /// A block of ports.
    Ports(PortBlock),
    /// An item of a pool.
    Item {
        /// Name of the pool, the same in every manifest that shares it.
        pool: String,
        /// The item.
        item: String,
    },
    /// An item of a pool, from a file whose content cannot be read.
    #[serde(skip)]
    UnreadableItem(ItemKey),
}

impl Leased {
    /// Returns the key by which leases are compared.
    pub fn key(&self) -> Key {
        match self {
            Self::Ports(block) => Key::Ports(*block),
            Self::Item { pool, item } => Key::Item(ItemKey::new(pool, item)),
            Self::UnreadableItem(key) => Key::Item(*key),
        }
    }

    /// Describes a conflict with the lease of `held`, up to the session that has it.
    pub(super) fn conflict(&self, held: Key) -> String {
        match held {
            Key::Ports(held) => format!("{self} are not free: {held} are leased"),
            Key::Item(_) => format!("{self} is not free: it is leased"),
        }
    }
}

impl fmt::Display for Leased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ports(block) => write!(f, "ports {block}"),
            Self::Item { pool, item } => write!(f, "`{item}` of the pool `{pool}`"),
            Self::UnreadableItem(_) => f.write_str("an item of a pool"),
        }
    }
}

/// Name of a leased resource on this host. Two leases conflict if their keys overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Key {
    /// A block of ports.
    Ports(PortBlock),
    /// Hash of an item and its pool.
    Item(ItemKey),
}

impl Key {
    /// Parses a key in the only form in which it is written.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let key = if let Some(hash) = text.strip_prefix(ITEM) {
            Self::Item(ItemKey::parse(hash)?)
        } else {
            let (start, end) = text.split_once('-')?;
            Self::Ports(PortBlock::new(start.parse().ok()?, end.parse().ok()?)?)
        };
        (key.to_string() == text).then_some(key)
    }

    /// Returns whether the two resources cannot both be leased.
    pub fn overlaps(self, other: Self) -> bool {
        match (self, other) {
            (Self::Ports(own), Self::Ports(other)) => own.overlaps(other),
            (Self::Item(own), Self::Item(other)) => own == other,
            _ => false,
        }
    }

    /// Returns whether this resource includes the other one.
    pub fn contains(self, other: Self) -> bool {
        match (self, other) {
            (Self::Ports(own), Self::Ports(other)) => own.contains(other),
            _ => self.overlaps(other),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ports(block) => write!(f, "{block}"),
            Self::Item(key) => write!(f, "{ITEM}{key}"),
        }
    }
}
