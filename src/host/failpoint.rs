//! Named points before effects, where a test kills the run or has the effect fail.
//!
//! Without the feature `failpoints` both macros expand to nothing, and no name is in the program. With it, two variables
//! say what happens: `SEEDBED_FAILPOINT=NAME[#N[+]]=WHAT` at the `N`th time (default 1, with `+` from then on) that the
//! point is reached, and `SEEDBED_FAILPOINT_TRACE=FILE` names a file that gets a line `NAME#N` for every point reached,
//! and one `WHAT NAME#N` for what was done. `*` stands for any name, and counts all points together. `WHAT` is `crash`
//! (SIGKILL to this process), `panic`, `eio`, `enospc` or `eacces`.

/// A point where an effect can be made to fail: `Result<(), rustix::io::Errno>`.
#[cfg(feature = "failpoints")]
macro_rules! failpoint {
    ($name:literal) => {
        $crate::host::failpoint::reach($name)
    };
}

/// A point where an effect can be made to fail: `Result<(), rustix::io::Errno>`.
#[cfg(not(feature = "failpoints"))]
macro_rules! failpoint {
    ($name:literal) => {
        Ok::<(), rustix::io::Errno>(())
    };
}

/// A point between two effects, where nothing but a crash can happen.
#[cfg(feature = "failpoints")]
macro_rules! crashpoint {
    ($name:literal) => {
        $crate::host::failpoint::pass($name)
    };
}

/// A point between two effects, where nothing but a crash can happen.
#[cfg(not(feature = "failpoints"))]
macro_rules! crashpoint {
    ($name:literal) => {};
}

pub(crate) use {crashpoint, failpoint};

#[cfg(feature = "failpoints")]
pub(crate) use asked::{pass, reach};

#[cfg(feature = "failpoints")]
mod asked {
    #![expect(
        clippy::disallowed_methods,
        reason = "a test asks through the environment; no release has this"
    )]

    use std::collections::BTreeMap;
    use std::fs::File;
    use std::io::Write as _;
    use std::sync::{LazyLock, Mutex, PoisonError};

    use rustix::io::Errno;
    use rustix::process::{Signal, getpid, kill_process};

    /// What a test asks for.
    struct Asked {
        point: String,
        from: u64,
        on: bool,
        what: String,
    }

    static ASKED: LazyLock<Option<Asked>> = LazyLock::new(|| {
        let text = std::env::var("SEEDBED_FAILPOINT").ok()?;
        let parsed = parse(&text);
        assert!(
            parsed.is_some(),
            "SEEDBED_FAILPOINT={text} is not NAME[#N[+]]=crash|panic|eio|enospc|eacces"
        );
        parsed
    });

    static TRACE: LazyLock<Option<Mutex<File>>> = LazyLock::new(|| {
        let path = std::env::var_os("SEEDBED_FAILPOINT_TRACE")?;
        let file = File::options().create(true).append(true).open(path);
        Some(Mutex::new(file.expect("the file for the trace of failpoints can be written")))
    });

    /// How often each point was reached, and under `*` all of them.
    static REACHED: Mutex<BTreeMap<&str, u64>> = Mutex::new(BTreeMap::new());

    fn parse(text: &str) -> Option<Asked> {
        let (point, what) = text.split_once('=')?;
        let (point, count) = point.split_once('#').unwrap_or((point, "1"));
        let on = count.ends_with('+');
        let from = count.trim_end_matches('+').parse().ok()?;
        matches!(what, "crash" | "panic" | "eio" | "enospc" | "eacces").then(|| Asked {
            point: point.to_owned(),
            from,
            on,
            what: what.to_owned(),
        })
    }

    /// Counts that the point is reached; the error that it was asked to give, if any.
    pub(crate) fn reach(name: &'static str) -> Result<(), Errno> {
        if ASKED.is_none() && TRACE.is_none() {
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
        let Some(asked) = &*ASKED else { return Ok(()) };
        let count = match asked.point.as_str() {
            "*" => all,
            point if point == name => own,
            _ => return Ok(()),
        };
        if count != asked.from && !(asked.on && count > asked.from) {
            return Ok(());
        }
        say(&format!("{} {name}#{own}", asked.what));
        match asked.what.as_str() {
            "eio" => Err(Errno::IO),
            "enospc" => Err(Errno::NOSPC),
            "eacces" => Err(Errno::ACCESS),
            "panic" => panic!("a test asked for it"),
            _ => loop {
                // Nothing runs after this: the signal cannot be caught.
                let _ = kill_process(getpid(), Signal::KILL);
            },
        }
    }

    /// The same where no error can be given.
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
