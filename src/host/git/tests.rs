#![expect(clippy::disallowed_methods, reason = "tests look at the real thing")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// A repository with one commit of `a/f`, `b/f` and `top`, and its host.
struct Sandbox {
    directory: tempfile::TempDir,
    host: Host,
}

impl Sandbox {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = std::env::var_os("PATH").unwrap();
        let environment = vec![("PATH".into(), path), ("HOME".into(), directory.path().into())];
        let state = directory.path().join("state");
        let host = Host::new(environment, state);
        let sandbox = Self { directory, host };
        sandbox.make_repository("repo");
        sandbox
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn make_repository(&self, name: &str) {
        let path = self.path(name);
        for directory in ["a", "b"] {
            fs::create_dir_all(path.join(directory)).unwrap();
            fs::write(path.join(directory).join("f"), directory).unwrap();
        }
        fs::write(path.join("top"), name).unwrap();
        let git = Git::discover(&self.host, &path);
        git.run(["init", "--quiet", "--initial-branch=main"]).unwrap();
        git.run(["config", "user.name", "seedbed"]).unwrap();
        git.run(["config", "user.email", "seedbed@example.invalid"]).unwrap();
        git.run(["add", "."]).unwrap();
        git.run(["commit", "--quiet", "--message=first"]).unwrap();
    }

    fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Replaces Git by a script with this `text`.
    fn shim(&mut self, text: &str) {
        self.script("shim/git", text);
        let mut path = self.path("shim").into_os_string();
        path.push(":/usr/local/bin:/usr/bin:/bin");
        self.host.environment[0].1 = path;
    }
}

#[test]
fn an_inherited_repository_changes_nothing() {
    let mut sandbox = Sandbox::new();
    sandbox.make_repository("other");
    let other = sandbox.path("other");
    let hostile = [
        ("GIT_DIR", other.join(".git")),
        ("GIT_WORK_TREE", other.clone()),
        ("GIT_INDEX_FILE", other.join(".git/index")),
        ("GIT_OBJECT_DIRECTORY", other.join(".git/objects")),
        ("GIT_CEILING_DIRECTORIES", sandbox.directory.path().to_owned()),
        ("LANG", "de_DE.UTF-8".into()),
        ("LC_MESSAGES", "de_DE.UTF-8".into()),
        ("LANGUAGE", "de".into()),
    ];
    sandbox.host.environment.extend(hostile.map(|(name, value)| (name.into(), value.into())));
    sandbox.host.environment.extend([
        ("GIT_CONFIG_COUNT".into(), "1".into()),
        ("GIT_CONFIG_KEY_0".into(), "core.bare".into()),
        ("GIT_CONFIG_VALUE_0".into(), "true".into()),
    ]);
    let repo = sandbox.path("repo");
    let git = Git::discover(&sandbox.host, &repo);
    assert_eq!(git.line(["rev-parse", "--is-bare-repository"]).unwrap(), "false");
    let top = git.path(["rev-parse", "--show-toplevel"]).unwrap();
    assert_eq!(top, fs::canonicalize(&repo).unwrap());
    assert_eq!(git.line(["status", "--porcelain"]).unwrap(), "");
    let chosen = git.with_variable("GIT_INDEX_FILE", repo.join("no-index"));
    assert!(
        chosen.line(["status", "--porcelain"]).unwrap().contains("D  top"),
        "what the caller sets stands"
    );
}

