//! JSON form of a plan.
//!
//! The JSON of a large plan needs as much memory as the plan itself. So it is created in parts, on all cores, each part
//! while the previous one is hashed or written.

use std::io::{self, Write};

use rayon::prelude::*;
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{Formatter, PrettyFormatter};

use super::Plan;
use crate::name::Sha256Hasher;

/// Number of entries whose JSON is in memory at once, twice: a few megabytes.
const AT_ONCE: usize = 1024;

/// Number of entries that one core converts at a time: some ten kilobytes.
const IN_ONE_GO: usize = 8;

/// Returns the digest of a plan's content.
pub(super) fn digest(plan: &Plan) -> io::Result<String> {
    let swarm = serde_json::to_string(&plan.swarm)?;
    let mut hash = Sha256Hasher::default();
    hash.update(format!("[{},{swarm},[", plan.schema_version).as_bytes());
    let json = |json: &mut Vec<u8>, session: &_| Ok(serde_json::to_writer(json, session)?);
    in_parts(&plan.sessions, b",", json, |part| {
        hash.update(part);
        Ok(())
    })?;
    hash.update(b"]");
    if !plan.repositories.is_empty() {
        hash.update(b",");
        hash.update(&serde_json::to_vec(&plan.repositories)?);
    }
    if !plan.overrides.is_empty() {
        hash.update(b",");
        hash.update(&serde_json::to_vec(&plan.overrides)?);
    }
    hash.update(b"]");
    Ok(format!("sha256:{}", hash.finish()))
}

/// Returns the digest of a plan's content and of what applying it releases; the plan's own if that is nothing.
pub(super) fn approval(plan: &Plan) -> String {
    let releases: Vec<_> = plan
        .changes
        .iter()
        .filter(|change| !change.release.is_empty())
        .map(|change| (&change.session, &change.release))
        .collect();
    if releases.is_empty() {
        return plan.digest.clone();
    }
    let mut hash = Sha256Hasher::default();
    hash.update(plan.digest.as_bytes());
    // Names can always be written as JSON.
    hash.update(&serde_json::to_vec(&releases).unwrap_or_default());
    format!("sha256:{}", hash.finish())
}

/// Writes the document as indented JSON, followed by a line feed.
pub(super) fn write(plan: &Plan, to: &mut (impl Write + Send)) -> io::Result<()> {
    let Plan {
        schema_version,
        swarm,
        digest,
        applied,
        repositories,
        overrides,
        sessions,
        changes,
        again,
        unsaved_work,
        occupants,
        behind,
    } = plan;
    to.write_all(b"{")?;
    for (name, value) in [
        ("schemaVersion", serde_json::to_string(schema_version)?),
        ("swarm", serde_json::to_string(swarm)?),
        ("digest", serde_json::to_string(digest)?),
        ("applied", serde_json::to_string(applied)?),
    ] {
        write!(to, "\n  \"{name}\": {value},")?;
    }
    if !repositories.is_empty() {
        list("repositories", repositories, to)?;
        to.write_all(b",")?;
    }
    if !overrides.is_empty() {
        list("overrides", overrides, to)?;
        to.write_all(b",")?;
    }
    list("sessions", sessions, to)?;
    to.write_all(b",")?;
    list("changes", changes, to)?;
    if !again.is_empty() {
        write!(to, ",\n  \"again\": {}", serde_json::to_string(again)?)?;
    }
    if !unsaved_work.is_empty() {
        to.write_all(b",")?;
        list("unsavedWork", unsaved_work, to)?;
    }
    if !occupants.is_empty() {
        to.write_all(b",")?;
        list("occupants", occupants, to)?;
    }
    if !behind.is_empty() {
        to.write_all(b",")?;
        list("behind", behind, to)?;
    }
    to.write_all(b"\n}\n")
}

fn list<T: Serialize + Sync>(name: &str, entries: &[T], to: &mut (impl Write + Send)) -> io::Result<()> {
    write!(to, "\n  \"{name}\": [")?;
    if entries.is_empty() {
        return to.write_all(b"]");
    }
    to.write_all(b"\n    ")?;
    let json = |json: &mut Vec<u8>, entry: &T| {
        // Indents as deep as an entry in a list of the document.
        let mut formatter = PrettyFormatter::new();
        formatter.begin_object(&mut io::sink())?;
        formatter.begin_array(&mut io::sink())?;
        Ok(entry.serialize(&mut Serializer::with_formatter(json, formatter))?)
    };
    in_parts(entries, b",\n    ", json, |part| to.write_all(part))?;
    to.write_all(b"\n  ]")
}

/// Passes the JSON of all entries to `take`, in order and with `separator` between them, each part while the next is
/// created.
fn in_parts<T: Sync>(
    entries: &[T],
    separator: &[u8],
    json: impl Fn(&mut Vec<u8>, &T) -> io::Result<()> + Sync,
    mut take: impl FnMut(&[u8]) -> io::Result<()> + Send,
) -> io::Result<()> {
    let all = |entries: &[T]| {
        let mut text = Vec::new();
        for entry in entries {
            text.extend_from_slice(separator);
            json(&mut text, entry)?;
        }
        Ok(text)
    };
    let mut parts = entries.chunks(AT_ONCE).map(|part| {
        let texts: Vec<io::Result<Vec<u8>>> = part.par_chunks(IN_ONE_GO).map(all).collect();
        texts
    });
    let mut is_first = true;
    let mut made = parts.next();
    while let Some(texts) = made {
        let hand_on = || {
            texts.into_iter().try_for_each(|text| {
                let text = text?;
                take(if std::mem::take(&mut is_first) { &text[separator.len()..] } else { &text })
            })
        };
        let (written, next) = rayon::join(hand_on, || parts.next());
        written?;
        made = next;
    }
    Ok(())
}
