//! How many connections one address may have.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::num::NonZero;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::types::ClientNetwork;

/// Counts the connections of each client, and refuses those past a limit.
///
/// As large as there are connections: who has none is not remembered.
pub struct Places {
    limit: usize,
    taken: Mutex<HashMap<ClientNetwork, NonZero<usize>>>,
}

/// One place, given back when it is dropped.
pub struct Place {
    places: Arc<Places>,
    client: ClientNetwork,
}

impl Places {
    /// Gives each client so many places.
    pub fn new(limit: usize) -> Self {
        Self { limit, taken: Mutex::default() }
    }

    /// Takes a place for a client, if there is one.
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let client = ClientNetwork::of(address);
        let mut taken = self.taken();
        match taken.entry(client) {
            Entry::Occupied(mut entry) => {
                let more = entry.get().checked_add(1).filter(|more| more.get() <= self.limit)?;
                entry.insert(more);
            }
            Entry::Vacant(entry) => {
                if self.limit == 0 {
                    return None;
                }
                entry.insert(NonZero::<usize>::MIN);
            }
        }
        Some(Place { places: self.clone(), client })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<ClientNetwork, NonZero<usize>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.places.taken().entry(self.client) {
            match NonZero::new(entry.get().get() - 1) {
                Some(fewer) => {
                    entry.insert(fewer);
                }
                None => {
                    entry.remove();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_client_has_its_own_places_and_gets_them_back() {
        let places = Arc::new(Places::new(2));
        let alice = address("192.0.2.1");
        let (one, _two) = (places.take(alice).unwrap(), places.take(alice).unwrap());
        assert!(places.take(alice).is_none());
        assert!(places.take(address("192.0.2.2")).is_some());
        drop(one);
        assert!(places.take(alice).is_some());
    }

    #[test]
    fn who_has_no_connection_is_not_remembered() {
        let places = Arc::new(Places::new(3));
        for number in 0..10_000_u32 {
            let _place = places.take(IpAddr::V4(number.into())).unwrap();
        }
        assert!(places.taken().is_empty());
    }
}