#[test]
fn a_worktree_is_reached_through_its_entry() {
    let sandbox = Sandbox::new();
    let repo = sandbox.path("repo");
    let bare = sandbox.path("bare.git");
    Git::discover(&sandbox.host, &repo)
        .with_variable("GIT_ALLOW_PROTOCOL", "file")
        .run(["clone", "--quiet", "--bare", ".", bare.to_str().unwrap()])
        .unwrap();
    // A `core.worktree` of the repository must not redirect the calls of a linked worktree to the repository.
    let common = repo.join(".git");
    Git::open(&sandbox.host, &common, None).run(["config", "core.worktree", repo.to_str().unwrap()]).unwrap();

    for (name, common) in [("of-repo", common), ("of-bare", bare)] {
        let (entry, worktree) = (common.join("worktrees/e"), sandbox.path(name));
        fs::create_dir_all(&entry).unwrap();
        fs::create_dir_all(&worktree).unwrap();
        let commit = Git::open(&sandbox.host, &common, None).line(["rev-parse", "--verify", "HEAD"]).unwrap();
        fs::write(entry.join("commondir"), "../..\n").unwrap();
        fs::write(entry.join("gitdir"), format!("{}\n", worktree.join(".git").display())).unwrap();
        fs::write(entry.join("HEAD"), format!("{commit}\n")).unwrap();
        // As an agent may leave it: the worktree's own pointer leads elsewhere.
        fs::write(worktree.join(".git"), "gitdir: /no/such\n").unwrap();

        let git = Git::open(&sandbox.host, &entry, Some(&worktree));
        git.run(["read-tree", "-mu", &commit]).unwrap();
        assert_eq!(git.line(["status", "--porcelain"]).unwrap(), "");
        git.run(["sparse-checkout", "set", "--cone", "--", "a"]).unwrap();
        assert!(worktree.join("a/f").is_file() && worktree.join("top").is_file());
        assert!(!worktree.join("b").exists());
        assert_eq!(git.line(["status", "--porcelain"]).unwrap(), "");
        fs::write(worktree.join("new"), "").unwrap();
        assert_eq!(git.line(["status", "--porcelain"]).unwrap(), "?? new");
    }
}

#[test]
fn programs_of_a_repository_do_not_run() {
    let sandbox = Sandbox::new();
    let repo = sandbox.path("repo");
    let trap =
        |name: &str| sandbox.script(name, &format!("echo {name} >>{}", sandbox.path("trapped").display()));
    for hook in ["post-checkout", "post-index-change", "reference-transaction", "pre-commit"] {
        let script = trap(hook);
        fs::rename(script, repo.join(".git/hooks").join(hook)).unwrap();
    }
    let git = Git::discover(&sandbox.host, &repo);
    for key in ["core.fsmonitor", "core.sshCommand", "core.askpass", "core.pager"] {
        let script = trap(key);
        git.run(["config", key, script.to_str().unwrap()]).unwrap();
    }
    let work = |git: &Git<'_>| {
        git.run(["status"]).unwrap();
        git.run(["checkout", "--quiet", "-B", "side"]).unwrap();
        git.run(["commit", "--quiet", "--allow-empty", "--message=second"]).unwrap();
        git.run(["fetch", "ssh://example.invalid/r"]).unwrap_err();
    };
    work(&git);
    assert!(!sandbox.path("trapped").exists());

    work(&git.clone().with_hooks(true));
    let trapped = fs::read_to_string(sandbox.path("trapped")).unwrap();
    assert!(trapped.contains("post-checkout") && trapped.contains("pre-commit"), "{trapped}");
    assert!(!trapped.contains("core."), "hooks are all that is let through: {trapped}");
}

/// A missing blob of a promisor remote makes Git start a transport, except with `GIT_NO_LAZY_FETCH`.
#[test]
fn a_transport_of_the_repository_does_not_start_when_git_is_old() {
    let installed =
        ["/usr/local/bin", "/usr/bin"].into_iter().filter(|bin| Path::new(bin).join("git").is_file());
    for bin in installed {
        let mut sandbox = Sandbox::new();
        let repo = sandbox.path("repo");
        let trap = sandbox.script("trap", &format!("echo >>{}", sandbox.path("trapped").display()));
        fs::create_dir(sandbox.path("shim")).unwrap();
        fs::copy(&trap, sandbox.path("shim/git-remote-trap")).unwrap();
        let trap = trap.to_str().unwrap();
        let blob = Git::discover(&sandbox.host, &repo).line(["rev-parse", "HEAD:top"]).unwrap();
        fs::remove_file(repo.join(".git/objects").join(&blob[..2]).join(&blob[2..])).unwrap();
        // Without the variable, a new Git behaves like an old one that does not know it.
        sandbox.shim(&format!("unset GIT_NO_LAZY_FETCH; exec {bin}/git \"$@\""));

        let git = Git::discover(&sandbox.host, &repo);
        for setting in [
            "extensions.partialClone=origin",
            "remote.origin.promisor=true",
            "core.repositoryFormatVersion=1",
        ] {
            let (key, value) = setting.split_once('=').unwrap();
            git.run(["config", key, value]).unwrap();
        }
        for protocol in ["ext", "file", "ssh", "git", "http", "trap"] {
            git.run(["config", &format!("protocol.{protocol}.allow"), "always"]).unwrap();
        }
        git.run(["config", "core.gitProxy", trap]).unwrap();
        git.run(["config", "credential.helper", &format!("!{trap}")]).unwrap();
        git.run(["config", "remote.origin.uploadpack", trap]).unwrap();
        let repo_url = repo.to_str().unwrap();
        let ext = format!("ext::{trap}");
        let urls =
            [&ext, repo_url, "trap::x", "git://localhost:1/x", "ssh://localhost:1/x", "http://localhost:1/x"];
        let ask = |allow: Option<&str>| {
            let git = Git::discover(&sandbox.host, &repo).with_setting("core.sshCommand=false");
            let git = allow.map_or(git.clone(), |allow| git.with_variable("GIT_ALLOW_PROTOCOL", allow));
            git.run(["cat-file", "blob", &blob]).unwrap_err().to_string()
        };
        for url in urls {
            git.run(["config", "remote.origin.url", url]).unwrap();
            let error = ask(None);
            assert!(!sandbox.path("trapped").exists(), "{bin}, {url}: {error}");
            assert!(error.contains("not allowed"), "{bin}, {url}: {error}");
        }
        git.run(["config", "remote.origin.vcs", "trap"]).unwrap();
        let error = ask(None);
        assert!(!sandbox.path("trapped").exists(), "{bin}, vcs: {error}");

        // The trap works: a permitted transport runs it.
        ask(Some("trap"));
        assert!(sandbox.path("trapped").exists(), "{bin}");
    }
}

