//! Rows of what may be evicted: one for each blob that a record names, but none of media owned here.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row};

use super::column::Unsigned;
use crate::store::Tally;
use crate::types::{ContentHash, UnixMillis};

pub(super) const REMOVE_UNNAMED: &str = "DELETE FROM blob WHERE content_hash = ?1
     AND NOT EXISTS (SELECT 1 FROM media WHERE content_hash = ?1)
     AND NOT EXISTS (SELECT 1 FROM thumbnail WHERE content_hash = ?1)
     RETURNING size";
pub(super) const REMOVE_OWNED: &str = "DELETE FROM cached WHERE content_hash = ?1
     AND EXISTS (SELECT 1 FROM media WHERE content_hash = ?1 AND source = 'owned')";
pub(super) const INSERT_EVICTABLE: &str = "INSERT INTO cached (content_hash, size, accessed_at)
     SELECT content_hash, size, ?2 FROM blob WHERE content_hash = ?1
     AND NOT EXISTS (SELECT 1 FROM media WHERE content_hash = ?1 AND source = 'owned')
     ON CONFLICT DO NOTHING";
pub(super) const OLDEST: &str =
    "SELECT content_hash FROM cached ORDER BY accessed_at, content_hash LIMIT ?1";
pub(super) const TOUCH: &str =
    "UPDATE cached SET accessed_at = ?2 WHERE content_hash = ?1 AND accessed_at < ?2";
pub(super) const BACK_FROM_THE_FUTURE: &str =
    "UPDATE cached SET accessed_at = ?1 WHERE accessed_at > ?2";
pub(super) const TOTAL: &str = "SELECT count, bytes FROM cached_total WHERE id = 1";

/// How far a clock may step without anybody having to care.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// Makes a blob's rows agree with the records that name it. To be called after every change of these.
///
/// Returns the blob's size if no record names it any more; its own record is gone then.
pub(super) fn settle(
    connection: &Connection,
    content_hash: &ContentHash,
    now: UnixMillis,
) -> rusqlite::Result<Option<u64>> {
    let unnamed = connection
        .prepare_cached(REMOVE_UNNAMED)?
        .query_row([content_hash], |row| row.get(0))
        .optional()?;
    if let Some(Unsigned(size)) = unnamed {
        return Ok(Some(size));
    }
    connection.prepare_cached(REMOVE_OWNED)?.execute([content_hash])?;
    connection.prepare_cached(INSERT_EVICTABLE)?.execute((content_hash, now))?;
    Ok(None)
}

/// Keeps when a content was last read, if it may be evicted. Time does not run backwards.
pub(super) fn touch(
    connection: &Connection,
    content_hash: &ContentHash,
    accessed_at: UnixMillis,
) -> rusqlite::Result<()> {
    connection.prepare_cached(TOUCH)?.execute((content_hash, accessed_at))?;
    Ok(())
}

/// Makes what was read under a clock that was ahead as new as can be, and not newer than all to come.
pub(super) fn pull_back_to(connection: &Connection, now: UnixMillis) -> rusqlite::Result<()> {
    let unlikely = now.plus(CLOCK_TOLERANCE);
    connection.prepare_cached(BACK_FROM_THE_FUTURE)?.execute([now, unlikely])?;
    Ok(())
}

/// Returns the contents that were not read for the longest time.
pub(super) fn oldest(connection: &Connection, limit: u64) -> rusqlite::Result<Vec<ContentHash>> {
    let mut statement = connection.prepare_cached(OLDEST)?;
    statement.query_map([Unsigned(limit)], |row| row.get(0))?.collect()
}

/// Returns how much there is to evict; it is not added up.
pub(super) fn total(connection: &Connection) -> rusqlite::Result<Tally> {
    connection.prepare_cached(TOTAL)?.query_row([], tally)
}

fn tally(row: &Row<'_>) -> rusqlite::Result<Tally> {
    let (Unsigned(count), Unsigned(bytes)) = (row.get(0)?, row.get(1)?);
    Ok(Tally { count, bytes })
}

#[cfg(test)]
mod tests {
    use super::super::{Metadata, media, thumbnail};
    use super::*;
    use crate::store::{BlobRecord, MediaRecord, MediaSource, NewThumbnail, Removed};
    use crate::types::{
        ContentType, Mxc, ThumbnailEncoding, ThumbnailMethod, ThumbnailSize, ThumbnailSpec,
    };
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use tempfile::TempDir;

    fn open() -> (TempDir, Metadata) {
        let directory = TempDir::new().unwrap();
        let metadata = Metadata::open(&directory.path().join("test.db"), false).unwrap();
        (directory, metadata)
    }

