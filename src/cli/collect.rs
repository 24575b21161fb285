//! `collect`: shows the results of sessions: commits, changes, conflicts, and whether they have landed.

pub(super) mod merges;
mod page;
mod text;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use seedbed::apply::{self, Destroy, FindingKind, SessionFinding};
use seedbed::collect::{self, Source};
use seedbed::host;
use seedbed::provider::git_worktree;
use seedbed::report::SCHEMA_VERSION;
use seedbed::report::collected::{CollectedSwarm, CollectedWorktree};
use seedbed::state::{Record, Swarm};

use super::exit::{Failure, Status};
use super::last_runs::last_runs;
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
    /// Compare with this ref of each repository [default: the base ref of each worktree]
    #[arg(long, value_name = "REF")]
    into: Option<String>,
    /// Format of the report
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// Write a bundle and a patch of each worktree into this new directory
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Copy the files of each worktree that match into the directory of `-o`: `'test-results/**'`
    #[arg(long, value_name = "GLOB", requires = "output")]
    artifacts: Vec<String>,
}

/// Formats of the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
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
    let sources: Vec<(Active<'_>, Source<'_>)> = sessions
        .iter()
        .flat_map(|active| Source::of_session(active.session).map(|source| (*active, source)))
        .collect();
    let (of_sources, sources): (Vec<_>, Vec<_>) = sources.into_iter().unzip();
    let collected = collect::collect(host, workspace, &sources, arguments.into.as_deref());
    let collected = collected.map_err(Failure::from_error)?;
    let is_in_workspace = global.directory.is_none() && project::directory(global)? == workspace;
    let no_names = BTreeMap::new();
    let merge_commands =
        merges::commands(host, workspace, is_in_workspace, &sources, (&collected, &no_names))?;
    let exported = match &arguments.output {
        None => Vec::new(),
        Some(directory) => {
            let directory = host::absolute(&project::directory(global)?, directory);
            let results = &collected.results;
            collect::export(host, workspace, &sources, results, &arguments.artifacts, &directory)
                .map_err(Failure::from_error)?
        }
    };
    let mut unsaved = unsaved(&project, &of_sources)?;
    let last_runs = last_runs(&of_sources);
    global.unless_interrupted()?;
    let mut exported = exported.into_iter();
    let worktrees = of_sources.iter().zip(collected.results).map(|(active, outcome)| {
        let key = (active.session.id.clone(), outcome.resource.clone());
        let Uncommitted { unsaved, unknown } = unsaved.remove(&key).unwrap_or_default();
        let (id, exported) = (active.session.id.clone(), exported.next());
        let last_run = last_runs.get(&id).cloned();
        let received = None;
        CollectedWorktree { id, outcome, unsaved, unsaved_unknown: unknown, last_run, exported, received }
    });
    let document = CollectedSwarm {
        schema_version: SCHEMA_VERSION,
        swarm: family.record.plan.swarm().to_owned(),
        workspace: workspace.to_owned(),
        worktrees: worktrees.collect(),
        overlaps: collected.overlaps,
        conflicts: collected.conflicts,
        conflicts_unknown: collected.conflicts_unknown,
        merge_commands,
        missing_hosts: Vec::new(),
    };
    print(&document, format, global.verbose);
    Ok(Status::Done.into())
}

/// Prints the results.
pub(super) fn print(document: &CollectedSwarm, format: Format, verbose: bool) {
    match format {
        Format::Text => output::print(&text::text(document, verbose)),
        Format::Json => output::print_json_pretty(document),
        Format::Markdown => output::print(&page::markdown(document)),
        Format::Html => output::print(&page::html(document)),
    }
}

/// Work in a worktree that no commit has.
#[derive(Default)]
pub(super) struct Uncommitted {
    pub(super) unsaved: Vec<String>,
    /// Reasons for which it is unknown whether there is work.
    pub(super) unknown: Vec<String>,
}

/// Returns the work of sessions that no commit has, by session id and name of the worktree. Work outside the worktrees
/// is listed with the first one.
pub(super) fn unsaved(
    project: &Project,
    sessions: &[Active<'_>],
) -> Result<BTreeMap<(String, String), Uncommitted>, Failure> {
    let mut swarms = BTreeMap::new();
    for Active { swarm, record, session } in sessions {
        let (.., released) = swarms.entry(swarm.key()).or_insert_with(|| (swarm, record, Destroy::default()));
        released.sessions.insert(session.path.clone());
    }
    let mut unsaved: BTreeMap<(String, String), Uncommitted> = BTreeMap::new();
    for (swarm, record, released) in swarms.values() {
        let impact = apply::release_impact(swarm, &project.registry, record, released)?;
        for SessionFinding { session, resource, description, kind, .. } in
            [impact.work, impact.beyond_rescue, impact.unknown].concat()
        {
            let Some(session) = record.plan.session(&session) else { continue };
            let worktrees = || session.allocations_of(git_worktree::KIND);
            let own = worktrees().find(|worktree| resource.as_deref() == Some(worktree.name()));
            let Some(worktree) = own.or_else(|| worktrees().next()) else { continue };
            let of_worktree = unsaved.entry((session.id.clone(), worktree.name().to_owned())).or_default();
            match kind {
                FindingKind::Unknown => of_worktree.unknown.push(description),
                _ => of_worktree.unsaved.push(description),
            }
        }
        add_unusable(project, swarm, record, &mut unsaved);
    }
    Ok(unsaved)
}

/// Adds the worktrees of repositories that cannot be used: without its repository, it is unknown which files of a
/// worktree are saved.
fn add_unusable(
    project: &Project,
    swarm: &Swarm<'_>,
    record: &Record,
    unsaved: &mut BTreeMap<(String, String), Uncommitted>,
) {
    for repository in apply::unusable_repositories(swarm, &project.registry, record) {
        for session in repository.sessions.iter().filter_map(|path| record.plan.session(path)) {
            for worktree in session.allocations_of(git_worktree::KIND) {
                let of_repository = git_worktree::Worktree::from_allocation(worktree);
                if of_repository.is_some_and(|of| of.repository_name() == repository.name) {
                    let key = (session.id.clone(), worktree.name().to_owned());
                    let Uncommitted { unsaved, unknown } = unsaved.entry(key).or_default();
                    // What is known without the repository is only a part.
                    unknown.append(unsaved);
                    if unknown.is_empty() {
                        unknown.push(repository.to_string());
                    }
                }
            }
        }
    }
}
