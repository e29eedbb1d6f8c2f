//! What a process may consume: resource limits, and how late its turn comes.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, setrlimit};

use super::report::Layer;
use super::{Confinement, ProgramConfinement};

/// Of descriptors: the standard streams, one to see its own memory, those of one job, and some to spare.
const WORKER_FILES: u64 = 10;

/// A program opens its libraries one by one, and may have a few files open at once.
const PROGRAM_FILES: u64 = 64;

/// Of threads of all processes of this user, after which a program is given no more. Below what systemd
/// lets a service have (`TasksMax=`), so that the proxy still gets some; above what a desktop takes.
const THREADS: u64 = 4_000;

/// Of addresses beside memory: libraries, and what glibc reserves for each thread and mostly never uses.
const RESERVED: u64 = 4 << 30;

/// Whoever waits for a download goes first. The lowest that there is: a worker has still its share of a
/// core where nobody else wants it.
const NICENESS: i32 = 19;

/// Of core dumps: not 0, with which the kernel still starts a program that core dumps are piped to.
const NO_CORE: u64 = 1;

const MIB: u64 = 1 << 20;

/// Makes the process the last in line for the CPU.
pub(super) fn priority() -> Layer {
    match rustix::process::setpriority_process(None, NICENESS) {
        Ok(()) => Layer::whole("lowest priority"),
        Err(error) => Layer::lacking(
            "priority as it was",
            format!(
                "the priority cannot be lowered ({error}), so thumbnails take CPU time from \
                 downloads; allow the system call setpriority"
            ),
        ),
    }
}

/// Limits a worker. It has all processes, threads and files that it will ever have.
pub(super) fn worker(confinement: &Confinement) -> Layer {
    // The program itself is mapped too, hundreds of MiB of it where it was built for debugging.
    let mapped = mapped_bytes().unwrap_or(0);
    let cpu = seconds(confinement.cpu);
    apply(
        confinement.memory_bytes,
        &[
            ("memory", Resource::As, both(mapped.saturating_add(confinement.memory_bytes))),
            ("CPU time", Resource::Cpu, cpu_limit(cpu)),
            ("file size", Resource::Fsize, both(confinement.file_bytes)),
            ("open files", Resource::Nofile, both(WORKER_FILES)),
            ("processes", Resource::Nproc, both(0)),
            ("core dumps", Resource::Core, both(NO_CORE)),
            ("locked memory", Resource::Memlock, both(0)),
            ("message queues", Resource::Msgqueue, both(0)),
        ],
    )
}

/// Limits a program. What counts for its threads is how many this user has in all.
pub(super) fn program(confinement: &ProgramConfinement<'_>) -> Layer {
    let cpu = seconds(confinement.cpu);
    apply(
        confinement.memory_bytes,
        &[
            ("memory", Resource::Data, both(confinement.memory_bytes)),
            ("addresses", Resource::As, both(confinement.memory_bytes.saturating_add(RESERVED))),
            ("CPU time", Resource::Cpu, cpu_limit(cpu)),
            ("file size", Resource::Fsize, both(confinement.file_bytes)),
            ("open files", Resource::Nofile, both(PROGRAM_FILES)),
            ("threads", Resource::Nproc, both(THREADS)),
            ("core dumps", Resource::Core, both(NO_CORE)),
            ("locked memory", Resource::Memlock, both(0)),
            ("message queues", Resource::Msgqueue, both(0)),
        ],
    )
}

fn apply(memory_bytes: u64, limits: &[(&str, Resource, Rlimit)]) -> Layer {
    // Nobody of the same user may look into the process any more, and it leaves no core dump.
    let hidden = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).err();
    let mut failures: Vec<_> =
        hidden.map(|error| format!("debugging by others ({error})")).into_iter().collect();
    for (name, resource, limit) in limits {
        if let Err(error) = lower(*resource, limit) {
            failures.push(format!("{name} ({error})"));
        }
    }
    let standing = format!("limits (memory {} MiB)", memory_bytes.div_ceil(MIB));
    if failures.is_empty() {
        return Layer::whole(standing);
    }
    let failures = failures.join(", ");
    let lack = format!("not limited: {failures}; allow the system calls prlimit64 and prctl");
    Layer::lacking(format!("{standing} but for {failures}"), lack)
}

/// Sets a limit, or leaves what is stricter already.
fn lower(resource: Resource, limit: &Rlimit) -> rustix::io::Result<()> {
    let now = getrlimit(resource);
    let stricter = |now: Option<u64>, new: Option<u64>| match (now, new) {
        (Some(now), Some(new)) => Some(now.min(new)),
        (now, new) => now.or(new),
    };
    let current = stricter(now.current, limit.current);
    setrlimit(resource, Rlimit { current, maximum: stricter(now.maximum, limit.maximum) })
}

fn both(limit: u64) -> Rlimit {
    Rlimit { current: Some(limit), maximum: Some(limit) }
}

/// SIGXCPU could be ignored by an intruder, so SIGKILL comes a second later.
fn cpu_limit(seconds: u64) -> Rlimit {
    Rlimit { current: Some(seconds), maximum: Some(seconds.saturating_add(1)) }
}

/// Rounds up, to one second at least: none would be no limit at all.
fn seconds(cpu: std::time::Duration) -> u64 {
    cpu.as_secs().saturating_add(u64::from(cpu.subsec_nanos() > 0)).max(1)
}

/// Returns how much address space is in use, if the kernel shows it.
fn mapped_bytes() -> Option<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = pages.split(' ').next()?.parse().ok()?;
    pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_started_second_of_cpu_time_is_given_whole() {
        let given = [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (20_000, 20)];
        for (milliseconds, expected) in given {
            assert_eq!(seconds(Duration::from_millis(milliseconds)), expected, "{milliseconds} ms");
        }
        assert_eq!(seconds(Duration::MAX), u64::MAX);
    }

    #[test]
    fn what_is_mapped_is_known() {
        let mapped = mapped_bytes().expect("/proc is mounted");
        assert!(mapped > MIB, "{mapped}");
    }
}
