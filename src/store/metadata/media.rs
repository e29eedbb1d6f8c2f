//! Rows of media.

use rusqlite::{Connection, OptionalExtension, params};

use super::blob;
use super::column::{Cleaned, Parsed};
use crate::store::MediaRecord;
use crate::types::{ContentHash, FileName, Mxc, UserId};

pub(super) fn find(connection: &Connection, mxc: &Mxc) -> rusqlite::Result<Option<MediaRecord>> {
    connection
        .prepare_cached(
            "SELECT blob.content_hash, size, checksums, content_type, filename, uploader, source,
                    created_at, legacy_readable
             FROM media JOIN blob USING (content_hash)
             WHERE server_name = ?1 AND media_id = ?2",
        )?
        .query_row([mxc.server_name.as_str(), mxc.media_id.as_str()], |row| {
            let Cleaned(filename) = row.get(4)?;
            Ok(MediaRecord {
                mxc: mxc.clone(),
                blob: blob::from_row(row, 0)?,
                content_type: row.get(3)?,
                filename,
                uploader: row.get(5)?,
                source: row.get(6)?,
                created_at: row.get(7)?,
                legacy_readable: row.get(8)?,
            })
        })
        .optional()
}

/// Records media whose blob has a record.
pub(super) fn insert(connection: &Connection, media: &MediaRecord) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO media (server_name, media_id, content_hash, content_type, filename,
                                uploader, source, created_at, legacy_readable)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            media.mxc.server_name.as_str(),
            media.mxc.media_id.as_str(),
            media.blob.content_hash,
            media.content_type.as_str(),
            media.filename.as_ref().map(FileName::as_str),
            media.uploader.as_ref().map(UserId::as_str),
            media.source,
            media.created_at,
            media.legacy_readable,
        ])?;
    Ok(())
}

pub(super) fn mark_legacy_readable(connection: &Connection, mxc: &Mxc) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE media SET legacy_readable = 1 WHERE server_name = ?1 AND media_id = ?2",
        )?
        .execute([mxc.server_name.as_str(), mxc.media_id.as_str()])?;
    Ok(())
}

pub(super) const REMOVE_EVICTABLE: &str = "DELETE FROM media
     WHERE content_hash = ?1 AND source <> 'owned' RETURNING server_name, media_id";

/// Removes media with a content, unless this is the only server that has it.
pub(super) fn remove_evictable(
    connection: &Connection,
    content_hash: &ContentHash,
) -> rusqlite::Result<Vec<Mxc>> {
    let mut statement = connection.prepare_cached(REMOVE_EVICTABLE)?;
    let removed = statement.query_map([content_hash], |row| {
        let (Parsed(server_name), Parsed(media_id)) = (row.get(0)?, row.get(1)?);
        Ok(Mxc { server_name, media_id })
    })?;
    removed.collect()
}
