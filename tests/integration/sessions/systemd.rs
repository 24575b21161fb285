//! A test of `seedbed export --format systemd` with a real user manager of systemd.
//!
//! The manager runs in a mount namespace of its own, in which `/run` looks like that of a host with systemd.

use std::process::Command;

use super::export::{applied, reports};
use crate::sandbox::{Outcome, Sandbox};

/// Starts a user manager, runs the command that the arguments are, and ends the manager.
const MANAGER: &str = r#"
set -eu
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system /run/user/0
chmod 700 /run/user/0
export XDG_RUNTIME_DIR=/run/user/0 DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/0/bus
dbus-daemon --session --address="$DBUS_SESSION_BUS_ADDRESS" --nofork --nopidfile >/dev/null 2>&1 & bus=$!
manager=
trap 'kill $bus $manager 2>/dev/null; wait' EXIT
until [ -S /run/user/0/bus ]; do sleep 0.02; done
/usr/lib/systemd/systemd --user --log-target=null & manager=$!
tries=0
until systemctl --user is-system-running >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 500 ] || exit 77
    sleep 0.02
done
"$@"
"#;

/// Returns whether a user manager can be run here; prints a notice if not.
fn can_run(sandbox: &Sandbox) -> bool {
    let has = |program: &str| Command::new(program).arg("--version").output().is_ok();
    let has_programs = ["unshare", "dbus-daemon", "systemd-run", "systemctl"].iter().all(|name| has(name));
    let can = has_programs && in_manager(sandbox, &["true"]).code == 0;
    if !can {
        eprintln!("NOT TESTED: no user manager of systemd can be run here");
    }
    can
}

fn in_manager(sandbox: &Sandbox, args: &[&str]) -> Outcome {
    let mut unshare = sandbox.program("unshare", &sandbox.repository);
    let output = unshare.args(["--mount", "sh", "-c", MANAGER, "sh"]).args(args).output();
    Outcome::of(output.unwrap())
}

#[test]
#[ignore = "takes seconds, and starts a user manager of systemd"]
fn every_case_of_units_in_a_real_user_manager() {
    let sandbox = applied();
    if !can_run(&sandbox) {
        return;
    }
    sandbox.seedbed(&["start", "--quiet"]).expect(3);
    let expected = reports(&sandbox);
    let file = sandbox.top.join("it's $HOME #{x} %H.sh");
    let file = file.to_str().unwrap();
    sandbox.ok(&["export", "--format", "systemd", "-o", file]);
    let script = r#"
        sh "$1"
        until [ -s "$2/report" ] && [ -s "$3/report" ]; do sleep 0.02; done
    "#;
    let [a, b] = ["a", "a/b"].map(|session| sandbox.directory(session));
    let args = ["sh", "-c", script, "sh", file, a.to_str().unwrap(), b.to_str().unwrap()];
    let outcome = in_manager(&sandbox, &args).expect(0);
    assert!(outcome.stdout.contains("journalctl --user --follow --unit='seedbed-shop-*'"), "{outcome:?}");
    assert_eq!(reports(&sandbox), expected);
    sandbox.ok(&["destroy", "--discard"]);
}
