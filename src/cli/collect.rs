//! `collect`: shows the results of sessions: commits, changes, conflicts, and whether they have landed.

mod page;
mod text;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use seedbed::apply::{self, Destroy, Loss};
use seedbed::collect::{self, Collected, Source};
use seedbed::host::text::shell_quoted;
use seedbed::host::{self, Host, git::Git};
use seedbed::name::SessionPath;
use seedbed::plan::Session;
use seedbed::provider::git_worktree::{self, Worktree};
use seedbed::report::SCHEMA_VERSION;
use seedbed::report::collected::{CollectedSession, CollectedSwarm};

use super::exit::{Failure, Status};
use super::lookup::{Active, Family};
use super::plan_format::choose;
use super::project::Project;
use super::{Global, completions, output, project};

/// Arguments of `collect`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Sessions: paths, names, names of replicas without their number, or globs [default: all]
    #[arg(add = completions::active_sessions())]
    sessions: Vec<String>,
    /// Compare with this ref [default: the base ref of each session]
    #[arg(long, value_name = "REF")]
    into: Option<String>,
    /// Format of the report
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// Write a bundle and a patch of each session into this new directory
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Copy the files of each worktree that match into the directory of `-o`: `'test-results/**'`
    #[arg(long, value_name = "GLOB", requires = "output")]
    artifacts: Vec<String>,
}

/// Formats of the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Table of sessions
    #[default]
    Text,
    /// Document with all commits and files
    Json,
    /// Comment for a pull request
    Markdown,
    /// Self-contained HTML page
    Html,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let format = choose(global, arguments.format, Format::Json)?;
    let project = Project::find_applied(global)?;
    let family = Family::find(project.swarm()?, project.name())?;
    let sessions = family.requested(&arguments.sessions)?;
    let workspace = family.swarm.workspace();
    let host = family.swarm.host();
    let worktrees: Vec<(Active<'_>, Source<'_>)> = sessions
        .into_iter()
        .filter_map(|active| {
            let worktree = worktree(active.session)?;
            Some((active, Source { session: &active.session.path, worktree }))
        })
        .collect();
    let (sessions, sources): (Vec<_>, Vec<_>) = worktrees.into_iter().unzip();
    if let Some(line) = not_collected(&sessions).filter(|_| !global.quiet) {
        say!("{line}");
    }
    let collected = collect::collect(host, workspace, &sources, arguments.into.as_deref());
    let collected = collected.map_err(Failure::from_error)?;
    let directories = sources
        .iter()
        .map(|source| (source.session, git_worktree::repository_directory(workspace, &source.worktree)));
    let merge_commands = merge_commands(host, workspace, &directories.collect(), &collected)?;
    let exported = match &arguments.output {
        None => Vec::new(),
        Some(directory) => {
            let directory = host::absolute(&project::directory(global)?, directory);
            let results = &collected.results;
            collect::export(host, workspace, &sources, results, &arguments.artifacts, &directory)
                .map_err(Failure::from_error)?
        }
    };
    let mut unsaved = unsaved(&project, &sessions)?;
    global.unless_interrupted()?;
    let mut exported = exported.into_iter();
    let results = sessions.iter().zip(collected.results).map(|(active, outcome)| CollectedSession {
        id: active.session.id.clone(),
        outcome,
        unsaved: unsaved.remove(&active.session.id).unwrap_or_default(),
        exported: exported.next(),
    });
    let document = CollectedSwarm {
        schema_version: SCHEMA_VERSION,
        swarm: family.record.plan.swarm().to_owned(),
        workspace: workspace.to_owned(),
        sessions: results.collect(),
        overlaps: collected.overlaps,
        conflicts: collected.conflicts,
        conflicts_unknown: collected.conflicts_unknown,
        merge_commands,
    };
    match format {
        Format::Text => output::print(&text::text(&document, global.verbose)),
        Format::Json => output::print_json_pretty(&document),
        Format::Markdown => output::print(&page::markdown(&document)),
        Format::Html => output::print(&page::html(&document)),
    }
    Ok(Status::Done.into())
}

