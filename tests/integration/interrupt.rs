//! Runs that are interrupted, politely or not: everything is put back, at once or by the next run.

use std::fs;
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

use crate::sandbox::{Outcome, Sandbox, send, wait_until};

/// Sessions of which the last one's setup tells that it runs, then goes on for longer than any test.
struct Slow {
    sandbox: Sandbox,
}

impl Slow {
    /// `on_term` is what that setup does when it is asked to end; empty for ending.
    fn new(on_term: &str) -> Self {
        let sandbox = Sandbox::new();
        let slow = Self { sandbox };
        slow.manifest(3, on_term);
        slow
    }

    fn manifest(&self, count: u32, on_term: &str) {
        let top = self.sandbox.top.display();
        self.sandbox.manifest(&format!(
            r#"
[session.lead]
resources = [{{ kind = "git-worktree", branch = "agents/lead" }}, "port-range"]
[session.sparse]
resources = [{{ kind = "git-worktree", target-path = "app" }}]
[session.zcoder]
count = {count}
resources = ["git-worktree", "port-range"]
setup = ['''
echo made > made.txt
test "$AGENT_SESSION_ID" = shop/zcoder-2 || exit 0
trap 'touch {top}/asked; {on_term}' TERM
echo $$ > {top}/pid.new && mv {top}/pid.new {top}/pid
while test -d {top}; do sleep 0.1; done
''']
"#
        ));
    }

    /// Starts `apply`, and waits until that setup runs.
    fn start(&self) -> Child {
        let run = self.sandbox.start(&["apply", "--jobs", "8"]);
        wait_until("the slow setup runs", || self.sandbox.top.join("pid").exists());
        run
    }

    /// Kills `apply` while that setup runs.
    fn kill(&self) {
        let run = self.start();
        send(Signal::KILL, &run);
        Outcome::of(run.wait_with_output().unwrap()).expect(137);
    }
}

impl Drop for Slow {
    /// The setup outlives a killed run.
    fn drop(&mut self) {
        let pid = fs::read_to_string(self.sandbox.top.join("pid")).ok();
        let pid = pid.and_then(|pid| pid.trim().parse().ok()).and_then(Pid::from_raw);
        // Where it has ended nothing has that id yet: it was given moments ago.
        let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
    }
}

#[test]
fn ctrl_c_puts_everything_back() {
    for signal in [Signal::INT, Signal::TERM] {
        let slow = Slow::new("exit 1");
        let outcome = slow.sandbox.unchanged(|| {
            let run = slow.start();
            send(signal, &run);
            Outcome::of(run.wait_with_output().unwrap()).expect(130)
        });
        outcome.says(&["interrupted", "taken away again"]);
        // Its commands were asked to end, and have.
        assert!(slow.sandbox.top.join("asked").exists());
        slow.sandbox.ok(&["recover"]).says(&["nothing to recover"]);
    }
}

#[test]
fn a_second_ctrl_c_leaves_what_recover_puts_back() {
    let slow = Slow::new(":");
    slow.sandbox.unchanged(|| {
        let run = slow.start();
        send(Signal::INT, &run);
        wait_until("the setup is asked to end", || slow.sandbox.top.join("asked").exists());
        send(Signal::INT, &run);
        Outcome::of(run.wait_with_output().unwrap()).expect(130);
        slow.sandbox.ok(&["recover"]).says(&["undid an apply that had been interrupted"]);
    });
}

#[test]
fn a_killed_apply_is_undone_by_recover() {
    let slow = Slow::new("exit 1");
    slow.sandbox.unchanged(|| {
        slow.kill();
        assert!(slow.sandbox.repository.join(".ai_ops").exists());
        slow.sandbox.ok(&["recover"]).says(&["undid an apply that had been interrupted"]);
    });
    slow.sandbox.unchanged(|| slow.sandbox.ok(&["recover"]).says(&["nothing to recover"]));
}

#[test]
fn a_killed_apply_is_undone_by_the_next_apply_which_then_stands() {
    let slow = Slow::new("exit 1");
    let before = slow.sandbox.inventory();
    slow.kill();
    slow.sandbox.seedbed(&["status"]).expect(64);
    slow.manifest(2, "exit 1");
    slow.sandbox.ok(&["apply"]).says(&["undid an apply that had been interrupted"]);
    for directory in slow.sandbox.directories() {
        slow.sandbox.git_in(&directory, &["rev-parse", "--verify", "HEAD"]);
    }
    slow.sandbox.ok(&["plan", "--detailed-exitcode"]);
    slow.manifest(3, "exit 1");
    slow.sandbox.ok(&["destroy", "--discard"]);
    crate::sandbox::assert_same(&before, &slow.sandbox.inventory());
}

#[test]
fn a_killed_apply_is_undone_by_destroy() {
    let slow = Slow::new("exit 1");
    slow.sandbox.unchanged(|| {
        slow.kill();
        slow.sandbox.ok(&["destroy"]).says(&["undid", "nothing stands"]);
    });
}

#[test]
fn a_killed_growth_leaves_what_stood() {
    let slow = Slow::new("exit 1");
    slow.manifest(2, "exit 1");
    slow.sandbox.ok(&["apply"]);
    slow.manifest(4, "exit 1");
    slow.sandbox.unchanged(|| {
        slow.kill();
        let status = slow.sandbox.ok(&["status", "--json"]).json();
        assert_eq!(status["interrupted"], true);
        slow.sandbox.ok(&["recover"]);
    });
    slow.manifest(2, "exit 1");
    slow.sandbox.ok(&["plan", "--detailed-exitcode"]);
}

#[test]
fn a_killed_destroy_is_finished_by_recover() {
    let sandbox = Sandbox::new();
    let top = sandbox.top.display();
    sandbox.manifest(&format!(
        "[session.a]\ncount = 3\nresources = [\"git-worktree\", \"port-range\"]\n\
         teardown = ['test -e {top}/pid && exit 0; echo $$ > {top}/pid.new; mv {top}/pid.new {top}/pid; while test -d {top}; do sleep 0.1; done']\n"
    ));
    let slow = Slow { sandbox };
    let sandbox = &slow.sandbox;
    sandbox.unchanged(|| {
        sandbox.ok(&["apply"]);
        let run = sandbox.start(&["destroy"]);
        wait_until("the slow teardown runs", || sandbox.top.join("pid").exists());
        send(Signal::KILL, &run);
        Outcome::of(run.wait_with_output().unwrap()).expect(137);
        sandbox.ok(&["recover"]).says(&["finished a destroy that had been interrupted"]);
        sandbox.ok(&["destroy"]).says(&["nothing stands"]);
    });
}

#[test]
fn ctrl_c_during_a_run_ends_it_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [\"git-worktree\", \"port-range\"]\n");
    let started = sandbox.top.join("started");
    sandbox.unchanged(|| {
        let script = format!("touch {0}; while test -e {0}; do sleep 0.1; done", started.display());
        // Ctrl-C reaches the whole foreground group: the run and its command.
        let mut command = sandbox.command(&["run", "--", "sh", "-c", &script]);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let run = command.spawn().unwrap();
        wait_until("the command runs", || started.exists());
        rustix::process::kill_process_group(Pid::from_child(&run), Signal::INT).unwrap();
        Outcome::of(run.wait_with_output().unwrap()).expect(130);
    });
}
