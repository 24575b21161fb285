//! Tests of files at the paths that seedbed is about to write, of any type: nothing outside is written or removed, and
//! no command hangs.

use std::fs;
use std::path::Path;

use super::sandbox;
use crate::sandbox::{Inventory, Sandbox, assert_same, walk};

/// Files that a session's setup creates at the path of its discovery file; `{outside}` is a directory of another owner.
const FIXTURES: [(&str, &str); 14] = [
    ("a link to a directory", "ln -s {outside} .agent-context"),
    ("a link to nothing", "ln -s {outside}/nothing .agent-context"),
    ("a relative link", "ln -s ../../../../outside .agent-context"),
    ("a link to a file", "ln -s {outside}/precious .agent-context"),
    ("a link to itself", "ln -s .agent-context .agent-context"),
    ("a file", "echo mine > .agent-context"),
    ("a FIFO", "mkfifo .agent-context"),
    ("the file is a link", "mkdir .agent-context; ln -s {outside}/precious .agent-context/resources.json"),
    (
        "the file is a link to nothing",
        "mkdir .agent-context; ln -s {outside}/new .agent-context/resources.json",
    ),
    ("the file is a hard link", "mkdir .agent-context; ln {outside}/precious .agent-context/resources.json"),
    ("the file is a FIFO", "mkdir .agent-context; mkfifo .agent-context/resources.json"),
    ("the file is a directory", "mkdir -p .agent-context/resources.json/below"),
    ("the mark is a link", "mkdir .agent-context; ln -s {outside}/precious .agent-context/.gitignore"),
    ("the mark is a FIFO", "mkdir .agent-context; mkfifo .agent-context/.gitignore"),
];

fn outside(sandbox: &Sandbox) -> Inventory {
    let directory = sandbox.top.join("outside");
    if !directory.exists() {
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("precious"), "precious\n").unwrap();
    }
    let mut found = Inventory::new();
    walk(&directory, Path::new("outside"), &mut found);
    found
}

#[test]
fn planted_files_lead_no_write_out() {
    let sandbox = sandbox("");
    let before = outside(&sandbox);
    for (what, plant) in FIXTURES {
        let plant = plant.replace("{outside}", sandbox.top.join("outside").to_str().unwrap());
        sandbox.manifest(&format!("[session.a]\nresources = [\"git-worktree\"]\nsetup = [\"{plant}\"]\n"));
        let clean = sandbox.inventory();
        let run = sandbox.seedbed(&["apply"]);
        assert!(matches!(run.code, 0 | 1), "{what}: {run:?}");
        assert_same(&before, &outside(&sandbox));
        if run.code == 0 {
            let told = sandbox.directory("a").join(".agent-context/resources.json");
            assert!(told.symlink_metadata().unwrap().is_file(), "{what}");
            sandbox.ok(&["whoami", "-C", sandbox.directory("a").to_str().unwrap()]);
            sandbox.ok(&["destroy"]);
        } else {
            assert!(run.stderr.contains("discovery file"), "{what}: {run:?}");
        }
        assert_same(&clean, &sandbox.inventory());
        assert_same(&before, &outside(&sandbox));
    }
}

/// Files that an agent leaves in an active session do not lead outside either when the session is released.
#[test]
fn planted_files_lead_no_removal_out() {
    let sandbox = sandbox("[session.a]\nresources = [\"git-worktree\", \"port-range\"]\n");
    let before = outside(&sandbox);
    let clean = sandbox.inventory();
    let precious = sandbox.top.join("outside");
    let plants: [(&str, &str); 4] = [
        ("a link deep in the tree", "ln -s {outside} app/lib/way"),
        ("its directory moved away, a link in its place", "mv app away; ln -s {outside} app"),
        ("directories that cannot be entered", "mkdir -p shut/in; chmod 000 shut/in; chmod 500 shut"),
        (
            "the directory of all worktrees is a link",
            "mv ../../worktrees ../../aside; ln -s {outside} ../../worktrees",
        ),
    ];
    for (what, plant) in plants {
        sandbox.ok(&["apply"]);
        let plant = plant.replace("{outside}", precious.to_str().unwrap());
        let directory = sandbox.directory("a");
        assert!(sandbox.program("sh", &directory).args(["-c", &plant]).status().unwrap().success());
        let run = sandbox.seedbed(&["destroy", "--discard"]);
        assert_same(&before, &outside(&sandbox));
        let aside = sandbox.repository.join(".ai_ops/aside");
        if aside.exists() {
            assert!(matches!(run.code, 1 | 69 | 73), "{what}: {run:?}");
            fs::remove_file(sandbox.repository.join(".ai_ops/worktrees")).unwrap();
            fs::rename(aside, sandbox.repository.join(".ai_ops/worktrees")).unwrap();
            sandbox.seedbed(&["recover"]);
            sandbox.ok(&["destroy", "--discard"]);
        } else {
            assert_eq!(run.code, 0, "{what}: {run:?}");
        }
        assert_same(&clean, &sandbox.inventory());
        assert_same(&before, &outside(&sandbox));
    }
}
