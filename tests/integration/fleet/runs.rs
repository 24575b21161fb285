//! Tests of runs over all hosts: all of a fleet is applied and released, or none.

use std::fs;

use serde_json::{Value, json};

use super::{Hosts, SESSIONS, fleet, placed};

#[test]
fn a_fleet_is_applied_shown_changed_and_destroyed() {
    let hosts = Hosts::new(3, &fleet(3));
    let before = hosts.inventories();
    hosts.first(&[]).expect(0).says(&["run 000001 is committed: 12 sessions on 3 hosts"]);
    let applied: Vec<_> = hosts.names.iter().map(|name| hosts.active(name)).collect();
    hosts.on("n0", &["apply"]).expect(69).says(&["the swarm is the part of host n0", "seedbed fleet apply"]);
    assert_eq!(applied.iter().flatten().count(), 12, "{applied:?}");
    let index = hosts.index();
    for session in index["sessions"].as_array().unwrap() {
        let host = session["host"].as_str().unwrap();
        assert!(hosts.active(host).contains(&session["session"].as_str().unwrap().to_owned()), "{session}");
        assert!(fs::exists(session["discoveryFile"].as_str().unwrap()).unwrap(), "{session}");
    }
    let status = hosts.fleet("status", &["--json"]).expect(0).json();
    assert!(status["hosts"].as_array().unwrap().iter().all(|host| host["state"] == "applied"), "{status}");
    hosts.manifest(&fleet(3).replace("count = 8", "count = 10"));
    hosts.fleet("apply", &[]).expect(0).says(&["14 sessions on 3 hosts"]);
    for (before, name) in applied.iter().zip(&hosts.names) {
        let now = hosts.active(name);
        assert!(before.iter().all(|session| now.contains(session)), "{before:?} {now:?}");
    }
    hosts.fleet("destroy", &["--yes"]).expect(0);
    assert_eq!(hosts.index()["sessions"], json!([]));
    hosts.manifest(&fleet(3));
    hosts.assert_as(&before);
    hosts.fleet("recover", &[]).expect(0);
}

#[test]
fn an_unchanged_fleet_stays_as_it_is() {
    let hosts = Hosts::new(2, &fleet(2).replace("shard = 2", "shard = 1"));
    hosts.first(&[]).expect(0);
    let before = hosts.inventories_without_records();
    hosts.fleet("apply", &[]).expect(0).says(&["12 to keep"]);
    assert!(hosts.inventories_without_records() == before);
}

#[test]
fn only_the_expected_plan_of_a_fleet_is_applied() {
    let hosts = Hosts::new(3, &fleet(3));
    hosts.observe();
    let digest = hosts.plan(&["--json"]).expect(0).json()["digest"].as_str().unwrap().to_owned();
    let other = format!("sha256:{}", "0".repeat(64));
    let before = hosts.inventories();
    hosts.first(&["--expect", &other]).expect(69).says(&["another digest", "nothing was changed"]);
    hosts.assert_as(&before);
    hosts.fleet("apply", &["--expect", &digest]).expect(0);
}

#[test]
fn unsaved_work_on_one_host_keeps_all_hosts() {
    let hosts = Hosts::new(3, &fleet(3));
    hosts.first(&[]).expect(0);
    let (host, directory) = hosts.home("runner-3");
    fs::write(format!("{directory}/work"), "work").unwrap();
    let before = hosts.inventories();
    let refused = hosts.fleet("destroy", &["--yes"]).expect(1);
    refused.says(&[&format!("{host}: "), "runner-3: ", "1 untracked", "every host was rolled back"]);
    hosts.assert_as(&before);
    // A session that the manifest no longer has is a release, too.
    hosts.manifest(&fleet(3).replace("count = 8", "count = 3"));
    let before = hosts.inventories();
    hosts.fleet("apply", &[]).expect(69).says(&["would be destroyed or replaced", "--yes"]);
    hosts.fleet("apply", &["--yes"]).expect(1).says(&["runner-3"]);
    hosts.assert_as(&before);
    hosts.fleet("destroy", &["--yes", "--rescue"]).expect(0);
    let rescues = hosts.on(&host, &["rescue", "list"]).expect(0).stdout;
    assert!(rescues.contains("runner-3"), "{rescues}");
}

