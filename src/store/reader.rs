//! Reading a blob, in whole or in part, and never a byte of it that was not verified.

use std::fs::File;
use std::io::{ErrorKind, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use ring::digest;
use rustix::io::{ReadWriteFlags, preadv2};

use super::checksum::{BLOCK_SIZE, matches};
use super::lent::Lent;
use super::{BlobRecord, StoreError, on_blocking_pool};
use crate::types::{BodyError, BodyReader, ContentHash};

/// An open blob, and what of it is still to be read.
///
/// What the system has in memory is read in place; only what has to come from the disk goes through
/// the blocking pool.
#[derive(Debug)]
pub struct BlobReader {
    file: Arc<File>,
    blob: BlobRecord,
    /// Where the next chunk begins.
    position: u64,
    /// Where the last chunk ends.
    end: u64,
    lent: Lent,
}

impl BlobReader {
    /// Begins at the start of a blob whose file has the right size.
    pub(super) fn new(file: File, blob: BlobRecord) -> Result<Self, StoreError> {
        check_size(&file, &blob)?;
        Ok(Self { file: Arc::new(file), position: 0, end: blob.size, lent: Lent::default(), blob })
    }

    /// Limits the reading to `length` bytes from position `first`; what lies past the end of the
    /// blob is left out.
    #[must_use]
    pub fn range(mut self, first: u64, length: u64) -> Self {
        self.position = first.min(self.blob.size);
        self.end = first.saturating_add(length).min(self.blob.size);
        self
    }

    /// Returns how many bytes are still to be read.
    pub fn remaining(&self) -> u64 {
        self.end - self.position
    }

    /// Returns the next bytes, verified, at most 64 KiB and never none; `None` at the end.
    ///
    /// Costs no memory beyond the one block if the chunk before has been dropped by then. It can be
    /// given up and called again without losing bytes.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if the bytes are not those that were stored, [`StoreError::Io`] if
    /// they cannot be read.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, StoreError> {
        if self.remaining() == 0 {
            return Ok(None);
        }
        let start = self.position - self.position % BLOCK_SIZE as u64;
        let length = block_length(&self.blob, start);
        let buffer = self.lent.room(length);
        let block = self.read_verified(buffer, start).await?;
        let from = in_memory(self.position - start);
        let to = in_memory(self.end - start).min(length);
        self.position = start + to as u64;
        self.lent.lend(&block);
        Ok(Some(block.slice(from..to)))
    }

    /// Returns the whole blob, verified, whatever the range and what has been read.
    ///
    /// It is all in memory at once: the caller looks at the size before.
    ///
    /// # Errors
    ///
    /// As [`next_chunk`](Self::next_chunk).
    pub async fn read_all(self) -> Result<Bytes, StoreError> {
        self.read_verified(BytesMut::zeroed(in_memory(self.blob.size)), 0).await
    }

    /// Reads the whole blob and compares it with its checksums and with its hash.
    ///
    /// # Errors
    ///
    /// As [`next_chunk`](Self::next_chunk).
    pub async fn verify(&self) -> Result<(), StoreError> {
        let (file, blob) = (Arc::clone(&self.file), self.blob.clone());
        on_blocking_pool(move || verify(&file, &blob)).await
    }

    /// Returns another handle on the file, whose position is at its start unless somebody moved it.
    ///
    /// Nothing that is read from it has been verified; call [`verify`](Self::verify) before.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the process has too many files open.
    pub fn file(&self) -> Result<File, StoreError> {
        self.file.try_clone().map_err(StoreError::io("share a blob"))
    }

    /// Returns the blob that is read.
    pub fn blob(&self) -> &BlobRecord {
        &self.blob
    }

    /// Fills the buffer with whole blocks from position `start`, and verifies them.
    async fn read_verified(&self, mut buffer: BytesMut, start: u64) -> Result<Bytes, StoreError> {
        let ready = self.read_in_memory(&mut buffer, start);
        if ready < buffer.len() {
            buffer = self.read_from_disk(buffer, ready, start).await?;
        }
        let first = in_memory(start / BLOCK_SIZE as u64);
        let blocks = buffer.len().div_ceil(BLOCK_SIZE);
        if matches(&buffer, &self.blob.checksums[first..first + blocks]) {
            Ok(buffer.freeze())
        } else {
            Err(StoreError::Corrupt { content_hash: self.blob.content_hash })
        }
    }

    /// Reads what the system has in memory, and returns how much that was. Whatever is wrong will
    /// be wrong again, and be reported, when the rest is read from the disk.
    fn read_in_memory(&self, buffer: &mut [u8], start: u64) -> usize {
        let mut whole = [IoSliceMut::new(buffer)];
        preadv2(&self.file, &mut whole, start, ReadWriteFlags::NOWAIT).unwrap_or(0)
    }

    async fn read_from_disk(
        &self,
        mut buffer: BytesMut,
        ready: usize,
        start: u64,
    ) -> Result<BytesMut, StoreError> {
        let (file, blob) = (Arc::clone(&self.file), self.blob.clone());
        on_blocking_pool(move || {
            read_at(&file, &mut buffer[ready..], start + ready as u64, &blob)?;
            Ok(buffer)
        })
        .await
    }
}

