//! Tests of the life of a fleet: commands in its sessions, commits that are collected, rescues that outlive a host.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Hosts, fleet};
use crate::sandbox::{Outcome, send, wait_until};

/// Creates three hosts on which the fleet is applied.
fn applied() -> Hosts {
    let hosts = Hosts::new(3, &fleet(3));
    hosts.first(&[]).expect(0);
    hosts
}

/// Returns the lines of `text` in order.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn exec_runs_in_the_sessions_of_all_hosts_and_labels_each_line() {
    let hosts = applied();
    let ran = hosts.fleet("exec", &["--all", "--", "sh", "-c", "pwd; echo bad >&2"]).expect(0);
    let homes: Vec<_> = hosts.index()["sessions"].as_array().unwrap().clone();
    assert_eq!(homes.len(), 12);
    let label =
        |home: &Value| format!("{}:{}", home["host"].as_str().unwrap(), home["session"].as_str().unwrap());
    for home in &homes {
        let label = label(home);
        assert_eq!(ran.stdout.lines().filter(|line| line.starts_with(&format!("{label}: "))).count(), 1);
        assert!(ran.stderr.lines().any(|line| line == format!("{label}: bad")), "{}", ran.stderr);
    }
    assert_eq!((ran.stdout.lines().count(), ran.stderr.lines().count()), (12, 12), "{}", ran.stderr);
    let left = fs::read_dir(hosts.sandbox.top.join("fleet/commands")).unwrap().count();
    assert_eq!(left, 0, "every host has answered");
}

#[test]
fn exec_contacts_only_the_hosts_of_the_chosen_sessions() {
    let hosts = applied();
    let (host, directory) = hosts.home("runner-3");
    let launcher = hosts.launcher_with("echo contacted {host} >&2; ");
    let ran = hosts.fleet("exec", &["runner-3", "--launcher", &launcher, "--", "pwd"]).expect(0);
    assert_eq!(ran.stdout, format!("{host}:runner-3: {directory}\n"));
    assert_eq!(ran.stderr, format!("{host}: contacted {host}\n"));
    let ran = hosts.fleet("exec", &["coder", "--json", "--", "true"]).expect(0);
    let events: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 3, "{events:?}");
    let lead = hosts.home("lead").0;
    assert!(events[..2].iter().all(|event| event["event"] == "exited" && event["host"] == json!(lead)));
    assert_eq!((&events[2]["event"], &events[2]["exitCode"]), (&json!("done"), &json!(0)));
    hosts.fleet("exec", &["walker", "--", "true"]).expect(125).says(&["no session `walker`"]);
    hosts.fleet("exec", &["--all", "--show", "grouped", "--", "true"]).expect(125).says(&["grouped"]);
    let one = hosts.fleet("exec", &["--hosts", "n2", "--all", "--", "true"]).expect(0);
    assert_eq!(one.stdout, "");
}

