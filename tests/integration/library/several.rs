//! Tests of several resources of one kind in a session of the library, by name.

use std::path::Path;

use seedbed::manifest;
use seedbed::orchestrator::{Orchestrator, Provisioned, ResourceRequest};
use seedbed::plan;

use crate::fake_kind::Fake;
use crate::friendly::friendly;
use crate::library_sandbox::{Sandbox, free_ports};

/// Returns the kinds and names in the discovery file of a session.
fn resources(session: &Provisioned) -> Vec<(&str, Option<&str>)> {
    let held = session.snapshot().hard_constraints.iter();
    held.map(|held| (held.kind.as_str(), held.name.as_deref())).collect()
}

#[test]
fn two_resources_of_a_kind_that_allows_one_are_a_diagnostic_with_a_remedy() {
    let registry = Fake::beside_the_built_in("single", |_, _| Ok(()));
    let text = "version = 1\nswarm = \"s\"\n[session.a]\n\
                resources = [\"single\", { kind = \"single\", name = \"other\" }]\n";
    let manifest = manifest::parse(text, &registry.kinds()).unwrap();
    let observation = friendly(&plan::queries(&manifest, &registry));
    let found = plan::plan(&manifest, &registry, &observation, None).unwrap_err();
    let found: Vec<_> = found.iter().collect();
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].rule.id, "kind-twice");
    let help = found[0].help.as_deref().unwrap_or_default();
    assert!(help.contains("remove this entry"), "{help}");
}

#[test]
fn a_session_and_its_child_have_several_resources_of_a_kind() {
    let sandbox = Sandbox::new();
    let before = sandbox.trace();
    let base = free_ports(64);
    let ports = || {
        ResourceRequest::new("port-range").with("basePort", base).with("blockSize", 8).with("blockCount", 8)
    };
    let requests = [
        ResourceRequest::new("git-worktree").named("api"),
        ResourceRequest::new("git-worktree").named("web"),
        ports(),
        ports().named("debug"),
    ];
    let orchestrator = Orchestrator::new(sandbox.host.clone());
    let parent = orchestrator.provision("parent", &requests, &sandbox.repo).unwrap();
    let child = orchestrator.provision_child(parent.snapshot(), "child", 0, 2).unwrap();
    for session in [&parent, &child] {
        let names = [
            ("git-worktree", Some("api")),
            ("git-worktree", Some("web")),
            ("port-range", None),
            ("port-range", Some("debug")),
        ];
        assert_eq!(resources(session), names);
        let env = session.injected_env([]);
        for (variable, name) in [("AGENT_WORKTREE_PATH", "api"), ("AGENT_WEB_WORKTREE_PATH", "web")] {
            assert_eq!(Path::new(&env[variable]), session.working_directory().join(name));
            assert!(Path::new(&env[variable]).join(".git").exists());
        }
        assert_ne!(env["AGENT_PORT_PRIMARY"], env["AGENT_DEBUG_PORT_PRIMARY"]);
    }
    assert_ne!(parent.working_directory(), child.working_directory());
    // A second request without a name is the same resource again.
    let twice = orchestrator.provision("twice", &[ports(), ports()], &sandbox.repo).unwrap_err();
    assert!(twice.to_string().contains("already"), "{twice}");
    child.release().unwrap();
    parent.release().unwrap();
    assert_eq!(sandbox.trace(), before);
}
