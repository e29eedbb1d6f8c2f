//! Connections for looking things up, as many as are in use at one moment.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::store::StoreError;

/// How many connections are kept for the next reader; more are closed after use.
const MAX_IDLE: usize = 16;

/// How long a reader waits for another process that keeps even readers out, which is rare; it waits
/// in place, so not long.
const READ_PATIENCE: Duration = Duration::from_millis(100);

/// A pool of connections that cannot write.
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), idle: Mutex::default() }
    }

    /// Looks something up. What has been committed before is seen.
    pub(super) fn read<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let idle = self.idle().pop();
        let connection = idle.map_or_else(|| self.connect(), Ok)?;
        // A connection that fails is not used again.
        let found = query(&connection)?;
        let mut idle = self.idle();
        if idle.len() < MAX_IDLE {
            idle.push(connection);
        }
        Ok(found)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().expect("nothing panics while the pool is locked")
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        // As for the connection that writes: nothing outside the store.
        connection.pragma_update(None, "temp_store", "memory")?;
        connection.busy_timeout(READ_PATIENCE)?;
        // Otherwise a join is planned afresh for each new value, which takes longer than all else.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        Ok(connection)
    }
}
