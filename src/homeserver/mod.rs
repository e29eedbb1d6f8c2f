//! A typed client to the homeserver behind us.
//!
//! It asks for what only the homeserver knows: who a token belongs to, what the server is called,
//! and the media that it holds. Tokens go up in the `Authorization` header, never in a query
//! (FLD-21). An answer that is not understood is never taken for a yes.

mod answer;
mod client;
mod keys;
mod login;
mod sender;
mod standing;
mod upstream;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use crate::types::{AccessToken, ServerName, UserId};

pub use answer::{Refusal, read_refusal};
pub use client::{Response, ResponseBody};
pub use keys::{Publication, PublishedKeys};
pub use sender::Sender;
pub use upstream::Upstream;

use answer::{Whole, is_unrecognized, parse, refusal, whole};

/// The largest URL preview that is passed on.
const MAX_PREVIEW: u64 = 1024 * 1024;

/// How long it is taken for granted that the homeserver judges signatures.
const PROBE_LIFETIME: Duration = Duration::from_secs(600);

/// Everything but the unreserved characters of RFC 3986, section 2.3.
const QUERY_VALUE: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Why the homeserver gave no usable answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HomeserverError {
    /// No connection, or it broke.
    #[error("the homeserver cannot be reached: {0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("the homeserver did not answer in time")]
    TooSlow,
    /// An answer that is not what the specification says.
    #[error("the homeserver gave an answer that is not understood: {0}")]
    Misbehaved(String),
    /// The question would be longer than homeservers take, so it was not asked.
    #[error("the request is too long to be asked of the homeserver")]
    TooLong,
}

/// Who a token belongs to, in the homeserver's words (CS-WHO-01).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whoami {
    /// The user.
    pub user_id: UserId,
    /// The device, which tokens of application services do not have.
    pub device_id: Option<String>,
    /// Whether the account is a guest's. Not to be believed everywhere (FLD-20).
    pub is_guest: bool,
}

/// Somebody in whose name the homeserver is asked.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The access token.
    pub token: &'a AccessToken,
    /// Whom an application service acts for (CS-AS-01).
    pub user_id: Option<&'a str>,
    /// As which device of that user (CS-AS-02).
    pub device_id: Option<&'a str>,
    /// Where the request came from.
    pub sender: &'a Sender,
}

impl<'a> Caller<'a> {
    /// Is whoever bears a token, acting for nobody else.
    pub fn of_token(token: &'a AccessToken, sender: &'a Sender) -> Self {
        Self { token, user_id: None, device_id: None, sender }
    }

    /// Adds whom the caller acts for to a target, so that the homeserver judges that user.
    fn target(&self, target: &str) -> String {
        let mut named = target.to_owned();
        for (name, value) in [("user_id", self.user_id), ("device_id", self.device_id)] {
            if let Some(value) = value {
                let separator = if named.contains('?') { '&' } else { '?' };
                let value = utf8_percent_encode(value, QUERY_VALUE);
                named.push_str(&format!("{separator}{name}={value}"));
            }
        }
        named
    }

    /// Returns the header fields.
    fn fields(&self) -> Result<Vec<(HeaderName, HeaderValue)>, HomeserverError> {
        let mut fields = self.sender.fields();
        fields.push(bearer(self.token)?);
        Ok(fields)
    }
}

/// What the homeserver says of itself and its features (`GET /_matrix/client/versions`).
#[derive(Debug, Clone, Deserialize)]
pub struct Versions {
    /// The releases of the specification that it serves.
    #[serde(default)]
    pub versions: Vec<String>,
}

/// An answer that is either what was asked for or a refusal to relay.
pub type Answer<T> = Result<T, Refusal>;

/// When each federation route was last asked without a signature, and whether it refused.
type Probes = HashMap<String, (Instant, bool)>;

/// The homeserver as the rest of Mediary sees it. Clones share one pool of connections.
#[derive(Clone)]
pub struct Homeserver {
    client: client::Client,
    upstream: Arc<Upstream>,
    timeout: Duration,
    name: Arc<OnceLock<ServerName>>,
    signature_probes: Arc<Mutex<Probes>>,
    standing_route: Arc<standing::KnownRoute>,
}

