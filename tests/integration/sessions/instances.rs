//! Tests of `run` as instances: each has a name, paths, branches and ports of its own, beside the manifest's swarm and
//! beside each other.

use std::collections::BTreeSet;
use std::fs;
use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::faults::{assert_put_back, check_all, crash, one_in, sandbox as faulty, traced, twice};
use crate::sandbox::{Outcome, Sandbox, assert_same, send, wait_until};

const MANIFEST: &str = "[session.a]\nresources = [{ kind = \"git-worktree\", branch = \"agents/{{ session.name }}\" }, { kind = \
                        \"port-range\", names = [\"app\"] }]\n";

const SEEDBED: &str = env!("CARGO_BIN_EXE_seedbed");

/// A `run` whose command waits until [`Waiting::end`].
struct Waiting {
    run: Child,
    name: String,
    /// Session, directory, port and branch of the command.
    facts: Vec<String>,
    command: Pid,
}

/// Starts a `run` whose command writes its facts, and then waits for a file.
fn start(sandbox: &Sandbox, name: &str) -> Waiting {
    let file = sandbox.top.join(name);
    let script = format!(
        "exec > {0}.out 2>&1; echo work > work.txt; echo \"$$ $AGENT_SESSION_ID $(pwd -P) $AGENT_PORT_APP $(git branch --show-current)\" > {0}.new; \
         mv {0}.new {0}; while test ! -e {0}.go; do sleep 0.05; done",
        file.display()
    );
    let run = sandbox.start(&["run", "--", "sh", "-c", &script]);
    wait_until("the command runs", || file.exists());
    let text = fs::read_to_string(&file).unwrap();
    let mut facts: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
    let command = Pid::from_raw(facts.remove(0).parse().unwrap()).unwrap();
    assert_eq!(facts.len(), 4, "{text}");
    Waiting { run, name: name.to_owned(), facts, command }
}

impl Waiting {
    /// Lets the command end, and expects that the run succeeds.
    fn end(self, sandbox: &Sandbox) {
        fs::write(sandbox.top.join(format!("{}.go", self.name)), "").unwrap();
        Outcome::of(self.run.wait_with_output().unwrap()).expect(0);
    }

    /// Kills the run, and returns its command, which still runs.
    fn kill(self) -> Pid {
        send(Signal::KILL, &self.run);
        Outcome::of(self.run.wait_with_output().unwrap()).expect(137);
        self.command
    }

    /// Returns the name of the instance.
    fn swarm(&self) -> &str {
        self.facts[0].split('/').next().unwrap()
    }
}

fn end(command: Pid) {
    kill_process(command, Signal::KILL).unwrap();
    let process = format!("/proc/{}/fd/0", command.as_raw_nonzero());
    wait_until("the command has ended", || !fs::exists(&process).unwrap_or(true));
    // The `sleep` of the command owns the lock too.
    std::thread::sleep(Duration::from_millis(200));
}

