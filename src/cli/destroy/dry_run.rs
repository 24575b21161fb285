//! `destroy --dry-run`: shows the effects of the same command without it.

use std::fmt::Write as _;
use std::process::ExitCode;

use seedbed::apply::{self, Occupants, SessionFinding, Unsaved};
use seedbed::host::text::printable;
use seedbed::report::event::DryRun;

use super::super::exit::{Failure, Status, repository_remedy, uninspected};
use super::super::plan::settled;
use super::super::project::Project;
use super::super::suggestion::pasteable;
use super::super::{Global, applied_here, output, relocation};
use super::{
    Arguments, Selection, Target, impact, listed, not_released, occupancy, refuses, selection, targets,
};

/// Prints the effects of the same command without `--dry-run`; both decide with the same code on the same inspection.
pub(super) fn dry_run(
    global: &Global,
    project: &Project,
    arguments: &Arguments,
) -> Result<ExitCode, Failure> {
    let swarm = project.swarm()?;
    relocation::refuse_strays(&swarm, &project.registry)?;
    settled(&swarm)?;
    let Some(record) = swarm.applied()? else {
        if global.json {
            output::print_line(DryRun::default());
        } else if !global.quiet {
            say!("{}", applied_here::with_others(&swarm, "nothing is applied".to_owned())?);
        }
        return Ok(Status::Done.into());
    };
    let Selection { destroy, named, kept: unmatched, unusable, is_empty } =
        selection(project, arguments, &swarm, &record)?;
    let targets = if is_empty { Vec::new() } else { targets(&swarm, &record, &destroy, &named) };
    let (impact, sessions) = impact(project, &targets)?;
    let mut branches = Vec::new();
    for Target { swarm, record, destroy } in &targets {
        branches.extend(apply::kept_branches(swarm, &project.registry, record, destroy.sessions_of(record))?);
    }
    global.unless_interrupted()?;
    let refused = impact.refused(destroy.unsaved);
    let occupancy = occupancy(project, &targets)?;
    let stops = destroy.occupants != Occupants::Refuse;
    let is_refused = !unusable.is_empty()
        || !refused.is_empty()
        || occupancy.occupants.iter().any(|one| refuses(one, stops));
    let work = impact.refused(Unsaved::Keep);
    if global.json {
        let is_rescued = destroy.unsaved == Unsaved::Rescue;
        output::print_line(DryRun {
            refused: is_refused,
            sessions,
            branches,
            occupants: occupancy.occupants.clone(),
            uninspected: occupancy.uninspected,
            unsaved_work: work,
            rescued: if is_rescued { impact.work.clone() } else { Vec::new() },
            also_removed: impact.also_removed,
            unmatched,
        });
    } else {
        let lines = |word: &str, findings: &[&SessionFinding]| -> String {
            let line = |finding: &&SessionFinding| {
                format!("  {}: {word}{}\n", finding.session, printable(&finding.description))
            };
            findings.iter().map(line).collect()
        };
        let would = match destroy.unsaved {
            Unsaved::Keep => "",
            Unsaved::Rescue => "would be rescued: ",
            Unsaved::Discard => "would be discarded: ",
        };
        let (kept, blocking): (Vec<_>, Vec<_>) = work.iter().partition(|finding| !refused.contains(finding));
        let what = if sessions.is_empty() { "nothing".to_owned() } else { listed(&sessions) };
        let mut text = format!("would release {what}\n");
        text.extend(unmatched.iter().map(|finding| format!("  {}\n", not_released(finding))));
        for kept in &branches {
            text.extend(["  ", &output::kept_branch(kept), "\n"]);
        }
        text += &lines("refused: ", &blocking);
        text += &lines(would, &kept);
        text += &lines("", &impact.also_removed.iter().collect::<Vec<_>>());
        for occupant in &occupancy.occupants {
            let would = match (refuses(occupant, stops), occupant.is_refusal()) {
                (true, _) => "refused: ",
                (false, true) => "would be ended: ",
                (false, false) => "",
            };
            let line = printable(&occupant.described());
            let _ = writeln!(text, "  {}: {would}{line}", occupant.session);
        }
        if !unusable.is_empty() && !global.quiet {
            say!("{}", pasteable(&repository_remedy(&unusable)));
        }
        if occupancy.uninspected > 0 && global.verbose {
            say!("{}", uninspected(occupancy.uninspected));
        }
        output::print(&text);
    }
    Ok(if is_refused { Status::Refused } else { Status::Done }.into())
}
