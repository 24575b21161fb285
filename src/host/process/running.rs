//! A running child: writes its input, reads its output, and ends it with its whole group if necessary.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::blocked_read::Watch;
use super::{Cancel, Limits, Listener, Output, STDERR_KEPT, Stream};

/// Interval at which a quiet child is checked: short enough for an immediate reaction to Ctrl-C, long enough to cost
/// nothing.
const TICK: Duration = Duration::from_millis(50);

/// First pause while waiting for a child that has closed its pipes; it usually exits within microseconds.
const FIRST_PAUSE: Duration = Duration::from_micros(50);

/// Time for a child to clean up between SIGTERM and SIGKILL: Git removes its lock files within milliseconds.
const GRACE: Duration = Duration::from_secs(5);

/// Number of bytes that are read at once: the capacity of a pipe on Linux.
const CHUNK: usize = 64 << 10;

/// Number of bytes that are read from a pipe after the child has exited.
///
/// All output of the child is in the pipe then, and a pipe has at most 1 MiB. Anything beyond comes from another
/// process that still writes.
const DRAIN_MAX: usize = 1 << 20;

/// Reason for ending a child early.
#[derive(Debug)]
pub(super) enum Halt {
    Deadline(Duration),
    Stalled(Duration),
    Cancelled,
    TooMuch,
    /// The child waits for the file at this path, of this kind.
    Waits(PathBuf, &'static str),
    Lost(io::Error),
}

impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

/// A started child with this process's ends of its pipes, none of which ever blocks.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    /// Process group of the child, which has the child's id.
    group: Pid,
    input: Option<Input>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    log: Option<File>,
    listener: Option<Listener>,
    /// Limit of standard output, in bytes; a child that prints more is ended.
    stdout_max: usize,
    stdout_taken: usize,
    /// Time of the last output, or of the start.
    last_output: Instant,
    printed: Vec<u8>,
    complained: Vec<u8>,
    chunk: Vec<u8>,
}

#[derive(Debug)]
struct Input {
    pipe: ChildStdin,
    bytes: Vec<u8>,
    written: usize,
}

impl Running {
    pub(super) fn new(
        mut child: Child,
        bytes: Option<Vec<u8>>,
        log: Option<File>,
        listener: Option<Listener>,
        stdout_max: usize,
    ) -> io::Result<Self> {
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let input = child.stdin.take().zip(bytes).map(|(pipe, bytes)| Input { pipe, bytes, written: 0 });
        let running = Self {
            group: Pid::from_child(&child),
            child,
            input,
            stdout,
            stderr,
            log,
            listener,
            stdout_max,
            stdout_taken: 0,
            last_output: Instant::now(),
            printed: Vec::new(),
            complained: Vec::new(),
            chunk: vec![0; CHUNK],
        };
        match running.unblock() {
            Ok(()) => Ok(running),
            Err(error) => {
                running.end();
                Err(error)
            }
        }
    }

    pub(super) fn stdout_max(&self) -> usize {
        self.stdout_max
    }