#[test]
fn exec_exits_with_the_largest_code_and_names_the_sessions() {
    let hosts = applied();
    let script = "case $PWD in *-runner-2-*) exit 3;; *-runner-5-*) exit 9;; esac";
    let ran = hosts.fleet("exec", &["--all", "--", "sh", "-c", script]).expect(9);
    ran.says(&["failed in 2 of 12 sessions: ", "runner-2 (exit code 3)", "runner-5 (exit code 9)"]);
    let ran = hosts.fleet("exec", &["runner", "--", "/none"]).expect(127);
    ran.says(&["runner-0: cannot run `/none`", "[command-not-found]"]);
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_host_that_is_lost_is_no_success_of_exec_in_every_case() {
    for (lost, is_run) in [
        ("exit 255", false),
        ("exit 0", false),
        ("export SEEDBED_FAILPOINT=fleet.answering=crash", true),
        ("export SEEDBED_FAILPOINT=process.started=crash", false),
    ] {
        let hosts = applied();
        let launcher = hosts.launcher_with(&format!("test {{host}} = n1 && {lost}; "));
        let ran = hosts.fleet("exec", &["--all", "--launcher", &launcher, "--", "echo", "here"]).expect(125);
        let ran = ran.says(&["hosts gave no results", "n1: it gave no results"]);
        assert_eq!(ran.stdout.lines().count(), if is_run { 12 } else { 12 - hosts.active("n1").len() });
        let json =
            hosts.fleet("exec", &["--all", "--json", "--launcher", &launcher, "--", "true"]).expect(125);
        let events: Vec<Value> =
            json.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let ends: Vec<_> = events.iter().filter(|event| event["event"] == "exited").collect();
        assert_eq!(ends.len(), 12, "each session has one end: {ends:?}");
        let lost = ends.iter().filter(|event| event["id"] == "host-lost").count();
        assert_eq!(lost, if is_run { 0 } else { hosts.active("n1").len() }, "{ends:?}");
    }
}

#[test]
fn exec_names_the_reason_of_a_host_whose_seedbed_cannot_run() {
    let hosts = applied();
    hosts.break_state("n1");
    hosts.fleet("exec", &["--all", "--", "true"]).expect(125).says(&["n1: ", "n1/state"]);
}

#[test]
fn exec_names_a_session_that_its_host_has_not() {
    let hosts = applied();
    let (host, _) = hosts.home("runner-3");
    hosts.on(&host, &["destroy", "runner-3", "--yes"]).expect(0);
    let ran = hosts.fleet("exec", &["runner", "--", "echo", "here"]).expect(125);
    let ran =
        ran.says(&["runner-3: session runner-3 is not active on its host", "failed in 1 of 8 sessions"]);
    assert_eq!(ran.stdout.lines().count(), 7);
    // All of its host.
    hosts.on(&host, &["destroy", "--yes"]).expect(0);
    let ran = hosts.fleet("exec", &["runner-3", "--", "true"]).expect(125);
    ran.says(&["hosts could not run the command", &format!("{host}: "), "is not applied here"]);
}

#[test]
fn exec_runs_in_what_the_decision_leaves_on_a_host() {
    let hosts = applied();
    hosts.manifest(&fleet(3).replace("count = 8", "count = 10"));
    let launcher = hosts.launcher_with("unset SEEDBED_FAILPOINT; ");
    for (point, sessions) in [("fleet.voted", 12), ("fleet.decided", 14)] {
        let mut command = hosts.fleet_command("apply", &["--yes", "--launcher", &launcher]);
        Outcome::of(command.env("SEEDBED_FAILPOINT", format!("{point}=crash")).output().unwrap()).expect(137);
        let ran = hosts.fleet("exec", &["--all", "--", "pwd"]).expect(0);
        assert_eq!(sorted(&ran.stdout).len(), sessions, "{point}: {}", ran.stdout);
    }
}

#[test]
#[ignore = "`every_case` runs it"]
fn exec_ends_everything_when_one_fails_fast_in_every_case() {
    let hosts = applied();
    let script = "case $PWD in *-runner-3-*) exit 7;; esac; exec sleep 1000";
    let ran = hosts.fleet("exec", &["runner", "--fail-fast", "--", "sh", "-c", script]).expect(7);
    ran.says(&["failed in 8 of 8 sessions: ", "runner-3 (exit code 7)"]);
}

#[test]
#[ignore = "`every_case` runs it"]
fn start_runs_the_command_of_each_session_until_all_have_ended_in_every_case() {
    let with_commands = fleet(3)
        .replace("[session.runner]\n", "[session.runner]\ncommand = \"echo started\"\n")
        .replace("count = 2\n", "count = 2\ncommand = \"touch begun; exec sleep 1000\"\n");
    let hosts = Hosts::new(3, &with_commands);
    hosts.first(&[]).expect(0);
    let ran = hosts.fleet("start", &["runner"]).expect(0);
    let (host, _) = hosts.home("runner-5");
    assert_eq!(ran.stdout.lines().filter(|line| line.ends_with(": started")).count(), 8, "{}", ran.stdout);
    assert!(ran.stdout.contains(&format!("{host}:runner-5: started\n")), "{}", ran.stdout);
    hosts.fleet("start", &["lead", "runner-1"]).expect(125).says(&["session lead has no `command`"]);
    let mut all = hosts.fleet_command("start", &["--launcher", &hosts.launcher()]);
    let all = all.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = |session| Path::new(&hosts.home(session).1).join("begun");
    wait_until("both commands run", || begun("lead/coder-0").exists() && begun("lead/coder-1").exists());
    let second = hosts.fleet("start", &["lead/coder-1"]).expect(125);
    second.says(&["hosts could not run the command", "a command runs in session lead/coder-1 already"]);
    send(Signal::INT, &all);
    let ended = Outcome::of(all.wait_with_output().unwrap()).expect(130);
    ended.says(&["ended the commands of lead/coder-0, lead/coder-1"]);
}

#[test]
#[ignore = "`every_case` runs it"]
fn exec_takes_limits_of_time_in_every_case() {
    let hosts = applied();
    let ran = hosts.fleet("exec", &["runner-1", "lead", "--timeout", "1", "--", "sleep", "1000"]).expect(124);
    ran.says(&["lead (timeout)", "runner-1 (timeout)"]);
}

/// Starts a command in all sessions by a launcher that ends without ending what it runs, as `ssh` does. Returns the
/// coordinator once the command runs in each session.
fn started(hosts: &Hosts, redirected: &str, ids: &Path) -> Child {
    let launcher = hosts.launcher().replace("sh -c", "setsid --wait sh -c") + redirected;
    let script = format!("echo $$ > {}/$(basename $PWD); exec sleep 1000", ids.display());
    fs::create_dir(ids).unwrap();
    let mut command =
        hosts.fleet_command("exec", &["runner", "--launcher", &launcher, "--", "sh", "-c", &script]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the command runs in each session", || running(ids) == 8);
    child
}

/// Returns the number of processes that have written their ids and still run.
pub(super) fn running(ids: &Path) -> usize {
    let ids = fs::read_dir(ids).unwrap().map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
    let is_running = |id: &String| !id.is_empty() && fs::exists(Path::new("/proc").join(id.trim())).unwrap();
    ids.filter(is_running).count()
}

#[test]
fn an_interrupted_exec_ends_the_commands_on_the_hosts() {
    let hosts = applied();
    let ids = hosts.sandbox.top.join("ids");
    let child = started(&hosts, "", &ids);
    send(Signal::INT, &child);
    let ran = Outcome::of(child.wait_with_output().unwrap()).expect(130);
    ran.says(&["ended the commands of runner-0, runner-1"]);
    assert_eq!(running(&ids), 0, "every host has answered before the coordinator ends");
}

#[test]
fn the_commands_of_a_killed_exec_end_because_nothing_reads_their_output() {
    let hosts = applied();
    let ids = hosts.sandbox.top.join("ids");
    let mut child = started(&hosts, "", &ids);
    send(Signal::KILL, &child);
    child.wait().unwrap();
    wait_until("the commands have ended", || running(&ids) == 0);
}

#[test]
#[ignore = "`every_case` runs it"]
fn commands_end_when_their_coordinator_gives_no_sign_of_life_in_every_case() {
    let hosts = applied();
    let ids = hosts.sandbox.top.join("ids");
    // Nothing is a reader of the output here: only the file is left.
    let mut child = started(&hosts, " > /dev/null 2>&1", &ids);
    let commands = hosts.sandbox.top.join("fleet/commands");
    let request = fs::read_dir(&commands).unwrap().next().unwrap().unwrap().path();
    send(Signal::KILL, &child);
    child.wait().unwrap();
    assert_eq!(running(&ids), 8, "three minutes are not over");
    let beat = json!({ "schemaVersion": 1, "beat": 1, "stop": true });
    fs::write(request.join("coordinator.json"), beat.to_string()).unwrap();
    wait_until("the commands have ended", || running(&ids) == 0);
    // The same request, with less patience.
    let text = fs::read_to_string(request.join("request.json")).unwrap();
    fs::write(
        request.join("request.json"),
        text.replace("\"silence\": 180", "\"silence\": 1").replace("sleep 1000", "sleep 20"),
    )
    .unwrap();
    fs::remove_file(request.join("coordinator.json")).unwrap();
    let directory = hosts.sandbox.top.join("fleet");
    let name = request.file_name().unwrap().to_str().unwrap();
    let (host, _) = hosts.home("runner-0");
    let words =
        ["fleet", "phase", "command", directory.to_str().unwrap(), "--host", &host, "--run", name, "--json"];
    let ended = hosts.on(&host, &words);
    assert!(ended.stdout.contains("\"interrupted\""), "{}", ended.stdout);
    assert_eq!(running(&ids), 0);
}

/// Commits a file in a session, and returns the commit.
fn committed(hosts: &Hosts, session: &str, file: &str) -> String {
    let (_, directory) = hosts.home(session);
    fs::write(format!("{directory}/{file}"), session).unwrap();
    let directory = Path::new(&directory);
    hosts.sandbox.git_in(directory, &["add", "--", file]);
    hosts.sandbox.git_in(directory, &["commit", "-q", "-m", &format!("work of {session}")]);
    hosts.sandbox.git_in(directory, &["rev-parse", "HEAD"])
}

/// Returns the collected commit of each session, from the refs of the coordinator.
fn collected(hosts: &Hosts) -> Vec<(String, String)> {
    let format = "--format=%(refname) %(objectname)";
    let printed =
        hosts.sandbox.git_in(&hosts.root("n0"), &["for-each-ref", format, "refs/seedbed/collected"]);
    let refs = printed.lines().map(|line| line.split_once(' ').unwrap());
    let session = |name: &str| {
        let parts: Vec<_> = name.split('/').skip(4).take_while(|part| !part.starts_with('@')).collect();
        parts.join("/")
    };
    refs.map(|(name, id)| (session(name), id.to_owned())).collect()
}

/// Returns the worktree of a session in a report.
fn worktree<'d>(document: &'d Value, session: &str) -> &'d Value {
    let mut worktrees = document["worktrees"].as_array().unwrap().iter();
    worktrees.find(|worktree| worktree["session"] == session).unwrap_or_else(|| panic!("no {session}"))
}

