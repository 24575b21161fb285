//! Tests of the plan of a fleet: placement, names across hosts, refusals, and its size.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::Ordering;

use seedbed::fleet::{self as fleets, HostObservation};
use seedbed::manifest;
use seedbed::observe::Observation;
use seedbed::provider::Registry;
use serde_json::{Value, json};

use super::{Hosts, SESSIONS, fleet, placed};
use crate::fake_kind::Fake;
use crate::sandbox::{assert_same, ports, sessions};

#[test]
fn every_session_has_one_shard_and_children_are_with_their_parent() {
    let hosts = Hosts::new(4, &format!("[fleet]\nshards = 3\nspares = 1\n{SESSIONS}"));
    hosts.observe();
    let plan = hosts.plan(&["--json"]).expect(0).json();
    let placed = placed(&plan);
    let all: BTreeSet<_> = placed.iter().flatten().collect();
    assert_eq!((all.len(), placed.iter().map(Vec::len).sum::<usize>()), (12, 12), "{placed:?}");
    assert_eq!(plan["spares"], json!(["n3"]));
    assert!(placed[2].contains(&"pinned".to_owned()), "{placed:?}");
    let with_lead = placed.iter().find(|of| of.contains(&"lead".to_owned())).unwrap();
    assert!(with_lead.iter().any(|path| path == "lead/coder-1"), "{placed:?}");
    assert!(placed.iter().all(|of| of.len() <= 6), "4 is the share, and the largest tree has 3: {placed:?}");
}

#[test]
fn no_two_sessions_of_the_tests_prefer_one_block() {
    for count in ["count = 8", "count = 10"] {
        let hosts = Hosts::new(1, &fleet(3).replace("count = 8", count));
        let plan = hosts.on("n0", &["plan", "--json"]).expect(0).json();
        let text = plan.to_string();
        assert!(text.contains("runner-7") && !text.contains("passed over"), "{text}");
    }
}

#[test]
fn templates_name_hosts_and_ports_of_other_shards() {
    let hosts = Hosts::new(3, &fleet(3));
    hosts.observe();
    let plan = hosts.plan(&["--json"]).expect(0).json();
    let shards = plan["shards"].as_array().unwrap();
    let sessions = |shard: &Value| shard["plan"]["sessions"].as_array().unwrap().clone();
    let lead = shards.iter().flat_map(sessions).find(|session| session["path"] == "lead").unwrap();
    let home =
        shards.iter().find(|shard| sessions(shard).iter().any(|session| session["path"] == "lead")).unwrap();
    let expected = format!("{}:{}", home["host"].as_str().unwrap(), ports(&lead).0);
    let mut elsewhere = 0;
    for shard in shards {
        for runner in
            sessions(shard).iter().filter(|session| session["path"].as_str().unwrap().starts_with("runner"))
        {
            assert_eq!(runner["env"]["LEAD"], json!(expected));
            assert_eq!(runner["env"]["OWN"], shard["host"]);
            elsewhere += usize::from(shard["host"] != home["host"]);
        }
    }
    assert!(elsewhere > 0, "a session names another host");
}

#[test]
fn files_and_seeds_of_each_host_are_observed_and_planned() {
    let hosts = Hosts::new(
        2,
        "[fleet]\nshards = 2\n[session.a]\ncount = 2\nfiles = { \"copy.txt\" = { template-file = \"README.md\" } }\n\
         resources = [{ kind = \"git-worktree\", seed = [{ path = \"deps\", key = [\"README.md\"], command = \"mkdir deps\" }] }]\n",
    );
    // The commit of the plan, that of the first host, is not the one of the other host.
    hosts.sandbox.git_in(&hosts.root("n1"), &["commit", "--quiet", "--allow-empty", "--message", "other"]);
    hosts.observe();
    let plan = hosts.plan(&["--json"]).expect(0).json();
    let readme = fs::read_to_string(hosts.root("n0").join("README.md")).unwrap();
    for shard in plan["shards"].as_array().unwrap() {
        for session in sessions(&shard["plan"]) {
            assert_eq!(session["files"]["copy.txt"]["text"], json!(readme), "{session}");
            let seed = &session["allocations"][0]["allocation"]["seeds"][0];
            assert!(seed["digest"].is_string(), "{session}");
        }
    }
}

