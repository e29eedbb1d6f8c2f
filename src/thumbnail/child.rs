//! A process of ours that reads what strangers sent: started with nothing of ours, waited for no longer
//! than it may take, and ended with its owner.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::time::Timespec;

/// Returns how such a process is started, but for its arguments and streams.
pub(super) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .arg0("mediary")
        // Nothing of ours is for the eyes of who takes it over.
        .env_clear()
        .current_dir("/")
        // What the terminal sends is for us, who end it in order.
        .process_group(0);
    command
}

/// A process that is killed and reaped when it is dropped.
#[derive(Debug)]
pub(super) struct Guarded {
    child: Child,
    pidfd: OwnedFd,
    stat: Option<File>,
}

impl Guarded {
    /// Starts a process.
    ///
    /// # Errors
    ///
    /// It cannot be started, or not be watched.
    pub(super) fn start(command: &mut Command) -> io::Result<Self> {
        let mut child = command.spawn()?;
        let pid = Pid::from_child(&child);
        // Opened now: once the process has hidden itself from others, a /proc that is mounted with
        // hidepid= shows it no more. What is open stays readable.
        let stat = File::open(format!("/proc/{}/stat", child.id())).ok();
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Self { child, pidfd, stat }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error.into())
            }
        }
    }

    /// Waits until the process ends; returns whether that was in time.
    pub(super) fn ends_by(&self, deadline: Instant) -> io::Result<bool> {
        is_ready_by(&self.pidfd, deadline)
    }

    /// Ends the process if it has not ended yet, and returns how it ended.
    pub(super) fn end(&mut self) -> io::Result<ExitStatus> {
        // Of one that has begun to end this does not change how.
        self.child.kill()?;
        self.child.wait()
    }

    /// Returns how much CPU time the process has used, all of its threads together, if the kernel shows
    /// it; it does so until the process was reaped.
    pub(super) fn cpu_time(&self) -> Option<Duration> {
        let mut text = [0; 1024];
        let length = self.stat.as_ref()?.read_at(&mut text, 0).ok()?;
        parsed_cpu_time(std::str::from_utf8(text.get(..length)?).ok()?)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Only what was reaped already cannot be.
        let _ = self.end();
    }
}

/// Adds what `/proc/PID/stat` says of user and system time, in ticks (proc_pid_stat(5)).
fn parsed_cpu_time(stat: &str) -> Option<Duration> {
    // The name of the process stands before, in brackets, and may be anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map_while(|ticks| ticks.parse::<u64>().ok());
    let ticks = times.next()?.checked_add(times.next()?)?;
    let milliseconds =
        ticks.checked_mul(1000)?.checked_div(rustix::param::clock_ticks_per_second())?;
    Some(Duration::from_millis(milliseconds))
}

/// Waits until something can be read, or it ended; returns whether that was in time.
pub(super) fn is_ready_by(watched: impl AsFd, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        let mut waited = [PollFd::new(&watched, PollFlags::IN)];
        match poll(&mut waited, timeout.as_ref()) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    #[test]
    fn cpu_time_is_found_whatever_the_process_is_called() {
        let rest = "S 1 2 2 0 -1 4194560 9 0 0 0 150 50 0 0 39 19 1 0 99 1 1";
        let second = rustix::param::clock_ticks_per_second();
        let expected = Some(Duration::from_millis(200 * 1000 / second));
        for name in ["mediary", "a b", ") 1 (", ""] {
            assert_eq!(parsed_cpu_time(&format!("7 ({name}) {rest}")), expected, "{name}");
        }
        for text in ["", "7", "7 (mediary) S 1", "7 (mediary) S 1 2 2 0 -1 4 9 0 0 0 x 50"] {
            assert_eq!(parsed_cpu_time(text), None, "{text}");
        }
    }

    #[test]
    fn a_process_that_waits_uses_no_time_and_one_that_computes_does() {
        let mut sleep = command(Path::new("/bin/sleep"));
        let sleeping = Guarded::start(sleep.arg("600")).unwrap();
        let mut busy = command(Path::new("/bin/sh"));
        let busy = busy.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
        let busy = Guarded::start(busy).unwrap();
        let much = Duration::from_millis(200);
        while busy.cpu_time().unwrap() < much {
            std::thread::yield_now();
        }
        assert!(sleeping.cpu_time().unwrap() < much);
        assert!(!sleeping.ends_by(Instant::now()).unwrap());
    }

    #[test]
    fn how_a_process_ended_is_not_changed_by_ending_it() {
        let mut ended = Guarded::start(&mut command(Path::new("/bin/false"))).unwrap();
        assert!(ended.ends_by(Instant::now() + Duration::from_secs(60)).unwrap());
        assert_eq!(ended.end().unwrap().code(), Some(1));
    }
}
