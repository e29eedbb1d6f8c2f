//! Who may: the only place where a [`Requester`] and an [`Origin`] are made.
//!
//! A token is shown to the homeserver's `whoami` and the answer is remembered for a short time.
//! If the homeserver cannot be asked, nobody is let in and nobody is logged out.

mod credentials;
mod devices;
mod origin;
mod standing;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::future::Cache;
use ring::hmac;
use ring::rand::SystemRandom;

use crate::homeserver::{Caller, Homeserver, HomeserverError, Refusal, Sender, Whoami};
use crate::metrics::Metrics;
use crate::types::{AccessToken, UserId};

pub use credentials::{Credentials, InvalidCredentials};
pub use origin::{Origin, OriginAuthenticator, OriginClaim, OriginError};

use devices::Devices;
use standing::Standing;

/// How long a refusal is remembered: enough to take the edge off a client that tries in a loop,
/// too short for anybody to notice.
const REFUSAL_LIFETIME: Duration = Duration::from_secs(1);

/// How often a check is begun again because sessions ended while the homeserver was being asked.
const MAX_CHECKS: usize = 3;

/// Somebody whom the homeserver vouches for. Holding one is the permission to ask for media.
#[derive(Debug, Clone)]
pub struct Requester {
    identity: Arc<Identity>,
    credentials: Credentials,
    sender: Sender,
}

#[derive(Debug)]
struct Identity {
    /// A keyed hash of the token alone, for forgetting it whoever it was used for.
    token: Hash,
    user_id: UserId,
    is_guest: bool,
    /// A keyed hash of the user and the device, if the token has one.
    device: Option<Hash>,
}

impl Requester {
    /// Vouches for a user in the homeserver's place.
    #[cfg(test)]
    pub fn for_test(user_id: UserId) -> Self {
        Self::with(Identity { token: [0; 32], user_id, is_guest: false, device: None })
    }

    /// As [`for_test`](Self::for_test), for a guest.
    #[cfg(test)]
    pub fn guest_for_test(user_id: UserId) -> Self {
        Self::with(Identity { token: [0; 32], user_id, is_guest: true, device: None })
    }

    #[cfg(test)]
    fn with(identity: Identity) -> Self {
        let token = AccessToken::new("");
        let credentials = Credentials { token, user_id: None, device_id: None };
        Self { identity: Arc::new(identity), credentials, sender: Sender::default() }
    }

    /// Returns the user.
    pub fn user_id(&self) -> &UserId {
        &self.identity.user_id
    }

    /// Whether the homeserver says that this is a guest, which not every homeserver knows (FLD-20).
    pub fn is_guest(&self) -> bool {
        self.identity.is_guest
    }

    /// Returns what the homeserver is asked with in the requester's name: the token, whom it acts
    /// for, and where the request came from.
    pub fn caller(&self) -> Caller<'_> {
        self.credentials.caller(&self.sender)
    }
}

