//! Finds problems of the repository and of Git.

#![expect(clippy::disallowed_methods, reason = "looks for programs and directories")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::Severity::{Fails, Notes, Warns};
use super::{Case, Findings, Id, PATIENCE};
use crate::host::absolute;
use crate::host::files::Root;
use crate::host::git::Git;
use crate::host::git::config::{self, is_on};
use crate::host::git::version::{self, OLDEST, WANTED};
use crate::host::process;
use crate::host::text::shell_quoted;
use crate::observe::untracked::HIDDEN;
use crate::observe::{self, Query, TreeEntry, WORKSPACE_REPOSITORY};
use crate::provider::DISCOVERY_DIRECTORY;
use crate::provider::git_worktree::{Mark, Worktree};

/// Largest file of an admin directory that Git writes as one line, in bytes.
pub(super) const LINE_MAX: usize = 64 * 1024;

/// Finds problems of the repository, and returns its common Git directory, if there is one.
pub(super) fn inspect(case: &Case<'_>, findings: &mut Findings) -> Option<PathBuf> {
    if !git_version(case, findings) {
        return None;
    }
    let queries = [DISCOVERY_DIRECTORY, HIDDEN].map(|path| Query::Tree {
        repository: WORKSPACE_REPOSITORY.to_owned(),
        base_ref: "HEAD".into(),
        path: path.into(),
        required: false,
    });
    let observed = observe::observe(case.host, case.workspace, &queries.into());
    let observed = observed.map(|observed| observed.repository(WORKSPACE_REPOSITORY).clone());
    let (repository, trees) = match observed.map(|observed| (observed.repository, observed.trees)) {
        Ok((Some(Ok(repository)), trees)) => (repository, trees),
        Ok((Some(Err(why)), _)) => {
            let remedy = "run seedbed in a git repository, or name one as the workspace's root";
            findings.add(Fails, Id::NoRepository, why, remedy);
            return None;
        }
        Ok((None, _)) => return None,
        Err(error) => {
            findings.add(
                Fails,
                Id::NoRepository,
                error.to_string(),
                "repair what the message names, and try again",
            );
            return None;
        }
    };
    if let Some(Err(why)) = case.plan {
        findings.add(
            Fails,
            Id::ManifestInvalid,
            why,
            "run `seedbed validate`, which shows every diagnostic at its location",
        );
    } else if case.plan.is_none() {
        committed(&trees, findings);
    }
    if let Err(why) = &repository.registration {
        findings.add(
            Notes,
            Id::RegistrationByGit,
            format!("worktrees are registered by `git worktree add`, one after another, because {why}"),
            "no action is required; creating many sessions takes longer",
        );
    }
    let commits: BTreeSet<String> = match case.plan {
        Some(Ok(plan)) => {
            let allocations = plan.sessions.iter().flat_map(|session| &session.allocations);
            let worktrees = allocations.filter_map(Worktree::from_allocation);
            worktrees
                .filter(|worktree| worktree.repository.is_none())
                .map(|worktree| worktree.commit)
                .collect()
        }
        _ => BTreeSet::from(["HEAD".to_owned()]),
    };
    let git = Git::discover(case.host, case.workspace).within(PATIENCE);
    filters(case, &git, &commits, findings);
    submodules(&git, &commits, findings);
    hooks_path(&git, &repository.root, findings);
    redirected(&repository.root, findings);
    torn_entries(&repository.common_dir, findings);
    Some(repository.common_dir)
}

/// Finds problems of the other repositories that the plan names.
pub(super) fn inspect_others(case: &Case<'_>, findings: &mut Findings) {
    let Some(Ok(plan)) = case.plan else { return };
    for repository in plan.repositories() {
        let allocations = plan.sessions.iter().flat_map(|session| &session.allocations);
        let worktrees = allocations.filter_map(Worktree::from_allocation);
        let own = worktrees.filter(|worktree| worktree.repository.as_ref() == Some(&repository.name));
        let commits = own.map(|worktree| worktree.commit).collect();
        let root = absolute(case.workspace, &repository.root);
        let git = Git::discover(case.host, &root).within(PATIENCE);
        filters(case, &git, &commits, findings);
        submodules(&git, &commits, findings);
        hooks_path(&git, &root, findings);
        redirected(&root, findings);
        torn_entries(&absolute(case.workspace, &repository.common_directory), findings);
    }
}

