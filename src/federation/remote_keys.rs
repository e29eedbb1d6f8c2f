//! The keys that other servers publish: fetched, checked, and remembered within bounds.
//!
//! For one server, however its name is spelled, there is one fetch at a time. Whoever asks meanwhile
//! waits for it, and if the one who began it goes away, one of those who wait begins anew. Servers do
//! not wait for each other, and who fails does not push those out of memory who answer. Since anybody
//! may name any server, nobody can begin more than a few fetches at once.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use moka::ops::compute::{CompResult, Op};
use moka::policy::EvictionPolicy;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::signature::UnparsedPublicKey;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::folded_name::FoldedName;
use super::key_document::{self, KeyDocument, MAX_VALIDITY};
use super::key_error::KeyError;
use super::servers::Servers;
use super::signing_key::KeyId;
use crate::types::{ClientNetwork, ServerName, Shares, UnixMillis};

mod source;

use source::Source;

/// A key that another server signs requests with.
pub type VerifyKey = UnparsedPublicKey<[u8; 32]>;

/// How long one fetch may take, with discovery, and with all notaries (threats FE-08).
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// How much of that the server itself has where there are notaries to ask after it.
const DIRECT_TIMEOUT: Duration = Duration::from_secs(6);

/// How long anybody waits for a key. It is more than a fetch takes, so that a failure is remembered
/// before its last reader gives up.
const PATIENCE: Duration = Duration::from_secs(12);

/// How often a server is asked at most that has answered, whatever key is looked for and however
/// short its answer is good (KEY-06).
const MIN_INTERVAL: Duration = Duration::from_secs(60);

/// How long a server is left alone after its first failure; each further one doubles it.
const FIRST_BACKOFF: Duration = Duration::from_secs(30);

/// The longest that it is left alone. Strangers can have it asked while it is down, and it is not to be
/// locked out for long after that.
const MAX_BACKOFF: Duration = Duration::from_secs(5 * 60);

/// How many bytes of keys are remembered, those of some ten thousands of servers.
const MAX_KNOWN_BYTES: u64 = 16 * 1024 * 1024;

/// How many servers are remembered to have failed.
const MAX_FAILED: u64 = 8192;

/// How many servers are asked at once. It bounds sockets and buffers; whoever finds no place waits.
const MAX_FETCHES: usize = 1024;

/// How many of these fetches one client may have begun, or wait to begin: it can name as many servers
/// that never answer as it likes, and others need the places too (threats FE-08).
const MAX_FETCHES_PER_CLIENT: usize = 32;

/// How many of a notary's signatures are looked at.
const MAX_NOTARY_SIGNATURES: usize = 8;

/// What stands unescaped in a segment of a path, of what server names are made of.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b':');

/// What a server has answered.
#[derive(Debug)]
struct Known {
    document: KeyDocument,
    asked_at: Instant,
}

impl Known {
    /// Returns a key that is good now. It belongs to the server by its exact name alone.
    fn find(&self, search: &Search<'_>) -> Option<VerifyKey> {
        let KeyDocument { server_name, keys, valid_until } = &self.document;
        let (_, key) = keys.iter().find(|(id, _)| id == search.key_id)?;
        (server_name == search.server && search.now < *valid_until).then_some(*key)
    }
}

/// Estimates how many bytes an entry takes, with what the cache itself needs for it.
fn weigh(name: &FoldedName, known: &Known) -> u32 {
    let names = name.len() + known.document.server_name.as_str().len();
    let keys = known.document.keys.iter().map(|(id, _)| id.as_str().len() + 64);
    u32::try_from(names + keys.sum::<usize>() + 256).unwrap_or(u32::MAX)
}

/// How a server has failed.
#[derive(Debug, Clone)]
struct Failure {
    error: KeyError,
    count: u32,
    until: Instant,
}

/// What is known of other servers' keys. Clones share it.
#[derive(Clone)]
pub struct RemoteKeys {
    inner: Arc<Inner>,
}

struct Inner {
    source: Box<dyn Source>,
    notaries: Vec<ServerName>,
    known: Cache<FoldedName, Arc<Known>>,
    failed: moka::sync::Cache<FoldedName, Failure>,
    fetches: Semaphore,
    shares: Arc<Shares<ClientNetwork>>,
}

