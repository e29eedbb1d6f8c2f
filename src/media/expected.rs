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
    /// Finds an upload that is under way, or waits for one to begin; `None` if none is expected that
    /// this reader may see.
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
        let under_way = self.board.under_way(&mxc.media_id);
        if let Some(arrival) = under_way.filter(|it| self.freeze.shows(&it.media, reader)) {
            self.metrics.media_sources.arriving.inc();
            return Ok(Some(Found::Arriving(arrival)));
        }
        let is_shown = |it: &Reservation| {
            self.freeze.shows(Provenance::uploaded_at(&it.mxc, self.upload_time()), reader)
        };
        match self.store.reservation(mxc)?.filter(is_shown) {
            Some(reservation) => self.await_upload(reader, &reservation, search).await.map(Some),
            None => Ok(None),
        }
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
        if let Some(record) = self.readable_record(reader, mxc)? {
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
        Reader::Origin(Some(request)) => Waiter::Server(request.origin.server_name().clone()),
        Reader::Origin(None) => Waiter::Origin,
    }
}

#[cfg(test)]
mod tests;
