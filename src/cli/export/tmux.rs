//! Windows of tmux for the commands of sessions. Pure.

use std::fmt::Write as _;

use seedbed::host::text::shell_quoted;

use super::{Export, script};

/// A window to open.
#[derive(Debug)]
pub(in super::super) struct Window<'a> {
    /// Path of the session, the name of the window.
    pub(in super::super) path: &'a str,
    /// Words of the shell that run the command.
    pub(in super::super) command: String,
    /// Log of the command; `None` without a log.
    pub(in super::super) log: Option<Log>,
}

/// Commands of the shell that write the log of a window.
#[derive(Debug)]
pub(in super::super) struct Log {
    /// Command that reads the output of the window.
    pub(in super::super) append: String,
    /// Command that is run at the end; the exit code and the signal of the window's command follow.
    pub(in super::super) end: String,
}

/// Command of tmux that runs [`Log::end`]. tmux expands the value of an option only once.
const AT_END: &str =
    r##"run-shell "#{@seedbed-end} '#{pane_dead_status}' '#{pane_dead_signal}' >/dev/null 2>&1""##;

/// Command of tmux that keeps a new tmux session without a client, although the configuration of the user may end such sessions.
const KEEP: &str = r#" \; set-option -t "=$name:" destroy-unattached off"#;

/// Part of a script that ends it if the tmux session exists.
const UNLESS_OPEN: &str = r#"if tmux has-session -t "=$name" 2>/dev/null; then
    echo "the tmux session $name exists already" >&2
    echo "help: attach to it with \`tmux attach-session -t =$name\`, or end it with \`tmux kill-session -t =$name\`" >&2
    exit 69
fi
"#;

/// Part of a script that shows the tmux session, if there is a terminal.
const SHOW: &str = r#"if [ ! -t 0 ] || [ ! -t 1 ]; then
    echo "attach with \`tmux attach-session -t =$name\`"
elif [ -n "${TMUX-}" ]; then
    tmux switch-client -t "=$name"
else
    tmux attach-session -t "=$name"
fi
"#;

/// Returns a script that opens a tmux session with a window for each session.
pub(super) fn script(export: &Export<'_>) -> String {
    let windows: Vec<_> = export
        .commands
        .iter()
        .map(|command| Window {
            path: &command.path,
            command: format!("sh \"$script\" {}", command.path),
            log: None,
        })
        .collect();
    let launcher =
        format!("\nname={}\n{UNLESS_OPEN}{}{SHOW}", session_name(export.key), open_windows(&windows, false));
    script::script(export, "opens a tmux session with a window for each session", &launcher)
}

/// Returns the name of the tmux session of a swarm. A dot would separate a window from a pane.
pub(in super::super) fn session_name(key: &str) -> String {
    key.replace('.', "_")
}

/// Returns shell commands that open the windows in the tmux session `$name`, which is new unless `is_open`.
///
/// Each window is opened and configured by one request to the server, so that no output and no exit code of a short
/// command is missed.
pub(in super::super) fn open_windows(windows: &[Window<'_>], is_open: bool) -> String {
    let mut text =
        "# A window stays open when its command has ended, so that its output can be read.\n".to_owned();
    let more = r#"tmux new-window -d -a -t "=$name:{end}""#;
    let mut is_open = is_open;
    for Window { path, command, log } in windows {
        let target = r#"-t "=$name:{end}""#;
        let open = if is_open { more } else { r#"tmux new-session -d -s "$name""# };
        let _ = write!(text, "{open} -n {path} env \"PATH=$PATH\" {command}");
        if !is_open {
            text.push_str(KEEP);
            is_open = true;
        }
        let _ = write!(text, " \\; set-option -w {target} remain-on-exit on");
        if let Some(Log { append, end }) = log {
            let [append, end, at_end] = [append, end, AT_END].map(shell_quoted);
            let _ = write!(text, " \\; set-option -w {target} @seedbed-log {append}");
            let _ = write!(text, " \\; pipe-pane {target} '#{{@seedbed-log}}'");
            let _ = write!(text, " \\; set-option -w {target} @seedbed-end {end}");
            let _ = write!(text, " \\; set-hook -w {target} pane-died {at_end}");
        }
        text.push('\n');
    }
    text
}
