//! The one thread that changes records.
//!
//! Changes that arrive while the disk is busy wait together and are committed together, so that one
//! sync serves all of them. Each is answered after the commit.

use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::store::StoreError;

/// How many changes go into one transaction; each of those waiting holds a thread of the blocking
/// pool, so there are never many more.
const MAX_BATCH: usize = 256;

/// The way to the thread, which ends when this is dropped and all changes are done.
pub(super) struct Writer {
    queue: Option<Sender<Box<dyn Change>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Gives the connection to a new thread.
    pub(super) fn start(connection: Connection) -> io::Result<Self> {
        let (queue, changes) = channel();
        let thread = thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || run(connection, &changes))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Makes a change and waits until it survives a power cut.
    ///
    /// A change that fails undoes only itself. It must not panic.
    pub(super) fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (change, answer) = pending(change);
        let queue = self.queue.as_ref().ok_or(StoreError::Stopped)?;
        queue.send(change).map_err(|_| StoreError::Stopped)?;
        answer.recv().map_err(|_| StoreError::Stopped)?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the database's writer thread had panicked");
        }
    }
}

fn run(mut connection: Connection, changes: &Receiver<Box<dyn Change>>) {
    while let Ok(first) = changes.recv() {
        let mut batch = vec![first];
        batch.extend(changes.try_iter().take(MAX_BATCH - 1));
        let committed = commit(&mut connection, &mut batch);
        for change in batch {
            change.answer(committed.clone());
        }
    }
    // The last connection that closes moves the log into the database file.
    if let Err((_, error)) = connection.close() {
        tracing::error!(%error, "the database was not closed properly");
    }
}

/// Applies all changes and commits those that succeed, in one transaction.
fn commit(connection: &mut Connection, batch: &mut [Box<dyn Change>]) -> Result<(), StoreError> {
    let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for change in batch {
        let applied = change.apply(&mut transaction);
        // Some faults, a full disk among them, undo everything there and then.
        if transaction.is_autocommit() {
            return applied.and(Err(StoreError::Stopped));
        }
    }
    Ok(transaction.commit()?)
}

/// A change that somebody waits for.
trait Change: Send {
    /// Applies the change, or leaves everything as it was; keeps what came of it.
    fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<(), StoreError>;

    /// Tells who waits what came of it, or why nothing was committed.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Pending<F, T> {
    change: Option<F>,
    outcome: Result<T, StoreError>,
    answer: SyncSender<Result<T, StoreError>>,
}

/// Returns a change for the queue, and where its answer will arrive.
fn pending<T: Send + 'static>(
    change: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
) -> (Box<dyn Change>, Receiver<Result<T, StoreError>>) {
    let (answer, receiver) = sync_channel(1);
    let outcome = Err(StoreError::Stopped);
    (Box::new(Pending { change: Some(change), outcome, answer }), receiver)
}

impl<F, T> Change for Pending<F, T>
where
    F: FnOnce(&Connection) -> Result<T, StoreError> + Send,
    T: Send,
{
    fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        let change = self.change.take().ok_or(StoreError::Stopped)?;
        self.outcome = apply_alone(change, transaction);
        self.outcome.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        // Nobody may be waiting any more; the change stands all the same.
        let _ = self.answer.send(committed.and(self.outcome));
    }
}

