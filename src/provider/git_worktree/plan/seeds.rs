//! Plans the directories that are seeded: their keys, and conflicts with other files of a worktree.

use std::path::{Component, Path};

use super::super::{Options, PlannedSeed, SeedOptions, Worktree};
use super::{diagnostic, normalize_target_path, repository_of};
use crate::host::text::{largest_unit, tree_size};
use crate::manifest::{CommandLine, Diagnostic, Location, rule};
use crate::name::sha256_hex;
use crate::observe::{Observation, Query, TreeEntry};
use crate::provider::{DISCOVERY_DIRECTORY, is_in_git_directory};

/// Version of the rules that decide a digest.
const VERSION: &str = "seedbed seed 1";

/// Returns the queries for the seeds of worktrees with these options.
pub(super) fn queries(options: &Options) -> Vec<Query> {
    let valid = options.seed.iter().filter(|seed| check(seed, &Location::default()).is_empty());
    let target = target_of(options);
    let key = |path: &String| Query::Blob {
        repository: repository_of(options).to_owned(),
        base_ref: options.base_ref.clone(),
        path: joined(target.as_deref(), path),
    };
    let mut queries: Vec<_> = valid.flat_map(|seed| &seed.key).map(key).collect();
    queries.extend((!options.seed.is_empty()).then_some(Query::Seeds));
    queries
}

/// Returns the queries for the paths of seeds, which the commit must not have.
pub(super) fn path_queries(options: &Options) -> impl Iterator<Item = &str> {
    options
        .seed
        .iter()
        .filter(|seed| check(seed, &Location::default()).is_empty())
        .map(|seed| seed.path.as_str())
}

fn target_of(options: &Options) -> Option<String> {
    normalize_target_path(options.target_path.as_deref().unwrap_or_default()).ok().flatten()
}

fn joined(target: Option<&str>, path: &str) -> String {
    target.map_or_else(|| path.to_owned(), |target| format!("{target}/{path}"))
}

/// Returns the seeds of a new worktree, whose own `seeds` are ignored.
pub(super) fn planned(
    worktree: &Worktree,
    options: &Options,
    observation: &Observation,
    location: &Location,
) -> Result<Vec<PlannedSeed>, Vec<Diagnostic>> {
    let mut diagnostics = diagnostics(options, location);
    let mut planned = Vec::new();
    if !diagnostics.is_empty() {
        return Err(diagnostics);
    }
    for (at, seed) in options.seed.iter().enumerate() {
        let location = location.key("seed").index(at);
        if let Some((message, help)) = super::file_fault(worktree, observation, &seed.path, false) {
            let location = location.key("path");
            diagnostics.push(diagnostic(rule::SEED, &location, &message, "would be seeded", Some(help)));
            continue;
        }
        let mut seed = PlannedSeed::new(seed, None);
        match digest(worktree, &seed, observation) {
            Ok(digest) => {
                seed.digest = Some(digest);
                planned.push(seed);
            }
            Err(index) => {
                let location = location.key("key").index(index);
                diagnostics.push(no_key_file(worktree, observation, &seed.key[index], &location));
            }
        }
    }
    if diagnostics.is_empty() { Ok(planned) } else { Err(diagnostics) }
}

/// Returns the seeds of an active worktree whose options change: it keeps the directories that it has, and gets no others.
pub(super) fn updated(active: &Worktree, options: &Options) -> Vec<PlannedSeed> {
    let digest =
        |seed: &SeedOptions| active.seeds.iter().find(|active| active.is_requested(seed))?.digest.clone();
    options.seed.iter().map(|seed| PlannedSeed::new(seed, digest(seed))).collect()
}

