//! Which blobs are between their rename and their record, and must not be taken for litter.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use crate::types::ContentHash;

/// The blobs that are being published right now, each with how many are at it.
#[derive(Default)]
pub(super) struct Publishing(Mutex<HashMap<ContentHash, usize>>);

impl Publishing {
    /// Keeps a blob from removal until the guard is dropped, which is after its record is committed.
    pub(super) fn begin(&self, content_hash: ContentHash) -> InPublication<'_> {
        *self.active().entry(content_hash).or_default() += 1;
        InPublication { publishing: self, content_hash }
    }

    /// Does something to a blob that nobody is publishing, nor can begin to publish meanwhile.
    ///
    /// Returns `None`, and does nothing, if somebody is.
    pub(super) fn unless_active<T>(
        &self,
        content_hash: &ContentHash,
        work: impl FnOnce() -> T,
    ) -> Option<T> {
        let active = self.active();
        (!active.contains_key(content_hash)).then(work)
    }

    fn active(&self) -> MutexGuard<'_, HashMap<ContentHash, usize>> {
        self.0.lock().expect("nothing panics while the set is locked")
    }
}

/// Proof that a blob is safe from removal.
pub(super) struct InPublication<'a> {
    publishing: &'a Publishing,
    content_hash: ContentHash,
}

impl Drop for InPublication<'_> {
    fn drop(&mut self) {
        let mut active = self.publishing.active();
        if let Some(count) = active.get_mut(&self.content_hash) {
            *count -= 1;
            if *count == 0 {
                active.remove(&self.content_hash);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_left_alone_until_its_last_publisher_is_done() {
        let publishing = Publishing::default();
        let [one, other] = [ContentHash([1; 32]), ContentHash([2; 32])];
        let first = publishing.begin(one);
        let second = publishing.begin(one);
        assert_eq!(publishing.unless_active(&one, || ()), None);
        assert_eq!(publishing.unless_active(&other, || ()), Some(()));
        drop(first);
        assert_eq!(publishing.unless_active(&one, || ()), None);
        drop(second);
        assert_eq!(publishing.unless_active(&one, || ()), Some(()));
    }
}