impl Homeserver {
    /// Makes a client. `timeout` bounds whole small exchanges and the wait for the head of large
    /// ones.
    pub fn new(upstream: Arc<Upstream>, timeout: Duration) -> Self {
        let client = client::Client::new(upstream.clone());
        Self {
            client,
            upstream,
            timeout,
            name: Arc::default(),
            signature_probes: Arc::default(),
            standing_route: Arc::default(),
        }
    }

    /// Returns what the homeserver is called, which is the server name of all local media.
    ///
    /// # Errors
    ///
    /// [`HomeserverError::Unreachable`] as long as the name is neither configured nor learnt.
    pub fn name(&self) -> Result<&ServerName, HomeserverError> {
        self.name.get().ok_or_else(|| {
            HomeserverError::Unreachable("its server name has not been learnt yet".to_owned())
        })
    }

    /// Settles what the homeserver is called, once and for all.
    pub fn set_name(&self, name: ServerName) {
        // A second name changes nothing: media would seem to move to another server.
        let _ = self.name.set(name);
    }

    /// Returns how long a small exchange, or the wait for the head of a large one, may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Returns where the homeserver is.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// Asks who a token belongs to; an application service names the user and device that it acts
    /// for (CS-AS-01 to CS-AS-03).
    ///
    /// # Errors
    ///
    /// [`HomeserverError`] if there was no answer that can be believed; every 5xx is one.
    pub async fn whoami(&self, caller: Caller<'_>) -> Result<Answer<Whoami>, HomeserverError> {
        let target = caller.target("/_matrix/client/v3/account/whoami");
        let response = self.small(&target, &caller.fields()?).await?;
        match response.status {
            StatusCode::OK => {}
            // 400 is for an application service's parameters (CS-AS-02).
            StatusCode::BAD_REQUEST
            | StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::TOO_MANY_REQUESTS => return refusal(response).map(Err),
            status => return Err(unexpected(status, "whoami")),
        }
        let answer: WhoamiBody = parse(&response.body)?;
        let user_id: UserId = answer
            .user_id
            .parse()
            .map_err(|_| HomeserverError::Misbehaved("whoami names no valid user id".to_owned()))?;
        if self.name().is_ok_and(|name| name.as_str() != user_id.server_name()) {
            let what = "whoami names a user of another server".to_owned();
            return Err(HomeserverError::Misbehaved(what));
        }
        let device_id = answer.device_id;
        Ok(Ok(Whoami { user_id, device_id, is_guest: answer.is_guest.unwrap_or(false) }))
    }

    /// Asks which releases of the specification it serves. Bears no token (CS-VER-02).
    ///
    /// # Errors
    ///
    /// [`HomeserverError`] if there is no usable answer.
    pub async fn versions(&self) -> Result<Versions, HomeserverError> {
        let response = self.small("/_matrix/client/versions", &[]).await?;
        if response.status != StatusCode::OK {
            return Err(unexpected(response.status, "/_matrix/client/versions"));
        }
        parse(&response.body)
    }

    /// Sends a request for media and returns the head of the answer, whatever its status.
    ///
    /// `wait` is added to the usual time for the head: the homeserver may itself be waiting for a
    /// file to be uploaded. Without a caller the question bears no token.
    ///
    /// # Errors
    ///
    /// [`HomeserverError`] if no head came.
    pub async fn media(
        &self,
        target: &str,
        caller: Option<Caller<'_>>,
        wait: Duration,
    ) -> Result<Response, HomeserverError> {
        let (target, headers) = match caller {
            Some(caller) => (caller.target(target), caller.fields()?),
            None => (target.to_owned(), Vec::new()),
        };
        self.client.get(target.as_bytes(), &headers, self.timeout + wait).await
    }