/// Checks the version of Git. Returns `false` if Git does not exist or is too old.
fn git_version(case: &Case<'_>, findings: &mut Findings) -> bool {
    let remedy = format!("install git {}.{} or later", WANTED.0, WANTED.1);
    let version = match version::text(case.host) {
        Ok(version) => version,
        Err(process::Error::Start { source, .. }) if source.kind() == ErrorKind::NotFound => {
            findings.add(Fails, Id::GitMissing, "git is not installed, or not in PATH", remedy);
            return false;
        }
        Err(error) => {
            findings.add(Fails, Id::GitMissing, error.to_string(), remedy);
            return false;
        }
    };
    match version::number(&version) {
        Some(version) if version < OLDEST => {
            let what = format!("git {}.{} is older than {}.{}", version.0, version.1, OLDEST.0, OLDEST.1);
            findings.add(Fails, Id::GitOld, what, remedy);
            return false;
        }
        Some(version) if version < WANTED => {
            let what = format!(
                "git {}.{} runs no hooks for `git-hooks`, and does not sync what a rescue writes",
                version.0, version.1
            );
            findings.add(Warns, Id::GitOld, what, remedy);
        }
        Some(_) => {}
        None => findings.add(Warns, Id::GitOld, format!("`git --version` printed {version:?}"), remedy),
    }
    true
}

/// Finds committed files that planning refuses, if no plan has reported them.
fn committed(trees: &BTreeMap<(String, String), TreeEntry>, findings: &mut Findings) {
    for ((_, path), entry) in trees {
        let refused = match entry {
            TreeEntry::Missing { .. } => continue,
            TreeEntry::Directory => path == DISCOVERY_DIRECTORY,
            TreeEntry::File | TreeEntry::Link | TreeEntry::Submodule => true,
        };
        findings.add(
            if refused { Fails } else { Warns },
            Id::CommittedDiscovery,
            format!("HEAD has `{path}`, where seedbed writes files of its own"),
            format!("git rm -r --cached {}, and commit that", shell_quoted(path)),
        );
    }
}

/// Finds filters that the commits' attributes request and that cannot run here.
fn filters(case: &Case<'_>, git: &Git<'_>, commits: &BTreeSet<String>, findings: &mut Findings) {
    let mut filters = BTreeSet::new();
    for commit in commits {
        let args = [
            "grep",
            "-h",
            "-I",
            "-o",
            "-E",
            "filter=[^[:space:]]+",
            commit,
            "--",
            ":(glob)**/.gitattributes",
        ];
        // The search fails if it finds nothing.
        let Ok(output) = git.output(args) else { continue };
        let found = String::from_utf8_lossy(&output.stdout).into_owned();
        filters.extend(found.lines().filter_map(|line| line.strip_prefix("filter=")).map(str::to_owned));
    }
    let listed = git.output(["config", "--null", "--get-regexp", "^filter\\."]);
    let settings = config::parse(&listed.map(|output| output.stdout).unwrap_or_default());
    for filter in filters {
        let setting = |key: &str| settings.get(&format!("filter.{filter}.{key}")).cloned().flatten();
        let programs: BTreeSet<String> =
            ["process", "smudge", "clean"].iter().filter_map(|key| setting(key)).collect();
        if programs.is_empty() {
            let remedy =
                if filter == "lfs" { "git lfs install" } else { "configure it if its output is required" };
            findings.add(
                Warns,
                Id::FilterUnconfigured,
                format!("files have the filter `{filter}`, which is not configured: they are checked out as committed"),
                remedy,
            );
        }
        let missing =
            programs.iter().filter_map(|command| program(command)).find(|name| !is_found(case, name));
        if let Some(name) = missing {
            let required = is_on(&settings, &format!("filter.{filter}.required"));
            findings.add(
                if required { Fails } else { Warns },
                Id::FilterMissing,
                format!("files have the filter `{filter}`, whose program `{name}` is not in PATH"),
                format!(
                    "install {name}, or remove the filter: git config --remove-section {}",
                    shell_quoted(&format!("filter.{filter}"))
                ),
            );
        }
    }
}

/// Returns the program of a command that the shell will run, if it can be determined.
pub(super) fn program(command: &str) -> Option<&str> {
    let name = command.split_whitespace().next()?;
    name.chars().all(|c| c.is_ascii_alphanumeric() || "-_./+".contains(c)).then_some(name)
}

