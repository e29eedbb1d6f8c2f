//! The proof from inside: a process locks itself in just as a worker does, tries one thing, and says
//! what came of it.
//!
//! This is a way to look at the walls, not a door in them: whoever can start it could try the same
//! without any walls.

use std::fs::File;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, Signal};

use super::{Confinement, ProgramConfinement, Report, landlock, rlimits, seccomp};
use crate::thumbnail::{Job, Limits, render};
use crate::types::{
    MovingEncoding, ThumbnailEncoding, ThumbnailMethod, ThumbnailSize, ThumbnailSpec,
};

/// What `mediary thumbnail-probe` is asked.
#[derive(Debug, Clone, Args)]
pub struct ProbeCommand {
    /// Which walls to put up first
    #[arg(long, value_enum, default_value_t = Walls::All)]
    walls: Walls,
    /// How much memory a worker may take
    #[arg(long, default_value_t = 512 << 20)]
    memory_bytes: u64,
    /// How much CPU time it may use
    #[arg(long, default_value_t = 60)]
    cpu_seconds: u64,
    #[command(subcommand)]
    attempt: Attempt,
}

/// Some of the walls, to see that each stands alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Walls {
    All,
    Limits,
    Landlock,
    Seccomp,
    None,
}

/// What is tried behind them.
#[derive(Debug, Clone, Subcommand)]
enum Attempt {
    /// Say what took effect, as JSON
    Report,
    /// Open a file for reading
    Open { path: PathBuf },
    /// Look at a file without opening it
    Stat { path: PathBuf },
    /// List a directory
    List { path: PathBuf },
    /// Make a file
    Create { path: PathBuf },
    /// Remove a file
    Remove { path: PathBuf },
    /// Connect by TCP
    Connect { address: SocketAddr },
    /// Connect to a Unix socket
    ConnectUnix { path: PathBuf },
    /// Make a UDP socket
    Udp,
    /// Start another process
    Fork,
    /// Become another program
    Exec { program: PathBuf },
    /// Start a thread
    Thread,
    /// Have another process end
    Signal { process: i32 },
    /// Take memory
    Allocate { bytes: usize },
    /// Have many descriptors at once
    Descriptors { count: usize },
    /// Make a file in memory longer
    Grow { bytes: u64 },
    /// Compute without end
    Spin,
    /// Panic, as a decoder may
    Panic,
    /// Call oneself without end
    Recurse,
    /// Make thumbnails of the picture on the standard input, again and again
    Work { times: u32 },
    /// Execute a program as for a picture on the standard input, behind the walls for programs
    Program {
        /// Let it open files for writing, as far as landlock does
        #[arg(long)]
        reopens_output: bool,
        program: PathBuf,
        #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
        arguments: Vec<String>,
    },
}

/// Puts the walls up, tries what is asked, and writes what came of it: the exit code is 0 if it could
/// be done.
pub fn probe(command: &ProbeCommand, output: &mut dyn Write) -> ExitCode {
    let confinement = Confinement {
        memory_bytes: command.memory_bytes,
        cpu: Duration::from_secs(command.cpu_seconds),
        file_bytes: 1 << 20,
    };
    if let Attempt::Program { reopens_output, program, arguments } = &command.attempt {
        let error = execute(&confinement, *reopens_output, program, arguments);
        return say(output, Err(error));
    }
    // A worker is sent one; it cannot make it.
    let memory = rustix::fs::memfd_create("probe", MemfdFlags::CLOEXEC).map(File::from);
    let report = put_up(command.walls, &confinement);
    let outcome = match &command.attempt {
        Attempt::Report => serde_json::to_string(&report).map_err(io::Error::from),
        Attempt::Grow { bytes } => memory.map_err(io::Error::from).and_then(|file| {
            file.set_len(*bytes)?;
            Ok("it is so long".to_owned())
        }),
        attempt => attempt.run().map(|()| "done".to_owned()),
    };
    say(output, outcome)
}

fn say(output: &mut dyn Write, outcome: io::Result<String>) -> ExitCode {
    let (line, code) = match outcome {
        Ok(line) => (line, ExitCode::SUCCESS),
        Err(error) => (format!("refused: {error}"), ExitCode::FAILURE),
    };
    let _ = writeln!(output, "{line}");
    code
}

