//! Tests that the ten defects of the reference implementation do not occur here, with real Git, sockets and links.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;

use seedbed::name::hash_u32;
use seedbed::orchestrator::{Error, Orchestrator, Provisioned, ResourceRequest};

use crate::fake_kind::{crash_during, kinds_of_the_crash};
use crate::library_sandbox::{Sandbox, close, free_ports};

/// Returns a request for one of `count` blocks of `size` ports.
fn ports(base: u16, size: u16, count: u16) -> ResourceRequest {
    ResourceRequest::new("port-range")
        .with("basePort", base)
        .with("blockSize", size)
        .with("blockCount", count)
}

fn worktree() -> ResourceRequest {
    ResourceRequest::new("git-worktree").with("baseRef", "main")
}

fn first_and_last(session: &Provisioned) -> (u64, u64) {
    let block = session.snapshot().allocation("port-range").unwrap();
    (block["startPort"].as_u64().unwrap(), block["endPort"].as_u64().unwrap())
}

#[test]
fn defect_1_parent_with_one_child_fails() {
    let sandbox = Sandbox::new();
    let before = sandbox.trace();
    let orchestrator = Orchestrator::new(sandbox.host.clone());
    let parent =
        orchestrator.provision("parent", &[worktree(), ports(free_ports(8), 8, 1)], &sandbox.repo).unwrap();
    let only = orchestrator.provision_child(parent.snapshot(), "parent/only", 0, 1).unwrap();
    assert_eq!(first_and_last(&only), first_and_last(&parent));
    let grandchild = orchestrator.provision_child(only.snapshot(), "parent/only/one", 0, 1).unwrap();
    assert_eq!(first_and_last(&grandchild), first_and_last(&parent));

    // Another child with the same share differs, and so does a process that only has a snapshot.
    let second = orchestrator.provision_child(parent.snapshot(), "parent/second", 0, 1).unwrap_err();
    assert!(second.to_string().contains("parent/only"), "{second}");
    let mut forged = parent.snapshot().clone();
    forged.session_id = "stranger".to_owned();
    let stranger = orchestrator.provision_child(&forged, "stranger/child", 0, 1).unwrap_err();
    assert!(stranger.to_string().contains("of parent"), "{stranger}");

    for session in [grandchild, only, parent] {
        session.release().unwrap();
    }
    assert_eq!(sandbox.trace(), before);
}

#[test]
fn defect_2_blocks_of_different_geometry_overlap_unnoticed() {
    let sandbox = Sandbox::new();
    let orchestrator = Orchestrator::new(sandbox.host.clone());
    let base = free_ports(64);
    // Snapshot that the reference implementation would have written for a session with blocks of 20 ports.
    let lock = format!(".ai_ops/locks/ports/{base}-{}.lock", base + 19);
    sandbox.write(&lock, "{\"sessionId\":\"of the seed\"}\n");

    let wide = orchestrator.provision("wide", &[ports(base, 32, 2)], &sandbox.repo).unwrap();
    assert_eq!(first_and_last(&wide).0, u64::from(base) + 32, "the first block holds ports of the seed's");
    let narrow = orchestrator.provision("narrow", &[ports(base, 8, 8)], &sandbox.repo).unwrap();
    assert_eq!(first_and_last(&narrow).0, u64::from(base) + 24, "all but one block of 8 are taken in part");
    let full = orchestrator.provision("full", &[ports(base, 16, 4)], &sandbox.repo).unwrap_err();
    assert!(matches!(full, Error::Diagnostics(_)), "{full}");

    narrow.release().unwrap();
    wide.release().unwrap();
    assert!(fs::exists(sandbox.repo.join(lock)).unwrap());
}

#[test]
fn defect_3_bad_target_path_leaks_a_worktree() {
    let sandbox = Sandbox::new();
    let before = sandbox.trace();
    let orchestrator = Orchestrator::new(sandbox.host.clone());
    for target in ["services/apis", "README", "../repo", "/etc"] {
        let request = worktree().with("targetPath", target);
        let error = orchestrator.provision("a", &[request], &sandbox.repo).unwrap_err();
        assert!(matches!(error, Error::Diagnostics(_)), "{target}: {error}");
        assert_eq!(sandbox.trace(), before, "{target}");
    }
    let request = worktree().with("targetPath", "services/api");
    let sparse = orchestrator.provision("a", &[request], &sandbox.repo).unwrap();
    assert!(sparse.working_directory().ends_with("services/api"));
    let top = sparse.snapshot().allocation("git-worktree").unwrap()["worktreePath"].as_str().unwrap();
    assert!(!fs::exists(Path::new(top).join("src")).unwrap(), "only the target is checked out");
    sparse.release().unwrap();
    assert_eq!(sandbox.trace(), before);
}