#[test]
fn a_host_with_sessions_is_left_out_only_if_it_is_forgotten() {
    let hosts = Hosts::new(3, &fleet(3).replace("shards = 3\n", ""));
    hosts.first(&[]).expect(0);
    let without = ["--hosts", "n0,n1"];
    let replaced = SESSIONS.replace("shard = 2", "shard = 1");
    hosts.manifest(&format!("[fleet]\n{replaced}"));
    let before = hosts.inventories();
    hosts.fleet("apply", &without).expect(1).says(&["n2: it has sessions of the fleet", "--forget HOST"]);
    hosts.assert_as(&before);
    hosts.fleet("apply", &[&without[..], &["--forget", "n2", "--yes"]].concat()).expect(0);
    let index = hosts.index();
    let indexed = index["sessions"].as_array().unwrap();
    assert_eq!(indexed.len(), 12);
    assert!(indexed.iter().all(|session| session["host"] != "n2"));
    hosts.on("n2", &["destroy", "--yes"]).expect(0);
}

#[test]
fn sessions_of_one_fleet_are_refused_to_another() {
    let hosts = Hosts::new(2, &fleet(2).replace("shard = 2", "shard = 1"));
    hosts.first(&[]).expect(0);
    let before = hosts.inventories();
    let (launcher, root) = (hosts.launcher(), hosts.sandbox.top.join("{host}/repository"));
    let named = ["--hosts", "n0,n1", "--launcher", &launcher, "--root", root.to_str().unwrap()];
    let other =
        |command: &str, args: &[&str]| hosts.on("n0", &[&["fleet", command, "../../other"], args].concat());
    other("apply", &named)
        .expect(1)
        .says(&["n0: the swarm is the part of host n0 of the fleet in ", "/fleet`"]);
    other("destroy", &["--yes"]).expect(1).says(&["n1: the swarm is the part of host n1 of the fleet in "]);
    hosts.assert_as(&before);
    // A fleet whose directory was moved is still the same.
    fs::remove_dir_all(hosts.sandbox.top.join("other")).unwrap();
    fs::rename(hosts.sandbox.top.join("fleet"), hosts.sandbox.top.join("other")).unwrap();
    other("apply", &[]).expect(0).says(&["12 to keep"]);
    other("destroy", &["--yes"]).expect(0);
}

#[test]
fn arguments_of_a_fleet_are_checked_before_any_host_is_asked() {
    let hosts = Hosts::new(2, &fleet(2).replace("shard = 2", "shard = 1"));
    let check = |args: &[&str], code: i32, said: &str| {
        hosts.on("n0", &[&["fleet"], args].concat()).expect(code).says(&[said]);
    };
    let launcher = ["--launcher", "sh -c {command}"];
    check(&["apply", "../../fleet", "--hosts", "n0"], 64, "--launcher");
    check(&[&["apply", "../../fleet"], &launcher[..]].concat(), 64, "--hosts");
    check(&["apply", "../../fleet", "--hosts", "n0", "--launcher", "ssh"], 64, "`{command}`");
    check(&[&["apply", "../../fleet", "--hosts", "n0,n0"], &launcher[..]].concat(), 64, "named twice");
    check(&["apply", "../../fleet", "--hosts=-oProxyCommand=x"], 64, "a host has a name");
    check(&["status", "../../none"], 1, "cannot open");
    assert!(hosts.index().is_null());
}

#[test]
fn a_fleet_needs_its_hosts() {
    let hosts = Hosts::new(2, &fleet(3));
    let before = hosts.inventories();
    hosts.first(&[]).expect(65).says(&["the fleet needs 3 hosts, and 2 are observed"]);
    hosts.assert_as(&before);
}

#[test]
fn sessions_know_the_hosts_and_ports_of_others() {
    let hosts = Hosts::new(3, &fleet(3));
    hosts.first(&[]).expect(0);
    let index = hosts.index();
    let lead = index["sessions"].as_array().unwrap().iter().find(|one| one["session"] == "lead").unwrap();
    let expected = format!("{}:{}", lead["host"].as_str().unwrap(), lead["ports"][0][0]);
    for at in 0..8 {
        let (host, _) = hosts.home(&format!("runner-{at}"));
        let env: Value = hosts.on(&host, &["env", &format!("runner-{at}"), "--json"]).expect(0).json();
        assert_eq!(env["environment"]["LEAD"], json!(expected), "{env}");
    }
    hosts.observe();
    let planned = placed(&hosts.plan(&["--json"]).expect(0).json());
    assert_eq!(planned, hosts.names.iter().map(|name| hosts.active(name)).collect::<Vec<_>>());
}