/// Becomes a program; returns only why that is not possible.
fn execute(
    confinement: &Confinement,
    reopens_output: bool,
    program: &Path,
    arguments: &[String],
) -> io::Error {
    let stdin = io::stdin();
    let confinement = ProgramConfinement {
        memory_bytes: confinement.memory_bytes,
        cpu: confinement.cpu,
        file_bytes: confinement.file_bytes,
        readable: &[stdin.as_fd()],
        reopens_output,
    };
    match super::confine_program(&confinement, program) {
        Ok(report) if report.is_complete() => Command::new(program).args(arguments).exec(),
        Ok(report) => io::Error::other(report.lacks().join("; ")),
        Err(error) => error,
    }
}

fn put_up(walls: Walls, confinement: &Confinement) -> Report {
    Report::new(match walls {
        Walls::All => return super::confine(confinement),
        Walls::Limits => vec![rlimits::worker(confinement)],
        Walls::Landlock => vec![landlock::nothing()],
        Walls::Seccomp => vec![seccomp::worker()],
        Walls::None => Vec::new(),
    })
}

impl Attempt {
    fn run(&self) -> io::Result<()> {
        match self {
            Self::Report | Self::Grow { .. } | Self::Program { .. } => Ok(()),
            Self::Open { path } => File::open(path).map(drop),
            Self::Stat { path } => path.metadata().map(drop),
            Self::List { path } => path.read_dir().map(drop),
            Self::Create { path } => File::create_new(path).map(drop),
            Self::Remove { path } => std::fs::remove_file(path),
            Self::Connect { address } => TcpStream::connect(address).map(drop),
            Self::ConnectUnix { path } => UnixStream::connect(path).map(drop),
            Self::Udp => UdpSocket::bind("127.0.0.1:0").map(drop),
            Self::Fork => Command::new("/proc/self/exe").arg("--version").status().map(drop),
            Self::Exec { program } => Err(Command::new(program).exec()),
            Self::Thread => std::thread::Builder::new().spawn(|| ()).map(drop),
            Self::Signal { process } => signal(*process),
            Self::Allocate { bytes } => allocate(*bytes),
            Self::Descriptors { count } => descriptors(*count),
            Self::Spin => spin(),
            Self::Panic => panic!("a decoder gave up"),
            Self::Recurse => Err(io::Error::other(format!("went {} deep", recurse(0)))),
            Self::Work { times } => (0..*times).try_for_each(|_| work()),
        }
    }
}

fn signal(process: i32) -> io::Result<()> {
    let process = Pid::from_raw(process).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::kill_process(process, Signal::TERM)?)
}

fn allocate(bytes: usize) -> io::Result<()> {
    let mut memory = Vec::<u8>::new();
    memory.try_reserve_exact(bytes).map_err(io::Error::other)?;
    std::hint::black_box(&memory);
    Ok(())
}

fn descriptors(count: usize) -> io::Result<()> {
    let stdin = io::stdin();
    let clone = |_| stdin.as_fd().try_clone_to_owned();
    (0..count).map(clone).collect::<io::Result<Vec<_>>>().map(drop)
}

fn spin() -> ! {
    loop {
        std::hint::black_box(());
    }
}

fn recurse(depth: u64) -> u64 {
    let room = std::hint::black_box([depth; 1024]);
    if room[1] == u64::MAX { depth } else { recurse(depth + 1) + room[2] % 2 }
}

/// Does what a worker does for one job.
fn work() -> io::Result<()> {
    let source = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let spec = |width, height, method| ThumbnailSpec {
        size: ThumbnailSize { width, height },
        method,
        animated: false,
        encoding: ThumbnailEncoding::Universal,
    };
    let job = Job {
        specs: vec![spec(96, 96, ThumbnailMethod::Crop), spec(320, 240, ThumbnailMethod::Scale)],
        limits: Limits::default(),
        moving: MovingEncoding::WebP,
        is_extracted: false,
    };
    render(source, &job).map(drop).map_err(io::Error::other)
}
