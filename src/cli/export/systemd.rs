//! Transient units of systemd for the commands of sessions. Pure.

use std::fmt::Write as _;

use seedbed::host::text::shell_quoted;

use super::{Export, script};

/// Returns a script that starts a transient unit of the user for each session.
///
/// The units run the script itself, so that each command is quoted for the shell only.
pub(super) fn script(export: &Export<'_>) -> String {
    let mut launcher = "\n# systemd replaces variables in commands.\n\
                        script=$(printf %s \"$script\" | sed 's/\\$/$$/g')\n\
                        failed=0\n"
        .to_owned();
    for command in &export.commands {
        let (path, unit) = (&command.path, unit(&command.scoped_name));
        let _ = writeln!(
            launcher,
            "systemd-run --user --collect --unit={unit} --description={} \\\n    \
             --setenv=\"PATH=$PATH\" -- sh \"$script\" {path} || failed=1",
            shell_quoted(&format!("Session {path} of swarm {}", export.swarm))
        );
    }
    launcher.push_str("echo \"show the output with \\`journalctl --user --follow --unit='");
    let _ = write!(launcher, "{}", unit(&format!("{}-*", export.swarm)));
    launcher.push_str("'\\`\"\nexit $failed\n");
    script::script(export, "starts a transient unit of systemd for each session", &launcher)
}

fn unit(name: &str) -> String {
    format!("seedbed-{name}")
}
