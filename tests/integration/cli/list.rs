//! Tests of `list`: every swarm on this host.

use std::fs;

use serde_json::{Value, json};

use crate::sandbox::{Outcome, Sandbox, ports, sessions, wait_until};

const TREE: &str = r#"
[session.lead]
resources = ["git-worktree", "port-range"]
[session.lead.child.coder]
count = 2
"#;

fn listed(sandbox: &Sandbox) -> Vec<Value> {
    let document = sandbox.seedbed_in(&sandbox.top, &["list", "--json"]).expect(0).json();
    assert_eq!(document["schemaVersion"], 1);
    document["swarms"].as_array().unwrap().clone()
}

#[test]
fn every_swarm_of_the_host_is_listed_from_anywhere() {
    let sandbox = Sandbox::new();
    sandbox.unchanged(|| {
        let nothing = sandbox.seedbed_in(&sandbox.top, &["list"]).expect(0).says(&["no swarm"]);
        assert_eq!(nothing.stdout, "");
        assert_eq!(listed(&sandbox), Vec::<Value>::new());
    });
    sandbox.manifest(TREE);
    let clone = sandbox.clone_to("clone");
    sandbox.ok(&["apply"]);
    sandbox.seedbed_in(&clone, &["apply"]).expect(0);
    let plan = sandbox.plan();
    let swarms = listed(&sandbox);
    assert_eq!(swarms.len(), 2);
    let own = swarms.iter().find(|swarm| swarm["workspace"] == json!(sandbox.repository)).unwrap();
    assert_eq!(own["swarm"], "shop");
    assert_eq!(own["plan"], plan["digest"]);
    assert_eq!(own["sessions"], json!(["lead", "lead/coder-0", "lead/coder-1"]));
    let (start, end) = ports(sessions(&plan).next().unwrap());
    assert_eq!(
        own["ports"],
        json!([{ "startPort": start, "endPort": end }]),
        "shares are no blocks of their own"
    );
    for (key, value) in [("applied", true), ("interrupted", false), ("workspaceExists", true)] {
        assert_eq!(own[key], value, "{key}");
    }
    assert!(
        own["since"].as_str().is_some_and(|since| since.starts_with('2') && since.ends_with('Z')),
        "{own}"
    );

    fs::remove_dir_all(&clone).unwrap();
    let text = sandbox.seedbed_in(&sandbox.top, &["list"]).expect(0).stdout;
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].starts_with("SWARM"), "{text}");
    let line = |workspace: &str| *lines.iter().find(|line| line.contains(workspace)).unwrap();
    assert!(line("/clone ").ends_with("applied; workspace missing"), "{text}");
    assert!(line("/repository ").ends_with("  applied"), "{text}");
    assert!(line("/repository ").contains(&format!("  {start}-{end}  ")), "{text}");
    sandbox.ok(&["destroy"]);
    assert_eq!(listed(&sandbox).len(), 1);
}

#[test]
fn a_swarm_is_listed_since_it_was_first_applied() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = []\n");
    sandbox.ok(&["apply"]);
    let since = listed(&sandbox)[0]["since"].as_str().unwrap().to_owned();
    let record = fs::read_dir(sandbox.state().join("swarms")).unwrap().flatten();
    let record = record.map(|entry| entry.path().join("applied.json")).find(|path| path.exists()).unwrap();
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replace(&since, "2020-02-02T02:02:02Z")).unwrap();
    sandbox.manifest("[session.a]\ncount = 2\nresources = []\n");
    sandbox.ok(&["apply"]);
    sandbox.ok(&["destroy", "a-0"]);
    assert_eq!(listed(&sandbox)[0]["since"], "2020-02-02T02:02:02Z");
    sandbox.ok(&["destroy"]);
    sandbox.ok(&["apply"]);
    assert!(listed(&sandbox)[0]["since"].as_str().unwrap() >= since.as_str());
}

#[test]
fn run_in_progress_is_listed_with_its_process() {
    let sandbox = Sandbox::new();
    let top = sandbox.top.display();
    sandbox.manifest(&format!(
        "[session.a]\nresources = [\"git-worktree\"]\nsetup = ['touch {top}/started; while test -d {top} && ! test -e {top}/go; do sleep 0.02; done']\n"
    ));
    let run = sandbox.start(&["apply"]);
    wait_until("the setup runs", || sandbox.top.join("started").exists());
    let by = format!("by pid {} (`apply`) since 2", run.id());
    let found = &listed(&sandbox)[0];
    assert_eq!(found["applied"], false);
    assert_eq!(found["since"], Value::Null);
    assert_eq!(found["interrupted"], true);
    assert!(found["holder"].as_str().unwrap().starts_with(&by), "{found}");
    let text = sandbox.seedbed_in(&sandbox.top, &["list"]).expect(0).stdout;
    assert!(text.contains("an apply is in progress by pid") && text.contains(&by), "{text}");
    fs::write(sandbox.top.join("go"), "").unwrap();
    Outcome::of(run.wait_with_output().unwrap()).expect(0);
    assert_eq!(listed(&sandbox)[0]["interrupted"], false);
}

#[test]
fn a_record_that_cannot_be_read_hides_no_other() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = []\n");
    sandbox.ok(&["apply"]);
    let (key, swarms) =
        (listed(&sandbox)[0]["key"].as_str().unwrap().to_owned(), sandbox.state().join("swarms"));
    for (name, content) in
        [("torn-0123456789abcdef", "{"), ("later-0123456789abcdef", "{\"schemaVersion\": 9}")]
    {
        fs::create_dir(swarms.join(name)).unwrap();
        fs::write(swarms.join(name).join("applied.json"), content).unwrap();
    }
    fs::create_dir(swarms.join("empty-0123456789abcdef")).unwrap();
    fs::write(swarms.join("a-file"), "").unwrap();
    let found = listed(&sandbox);
    let names: Vec<_> = found.iter().map(|found| found["swarm"].as_str().unwrap()).collect();
    assert_eq!(names, ["later", "shop", "torn"]);
    assert_eq!(found[1]["key"], key.as_str());
    assert!(
        found[0]["unreadable"][0].as_str().unwrap().contains("another version of seedbed"),
        "{}",
        found[0]
    );
    assert_eq!(found[2]["workspaceExists"], Value::Null);
    let outcome = sandbox.ok(&["list"]).says(&["torn-0123456789abcdef", "cannot be read"]);
    assert!(outcome.stdout.contains("has a record that cannot be read"), "{}", outcome.stdout);
}

#[test]
fn columns_line_up_where_a_name_is_wide() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\n");
    sandbox.ok(&["apply", "--quiet"]);
    let wide = sandbox.clone_to("\u{65e5}\u{672c}\u{8a9e}");
    sandbox.seedbed_in(&wide, &["apply", "--quiet"]).expect(0);
    let list = sandbox.ok(&["list"]).stdout;
    let column = |line: &str| {
        let before = &line[..line.find("  1  ").unwrap()];
        before.trim_end().chars().map(|c| if c.is_ascii() { 1 } else { 2 }).sum::<usize>()
            + (before.len() - before.trim_end().len())
    };
    let columns: Vec<_> = list.lines().skip(1).map(column).collect();
    assert_eq!(columns.len(), 2, "{list}");
    assert_eq!(columns[0], columns[1], "{list}");
}
