//! `destroy` and `recover`: takes leases away, never unsaved work.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::Args;
use seedbed::apply::{self, AtStake, Context, Destroy, Event, Loss, Recovered, Relation, Unsaved};
use seedbed::host::Host;
use seedbed::host::text::printable;
use seedbed::name::SessionPath;
use seedbed::orchestrator::{Orchestrator, Recovery};
use seedbed::state::{self, Record, Swarm};

use super::exit::{Failure, Status};
use super::locked::{self, locked, recover as recover_first};
use super::outcome::{self, DryRun, Outcome};
use super::plan::settled;
use super::setting::{self, Setting};
use super::unsaved::UnsavedWork;
use super::{Global, completions, elsewhere, print, standing};

/// What `destroy` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The sessions to release, each with everything below it; default: all
    #[arg(add = completions::standing())]
    sessions: Vec<String>,
    #[command(flatten)]
    unsaved: UnsavedWork,
    /// Says what would be released, lost and rescued, and changes nothing; exits with 69 where it would be refused
    #[arg(long)]
    dry_run: bool,
    /// Remove what is kept of a swarm whose workspace was deleted: the swarm is named as `seedbed list` does, or by its
    /// workspace
    #[arg(long, conflicts_with = "dry_run")]
    gone: bool,
}

/// What `recover` takes. Where neither is said, what the interrupted run was told holds.
#[derive(Debug, Args)]
pub(super) struct RecoverArguments {
    #[command(flatten)]
    unsaved: UnsavedWork,
    /// Rebind what was applied in this workspace before it was moved: worktrees, leases, discovery files
    #[arg(long, conflicts_with = "copied")]
    moved: bool,
    /// Give worktrees that were copied with this workspace to a swarm of its own, without ports; the original is not touched
    #[arg(long)]
    copied: bool,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    if arguments.gone {
        let [name] = &arguments.sessions[..] else {
            return Err(Failure::Usage("say which swarm: seedbed destroy SWARM --gone".to_owned()));
        };
        let released = elsewhere::destroy_gone(global, name, arguments.unsaved.into())?;
        if global.json {
            super::print::json(&Outcome::destroyed(released, 0));
        } else if !global.quiet {
            say!("{released} session(s) of a workspace that is gone were released; nothing is left");
        }
        return Ok(Status::Done.into());
    }
    let setting = Setting::find(global)?;
    if arguments.dry_run {
        return dry_run(global, &setting, arguments);
    }
    let kept = AtomicUsize::new(0);
    let done = locked(global, &setting, "destroy", |context| {
        let events = |event: &Event| {
            let stays = matches!(event, Event::BranchKept(_) | Event::Rescued { .. });
            kept.fetch_add(usize::from(stays), Ordering::Relaxed);
            (context.events)(event);
        };
        let context = &Context { events: &events, ..*context };
        recover_first(global, context, arguments.unsaved.into())?;
        let Some(record) = context.swarm.standing()? else { return Ok(None) };
        let (destroy, named) = what(arguments, context.swarm, &record)?;
        let mut released = 0;
        for (child, record) in &named {
            released += destroy_child(context, child, record, destroy.unsaved)?;
        }
        if named.is_empty() || !destroy.sessions.is_empty() {
            released += destroy.children_of(context.swarm.host(), &record)?.len();
            let after = apply::destroy(context, &record, &destroy)?;
            let left = after.as_ref().map_or(0, |record| record.plan.sessions.len());
            released += record.plan.sessions.len() - left;
            return Ok(Some((released, left + children(context, after.as_ref())?)));
        }
        Ok(Some((released, record.plan.sessions.len() + children(context, Some(&record))?)))
    })?;
    let (released, left) = done.unwrap_or_default();
    if global.json {
        super::print::json(&Outcome::destroyed(released, left));
    } else if !global.quiet {
        match done {
            None => say!("nothing stands"),
            Some((released, 0)) => match kept.into_inner() {
                0 => say!("{released} session(s) released; nothing is left"),
                kept => say!(
                    "{released} session(s) released; what is named above stays: {kept} branch(es) or rescue ref(s)"
                ),
            },
            Some((released, left)) => say!("{released} session(s) released, {left} left standing"),
        }
    }
    Ok(Status::Done.into())
}

/// How many children programs have provisioned from what is left.
fn children(context: &Context<'_>, left: Option<&Record>) -> Result<usize, Failure> {
    Ok(left.map_or(Ok(0), |left| state::children(context.swarm.host(), left).map(|found| found.len()))?)
}

