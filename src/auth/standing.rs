//! Who may not act although their token is good: suspended users read, but do not upload
//! (CS-AUTH-09, threats AU-21).
//!
//! `whoami` does not tell, so this takes an administrator's token. Without one nobody is asked about.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::future::Cache;

use super::{AuthError, Requester};
use crate::homeserver::{Homeserver, HomeserverError};
use crate::types::{AccessToken, UserId};

/// Asks about users and remembers the answers.
pub(super) struct Standing {
    admin_token: AccessToken,
    /// By user, and by how often all was forgotten when the question began: an answer from before is
    /// not found after.
    suspended: Cache<(u64, UserId), bool>,
    forgotten: AtomicU64,
}

impl Standing {
    /// Remembers at most `entries` answers for `lifetime` each.
    pub(super) fn new(admin_token: AccessToken, lifetime: Duration, entries: u64) -> Self {
        let suspended = Cache::builder().max_capacity(entries).time_to_live(lifetime).build();
        Self { admin_token, suspended, forgotten: AtomicU64::new(0) }
    }

    /// Makes sure that a requester is not suspended. Concurrent questions about a user are one.
    ///
    /// # Errors
    ///
    /// [`AuthError::Suspended`], or [`AuthError::Homeserver`] if it cannot be told.
    pub(super) async fn check(
        &self,
        homeserver: &Homeserver,
        requester: &Requester,
    ) -> Result<(), AuthError> {
        let user_id = requester.user_id();
        let key = (self.forgotten.load(Ordering::SeqCst), user_id.clone());
        let question = homeserver.is_suspended(user_id, &self.admin_token);
        match self.suspended.try_get_with(key, question).await {
            Ok(false) => Ok(()),
            Ok(true) => Err(AuthError::Suspended),
            Err(error) => Err(HomeserverError::clone(&error).into()),
        }
    }

    /// Forgets every answer: an administrator may have changed one.
    pub(super) fn forget(&self) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        self.suspended.invalidate_all();
    }
}
