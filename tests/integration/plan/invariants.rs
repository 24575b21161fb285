//! Tests of the invariants of every plan, on generated manifests and hosts.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use proptest::prelude::*;
use seedbed::manifest;
use seedbed::name::{PortBlock, sha256_hex};
use seedbed::observe::{PortOwner, PortsInUse};
use seedbed::plan::{self, Action, AppliedPlan, Plan, Session, SessionFinding};
use seedbed::provider::Registry;
use seedbed::provider::port_range::{self, Block};

use crate::friendly::friendly;

/// Swarm of port users: one lead table a row, each with children that divide its block.
#[derive(Clone, Debug)]
struct Swarm {
    base: u32,
    size: u32,
    leads: Vec<Lead>,
}

#[derive(Clone, Copy, Debug)]
struct Lead {
    replicas: u32,
    children: u32,
    names: u32,
    slots: Option<u32>,
}

fn swarms() -> impl Strategy<Value = Swarm> {
    let lead = (1..4_u32, 0..5_u32, 0..3_u32, proptest::option::of(8..10_u32))
        .prop_map(|(replicas, children, names, slots)| Lead { replicas, children, names, slots });
    (1000..2000_u32, 16..40_u32, proptest::collection::vec(lead, 1..6))
        .prop_map(|(base, size, leads)| Swarm { base, size, leads })
}

/// Returns single ports in use, and leases of any geometry, near the start of the blocks.
fn hosts() -> impl Strategy<Value = Vec<PortsInUse>> {
    let socket = (1000..4000_u32).prop_map(|port| (port, port));
    let lease = (1000..4000_u32, 1..60_u32).prop_map(|(start, size)| (start, start + size - 1));
    proptest::collection::vec(prop_oneof![socket, lease], 0..30).prop_map(|blocks| {
        let holder =
            |start: u32| PortOwner::Lease { session: format!("other/{start}"), owner: "0".repeat(32) };
        let mut taken: Vec<_> = blocks
            .into_iter()
            .map(|(start, end)| PortsInUse::new(PortBlock::new(start, end).unwrap(), holder(start)))
            .collect();
        taken.sort();
        taken
    })
}

impl Swarm {
    /// Returns the manifest; `turned` writes the same content in another order.
    fn text(&self, turned: bool) -> String {
        let mut tables = Vec::new();
        for (at, lead) in self.leads.iter().enumerate() {
            let names: Vec<_> = (0..lead.names).map(|name| format!("\"n{name}\"")).collect();
            let slots = lead.slots.map(|slots| format!(", slots = {slots}")).unwrap_or_default();
            let mut table = format!(
                "[session.lead-{at}]\ncount = {}\nresources = [{{ kind = \"port-range\", names = [{}]{slots} }}]\n",
                lead.replicas,
                names.join(", ")
            );
            if lead.children > 0 {
                let children = lead.children;
                let _ = write!(
                    table,
                    "[session.lead-{at}.child.coder]\ncount = {children}\n\
                     resources = [{{ kind = \"port-range\", names = [] }}]\n"
                );
            }
            tables.push(table);
        }
        if turned {
            tables.reverse();
        }
        let defaults = format!(
            "[defaults.port-range]\nbase-port = {}\nblock-size = {}\nblock-count = 64\n",
            self.base, self.size
        );
        let head = "version = 1\nswarm = \"s\"\n";
        if turned {
            format!("# turned\n{head}\n{}{defaults}", tables.concat())
        } else {
            format!("{head}{defaults}{}", tables.concat())
        }
    }

    fn plan(&self, turned: bool, taken: &[PortsInUse], applied: Option<&AppliedPlan>) -> Plan {
        let registry = Registry::built_in();
        let manifest = manifest::parse(&self.text(turned), &registry.kinds()).unwrap();
        let mut observation = friendly(&plan::queries(&manifest, &registry));
        observation.ports_in_use = taken.to_vec();
        plan::plan(&manifest, &registry, &observation, applied).unwrap()
    }
}

fn block(session: &Session) -> PortBlock {
    Block::from_allocation(session.allocation(port_range::KIND).unwrap()).unwrap().ports().unwrap()
}

