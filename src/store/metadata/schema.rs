//! Opening the database file: is it ours, is it whole, is its schema the present one?

use std::fmt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, ffi};

use crate::store::OpenError;
use crate::store::root::create_private;

/// The steps from an empty database to the present schema; the database's `user_version` says how
/// many it has taken. A step that was released is never changed.
const STEPS: &[&str] = &[
    include_str!("001_begin.sql"),
    include_str!("002_cache.sql"),
    include_str!("003_reservation.sql"),
    include_str!("004_uploaded.sql"),
    include_str!("005_encoding.sql"),
];

/// How long a change waits for another process that has locked the database, such as a backup.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);

/// How many prepared statements the writer keeps: more than there are, so that none is prepared twice.
const MAX_STATEMENTS: usize = 64;

/// Opens a database for writing, checks it and brings its schema up to date.
pub(super) fn open(path: &Path, has_blobs: bool) -> Result<Connection, OpenError> {
    if has_blobs && !path.exists() {
        return Err(OpenError::MissingDatabase(path.to_owned()));
    }
    create_private(path).map_err(OpenError::io(path))?;
    let mut connection = connect(path).map_err(open_error(path))?;
    check(&connection).map_err(open_error(path))?.map_err(|detail| damaged(path, detail))?;
    let version = version(&connection).map_err(open_error(path))?;
    if has_blobs && version == 0 {
        return Err(OpenError::MissingDatabase(path.to_owned()));
    }
    let Some(steps) = usize::try_from(version).ok().and_then(|taken| STEPS.get(taken..)) else {
        let path = path.to_owned();
        return Err(OpenError::NewerDatabase { path, found: version, known: STEPS.len() });
    };
    prepare(&connection).map_err(open_error(path))?;
    take(steps, &mut connection).map_err(open_error(path))?;
    Ok(connection)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(WRITE_PATIENCE)?;
    // What does not fit its cache SQLite would write to files in the system's own directory for them.
    connection.pragma_update(None, "temp_store", "memory")?;
    Ok(connection)
}

/// Sets what a connection that writes needs; the file changes for the first time here.
fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "wal")?;
    // A commit returns when it would survive a power cut.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.set_prepared_statement_cache_capacity(MAX_STATEMENTS);
    Ok(())
}

