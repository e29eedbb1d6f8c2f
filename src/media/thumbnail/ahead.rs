//! Thumbnails of uploads, made before anybody asks.
//!
//! An upload only leaves its record here, and never waits for it: where too many wait already, it is
//! dropped, and its thumbnails are made when somebody asks for them. One upload after the other is
//! worked off, each decoded once for all its sizes, and only while no client waits for a thumbnail.

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::in_time;
use super::keep::Unkept;
use crate::media::{MediaError, MediaService};
use crate::store::MediaRecord;
use crate::thumbnail::{MAX_SPECS, Rendered, ThumbnailError, Urgency};
use crate::types::ThumbnailSpec;

/// How many uploads may wait: some minutes' worth, at some hundred bytes each.
const MAX_WAITING: usize = 1000;

/// The uploads that wait.
pub(in crate::media) struct Ahead {
    /// `None` if nothing is made ahead.
    queue: Option<Sender<MediaRecord>>,
    waiting: Mutex<Receiver<MediaRecord>>,
}

impl Ahead {
    pub(in crate::media) fn new(is_on: bool) -> Self {
        let (queue, waiting) = channel(MAX_WAITING);
        Self { queue: is_on.then_some(queue), waiting: Mutex::new(waiting) }
    }
}

impl MediaService {
    /// Notes an upload that was kept, so that its thumbnails are made when there is time. Returns at
    /// once, whatever comes of it.
    pub(in crate::media) fn note_upload(&self, record: &MediaRecord) {
        let Some(queue) = &self.ahead.queue else { return };
        if queue.try_send(record.clone()).is_err() {
            self.metrics.thumbnails_ahead.dropped.inc();
            tracing::debug!(mxc = %record.mxc, "too many uploads wait for their thumbnails");
        }
    }

    /// Makes thumbnails of what is uploaded, until the future is dropped; returns at once where none
    /// are to be made ahead.
    pub async fn make_thumbnails_ahead(&self) {
        let mut waiting = self.ahead.waiting.lock().await;
        while let Some(record) = waiting.recv().await {
            if let Err(error) = self.make_all(&record).await {
                tracing::debug!(mxc = %record.mxc, %error, "no thumbnails were made ahead");
            }
        }
    }

    /// Makes all thumbnails of the ladder that are not there yet.
    async fn make_all(&self, source: &MediaRecord) -> Result<(), Arc<MediaError>> {
        let content_hash = source.blob.content_hash;
        let missing = self.missing(source)?;
        let failures = &self.renders.failures;
        if missing.is_empty() || failures.find_of_content(&content_hash).await.is_some() {
            return Ok(());
        }
        // Mostly one piece of work, so one decode.
        for missing in missing.chunks(MAX_SPECS) {
            self.make(source, missing).await?;
        }
        Ok(())
    }

    async fn make(
        &self,
        source: &MediaRecord,
        specs: &[ThumbnailSpec],
    ) -> Result<(), Arc<MediaError>> {
        let content_hash = source.blob.content_hash;
        let picture = in_time(async { Ok(self.picture(source).await?.file()?) });
        let rendered = self.engine.render(content_hash, picture, specs, Urgency::Background);
        match rendered.await {
            Ok(rendered) => self.keep_all(source, specs, rendered).await,
            Err(MediaError::Thumbnail(error)) => {
                let counts = &self.metrics.thumbnails_ahead;
                match &*error {
                    // Most uploads are encrypted, or no pictures.
                    ThumbnailError::Unsupported => {}
                    ThumbnailError::Busy => counts.dropped.inc(),
                    _ => counts.failed.inc(),
                }
                // Who asks soon is told so without another try.
                self.renders.failures.note_of_several(content_hash, &error).await;
                Err(Arc::new(error.into()))
            }
            Err(error) => {
                self.metrics.thumbnails_ahead.failed.inc();
                Err(Arc::new(error))
            }
        }
    }

    fn missing(&self, source: &MediaRecord) -> Result<Vec<ThumbnailSpec>, MediaError> {
        let mut missing = Vec::new();
        for spec in self.thumbnails.all() {
            if self.store.thumbnail(&source.blob.content_hash, &spec)?.is_none() {
                missing.push(spec);
            }
        }
        Ok(missing)
    }

    async fn keep_all(
        &self,
        source: &MediaRecord,
        specs: &[ThumbnailSpec],
        rendered: Vec<Rendered>,
    ) -> Result<(), Arc<MediaError>> {
        for (spec, rendered) in specs.iter().zip(rendered) {
            match self.keep_thumbnail(source.blob.content_hash, *spec, rendered).await {
                Ok(_) => self.metrics.thumbnails_ahead.made.inc(),
                // None of them is one too many: the store failed, and said so.
                Err(Unkept::Made { .. } | Unkept::Original(_)) => {
                    self.metrics.thumbnails_ahead.failed.inc();
                    break;
                }
                Err(Unkept::Failed(error)) => {
                    self.metrics.thumbnails_ahead.failed.inc();
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}