#[async_trait]
impl BodyReader for BlobReader {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        self.next_chunk().await.map_err(|error| BodyError::Storage(error.to_string()))
    }
}

fn check_size(file: &File, blob: &BlobRecord) -> Result<(), StoreError> {
    let size = file.metadata().map_err(StoreError::io("look at a blob"))?.len();
    let blocks = size.div_ceil(BLOCK_SIZE as u64);
    if size == blob.size && blocks == blob.checksums.len() as u64 {
        Ok(())
    } else {
        Err(StoreError::Corrupt { content_hash: blob.content_hash })
    }
}

/// Returns the length of the block that begins at a position inside the blob.
fn block_length(blob: &BlobRecord, start: u64) -> usize {
    in_memory(blob.size - start).min(BLOCK_SIZE)
}

/// Returns the hash that a body is named by.
pub(super) fn hash_of(body: &[u8]) -> ContentHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, body).as_ref());
    ContentHash(hash)
}

/// Reads a whole blob and compares it with its checksums and with its hash.
pub(super) fn verify(file: &File, blob: &BlobRecord) -> Result<(), StoreError> {
    let corrupt = || StoreError::Corrupt { content_hash: blob.content_hash };
    check_size(file, blob)?;
    let mut sha256 = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; BLOCK_SIZE];
    for (start, checksum) in (0..).step_by(BLOCK_SIZE).zip(blob.checksums.iter()) {
        let block = &mut buffer[..block_length(blob, start)];
        read_at(file, block, start, blob)?;
        if !matches(block, &[*checksum]) {
            return Err(corrupt());
        }
        sha256.update(block);
    }
    if sha256.finish().as_ref() == blob.content_hash.as_bytes() { Ok(()) } else { Err(corrupt()) }
}

/// Fills the buffer from a position, waiting for the disk; a file that ends too early is corrupt.
fn read_at(
    file: &File,
    buffer: &mut [u8],
    start: u64,
    blob: &BlobRecord,
) -> Result<(), StoreError> {
    file.read_exact_at(buffer, start).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => StoreError::Corrupt { content_hash: blob.content_hash },
        _ => StoreError::io("read a blob")(error),
    })
}

