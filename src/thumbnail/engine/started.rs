//! What became of the first worker: for who wants to know before the first request is taken.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::thumbnail::sandbox::Report;

/// How far a worker is locked in, or why none could be started.
pub(super) type FirstStart = Result<Report, String>;

/// Says what became of the first worker, once; and of each that is locked in otherwise.
#[derive(Debug, Default)]
pub(super) struct Started {
    first: Mutex<Option<FirstStart>>,
    latest: Mutex<Option<Report>>,
    said: Condvar,
}

impl Started {
    /// Says what became of a worker; only the first one counts.
    pub(super) fn say(&self, start: FirstStart) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(start);
        self.said.notify_all();
    }

    /// Takes note of how far a worker is locked in, and returns whether the one before it was otherwise.
    pub(super) fn is_change(&self, report: &Report) -> bool {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let before = latest.replace(report.clone());
        before.is_some_and(|before| before != *report)
    }

    /// Waits until the first one was started, or was not.
    pub(super) fn wait(&self, patience: Duration) -> Option<FirstStart> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.said.wait_timeout_while(first, patience, |first| first.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.clone()
    }
}
