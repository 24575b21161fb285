//! What asks a command to stop: Ctrl-C, SIGTERM, and the end of its terminal.
#![expect(clippy::disallowed_methods, reason = "reads /proc, and ends the process")]

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use seedbed::host::process::Cancel;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use super::exit::Status;

/// Whether the process computes, and would leave nothing behind if it ended now.
static COMPUTES: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Computes something; the first signal meanwhile ends the process at once.
///
/// Computing does not look at `cancel`, and what a stranger's manifest has it compute may take long. There is nothing to put
/// back and no program to end: `compute` touches nothing, and whatever was begun before it is finished.
pub(super) fn while_computing<T>(cancel: &Cancel, compute: impl FnOnce() -> T) -> T {
    COMPUTES.store(true, Ordering::SeqCst);
    if cancel.is_requested() {
        // The signal came before there was a computation to end.
        std::process::exit(Status::Interrupted as i32);
    }
    let result = compute();
    COMPUTES.store(false, Ordering::SeqCst);
    result
}

/// Has the first signal request `cancel`, and a second Ctrl-C or SIGTERM end the process where it is.
///
/// What was ignored from the start still is: `nohup` means it so, and whoever starts a command in the background of a
/// script.
pub(super) fn catch(cancel: &Cancel) -> io::Result<()> {
    let ignored = Ignored::from_the_start();
    let insisted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        if ignored.has(signal) != Some(true) {
            flag::register_conditional_shutdown(signal, Status::Interrupted as i32, COMPUTES.clone())?;
            flag::register_conditional_shutdown(signal, Status::Interrupted as i32, insisted.clone())?;
            flag::register(signal, insisted.clone())?;
            flag::register(signal, cancel.flag())?;
        }
    }
    // The shell passes the end of its terminal on, the kernel tells of it once more when the shell has ended, and at the
    // end of a login SIGTERM comes too: nobody has asked twice.
    if ignored.has(SIGHUP) == Some(false) {
        flag::register_conditional_shutdown(SIGHUP, Status::Interrupted as i32, COMPUTES.clone())?;
        flag::register(SIGHUP, cancel.flag())?;
    }
    Ok(())
}

/// The signals that this process was started to ignore, a bit each from the lowest on; nothing where the system does not
/// say.
struct Ignored(Option<u64>);

impl Ignored {
    fn from_the_start() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        Self(ignored.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()))
    }

    fn has(&self, signal: i32) -> Option<bool> {
        self.0.map(|bits| bits >> (signal - 1) & 1 == 1)
    }
}
