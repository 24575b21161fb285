//! Signals that stop a command: Ctrl-C, SIGTERM, and the end of its terminal.
#![expect(clippy::disallowed_methods, reason = "reads /proc, and ends the process")]

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use seedbed::host::process::Cancel;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use super::exit::Status;

/// Flag that is set while the process only computes, and could end at any time without leaving anything behind.
static COMPUTES: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Computes something; meanwhile, the first signal ends the process at once.
///
/// A computation does not check `cancel`, and can take long for a stranger's manifest. Nothing has to be rolled back
/// and no program has to be ended: `compute` has no effects, and all earlier steps are complete.
pub(super) fn while_computing<T>(cancel: &Cancel, compute: impl FnOnce() -> T) -> T {
    COMPUTES.store(true, Ordering::SeqCst);
    if cancel.is_requested() {
        // The signal arrived before the computation began.
        std::process::exit(Status::Interrupted as i32);
    }
    let result = compute();
    COMPUTES.store(false, Ordering::SeqCst);
    result
}

/// Makes the first signal request `cancel`, and a second Ctrl-C or SIGTERM end the process immediately.
///
/// Signals that were ignored at the start remain ignored: `nohup` and scripts with background commands rely on this.
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
    // SIGHUP never counts as a second request. The shell passes on the end of its terminal, and the kernel repeats
    // SIGHUP when the shell has ended. At the end of a login, SIGTERM follows as well.
    if ignored.has(SIGHUP) == Some(false) {
        flag::register_conditional_shutdown(SIGHUP, Status::Interrupted as i32, COMPUTES.clone())?;
        flag::register(SIGHUP, cancel.flag())?;
    }
    Ok(())
}

/// Signals that were ignored at the start of this process, one bit each from the lowest; `None` if the system does not
/// report them.
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
