//! Tests of the notes about the age of base refs.

use std::fs::{self, File};
use std::time::{Duration, UNIX_EPOCH};

use crate::sandbox::Sandbox;

/// Returns the notes of a plan, and the digest.
fn noted(sandbox: &Sandbox, base_ref: &str, args: &[&str]) -> (Vec<String>, String) {
    sandbox.manifest(&format!(
        "[defaults.git-worktree]\nbase-ref = {base_ref:?}\n[session.a]\nresources = [\"git-worktree\"]\n"
    ));
    let text = sandbox.unchanged(|| sandbox.ok(&[&["plan"], args].concat())).stdout;
    let notes = text.lines().filter_map(|line| line.strip_prefix("note: ")).map(str::to_owned);
    let digest = sandbox.ok(&["plan", "--json"]).json()["digest"].as_str().unwrap().to_owned();
    (notes.collect(), digest)
}

#[test]
fn plan_notes_the_age_of_base_refs_and_its_digest_does_not_depend_on_it() {
    let sandbox = Sandbox::new();
    assert_eq!(noted(&sandbox, "main", &[]).0, [""; 0]);
    let (verbose, digest) = noted(&sandbox, "main", &["--verbose"]);
    assert!(verbose.iter().any(|note| note.starts_with("main is of 20")), "{verbose:?}");

    let upstream = sandbox.clone_to("upstream");
    sandbox.git_in(&upstream, &["commit", "--quiet", "--allow-empty", "--message", "new"]);
    sandbox.git(&["remote", "add", "origin", "../upstream"]);
    sandbox.git(&["fetch", "--quiet", "origin"]);
    sandbox.git(&["branch", "--quiet", "--set-upstream-to=origin/main", "main"]);
    let fetched = sandbox.repository.join(".git/FETCH_HEAD");
    let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    // 2036 is later than the log of the ref.
    File::options().append(true).open(&fetched).unwrap().set_modified(at(2_082_758_400)).unwrap();
    let (notes, same) = noted(&sandbox, "main", &[]);
    assert!(notes[0].starts_with("main is of 20"), "{notes:?}");
    assert!(
        notes[0].ends_with(", 1 commit behind origin/main, last fetched at 2036-01-01T00:00:00Z"),
        "{notes:?}"
    );
    assert_eq!(same, digest);
    assert!(noted(&sandbox, "HEAD", &[]).0[0].contains("1 commit behind origin/main"));
    let (notes, digest) = noted(&sandbox, "origin/main", &[]);
    assert!(notes[0].starts_with("origin/main is of 20"), "{notes:?}");
    fs::remove_file(fetched).unwrap();
    fs::remove_dir_all(sandbox.repository.join(".git/logs")).unwrap();
    let (notes, same) = noted(&sandbox, "origin/main", &[]);
    assert!(notes[0].ends_with(", whose last fetch is unknown"), "{notes:?}");
    assert_eq!(same, digest);
}
