//! Tests of exit codes, the lock of a swarm, and `init`.

use std::fs;
use std::process::Child;

use crate::sandbox::{Outcome, Sandbox, wait_until};

const ONE: &str = "[session.a]\nresources = [\"git-worktree\"]\n";

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let sandbox = Sandbox::new();
    sandbox.manifest(ONE);
    for args in [
        &[][..],
        &["no-such-command"],
        &["plan", "--no-such-option"],
        &["apply", "--jobs", "0"],
        &["apply", "--lock-timeout", "-1"],
        &["apply", "--lock-timeout", "soon"],
        &["exec", "a"],
        &["exec", "--", "true"],
        &["destroy", "no-such-session"],
    ] {
        let code = sandbox.unchanged(|| sandbox.seedbed(args)).code;
        // A session can only be unknown if others are active.
        let expected = if args == ["destroy", "no-such-session"] { 0 } else { 64 };
        assert_eq!(code, expected, "{args:?}");
    }
    sandbox.ok(&["apply"]);
    sandbox
        .unchanged(|| sandbox.seedbed(&["destroy", "no-such-session"]).expect(64).says(&["no-such-session"]));
    for args in [&["--help"][..], &["--version"], &["plan", "--help"]] {
        let outcome = sandbox.ok(args);
        assert!(!outcome.stdout.is_empty() && outcome.stderr.is_empty());
    }
}

#[test]
fn missing_manifest_is_reported_with_the_command_that_writes_one() {
    let sandbox = Sandbox::new();
    for command in ["plan", "apply", "status", "destroy", "recover", "validate"] {
        let outcome = sandbox.unchanged(|| sandbox.seedbed(&[command]).expect(64));
        outcome.says(&["no seedbed.toml", "seedbed init"]);
    }
    sandbox.seedbed(&["plan", "-f", "nowhere.toml"]).expect(64).says(&["nowhere.toml"]);
    sandbox.seedbed(&["plan", "-C", "nowhere"]).expect(64).says(&["nowhere is not a directory"]);
    sandbox.seedbed(&["plan", "--jobs", "0"]).expect(64).says(&["write a number from 1"]);
}

#[test]
fn an_invalid_manifest_is_reported_in_full() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "seedbed.toml",
        "version = 1\nswarm = \"shop\"\n[session.a]\nresource = []\n[session.b]\ncount = \"two\"\n",
    );
    for command in ["validate", "plan", "apply"] {
        let outcome = sandbox.unchanged(|| sandbox.seedbed(&[command]).expect(65));
        outcome.says(&["resources", "count"]);
    }
    sandbox.write("seedbed.toml", "version = ");
    sandbox.seedbed(&["apply"]).expect(65);
}

/// Run that lasts until the sandbox has a file `go`.
struct UnderWay<'s> {
    sandbox: &'s Sandbox,
    run: Child,
}

impl<'s> UnderWay<'s> {
    fn start(sandbox: &'s Sandbox) -> Self {
        let top = sandbox.top.display();
        sandbox.manifest(&format!(
            "[session.a]\nresources = [\"git-worktree\"]\nsetup = ['touch {top}/started; while test -d {top} && ! test -e {top}/go; do sleep 0.02; done']\n"
        ));
        let run = sandbox.start(&["apply"]);
        wait_until("the setup runs", || sandbox.top.join("started").exists());
        Self { sandbox, run }
    }

    fn end(self) -> Outcome {
        fs::write(self.sandbox.top.join("go"), "").unwrap();
        Outcome::of(self.run.wait_with_output().unwrap())
    }
}

#[test]
fn swarm_of_another_run_is_locked() {
    let sandbox = Sandbox::new();
    let first = UnderWay::start(&sandbox);
    let by = format!("`shop` is locked by pid {} (`apply`) since 2", first.run.id());
    sandbox.unchanged(|| {
        for args in [&["apply"][..], &["destroy"], &["recover"], &["run", "--in-place", "--", "true"]] {
            sandbox.seedbed(args).expect(75).says(&[&by]);
        }
    });
    for command in ["plan", "validate"] {
        let by = format!("`shop` is in progress by pid {} (`apply`) since 2", first.run.id());
        let outcome =
            sandbox.unchanged(|| sandbox.seedbed(&[command]).expect(75).says(&[&by, "wait for it to end"]));
        assert!(!outcome.stderr.contains("recover"), "{}", outcome.stderr);
    }
    first.end().expect(0);
    sandbox.ok(&["plan", "--detailed-exitcode"]);
}

