use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::super::inspect::inspect;
use super::super::register::register;
use super::{Lab, SESSION};

use crate::provider::git_worktree::{Registration, Worktree};
use crate::provider::{Condition, Error, UnsavedWork};

#[test]
fn an_entry_is_what_git_makes() {
    let lab = Lab::new();
    for branch in [None, Some("agents/one")] {
        let ours = Worktree { branch: branch.map(str::to_owned), ..lab.worktree("ours") };
        register(&lab.task(), &ours).unwrap();
        let reason = format!("seedbed {SESSION} {}", super::OWNER);
        let mut add = vec!["worktree", "add", "-q", "--no-checkout", "--lock", "--reason", &reason];
        match branch {
            Some(_) => add.extend(["-b", "agents/two", "--no-track"]),
            None => add.push("--detach"),
        }
        add.extend(["../gits", &lab.commit]);
        lab.git(&add);

        let gits = Worktree { admin_directory: "gits".into(), ..ours.clone() };
        let mut ours_has = tree(&lab.admin_directory(&ours));
        let mut git_has = tree(&lab.admin_directory(&gits));
        // Intended differences: our second ownership marker, the name in the log, and the `refs` that Git 2.39 leaves
        // out.
        assert_eq!(ours_has.remove("seedbed").unwrap().1, format!("{reason}\n").into_bytes());
        let (ours_log, git_log) =
            (ours_has.remove("logs/HEAD").unwrap(), git_has.remove("logs/HEAD").unwrap());
        let head = |log: &[u8]| log[..82].to_vec();
        assert_eq!((ours_log.0, head(&ours_log.1)), (git_log.0, head(&git_log.1)));
        git_has.entry("refs".into()).or_insert((0o755, Vec::new()));
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let comparable = |has: BTreeMap<String, (u32, Vec<u8>)>| -> BTreeMap<_, _> {
            has.into_iter().map(|(name, (mode, bytes))| (name, (mode, text(bytes)))).collect()
        };
        let path = lab.path(&ours);
        let mut expected = comparable(git_has);
        for (_, content) in expected.values_mut() {
            let other = fs::canonicalize(lab.repo.join("../gits")).unwrap();
            *content = content.replace(other.to_str().unwrap(), path.to_str().unwrap()).replace("two", "one");
        }
        assert_eq!(comparable(ours_has), expected);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path.join(".git")), mode(&lab.repo.join("../gits/.git")));

        assert_eq!(lab.git_in(&path, &["reflog", "show", "--format=%H", "HEAD"]).trim(), lab.commit);
        super::super::populate::populate_one(&lab.task(), &ours).unwrap();
        assert_eq!(lab.status(&ours), "");
        assert_eq!(lab.git_in(&path, &["branch", "--show-current"]).trim(), branch.unwrap_or(""));
        assert_eq!(inspect(&lab.task(), &ours).unwrap(), Condition::Healthy);
        assert!(!lab.repo.join(".git/seedbed").exists());
        lab.git(&["fsck", "--strict"]);
        lab.git(&["worktree", "remove", "-f", "-f", "../gits"]);
        lab.release(&ours);
    }
}

fn tree(directory: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        if path.is_dir() {
            found.insert(name.clone(), (mode, Vec::new()));
            found.extend(tree(&path).into_iter().map(|(below, file)| (format!("{name}/{below}"), file)));
        } else {
            found.insert(name, (mode, fs::read(path).unwrap()));
        }
    }
    found
}

#[test]
fn sixty_four_at_once_beside_other_gits() {
    let lab = Lab::new();
    let before = lab.inventory();
    let worktrees: Vec<Worktree> = (0..64).map(|n| lab.worktree(&format!("w{n}"))).collect();
    let (done, others, failed) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let mut others_failed = Vec::new();
    std::thread::scope(|scope| {
        for args in [["worktree", "list"], ["worktree", "prune"]] {
            let (lab, done, others, failed) = (&lab, &done, &others, &failed);
            scope.spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    others.fetch_add(1, Ordering::SeqCst);
                    let output = lab.try_git(&lab.repo, &args);
                    if !output.status.success() {
                        failed.lock().unwrap().push(format!("{args:?}: {output:?}"));
                    }
                }
            });
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(64).build().unwrap();
        pool.scope(|pool| {
            for worktree in &worktrees {
                let lab = &lab;
                pool.spawn(move |_| lab.make(worktree));
            }
        });
        for worktree in &worktrees {
            assert_eq!(lab.status(worktree), "");
        }
        others_failed.append(&mut failed.lock().unwrap());
        pool.scope(|pool| {
            for worktree in &worktrees {
                let lab = &lab;
                pool.spawn(move |_| lab.release(worktree));
            }
        });
        done.store(true, Ordering::SeqCst);
    });
    // A process may read the name of an admin directory before it is removed, and then not find the directory or a file
    // in it. Git's own removal has the same effect.
    let is_of_removal = |said: &String| {
        said.contains("No such file")
            && [
                "fatal: Invalid path",
                "fatal: failed to read .git/worktrees/",
                "fatal: failed to read '.git/worktrees/",
            ]
            .iter()
            .any(|how| said.contains(how))
    };
    others_failed.extend(failed.into_inner().unwrap().into_iter().filter(|said| !is_of_removal(said)));
    let others = others.load(Ordering::SeqCst);
    assert!(others_failed.is_empty(), "of {others} foreign commands: {others_failed:#?}");
    assert_eq!(lab.inventory(), before);
}

