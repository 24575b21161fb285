//! Faults of runs over all hosts: after each, every host is as before, or as the decision says.

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Hosts, fleet};
use crate::sandbox::{Outcome, send, wait_until};

/// Creates three hosts, and the inventories that they have before the fleet is applied.
fn three() -> (Hosts, Vec<crate::sandbox::Inventory>) {
    let hosts = Hosts::new(3, &fleet(3));
    let before = hosts.inventories();
    (hosts, before)
}

/// Kills the process of one host, or the coordinator, at a failpoint of its first run.
fn killed(hosts: &Hosts, host: Option<&str>, point: &str) -> Outcome {
    let failpoint = format!("SEEDBED_FAILPOINT={point}=crash");
    let Some(host) = host else {
        let mut command = hosts.first_command(&hosts.launcher_with("unset SEEDBED_FAILPOINT; "), &[]);
        return Outcome::of(command.env("SEEDBED_FAILPOINT", format!("{point}=crash")).output().unwrap());
    };
    let exported = format!("case {{host}}{{command}} in {host}*\" prepare \"*) export {failpoint};; esac; ");
    hosts.first_with(&hosts.launcher_with(&exported), &[])
}

#[test]
fn a_host_that_refuses_in_prepare_leaves_all_hosts_as_they_were() {
    let hosts =
        Hosts::new(3, &fleet(3).replace("[session.pinned]\n", "[session.pinned]\nsetup = [\"exit 7\"]\n"));
    let before = hosts.inventories();
    let refused = hosts.first(&[]).expect(1);
    refused.says(&["n2: pinned: setup", "every host was rolled back", "fleet-aborted"]);
    hosts.assert_as(&before);
    assert!(hosts.index().is_null());
    hosts.manifest(&fleet(3));
    hosts.fleet("apply", &[]).expect(0);
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_host_killed_before_its_vote_aborts_the_run_in_every_case() {
    for point in ["apply.told", "fleet.made", "fleet.prepared", "fleet.voting"] {
        let (hosts, before) = three();
        killed(&hosts, Some("n1"), point).expect(1).says(&["n1: it did not vote"]);
        hosts.assert_as(&before);
        hosts.fleet("apply", &["--launcher", &hosts.launcher()]).expect(0);
    }
}

#[test]
fn a_host_that_is_lost_in_prepare_rolls_back_when_it_returns() {
    let (hosts, before) = three();
    // The host prepares and votes nothing; from then on, no command reaches it.
    let gone = hosts.sandbox.top.join("gone");
    let gone = gone.display();
    let launcher = hosts.launcher_with(&format!(
        "if test {{host}} = n0; then test -e {gone} && exit 255; case {{command}} in *\" prepare \"*) touch {gone}; \
         export SEEDBED_FAILPOINT=fleet.voting=crash;; esac; fi; "
    ));
    hosts.first_with(&launcher, &[]).expect(30).says(&["n0: it did not vote", "seedbed fleet recover"]);
    let after = hosts.inventories();
    assert!(after[1..] == before[1..], "another host was changed");
    assert!(after[0] != before[0], "n0 is still prepared");
    // Back again, any command that changes something follows the decision first.
    hosts.on("n0", &["recover"]).expect(0).says(&["rolled back an interrupted apply"]);
    hosts.assert_as(&before);
}

#[test]
fn a_host_that_is_lost_after_the_decision_commits_when_it_returns() {
    for is_reached in [true, false] {
        let (hosts, _) = three();
        let away = hosts.sandbox.top.join("away");
        fs::write(&away, "").unwrap();
        let lost = if is_reached {
            "export SEEDBED_FAILPOINT=fleet.committed=crash".to_owned()
        } else {
            "exit 255".to_owned()
        };
        let launcher = hosts.launcher_with(&format!(
            "if test {{host}} = n1 && test -e {}; then case {{command}} in *\" resolve \"*) {lost};; esac; fi; ",
            away.display()
        ));
        hosts.first_with(&launcher, &[]).expect(30).says(&["the run is committed", "n1: it did not answer"]);
        assert_eq!(hosts.index()["sessions"].as_array().unwrap().len(), 12);
        fs::remove_file(&away).unwrap();
        if !is_reached {
            let status = hosts.fleet("status", &["--json"]).expect(30).json();
            assert_eq!(status["hosts"][1]["state"], "prepared", "{status}");
        }
        hosts.fleet("recover", &[]).expect(0);
        let status = hosts.fleet("status", &["--json"]).expect(0).json();
        assert_eq!(status["hosts"][1]["state"], "applied", "{status}");
        hosts.fleet("destroy", &["--yes"]).expect(0);
    }
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_coordinator_killed_before_the_decision_leaves_nothing_in_every_case() {
    for point in ["fleet.observed", "fleet.voted", "fleet.deciding"] {
        let (hosts, before) = three();
        killed(&hosts, None, point).expect(137);
        if point == "fleet.observed" {
            hosts.assert_as(&before);
        } else {
            assert!(hosts.inventories() != before, "{point}: the hosts are prepared");
            // The first host that asks decides; the others follow.
            hosts.on("n2", &["recover"]).expect(0).says(&["rolled back"]);
            let decision =
                fs::read_to_string(hosts.sandbox.top.join("fleet/runs/000001/decision.json")).unwrap();
            assert!(
                decision.contains("abort") && decision.contains("host n2 found no coordinator"),
                "{decision}"
            );
        }
        hosts.fleet("recover", &[]).expect(0);
        hosts.assert_as(&before);
        hosts.fleet("apply", &[]).expect(0);
    }
}

#[test]
fn a_coordinator_killed_after_the_decision_is_followed() {
    for point in ["fleet.decided", "fleet.published"] {
        let (hosts, _) = three();
        killed(&hosts, None, point).expect(137);
        assert!(hosts.active("n0").is_empty(), "{point}: no host has committed");
        hosts.on("n1", &["recover"]).expect(0).says(&["committed what a fleet has decided"]);
        assert!(!hosts.active("n1").is_empty());
        hosts.fleet("recover", &[]).expect(0);
        assert_eq!(hosts.index()["sessions"].as_array().unwrap().len(), 12, "{point}");
        hosts.fleet("status", &[]).expect(0);
    }
}

#[test]
fn a_coordinator_interrupted_after_its_decision_waits_no_longer() {
    let (hosts, _) = three();
    let waits = hosts.sandbox.top.join("waits");
    let launcher = hosts.launcher_with(&format!(
        "case {{host}}{{command}} in n1*\" resolve \"*) touch {}; sleep 1000;; esac; ",
        waits.display()
    ));
    let mut command = hosts.first_command(&launcher, &["--timeout", "60"]);
    let coordinator = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("n1 is asked to follow", || waits.exists());
    let begun = Instant::now();
    send(Signal::INT, &coordinator);
    let outcome = Outcome::of(coordinator.wait_with_output().unwrap()).expect(30);
    outcome.says(&["the run is committed", "n1: it did not answer", "seedbed fleet recover"]);
    assert!(begun.elapsed() < Duration::from_secs(30), "it waited for n1");
    hosts.fleet("recover", &["--launcher", &hosts.launcher()]).expect(0);
    hosts.fleet("status", &[]).expect(0);
}

#[test]
fn a_destroy_killed_before_its_decision_brings_everything_back() {
    let (hosts, before) = three();
    hosts.first(&[]).expect(0);
    let applied = hosts.inventories_without_records();
    for (point, is_decided) in [("fleet.voted", false), ("fleet.decided", true)] {
        let launcher = hosts.launcher_with("unset SEEDBED_FAILPOINT; ");
        let mut command = hosts.fleet_command("destroy", &["--yes", "--launcher", &launcher]);
        Outcome::of(command.env("SEEDBED_FAILPOINT", format!("{point}=crash")).output().unwrap()).expect(137);
        hosts.fleet("recover", &[]).expect(0);
        if is_decided {
            hosts.assert_as(&before);
        } else {
            assert!(hosts.inventories_without_records() == applied, "{point}");
        }
    }
}

#[test]
fn a_stale_part_on_one_host_aborts_the_run() {
    let (hosts, before) = three();
    let root = hosts.root("n1").display().to_string();
    // After the observation, another program makes a directory at the path of a worktree. A ref that moves is no reason: the
    // commits are those of the coordinator.
    let launcher = hosts.launcher_with(&format!(
        "case {{host}}{{command}} in n1*\" prepare \"*) git -C {root} commit -q --allow-empty -m other; mkdir -p \
         {root}/.ai_ops/worktrees/shop-runner-0-95b862a0;; esac; "
    ));
    hosts.first_with(&launcher, &[]).expect(1).says(&[
        "n1: the plan is stale",
        "shop-runner-0-95b862a0` exists",
        "every host was rolled back",
    ]);
    let after = hosts.inventories();
    assert!((&after[0], &after[2]) == (&before[0], &before[2]));
    assert!(hosts.active("n1").is_empty());
}

#[test]
fn a_plan_that_is_edited_is_refused_by_its_host() {
    let (hosts, before) = three();
    let plan = hosts.sandbox.top.join("fleet/runs/000001/plan/shard-1.json");
    let launcher = hosts.launcher_with(&format!(
        "case {{host}}{{command}} in n1*\" prepare \"*) sed -i s/runner-/walker-/g {};; esac; ",
        plan.display()
    ));
    hosts.first_with(&launcher, &[]).expect(1).says(&["n1: shard-1.json"]);
    hosts.assert_as(&before);
}

#[test]
fn an_exit_code_is_no_vote() {
    let (hosts, before) = three();
    let launcher = hosts.launcher_with("case {host}{command} in n1*\" prepare \"*) exit 0;; esac; ");
    hosts.first_with(&launcher, &[]).expect(1).says(&["n1: it did not vote"]);
    hosts.assert_as(&before);
    // A host that did its part is committed even if its launcher fails.
    hosts.fleet("apply", &["--launcher", &format!("{}; exit 255", hosts.launcher())]).expect(0);
    hosts.fleet("status", &[]).expect(0);
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_host_that_hangs_is_waited_for_no_longer_than_allowed_in_every_case() {
    let (hosts, before) = three();
    let launcher = hosts.launcher_with("case {host}{command} in n1*\" prepare \"*) sleep 1000;; esac; ");
    let begun = Instant::now();
    hosts.first_with(&launcher, &["--timeout", "5"]).expect(1).says(&["n1: it did not vote", "after 5 s"]);
    assert!(begun.elapsed() < Duration::from_mins(1));
    hosts.assert_as(&before);
}

#[test]
fn a_prepared_host_waits_for_its_coordinator_and_no_other_run_begins() {
    let (hosts, before) = three();
    let (wait, go) = (hosts.sandbox.top.join("waits"), hosts.sandbox.top.join("go"));
    let launcher = hosts.launcher_with(&format!(
        "case {{host}}{{command}} in n1*\" prepare \"*) touch {}; while ! test -e {}; do sleep 0.1; done; exit 1;; esac; ",
        wait.display(),
        go.display()
    ));
    let mut coordinator =
        hosts.first_command(&launcher, &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let vote = hosts.sandbox.top.join("fleet/runs/000001/prepare/n0.json");
    wait_until("n0 has voted and n1 waits", || wait.exists() && vote.exists());
    hosts.on("n0", &["recover"]).expect(75).says(&["is prepared for run 000001", "not decided yet"]);
    hosts.on("n0", &["apply"]).expect(75);
    hosts.fleet("apply", &[]).expect(75).says(&["another command coordinates a run"]);
    fs::write(&go, "").unwrap();
    assert_eq!(coordinator.wait().unwrap().code(), Some(1));
    hosts.assert_as(&before);
}

#[test]
fn a_host_that_is_not_heard_of_keeps_its_last_report() {
    let (hosts, _) = three();
    hosts.first(&[]).expect(0);
    hosts.fleet("status", &[]).expect(0);
    let launcher = hosts.launcher_with("test {host} = n2 && exit 255; ");
    let status = hosts.fleet("status", &["--json", "--launcher", &launcher]).expect(30).json();
    assert_eq!(status["hosts"][0]["state"], "applied");
    assert_eq!(status["hosts"][2]["state"], "notHeard");
    assert!(!status["hosts"][2]["report"]["sessions"].as_array().unwrap().is_empty());
    let text = hosts.fleet("status", &["--launcher", &launcher]).expect(30).stdout;
    assert!(text.contains("not heard of"), "{text}");
}

#[test]
fn a_part_whose_fleet_directory_is_gone_is_given_up_only_on_request() {
    let (hosts, before) = three();
    killed(&hosts, None, "fleet.voted").expect(137);
    fs::rename(hosts.sandbox.top.join("fleet"), hosts.sandbox.top.join("elsewhere")).unwrap();
    hosts.on("n0", &["recover"]).expect(69).says(&["cannot be resolved without the directory of its fleet"]);
    hosts.on("n0", &["recover", "--give-up"]).expect(0);
    fs::rename(hosts.sandbox.top.join("elsewhere"), hosts.sandbox.top.join("fleet")).unwrap();
    hosts.fleet("recover", &[]).expect(0);
    hosts.assert_as(&before);
}

#[test]
fn a_vote_for_another_plan_does_not_count() {
    let (hosts, before) = three();
    let vote = hosts.sandbox.top.join("fleet/runs/000001/prepare/n1.json");
    let launcher = hosts.launcher_with(&format!(
        "case {{host}}{{command}} in n1*\" prepare \"*) mkdir -p {0}; echo \"{{\\\"schemaVersion\\\":1,\\\"run\\\":\\\"000001\\\",\
         \\\"host\\\":\\\"n1\\\",\\\"done\\\":true,\\\"plan\\\":\\\"sha256:0\\\",\\\"error\\\":null}}\" > {1}; exit 0;; esac; ",
        vote.parent().unwrap().display(),
        vote.display()
    ));
    hosts.first_with(&launcher, &[]).expect(1).says(&["n1: it voted for another plan"]);
    hosts.assert_as(&before);
}

#[test]
fn a_coordinator_follows_a_decision_that_another_process_made_first() {
    let (hosts, before) = three();
    let decision = hosts.sandbox.top.join("fleet/runs/000001/decision.json");
    let script = format!(
        "echo '{{\"schemaVersion\":1,\"run\":\"000001\",\"verdict\":\"abort\",\"reasons\":[\"n9: first\"]}}' > {}",
        decision.display()
    );
    let mut command = hosts.first_command(&hosts.launcher_with("unset SEEDBED_FAILPOINT; "), &[]);
    command.env("SEEDBED_FAILPOINT", "fleet.deciding=run").env("SEEDBED_FAILPOINT_RUN", script);
    Outcome::of(command.output().unwrap()).expect(1).says(&["n9: first", "every host was rolled back"]);
    hosts.assert_as(&before);
    assert!(hosts.index().is_null());
}

#[test]
fn a_host_that_is_late_prepares_nothing_for_a_decided_run() {
    let (hosts, before) = three();
    let launcher = hosts.launcher_with("case {host}{command} in n1*\" prepare \"*) exit 1;; esac; ");
    hosts.first_with(&launcher, &[]).expect(1);
    let plan = fs::read(hosts.sandbox.top.join("fleet/runs/000001/plan/fleet.json")).unwrap();
    let plan: serde_json::Value = serde_json::from_slice(&plan).unwrap();
    let directory = hosts.sandbox.top.join("fleet");
    let words = ["fleet", "phase", "prepare", directory.to_str().unwrap(), "--host", "n1", "--run", "000001"];
    let late = hosts.on("n1", &[&words[..], &["--expect", plan["digest"].as_str().unwrap()]].concat());
    late.expect(1).says(&["run 000001 is decided already"]);
    hosts.assert_as(&before);
}

#[test]
fn a_fleet_with_more_hosts_than_sessions_is_applied() {
    let hosts = Hosts::new(3, "[fleet]\n[session.only]\nresources = [\"git-worktree\"]\n");
    let before = hosts.inventories();
    hosts.first(&[]).expect(0).says(&["1 session on 3 hosts"]);
    hosts.fleet("status", &[]).expect(0);
    hosts.fleet("destroy", &["--yes"]).expect(0);
    hosts.assert_as(&before);
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_host_that_is_prepared_too_late_rolls_back_by_itself_in_every_case() {
    let (hosts, before) = three();
    let slow = "export SEEDBED_FAILPOINT=fleet.prepared=run SEEDBED_FAILPOINT_RUN='sleep 10'; ";
    let launcher = hosts.launcher_with(&format!(
        "case {{host}}{{command}} in n1*\" prepare \"*) {slow}{} & sleep 1000;; esac; ",
        hosts.launcher().replace("sh -c", "setsid sh -c")
    ));
    hosts.first_with(&launcher, &["--timeout", "5"]).expect(30).says(&["n1: it did not vote", "locked"]);
    let begun = Instant::now();
    while hosts.inventories() != before && begun.elapsed() < Duration::from_mins(1) {
        thread::sleep(Duration::from_millis(100));
    }
    hosts.assert_as(&before);
}
