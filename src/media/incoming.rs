//! A body that is still arriving: one writer, and any number of followers.
//!
//! The writer appends to a temporary file; followers read that file, each from its own position and
//! at its own pace, and never hold the writer up. The body ends for its followers when it is safely
//! in the store. If it never gets there, every reply that follows it breaks off.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use super::MediaError;
use super::failure::in_its_own_words;
use super::quota::Charge;
use super::source::Giver;
use crate::store::{
    Follower, Growing, MediaRecord, MediaSource, NewMedia, Staging, Store, StoreError,
};
use crate::types::{BodyError, BodyReader, poll_once};

/// How an arrival ended: in the store, or not at all.
pub(super) type End = Result<Arc<MediaRecord>, Arc<MediaError>>;

/// What is known of media whose body is still arriving.
pub(super) struct Arrival {
    /// The media as it will be recorded.
    pub(super) media: NewMedia,
    /// The size of the body in bytes, if it was announced.
    pub(super) size: Option<u64>,
    /// Who gives it; `None` if somebody uploads it.
    giver: Option<Giver>,
    growing: Growing,
    /// Told once; followers subscribe, so that they can be counted.
    end: watch::Sender<Option<End>>,
}

impl Arrival {
    /// Begins to follow the body from its first byte.
    pub(super) fn follow(self: &Arc<Self>) -> ArrivingBody {
        ArrivingBody {
            follower: self.growing.follow(0),
            end: self.end.subscribe(),
            until: u64::MAX,
            arrival: Arc::clone(self),
        }
    }

    /// Returns why the body will not come, if that is known.
    pub(super) fn failure(&self) -> Option<Arc<MediaError>> {
        self.end.borrow().as_ref()?.as_ref().err().cloned()
    }

    /// Whether the whole body is kept.
    pub(super) fn is_kept(&self) -> bool {
        matches!(&*self.end.borrow(), Some(Ok(_)))
    }

    /// Waits until the whole body is kept, which counts as following.
    pub(super) async fn kept(&self) -> Result<Arc<MediaRecord>, MediaError> {
        let mut end = self.end.subscribe();
        match end.wait_for(Option::is_some).await.map(|end| end.clone()) {
            Ok(Some(Ok(record))) => Ok(record),
            Ok(Some(Err(error))) => Err(self.refusal(&error)),
            // The sender is ours, so it cannot have gone.
            Ok(None) | Err(_) => Err(self.refusal(&BodyError::Gone.into())),
        }
    }

    /// Says why the body did not come to somebody who has seen nothing of it.
    pub(super) fn refusal(&self, error: &MediaError) -> MediaError {
        match self.giver {
            // Whoever is uploading may try again.
            None => MediaError::NotYetUploaded,
            Some(giver) => in_its_own_words(error, giver),
        }
    }

    /// Waits until nobody has followed for a time.
    pub(super) async fn abandoned(&self, grace: Duration) {
        loop {
            self.end.closed().await;
            tokio::time::sleep(grace).await;
            if self.end.is_closed() {
                return;
            }
        }
    }
}

/// The writer's side of an arrival. Dropped before the end, it breaks the followers' replies off and
/// leaves nothing on disk.
pub(super) struct Incoming {
    staging: Staging,
    arrival: Arc<Arrival>,
    ending: Ending,
}

impl Incoming {
    /// Makes the arrival of an upload, which can be followed at once.
    pub(super) fn uploaded(staging: Staging, media: NewMedia, size: Option<u64>) -> Self {
        Self::new(staging, media, size, None)
    }

    /// Makes the arrival of what somebody gives us.
    pub(super) fn fetched(
        staging: Staging,
        media: NewMedia,
        size: Option<u64>,
        giver: Giver,
    ) -> Self {
        Self::new(staging, media, size, Some(giver))
    }

    fn new(staging: Staging, media: NewMedia, size: Option<u64>, giver: Option<Giver>) -> Self {
        let growing = staging.growing();
        let end = watch::Sender::new(None);
        let arrival = Arc::new(Arrival { media, size, giver, growing, end });
        let ending = Ending(Arc::clone(&arrival));
        Self { staging, arrival, ending }
    }

    /// Returns what followers begin with.
    pub(super) fn arrival(&self) -> &Arc<Arrival> {
        &self.arrival
    }

    /// Takes the body to its end, as much as the cap allows, and commits it. `begun` is called when the first bytes are there,
    /// or at the end of a body that has none.
    pub(super) async fn take(
        mut self,
        body: &mut dyn BodyReader,
        mut cap: Cap,
        store: &Store,
        begun: impl FnOnce() + Send,
    ) -> End {
        let received = receive(&mut self.staging, body, &mut cap, Haste::AtOnce, begun).await;
        let received = match received {
            // Followers read to the end even if somebody else has stored the media for us.
            Ok(()) => self.staging.push().await.map_err(MediaError::from),
            Err(error) => Err(error),
        };
        let committed = match received {
            Ok(()) => {
                let charge = cap.into_charge(&self.staging);
                commit(store, self.staging, self.arrival.media.clone(), charge).await
            }
            Err(error) => {
                self.staging.discard().await;
                Err(error)
            }
        };
        let end = committed.map(Arc::new).map_err(Arc::new);
        self.ending.tell(end.clone());
        end
    }
}

async fn commit(
    store: &Store,
    staging: Staging,
    media: NewMedia,
    charge: Charge,
) -> Result<MediaRecord, MediaError> {
    let is_owned = media.source == MediaSource::Owned;
    match store.commit_media_with(staging, media, charge).await {
        Ok(record) => Ok(record),
        // Whoever fetched the same media at the same time and was first has stored it for us.
        Err(StoreError::AlreadyExists(present)) if !is_owned => Ok(*present),
        Err(error) => Err(error.into()),
    }
}

