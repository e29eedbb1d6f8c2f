//! Reading media: kept, arriving, or to be fetched first (CS-DL-03).

use std::sync::Arc;

use super::fetch::Found;
use super::incoming::Arrival;
use super::source::Asker;
use super::{MediaBody, MediaError, MediaItem, MediaService, Reader, Search, StoredBody};
use crate::store::{BlobRecord, MediaRecord, MediaSource, StoreError};
use crate::types::Mxc;

/// How often media is looked for that is evicted or found damaged as soon as it is there.
const MAX_TRIES: usize = 3;

impl MediaService {
    /// Finds media and opens its body.
    ///
    /// # Errors
    ///
    /// [`MediaError::NotFound`] also for what this reader may not see (CS-FRZ-03).
    pub async fn download(
        &self,
        reader: Reader<'_>,
        mxc: &Mxc,
        search: Search,
    ) -> Result<MediaItem, MediaError> {
        let mut found = match self.readable_record(reader, mxc)? {
            Some(record) => Found::Kept(record),
            None => self.find(reader, mxc, search).await?,
        };
        for _ in 0..MAX_TRIES {
            let record = match found {
                Found::Kept(record) => record,
                // Its head alone says that it is whole, so it may only be sent when that is true.
                Found::Arriving(arrival) if arrival.size == Some(0) => arrival.kept().await?,
                Found::Arriving(arrival) => return Ok(arriving_item(&arrival)),
                Found::Unkept => return self.relay(reader, mxc, search).await,
            };
            if let Some(item) = self.open_record(&record).await? {
                return Ok(item);
            }
            found = self.find(reader, mxc, search).await?;
        }
        Err(MediaError::NotKept)
    }

    /// Opens media that is kept; `None` if it was evicted meanwhile, or is damaged and can be had
    /// again.
    async fn open_record(&self, record: &MediaRecord) -> Result<Option<MediaItem>, MediaError> {
        match self.open_media(record).await {
            Ok(body) => Ok(body.map(|body| MediaItem {
                content_type: record.content_type.clone(),
                filename: record.filename.clone(),
                content_hash: Some(record.blob.content_hash),
                body,
            })),
            Err(error) => {
                let is_damaged = self.damage.is_found(&record.blob.content_hash, &error).await;
                // Owned media is nowhere else; the rest is fetched anew.
                if is_damaged && record.source != MediaSource::Owned {
                    return Ok(None);
                }
                Err(error.into())
            }
        }
    }

    /// Looks for media that is not kept.
    pub(super) async fn find(
        &self,
        reader: Reader<'_>,
        mxc: &Mxc,
        search: Search,
    ) -> Result<Found, MediaError> {
        if let Some(found) = self.find_expected(reader, mxc, search).await? {
            return Ok(found);
        }
        match asker(reader) {
            Some(asker) => self.fetcher.find(&asker, mxc, search).await,
            // An upload may have come to its end since the first look.
            None => self.readable_record(reader, mxc)?.map(Found::Kept).ok_or(MediaError::NotFound),
        }
    }

    async fn relay(
        &self,
        reader: Reader<'_>,
        mxc: &Mxc,
        search: Search,
    ) -> Result<MediaItem, MediaError> {
        let asker = asker(reader).ok_or(MediaError::NotFound)?;
        self.fetcher.relay(&asker, mxc, search).await
    }

    /// Returns the record of media that is kept and that this reader may see. What the reader may not
    /// see costs the same look-ups as what is not there.
    ///
    /// # Errors
    ///
    /// [`MediaError::NotFound`] if nothing is looked up for this reader.
    pub(super) fn readable_record(
        &self,
        reader: Reader<'_>,
        mxc: &Mxc,
    ) -> Result<Option<Arc<MediaRecord>>, MediaError> {
        if !self.freeze.looks_up(mxc, reader) || !self.is_exchanged(mxc) {
            return Err(MediaError::NotFound);
        }
        let is_shown = |record: &Arc<MediaRecord>| self.freeze.shows(&**record, reader);
        if let Some(record) = self.memory.record(mxc).filter(is_shown) {
            return Ok(Some(record));
        }
        let since = self.memory.epoch();
        let record = self.store.media(mxc)?.map(Arc::new).filter(is_shown);
        if let Some(record) = &record {
            self.memory.keep_record(since, record.clone());
        }
        Ok(record)
    }

    /// Whether media is ours, or of a server that media is exchanged with.
    fn is_exchanged(&self, mxc: &Mxc) -> bool {
        self.rules.permit(&mxc.server_name)
            || self.homeserver.name().is_ok_and(|name| *name == mxc.server_name)
    }

    pub(super) fn record(&self, mxc: &Mxc) -> Result<Option<Arc<MediaRecord>>, MediaError> {
        if let Some(record) = self.memory.record(mxc) {
            return Ok(Some(record));
        }
        let since = self.memory.epoch();
        let Some(record) = self.store.media(mxc)? else { return Ok(None) };
        let record = Arc::new(record);
        self.memory.keep_record(since, record.clone());
        Ok(Some(record))
    }

    /// Opens a blob: from memory, into memory if it is small, otherwise to be read as it is sent.
    pub(super) async fn open_blob(&self, blob: &BlobRecord) -> Result<MediaBody, StoreError> {
        if let Some(body) = self.memory.body(&blob.content_hash) {
            self.metrics.media_sources.memory.inc();
            return Ok(MediaBody::Memory(body));
        }
        self.metrics.media_sources.store.inc();
        let since = self.memory.epoch();
        let reader = self.store.open_blob(blob)?;
        if self.memory.has_room_for(blob.size) {
            let body = reader.read_all().await?;
            self.memory.keep_body(since, blob.content_hash, body.clone());
            return Ok(MediaBody::Memory(body));
        }
        Ok(MediaBody::Stored(StoredBody { reader, damage: self.damage.clone() }))
    }
}

/// Returns in whose name the homeserver is asked; other servers get nothing that is not our own.
fn asker(reader: Reader<'_>) -> Option<Asker> {
    match reader {
        Reader::Requester(requester) => Some(Asker::Requester(requester.clone())),
        Reader::Anybody => Some(Asker::Anybody),
        Reader::Origin(request) => request.cloned().map(Asker::Origin),
    }
}

fn arriving_item(arrival: &Arc<Arrival>) -> MediaItem {
    MediaItem {
        content_type: arrival.media.content_type.clone(),
        filename: arrival.media.filename.clone(),
        content_hash: None,
        body: MediaBody::Arriving(arrival.follow()),
    }
}
