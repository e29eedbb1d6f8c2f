//! Thumbnails: planned on the ladder, made once per content and plan, kept (`keep`), and where that is
//! wanted made as soon as something is uploaded (`ahead`).

mod ahead;
mod failures;
mod keep;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::future::Cache;
use tokio::time::{timeout, timeout_at};

use super::fetch::Found;
use super::{MediaBody, MediaError, MediaItem, MediaService, Reader, Search};
use crate::homeserver::HomeserverError;
use crate::store::{BlobReader, MediaRecord, MediaSource, ThumbnailRecord};
use crate::thumbnail::{Ladder, ThumbnailError, Urgency};
use crate::types::{
    ContentHash, ContentType, FileName, Mxc, ThumbnailEncoding, ThumbnailMethod, ThumbnailSize,
    ThumbnailSpec,
};
pub(super) use ahead::Ahead;
use failures::Failures;
use keep::Unkept;

/// How long opening and checking a source may take while a worker waits for it.
const OPENING_TIME: Duration = Duration::from_secs(30);

/// How many contents and renderings are remembered at once, at most.
const REMEMBERED: u64 = 10_000;

/// Which thumbnails are made, and how many are kept.
#[derive(Debug, Clone)]
pub struct ThumbnailRules {
    /// The sizes that they are made in.
    pub ladder: Ladder,
    /// How many of one content are kept beside those of the ladder; past that they are made anew each
    /// time, so that odd sizes cannot fill the disk (threats IM-11).
    pub max_variants: u64,
    /// Whether all sizes of the ladder are made when something is uploaded.
    pub on_upload: bool,
    /// Whether still ones may be WebP for clients that read it.
    pub webp: bool,
}

/// What a client asks for, before it is put on the ladder (CS-TH-01, CS-TH-02).
#[derive(Debug, Clone, Copy)]
pub struct ThumbnailRequest {
    /// The box to fill.
    pub size: ThumbnailSize,
    /// How to fill it.
    pub method: ThumbnailMethod,
    /// Whether it may move (CS-TH-14).
    pub animated: bool,
    /// What may be sent if it does not.
    pub encoding: ThumbnailEncoding,
}

impl ThumbnailRules {
    /// Returns the thumbnail to make for a request.
    fn spec(&self, request: ThumbnailRequest) -> ThumbnailSpec {
        let spec = self.ladder.snap(request.size, request.method, request.animated);
        ThumbnailSpec { encoding: request.encoding, ..spec }
    }

    /// Returns all thumbnails of the ladder, in each encoding that may be asked for.
    fn all(&self) -> Vec<ThumbnailSpec> {
        let webp = self.webp.then(|| self.ladder.stills(ThumbnailEncoding::WebP));
        let universal = self.ladder.stills(ThumbnailEncoding::Universal);
        universal.chain(webp.into_iter().flatten()).collect()
    }

    /// Returns the thumbnails that are always kept: those of the ladder, still and moving, so that nobody
    /// can take their place with odd sizes.
    fn always_kept(&self) -> HashSet<ThumbnailSpec> {
        let moving = |spec| ThumbnailSpec { animated: true, ..spec };
        self.all().into_iter().flat_map(|spec| [spec, moving(spec)]).collect()
    }
}

/// A content and what is to be made of it.
type RenderKey = (ContentHash, ThumbnailSpec);

/// Renderings under way, each one for all who ask at the same time, and what recently failed.
pub(super) struct Renders {
    /// What is made is found in the store from then on, so it does not stay here.
    under_way: Cache<RenderKey, Arc<ThumbnailRecord>>,
    failures: Failures,
    always_kept: Arc<HashSet<ThumbnailSpec>>,
}

impl Renders {
    pub(super) fn new(rules: &ThumbnailRules) -> Self {
        Self {
            under_way: Cache::builder().max_capacity(REMEMBERED).expire_after(AtOnce).build(),
            failures: Failures::new(),
            always_kept: Arc::new(rules.always_kept()),
        }
    }
}

/// Nothing stays: the cache only makes one rendering out of many requests.
struct AtOnce;

impl Expiry<RenderKey, Arc<ThumbnailRecord>> for AtOnce {
    fn expire_after_create(
        &self,
        _: &RenderKey,
        _: &Arc<ThumbnailRecord>,
        _: Instant,
    ) -> Option<Duration> {
        Some(Duration::ZERO)
    }
}

