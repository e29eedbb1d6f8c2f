//! How many fetches there may be at once, and how much of the disk they may take before they end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::MediaError;
use super::share::{Share, ShareThere, Sharer, Shares, SharesThere};
use crate::types::{BodyError, BodyReader, ServerName};

/// How long a fetch waits for others to end where there are too many.
const PATIENCE: Duration = Duration::from_secs(10);

/// Into how many shares the places are divided, so that no user can take all of them, nor all those
/// without a token together.
const SHARES: usize = 4;

/// Into how many shares the places of one server are divided.
const SHARES_THERE: usize = 2;

/// How many may wait for another server to answer, for each that may fetch. They have places of their
/// own, so that servers which never answer keep nobody from a fetch that goes on; more of them at once
/// would be felt by whoever reads what is there.
const ASKING: usize = 1;

/// How often another server is begun to be asked, in the long run, and how many may be at once before
/// that: a handshake takes time of the threads that serve everybody.
const START_INTERVAL: Duration = Duration::from_millis(10);
const START_BURST: u32 = 16;

/// The unit that unfinished bytes are counted in.
const SPACE_UNIT: u64 = 64 * 1024;

/// The places and the room that fetches take.
pub(super) struct FetchPlaces {
    starts: Starts,
    asking: Arc<Semaphore>,
    shares: Arc<Shares>,
    shares_there: Arc<SharesThere>,
    places: Arc<Semaphore>,
    space: Arc<Semaphore>,
    max_unfinished: u64,
}

impl FetchPlaces {
    /// Makes so many places, of which so many may be for one server's media, and room for so many bytes.
    pub(super) fn new(max_fetches: usize, max_per_server: usize, max_unfinished: u64) -> Self {
        Self {
            starts: Starts::default(),
            shares_there: SharesThere::new(max_per_server.div_ceil(SHARES_THERE)),
            asking: Arc::new(Semaphore::new(
                max_fetches.saturating_mul(ASKING).min(Semaphore::MAX_PERMITS),
            )),
            shares: Shares::new(max_fetches.div_ceil(SHARES)),
            places: Arc::new(Semaphore::new(max_fetches)),
            space: Arc::new(Semaphore::new(units(max_unfinished) as usize)),
            max_unfinished,
        }
    }

    /// Takes one of the sharer's own places, and where another server is asked one of those that the
    /// sharer may have there: less than there are of that server for all.
    ///
    /// # Errors
    ///
    /// [`MediaError::TooManyFetches`] if none becomes free in time.
    pub(super) async fn of_sharer(
        &self,
        sharer: Sharer,
        server: Option<&ServerName>,
    ) -> Result<Own, MediaError> {
        let taken = timeout(PATIENCE, async {
            let in_all = self.shares.take(sharer.clone()).await;
            let there = match server {
                Some(server) => Some(self.shares_there.take((sharer, server.clone())).await),
                None => None,
            };
            Own { _in_all: in_all, _there: there }
        });
        taken.await.map_err(|_| MediaError::TooManyFetches)
    }

    /// Takes one of the places of those who wait for another server to answer, and waits until it may
    /// be begun to ask.
    ///
    /// # Errors
    ///
    /// [`MediaError::TooManyFetches`] if none becomes free in time.
    pub(super) async fn asking(&self) -> Result<OwnedSemaphorePermit, MediaError> {
        let place = wait_for(&self.asking, 1).await?;
        sleep(self.starts.wait(Instant::now())).await;
        Ok(place)
    }

    /// Takes one of the places of all, for somebody who has one of their own.
    ///
    /// # Errors
    ///
    /// [`MediaError::TooManyFetches`] if none becomes free in time.
    pub(super) async fn of_all(&self, own: Own) -> Result<Place, MediaError> {
        Ok(Place { _own: own, _of_all: wait_for(&self.places, 1).await? })
    }

    /// Takes room for a body of at most so many bytes that is to be unfinished for a while.
    ///
    /// # Errors
    ///
    /// [`MediaError::TooManyFetches`] if none becomes free in time.
    pub(super) async fn room(&self, size: u64) -> Result<OwnedSemaphorePermit, MediaError> {
        wait_for(&self.space, units(size.min(self.max_unfinished))).await
    }
}

/// When servers were begun to be asked: a leaky bucket.
#[derive(Default)]
struct Starts(Mutex<Option<Instant>>);

impl Starts {
    /// Takes the next turn and returns how long it is until then.
    fn wait(&self, now: Instant) -> Duration {
        let mut whole_at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = whole_at.map_or(now, |moment| moment.max(now));
        *whole_at = Some(mine + START_INTERVAL);
        (mine - now).saturating_sub(START_INTERVAL * (START_BURST - 1))
    }
}

/// What a fetch takes of what its asker may have: in all, and of one server.
pub(super) struct Own {
    _in_all: Share,
    _there: Option<ShareThere>,
}

/// What a fetch takes of what there is for all.
pub(super) struct Place {
    _own: Own,
    _of_all: OwnedSemaphorePermit,
}

impl Place {
    /// Holds the place as long as a body is being read, and no longer than until then.
    pub(super) fn held_by(self, body: Box<dyn BodyReader>, until: Instant) -> impl BodyReader {
        Placed { body, until, _place: self }
    }
}

struct Placed {
    body: Box<dyn BodyReader>,
    until: Instant,
    _place: Place,
}

#[async_trait]
impl BodyReader for Placed {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        timeout_at(self.until, self.body.next()).await.unwrap_or(Err(BodyError::TimedOut))
    }
}

/// Waits for a place, but not for ever.
async fn wait_for(places: &Arc<Semaphore>, count: u32) -> Result<OwnedSemaphorePermit, MediaError> {
    match timeout(PATIENCE, Arc::clone(places).acquire_many_owned(count)).await {
        Ok(Ok(permit)) => Ok(permit),
        // They are never closed.
        Ok(Err(_)) | Err(_) => Err(MediaError::TooManyFetches),
    }
}

fn units(bytes: u64) -> u32 {
    let most = u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX);
    u32::try_from(bytes.div_ceil(SPACE_UNIT)).unwrap_or(u32::MAX).clamp(1, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_begins_at_once_and_the_rest_one_by_one() {
        let (starts, now) = (Starts::default(), Instant::now());
        for _ in 0..START_BURST {
            assert_eq!(starts.wait(now), Duration::ZERO);
        }
        for turn in 1..10 {
            assert_eq!(starts.wait(now), START_INTERVAL * turn);
        }
        let later = now + START_INTERVAL * (START_BURST + 20);
        assert_eq!(starts.wait(later), Duration::ZERO, "who has not asked for long begins anew");
    }
}
