//! Runs that were given up: records of what may remain of these runs.
//!
//! ```text
//! STATE/given-up/NAME-HASH-N.json   one run, N from 1; the user removes it with what it names
//! ```
//!
//! Such runs own nothing: [`owners`](super::owners) does not read their records, so that the named resources count as
//! left over.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Error, LockedSwarm, Record, SCHEMA_VERSION, Swarm, read};
use crate::host::files::{self, Root};
use crate::host::{Host, clock};
use crate::name::SessionPath;

/// Name of the directory, below the state directory.
const GIVEN_UP: &str = "given-up";

/// A run that was given up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct GivenUp {
    /// Version of the format of this file.
    pub schema_version: u32,
    /// Time at which the run was given up, in UTC as RFC 3339.
    pub since: String,
    /// Record of the run.
    pub record: Record,
    /// Resources that may remain; at least one.
    pub remains: Vec<Remain>,
}

/// The file of a run that was given up.
#[derive(Debug)]
#[non_exhaustive]
pub struct GivenUpFile {
    /// Absolute path of the file.
    pub path: PathBuf,
    /// Content of the file, or the reason for which it cannot be read.
    pub run: Result<GivenUp, Error>,
}

/// A resource that may remain of a run that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Remain {
    /// Path of the session.
    pub session: SessionPath,
    /// Name of the resource, by default its kind.
    pub resource: String,
    /// `true` if the run was to release the resource; `false` if the run had provisioned it.
    pub before: bool,
    /// Reason for which the resource remains, one line.
    pub why: String,
}

impl Remain {
    /// Returns the record that has the session: `run`, or the record that was applied before it.
    pub(crate) fn record_in<'r>(&self, run: &'r Record) -> &'r Record {
        let before = run.release.as_ref().map(|release| &release.before);
        before.filter(|_| self.before).unwrap_or(run)
    }
}

impl LockedSwarm<'_> {
    /// Records what may remain of a run, in addition to the records of earlier attempts to give up the same run.
    ///
    /// Returns all resources that may remain.
    pub fn record_remains(&self, record: &Record, remains: Vec<Remain>) -> Result<Vec<Remain>, Error> {
        let directory = Root::create(&self.host().state.join(GIVEN_UP))?;
        let mut number = 0_u32;
        let (name, earlier) = loop {
            number += 1;
            let name = format!("{}-{number}.json", self.key());
            match read::<GivenUp>(directory.path(), &name) {
                Ok(None) => break (name, None),
                Ok(Some(earlier)) if earlier.record == *record => break (name, Some(earlier)),
                // The file is of another run, or another version of seedbed wrote it.
                Ok(Some(_)) | Err(Error::Unreadable { .. }) => {}
                Err(error) => return Err(error),
            }
        };
        let mut all = remains;
        for remain in earlier.map(|earlier| earlier.remains).unwrap_or_default() {
            let is_same = |other: &Remain| {
                (&other.session, &other.resource, other.before)
                    == (&remain.session, &remain.resource, remain.before)
            };
            if !all.iter().any(is_same) {
                all.push(remain);
            }
        }
        all.sort_by(|one, other| (&one.session, &one.resource).cmp(&(&other.session, &other.resource)));
        if all.is_empty() {
            directory.remove_file(Path::new(&name))?;
            return Ok(all);
        }
        let (record, remains) = (record.clone(), all.clone());
        let given_up = GivenUp { schema_version: SCHEMA_VERSION, since: clock::now(), record, remains };
        let bytes = serde_json::to_vec(&given_up).map_err(|error| Error::Unreadable {
            path: directory.path().join(&name),
            why: error.to_string(),
        })?;
        directory.replace(Path::new(&name), &bytes)?;
        Ok(all)
    }
}

impl Swarm<'_> {
    /// Returns whether a run of this swarm was given up, and may have left something.
    pub fn has_given_up(&self) -> Result<bool, Error> {
        Ok(!self.given_up()?.is_empty())
    }

    /// Returns the readable runs of this swarm that were given up, with the names of their files.
    pub(crate) fn given_up(&self) -> Result<Vec<(String, GivenUp)>, Error> {
        let is_own = |name: &str| {
            let number =
                name.strip_prefix(self.key()).and_then(|rest| rest.strip_prefix('-')?.strip_suffix(".json"));
            number
                .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let own = given_up(self.host())?.into_iter().filter_map(|GivenUpFile { path, run }| {
            let name = path.file_name()?.to_str()?.to_owned();
            Some((name, run.ok()?)).filter(|(name, _)| is_own(name))
        });
        Ok(own.collect())
    }
}

impl LockedSwarm<'_> {
    /// Replaces the record of a run that was given up; removes it if nothing remains.
    pub(crate) fn replace_remains(&self, name: &str, run: &GivenUp) -> Result<(), Error> {
        let state = Root::open(&self.host().state)?;
        let directory = Root::create(&self.host().state.join(GIVEN_UP))?;
        if run.remains.is_empty() {
            directory.remove_file(Path::new(name))?;
            return Ok(state.remove_directory(Path::new(GIVEN_UP)).map(drop)?);
        }
        let bytes = serde_json::to_vec(run).map_err(|error| Error::Unreadable {
            path: directory.path().join(name),
            why: error.to_string(),
        })?;
        Ok(directory.replace(Path::new(name), &bytes)?)
    }
}

/// Reads all runs that were given up on this host, with their files, in order of the file names.
///
/// A file that cannot be read is an error in the list.
pub fn given_up(host: &Host) -> Result<Vec<GivenUpFile>, Error> {
    let directory = match Root::open(&host.state.join(GIVEN_UP)) {
        Ok(directory) => directory,
        Err(files::Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error.into()),
    };
    let mut names: Vec<String> =
        directory.names()?.into_iter().filter_map(|name| name.into_string().ok()).collect();
    names.retain(|name| Path::new(name).extension().is_some_and(|extension| extension == "json"));
    names.sort();
    let read = |name: &String| {
        let run = read(directory.path(), name).transpose()?;
        Some(GivenUpFile { path: directory.path().join(name), run })
    };
    Ok(names.iter().filter_map(read).collect())
}