fn is_found(case: &Case<'_>, program: &str) -> bool {
    // Git runs filters with its own programs in PATH too, `git-lfs` perhaps among them. The shell has its own programs.
    const OF_THE_SHELL: [&str; 8] = ["cat", "cd", "command", "eval", "exec", "false", "test", "true"];
    if OF_THE_SHELL.contains(&program) || program == "git" {
        return true;
    }
    if program.contains('/') {
        return Path::new(program).is_file();
    }
    let path = case.host.environment.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.clone());
    let own = Git::discover(case.host, Path::new("/")).path(["--exec-path"]).ok();
    let directories = std::env::split_paths(&path.unwrap_or_default()).chain(own).collect::<Vec<_>>();
    directories.iter().any(|directory| directory.join(program).is_file())
}

fn submodules(git: &Git<'_>, commits: &BTreeSet<String>, findings: &mut Findings) {
    let mut modules = BTreeSet::new();
    for commit in commits {
        let Ok(listed) = git.run(["ls-tree", "-r", "-z", "--full-tree", commit]) else { continue };
        let lines = listed.split(|byte| *byte == 0).filter(|line| line.starts_with(b"160000 "));
        let paths = lines.filter_map(|line| line.split(|byte| *byte == b'\t').nth(1));
        modules.extend(paths.map(|path| String::from_utf8_lossy(path).into_owned()));
    }
    if !modules.is_empty() {
        let named = modules.into_iter().collect::<Vec<_>>().join(", ");
        findings.add(
            Warns,
            Id::Submodules,
            format!("there are submodules ({named}), which are not checked out in worktrees"),
            "setup = [\"git submodule update --init\"]; `destroy` refuses worktrees that have them checked out",
        );
    }
}

fn hooks_path(git: &Git<'_>, root: &Path, findings: &mut Findings) {
    // With hooks enabled, the setting is not overridden; reading it runs none.
    let read = git.clone().with_hooks(true).output(["config", "--type=path", "--get", "core.hooksPath"]);
    let Ok(read) = read else { return };
    let path = String::from_utf8_lossy(&read.stdout).trim_end().to_owned();
    if read.status.success() && !path.is_empty() && !root.join(&path).is_dir() {
        findings.add(
            Warns,
            Id::HooksPath,
            format!("core.hooksPath is {path}, which is no directory: no hook runs in any worktree"),
            "make it, or git config --unset core.hooksPath",
        );
    }
}

/// Finds a file that makes Git take the settings and hooks of another directory for those of the repository. A program
/// that can write the Git directory, for example in a container, can create the file.
fn redirected(root: &Path, findings: &mut Findings) {
    for path in [root.join(".git"), root.to_owned()] {
        let Ok(directory) = Root::open(&path) else { continue };
        let has = |name: &str| directory.file_type(OsStr::new(name)).is_some();
        if has("objects") && has("commondir") {
            let file = path.join("commondir");
            findings.add(
                Fails,
                Id::RedirectedRepository,
                format!("{} makes Git use the settings and hooks of another directory", file.display()),
                format!("rm {}, unless you have created it", shell_quoted(&file.to_string_lossy())),
            );
        }
    }
}

/// Finds admin directories that make Git fail, of seedbed or not. Torn directories are reported, and not changed.
fn torn_entries(common_dir: &Path, findings: &mut Findings) {
    let Ok(Some(entries)) =
        Root::open(common_dir).and_then(|common| common.directory(Path::new("worktrees")))
    else {
        return;
    };
    for name in entries.names().unwrap_or_default() {
        let path = entries.path().join(&name);
        let shown = path.display();
        let Ok(Some(admin)) = entries.directory(Path::new(&name)) else { continue };
        let torn: Vec<&str> =
            ["commondir", "gitdir", "HEAD"].into_iter().filter(|file| is_torn(&admin, file)).collect();
        if torn.is_empty() {
            continue;
        }
        findings.add(
            Warns,
            Id::TornAdminDirectory,
            format!("{shown} is torn ({}): `git worktree`, `git gc` and others fail", torn.join(", ")),
            match Mark::read(&admin) {
                Some(Mark { session, .. }) => {
                    format!("it belongs to the session {session}: seedbed recover, or seedbed apply")
                }
                None => {
                    format!(
                        "seedbed did not create it: rm -r {}, after you have checked its worktree",
                        shell_quoted(&path.to_string_lossy())
                    )
                }
            },
        );
    }
}

fn is_torn(admin: &Root, file: &str) -> bool {
    match admin.read(Path::new(file), LINE_MAX) {
        Ok(Some(bytes)) if file == "HEAD" => {
            let text = String::from_utf8_lossy(&bytes);
            let text = text.trim_end();
            !(text.starts_with("ref: ")
                || text.len() >= 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
        }
        Ok(Some(bytes)) => bytes.trim_ascii().is_empty() || bytes.contains(&0),
        _ => true,
    }
}