#[test]
fn defect_4_created_files_show_in_git_status() {
    let sandbox = Sandbox::new();
    let orchestrator = Orchestrator::new(sandbox.host.clone());
    let parent =
        orchestrator.provision("parent", &[worktree(), ports(free_ports(8), 8, 1)], &sandbox.repo).unwrap();
    let child = orchestrator.provision_child(parent.snapshot(), "child", 0, 2).unwrap();
    parent.runtime_injection(None, []).unwrap();
    child.runtime_injection(Some(Path::new("told/of/it.json")), []).unwrap();
    let directories = [sandbox.repo.as_path(), parent.working_directory(), child.working_directory()];
    for directory in directories {
        assert_eq!(sandbox.git_in(directory, &["status", "--porcelain"]), "", "{}", directory.display());
    }
    child.release().unwrap();
    parent.release().unwrap();
}

#[test]
fn defect_5_ports_are_ephemeral_and_may_be_in_use() {
    let sandbox = Sandbox::new();
    let orchestrator = Orchestrator::new(sandbox.host.clone());
    let by_default = ResourceRequest::new("port-range");
    let session = orchestrator.provision("a", &[by_default], &sandbox.repo).unwrap();
    assert!(first_and_last(&session).1 < 32_768, "below Linux's ephemeral range");
    session.release().unwrap();

    let base = free_ports(8);
    let is_first = hash_u32("a").is_multiple_of(2);
    let (preferred, other) = if is_first { (base, base + 4) } else { (base + 4, base) };
    let listener = TcpListener::bind(("127.0.0.1", preferred + 3)).unwrap();
    let session = orchestrator.provision("a", &[ports(base, 4, 2)], &sandbox.repo).unwrap();
    assert_eq!(first_and_last(&session).0, u64::from(other));
    session.release().unwrap();
    close(listener);
    let session = orchestrator.provision("a", &[ports(base, 4, 2)], &sandbox.repo).unwrap();
    assert_eq!(first_and_last(&session).0, u64::from(preferred));

    // A parent that serves one of its ports is in the way of the child whose share that is, and of no other.
    let _listener = TcpListener::bind(("127.0.0.1", preferred)).unwrap();
    orchestrator.provision_child(session.snapshot(), "a/1", 1, 2).unwrap().release().unwrap();
    let error = orchestrator.provision_child(session.snapshot(), "a/0", 0, 2).unwrap_err();
    assert!(format!("{error:?}").contains(&format!("tcp port {preferred} is in use by pid")), "{error:?}");
    session.release().unwrap();
}

#[test]
fn defect_6_release_destroys_unsaved_work() {
    let sandbox = Sandbox::new();
    let before = sandbox.trace();
    let orchestrator = Orchestrator::new(sandbox.host.clone());
    let session =
        orchestrator.provision("a", &[worktree(), ports(free_ports(4), 4, 1)], &sandbox.repo).unwrap();
    let work = session.working_directory().join("work");
    fs::write(&work, "of a day\n").unwrap();
    let error = session.release().unwrap_err();
    assert!(matches!(error, Error::WouldLose(_)), "{error}");
    assert!(error.to_string().contains("1 untracked"), "{error}");
    assert_eq!(fs::read_to_string(&work).unwrap(), "of a day\n");

    fs::remove_file(&work).unwrap();
    session.release().unwrap();
    session.release().unwrap();
    assert_eq!(sandbox.trace(), before);
}

#[test]
fn defect_6_locks_of_a_killed_process_stay_for_ever() {
    let sandbox = Sandbox::new();
    let before = sandbox.trace();
    let requests = [worktree(), ports(free_ports(4), 4, 1), ResourceRequest::new("crash")];
    crash_during(&sandbox, "a", &requests);
    assert_ne!(sandbox.trace(), before, "a worktree, a lock file and a lease are left behind");

    let orchestrator = Orchestrator::with_registry(sandbox.host.clone(), kinds_of_the_crash());
    assert!(orchestrator.active("a", &sandbox.repo).unwrap().is_none());
    assert_eq!(sandbox.trace(), before);

    // A session that was active when its process ended is found, and released by another process.
    drop(orchestrator.provision("a", &requests[..2], &sandbox.repo).unwrap());
    let another = Orchestrator::new(sandbox.host.clone());
    assert!(matches!(another.provision("a", &requests[..2], &sandbox.repo), Err(Error::AlreadyActive(_))));
    another.active("a", &sandbox.repo).unwrap().unwrap().release().unwrap();
    assert_eq!(sandbox.trace(), before);
}

