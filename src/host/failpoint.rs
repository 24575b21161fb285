//! Named points before effects, at which a test kills the run or makes the effect fail.
//!
//! Without the feature `failpoints` both macros expand to nothing, and no name is in the program. With it,
//! two variables control the points:
//!
//! - `SEEDBED_FAILPOINT=NAME[#N[+]]=ACTION` acts at the `N`th time that the point is reached (default 1), and
//!   with `+` from then on.
//! - `SEEDBED_FAILPOINT_TRACE=FILE` names a file that gets a line `NAME#N` for every point reached, and a
//!   line `ACTION NAME#N` for every action.
//!
//! The name `*` matches any name, and counts all points together. `ACTION` is `crash` (SIGKILL to this
//! process), `panic`, `eio`, `enospc`, `eacces`, or `run`, which runs the shell script in
//! `SEEDBED_FAILPOINT_RUN` with `NAME#N` as its argument. Several actions are separated by commas.

/// A point at which an effect can be made to fail: `Result<(), rustix::io::Errno>`.
#[cfg(feature = "failpoints")]
macro_rules! failpoint {
    ($name:literal) => {
        $crate::host::failpoint::reach($name)
    };
}

/// A point at which an effect can be made to fail: `Result<(), rustix::io::Errno>`.
#[cfg(not(feature = "failpoints"))]
macro_rules! failpoint {
    ($name:literal) => {
        Ok::<(), rustix::io::Errno>(())
    };
}

/// A point between two effects, at which only a crash can happen.
#[cfg(feature = "failpoints")]
macro_rules! crashpoint {
    ($name:literal) => {
        $crate::host::failpoint::pass($name)
    };
}

/// A point between two effects, at which only a crash can happen.
#[cfg(not(feature = "failpoints"))]
macro_rules! crashpoint {
    ($name:literal) => {};
}

pub(crate) use {crashpoint, failpoint};

#[cfg(feature = "failpoints")]
pub(crate) use settings::{pass, reach};

#[cfg(feature = "failpoints")]
mod settings {
    #![expect(
        clippy::disallowed_methods,
        reason = "a test asks through the environment; no release has this"
    )]

    use std::collections::BTreeMap;
    use std::fs::File;
    use std::io::Write as _;
    use std::process::Command;
    use std::sync::{LazyLock, Mutex, PoisonError};

    use rustix::io::Errno;
    use rustix::process::{Signal, getpid, kill_process};

    /// Action that a test requests, and the point and counts at which it happens.
    struct Setting {
        point: String,
        from: u64,
        on: bool,
        what: String,
    }

    static SETTINGS: LazyLock<Vec<Setting>> = LazyLock::new(|| {
        let Ok(text) = std::env::var("SEEDBED_FAILPOINT") else { return Vec::new() };
        let parsed: Option<Vec<Setting>> = text.split(',').map(parse).collect();
        parsed.unwrap_or_else(|| {
            panic!("SEEDBED_FAILPOINT={text} is not NAME[#N[+]]=crash|panic|eio|enospc|eacces|run")
        })
    });

    static TRACE: LazyLock<Option<Mutex<File>>> = LazyLock::new(|| {
        let path = std::env::var_os("SEEDBED_FAILPOINT_TRACE")?;
        let file = File::options().create(true).append(true).open(path);
        Some(Mutex::new(file.expect("the file for the trace of failpoints can be written")))
    });

    /// Number of times that each point was reached; under `*` the total.
    static REACHED: Mutex<BTreeMap<&str, u64>> = Mutex::new(BTreeMap::new());

    fn parse(text: &str) -> Option<Setting> {
        let (point, what) = text.split_once('=')?;
        let (point, count) = point.split_once('#').unwrap_or((point, "1"));
        let on = count.ends_with('+');
        let from = count.trim_end_matches('+').parse().ok()?;
        matches!(what, "crash" | "panic" | "eio" | "enospc" | "eacces" | "run").then(|| Setting {
            point: point.to_owned(),
            from,
            on,
            what: what.to_owned(),
        })
    }

    /// Counts that the point is reached, and returns the requested error, if any.
    pub(crate) fn reach(name: &'static str) -> Result<(), Errno> {
        if SETTINGS.is_empty() && TRACE.is_none() {
            return Ok(());
        }
        let mut reached = REACHED.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = |name| {
            let count = reached.entry(name).or_insert(0);
            *count += 1;
            *count
        };
        let (own, all) = (count(name), count("*"));
        say(&format!("{name}#{own}"));
        let due = SETTINGS.iter().find(|setting| {
            let count = if setting.point == "*" { all } else { own };
            let is_here = setting.point == "*" || setting.point == name;
            is_here && (count == setting.from || setting.on && count > setting.from)
        });
        let Some(setting) = due else { return Ok(()) };
        say(&format!("{} {name}#{own}", setting.what));
        match setting.what.as_str() {
            "eio" => Err(Errno::IO),
            "enospc" => Err(Errno::NOSPC),
            "eacces" => Err(Errno::ACCESS),
            "panic" => panic!("a test asked for it"),
            "run" => {
                let script = std::env::var("SEEDBED_FAILPOINT_RUN").expect("a script");
                let point = format!("{name}#{own}");
                let status = Command::new("/bin/sh").args(["-euc", &script, "sh", &point]).status();
                assert!(status.expect("a shell").success(), "the script of {point}");
                Ok(())
            }
            _ => loop {
                // Nothing runs after this call: the signal cannot be caught.
                let _ = kill_process(getpid(), Signal::KILL);
            },
        }
    }

    /// Counts that the point is reached. Only a crash or a panic can happen at it.
    pub(crate) fn pass(name: &'static str) {
        let _ = reach(name);
    }

    fn say(line: &str) {
        if let Some(trace) = &*TRACE {
            let mut trace = trace.lock().unwrap_or_else(PoisonError::into_inner);
            trace.write_all(format!("{line}\n").as_bytes()).expect("the trace of failpoints can be written");
        }
    }
}
