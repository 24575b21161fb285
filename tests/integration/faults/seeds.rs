//! Tests of kills and errors while seeds are made and copied: everything is rolled back, a seed is complete or none, and
//! the next run gives every session a complete copy.

use std::fs;

use super::errors::{With, cases, fail, succeeded};
use super::{Sandbox, assert_put_back, check_all, crash, sandbox, some_of, traced, twice};

/// Three sessions with two seeds. The first has a file that names its worktree.
const SEEDED: &str = r#"
[session.a]
count = 3
[[session.a.resources]]
kind = "git-worktree"
seed = [
  { path = "app/deps", key = ["README.md"], directory = "app", command = "mkdir -p deps/bin && pwd > deps/bin/own && ln -s own deps/bin/link && head -c 100000 /dev/zero > deps/large" },
  { path = "made", key = ["README.md"], command = "cp -r app/deps made" },
]
"#;

/// Returns a sandbox of [`SEEDED`], with a seed of an earlier run that no session needs.
pub(super) fn seeded() -> Sandbox {
    let sandbox = sandbox(&SEEDED.replace("README.md", "tools/run.sh"));
    sandbox.ok(&["apply"]);
    sandbox.ok(&["destroy"]);
    for entry in fs::read_dir(sandbox.state().join("seeds")).unwrap() {
        let document = entry.unwrap().path().join("seed.json");
        if let Ok(text) = fs::read_to_string(&document) {
            let used = text.split("\"used\": \"").nth(1).unwrap().split('"').next().unwrap();
            fs::write(&document, text.replace(used, "2020-01-01T00:00:00Z")).unwrap();
        }
    }
    sandbox.manifest(SEEDED);
    sandbox
}

fn is_of_seeds(point: &str) -> bool {
    let name = point.split('#').next().unwrap_or_default();
    name.starts_with("seed") || name.starts_with("copies.") || name.starts_with("files.created-temporary")
}

/// Applies, and expects that every session has complete directories of its own.
#[track_caller]
fn check_applied(sandbox: &Sandbox) {
    sandbox.ok(&["apply"]);
    for directory in sandbox.directories() {
        for seeded in ["app/deps", "made"] {
            let own = fs::read_to_string(directory.join(seeded).join("bin/own")).unwrap();
            assert_eq!(own, format!("{}/app\n", directory.display()));
            assert_eq!(fs::read(directory.join(seeded).join("large")).unwrap(), vec![0; 100_000]);
            assert!(directory.join(seeded).join("bin/link").is_symlink());
        }
        sandbox.assert_clean(&directory);
    }
}

#[test]
fn run_killed_while_it_seeds_is_undone_and_the_next_one_seeds() {
    let lab = sandbox(SEEDED);
    let run = traced(&lab, &["apply", "--jobs", "2"], None);
    assert_eq!(run.outcome.code, 0, "{:?}", run.outcome);
    let mut points = twice(&run.counts());
    points.retain(|point| is_of_seeds(point));
    assert!(points.iter().any(|point| point.starts_with("seeds.place#")), "{points:?}");
    check_all(SEEDED, &some_of(points), |sandbox, point| {
        let before = sandbox.inventory();
        let _ = fs::remove_dir_all(sandbox.state());
        crash(sandbox, &["apply", "--jobs", "2"], point);
        sandbox.ok(&["recover"]);
        check_applied(sandbox);
        sandbox.ok(&["destroy"]);
        assert_put_back(&before, sandbox);
    });
}

#[test]
fn error_while_seeding_is_rolled_back() {
    let lab = sandbox(SEEDED);
    let counts = succeeded(&traced(&lab, &["apply", "--jobs", "1"], None));
    let mut cases = cases(&counts, With::One);
    cases.retain(|case| is_of_seeds(case));
    assert!(cases.iter().any(|case| case.starts_with("seeds.rewrite#")), "{cases:?}");
    check_all(SEEDED, &some_of(cases), |sandbox, case| {
        let before = sandbox.inventory();
        let _ = fs::remove_dir_all(sandbox.state());
        if fail(sandbox, &["apply", "--jobs", "1"], case).code != 0 {
            assert_put_back(&before, sandbox);
        }
        check_applied(sandbox);
        sandbox.ok(&["destroy"]);
        assert_put_back(&before, sandbox);
    });
}

#[test]
fn reap_killed_anywhere_leaves_no_part_of_a_seed_that_counts() {
    for point in ["seeds.remove#1", "seeds.remove#2"] {
        let sandbox = seeded();
        crash(&sandbox, &["doctor", "--reap"], point);
        sandbox.manifest(&SEEDED.replace("README.md", "tools/run.sh"));
        check_applied(&sandbox);
    }
}
