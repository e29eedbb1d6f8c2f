//! Finding servers: the steps of `discovery` asked for, one after the other, and remembered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use http::StatusCode;
use moka::future::Cache;
use moka::policy::EvictionPolicy;
use tokio::time::Instant;
use url::Url;

use super::backoff::Jitter;
use super::delegation::{Asked, Delegation};
use super::discovery::{Step, after_well_known, begin, by_address, by_targets, services};
use super::explain::{Event, Observer, WellKnownError};
use super::well_known;
use crate::egress::{Egress, EgressError, Endpoint, UrlRequest};
use crate::types::ServerName;

/// How many servers are remembered.
const MAX_SERVERS: u64 = 10_000;

/// How many redirects of a well-known file are followed (DISC-03).
const MAX_REDIRECTS: u8 = 5;

/// How long SRV records are good; resolvers remember them for as long as they say.
const RECORDS_LIFETIME: Duration = Duration::from_secs(5 * 60);

/// How long an endpoint is good that a well-known file names: as long as that, which is asked for more
/// often.
const NAMED_LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How long it is good that name servers did not say whether there are records.
const NO_ANSWER_LIFETIME: Duration = Duration::from_secs(60);

/// How long nothing is asked again for a server that was found and not reached.
const SUSPECT_PAUSE: Duration = Duration::from_secs(10);

/// Finds servers and remembers where they are.
#[derive(Clone)]
pub(super) struct Locator {
    egress: Egress,
    known: Cache<Box<str>, Arc<Known>>,
    jitter: Jitter,
}

/// What is known of one host.
struct Known {
    delegation: Delegation,
    endpoints: Endpoints,
    found_at: Instant,
    /// Whether nobody was reached there.
    is_suspect: AtomicBool,
}

/// Where a host is, and how long that is good beside the delegation.
#[derive(Clone)]
struct Endpoints {
    all: Vec<Endpoint>,
    good_until: Instant,
}

impl Endpoints {
    fn lasting(all: Vec<Endpoint>, lifetime: Duration) -> Self {
        Self { all, good_until: Instant::now() + lifetime }
    }
}

impl Known {
    fn is_due(&self, now: Instant) -> bool {
        self.delegation_is_due(now) || self.endpoints_are_due(now)
    }

    fn delegation_is_due(&self, now: Instant) -> bool {
        self.delegation.is_due(now, self.is_suspect(), SUSPECT_PAUSE)
    }

    fn endpoints_are_due(&self, now: Instant) -> bool {
        now >= self.endpoints.good_until
            || (self.is_suspect() && now >= self.found_at + SUSPECT_PAUSE)
    }

    fn is_suspect(&self) -> bool {
        self.is_suspect.load(Ordering::Relaxed)
    }
}

/// Where a server is: the endpoints to try in turn. There is at least one.
pub(super) struct Location {
    found: LocatedBy,
}

enum LocatedBy {
    /// The name says it.
    Name(Endpoint),
    /// It was asked for.
    Discovery(Arc<Known>),
}

impl Location {
    pub(super) fn endpoints(&self) -> &[Endpoint] {
        match &self.found {
            LocatedBy::Name(endpoint) => std::slice::from_ref(endpoint),
            LocatedBy::Discovery(known) => &known.endpoints.all,
        }
    }

    /// Notes that nobody was reached: the next ask discovers anew, unless that has just been done.
    pub(super) fn suspect(&self) {
        if let LocatedBy::Discovery(known) = &self.found {
            known.is_suspect.store(true, Ordering::Relaxed);
        }
    }
}

impl Locator {
    pub(super) fn new(egress: Egress) -> Self {
        let known = Cache::builder()
            .max_capacity(MAX_SERVERS)
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self { egress, known, jitter: Jitter::new() }
    }

    /// Finds a server. Who asks for one that is being looked for waits for what is found, and takes
    /// over if whoever began has left; servers do not wait for each other.
    ///
    /// A step that fails leads to the next, so that in the end there is always an endpoint to try.
    ///
    /// # Errors
    ///
    /// [`EgressError::TimedOut`] if that took too long.
    pub(super) async fn locate(
        &self,
        server: &ServerName,
        deadline: Instant,
        observer: &dyn Observer,
    ) -> Result<Location, EgressError> {
        let host = match begin(server) {
            Step::Connect(endpoint) => {
                return Ok(Location { found: LocatedBy::Name(endpoint) });
            }
            Step::WellKnown(host) | Step::Srv(host) => host,
        };
        let found = tokio::time::timeout_at(deadline, self.known(host, deadline, observer));
        let known = found.await.map_err(|_| EgressError::TimedOut("discovery"))?;
        Ok(Location { found: LocatedBy::Discovery(known) })
    }

    async fn known(
        &self,
        host: Box<str>,
        deadline: Instant,
        observer: &dyn Observer,
    ) -> Arc<Known> {
        let previous = self.known.get(&*host).await;
        if let Some(known) = &previous
            && !known.is_due(Instant::now())
        {
            return known.clone();
        }
        let find = self.find(&host, previous, deadline, observer);
        let entry = self.known.entry(host.clone());
        entry.or_insert_with_if(find, |known| known.is_due(Instant::now())).await.into_value()
    }