#[test]
fn defect_7_two_clones_get_the_same_ports() {
    let sandbox = Sandbox::new();
    let orchestrator = Orchestrator::new(sandbox.host.clone());
    let clone = sandbox.outside("clone");
    sandbox.git(&["clone", "-q", ".", clone.to_str().unwrap()]);
    let request = ports(free_ports(8), 4, 2);
    let one = orchestrator.provision("a", std::slice::from_ref(&request), &sandbox.repo).unwrap();
    let other = orchestrator.provision("a", &[request], &clone).unwrap();
    assert_ne!(first_and_last(&one), first_and_last(&other));
    one.release().unwrap();
    other.release().unwrap();
}

#[test]
fn defect_8_discovery_path_that_is_a_link_is_written_through() {
    let sandbox = Sandbox::new();
    let orchestrator = Orchestrator::new(sandbox.host.clone());
    let outside = sandbox.outside("outside");
    fs::create_dir(&outside).unwrap();
    let session = orchestrator.provision("a", &[worktree()], &sandbox.repo).unwrap();
    let directory = session.working_directory().to_owned();
    fs::remove_dir_all(directory.join(".agent-context")).unwrap();
    for link in [".agent-context", "other"] {
        symlink(&outside, directory.join(link)).unwrap();
    }
    session.runtime_injection(None, []).unwrap_err();
    session.runtime_injection(Some(Path::new("other/resources.json")), []).unwrap_err();
    session.runtime_injection(Some(Path::new("../../../../outside/resources.json")), []).unwrap_err();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);

    // A link in place of the file is replaced, and what it names stays as it is.
    fs::remove_file(directory.join(".agent-context")).unwrap();
    fs::create_dir(directory.join(".agent-context")).unwrap();
    let victim = outside.join("victim");
    fs::write(&victim, "theirs").unwrap();
    symlink(&victim, directory.join(".agent-context/resources.json")).unwrap();
    session.runtime_injection(None, []).unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "theirs");
    session.release_discarding().unwrap();

    // A repository that commits such a link is refused before anything is made.
    symlink(&outside, sandbox.repo.join(".agent-context")).unwrap();
    sandbox.commit("a trap");
    let before = sandbox.trace();
    let error = orchestrator.provision("b", &[worktree()], &sandbox.repo).unwrap_err();
    assert!(error.to_string().contains("as a symbolic link"), "{error}");
    assert_eq!(sandbox.trace(), before);
}

#[test]
fn defect_9_sessions_without_a_worktree_share_a_discovery_file() {
    let sandbox = Sandbox::new();
    let before = sandbox.trace();
    let orchestrator = Orchestrator::new(sandbox.host.clone());
    let base = free_ports(8);
    let sessions =
        ["a", "b"].map(|id| orchestrator.provision(id, &[ports(base, 4, 2)], &sandbox.repo).unwrap());
    for path in [None, Some(Path::new("told/resources.json"))] {
        let told = sessions.each_ref().map(|session| session.runtime_injection(path, []).unwrap());
        assert_ne!(told[0].discovery_file, told[1].discovery_file);
        for (session, told) in sessions.iter().zip(told) {
            assert_eq!(told.working_directory, sandbox.repo);
            assert_eq!(fs::read(&told.discovery_file).unwrap(), session.snapshot().to_bytes());
            assert_eq!(told.env["AGENT_DISCOVERY_FILE"], told.discovery_file.to_str().unwrap());
        }
    }
    for session in sessions {
        session.release().unwrap();
    }
    assert_eq!(sandbox.trace(), before);
}

#[test]
fn defect_10_base_ref_is_read_as_an_option() {
    let sandbox = Sandbox::new();
    let orchestrator = Orchestrator::new(sandbox.host.clone());
    let before = sandbox.trace();
    let refused = |base_ref: &str| {
        let request = ResourceRequest::new("git-worktree").with("baseRef", base_ref);
        let error = orchestrator.provision("a", &[request], &sandbox.repo).unwrap_err();
        assert!(matches!(error, Error::Diagnostics(_)), "{error}");
        assert!(error.to_string().contains("names no commit"), "{error}");
        assert_eq!(sandbox.trace(), before, "{base_ref}");
    };
    for base_ref in ["--orphan", "-f", "--lock", "--", "--output=stolen"] {
        refused(base_ref);
    }

    // If such a branch exists, the base ref names the branch.
    sandbox.git(&["update-ref", "refs/heads/--orphan", "main"]);
    sandbox.write("README", "later\n");
    sandbox.commit("later");
    let request = ResourceRequest::new("git-worktree").with("baseRef", "refs/heads/--orphan");
    let session = orchestrator.provision("a", &[request], &sandbox.repo).unwrap();
    let head = sandbox.git_in(session.working_directory(), &["rev-parse", "HEAD"]);
    assert_eq!(head, sandbox.git(&["rev-parse", "main~1"]));
    session.release().unwrap();
}
