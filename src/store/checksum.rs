//! Checksums of blocks, so that a part of a blob can be verified without reading the whole.

use std::sync::Arc;

/// How many bytes one checksum covers, which is also how many are read at a time. Larger reads fall
/// out of the processor's second-level cache and cost more than they save.
pub(super) const BLOCK_SIZE: usize = 64 * 1024;

/// The CRC-32 of every block of a body that comes in pieces of any size.
#[derive(Default)]
pub(super) struct BlockChecksums {
    finished: Vec<u32>,
    current: crc32fast::Hasher,
    /// How many bytes of the current block there are; less than a whole block.
    filled: usize,
}

impl BlockChecksums {
    /// Takes the next bytes of the body.
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_SIZE - self.filled));
            self.current.update(now);
            self.filled += now.len();
            if self.filled == BLOCK_SIZE {
                self.finish_block();
            }
            bytes = later;
        }
    }

    /// Returns the checksums of the blocks that are whole.
    pub(super) fn finished(&self) -> &[u32] {
        &self.finished
    }

    /// Returns one checksum for each block, none for an empty body.
    pub(super) fn finish(mut self) -> Arc<[u32]> {
        if self.filled > 0 {
            self.finish_block();
        }
        self.finished.into()
    }

    fn finish_block(&mut self) {
        self.finished.push(std::mem::take(&mut self.current).finalize());
        self.filled = 0;
    }
}

/// Returns whether blocks are those that the checksums were made of, no more and no fewer.
pub(super) fn matches(blocks: &[u8], checksums: &[u32]) -> bool {
    blocks.chunks(BLOCK_SIZE).map(crc32fast::hash).eq(checksums.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn checksums(pieces: &[&[u8]]) -> Arc<[u32]> {
        let mut checksums = BlockChecksums::default();
        for piece in pieces {
            checksums.update(piece);
        }
        checksums.finish()
    }

    #[test]
    fn there_is_one_checksum_for_each_block_begun() {
        for (length, blocks) in [(0, 0), (1, 1), (BLOCK_SIZE, 1), (BLOCK_SIZE + 1, 2)] {
            assert_eq!(checksums(&[&vec![7; length]]).len(), blocks, "{length}");
        }
    }

    #[test]
    fn a_block_too_few_or_too_many_does_not_match() {
        let body = vec![7; BLOCK_SIZE + 1];
        let both = checksums(&[&body]);
        assert!(matches(&body, &both));
        assert!(!matches(&body[..BLOCK_SIZE], &both));
        assert!(!matches(&body, &both[..1]));
    }

    proptest! {
        #[test]
        fn the_pieces_a_body_comes_in_do_not_matter(
            length in 0..3 * BLOCK_SIZE,
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..5),
        ) {
            let body: Vec<u8> = (0..=250).cycle().take(length).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(length + 1)).collect();
            cuts.extend([0, length]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect();
            let together = checksums(&pieces);
            prop_assert_eq!(&together, &checksums(&[&body]));
            prop_assert!(matches(&body, &together));
        }
    }
}
