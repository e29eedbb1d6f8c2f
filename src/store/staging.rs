//! A body that is still arriving: one writer, a temporary file, and a hash that grows with it.
//!
//! What is written gathers into batches. While one batch is written, hashed and checksummed on the
//! blocking pool the next one gathers, so that neither the network nor the disk waits for the other
//! and the memory in use does not depend on the size of the body.

use std::fmt;
use std::fs::File;
use std::mem;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use ring::digest;
use rustix::fs::{FallocateFlags, fallocate};
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, spawn_blocking};

use super::blob::TempFile;
use super::checksum::BlockChecksums;
use super::follow::{Growing, Growth};
use super::{BlobRecord, StoreError, on_blocking_pool, outcome};
use crate::types::ContentHash;

/// How many bytes go to the blocking pool at once, at most. The hand-over costs some 50 µs, and
/// bodies arrive in pieces smaller than this.
const MAX_BATCH: usize = 128 * 1024;

/// The smallest batch that is worth a hand-over.
const MIN_BATCH: usize = 32 * 1024;

/// How much memory the batches of all bodies may take before they become smaller.
const BATCH_BUDGET: usize = 6 * 1024 * 1024;

/// A body on its way into the store.
///
/// Dropped without a commit, it leaves nothing on disk.
pub struct Staging {
    batch: Vec<u8>,
    flight: Flight,
    growing: Growing,
    /// Has as many owners as bodies are arriving, and one more.
    arriving: Arc<()>,
    /// How many bytes have been accepted.
    size: u64,
    /// A write has begun and has not ended, or has failed.
    torn: bool,
}

/// Where the file is.
enum Flight {
    /// At rest.
    Landed(Box<Spool>),
    /// With the blocking pool, which writes a batch.
    Flying(JoinHandle<Result<Box<Spool>, StoreError>>),
    /// Gone, for this reason.
    Lost(StoreError),
}

impl Staging {
    /// Begins a body; `arriving` is shared by all.
    pub(super) fn new(temp: TempFile, file: File, arriving: Arc<()>) -> Self {
        let growing = Growing { file: Arc::new(file), growth: Arc::new(Growth::new()) };
        let flight = Flight::Landed(Box::new(Spool::new(temp, growing.clone())));
        Self { batch: Vec::new(), flight, growing, arriving, size: 0, torn: false }
    }

    /// Returns how many bytes have been written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns what others need to follow the writing. It stays good after the commit.
    pub fn growing(&self) -> Growing {
        self.growing.clone()
    }

    /// Sets space on the disk apart for a body of `size` bytes, so that a disk without it is known to
    /// be full before anybody has seen the body begin. Where the file system cannot do so, the disk
    /// is found full when it is.
    ///
    /// # Errors
    ///
    /// [`StoreError::Full`] if there is not so much space.
    pub async fn set_apart(&self, size: u64) -> Result<(), StoreError> {
        let file = Arc::clone(&self.growing.file);
        on_blocking_pool(move || {
            // The file itself grows only by what is written.
            let set_apart = fallocate(&file, FallocateFlags::KEEP_SIZE, 0, size);
            let set_apart =
                set_apart.map_err(|error| StoreError::io("set space apart")(error.into()));
            if let Err(StoreError::Full) = set_apart { set_apart } else { Ok(()) }
        })
        .await
    }

