//! Quotas: what a user may keep here, exact whatever arrives at the same time (threats RX-10).
//!
//! What is stored is counted by the store. What is still to be stored is charged here before it is read,
//! and the charge ends with its guard: when the record is there, or when it is certain that it will
//! not be. At the moment of a commit the record and its charge are both there, so each time somebody is
//! judged, the charges that are being settled are held against the records of that same moment.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Clock, MediaError};
use crate::store::{Presence, Store, Tally};
use crate::types::{Mxc, UnixMillis, UserId};

/// How much more than it needs a body of unknown length is charged in advance, so that not every chunk
/// is judged.
const STEP: u64 = 1024 * 1024;

/// How much a user may keep here (CS-LIM-04).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quota {
    /// The most bytes; `None` for any number.
    pub bytes: Option<u64>,
    /// The most files, media ids that are not uploaded to yet included; `None` for any number.
    pub files: Option<u64>,
    /// What a user who has reached it is told.
    pub info: Option<Arc<QuotaInfo>>,
}

/// Where a user learns about their quota (CS-GEN-09).
#[derive(Debug, PartialEq, Eq)]
pub struct QuotaInfo {
    /// The address of a page.
    pub uri: Box<str>,
    /// Whether they can have a larger one.
    pub can_upgrade: bool,
}

impl Quota {
    fn is_none(&self) -> bool {
        self.bytes.is_none() && self.files.is_none()
    }

    fn holds(&self, total: Tally) -> bool {
        self.bytes.is_none_or(|most| total.bytes <= most)
            && self.files.is_none_or(|most| total.count <= most)
    }
}

/// What is to be charged, to begin with.
#[derive(Debug)]
pub(super) struct Want {
    /// Which media.
    pub(super) mxc: Mxc,
    /// How many bytes, as far as that is known.
    pub(super) bytes: u64,
    /// How many bytes have to be left besides.
    pub(super) spare_bytes: u64,
    /// Until when the store counts the media id itself.
    pub(super) reserved_until: Option<UnixMillis>,
}

/// Charges users who have a quota. Remembers only those who have a charge.
pub(super) struct Quotas {
    store: Store,
    clock: Clock,
    accounts: Mutex<HashMap<UserId, Arc<Account>>>,
    next_id: AtomicU64,
}

/// What a user is being charged for.
#[derive(Default)]
struct Account(Mutex<Vec<Entry>>);

impl Account {
    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        // A list that a panic has left is whole: each change of it is one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Entry {
    /// Of which charge: there may be two for one media id, if an upload to it is given up during its
    /// commit and begun again.
    id: u64,
    mxc: Mxc,
    bytes: u64,
    reserved_until: Option<UnixMillis>,
    /// Whether its record may be there at any moment.
    is_settling: bool,
}

impl Entry {
    /// Returns what it comes to beside what the store counts.
    fn beside(&self, presence: Presence) -> Tally {
        match presence {
            Presence::Stored => Tally::default(),
            Presence::Reserved => Tally { count: 0, bytes: self.bytes },
            Presence::Absent => Tally { count: 1, bytes: self.bytes },
        }
    }
}

impl Quotas {
    pub(super) fn new(store: Store, clock: Clock) -> Arc<Self> {
        Arc::new(Self { store, clock, accounts: Mutex::default(), next_id: AtomicU64::new(0) })
    }

    /// Charges a user for media that is still to come.
    ///
    /// # Errors
    ///
    /// [`MediaError::OverQuota`] if it does not fit beside all that is stored and charged.
    pub(super) fn charge(
        self: &Arc<Self>,
        user: &UserId,
        quota: &Quota,
        want: Want,
    ) -> Result<Charge, MediaError> {
        if quota.is_none() {
            return Ok(Charge::free());
        }
        let account = Arc::clone(self.accounts().entry(user.clone()).or_default());
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        // Made before the judgement, so that the account does not stay behind of a refusal.
        let open = Open {
            quotas: Arc::clone(self),
            account,
            user: user.clone(),
            quota: quota.clone(),
            id,
            bytes: want.bytes,
        };
        {
            let mut entries = open.account.entries();
            entries.push(Entry {
                id,
                mxc: want.mxc,
                bytes: want.bytes,
                reserved_until: want.reserved_until,
                is_settling: false,
            });
            let judged = open.judge(&entries, want.spare_bytes);
            if judged.is_err() {
                // Before anybody else is judged.
                entries.pop();
            }
            judged?;
        }
        Ok(Charge(Some(open)))
    }

