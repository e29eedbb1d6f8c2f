//! Rows of bodies on disk.

use rusqlite::{Connection, OptionalExtension, Row};

use super::column::{Checksums, Unsigned};
use crate::store::BlobRecord;
use crate::types::ContentHash;

/// Reads a record from a row with these columns, in this order, from `first` on.
pub(super) fn from_row(row: &Row<'_>, first: usize) -> rusqlite::Result<BlobRecord> {
    let Unsigned(size) = row.get(first + 1)?;
    let Checksums(checksums) = row.get(first + 2)?;
    Ok(BlobRecord { content_hash: row.get(first)?, size, checksums })
}

pub(super) fn find(
    connection: &Connection,
    content_hash: &ContentHash,
) -> rusqlite::Result<Option<BlobRecord>> {
    connection
        .prepare_cached("SELECT content_hash, size, checksums FROM blob WHERE content_hash = ?1")?
        .query_row([content_hash], |row| from_row(row, 0))
        .optional()
}

pub(super) fn exists(
    connection: &Connection,
    content_hash: &ContentHash,
) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM blob WHERE content_hash = ?1")?.exists([content_hash])
}

/// Records a blob whose bytes were just written, in place of what was known of an earlier copy.
pub(super) fn keep(connection: &Connection, blob: &BlobRecord) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO blob (content_hash, size, checksums) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET size = excluded.size, checksums = excluded.checksums",
        )?
        .execute((&blob.content_hash, Unsigned(blob.size), Checksums(blob.checksums.clone())))?;
    Ok(())
}
