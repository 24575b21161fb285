//! Steps of others between two commands of seedbed: commits, edits, mounts, programs.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, mount_bind, unmount};
use seedbed::host::Host;
use seedbed::orchestrator::Orchestrator;

use super::Step;
use super::process::Process;
use super::sequence::{Place, Sequence};
use super::shape::FEATURES;
use super::tokens::{Safety, repositories};
use crate::sandbox::Sandbox;

impl Sequence<'_> {
    pub(super) fn commit_to_main(&mut self) {
        let token = self.token("", Safety::Always);
        let web = self.web();
        if self.random.percent(30) {
            fs::write(web.join("main.txt"), token).unwrap();
            self.sandbox.git_in(&web, &["add", "main.txt"]);
            self.sandbox.git_in(&web, &["commit", "--quiet", "--message=main"]);
        } else {
            self.sandbox.write("main.txt", &token);
            self.sandbox.commit("main");
        }
        self.read_main();
        self.note("commit to main".to_owned());
    }

    /// Merges one of the sessions' branches into `main` of its repository.
    pub(super) fn land(&mut self) {
        let repositories = repositories(self.sandbox);
        let repository = self.random.pick(&repositories).unwrap().clone();
        let list = ["for-each-ref", "--format=%(refname:short)", "refs/heads/agents"];
        let branches = self.sandbox.git_in(&repository, &list);
        let branches: Vec<_> = branches.lines().collect();
        let Some(branch) = self.random.pick(&branches) else { return };
        let mut merge = self.sandbox.program("git", &repository);
        let merged = merge.args(["merge", "--quiet", "--no-edit", branch]).output().unwrap();
        if !merged.status.success() {
            self.sandbox.git_in(&repository, &["merge", "--abort"]);
        }
        self.read_main();
        self.note(format!("merge {branch}: {}", merged.status.success()));
    }

    /// Deletes a branch or tag that is not checked out, or moves it to `main`: a base of sessions, or a branch that reaches
    /// their commits.
    pub(super) fn change_ref(&mut self) {
        let repositories = repositories(self.sandbox);
        let repository = self.random.pick(&repositories).unwrap().clone();
        let list = [
            "for-each-ref",
            "--format=%(refname)%(if)%(worktreepath)%(then) %(end)",
            "refs/heads",
            "refs/tags",
        ];
        let listed = self.sandbox.git_in(&repository, &list);
        let is_free = |name: &&str| !name.ends_with(' ') && *name != "refs/heads/main";
        let free: Vec<_> = listed.lines().filter(is_free).collect();
        let Some(name) = self.random.pick(&free) else { return };
        let change = if self.random.percent(50) { vec!["-d", *name] } else { vec![*name, "main"] };
        self.sandbox.git_in(&repository, &[&["update-ref"], &*change].concat());
        self.forgive(|_| true);
        self.note(format!("update-ref {}", change.join(" ")));
    }

    pub(super) fn in_every_repository(&self, args: &[&str]) {
        for repository in repositories(self.sandbox) {
            self.sandbox.git_in(&repository, args);
        }
    }

    pub(super) fn start_process(&mut self) {
        let Some(Place { name, directory, .. }) = self.plain() else { return };
        let sleeps = self.sandbox.program("sleep", &directory).arg("1000").spawn().unwrap();
        self.processes.push(Process::new(sleeps, directory));
        self.note(format!("a process in {name}"));
    }

    /// Runs a command in a session that leaves a process running.
    pub(super) fn leave_process(&mut self) {
        let Some(Place { name, session, directory }) = self.plain() else { return };
        let script = "cd \"$1\"; sleep 1000 >/dev/null 2>&1 </dev/null & echo $!";
        let outcome = self.sandbox.seedbed(&[
            "exec",
            &session,
            "--",
            "sh",
            "-c",
            script,
            "sh",
            directory.to_str().unwrap(),
        ]);
        self.note(format!("exec {name} leaves a process -> {}", outcome.code));
        assert!(matches!(outcome.code, 0 | 64 | 69 | 125), "{outcome:?}");
        if outcome.code == 0 {
            let pid = outcome.stdout.trim().parse().unwrap();
            self.processes.push(Process::left(pid, directory));
        }
    }

    pub(super) fn reboot(&mut self) {
        self.end_processes();
        for mount in std::mem::take(&mut self.mounts) {
            let _ = unmount(&mount, UnmountFlags::empty());
        }
        self.sandbox.unmount_all();
        self.note("reboot".to_owned());
    }

    pub(super) fn commit(&mut self, detached: bool) {
        let Some(Place { name, directory, .. }) = self.plain() else { return };
        if detached {
            self.sandbox.git_in(&directory, &["checkout", "--quiet", "--detach"]);
        }
        let head = self.sandbox.program("git", &directory).args(["symbolic-ref", "--quiet", "HEAD"]).output();
        let on_branch = head.unwrap().status.success();
        let safety = if on_branch { Safety::Always } else { Safety::Unsaved };
        let token = self.token(&name, safety);
        let file = format!("committed-{}", self.next);
        fs::write(directory.join(&file), &token).unwrap();
        self.sandbox.git_in(&directory, &["add", "--sparse", &file]);
        self.sandbox.git_in(&directory, &["commit", "--quiet", "--message", &file, "--", &file]);
        self.note(format!("commit {token} in {name}, on a branch: {on_branch}"));
    }

    pub(super) fn write(&mut self, step: Step) {
        let Some(Place { name, directory, .. }) = self.plain() else { return };
        if step == Step::Write && self.random.percent(30) {
            // Also where Git does not work.
            let active = self.workplaces();
            let Some(Place { name, directory, .. }) = self.random.pick(&active).cloned() else { return };
            let token = self.token(&name, Safety::Unsaved);
            fs::write(directory.join(format!("anyhow-{}", self.next)), &token).unwrap();
            self.note(format!("write {token} in {name}, whatever it is"));
            return;
        }
        let safety = if step == Step::WriteIgnored { Safety::Ignored } else { Safety::Unsaved };
        let listed = self.sandbox.git_in(&directory, &["ls-files"]);
        let tracked = listed.lines().find(|file| directory.join(file).is_file());
        if step == Step::Edit && tracked.is_none() {
            return;
        }
        let token = self.token(&name, safety);
        let number = self.next;
        match step {
            Step::Edit => {
                let Some(file) = tracked else { return };
                let path = directory.join(file);
                let text = fs::read_to_string(&path).unwrap_or_default();
                fs::write(path, text + &token).unwrap();
            }
            Step::WriteIgnored => fs::write(directory.join(format!("ignored-{number}.log")), &token).unwrap(),
            _ => fs::write(directory.join(format!("new-{number}")), &token).unwrap(),
        }
        if step == Step::Stage {
            self.sandbox.git_in(&directory, &["add", "--sparse", &format!("new-{number}")]);
        }
        if step == Step::Stash {
            self.sandbox.git_in(&directory, &["stash", "push", "--quiet", "--include-untracked"]);
        }
        self.note(format!("{step:?} {token} in {name}"));
    }

    pub(super) fn displace(&mut self, step: Step) {
        let Some(Place { name, directory, .. }) = self.plain() else { return };
        let worktree = top(&directory);
        if self.processes.iter().any(|process| process.directory.starts_with(&worktree)) {
            return;
        }
        let outside = self.sandbox.top.join(format!("outside-{}", self.steps.len()));
        self.note(format!("{step:?} of {name}"));
        match step {
            Step::RemoveWorktree => {
                if self.sandbox.mounts().contains(&worktree) {
                    return;
                }
                fs::remove_dir_all(&worktree).unwrap();
                self.forgive(|written| written.session == name && written.safety != Safety::Always);
            }
            Step::RemovePointer => {
                if !self.sandbox.mounts().contains(&worktree) {
                    fs::remove_file(worktree.join(".git")).unwrap();
                }
            }
            Step::MoveWorktree => {
                if fs::rename(&worktree, &outside).is_ok() {
                    self.outside.push(outside);
                }
            }
            _ => {
                let outside = self.sandbox.top.join(format!("copy-{}", self.steps.len()));
                copy(self.sandbox, &worktree, &outside);
                self.outside.push(outside);
            }
        }
    }

    pub(super) fn nest(&mut self, step: Step) {
        let Some(Place { name, directory, .. }) = self.plain() else { return };
        let number = self.steps.len();
        let inside = directory.join("cache.log").join(format!("{number}"));
        match step {
            Step::MountInside if FEATURES.mounts => {
                let elsewhere = self.sandbox.top.join(format!("elsewhere-{number}"));
                let token = self.token("", Safety::Always);
                fs::create_dir_all(&elsewhere).unwrap();
                fs::write(elsewhere.join("file"), token).unwrap();
                fs::create_dir_all(&inside).unwrap();
                mount_bind(&elsewhere, &inside).unwrap();
                self.mounts.push(inside);
                self.outside.push(elsewhere);
            }
            Step::InnerSwarm => {
                fs::create_dir_all(&inside).unwrap();
                let inner = inside.join("inner.toml");
                let text = format!(
                    "version = 1\nswarm = \"inner-{number}\"\n[workspace]\nroot = \"{}\"\n[session.deep]\nresources = [\"git-worktree\"]\n",
                    top(&directory).display()
                );
                fs::write(&inner, text).unwrap();
                let outcome = self.sandbox.seedbed(&["apply", "--yes", "-f", inner.to_str().unwrap()]);
                assert!(matches!(outcome.code, 0 | 65), "{outcome:?}");
                if outcome.code == 0 {
                    let status = ["status", "--json", "-f", inner.to_str().unwrap()];
                    let status = self.sandbox.ok(&status).json();
                    let deep = status["sessions"][0]["workingDirectory"].as_str().unwrap();
                    let deep = top(&directory).join(deep);
                    let token = self.token(&name, Safety::Nested);
                    fs::write(deep.join("deep"), token).unwrap();
                    self.inner.push(inner);
                }
            }
            Step::LinkedWorktree => {
                let path = inside.to_str().unwrap();
                self.sandbox.git_in(&directory, &["worktree", "add", "--quiet", "--detach", path]);
                let token = self.token(&name, Safety::Nested);
                fs::write(inside.join("linked"), token).unwrap();
                self.linked.push(inside);
            }
            Step::Child => {
                let lead = self.active().into_iter().find(|active| active.name == "lead");
                let Some(lead) = lead else { return };
                let snapshot =
                    fs::read(lead.directory.join(".agent-context/resources.json")).unwrap_or_default();
                let Ok(snapshot) = serde_json::from_slice(&snapshot) else { return };
                let path = std::env::var_os("PATH").unwrap();
                let environment =
                    vec![("PATH".into(), path), ("HOME".into(), self.sandbox.top.clone().into_os_string())];
                let orchestrator = Orchestrator::new(Host::new(environment, self.sandbox.state()));
                let child = orchestrator.provision_child(&snapshot, &format!("child-{number}"), 0, 4);
                self.note(format!("child of lead: {}", child.is_ok()));
                return;
            }
            _ => return,
        }
        self.note(format!("{step:?} in {name}"));
    }
}

/// Returns whether Git works there in the session's own worktree, not in one around it.
pub(super) fn git_works(sandbox: &Sandbox, directory: &Path) -> bool {
    let mut git = sandbox.program("git", directory);
    let found = git.args(["rev-parse", "--show-toplevel"]).output().unwrap();
    let found = String::from_utf8_lossy(&found.stdout).trim().to_owned();
    let Ok(below) = directory.strip_prefix(&found) else { return false };
    let is_main = repositories(sandbox).iter().any(|repository| repository == Path::new(&found));
    !found.is_empty() && !is_main && !below.starts_with(".ai_ops")
}

/// Returns the worktree of a session's directory.
pub(super) fn top(directory: &Path) -> PathBuf {
    let worktree = directory.ancestors().find(|above| above.join(".git").exists());
    worktree.unwrap_or(directory).to_owned()
}

pub(super) fn copy(sandbox: &Sandbox, from: &Path, to: &Path) {
    let copied = sandbox.program("cp", &sandbox.top).arg("-a").arg(from).arg(to).output().unwrap();
    assert!(copied.status.success(), "{copied:?}");
}