/// Why there is no [`Requester`], or none that may do this.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AuthError {
    /// The request holds nothing that could be checked.
    #[error(transparent)]
    Invalid(#[from] InvalidCredentials),
    /// The homeserver said no; its words go to the client unchanged.
    #[error("the homeserver refused the token")]
    Refused(Refusal),
    /// The user may read, but not do this (CS-AUTH-09).
    #[error("the user is suspended")]
    Suspended,
    /// The homeserver could not be asked.
    #[error(transparent)]
    Homeserver(#[from] HomeserverError),
}

/// Checks tokens and remembers the answers.
pub struct Authenticator {
    homeserver: Homeserver,
    cache: Cache<CacheKey, Verdict>,
    devices: Devices,
    standing: Option<Standing>,
    lifetime: Duration,
    entries: u64,
    key: hmac::Key,
    /// Counts the times that sessions ended; see [`Authenticator::ask`].
    endings: AtomicU64,
    metrics: Arc<Metrics>,
}

/// What stands for a token in memory, with a key of this process; the token itself is never kept.
type Hash = [u8; 32];

/// A keyed hash of the token and of whom it acts for.
type CacheKey = Hash;

#[derive(Debug, Clone)]
enum Verdict {
    Known(Arc<Identity>),
    Refused(Arc<Refusal>),
}

/// A failed check as the callers that waited for it share it.
#[derive(Debug)]
enum CheckError {
    Homeserver(HomeserverError),
    /// A good answer that may be out of date already: used, but not remembered.
    Unsettled(Arc<Identity>),
}

struct Lifetimes {
    known: Duration,
}

impl Expiry<CacheKey, Verdict> for Lifetimes {
    fn expire_after_create(&self, _: &CacheKey, verdict: &Verdict, _: Instant) -> Option<Duration> {
        Some(match verdict {
            Verdict::Known(_) => self.known,
            Verdict::Refused(_) => REFUSAL_LIFETIME.min(self.known),
        })
    }
}

impl Authenticator {
    /// Makes an authenticator that remembers at most `entries` answers for `lifetime` each.
    ///
    /// # Errors
    ///
    /// Fails if the system gives no random numbers.
    pub fn new(
        homeserver: Homeserver,
        lifetime: Duration,
        entries: u64,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ring::error::Unspecified> {
        Ok(Self {
            homeserver,
            cache: Cache::builder()
                .max_capacity(entries)
                .expire_after(Lifetimes { known: lifetime })
                .support_invalidation_closures()
                .build(),
            devices: Devices::new(lifetime, entries),
            standing: None,
            lifetime,
            entries,
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())?,
            endings: AtomicU64::new(0),
            metrics,
        })
    }

    /// Lets it ask with an administrator's token whether users are suspended.
    pub fn with_admin_token(self, token: AccessToken) -> Self {
        let standing = Standing::new(token, self.lifetime, self.entries);
        Self { standing: Some(standing), ..self }
    }

    /// Makes sure that a requester may upload. Everybody may as long as nobody can be asked.
    ///
    /// # Errors
    ///
    /// [`AuthError::Suspended`], or [`AuthError::Homeserver`] if it does not tell.
    pub async fn check_may_upload(&self, requester: &Requester) -> Result<(), AuthError> {
        match &self.standing {
            Some(standing) => standing.check(&self.homeserver, requester).await,
            None => Ok(()),
        }
    }

    /// Returns who the credentials belong to. Concurrent checks of the same credentials are one
    /// question to the homeserver.
    ///
    /// # Errors
    ///
    /// [`AuthError`] if the homeserver says no or says nothing.
    pub async fn check(
        &self,
        credentials: Credentials,
        sender: Sender,
    ) -> Result<Requester, AuthError> {
        let key = self.cache_key(&credentials);
        let verdict = match self.remembered(&key).await {
            Some(verdict) => {
                self.metrics.token_checks.cached.inc();
                verdict
            }
            None => {
                let before = self.endings.load(Ordering::SeqCst);
                match self.cache.try_get_with(key, self.ask(&credentials, &sender)).await {
                    Ok(verdict) => {
                        // A session may have ended while the answer was being put away.
                        if self.endings.load(Ordering::SeqCst) != before {
                            self.cache.invalidate(&key).await;
                        }
                        verdict
                    }
                    Err(error) => match &*error {
                        CheckError::Unsettled(identity) => Verdict::Known(identity.clone()),
                        CheckError::Homeserver(error) => return Err(error.clone().into()),
                    },
                }
            }
        };
        match verdict {
            Verdict::Known(identity) => Ok(Requester { identity, credentials, sender }),
            Verdict::Refused(refusal) => Err(AuthError::Refused(refusal.as_ref().clone())),
        }
    }

    /// Returns what is remembered, unless the homeserver has said since that another token is that of
    /// the device: then this one may have been replaced (CS-AUTH-07).
    async fn remembered(&self, key: &CacheKey) -> Option<Verdict> {
        let verdict = self.cache.get(key).await?;
        if let Verdict::Known(identity) = &verdict
            && self.devices.is_replaced(identity)
        {
            self.cache.invalidate(key).await;
            return None;
        }
        Some(verdict)
    }

    /// Asks the homeserver. If sessions ended meanwhile the answer may be from before, so it is
    /// asked again; what stays uncertain is not remembered.
    async fn ask(&self, credentials: &Credentials, sender: &Sender) -> Result<Verdict, CheckError> {
        let mut unsettled = None;
        for _ in 0..MAX_CHECKS {
            let before = self.endings.load(Ordering::SeqCst);
            let answer = self.homeserver.whoami(credentials.caller(sender)).await;
            let whoami = match answer {
                Ok(Ok(whoami)) => whoami,
                Ok(Err(refusal)) => {
                    self.metrics.token_checks.refused.inc();
                    return Ok(Verdict::Refused(Arc::new(refusal)));
                }
                Err(error) => {
                    self.metrics.token_checks.failed.inc();
                    return Err(CheckError::Homeserver(error));
                }
            };
            self.metrics.token_checks.accepted.inc();
            let identity = Arc::new(self.identity(credentials, whoami));
            self.devices.note(&identity);
            if self.endings.load(Ordering::SeqCst) == before {
                return Ok(Verdict::Known(identity));
            }
            unsettled = Some(identity);
        }
        Err(unsettled.map_or_else(
            || CheckError::Homeserver(HomeserverError::TooSlow),
            CheckError::Unsettled,
        ))
    }

    fn identity(&self, credentials: &Credentials, whoami: Whoami) -> Identity {
        let Whoami { user_id, device_id, is_guest } = whoami;
        let device = device_id.map(|device_id| {
            // User ids hold no control characters.
            let named = format!("{user_id}\0{device_id}");
            hash(hmac::sign(&self.key, named.as_bytes()))
        });
        Identity { token: self.token_hash(credentials), user_id, is_guest, device }
    }

    /// Forgets one token at once, with whatever parameters it was used: a logout has passed
    /// through.
    pub fn forget_token(&self, credentials: &Credentials) {
        let token = self.token_hash(credentials);
        self.forget_if(move |identity| identity.token == token);
    }

    /// Forgets every token of the user that these credentials belong to, or of everybody if that
    /// is not known.
    pub async fn forget_user(&self, credentials: Option<&Credentials>) {
        let known = match credentials {
            Some(credentials) => self.cache.get(&self.cache_key(credentials)).await,
            None => None,
        };
        let Some(Verdict::Known(owner)) = known else { return self.forget_everybody() };
        self.forget_if(move |identity| identity.user_id == owner.user_id);
    }

    fn forget_if(&self, is_over: impl Fn(&Identity) -> bool + Send + Sync + 'static) {
        self.endings.fetch_add(1, Ordering::SeqCst);
        let outcome = self.cache.invalidate_entries_if(
            move |_, verdict| matches!(verdict, Verdict::Known(identity) if is_over(identity)),
        );
        if outcome.is_err() {
            self.forget_everybody();
        }
    }

    /// Forgets every token, and who is suspended.
    pub fn forget_everybody(&self) {
        self.endings.fetch_add(1, Ordering::SeqCst);
        self.cache.invalidate_all();
        if let Some(standing) = &self.standing {
            standing.forget();
        }
    }

    fn token_hash(&self, credentials: &Credentials) -> Hash {
        hash(hmac::sign(&self.key, credentials.token.reveal().as_bytes()))
    }

    fn cache_key(&self, credentials: &Credentials) -> CacheKey {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(credentials.token.reveal().as_bytes());
        for parameter in [&credentials.user_id, &credentials.device_id] {
            // Tokens hold no control characters, so no two sets of credentials read alike.
            match parameter {
                Some(value) => {
                    context.update(&[1]);
                    context.update(&(value.len() as u64).to_le_bytes());
                    context.update(value.as_bytes());
                }
                None => context.update(&[0]),
            }
        }
        hash(context.sign())
    }

    /// Whether the homeserver is remembered to vouch for these credentials.
    pub async fn knows(&self, credentials: &Credentials) -> bool {
        let verdict = self.cache.get(&self.cache_key(credentials)).await;
        matches!(verdict, Some(Verdict::Known(_)))
    }
}

fn hash(tag: hmac::Tag) -> Hash {
    let mut hash = Hash::default();
    hash.copy_from_slice(tag.as_ref());
    hash
}