/// Looks for damage, and returns the first fault.
fn check(connection: &Connection) -> rusqlite::Result<Result<(), String>> {
    let fault: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    Ok(if fault == "ok" { Ok(()) } else { Err(fault) })
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Takes some steps, each whole or not at all.
fn take(steps: &[&str], connection: &mut Connection) -> rusqlite::Result<()> {
    for step in steps {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let taken = version(&transaction)?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", taken + 1)?;
        transaction.commit()?;
        tracing::info!(schema_version = taken + 1, "migrated the database");
    }
    Ok(())
}

/// Says which database could not be opened, and whether it is damaged.
pub(super) fn open_error(path: &Path) -> impl Fn(rusqlite::Error) -> OpenError {
    move |error| match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => OpenError::Full(path.to_owned()),
        // What the index of the write-ahead log says when the disk is full.
        _ if error.sqlite_extended_error_code() == Some(ffi::SQLITE_IOERR_SHMSIZE) => {
            OpenError::Full(path.to_owned())
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => damaged(path, &error),
        _ => OpenError::Database { path: path.to_owned(), detail: error.to_string() },
    }
}

fn damaged(path: &Path, detail: impl fmt::Display) -> OpenError {
    // SQLite lists faults below one another; a refusal to start is one line.
    let detail = detail.to_string().replace('\n', " ");
    OpenError::DamagedDatabase { path: path.to_owned(), detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;
    use tempfile::TempDir;

    fn empty() -> (TempDir, PathBuf) {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("test.db");
        (directory, path)
    }

    #[test]
    fn a_new_database_takes_every_step_and_an_old_one_none() {
        let (_directory, path) = empty();
        for _ in 0..2 {
            let connection = open(&path, false).unwrap();
            assert_eq!(version(&connection).unwrap(), i64::try_from(STEPS.len()).unwrap());
            assert_eq!(connection.pragma_query_value(None, "synchronous", |r| r.get(0)), Ok(2));
            assert_eq!(connection.pragma_query_value(None, "temp_store", |r| r.get(0)), Ok(2));
            let mode: String =
                connection.pragma_query_value(None, "journal_mode", |r| r.get(0)).unwrap();
            assert_eq!(mode, "wal");
        }
    }

    #[test]
    fn only_the_steps_that_are_left_are_taken() {
        let (_directory, path) = empty();
        create_private(&path).unwrap();
        let mut connection = connect(&path).unwrap();
        take(&["CREATE TABLE a (x) STRICT"], &mut connection).unwrap_err();
        assert_eq!(version(&connection).unwrap(), 0);
        take(&["CREATE TABLE a (x INTEGER) STRICT"], &mut connection).unwrap();
        take(&["CREATE TABLE b (x INTEGER) STRICT; DROP TABLE a"], &mut connection).unwrap();
        assert_eq!(version(&connection).unwrap(), 2);
        let failed = take(&["CREATE TABLE c (x INTEGER) STRICT; DROP TABLE a"], &mut connection);
        failed.unwrap_err();
        assert_eq!(version(&connection).unwrap(), 2);
        assert!(!connection.table_exists(None, "c").unwrap());
    }

    #[test]
    fn what_was_stored_before_there_was_a_cache_is_counted_and_in_the_order_it_was_used() {
        let (_directory, path) = empty();
        create_private(&path).unwrap();
        let mut connection = connect(&path).unwrap();
        prepare(&connection).unwrap();
        take(&STEPS[..1], &mut connection).unwrap();
        // A content is named by the one digit that its hash repeats.
        let hash = |digit: u8| format!("x'{}'", digit.to_string().repeat(64));
        let mut sql = String::new();
        for (content, size) in [(1, 1), (2, 2), (3, 30), (4, 400), (5, 5000)] {
            sql += &format!("INSERT INTO blob VALUES ({}, {size}, x'00000000');", hash(content));
        }
        for (content, source, accessed_at) in [
            (1, "owned", 1),
            (2, "owned", 2),
            (2, "remote", 3),
            (3, "remote", 10),
            (3, "upstream", 40),
            (4, "remote", 90),
        ] {
            sql += &format!(
                "INSERT INTO media VALUES ('a', '{content}{source}', {}, 'a/b', NULL, NULL,
                 '{source}', 0, {accessed_at}, 0);",
                hash(content)
            );
        }
        sql += &format!(
            "INSERT INTO thumbnail VALUES ({}, 1, 1, 'crop', 0, {}, 'a/b', 60);",
            hash(1),
            hash(5)
        );
        connection.execute_batch(&sql).unwrap();
        drop(connection);

        let connection = open(&path, true).unwrap();
        let mut rows = connection.prepare("SELECT size FROM cached ORDER BY accessed_at").unwrap();
        let sizes: Vec<i64> =
            rows.query_map([], |row| row.get(0)).and_then(|sizes| sizes.collect()).unwrap();
        assert_eq!(sizes, [30, 5000, 400]);
        let total = connection.query_row("SELECT count, bytes FROM cached_total", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        });
        assert_eq!(total, Ok((3, 5430)));
        let media = connection.query_row("SELECT count(*) FROM media", [], |row| row.get(0));
        assert_eq!(media, Ok(6));
    }

    #[test]
    fn what_users_had_uploaded_before_it_was_counted_is_counted() {
        let (_directory, path) = empty();
        create_private(&path).unwrap();
        let mut connection = connect(&path).unwrap();
        prepare(&connection).unwrap();
        take(&STEPS[..3], &mut connection).unwrap();
        let hash = |digit: u8| format!("x'{}'", digit.to_string().repeat(64));
        let mut sql = String::new();
        for (content, size) in [(1, 10), (2, 200)] {
            sql += &format!("INSERT INTO blob VALUES ({}, {size}, x'00000000');", hash(content));
        }
        for (number, (content, source, uploader)) in [
            (1, "owned", "'@alice:a'"),
            (1, "owned", "'@alice:a'"),
            (2, "owned", "'@bob:a'"),
            (2, "remote", "'@alice:a'"),
            (2, "upstream", "NULL"),
            (2, "owned", "NULL"),
        ]
        .into_iter()
        .enumerate()
        {
            sql += &format!(
                "INSERT INTO media VALUES ('a', '{number}', {}, 'a/b', NULL, {uploader}, '{source}',
                 0, 0);",
                hash(content)
            );
        }
        connection.execute_batch(&sql).unwrap();
        drop(connection);

        let connection = open(&path, true).unwrap();
        let mut rows = connection.prepare("SELECT uploader, files, bytes FROM uploaded").unwrap();
        let rows: Vec<(String, i64, i64)> = rows
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .and_then(|rows| rows.collect())
            .unwrap();
        assert_eq!(rows, [("@alice:a".to_owned(), 2, 20), ("@bob:a".to_owned(), 1, 200)]);
    }

    #[test]
    fn thumbnails_from_before_there_were_encodings_are_everybodys_and_stand_still() {
        let (_directory, path) = empty();
        create_private(&path).unwrap();
        let mut connection = connect(&path).unwrap();
        prepare(&connection).unwrap();
        take(&STEPS[..4], &mut connection).unwrap();
        let hash = |digit: u8| format!("x'{}'", digit.to_string().repeat(64));
        let mut sql = String::new();
        for (content, size) in [(1, 1000), (2, 20), (3, 300), (4, 4)] {
            sql += &format!("INSERT INTO blob VALUES ({}, {size}, x'00000000');", hash(content));
        }
        sql += &format!(
            "INSERT INTO media VALUES ('a', 'b', {}, 'a/b', NULL, NULL, 'owned', 0, 0);",
            hash(1)
        );
        for content in [2, 3, 4] {
            sql += &format!(
                "INSERT INTO cached SELECT content_hash, size, 7 FROM blob WHERE content_hash = {};",
                hash(content)
            );
        }
        // One that stands still, one that might have moved, one that is both, and the original itself.
        for (width, animated, content) in
            [(1, 0, 2), (1, 1, 3), (2, 0, 4), (2, 1, 4), (9, 0, 1), (9, 1, 1)]
        {
            sql += &format!(
                "INSERT INTO thumbnail VALUES ({}, {width}, 5, 'crop', {animated}, {}, 'a/b', 60);",
                hash(1),
                hash(content)
            );
        }
        connection.execute_batch(&sql).unwrap();
        drop(connection);

        let connection = open(&path, true).unwrap();
        let mut rows = connection
            .prepare(
                "SELECT width, size, encoding FROM thumbnail JOIN blob USING (content_hash)
                 WHERE animated = 0 AND created_at = 60 AND height = 5 ORDER BY width",
            )
            .unwrap();
        let rows: Vec<(i64, i64, String)> = rows
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .and_then(|rows| rows.collect())
            .unwrap();
        let universal = || "universal".to_owned();
        assert_eq!(rows, [(1, 20, universal()), (2, 4, universal()), (9, 1000, universal())]);
        let number = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(number("SELECT count(*) FROM thumbnail"), 3);
        assert_eq!(number("SELECT count(*) FROM blob"), 3, "what nothing names is gone");
        assert_eq!(number("SELECT bytes FROM cached_total"), 24);
        assert_eq!(number("SELECT count(*) FROM pragma_foreign_key_check"), 0);
        assert!(!connection.table_exists(None, "standing_still").unwrap());
    }

    #[test]
    fn a_newer_database_is_refused_and_left_as_it_is() {
        let (_directory, path) = empty();
        open(&path, false).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let refused = open(&path, true).unwrap_err();
        assert!(matches!(refused, OpenError::NewerDatabase { found: 99, .. }), "{refused}");
        assert_eq!(version(&connect(&path).unwrap()).unwrap(), 99);
    }

    #[test]
    fn a_missing_or_emptied_database_is_not_begun_afresh_beside_blobs() {
        let (_directory, path) = empty();
        assert!(matches!(open(&path, true), Err(OpenError::MissingDatabase(_))));
        assert!(!path.exists());
        fs::write(&path, "").unwrap();
        assert!(matches!(open(&path, true), Err(OpenError::MissingDatabase(_))));
    }

    #[test]
    fn a_damaged_database_is_refused() {
        let (_directory, path) = empty();
        let connection = open(&path, false).unwrap();
        connection
            .execute_batch(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 2000)
                 INSERT INTO setting SELECT 'key ' || i, hex(randomblob(50)) FROM n",
            )
            .unwrap();
        drop(connection);
        let whole = fs::read(&path).unwrap();
        let mut scribbled = whole.clone();
        let middle = whole.len() / 2;
        scribbled[middle..middle + 8192].fill(0x5a);
        let mut beheaded = whole.clone();
        beheaded[..16].fill(0);
        for damaged in [&scribbled[..], &beheaded, &whole[..whole.len() / 2], b"not a database"] {
            fs::write(&path, damaged).unwrap();
            let refused = open(&path, true).unwrap_err();
            assert!(matches!(refused, OpenError::DamagedDatabase { .. }), "{refused}");
            assert_eq!(fs::read(&path).unwrap(), damaged, "it is left as it is");
        }
        fs::write(&path, whole).unwrap();
        open(&path, true).unwrap();
    }
}