/// Applies one change so that its failure does not undo those before it.
fn apply_alone<T>(
    change: impl FnOnce(&Connection) -> Result<T, StoreError>,
    transaction: &mut Transaction<'_>,
) -> Result<T, StoreError> {
    let savepoint = transaction.savepoint()?;
    let changed = change(&savepoint)?;
    savepoint.commit()?;
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::super::{schema, setting};
    use super::*;
    use std::time::Duration;
    use tempfile::TempDir;

    fn open() -> (TempDir, Connection) {
        let directory = TempDir::new().unwrap();
        let connection = schema::open(&directory.path().join("test.db"), false).unwrap();
        (directory, connection)
    }

    /// Looks a setting up as another process would, which sees what is committed.
    fn committed(directory: &TempDir, key: &str) -> Option<String> {
        let connection = Connection::open(directory.path().join("test.db")).unwrap();
        setting::find(&connection, key).unwrap()
    }

    fn keep(
        key: &str,
        length: usize,
    ) -> impl FnOnce(&Connection) -> Result<(), StoreError> + use<> {
        let (key, value) = (key.to_owned(), "x".repeat(length));
        move |connection| Ok(setting::keep(connection, &key, &value)?)
    }

    #[test]
    fn a_change_is_answered_after_it_is_committed() {
        let (directory, connection) = open();
        let writer = Writer::start(connection).unwrap();
        for key in ["a", "b", "c"] {
            writer.write(keep(key, 1)).unwrap();
            assert!(committed(&directory, key).is_some());
        }
    }

    #[test]
    fn changes_that_wait_together_are_one_transaction() {
        let (directory, connection) = open();
        let (queue, changes) = channel();
        let mut answers = Vec::new();
        for number in 0..100 {
            let (change, answer) = pending(move |connection| {
                let others = setting::find(connection, "0")?.is_some();
                keep(&number.to_string(), 1)(connection)?;
                Ok((others, connection.is_autocommit()))
            });
            queue.send(change).unwrap();
            answers.push(answer);
        }
        let watcher = directory.path().join("test.db");
        let (change, answer) = pending(move |_| {
            let watcher = Connection::open(watcher)?;
            Ok(setting::find(&watcher, "0")?)
        });
        queue.send(change).unwrap();
        drop(queue);
        run(connection, &changes);
        for (number, answer) in answers.iter().enumerate() {
            assert_eq!(answer.recv().unwrap().unwrap(), (number > 0, false));
            assert!(committed(&directory, &number.to_string()).is_some());
        }
        assert_eq!(answer.recv().unwrap().unwrap(), None, "none is committed before all are");
    }

    #[test]
    fn a_change_that_fails_undoes_only_itself() {
        let (directory, mut connection) = open();
        let (first, first_answer) = pending(keep("first", 1));
        let (failing, failing_answer) = pending(|connection: &Connection| {
            setting::keep(connection, "failing", "x")?;
            connection.execute_batch("INSERT INTO blob VALUES (x'00', 0, x'')")?;
            Ok(())
        });
        let (last, last_answer) = pending(keep("last", 1));
        let mut batch = [first, failing, last];
        commit(&mut connection, &mut batch).unwrap();
        for change in batch {
            change.answer(Ok(()));
        }
        first_answer.recv().unwrap().unwrap();
        last_answer.recv().unwrap().unwrap();
        assert!(matches!(failing_answer.recv().unwrap(), Err(StoreError::Database(_))));
        assert!(committed(&directory, "first").is_some());
        assert!(committed(&directory, "last").is_some());
        assert_eq!(committed(&directory, "failing"), None);
    }

    #[test]
    fn a_full_disk_fails_what_is_too_large_and_writing_goes_on_once_there_is_room() {
        let (directory, connection) = open();
        let pages: i64 = connection.pragma_query_value(None, "page_count", |r| r.get(0)).unwrap();
        connection.pragma_update(None, "max_page_count", pages + 2).unwrap();
        let writer = Writer::start(connection).unwrap();
        writer.write(keep("small", 10)).unwrap();
        assert!(matches!(writer.write(keep("large", 100_000)), Err(StoreError::Full)));
        writer.write(keep("small", 20)).unwrap();
        writer
            .write(|connection| Ok(connection.pragma_update(None, "max_page_count", 1_000_000)?))
            .unwrap();
        writer.write(keep("large", 100_000)).unwrap();
        drop(writer);
        assert_eq!(committed(&directory, "large").map(|value| value.len()), Some(100_000));
        assert_eq!(committed(&directory, "small").map(|value| value.len()), Some(20));
    }

    #[test]
    fn a_full_disk_in_the_middle_of_a_batch_commits_nothing_it_does_not_answer_for() {
        let (directory, mut connection) = open();
        let pages: i64 = connection.pragma_query_value(None, "page_count", |r| r.get(0)).unwrap();
        connection.pragma_update(None, "max_page_count", pages + 2).unwrap();
        let (changes, answers): (Vec<_>, Vec<_>) = ["first", "large", "last"]
            .map(|key| pending(keep(key, if key == "large" { 100_000 } else { 1 })))
            .into_iter()
            .unzip();
        let mut batch = changes;
        let outcome = commit(&mut connection, &mut batch);
        for change in batch {
            change.answer(outcome.clone());
        }
        for (key, answer) in ["first", "large", "last"].iter().zip(answers) {
            match answer.recv().unwrap() {
                Ok(()) => assert!(committed(&directory, key).is_some(), "{key}"),
                Err(StoreError::Full) => assert!(committed(&directory, key).is_none(), "{key}"),
                Err(other) => panic!("{key}: {other}"),
            }
        }
    }

    #[test]
    fn a_database_that_another_process_has_locked_is_busy_and_then_recovers() {
        let (directory, connection) = open();
        connection.busy_timeout(Duration::ZERO).unwrap();
        let writer = Writer::start(connection).unwrap();
        let other = Connection::open(directory.path().join("test.db")).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert!(matches!(writer.write(keep("key", 1)), Err(StoreError::Busy)));
        other.execute_batch("ROLLBACK").unwrap();
        writer.write(keep("key", 1)).unwrap();
    }
}
