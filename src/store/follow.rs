//! Reading a body while it is still being written.
//!
//! The writer says how far the file goes, and every follower reads it at its own pace, out of what
//! the system has in memory. A follower holds one block and a position, nothing of the body.

use std::fs::File;
use std::io::{self, ErrorKind, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustix::io::{ReadWriteFlags, preadv2};
use tokio::sync::watch;

use super::checksum::{BLOCK_SIZE, matches};
use super::lent::Lent;
use super::{StoreError, on_blocking_pool};

/// How far a body has been written, shared by its one writer and all who follow.
pub(super) struct Growth {
    written: watch::Sender<u64>,
    /// The checksums of the blocks that are whole.
    checksums: Mutex<Vec<u32>>,
}

impl Growth {
    pub(super) fn new() -> Self {
        Self { written: watch::Sender::new(0), checksums: Mutex::default() }
    }

    /// Says that the file now holds `written` bytes, and what the checksums of the blocks are that
    /// have become whole.
    pub(super) fn extend(&self, written: u64, finished: &[u32]) {
        self.checksums().extend_from_slice(finished);
        self.written.send_replace(written);
    }

    fn checksum(&self, block: u64) -> Option<u32> {
        self.checksums().get(usize::try_from(block).ok()?).copied()
    }

    fn checksums(&self) -> MutexGuard<'_, Vec<u32>> {
        self.checksums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body that is being written, for any number of followers to begin with.
#[derive(Clone)]
pub struct Growing {
    pub(super) file: Arc<File>,
    pub(super) growth: Arc<Growth>,
}

impl Growing {
    /// Returns how many bytes have been written.
    pub fn written(&self) -> u64 {
        *self.growth.written.borrow()
    }

    /// Returns a follower that begins at a position, which may not have been written yet.
    pub fn follow(&self, position: u64) -> Follower {
        Follower {
            file: Arc::clone(&self.file),
            growth: Arc::clone(&self.growth),
            written: self.growth.written.subscribe(),
            position,
            lent: Lent::default(),
        }
    }
}

/// Reads a body that is being written, from a position on.
///
/// What it reads has been written, not committed. The file stays readable when the body has got its
/// name, and also when the writing has failed and the file is gone.
pub struct Follower {
    file: Arc<File>,
    growth: Arc<Growth>,
    written: watch::Receiver<u64>,
    position: u64,
    lent: Lent,
}

impl Follower {
    /// Returns where the next chunk begins.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Returns how many bytes have been written.
    pub fn written(&mut self) -> u64 {
        *self.written.borrow_and_update()
    }

    /// Waits until more has been written than the last [`written`](Self::written) has said; for
    /// ever if nothing more will be. The wait can be given up.
    pub async fn grown(&mut self) {
        // The sender lives as long as the file is shared, so it is never gone before us.
        let _ = self.written.changed().await;
    }

    /// Returns the next bytes, at most 64 KiB, that end before position `end`; `None` if there are
    /// none yet. Does not wait for the writer.
    ///
    /// The bytes of blocks that are whole have been checked against what was written. It can be
    /// given up and called again without losing bytes.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if they cannot be read or are not what was written.
    pub async fn next_chunk(&mut self, end: u64) -> Result<Option<Bytes>, StoreError> {
        let end = end.min(self.written());
        if self.position >= end {
            return Ok(None);
        }
        let block = self.position / BLOCK_SIZE as u64;
        let start = block * BLOCK_SIZE as u64;
        let chunk = if let Some(checksum) = self.growth.checksum(block) {
            let whole = self.read(start, BLOCK_SIZE).await?;
            if !matches(&whole, &[checksum]) {
                return Err(changed_on_disk());
            }
            self.lent.lend(&whole);
            whole.slice(within(start, self.position)..within(start, end).min(BLOCK_SIZE))
        } else {
            let length = within(self.position, end).min(BLOCK_SIZE - within(start, self.position));
            let part = self.read(self.position, length).await?;
            self.lent.lend(&part);
            part
        };
        self.position += chunk.len() as u64;
        Ok(Some(chunk))
    }

    async fn read(&mut self, start: u64, length: usize) -> Result<Bytes, StoreError> {
        let mut buffer = self.lent.room(length);
        let mut whole = [IoSliceMut::new(&mut buffer)];
        let ready = preadv2(&self.file, &mut whole, start, ReadWriteFlags::NOWAIT).unwrap_or(0);
        if ready < length {
            let file = Arc::clone(&self.file);
            buffer = on_blocking_pool(move || {
                file.read_exact_at(&mut buffer[ready..], start + ready as u64)
                    .map_err(StoreError::io("read a body that is arriving"))?;
                Ok(buffer)
            })
            .await?;
        }
        Ok(buffer.freeze())
    }
}

/// Returns how far a position lies behind a start, as memory counts.
fn within(start: u64, position: u64) -> usize {
    usize::try_from(position - start).unwrap_or(usize::MAX)
}

fn changed_on_disk() -> StoreError {
    let error = io::Error::new(ErrorKind::InvalidData, "it does not match its checksums");
    StoreError::io("read a body that is arriving")(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{body, new_media, open};
    use crate::store::{MediaSource, Staging};
    use proptest::prelude::*;
    use tokio::runtime::Builder;

    /// Pushes what was written and waits until it is in the file.
    async fn push(staging: &mut Staging) {
        let mut follower = staging.growing().follow(0);
        staging.push().await.unwrap();
        while follower.written() < staging.size() {
            follower.grown().await;
        }
    }

    async fn rest(follower: &mut Follower) -> Vec<u8> {
        let mut seen = Vec::new();
        while let Some(chunk) = follower.next_chunk(u64::MAX).await.unwrap() {
            assert!((1..=BLOCK_SIZE).contains(&chunk.len()));
            seen.extend_from_slice(&chunk);
        }
        seen
    }

    #[tokio::test]
    async fn a_follower_reads_what_was_pushed_and_goes_on_after_the_commit() {
        let (_directory, store) = open();
        let mut staging = store.stage().await.unwrap();
        let mut follower = staging.growing().follow(0);
        assert_eq!(follower.next_chunk(u64::MAX).await.unwrap(), None);
        staging.write(b"first ").await.unwrap();
        assert_eq!(follower.next_chunk(u64::MAX).await.unwrap(), None, "it is still gathering");
        push(&mut staging).await;
        assert_eq!(rest(&mut follower).await, b"first ");
        staging.write(b"second").await.unwrap();
        store.commit_media(staging, new_media("followed", MediaSource::Owned)).await.unwrap();
        assert_eq!(rest(&mut follower).await, b"second");
    }

    #[tokio::test]
    async fn a_follower_reads_on_although_the_body_was_given_up() {
        let (_directory, store) = open();
        let mut staging = store.stage().await.unwrap();
        staging.write(b"body").await.unwrap();
        push(&mut staging).await;
        let mut follower = staging.growing().follow(1);
        staging.discard().await;
        assert_eq!(rest(&mut follower).await, b"ody");
    }

    #[tokio::test]
    async fn a_whole_block_that_changed_on_disk_is_not_handed_out() {
        let (_directory, store) = open();
        let mut staging = store.stage().await.unwrap();
        staging.write(&body(BLOCK_SIZE + 1)).await.unwrap();
        push(&mut staging).await;
        let growing = staging.growing();
        growing.file.write_all_at(b"?", 100).unwrap();
        let refused = growing.follow(50).next_chunk(60).await;
        assert!(matches!(refused, Err(StoreError::Io { .. })), "{refused:?}");
        let mut follower = growing.follow(BLOCK_SIZE as u64);
        assert_eq!(rest(&mut follower).await.len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn every_follower_reads_the_bytes_from_its_position_to_its_end(
            length in 0..3 * BLOCK_SIZE,
            pieces in proptest::collection::vec(1..2 * BLOCK_SIZE, 1..6),
            followers in proptest::collection::vec((0..3 * BLOCK_SIZE, 0..3 * BLOCK_SIZE), 1..4),
        ) {
            let whole = body(length);
            let runtime = Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let (_directory, store) = open();
                let mut staging = store.stage().await.unwrap();
                let growing = staging.growing();
                let mut reading: Vec<_> = followers
                    .iter()
                    .map(|&(from, end)| (growing.follow(from as u64), from, end, Vec::new()))
                    .collect();
                let mut left = &whole[..];
                for size in pieces.iter().cycle() {
                    let (now, later) = left.split_at(left.len().min(*size));
                    staging.write(now).await.unwrap();
                    push(&mut staging).await;
                    for (follower, _, end, seen) in &mut reading {
                        while let Some(chunk) = follower.next_chunk(*end as u64).await.unwrap() {
                            seen.extend_from_slice(&chunk);
                        }
                    }
                    left = later;
                    if left.is_empty() {
                        break;
                    }
                }
                for (_, from, end, seen) in reading {
                    let end = end.min(length);
                    assert_eq!(seen, &whole[from.min(end)..end]);
                }
            });
        }
    }
}
