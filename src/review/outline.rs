//! Tree of a plan for display: similar replicas become one entry.

use std::collections::HashMap;
use std::fmt::Write as _;

use rayon::prelude::*;
use serde_json::Value;

use super::Review;
use crate::host::text::thousands;
use crate::name::{SessionPath, range, sha256_hex, stem};
use crate::plan::{Change, Session};
use crate::provider::{Allocation, Registry};

/// Maximum number of similar, numbered sessions that are shown separately; a longer run is folded.
const NUMBERED: usize = 8;
/// Maximum number of similar sessions with distinct names that are shown separately. Folding hides the names, so the
/// limit is higher.
const NAMED: usize = 24;

/// One session and its change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member<'p> {
    /// Planned session; `None` for a session that is removed.
    pub(super) session: Option<&'p Session>,
    pub(super) change: &'p Change,
}

impl<'p> Member<'p> {
    pub(super) fn path(&self) -> &'p SessionPath {
        &self.change.session
    }

    /// Returns the planned allocations; empty for a session that is removed.
    pub(super) fn allocations(&self) -> &'p [Allocation] {
        self.session.map_or(&[], |session| &session.allocations)
    }

    fn is_spawned(&self) -> bool {
        self.session.is_some_and(|session| session.spawned.is_some())
    }

    /// Returns the path of the parent.
    fn parent(&self) -> Option<&'p str> {
        match self.session {
            Some(session) => session.parent.as_ref().map(SessionPath::as_str),
            None => self.path().as_str().rsplit_once('/').map(|(parent, _)| parent),
        }
    }
}

/// One node of the displayed tree: a session, or several similar ones.
#[derive(Debug)]
pub(super) struct Entry<'p> {
    /// Sessions in the plan's order; never empty. The children of the first parent come first.
    pub(super) members: Vec<Member<'p>>,
    /// Number of sessions below each parent, if the parents are folded too.
    pub(super) each: usize,
    /// Entries below each session.
    pub(super) children: Vec<Entry<'p>>,
    /// Kinds, which describe the allocations of the sessions.
    pub(super) registry: &'p Registry,
}

impl<'p> Entry<'p> {
    /// Returns whether the plan creates this resource of the first session, for the first time or again.
    pub(super) fn provisions(&self, allocation: &Allocation) -> bool {
        self.first().change.provision.iter().any(|name| name == allocation.name())
    }

    /// Describes an allocation of the first session.
    pub(super) fn summary(&self, allocation: &Allocation) -> String {
        let kind = self.registry.get(&allocation.kind);
        let summary = kind.and_then(|kind| kind.summary(allocation, self.provisions(allocation)));
        summary.unwrap_or_else(|| serde_json::to_string(&allocation.allocation).unwrap_or_default())
    }

    /// Returns the first session, which represents all.
    pub(super) fn first(&self) -> Member<'p> {
        self.members[0]
    }

    /// Returns whether the entry represents more than one session.
    pub(super) fn is_folded(&self) -> bool {
        self.members.len() > 1
    }

    /// Returns the session's name, or the range of names: `coder-0 … coder-9`.
    pub(super) fn label(&self) -> String {
        let names = self.members[..self.each].iter().map(|member| member.path().name());
        range(names)
    }

    /// Returns whether the sessions were spawned beside the manifest.
    pub(super) fn is_spawned(&self) -> bool {
        self.first().is_spawned()
    }

    /// Returns the number of sessions, if it is more than one.
    pub(super) fn count(&self) -> Option<String> {
        if !self.is_folded() {
            None
        } else if self.each == self.members.len() {
            Some(format!("{} sessions", thousands(self.members.len())))
        } else {
            Some(format!("{} in each, {} in all", thousands(self.each), thousands(self.members.len())))
        }
    }
}

/// Returns the tree from the top. With `full`, nothing is folded.
pub(super) fn outline<'p>(review: &Review<'p>, full: bool) -> Vec<Entry<'p>> {
    let plan = review.plan;
    let planned = plan.sessions.iter().zip(&plan.changes);
    let planned = planned.map(|(session, change)| Member { session: Some(session), change });
    // The plan lists removed children first; the tree shows parents first.
    let released = plan.changes.iter().skip(plan.sessions.len()).rev();
    let members: Vec<_> = planned.chain(released.map(|change| Member { session: None, change })).collect();
    let position: HashMap<&str, usize> =
        members.iter().enumerate().map(|(at, member)| (member.path().as_str(), at)).collect();
    let parents: Vec<Option<usize>> =
        members.iter().map(|member| position.get(member.parent()?).copied()).collect();
    let mut roots = Vec::new();
    let mut children = vec![Vec::new(); members.len()];
    for (at, parent) in parents.iter().enumerate() {
        match parent {
            Some(parent) => children[*parent].push(at),
            None => roots.push(at),
        }
    }
    let shapes = if full { (0..members.len()).collect() } else { shapes(&members, &parents, &children) };
    Tree { members: &members, children: &children, shapes: &shapes, registry: review.registry }
        .entries(&[&roots])
}

struct Tree<'t, 'p> {
    members: &'t [Member<'p>],
    children: &'t [Vec<usize>],
    /// Shape number of each session: equal numbers mean equal shapes.
    shapes: &'t [usize],
    registry: &'p Registry,
}

