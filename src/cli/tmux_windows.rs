//! Windows of tmux that `start --tmux` opened: finds them, and closes those of released sessions.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use seedbed::host::Host;
use seedbed::host::process::{self, Output, Process};
use seedbed::state::{Swarm, TmuxSession};

/// Maximum time until tmux notices that the processes of a window were ended.
const REAPING_MAX: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);

/// A window of the tmux session of a swarm.
pub(super) struct OpenWindow {
    /// `@` and a number.
    pub(super) id: String,
    /// Path of the session whose command it runs.
    pub(super) path: String,
    /// `true` if its command has ended.
    pub(super) is_dead: bool,
}

/// Returns the tmux session of this name on the server that `start --tmux` uses.
///
/// In a window of tmux, that is the server of the window.
pub(super) fn session_here(host: &Host, name: &str) -> TmuxSession {
    let variable = |name: &str| {
        let found = host.environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_os_str());
        found.filter(|value| !value.is_empty())
    };
    let of_window = variable("TMUX").and_then(OsStr::to_str).and_then(|value| value.split(',').next());
    let default = || {
        let directory = variable("TMUX_TMPDIR").unwrap_or(OsStr::new("/tmp"));
        let user = rustix::process::getuid().as_raw();
        Path::new(directory).join(format!("tmux-{user}")).join("default")
    };
    let socket = of_window.filter(|socket| !socket.is_empty()).map_or_else(default, PathBuf::from);
    TmuxSession { socket, name: name.to_owned() }
}

/// Returns the windows that `start --tmux` opened in a tmux session; `None` if it does not exist.
pub(super) fn windows_of(
    host: &Host,
    session: &TmuxSession,
) -> Result<Option<Vec<OpenWindow>>, process::Error> {
    let target = format!("={}", session.name);
    let format = "#{?@seedbed-end,1,0} #{pane_dead} #{window_id} #{window_name}";
    let listed = tmux(host, session, &["list-windows", "-t", &target, "-F", format])?;
    if !listed.status.success() {
        return Ok(None);
    }
    let window = |line: &str| {
        let mut words = line.strip_prefix("1 ")?.splitn(3, ' ');
        let (is_dead, id, path) = (words.next()? == "1", words.next()?, words.next()?);
        Some(OpenWindow { id: id.to_owned(), path: path.to_owned(), is_dead })
    };
    Ok(Some(String::from_utf8_lossy(&listed.stdout).lines().filter_map(window).collect()))
}

/// Closes the windows of sessions that are no longer active, once their commands have ended. An error is no reason for a
/// run to fail: a window that is left has no effect.
pub(super) fn close_released(swarm: &Swarm<'_>) {
    let sessions = swarm.tmux_sessions();
    if sessions.is_empty() {
        return;
    }
    let Ok(record) = swarm.applied() else { return };
    let active: BTreeSet<String> = record
        .iter()
        .flat_map(|record| record.plan.sessions())
        .map(|session| session.path.to_string())
        .collect();
    let begun = Instant::now();
    let has_windows = |session: &TmuxSession| {
        while let Ok(Some(windows)) = windows_of(swarm.host(), session) {
            let (used, released): (Vec<_>, Vec<_>) =
                windows.into_iter().partition(|window| active.contains(&window.path));
            let (dead, alive): (Vec<_>, Vec<_>) = released.into_iter().partition(|window| window.is_dead);
            for window in dead {
                let _ = tmux(swarm.host(), session, &["kill-window", "-t", &window.id]);
            }
            if alive.is_empty() || begun.elapsed() > REAPING_MAX {
                return !used.is_empty() || !alive.is_empty();
            }
            std::thread::sleep(POLL);
        }
        false
    };
    let left: Vec<_> = sessions.iter().filter(|session| has_windows(session)).cloned().collect();
    if left.len() < sessions.len() {
        let _ = swarm.record_tmux_sessions(&left);
    }
}

/// Runs tmux as a client of the server of a tmux session.
fn tmux(host: &Host, session: &TmuxSession, args: &[&str]) -> Result<Output, process::Error> {
    let process = Process::new("tmux").args([OsStr::new("-S"), session.socket.as_os_str()]).args(args);
    process.envs(host.environment.iter().cloned()).output()
}