/// Sees to it that followers hear of the end, whatever becomes of the writer.
struct Ending(Arc<Arrival>);

impl Ending {
    fn tell(&self, end: End) {
        self.0.end.send_if_modified(|told| {
            let is_first = told.is_none();
            if is_first {
                *told = Some(end);
            }
            is_first
        });
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.tell(Err(Arc::new(BodyError::Gone.into())));
    }
}

/// How soon bytes go to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Haste {
    /// As soon as no more are at hand: somebody may be following.
    AtOnce,
    /// In whole batches: nobody can know of the body before its end.
    InBatches,
}

/// How much of a body is taken.
pub(super) struct Cap {
    limit: u64,
    charge: Charge,
}

impl Cap {
    /// Takes at most `limit` bytes, and no more than can be charged.
    pub(super) fn new(limit: u64, charge: Charge) -> Self {
        Self { limit, charge }
    }

    /// Takes at most `limit` bytes.
    pub(super) fn of(limit: u64) -> Self {
        Self::new(limit, Charge::free())
    }

    fn admit(&mut self, bytes: u64) -> Result<(), MediaError> {
        if bytes > self.limit {
            return Err(BodyError::TooLarge { limit: self.limit }.into());
        }
        self.charge.cover(bytes)
    }

    /// Returns the charge for a body that was taken to its end and is to be committed.
    pub(super) fn into_charge(mut self, staging: &Staging) -> Charge {
        self.charge.settle(staging.size());
        self.charge
    }
}

/// Writes a body down, as much as the cap allows.
///
/// # Errors
///
/// [`BodyError::TooLarge`] or [`MediaError::OverQuota`] at the first byte past the cap, the body's own
/// error, or the store's.
pub(super) async fn receive(
    staging: &mut Staging,
    body: &mut dyn BodyReader,
    cap: &mut Cap,
    haste: Haste,
    begun: impl FnOnce() + Send,
) -> Result<(), MediaError> {
    let mut begun = Some(begun);
    loop {
        let mut next = body.next();
        let chunk = match poll_once(&mut next).await {
            Poll::Ready(chunk) => chunk?,
            Poll::Pending => {
                if haste == Haste::AtOnce {
                    staging.push().await?;
                }
                next.await?
            }
        };
        if let Some(chunk) = &chunk {
            cap.admit(staging.size() + chunk.len() as u64)?;
            staging.write(chunk).await?;
        }
        if let Some(begun) = begun.take() {
            begun();
        }
        if chunk.is_none() {
            return Ok(());
        }
    }
}

/// The body of an arrival as one follower reads it.
///
/// It ends when the whole body is in the store, and not a moment before: with a known size the last
/// byte is held back until then, because whoever has it takes the body for whole.
pub struct ArrivingBody {
    arrival: Arc<Arrival>,
    follower: Follower,
    end: watch::Receiver<Option<End>>,
    /// Where the reading ends.
    until: u64,
}

impl ArrivingBody {
    /// Returns the size of the whole body in bytes: the announced one, or the real one once all of
    /// it is there.
    pub fn size(&self) -> Option<u64> {
        if self.arrival.is_kept() { Some(self.written()) } else { self.arrival.size }
    }

    /// Returns how many bytes of the body are there.
    pub fn written(&self) -> u64 {
        self.arrival.growing.written()
    }

    /// Limits the reading to `length` bytes from position `first`.
    #[must_use]
    pub fn range(mut self, first: u64, length: u64) -> Self {
        self.follower = self.arrival.growing.follow(first);
        self.until = first.saturating_add(length);
        self
    }

    /// Waits until the byte at a position is there, or the end of the body before it.
    ///
    /// # Errors
    ///
    /// Says why the rest of the body will not come.
    pub async fn reach(&mut self, position: u64) -> Result<(), MediaError> {
        loop {
            let end = self.end.borrow_and_update().clone();
            match end {
                Some(Err(error)) => return Err(self.arrival.refusal(&error)),
                None if self.follower.written() <= position => self.change().await,
                None | Some(Ok(_)) => return Ok(()),
            }
        }
    }

    /// Waits for more bytes, or for the end.
    async fn change(&mut self) {
        tokio::select! {
            () = self.follower.grown() => {}
            // The arrival is ours, and its sender with it.
            _ = self.end.changed() => {}
        }
    }
}

#[async_trait]
impl BodyReader for ArrivingBody {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            let end = self.end.borrow_and_update().clone();
            let visible = match &end {
                Some(Err(error)) => return Err(broken_off(error)),
                Some(Ok(_)) => u64::MAX,
                None => self.arrival.size.map_or(u64::MAX, |size| size.saturating_sub(1)),
            };
            if self.follower.position() >= self.until {
                return Ok(None);
            }
            let chunk = self.follower.next_chunk(visible.min(self.until)).await;
            match chunk.map_err(|error| BodyError::Storage(error.to_string()))? {
                Some(chunk) => return Ok(Some(chunk)),
                None if end.is_some() => return Ok(None),
                None => self.change().await,
            }
        }
    }
}

/// Says to a follower why the writer failed.
fn broken_off(error: &MediaError) -> BodyError {
    match error {
        MediaError::Body(BodyError::TooLarge { limit }) => BodyError::TooLarge { limit: *limit },
        MediaError::Body(BodyError::TimedOut) => BodyError::TimedOut,
        MediaError::Store(error) => BodyError::Storage(error.to_string()),
        MediaError::Shared(error) => broken_off(error),
        _ => BodyError::Gone,
    }
}

#[cfg(test)]
mod tests;