/// Returns whether planning could have returned the seeds of a worktree for these options.
pub(super) fn are_of(worktree: &Worktree, options: &Options) -> bool {
    let is_digest = |digest: &String| {
        digest.len() == 64 && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    worktree.seeds.len() == options.seed.len()
        && worktree.seeds.iter().zip(&options.seed).all(|(seed, options)| seed.is_requested(options))
        && worktree.seeds.iter().all(|seed| seed.digest.as_ref().is_none_or(is_digest))
        && diagnostics(options, &Location::default()).is_empty()
}

/// Returns the diagnostics that need no observation.
pub(super) fn diagnostics(options: &Options, location: &Location) -> Vec<Diagnostic> {
    let location = location.key("seed");
    let mut diagnostics = Vec::new();
    for (at, seed) in options.seed.iter().enumerate() {
        diagnostics.extend(check(seed, &location.index(at)));
        let others = options.seed[..at].iter();
        let overlaps = |other: &&SeedOptions| {
            Path::new(&seed.path).starts_with(&other.path) || Path::new(&other.path).starts_with(&seed.path)
        };
        if let Some(other) = others.clone().find(overlaps) {
            let message =
                format!("`{}` and `{}` overlap", other.path.escape_debug(), seed.path.escape_debug());
            let help = Some("seed separate directories".to_owned());
            diagnostics.push(diagnostic(
                rule::SEED,
                &location.index(at).key("path"),
                &message,
                "is seeded twice",
                help,
            ));
        }
        let mut globs = options.copy.iter().chain(&options.link);
        if let Some(glob) = globs.find(|glob| Path::new(glob).starts_with(&seed.path)) {
            let message = format!(
                "`{}` is in the seeded directory `{}`",
                glob.escape_debug(),
                seed.path.escape_debug()
            );
            let help = Some("remove it from `copy` and `link`, or seed another directory".to_owned());
            diagnostics.push(diagnostic(
                rule::SEED,
                &location.index(at).key("path"),
                &message,
                "would be in the way",
                help,
            ));
        }
    }
    diagnostics
}

/// Checks one seed.
fn check(seed: &SeedOptions, location: &Location) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    let mut refused = |location: Location, message: String, label: &str, help: &str| {
        diagnostics.push(diagnostic(rule::SEED, &location, &message, label, Some(help.to_owned())));
    };
    let is_plain = |path: &str| {
        !path.is_empty()
            && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
            && Path::new(path).components().map(|part| part.as_os_str().len() + 1).sum::<usize>()
                == path.len() + 1
            && !is_in_git_directory(Path::new(path))
    };
    let is_own = |path: &str| Path::new(path).starts_with(DISCOVERY_DIRECTORY);
    if !is_plain(&seed.path) || is_own(&seed.path) {
        let message = format!("`{}` is not a directory that a worktree can have", seed.path.escape_debug());
        refused(
            location.key("path"),
            message,
            "not a plain path",
            "write it relative to the working directory: `node_modules`",
        );
    }
    if let Some(directory) = seed.directory.as_ref().filter(|directory| !is_plain(directory)) {
        let message = format!("`{}` is not a directory of a worktree", directory.escape_debug());
        refused(
            location.key("directory"),
            message,
            "not a plain path",
            "write it relative to the working directory: `frontend`",
        );
    }
    for (at, key) in seed.key.iter().enumerate().filter(|(_, key)| !is_plain(key)) {
        let message = format!("`{}` is not a file of the commit", key.escape_debug());
        let help = "write it relative to the working directory: `package-lock.json`";
        refused(location.key("key").index(at), message, "not a plain path", help);
    }
    let words = match &seed.command {
        CommandLine::Shell(line) => std::slice::from_ref(line),
        CommandLine::Arguments(words) => &words[..],
    };
    if words.first().is_none_or(|first| first.trim().is_empty()) {
        refused(
            location.key("command"),
            "the command is empty".to_owned(),
            "runs nothing",
            "write a command: `[\"npm\", \"ci\"]`",
        );
    }
    if words.iter().any(|word| word.contains("{{") || word.contains("{%")) {
        let message =
            "the command of a seed cannot use templates: its result is shared by sessions".to_owned();
        refused(
            location.key("command"),
            message,
            "is run for all of them",
            "move what each session needs to `setup`",
        );
    }
    diagnostics
}

