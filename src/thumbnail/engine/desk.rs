//! Where work is laid down for one keeper, and the bell that tells it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::mpsc::UnboundedSender;

use super::queue::Call;
use crate::thumbnail::error::ThumbnailError;
use crate::thumbnail::job::Rendered;
use crate::types::ThumbnailSpec;

/// Thumbnails to be made of an open source, for all who asked for some of them.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) source: File,
    /// What to make; each once.
    pub(super) specs: Vec<ThumbnailSpec>,
    /// Who waits, and which of `specs` each of them asked for.
    pub(super) askers: Vec<(UnboundedSender<Call>, Vec<usize>)>,
}

impl Work {
    /// Gives everybody what they asked for. Who has gone gets nothing.
    pub(super) fn answer(self, outcome: Result<Vec<Rendered>, ThumbnailError>) {
        for (asker, wanted) in self.askers {
            let own = match &outcome {
                // As many as there are specs, which the indices are of.
                Ok(made) => Ok(wanted.into_iter().filter_map(|at| made.get(at).cloned()).collect()),
                Err(error) => Err(error.repeated()),
            };
            let _ = asker.send(Call::Answer(own));
        }
    }
}

/// The desk of one keeper. Whoever was given it may lay down work once.
#[derive(Debug)]
pub(super) struct Desk {
    work: Mutex<Option<Work>>,
    bell: OwnedFd,
}

impl Desk {
    pub(super) fn new() -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { work: Mutex::default(), bell })
    }

    /// Lays down work and rings.
    pub(super) fn put(&self, work: Work) {
        *self.lock() = Some(work);
        self.ring();
    }

    /// Wakes the keeper.
    pub(super) fn ring(&self) {
        // It cannot overflow: each ring but that of the end is for one piece of work.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    /// Takes what was laid down, if anything was, and quiets the bell.
    pub(super) fn take(&self) -> Option<Work> {
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        self.lock().take()
    }

    /// Returns what becomes readable when it rings.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Work>> {
        // A value that is only put and taken is never half changed.
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