#[test]
fn registering_again_is_no_error() {
    let lab = Lab::new();
    let worktree = lab.worktree("w");
    lab.make(&worktree);
    register(&lab.task(), &worktree).unwrap();
    fs::write(lab.admin_directory(&worktree).join("commondir"), "").unwrap();
    let error = register(&lab.task(), &worktree).unwrap_err().to_string();
    assert!(error.contains("commondir does not name the repository"), "{error}");
}

#[test]
fn foreign_directory_is_not_touched() {
    let lab = Lab::new();
    let worktree = lab.worktree("w");

    lab.write(".ai_ops/worktrees/w/precious", "mine");
    let before = lab.inventory();
    refused(&lab, &worktree, "no admin directory of this swarm belongs to it");
    assert_eq!(lab.inventory(), before);
    fs::remove_dir_all(lab.repo.join(".ai_ops")).unwrap();

    lab.git(&["worktree", "add", "-q", "--detach", "../w"]);
    let before = lab.inventory();
    refused(&lab, &worktree, "it records the worktree");
    assert_eq!(lab.inventory(), before);
    lab.git(&["worktree", "remove", "../w"]);

    // The reference implementation leaves the same path and the same admin directory, without an ownership marker.
    lab.git(&["worktree", "add", "-q", "--detach", ".ai_ops/worktrees/w"]);
    let before = lab.inventory();
    refused(&lab, &worktree, "does not carry its mark");
    assert_eq!(lab.inventory(), before);

    let other = super::super::release::release;
    let mine = lab.worktree("mine");
    lab.make(&mine);
    let before = lab.inventory();
    let foreign = crate::provider::Task { owner: "ffffffffffffffffffffffffffffffff", ..lab.task() };
    assert!(matches!(other(&foreign, &mine), Err(Error::Refused(_))));
    assert_eq!(lab.inventory(), before);
}