#[test]
fn one_plan_has_one_digest_which_depends_on_every_host() {
    let hosts = Hosts::new(3, &fleet(3));
    hosts.observe();
    let digest = || hosts.plan(&["--json"]).expect(0).json()["digest"].clone();
    let first = digest();
    hosts.observe();
    assert_eq!(digest(), first, "the same hosts");
    let file = hosts.sandbox.top.join("observations/n1.json");
    let observation = fs::read_to_string(&file).unwrap();
    fs::write(&file, observation.replace("\"host\": \"n1\"", "\"host\": \"n1.local\"")).unwrap();
    assert_ne!(digest(), first, "another host");
}

#[test]
fn each_host_applies_its_saved_part_and_the_next_plan_keeps_it() {
    let hosts = Hosts::new(3, &fleet(3));
    hosts.observe();
    hosts.plan(&["-o", "../../plans"]).expect(0);
    let plan = hosts.plan(&["--json"]).expect(0).json();
    let placed_first = placed(&plan);
    for (at, name) in hosts.names.iter().enumerate() {
        let digest = plan["shards"][at]["digest"].as_str().unwrap();
        hosts.on(name, &["apply", &format!("../../plans/shard-{at}.json"), "--expect", digest]).expect(0);
        assert_eq!(hosts.active(name), placed_first[at]);
    }
    // Another session moves none of the active ones.
    hosts.manifest(&fleet(3).replace("count = 8", "count = 14"));
    hosts.observe();
    let placed_next = placed(&hosts.plan(&["--json"]).expect(0).json());
    for (first, next) in placed_first.iter().zip(&placed_next) {
        assert!(first.iter().all(|path| next.contains(path)), "{first:?} {next:?}");
    }
    assert_eq!(placed_next.iter().flatten().count(), 18);
}

#[test]
fn saved_part_is_refused_when_head_of_its_host_has_moved() {
    let hosts = Hosts::new(3, &fleet(3));
    hosts.observe();
    hosts.plan(&["-o", "../../plans"]).expect(0);
    // HEAD of n1 moves after the plan.
    hosts.sandbox.git_in(&hosts.root("n1"), &["commit", "--quiet", "--allow-empty", "--message", "other"]);
    hosts.on("n1", &["apply", "../../plans/shard-1.json"]).expect(69).says(&["the plan is stale"]);
    assert!(hosts.active("n1").is_empty());
}

#[test]
fn commits_that_a_host_lacks_are_counted() {
    let hosts = Hosts::new(3, &fleet(3));
    hosts.sandbox.git_in(&hosts.root("n0"), &["commit", "--quiet", "--allow-empty", "--message", "other"]);
    hosts.observe();
    let text = hosts.plan(&[]).expect(0).stdout;
    assert!(text.contains("note: n1, n2 get 1 commit of the workspace ("), "{text}");
    let markdown = hosts.plan(&["--format", "markdown"]).expect(0).stdout;
    assert!(markdown.contains("n1, n2 get 1 commit of the workspace"), "{markdown}");
    let plan = hosts.plan(&["--json"]).expect(0).json();
    assert_eq!(plan["shards"][1]["deliveries"][0]["commits"], json!(1), "{plan}");
    assert_eq!(plan["shards"][0]["deliveries"], Value::Null);
}

#[test]
fn observations_that_do_not_fit_are_refused() {
    let hosts = Hosts::new(3, &fleet(3));
    hosts.plan(&[]).expect(65).says(&["has no observation", "help: run `seedbed observe"]);
    hosts.observe();
    let directory = hosts.sandbox.top.join("observations");
    let original = fs::read_to_string(directory.join("n2.json")).unwrap();
    let check = |text: &str, said: &str| {
        fs::write(directory.join("n2.json"), text).unwrap();
        hosts.plan(&[]).expect(65).says(&[said]);
    };
    check("{}", "n2.json is no observation of this version of seedbed");
    check(
        &original.replace("\"schemaVersion\": 1,\n  \"swarm\"", "\"schemaVersion\": 9,\n  \"swarm\""),
        "has format 9",
    );
    check(&original.replace("\"host\": \"n2\"", "\"host\": \"-oProxyCommand=x\""), "names no host");
    check(&original.replace("\"host\": \"n2\"", "\"host\": \"n1\""), "two observations are of host n1");
    check(&original.replace("\"swarm\": \"shop\"", "\"swarm\": \"other\""), "host n2 is for swarm `other`");
    fs::remove_file(directory.join("n2.json")).unwrap();
    hosts.plan(&[]).expect(65).says(&["the fleet needs 3 hosts, and 2 are observed"]);
    fs::write(directory.join("n2.json"), original).unwrap();
    hosts.manifest(&fleet(3).replace("resources = [\"git-worktree\"]", "resources = [\"directory\"]"));
    hosts.plan(&[]).expect(65).says(&["host n0 lacks facts", "seedbed observe"]);
}

