//! Tests of `explain`: the owner of a port, a path or a session, and the reason.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use seedbed::host::leases;
use seedbed::name::PortBlock;
use serde_json::{Value, json};

use crate::cli::shells::installed;
use crate::sandbox::{Sandbox, ports, sessions, wait_until};

const TREE: &str = r#"[defaults.git-worktree]
root-directory = "wt"
[session.lead]
resources = ["git-worktree", { kind = "port-range", block-size = 16, block-count = 32, names = ["http", "db"], slots = 3 }]
[session.lead.child.coder]
count = 2
setup = [["true"]]
[session.other]
resources = [{ kind = "git-worktree", target-path = "app" }]
[session.other.child.coder-0]
resources = []
"#;

fn planned() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.manifest(TREE);
    sandbox
}

fn applied() -> Sandbox {
    let sandbox = planned();
    sandbox.ok(&["apply"]);
    sandbox
}

fn explained_in(sandbox: &Sandbox, directory: &Path, subject: &str) -> Value {
    sandbox.unchanged(|| sandbox.seedbed_in(directory, &["explain", subject, "--json"]).expect(0).json())
}

fn explained(sandbox: &Sandbox, subject: &str) -> Value {
    explained_in(sandbox, &sandbox.repository, subject)
}

/// Returns the first port of a session.
fn start(sandbox: &Sandbox, path: &str) -> u64 {
    ports(sessions(&sandbox.plan()).find(|session| session["path"] == path).unwrap()).0
}

#[track_caller]
fn assert_rule(explanation: &Value, rule: &str) {
    let rules: Vec<_> =
        explanation["rules"].as_array().unwrap().iter().map(|rule| rule.as_str().unwrap()).collect();
    assert!(rules.iter().any(|said| said.contains(rule)), "{rule} is not in {rules:#?}");
}

/// Returns the text of the manifest that the explanation refers to.
#[track_caller]
fn pointed_at(sandbox: &Sandbox, explanation: &Value) -> Vec<String> {
    let text = fs::read_to_string(sandbox.repository.join("seedbed.toml")).unwrap();
    let at = |line: &Value, key: &str| usize::try_from(line[key].as_u64().unwrap()).unwrap();
    let lines = explanation["manifest"].as_array().unwrap().iter();
    lines
        .map(|line| {
            assert_eq!(line["file"], "seedbed.toml");
            let text = text.lines().nth(at(line, "line") - 1).unwrap();
            text.chars().skip(at(line, "column") - 1).take(at(line, "length")).collect()
        })
        .collect()
}

#[test]
fn port_is_explained_with_its_session_rules_and_line() {
    for sandbox in [planned(), applied()] {
        let is_there = sandbox.repository.join("wt").exists();
        let state = if is_there { "applied" } else { "planned" };
        let first = start(&sandbox, "lead");
        let explain = |port: u64| {
            let explanation = explained(&sandbox, &port.to_string());
            assert_eq!(explanation["port"], port);
            assert_eq!(explanation["schemaVersion"], 1);
            assert_eq!(explanation["owner"]["state"], state, "{explanation:#}");
            assert_eq!(explanation["owner"]["own"], true);
            assert_eq!(explanation["ephemeral"], false);
            explanation
        };
        let check = |port: u64, session: &str, what: &str| {
            let explanation = explain(port);
            assert_eq!(explanation["owner"]["session"], session, "{port}");
            assert_eq!(explanation["owner"]["id"], format!("shop/{session}"));
            let summary = explanation["summary"].as_str().unwrap();
            assert!(summary.ends_with(what), "{summary}");
            explanation
        };
        let http = check(first, "lead", "`http`, and its primary port, AGENT_PORT_HTTP");
        assert_eq!(pointed_at(&sandbox, &http), ["\"http\""]);
        assert_rule(&http, "is preferred by hash: sha256(\"shop/lead\") begins with ");
        assert_rule(&http, &format!("is {first}-{}: {} + ", first + 15, sandbox.base_port));
        let db = check(first + 1, "lead", "`db`, AGENT_PORT_DB");
        assert_eq!(pointed_at(&sandbox, &db), ["\"db\""]);
        // 14 ports in 3 slots are 4 each, and the last slot has no owner.
        let share = check(first + 2, "lead/coder-0", "`http`, and its primary port, AGENT_PORT_HTTP");
        assert_rule(
            &share,
            &format!(
                "{}-{} is share 1 of 3 of the ports of lead, {first}-{}",
                first + 2,
                first + 5,
                first + 15
            ),
        );
        assert_eq!(pointed_at(&sandbox, &share), ["\"http\""], "the names of the parent hold for it");
        let unnamed = check(first + 9, "lead/coder-1", "one of its ports without a name");
        assert_eq!(pointed_at(&sandbox, &unnamed), ["[session.lead.child.coder]"]);
        check(first + 15, "lead", "a port for its children that none of them has");
    }
}