    /// Adds up what a user has and is charged for, each thing once.
    fn total(&self, user: &UserId, entries: &[Entry]) -> Result<Tally, MediaError> {
        let now = self.clock.now();
        let settling: Vec<Mxc> = entries
            .iter()
            .filter(|entry| entry.is_settling)
            .map(|entry| entry.mxc.clone())
            .collect();
        let holdings = self.store.holdings(user, now, &settling)?;
        let mut total = holdings.uploaded;
        total.count = total.count.saturating_add(holdings.pending);
        let mut settled = holdings.ids.into_iter();
        for entry in entries {
            let presence = if entry.is_settling {
                settled.next().unwrap_or(Presence::Absent)
            } else if entry.reserved_until.is_some_and(|until| now < until) {
                Presence::Reserved
            } else {
                Presence::Absent
            };
            let beside = entry.beside(presence);
            total.count = total.count.saturating_add(beside.count);
            total.bytes = total.bytes.saturating_add(beside.bytes);
        }
        Ok(total)
    }

    fn accounts(&self) -> MutexGuard<'_, HashMap<UserId, Arc<Account>>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a user is charged, until it is dropped. Drop it when the record is there, or when it is certain
/// that it will not be.
pub(super) struct Charge(Option<Open>);

struct Open {
    quotas: Arc<Quotas>,
    account: Arc<Account>,
    user: UserId,
    quota: Quota,
    /// Which of the account's entries this is.
    id: u64,
    bytes: u64,
}

impl Charge {
    /// Returns a charge to nobody.
    pub(super) fn free() -> Self {
        Self(None)
    }

    /// Makes sure that so many bytes are charged in all.
    ///
    /// # Errors
    ///
    /// [`MediaError::OverQuota`] if they do not fit; what was charged before stays charged.
    pub(super) fn cover(&mut self, bytes: u64) -> Result<(), MediaError> {
        match &mut self.0 {
            Some(open) if bytes > open.bytes => match open.raise(bytes.saturating_add(STEP)) {
                Err(MediaError::OverQuota { .. }) => open.raise(bytes),
                outcome => outcome,
            },
            Some(_) | None => Ok(()),
        }
    }

    /// Announces that the record may be there from now on, with a body of so many bytes.
    pub(super) fn settle(&mut self, bytes: u64) {
        if let Some(open) = &mut self.0 {
            open.bytes = bytes;
            open.change(|entry| {
                entry.bytes = bytes;
                entry.is_settling = true;
            });
        }
    }
}

impl Open {
    fn raise(&mut self, bytes: u64) -> Result<(), MediaError> {
        let mut entries = self.account.entries();
        let set = |entries: &mut Vec<Entry>, bytes| {
            entries.iter_mut().filter(|entry| entry.id == self.id).for_each(|e| e.bytes = bytes);
        };
        set(&mut entries, bytes);
        let judged = self.judge(&entries, 0);
        if judged.is_err() {
            set(&mut entries, self.bytes);
        }
        drop(entries);
        if judged.is_ok() {
            self.bytes = bytes;
        }
        judged
    }

    fn judge(&self, entries: &[Entry], spare_bytes: u64) -> Result<(), MediaError> {
        let mut total = self.quotas.total(&self.user, entries)?;
        total.bytes = total.bytes.saturating_add(spare_bytes);
        if self.quota.holds(total) {
            Ok(())
        } else {
            Err(MediaError::OverQuota { info: self.quota.info.clone() })
        }
    }

    fn change(&self, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.account.entries();
        if let Some(entry) = entries.iter_mut().find(|entry| entry.id == self.id) {
            change(entry);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.account.entries().retain(|entry| entry.id != self.id);
        let mut accounts = self.quotas.accounts();
        // Whoever has a charge, or is being judged for one, owns the account too: one is the map, the
        // other this.
        if accounts.get(&self.user).is_some_and(|account| Arc::strong_count(account) <= 2) {
            accounts.remove(&self.user);
        }
    }
}

#[cfg(test)]
mod tests;
