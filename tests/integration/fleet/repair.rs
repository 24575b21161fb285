//! Tests of lost hosts: spares that take their place, repair, and hosts that come back.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{Hosts, fleet};

/// Returns a manifest with three shards and a spare.
fn with_spare() -> String {
    fleet(3).replace("shards = 3\n", "shards = 3\nspares = 1\n")
}

/// Returns a launcher that does not reach this host.
fn without(hosts: &Hosts, lost: &str) -> String {
    hosts.launcher_with(&format!("test {{host}} = {lost} && exit 255; "))
}

/// Returns a fleet of four hosts whose spare is `n3`, after its first run.
fn applied() -> Hosts {
    let hosts = Hosts::new(4, &with_spare());
    hosts.first(&[]).expect(0);
    assert!(hosts.active("n3").is_empty(), "n3 is the spare");
    hosts
}

/// Returns the states of the hosts.
fn states(hosts: &Hosts, args: &[&str], code: i32) -> Vec<String> {
    let status = hosts.fleet("status", &[&["--json"], args].concat()).expect(code).json();
    let hosts = status["hosts"].as_array().unwrap().iter();
    hosts.map(|host| host["state"].as_str().unwrap().to_owned()).collect()
}

fn runs(hosts: &Hosts) -> Vec<String> {
    let runs = fs::read_dir(hosts.sandbox.top.join("fleet/runs")).unwrap();
    let mut runs: Vec<_> = runs.map(|run| run.unwrap().file_name().into_string().unwrap()).collect();
    runs.sort();
    runs
}

