//! The process that locks itself in and becomes a program.

use std::convert::Infallible;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use clap::Args;
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::thumbnail::sandbox::{ProgramConfinement, confine_program};

/// The name of the subcommand.
const COMMAND: &str = "thumbnail-program";

/// Where nothing can be made: what is open already may be opened for writing once more, by name, and
/// nothing else.
const WRITABLE: &str = "/proc/self/fd";

/// Which program to become, and what it may consume.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ProgramCommand {
    /// How much memory it may take, in bytes, its libraries included
    #[arg(long)]
    pub(super) memory: u64,
    /// How much CPU time it may use, in seconds
    #[arg(long)]
    pub(super) cpu: u64,
    /// How much it may write, in bytes
    #[arg(long)]
    pub(super) file_bytes: u64,
    /// Do not go on where the kernel cannot lock it in wholly
    #[arg(long)]
    pub(super) wholly: bool,
    /// The program
    pub(super) program: PathBuf,
    /// What it is told
    #[arg(last = true)]
    pub(super) arguments: Vec<String>,
}

impl ProgramCommand {
    /// Returns the command line of such a process.
    pub(super) fn words(&self) -> Vec<std::ffi::OsString> {
        let mut words: Vec<std::ffi::OsString> = vec![COMMAND.into()];
        for (name, value) in
            [("--memory", self.memory), ("--cpu", self.cpu), ("--file-bytes", self.file_bytes)]
        {
            words.extend([name.into(), value.to_string().into()]);
        }
        if self.wholly {
            words.push("--wholly".into());
        }
        words.extend([self.program.clone().into(), "--".into()]);
        words.extend(self.arguments.iter().map(Into::into));
        words
    }
}

/// Locks the process in and becomes the program. It reads the standard input and writes the standard
/// output, by their descriptors or by their names, and can open nothing else but its libraries.
///
/// # Errors
///
/// The program is not there or cannot be executed, or the kernel cannot lock it in as demanded.
pub fn run(command: &ProgramCommand) -> io::Result<Infallible> {
    // A program that takes long must not outlive who asked for it.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let source = io::stdin();
    let report = confine_program(
        &ProgramConfinement {
            memory_bytes: command.memory,
            cpu: Duration::from_secs(command.cpu),
            file_bytes: command.file_bytes,
            readable: &[source.as_fd()],
            writable: Some(PathBuf::from(WRITABLE)),
        },
        &command.program,
    )?;
    if command.wholly && !report.is_complete() {
        return Err(io::Error::other(report.lacks().join("; ")));
    }
    Err(Command::new(&command.program).args(&command.arguments).exec())
}