#[test]
fn failure_contains_the_message_of_git() {
    let sandbox = Sandbox::new();
    let nowhere = sandbox.path("");
    let error = Git::discover(&sandbox.host, &nowhere).run(["rev-parse", "HEAD"]).unwrap_err().to_string();
    assert!(error.starts_with("`git -C "), "{error}");
    assert!(
        error.contains(" rev-parse HEAD` failed (exit status: 128): fatal: not a git repository"),
        "{error}"
    );

    let output = Git::discover(&sandbox.host, &nowhere).output(["rev-parse", "HEAD"]).unwrap();
    assert_eq!(output.status.code(), Some(128));
}

#[test]
fn missing_git_is_reported() {
    let mut sandbox = Sandbox::new();
    sandbox.host.environment[0].1 = sandbox.path("empty").into();
    let error = Git::discover(&sandbox.host, Path::new("/")).run(["version"]).unwrap_err();
    assert_eq!(error.to_string(), "cannot start `git`: there is no such program in PATH");
}

#[test]
fn git_reads_its_input_or_inherits_the_lock() {
    let sandbox = Sandbox::new();
    let repo = sandbox.path("repo");
    let git = Git::discover(&sandbox.host, &repo);
    let id = git.run_with_input(["hash-object", "--stdin"], b"text".to_vec()).unwrap();
    assert_eq!(String::from_utf8(id).unwrap(), "f3a34851d44d6b97c90fbb99dd3d18c261b9a237\n");

    let lock = File::create(sandbox.path("lock")).unwrap();
    let alias = format!("alias.same=!test /dev/stdin -ef {} && echo same", sandbox.path("lock").display());
    let same = |git: &Git<'_>| git.line(["-c", &alias, "same"]).ok();
    assert_eq!(same(&git), None);
    assert_eq!(same(&git.clone().holding(Some(&lock))).as_deref(), Some("same"));
}

#[test]
fn conflict_with_another_git_differs_from_any_other_failure() {
    let check =
        |stderr: &str, expected| assert_eq!(is_of_another_git(stderr.as_bytes()), expected, "{stderr}");
    check("Preparing worktree\nfatal: failed to read .git/worktrees/x/commondir: Success\n", true);
    check("fatal: failed to read .git/worktrees/x/commondir: No such file or directory\n", true);
    check("fatal: could not open '.git/worktrees/x/locked' for writing: No such file or directory\n", true);
    check("fatal: could not find created worktree 'x'\n", true);
    check(
        "error: could not lock config file .git/config: File exists\nerror: unable to write\nhint: try\n",
        true,
    );
    check(
        "fatal: Unable to create '/r/.git/packed-refs.lock': File exists.\n\nAnother git process seems\n",
        true,
    );

    check("", false);
    check("fatal: not a git repository\n", false);
    check("fatal: failed to read .git/worktrees/x/commondir: Permission denied\n", false);
    check("fatal: could not open 'x' for writing: No such file or directory\n", false);
    check("fatal: could not open '.git/worktrees/x/locked' for writing: No space left on device\n", false);
    check("error: could not lock config file .git/config: Permission denied\n", false);
    check("fatal: Unable to create '/r/.git/worktrees/x/index.lock': File exists.\n", false);
    check("warning: could not find created worktree 'x'\nfatal: bad object\n", false);
    let old = "fatal: could not find created worktree 'x'\n".to_owned() + &"error: other\n".repeat(3);
    check(&old, false);
}

