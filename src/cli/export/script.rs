//! POSIX scripts that run the commands of sessions, each quoted as words of the shell. Pure.

use std::fmt::Write as _;

use seedbed::host::GIT_LOCAL;
use seedbed::host::text::shell_quoted;

use super::{Export, SessionCommand, origin};

/// Head of a script. It finds the script's own path, so that the script can run itself in another process.
const OWN_PATH: &str = r#"
if [ $# -gt 0 ]; then
    run "$1"
fi
case $0 in
/*) script=$0 ;;
*) script=$PWD/$0 ;;
esac
if [ ! -f "$script" ]; then
    echo "save this script as a file, and run it with \`sh FILE\`" >&2
    exit 64
fi
"#;

/// Returns a script that runs the command of one session with its argument, and else starts all with `launcher`, which
/// finds the script in `$script`.
pub(super) fn script(export: &Export<'_>, does: &str, launcher: &str) -> String {
    let Export { swarm, digest, .. } = export;
    let mut text = format!(
        "#!/bin/sh\n\
         # Commands of the sessions of swarm {swarm}.\n\
         #\n\
         #     sh FILE            {does}\n\
         #     sh FILE SESSION    runs the command of one session in this terminal\n\
         #\n\
         {}set -eu\n{}\nrun() {{\n    case $1 in\n",
        origin(digest),
        without_git()
    );
    for command in &export.commands {
        let _ = write!(
            text,
            "    {})\n{}        exec {}\n        ;;\n",
            command.path,
            enter(command),
            line(command)
        );
    }
    text + "    *)\n        echo \"there is no session $1 in this script\" >&2\n        exit 64\n        ;;\n    esac\n}\n"
        + OWN_PATH
        + launcher
}

/// Returns the line that removes variables which tie Git to the repository of the caller.
pub(in super::super) fn without_git() -> String {
    format!("unset {}\n", GIT_LOCAL.join(" "))
}

/// Returns the lines that enter the directory of a session.
pub(in super::super) fn enter(command: &SessionCommand) -> String {
    format!("        cd {}\n        unset OLDPWD\n", shell_quoted(&command.directory))
}

/// Returns a simple command that runs the command of a session with its environment.
///
/// `env` takes a program with a `=` in its name for a variable, so that a shell starts the program.
pub(in super::super) fn line(command: &SessionCommand) -> String {
    let mut text = "env".to_owned();
    for (name, value) in &command.environment {
        let _ = write!(text, " \\\n            {name}={}", shell_quoted(value));
    }
    text.push_str(" \\\n            sh -c 'exec \"$@\"' sh");
    for word in &command.words {
        let _ = write!(text, " {}", shell_quoted(word));
    }
    text
}
