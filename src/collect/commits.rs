//! Reads the commits and changed files of sessions, with a few Git processes for all of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::str;

use rayon::prelude::*;

use super::{Commit, Error, File, FileChange, Work};
use crate::host::git::Git;
use crate::host::process;

/// Number of sessions whose changes one process lists.
const SESSIONS_EACH: usize = 8;

/// Two commits: the head of a session, and the commit of the ref that it is compared with.
#[derive(Clone, Debug)]
pub(super) struct Compared {
    pub(super) head: String,
    pub(super) target: String,
}

/// Commits that a head has and the other commit does not.
#[derive(Debug)]
struct Range {
    /// The commits, newest first.
    commits: Vec<Commit>,
    /// Parents of these commits that the other commit has too.
    bases: BTreeSet<String>,
}

/// Returns the commit that a ref names.
pub(super) fn resolve(git: &Git<'_>, name: &str) -> Result<String, Error> {
    let commit = format!("{name}^{{commit}}");
    let found = git.output(["rev-parse", "--verify", "--quiet", "--end-of-options", commit.as_str()])?;
    let commit = str::from_utf8(found.stdout.trim_ascii()).unwrap_or_default();
    if commit.is_empty() { Err(Error::NoCommit(name.to_owned())) } else { Ok(commit.to_owned()) }
}

/// Returns the work of each head: its commits and changed files. An error is one line.
pub(super) fn works(git: &Git<'_>, compared: &[Compared]) -> Vec<Result<Work, String>> {
    let works = ranges(git, compared).into_iter().zip(compared).map(|(range, Compared { head, target })| {
        let Range { commits, bases } = range?;
        let mut bases = bases.into_iter();
        let merge_base = match (bases.next(), bases.next()) {
            (None, _) => return Err(format!("{head} and {target} have no common commit")),
            (Some(base), None) => base,
            _ => git.line(["merge-base", head, target]).map_err(|error| error.to_string())?,
        };
        let (files, conflicts) = (Vec::new(), Vec::new());
        Ok(Work { head: head.clone(), merge_base, commits, files, landed: None, conflicts })
    });
    let mut works: Vec<Result<Work, String>> = works.collect();
    add_files(git, &mut works);
    works
}

/// Returns the commits of each head, with one process for all heads that are compared with one commit.
fn ranges(git: &Git<'_>, compared: &[Compared]) -> Vec<Result<Range, String>> {
    let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, Compared { target, .. }) in compared.iter().enumerate() {
        groups.entry(target).or_default().push(at);
    }
    let mut ranges: BTreeMap<usize, Result<Range, String>> = BTreeMap::new();
    for (target, members) in groups {
        let heads: Vec<&str> = members.iter().map(|at| compared[*at].head.as_str()).collect();
        ranges.extend(members.into_iter().zip(each(&heads, |heads| ranges_beyond(git, target, heads))));
    }
    ranges.into_values().collect()
}

/// Returns the commits of each head that the target does not have.
fn ranges_beyond(git: &Git<'_>, target: &str, heads: &[&str]) -> Result<Vec<Range>, process::Error> {
    let input = heads.iter().fold(format!("^{target}\n"), |input, head| input + head + "\n");
    let command = ["log", "--stdin", "-z", "--encoding=UTF-8", "--format=%H %P%n%s"];
    let printed = git.run_with_input(command, input.into_bytes())?;
    let lines = printed.split(|byte| *byte == 0).filter(|line| !line.is_empty());
    let commits: Vec<(Commit, Vec<String>)> = lines
        .map(|line| {
            let line = String::from_utf8_lossy(line);
            let (ids, subject) = line.split_once('\n').unwrap_or((&line, ""));
            let mut ids = ids.split(' ').filter(|id| !id.is_empty()).map(str::to_owned);
            let id = ids.next().unwrap_or_default();
            (Commit { id, subject: subject.to_owned() }, ids.collect())
        })
        .collect();
    let positions: HashMap<&str, usize> =
        commits.iter().enumerate().map(|(at, (commit, _))| (commit.id.as_str(), at)).collect();
    Ok(heads.iter().map(|head| range_of(head, &commits, &positions)).collect())
}

fn range_of(head: &str, commits: &[(Commit, Vec<String>)], positions: &HashMap<&str, usize>) -> Range {
    let (mut reached, mut bases) = (BTreeSet::new(), BTreeSet::new());
    let mut left = vec![head];
    while let Some(id) = left.pop() {
        match positions.get(id) {
            Some(at) if reached.insert(*at) => left.extend(commits[*at].1.iter().map(String::as_str)),
            Some(_) => {}
            None => {
                bases.insert(id.to_owned());
            }
        }
    }
    Range { commits: reached.into_iter().map(|at| commits[at].0.clone()).collect(), bases }
}

