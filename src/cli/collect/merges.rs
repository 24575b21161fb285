//! Commands that merge the results of sessions.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};

use seedbed::collect::{Collected, Outcome, Source, WorktreeName};
use seedbed::host::text::shell_quoted;
use seedbed::host::{Host, git::Git};
use seedbed::provider::git_worktree;

use super::super::exit::Failure;

/// Ref of a repository into which worktrees are merged.
#[derive(Clone, PartialEq, Eq)]
struct Target<'a> {
    repository: PathBuf,
    /// Branch without `refs/heads/`, or another ref.
    name: &'a str,
}

/// Branch as Git knows it.
struct Branch {
    /// Shortest name by which Git finds the branch, even if a tag has the same name.
    name: String,
    /// Worktree in which it is checked out.
    checkout: Option<PathBuf>,
}

/// Returns commands that merge the worktrees, in the order that was found, into their refs. Refs that are branches of
/// worktrees get their merges before they are merged themselves.
///
/// `names` has the refs of worktrees of other hosts, whose branches are not in the repository.
///
/// The commands of the workspace's own repository name no directory if the user `is_in_workspace`.
pub(in super::super) fn commands(
    host: &Host,
    workspace: &Path,
    is_in_workspace: bool,
    sources: &[Source<'_>],
    (collected, names): (&Collected, &BTreeMap<WorktreeName, String>),
) -> Result<Vec<String>, Failure> {
    let mut commands = Vec::new();
    for (target, merges) in targets(workspace, sources, collected) {
        let git = &Git::discover(host, &target.repository);
        let of_merges = merges.iter().filter_map(|result| result.branch.as_deref()).chain([target.name]);
        let branches = branches(git, of_merges)?;
        let checkout = branches.get(target.name).and_then(|branch| branch.checkout.as_ref());
        let is_elsewhere = checkout.is_some_and(|checkout| *checkout != target.repository);
        let directory = checkout.unwrap_or(&target.repository);
        let shown = shell_quoted(&directory.to_string_lossy());
        let is_own = directory == workspace && is_in_workspace;
        let command = if is_own { "git".to_owned() } else { format!("git -C {shown}") };
        match branches.contains_key(target.name) {
            true if is_elsewhere => {}
            true => commands.push(format!("{command} switch {}", shell_quoted(target.name))),
            false if target.name == "HEAD" => {}
            false => {
                let place = if is_own { String::new() } else { format!("in {shown}, ") };
                let name = target.name;
                commands
                    .push(format!("# {place}switch to the branch that is to get the commits beyond {name}"));
            }
        }
        for result in merges {
            let Some(work) = &result.work else { continue };
            let branch = result.branch.as_ref().and_then(|branch| branches.get(branch));
            let merged = branch.map_or(&work.head, |branch| &branch.name);
            let merged = names.get(&result.name()).unwrap_or(merged);
            commands.push(format!("{command} merge --no-ff {}", shell_quoted(merged)));
        }
    }
    Ok(commands)
}

/// Returns the refs into which worktrees are merged, each with its merges, in the order of the commands.
fn targets<'a>(
    workspace: &Path,
    sources: &[Source<'a>],
    collected: &'a Collected,
) -> Vec<(Target<'a>, Vec<&'a Outcome>)> {
    let pairs = sources.iter().zip(&collected.results);
    let edges: Vec<(Target<'_>, Option<Target<'_>>, &Outcome)> = pairs
        .map(|(source, result)| {
            let of = |name| Target {
                repository: git_worktree::repository_directory(workspace, &source.worktree),
                name,
            };
            let into = result.into.strip_prefix("refs/heads/").unwrap_or(&result.into);
            (of(into), result.branch.as_deref().map(of), result)
        })
        .collect();
    let by_name: BTreeMap<WorktreeName, &(Target<'_>, Option<Target<'_>>, &Outcome)> =
        edges.iter().map(|edge| (edge.2.name(), edge)).collect();
    let mut targets: Vec<(Target<'_>, Vec<&Outcome>)> = Vec::new();
    let mut left: VecDeque<_> =
        collected.merge_order.iter().filter_map(|name| by_name.get(name).copied()).collect();
    while let Some((into, _, result)) = left.pop_front() {
        match targets.iter_mut().find(|(known, _)| known == into) {
            Some((_, merges)) if merges.iter().any(|known| known.name() == result.name()) => {}
            Some((_, merges)) => merges.push(result),
            None => {
                targets.push((into.clone(), vec![result]));
                // A worktree that gets commits by a merge has commits to merge then.
                left.extend(edges.iter().filter(|(_, branch, _)| branch.as_ref() == Some(into)));
            }
        }
    }
    // Number of merges until commits of the target are in a ref that is no worktree's branch.
    let depth = |target: &Target<'_>| {
        let next = |at: &&Target<'_>| {
            edges.iter().find(|(_, branch, _)| branch.as_ref() == Some(*at)).map(|(into, ..)| into)
        };
        std::iter::successors(Some(target), next).take(edges.len() + 1).count()
    };
    targets.sort_by_key(|(target, _)| std::cmp::Reverse(depth(target)));
    targets
}

/// Returns those of the branches that exist, by name.
fn branches<'a>(
    git: &Git<'_>,
    names: impl Iterator<Item = &'a str>,
) -> Result<HashMap<String, Branch>, Failure> {
    let command = ["for-each-ref", "--format=%(refname)%00%(refname:short)%00%(worktreepath)%00"];
    let full = names.map(|name| format!("refs/heads/{name}"));
    let printed = git.line(command.map(str::to_owned).into_iter().chain(full))?;
    let fields: Vec<&str> = printed.split('\0').collect();
    let known = fields.chunks_exact(3).filter_map(|fields| {
        let full = fields[0].trim_start_matches('\n').strip_prefix("refs/heads/")?;
        let checkout = Some(fields[2]).filter(|path| !path.is_empty()).map(PathBuf::from);
        Some((full.to_owned(), Branch { name: fields[1].to_owned(), checkout }))
    });
    Ok(known.collect())
}
