//! Uploads: bytes in, an `mxc://` URI out, and nothing acknowledged before it is durable.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

use tokio::time::timeout;

use super::incoming::{Cap, Haste, receive};
use super::quota::Want;
use super::{Allowance, MediaError, MediaService};
use crate::auth::Requester;
use crate::store::{MediaSource, NewMedia};
use crate::types::{BodyError, BodyReader, ContentType, FileName, MediaId, Mxc, UnixMillis};

/// How long the body of an upload may take in all; one that takes longer drips on purpose.
pub(super) const LONGEST_UPLOAD: Duration = Duration::from_secs(60 * 60);

/// How many characters a new media id has: 24 of 62 are 142 bits, beyond guessing.
const MEDIA_ID_LENGTH: usize = 24;

/// What an uploader says of a file (CS-UP-02, CS-UP-03).
#[derive(Debug, Clone)]
pub struct NewUpload {
    /// Its type.
    pub content_type: ContentType,
    /// Its name.
    pub filename: Option<FileName>,
    /// Its size in bytes, if the request announces one (CS-UP-08).
    pub announced_size: Option<u64>,
}

impl MediaService {
    /// Stores an upload and returns its URI once every byte of it is safe.
    ///
    /// # Errors
    ///
    /// [`MediaError::UploadTooLarge`] or [`MediaError::OverQuota`] before a byte is read if the
    /// announced size says so, otherwise at the first byte past the limit. On any error nothing stays
    /// behind and nothing is counted.
    pub async fn upload(
        &self,
        requester: &Requester,
        allowance: &Allowance,
        upload: NewUpload,
        body: &mut dyn BodyReader,
    ) -> Result<Mxc, MediaError> {
        check_size(allowance, &upload)?;
        let server_name = self.homeserver.name()?.clone();
        let mxc = Mxc { server_name, media_id: random_media_id()? };
        let want = Want {
            mxc: mxc.clone(),
            bytes: upload.announced_size.unwrap_or(0),
            spare_bytes: 0,
            reserved_until: None,
        };
        let charge = self.quotas.charge(requester.user_id(), &allowance.quota, want)?;
        let mut cap = Cap::new(allowance.max_bytes, charge);
        let mut staging = self.store.stage().await?;
        let received = receive(&mut staging, body, &mut cap, Haste::InBatches, || {});
        let received = timeout(LONGEST_UPLOAD, received).await.map_err(|_| BodyError::TimedOut)?;
        received.map_err(too_large)?;
        let media = self.owned_media(mxc.clone(), requester, upload);
        let charge = cap.into_charge(&staging);
        let record = self.store.commit_media_with(staging, media, charge).await?;
        self.note_upload(&record);
        Ok(mxc)
    }

    /// Returns when an upload of this moment was made. It is never older than the store: a clock that
    /// stands in the past for a while must not put it before the freeze for good (CS-FRZ-01).
    pub(super) fn upload_time(&self) -> UnixMillis {
        self.clock.now().max(self.store.first_started_at())
    }

    /// Returns what is recorded of an upload.
    pub(super) fn owned_media(
        &self,
        mxc: Mxc,
        requester: &Requester,
        upload: NewUpload,
    ) -> NewMedia {
        NewMedia {
            mxc,
            content_type: upload.content_type,
            filename: upload.filename,
            uploader: Some(requester.user_id().clone()),
            source: MediaSource::Owned,
            created_at: self.upload_time(),
            legacy_readable: false,
        }
    }
}

/// Refuses an upload that says itself that it is too large.
pub(super) fn check_size(allowance: &Allowance, upload: &NewUpload) -> Result<(), MediaError> {
    let limit = allowance.max_bytes;
    match upload.announced_size {
        Some(size) if size > limit => Err(MediaError::UploadTooLarge { limit }),
        Some(_) | None => Ok(()),
    }
}

/// Says of an upload that it is too large, which is the uploader's fault.
fn too_large(error: MediaError) -> MediaError {
    match error {
        MediaError::Body(BodyError::TooLarge { limit }) => MediaError::UploadTooLarge { limit },
        error => error,
    }
}

pub(super) fn random_media_id() -> Result<MediaId, MediaError> {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    /// The largest multiple of the alphabet's size in a byte; larger bytes would favour some letters.
    const FAIR: u8 = 248;
    let random = SystemRandom::new();
    let mut id = String::with_capacity(MEDIA_ID_LENGTH);
    while id.len() < MEDIA_ID_LENGTH {
        let mut bytes = [0_u8; MEDIA_ID_LENGTH];
        random.fill(&mut bytes).map_err(|_| MediaError::NoMediaId)?;
        let letters = bytes.iter().filter(|byte| **byte < FAIR);
        let missing = MEDIA_ID_LENGTH - id.len();
        id.extend(letters.take(missing).map(|byte| char::from(ALPHABET[usize::from(byte % 62)])));
    }
    id.parse().map_err(|_| MediaError::NoMediaId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_ids_are_long_and_differ() {
        let one = random_media_id().unwrap();
        let two = random_media_id().unwrap();
        assert_eq!(one.as_str().len(), MEDIA_ID_LENGTH);
        assert_ne!(one, two);
    }
}
