//! Who is remembered by a limit, and since when: a table of bounded size.
//!
//! Each request goes through it, so it is plain: some maps, each behind a lock of its own that is held
//! for one look-up. Each has two generations. Who asks is in the young one; when that is full, and
//! throwing out whoever needs no memory does not help, it becomes the old one, and the old one is
//! forgotten. So whoever is forgotten has not asked since as many others as a generation holds.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Ticks;

/// How many maps there are in a large table: threads seldom meet at one.
const SHARDS: usize = 16;

/// The fewest entries for which a table is divided.
const LARGE: usize = 1024;

/// A moment for each of many, of which those that lie behind mean nothing.
pub(super) struct Table<K> {
    shards: Box<[Mutex<Shard<K>>]>,
    /// How many entries each generation of a shard has at most.
    generation: usize,
    hasher: RandomState,
}

struct Shard<K> {
    young: HashMap<K, Ticks>,
    old: HashMap<K, Ticks>,
}

impl<K: Hash + Eq + Clone> Table<K> {
    /// Makes a table of at most so many entries, but two at least.
    pub(super) fn new(capacity: usize) -> Self {
        let count = if capacity < LARGE { 1 } else { SHARDS };
        let shard = || Mutex::new(Shard { young: HashMap::new(), old: HashMap::new() });
        Self {
            shards: (0..count).map(|_| shard()).collect(),
            generation: (capacity / count / 2).max(1),
            hasher: RandomState::new(),
        }
    }

    /// Returns somebody's moment, if there is one that lies ahead.
    pub(super) fn get(&self, key: &K, now: Ticks) -> Option<Ticks> {
        let shard = self.shard(key);
        let moment = shard.young.get(key).or_else(|| shard.old.get(key));
        moment.copied().filter(|moment| *moment > now)
    }

    /// Replaces somebody's moment by what `change` makes of it, `None` standing for one that does not
    /// lie ahead, before and after. Nobody sees anything between.
    pub(super) fn update<T>(
        &self,
        key: &K,
        now: Ticks,
        change: impl FnOnce(Option<Ticks>) -> (Option<Ticks>, T),
    ) -> T {
        let mut shard = self.shard(key);
        if let Some(moment) = shard.young.get_mut(key) {
            let (changed, outcome) = change(Some(*moment).filter(|moment| *moment > now));
            // What lies behind is thrown out with others of its kind.
            *moment = changed.unwrap_or(0);
            return outcome;
        }
        let before = shard.old.remove(key);
        let (changed, outcome) = change(before.filter(|moment| *moment > now));
        if let Some(moment) = changed {
            shard.make_room(self.generation, now);
            shard.young.insert(key.clone(), moment);
        }
        outcome
    }

    fn shard(&self, key: &K) -> MutexGuard<'_, Shard<K>> {
        let hash = self.hasher.hash_one(key) as usize;
        let shard = &self.shards[hash % self.shards.len()];
        // Each entry is whole at every moment, so a panic elsewhere does not matter.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how many are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let shard = |shard: &Mutex<Shard<K>>| {
            let shard = shard.lock().unwrap();
            shard.young.len() + shard.old.len()
        };
        self.shards.iter().map(shard).sum()
    }
}

impl<K: Hash + Eq> Shard<K> {
    fn make_room(&mut self, generation: usize, now: Ticks) {
        if self.young.len() < generation {
            return;
        }
        self.young.retain(|_, moment| *moment > now);
        // Half of it has to be free, or the next one would go through all of it again.
        if self.young.len() > generation / 2 {
            self.old = std::mem::take(&mut self.young);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn put(table: &Table<u32>, key: u32, now: Ticks, moment: Ticks) {
        table.update(&key, now, |_| (Some(moment), ()));
    }

    #[test]
    fn what_lies_behind_is_as_if_it_had_never_been() {
        let table = Table::new(10);
        put(&table, 1, 0, 100);
        assert_eq!(table.get(&1, 99), Some(100));
        assert_eq!(table.get(&1, 100), None);
        assert_eq!(table.update(&1, 99, |moment| (moment, moment)), Some(100));
        assert_eq!(table.update(&1, 100, |moment| (moment, moment)), None);
        assert_eq!(table.get(&1, 0), None);
        assert_eq!(table.get(&2, 0), None);
    }

    #[test]
    fn many_who_need_no_memory_push_nobody_out_who_does() {
        let table = Table::new(2000);
        put(&table, 0, 0, 1_000_000_000);
        for number in 1..1_000_000 {
            put(&table, number, number.into(), Ticks::from(number) + 10);
            assert!(number % 1000 != 0 || table.len() <= 2000);
        }
        assert_eq!(table.get(&0, 1_000_000), Some(1_000_000_000));
    }

    #[test]
    fn of_too_many_those_go_that_did_not_ask_for_the_longest_time() {
        let table = Table::new(2000);
        for number in 0..100_000 {
            put(&table, number, 0, 1);
            put(&table, u32::MAX, 0, 7);
        }
        assert!(table.len() <= 2000, "{}", table.len());
        assert_eq!(table.get(&u32::MAX, 0), Some(7));
        assert_eq!(table.get(&99_999, 0), Some(1));
        assert_eq!(table.get(&0, 0), None);
    }

    proptest! {
        #[test]
        fn whoever_asked_among_the_last_is_remembered_and_no_more_than_there_is_room_for(
            capacity in 0_usize..40,
            keys in proptest::collection::vec(0_u32..60, 1..400),
        ) {
            let table = Table::new(capacity);
            let generation = (capacity / 2).max(1);
            let mut last = VecDeque::new();
            for (moment, key) in (1..).zip(keys) {
                put(&table, key, 0, moment);
                last.retain(|(other, _)| *other != key);
                last.push_back((key, moment));
                if last.len() > generation {
                    last.pop_front();
                }
                prop_assert!(table.len() <= capacity.max(2));
                for (key, moment) in &last {
                    prop_assert_eq!(table.get(key, 0), Some(*moment));
                }
            }
        }
    }
}