#[test]
fn collect_brings_the_commits_of_all_hosts_and_shows_them() {
    let hosts = applied();
    let one = committed(&hosts, "runner-1", "one");
    let two = committed(&hosts, "runner-6", "one");
    // A detached HEAD with a commit, and a branch that is gone from its host.
    let (_, directory) = hosts.home("pinned");
    hosts.sandbox.git_in(Path::new(&directory), &["checkout", "-q", "--detach"]);
    let three = committed(&hosts, "pinned", "three");
    let (host, directory) = hosts.home("lead");
    fs::write(format!("{directory}/unsaved"), "work").unwrap();
    let before = hosts.sandbox.git_in(&hosts.root("n0"), &["for-each-ref", "refs/heads"]);
    // A commit that only its worktree has is unsaved there; a coordinator that is its host has a ref for it afterwards.
    let first = hosts.fleet("collect", &["--json"]).expect(0).json();
    assert!(worktree(&first, "pinned")["unsaved"].to_string().contains("no ref reaches"), "{first}");
    let document = hosts.fleet("collect", &["--json"]).expect(0).json();
    assert_eq!(document["worktrees"].as_array().unwrap().len(), 12);
    for (session, commit) in [("runner-1", &one), ("runner-6", &two), ("pinned", &three)] {
        let worktree = worktree(&document, session);
        assert_eq!(worktree["work"]["head"], json!(commit), "{worktree}");
        assert_eq!(worktree["work"]["commits"].as_array().unwrap().len(), 1, "{worktree}");
        let reference = worktree["received"]["reference"].as_str().unwrap();
        assert_eq!(hosts.sandbox.git_in(&hosts.root("n0"), &["rev-parse", reference]), *commit);
        assert!(document["mergeCommands"].to_string().contains(reference), "{document}");
    }
    assert_eq!(worktree(&document, "pinned")["branch"], Value::Null);
    assert_eq!(worktree(&document, "lead")["received"]["host"], json!(host));
    assert!(worktree(&document, "lead")["unsaved"].to_string().contains("1 untracked"));
    assert!(document["conflicts"].to_string().contains("runner-6"), "both added `one`: {document}");
    assert_eq!(hosts.sandbox.git_in(&hosts.root("n0"), &["for-each-ref", "refs/heads"]), before);
    // Again, nothing changes, and nothing is left in the directory of the fleet.
    let refs = collected(&hosts);
    assert_eq!(refs.len(), 12, "{refs:?}");
    let again = hosts.fleet("collect", &["--json"]).expect(0).json();
    assert_eq!((again, collected(&hosts)), (document, refs));
    assert_eq!(fs::read_dir(hosts.sandbox.top.join("fleet/collected")).unwrap().count(), 0);
    let text = hosts.fleet("collect", &["runner-1"]).expect(0).stdout;
    assert!(text.contains("work of runner-1") && !text.contains("runner-6"), "{text}");
}

