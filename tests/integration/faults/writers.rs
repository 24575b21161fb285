//! Tests of updates, refreshes, rollbacks and restores in a session whose program writes the same files at that moment:
//! no version of a file is lost, and each one that stays is named.

use std::fs;
use std::path::Path;

use super::{crash, sandbox};
use crate::sandbox::{Outcome, Sandbox};

/// Runs seedbed, and a shell script at each of these points.
fn run_beside(sandbox: &Sandbox, args: &[&str], scripts: &[(&str, String)]) -> Outcome {
    let points: Vec<_> = scripts.iter().map(|(point, _)| format!("{point}=run")).collect();
    let cases: Vec<_> = scripts.iter().map(|(point, script)| format!("{point}) {script};;")).collect();
    let trace = sandbox.top.join("trace");
    let _ = fs::remove_file(&trace);
    let mut command = sandbox.command(args);
    command.env("SEEDBED_FAILPOINT", points.join(",")).env("SEEDBED_FAILPOINT_TRACE", &trace);
    command.env("SEEDBED_FAILPOINT_RUN", format!("case $1 in {} esac", cases.join("\n")));
    let outcome = Outcome::of(command.output().unwrap());
    let trace = fs::read_to_string(&trace).unwrap();
    for (point, _) in scripts {
        assert!(trace.contains(&format!("run {point}\n")), "{point} was not reached: {outcome:?}");
    }
    outcome
}

/// Returns a script that replaces a file as an editor does.
fn save(path: &Path, text: &str) -> String {
    let path = path.display();
    format!("echo {text} > {path}.new; mv {path}.new {path}")
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| format!("{}: {error}", path.display()))
}

fn manifest(options: &str) -> String {
    format!("[session.a]\nresources = [{{ kind = \"git-worktree\"{options} }}]\n")
}

#[test]
fn refresh_keeps_each_version_that_a_session_saves_meanwhile() {
    let sandbox = sandbox(&manifest(", copy = [\".env\"]"));
    sandbox.ok(&["apply"]);
    let env = sandbox.directory("a").join(".env");
    sandbox.write(".env", "SECRET=2\n");
    let refresh = ["apply", "--refresh"];
    let once = [("files.exchange#1", save(&env, "one"))];
    run_beside(&sandbox, &refresh, &once).expect(0).says(&["`.env` was changed or removed in the session"]);
    assert_eq!(text(&env), "one\n");
    let twice = |first: &str| {
        fs::write(&env, "SECRET=1\n").unwrap();
        let scripts = [("files.exchange#1", save(&env, first)), ("files.exchanged#1", save(&env, "two"))];
        run_beside(&sandbox, &refresh, &scripts)
            .expect(0)
            .says(&["another version of it is `.env.seedbed-1`"]);
    };
    twice("one");
    let beside = env.with_file_name(".env.seedbed-1");
    assert_eq!([text(&env), text(&beside)], ["one\n", "two\n"]);
    fs::remove_file(&beside).unwrap();
    // A file that is removed, and one that is written in place.
    fs::write(&env, "SECRET=1\n").unwrap();
    let removed = [("files.exchange#1", format!("rm {}", env.display()))];
    run_beside(&sandbox, &refresh, &removed).expect(0).says(&["was changed or removed in the session"]);
    assert!(!env.exists());
    fs::write(&env, "SECRET=1\n").unwrap();
    let in_place = [
        ("files.exchange#1", save(&env, "one")),
        ("files.exchanged#1", format!("echo more >> {}", env.display())),
    ];
    run_beside(&sandbox, &refresh, &in_place).expect(0);
    assert_eq!([text(&env), text(&beside)], ["one\n", "SECRET=2\nmore\n"]);
}

#[test]
fn update_and_its_rollback_keep_what_a_session_writes_meanwhile() {
    let sandbox = sandbox(&manifest(", link = [\"cache\"]"));
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("a");
    let (env, cache) = (directory.join(".env"), directory.join("cache"));
    sandbox.manifest(&manifest(", copy = [\".env\"]"));
    // A file where a copy belongs, and one in the place of a link.
    let scripts = [
        ("update.place#1", save(&env, "mine")),
        ("files.take#1", format!("rm {0}; echo mine > {0}", cache.display())),
    ];
    let exists = |name: &str| format!("a: `{name}` exists in the session and stays as it is");
    let outcome = run_beside(&sandbox, &["apply"], &scripts).expect(0);
    outcome.says(&[&exists(".env"), &exists("cache")]);
    assert_eq!([text(&env), text(&cache)], ["mine\n", "mine\n"]);
    // An edit while a killed update is undone.
    fs::remove_file(&env).unwrap();
    sandbox.manifest(&manifest(", copy = [\".env\", \"app/.env\"]"));
    crash(&sandbox, &["apply"], "update.recorded#1");
    let env = directory.join("app/.env");
    let scripts = [("files.take#1", save(&env, "one")), ("files.taken#1", save(&env, "two"))];
    let stays = |name: &str| format!("a: `{name}` was written in the session and stays as it is");
    let outcome = run_beside(&sandbox, &["recover"], &scripts).expect(0);
    outcome.says(&[&stays("app/.env"), &stays("app/.env.seedbed-1")]);
    assert_eq!([text(&env), text(&env.with_file_name(".env.seedbed-1"))], ["two\n", "one\n"]);
}

#[test]
fn restore_in_a_session_keeps_each_version_that_it_saves_meanwhile() {
    let sandbox = sandbox(&manifest(""));
    sandbox.ok(&["apply"]);
    let readme = sandbox.directory("a").join("README.md");
    let original = text(&readme);
    fs::write(&readme, "work\n").unwrap();
    let printed = sandbox.ok(&["destroy", "--rescue"]).stdout;
    let name = printed.trim_end().strip_prefix("seedbed rescue restore ").unwrap();
    sandbox.ok(&["apply"]);
    let restore = ["rescue", "restore", name, "--into", "a"];
    let scripts = [("files.exchange#1", save(&readme, "one")), ("files.exchanged#1", save(&readme, "two"))];
    let beside = readme.with_file_name("README.md.seedbed-1");
    let changes = "changes while the rescue is restored";
    run_beside(&sandbox, &restore, &scripts).expect(69).says(&[changes, beside.to_str().unwrap()]);
    assert_eq!([text(&readme), text(&beside)], ["one\n", "two\n"]);
    fs::remove_file(&readme).unwrap();
    fs::write(&readme, original).unwrap();
    sandbox.ok(&restore);
    assert_eq!(text(&readme), "work\n");
}
