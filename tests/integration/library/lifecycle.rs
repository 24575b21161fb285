//! Tests plan, apply and destroy through the library, in a real repository.

use std::fs;

use crate::library_sandbox::{Sandbox, free_ports};

#[test]
fn swarm_is_applied_and_destroyed_without_a_trace() {
    for layout in ["flat", "nested"] {
        let sandbox = Sandbox::new();
        let base = free_ports(64);
        let manifest = format!(
            "version = 1\nswarm = \"swarm\"\n[defaults.git-worktree]\nlayout = \"{layout}\"\n\
             [defaults.port-range]\nbase-port = {base}\nblock-size = 16\nblock-count = 4\n\
             [session.lead]\nresources = [\"git-worktree\", {{ kind = \"port-range\", names = [\"http\"] }}]\n\
             [session.lead.child.coder]\ncount = 2\n\
             [session.lead.child.coder.child.deep]\n\
             [session.docs]\nresources = [{{ kind = \"git-worktree\", target-path = \"services/api\" }}]\n\
             [session.pool]\nresources = [\"port-range\"]\n"
        );
        let before = sandbox.trace();
        let record = sandbox.apply(&manifest).unwrap();
        assert_eq!(record.plan.sessions().len(), 7);
        assert_eq!(sandbox.git(&["status", "--porcelain"]), "");
        for session in record.plan.sessions().iter().filter(|session| session.discovery_file.is_some()) {
            let directory = sandbox.repo.join(&session.working_directory);
            assert_eq!(sandbox.git_in(&directory, &["status", "--porcelain"]), "", "{layout} {}", session.id);
            assert!(fs::exists(sandbox.repo.join(session.discovery_file.as_ref().unwrap())).unwrap());
        }
        assert!(
            !sandbox.plan(&manifest).unwrap().has_changes(),
            "{:#?}",
            sandbox.plan(&manifest).unwrap().changes()
        );
        sandbox.destroy("swarm", false).unwrap();
        assert_eq!(sandbox.trace(), before, "{layout}");
    }
}