impl MediaService {
    /// Whether thumbnails may differ by what the request says that it accepts.
    pub fn negotiates_thumbnails(&self) -> bool {
        self.thumbnails.webp
    }

    /// Finds or makes a thumbnail.
    ///
    /// # Errors
    ///
    /// As [`download`](Self::download), and [`MediaError::Thumbnail`] if it cannot be made.
    pub async fn thumbnail(
        &self,
        reader: Reader<'_>,
        mxc: &Mxc,
        request: ThumbnailRequest,
        search: Search,
    ) -> Result<MediaItem, MediaError> {
        match self.find_or_make(reader, mxc, request, search).await {
            // What was evicted under it is fetched and made anew, once.
            Err(error) if self.lost_to_eviction(mxc, &error) => {
                self.find_or_make(reader, mxc, request, search).await
            }
            outcome => outcome,
        }
    }

    async fn find_or_make(
        &self,
        reader: Reader<'_>,
        mxc: &Mxc,
        request: ThumbnailRequest,
        search: Search,
    ) -> Result<MediaItem, MediaError> {
        let source = match self.readable_record(reader, mxc)? {
            Some(record) => record,
            None => self.fetch_whole(reader, mxc, search).await?,
        };
        // Who looks at thumbnails uses the media: it and they go together.
        self.touch(&source);
        let spec = self.thumbnails.spec(request);
        if let Some(thumbnail) = self.kept_thumbnail(&source, spec)? {
            match self.open_thumbnail(&source, spec, &thumbnail).await {
                Ok(Some(body)) => return Ok(kept_item(&thumbnail, body)),
                Ok(None) => {}
                // A damaged thumbnail is made again.
                Err(error) => {
                    if !self.damage.is_found(&thumbnail.blob.content_hash, &error).await {
                        return Err(error.into());
                    }
                }
            }
        }
        let key = (source.blob.content_hash, spec);
        match self.renders.under_way.try_get_with(key, self.render(&source, spec)).await {
            Ok(thumbnail) => {
                let body = self.open_blob(&thumbnail.blob).await?;
                Ok(kept_item(&thumbnail, body))
            }
            Err(unkept) => match &*unkept {
                Unkept::Made { body, content_hash, content_type } => {
                    let body = MediaBody::Memory(body.clone());
                    Ok(item(content_type.clone(), *content_hash, body))
                }
                Unkept::Original(content_type) => {
                    let body = self.open_blob(&source.blob).await?;
                    Ok(item(content_type.clone(), source.blob.content_hash, body))
                }
                Unkept::Failed(error) => Err(MediaError::Shared(error.clone())),
            },
        }
    }

    fn kept_thumbnail(
        &self,
        source: &MediaRecord,
        spec: ThumbnailSpec,
    ) -> Result<Option<Arc<ThumbnailRecord>>, MediaError> {
        let content_hash = source.blob.content_hash;
        if let Some(record) = self.memory.thumbnail(content_hash, spec) {
            return Ok(Some(record));
        }
        let since = self.memory.epoch();
        let Some(record) = self.store.thumbnail(&content_hash, &spec)? else { return Ok(None) };
        let record = Arc::new(record);
        self.memory.keep_thumbnail(since, content_hash, spec, record.clone());
        Ok(Some(record))
    }

    /// Waits until media that is arriving is kept, and returns its record. No part of a thumbnail
    /// comes before that, so an upload counts as begun only then (CS-DL-08).
    async fn fetch_whole(
        &self,
        reader: Reader<'_>,
        mxc: &Mxc,
        search: Search,
    ) -> Result<Arc<MediaRecord>, MediaError> {
        let deadline = tokio::time::Instant::now() + search.wait;
        match self.find(reader, mxc, search).await.map_err(only_the_original_is_elsewhere)? {
            Found::Kept(record) => Ok(record),
            Found::Arriving(arrival) if arrival.media.source == MediaSource::Owned => {
                let kept = timeout_at(deadline, arrival.kept()).await;
                kept.unwrap_or(Err(MediaError::NotYetUploaded))
            }
            Found::Arriving(arrival) => arrival.kept().await,
            // The log says why.
            Found::Unkept => Err(MediaError::NotKept),
        }
    }

