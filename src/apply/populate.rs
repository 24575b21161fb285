//! Populates the allocations of a run in groups: work that allocations with one source have in common is done once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::event::PhaseReport;
use super::provision::PROVISION;
use super::{Event, Failure, Phase, Run, ancestors, task, traverse};
use crate::host::clock;
use crate::name::SessionPath;
use crate::plan::Session;
use crate::provider::{self, Allocation, Kind, OnPopulated, Seeded, Task};
use crate::state::Milestone;

/// Allocations of one kind that are populated in one call; the first one is the source of the others.
struct Group<'a> {
    kind: &'a str,
    is_claim: bool,
    members: Vec<(&'a Session, &'a Allocation)>,
}

impl Run<'_> {
    /// Populates the new allocations of the plan, group by group, as many groups at once as there are jobs.
    pub(super) fn populate(&self) -> Vec<Failure> {
        let groups = self.groups();
        // Claims have no content. A session is populated when all its other allocations are.
        let with_content = groups.iter().filter(|group| !group.is_claim).flat_map(|group| &group.members);
        let mut unpopulated: HashMap<&SessionPath, AtomicUsize> = HashMap::new();
        for (session, _) in with_content {
            *unpopulated.entry(&session.path).or_default().get_mut() += 1;
        }
        let report = PhaseReport::begin(self.context, Phase::Populate, unpopulated.len());
        let populated = |session: &Session| {
            let left = unpopulated.get(&session.path);
            if left.is_some_and(|left| left.fetch_sub(1, Ordering::Relaxed) == 1) {
                self.context.swarm.note(Milestone::Filled, clock::file_time(), Some(&session.path));
                report.passed(&session.path);
            }
        };
        self.until_one_fails(
            |act| traverse::side_by_side(groups.len(), self.host.jobs, act),
            |at| {
                let group = &groups[at];
                if group.is_claim {
                    self.populate_group(group, &|_| {})
                } else {
                    self.populate_group(group, &populated)
                }
            },
        )
    }

    /// Brings seeded directories into the new allocations of the plan, kind by kind.
    pub(super) fn seed(&self) -> Vec<Failure> {
        let mut kinds: Vec<Group<'_>> = Vec::new();
        let mut missing: HashMap<&SessionPath, AtomicUsize> = HashMap::new();
        for mut group in self.groups() {
            let Some(provider) = self.context.registry.get(group.kind) else { continue };
            group.members.retain(|(session, allocation)| {
                let directories = provider.seeded_directories(allocation);
                if directories > 0 {
                    *missing.entry(&session.path).or_default().get_mut() += directories;
                }
                directories > 0
            });
            match kinds.iter_mut().find(|kind| kind.kind == group.kind) {
                Some(kind) => kind.members.extend(group.members),
                None => kinds.push(group),
            }
        }
        kinds.retain(|kind| !kind.members.is_empty());
        let report = PhaseReport::begin(self.context, Phase::Seed, missing.len());
        let failed = kinds.iter().flat_map(|kind| {
            let on_seeded = |at: usize, seeded: Seeded| {
                let (session, allocation) = kind.members[at];
                let Seeded { path, is_copied: copied, files, bytes, shared_bytes } = seeded;
                let (path_of_session, resource) = (session.path.clone(), allocation.name().to_owned());
                (self.context.events)(&Event::Seeded {
                    session: path_of_session,
                    resource,
                    path,
                    copied,
                    files,
                    bytes,
                    shared_bytes,
                });
                let left = missing.get(&session.path);
                if left.is_some_and(|left| left.fetch_sub(1, Ordering::Relaxed) == 1) {
                    report.passed(&session.path);
                }
            };
            self.for_group(kind, &|_| {}, |provider, tasks| provider.seed(tasks, &on_seeded))
        });
        failed.collect()
    }

    fn groups(&self) -> Vec<Group<'_>> {
        let plan = &self.record.plan;
        let mut position: HashMap<(&str, &SessionPath), usize> = HashMap::new();
        let mut groups: Vec<Group<'_>> = Vec::new();
        for (session, change) in plan.sessions.iter().zip(&plan.changes) {
            for name in &change.provision {
                let Some(allocation) = session.allocation(name) else { continue };
                let first = change.from.get(name).unwrap_or(&session.path);
                let at = *position.entry((name, first)).or_insert_with(|| {
                    let is_claim = self.is_claim(session, name);
                    groups.push(Group { kind: &allocation.kind, is_claim, members: Vec::new() });
                    groups.len() - 1
                });
                groups[at].members.push((session, allocation));
            }
        }
        groups
    }

    /// Populates a group. `populated` is called once for each session: when the provider reports the session, or else
    /// after all sessions are populated.
    fn populate_group(&self, group: &Group<'_>, populated: &(dyn Fn(&Session) + Sync)) -> Vec<Failure> {
        self.for_group(group, populated, |provider, tasks| provider.populate(tasks))
    }

    /// Calls `act` with the tasks of a group.
    fn for_group(
        &self,
        group: &Group<'_>,
        populated: &(dyn Fn(&Session) + Sync),
        act: impl FnOnce(&dyn Kind, &[Task<'_>]) -> Vec<(usize, provider::Error)>,
    ) -> Vec<Failure> {
        let Some(provider) = self.context.registry.get(group.kind) else { return Vec::new() };
        let members: Vec<Member<'_>> =
            group.members.iter().map(|(session, _)| Member::new(self, session)).collect();
        let ancestors: Vec<Vec<&str>> = members.iter().map(Member::ancestors).collect();
        let reports: Vec<_> = members.iter().map(|member| move || member.report(populated)).collect();
        let lock = Some(self.context.swarm.file());
        let task_of = |at: usize| {
            let (session, allocation) = group.members[at];
            let task = task(self.host, self.record, session, &ancestors[at], allocation, lock);
            Task { on_populated: OnPopulated::new(&reports[at]), ..task }
        };
        let tasks: Vec<_> = (0..members.len()).map(task_of).collect();
        // A panic does not name its task, so that it is reported for the first task.
        let failed = provider::catch_panics(|| Ok(act(provider, &tasks)))
            .unwrap_or_else(|panicked| vec![(0, panicked)]);
        if failed.is_empty() {
            for member in members {
                member.report(populated);
            }
        }
        let failed = failed.into_iter();
        failed
            .map(|(at, error)| {
                let (session, allocation) = group.members[at];
                Failure::from_provider(session, PROVISION, allocation.name(), error)
            })
            .collect()
    }
}

/// A session whose allocation is populated together with others.
struct Member<'a> {
    session: &'a Session,
    /// Ids of the sessions above it, nearest first.
    ancestors: Vec<String>,
    is_reported: AtomicBool,
}

impl<'a> Member<'a> {
    fn new(run: &Run<'_>, session: &'a Session) -> Self {
        let ancestors = ancestors(run.record, &session.path);
        Self { session, ancestors, is_reported: AtomicBool::new(false) }
    }

    fn ancestors(&self) -> Vec<&str> {
        self.ancestors.iter().map(String::as_str).collect()
    }

    /// Reports the session as populated, at the first call only.
    fn report(&self, populated: &(dyn Fn(&Session) + Sync)) {
        if !self.is_reported.swap(true, Ordering::Relaxed) {
            populated(self.session);
        }
    }
}
