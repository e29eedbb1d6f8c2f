//! Readers of a media id that was given out and whose content is still to come (CS-DL-08 to
//! CS-DL-11).

use tokio::time::timeout;

use super::board::Waiter;
use super::fetch::Found;
use super::visibility::Provenance;
use super::{MediaError, MediaService, Reader, Search};
use crate::store::Reservation;
use crate::types::Mxc;

impl MediaService {
    /// Finds an upload that is under way, or waits for one to begin; `None` if none is expected.
    ///
    /// # Errors
    ///
    /// [`MediaError::NotYetUploaded`] when the reader's time is up, [`MediaError::NotFound`] when the
    /// uploader's is.
    pub(super) async fn find_expected(
        &self,
        reader: Reader<'_>,
        mxc: &Mxc,
        search: Search,
    ) -> Result<Option<Found>, MediaError> {
        if !self.homeserver.name().is_ok_and(|name| *name == mxc.server_name) {
            return Ok(None);
        }
        if let Some(arrival) = self.board.under_way(&mxc.media_id) {
            self.check_shown(Provenance::from(&arrival.media), reader)?;
            self.metrics.media_sources.arriving.inc();
            return Ok(Some(Found::Arriving(arrival)));
        }
        let Some(reservation) = self.store.reservation(mxc)? else { return Ok(None) };
        self.check_shown(Provenance::uploaded_at(reservation.created_at), reader)?;
        self.await_upload(reader, &reservation, search).await.map(Some)
    }

    fn check_shown(&self, media: Provenance, reader: Reader<'_>) -> Result<(), MediaError> {
        if self.freeze.shows(media, reader) { Ok(()) } else { Err(MediaError::NotFound) }
    }

    /// Waits until the first bytes are there, as long as the reader and the reservation allow.
    async fn await_upload(
        &self,
        reader: Reader<'_>,
        reservation: &Reservation,
        search: Search,
    ) -> Result<Found, MediaError> {
        let Reservation { mxc, expires_at, .. } = reservation;
        let left = self.clock.now().until(*expires_at);
        if left.is_zero() {
            return Err(MediaError::NotFound);
        }
        if search.wait.is_zero() {
            return Err(MediaError::NotYetUploaded);
        }
        let mut waiting = self.board.wait(&mxc.media_id, waiter(reader))?;
        // The upload may have come to its end between the look at the record and now.
        if let Some(record) = self.readable_record(reader, mxc).await? {
            return Ok(Found::Kept(record));
        }
        match timeout(search.wait.min(left), waiting.begun()).await {
            Ok(arrival) => {
                self.metrics.media_sources.arriving.inc();
                Ok(Found::Arriving(arrival))
            }
            Err(_) if reservation.is_expired(self.clock.now()) => Err(MediaError::NotFound),
            Err(_) => Err(MediaError::NotYetUploaded),
        }
    }
}

fn waiter(reader: Reader<'_>) -> Waiter {
    match reader {
        Reader::Requester(requester) => Waiter::User(requester.user_id().clone()),
        Reader::Anybody => Waiter::Anybody,
        Reader::Origin => Waiter::Origin,
    }
}

#[cfg(test)]
mod tests;