#[test]
fn a_call_is_repeated_only_while_another_git_is_in_the_way() {
    let check = |failures: u32, message: &str, calls: usize, succeeds: bool| {
        let mut sandbox = Sandbox::new();
        let count = sandbox.path("count");
        let count_text = count.display();
        sandbox.shim(&format!(
            "case \"$*\" in *' version') exit;; esac\necho >>{count_text}\nif test $(wc -l <{count_text}) -le {failures}; then echo \"{message}\" >&2; exit 128; fi\necho fine"
        ));
        let result = Git::discover(&sandbox.host, Path::new("/")).run_beside_others(&["worktree", "add"]);
        assert_eq!(result.is_ok(), succeeds, "{result:?}");
        assert_eq!(fs::read(count).unwrap().len(), calls);
    };
    let passing = "fatal: failed to read .git/worktrees/x/commondir: Success";
    check(0, passing, 1, true);
    check(3, passing, 4, true);
    check(99, passing, 10, false);
    check(99, "fatal: '/w' already exists", 1, false);
}

#[test]
fn a_pause_is_cut_by_up_to_a_half() {
    for _ in 0..1000 {
        let pause = shortened(PAUSE_MAX);
        assert!(pause <= PAUSE_MAX && pause >= PAUSE_MAX / 2, "{pause:?}");
    }
}

/// Obstacles in place of the files that every call reads are found without running Git.
#[test]
fn a_fifo_in_the_place_of_a_file_is_named_before_git_runs() {
    let sandbox = Sandbox::new();
    let repo = sandbox.path("repo");
    let git_dir = repo.join(".git");
    Git::open(&sandbox.host, &git_dir, None).run(["worktree", "add", "--quiet", "../linked"]).unwrap();
    let entry = git_dir.join("worktrees/linked");
    let check = |git: Git<'_>, name: &str| {
        assert!(git.check().is_ok(), "before {name}");
        let path = git_dir.join(name);
        fifo(&path);
        assert_eq!(git.check().unwrap_err().to_string(), obstructed(&path, "a FIFO"));
        fs::remove_file(path).unwrap();
    };
    for name in ["commondir", "info/sparse-checkout", "objects/info/alternates"] {
        check(Git::open(&sandbox.host, &git_dir, None), name);
        check(Git::discover(&sandbox.host, &repo.join("a")), name);
    }
    check(Git::open(&sandbox.host, &entry, None), "shallow");
    // `/dev/null` in place of an empty file blocks no call.
    fs::remove_file(git_dir.join("info/exclude")).unwrap();
    std::os::unix::fs::symlink("/dev/null", git_dir.join("info/exclude")).unwrap();
    assert!(Git::open(&sandbox.host, &git_dir, None).check().is_ok());
}

