//! Seccomp: which system calls can be made.

use super::report::Layer;

pub(super) fn worker() -> Layer {
    Layer::lacking("no filter of system calls", "system calls are not filtered")
}

pub(super) fn program(_writes_files: bool) -> Layer {
    Layer::lacking("no filter of system calls", "system calls are not filtered")
}
