//! How thumbnails are made in other processes, a bounded number at once: the seam between asynchronous
//! callers and the workers.
//!
//! A caller takes a place in the [`queue`]; a [`keeper`] owns a worker [`process`] and offers its
//! [`desk`] when that is ready. Nothing of a picture but its first bytes is read in this process.

mod desk;
mod keeper;
mod process;
mod queue;
mod started;

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::error::ThumbnailError;
use super::format::Format;
use super::job::Rendered;
use super::limits::Limits;
use super::program::Programs;
use super::sandbox::Report;
use crate::metrics::ThumbnailMetrics;
use crate::types::{ContentHash, MovingEncoding, ThumbnailSpec};
use desk::Desk;
use keeper::Shop;
use queue::{Call, Queue};
use started::Started;

pub use process::{ProcessSettings, try_worker};

/// How many thumbnails may be made and waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// How many are made at once. With zero every request is refused.
    pub workers: usize,
    /// How many more may wait for their turn.
    pub queue: usize,
}

/// Who waits for a thumbnail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Nobody: it is made ahead, when no client waits.
    Background,
    /// A client.
    Client,
}

/// Where thumbnails are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Launch {
    /// In threads of this process: for tests, and to measure what processes cost.
    InThreads,
    /// In processes of their own.
    Processes(ProcessSettings),
}

/// What an engine is made of.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// How many are made and waited for.
    pub capacity: Capacity,
    /// What a source may cost.
    pub limits: Limits,
    /// What moving thumbnails are encoded as.
    pub moving: MovingEncoding,
    /// What takes pictures out of videos and HEIC files.
    pub programs: Arc<Programs>,
    /// Where they are made.
    pub launch: Launch,
    /// What is counted.
    pub metrics: ThumbnailMetrics,
}

impl EngineSettings {
    /// Returns settings of an engine that starts no process and whose metrics nobody sees.
    pub fn in_threads(capacity: Capacity, limits: Limits) -> Self {
        Self {
            capacity,
            limits,
            moving: MovingEncoding::default(),
            programs: Arc::new(Programs::none()),
            launch: Launch::InThreads,
            metrics: ThumbnailMetrics::default(),
        }
    }
}

/// Makes thumbnails, a bounded number at once. Dropped, it ends its workers.
#[derive(Debug)]
pub struct ThumbnailEngine {
    queue: Arc<Queue>,
    started: Arc<Started>,
    launch: Launch,
    programs: Arc<Programs>,
}

impl ThumbnailEngine {
    /// Starts as many workers as there are to be, and waits for none.
    ///
    /// # Errors
    ///
    /// The system gives no more threads or open files. That a worker cannot be started is none:
    /// [`first_start`](Self::first_start) says so.
    pub fn new(settings: EngineSettings) -> io::Result<Self> {
        let EngineSettings { capacity, limits, moving, programs, launch, metrics } = settings;
        let desks: io::Result<Vec<_>> =
            (0..capacity.workers).map(|_| Desk::new().map(Arc::new)).collect();
        let desks = desks?;
        let queue = Queue::new(capacity, desks.clone(), metrics.waiting.clone());
        // From here on, threads that were started end if another one cannot be.
        let engine = Self {
            queue: queue.clone(),
            started: Arc::default(),
            launch,
            programs: programs.clone(),
        };
        let started = engine.started.clone();
        let shop = Arc::new(Shop { queue, limits, moving, programs, metrics, started });
        for desk in desks {
            let (shop, launch) = (shop.clone(), engine.launch.clone());
            let keeper = thread::Builder::new().name("thumbnails".to_owned());
            keeper.spawn(move || match launch {
                Launch::InThreads => keeper::keep_none(&shop, &desk),
                Launch::Processes(settings) => keeper::keep(&shop, desk, &settings),
            })?;
        }
        Ok(engine)
    }

    /// Returns whether thumbnails may be made of a file that begins so: whether its kind is known, and the
    /// program is there if it takes one.
    pub fn can_make(&self, start: &[u8]) -> bool {
        Format::detect(start).is_some_and(|format| self.programs.serve(format))
    }

    /// Waits for the first worker and returns how far it is locked in, or why it could not be started.
    /// Returns none where there are no worker processes, or nothing is known by then.
    pub fn first_start(&self, patience: Duration) -> Option<Result<Report, String>> {
        match self.launch {
            Launch::InThreads => None,
            Launch::Processes(_) => self.started.wait(patience),
        }
    }

    /// Makes thumbnails of one content as [`render`](super::render()) does, in the order of `specs`, when
    /// its turn comes. Only then is the source opened, so that whatever it takes to open and check it is
    /// bounded as well. Who asks for the same content at the same time shares the work; then only one of
    /// the sources is opened.
    ///
    /// A caller that goes away while it waits leaves the queue at once. Work that has begun is
    /// finished, and counts until then.
    ///
    /// # Errors
    ///
    /// Any [`ThumbnailError`], `Busy` at once if the queue is full; or what opening failed with.
    pub async fn render<E: From<ThumbnailError>>(
        &self,
        content: ContentHash,
        source: impl Future<Output = Result<File, E>>,
        specs: &[ThumbnailSpec],
        urgency: Urgency,
    ) -> Result<Vec<Rendered>, E> {
        let mut place = self.queue.enter(content, specs, urgency)?;
        let answer = match place.call().await {
            Call::Answer(answer) => answer,
            Call::Turn(turn) => {
                turn.lay_down(source.await?);
                match place.call().await {
                    Call::Answer(answer) => answer,
                    // Nobody is called twice.
                    Call::Turn(_) => Err(ThumbnailError::Busy),
                }
            }
        };
        Ok(answer?)
    }
}

impl Drop for ThumbnailEngine {
    fn drop(&mut self) {
        self.queue.close();
    }
}

#[cfg(test)]
mod tests;
