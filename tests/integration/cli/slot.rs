//! Tests of `exec --slot`: the replica of a test runner's worker.

use crate::sandbox::{Outcome, Sandbox};

const PRINT: [&str; 3] = ["sh", "-c", "echo $AGENT_SESSION_ID"];

fn applied(sessions: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.manifest(sessions);
    sandbox.ok(&["apply", "--quiet"]);
    sandbox
}

/// Runs `exec` with these arguments and variables, and prints the id of the session.
fn exec(sandbox: &Sandbox, args: &[&str], variables: &[(&str, &str)]) -> Outcome {
    let args: Vec<_> = ["exec"].iter().chain(args).chain(&["--"]).chain(&PRINT).copied().collect();
    Outcome::of(sandbox.command(&args).envs(variables.iter().copied()).output().unwrap())
}

#[test]
fn exec_slot_picks_the_replica_of_each_runner() {
    let sandbox = applied("[session.worker]\ncount = 3\n[session.other]\n");
    let check = |variables: &[(&str, &str)], args: &[&str], expected: &str| {
        assert_eq!(exec(&sandbox, args, variables).expect(0).stdout.trim(), expected, "{variables:?}");
    };
    check(&[("NEXTEST_TEST_GLOBAL_SLOT", "0")], &["--slot"], "shop/worker-0");
    check(&[("PYTEST_XDIST_WORKER", "gw2")], &["--slot"], "shop/worker-2");
    check(&[("TEST_PARALLEL_INDEX", "1"), ("TEST_WORKER_INDEX", "17")], &["--slot"], "shop/worker-1");
    check(&[("JEST_WORKER_ID", "1")], &["--slot"], "shop/worker-0");
    check(&[("JEST_WORKER_ID", "3"), ("NEXTEST_TEST_GLOBAL_SLOT", "2")], &["--slot"], "shop/worker-2");
    check(&[("NODE", "1"), ("JEST_WORKER_ID", "1")], &["--slot=NODE"], "shop/worker-1");
    check(&[("JEST_WORKER_ID", "2")], &["worker", "--slot=JEST_WORKER_ID"], "shop/worker-1");
    let json = exec(&sandbox, &["--slot", "--json"], &[("NEXTEST_TEST_GLOBAL_SLOT", "1")]).expect(0);
    assert!(json.stdout.contains("\"session\":\"worker-1\""), "{json:?}");
}

#[test]
fn exec_slot_says_what_to_set() {
    let sandbox = applied("[session.worker]\ncount = 3\n[session.other]\n");
    let check = |variables: &[(&str, &str)], args: &[&str], parts: &[&str]| {
        exec(&sandbox, args, variables).expect(125).says(parts);
    };
    let slot = &["--slot"][..];
    check(
        &[],
        slot,
        &["none of NEXTEST_TEST_GLOBAL_SLOT, PYTEST_XDIST_WORKER,", "--slot=VARIABLE", "[slot-unknown]"],
    );
    check(&[], &["--slot=NODE"], &["the variable `NODE` is not set", "[slot-unknown]"]);
    let more = "`worker` has 3 replicas, none for worker 3 (`";
    check(
        &[("NEXTEST_TEST_GLOBAL_SLOT", "3")],
        slot,
        &[more, "--test-threads 3", "count = 4", "[slot-missing]"],
    );
    check(&[("PYTEST_XDIST_WORKER", "gw3")], slot, &[more, "`-n 3`"]);
    check(&[("JEST_WORKER_ID", "4")], slot, &[more, "--maxWorkers=3"]);
    check(&[("NODE", "3")], &["--slot=NODE"], &[more, "start at most that many workers, or"]);
    for (variable, value) in [
        ("JEST_WORKER_ID", "0"),
        ("PYTEST_XDIST_WORKER", "master"),
        ("PYTEST_XDIST_WORKER", "1"),
        ("NEXTEST_TEST_GLOBAL_SLOT", ""),
        ("NEXTEST_TEST_GLOBAL_SLOT", "+1"),
        ("NEXTEST_TEST_GLOBAL_SLOT", "99999999999"),
    ] {
        check(&[(variable, value)], slot, &[&format!("`{variable}` is `{value}`, which is no number")]);
    }
    let both = [("NEXTEST_TEST_GLOBAL_SLOT", "1"), ("TEST_PARALLEL_INDEX", "2")];
    check(&both, slot, &["number this worker differently", "--slot=NEXTEST_TEST_GLOBAL_SLOT"]);
    check(&both[..1], &["--slot", "other"], &["session other has no replicas", "[slot-missing]"]);
    check(&both[..1], &["--slot", "nothing"], &["no session `nothing` is active"]);
    check(&both[..1], &["--slot", "worker", "other"], &["chooses a replica of one session", "[usage]"]);
    exec(&sandbox, &["--slot", "--all"], &both[..1]).expect(64).says(&["cannot be used with"]);
}

#[test]
fn exec_slot_needs_the_name_of_one_of_several_tables() {
    let sandbox = applied(
        "[session.lead]\ncount = 2\n[session.lead.child.coder]\ncount = 2\n[session.browser]\ncount = 2\n",
    );
    let slot = [("NEXTEST_TEST_GLOBAL_SLOT", "1")];
    let several = exec(&sandbox, &["--slot"], &slot).expect(125);
    several.says(&[
        "several sessions have replicas: `browser`, `lead`, `lead-0/coder`, `lead-1/coder`",
        "exec --slot browser",
    ]);
    assert_eq!(exec(&sandbox, &["--slot", "browser"], &slot).expect(0).stdout, "shop/browser-1\n");
    assert_eq!(exec(&sandbox, &["--slot", "lead-0/coder"], &slot).expect(0).stdout, "shop/lead-0/coder-1\n");
    exec(&sandbox, &["--slot", "coder"], &slot).expect(125).says(&["`lead-0/coder`, `lead-1/coder`"]);
    let none = applied("[session.a]\n");
    exec(&none, &["--slot"], &slot).expect(125).says(&["no session has replicas", "count"]);
}
