//! Tests of interrupted runs, by any signal: they are rolled back, at once or by the next run.

use std::fs;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::faults::shim::Shim;
use crate::sandbox::{Outcome, Sandbox, send, wait_until};

/// Script that writes its own process id and that of a child to `$top/pids`, and never ends.
const HANGS: &str = "sleep 1000 & echo $$ $! >>$top/pids; wait";

fn hangs(sandbox: &Sandbox) -> String {
    format!("top={}; {HANGS}", sandbox.top.display())
}

/// Starts a command that reaches [`HANGS`] and interrupts it there. Expects that the command ends with 130, prints
/// nothing, and leaves no process running.
#[track_caller]
fn interrupt(sandbox: &Sandbox, mut command: Command) -> Outcome {
    let pids = sandbox.top.join("pids");
    let _ = fs::remove_file(&pids);
    let run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("it hangs", || fs::read_to_string(&pids).is_ok_and(|pids| pids.ends_with('\n')));
    send(Signal::INT, &run);
    let outcome = Outcome::of(run.wait_with_output().unwrap()).expect(130);
    assert_eq!(outcome.stdout, "");
    for pid in fs::read_to_string(&pids).unwrap().split_whitespace() {
        wait_until("what it ran is gone", || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // A process that its parent has not waited for yet has ended all the same.
            stat.rsplit(") ").next().is_none_or(|state| state.is_empty() || state.starts_with('Z'))
        });
    }
    outcome
}

/// Sessions of which the last one's setup reports that it runs. The setup then continues until it is asked to end, or
/// for longer than any test.
struct Slow {
    sandbox: Sandbox,
}