impl<'p> Tree<'_, 'p> {
    /// Returns the entries below similar parents, given the children of each parent.
    fn entries(&self, below: &[&Vec<usize>]) -> Vec<Entry<'p>> {
        let Some(first) = below.first() else { return Vec::new() };
        let mut entries = Vec::new();
        let mut begin = 0;
        while begin < first.len() {
            let run = self.run(&first[begin..]);
            let each = if run > self.limit(first[begin]) { run } else { 1 };
            let members: Vec<usize> =
                below.iter().flat_map(|siblings| &siblings[begin..begin + each]).copied().collect();
            let children: Vec<_> = members.iter().map(|at| &self.children[*at]).collect();
            entries.push(Entry {
                each,
                children: self.entries(&children),
                members: members.iter().map(|at| self.members[*at]).collect(),
                registry: self.registry,
            });
            begin += each;
        }
        entries
    }

    /// Returns the number of siblings, from the first on, that have the shape and the name stem of the first.
    fn run(&self, siblings: &[usize]) -> usize {
        let kin = |at: usize| (self.shapes[at], stem(self.members[at].path().name()));
        siblings.iter().take_while(|at| kin(**at) == kin(siblings[0])).count()
    }

    fn limit(&self, at: usize) -> usize {
        if stem(self.members[at].path().name()).is_some() { NUMBERED } else { NAMED }
    }
}

/// Numbers the shapes of the sessions.
///
/// Children come after their parents, so a loop from the end has numbered all children of a session already.
fn shapes(members: &[Member<'_>], parents: &[Option<usize>], children: &[Vec<usize>]) -> Vec<usize> {
    // Only the hashes are kept: a hundred thousand shapes take as much memory as a tenth of the plan.
    let own: Vec<String> = members
        .par_iter()
        .zip(parents)
        .map(|(member, parent)| sha256_hex(shape(*member, parent.map(|parent| members[parent])).as_bytes()))
        .collect();
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut shapes = vec![0; members.len()];
    for (at, mut shape) in own.into_iter().enumerate().rev() {
        for child in &children[at] {
            let name = members[*child].path().name();
            let _ = write!(shape, "\n{} {}", shapes[*child], stem(name).unwrap_or(name));
        }
        let next = known.len();
        shapes[at] = *known.entry(shape).or_insert(next);
    }
    shapes
}

/// Returns a text of everything that a reviewer must be able to tell apart.
///
/// Numbers, hashes and the session's own names are ignored: they differ between replicas. Notes are ignored too; a
/// folded entry shows them.
fn shape(member: Member<'_>, parent: Option<Member<'_>>) -> String {
    let change = member.change;
    let mut text = format!(
        "{:?} {:?} {:?} {:?} {}",
        change.action,
        change.release,
        change.provision,
        change.repair,
        member.is_spawned()
    );
    for allocation in member.allocations() {
        let commit = allocation.allocation.get("commit").and_then(Value::as_str).unwrap_or_default();
        let options = serde_json::to_string(&allocation.options).unwrap_or_default();
        let _ = write!(
            text,
            "\n{} {} {commit} {} {options}",
            allocation.kind,
            allocation.name(),
            allocation.shared
        );
    }
    let session_text = member.session.and_then(|session| serde_json::to_string(&session.text()).ok());
    let mut varying = change.reasons.join("\n");
    varying.push_str(&session_text.unwrap_or_default());
    for named in [Some(member), parent].into_iter().flatten().filter_map(|member| member.session) {
        varying = varying.replace(&named.scoped_name, "@").replace(&named.id, "@");
    }
    without_numbers(&varying, &mut text);
    text
}

/// Appends `varying`, with `#` for every number and for every run of hexadecimal digits of at least the length of a cut
/// hash.
fn without_numbers(varying: &str, text: &mut String) {
    const HASH: usize = 8;
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    let mut rest = varying;
    while let Some(begin) = rest.find(is_hex) {
        let (before, run) = rest.split_at(begin);
        text.push_str(before);
        let (run, after) = run.split_at(run.find(|c| !is_hex(c)).unwrap_or(run.len()));
        if run.len() >= HASH {
            text.push('#');
        } else {
            let mut in_number = false;
            for c in run.chars() {
                if !c.is_ascii_digit() {
                    text.push(c);
                } else if !in_number {
                    text.push('#');
                }
                in_number = c.is_ascii_digit();
            }
        }
        rest = after;
    }
    text.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_hashes_do_not_count() {
        let check = |one: &str, other: &str, same: bool| {
            let [mut a, mut b] = [String::new(), String::new()];
            without_numbers(one, &mut a);
            without_numbers(other, &mut b);
            assert_eq!(a == b, same, "{a} {b}");
        };
        check("port 27136, dir coder-9-519510ef", "port 80, dir coder-10-0123abcd", true);
        check("ROLE=admin", "ROLE=coder", false);
        check("v1.2", "v13.4", true);
        check("bed12", "bee12", false);
        check("", "1", false);
    }

    #[test]
    fn numbers_that_people_can_read() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(number), text);
        }
    }
}
