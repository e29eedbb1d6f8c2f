//! Uploads under way to an id that others know already, and the readers that wait for one to begin.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::IntGauge;
use tokio::sync::watch;

use super::MediaError;
use super::incoming::Arrival;
use crate::types::{MediaId, ServerName, UserId};

/// How many readers of each kind may wait for one id; a large room opens a picture all at once, and
/// other servers must not keep our own users out.
const MAX_WAITING_FOR_ONE: usize = 256;

/// How many waiting requests one user may have: a page of a timeline.
const MAX_WAITING_OF_USER: usize = 32;

/// How many waiting requests one other server may have, whose users open a picture all at once.
const MAX_WAITING_OF_SERVER: usize = 64;

/// How many waiting requests strangers may have together, and other servers together: where many are
/// behind one name, they must not take the places of users.
const MAX_WAITING_OF_STRANGERS: usize = 512;

/// How many readers may wait in all. Each of them holds a connection.
const MAX_WAITING: usize = 2048;

/// Who waits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Waiter {
    /// A user of the homeserver.
    User(UserId),
    /// Anybody, by the legacy routes.
    Anybody,
    /// Another homeserver that has signed.
    Server(ServerName),
    /// Other homeservers, where we do not know which.
    Origin,
}

/// How many kinds of waiters there are.
const KINDS: usize = 3;

impl Waiter {
    fn kind(&self) -> usize {
        match self {
            Self::User(_) => 0,
            Self::Anybody => 1,
            Self::Server(_) | Self::Origin => 2,
        }
    }

    /// Returns how many requests this one may have waiting.
    fn limit(&self) -> usize {
        match self {
            Self::User(_) => MAX_WAITING_OF_USER,
            Self::Server(_) => MAX_WAITING_OF_SERVER,
            Self::Anybody | Self::Origin => MAX_WAITING_OF_STRANGERS,
        }
    }
}

/// Where uploads are announced. Holds something only for ids that are being written or waited for.
pub(super) struct Board {
    state: Mutex<State>,
    waiting: IntGauge,
}

#[derive(Default)]
struct State {
    notices: HashMap<MediaId, Notice>,
    waiters: HashMap<Waiter, usize>,
    waiting: usize,
}

/// What is known of one id.
struct Notice {
    /// Whether somebody is uploading to it.
    claimed: bool,
    /// How many readers of each kind wait for it.
    waiting: [usize; KINDS],
    /// The upload, once its first bytes are there.
    upload: watch::Sender<Option<Arc<Arrival>>>,
}

impl Board {
    /// Makes an empty board that shows how many wait.
    pub(super) fn new(waiting: IntGauge) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), waiting })
    }

    /// Takes an id to upload to; `None` if somebody has it.
    pub(super) fn claim(self: &Arc<Self>, media_id: &MediaId) -> Option<Claim> {
        let mut state = self.state();
        let notice = state.notice(media_id);
        if notice.claimed {
            return None;
        }
        notice.claimed = true;
        Some(Claim { board: Arc::clone(self), media_id: media_id.clone() })
    }

    /// Returns the upload to an id, if its first bytes are there.
    pub(super) fn under_way(&self, media_id: &MediaId) -> Option<Arc<Arrival>> {
        self.state().notices.get(media_id)?.upload.borrow().clone().filter(is_sound)
    }

    /// Takes a place among those who wait for an upload to begin.
    ///
    /// # Errors
    ///
    /// [`MediaError::TooManyWaiting`] if there are too many for this id, of this waiter or in all.
    pub(super) fn wait(
        self: &Arc<Self>,
        media_id: &MediaId,
        waiter: Waiter,
    ) -> Result<Waiting, MediaError> {
        let mut state = self.state();
        let of_waiter = state.waiters.get(&waiter).copied().unwrap_or_default();
        let for_one = state.notices.get(media_id).map_or(0, |n| n.waiting[waiter.kind()]);
        let is_full = state.waiting >= MAX_WAITING
            || of_waiter >= waiter.limit()
            || for_one >= MAX_WAITING_FOR_ONE;
        if is_full {
            return Err(MediaError::TooManyWaiting);
        }
        state.waiting += 1;
        *state.waiters.entry(waiter.clone()).or_default() += 1;
        let notice = state.notice(media_id);
        notice.waiting[waiter.kind()] += 1;
        let upload = notice.upload.subscribe();
        self.waiting.inc();
        Ok(Waiting { board: Arc::clone(self), media_id: media_id.clone(), waiter, upload })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn notice(&mut self, media_id: &MediaId) -> &mut Notice {
        self.notices.entry(media_id.clone()).or_insert_with(|| Notice {
            claimed: false,
            waiting: [0; KINDS],
            upload: watch::Sender::new(None),
        })
    }

    /// Takes a notice down if it says nothing any more.
    fn tidy(&mut self, media_id: &MediaId) {
        if self.notices.get(media_id).is_some_and(|n| !n.claimed && n.waiting == [0; KINDS]) {
            self.notices.remove(media_id);
        }
    }
}

/// The right to upload to an id, until it is dropped.
pub(super) struct Claim {
    board: Arc<Board>,
    media_id: MediaId,
}

impl Claim {
    /// Lets everybody who waits follow the upload.
    pub(super) fn announce(&self, arrival: &Arc<Arrival>) {
        let mut state = self.board.state();
        state.notice(&self.media_id).upload.send_replace(Some(Arc::clone(arrival)));
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = self.board.state();
        let notice = state.notice(&self.media_id);
        notice.claimed = false;
        // An upload that came to its end stays up for those who wait and have not looked yet.
        notice.upload.send_if_modified(|upload| {
            let is_over = upload.as_ref().is_some_and(|arrival| !arrival.is_kept());
            if is_over {
                *upload = None;
            }
            is_over
        });
        state.tidy(&self.media_id);
    }
}

/// A place among those who wait, until it is dropped.
pub(super) struct Waiting {
    board: Arc<Board>,
    media_id: MediaId,
    waiter: Waiter,
    upload: watch::Receiver<Option<Arc<Arrival>>>,
}

impl Waiting {
    /// Waits until the first bytes of an upload are there; it may take for ever.
    pub(super) async fn begun(&mut self) -> Arc<Arrival> {
        loop {
            let begun = self.upload.wait_for(|upload| upload.as_ref().is_some_and(is_sound)).await;
            match begun.map(|arrival| arrival.clone()) {
                Ok(Some(arrival)) => return arrival,
                Ok(None) => {}
                // The notice stays up as long as somebody waits.
                Err(_) => std::future::pending().await,
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.board.state();
        state.waiting -= 1;
        if let Some(count) = state.waiters.get_mut(&self.waiter) {
            *count -= 1;
            if *count == 0 {
                state.waiters.remove(&self.waiter);
            }
        }
        state.notice(&self.media_id).waiting[self.waiter.kind()] -= 1;
        state.tidy(&self.media_id);
        self.board.waiting.dec();
    }
}

/// Whether an upload has not failed.
fn is_sound(arrival: &Arc<Arrival>) -> bool {
    arrival.failure().is_none()
}

#[cfg(test)]
mod tests;
