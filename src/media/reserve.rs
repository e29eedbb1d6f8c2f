//! Asynchronous uploads: a media id first, its content later (MSC2246, checklist CS-CRE and CS-PUT).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::incoming::{Cap, Incoming};
use super::quota::Want;
use super::upload::{LONGEST_UPLOAD, check_size, random_media_id};
use super::{Allowance, MediaError, MediaService, NewUpload};
use crate::auth::Requester;
use crate::store::{MediaRecord, Reservation, StoreError};
use crate::types::{BodyError, BodyReader, Mxc, UnixMillis, UserId};

/// The longest wait that is told to who has too many uploads pending. Their places are free as soon
/// as they finish one, which is sooner than any expiry.
const MAX_RETRY: Duration = Duration::from_secs(60);

/// A media id that was given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// What the media will be called.
    pub mxc: Mxc,
    /// Until when it has to be uploaded (CS-CRE-03).
    pub unused_expires_at: UnixMillis,
}

impl MediaService {
    /// Gives out a new media id, which only this requester may upload to. It is still theirs after a
    /// crash.
    ///
    /// # Errors
    ///
    /// [`MediaError::OverQuota`] if nothing could be uploaded to it (CS-CRE-06), and
    /// [`MediaError::TooManyPending`] if they have as many without content as allowed (CS-CRE-05).
    pub async fn create(
        &self,
        requester: &Requester,
        allowance: &Allowance,
    ) -> Result<Created, MediaError> {
        let server_name = self.homeserver.name()?.clone();
        let mxc = Mxc { server_name, media_id: random_media_id()? };
        let now = self.clock.now();
        let unused_expires_at = now.plus(self.limits.unused_expiry);
        let want = Want { mxc: mxc.clone(), bytes: 0, spare_bytes: 1, reserved_until: None };
        let mut charge = self.quotas.charge(requester.user_id(), &allowance.quota, want)?;
        charge.settle(0);
        let reservation = Reservation {
            mxc: mxc.clone(),
            uploader: requester.user_id().clone(),
            created_at: now,
            expires_at: unused_expires_at,
        };
        match self.store.reserve_with(reservation, allowance.max_pending, charge).await {
            Ok(()) => Ok(Created { mxc, unused_expires_at }),
            Err(StoreError::TooManyReserved { earliest_expiry }) => {
                let retry_after = now.until(earliest_expiry).min(MAX_RETRY);
                Err(MediaError::TooManyPending { retry_after })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Stores the content of a media id that was given out, and returns once every byte of it is
    /// safe. A media id that expires meanwhile does not matter (CS-PUT-06).
    ///
    /// # Errors
    ///
    /// [`MediaError::NotFound`], [`MediaError::NotTheCreator`] or [`MediaError::CannotOverwrite`] by
    /// what the media id is to this requester; then as [`upload`](Self::upload). The media id stays
    /// theirs, to try again.
    pub async fn upload_to(
        &self,
        requester: &Requester,
        allowance: &Allowance,
        mxc: &Mxc,
        upload: NewUpload,
        body: &mut dyn BodyReader,
    ) -> Result<(), MediaError> {
        let user = requester.user_id();
        self.check_may_fill(user, mxc)?;
        check_size(allowance, &upload)?;
        let claim = self.board.claim(&mxc.media_id).ok_or(MediaError::CannotOverwrite)?;
        // Another upload may have come to its end before the claim.
        let reserved_until = Some(self.check_may_fill(user, mxc)?);
        let size = upload.announced_size;
        let bytes = size.unwrap_or(0);
        let want = Want { mxc: mxc.clone(), bytes, spare_bytes: 0, reserved_until };
        let cap = Cap::new(allowance.max_bytes, self.quotas.charge(user, &allowance.quota, want)?);
        let media = self.owned_media(mxc.clone(), requester, upload);
        let incoming = Incoming::uploaded(self.store.stage().await?, media, size);
        let arrival = Arc::clone(incoming.arrival());
        let taken = incoming.take(body, cap, &self.store, || claim.announce(&arrival));
        let end = timeout(LONGEST_UPLOAD, taken).await.map_err(|_| BodyError::TimedOut)?;
        let record = end.map_err(in_the_uploaders_words)?;
        self.note_upload(&record);
        Ok(())
    }

    /// Looks whether a user may give a media id its content now, and returns until when it is
    /// reserved.
    fn check_may_fill(&self, user: &UserId, mxc: &Mxc) -> Result<UnixMillis, MediaError> {
        // By the proposal also what is not ours is not there (CS-PUT-03).
        if mxc.server_name != *self.homeserver.name()? {
            return Err(MediaError::NotFound);
        }
        // In this order, because a commit turns the one into the other.
        let reservation = self.store.reservation(mxc)?;
        let record = self.record(mxc)?;
        judge(user, record.as_deref(), reservation.as_ref(), self.clock.now())
    }
}

/// Says of an upload why it failed to whom it belongs.
fn in_the_uploaders_words(error: Arc<MediaError>) -> MediaError {
    match &*error {
        MediaError::Body(BodyError::TooLarge { limit }) => {
            MediaError::UploadTooLarge { limit: *limit }
        }
        // The commit of an upload that was given up has come to its end after all.
        MediaError::Store(StoreError::AlreadyExists(_)) => MediaError::CannotOverwrite,
        _ => MediaError::Shared(error),
    }
}

/// Decides whether a user may give a media id its content (CS-PUT-02 to CS-PUT-05), and until when it
/// is reserved.
fn judge(
    user: &UserId,
    record: Option<&MediaRecord>,
    reservation: Option<&Reservation>,
    now: UnixMillis,
) -> Result<UnixMillis, MediaError> {
    if let Some(record) = record {
        // The homeserver's own older media has an uploader whom only the homeserver knows.
        let is_anothers = record.uploader.as_ref().is_some_and(|uploader| uploader != user);
        return Err(if is_anothers {
            MediaError::NotTheCreator
        } else {
            MediaError::CannotOverwrite
        });
    }
    match reservation {
        None => Err(MediaError::NotFound),
        Some(reservation) if reservation.uploader != *user => Err(MediaError::NotTheCreator),
        Some(reservation) if reservation.is_expired(now) => Err(MediaError::NotFound),
        Some(reservation) => Ok(reservation.expires_at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Clock;
    use crate::store::{BlobRecord, MediaSource};
    use crate::types::{ContentHash, ContentType};

    fn user(name: &str) -> UserId {
        format!("@{name}:example.org").parse().unwrap()
    }

    fn mxc() -> Mxc {
        let server_name = "example.org".parse().unwrap();
        Mxc { server_name, media_id: "abc".parse().unwrap() }
    }

    fn record(uploader: Option<&str>) -> MediaRecord {
        MediaRecord {
            mxc: mxc(),
            blob: BlobRecord { content_hash: ContentHash([0; 32]), size: 0, checksums: [].into() },
            content_type: ContentType::from_header(None),
            filename: None,
            uploader: uploader.map(user),
            source: MediaSource::Owned,
            created_at: UnixMillis(0),
            legacy_readable: false,
        }
    }

    /// What a media id of Alice's is, reserved from 100 to 200.
    fn reservation() -> Reservation {
        Reservation {
            mxc: mxc(),
            uploader: user("alice"),
            created_at: UnixMillis(100),
            expires_at: UnixMillis(200),
        }
    }

    /// CS-PUT-02, CS-PUT-03, CS-CRE-04
    #[test]
    fn a_media_id_is_its_creators_until_it_expires() {
        let clock = Clock::standing_at(UnixMillis(100));
        let judge = |name: &str| judge(&user(name), None, Some(&reservation()), clock.now());
        for now in [100, 199] {
            clock.set(UnixMillis(now));
            assert!(judge("alice").is_ok(), "at {now}");
            assert!(matches!(judge("bob"), Err(MediaError::NotTheCreator)), "at {now}");
        }
        for now in [200, i64::MAX] {
            clock.set(UnixMillis(now));
            assert!(matches!(judge("alice"), Err(MediaError::NotFound)), "at {now}");
            assert!(matches!(judge("bob"), Err(MediaError::NotTheCreator)), "at {now}");
        }
    }

    /// CS-PUT-04, MXC-10
    #[test]
    fn content_is_never_overwritten() {
        let now = UnixMillis(150);
        for left_over in [None, Some(&reservation())] {
            let judge = |name: &str, uploader: Option<&str>| {
                judge(&user(name), Some(&record(uploader)), left_over, now)
            };
            assert!(matches!(judge("alice", Some("alice")), Err(MediaError::CannotOverwrite)));
            assert!(matches!(judge("bob", Some("alice")), Err(MediaError::NotTheCreator)));
            assert!(matches!(judge("alice", None), Err(MediaError::CannotOverwrite)));
        }
    }

    /// CS-PUT-03
    #[test]
    fn what_was_never_given_out_is_not_found() {
        let judged = judge(&user("alice"), None, None, UnixMillis(150));
        assert!(matches!(judged, Err(MediaError::NotFound)));
    }
}
