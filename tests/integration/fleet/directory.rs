//! Tests of the directory of a fleet: damaged, removed and old files.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::Stdio;

use super::{Hosts, fleet};
use crate::sandbox::Outcome;

/// Starts the first run of three hosts, and kills its coordinator at a point.
fn killed_at(point: &str) -> Hosts {
    let hosts = Hosts::new(3, &fleet(3));
    let mut command = hosts.first_command(&hosts.launcher_with("unset SEEDBED_FAILPOINT; "), &[]);
    Outcome::of(command.env("SEEDBED_FAILPOINT", format!("{point}=crash")).output().unwrap()).expect(137);
    hosts
}

#[test]
fn a_decision_counts_before_its_index_is_published() {
    let hosts = killed_at("fleet.decided");
    assert!(hosts.index().is_null());
    let launcher = hosts.launcher();
    // What was committed is known: n2 has sessions.
    let refused = hosts.fleet("apply", &["--hosts", "n0,n1", "--launcher", &launcher]).expect(1);
    refused.says(&["n2: it has sessions of the fleet"]);
    let status = hosts.fleet("status", &["--json", "--launcher", &launcher]).expect(30).json();
    assert_eq!(
        (&status["run"], &status["hosts"][2]["state"]),
        (&"000001".into(), &"prepared".into()),
        "{status}"
    );
    hosts.fleet("recover", &["--launcher", &launcher]).expect(0);
    assert_eq!(hosts.index()["run"], "000001");
    hosts.fleet("status", &[]).expect(0);
}

#[test]
fn an_index_that_is_damaged_is_written_again() {
    let hosts = Hosts::new(3, &fleet(3));
    hosts.first(&[]).expect(0);
    let index = hosts.sandbox.top.join("fleet/index.json");
    let whole = fs::read(&index).unwrap();
    fs::write(&index, &whole[..100]).unwrap();
    hosts.fleet("recover", &[]).expect(0);
    assert!(fs::read(&index).unwrap() == whole);
}

#[test]
fn a_run_whose_directory_was_removed_is_neither_committed_nor_aborted_by_itself() {
    let hosts = killed_at("fleet.voted");
    let prepared = hosts.inventories();
    fs::remove_dir_all(hosts.sandbox.top.join("fleet/runs")).unwrap();
    hosts.on("n0", &["recover"]).expect(69).says(&["run 000001 was removed by hand", "--give-up"]);
    let launcher = hosts.launcher();
    hosts.fleet("apply", &["--launcher", &launcher]).expect(1).says(&["n0: ", "removed by hand"]);
    hosts.assert_as(&prepared);
    for name in &hosts.names[..2] {
        hosts.on(name, &["recover", "--give-up"]).expect(0);
    }
    // The next run has another number: n2 does not take its decision for that of its own run.
    hosts.manifest(&fleet(2).replace("shard = 2", "shard = 1"));
    hosts.fleet("apply", &["--hosts", "n0,n1"]).expect(0).says(&["run 000002 is committed"]);
    hosts.on("n2", &["recover"]).expect(69).says(&["run 000001 was removed by hand"]);
    hosts.on("n2", &["recover", "--give-up"]).expect(0);
}

#[test]
fn a_directory_that_was_emptied_is_that_of_another_fleet() {
    let hosts = killed_at("fleet.voted");
    fs::remove_dir_all(hosts.sandbox.top.join("fleet")).unwrap();
    for name in &hosts.names[..2] {
        hosts.on(name, &["recover"]).expect(69).says(&["without the directory of its fleet"]);
        hosts.on(name, &["recover", "--give-up"]).expect(0);
    }
    hosts.manifest(&fleet(2).replace("shard = 2", "shard = 1"));
    let root = hosts.sandbox.top.join("{host}/repository");
    let named = ["--hosts", "n0,n1", "--launcher", &hosts.launcher(), "--root", root.to_str().unwrap()];
    hosts.fleet("apply", &named).expect(0).says(&["run 000001 is committed"]);
    let prepared = hosts.inventories()[2].clone();
    hosts.on("n2", &["recover"]).expect(69).says(&["it is that of another fleet now", "--give-up"]);
    assert!(hosts.inventories()[2] == prepared);
    hosts.on("n2", &["recover", "--give-up"]).expect(0);
}

#[test]
fn a_configuration_that_is_damaged_can_be_written_again() {
    let hosts = Hosts::new(3, &fleet(3));
    hosts.first(&[]).expect(0);
    let config = hosts.sandbox.top.join("fleet/config.json");
    let whole = fs::read(&config).unwrap();
    fs::write(&config, &whole[..20]).unwrap();
    hosts
        .fleet("status", &[])
        .expect(1)
        .says(&["config.json cannot be read", "`--hosts`, `--launcher` and `--root`"]);
    hosts.first(&[]).expect(0).says(&["12 to keep"]);
    assert!(fs::read(&config).unwrap() == whole);
}