    /// Takes the next bytes of the body, and waits while the disk is a whole batch behind.
    ///
    /// The future must be run to its end: if it is dropped before, nobody knows how much of `bytes`
    /// was taken, and the body can no longer be committed.
    ///
    /// # Errors
    ///
    /// [`StoreError::Full`], [`StoreError::Io`] or [`StoreError::Torn`]; the body is lost.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        self.check_whole()?;
        self.torn = true;
        let whole_batch = self.batch_size();
        while !bytes.is_empty() {
            self.batch.reserve_exact(whole_batch.saturating_sub(self.batch.len()));
            let room = whole_batch.saturating_sub(self.batch.len());
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.batch.extend_from_slice(now);
            self.size += now.len() as u64;
            bytes = later;
            if self.batch.len() >= whole_batch {
                self.launch().await?;
            }
        }
        self.torn = false;
        Ok(())
    }

    /// Sends what has gathered on its way into the file, where followers find it soon, instead of
    /// waiting for a whole batch. That is not to say that it survives a power cut; only a commit
    /// does.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub async fn push(&mut self) -> Result<(), StoreError> {
        self.check_whole()?;
        if self.batch.is_empty() { Ok(()) } else { self.launch().await }
    }

    /// Removes what was written, and returns when it is gone.
    pub async fn discard(mut self) {
        if self.land().await.is_ok()
            && let Flight::Landed(spool) = self.replace_flight(StoreError::Stopped)
        {
            // Should the runtime end before, the file goes all the same.
            let _ = spawn_blocking(move || drop(spool)).await;
        }
    }

    /// Ends the writing; the rest of the work is for a thread that may wait for the disk.
    pub(super) async fn settle(mut self) -> Result<Settled, StoreError> {
        self.check_whole()?;
        self.land().await?;
        match self.replace_flight(StoreError::Stopped) {
            Flight::Landed(spool) => Ok(Settled { spool, rest: mem::take(&mut self.batch) }),
            Flight::Flying(_) => unreachable!("the last batch has landed"),
            Flight::Lost(error) => Err(error),
        }
    }

    fn check_whole(&self) -> Result<(), StoreError> {
        match &self.flight {
            Flight::Lost(error) => Err(error.clone()),
            Flight::Landed(_) | Flight::Flying(_) if self.torn => Err(StoreError::Torn),
            Flight::Landed(_) | Flight::Flying(_) => Ok(()),
        }
    }

    fn batch_size(&self) -> usize {
        batch_size(Arc::strong_count(&self.arriving) - 1)
    }

    /// Sends the batch off as soon as the one before has landed.
    async fn launch(&mut self) -> Result<(), StoreError> {
        let mut spare = mem::take(&mut self.land().await?.spare);
        // It may be from a time when fewer bodies were arriving.
        spare.shrink_to(self.batch_size());
        let batch = mem::replace(&mut self.batch, spare);
        if let Flight::Landed(spool) = self.replace_flight(StoreError::Stopped) {
            self.flight = Flight::Flying(spawn_blocking(move || spool.append(batch)));
        }
        Ok(())
    }

    /// Waits for the batch in flight; the wait can be given up and begun again.
    async fn land(&mut self) -> Result<&mut Spool, StoreError> {
        if let Flight::Flying(batch) = &mut self.flight {
            self.flight = match outcome(batch.await) {
                Ok(spool) => Flight::Landed(spool),
                Err(error) => Flight::Lost(error),
            };
        }
        match &mut self.flight {
            Flight::Landed(spool) => Ok(spool),
            Flight::Lost(error) => Err(error.clone()),
            Flight::Flying(_) => unreachable!("the batch has landed"),
        }
    }

    fn replace_flight(&mut self, reason: StoreError) -> Flight {
        mem::replace(&mut self.flight, Flight::Lost(reason))
    }
}

/// Returns how many bytes a batch has when so many bodies are arriving.
fn batch_size(arriving: usize) -> usize {
    // One batch gathers while the other is written.
    (BATCH_BUDGET / (2 * arriving.max(1))).clamp(MIN_BATCH, MAX_BATCH)
}

impl Drop for Staging {
    /// Leaves the removal to the blocking pool: giving back the space of a large file takes time. A
    /// batch in flight takes the file with it when it ends.
    fn drop(&mut self) {
        if let Flight::Landed(spool) = self.replace_flight(StoreError::Stopped)
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn_blocking(move || drop(spool));
        }
    }
}

impl fmt::Debug for Staging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staging").field("size", &self.size).finish_non_exhaustive()
    }
}

/// A temporary file and what is known about the bytes in it.
struct Spool {
    temp: TempFile,
    growing: Growing,
    sha256: digest::Context,
    checksums: BlockChecksums,
    written: u64,
    /// The memory of the batch before, to gather the next one in.
    spare: Vec<u8>,
}

impl Spool {
    fn new(temp: TempFile, growing: Growing) -> Self {
        Self {
            temp,
            growing,
            sha256: digest::Context::new(&digest::SHA256),
            checksums: BlockChecksums::default(),
            written: 0,
            spare: Vec::new(),
        }
    }

    fn append(mut self: Box<Self>, mut batch: Vec<u8>) -> Result<Box<Self>, StoreError> {
        let Growing { file, growth } = &self.growing;
        file.write_all_at(&batch, self.written).map_err(StoreError::io("write a body"))?;
        let known = self.checksums.finished().len();
        self.checksums.update(&batch);
        self.written += batch.len() as u64;
        growth.extend(self.written, &self.checksums.finished()[known..]);
        self.sha256.update(&batch);
        batch.clear();
        self.spare = batch;
        Ok(self)
    }
}

/// A whole body of which the last batch is not in its file yet.
pub(super) struct Settled {
    spool: Box<Spool>,
    rest: Vec<u8>,
}

