//! `doctor`: problems of this host, repository and manifest, each with a remedy.

use std::process::ExitCode;

use clap::Args;
use seedbed::doctor::{self, Case, Finding, Reaped, Severity};
use seedbed::host::leases::{Lease, Leased};
use seedbed::host::text::{printable, tree_size};
use seedbed::plan::Plan;
use seedbed::report::{self, Diagnosis, Ports, ReapedLease, SCHEMA_VERSION, error};

use super::exit::{Failure, Status};
use super::project::{self, Project};
use super::suggestion::pasteable;
use super::{Global, output, plan, relocation};

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Remove leases and lock files of ports that are provably orphaned, and seeds that are not used any more
    #[arg(long)]
    reap: bool,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let Some(project) = Project::find_if_any(global)? else {
        let host = project::host(global)?;
        let workspace = project::around(&host, &project::directory(global)?)?;
        return examine(global, arguments, &Case::new(&host, &workspace));
    };
    let swarm = project.swarm()?;
    let planned = planned(&project)?;
    let plan = planned.as_ref().map(|planned| planned.as_ref().map_err(String::as_str));
    let case = Case::new(swarm.host(), swarm.workspace());
    examine(global, arguments, &plan.map_or(case, |plan| case.with_plan(plan)))
}

/// Returns the plan of the manifest, or the reason why there is none.
///
/// `None` while a run of the swarm is unresolved, or if the swarm was moved or copied here. A moved or copied swarm is
/// a finding of its own.
fn planned(project: &Project) -> Result<Option<Result<Plan, String>>, Failure> {
    let swarm = project.swarm()?;
    if plan::settled(&swarm).is_err() || relocation::refuse_strays(&swarm, &project.registry).is_err() {
        return Ok(None);
    }
    let planned =
        project.manifest().and_then(|manifest| plan::make_without_programs(project, &swarm, &manifest));
    Ok(Some(match planned {
        Ok((plan, _)) => Ok(plan),
        Err(failure) => Err(format!("the manifest cannot be planned: {}", failure.summary())),
    }))
}

fn examine(global: &Global, arguments: &Arguments, case: &Case<'_>) -> Result<ExitCode, Failure> {
    let reaped = if arguments.reap {
        doctor::reap(case)
            .map_err(|error| Failure::new(error::REAP_FAILED, format!("nothing was reaped: {error}")))?
    } else {
        Reaped::default()
    };
    let findings = doctor::inspect(case);
    global.unless_interrupted()?;
    let fails = findings.iter().any(|finding| finding.severity == Severity::Fails);
    if global.json {
        let lease = |lease: &Lease| {
            let ports = lease.ports().map(|ports| Ports { start_port: ports.start(), end_port: ports.end() });
            let (pool, item) = match &lease.resource {
                Leased::Item { pool, item } => (Some(pool.clone()), Some(item.clone())),
                _ => (None, None),
            };
            ReapedLease { session: lease.session.clone(), ports, pool, item }
        };
        let leases = reaped.leases.iter().map(lease).collect();
        output::print_json_pretty(&Diagnosis {
            schema_version: SCHEMA_VERSION,
            workspace: case.workspace.to_owned(),
            findings,
            reaped: report::Reaped { leases, lock_files: reaped.lock_files, seeds: reaped.seeds },
        });
    } else {
        for lease in &reaped.leases {
            let of = format!("{} of {}", lease.resource, lease.session);
            say!("reaped the lease of {}", printable(&of));
        }
        for path in &reaped.lock_files {
            say!("reaped {}", printable(&path.to_string_lossy()));
        }
        for seed in &reaped.seeds {
            let of = format!("{} of {}", seed.path, seed.repository.display());
            let size = tree_size(seed.files, seed.bytes, seed.shared_bytes);
            say!("reaped the seed {}: {size}", printable(&of));
        }
        output::print(&findings.iter().map(text_of).collect::<String>());
        if findings.is_empty() && !global.quiet {
            say!("no problem found");
        }
    }
    Ok(if fails { Status::Failed } else { Status::Done }.into())
}

/// Formats a finding as two lines: the problem and the remedy.
fn text_of(finding: &Finding) -> String {
    let severity = finding.severity.as_str();
    let id = serde_json::to_value(finding.id).unwrap_or_default();
    let id = id.as_str().unwrap_or_default();
    let (description, remedy) = (printable(&finding.description), pasteable(&printable(&finding.remedy)));
    format!("{severity}  {id}: {description}\n       {remedy}\n")
}
