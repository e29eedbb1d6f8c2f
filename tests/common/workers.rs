//! The worker processes that a Mediary has started, as the system sees them.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// Returns the worker processes that a process has started.
pub fn workers(mediary: u32) -> Vec<Pid> {
    let tasks = fs::read_dir(format!("/proc/{mediary}/task")).expect("Linux shows threads");
    let children = tasks.filter_map(|task| {
        // A thread may end meanwhile.
        fs::read_to_string(task.ok()?.path().join("children")).ok()
    });
    let children: Vec<String> = children.collect();
    let pids = children.iter().flat_map(|children| children.split_whitespace());
    let pids = pids.filter(|pid| is_worker(pid));
    pids.filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

/// Whether a process is a worker, and not dead.
fn is_worker(pid: &str) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    command.split(|byte| *byte == 0).any(|word| word == b"thumbnail-worker")
}

/// Sends a worker a signal.
pub fn signal(worker: Pid, signal: Signal) {
    // It may have ended by itself.
    let _ = kill_process(worker, signal);
}

/// Whether a worker is still there.
pub fn is_alive(worker: Pid) -> bool {
    is_worker(&worker.as_raw_nonzero().to_string())
}