    /// Serves the child until it exits by itself, or has to be ended.
    ///
    /// With a `watch`, it has to be ended as soon as it waits for a file whose content may never end.
    pub(super) fn attend(
        &mut self,
        limits: Limits,
        cancel: &Cancel,
        mut watch: Option<Watch>,
    ) -> Result<ExitStatus, Halt> {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            if cancel.is_requested() {
                return Err(Halt::Cancelled);
            }
            if let Some(after) = limits.deadline.filter(|after| started.elapsed() >= *after) {
                return Err(Halt::Deadline(after));
            }
            if let Some(after) = limits.stall.filter(|after| self.last_output.elapsed() >= *after) {
                return Err(Halt::Stalled(after));
            }
            if let Some((path, what)) = watch.as_mut().and_then(|watch| watch.check(self.child.id())) {
                return Err(Halt::Waits(path, what));
            }
            if self.is_cut_off() {
                thread::sleep(pause);
                pause = (pause * 2).min(TICK);
            } else {
                self.exchange()?;
            }
            if limits.ends_group && self.has_exited() {
                self.end_group();
            }
            if let Some(status) = self.child.try_wait()? {
                self.drain()?;
                return Ok(status);
            }
        }
    }

    pub(super) fn into_output(mut self, status: ExitStatus) -> Output {
        self.forget_old_complaints();
        Output { status, stdout: self.printed, stderr: self.complained }
    }

    /// Ends the child and its group: SIGTERM, then SIGKILL to all remaining processes after a while, then waits.
    ///
    /// The child is reaped last: until then, its id, which is also the id of the group, cannot be reused.
    pub(super) fn end(mut self) {
        // A group that no longer exists is the desired result, and no other error is possible for this process's child.
        let _ = kill_process_group(self.group, Signal::TERM);
        self.input = None;
        let started = Instant::now();
        while started.elapsed() < GRACE && !(self.is_cut_off() && self.has_exited()) {
            (self.printed, self.complained) = (Vec::new(), Vec::new());
            if self.is_cut_off() {
                thread::sleep(TICK / 10);
            } else if self.exchange().is_err() {
                (self.stdout, self.stderr) = (None, None);
            }
        }
        let _ = kill_process_group(self.group, Signal::KILL);
        let _ = self.child.wait();
    }

    /// Ends the processes that a child which has exited left in its group. Until the child is reaped, no other group can
    /// have its id.
    fn end_group(&mut self) {
        let _ = kill_process_group(self.group, Signal::TERM);
        self.input = None;
        let started = Instant::now();
        while started.elapsed() < GRACE && !self.is_cut_off() && self.exchange().is_ok() {}
        let _ = kill_process_group(self.group, Signal::KILL);
    }

    fn unblock(&self) -> io::Result<()> {
        if let Some(input) = &self.input {
            set_nonblocking(&input.pipe)?;
        }
        if let Some(stdout) = &self.stdout {
            set_nonblocking(stdout)?;
        }
        if let Some(stderr) = &self.stderr {
            set_nonblocking(stderr)?;
        }
        Ok(())
    }

    /// Returns whether all pipes are closed, so that only waiting remains.
    fn is_cut_off(&self) -> bool {
        self.input.is_none() && self.stdout.is_none() && self.stderr.is_none()
    }

    /// Waits a tick at most for a pipe to be ready, then moves one chunk through each ready pipe.
    fn exchange(&mut self) -> Result<(), Halt> {
        let mut ready = Vec::with_capacity(3);
        ready.extend(self.input.iter().map(|input| PollFd::new(&input.pipe, PollFlags::OUT)));
        ready.extend(self.stdout.iter().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        ready.extend(self.stderr.iter().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        let tick = Timespec { tv_sec: 0, tv_nsec: TICK.subsec_nanos().into() };
        match poll(&mut ready, Some(&tick)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(Halt::Lost(error.into())),
        }
        self.feed()?;
        self.take_stdout()?;
        self.take_stderr()?;
        Ok(())
    }

    fn feed(&mut self) -> Result<(), Halt> {
        let Some(input) = &mut self.input else { return Ok(()) };
        match input.pipe.write(&input.bytes[input.written..]) {
            Ok(count) => input.written += count,
            // The next round tries again.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // A child need not read its input to the end.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => input.written = input.bytes.len(),
            Err(error) => return Err(error.into()),
        }
        if input.written == input.bytes.len() {
            self.input = None;
        }
        Ok(())
    }

    /// Reads one chunk; `0` if there is none at the moment, or never again.
    fn take_stdout(&mut self) -> Result<usize, Halt> {
        let count = take(&mut self.stdout, &mut self.chunk, self.log.as_mut())?;
        self.note_output(count);
        if let Some(listener) = self.listener.as_ref().filter(|_| count > 0) {
            (listener.0)(Stream::Stdout, &self.chunk[..count]);
            // A listener that waits for a reader is no silence of the program.
            self.note_output(count);
            return Ok(count);
        }
        self.stdout_taken += count;
        if self.stdout_taken > self.stdout_max {
            return Err(Halt::TooMuch);
        }
        if self.log.is_some() {
            self.complain(count);
        } else {
            self.printed.extend_from_slice(&self.chunk[..count]);
        }
        Ok(count)
    }

    fn take_stderr(&mut self) -> Result<usize, Halt> {
        let count = take(&mut self.stderr, &mut self.chunk, self.log.as_mut())?;
        self.note_output(count);
        match self.listener.as_ref().filter(|_| count > 0) {
            Some(listener) => (listener.0)(Stream::Stderr, &self.chunk[..count]),
            None => self.complain(count),
        }
        self.note_output(count);
        Ok(count)
    }

    fn note_output(&mut self, count: usize) {
        if count > 0 {
            self.last_output = Instant::now();
        }
    }

    /// Keeps the `count` bytes that were just read, as long as they are among the last.
    fn complain(&mut self, count: usize) {
        self.complained.extend_from_slice(&self.chunk[..count]);
        if self.complained.len() > 4 * STDERR_KEPT {
            self.forget_old_complaints();
        }
    }

    /// Reads the output that a child left in its pipes when it exited.
    fn drain(&mut self) -> Result<(), Halt> {
        let mut left = DRAIN_MAX;
        while left > 0 {
            match self.take_stdout()? {
                0 => break,
                count => left = left.saturating_sub(count),
            }
        }
        let mut left = DRAIN_MAX;
        while left > 0 {
            match self.take_stderr()? {
                0 => break,
                count => left = left.saturating_sub(count),
            }
        }
        Ok(())
    }

    fn forget_old_complaints(&mut self) {
        self.complained.drain(..self.complained.len().saturating_sub(STDERR_KEPT));
    }

    fn has_exited(&self) -> bool {
        let unreaped = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::Pid(self.group), unreaped), Ok(None))
    }
}

/// Reads one chunk and copies it to the log; drops the pipe at its end.
fn take<R: Read>(pipe: &mut Option<R>, chunk: &mut [u8], log: Option<&mut File>) -> io::Result<usize> {
    let Some(reader) = pipe else { return Ok(0) };
    let count = loop {
        match reader.read(chunk) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            result => break result?,
        }
    };
    if count == 0 {
        *pipe = None;
    } else if let Some(log) = log {
        log.write_all(&chunk[..count])?;
    }
    Ok(count)
}

fn set_nonblocking(pipe: &impl AsFd) -> io::Result<()> {
    Ok(fcntl_setfl(pipe, fcntl_getfl(pipe)? | OFlags::NONBLOCK)?)
}
