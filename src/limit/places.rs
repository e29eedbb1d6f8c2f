//! How many of something each may have at once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::num::NonZero;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts what each has, connections of an address or requests of a server, and refuses what is past a
/// limit.
///
/// As large as there are places taken: who has none is not remembered.
pub struct Places<K: Hash + Eq + Clone> {
    limit: usize,
    taken: Mutex<HashMap<K, NonZero<usize>>>,
}

/// One place, given back when it is dropped.
pub struct Place<K: Hash + Eq + Clone> {
    places: Arc<Places<K>>,
    holder: K,
}

impl<K: Hash + Eq + Clone> Places<K> {
    /// Gives each so many places.
    pub fn new(limit: usize) -> Self {
        Self { limit, taken: Mutex::default() }
    }

    /// Takes a place for somebody, if there is one.
    pub fn take(self: &Arc<Self>, holder: K) -> Option<Place<K>> {
        let mut taken = self.taken();
        match taken.entry(holder.clone()) {
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
        drop(taken);
        Some(Place { places: self.clone(), holder })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<K, NonZero<usize>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq + Clone> Drop for Place<K> {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.places.taken().entry(self.holder.clone()) {
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

    #[test]
    fn each_has_its_own_places_and_gets_them_back() {
        let places = Arc::new(Places::new(2));
        let alice = "alice";
        let (one, _two) = (places.take(alice).unwrap(), places.take(alice).unwrap());
        assert!(places.take(alice).is_none());
        assert!(places.take("bob").is_some());
        drop(one);
        assert!(places.take(alice).is_some());
    }

    #[test]
    fn who_has_no_place_is_not_remembered() {
        let places = Arc::new(Places::new(3));
        for number in 0..10_000_u32 {
            let _place = places.take(number).unwrap();
        }
        assert!(places.taken().is_empty());
    }
}