    /// Goes through the steps, as far as what is known is no longer good.
    async fn find(
        &self,
        host: &str,
        previous: Option<Arc<Known>>,
        deadline: Instant,
        observer: &dyn Observer,
    ) -> Arc<Known> {
        let delegation = match &previous {
            Some(known) if !known.delegation_is_due(Instant::now()) => known.delegation.clone(),
            _ => {
                let before = previous.as_ref().map(|known| &known.delegation);
                let asked = self.ask_well_known(host, deadline, observer).await;
                Delegation::after(before, asked, Instant::now(), self.jitter.of(host))
            }
        };
        let before = previous.filter(|known| known.delegation.to == delegation.to);
        let endpoints = match (after_well_known(host, delegation.to.as_ref()), before) {
            (_, Some(known)) if !known.endpoints_are_due(Instant::now()) => known.endpoints.clone(),
            (Step::Connect(endpoint), _) => Endpoints::lasting(vec![endpoint], NAMED_LIFETIME),
            (Step::WellKnown(host) | Step::Srv(host), before) => {
                let before = before.map_or(Vec::new(), |known| known.endpoints.all.clone());
                self.look_up(&host, before, deadline, observer).await
            }
        };
        let is_suspect = AtomicBool::new(false);
        Arc::new(Known { delegation, endpoints, found_at: Instant::now(), is_suspect })
    }

    /// Asks for a host's well-known file (DISC-03 to DISC-05).
    async fn ask_well_known(
        &self,
        host: &str,
        deadline: Instant,
        observer: &dyn Observer,
    ) -> Asked {
        let deadline = share(deadline, 3, Duration::from_secs(10));
        let outcome = tokio::time::timeout_at(deadline, self.well_known(host, deadline));
        let too_slow = EgressError::TimedOut("the well-known file");
        let outcome = outcome.await.unwrap_or(Err(too_slow.into()));
        observer.notice(Event::WellKnown {
            host,
            outcome: outcome.as_ref().map(|(server, lifetime)| (server, *lifetime)),
        });
        match outcome {
            Ok((server, lifetime)) => Asked::Valid(server, lifetime),
            Err(error) if error.may_pass() => Asked::Failed,
            Err(_) => Asked::None,
        }
    }

    async fn well_known(
        &self,
        host: &str,
        deadline: Instant,
    ) -> Result<(ServerName, Duration), WellKnownError> {
        let url = format!("https://{host}/.well-known/matrix/server");
        let url = Url::parse(&url)
            .map_err(|_| EgressError::Url(url, "its host is no name that can be resolved"))?;
        let request = UrlRequest { url, fields: Vec::new(), max_redirects: MAX_REDIRECTS };
        let (_, response) = self.egress.get_url(request, deadline).await?;
        if response.status != StatusCode::OK {
            return Err(WellKnownError::Status(response.status));
        }
        let lifetime = well_known::lifetime(&response.headers, SystemTime::now());
        let body = response.whole(well_known::MAX_BODY, deadline).await?;
        Ok((well_known::parse(&body)?, lifetime))
    }

    /// Looks SRV records up and returns the endpoints to try (DISC-09 to DISC-14). `before` is what was
    /// found the last time.
    ///
    /// Where name servers do not answer, what was found before is held on to; else the next step
    /// follows, as if there were no record: the certificate has to be the same.
    async fn look_up(
        &self,
        host: &str,
        before: Vec<Endpoint>,
        deadline: Instant,
        observer: &dyn Observer,
    ) -> Endpoints {
        let mut lifetime = RECORDS_LIFETIME;
        for service in services(host) {
            let deadline = share(deadline, 4, Duration::from_secs(5));
            let outcome = tokio::time::timeout_at(deadline, self.egress.srv(&service, deadline));
            let outcome = outcome.await.unwrap_or(Err(EgressError::TimedOut("the name servers")));
            observer.notice(Event::Srv { service: &service, outcome: outcome.as_deref() });
            match outcome {
                Ok(targets) if targets.is_empty() => {}
                Ok(targets) => return Endpoints::lasting(by_targets(host, &targets), lifetime),
                Err(_) => lifetime = NO_ANSWER_LIFETIME,
            }
        }
        let is_unsure = lifetime == NO_ANSWER_LIFETIME;
        let endpoints =
            if is_unsure && !before.is_empty() { before } else { vec![by_address(host)] };
        Endpoints::lasting(endpoints, lifetime)
    }
}

/// Returns the end of a step that may take one of so many parts of the time that is left, at least two
/// seconds and at most `most`: who has little time shall not make others believe that nothing is there.
fn share(deadline: Instant, parts: u32, most: Duration) -> Instant {
    let now = Instant::now();
    let part = deadline.saturating_duration_since(now) / parts;
    now + part.clamp(Duration::from_secs(2), most)
}