#[test]
fn manifests_that_fit_no_fleet_are_refused() {
    let hosts = Hosts::new(1, &fleet(3));
    let check = |rest: &str, said: &str| {
        hosts.manifest(rest);
        hosts.on("n0", &["validate"]).expect(65).says(&[said]);
    };
    check(&fleet(2), "the fleet has no shard 2");
    check(
        "[fleet]\nshards = 2\n[session.a.child.b]\nshard = 1\n",
        "only a session at the top chooses a shard",
    );
    check("[fleet]\nshards = 0\n", "`shards` is 0, and must be at least 1");
    check("[fleet]\nhosts = 2\n[session.a]\n", "unknown key `hosts`");
}

#[test]
fn a_fleet_with_an_external_kind_is_refused() {
    let hosts = Hosts::new(
        1,
        "[fleet]\nshards = 1\n[provider.database]\ncommand = [\"./database\"]\n[session.a]\nresources = [\"database\"]\n",
    );
    hosts.observe();
    hosts.plan(&[]).expect(65).says(&["fleet-kind", "database"]);
}

#[test]
fn observing_and_planning_change_nothing() {
    let hosts =
        Hosts::new(1, &format!("[fleet]\nshards = 1\n{}", SESSIONS.replace("shard = 2", "shard = 0")));
    let before = hosts.sandbox.inventory();
    hosts.sandbox.ok(&["observe", "-o", "../observations/n0.json", "--host", "n0"]);
    let file = fs::read_to_string(hosts.sandbox.top.join("observations/n0.json")).unwrap();
    let printed = hosts.sandbox.ok(&["observe", "--host", "n0"]).stdout;
    assert_eq!(file, printed);
    hosts.sandbox.ok(&["fleet", "plan", "--observations", "../observations"]);
    assert_same(&before, &hosts.sandbox.inventory());
    hosts.sandbox.write("notes.json", "{}");
    hosts
        .sandbox
        .seedbed(&["observe", "-o", "notes.json"])
        .expect(64)
        .says(&["this command did not write it"]);
}

/// Plans a fleet of this many shards, and returns its review and the number of planned resources.
fn large(shards: u32, sessions: u32) -> (String, usize) {
    let fake = Fake::new("fake", |_, _| Ok(()));
    let calls = fake.calls();
    let mut registry = Registry::built_in();
    registry.register(Box::new(fake)).unwrap();
    let tables: Vec<_> = (0..sessions)
        .map(|at| format!("[session.t{at}]\ncount = {shards}\nresources = [\"fake\"]\n"))
        .collect();
    let tables = tables.concat();
    let text = format!("version = 1\nswarm = \"large\"\n[fleet]\nshards = {shards}\n{tables}");
    let manifest = manifest::parse(&text, &registry.kinds()).unwrap();
    let queries = serde_json::to_value(fleets::queries(&manifest, &registry, None)).unwrap();
    let workspace = Observation::new("/srv/repository".into());
    let host = |at: u32| {
        let document = json!({
            "schemaVersion": 1, "swarm": "large", "host": format!("n{at:04}"), "queries": queries,
            "observation": workspace,
        });
        HostObservation::read(document.to_string().as_bytes()).unwrap()
    };
    let plan = fleets::plan(&manifest, &registry, &workspace, (0..shards).map(host).collect()).unwrap();
    assert_eq!(plan.shards.len(), shards as usize);
    assert!(plan.shards.iter().all(|shard| shard.sessions == sessions), "equal sessions are spread evenly");
    (fleets::review::text(&plan, &registry, false), calls.load(Ordering::Relaxed))
}

#[test]
fn work_of_planning_grows_with_the_sessions_and_the_review_does_not() {
    let (small_text, small) = large(10, 10);
    let (large_text, large) = large(80, 10);
    assert_eq!(small, 100);
    assert_eq!(large, 800);
    assert_eq!(small_text.lines().count(), large_text.lines().count());
    assert!(large_text.contains("shards 0-79 on n0000, n0001, n0002, … 74 more …, n0077"), "{large_text}");
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_thousand_shards_of_a_hundred_sessions_are_planned_in_every_case() {
    let (text, planned) = large(1_000, 100);
    assert_eq!(planned, 100_000);
    assert!(text.lines().count() < 10 && text.contains("100 sessions each: 100 to create"), "{text}");
}