#[test]
fn another_swarm_of_the_same_repository_is_not_locked() {
    let sandbox = Sandbox::new();
    let first = UnderWay::start(&sandbox);
    sandbox.write("other.toml", &sandbox.manifest_text(ONE).replace("\"shop\"", "\"other\""));
    sandbox.ok(&["apply", "-f", "other.toml"]);
    first.end().expect(0);
    sandbox.ok(&["destroy"]);
    sandbox.ok(&["destroy", "-f", "other.toml"]);
    assert!(!sandbox.repository.join(".ai_ops").exists());
}

#[test]
fn a_run_with_a_lock_timeout_waits_for_the_other_to_end() {
    let sandbox = Sandbox::new();
    let first = UnderWay::start(&sandbox);
    let second = sandbox.start(&["apply", "--lock-timeout", "100"]);
    let opened = format!("/proc/{}/fd", second.id());
    wait_until("the second run looks at the lock", || {
        fs::read_dir(&opened)
            .unwrap()
            .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
            .any(|file| file.extension().is_some_and(|extension| extension == "lock"))
    });
    first.end().expect(0);
    Outcome::of(second.wait_with_output().unwrap()).expect(0).says(&["nothing to do"]);
}

#[test]
fn a_run_whose_lock_timeout_passes_is_locked_out() {
    let sandbox = Sandbox::new();
    let first = UnderWay::start(&sandbox);
    sandbox.seedbed(&["destroy", "--lock-timeout", "0.1"]).expect(75).says(&["is locked by pid"]);
    first.end().expect(0);
}

#[test]
fn init_writes_a_manifest_that_can_be_applied() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["init"]).says(&["seedbed.toml"]);
    sandbox.ok(&["validate"]);
    let text = fs::read_to_string(sandbox.repository.join("seedbed.toml")).unwrap();
    assert!(text.contains("swarm = \"repository\"") && text.contains("base-ref = \"main\""), "{text}");
    let refused = sandbox.unchanged(|| sandbox.seedbed(&["init"]).expect(64));
    refused.says(&["exists already, and was not changed"]);
    // Ports of its own, so that this meets no other test.
    let ports = format!("[defaults.port-range]\nbase-port = {}\nblock-count = 32\n", sandbox.base_port);
    sandbox.write("seedbed.toml", &text.replace("[defaults.port-range]\n", &ports));
    sandbox.unchanged(|| {
        sandbox.ok(&["apply"]);
        sandbox.ok(&["exec", "--all", "--", "sh", "-c", "test -n \"$ROLE$LEAD_URL\""]);
        sandbox.ok(&["destroy"]);
    });
}

#[test]
fn init_writes_what_the_repository_has() {
    let sandbox = Sandbox::new();
    sandbox.write("go.sum", "");
    sandbox.write(".gitignore", ".env\n.worktrees/\n");
    sandbox.commit("files");
    sandbox.git(&["branch", "agents"]);
    sandbox.write(".env", "A=1\n");
    sandbox.ok(&["init"]);
    let text = fs::read_to_string(sandbox.repository.join("seedbed.toml")).unwrap();
    for line in [
        "branch = \"sessions/{{ session.slug }}\"",
        "root-directory = \".worktrees\"",
        "copy = [\".env\"]",
        "setup = [[\"go\", \"mod\", \"download\"]]",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    sandbox.ok(&["plan"]).stdout.find("copies .env").expect("it is copied");
}

/// For git, an empty line that ends in CRLF matches the name `.worktrees/`, and nothing in the directory.
#[test]
fn init_names_no_directory_that_is_not_ignored_when_lines_end_in_crlf() {
    let sandbox = Sandbox::new();
    sandbox.write(".gitignore", ".env\r\n\r\nbuild/\r\n");
    sandbox.commit("files");
    sandbox.ok(&["init"]);
    let text = fs::read_to_string(sandbox.repository.join("seedbed.toml")).unwrap();
    assert!(!text.contains("root-directory"), "{text}");
}

#[test]
fn init_refuses_outside_a_repository() {
    let sandbox = Sandbox::new();
    let outside = sandbox.top.join("outside");
    fs::create_dir(&outside).unwrap();
    sandbox.seedbed_in(&outside, &["init"]).expect(64).says(&["is in no git repository", "git init"]);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    sandbox.git_in(&outside, &["init", "--quiet"]);
    sandbox.seedbed_in(&outside, &["init"]).expect(0).says(&["start from a commit"]);
}

#[test]
fn init_in_a_directory_with_any_name_writes_a_valid_manifest() {
    let sandbox = Sandbox::new();
    sandbox.manifest(ONE);
    let clone = sandbox.clone_to("--Ünder \"quotes\" & more--");
    fs::remove_file(clone.join("seedbed.toml")).unwrap();
    sandbox.git_in(&clone, &["checkout", "--quiet", "-b", "feature/\"quoted\""]);
    sandbox.seedbed_in(&clone, &["init"]).expect(0);
    sandbox.seedbed_in(&clone, &["validate"]).expect(0);
}
