//! Places that are shared out, so that one asker cannot take all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::types::{ServerName, UserId};

/// Whose share is taken.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Sharer {
    /// A user's.
    User(UserId),
    /// Another server's.
    Server(ServerName),
    /// That of everybody without a token, together.
    Anybody,
}

/// Gives every asker so many places at once. Remembers only those who have or await one.
pub(super) struct Shares {
    size: usize,
    taken: Mutex<HashMap<Sharer, Arc<Semaphore>>>,
}

impl Shares {
    /// Makes shares of so many places each.
    pub(super) fn new(size: usize) -> Arc<Self> {
        Arc::new(Self { size, taken: Mutex::default() })
    }

    /// Waits for one of the asker's own places; the wait can be given up.
    pub(super) async fn take(self: &Arc<Self>, sharer: Sharer) -> Share {
        let places = {
            let mut taken = self.taken();
            let places = taken.entry(sharer.clone());
            Arc::clone(places.or_insert_with(|| Arc::new(Semaphore::new(self.size))))
        };
        // Made before the wait, so that a wait that is given up leaves nothing behind.
        let mut share = Share { shares: Arc::clone(self), sharer, place: None };
        share.place = places.acquire_owned().await.ok();
        share
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<Sharer, Arc<Semaphore>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place of somebody's share, until it is dropped.
pub(super) struct Share {
    shares: Arc<Shares>,
    sharer: Sharer,
    place: Option<OwnedSemaphorePermit>,
}

impl Drop for Share {
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

    fn user(name: &str) -> Sharer {
        Sharer::User(format!("@{name}:example.org").parse().unwrap())
    }

    #[tokio::test]
    async fn whoever_has_taken_all_of_their_own_places_waits_and_others_do_not() {
        let shares = Shares::new(2);
        let first = shares.take(user("alice")).await;
        let _second = shares.take(user("alice")).await;
        let mut third = pin!(shares.take(user("alice")));
        assert!(poll_once(&mut third).await.is_pending());
        let _other = shares.take(user("bob")).await;
        let _stranger = shares.take(Sharer::Anybody).await;
        drop(first);
        assert!(matches!(poll_once(&mut third).await, Poll::Ready(_)));
    }

    #[tokio::test]
    async fn nobody_is_remembered_who_neither_has_nor_awaits_a_place() {
        let shares = Shares::new(1);
        let place = shares.take(user("alice")).await;
        {
            let mut given_up = pin!(shares.take(user("alice")));
            assert!(poll_once(&mut given_up).await.is_pending());
        }
        assert_eq!(shares.taken().len(), 1);
        drop(place);
        assert!(shares.taken().is_empty());
        drop(shares.take(Sharer::Anybody).await);
        assert!(shares.taken().is_empty());
    }
}
