//! How many thumbnails are made at once: the seam between asynchronous callers and the decoders.

use std::fs::File;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task;

use super::error::ThumbnailError;
use super::job::{Job, Rendered};
use super::limits::Limits;
use super::render::render;
use crate::types::{ContentHash, MovingEncoding, ThumbnailSpec};

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

/// Makes thumbnails, a bounded number at once, off the asynchronous threads.
#[derive(Debug)]
pub struct ThumbnailEngine {
    limits: Limits,
    /// One permit for everybody who is being served or waits.
    admission: Arc<Semaphore>,
    /// One permit for everybody who is being served.
    workers: Arc<Semaphore>,
}

impl ThumbnailEngine {
    /// Makes an engine with the given bounds.
    pub fn new(capacity: Capacity, limits: Limits) -> Self {
        let workers = capacity.workers.min(Semaphore::MAX_PERMITS);
        let admitted = match workers {
            0 => 0,
            workers => workers.saturating_add(capacity.queue).min(Semaphore::MAX_PERMITS),
        };
        Self {
            limits,
            admission: Arc::new(Semaphore::new(admitted)),
            workers: Arc::new(Semaphore::new(workers)),
        }
    }

    /// Makes thumbnails of one content as [`render`] does, in the order of `specs`, when its turn comes.
    /// Only then is the source opened, so that whatever it takes to open and check it is bounded as well.
    ///
    /// A caller that goes away while it waits leaves the queue at once. Work that has begun is
    /// finished, and counts until then.
    ///
    /// # Errors
    ///
    /// Any [`ThumbnailError`], `Busy` at once if the queue is full; or what opening failed with.
    pub async fn render<E: From<ThumbnailError>>(
        &self,
        _content: ContentHash,
        source: impl Future<Output = Result<File, E>>,
        specs: &[ThumbnailSpec],
        _urgency: Urgency,
    ) -> Result<Vec<Rendered>, E> {
        let permits = self.admit().await?;
        let source = source.await?;
        let moving = MovingEncoding::default();
        let job = Job { specs: specs.to_vec(), limits: self.limits, moving };
        Ok(Self::work(permits, move || render(source, &job)).await?)
    }

    async fn work<T: Send + 'static>(
        permits: [OwnedSemaphorePermit; 2],
        job: impl FnOnce() -> Result<T, ThumbnailError> + Send + 'static,
    ) -> Result<T, ThumbnailError> {
        let running = task::spawn_blocking(move || {
            // Held by the work, not by the caller: who leaves must not make room for more work.
            let _permits = permits;
            job()
        });
        match running.await {
            Ok(outcome) => outcome,
            Err(error) if error.is_panic() => Err(ThumbnailError::Panicked(error.to_string())),
            // The runtime is shutting down and has not begun the work.
            Err(_) => Err(ThumbnailError::Busy),
        }
    }

    /// Waits for a worker, or refuses if too many wait already.
    async fn admit(&self) -> Result<[OwnedSemaphorePermit; 2], ThumbnailError> {
        let admission = Arc::clone(&self.admission).try_acquire_owned();
        let admission = admission.map_err(|_| ThumbnailError::Busy)?;
        let worker = Arc::clone(&self.workers).acquire_owned().await;
        let worker = worker.map_err(|_| ThumbnailError::Busy)?;
        // Dropped in this order: whoever is admitted next finds the worker free.
        Ok([worker, admission])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thumbnail::samples;
    use crate::types::{ThumbnailEncoding, ThumbnailMethod, ThumbnailSize};
    use image::ImageFormat;
    use std::pin::pin;

    const CONTENT: ContentHash = ContentHash([7; 32]);

    async fn opened(source: &[u8]) -> Result<File, ThumbnailError> {
        Ok(samples::file(source))
    }

    async fn run<T: Send + 'static>(
        engine: &ThumbnailEngine,
        job: impl FnOnce() -> Result<T, ThumbnailError> + Send + 'static,
    ) -> Result<T, ThumbnailError> {
        ThumbnailEngine::work(engine.admit().await?, job).await
    }
    use std::sync::mpsc;
    use std::task::{Context, Poll, Waker};

    fn engine(workers: usize, queue: usize) -> ThumbnailEngine {
        ThumbnailEngine::new(Capacity { workers, queue }, Limits::default())
    }

    fn spec() -> ThumbnailSpec {
        let size = ThumbnailSize { width: 8, height: 8 };
        ThumbnailSpec {
            size,
            method: ThumbnailMethod::Crop,
            animated: false,
            encoding: ThumbnailEncoding::Universal,
        }
    }

    fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn a_thumbnail_is_made() {
        let source = samples::encoded(&samples::quarters(32, 32), ImageFormat::Png);
        let made = engine(1, 0).render(CONTENT, opened(&source), &[spec()], Urgency::Client).await;
        assert!(matches!(made.as_deref(), Ok([Rendered::Encoded { .. }])), "{made:?}");
    }

    #[tokio::test]
    async fn without_workers_everything_is_refused() {
        let made = engine(0, 5).render(CONTENT, opened(b""), &[spec()], Urgency::Client).await;
        assert!(matches!(made, Err(ThumbnailError::Busy)), "{made:?}");
    }

    #[tokio::test]
    async fn past_the_queue_is_busy_and_who_leaves_makes_room() {
        let engine = engine(1, 1);
        let (finish, finished) = mpsc::channel::<()>();
        let mut working = pin!(run(&engine, move || Ok(finished.recv())));
        assert!(poll_once(working.as_mut()).is_pending());
        {
            let mut waiting = pin!(run(&engine, || Ok(())));
            assert!(poll_once(waiting.as_mut()).is_pending());
            assert!(matches!(run(&engine, || Ok(())).await, Err(ThumbnailError::Busy)));
        }
        let mut waiting = pin!(run(&engine, || Ok(())));
        assert!(poll_once(waiting.as_mut()).is_pending());
        finish.send(()).expect("the job waits for it");
        assert!(working.await.is_ok());
        assert!(waiting.await.is_ok());
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_counts_until_it_ends() {
        let engine = engine(1, 0);
        let (finish, finished) = mpsc::channel::<()>();
        {
            let mut abandoned = pin!(run(&engine, move || Ok(finished.recv())));
            assert!(poll_once(abandoned.as_mut()).is_pending());
        }
        assert!(matches!(run(&engine, || Ok(())).await, Err(ThumbnailError::Busy)));
        finish.send(()).expect("the job waits for it");
        let all = engine.admission.acquire().await.expect("never closed");
        drop(all);
        assert!(run(&engine, || Ok(())).await.is_ok());
    }

    #[tokio::test]
    async fn a_panic_costs_its_own_request_only() {
        let engine = engine(1, 0);
        let outcome = run(&engine, || -> Result<(), _> { panic!("a bug") }).await;
        assert!(matches!(outcome, Err(ThumbnailError::Panicked(_))), "{outcome:?}");
        let _idle = engine.admission.acquire().await.expect("never closed");
        assert_eq!(engine.workers.available_permits(), 1);
    }
}