/// Returns a length as memory counts; one too large for that fails where it is allocated.
fn in_memory(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::store::tests::{body, flip_bit, open, path_of, put, read};
    use crate::types::{ContentHash, collect};
    use proptest::prelude::*;
    use rustix::fs::{Advice, fadvise};
    use std::fs;
    use std::io::Read;
    use tokio::runtime::{Builder, Runtime};

    const LENGTH: usize = 3 * BLOCK_SIZE + 1000;

    fn runtime() -> Runtime {
        Builder::new_current_thread().build().unwrap()
    }

    async fn read_range(
        store: &Store,
        blob: &BlobRecord,
        first: u64,
        length: u64,
    ) -> Result<Vec<u8>, StoreError> {
        let mut reader = store.open_blob(blob)?.range(first, length);
        let expected = reader.remaining();
        let mut part = Vec::new();
        while let Some(chunk) = reader.next_chunk().await? {
            assert!((1..=BLOCK_SIZE).contains(&chunk.len()));
            part.extend_from_slice(&chunk);
        }
        assert_eq!((part.len() as u64, reader.remaining()), (expected, 0));
        Ok(part)
    }

    fn is_corrupt<T>(result: &Result<T, StoreError>, blob: &BlobRecord) -> bool {
        matches!(result, Err(StoreError::Corrupt { content_hash }) if *content_hash == blob.content_hash)
    }

    #[tokio::test]
    async fn an_empty_blob_has_no_chunks() {
        let (_directory, store) = open();
        let blob = put(&store, "empty", b"").await.blob;
        assert_eq!(read(&store, &blob).await.unwrap(), b"");
        assert_eq!(store.open_blob(&blob).unwrap().read_all().await.unwrap(), "");
        store.open_blob(&blob).unwrap().verify().await.unwrap();
    }

    #[tokio::test]
    async fn a_whole_blob_can_be_read_at_once_and_as_any_body() {
        let (_directory, store) = open();
        let blob = put(&store, "media", &body(LENGTH)).await.blob;
        let reader = store.open_blob(&blob).unwrap().range(5, 5);
        assert_eq!(reader.read_all().await.unwrap(), body(LENGTH));
        let mut reader = store.open_blob(&blob).unwrap();
        assert_eq!(collect(&mut reader, LENGTH as u64).await.unwrap(), body(LENGTH));
    }

    #[tokio::test]
    async fn the_file_itself_can_be_had_for_reading() {
        let (_directory, store) = open();
        let blob = put(&store, "media", &body(LENGTH)).await.blob;
        let reader = store.open_blob(&blob).unwrap();
        reader.verify().await.unwrap();
        let mut whole = Vec::new();
        reader.file().unwrap().read_to_end(&mut whole).unwrap();
        assert_eq!(whole, body(LENGTH));
    }

    #[tokio::test]
    async fn the_hash_is_verified_where_the_checksums_are_right() {
        let (directory, store) = open();
        let blob = put(&store, "media", &body(LENGTH)).await.blob;
        let mut hash = blob.content_hash.0;
        hash[31] ^= 1;
        let other = BlobRecord { content_hash: ContentHash(hash), ..blob.clone() };
        fs::copy(path_of(&directory, &blob), path_of(&directory, &other)).unwrap();
        assert_eq!(read(&store, &other).await.unwrap(), body(LENGTH));
        assert!(is_corrupt(&store.open_blob(&other).unwrap().verify().await, &other));
    }

    #[tokio::test]
    async fn what_is_not_in_memory_comes_from_the_disk() {
        let (_directory, store) = open();
        let blob = put(&store, "cold", &body(LENGTH)).await.blob;
        let reader = store.open_blob(&blob).unwrap();
        fadvise(&reader.file, 0, None, Advice::DontNeed).unwrap();
        assert_eq!(read(&store, &blob).await.unwrap(), body(LENGTH));
        fadvise(&reader.file, 0, None, Advice::DontNeed).unwrap();
        assert_eq!(reader.read_all().await.unwrap(), body(LENGTH));
    }

    #[tokio::test]
    async fn a_chunk_that_was_dropped_lends_its_memory_to_the_next_one() {
        let (_directory, store) = open();
        let blob = put(&store, "media", &body(LENGTH)).await.blob;
        let mut reader = store.open_blob(&blob).unwrap();
        let first = reader.next_chunk().await.unwrap().unwrap();
        let place = first.as_ptr();
        drop(first);
        let second = reader.next_chunk().await.unwrap().unwrap();
        assert_eq!(second.as_ptr(), place);
        let third = reader.next_chunk().await.unwrap().unwrap();
        assert_ne!(third.as_ptr(), place);
        assert_eq!(
            second,
            body(LENGTH)[BLOCK_SIZE..2 * BLOCK_SIZE],
            "what is held stays as it was"
        );
    }

    #[tokio::test]
    async fn every_flipped_bit_is_found() {
        let (directory, store) = open();
        let blob = put(&store, "small", &body(40)).await.blob;
        for bit in 0..40 * 8 {
            flip_bit(&directory, &blob, bit);
            assert!(is_corrupt(&read(&store, &blob).await, &blob), "{bit}");
            assert!(is_corrupt(&read_range(&store, &blob, 39, 1).await, &blob), "{bit}");
            let reader = store.open_blob(&blob).unwrap();
            assert!(is_corrupt(&reader.verify().await, &blob), "{bit}");
            assert!(is_corrupt(&reader.read_all().await, &blob), "{bit}");
            flip_bit(&directory, &blob, bit);
        }
        read(&store, &blob).await.unwrap();
    }

    #[tokio::test]
    async fn a_blob_of_another_size_is_corrupt_and_one_that_is_gone_is_missing() {
        let (directory, store) = open();
        let blob = put(&store, "media", &body(LENGTH)).await.blob;
        let path = path_of(&directory, &blob);
        for damaged in [&body(LENGTH + 1)[..], &body(LENGTH - 1), &body(BLOCK_SIZE), b""] {
            fs::write(&path, damaged).unwrap();
            assert!(is_corrupt(&store.open_blob(&blob), &blob));
        }
        fs::remove_file(path).unwrap();
        assert!(matches!(store.open_blob(&blob), Err(StoreError::Missing { .. })));
    }

    #[tokio::test]
    async fn a_blob_cut_short_while_it_is_read_is_corrupt() {
        let (directory, store) = open();
        let blob = put(&store, "media", &body(LENGTH)).await.blob;
        for length in [0, 2 * BLOCK_SIZE, LENGTH - 1] {
            let mut reader = store.open_blob(&blob).unwrap();
            fs::write(path_of(&directory, &blob), &body(LENGTH)[..length]).unwrap();
            let mut read = Vec::new();
            let failed = loop {
                match reader.next_chunk().await {
                    Ok(chunk) => read.extend_from_slice(&chunk.expect("it fails before the end")),
                    Err(error) => break Err::<(), _>(error),
                }
            };
            assert!(is_corrupt(&failed, &blob), "{length}");
            assert_eq!(read, body(length / BLOCK_SIZE * BLOCK_SIZE));
            assert!(is_corrupt(&reader.verify().await, &blob));
            assert!(is_corrupt(&reader.read_all().await, &blob));
            fs::write(path_of(&directory, &blob), body(LENGTH)).unwrap();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn a_range_is_a_slice(
            length in 0..LENGTH,
            ranges in proptest::collection::vec((0..LENGTH, 0..LENGTH), 20),
        ) {
            let (_directory, store) = open();
            let whole = body(length);
            runtime().block_on(async {
                let blob = put(&store, "media", &whole).await.blob;
                for (first, part) in ranges {
                    let slice = &whole[first.min(length)..(first + part).min(length)];
                    let read = read_range(&store, &blob, first as u64, part as u64).await.unwrap();
                    assert_eq!(read, slice);
                }
                assert_eq!(read_range(&store, &blob, 0, u64::MAX).await.unwrap(), whole);
                assert_eq!(read_range(&store, &blob, u64::MAX, u64::MAX).await.unwrap(), b"");
            });
        }

        #[test]
        fn a_flipped_bit_spoils_the_ranges_that_touch_its_block_and_no_others(
            bit in 0..LENGTH * 8,
            ranges in proptest::collection::vec((0..LENGTH, 1..LENGTH), 20),
        ) {
            let (directory, store) = open();
            let whole = body(LENGTH);
            runtime().block_on(async {
                let blob = put(&store, "media", &whole).await.blob;
                flip_bit(&directory, &blob, bit);
                let spoilt = bit / 8 / BLOCK_SIZE;
                for (first, length) in ranges {
                    let end = (first + length).min(LENGTH);
                    let read = read_range(&store, &blob, first as u64, length as u64).await;
                    if (first / BLOCK_SIZE..=(end - 1) / BLOCK_SIZE).contains(&spoilt) {
                        assert!(is_corrupt(&read, &blob));
                    } else {
                        assert_eq!(read.unwrap(), &whole[first..end]);
                    }
                }
                assert!(is_corrupt(&read(&store, &blob).await, &blob));
            });
        }
    }
}
