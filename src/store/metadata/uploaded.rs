//! Rows of what users have uploaded here, which triggers keep.

use rusqlite::{Connection, OptionalExtension, params};

use super::column::Unsigned;
use super::reservation;
use crate::store::{Holdings, Presence, Tally};
use crate::types::{Mxc, UnixMillis, UserId};

/// Returns what a user has here, as it is at one moment, and how some media ids stand at that moment.
pub(super) fn holdings(
    connection: &Connection,
    uploader: &UserId,
    now: UnixMillis,
    ids: &[Mxc],
) -> rusqlite::Result<Holdings> {
    let snapshot = connection.unchecked_transaction()?;
    let uploaded = find(&snapshot, uploader)?;
    let (pending, _) = reservation::pending(&snapshot, uploader, now)?;
    let ids = ids.iter().map(|mxc| presence(&snapshot, mxc, now)).collect::<Result<_, _>>()?;
    Ok(Holdings { uploaded, pending, ids })
}

fn find(connection: &Connection, uploader: &UserId) -> rusqlite::Result<Tally> {
    let uploaded = connection
        .prepare_cached("SELECT files, bytes FROM uploaded WHERE uploader = ?1")?
        .query_row([uploader.as_str()], |row| {
            let (Unsigned(count), Unsigned(bytes)) = (row.get(0)?, row.get(1)?);
            Ok(Tally { count, bytes })
        })
        .optional()?;
    Ok(uploaded.unwrap_or_default())
}

fn presence(connection: &Connection, mxc: &Mxc, now: UnixMillis) -> rusqlite::Result<Presence> {
    let (server_name, media_id) = (mxc.server_name.as_str(), mxc.media_id.as_str());
    let is_stored = connection
        .prepare_cached("SELECT 1 FROM media WHERE server_name = ?1 AND media_id = ?2")?
        .exists([server_name, media_id])?;
    if is_stored {
        return Ok(Presence::Stored);
    }
    let is_reserved = connection
        .prepare_cached(
            "SELECT 1 FROM reservation
             WHERE server_name = ?1 AND media_id = ?2 AND expires_at > ?3",
        )?
        .exists(params![server_name, media_id, now])?;
    Ok(if is_reserved { Presence::Reserved } else { Presence::Absent })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{new_media, open, stage};
    use crate::store::{MediaSource, NewMedia, Reservation, Store};
    use crate::types::poll_once;
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use tokio::runtime::Builder;
    use tokio::task::spawn_blocking;

    fn user(name: &str) -> UserId {
        format!("@{name}:example.org").parse().unwrap()
    }

    async fn upload(store: &Store, media_id: &str, name: &str, body: &[u8]) {
        let media =
            NewMedia { uploader: Some(user(name)), ..new_media(media_id, MediaSource::Owned) };
        store.commit_media(stage(store, body).await, media).await.unwrap();
    }

    fn uploaded(store: &Store, name: &str) -> Tally {
        store.holdings(&user(name), UnixMillis(0), &[]).unwrap().uploaded
    }

    #[tokio::test]
    async fn each_users_files_are_counted_whoever_else_has_the_same() {
        let (directory, store) = open();
        assert_eq!(uploaded(&store, "alice"), Tally::default());
        upload(&store, "one", "alice", b"12345").await;
        upload(&store, "two", "alice", b"12345").await;
        upload(&store, "three", "bob", b"12345").await;
        upload(&store, "four", "bob", b"").await;
        for (media_id, source) in [("five", MediaSource::Upstream), ("six", MediaSource::Remote)] {
            let media = NewMedia { uploader: Some(user("alice")), ..new_media(media_id, source) };
            store.commit_media(stage(&store, b"not hers here").await, media).await.unwrap();
        }
        let nobodys = NewMedia { uploader: None, ..new_media("seven", MediaSource::Owned) };
        store.commit_media(stage(&store, b"whose?").await, nobodys).await.unwrap();
        drop(store);
        let store = Store::open(directory.path()).unwrap();
        assert_eq!(uploaded(&store, "alice"), Tally { count: 2, bytes: 10 });
        assert_eq!(uploaded(&store, "bob"), Tally { count: 2, bytes: 5 });
        assert_eq!(uploaded(&store, "carol"), Tally::default());
    }

    #[tokio::test]
    async fn what_is_removed_is_no_longer_counted() {
        let (directory, store) = open();
        upload(&store, "one", "alice", b"12345").await;
        upload(&store, "two", "alice", b"678").await;
        let database = Connection::open(directory.path().join("mediary.db")).unwrap();
        let remove = |media_id: &str| {
            database.execute("DELETE FROM media WHERE media_id = ?1", [media_id]).unwrap();
        };
        remove("one");
        assert_eq!(uploaded(&store, "alice"), Tally { count: 1, bytes: 3 });
        remove("two");
        assert_eq!(uploaded(&store, "alice"), Tally::default());
        let rows = database.query_row("SELECT count(*) FROM uploaded", [], |row| row.get(0));
        assert_eq!(rows, Ok(0));
    }

    #[test]
    fn what_is_held_for_a_commit_is_held_to_its_end_though_nobody_waits_for_it() {
        let (_directory, store) = open();
        let runtime = Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        let held = Arc::new(());
        runtime.block_on(async {
            let media =
                NewMedia { uploader: Some(user("alice")), ..new_media("one", MediaSource::Owned) };
            let staged = stage(&store, b"12345").await;
            let (release, waits) = channel::<()>();
            spawn_blocking(move || waits.recv());
            let mut commit = Box::pin(store.commit_media_with(staged, media, Arc::clone(&held)));
            assert!(poll_once(&mut commit).await.is_pending());
            drop(commit);
            assert_eq!(Arc::strong_count(&held), 2);
            assert_eq!(uploaded(&store, "alice"), Tally::default());
            drop(release);
            // There is one thread, which comes to this last.
            spawn_blocking(|| ()).await.unwrap();
        });
        assert_eq!(Arc::strong_count(&held), 1);
        assert_eq!(uploaded(&store, "alice"), Tally { count: 1, bytes: 5 });
    }

    #[tokio::test]
    async fn ids_are_absent_reserved_or_stored() {
        let (_directory, store) = open();
        let mxc = new_media("media", MediaSource::Owned).mxc;
        let presence = |now| {
            let ids = std::slice::from_ref(&mxc);
            let holdings = store.holdings(&user("alice"), UnixMillis(now), ids).unwrap();
            (holdings.pending, holdings.ids)
        };
        assert_eq!(presence(0), (0, vec![Presence::Absent]));
        let reservation = Reservation {
            mxc: mxc.clone(),
            uploader: user("alice"),
            created_at: UnixMillis(0),
            expires_at: UnixMillis(10),
        };
        store.reserve(reservation, 1).await.unwrap();
        assert_eq!(presence(9), (1, vec![Presence::Reserved]));
        assert_eq!(presence(10), (0, vec![Presence::Absent]));
        upload(&store, "media", "alice", b"body").await;
        assert_eq!(presence(9), (0, vec![Presence::Stored]));
    }
}