/// What the arguments ask to release: sessions of the swarm, and children of them by their ids.
fn what<'h>(
    arguments: &Arguments,
    swarm: &Swarm<'h>,
    record: &Record,
) -> Result<(Destroy, Vec<(Swarm<'h>, Record)>), Failure> {
    let mut destroy = Destroy { unsaved: arguments.unsaved.into(), children: true, ..Destroy::default() };
    let mut children = standing::children(swarm, record)?;
    let mut named = BTreeSet::new();
    for name in &arguments.sessions {
        match standing::session(record, name) {
            Ok(session) => {
                destroy.sessions.insert(session.path.clone());
            }
            Err(failure) if !children.iter().any(|(child, _)| child.name() == name) => return Err(failure),
            Err(_) => {
                named.insert(name.as_str());
            }
        }
    }
    // One below another that is named, or below a session, goes with that.
    let goes_along = |child: &Record| {
        child.ancestors.iter().any(|above| {
            named.contains(above.as_str())
                || destroy.sessions.iter().any(|path| path.id(&record.plan.swarm) == *above)
        })
    };
    children.retain(|(child, record)| named.contains(child.name()) && !goes_along(record));
    Ok((destroy, children))
}

/// Releases a child that a program has provisioned, and its own children before it. How many those are is returned.
fn destroy_child(
    context: &Context<'_>,
    child: &Swarm<'_>,
    record: &Record,
    unsaved: Unsaved,
) -> Result<usize, Failure> {
    let locked = child.lock(Duration::ZERO, "destroy")?;
    let of_child = Context { swarm: &locked, registry: context.registry, events: context.events };
    let destroy = Destroy { unsaved, children: true, ..Destroy::default() };
    let done = || {
        apply::recover(&of_child, unsaved)?;
        let count = destroy.children_of(child.host(), record)?.len();
        match locked.standing()? {
            Some(record) => apply::destroy(&of_child, &record, &destroy).map(|_| count + 1),
            None => Ok(count),
        }
    };
    let done = done();
    // What was done counts; at worst an empty file stays behind.
    let _ = locked.unlock();
    Ok(done?)
}

/// Says what the real one would do. It decides with the same code, by the same look.
fn dry_run(global: &Global, setting: &Setting, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let swarm = setting.swarm()?;
    settled(&swarm)?;
    let Some(record) = swarm.standing()? else {
        if global.json {
            super::print::json(&DryRun::DryRun {
                schema_version: outcome::SCHEMA_VERSION,
                refused: false,
                sessions: Vec::new(),
                branches: Vec::new(),
                losses: Vec::new(),
                rescued: Vec::new(),
                goes_along: Vec::new(),
            });
        } else if !global.quiet {
            say!("nothing stands");
        }
        return Ok(Status::Done.into());
    };
    let (destroy, named) = what(arguments, &swarm, &record)?;
    let mut stake = AtStake::default();
    let mut sessions = Vec::new();
    let mut branches = Vec::new();
    let everything = Destroy { sessions: BTreeSet::new(), ..destroy.clone() };
    let own = (named.is_empty() || !destroy.sessions.is_empty()).then_some((&swarm, &record, &destroy));
    let named = named.iter().map(|(child, record)| (child, record, &everything));
    for (swarm, record, destroy) in named.chain(own) {
        stake.add(apply::at_stake(swarm, &setting.registry, record, destroy)?);
        let children = destroy.children_of(swarm.host(), record)?;
        sessions.extend(children.iter().rev().map(|child| child.name().to_owned()));
        sessions.extend(destroy.sessions_of(record).map(|session| session.path.to_string()));
        branches.extend(apply::kept(swarm, &setting.registry, record, destroy.sessions_of(record))?);
    }
    global.unless_interrupted()?;
    let refused = stake.refused(destroy.unsaved);
    let work = [&stake.held, &stake.obstacles, &stake.beyond_rescue, &stake.unknown, &stake.work]
        .map(|losses| losses.iter());
    let work: Vec<_> = work.into_iter().flatten().collect();
    if global.json {
        let is_rescued = destroy.unsaved == Unsaved::Rescue;
        super::print::json(&DryRun::DryRun {
            schema_version: outcome::SCHEMA_VERSION,
            refused: !refused.is_empty(),
            sessions: sessions.iter().map(|session| SessionPath::alone(session)).collect(),
            branches,
            losses: work.into_iter().cloned().collect(),
            rescued: if is_rescued { stake.work.clone() } else { Vec::new() },
            goes_along: stake.passing,
        });
    } else {
        let lines = |word: &str, losses: &[&Loss]| -> String {
            let line = |loss: &&Loss| format!("  {}: {word}{}\n", loss.session, printable(&loss.what));
            losses.iter().map(line).collect()
        };
        let would = match destroy.unsaved {
            Unsaved::Keep => "",
            Unsaved::Rescue => "would be rescued: ",
            Unsaved::Discard => "would be given up: ",
        };
        let (kept, blocking): (Vec<_>, Vec<_>) = work.into_iter().partition(|loss| !refused.contains(loss));
        let mut text = format!("would release {}\n", sessions.join(", "));
        for kept in &branches {
            text.extend(["  ", &print::kept(kept), "\n"]);
        }
        text += &lines("refused: ", &blocking);
        text += &lines(would, &kept);
        text += &lines("", &stake.passing.iter().collect::<Vec<_>>());
        super::print::out(&text);
    }
    Ok(if refused.is_empty() { Status::Done } else { Status::Refused }.into())
}

pub(super) fn recover(global: &Global, arguments: &RecoverArguments) -> Result<ExitCode, Failure> {
    let setting = Setting::find_if_any(global)?;
    if arguments.moved || arguments.copied {
        recover_elsewhere(global, setting.as_ref(), arguments)?;
    }
    let (recovered, workspace, host) = if let Some(setting) = &setting {
        let recovered = locked(global, setting, "recover", |context| {
            recover_first(global, context, arguments.unsaved.into())
        })?;
        (recovered, setting.swarm()?.workspace().to_owned(), setting.host.clone())
    } else {
        let host = setting::host(global)?;
        let workspace = setting::around(&host, &setting::directory(global)?)?;
        (Recovered::Nothing, workspace, host)
    };
    let alone = recover_alone(global, host, &workspace, arguments)?;
    if setting.is_none() && alone.is_empty() {
        // Without a manifest there may be a swarm that nobody has looked for.
        Setting::find(global)?;
    }
    if global.json {
        super::print::json(&Outcome::recovered(recovered.into(), alone));
    } else if recovered == Recovered::Nothing && alone.is_empty() && !global.quiet {
        say!("nothing to recover");
    }
    Ok(Status::Done.into())
}

/// Rebinds what was moved here, or takes in what was copied here.
fn recover_elsewhere(
    global: &Global,
    setting: Option<&Setting>,
    arguments: &RecoverArguments,
) -> Result<(), Failure> {
    let host = setting::host(global)?;
    let registry = setting::registry();
    let workspace = match setting {
        Some(setting) => setting.swarm()?.workspace().to_owned(),
        None => setting::around(&host, &setting::directory(global)?)?,
    };
    let relation = if arguments.moved { Relation::Moved } else { Relation::Copied };
    let count = elsewhere::recover(global, &host, &registry, &workspace, relation)?;
    if count == 0
        && let Some(setting) = setting
    {
        elsewhere::rebind(global, &registry, &setting.swarm()?)?;
    }
    Ok(())
}

/// Puts right what interrupted runs of sessions on their own have left in this workspace.
fn recover_alone(
    global: &Global,
    host: Host,
    workspace: &Path,
    arguments: &RecoverArguments,
) -> Result<BTreeMap<String, outcome::Recovered>, Failure> {
    let orchestrator = Orchestrator::with_registry(host, setting::registry());
    let patience = global.lock_timeout.unwrap_or(state::ORPHANS_TIMEOUT);
    let found = orchestrator.recover(workspace, arguments.unsaved.into(), patience);
    let mut done = BTreeMap::new();
    let mut failure = None;
    for Recovery { session_id: id, done: recovered } in
        found.map_err(|error| Failure::of_session(None, error))?
    {
        match recovered {
            Ok(recovered) => {
                if !global.quiet && !global.json {
                    let what = printable(locked::said(recovered));
                    say!("session {}: {what}", printable(&id));
                }
                done.insert(id, recovered.into());
            }
            Err(error) => {
                failure.get_or_insert(Failure::of_session(Some(&id), error));
            }
        }
    }
    failure.map_or(Ok(done), Err)
}