/// One search for a key: which, when, for whom, and whether it is for checking what a notary says.
#[derive(Clone, Copy)]
struct Search<'s> {
    server: &'s ServerName,
    key_id: &'s KeyId,
    now: UnixMillis,
    client: Option<ClientNetwork>,
    is_for_notary: bool,
}

/// What to do about a search.
enum Step {
    Answer(Result<VerifyKey, KeyError>),
    Ask,
}

impl RemoteKeys {
    /// Asks servers themselves, and where they cannot be reached these notaries (KEY-07, KEY-10).
    pub fn new(servers: Servers, notaries: Vec<ServerName>) -> Self {
        Self::from_source(Box::new(servers), notaries)
    }

    fn from_source(source: Box<dyn Source>, notaries: Vec<ServerName>) -> Self {
        let known = Cache::builder()
            .max_capacity(MAX_KNOWN_BYTES)
            .weigher(|name: &FoldedName, known: &Arc<Known>| weigh(name, known))
            // Holds even where somebody sets the clock back (KEY-04).
            .time_to_live(MAX_VALIDITY)
            .build();
        let failed = moka::sync::Cache::builder()
            .max_capacity(MAX_FAILED)
            .eviction_policy(EvictionPolicy::lru())
            .time_to_live(2 * MAX_BACKOFF)
            .build();
        let fetches = Semaphore::new(MAX_FETCHES);
        let shares = Shares::new(MAX_FETCHES_PER_CLIENT);
        Self { inner: Arc::new(Inner { source, notaries, known, failed, fetches, shares }) }
    }

    /// Returns a key that is good for requests now.
    ///
    /// `client` is whoever claims to be that server, where an address is known: one client can begin
    /// few fetches at once. What is known, or is being fetched already, takes none of its places.
    ///
    /// # Errors
    ///
    /// [`KeyError`]; it is remembered for a while, but for [`KeyError::Busy`].
    pub async fn key(
        &self,
        server: &ServerName,
        key_id: &KeyId,
        client: Option<ClientNetwork>,
    ) -> Result<VerifyKey, KeyError> {
        let now = UnixMillis::now();
        self.search(Search { server, key_id, now, client, is_for_notary: false }).await
    }

    async fn search(&self, search: Search<'_>) -> Result<VerifyKey, KeyError> {
        let deadline = Instant::now() + PATIENCE;
        match timeout_at(deadline, self.inner.find(search)).await {
            Ok(found) => found,
            Err(_) => Err(search.timed_out()),
        }
    }
}

impl Search<'_> {
    fn unknown(&self) -> KeyError {
        KeyError::Unknown { server: self.server.clone(), key_id: self.key_id.to_string() }
    }

    fn timed_out(&self) -> KeyError {
        KeyError::TimedOut { server: self.server.clone() }
    }

    fn unbelievable(&self, reason: &'static str) -> KeyError {
        KeyError::Unbelievable { server: self.server.clone(), reason }
    }
}

impl Inner {
    /// Finds a key in memory or asks for it.
    async fn find(&self, search: Search<'_>) -> Result<VerifyKey, KeyError> {
        let name = FoldedName::of(search.server);
        let known = self.known.get(&name).await;
        if let Step::Answer(answer) = self.judge(&search, &name, known.as_deref()) {
            return answer;
        }
        // One at a time for each server. Whoever comes second finds what the first was told.
        let (entry, name) = (self.known.entry(name.clone()), &name);
        let outcome = entry.and_try_compute_with(|entry| async move {
            let known = entry.map(|entry| entry.into_value());
            match self.judge(&search, name, known.as_deref()) {
                Step::Answer(Ok(_)) => Ok(Op::Nop),
                Step::Answer(Err(error)) => Err(error),
                Step::Ask => self.ask(&search, name).await.map(|known| Op::Put(Arc::new(known))),
            }
        });
        let known = match Box::pin(outcome).await? {
            CompResult::Inserted(entry)
            | CompResult::ReplacedWith(entry)
            | CompResult::Unchanged(entry) => entry.into_value(),
            CompResult::StillNone(_) | CompResult::Removed(_) => return Err(search.unknown()),
        };
        known.find(&search).ok_or_else(|| search.unknown())
    }

    /// Decides from memory whether the server is to be asked.
    fn judge(&self, search: &Search<'_>, name: &FoldedName, known: Option<&Known>) -> Step {
        if let Some(key) = known.and_then(|known| known.find(search)) {
            return Step::Answer(Ok(key));
        }
        if let Some(failure) = self.failed.get(name)
            && Instant::now() < failure.until
        {
            return Step::Answer(Err(failure.error));
        }
        match known {
            Some(known) if known.asked_at.elapsed() < MIN_INTERVAL => {
                Step::Answer(Err(search.unknown()))
            }
            _ => Step::Ask,
        }
    }

