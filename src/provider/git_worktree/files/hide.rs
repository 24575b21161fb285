//! Hides files of a session from Git: from its own worktree only, and only those that no other rule ignores.
//!
//! Git has one `info/exclude` for all worktrees. A setting of the worktree, `core.excludesFile`, names another file, in the
//! admin directory. The setting replaces that of the user, whose rules are copied into the file.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::host::failpoint::crashpoint;
use crate::host::files::Root;
use crate::host::git::Git;
use crate::provider::git_worktree::paths::WorktreePaths;
use crate::provider::git_worktree::repository::Lock;
use crate::provider::git_worktree::sparse;
use crate::provider::{Error, Task};

/// Path of the rules, relative to the admin directory.
const RULES: &str = "info/seedbed-exclude";

/// Configuration of one worktree, relative to the admin directory.
const CONFIG: &str = "config.worktree";

const SETTING: &str = "core.excludesFile";

/// Size limit of the user's rules, in bytes.
const RULES_MAX: usize = 1 << 20;

/// Hides these files and directories of a worktree, relative to its top, and no others. Files that exist and that Git
/// ignores anyway need nothing.
pub(super) fn hide<'p>(
    task: &Task<'_>,
    paths: &WorktreePaths,
    files: impl Iterator<Item = &'p PathBuf>,
    directories: impl Iterator<Item = PathBuf>,
) -> Result<(), Error> {
    let mut visible = visible(task, paths, files)?;
    visible.extend(visible_directories(task, paths, directories)?);
    let rules = paths.admin_directory.join(RULES);
    if visible.is_empty() {
        return if paths.common.read(&rules, RULES_MAX)?.is_some() { show(task, paths) } else { Ok(()) };
    }
    let mut content = rules_of_user(task, paths)?;
    if !content.is_empty() && !content.ends_with(b"\n") {
        content.push(b'\n');
    }
    for path in &visible {
        content.extend(rule(path));
    }
    paths.common.create_directories(&paths.admin_directory.join("info"))?;
    if paths.common.read(&rules, RULES_MAX)?.as_ref() != Some(&content) {
        paths.common.replace(&rules, &content)?;
    }
    crashpoint!("session-files.rules");
    // The setting of the repository is on only while an admin directory needs it: both change under one lock.
    let lock = Lock::take(task.host, paths)?;
    sparse::enable(task, paths, &lock)?;
    let named = paths.home_admin_directory_path().join(RULES);
    let file = paths.admin_directory_path().join(CONFIG);
    let args: [&OsStr; 5] =
        ["config".as_ref(), "--file".as_ref(), file.as_ref(), SETTING.as_ref(), named.as_ref()];
    Git::open(task.host, paths.common.path(), None).run(args)?;
    crashpoint!("session-files.hidden");
    Ok(())
}

/// Removes the setting and its rules.
fn show(task: &Task<'_>, paths: &WorktreePaths) -> Result<(), Error> {
    let lock = Lock::take(task.host, paths)?;
    let config = paths.admin_directory.join(CONFIG);
    if paths.common.read(&config, RULES_MAX)?.is_some() {
        let file = paths.admin_directory_path().join(CONFIG);
        let git = Git::open(task.host, paths.common.path(), None);
        let args: [&OsStr; 5] = [
            "config".as_ref(),
            "--file".as_ref(),
            file.as_os_str(),
            "--unset-all".as_ref(),
            SETTING.as_ref(),
        ];
        // Without the setting, this fails.
        git.output(args)?;
        let left = paths.common.read(&config, RULES_MAX)?.unwrap_or_default();
        if left.trim_ascii().is_empty() {
            paths.common.remove_file(&config)?;
        }
    }
    paths.common.remove_file(&paths.admin_directory.join(RULES))?;
    sparse::disable(task, paths, &lock)
}

/// Returns the files that exist and that no rule of the repository ignores.
fn visible<'p>(
    task: &Task<'_>,
    paths: &WorktreePaths,
    files: impl Iterator<Item = &'p PathBuf>,
) -> Result<BTreeSet<PathBuf>, Error> {
    let mut args: Vec<_> = ["--literal-pathspecs", "ls-files", "-z", "--others", "--exclude-standard", "--"]
        .map(PathBuf::from)
        .into();
    let fixed = args.len();
    args.extend(files.cloned());
    if args.len() == fixed {
        return Ok(BTreeSet::new());
    }
    let admin = paths.admin_directory_path();
    let git = Git::open(task.host, &admin, Some(&paths.worktree)).holding(task.lock);
    let listed = git.with_setting("core.excludesFile=/dev/null").run(args)?;
    let listed = listed.split(|byte| *byte == 0).filter(|path| !path.is_empty());
    Ok(listed.map(|path| PathBuf::from(OsStr::from_bytes(path))).collect())
}

/// Returns the directories that no rule of the repository ignores, whether they exist or not.
fn visible_directories(
    task: &Task<'_>,
    paths: &WorktreePaths,
    directories: impl Iterator<Item = PathBuf>,
) -> Result<Vec<PathBuf>, Error> {
    let admin = paths.admin_directory_path();
    let git = Git::open(task.host, &admin, Some(&paths.worktree)).holding(task.lock);
    let git = git.with_setting("core.excludesFile=/dev/null");
    let mut visible = Vec::new();
    for directory in directories {
        // A rule such as `node_modules/` matches only a path that ends as a directory.
        let as_directory = directory.join("");
        let args = ["check-ignore", "--quiet", "--no-index", "--"].map(OsStr::new);
        if !git.output(args.into_iter().chain([as_directory.as_os_str()]))?.status.success() {
            visible.push(directory);
        }
    }
    Ok(visible)
}

/// Returns the rule that ignores exactly this path.
fn rule(path: &Path) -> Vec<u8> {
    let mut rule = b"/".to_vec();
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'*' | b'?' | b'[' | b'\\' | b' ') {
            rule.push(b'\\');
        }
        rule.push(*byte);
    }
    rule.push(b'\n');
    rule
}

/// Returns the rules that hold for all repositories of the user.
fn rules_of_user(task: &Task<'_>, paths: &WorktreePaths) -> Result<Vec<u8>, Error> {
    let git = Git::open(task.host, paths.common.path(), None);
    let set = git.output(["config", "--type=path", "--get", SETTING])?;
    let variable = |name: &str| {
        let found = task.host.environment.iter().rev().find(|(variable, _)| variable == name);
        found.map(|(_, value)| PathBuf::from(value)).filter(|value| value.is_absolute())
    };
    let path = if set.status.success() {
        Some(PathBuf::from(OsStr::from_bytes(set.stdout.trim_ascii_end())))
    } else {
        let home = || variable("HOME").map(|home| home.join(".config"));
        variable("XDG_CONFIG_HOME").or_else(home).map(|config| config.join("git/ignore"))
    };
    let Some((directory, name)) = path.as_ref().and_then(|path| Some((path.parent()?, path.file_name()?)))
    else {
        return Ok(Vec::new());
    };
    // Rules that cannot be read hide nothing, also for Git.
    let read = Root::open(directory).and_then(|root| root.read(Path::new(name), RULES_MAX));
    Ok(read.ok().flatten().unwrap_or_default())
}