/// Checks that no port belongs to two sessions, except a child's ports, which are its parent's, and that none belongs
/// to another owner.
fn check_ports(plan: &Plan, taken: &[PortsInUse]) {
    let blocks: BTreeMap<_, _> =
        plan.sessions().iter().map(|session| (&session.path, block(session))).collect();
    for session in plan.sessions() {
        let own = blocks[&session.path];
        let held = Block::from_allocation(session.allocation(port_range::KIND).unwrap()).unwrap();
        let mut names: Vec<_> = held.named_ports().iter().map(|(_, port)| *port).collect();
        names.dedup();
        assert_eq!(names.len(), held.names.len(), "{held:?}");
        assert!(names.iter().all(|port| own.ports().any(|own| u64::from(own) == *port)), "{held:?}");
        assert!(!taken.iter().any(|taken| taken.block.overlaps(own)), "{session:?} {taken:?}");
        for (path, other) in &blocks {
            let related =
                |one: &Session, path: &seedbed::name::SessionPath| one.parent.as_ref() == Some(path);
            let other_session = plan.session(path).unwrap();
            if **path != session.path && !related(session, path) && !related(other_session, &session.path) {
                assert!(!own.overlaps(*other), "{} and {path}", session.path);
            }
        }
        if let Some(parent) = session.parent.as_ref().filter(|_| held.share.is_some()) {
            assert!(blocks[parent].contains(own), "{} lies outside its parent's block", session.path);
            let of_parent =
                Block::from_allocation(plan.session(parent).unwrap().allocation(port_range::KIND).unwrap())
                    .unwrap();
            let of_the_parent = of_parent.named_ports();
            assert!(!of_the_parent.iter().any(|(_, port)| own.ports().any(|own| u64::from(own) == *port)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_port_is_planned_once(swarm in swarms(), taken in hosts()) {
        check_ports(&swarm.plan(false, &taken, None), &taken);
    }

    #[test]
    fn the_order_of_the_text_changes_no_byte(swarm in swarms(), taken in hosts()) {
        let plan = swarm.plan(false, &taken, None);
        prop_assert_eq!(serde_json::to_vec(&plan).unwrap(), serde_json::to_vec(&swarm.plan(true, &taken, None)).unwrap());
    }

    #[test]
    fn active_sessions_never_move(
        before in swarms(),
        more in proptest::collection::vec((0..3_u32, 0..4_u32), 5),
        taken in hosts(),
    ) {
        let plan = before.plan(false, &taken, None);
        let applied = AppliedPlan::new(plan.clone());
        let mut after = before.clone();
        for (lead, (replicas, children)) in after.leads.iter_mut().zip(more) {
            lead.replicas += replicas;
            lead.children += children;
        }
        let grown = after.plan(false, &taken, Some(&applied));
        check_ports(&grown, &taken);
        for old in plan.sessions() {
            let new = grown.session(&old.path).unwrap();
            prop_assert_eq!(&old.allocations, &new.allocations);
            prop_assert_eq!((&old.scoped_name, old.index), (&new.scoped_name, new.index));
        }
        for (session, change) in grown.sessions().iter().zip(grown.changes()) {
            let stood = plan.session(&session.path).is_some();
            prop_assert_eq!(stood, change.action != Action::Create);
            prop_assert!(!stood || change.provision.is_empty() && change.release.is_empty());
        }
        let indices: std::collections::BTreeSet<_> = grown.sessions().iter().map(|session| session.index).collect();
        prop_assert_eq!(indices.len(), grown.sessions().len());
        // And what was raised can be lowered again, with nothing else touched.
        let applied = AppliedPlan::new(grown);
        let shrunk = before.plan(false, &taken, Some(&applied));
        for old in plan.sessions() {
            prop_assert_eq!(&old.allocations, &shrunk.session(&old.path).unwrap().allocations);
        }
    }
}

/// Both are made of some sessions at a time.
#[test]
fn the_digest_and_the_document_are_those_of_the_content_however_many_sessions_there_are() {
    let registry = Registry::built_in();
    for sessions in [0, 1, 33, 1024, 1025, 3000] {
        let table =
            format!("[session.a]\ncount = {sessions}\nprompt = [\"one\\ntwo\"]\nenv = {{ A = \"\" }}\n");
        let text = format!("version = 1\nswarm = \"s\"\n{}", if sessions > 0 { &table } else { "" });
        let manifest = manifest::parse(&text, &registry.kinds()).unwrap();
        let observation = friendly(&plan::queries(&manifest, &registry));
        let plan = plan::plan(&manifest, &registry, &observation, None).unwrap();
        assert_eq!(plan.sessions().len(), sessions);
        let content = serde_json::to_vec(&(plan::SCHEMA_VERSION, plan.swarm(), plan.sessions())).unwrap();
        assert_eq!(plan.digest(), format!("sha256:{}", sha256_hex(&content)));
        assert_eq!(plan.computed_digest(), plan.digest());

        let check_document = |plan: &Plan| {
            let mut written = Vec::new();
            plan.write(&mut written).unwrap();
            let expected = serde_json::to_string_pretty(plan).unwrap() + "\n";
            assert!(written == expected.as_bytes(), "{sessions} sessions");
        };
        check_document(&plan);
        let what = "one\ntwo".to_owned();
        let losses =
            plan.sessions().iter().map(|session| SessionFinding::new(session.path.clone(), what.clone()));
        let losses = losses.collect();
        let mut document = serde_json::to_value(plan.with_refusals(losses, Vec::new())).unwrap();
        document["applied"] = document["digest"].clone();
        check_document(&serde_json::from_value(document).unwrap());
    }
}