fn worktree(session: &Session) -> Option<Worktree> {
    Worktree::from_allocation(session.allocations_of(git_worktree::KIND).next()?)
}

/// Returns a line that names the worktrees whose commits are left out: all but the first of each session.
fn not_collected(sessions: &[Active<'_>]) -> Option<String> {
    let names = sessions.iter().flat_map(|active| {
        let worktrees = active.session.allocations_of(git_worktree::KIND).skip(1);
        worktrees.map(|worktree| format!("{} {}", active.session.path, worktree.name()))
    });
    let names: Vec<_> = names.collect();
    let line = || format!("only the first worktree of a session is collected, not: {}", names.join(", "));
    (!names.is_empty()).then(line)
}

/// Returns the work of sessions that no commit has, by session id.
fn unsaved(project: &Project, sessions: &[Active<'_>]) -> Result<BTreeMap<String, Vec<String>>, Failure> {
    let mut swarms = BTreeMap::new();
    for Active { swarm, record, session } in sessions {
        let (.., released) = swarms.entry(swarm.key()).or_insert_with(|| (swarm, record, Destroy::default()));
        released.sessions.insert(session.path.clone());
    }
    let mut unsaved: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (swarm, record, released) in swarms.values() {
        let impact = apply::release_impact(swarm, &project.registry, record, released)?;
        for Loss { session, what, .. } in [impact.work, impact.beyond_rescue, impact.unknown].concat() {
            unsaved.entry(session.id(record.plan.swarm())).or_default().push(what);
        }
    }
    Ok(unsaved)
}

/// Returns the shortest name by which Git finds a branch, even if a tag has the same name.
fn branch_name(git: &Git<'_>, branch: &str) -> Result<String, Failure> {
    let full = format!("refs/heads/{branch}");
    Ok(git.line(["for-each-ref", "--format=%(refname:short)", full.as_str()])?)
}

/// Returns commands that merge the sessions, in the order that was found, into their refs, if these are branches.
fn merge_commands(
    host: &Host,
    workspace: &Path,
    directories: &HashMap<&SessionPath, PathBuf>,
    collected: &Collected,
) -> Result<Vec<String>, Failure> {
    let mut commands = Vec::new();
    let mut targets: Vec<(&Path, &str)> = Vec::new();
    let merges = collected.merge_order.iter();
    let merges = merges.filter_map(|session| collected.results.iter().find(|one| one.session == *session));
    let merges: Vec<_> = merges.collect();
    for result in &merges {
        let target = (directories[&result.session].as_path(), result.into.as_str());
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    for (directory, target) in targets {
        let git = &Git::discover(host, directory);
        // Commands in the workspace's own repository need no directory.
        let command = if directory == workspace {
            "git".to_owned()
        } else {
            format!("git -C {}", shell_quoted(&directory.to_string_lossy()))
        };
        let name = target.strip_prefix("refs/heads/").unwrap_or(target);
        let branch = format!("refs/heads/{name}");
        let found = git.output(["rev-parse", "--verify", "--quiet", "--end-of-options", branch.as_str()])?;
        match found.status.success() {
            true => commands.push(format!("{command} switch {}", shell_quoted(name))),
            false if target == "HEAD" => {}
            false => {
                commands.push(format!("# switch to the branch that is to get the commits beyond {target}"));
            }
        }
        let of_target =
            merges.iter().filter(|result| result.into == target && directories[&result.session] == directory);
        for result in of_target {
            let Some(work) = &result.work else { continue };
            let name = result.branch.as_deref().map(|branch| branch_name(git, branch)).transpose()?;
            let source = name.filter(|name| !name.is_empty()).unwrap_or_else(|| work.head.clone());
            commands.push(format!("{command} merge --no-ff {}", shell_quoted(&source)));
        }
    }
    Ok(commands)
}
