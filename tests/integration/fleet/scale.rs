//! Tests of what a fleet of many hosts needs: all hosts at once.

use std::num::NonZeroUsize;
use std::time::Duration;

use seedbed::fleet::launcher::{CommandLauncher, HostCommand, Launcher as _};
use seedbed::host::Host;
use seedbed::host::process::Cancel;

use super::{Hosts, fleet};
use crate::sandbox::Outcome;

/// Runs a command on this many hosts, each of which waits until the last one has begun, and returns how many ended well.
fn rendezvous(hosts: usize, jobs: Option<NonZeroUsize>, limit: Duration) -> usize {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::new(Vec::new(), directory.path().into());
    let last = directory.path().join("last");
    let template = format!(
        "case {{host}} in h{}) touch {last};; *) until test -e {last}; do sleep 0.05; done;; esac; {{command}}",
        hosts - 1,
        last = last.display()
    );
    let launcher = CommandLauncher::new(&host, &template, jobs).unwrap();
    let names: Vec<_> = (0..hosts).map(|at| format!("h{at}")).collect();
    let ended = launcher.run(&names, &HostCommand::new(vec!["true".to_owned()]), limit, &Cancel::default());
    assert_eq!(ended.len(), hosts);
    ended.values().filter(|end| end.is_ok()).count()
}

#[test]
fn a_slow_host_keeps_no_other_host_waiting() {
    assert_eq!(rendezvous(100, None, Duration::from_mins(1)), 100);
    assert_eq!(rendezvous(3, NonZeroUsize::new(2), Duration::from_millis(500)), 1, "only the last one");
}

#[test]
fn jobs_limit_the_hosts_that_are_asked_at_once() {
    let hosts = Hosts::new(3, &fleet(3));
    let busy = hosts.sandbox.top.join("busy");
    let alone = format!("mkdir {0} || exit 9; trap 'rmdir {0}' EXIT; ", busy.display());
    let launcher = hosts.launcher_with(&alone);
    hosts.first_with(&launcher, &["--jobs", "1"]).expect(0);
    let all = hosts.fleet("status", &[]).expect(30).stdout;
    assert!(all.contains("not heard of"), "two at once: {all}");
}

#[test]
fn a_low_limit_of_open_files_is_reported() {
    let hosts = Hosts::new(3, &fleet(3));
    let mut command = std::process::Command::new("sh");
    let apply = hosts.first_command(&hosts.launcher(), &[]);
    command.args(["-c", "ulimit -n 74; exec \"$0\" \"$@\""]).arg(apply.get_program()).args(apply.get_args());
    command.current_dir(apply.get_current_dir().unwrap());
    command.env_clear().envs(apply.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let outcome = Outcome::of(command.output().unwrap()).expect(0);
    outcome.says(&["note: 2 of 3 hosts work at once", "ulimit -n"]);
}
