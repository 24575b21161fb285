//! Populates the allocations of a run in groups: work that allocations with one source have in common is done once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::event::PhaseReport;
use super::provision::PROVISION;
use super::{Failure, Phase, Run, ancestors, task, traverse};
use crate::host::clock;
use crate::name::SessionPath;
use crate::plan::Session;
use crate::provider::{self, Allocation, OnPopulated, Task};
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
        let in_it = groups.iter().filter(|group| !group.is_claim).flat_map(|group| &group.members);
        let mut empty: HashMap<&SessionPath, AtomicUsize> = HashMap::new();
        for (session, _) in in_it {
            *empty.entry(&session.path).or_default().get_mut() += 1;
        }
        let report = PhaseReport::begin(self.context, Phase::Fill, empty.len());
        let filled = |session: &Session| {
            let left = empty.get(&session.path);
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
                    self.populate_group(group, &filled)
                }
            },
        )
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

    /// Populates a group. `filled` is called once for each session: when the provider reports the session, or else
    /// after all sessions are populated.
    fn populate_group(&self, group: &Group<'_>, filled: &(dyn Fn(&Session) + Sync)) -> Vec<Failure> {
        let Some(provider) = self.context.registry.get(group.kind) else { return Vec::new() };
        let above: Vec<_> =
            group.members.iter().map(|(session, _)| ancestors(self.record, &session.path)).collect();
        let above: Vec<Vec<&str>> =
            above.iter().map(|above| above.iter().map(String::as_str).collect()).collect();
        let is_filled: Vec<AtomicBool> = group.members.iter().map(|_| AtomicBool::new(false)).collect();
        let hears: Vec<_> = group
            .members
            .iter()
            .zip(&is_filled)
            .map(|((session, _), is_filled)| {
                move || {
                    if !is_filled.swap(true, Ordering::Relaxed) {
                        filled(session);
                    }
                }
            })
            .collect();
        let lock = Some(self.context.swarm.file());
        let tasks: Vec<_> = group
            .members
            .iter()
            .zip(&above)
            .zip(&hears)
            .map(|(((session, allocation), ancestors), hears)| Task {
                on_populated: OnPopulated::new(hears),
                ..task(self.host, self.record, session, ancestors, allocation, lock)
            })
            .collect();
        // A panic does not name its task, so that the first task stands for all.
        let filled = provider::catch_panics(|| Ok(provider.populate(&tasks)));
        let failed = filled.unwrap_or_else(|panicked| vec![(0, panicked)]);
        if failed.is_empty() {
            for hears in &hears {
                hears();
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
