//! The process in which strangers' pictures are decoded: it can compute and answer, and nothing else.
//!
//! It is a subcommand of the same binary. Its standard input is a socket; a job is one packet with two
//! open files, the source and one for the results. It says first how far the kernel locks it in, and
//! ends when the other end of the socket does.

pub(in crate::thumbnail) mod channel;
pub(in crate::thumbnail) mod protocol;
mod warm;

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::panic;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::time::{ClockId, clock_gettime};

use super::error::ThumbnailError;
use super::job::Job;
use super::render::render;
use super::sandbox::{Confinement, confine};
use channel::MAX_PACKET;
use protocol::{Answer, MAX_BODY_BYTES, Used};

/// The name of the subcommand.
pub(in crate::thumbnail) const COMMAND: &str = "thumbnail-worker";

/// What a worker is told when it is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub struct WorkerSettings {
    /// How much memory it may take, in bytes
    #[arg(long)]
    pub memory: u64,
    /// How much CPU time it may use in all its life, in seconds
    #[arg(long)]
    pub cpu: u64,
}

impl WorkerSettings {
    /// Returns the command line of such a worker.
    pub(in crate::thumbnail) fn arguments(self) -> [String; 5] {
        let (memory, cpu) = (self.memory.to_string(), self.cpu.to_string());
        [COMMAND.to_owned(), "--memory".to_owned(), memory, "--cpu".to_owned(), cpu]
    }
}

/// Works until nobody asks any more. The process has to have one thread, and a socket as its standard
/// input, as the engine starts it.
///
/// # Errors
///
/// The standard input is not such a socket, or what comes out of it is no job.
pub fn run(settings: WorkerSettings) -> io::Result<()> {
    // At the first job it would be noticed anyway, but a picture that takes long must not outlive
    // who asked for it.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // If memory runs out, it is for the pictures' sake. Without it the kernel decides.
    let _ = fs::write("/proc/self/oom_score_adj", "800");
    let memory = File::open("/proc/self/statm").ok();
    warm::up();
    silence()?;
    let report = confine(&Confinement {
        memory_bytes: settings.memory,
        cpu: Duration::from_secs(settings.cpu),
        file_bytes: MAX_BODY_BYTES,
    });
    let memory = memory.and_then(Memory::new);
    let socket = io::stdin();
    channel::send(&socket, &serde_json::to_vec(&report)?, &[])?;
    let mut buffer = vec![0; MAX_PACKET];
    while let Some((packet, files)) = channel::receive_files(&socket, &mut buffer)? {
        let (job, [source, mut body]) = (serde_json::from_slice(packet)?, both(files)?);
        let job: Job = job;
        let rendered = render(source, &job).map_err(with_place);
        let answer = Answer::new(rendered, &mut body, used(memory.as_ref()));
        channel::send(&socket, &serde_json::to_vec(&answer)?, &[])?;
    }
    Ok(())
}

/// Where the last panic was, for the answer.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Takes our log away from whatever a picture does: what there is to say is in answers, and in how the
/// process ends.
fn silence() -> io::Result<()> {
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }));
    let nothing = File::options().write(true).open("/dev/null")?;
    Ok(rustix::stdio::dup2_stderr(nothing)?)
}

/// Says where a panic was, which the hook alone gets to know.
fn with_place(error: ThumbnailError) -> ThumbnailError {
    let place = PANIC.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (error, place) {
        (ThumbnailError::Panicked(text), Some(place)) => {
            ThumbnailError::Panicked(format!("{place}: {text}"))
        }
        (error, _) => error,
    }
}

fn both(files: Vec<OwnedFd>) -> io::Result<[File; channel::FILES]> {
    let files: Vec<_> = files.into_iter().map(File::from).collect();
    files.try_into().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a job has two files"))
}

fn used(memory: Option<&Memory>) -> Used {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let (memory_bytes, grown_bytes) = memory.and_then(Memory::now).unwrap_or_default();
    Used { cpu: Duration::try_from(cpu).unwrap_or_default(), memory_bytes, grown_bytes }
}

/// `/proc/self/statm`, kept open, and how much was mapped at first.
struct Memory {
    statm: File,
    mapped: u64,
}

impl Memory {
    fn new(statm: File) -> Option<Self> {
        let [mapped, ..] = pages(&statm)?;
        Some(Self { statm, mapped })
    }

    /// Returns, in bytes, what is there without what it shares with all others, which is the program
    /// itself; and how much more is mapped than at first.
    fn now(&self) -> Option<(u64, u64)> {
        let [mapped, resident, shared] = pages(&self.statm)?;
        let bytes = |pages: u64| pages.saturating_mul(rustix::param::page_size() as u64);
        Some((bytes(resident.saturating_sub(shared)), bytes(mapped.saturating_sub(self.mapped))))
    }
}

/// Reads what is mapped, there, and shared, in pages.
fn pages(statm: &File) -> Option<[u64; 3]> {
    let mut text = [0; 64];
    let length = statm.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(text.get(..length)?).ok()?;
    let mut pages = text.split(' ').map_while(|pages| pages.parse::<u64>().ok());
    Some([pages.next()?, pages.next()?, pages.next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_that_is_held_is_known() {
        const MUCH: usize = 64 * 1024 * 1024;
        let memory = Memory::new(File::open("/proc/self/statm").unwrap()).unwrap();
        let before = used(Some(&memory));
        let much = vec![1_u8; MUCH];
        let after = used(Some(&memory));
        let more = after.memory_bytes.saturating_sub(before.memory_bytes);
        assert!(more >= (much.len() as u64) / 2, "{before:?}, {after:?}");
        assert!(after.grown_bytes >= before.grown_bytes);
        assert!(after.cpu > Duration::ZERO);
    }
}