/// Adds the files that differ between the merge base and the head of each session.
fn add_files(git: &Git<'_>, works: &mut [Result<Work, String>]) {
    let ids = works.iter().flatten().filter(|work| work.merge_base != work.head);
    let trees = match trees(git, ids.flat_map(|work| [work.merge_base.as_str(), &work.head])) {
        Ok(trees) => trees,
        Err(error) => {
            works.iter_mut().filter(|work| work.is_ok()).for_each(|work| *work = Err(error.to_string()));
            return;
        }
    };
    let add = |works: &mut [Result<Work, String>]| {
        let pairs: Vec<[&str; 2]> = works
            .iter()
            .map(|work| match work {
                Ok(work) => [&work.merge_base, &work.head].map(|id| trees.get(id).map_or("", String::as_str)),
                Err(_) => [""; 2],
            })
            .collect();
        for (work, files) in works.iter_mut().zip(each(&pairs, |pairs| files(git, pairs))) {
            match (work.as_mut(), files) {
                (Ok(_), Err(error)) => *work = Err(error),
                (Ok(work), Ok(files)) => work.files = files,
                (Err(_), _) => {}
            }
        }
    };
    works.par_chunks_mut(SESSIONS_EACH).for_each(add);
}

/// Returns the id of the tree of each commit, by the commit's id; commits without a tree are left out.
pub(super) fn trees<'i>(
    git: &Git<'_>,
    commits: impl Iterator<Item = &'i str>,
) -> Result<HashMap<String, String>, process::Error> {
    let commits: BTreeSet<&str> = commits.collect();
    if commits.is_empty() {
        return Ok(HashMap::new());
    }
    let input = commits.iter().fold(String::new(), |input, commit| input + commit + "^{tree}\n");
    let printed = git.run_with_input(["cat-file", "--batch-check=%(objectname)"], input.into_bytes())?;
    let printed = String::from_utf8_lossy(&printed);
    let trees = commits.into_iter().zip(printed.lines()).filter(|(_, tree)| !tree.contains(' '));
    Ok(trees.map(|(commit, tree)| (commit.to_owned(), tree.to_owned())).collect())
}

/// Returns the files that differ between two trees, for each pair; no files for a pair of equal trees.
fn files(git: &Git<'_>, pairs: &[[&str; 2]]) -> Result<Vec<Vec<File>>, process::Error> {
    let differ = pairs.iter().filter(|[from, to]| from != to);
    let input = differ.fold(String::new(), |input, [from, to]| format!("{input}{from} {to}\n"));
    if input.is_empty() {
        return Ok(pairs.iter().map(|_| Vec::new()).collect());
    }
    let command = ["diff-tree", "--stdin", "-r", "-z", "--raw", "--numstat", "--no-renames"];
    let options = ["--no-ext-diff", "--no-textconv"];
    let printed = git.run_with_input(command.into_iter().chain(options), input.into_bytes())?;
    let mut rest = printed.as_slice();
    let files = pairs.iter().map_while(|[from, to]| {
        if from == to {
            return Some(Vec::new());
        }
        rest = rest.strip_prefix(format!("{from} {to}\n").as_bytes())?;
        Some(files_of_pair(&mut rest))
    });
    Ok(files.collect())
}

/// Reads `:MODE MODE ID ID STATUS` and the path of each file, then `ADDED DELETED PATH` of each.
fn files_of_pair(rest: &mut &[u8]) -> Vec<File> {
    let mut changes = Vec::new();
    while rest.starts_with(b":") {
        changes.push(match field(rest).last() {
            Some(b'A') => FileChange::Added,
            Some(b'D') => FileChange::Deleted,
            _ => FileChange::Modified,
        });
        field(rest);
    }
    let file = |change| {
        let line = String::from_utf8_lossy(field(rest));
        let mut fields = line.splitn(3, '\t');
        // `-` for a binary file.
        let mut lines = || fields.next().and_then(|number| number.parse().ok());
        let (added, deleted) = (lines(), lines());
        File { path: fields.next().unwrap_or_default().to_owned(), change, added, deleted }
    };
    changes.into_iter().map(file).collect()
}

/// Removes the first field, which ends with a NUL, and returns it.
fn field<'p>(printed: &mut &'p [u8]) -> &'p [u8] {
    let end = printed.iter().position(|byte| *byte == 0).unwrap_or(printed.len());
    let (field, rest) = printed.split_at(end);
    *printed = rest.get(1..).unwrap_or_default();
    field
}

/// Runs a step for all items with one process. If that fails, runs it for each item, so that a damaged repository
/// hides only the results that depend on the damage.
pub(super) fn each<T, R>(
    items: &[T],
    step: impl Fn(&[T]) -> Result<Vec<R>, process::Error>,
) -> Vec<Result<R, String>> {
    if items.is_empty() {
        return Vec::new();
    }
    let alone = |item: &T| {
        let mut results = step(std::slice::from_ref(item)).map_err(|error| error.to_string())?;
        results.pop().ok_or_else(|| "git printed no result".to_owned())
    };
    match step(items) {
        Ok(results) if results.len() == items.len() => results.into_iter().map(Ok).collect(),
        _ => items.iter().map(alone).collect(),
    }
}