#[test]
fn skipped_block_is_explained_with_the_reason() {
    let sandbox = planned();
    let preferred = start(&sandbox, "lead");
    let held = TcpListener::bind(("127.0.0.1", u16::try_from(preferred + 3).unwrap())).unwrap();
    sandbox.ok(&["apply"]);
    drop(held);
    let first = start(&sandbox, "lead");
    assert_ne!(first, preferred);
    let explanation = explained(&sandbox, &first.to_string());
    assert_rule(&explanation, "is the next one that was free when this was planned:");
    assert_rule(
        &explanation,
        &format!("({preferred}-{}) passed over: tcp port {} is in use", preferred + 15, preferred + 3),
    );
}

#[test]
fn listener_is_explained_with_its_process() {
    let sandbox = applied();
    let port = start(&sandbox, "lead");
    assert_eq!(explained(&sandbox, &port.to_string())["listeners"], json!([]));
    let text = sandbox.ok(&["explain", &port.to_string()]).stdout;
    assert!(text.contains("\n  listening  nothing\n"), "{text}");
    let _listener = TcpListener::bind(("127.0.0.1", u16::try_from(port).unwrap())).unwrap();
    let found = &explained(&sandbox, &port.to_string())["listeners"][0];
    assert_eq!(found["protocol"], "tcp");
    assert_eq!(found["address"], "127.0.0.1");
    assert_eq!(found["processes"][0]["pid"], std::process::id());
    assert_eq!(&explained(&sandbox, "lead")["listeners"][0], found);
    let text = sandbox.ok(&["explain", &port.to_string()]).stdout;
    assert!(
        text.contains(&format!("  listening  tcp 127.0.0.1:{port}: pid {} `", std::process::id())),
        "{text}"
    );
}

#[test]
fn a_process_cannot_act_on_the_terminal_by_its_name() {
    if !installed("perl") {
        return;
    }
    let sandbox = applied();
    let port = start(&sandbox, "lead").to_string();
    let script = "use IO::Socket::INET; $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $ARGV[0], Listen => 1) or die; $0 = \"evil\\e[2Jname\"; <STDIN>";
    let mut perl = sandbox.program("perl", &sandbox.repository);
    let mut perl = perl.args(["-e", script, &port]).stdin(Stdio::piped()).spawn().unwrap();
    wait_until("it listens under its new name", || {
        let found = explained(&sandbox, &port)["listeners"][0]["processes"][0]["command"].to_string();
        found.contains("evil")
    });
    let text = sandbox.ok(&["explain", &port]).stdout;
    assert!(text.contains("`evil\\u{1b}[2Jname`") && !text.contains('\u{1b}'), "{text:?}");
    drop(perl.stdin.take());
    perl.wait().unwrap();
}

#[test]
fn port_of_another_swarm_is_explained_with_its_workspace() {
    let sandbox = applied();
    let port = start(&sandbox, "lead/coder-1").to_string();
    let clone = sandbox.clone_to("clone");
    for directory in [&clone, &sandbox.top] {
        let explanation = explained_in(&sandbox, directory, &port);
        assert_eq!(explanation["owner"]["id"], "shop/lead/coder-1");
        assert_eq!(explanation["owner"]["workspace"], json!(sandbox.repository));
        assert_eq!(explanation["owner"]["own"], false);
        assert_eq!(explanation["manifest"], json!([]), "that is no line of this manifest");
        assert_rule(&explanation, "is share 2 of 3 of the ports of lead");
    }
}

