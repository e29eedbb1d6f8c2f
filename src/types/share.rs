//! Places that are shared out, so that one asker cannot take all of them.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Gives every asker so many places at once. Remembers only those who have or await one.
pub struct Shares<K> {
    size: usize,
    taken: Mutex<HashMap<K, Arc<Semaphore>>>,
}

impl<K: Hash + Eq + Clone> Shares<K> {
    /// Makes shares of so many places each.
    pub fn new(size: usize) -> Arc<Self> {
        Arc::new(Self { size, taken: Mutex::default() })
    }

    /// Waits for one of the asker's own places; the wait can be given up.
    pub async fn take(self: &Arc<Self>, sharer: K) -> Share<K> {
        let places = self.places_of(&sharer);
        // Made before the wait, so that a wait that is given up leaves nothing behind.
        let mut share = Share { shares: Arc::clone(self), sharer, place: None };
        share.place = places.acquire_owned().await.ok();
        share
    }

    /// Takes one of the asker's own places, if one is free.
    pub fn try_take(self: &Arc<Self>, sharer: K) -> Option<Share<K>> {
        let places = self.places_of(&sharer);
        let mut share = Share { shares: Arc::clone(self), sharer, place: None };
        share.place = Some(places.try_acquire_owned().ok()?);
        Some(share)
    }

    fn places_of(&self, sharer: &K) -> Arc<Semaphore> {
        let mut taken = self.taken();
        let places = taken.entry(sharer.clone());
        Arc::clone(places.or_insert_with(|| Arc::new(Semaphore::new(self.size))))
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<K, Arc<Semaphore>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place of somebody's share, until it is dropped.
pub struct Share<K: Hash + Eq + Clone> {
    shares: Arc<Shares<K>>,
    sharer: K,
    place: Option<OwnedSemaphorePermit>,
}

impl<K: Hash + Eq + Clone> Drop for Share<K> {
    fn drop(&mut self) {
        drop(self.place.take());
        let mut taken = self.shares.taken();
        // Those who have or await a place own the semaphore too.
        if taken.get(&self.sharer).is_some_and(|places| Arc::strong_count(places) == 1) {
            taken.remove(&self.sharer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::poll_once;
    use std::pin::pin;
    use std::task::Poll;

    #[tokio::test]
    async fn whoever_has_taken_all_of_their_own_places_waits_and_others_do_not() {
        let shares = Shares::new(2);
        let first = shares.take("alice").await;
        let _second = shares.take("alice").await;
        let mut third = pin!(shares.take("alice"));
        assert!(poll_once(&mut third).await.is_pending());
        let _other = shares.take("bob").await;
        let _stranger = shares.take("anybody").await;
        drop(first);
        assert!(matches!(poll_once(&mut third).await, Poll::Ready(_)));
    }

    #[tokio::test]
    async fn whoever_does_not_wait_gets_a_free_place_of_their_own_or_none() {
        let shares = Shares::new(1);
        let place = shares.try_take("alice").unwrap();
        assert!(shares.try_take("alice").is_none());
        assert!(shares.try_take("bob").is_some());
        assert_eq!(shares.taken().len(), 1);
        drop(place);
        assert!(shares.taken().is_empty());
        assert!(shares.try_take("alice").is_some());
    }

    #[tokio::test]
    async fn nobody_is_remembered_who_neither_has_nor_awaits_a_place() {
        let shares = Shares::new(1);
        let place = shares.take("alice").await;
        {
            let mut given_up = pin!(shares.take("alice"));
            assert!(poll_once(&mut given_up).await.is_pending());
        }
        assert_eq!(shares.taken().len(), 1);
        drop(place);
        assert!(shares.taken().is_empty());
        drop(shares.take("anybody").await);
        assert!(shares.taken().is_empty());
    }
}
