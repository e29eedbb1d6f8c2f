//! The process that locks itself in and becomes a program.

use std::convert::Infallible;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Args;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::thumbnail::sandbox::{ProgramConfinement, confine_program};

/// The name of the subcommand.
const COMMAND: &str = "thumbnail-program";

/// How the process ends that did not get to be the program. Neither program ends so by itself.
pub(super) const NOT_BECOME: u8 = 125;

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
    /// Who starts it
    #[arg(long)]
    pub(super) parent: i32,
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
        words.extend(["--parent".into(), self.parent.to_string().into()]);
        if self.wholly {
            words.push("--wholly".into());
        }
        words.extend([self.program.clone().into(), "--".into()]);
        words.extend(self.arguments.iter().map(Into::into));
        words
    }
}

/// Locks the process in and becomes the program, or ends with an exit code of its own and says why on the
/// standard error. The program reads the standard input and writes the standard
/// output, by their descriptors or by their names, and can open nothing else but its libraries.
pub fn run(command: &ProgramCommand) -> ExitCode {
    let Err(error) = become_program(command);
    // There may be nobody to hear it.
    let _ = writeln!(io::stderr(), "{error}");
    ExitCode::from(NOT_BECOME)
}

fn become_program(command: &ProgramCommand) -> io::Result<Infallible> {
    // A program that takes long must not outlive who asked for it.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // Who asked may have ended before that; then nobody says so any more.
    if getppid().map(|parent| parent.as_raw_nonzero().get()) != Some(command.parent) {
        return Err(io::Error::other("who started it has ended"));
    }
    let source = io::stdin();
    let report = confine_program(
        &ProgramConfinement {
            memory_bytes: command.memory,
            cpu: Duration::from_secs(command.cpu),
            file_bytes: command.file_bytes,
            readable: &[source.as_fd()],
            reopens_output: true,
        },
        &command.program,
    )?;
    if command.wholly && !report.is_complete() {
        return Err(io::Error::other(report.lacks().join("; ")));
    }
    Err(Command::new(&command.program).args(&command.arguments).exec())
}