#[test]
fn free_port_is_explained_with_its_range() {
    let sandbox = applied();
    let lead = start(&sandbox, "lead");
    let index = (0..128).find(|index| (sandbox.base_port + index * 4).abs_diff(lead) > 40).unwrap();
    let free = sandbox.base_port + index * 4 + 1;
    let explanation = explained(&sandbox, &free.to_string());
    assert_eq!(explanation["owner"], Value::Null);
    let range = format!("{}-{}", sandbox.base_port, sandbox.base_port + 511);
    assert_rule(&explanation, &format!("it is in block {index}, {}-{}, of {range}", free - 1, free + 2));
    assert_rule(&explanation, "from which shop/lead cuts 32 blocks of 16 ports");
    assert_eq!(explanation["otherOwners"], json!([]));

    let lock = format!("{}-{}.lock", free - 1, free + 2);
    fs::write(sandbox.repository.join(".ai_ops/locks/ports").join(&lock), "{\"sessionId\": \"seed/a\"}")
        .unwrap();
    let owners = &explained(&sandbox, &free.to_string())["otherOwners"];
    assert_eq!(*owners, json!([format!("the lock file {lock}, of session seed/a")]));

    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let ephemeral = range.split_whitespace().next().unwrap();
    let explanation = explained(&sandbox, ephemeral);
    assert_eq!(explanation["ephemeral"], true);
    assert_rule(&explanation, "it is outside ");
    assert!(sandbox.ok(&["explain", ephemeral]).stdout.contains("\n  ephemeral  the kernel gives it"));
}

#[test]
fn lease_of_a_standalone_session_is_explained() {
    let sandbox = planned();
    let (start, end) = (sandbox.base_port + 508, sandbox.base_port + 511);
    let host = seedbed::host::Host::new(Vec::new(), sandbox.state());
    let ports = leases::Leased::Ports(
        PortBlock::new(u32::try_from(start).unwrap(), u32::try_from(end).unwrap()).unwrap(),
    );
    let lease = leases::Lease::new("alone".to_owned(), "00ff".to_owned(), "/elsewhere".into(), ports);
    leases::grant(&host, &lease, &[]).unwrap();
    let owners = &explained(&sandbox, &end.to_string())["otherOwners"];
    assert_eq!(*owners, json!([format!("the lease of {start}-{end} to alone of /elsewhere")]));
}

