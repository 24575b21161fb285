//! Puts a test's own `git` before the real one in `PATH`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use crate::sandbox::Sandbox;

/// Script that runs in place of Git.
pub(crate) struct Shim {
    path: std::ffi::OsString,
}

impl Shim {
    /// Creates a script that runs `body`, a piece of `sh`, and then the real Git. `$command` is Git's subcommand,
    /// `$real` the real Git, `$top` the sandbox's directory.
    pub(crate) fn new(sandbox: &Sandbox, body: &str) -> Self {
        let directory = sandbox.top.join("bin");
        fs::create_dir_all(&directory).unwrap();
        let path = std::env::var_os("PATH").unwrap();
        let real = std::env::split_paths(&path).map(|path| path.join("git")).find(|path| path.is_file());
        let script = format!(
            r#"#!/bin/sh
real='{}' top='{}' command= skip=
for word in "$@"; do
    if test -n "$skip"; then skip=; continue; fi
    case $word in -c|-C) skip=1;; -*) ;; *) command=$word; break;; esac
done
{body}
exec "$real" "$@"
"#,
            real.expect("there is a git").display(),
            sandbox.top.display(),
        );
        // A script that is still open for writing in a child that another thread forks cannot be run: it is renamed
        // into place, and the old name is what was open.
        let file = directory.join("git.new");
        fs::write(&file, script).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&file, directory.join("git")).unwrap();
        let paths = std::iter::once(directory).chain(std::env::split_paths(&path)).collect::<Vec<PathBuf>>();
        Self { path: std::env::join_paths(paths).unwrap() }
    }

    /// Returns a command of seedbed with this Git.
    pub(crate) fn command(&self, sandbox: &Sandbox, args: &[&str]) -> Command {
        let mut command = sandbox.command(args);
        command.env("PATH", &self.path);
        command
    }
}
