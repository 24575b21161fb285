//! Branches: their tips, their checkouts, and their distance from the commits at which sessions begin.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::ErrorKind;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::repository::LocatedRepository;
use super::{Branch, Commit, Distance, Error, FirstLogEntry, UnknownRef};
use crate::host::files::{self, Root};
use crate::host::git::{Git, checkouts};

/// Largest reflog of a branch that is read, in bytes: only its first line is needed.
const LOG_MAX: usize = 16 << 20;

/// Names of branches that a template can give: the texts before its first placeholder and after its last one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct BranchNames {
    /// Prefix of every such name.
    pub prefix: String,
    /// Suffix of every such name.
    pub suffix: String,
}

impl BranchNames {
    /// Returns the names that a template can give, or more names if it has more than text and placeholders.
    pub fn from_template(source: &str) -> Self {
        let opens = ["{{", "{%", "{#"].iter().filter_map(|open| source.find(open)).min();
        let closes = ["}}", "%}", "#}"].iter().filter_map(|close| source.rfind(close)).max();
        match (opens, closes) {
            (Some(opens), Some(closes)) if opens < closes => Self {
                prefix: source[..opens].trim_end().to_owned(),
                suffix: source[closes + 2..].trim_start().to_owned(),
            },
            _ => Self { prefix: source.to_owned(), suffix: String::new() },
        }
    }

    fn cover(&self, name: &str) -> bool {
        name.len() >= self.prefix.len() + self.suffix.len()
            && name.starts_with(&self.prefix)
            && name.ends_with(&self.suffix)
    }
}

/// Returns the repository's branches with their tips, by their full names without `refs/heads/`.
pub(super) fn tips(git: &Git<'_>) -> Result<BTreeMap<String, Commit>, Error> {
    let listed = git.run(["for-each-ref", "--format=%(objectname) %(refname:lstrip=2)", "refs/heads"])?;
    let listed = String::from_utf8_lossy(&listed);
    let tips = listed.lines().filter_map(|line| line.split_once(' '));
    Ok(tips.map(|(tip, name)| (name.to_owned(), tip.to_owned())).collect())
}

/// Facts about all branches, and the distance from their base of branches that sessions may use.
#[derive(Debug, Default)]
pub(super) struct Branches {
    pub(super) branches: BTreeMap<String, Branch>,
    pub(super) distances: BTreeMap<(String, String), Distance>,
}

/// Observes the branches with these `tips`: for each ref of `wanted`, the branches that its names cover.
///
/// Costs one Git process for each commit that the refs name, for any number of sessions that want a branch there. No
/// Git process runs if no such branch exists.
pub(super) fn observe(
    git: &Git<'_>,
    located: &LocatedRepository,
    commits: &BTreeMap<String, Result<Commit, UnknownRef>>,
    tips: BTreeMap<String, Commit>,
    wanted: &BTreeMap<&str, BTreeSet<&BranchNames>>,
) -> Result<Branches, Error> {
    let common = Root::open(located.common_dir()).map_err(Error::Repository)?;
    let mut checkouts = checkouts::checkouts(&common).map_err(Error::Repository)?;
    let mut branches: BTreeMap<String, Branch> = tips
        .into_iter()
        .map(|(name, tip)| {
            let mut checkouts = checkouts.remove(&name).unwrap_or_default();
            // HEAD of a bare repository checks nothing out.
            checkouts.retain(|checkout| checkout.admin_directory.is_some() || !located.is_bare());
            (name, Branch { tip, checkouts, first_log_entry: None })
        })
        .collect();
    // By the commit that refs name, the pairs of refs and branches whose distance is measured from the commit.
    let mut pairs: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for (base_ref, names) in wanted {
        let Some(Ok(base)) = commits.get(*base_ref) else { continue };
        let covered = branches.keys().filter(|name| names.iter().any(|names| names.cover(name)));
        pairs.entry(base).or_default().extend(covered.map(|name| (*base_ref, name.as_str())));
    }
    let (mut measured, mut log_entries) = (BTreeMap::new(), BTreeMap::new());
    for (base, pairs) in &pairs {
        let tips: BTreeSet<&str> = pairs.iter().map(|(_, name)| branches[*name].tip.as_str()).collect();
        let distances = distances(git, base, &tips)?;
        for (base_ref, name) in pairs {
            let distance = distances[&branches[*name].tip].clone();
            measured.insert(((*base_ref).to_owned(), (*name).to_owned()), distance);
            if !log_entries.contains_key(*name) {
                log_entries.insert((*name).to_owned(), first_log_entry(git, &common, name)?);
            }
        }
    }
    for (name, first_log_entry) in log_entries {
        branches.entry(name).and_modify(|branch| branch.first_log_entry = first_log_entry);
    }
    Ok(Branches { branches, distances: measured })
}

