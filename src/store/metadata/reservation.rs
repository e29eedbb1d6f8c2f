//! Rows of reservations: media ids without content.

use rusqlite::{Connection, OptionalExtension, params};

use super::column::Unsigned;
use crate::store::Reservation;
use crate::types::{Mxc, UnixMillis, UserId};

pub(super) fn find(connection: &Connection, mxc: &Mxc) -> rusqlite::Result<Option<Reservation>> {
    connection
        .prepare_cached(
            "SELECT uploader, created_at, expires_at FROM reservation
             WHERE server_name = ?1 AND media_id = ?2",
        )?
        .query_row([mxc.server_name.as_str(), mxc.media_id.as_str()], |row| {
            Ok(Reservation {
                mxc: mxc.clone(),
                uploader: row.get(0)?,
                created_at: row.get(1)?,
                expires_at: row.get(2)?,
            })
        })
        .optional()
}

/// Returns how many reservations of a user have not expired, and when the first of them will.
pub(super) fn pending(
    connection: &Connection,
    uploader: &UserId,
    now: UnixMillis,
) -> rusqlite::Result<(u64, Option<UnixMillis>)> {
    connection
        .prepare_cached(
            "SELECT count(*), min(expires_at) FROM reservation
             WHERE uploader = ?1 AND expires_at > ?2",
        )?
        .query_row(params![uploader.as_str(), now], |row| {
            let Unsigned(count) = row.get(0)?;
            Ok((count, row.get(1)?))
        })
}

pub(super) fn insert(connection: &Connection, reservation: &Reservation) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO reservation (server_name, media_id, uploader, created_at, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            reservation.mxc.server_name.as_str(),
            reservation.mxc.media_id.as_str(),
            reservation.uploader.as_str(),
            reservation.created_at,
            reservation.expires_at,
        ])?;
    Ok(())
}

pub(super) fn remove(connection: &Connection, mxc: &Mxc) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM reservation WHERE server_name = ?1 AND media_id = ?2")?
        .execute([mxc.server_name.as_str(), mxc.media_id.as_str()])?;
    Ok(())
}