#[test]
fn a_spare_takes_the_place_of_a_host_that_cannot_be_observed() {
    for manifest in [with_spare(), with_spare().replace("shards = 3\n", "")] {
        let hosts = Hosts::new(4, &manifest);
        let before = hosts.inventories();
        let launcher = hosts.launcher_with("case {host} in n1|n2) exit 255;; esac; ");
        let refused = hosts.first_with(&launcher, &[]).expect(1);
        refused.says(&["hosts could not be observed; nothing was changed", "n1: ", "n2: "]);
        hosts.assert_as(&before);
        let lost = without(&hosts, "n1");
        hosts
            .fleet("apply", &["--launcher", &lost])
            .expect(0)
            .says(&["warning: host n1 has no sessions and is left out"]);
        assert_eq!(hosts.index()["hosts"].as_array().unwrap().len(), 3);
        assert!(!hosts.active("n3").is_empty());
        hosts.fleet("destroy", &["--yes", "--launcher", &hosts.launcher()]).expect(0);
        hosts.assert_as(&before);
    }
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_host_that_fails_in_prepare_is_replaced_as_long_as_spares_are_left_in_every_case() {
    let failing = "export SEEDBED_FAILPOINT=fleet.voting=crash; ";
    let hosts = Hosts::new(4, &with_spare());
    let before = hosts.inventories();
    let kills = |names: &str| {
        hosts
            .launcher_with(&format!("case {{host}}{{command}} in {names}*\" prepare \"*) {failing};; esac; "))
    };
    // Two hosts, one spare; and a plan that was expected is not made again.
    hosts.first_with(&kills("n[12]"), &[]).expect(1).says(&["n1: it did not vote", "n2: it did not vote"]);
    hosts.assert_as(&before);
    assert_eq!(runs(&hosts).len(), 1);
    hosts.observe();
    let digest = hosts.plan(&["--json"]).expect(0).json()["digest"].as_str().unwrap().to_owned();
    hosts
        .fleet("apply", &["--launcher", &kills("n1"), "--expect", &digest])
        .expect(1)
        .says(&["n1: it did not vote"]);
    hosts.assert_as(&before);
    let replaced = hosts.fleet("apply", &["--launcher", &kills("n1")]).expect(0);
    replaced.says(&["warning: host n1 has no sessions and is left out", "12 sessions on 3 hosts"]);
    assert!(hosts.active("n1").is_empty() && !hosts.active("n3").is_empty());
    assert!(hosts.inventories()[1] == before[1], "n1 was rolled back");
    // A host with sessions is not replaced.
    hosts.manifest(&with_spare().replace("count = 8", "count = 10"));
    let stood = hosts.inventories();
    hosts
        .fleet("apply", &["--launcher", &kills("n0")])
        .expect(1)
        .says(&["n0: it did not vote", "rolled back"]);
    hosts.assert_as(&stood);
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_host_that_is_lost_in_prepare_is_replaced_and_rolls_back_when_it_returns_in_every_case() {
    let hosts = Hosts::new(4, &with_spare());
    let before = hosts.inventories();
    let gone = hosts.sandbox.top.join("gone");
    let gone = gone.display();
    let launcher = hosts.launcher_with(&format!(
        "if test {{host}} = n1; then test -e {gone} && exit 255; case {{command}} in *\" prepare \"*) touch {gone}; \
         export SEEDBED_FAILPOINT=fleet.voting=crash;; esac; fi; "
    ));
    hosts.first_with(&launcher, &[]).expect(0).says(&["warning: host n1", "12 sessions on 3 hosts"]);
    assert!(hosts.inventories()[1] != before[1], "n1 is still prepared");
    let launcher = hosts.launcher();
    // More runs do not remove the decision that n1 has not seen.
    for _ in 0..3 {
        hosts.fleet("apply", &["--launcher", &without(&hosts, "n1")]).expect(0);
    }
    assert_eq!(runs(&hosts).first().unwrap(), "000001");
    hosts.on("n1", &["recover"]).expect(0).says(&["rolled back an interrupted apply"]);
    assert!(hosts.inventories()[1] == before[1]);
    hosts.fleet("recover", &["--launcher", &launcher]).expect(0);
    // A spare has nothing to destroy.
    hosts.fleet("destroy", &["--yes", "--launcher", &without(&hosts, "n1")]).expect(0);
    hosts.assert_as(&before);
}

#[test]
fn repair_restores_what_is_broken_on_hosts_and_changes_nothing_else() {
    let hosts = applied();
    hosts.fleet("repair", &[]).expect(0).says(&["nothing to repair"]);
    // The worktree that is made again has an index and a log of its own.
    let inventories = || {
        let mut all = hosts.inventories_without_records();
        for of_host in &mut all {
            of_host.retain(|path, _| !path.contains("worktrees/shop-runner-0"));
        }
        all
    };
    let stood = inventories();
    let (_, directory) = hosts.home("runner-0");
    let (_, other) = hosts.home("runner-1");
    fs::remove_dir_all(&directory).unwrap();
    let index = hosts.index();
    let discovery =
        index["sessions"].as_array().unwrap().iter().find(|found| found["session"] == "runner-1").unwrap();
    fs::remove_file(discovery["discoveryFile"].as_str().unwrap()).unwrap();
    fs::write(format!("{other}/work"), "work").unwrap();
    hosts.fleet("repair", &[]).expect(0);
    assert!(Path::new(&directory).exists());
    assert_eq!(fs::read_to_string(format!("{other}/work")).unwrap(), "work");
    fs::remove_file(format!("{other}/work")).unwrap();
    for (before, after) in stood.iter().zip(&inventories()) {
        crate::sandbox::assert_same(before, after);
    }
    let text = hosts.fleet("status", &[]).expect(0).stdout;
    assert!(!text.contains("differs"), "{text}");
    hosts.manifest(&with_spare().replace("count = 8", "count = 9"));
    let stood = hosts.inventories();
    hosts
        .fleet("repair", &[])
        .expect(69)
        .says(&["the manifest has changed since it was applied", "fleet-manifest"]);
    hosts.assert_as(&stood);
}

#[test]
fn repair_only_names_a_host_that_is_lost_and_repairs_the_others_in_place() {
    let hosts = applied();
    let lost = without(&hosts, "n2");
    let index = hosts.index();
    let on_n0 = index["sessions"].as_array().unwrap().iter().find(|found| found["host"] == "n0").unwrap();
    let discovery = Path::new(on_n0["discoveryFile"].as_str().unwrap());
    let stood = hosts.inventories();
    fs::remove_file(discovery).unwrap();
    let named = hosts.fleet("repair", &["--launcher", &lost]).expect(30);
    named.says(&["hosts with sessions are lost", "n2: ", "--forget HOST", "fleet-degraded"]);
    assert!(discovery.exists());
    hosts.assert_as(&stood);
    assert_eq!(hosts.index(), index);
}

#[test]
#[ignore = "`every_case` runs it"]
fn repair_places_the_sessions_of_a_forgotten_host_on_a_spare_in_every_case() {
    for forgotten in ["n0", "n2"] {
        let hosts = applied();
        let moved = hosts.active(forgotten);
        let kept: Vec<_> =
            hosts.names.iter().filter(|name| *name != forgotten).map(|name| hosts.active(name)).collect();
        let (_, directory) = hosts.home(&moved[0]);
        fs::write(format!("{directory}/work"), "work").unwrap();
        let at = hosts.names.iter().position(|name| name == forgotten).unwrap();
        let of_lost = hosts.inventories()[at].clone();
        let lost = without(&hosts, forgotten);
        let from = if forgotten == "n0" { "n1" } else { "n0" };
        let on = |name: &str, args: &[&str]| hosts.on(name, &[&["fleet"], args].concat());
        on(from, &["repair", "../../fleet", "--launcher", &lost, "--forget", forgotten]).expect(0);
        let on_spare = hosts.active("n3");
        assert_eq!(on_spare, moved);
        let others = hosts.names.iter().filter(|name| *name != forgotten);
        for (name, before) in others.zip(kept).filter(|(name, _)| *name != "n3") {
            assert_eq!(hosts.active(name), before, "{name}");
        }
        assert!(hosts.inventories()[at] == of_lost, "the lost host was changed");
        assert_eq!(hosts.index()["forgotten"], serde_json::json!([forgotten]));
        // The host is back, with work that is its own.
        hosts.on(forgotten, &["status"]).expect(0).says(&["has given up host", "seedbed destroy"]);
        hosts.on(forgotten, &["apply"]).expect(69).says(&["has given up host", "seedbed destroy"]);
        assert_eq!(
            states(&hosts, &["--launcher", &hosts.launcher()], 0).len(),
            3,
            "n0 is no host of the fleet"
        );
        let launcher = hosts.launcher();
        let returns = ["apply", "../../fleet", "--hosts", "n0,n1,n2,n3", "--launcher", &launcher];
        on(from, &returns).expect(1).says(&[&format!("{forgotten}: "), "given up"]);
        assert!(hosts.inventories()[at] == of_lost, "the host was changed");
        hosts.on(forgotten, &["destroy", "--yes"]).expect(69).says(&["1 untracked"]);
        hosts.on(forgotten, &["destroy", "--yes", "--rescue"]).expect(0).says(&["has given up host"]);
        on(from, &returns).expect(0).says(&["12 to keep"]);
        assert_eq!(hosts.active("n3"), moved);
        hosts.fleet("destroy", &["--yes"]).expect(0);
    }
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_forgotten_host_may_return_prepared_for_a_run_that_was_committed_in_every_case() {
    let hosts = Hosts::new(4, &with_spare());
    let launcher = hosts.launcher_with("case {host}{command} in n2*\" resolve \"*) exit 255;; esac; ");
    hosts.first_with(&launcher, &[]).expect(30).says(&["the run is committed", "n2: it did not answer"]);
    let lost = without(&hosts, "n2");
    hosts.fleet("apply", &["--launcher", &lost]).expect(1).says(&["n2: ", "--forget HOST"]);
    hosts.fleet("repair", &["--launcher", &lost, "--forget", "n2"]).expect(0);
    for _ in 0..3 {
        hosts.fleet("apply", &[]).expect(0);
    }
    let on_n3 = hosts.active("n3");
    let recovered = hosts.on("n2", &["recover"]).expect(0);
    recovered.says(&["committed what a fleet has decided", "has given up host n2"]);
    assert_eq!(hosts.active("n2"), on_n3);
    hosts.on("n2", &["destroy", "--yes"]).expect(0);
    assert_eq!(hosts.active("n3"), on_n3);
    hosts.fleet("status", &["--launcher", &hosts.launcher()]).expect(0);
}

#[test]
fn fewer_hosts_than_shards_are_refused_and_fewer_shards_have_to_be_declared() {
    let hosts = applied();
    hosts.fleet("repair", &["--forget", "n9"]).expect(64).says(&["n9 is no host of the fleet"]);
    hosts.fleet("repair", &["--forget", "n2"]).expect(0);
    let stood = hosts.inventories();
    let refused = hosts.fleet("repair", &["--forget", "n3"]).expect(65);
    refused.says(&["the fleet needs 3 hosts"]);
    hosts.assert_as(&stood);
    let index: Value = hosts.index();
    hosts.manifest(&fleet(2).replace("shard = 2", "shard = 1"));
    hosts.fleet("apply", &["--forget", "n3", "--yes"]).expect(0);
    assert_eq!(hosts.index()["hosts"].as_array().unwrap().len(), 2);
    assert_eq!(
        hosts.index()["sessions"].as_array().unwrap().len(),
        index["sessions"].as_array().unwrap().len()
    );
}