fn fifo(path: &Path) {
    let _ = fs::remove_file(path);
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn obstructed(path: &Path, what: &str) -> String {
    format!("{} is {what}, where git expects a file: remove it", path.display())
}

/// Runs a command of Git that reads the configuration, the objects, the exclusions and the attributes.
fn ask(sandbox: &Sandbox) -> Result<Vec<u8>, Error> {
    let repo = sandbox.path("repo");
    let git = Git::discover(&sandbox.host, &repo).within(Duration::from_secs(20));
    git.run(["status", "--porcelain"])?;
    git.run(["check-attr", "text", "top"])?;
    git.run(["cat-file", "--batch-all-objects", "--batch-check"])?;
    git.run(["log", "--oneline", "--use-mailmap", "--all", "--reflog"])
}

/// Asserts that `ask` is ended before its deadline, with an error that names `path`.
fn waits_for(sandbox: &Sandbox, path: &Path, what: &str, how: &str) {
    let error = ask(sandbox).expect_err(how).to_string().replace("repo/.git/../../", "");
    assert_eq!(error, obstructed(path, what), "{how}");
}

/// The configuration may lead to the file on any path.
#[test]
fn a_git_that_waits_for_what_its_configuration_names_is_ended_and_the_file_named() {
    let sandbox = Sandbox::new();
    let config = sandbox.path("repo/.git/config");
    let before = fs::read_to_string(&config).unwrap();
    fs::write(sandbox.path("repo/untracked"), "").unwrap();
    assert!(ask(&sandbox).is_ok());
    let planted = sandbox.path("planted");
    fifo(&planted);
    let shown = planted.to_str().unwrap();
    fs::write(sandbox.path("included"), format!("[include]\n\tpath = {shown}\n")).unwrap();
    for setting in [
        format!("[include] path = {shown}"),
        "[include]\n\tpath = ~/planted".to_owned(),
        "[include]\n\tpath = ../../planted".to_owned(),
        format!("[include]\n\tpath = \"{shown}\" ; a comment"),
        format!("[include]\n\tpath = {}\\\n{}", &shown[..5], &shown[5..]),
        format!("[include]\n\tpath = {}", sandbox.path("included").display()),
        format!("[includeIf \"gitdir:**\"] path = {shown}"),
        format!("[core] excludesFile = {shown}"),
        format!("[core] attributesFile = {shown}"),
        format!("[mailmap] file = {shown}"),
    ] {
        fs::write(&config, format!("{before}{setting}\n")).unwrap();
        waits_for(&sandbox, &planted, "a FIFO", &setting);
    }
    for (setting, device) in [
        ("[include] path = /dev/ptmx", "/dev/ptmx"),
        ("[core] attributesFile = /dev/zero", "/dev/zero"),
        ("[mailmap] file = /dev/zero", "/dev/zero"),
    ] {
        fs::write(&config, format!("{before}{setting}\n")).unwrap();
        waits_for(&sandbox, Path::new(device), "a device", setting);
    }
}

/// Neither file is among those that a call checks before Git runs.
#[test]
fn a_git_that_waits_for_what_lies_deeper_is_ended_and_the_file_named() {
    let sandbox = Sandbox::new();
    let git_dir = sandbox.path("repo/.git");
    fs::write(git_dir.join("objects/pack/pack-1234.pack"), "").unwrap();
    let index = git_dir.join("objects/pack/pack-1234.idx");
    fifo(&index);
    waits_for(&sandbox, &index, "a FIFO", "the index of a pack");
    fs::remove_file(&index).unwrap();
    let elsewhere = sandbox.path("objects");
    fs::create_dir_all(elsewhere.join("info")).unwrap();
    let alternates = elsewhere.join("info/alternates");
    fifo(&alternates);
    fs::write(git_dir.join("objects/info/alternates"), format!("{}\n", elsewhere.display())).unwrap();
    waits_for(&sandbox, &alternates, "a FIFO", "an alternate of an alternate");
    // A FIFO that another process has opened for writing can be opened and read.
    fs::write(git_dir.join("objects/info/alternates"), "").unwrap();
    let home = sandbox.path(".gitconfig");
    fifo(&home);
    let mut writer = std::process::Command::new("sh")
        .args(["-c", "exec >\"$0\"; exec sleep 60", home.to_str().unwrap()])
        .spawn()
        .unwrap();
    waits_for(&sandbox, &home, "a FIFO", "the configuration of the user");
    writer.kill().unwrap();
    writer.wait().unwrap();
}

/// Git inherits a device that the caller left open, and does not wait for it.
#[test]
fn a_git_that_is_slow_is_left_alone() {
    let mut sandbox = Sandbox::new();
    let git = std::process::Command::new("sh").args(["-c", "command -v git"]).output().unwrap();
    let git = String::from_utf8(git.stdout).unwrap();
    sandbox.shim(&format!("sleep 0.6; exec {} \"$@\"", git.trim()));
    let device = File::open("/dev/zero").unwrap();
    rustix::io::fcntl_setfd(&device, rustix::io::FdFlags::empty()).unwrap();
    let repo = sandbox.path("repo");
    assert!(Git::discover(&sandbox.host, &repo).run(["rev-parse", "HEAD"]).is_ok());
    // Tests beside this one have started programs with the device.
    std::mem::forget(device);
}
