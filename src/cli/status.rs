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
use seedbed::state::{Record, Swarm};
use serde_json::json;

use super::exit::{Failure, Status};
use super::locked::locked;
use super::setting::Setting;
use super::standing::{Active, Family};
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
    let family = Family::find(setting.swarm()?, setting.name())?;
    let Family { swarm, record, children } = &family;
    let found = swarm.found()?;
    let unfinished = found.map(|found| unfinished::described(&found, swarm.host())).unwrap_or_default();
    let repair = if arguments.repair { Some(repair(global, &setting)?) } else { None };
    let whole = |repair: &Repair| repair.left.is_empty() && repair.failures.is_empty();
    let status = if repair.as_ref().is_none_or(whole) { Status::Done } else { Status::Failed };
    let observation = observe::observe(swarm.host(), swarm.workspace(), &BTreeSet::from([Question::Ports]))
        .map_err(Failure::Observe)?;
    let sockets: BTreeSet<u16> = observation
        .taken
        .iter()
        .filter(|taken| matches!(taken.by, Holder::Socket { .. }))
        .map(|taken| taken.block.start())
        .collect();

    let mut looked = Looked::default();
    looked.add(&setting, swarm, record)?;
    for (swarm, record) in children {
        looked.add(&setting, swarm, record)?;
    }
    let found: Vec<_> = family
        .sessions()
        .into_iter()
        .map(|Active { record, session, .. }| Found {
            session,
            child_of: record.ancestors.first(),
            drift: looked.drift.remove(&session.id).unwrap_or_default(),
            unsaved: looked.unsaved.remove(&session.id).unwrap_or_default(),
            passing: looked.passing.remove(&session.id).unwrap_or_default(),
            listening: listening(session, &sockets),
        })
        .collect();
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

/// What was found of each session, by its id.
#[derive(Default)]
struct Looked {
    drift: BTreeMap<String, Vec<String>>,
    unsaved: BTreeMap<String, Vec<String>>,
    passing: BTreeMap<String, Vec<String>>,
}

impl Looked {
    /// Adds what is found of the sessions of one record.
    fn add(&mut self, setting: &Setting, swarm: &Swarm<'_>, record: &Record) -> Result<(), Failure> {
        let id = |path: &SessionPath| path.id(&record.plan.swarm);
        for ((path, kind), damage) in apply::inspect(swarm, &setting.registry, record) {
            self.drift.entry(id(&path)).or_default().push(format!("{kind}: {}", damage.why));
        }
        let stake = apply::at_stake(swarm, &setting.registry, record, &Destroy::default())?;
        for Loss { session, what } in [stake.obstacles, stake.work, stake.beyond_rescue].concat() {
            self.unsaved.entry(id(&session)).or_default().push(what);
        }
        for Loss { session, what } in stake.passing {
            self.passing.entry(id(&session)).or_default().push(what);
        }
        Ok(())
    }
}

struct Found<'r> {
    session: &'r Session,
    /// For a child that a program has provisioned, the id of its parent.
    child_of: Option<&'r String>,
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
        let name = match self.child_of {
            Some(_) => format!("└ {}", self.session.path),
            None => self.session.path.to_string(),
        };
        [name, state, work, ports, directory]
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "session": self.session.path,
            "id": self.session.id,
            "childOf": self.child_of,
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
