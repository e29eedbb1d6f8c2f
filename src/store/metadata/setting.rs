//! Rows of settings: the few things that are learnt once and kept.

use rusqlite::{Connection, OptionalExtension};

use crate::types::UnixMillis;

pub(super) fn find(connection: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT value FROM setting WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()
}

pub(super) fn keep(connection: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO setting (key, value) VALUES (?1, ?2)
             ON CONFLICT DO UPDATE SET value = excluded.value",
        )?
        .execute([key, value])?;
    Ok(())
}

/// Returns when the database was first opened, which is `now` if it never was.
pub(super) fn first_started_at(
    connection: &Connection,
    now: UnixMillis,
) -> rusqlite::Result<UnixMillis> {
    connection.execute(
        "INSERT INTO setting (key, value) VALUES ('first_started_at', ?1) ON CONFLICT DO NOTHING",
        [now.0.to_string()],
    )?;
    connection.query_row(
        "SELECT CAST(value AS INTEGER) FROM setting WHERE key = 'first_started_at'",
        [],
        |row| row.get(0),
    )
}