impl Slow {
    /// Creates the sessions; `on_term` is the action of that setup when it is asked to end, and empty to end at once.
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
top={top}
trap 'touch $top/asked; {on_term}' TERM
echo $$ > $top/pid.new && mv $top/pid.new $top/pid
while test -d $top -a ! -e $top/done; do sleep 0.1; done
''']
"#
        ));
    }

    /// Starts `apply`, and waits until that setup runs.
    fn start(&self) -> Child {
        let run = self.sandbox.start(&["apply", "--jobs", "8"]);
        self.wait_for_the_setup();
        run
    }

    fn wait_for_the_setup(&self) {
        wait_until("the slow setup runs", || self.sandbox.top.join("pid").exists());
    }

    /// Kills `apply` while that setup runs.
    fn kill(&self) {
        let run = self.start();
        send(Signal::KILL, &run);
        Outcome::of(run.wait_with_output().unwrap()).expect(137);
    }
}

impl Drop for Slow {
    /// Ends the setup, which outlives a killed run.
    fn drop(&mut self) {
        let pid = fs::read_to_string(self.sandbox.top.join("pid")).ok();
        let pid = pid.and_then(|pid| pid.trim().parse().ok()).and_then(Pid::from_raw);
        // If the process has ended, no other process has its id yet: the id was assigned moments ago.
        let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
    }
}

#[test]
fn ctrl_c_puts_everything_back() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let slow = Slow::new("exit 1");
        let outcome = slow.sandbox.unchanged(|| {
            let run = slow.start();
            send(signal, &run);
            Outcome::of(run.wait_with_output().unwrap()).expect(130)
        });
        outcome.says(&["interrupted", "was rolled back"]);
        // Its commands were asked to end, and have ended.
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
        slow.sandbox.ok(&["recover"]).says(&["rolled back an interrupted apply"]);
    });
}

/// The shell passes the hangup of its terminal on and ends, after which the kernel sends the hangup again; after a
/// logout, SIGTERM follows.
#[test]
fn end_of_a_terminal_sends_several_signals_and_is_rolled_back() {
    let slow = Slow::new("while test -e $top/hold; do sleep 0.1; done; exit 1");
    let hold = slow.sandbox.top.join("hold");
    slow.sandbox.unchanged(|| {
        fs::write(&hold, "").unwrap();
        let run = slow.start();
        send(Signal::HUP, &run);
        wait_until("the setup is asked to end", || slow.sandbox.top.join("asked").exists());
        send(Signal::HUP, &run);
        send(Signal::TERM, &run);
        fs::remove_file(&hold).unwrap();
        Outcome::of(run.wait_with_output().unwrap()).expect(130).says(&["interrupted", "was rolled back"]);
    });
}

/// After a window is closed, its shell gets the signal and ends; then the kernel signals the processes in the terminal.
#[test]
fn a_terminal_that_is_closed_puts_everything_back() {
    let slow = Slow::new("exit 1");
    let sandbox = &slow.sandbox;
    let (code, program) = (sandbox.top.join("code"), env!("CARGO_BIN_EXE_seedbed"));
    // One more shell, which gets the same signal as the run and remains to report how the run ended.
    let told = format!("trap : HUP; {program} apply; echo $? >{0}.new; mv {0}.new {0}", code.display());
    sandbox.unchanged(|| {
        let mut terminal = sandbox
            .program("script", &sandbox.repository)
            .args(["--quiet", "--command", &format!("sh -c '{told}'; exit"), "/dev/null"])
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        slow.wait_for_the_setup();
        send(Signal::KILL, &terminal);
        terminal.wait().unwrap();
        wait_until("the run has ended", || code.exists());
        assert_eq!(fs::read_to_string(&code).unwrap(), "130\n");
    });
}

/// Signals are ignored as under `nohup`, or in a script in which a command ends with `&`.
#[test]
fn signals_that_are_ignored_from_the_start_stay_ignored() {
    let slow = Slow::new("exit 1");
    let sandbox = &slow.sandbox;
    let apply = format!("trap '' HUP INT TERM; exec {} apply", env!("CARGO_BIN_EXE_seedbed"));
    let mut shell = sandbox.program("sh", &sandbox.repository);
    shell.args(["-c", &apply]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = shell.spawn().unwrap();
    slow.wait_for_the_setup();
    for signal in [Signal::HUP, Signal::INT, Signal::TERM] {
        send(signal, &run);
    }
    fs::write(sandbox.top.join("done"), "").unwrap();
    Outcome::of(run.wait_with_output().unwrap()).expect(0);
}

#[test]
fn a_killed_apply_is_undone_by_recover() {
    let slow = Slow::new("exit 1");
    slow.sandbox.unchanged(|| {
        slow.kill();
        assert!(slow.sandbox.repository.join(".ai_ops").exists());
        slow.sandbox.ok(&["recover"]).says(&["rolled back an interrupted apply"]);
    });
    slow.sandbox.unchanged(|| slow.sandbox.ok(&["recover"]).says(&["nothing to recover"]));
}

#[test]
fn killed_apply_is_undone_by_the_next_apply_which_succeeds() {
    let slow = Slow::new("exit 1");
    let before = slow.sandbox.inventory();
    slow.kill();
    slow.sandbox.seedbed(&["status"]).expect(64);
    slow.manifest(2, "exit 1");
    slow.sandbox.ok(&["apply"]).says(&["rolled back an interrupted apply"]);
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
        slow.sandbox.ok(&["destroy"]).says(&["rolled back", "nothing is applied"]);
    });
}

#[test]
fn killed_growing_run_leaves_the_applied_swarm() {
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
        sandbox.ok(&["recover"]).says(&["finished an interrupted destroy"]);
        sandbox.ok(&["destroy"]).says(&["nothing is applied"]);
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

#[test]
fn ctrl_c_ends_what_only_looks_and_the_git_that_it_waits_for() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [\"git-worktree\", \"port-range\"]\n");
    sandbox.ok(&["apply"]);
    let shim = Shim::new(&sandbox, HANGS);
    let commands: [&[&str]; 6] = [
        &["plan", "-o", "plan.json"],
        &["validate"],
        &["status"],
        &["doctor"],
        &["init", "-f", "new.toml"],
        &["destroy", "--dry-run"],
    ];
    for command in commands {
        sandbox.unchanged(|| interrupt(&sandbox, shim.command(&sandbox, command)).says(&["interrupted"]));
    }
}

#[test]
fn ctrl_c_ends_a_plan_and_the_program_that_it_asks() {
    let sandbox = Sandbox::new();
    let script = hangs(&sandbox);
    sandbox.manifest(&format!(
        "[provider.thing]\ncommand = [\"sh\", \"-c\", {script:?}]\ntimeout = 1000\n[session.a]\nresources = [\"thing\"]\n"
    ));
    for command in ["plan", "apply"] {
        sandbox.unchanged(|| interrupt(&sandbox, sandbox.command(&[command])).says(&["interrupted"]));
    }
}

#[test]
fn ctrl_c_ends_the_commands_of_exec() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\ncount = 3\nresources = []\n");
    sandbox.ok(&["apply"]);
    let exec = ["exec", "--all", "--", "sh", "-c", &hangs(&sandbox)];
    sandbox.unchanged(|| interrupt(&sandbox, sandbox.command(&exec)).says(&["interrupted"]));
}

/// A session that was not torn down is still active, and can be torn down later.
#[test]
fn ctrl_c_during_a_teardown_ends_it_and_takes_nothing_away() {
    let sandbox = Sandbox::new();
    let teardown = format!("test -e {}/go && exit 0; {}", sandbox.top.display(), hangs(&sandbox));
    sandbox.manifest(&format!(
        "[session.a]\nresources = [\"git-worktree\", \"port-range\"]\nteardown = [{teardown:?}]\n"
    ));
    sandbox.unchanged(|| {
        sandbox.ok(&["apply"]);
        sandbox.unchanged(|| interrupt(&sandbox, sandbox.command(&["destroy"])).says(&["interrupted"]));
        assert_eq!(sandbox.ok(&["status", "--json"]).json()["interrupted"], false);
        fs::write(sandbox.top.join("go"), "").unwrap();
        sandbox.ok(&["destroy"]).says(&["nothing is left"]);
    });
}

/// The teardown belongs to an apply that is rolled back.
#[test]
fn ctrl_c_ends_the_programs_of_a_recovery_and_the_next_continues() {
    let sandbox = Sandbox::new();
    let top = sandbox.top.display();
    let teardown = format!("test -e {top}/go && exit 0; {}", hangs(&sandbox));
    sandbox.manifest(&format!(
        "[session.a]\nresources = [\"git-worktree\"]\n\
         setup = ['echo $$ > {top}/pid.new && mv {top}/pid.new {top}/pid; while test -d {top}; do sleep 0.1; done']\n\
         teardown = [{teardown:?}]\n"
    ));
    let slow = Slow { sandbox };
    let sandbox = &slow.sandbox;
    sandbox.unchanged(|| {
        slow.kill();
        interrupt(sandbox, sandbox.command(&["recover"])).says(&["continue with `seedbed recover`"]);
        fs::write(sandbox.top.join("go"), "").unwrap();
        sandbox.ok(&["recover"]).says(&["rolled back an interrupted apply"]);
    });
}

/// The manifest is read as from `-f <(program)` or `program | seedbed apply /dev/stdin`, and the program does not end.
/// At that point, nothing has begun and no signal is caught.
#[test]
fn a_signal_ends_the_wait_for_a_manifest_or_a_plan() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [\"port-range\"]\n");
    let pipe = sandbox.top.join("pipe");
    let made = sandbox.program("mkfifo", &sandbox.top).arg(&pipe).status().unwrap();
    assert!(made.success());
    let pipe = pipe.to_str().unwrap();
    for command in [&["plan", "-f", pipe][..], &["apply", "-f", pipe], &["apply", pipe]] {
        let run = sandbox.start(command);
        // Opening it for writing waits until it is open for reading.
        let writer = fs::File::options().write(true).open(pipe).unwrap();
        send(Signal::INT, &run);
        // A run that continues reads the end of the file.
        drop(writer);
        Outcome::of(run.wait_with_output().unwrap()).expect(128 + 2);
    }
}

#[test]
fn ctrl_c_while_another_run_is_waited_for_ends_the_wait() {
    let slow = Slow::new("exit 1");
    let run = slow.start();
    let waiting = slow.sandbox.start(&["destroy", "--lock-timeout", "1000"]);
    let files = format!("/proc/{}/fd", waiting.id());
    wait_until("it waits for the lock", || {
        let files = fs::read_dir(&files).into_iter().flatten().flatten();
        let mut paths = files.filter_map(|file| fs::read_link(file.path()).ok());
        paths.any(|path| path.extension() == Some("lock".as_ref()))
    });
    send(Signal::INT, &waiting);
    Outcome::of(waiting.wait_with_output().unwrap()).expect(130).says(&["interrupted"]);
    send(Signal::INT, &run);
    Outcome::of(run.wait_with_output().unwrap()).expect(130);
}