impl Settled {
    /// Writes what is left and waits until the disk has everything.
    ///
    /// If the disk fails here the body is lost: what a failed sync has dropped, a second one would
    /// not miss.
    pub(super) fn finish(self) -> Result<(TempFile, BlobRecord), StoreError> {
        let spool = self.spool.append(self.rest)?;
        spool.growing.file.sync_all().map_err(StoreError::io("sync a body"))?;
        let digest = spool.sha256.finish();
        let content_hash = ContentHash(digest.as_ref().try_into().expect("a SHA-256 has 32 bytes"));
        let checksums = spool.checksums.finish();
        Ok((spool.temp, BlobRecord { content_hash, size: spool.written, checksums }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{body, entries, new_media, open, put, read, stage};
    use crate::store::{MediaSource, Store};
    use proptest::prelude::*;
    use std::fs::OpenOptions;
    use std::pin::pin;
    use std::sync::mpsc::channel;
    use std::task::{Context, Waker};
    use tokio::runtime::{Builder, Runtime};

    fn runtime() -> Runtime {
        Builder::new_current_thread().max_blocking_threads(1).build().unwrap()
    }

    /// A body that goes to a disk without any room.
    fn on_full_disk(store: &Store) -> Staging {
        let (temp, _) = store.inner.blobs.create_temp().unwrap();
        Staging::new(
            temp,
            OpenOptions::new().write(true).open("/dev/full").unwrap(),
            Arc::default(),
        )
    }

    #[test]
    fn many_bodies_share_the_memory_for_batches() {
        assert_eq!(batch_size(1), MAX_BATCH);
        assert!(2 * 80 * batch_size(80) <= BATCH_BUDGET);
        assert_eq!(batch_size(usize::MAX / 2), MIN_BATCH);
    }

    #[test]
    fn dropped_without_commit_it_leaves_nothing() {
        let (directory, store) = open();
        for length in [0, 10, MAX_BATCH, 3 * MAX_BATCH + 1] {
            let runtime = runtime();
            runtime.block_on(async { drop(stage(&store, &body(length)).await) });
            drop(runtime);
            assert_eq!(entries(&directory, "tmp"), 0, "{length}");
        }
    }

    #[test]
    fn dropped_while_a_batch_is_written_it_leaves_nothing() {
        let (directory, store) = open();
        let runtime = runtime();
        runtime.block_on(async {
            let mut staging = store.stage().await.unwrap();
            let (release, held) = channel::<()>();
            spawn_blocking(move || held.recv());
            staging.write(&body(MAX_BATCH)).await.unwrap();
            let written = staging.growing().follow(0).written();
            assert_eq!((staging.size(), written), (MAX_BATCH as u64, 0));
            drop(staging);
            assert_eq!(entries(&directory, "tmp"), 1);
            drop(release);
        });
        drop(runtime);
        assert_eq!(entries(&directory, "tmp"), 0);
    }

    #[test]
    fn dropped_outside_a_runtime_it_leaves_nothing() {
        let (directory, store) = open();
        let staging = runtime().block_on(stage(&store, b"body"));
        drop(staging);
        assert_eq!(entries(&directory, "tmp"), 0);
    }

    #[tokio::test]
    async fn a_discarded_body_is_gone_at_once() {
        let (directory, store) = open();
        stage(&store, &body(2 * MAX_BATCH)).await.discard().await;
        assert_eq!(entries(&directory, "tmp"), 0);
    }

    #[test]
    fn a_write_given_up_halfway_cannot_be_committed() {
        let (_directory, store) = open();
        runtime().block_on(async {
            let mut staging = store.stage().await.unwrap();
            let (release, held) = channel::<()>();
            spawn_blocking(move || held.recv());
            let long = body(3 * MAX_BATCH);
            assert!(
                pin!(staging.write(&long))
                    .poll(&mut Context::from_waker(Waker::noop()))
                    .is_pending()
            );
            drop(release);
            assert!(matches!(staging.write(b"more").await, Err(StoreError::Torn)));
            assert!(matches!(staging.push().await, Err(StoreError::Torn)));
            let media = new_media("torn", MediaSource::Owned);
            let refused = store.commit_media(staging, media).await;
            assert!(matches!(refused, Err(StoreError::Torn)));
        });
    }

    #[tokio::test]
    async fn a_full_disk_is_said_to_be_full_and_the_file_goes() {
        let (directory, store) = open();
        let mut staging = on_full_disk(&store);
        staging.write(&body(MAX_BATCH)).await.unwrap();
        assert!(matches!(staging.write(&body(MAX_BATCH)).await, Err(StoreError::Full)));
        assert!(matches!(staging.push().await, Err(StoreError::Full)));
        assert_eq!(entries(&directory, "tmp"), 0);

        let mut staging = on_full_disk(&store);
        staging.write(b"less than a batch").await.unwrap();
        let media = new_media("full", MediaSource::Owned);
        let refused = store.commit_media(staging, media.clone()).await;
        assert!(matches!(refused, Err(StoreError::Full)));
        assert_eq!(store.media(&media.mxc).unwrap(), None);
        assert_eq!(entries(&directory, "tmp"), 0);
        put(&store, "later", b"works again").await;
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn the_pieces_a_body_comes_in_do_not_matter(
            length in 0..3 * MAX_BATCH,
            sizes in proptest::collection::vec(1..2 * MAX_BATCH, 1..9),
            push in any::<bool>(),
        ) {
            let (_directory, store) = open();
            let whole = body(length);
            runtime().block_on(async {
                let once = put(&store, "once", &whole).await;
                let mut staging = store.stage().await.unwrap();
                let mut rest = &whole[..];
                for size in sizes.iter().cycle() {
                    let (now, later) = rest.split_at(rest.len().min(*size));
                    staging.write(now).await.unwrap();
                    if push {
                        staging.push().await.unwrap();
                    }
                    rest = later;
                    if rest.is_empty() {
                        break;
                    }
                }
                let media = new_media("pieces", MediaSource::Owned);
                let pieces = store.commit_media(staging, media).await.unwrap();
                assert_eq!(pieces.blob, once.blob);
                assert_eq!(read(&store, &pieces.blob).await.unwrap(), whole);
            });
        }
    }
}
