//! What time it is, for whatever is judged by its age.

#[cfg(test)]
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use crate::types::UnixMillis;

/// A clock; the system's, but in tests one that stands still until it is set. Clones show the same
/// time.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    #[cfg(test)]
    Hand(Arc<AtomicI64>),
}

impl Clock {
    /// Returns the system's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// Returns the time.
    pub fn now(&self) -> UnixMillis {
        match &self.0 {
            Source::System => UnixMillis::now(),
            #[cfg(test)]
            Source::Hand(millis) => UnixMillis(millis.load(Ordering::SeqCst)),
        }
    }

    /// Makes a clock that stands at a moment.
    #[cfg(test)]
    pub fn standing_at(now: UnixMillis) -> Self {
        Self(Source::Hand(Arc::new(AtomicI64::new(now.0))))
    }

    /// Moves the hands of a clock that stands.
    #[cfg(test)]
    pub fn set(&self, now: UnixMillis) {
        match &self.0 {
            Source::System => panic!("nobody sets the system's clock"),
            Source::Hand(millis) => millis.store(now.0, Ordering::SeqCst),
        }
    }
}
