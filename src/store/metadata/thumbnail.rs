//! Rows of thumbnails.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::blob;
use crate::store::ThumbnailRecord;
use crate::types::{ContentHash, ThumbnailSize, ThumbnailSpec};

pub(super) fn find(
    connection: &Connection,
    source: &ContentHash,
    spec: &ThumbnailSpec,
) -> rusqlite::Result<Option<ThumbnailRecord>> {
    connection
        .prepare_cached(
            "SELECT blob.content_hash, size, checksums, content_type, created_at
             FROM thumbnail JOIN blob USING (content_hash)
             WHERE source_hash = ?1 AND width = ?2 AND height = ?3 AND method = ?4 AND animated = ?5
                 AND encoding = ?6",
        )?
        .query_row(
            params![
                source,
                spec.size.width,
                spec.size.height,
                spec.method.as_str(),
                spec.animated,
                spec.encoding,
            ],
            |row| {
                Ok(ThumbnailRecord {
                    blob: blob::from_row(row, 0)?,
                    content_type: row.get(3)?,
                    created_at: row.get(4)?,
                })
            },
        )
        .optional()
}

/// Returns which thumbnails a content has.
pub(super) fn all_of(
    connection: &Connection,
    source: &ContentHash,
) -> rusqlite::Result<Vec<ThumbnailSpec>> {
    let mut statement = connection.prepare_cached(
        "SELECT width, height, method, animated, encoding FROM thumbnail WHERE source_hash = ?1",
    )?;
    statement.query_map([source], spec_from_row)?.collect()
}

/// Records a thumbnail whose blob has a record.
pub(super) fn insert(
    connection: &Connection,
    source: &ContentHash,
    spec: &ThumbnailSpec,
    record: &ThumbnailRecord,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO thumbnail (source_hash, width, height, method, animated, encoding,
                                    content_hash, content_type, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            source,
            spec.size.width,
            spec.size.height,
            spec.method.as_str(),
            spec.animated,
            spec.encoding,
            record.blob.content_hash,
            record.content_type.as_str(),
            record.created_at,
        ])?;
    Ok(())
}

pub(super) const REMOVE: &str = "DELETE FROM thumbnail WHERE content_hash = ?1
     RETURNING width, height, method, animated, encoding, source_hash";
pub(super) const REMOVE_MADE_OF: &str = "DELETE FROM thumbnail WHERE source_hash = ?1
     RETURNING width, height, method, animated, encoding, content_hash";

/// Removes the thumbnails that are this content, and returns what each was made of.
pub(super) fn remove(
    connection: &Connection,
    content_hash: &ContentHash,
) -> rusqlite::Result<Vec<(ContentHash, ThumbnailSpec)>> {
    let mut statement = connection.prepare_cached(REMOVE)?;
    statement.query_map([content_hash], |row| Ok((row.get(5)?, spec_from_row(row)?)))?.collect()
}

/// Removes the thumbnails made of a content, and returns the content of each.
pub(super) fn remove_made_of(
    connection: &Connection,
    source: &ContentHash,
) -> rusqlite::Result<Vec<(ThumbnailSpec, ContentHash)>> {
    let mut statement = connection.prepare_cached(REMOVE_MADE_OF)?;
    statement.query_map([source], |row| Ok((spec_from_row(row)?, row.get(5)?)))?.collect()
}

/// Reads a specification from a row that begins with its columns.
fn spec_from_row(row: &Row<'_>) -> rusqlite::Result<ThumbnailSpec> {
    Ok(ThumbnailSpec {
        size: ThumbnailSize { width: row.get(0)?, height: row.get(1)? },
        method: row.get(2)?,
        animated: row.get(3)?,
        encoding: row.get(4)?,
    })
}