    /// Makes a thumbnail and keeps it.
    async fn render(
        &self,
        source: &MediaRecord,
        spec: ThumbnailSpec,
    ) -> Result<Arc<ThumbnailRecord>, Unkept> {
        let content_hash = source.blob.content_hash;
        let key = (content_hash, spec);
        if let Some(error) = self.renders.failures.find(&key).await {
            return Err(impossible(source, error).into());
        }
        let begun = Instant::now();
        let picture = in_time(async { Ok(self.picture(source).await?.file()?) });
        let rendered = self.engine.render(content_hash, picture, &[spec], Urgency::Client).await;
        self.metrics.thumbnail_duration.observe(begun.elapsed().as_secs_f64());
        match rendered {
            Ok(mut rendered) => self.keep_thumbnail(content_hash, spec, rendered.remove(0)).await,
            Err(error) => {
                self.metrics.thumbnail_failures.inc();
                let MediaError::Thumbnail(error) = error else { return Err(error.into()) };
                self.renders.failures.note(key, &error).await;
                Err(impossible(source, error).into())
            }
        }
    }

    /// Opens a source for the decoder, which reads the file past the checks of every block: so it is
    /// checked whole, once it is known to be worth it.
    async fn picture(&self, source: &MediaRecord) -> Result<BlobReader, MediaError> {
        let content_hash = source.blob.content_hash;
        let opened = async {
            let start = self.store.open_blob(&source.blob)?.next_chunk().await?;
            if !self.engine.can_make(&start.unwrap_or_default()) {
                return Ok(None);
            }
            let reader = self.store.open_blob(&source.blob)?;
            reader.verify().await?;
            Ok(Some(reader))
        };
        match opened.await {
            Ok(Some(reader)) => Ok(reader),
            Ok(None) => Err(Arc::new(ThumbnailError::Unsupported).into()),
            Err(error) => {
                if !self.is_evicted(&error) {
                    self.damage.is_found(&content_hash, &error).await;
                }
                Err(error.into())
            }
        }
    }
}

/// Whoever is sent elsewhere finds the original there, which is no thumbnail.
fn only_the_original_is_elsewhere(error: MediaError) -> MediaError {
    match error {
        MediaError::Refused(refusal) if refusal.location.is_some() => {
            HomeserverError::Misbehaved("media that is elsewhere has no thumbnail".to_owned())
                .into()
        }
        MediaError::Shared(shared) => match &*shared {
            MediaError::Refused(refusal) => {
                only_the_original_is_elsewhere(MediaError::Refused(refusal.clone()))
            }
            _ => MediaError::Shared(shared),
        },
        error => error,
    }
}

/// "Too large" is the requester's fault for local media and the other server's for remote media
/// (CS-TH-13).
fn impossible(source: &MediaRecord, error: Arc<ThumbnailError>) -> MediaError {
    match (source.source, &*error) {
        (
            MediaSource::Remote,
            ThumbnailError::TooLarge(_) | ThumbnailError::TimedOut | ThumbnailError::OutOfMemory,
        ) => MediaError::RemoteImageTooLarge,
        _ => error.into(),
    }
}

/// Opens a source, or gives the worker that waits for it back to the others.
async fn in_time<T>(opening: impl Future<Output = Result<T, MediaError>>) -> Result<T, MediaError> {
    timeout(OPENING_TIME, opening).await.unwrap_or_else(|_| Err(ThumbnailError::Busy.into()))
}

fn kept_item(thumbnail: &ThumbnailRecord, body: MediaBody) -> MediaItem {
    item(thumbnail.content_type.clone(), thumbnail.blob.content_hash, body)
}

/// A thumbnail has a made-up name (CS-HDR-06), which says its real type.
fn item(content_type: ContentType, content_hash: ContentHash, body: MediaBody) -> MediaItem {
    let extension = content_type.as_str().strip_prefix("image/").unwrap_or("bin");
    let filename = FileName::clean(&format!("thumbnail.{extension}"));
    MediaItem { content_type, filename, content_hash: Some(content_hash), body }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_does_not_answer_gives_the_worker_back() {
        let opened = in_time(pending::<Result<(), MediaError>>()).await;
        let Err(MediaError::Thumbnail(error)) = opened else { panic!("{opened:?}") };
        assert!(matches!(*error, ThumbnailError::Busy), "{error}");
        in_time(async { Ok(()) }).await.unwrap();
    }
}
