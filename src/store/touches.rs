//! When contents were last read, until that is kept in the database.
//!
//! A write for each read would cost more than the read. So the times gather here and are kept together
//! now and then; a crash loses those of the last few seconds, and no more than that.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use crate::types::{ContentHash, UnixMillis};

/// How many parts there are, so that the threads that serve seldom wait for one another.
const SHARDS: usize = 16;

/// How many contents one part takes. Past that new ones are dropped until the next flush: who reads so
/// many in a few seconds does not read them often, and a reader should not have to wait for a flush.
const MAX_PER_SHARD: usize = 2048;

/// The last access to each content that was read since they were taken.
#[derive(Default)]
pub(super) struct Touches {
    shards: [Mutex<HashMap<ContentHash, UnixMillis>>; SHARDS],
}

impl Touches {
    /// Notes that a content is read. Costs no allocation for one that was noted before.
    pub(super) fn note(&self, content_hash: &ContentHash, now: UnixMillis) {
        let mut shard = lock(&self.shards[usize::from(content_hash.as_bytes()[0]) % SHARDS]);
        if let Some(last) = shard.get_mut(content_hash) {
            *last = now.max(*last);
        } else if shard.len() < MAX_PER_SHARD {
            shard.insert(*content_hash, now);
        }
    }

    /// Takes everything that was noted. The room for it stays.
    pub(super) fn take(&self) -> Vec<(ContentHash, UnixMillis)> {
        self.shards.iter().flat_map(|shard| lock(shard).drain().collect::<Vec<_>>()).collect()
    }
}

fn lock(
    shard: &Mutex<HashMap<ContentHash, UnixMillis>>,
) -> MutexGuard<'_, HashMap<ContentHash, UnixMillis>> {
    shard.lock().expect("nothing panics while the map is locked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_access_to_each_content_is_taken_once() {
        let touches = Touches::default();
        let [one, other] = [ContentHash([1; 32]), ContentHash([2; 32])];
        for (content_hash, time) in [(one, 5), (other, 7), (one, 9), (one, 8)] {
            touches.note(&content_hash, UnixMillis(time));
        }
        let mut taken = touches.take();
        taken.sort_by_key(|(_, time)| *time);
        assert_eq!(taken, [(other, UnixMillis(7)), (one, UnixMillis(9))]);
        assert_eq!(touches.take(), []);
    }

    #[test]
    fn what_is_noted_is_bounded_and_what_is_known_still_moves_on() {
        let touches = Touches::default();
        let known = ContentHash([0; 32]);
        touches.note(&known, UnixMillis(1));
        for number in 0..100_000_u32 {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            bytes[4] = 1;
            touches.note(&ContentHash(bytes), UnixMillis(2));
        }
        touches.note(&known, UnixMillis(3));
        let taken = touches.take();
        assert_eq!(taken.len(), SHARDS * MAX_PER_SHARD);
        assert!(taken.contains(&(known, UnixMillis(3))));
    }
}
