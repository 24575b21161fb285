//! `--where`: selects the sessions that meet all conditions. What cannot be determined is never a reason to release.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use seedbed::apply::{self, Destroy, SessionFinding, UnusableRepository, Usage};
use seedbed::collect::{self, Outcome, Source};
use seedbed::host::clock;
use seedbed::name::SessionPath;
use seedbed::state::{Expiry, Record, Swarm};

use super::super::duration;
use super::super::exit::Failure;
use super::super::output::count;
use super::super::project::Project;

/// Condition of a session that is to be released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// The commits in all of its worktrees have landed in the ref, or in the base ref of the worktree.
    Landed(Option<String>),
    /// Nothing in it has changed for this time, and no process uses it.
    Idle(Duration),
    /// It has no unsaved work.
    Clean,
    /// No process uses it.
    NoProcess,
    /// Its `expires` of the manifest is past.
    Expired,
}

/// Sessions that meet all conditions together with everything below them, and the reasons for the others.
#[derive(Debug, Default)]
pub(super) struct Selected {
    pub(super) sessions: BTreeSet<SessionPath>,
    pub(super) kept: Vec<SessionFinding>,
    /// Repositories of sessions that are kept because of them.
    pub(super) unusable: Vec<UnusableRepository>,
}

/// Parses one condition.
pub(super) fn condition(text: &str) -> Result<Condition, String> {
    match text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value))) {
        ("landed", None) => Ok(Condition::Landed(None)),
        ("landed", Some(into)) if !into.is_empty() => Ok(Condition::Landed(Some(into.to_owned()))),
        ("idle", Some(time)) => duration(time).map(Condition::Idle),
        ("clean", None) => Ok(Condition::Clean),
        ("no-process", None) => Ok(Condition::NoProcess),
        ("expired", None) => Ok(Condition::Expired),
        _ => Err(format!(
            "`{text}` is no condition: write `landed`, `landed=REF`, `idle=TIME`, `clean`, `no-process` or `expired`"
        )),
    }
}

/// Reasons to keep sessions, by session id.
#[derive(Default)]
struct Reasons(BTreeMap<String, Vec<String>>);