    /// Re-issues another server's signed request unchanged, so that the homeserver judges it.
    ///
    /// # Errors
    ///
    /// [`HomeserverError`] if no head came.
    pub async fn federation(
        &self,
        target: &[u8],
        authorization: &[HeaderValue],
        wait: Duration,
    ) -> Result<Response, HomeserverError> {
        let headers: Vec<_> =
            authorization.iter().map(|value| (header::AUTHORIZATION, value.clone())).collect();
        self.client.get(target, &headers, self.timeout + wait).await
    }

    /// Whether the homeserver refuses unsigned requests on a federation route, so that "not found"
    /// means "signed, but not mine". Servers that do not know a route may say "not found" to anybody
    /// (FLD-08). Asked anew from time to time.
    ///
    /// `route` is the path up to the media id; there are as many as the route table knows.
    ///
    /// # Errors
    ///
    /// [`HomeserverError`] if there is no usable answer.
    pub async fn refuses_unsigned_requests(&self, route: &str) -> Result<bool, HomeserverError> {
        let known = self.probes().get(route).copied();
        if let Some((asked, refuses)) = known
            && asked.elapsed() < PROBE_LIFETIME
        {
            return Ok(refuses);
        }
        let target = format!("{route}mediaryprobe?width=32&height=32");
        let answer = self.small(&target, &[]).await?;
        let refuses = matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        self.probes().insert(route.to_owned(), (Instant::now(), refuses));
        Ok(refuses)
    }

    fn probes(&self) -> MutexGuard<'_, Probes> {
        self.signature_probes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a preview of a URL and returns the JSON as it came.
    ///
    /// # Errors
    ///
    /// [`HomeserverError`] if there is no usable answer.
    pub async fn preview_url(
        &self,
        url: &str,
        ts: Option<&str>,
        caller: Caller<'_>,
    ) -> Result<Answer<bytes::Bytes>, HomeserverError> {
        let headers = caller.fields()?;
        let mut query = format!("?url={}", utf8_percent_encode(url, QUERY_VALUE));
        if let Some(ts) = ts {
            query.push_str(&format!("&ts={}", utf8_percent_encode(ts, QUERY_VALUE)));
        }
        let query = caller.target(&query);
        let current = format!("/_matrix/client/v1/media/preview_url{query}");
        let mut response = self.sized(&current, &headers, MAX_PREVIEW).await?;
        if is_unrecognized(response.status, &response.body) {
            let legacy = format!("/_matrix/media/v3/preview_url{query}");
            response = self.sized(&legacy, &headers, MAX_PREVIEW).await?;
        }
        if response.status == StatusCode::OK {
            // Whatever it is called, only JSON is passed on (threats XS-08).
            parse::<serde_json::Map<String, serde_json::Value>>(&response.body)?;
            return Ok(Ok(response.body));
        }
        refusal(response).map(Err)
    }

    async fn small(
        &self,
        target: &str,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<Whole, HomeserverError> {
        self.sized(target, headers, answer::MAX_JSON).await
    }

    /// Makes one exchange whose whole answer fits `limit`, all of it within the time-out.
    async fn sized(
        &self,
        target: &str,
        headers: &[(HeaderName, HeaderValue)],
        limit: u64,
    ) -> Result<Whole, HomeserverError> {
        let exchange = async {
            let response = self.client.get(target.as_bytes(), headers, self.timeout).await?;
            whole(response, limit).await
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(HomeserverError::TooSlow),
        }
    }
}

#[derive(Deserialize)]
struct WhoamiBody {
    user_id: String,
    device_id: Option<String>,
    is_guest: Option<bool>,
}

fn unexpected(status: StatusCode, path: &str) -> HomeserverError {
    HomeserverError::Misbehaved(format!("status {status} for {path}"))
}

fn bearer(token: &AccessToken) -> Result<(HeaderName, HeaderValue), HomeserverError> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.reveal()))
        .map_err(|_| HomeserverError::Misbehaved("the token fits no header".to_owned()))?;
    value.set_sensitive(true);
    Ok((header::AUTHORIZATION, value))
}
