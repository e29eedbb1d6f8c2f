//! The walls around whatever reads what strangers sent: a worker process, or an external program.
//!
//! A process puts them around itself, once and for good, before it sees the first byte of a picture.
//! Each layer stands without the others: limits on what may be consumed, landlock (no file, no port,
//! no other process), and a short list of system calls. What the kernel does not give is said in the
//! [`Report`] and is never a reason to fail here; whoever started the process decides.

mod elf;
mod landlock;
mod probe;
mod report;
mod rlimits;
mod seccomp;

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

pub use probe::{ProbeCommand, probe};
pub use report::Report;

/// What a worker process may consume in all its life; everything else is taken from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement {
    /// How much memory may be mapped beside what is mapped already, which is mostly the program itself.
    pub memory_bytes: u64,
    /// How much CPU time may be used over all jobs, rounded up to whole seconds; then SIGXCPU ends it.
    pub cpu: Duration,
    /// How large a file that is written may become, memfds among them; then SIGXFSZ ends it.
    pub file_bytes: u64,
}

/// What an external program may do, which is started by the process that calls [`confine_program`].
///
/// Its standard streams have to be open already, and nothing else that is not close-on-exec but what
/// it is to read. A memfd may be written through whatever is said here; its path is
/// `/proc/self/fd/N`, to which a symbolic link may lead for a program that goes by the name's ending.
#[derive(Debug)]
pub struct ProgramConfinement<'a> {
    /// How much memory may be mapped, the program and its libraries included.
    pub memory_bytes: u64,
    /// How much CPU time may be used, rounded up to whole seconds; then SIGXCPU ends it.
    pub cpu: Duration,
    /// How large a file that is written may become, memfds among them; then SIGXFSZ ends it.
    pub file_bytes: u64,
    /// Files that may be opened again for reading, as by `/proc/self/fd/0`, beside the libraries.
    pub readable: &'a [BorrowedFd<'a>],
    /// Whether a file in memory that is open already may be opened for writing once more, by its path.
    /// No other can be: landlock sees to that.
    pub reopens_output: bool,
}

/// Locks the calling process in as a worker, for good. It has to have one thread only.
///
/// Afterwards it can compute, use the descriptors that it has and is sent, and end: no file can be
/// opened, no process or thread started, no socket made. What is refused answers EPERM where code
/// that is in order may come by, and ends the process (SIGSYS) where only an intruder would.
pub fn confine(confinement: &Confinement) -> Report {
    Report::new(vec![
        rlimits::priority(),
        rlimits::worker(confinement),
        landlock::nothing(),
        seccomp::worker(),
    ])
}

/// Locks the calling process in so that it can execute `program`, and little else, for good. It has to
/// have one thread only; what follows has to be the `exec`, of `program` by that same path.
///
/// # Errors
///
/// `program` cannot be read; or there is no landlock, without which it could read every file of this
/// user, since it has to open its libraries.
pub fn confine_program(confinement: &ProgramConfinement<'_>, program: &Path) -> io::Result<Report> {
    let mut layers = vec![rlimits::priority(), rlimits::program(confinement)];
    let files = landlock::program(confinement, program)?;
    if let Some(lack) = &files.lack {
        return Err(io::Error::other(format!("cannot be locked in: landlock is missing: {lack}")));
    }
    layers.extend([files, seccomp::program(confinement.reopens_output)]);
    Ok(Report::new(layers))
}