/// Gives the seeds of a worktree the digests of its commit, which has changed.
pub(super) fn renew(worktree: &mut Worktree, observation: &Observation) {
    let mut seeds = std::mem::take(&mut worktree.seeds);
    for seed in &mut seeds {
        let digest = digest(worktree, seed, observation);
        // If the files of the key are unknown at the commit, the commit is the key.
        seed.digest = Some(digest.unwrap_or_else(|_| {
            hashed(worktree, seed, seed.key.iter().map(|key| (key.as_str(), worktree.commit.as_str())))
        }));
    }
    worktree.seeds = seeds;
}

/// Returns the digest of everything that decides the content; the position of the first key file that is unknown.
fn digest(worktree: &Worktree, seed: &PlannedSeed, observation: &Observation) -> Result<String, usize> {
    let blobs = &observation.repository(worktree.repository_name()).blobs;
    let mut key = Vec::new();
    for (at, path) in seed.key.iter().enumerate() {
        let full = joined(worktree.target_path.as_deref(), path);
        key.push((path.as_str(), blobs.get(&(worktree.commit.clone(), full)).ok_or(at)?.as_str()));
    }
    Ok(hashed(worktree, seed, key.into_iter()))
}

/// Returns the digest of a seed with these files, and their object ids.
fn hashed<'k>(
    worktree: &Worktree,
    seed: &PlannedSeed,
    key: impl Iterator<Item = (&'k str, &'k str)>,
) -> String {
    let command = serde_json::to_string(&seed.command).unwrap_or_default();
    let fixed = [
        VERSION,
        std::env::consts::OS,
        std::env::consts::ARCH,
        worktree.target_path.as_deref().unwrap_or_default(),
        &seed.path,
        seed.directory.as_deref().unwrap_or_default(),
        &command,
    ];
    let parts = fixed.into_iter().chain(key.flat_map(|(path, id)| [path, id]));
    // No part has a zero byte, so that no two lists of parts are joined to one text.
    sha256_hex(parts.collect::<Vec<_>>().join("\0").as_bytes())
}

fn no_key_file(worktree: &Worktree, observation: &Observation, key: &str, location: &Location) -> Diagnostic {
    let path = joined(worktree.target_path.as_deref(), key);
    let trees = &observation.repository(worktree.repository_name()).trees;
    let what = match trees.get(&(worktree.base_ref.clone(), path.clone())) {
        Some(TreeEntry::Directory) => "has a directory",
        Some(TreeEntry::Link) => "has a symbolic link",
        Some(TreeEntry::Submodule) => "has a submodule",
        _ => "has no file",
    };
    let message = format!("`{}` {what} `{path}`", worktree.base_ref.escape_debug());
    let help = "name files of the commit that decide what the command makes, such as a lock file".to_owned();
    diagnostic(rule::SEED, location, &message, "is part of the key", Some(help))
}

/// Returns the notices about the seeds of a new worktree.
pub(super) fn notices(worktree: &Worktree, observation: &Observation) -> Vec<String> {
    let Some(Ok(repository)) = &observation.repository(worktree.repository_name()).repository else {
        return Vec::new();
    };
    let notice = |seed: &PlannedSeed| {
        let digest = seed.digest.as_deref();
        let found = observation
            .seeds
            .iter()
            .find(|found| found.repository == repository.common_dir && Some(&*found.key) == digest);
        match found {
            Some(found) => format!(
                "seed `{}` exists and is copied: {}, {} old",
                seed.path,
                tree_size(found.files, found.bytes, found.shared_bytes),
                largest_unit(found.age())
            ),
            None => format!(
                "seed `{}` is new: `{}` runs once, in the first session that needs it",
                seed.path,
                seed.shown()
            ),
        }
    };
    worktree.seeds.iter().filter(|seed| seed.digest.is_some()).map(notice).collect()
}