    fn spec(width: u32) -> ThumbnailSpec {
        let size = ThumbnailSize { width, height: 7 };
        ThumbnailSpec {
            size,
            method: ThumbnailMethod::Crop,
            animated: false,
            encoding: ThumbnailEncoding::Universal,
        }
    }

    fn png() -> ContentType {
        ContentType::from_header(Some(b"image/png"))
    }

    fn new_thumbnail(source: ContentHash, width: u32) -> NewThumbnail {
        NewThumbnail {
            source,
            spec: spec(width),
            content_type: png(),
            max_variants: u64::MAX,
            exempt: Arc::default(),
        }
    }

    /// Returns a blob whose size follows from its content, as sizes do.
    fn blob(content: u8) -> BlobRecord {
        let size = 1 + u64::from(content) * 1000;
        BlobRecord { content_hash: ContentHash([content; 32]), size, checksums: [7].into() }
    }

    fn record(media_id: u8, content: u8, source: MediaSource) -> MediaRecord {
        MediaRecord {
            mxc: Mxc {
                server_name: "example.org".parse().unwrap(),
                media_id: format!("m{media_id}").parse().unwrap(),
            },
            blob: blob(content),
            content_type: png(),
            filename: None,
            uploader: None,
            source,
            created_at: UnixMillis(5),
            legacy_readable: false,
        }
    }

    #[derive(Debug, Clone)]
    enum Operation {
        Media { id: u8, content: u8, source: MediaSource },
        Thumbnail { source: u8, width: u32, content: u8 },
        Link { source: u8, width: u32 },
        Touch { content: u8, at: i64 },
        Evict { bytes: u64, limit: u64 },
        Corrupt { content: u8 },
    }

    fn operation() -> impl Strategy<Value = Operation> {
        let content = 0..6_u8;
        let source = prop_oneof![
            Just(MediaSource::Owned),
            Just(MediaSource::Upstream),
            Just(MediaSource::Remote),
            Just(MediaSource::Remote),
        ];
        prop_oneof![
            4 => (0..20_u8, content.clone(), source)
                .prop_map(|(id, content, source)| Operation::Media { id, content, source }),
            4 => (content.clone(), 1..4_u32, content.clone())
                .prop_map(|(source, width, content)| Operation::Thumbnail { source, width, content }),
            1 => (content.clone(), 1..4_u32)
                .prop_map(|(source, width)| Operation::Link { source, width }),
            1 => (content.clone(), any::<i64>())
                .prop_map(|(content, at)| Operation::Touch { content, at }),
            2 => (0..5000_u64, 0..4_u64)
                .prop_map(|(bytes, limit)| Operation::Evict { bytes, limit }),
            1 => content.prop_map(|content| Operation::Corrupt { content }),
        ]
    }

    /// Does one thing; that a record exists already, or that there is nothing to link, is no failure.
    fn apply(metadata: &Metadata, operation: &Operation) {
        let hash = |content: u8| ContentHash([content; 32]);
        match *operation {
            Operation::Media { id, content, source } => {
                let _ = metadata.insert_media(record(id, content, source));
            }
            Operation::Thumbnail { source, width, content } => {
                let blob = blob(content);
                metadata.insert_thumbnail(new_thumbnail(hash(source), width), blob).unwrap();
            }
            Operation::Link { source, width } => {
                let _ = metadata.link_thumbnail(new_thumbnail(hash(source), width));
            }
            Operation::Touch { content, at } => {
                metadata.touch(vec![(hash(content), UnixMillis(at))]).unwrap();
            }
            Operation::Evict { bytes, limit } => {
                check_eviction(metadata, metadata.evict(bytes, limit).unwrap());
            }
            Operation::Corrupt { content } => {
                metadata.forget_corrupt(hash(content)).unwrap();
            }
        }
    }

    /// What an eviction says it removed is gone, and nothing that hangs on it is left.
    fn check_eviction(metadata: &Metadata, removed: Removed) {
        for mxc in &removed.media {
            assert_eq!(metadata.media(mxc).unwrap(), None);
        }
        for (source, spec) in &removed.thumbnails {
            assert_eq!(metadata.thumbnail(source, spec).unwrap(), None);
        }
        for content_hash in &removed.contents {
            assert!(!metadata.has_blob(content_hash).unwrap());
        }
        let unique: BTreeSet<_> = removed.contents.iter().map(ContentHash::as_bytes).collect();
        assert_eq!(unique.len(), removed.contents.len());
        let bytes: u64 = removed.contents.iter().map(|hash| blob(hash.as_bytes()[0]).size).sum();
        assert_eq!(removed.bytes, bytes);
    }