#[test]
fn path_is_explained_with_its_session_and_role() {
    let sandbox = applied();
    let plan = sandbox.plan();
    let coder = sessions(&plan).find(|session| session["path"] == "lead/coder-0").unwrap();
    let (start, end) = ports(sessions(&plan).next().unwrap());
    let scoped = coder["scopedName"].as_str().unwrap();
    let check = |path: &str, itself: &str, session: &str| {
        let explanation = explained(&sandbox, path);
        assert_eq!(explanation["owner"]["session"], session, "{path}");
        let summary = explanation["summary"].as_str().unwrap();
        assert!(summary.ends_with(&format!(" {itself} of shop/{session} (applied)")), "{summary}");
        explanation
    };
    let worktree = format!("wt/{scoped}");
    let explanation = check(&worktree, "is the worktree", "lead/coder-0");
    assert_rule(
        &explanation,
        &format!("{worktree} is wt, by `root-directory`, and the session's scoped name, {scoped}"),
    );
    assert_rule(&explanation, "the first 8 digits of its SHA-256");
    assert_eq!(explanation["path"], json!(sandbox.repository.join(&worktree)));
    assert_eq!(pointed_at(&sandbox, &explanation), ["[session.lead.child.coder]"]);
    check(&format!("{worktree}/app/not/there"), "is in the worktree", "lead/coder-0");
    check(&format!("./{worktree}/../{scoped}"), "is the worktree", "lead/coder-0");
    check(&format!("{worktree}/.agent-context/resources.json"), "is in the discovery file", "lead/coder-0");
    check(&format!(".git/worktrees/{scoped}/HEAD"), "is in the admin directory", "lead/coder-0");
    let lock = check(&format!(".ai_ops/locks/ports/{start}-{end}.lock"), "is the lock file", "lead");
    assert_rule(&lock, &format!("it keeps other tools off ports {start}-{end}"));
    let other = sandbox.directory("other");
    let explanation = check(other.to_str().unwrap(), "is the working directory", "other");
    assert_rule(&explanation, "only app is checked out, by `target-path`");

    std::os::unix::fs::symlink(&worktree, sandbox.repository.join("shortcut")).unwrap();
    check("shortcut/README.md", "is in the worktree", "lead/coder-0");
    let state = sandbox.state();
    let key = sandbox.ok(&["list", "--json"]).json()["swarms"][0]["key"].as_str().unwrap().to_owned();
    let in_state = |path: String| state.join(path).to_str().unwrap().to_owned();
    check(
        &in_state(format!("swarms/{key}/sessions/{scoped}/resources.json")),
        "is in the copy of the discovery file",
        "lead/coder-0",
    );
    check(&in_state(format!("logs/{key}/{scoped}.setup.log")), "is the log", "lead/coder-0");
    let lease = fs::read_dir(state.join("leases"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap());
    let lease = lease.into_iter().find(|name| name.starts_with(&format!("{start}-"))).unwrap();
    check(&in_state(format!("leases/{lease}")), "is the lease", "lead");
}

#[test]
fn path_of_no_session_is_explained_with_the_items_below_it() {
    let sandbox = applied();
    let explanation = explained(&sandbox, "wt");
    assert_eq!(explanation["owner"], Value::Null);
    assert_rule(&explanation, "below it: worktree, discovery file of shop/lead (applied)");
    assert_eq!(explanation["rules"].as_array().unwrap().len(), 4, "one line a session: {explanation:#}");
    assert_rule(&explained(&sandbox, "README.md"), "the workspace of swarm shop, which does not manage it");
    // A planned path has an owner before it exists.
    let path = sandbox.directory("other");
    sandbox.ok(&["destroy"]);
    assert_eq!(explained(&sandbox, path.to_str().unwrap())["owner"]["state"], "planned");
}

#[test]
fn session_is_explained_with_all_its_allocations() {
    let sandbox = applied();
    let lead = explained(&sandbox, "lead");
    assert_eq!(lead["owner"]["index"], 0);
    assert_rule(&lead, "by `root-directory`");
    assert_rule(&lead, "is preferred by hash");
    let resources = pointed_at(&sandbox, &lead);
    assert_eq!(resources[..2], ["[session.lead]", "\"git-worktree\""]);
    assert!(resources[2].starts_with("{ kind = \"port-range\""), "{resources:?}");
    let text = sandbox.ok(&["explain", "coder-1"]).stdout;
    assert!(text.starts_with("shop/lead/coder-1 (applied) works in /"), "{text}");
    assert!(text.contains("─[seedbed.toml:11:1]") && text.contains("[session.lead.child.coder]"), "{text}");
    assert_eq!(explained_in(&sandbox, &sandbox.top, "shop/other")["owner"]["session"], "other");
    sandbox
        .seedbed(&["explain", "coder-0"])
        .expect(64)
        .says(&["more than one session", "lead/coder-0, other/coder-0 [session-ambiguous]"]);
    sandbox.seedbed(&["explain", "leda"]).expect(64).says(&["did you mean `lead`?"]);
    sandbox.seedbed(&["explain", "lead/coder-7"]).expect(64).says(&["did you mean `lead/coder-0`?"]);
    // A name takes precedence over a path of the same name; `./` selects the path.
    sandbox.write("other", "");
    assert_eq!(explained(&sandbox, "other")["owner"]["session"], "other");
    assert_eq!(explained(&sandbox, "./other")["owner"], Value::Null);
}

#[test]
fn invalid_port_is_a_usage_error() {
    let sandbox = planned();
    for subject in ["0", "65536", "99999999999999999999"] {
        sandbox.seedbed(&["explain", subject]).expect(64).says(&["from 1 to 65535"]);
    }
    sandbox.seedbed(&["explain"]).expect(64);
    sandbox.seedbed(&["explain", "1", "-f", "nowhere.toml"]).expect(64).says(&["nowhere.toml"]);
}

#[test]
fn invalid_manifest_hides_no_active_session() {
    let sandbox = applied();
    let port = start(&sandbox, "lead").to_string();
    let text = fs::read_to_string(sandbox.repository.join("seedbed.toml")).unwrap();
    sandbox.write("seedbed.toml", &format!("{text}\n[session.new]\nresource = []\n"));
    assert_eq!(explained(&sandbox, &port)["owner"]["session"], "lead");
    sandbox.seedbed(&["explain", "1"]).expect(0).says(&["cannot be planned", "seedbed validate"]);
    sandbox.seedbed(&["explain", "new"]).expect(65).says(&["resource"]);
}