/// Returns the distance of each of `tips` from `base`, in one walk over the commits that `base` does not reach.
fn distances(git: &Git<'_>, base: &str, tips: &BTreeSet<&str>) -> Result<HashMap<String, Distance>, Error> {
    let others: Vec<&str> = tips.iter().copied().filter(|tip| *tip != base).collect();
    let mut parents: HashMap<&str, Vec<&str>> = HashMap::new();
    let listed = if others.is_empty() {
        Vec::new()
    } else {
        let input = others.iter().fold(format!("^{base}\n"), |text, tip| text + tip + "\n");
        git.run_with_input(["rev-list", "--parents", "--stdin"], input.into_bytes())?
    };
    let listed = String::from_utf8_lossy(&listed);
    for line in listed.lines() {
        let mut ids = line.split(' ');
        parents.extend(ids.next().map(|commit| (commit, ids.collect())));
    }
    Ok(tips.iter().map(|tip| ((*tip).to_owned(), distance(base, tip, &parents))).collect())
}

/// Returns the distance of `tip` from `base`, given the parents of all commits that only the tip reaches.
///
/// The tip contains `base` exactly if `base` is a parent of one of these commits.
fn distance(base: &str, tip: &str, parents: &HashMap<&str, Vec<&str>>) -> Distance {
    let (mut seen, mut left) = (HashSet::new(), vec![tip]);
    let mut contains = tip == base;
    while let Some(commit) = left.pop() {
        contains |= commit == base;
        let Some(parents) = parents.get(commit) else { continue };
        if seen.insert(commit) {
            left.extend(parents);
        }
    }
    Distance { ahead: seen.len(), contains }
}

/// Returns the first entry of a branch's reflog; `None` if there is none.
fn first_log_entry(git: &Git<'_>, common: &Root, name: &str) -> Result<Option<FirstLogEntry>, Error> {
    let log = Path::new("logs/refs/heads").join(name);
    if common.directory(Path::new("reftable")).map_err(Error::Repository)?.is_some() {
        let name = format!("refs/heads/{name}");
        let listed = git.output(["reflog", "show", "--format=%H %gs", &name, "--"])?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let first = listed.lines().last().and_then(|line| line.split_once(' '));
        return Ok(first.map(|(commit, message)| FirstLogEntry {
            commit: commit.to_owned(),
            message: message.to_owned(),
        }));
    }
    let log = match common.read(&log, LOG_MAX) {
        Ok(Some(log)) => log,
        // A reflog that fails to be read would make the branch look like one that the swarm has not created.
        Err(error) if is_transient(&error) => return Err(Error::Repository(error)),
        // Anything else in its place counts as none.
        Ok(None) | Err(_) => return Ok(None),
    };
    let first = log.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(parse(&String::from_utf8_lossy(first)))
}

/// Returns whether the system failed to read a file, as opposed to there being no file that this user may read.
fn is_transient(error: &files::Error) -> bool {
    use ErrorKind::{IsADirectory, NotADirectory, PermissionDenied};
    let files::Error::Io { source, .. } = error else { return false };
    !matches!(source.kind(), IsADirectory | NotADirectory | PermissionDenied)
}

/// Parses `OLD NEW NAME <EMAIL> TIME ZONE`, a tab, and the message.
fn parse(line: &str) -> Option<FirstLogEntry> {
    let (ids, message) = line.split_once('\t')?;
    let commit = ids.split(' ').nth(1)?;
    Some(FirstLogEntry { commit: commit.to_owned(), message: message.to_owned() })
}

#[cfg(test)]
mod tests;