    fn number(metadata: &Metadata, sql: &str) -> u64 {
        let Unsigned(number) =
            metadata.readers.read(|c| c.query_row(sql, [], |row| row.get(0))).unwrap();
        number
    }

    /// Holds the table and its running total against what the records say.
    fn check(metadata: &Metadata) {
        const OUGHT: &str = "SELECT content_hash, size FROM blob
             WHERE NOT EXISTS (SELECT 1 FROM media
                               WHERE content_hash = blob.content_hash AND source = 'owned')";
        let differ = |one: &str, other: &str| {
            number(metadata, &format!("SELECT count(*) FROM ({one} EXCEPT {other})"))
        };
        let is = "SELECT content_hash, size FROM cached";
        assert_eq!((differ(is, OUGHT), differ(OUGHT, is)), (0, 0));
        let unnamed = "SELECT content_hash FROM blob EXCEPT SELECT content_hash FROM media
                       EXCEPT SELECT content_hash FROM thumbnail";
        assert_eq!(number(metadata, &format!("SELECT count(*) FROM ({unnamed})")), 0);
        let recount = Tally {
            count: number(metadata, "SELECT count(*) FROM cached"),
            bytes: number(metadata, "SELECT coalesce(sum(size), 0) FROM cached"),
        };
        assert_eq!(metadata.cached().unwrap(), recount);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
        #[test]
        fn the_running_total_is_what_a_recount_gives(
            operations in proptest::collection::vec(operation(), 1..40),
        ) {
            let (_directory, metadata) = open();
            for operation in &operations {
                apply(&metadata, operation);
                check(&metadata);
            }
        }
    }

    #[test]
    fn time_does_not_run_backwards() {
        let (_directory, metadata) = open();
        let later = UnixMillis(UnixMillis::now().0 + 1_000_000);
        for content in [1, 2] {
            metadata.insert_media(record(content, content, MediaSource::Remote)).unwrap();
        }
        metadata.touch(vec![(ContentHash([1; 32]), later)]).unwrap();
        metadata.touch(vec![(ContentHash([1; 32]), UnixMillis(3))]).unwrap();
        let oldest = metadata.readers.read(|connection| oldest(connection, 9)).unwrap();
        assert_eq!(oldest, [ContentHash([2; 32]), ContentHash([1; 32])]);
    }

    #[test]
    fn a_clock_that_was_ahead_makes_nothing_stay_for_ever() {
        let (directory, metadata) = open();
        metadata.insert_media(record(1, 1, MediaSource::Remote)).unwrap();
        metadata.touch(vec![(ContentHash([1; 32]), UnixMillis(i64::MAX))]).unwrap();
        drop(metadata);
        let metadata = Metadata::open(&directory.path().join("test.db"), true).unwrap();
        let newest = number(&metadata, "SELECT max(accessed_at) FROM cached");
        assert!(i64::try_from(newest).unwrap() <= UnixMillis::now().0);
    }

    /// The cost of an eviction must not grow with what is held.
    #[test]
    fn no_statement_of_an_eviction_reads_a_whole_table() {
        let (_directory, metadata) = open();
        for sql in [
            OLDEST,
            TOUCH,
            BACK_FROM_THE_FUTURE,
            TOTAL,
            REMOVE_UNNAMED,
            REMOVE_OWNED,
            INSERT_EVICTABLE,
            media::REMOVE_EVICTABLE,
            thumbnail::REMOVE,
            thumbnail::REMOVE_MADE_OF,
            // What the foreign keys and the triggers do on the way.
            "SELECT 1 FROM media WHERE content_hash = ?1",
            "SELECT 1 FROM thumbnail WHERE content_hash = ?1",
            "DELETE FROM cached WHERE content_hash = ?1",
            "UPDATE cached_total SET count = count - 1, bytes = bytes - ?1 WHERE id = 1",
        ] {
            let steps: Vec<String> = metadata
                .readers
                .read(|connection| {
                    let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
                    let parameters = vec![1; plan.parameter_count()];
                    let steps =
                        plan.query_map(rusqlite::params_from_iter(parameters), |row| row.get(3))?;
                    steps.collect()
                })
                .unwrap();
            assert!(!steps.is_empty(), "{sql}");
            for step in &steps {
                // In the order of an index it ends at its limit.
                let is_bounded = step == "SCAN cached USING COVERING INDEX cached_by_access"
                    || step == "SCAN CONSTANT ROW";
                assert!(
                    is_bounded || (!step.contains("SCAN") && !step.contains("TEMP B-TREE")),
                    "{sql}: {steps:?}"
                );
            }
        }
    }
}
