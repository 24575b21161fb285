//! `status`: every session, what it holds, what of it is unsaved, what listens on its ports.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use clap::Args;
use seedbed::apply::{self, Destroy, Loss, Repair};
use seedbed::host::text::printable;
use seedbed::name::{PortBlock, SessionPath};
use seedbed::observe::{self, Holder, Question};
use seedbed::plan::Session;
use seedbed::provider::port_range::Block;
use seedbed::review;
use serde_json::json;

use super::exit::{Failure, Status};
use super::locked::locked;
use super::setting::Setting;
use super::{Global, print, standing, unfinished};

/// What `status` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Puts back what can be where it stands: discovery files, locks of worktrees, leases of ports; exits with 1 where
    /// something is left, which `seedbed apply` makes anew
    #[arg(long)]
    repair: bool,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let setting = Setting::find(global)?;
    let swarm = setting.swarm()?;
    let record = standing::record(&swarm, setting.name())?;
    let found = swarm.found()?;
    let unfinished = found.map(|found| unfinished::described(&found, swarm.host())).unwrap_or_default();
    let repair = if arguments.repair { Some(repair(global, &setting)?) } else { None };
    let whole = |repair: &Repair| repair.left.is_empty() && repair.failures.is_empty();
    let status = if repair.as_ref().is_none_or(whole) { Status::Done } else { Status::Failed };
    let broken = apply::inspect(&swarm, &setting.registry, &record);
    let stake = apply::at_stake(&swarm, &setting.registry, &record, &Destroy::default())?;
    let observation = observe::observe(swarm.host(), swarm.workspace(), &BTreeSet::from([Question::Ports]))
        .map_err(Failure::Observe)?;
    let sockets: BTreeSet<u16> = observation
        .taken
        .iter()
        .filter(|taken| matches!(taken.by, Holder::Socket { .. }))
        .map(|taken| taken.block.start())
        .collect();

    let by_session = |losses: Vec<Loss>| {
        let mut sessions: BTreeMap<SessionPath, Vec<String>> = BTreeMap::new();
        for loss in losses {
            sessions.entry(loss.session).or_default().push(loss.what);
        }
        sessions
    };
    let mut unsaved = by_session([stake.obstacles, stake.work, stake.beyond_rescue].concat());
    let mut passing = by_session(stake.passing);
    let mut drifts: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for ((path, kind), damage) in &broken {
        drifts.entry(path).or_default().push(format!("{kind}: {}", damage.why));
    }
    let found = record.plan.sessions.iter().map(|session| {
        let drift = drifts.remove(&session.path).unwrap_or_default();
        let unsaved = unsaved.remove(&session.path).unwrap_or_default();
        let passing = passing.remove(&session.path).unwrap_or_default();
        Found { session, drift, unsaved, passing, listening: listening(session, &sockets) }
    });
    let found: Vec<_> = found.collect();
    global.unless_interrupted()?;
    if global.json {
        let mut document = json!({
            "schemaVersion": 1,
            "swarm": record.plan.swarm,
            "workspace": record.workspace,
            "plan": record.plan.digest,
            "interrupted": !unfinished.is_empty(),
            "unfinished": unfinished,
            "sessions": found.iter().map(Found::json).collect::<Vec<_>>(),
        });
        if let Some(Repair { repaired, left, failures }) = repair {
            document["repair"] = json!({ "repaired": repaired, "left": left, "failures": failures });
        }
        print::json_pretty(&document);
        return Ok(status.into());
    }
    for line in &unfinished {
        say!("{}", printable(line));
    }
    print::out(&print::table(&found.iter().map(Found::row).collect::<Vec<_>>()));
    Ok(status.into())
}

/// Repairs under the swarm's lock, and says what it did.
fn repair(global: &Global, setting: &Setting) -> Result<Repair, Failure> {
    let repair = locked(global, setting, "status --repair", |context| {
        super::plan::settled(context.swarm)?;
        let record = standing::record(context.swarm, setting.name())?;
        Ok(apply::repair(context, &record))
    })?;
    if global.json || global.quiet {
        return Ok(repair);
    }
    let say = |word: &str, Loss { session, what }: &Loss| {
        say!("{session}: {word}: {}", printable(what));
    };
    repair.repaired.iter().for_each(|line| say("repaired", line));
    repair.left.iter().for_each(|line| say("only `seedbed apply` repairs", line));
    for apply::Failure { session, step, cause, .. } in &repair.failures {
        say!("{session}: could not repair: {step}: {}", printable(cause));
    }
    Ok(repair)
}

struct Found<'r> {
    session: &'r Session,
    drift: Vec<String>,
    unsaved: Vec<String>,
    /// What would go with the session and is no reason to keep it.
    passing: Vec<String>,
    listening: Vec<u16>,
}

impl Found<'_> {
    fn row(&self) -> [String; 5] {
        let state = if self.drift.is_empty() { "sound".to_owned() } else { self.drift.join("; ") };
        let mut work = if self.unsaved.is_empty() { "clean".to_owned() } else { self.unsaved.join("; ") };
        if !self.passing.is_empty() {
            work = format!("{work} (not kept: {})", self.passing.join("; "));
        }
        let listening: Vec<_> = self.listening.iter().map(u16::to_string).collect();
        let ports = review::ports(self.session);
        let ports = if listening.is_empty() {
            ports
        } else {
            format!("{ports} (listening: {})", listening.join(", "))
        };
        let directory = self.session.working_directory.to_string_lossy().into_owned();
        [self.session.path.to_string(), state, work, ports, directory]
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "session": self.session.path,
            "id": self.session.id,
            "index": self.session.index,
            "workingDirectory": self.session.working_directory,
            "drift": self.drift,
            "unsaved": self.unsaved,
            "goesAlong": self.passing,
            "listening": self.listening,
        })
    }
}

fn listening(session: &Session, sockets: &BTreeSet<u16>) -> Vec<u16> {
    let blocks = session.allocations.iter().filter_map(Block::of).filter_map(|block| block.ports());
    blocks.flat_map(|block: PortBlock| sockets.range(block.start()..=block.end()).copied()).collect()
}
