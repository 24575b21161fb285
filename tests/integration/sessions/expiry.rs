//! Tests of `expires`: it marks sessions, and only a command releases them.

use std::fs;

use serde_json::{Value, json};

use crate::sandbox::Sandbox;

/// Sets the time at which the swarm was first applied.
fn set_since(sandbox: &Sandbox, since: &Value) {
    let swarm = fs::read_dir(sandbox.state().join("swarms")).unwrap().map(|entry| entry.unwrap().path());
    let record = swarm.map(|path| path.join("applied.json")).find(|path| path.is_file()).unwrap();
    let mut document: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    document["since"] = since.clone();
    fs::write(record, document.to_string()).unwrap();
}

/// Returns the expiry of each session in `status --json`: its lifetime, time and state.
fn expiries(sandbox: &Sandbox) -> Vec<(String, Value)> {
    let status = sandbox.ok(&["status", "--json"]).json();
    let sessions = status["sessions"].as_array().unwrap().iter();
    sessions
        .map(|session| (session["session"].as_str().unwrap().to_owned(), session["expiry"].clone()))
        .collect()
}

#[test]
fn expired_sessions_are_marked_and_released_only_by_rule() {
    let sandbox = Sandbox::new();
    let manifest = |expires: &str, more: &str| {
        let head = format!("version = 1\nswarm = \"shop\"\nexpires = \"{expires}\"\n");
        let child = "[session.a]\nresources = [\"git-worktree\"]\n[session.a.child.b]\nresources = []\n\
                     [session.c]\nresources = []\nexpires = \"90m\"\n[session.d]\nresources = []\nexpires = \"never\"\n";
        sandbox.write("seedbed.toml", &format!("{head}{child}{more}"));
    };
    manifest("3 days", "[session.e]\nresources = []\nexpires = \"0d\"\n");
    let text = sandbox.seedbed(&["validate"]).expect(65).stderr;
    for part in ["`expires` is `3 days`, which is not a lifetime", "`expires` is `0d`", "such as `3d`,"] {
        assert!(text.contains(part), "{text}");
    }
    manifest("3d", "");
    sandbox.ok(&["apply"]);
    set_since(&sandbox, &json!("2020-02-02T02:02:02Z"));
    let at = |after: &str, at: &str| json!({ "after": after, "at": at, "expired": true });
    let day = at("3d", "2020-02-05T02:02:02Z");
    let expected =
        [("a", day.clone()), ("a/b", day), ("c", at("90m", "2020-02-02T03:32:02Z")), ("d", json!(null))];
    assert_eq!(expiries(&sandbox), expected.map(|(path, expiry)| (path.to_owned(), expiry)));
    let text = sandbox.ok(&["status"]).stdout;
    assert!(text.contains("\n    expired at 2020-02-05T02:02:02Z, 3d after its creation\n"), "{text}");
    assert!(sandbox.ok(&["list"]).stdout.contains("applied; 3 sessions expired"));
    assert_eq!(sandbox.ok(&["list", "--json"]).json()["swarms"][0]["expired"], json!(["a", "a/b", "c"]));
    sandbox.unchanged(|| sandbox.seedbed(&["plan", "--detailed-exitcode"]).expect(0));

    // A change is made in place, and counts from the creation.
    let directory = sandbox.directory("a");
    fs::write(directory.join("work"), "").unwrap();
    manifest("9999w", "[session.e]\nresources = []\nexpires = \"1m\"\n");
    let plan = sandbox.ok(&["plan"]).stdout;
    assert!(plan.contains("expires: 3d -> 9999w") && plan.contains("2 to update"), "{plan}");
    sandbox.ok(&["apply"]);
    assert!(directory.join("work").exists());
    let after = expiries(&sandbox);
    assert_eq!(after[0].1["at"], "2211-09-22T02:02:02Z");
    assert_eq!((&after[2].1["expired"], &after[4].1["expired"]), (&json!(true), &json!(false)));
    assert!(sandbox.ok(&["status", "--verbose"]).stdout.contains("expires at 2211-09-22T02:02:02Z"));

    let kept = sandbox.ok(&["destroy", "--dry-run", "--json", "--where", "expired"]).json();
    assert_eq!(kept["sessions"], json!(["c"]));
    let why = |at: usize| kept["unmatched"][at]["description"].as_str().unwrap().to_owned();
    assert_eq!((why(0), why(2)), ("it expires at 2211-09-22T02:02:02Z".into(), "it never expires".into()));
    set_since(&sandbox, &json!(null));
    let unknown = sandbox.ok(&["destroy", "--dry-run", "--json", "--where", "expired"]).json();
    assert_eq!(unknown["sessions"], json!([]), "{unknown}");
    assert!(unknown.to_string().contains("it is unknown when it was created"), "{unknown}");
    set_since(&sandbox, &json!("2020-02-02T02:02:02Z"));
    sandbox.ok(&["destroy", "--yes", "--where", "expired"]);
    assert_eq!(expiries(&sandbox).len(), 4);
    sandbox.ok(&["apply"]);
    assert_eq!(expiries(&sandbox)[2].1["expired"], json!(false), "a session that is created again is new");
    sandbox.ok(&["destroy", "--discard"]);
}