/// Returns the names of the swarms that `list` shows.
fn listed(sandbox: &Sandbox) -> BTreeSet<String> {
    let list = sandbox.ok(&["list", "--json"]).json();
    list["swarms"]
        .as_array()
        .unwrap()
        .iter()
        .map(|swarm| swarm["swarm"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn two_runs_at_once_share_nothing_and_leave_nothing() {
    let sandbox = Sandbox::new();
    sandbox.manifest(MANIFEST);
    sandbox.unchanged(|| {
        let (first, second) = (start(&sandbox, "first"), start(&sandbox, "second"));
        for (one, other) in first.facts.iter().zip(&second.facts) {
            assert_ne!(one, other, "{:?}", first.facts);
        }
        let digits = first.swarm().strip_prefix("shop-run-").unwrap();
        assert!(digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{digits}");
        assert_eq!(first.facts[0], format!("shop-run-{digits}/a"));
        assert_eq!(first.facts[3], format!("agents/a-run-{digits}"));
        assert_eq!(listed(&sandbox), BTreeSet::from([first.swarm().to_owned(), second.swarm().to_owned()]));
        let status = sandbox.ok(&["status", "--swarm", second.swarm(), "--json"]).json();
        assert_eq!(status["swarm"], second.swarm(), "{status}");
        sandbox.seedbed(&["destroy", "--swarm", first.swarm()]).expect(75).says(&["is locked by pid"]);
        // The manifest's own swarm is neither of them.
        sandbox.seedbed(&["status"]).expect(64).says(&["is not applied here"]);
        sandbox.ok(&["plan"]);
        first.end(&sandbox);
        second.end(&sandbox);
    });
}

#[test]
fn eight_runs_at_once_each_end_with_their_own_code() {
    let sandbox = Sandbox::new();
    sandbox.manifest(MANIFEST);
    sandbox.unchanged(|| {
        let start = |code: i32| {
            let script = format!("echo \"$AGENT_PORT_APP $(pwd -P)\"; exit {code}");
            let mut command = sandbox.command(&["run", "--quiet", "--", "sh", "-c", &script]);
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            command.spawn().unwrap()
        };
        let runs: Vec<_> = (0..8).map(start).collect();
        let ended = runs.into_iter().map(|run| Outcome::of(run.wait_with_output().unwrap()));
        let printed: BTreeSet<_> =
            ended.enumerate().map(|(code, run)| run.expect(i32::try_from(code).unwrap()).stdout).collect();
        assert_eq!(printed.len(), 8, "{printed:?}");
    });
}

#[test]
fn run_stands_beside_the_applied_swarm_of_its_manifest() {
    let sandbox = Sandbox::new();
    sandbox.manifest(MANIFEST);
    sandbox.ok(&["apply"]);
    let own = sandbox.directory("a");
    fs::write(own.join("work.txt"), "work").unwrap();
    sandbox.unchanged(|| {
        let run = start(&sandbox, "run");
        assert_ne!(run.facts[1], own.to_str().unwrap());
        let status = sandbox.ok(&["status", "--json"]).json();
        assert_eq!(status["swarm"], "shop");
        sandbox.ok(&["apply"]).says(&["nothing to do"]);
        run.end(&sandbox);
        sandbox.seedbed(&["run", "--in-place", "--", "true"]).expect(69).says(&["is applied already"]);
    });
}

#[test]
fn commands_inside_an_instance_are_about_it() {
    let sandbox = Sandbox::new();
    sandbox.manifest(MANIFEST);
    sandbox.ok(&["apply"]);
    let top = sandbox.repository.display();
    let script = format!(
        "echo \"$AGENT_SESSION_ID\"; {SEEDBED} status --json; cd {top}; {SEEDBED} status --json; \
         cd /; {SEEDBED} whoami --json"
    );
    let inside =
        |script: &str| sandbox.unchanged(|| sandbox.ok(&["run", "--quiet", "--", "sh", "-c", script]).stdout);
    let printed = inside(&script);
    let (id, rest) = printed.split_once('\n').unwrap();
    let documents: Vec<Value> =
        serde_json::Deserializer::from_str(rest).into_iter().map(Result::unwrap).collect();
    let [around, named, own] = &documents[..] else { panic!("{printed}") };
    let name = id.strip_suffix("/a").unwrap();
    assert!(name.starts_with("shop-run-"), "{id}");
    assert_eq!((&around["swarm"], &named["swarm"]), (&name.into(), &name.into()));
    let commands = own["swarm"]["commands"].as_object().unwrap();
    assert_eq!(own["swarm"]["instanceOf"], "shop");
    // The commands of the discovery file, from any directory.
    let status: Vec<_> =
        commands["status"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    assert_eq!(status[..4], ["seedbed", "-f", &format!("{top}/seedbed.toml"), "--swarm"]);
    let program = format!(
        "import json, os, subprocess; commands = json.load(open(os.environ['AGENT_DISCOVERY_FILE']))['swarm']['commands']; \
         print(os.environ['AGENT_SESSION_ID']); \
         print(subprocess.check_output(['{SEEDBED}'] + commands['status'][1:], cwd='/', text=True))"
    );
    let printed = sandbox.ok(&["run", "--quiet", "--", "python3", "-c", &program]).stdout;
    let (id, status) = printed.split_once('\n').unwrap();
    let status: Value = serde_json::from_str(status).unwrap();
    assert_eq!(Some(status["swarm"].as_str().unwrap()), id.strip_suffix("/a"));
    // The manifest itself names the applied swarm.
    let printed = inside(&format!("{SEEDBED} status --json -f {top}/seedbed.toml"));
    assert_eq!(serde_json::from_str::<Value>(&printed).unwrap()["swarm"], "shop");
}

#[test]
fn run_inside_a_run_is_another_instance_of_the_manifest() {
    let sandbox = Sandbox::new();
    sandbox.manifest(MANIFEST);
    sandbox.unchanged(|| {
        let script = format!(
            "echo $AGENT_SESSION_ID; {SEEDBED} run --quiet -- sh -c 'echo $AGENT_SESSION_ID; exit 5'"
        );
        let printed = sandbox.seedbed(&["run", "--quiet", "--", "sh", "-c", &script]).expect(5).stdout;
        let [outer, inner] = printed.lines().collect::<Vec<_>>()[..] else { panic!("{printed}") };
        assert_ne!(outer, inner);
        assert!([outer, inner].iter().all(|id| id.len() == "shop-run-01234567/a".len()), "{printed}");
    });
}

#[test]
fn kept_instance_is_used_and_released_by_its_name() {
    let sandbox = Sandbox::new();
    sandbox.manifest(MANIFEST);
    let before = sandbox.inventory();
    let kept = sandbox.ok(&["run", "--keep", "--", "sh", "-c", "echo work > work.txt; pwd -P"]);
    let name = listed(&sandbox).into_iter().next().unwrap();
    let kept = kept.says(&[&format!("`seedbed destroy --swarm {name}`")]);
    // It is neither lost, nor in the way of another run.
    sandbox.ok(&["run", "--", "true"]);
    let directory = std::path::PathBuf::from(kept.stdout.trim_end());
    assert!(directory.join("work.txt").is_file());
    // With the manifest: `apply`, and `spawn` from inside.
    sandbox.ok(&["apply", "--swarm", &name]).says(&["nothing to do"]);
    let spawned = sandbox.seedbed_in(&directory, &["spawn", "x", "--json"]).expect(0).json();
    assert_eq!(spawned["sessionId"], format!("{name}/a/x"));
    sandbox.seedbed(&["apply", "--swarm", "shop-run-00000000"]).expect(64).says(&["reads a manifest"]);
    sandbox.seedbed(&["destroy", "--swarm", &name]).expect(69).says(&["1 untracked"]);
    sandbox.ok(&["destroy", "--swarm", &name, "--discard"]);
    assert_same(&before, &sandbox.inventory());
}

#[test]
fn directory_of_another_tool_is_refused_before_anything_is_created() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.repository.join("made")).unwrap();
    sandbox.manifest("[session.a]\nresources = [{ kind = \"existing-directory\", path = \"made\" }]\n");
    let refused = sandbox.unchanged(|| sandbox.seedbed(&["run", "--", "touch", "ran"]).expect(65));
    refused.says(&[
        "every `run` would work in `made`",
        "seedbed.toml:8:",
        "`seedbed run --in-place`",
        "[instance]",
    ]);
    sandbox.unchanged(|| sandbox.ok(&["run", "--in-place", "--", "true"]));
    sandbox.ok(&["plan"]);
}

#[test]
fn branch_with_the_name_of_the_instance_stays_as_it_is() {
    let sandbox = Sandbox::new();
    for (branch, pattern) in [
        ("ci/{{ swarm | upper }}", "ci/SHOP-RUN-"),
        ("{{ session.id }}", "shop-run-"),
        ("fixed", "fixed-run-"),
    ] {
        sandbox.manifest(&format!(
            "[session.a]\nresources = [{{ kind = \"git-worktree\", branch = \"{branch}\" }}]\n"
        ));
        let printed = sandbox.ok(&["run", "--quiet", "--", "git", "branch", "--show-current"]).stdout;
        assert!(printed.starts_with(pattern), "{printed}");
        assert_eq!(printed.to_lowercase().matches("-run-").count(), 1, "{printed}");
    }
}

#[test]
fn long_name_of_a_swarm_is_cut_for_its_instances() {
    let sandbox = Sandbox::new();
    sandbox.manifest(MANIFEST);
    let long = "x".repeat(63);
    let text = fs::read_to_string(sandbox.repository.join("seedbed.toml")).unwrap().replace("shop", &long);
    sandbox.write("seedbed.toml", &text);
    let printed =
        sandbox.unchanged(|| sandbox.ok(&["run", "--quiet", "--", "sh", "-c", "echo $AGENT_SESSION_ID"]));
    let name = printed.stdout.split('/').next().unwrap();
    assert!(name.len() == 63 && name.starts_with(&format!("{}-run-", &long[..50])), "{name}");
}

#[test]
fn killed_instance_is_removed_by_the_next_run_while_another_lives() {
    let sandbox = Sandbox::new();
    sandbox.manifest(MANIFEST);
    let before = sandbox.inventory();
    let (alive, lost, orphaned) =
        (start(&sandbox, "alive"), start(&sandbox, "lost"), start(&sandbox, "orphaned"));
    let (name, orphan) = (lost.swarm().to_owned(), orphaned.swarm().to_owned());
    end(lost.kill());
    // Its command still owns the lock.
    let command = orphaned.kill();
    let next = sandbox
        .ok(&["run", "--", "true"])
        .says(&[&format!("instance {name}: removed the swarm of a killed `run`")]);
    assert!(!next.stderr.contains(&orphan) && !next.stderr.contains("warning"), "{}", next.stderr);
    assert_eq!(listed(&sandbox), BTreeSet::from([alive.swarm().to_owned(), orphan.clone()]));
    assert!(fs::exists(format!("{}/work.txt", alive.facts[1])).unwrap());
    end(command);
    sandbox.ok(&["run", "--in-place", "--", "true"]).says(&[&orphan]);
    alive.end(&sandbox);
    assert_put_back(&before, &sandbox);
}

#[test]
fn killed_instance_is_named_by_every_command_and_removed_by_recover() {
    let sandbox = Sandbox::new();
    sandbox.manifest(MANIFEST);
    sandbox.ok(&["apply"]);
    let lost = start(&sandbox, "lost");
    let name = lost.swarm().to_owned();
    end(lost.kill());
    let shown = sandbox.ok(&["list"]).stdout;
    assert!(shown.contains(&name) && shown.contains("the command of a run by pid"), "{shown}");
    let found = sandbox.ok(&["doctor"]).stdout;
    assert!(found.contains(&format!("interrupted-run: a run of swarm {name}")), "{found}");
    let events = sandbox.ok(&["recover", "--rescue", "--json"]).stdout;
    let done: Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
    assert_eq!((&done["recovered"], &done["instances"][&name]), (&"nothing".into(), &"removed".into()));
    let rescued = sandbox.git(&["for-each-ref", "--format=%(refname)", "refs/seedbed/rescue"]);
    assert_eq!(sandbox.git(&["show", &format!("{rescued}:work.txt")]), "work");
    sandbox.git(&["update-ref", "-d", &rescued]);
    let lost = start(&sandbox, "again");
    end(lost.kill());
    sandbox.ok(&["recover"]).says(&["instance shop-run-", "removed the swarm of a killed `run`"]);
    assert_eq!(listed(&sandbox), BTreeSet::from(["shop".to_owned()]));
}

#[test]
fn work_in_an_instance_that_was_to_be_kept_is_not_lost_by_the_next_run() {
    let sandbox = Sandbox::new();
    sandbox.manifest(MANIFEST);
    crash(&sandbox, &["run", "--keep", "--", "true"], "apply.report#1");
    let name = listed(&sandbox).into_iter().next().unwrap();
    let mut worktrees = fs::read_dir(sandbox.repository.join(".ai_ops/worktrees")).unwrap();
    let directory =
        worktrees.find_map(|entry| Some(entry.unwrap().path()).filter(|path| path.join(".git").exists()));
    let work = directory.unwrap().join("work.txt");
    // Changes within half a second after the last sign of life may be the run's.
    std::thread::sleep(Duration::from_millis(510));
    fs::write(&work, "work").unwrap();
    sandbox
        .ok(&["run", "--", "true"])
        .says(&[&format!("warning: instance {name} of a killed `run` was not removed")]);
    assert_eq!(fs::read_to_string(&work).unwrap(), "work");
    sandbox.seedbed(&["recover"]).expect(69).says(&["--rescue"]);
    sandbox.ok(&["recover", "--discard"]).says(&[&format!("instance {name}: rolled back")]);
    assert!(!work.exists());
}

#[test]
fn run_killed_anywhere_leaves_nothing_that_the_next_one_does_not_remove() {
    let lab = faulty(MANIFEST);
    let run = traced(&lab, &["run", "--", "true"], None);
    assert_eq!(run.outcome.code, 0, "{:?}", run.outcome);
    let mut points = twice(&run.counts());
    points
        .retain(|point| ["apply.", "destroy.", "state.", "run."].iter().any(|part| point.starts_with(part)));
    check_all(MANIFEST, &one_in(6, points), |sandbox, point| {
        let before = sandbox.inventory();
        crash(sandbox, &["run", "--", "true"], point);
        sandbox.ok(&["run", "--", "true"]);
        assert_put_back(&before, sandbox);
    });
}

#[test]
fn logs_of_failed_setups_are_kept_of_the_last_ten_instances() {
    let sandbox = Sandbox::in_memory();
    sandbox.manifest("[session.a]\nresources = [\"git-worktree\"]\nsetup = [\"echo why; exit 3\"]\n");
    for _ in 0..12 {
        sandbox.seedbed(&["run", "--", "true"]).expect(1).says(&["why"]);
    }
    sandbox.manifest("[session.a]\nresources = []\n");
    sandbox.ok(&["run", "--", "true"]);
    assert_eq!(fs::read_dir(sandbox.state().join("logs")).unwrap().count(), 10);
}
