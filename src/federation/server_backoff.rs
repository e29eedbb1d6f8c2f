//! How servers have behaved: who is left alone for a while, and how much is fetched of each at once.
//!
//! What is remembered has a bound: of too many servers those are forgotten that were not heard of for
//! the longest time. A server that is left alone costs a look into a table.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::backoff::{Jitter, doubled};
use super::fetch::FetchError;
use crate::types::{MediaId, ServerName, Share, Shares};

/// How long a server is left alone after its first failure, so that a crowd does not hammer it.
const FIRST_DELAY: Duration = Duration::from_secs(3);

/// How long at most, whatever it asks for (threats FE-15).
const MAX_DELAY: Duration = Duration::from_secs(60 * 60);

/// How long at most if it does answer, with a failure of its own: that may be about this media alone.
const MAX_DELAY_OF_ERRORS: Duration = Duration::from_secs(60);

/// How long a failure counts after the server may be asked again.
const MEMORY: Duration = Duration::from_secs(60 * 60);

/// How many servers each of two generations of the table has at most.
const GENERATION: usize = 5_000;

/// How long a fetch waits for others of the same server to end where there are too many.
const PLACE_PATIENCE: Duration = Duration::from_secs(10);

/// How many media ids a server has to fail for, with no good answer between, before it is left alone for
/// its answers: one that cannot be had shall not cost all others (threats FE-15).
const ERRING_IDS: usize = 3;

/// The host in its canonical form and the port: other spellings are no other servers.
type Key = (Box<str>, Option<u16>);

/// How a server failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure<'m> {
    /// It was not found, not reached, or gave no answer.
    Silent,
    /// It answers that it cannot, when asked for this.
    Erring(&'m MediaId),
}

/// What is known of all servers. There is one for all fetches.
pub(super) struct ServerBackoff {
    table: Mutex<Table>,
    places: Arc<Shares<Key>>,
    jitter: Jitter,
    /// Makes hashes that nobody outside can make two ids have in common.
    id_hashes: RandomState,
}

/// A place among the fetches of one server's media, until it is dropped.
pub struct FetchPlace {
    _share: Share<Key>,
}

/// What is remembered of a server.
#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    /// How often it failed without a success between, in periods of being left alone.
    failures: u32,
    /// Until when it is left alone.
    until: Option<Instant>,
    /// Whether it has asked for that.
    has_asked: bool,
    /// Hashes of the media ids that it has failed for since its last good answer.
    erred_for: [Option<u64>; ERRING_IDS],
}

impl Standing {
    fn left_alone(&self, now: Instant) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }

    /// Notes that it failed for an id, and returns whether it has for so many that it is not about them.
    fn errs(&mut self, id: u64) -> bool {
        if !self.erred_for.contains(&Some(id))
            && let Some(free) = self.erred_for.iter_mut().find(|known| known.is_none())
        {
            *free = Some(id);
        }
        self.erred_for.iter().all(Option::is_some)
    }
}

/// Two generations: whoever is heard of is in the young one, and when that is full it becomes the old
/// one, which is forgotten.
#[derive(Default)]
struct Table {
    young: HashMap<Key, Standing>,
    old: HashMap<Key, Standing>,
}

impl Table {
    fn get(&self, key: &Key) -> Option<&Standing> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    fn remove(&mut self, key: &Key) {
        self.young.remove(key);
        self.old.remove(key);
    }

    fn entry(&mut self, key: Key) -> &mut Standing {
        if self.young.len() >= GENERATION && !self.young.contains_key(&key) {
            self.old = mem::take(&mut self.young);
        }
        let known = self.old.remove(&key).unwrap_or_default();
        self.young.entry(key).or_insert(known)
    }
}

impl ServerBackoff {
    /// Knows nothing yet, and gives each server so many places.
    pub(super) fn new(max_per_server: usize) -> Self {
        Self {
            table: Mutex::default(),
            places: Shares::new(max_per_server),
            jitter: Jitter::new(),
            id_hashes: RandomState::new(),
        }
    }

    /// Takes a place of a server that is not left alone.
    ///
    /// # Errors
    ///
    /// [`FetchError::BackedOff`], [`FetchError::TooMany`] if no place becomes free in time.
    pub(super) async fn enter(
        &self,
        server: &ServerName,
        deadline: Instant,
    ) -> Result<FetchPlace, FetchError> {
        self.check(server, Instant::now())?;
        let deadline = deadline.min(Instant::now() + PLACE_PATIENCE);
        let share = timeout_at(deadline, self.places.take(key(server))).await;
        let place = FetchPlace { _share: share.map_err(|_| FetchError::TooMany)? };
        // Others may have found out meanwhile.
        self.check(server, Instant::now())?;
        Ok(place)
    }

    /// Makes sure that a server is not left alone.
    ///
    /// # Errors
    ///
    /// [`FetchError::BackedOff`].
    pub(super) fn check(&self, server: &ServerName, now: Instant) -> Result<(), FetchError> {
        let left = self.table().get(&key(server)).and_then(|standing| standing.left_alone(now));
        left.map_or(Ok(()), |retry_after| Err(FetchError::BackedOff { retry_after }))
    }

    /// Notes that a server did answer, which makes up for all failures, but not for its own wish to
    /// be left alone.
    pub(super) fn answered(&self, server: &ServerName, now: Instant) {
        let (mut table, key) = (self.table(), key(server));
        let keeps = table.get(&key).is_some_and(|s| s.has_asked && s.left_alone(now).is_some());
        if !keeps {
            table.remove(&key);
        }
    }

    /// Notes a failure: the server is left alone, for twice as long as after the one before. Failures
    /// of those who asked before that was known count as one, and one that it answers with counts only
    /// after others for other ids.
    pub(super) fn failed(&self, server: &ServerName, failure: Failure<'_>, now: Instant) {
        let key = key(server);
        let mut table = self.table();
        let standing = table.entry(key.clone());
        if standing.left_alone(now).is_some() {
            return;
        }
        if standing.until.is_some_and(|until| now.saturating_duration_since(until) > MEMORY) {
            *standing = Standing::default();
        }
        let most = match failure {
            Failure::Silent => MAX_DELAY,
            Failure::Erring(id) if standing.errs(self.id_hashes.hash_one(id)) => {
                MAX_DELAY_OF_ERRORS
            }
            Failure::Erring(_) => return,
        };
        standing.failures = standing.failures.saturating_add(1);
        // So that many who failed together are not asked again together.
        let part = 0.75 + self.jitter.of((&key, standing.failures)) / 4.0;
        let delay = doubled(FIRST_DELAY, standing.failures, most).mul_f64(part);
        *standing = Standing { until: Some(now + delay), has_asked: false, ..*standing };
    }

    /// Notes that a server asks to be left alone.
    pub(super) fn has_asked(&self, server: &ServerName, patience: Duration, now: Instant) {
        let mut table = self.table();
        let standing = table.entry(key(server));
        let until = now + patience.min(MAX_DELAY);
        let until = standing.until.map_or(until, |other| other.max(until));
        *standing = Standing { until: Some(until), has_asked: true, ..*standing };
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Each entry is whole at every moment, so a panic elsewhere does not matter.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(server: &ServerName) -> Key {
    (server.canonical_host().into(), server.port())
}

#[cfg(test)]
mod tests;
