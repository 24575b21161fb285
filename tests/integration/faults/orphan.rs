//! Tests of a killed run that leaves its Git process running: nothing is removed while that process uses it.

use std::fs;
use std::process::Stdio;

use rustix::process::Signal;

use super::shim::Shim;
use super::{PAIR, sandbox};
use crate::sandbox::{Outcome, assert_same, send, wait_until};

/// Checkout that waits for a file `go`, of all files of a session or of some.
const SLOW_CHECKOUT: &str = r#"
if test "$command" = read-tree || test "$command" = checkout-index; then
    echo $$ > "$top/git.pid.$$"
    while test -d "$top" && ! test -e "$top/go"; do sleep 0.05; done
fi
"#;

#[test]
fn processes_of_a_killed_run_are_named_and_waited_for() {
    let sandbox = sandbox(PAIR);
    // Files that the work tree has as committed are not checked out.
    sandbox.write("README.md", "changed\n");
    let before = sandbox.inventory();
    let shim = Shim::new(&sandbox, SLOW_CHECKOUT);
    let pids = || {
        let names = fs::read_dir(&sandbox.top).unwrap().map(|entry| entry.unwrap().file_name());
        let names = names.filter_map(|name| name.to_str()?.strip_prefix("git.pid.").map(str::to_owned));
        names.collect::<Vec<_>>()
    };
    let mut apply = shim.command(&sandbox, &["apply", "--jobs", "2"]);
    let mut apply = apply.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("both checkouts run", || pids().len() == 2);
    sandbox.seedbed(&["recover"]).expect(75).says(&[&format!("is locked by pid {}", apply.id())]);
    send(Signal::KILL, &apply);
    apply.wait().unwrap();

    let there = sandbox.inventory();
    for args in [&["recover"][..], &["apply"], &["destroy"]] {
        let args = [args, &["--lock-timeout", "0.2"]].concat();
        let refused = sandbox.seedbed(&args).expect(75).says(&["left running", "the run was started by pid"]);
        assert!(
            pids().iter().all(|pid| refused.stderr.contains(&format!("pid {pid} (`"))),
            "{}",
            refused.stderr
        );
    }
    assert_same(&there, &sandbox.inventory());

    let mut recover = sandbox.command(&["recover"]);
    let mut recover = recover.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // `recover` reports the wait before it waits; only then do the checkouts continue.
    let mut said = String::new();
    let mut stderr = std::io::BufReader::new(recover.stderr.take().unwrap());
    std::io::BufRead::read_line(&mut stderr, &mut said).unwrap();
    assert!(said.contains("waiting up to 60 s"), "{said}");
    assert_eq!(recover.try_wait().unwrap(), None);
    fs::write(sandbox.top.join("go"), "").unwrap();
    Outcome::of(recover.wait_with_output().unwrap()).expect(0);
    assert_same(&before, &sandbox.inventory());
}