#[test]
fn answers_and_reports_that_are_damaged_are_none() {
    let hosts = Hosts::new(3, &fleet(3));
    let before = hosts.inventories();
    let damages = |phase: &str, file: &str| {
        let file = hosts.sandbox.top.join("fleet").join(file);
        let (launcher, file) = (hosts.launcher(), file.display());
        format!("{launcher}; case {{host}}{{command}} in n1*\" {phase} \"*) echo '{{' > {file};; esac")
    };
    let refused = hosts.first_with(&damages("prepare", "runs/000001/prepare/n1.json"), &[]).expect(1);
    refused.says(&["n1: ", "prepare/n1.json cannot be read", "every host was rolled back"]);
    hosts.assert_as(&before);
    let degraded = hosts.fleet("apply", &["--launcher", &damages("resolve", "runs/000002/resolve/n1.json")]);
    degraded.expect(30).says(&["the run is committed", "resolve/n1.json cannot be read"]);
    let status = hosts.fleet("status", &["--json", "--launcher", &damages("report", "reports/n1.json")]);
    assert_eq!(status.expect(30).json()["hosts"][1]["state"], "notHeard");
    hosts.fleet("recover", &["--launcher", &hosts.launcher()]).expect(0);
    hosts.fleet("status", &[]).expect(0);
}

#[test]
#[ignore = "`every_case` runs it"]
fn old_runs_and_observations_are_removed_in_every_case() {
    let hosts = Hosts::new(2, &fleet(2).replace("shard = 2", "shard = 1"));
    hosts.first(&[]).expect(0);
    let names = |directory: &str| {
        let entries = fs::read_dir(hosts.sandbox.top.join("fleet").join(directory)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    // A killed command leaves its observations, and the next one removes them.
    let mut command =
        hosts.fleet_command("apply", &["--launcher", &hosts.launcher_with("unset SEEDBED_FAILPOINT; ")]);
    Outcome::of(command.env("SEEDBED_FAILPOINT", "fleet.observed=crash").output().unwrap()).expect(137);
    assert_eq!(names("observations").len(), 1);
    for _ in 0..3 {
        hosts.fleet("apply", &["--launcher", &hosts.launcher()]).expect(0);
    }
    assert_eq!(names("runs"), ["000003", "000004"]);
    assert!(names("observations").is_empty());
    hosts.fleet("destroy", &["--yes"]).expect(0);
    assert_eq!(names("runs"), ["000004", "000005"]);
    // An abort that a host has not followed stays, without its plan.
    let lost = hosts.launcher_with(
        "case {host}{command} in n1*\" prepare \"*) export SEEDBED_FAILPOINT=fleet.voting=crash;; n1*\" resolve \"*) exit 255;; esac; ",
    );
    hosts.fleet("apply", &["--launcher", &lost]).expect(30);
    let away = hosts.launcher_with("test {host} = n1 && exit 255; ");
    let only = fleet(1).replace("shard = 2", "shard = 0");
    hosts.manifest(&only);
    for _ in 0..2 {
        hosts.fleet("apply", &["--hosts", "n0", "--launcher", &away]).expect(0);
    }
    assert_eq!(names("runs"), ["000006", "000007", "000008"]);
    assert!(!names("runs/000006").contains(&"plan".to_owned()), "{:?}", names("runs/000006"));
    hosts.on("n1", &["recover"]).expect(0).says(&["rolled back"]);
    hosts.fleet("recover", &["--hosts", "n0,n1", "--launcher", &hosts.launcher()]).expect(0);
    hosts.fleet("apply", &["--hosts", "n0"]).expect(0);
    assert_eq!(names("runs"), ["000008", "000009"]);
}

/// The question of a run on a terminal locks nothing.
#[test]
fn a_run_goes_through_while_another_asks_and_the_other_is_stale_then() {
    let hosts = Hosts::new(3, &fleet(3));
    hosts.first(&[]).expect(0);
    hosts.manifest(&fleet(3).replace("count = 8", "count = 3"));
    let mut script = hosts.sandbox.program("timeout", &hosts.root("n0"));
    let command = format!("{} fleet apply ../../fleet", env!("CARGO_BIN_EXE_seedbed"));
    script.args(["120", "script", "--quiet", "--return", "--flush", "--command", &command, "/dev/null"]);
    script.env("SHELL", "/bin/sh").env("SEEDBED_STATE_DIR", hosts.sandbox.top.join("n0/state"));
    let mut terminal = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut said, mut stdout) = (Vec::new(), terminal.stdout.take().unwrap());
    while !String::from_utf8_lossy(&said).contains("Go on?") {
        let mut byte = [0];
        assert_eq!(stdout.read(&mut byte).unwrap(), 1, "never asked: {}", String::from_utf8_lossy(&said));
        said.extend(byte);
    }
    hosts.fleet("apply", &["--yes"]).expect(0).says(&["run 000002 is committed: 7 sessions"]);
    let stood = hosts.inventories();
    terminal.stdin.take().unwrap().write_all(b"y\n").unwrap();
    stdout.read_to_end(&mut said).unwrap();
    let said = String::from_utf8_lossy(&said);
    assert_eq!(terminal.wait().unwrap().code(), Some(69), "{said}");
    assert!(said.contains("run 000002 of the fleet was committed meanwhile"), "{said}");
    assert!(!hosts.sandbox.top.join("fleet/runs/000003").exists(), "a host was asked");
    hosts.assert_as(&stood);
    hosts.fleet("status", &[]).expect(0);
}

#[test]
fn a_vote_that_is_seen_late_counts() {
    let hosts = Hosts::new(3, &fleet(3));
    // The command has ended well, and its vote appears a moment later, as on a file system with a cache.
    let (top, launcher) = (hosts.sandbox.top.display(), hosts.launcher());
    let vote = format!("{top}/fleet/runs/000001/prepare/n1.json");
    let late = format!(
        "{launcher}; case {{host}}{{command}} in n1*\" prepare \"*) mv {vote} {top}/vote; \
         (sleep 0.3; mv {top}/vote {vote}) >/dev/null 2>&1 & esac; exit 0"
    );
    hosts.first_with(&late, &[]).expect(0);
}