/// Selects sessions of an applied swarm among those of `destroy`, without those that have a worktree of a repository that
/// cannot be used and is not given up.
///
/// `children` are those that programs have provisioned. Each is released with its parent, so it has to meet the
/// conditions too.
pub(super) fn select(
    project: &Project,
    swarm: &Swarm<'_>,
    record: &Record,
    children: &[(Swarm<'_>, Record)],
    destroy: &Destroy,
    conditions: &[Condition],
) -> Result<Selected, Failure> {
    let (mut reasons, mut selected) = (Reasons::default(), Selected::default());
    let children = children.iter().map(|(swarm, record)| (swarm, record));
    let all: Vec<(&Swarm<'_>, &Record)> = std::iter::once((swarm, record)).chain(children).collect();
    // A process may work for long and change no file.
    let is_unused = |condition: &Condition| matches!(condition, Condition::Idle(_) | Condition::NoProcess);
    for (swarm, record) in &all {
        if conditions.iter().any(is_unused) {
            reasons.add_occupied(project, swarm, record)?;
        }
        for condition in conditions {
            reasons.add(project, swarm, record, condition)?;
        }
        let mut unusable = apply::unusable_repositories(swarm, &project.registry, record);
        unusable.retain(|repository| !destroy.forget.contains(&repository.name));
        let is_requested = |path: &SessionPath| {
            let mut requested = destroy.sessions_of(record);
            !record.ancestors.is_empty() || requested.any(|session| session.path == *path)
        };
        unusable.retain(|repository| repository.sessions.iter().any(is_requested));
        for repository in &unusable {
            for session in &repository.sessions {
                reasons.insert(record, session, repository.to_string());
            }
        }
        selected.unusable.extend(unusable);
    }
    for session in destroy.sessions_of(record) {
        let path = &session.path;
        let below: BTreeSet<&str> = record
            .plan
            .sessions()
            .iter()
            .filter(|other| other.path.is_at_or_below(path))
            .map(|other| other.id.as_str())
            .collect();
        let is_below = |child: &Record| child.ancestors.iter().any(|above| below.contains(above.as_str()));
        let of_children = all[1..].iter().filter(|(_, child)| is_below(child));
        let of_children = of_children
            .flat_map(|(_, child)| child.plan.sessions().iter().map(|session| session.id.as_str()));
        let own = reasons.0.get(&session.id);
        let inner = below.iter().copied().chain(of_children).find(|id| reasons.0.contains_key(*id));
        match (own, inner) {
            (Some(own), _) => {
                selected.kept.extend(own.iter().map(|why| SessionFinding::new(path.clone(), why.clone())));
            }
            (None, Some(inner)) => {
                selected.kept.push(SessionFinding::new(path.clone(), format!("{inner} below it is kept")));
            }
            (None, None) => {
                selected.sessions.insert(path.clone());
            }
        }
    }
    Ok(selected)
}

impl Reasons {
    fn insert(&mut self, record: &Record, session: &SessionPath, why: String) {
        self.0.entry(session.id(record.plan.swarm())).or_default().push(why);
    }

    /// Adds the sessions of one record that do not meet a condition.
    fn add(
        &mut self,
        project: &Project,
        swarm: &Swarm<'_>,
        record: &Record,
        condition: &Condition,
    ) -> Result<(), Failure> {
        let registry = &project.registry;
        match condition {
            Condition::Clean => {
                let impact = apply::release_impact(swarm, registry, record, &Destroy::default())?;
                let unsaved = [impact.obstacles, impact.work, impact.beyond_rescue, impact.unknown];
                for SessionFinding { session, description, .. } in unsaved.concat() {
                    self.insert(record, &session, description);
                }
            }
            // Processes are searched once, also for `Idle`.
            Condition::NoProcess => {}
            Condition::Idle(time) => {
                let usage = apply::usage(swarm, registry, record);
                for session in record.plan.sessions() {
                    let is_running = !swarm.running_logs(&session.scoped_name).is_empty();
                    let usage = usage.get(&session.path);
                    if let Some(why) = why_not_idle(usage, is_running, *time) {
                        self.insert(record, &session.path, why);
                    }
                }
            }
            Condition::Landed(into) => self.add_unlanded(swarm, record, into.as_deref())?,
            // A child that a program has created expires with the session that it belongs to.
            Condition::Expired if !record.ancestors.is_empty() => {}
            Condition::Expired => {
                for session in record.plan.sessions() {
                    if let Some(why) = why_not_expired(record.expiry(session)) {
                        self.insert(record, &session.path, why);
                    }
                }
            }
        }
        Ok(())
    }

    fn add_occupied(&mut self, project: &Project, swarm: &Swarm<'_>, record: &Record) -> Result<(), Failure> {
        let occupancy = apply::occupancy(swarm, &project.registry, record, &Destroy::default())?;
        for occupant in occupancy.occupants {
            self.insert(record, &occupant.session, occupant.described());
        }
        Ok(())
    }

    fn add_unlanded(
        &mut self,
        swarm: &Swarm<'_>,
        record: &Record,
        into: Option<&str>,
    ) -> Result<(), Failure> {
        let mut sources = Vec::new();
        for session in record.plan.sessions() {
            let before = sources.len();
            sources.extend(Source::of_session(session));
            if sources.len() == before {
                self.insert(
                    record,
                    &session.path,
                    "it has no worktree, so nothing of it can have landed".into(),
                );
            }
        }
        let collected = collect::collect(swarm.host(), swarm.workspace(), &sources, into);
        let results = collected.map_err(Failure::from_error)?.results;
        let mut by_session: BTreeMap<&SessionPath, Vec<&Outcome>> = BTreeMap::new();
        for outcome in &results {
            by_session.entry(&outcome.session).or_default().push(outcome);
        }
        for (session, outcomes) in by_session {
            for why in why_not_landed(&outcomes, into.is_none()) {
                self.insert(record, session, why);
            }
        }
        Ok(())
    }
}

fn why_not_idle(usage: Option<&Usage>, is_running: bool, time: Duration) -> Option<String> {
    if is_running {
        return Some("a command runs in it".to_owned());
    }
    let changed = usage.and_then(|usage| usage.changed);
    let Some(changed) = changed else {
        return Some(match usage.and_then(|usage| usage.unreadable.as_ref()) {
            Some(path) => format!("it is unknown when it changed: {} cannot be read", path.display()),
            None => "it is unknown when it changed: it has no directory".to_owned(),
        });
    };
    let age = clock::seconds().checked_sub(changed).map(Duration::from_secs);
    match age {
        Some(age) if age >= time => None,
        _ => Some(format!("it was changed at {}", clock::rfc3339(changed))),
    }
}

fn why_not_expired(expiry: Option<Expiry>) -> Option<String> {
    let Some(expiry) = expiry else { return Some("it never expires".to_owned()) };
    let Some(at) = expiry.at else { return Some("it is unknown when it was created".to_owned()) };
    (!expiry.is_past(clock::seconds())).then(|| format!("it expires at {}", clock::rfc3339(at)))
}

/// Returns the reasons why a session has not landed: it has made no commit, or the commits in one of its worktrees have
/// not landed.
fn why_not_landed(outcomes: &[&Outcome], is_into_base: bool) -> Vec<String> {
    let has_landed = outcomes.iter().any(|one| one.work.as_ref().is_some_and(|work| work.landed.is_some()));
    let reasons = outcomes.iter().filter_map(|outcome| {
        let has_none =
            outcome.work.as_ref().is_some_and(|work| work.landed.is_none() && work.commits.is_empty());
        let why = why_worktree_not_landed(outcome, is_into_base).filter(|_| !(has_none && has_landed))?;
        Some(if outcomes.len() > 1 { format!("{}: {why}", outcome.resource) } else { why })
    });
    reasons.collect()
}

fn why_worktree_not_landed(outcome: &Outcome, is_into_base: bool) -> Option<String> {
    let Outcome { into, work, error, .. } = outcome;
    if is_into_base && outcome.is_base_gone {
        return Some(format!("it is unknown what has landed: {into} names no commit any more"));
    }
    match work {
        None => {
            let why = error.as_deref().unwrap_or("its commits cannot be read");
            Some(format!("it is unknown what has landed: {why}"))
        }
        Some(work) if work.landed.is_some() => None,
        Some(work) if work.commits.is_empty() => Some("it has no commit that can have landed".to_owned()),
        Some(work) => {
            let have = if work.commits.len() == 1 { "has" } else { "have" };
            Some(format!("{} {have} not landed in {into}", count(work.commits.len(), "commit")))
        }
    }
}