/// Removes what has expired and returns how many that were.
pub(super) fn remove_expired(connection: &Connection, now: UnixMillis) -> rusqlite::Result<usize> {
    connection.prepare_cached("DELETE FROM reservation WHERE expires_at <= ?1")?.execute([now])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{new_media, open, put, stage};
    use crate::store::{MediaSource, Store, StoreError, Usage};

    const HOUR: i64 = 60 * 60 * 1000;

    fn user(name: &str) -> UserId {
        format!("@{name}:example.org").parse().unwrap()
    }

    fn mxc(media_id: &str) -> Mxc {
        new_media(media_id, MediaSource::Owned).mxc
    }

    /// A reservation that lasts an hour.
    fn reservation(media_id: &str, name: &str, created_at: i64) -> Reservation {
        Reservation {
            mxc: mxc(media_id),
            uploader: user(name),
            created_at: UnixMillis(created_at),
            expires_at: UnixMillis(created_at + HOUR),
        }
    }

    async fn reserved(store: &Store) -> u64 {
        store.usage().await.unwrap().reserved
    }

    #[tokio::test]
    async fn a_reservation_is_found_until_its_media_is_stored() {
        let (_directory, store) = open();
        let reservation = reservation("media", "alice", 0);
        store.reserve(reservation.clone(), 1).await.unwrap();
        assert_eq!(store.reservation(&mxc("media")).unwrap(), Some(reservation));
        assert_eq!(store.reservation(&mxc("other")).unwrap(), None);
        assert_eq!(store.media(&mxc("media")).unwrap(), None);
        assert_eq!(reserved(&store).await, 1);
        put(&store, "media", b"body").await;
        assert_eq!(store.reservation(&mxc("media")).unwrap(), None);
        assert_eq!(reserved(&store).await, 0);
    }

    #[tokio::test]
    async fn a_commit_that_fails_leaves_the_reservation() {
        let (directory, store) = open();
        store.reserve(reservation("media", "alice", 0), 1).await.unwrap();
        let database = Connection::open(directory.path().join("mediary.db")).unwrap();
        let failing = "CREATE TRIGGER failing BEFORE DELETE ON reservation
                       BEGIN SELECT RAISE(ABORT, 'a fault'); END";
        database.execute_batch(failing).unwrap();
        let staged = stage(&store, b"body").await;
        let refused = store.commit_media(staged, new_media("media", MediaSource::Owned)).await;
        assert!(matches!(refused, Err(StoreError::Database(_))));
        assert_eq!(store.media(&mxc("media")).unwrap(), None, "both or neither");
        assert!(store.reservation(&mxc("media")).unwrap().is_some());
        database.execute_batch("DROP TRIGGER failing").unwrap();
        put(&store, "media", b"body").await;
        assert_eq!(reserved(&store).await, 0);
    }

    /// CS-CRE-04
    #[tokio::test]
    async fn a_reservation_expires_at_its_moment_and_not_before() {
        let (_directory, store) = open();
        let first = reservation("first", "alice", 0);
        store.reserve(first.clone(), 1).await.unwrap();
        assert!(!first.is_expired(UnixMillis(HOUR - 1)));
        assert!(first.is_expired(UnixMillis(HOUR)));

        let early = store.reserve(reservation("second", "alice", HOUR - 1), 1).await;
        match early {
            Err(StoreError::TooManyReserved { earliest_expiry }) => {
                assert_eq!(earliest_expiry, first.expires_at);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(store.remove_expired_reservations(UnixMillis(HOUR - 1)).await.unwrap(), 0);
        store.reserve(reservation("second", "alice", HOUR), 1).await.unwrap();
        assert_eq!(store.remove_expired_reservations(UnixMillis(HOUR)).await.unwrap(), 1);
        assert_eq!(store.reservation(&first.mxc).unwrap(), None);
        assert!(store.reservation(&mxc("second")).unwrap().is_some());
    }

    /// CS-CRE-05
    #[tokio::test]
    async fn a_day_of_reserving_storing_and_expiring_never_passes_the_limit() {
        const MAX_PENDING: u64 = 5;
        let (_directory, store) = open();
        let mut refused = 0;
        // Every five minutes each of two users takes an id; every third id is used.
        for number in 0..12 * 24_i64 {
            let now = number * HOUR / 12;
            for name in ["alice", "bob"] {
                let id = format!("{name}-{number}");
                match store.reserve(reservation(&id, name, now), MAX_PENDING).await {
                    Ok(()) if number % 3 == 0 => {
                        put(&store, &id, b"body").await;
                    }
                    Ok(()) => {}
                    Err(StoreError::TooManyReserved { earliest_expiry }) => {
                        let wait = earliest_expiry.0 - now;
                        assert!(0 < wait && wait <= HOUR, "{wait}");
                        refused += 1;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            if number % 7 == 0 {
                store.remove_expired_reservations(UnixMillis(now)).await.unwrap();
                assert!(reserved(&store).await <= 2 * MAX_PENDING);
            }
        }
        assert!(refused > 0, "more is asked for than is allowed");
        let evening = UnixMillis(25 * HOUR);
        store.remove_expired_reservations(evening).await.unwrap();
        assert_eq!(reserved(&store).await, 0);
        assert_eq!(store.remove_expired_reservations(evening).await.unwrap(), 0);
    }

    /// CS-CRE-05
    #[tokio::test]
    async fn of_two_that_race_for_the_last_place_one_gets_it() {
        let (_directory, store) = open();
        for round in 0..20 {
            let race = [0, 1, 2].map(|racer| {
                let reservation = reservation(&format!("r{round}-{racer}"), "alice", round);
                let store = store.clone();
                tokio::spawn(async move { store.reserve(reservation, 1 + round as u64).await })
            });
            let mut winners = 0;
            for racer in race {
                match racer.await.unwrap() {
                    Ok(()) => winners += 1,
                    Err(StoreError::TooManyReserved { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            assert_eq!(winners, 1, "round {round}");
        }
    }

    #[tokio::test]
    async fn the_limit_is_each_users_own_and_none_is_possible() {
        let (_directory, store) = open();
        store.reserve(reservation("hers", "alice", 0), 1).await.unwrap();
        store.reserve(reservation("his", "bob", 0), 1).await.unwrap();
        let none = store.reserve(reservation("more", "carol", 7), 0).await;
        assert!(matches!(
            none,
            Err(StoreError::TooManyReserved { earliest_expiry: UnixMillis(7) })
        ));
    }

    /// MXC-10
    #[tokio::test]
    async fn an_id_is_never_given_out_twice() {
        let (_directory, store) = open();
        put(&store, "stored", b"body").await;
        let refused = store.reserve(reservation("stored", "alice", 0), 5).await;
        assert!(matches!(refused, Err(StoreError::AlreadyExists(_))));
        let hers = reservation("reserved", "alice", 0);
        store.reserve(hers.clone(), 5).await.unwrap();
        let refused = store.reserve(reservation("reserved", "bob", 9), 5).await;
        assert!(matches!(refused, Err(StoreError::Database(_))));
        assert_eq!(store.reservation(&hers.mxc).unwrap(), Some(hers));
    }

    #[tokio::test]
    async fn reservations_survive_reopening() {
        let (directory, store) = open();
        let kept = reservation("kept", "alice", 5);
        store.reserve(kept.clone(), 1).await.unwrap();
        drop(store);
        let store = Store::open(directory.path()).unwrap();
        assert_eq!(store.reservation(&kept.mxc).unwrap(), Some(kept));
        let usage = Usage { reserved: 1, ..Usage::default() };
        assert_eq!(store.usage().await.unwrap(), usage);
        let refused = store.reserve(reservation("more", "alice", 6), 1).await;
        assert!(matches!(refused, Err(StoreError::TooManyReserved { .. })));
    }
}