    /// Asks the server, and where it is out of reach the notaries; remembers failure.
    async fn ask(&self, search: &Search<'_>, name: &FoldedName) -> Result<Known, KeyError> {
        // A notary is asked while the places of the server that it is asked about are held.
        let _places = match search.is_for_notary {
            true => None,
            false => Some(self.take_places(search).await?),
        };
        let asked_at = Instant::now();
        match self.fetch(search, asked_at).await {
            Ok(document) => {
                self.failed.invalidate(name);
                Ok(Known { document, asked_at })
            }
            Err(error) => {
                self.note_failure(name, &error);
                Err(error)
            }
        }
    }

    /// Takes a place of the client's own, if one is free, and waits for one among all.
    async fn take_places(&self, search: &Search<'_>) -> Result<impl Sized + '_, KeyError> {
        let own = match search.client {
            Some(client) => Some(self.shares.try_take(client).ok_or(KeyError::Busy)?),
            None => None,
        };
        let place = self.fetches.acquire().await.map_err(|_| search.timed_out())?;
        Ok((own, place))
    }

    fn note_failure(&self, name: &FoldedName, error: &KeyError) {
        let before = self.failed.get(name).map_or(0, |failure| failure.count);
        let backoff = FIRST_BACKOFF.saturating_mul(1 << before.min(16)).min(MAX_BACKOFF);
        let until = Instant::now() + backoff;
        let failure = Failure { error: error.clone(), count: before.saturating_add(1), until };
        self.failed.insert(name.clone(), failure);
    }

    async fn fetch(&self, search: &Search<'_>, begin: Instant) -> Result<KeyDocument, KeyError> {
        let deadline = begin + FETCH_TIMEOUT;
        // Notaries' own keys are had from themselves alone: else two could wait for each other.
        let name = FoldedName::of(search.server);
        let is_notary = self.notaries.iter().any(|notary| FoldedName::of(notary) == name);
        let is_alone = search.is_for_notary || is_notary;
        let notaries: &[ServerName] = if is_alone { &[] } else { &self.notaries };
        let direct = if notaries.is_empty() { deadline } else { begin + DIRECT_TIMEOUT };
        let error = match self.fetch_direct(search, direct).await {
            Err(error) if error.is_out_of_reach() => error,
            outcome => return outcome,
        };
        for notary in notaries {
            let notarised = self.fetch_notarised(search, notary, deadline);
            if let Ok(Ok(document)) = timeout_at(deadline, Box::pin(notarised)).await {
                return Ok(document);
            }
        }
        Err(error)
    }

    async fn fetch_direct(
        &self,
        search: &Search<'_>,
        deadline: Instant,
    ) -> Result<KeyDocument, KeyError> {
        let answer = self.source.get(search.server, "/_matrix/key/v2/server", deadline);
        let answer = timeout_at(deadline, answer).await.map_err(|_| search.timed_out())??;
        key_document::read(&answer, search.server, search.now)
            .map_err(|reason| search.unbelievable(reason))
    }

    /// Asks a notary, and takes what both the server and the notary have signed (KEY-07).
    async fn fetch_notarised(
        &self,
        search: &Search<'_>,
        notary: &ServerName,
        deadline: Instant,
    ) -> Result<KeyDocument, KeyError> {
        let Search { server, now, client, .. } = *search;
        let target = format!(
            "/_matrix/key/v2/query/{}?minimum_valid_until_ts={}",
            utf8_percent_encode(server.as_str(), SEGMENT),
            now.0
        );
        let answer = self.source.get(notary, &target, deadline).await?;
        let found = key_document::read_notarised(&answer, server, notary, now)
            .map_err(|reason| search.unbelievable(reason))?;
        for notarised in found {
            for key_id in notarised.key_ids().take(MAX_NOTARY_SIGNATURES) {
                let of_notary = Search { server: notary, key_id, now, client, is_for_notary: true };
                if let Ok(key) = self.find(of_notary).await
                    && notarised.is_signed_by(key_id, &key)
                {
                    return Ok(notarised.document.clone());
                }
            }
        }
        Err(search.unbelievable("the notary has not signed it"))
    }
}

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
