//! What all rows come to.

use rusqlite::{Connection, Row};

use super::column::Unsigned;
use crate::store::{MediaSource, Tally, Usage};

/// Adds everything up, as it is at one moment.
pub(super) fn add_up(connection: &Connection) -> rusqlite::Result<Usage> {
    let snapshot = connection.unchecked_transaction()?;
    let Unsigned(reserved) =
        snapshot.query_row("SELECT count(*) FROM reservation", [], |row| row.get(0))?;
    let mut usage = Usage {
        thumbnails: snapshot.query_row(
            "SELECT count(*), coalesce(sum(size), 0) FROM thumbnail JOIN blob USING (content_hash)",
            [],
            tally,
        )?,
        blobs: snapshot.query_row(
            "SELECT count(*), coalesce(sum(size), 0) FROM blob",
            [],
            tally,
        )?,
        reserved,
        ..Usage::default()
    };
    let mut by_source = snapshot.prepare(
        "SELECT count(*), sum(size), source FROM media JOIN blob USING (content_hash)
         GROUP BY source",
    )?;
    let mut rows = by_source.query([])?;
    while let Some(row) = rows.next()? {
        match row.get(2)? {
            MediaSource::Owned => usage.owned = tally(row)?,
            MediaSource::Upstream => usage.upstream = tally(row)?,
            MediaSource::Remote => usage.remote = tally(row)?,
        }
    }
    Ok(usage)
}

fn tally(row: &Row<'_>) -> rusqlite::Result<Tally> {
    let (Unsigned(count), Unsigned(bytes)) = (row.get(0)?, row.get(1)?);
    Ok(Tally { count, bytes })
}