fn refused(lab: &Lab, worktree: &Worktree, why: &str) {
    for result in [register(&lab.task(), worktree), super::super::release::release(&lab.task(), worktree)] {
        match result {
            Err(Error::Refused(text)) => assert!(text.contains(why), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_branch_that_exists_is_an_error_and_stays() {
    let lab = Lab::new();
    lab.git(&["branch", "agents/one"]);
    let before = lab.inventory();
    let worktree = Worktree { branch: Some("agents/one".into()), ..lab.worktree("w") };
    register(&lab.task(), &worktree).unwrap_err();
    lab.release(&worktree);
    assert_eq!(lab.inventory(), before);
}

#[test]
fn a_root_that_is_a_link_leads_nowhere() {
    let lab = Lab::new();
    let outside = lab.repo.join("../outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, lab.repo.join(".ai_ops")).unwrap();
    let worktree = lab.worktree("w");
    register(&lab.task(), &worktree).unwrap_err();
    let absolute = Worktree { worktree_path: lab.repo.join(".ai_ops/worktrees/w"), ..worktree };
    register(&lab.task(), &absolute).unwrap_err();
    assert_eq!(fs::read_dir(outside).unwrap().count(), 0);
    assert!(!lab.repo.join(".git/worktrees").exists());
}

#[test]
fn a_worktree_can_lie_outside_the_workspace_and_inside_a_parent() {
    let lab = Lab::new();
    let before = lab.inventory();
    let out = fs::canonicalize(lab.repo.join("..")).unwrap().join("elsewhere/w");
    let at = |path: PathBuf, name: &str| {
        let worktree_root = path.parent().unwrap().to_owned();
        Worktree { worktree_root, worktree_path: path, ..lab.worktree(name) }
    };
    let parent = at(out.clone(), "w");
    let child = at(out.join(".ai_ops/child-worktrees/w/c"), "c");
    lab.make(&parent);
    lab.make(&child);
    assert_eq!(lab.status(&parent), "");
    assert_eq!(lab.status(&child), "");
    lab.release(&child);
    assert_eq!(lab.status(&parent), "");
    let names: BTreeSet<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.contains(std::ffi::OsStr::new(".ai_ops")), "{names:?}");
    lab.release(&parent);
    assert!(!lab.repo.join("../elsewhere").exists());
    assert_eq!(lab.inventory(), before);
}

#[test]
fn a_workspace_below_the_top_and_one_that_is_a_worktree() {
    let lab = Lab::new();
    lab.git(&["worktree", "add", "-q", "--detach", "../linked"]);
    let before = lab.inventory();
    let linked = fs::canonicalize(lab.repo.join("../linked")).unwrap();
    let below = lab.repo.join("packages");
    for (workspace, repo_root) in [(&linked, "."), (&below, "..")] {
        let task = crate::provider::Task { workspace, ..lab.task() };
        let worktree_root = Path::new(repo_root).join(".ai_ops/worktrees");
        let worktree = Worktree {
            repo_root: repo_root.into(),
            worktree_path: worktree_root.join("w"),
            worktree_root,
            ..lab.worktree("w")
        };
        register(&task, &worktree).unwrap();
        super::super::populate::populate_one(&task, &worktree).unwrap();
        assert_eq!(lab.git_in(&workspace.join(&worktree.worktree_path), &["status", "--porcelain"]), "");
        super::super::release::release(&task, &worktree).unwrap();
        assert_eq!(lab.inventory(), before);
    }
}

#[test]
fn git_registers_where_an_entry_is_more_than_files() {
    let lab = Lab::new();
    let before = lab.inventory();
    for (branch, target) in
        [(None, None), (Some("agents/one"), None), (None, Some("packages/app")), (Some("two"), Some("other"))]
    {
        let worktree = Worktree {
            registration: Registration::Git,
            branch: branch.map(str::to_owned),
            target_path: target.map(str::to_owned),
            ..lab.worktree("w")
        };
        lab.make(&worktree);
        assert_eq!(lab.status(&worktree), "");
        assert_eq!(lab.path(&worktree).join("packages/app/main.rs").exists(), target != Some("other"));
        assert_eq!(inspect(&lab.task(), &worktree).unwrap(), Condition::Healthy);
        lab.release(&worktree);
        assert_eq!(lab.inventory(), before);
    }
}

#[test]
fn hooks_run_only_when_requested() {
    let lab = Lab::new();
    let hook = lab.repo.join(".git/hooks/post-checkout");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(&hook, "#!/bin/sh\necho \"$@\" > hooked\n").unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    for git_hooks in [false, true] {
        let worktree = Worktree { git_hooks, ..lab.worktree("w") };
        lab.make(&worktree);
        super::super::populate::run_hook(&lab.task(), &worktree).unwrap();
        let hooked = fs::read_to_string(lab.path(&worktree).join("hooked")).ok();
        assert_eq!(hooked, git_hooks.then(|| format!("{} {} 1\n", "0".repeat(40), lab.commit)));
        lab.release(&worktree);
    }
    fs::write(&hook, "#!/bin/sh\nexit 7\n").unwrap();
    let worktree = Worktree { git_hooks: true, ..lab.worktree("w") };
    lab.make(&worktree);
    super::super::populate::run_hook(&lab.task(), &worktree).unwrap_err();
    lab.release(&worktree);
}

#[test]
fn repositories_of_other_formats() {
    for (option, registration) in
        [("--object-format=sha256", Registration::Rename), ("--ref-format=reftable", Registration::Git)]
    {
        let files = [("a.txt", "one\n"), ("other/x", "x\n")];
        let Some(lab) = Lab::with_init(&[option], &files) else { continue };
        let names = |lab: &Lab| {
            lab.inventory().into_keys().filter(|path| !path.starts_with(".git/reftable")).collect()
        };
        let before: BTreeSet<_> = names(&lab);
        let refs = lab.git(&["for-each-ref"]);
        for (branch, target) in [(None, None), (Some("agents/one"), Some("other"))] {
            let worktree = Worktree {
                registration,
                branch: branch.map(str::to_owned),
                target_path: target.map(str::to_owned),
                ..lab.worktree("w")
            };
            lab.make(&worktree);
            assert_eq!(lab.status(&worktree), "");
            assert_eq!(inspect(&lab.task(), &worktree).unwrap(), Condition::Healthy);
            assert_eq!(
                super::super::unsaved::unsaved_work(&lab.task(), &worktree).unwrap(),
                UnsavedWork::default()
            );
            lab.release(&worktree);
            assert_eq!((names(&lab), lab.git(&["for-each-ref"])), (before.clone(), refs.clone()), "{option}");
        }
    }
}

#[test]
fn worktree_of_a_bare_repository_is_registered() {
    let mut lab = Lab::new();
    let bare = fs::canonicalize(lab.repo.join("..")).unwrap().join("bare.git");
    lab.git(&["clone", "-q", "--bare", ".", bare.to_str().unwrap()]);
    lab.repo = bare;
    let before = lab.inventory();
    let worktree = Worktree { branch: Some("agents/one".into()), ..lab.worktree("w") };
    lab.make(&worktree);
    assert_eq!(lab.status(&worktree), "");
    assert!(!lab.repo.join("worktrees/w/logs").exists());
    lab.release(&worktree);
    let mut after = lab.inventory();
    // The log of the branch created the directory of logs; Git leaves it there.
    after.retain(|path, _| !path.starts_with("logs"));
    assert_eq!(after, before);
}
