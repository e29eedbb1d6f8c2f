//! What is counted of thumbnails: the workers, who waits for them, and what is made ahead.

use prometheus::{IntCounter, IntGauge, Registry};

use super::Declare;

/// Why a thumbnail worker was replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerEnd {
    /// It died, or was not to be believed any more.
    Crashed,
    /// A picture took too long.
    TimedOut,
    /// A picture took too much memory.
    OutOfMemory,
    /// It had done its part.
    Recycled,
    /// It did not come up.
    NotStarted,
}

impl WorkerEnd {
    /// In the order of the variants.
    const NAMES: [&'static str; 5] =
        ["crashed", "timed_out", "out_of_memory", "recycled", "not_started"];
}

/// Thumbnail workers and who waits for them.
#[derive(Debug, Clone)]
pub struct ThumbnailMetrics {
    /// Requests that wait for a worker.
    pub waiting: IntGauge,
    /// Sources that were given to a worker, once for all sizes that were asked for at the same time.
    pub jobs: IntCounter,
    ended: [IntCounter; WorkerEnd::NAMES.len()],
}

impl ThumbnailMetrics {
    /// Counts a worker that is replaced.
    pub fn ended(&self, end: WorkerEnd) {
        self.ended[end as usize].inc();
    }

    pub(super) fn new(declare: &Declare) -> prometheus::Result<Self> {
        let ended = declare.counters(
            "mediary_thumbnail_workers_ended_total",
            "Thumbnail workers replaced, by reason: crashed, timed_out, out_of_memory, recycled, \
             not_started.",
            &["reason"],
        )?;
        Ok(Self {
            waiting: declare
                .int_gauge("mediary_thumbnails_waiting", "Requests that wait for a worker.")?,
            jobs: declare.counter(
                "mediary_thumbnail_jobs_total",
                "Sources given to thumbnail workers; several sizes of one may be one job.",
            )?,
            ended: WorkerEnd::NAMES.map(|reason| ended.with_label_values(&[reason])),
        })
    }
}

impl Default for ThumbnailMetrics {
    /// Returns metrics that nobody sees.
    fn default() -> Self {
        Self::new(&Declare(Registry::new())).expect("each name is there once")
    }
}

/// Thumbnails that are made before anybody asks.
pub struct AheadMetrics {
    /// Thumbnails that were made and kept.
    pub made: IntCounter,
    /// Uploads whose thumbnails could not be made.
    pub failed: IntCounter,
    /// Uploads that were left out, because too many waited already.
    pub dropped: IntCounter,
}

impl AheadMetrics {
    pub(super) fn new(declare: &Declare) -> prometheus::Result<Self> {
        let ahead = declare.counters(
            "mediary_thumbnails_ahead_total",
            "With thumbnails.on_upload, by result: made (thumbnails), failed, dropped (uploads).",
            &["result"],
        )?;
        Ok(Self {
            made: ahead.with_label_values(&["made"]),
            failed: ahead.with_label_values(&["failed"]),
            dropped: ahead.with_label_values(&["dropped"]),
        })
    }
}