#[test]
fn collect_names_a_commit_that_a_ref_no_longer_has() {
    let hosts = applied();
    let old = committed(&hosts, "runner-1", "one");
    hosts.fleet("collect", &["runner-1"]).expect(0);
    let (_, directory) = hosts.home("runner-1");
    hosts.sandbox.git_in(Path::new(&directory), &["commit", "-q", "--amend", "-m", "other"]);
    let text = hosts.fleet("collect", &["runner-1"]).expect(0).stdout;
    assert!(text.contains(&format!("the ref had {old} before")), "{text}");
    let new = committed(&hosts, "runner-1", "two");
    let text = hosts.fleet("collect", &["runner-1"]).expect(0).stdout;
    assert!(!text.contains("before"), "{text}");
    assert!(collected(&hosts).contains(&("runner-1".to_owned(), new)));
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_host_that_is_lost_is_missing_in_what_is_collected_in_every_case() {
    for lost in [
        "exit 255",
        "exit 0",
        "export SEEDBED_FAILPOINT=fleet.bundled=crash",
        "export SEEDBED_FAILPOINT=fleet.collecting=crash",
    ] {
        let hosts = applied();
        for session in ["runner-1", "runner-6", "lead"] {
            committed(&hosts, session, "one");
        }
        let (host, _) = hosts.home("runner-1");
        let launcher = hosts.launcher_with(&format!("test {{host}} = {host} && {lost}; "));
        let missing = hosts.fleet("collect", &["--json", "--launcher", &launcher]).expect(30);
        let missing =
            missing.says(&["the results of hosts are missing", &format!("{host}: it gave no results")]);
        let document = missing.json();
        assert_eq!(document["missingHosts"][0]["host"], json!(host), "{document}");
        let names = |session: &str| document["worktrees"].to_string().contains(&format!("\"{session}\""));
        assert!(!names("runner-1") && names("runner-6"), "{document}");
        assert!(collected(&hosts).iter().all(|(session, _)| session != "runner-1"));
        hosts.fleet("collect", &[]).expect(0);
        assert_eq!(collected(&hosts).len(), 12);
    }
}

#[test]
fn collect_names_sessions_and_branches_that_their_host_has_not() {
    let hosts = applied();
    let (host, directory) = hosts.home("runner-3");
    hosts.on(&host, &["destroy", "runner-3", "--yes"]).expect(0);
    let (_, other) = hosts.home("runner-4");
    hosts.sandbox.git_in(Path::new(&other), &["checkout", "-q", "-b", "topic"]);
    hosts.sandbox.git_in(Path::new(&other), &["update-ref", "-d", "refs/heads/topic"]);
    let document = hosts.fleet("collect", &["--json"]).expect(30).json();
    assert!(!Path::new(&directory).exists());
    let error = |session| worktree(&document, session)["error"].as_str().unwrap_or_default().to_owned();
    assert!(error("runner-3").contains("not active on host"), "{document}");
    assert!(error("runner-4").contains("names no commit"), "{document}");
    assert_eq!(collected(&hosts).len(), 10);
}

#[test]
fn only_planned_commits_of_valid_objects_are_collected() {
    let hosts = applied();
    committed(&hosts, "runner-1", "one");
    let (host, _) = hosts.home("runner-1");
    let answer = "$(echo ../../fleet/collected/*)/{host}/answer.json";
    let bundle = "$(echo ../../fleet/collected/*)/{host}/0.bundle";
    // What the host has written is changed before the coordinator reads it.
    let edited = |script: &str| {
        let root = hosts.root("n0");
        let launcher = format!(
            "{}; code=$?; cd {}; test {{host}} = {host} && {{ {script}; }}; exit $code",
            hosts.launcher(),
            root.display()
        );
        hosts.fleet("collect", &["--launcher", &launcher]).expect(30)
    };
    edited(&format!("sed -i 's,^\\([0-9a-f]*\\) refs/seedbed/.*,\\1 refs/heads/main,' {bundle}"))
        .says(&["refs/heads/main"]);
    edited(&format!("truncate -s -30 {bundle}"))
        .says(&[&format!("the commits of host {host} cannot be taken")]);
    edited(&format!("sed -i s/schemaVersion/other/ {answer}"))
        .says(&[&format!("{host}: "), "cannot be read"]);
    assert!(collected(&hosts).iter().all(|(session, _)| session != "runner-1"));
}

#[test]
fn commits_with_objects_that_git_refuses_are_not_collected() {
    let hosts = applied();
    committed(&hosts, "runner-1", "one");
    let (_, directory) = hosts.home("runner-1");
    // A tree with an entry that Git would refuse to check out.
    let root = Path::new(&directory);
    let blob = hosts.sandbox.git_in(root, &["rev-parse", "HEAD:one"]);
    let tree = format!(
        "printf '100644 .git\\0' > tree; printf {blob} | sed 's/../\\\\x&/g' | xargs -0 printf >> tree; \
         git commit-tree -p HEAD -m bad $(git hash-object -t tree -w --literally tree) > bad; git reset -q --soft $(cat bad)"
    );
    let made = hosts.sandbox.program("bash", root).args(["-c", &tree]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    hosts.fleet("collect", &[]).expect(30).says(&["cannot be taken", "index-pack"]);
    assert!(collected(&hosts).iter().all(|(session, _)| session != "runner-1"));
}

#[test]
fn two_collections_at_once_and_a_killed_one_leave_the_same_refs() {
    let hosts = applied();
    for at in 0..8 {
        committed(&hosts, &format!("runner-{at}"), "one");
    }
    for point in ["fleet.collected", "fleet.taken"] {
        let mut killed = hosts
            .fleet_command("collect", &["--launcher", &hosts.launcher_with("unset SEEDBED_FAILPOINT; ")]);
        let killed = killed.env("SEEDBED_FAILPOINT", format!("{point}=crash")).output().unwrap();
        Outcome::of(killed).expect(137);
    }
    let both = ["a", "b"].map(|_| {
        let mut command = hosts.fleet_command("collect", &["--launcher", &hosts.launcher()]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    });
    for one in both {
        Outcome::of(one.wait_with_output().unwrap()).expect(0);
    }
    assert_eq!(collected(&hosts).len(), 12);
}

/// Restores the only rescue of a bundle in a new clone, and returns the content of the file `work`.
fn restored(hosts: &Hosts, host: &str) -> String {
    let rescues = hosts.sandbox.top.join("fleet/rescues").join(host);
    let index: Value = serde_json::from_slice(&fs::read(rescues.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["rescues"].as_array().unwrap().len(), 1, "{index}");
    let bundle = rescues.join(index["rescues"][0]["bundle"].as_str().unwrap());
    let clone = hosts.sandbox.clone_to("rescued");
    let refs = "refs/seedbed/rescue/*:refs/seedbed/rescue/*";
    hosts.sandbox.git_in(&clone, &["fetch", "-q", bundle.to_str().unwrap(), refs]);
    let name =
        index["rescues"][0]["reference"].as_str().unwrap().strip_prefix("refs/seedbed/rescue/").unwrap();
    let restored = hosts.sandbox.seedbed_in(&clone, &["rescue", "restore", name]).expect(0);
    fs::read_to_string(Path::new(restored.stdout.trim()).join("work")).unwrap()
}

#[test]
fn rescues_of_a_destroyed_fleet_outlive_their_host() {
    let hosts = applied();
    let (host, directory) = hosts.home("runner-3");
    fs::write(format!("{directory}/work"), "precious").unwrap();
    let destroyed = hosts.fleet("destroy", &["--yes", "--rescue"]).expect(0);
    destroyed.says(&["rescues of 1 session", &format!("rescues/{host}")]);
    let kept = fs::read(hosts.sandbox.top.join("fleet/rescues").join(&host).join("index.json")).unwrap();
    hosts.fleet("collect", &["--rescues"]).expect(0).says(&[&format!("rescues/{host}")]);
    let again = fs::read(hosts.sandbox.top.join("fleet/rescues").join(&host).join("index.json")).unwrap();
    assert!(kept == again, "a rescue that is kept is not written again");
    fs::remove_dir_all(hosts.root(&host)).unwrap();
    assert_eq!(restored(&hosts, &host), "precious");
}

#[test]
fn a_host_that_cannot_keep_its_rescues_does_not_vote() {
    let hosts = applied();
    let (host, directory) = hosts.home("runner-3");
    fs::write(format!("{directory}/work"), "precious").unwrap();
    // A file is where the rescues of the host belong.
    fs::create_dir_all(hosts.sandbox.top.join("fleet/rescues")).unwrap();
    fs::write(hosts.sandbox.top.join("fleet/rescues").join(&host), "").unwrap();
    hosts.fleet("destroy", &["--yes", "--rescue"]).expect(1).says(&[&format!("{host}: "), "rolled back"]);
    assert_eq!(fs::read_to_string(format!("{directory}/work")).unwrap(), "precious");
    fs::remove_file(hosts.sandbox.top.join("fleet/rescues").join(&host)).unwrap();
    // Killed before the index is written, the next run writes it.
    let lost = format!("test {{host}} = {host} && export SEEDBED_FAILPOINT=fleet.rescued=crash; ");
    let launcher = hosts.launcher_with(&lost);
    hosts.fleet("destroy", &["--yes", "--rescue", "--launcher", &launcher]).expect(1).says(&["did not vote"]);
    hosts.fleet("collect", &["--rescues", "--launcher", &hosts.launcher()]).expect(0);
    let index = fs::read_to_string(hosts.sandbox.top.join("fleet/rescues").join(&host).join("index.json"));
    assert!(index.unwrap().contains("shop/runner-3"));
}
