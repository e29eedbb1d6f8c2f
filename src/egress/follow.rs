//! URLs that strangers name, and where they lead on to.

use std::net::IpAddr;

use http::header;
use tokio::time::Instant;
use url::{Position, Url};

use super::client::{Inner, Route};
use super::{EgressError, Host, Response, UrlRequest};

/// The longest URL that is followed.
const MAX_URL: usize = 8 * 1024;

/// The first port that is not reserved for well-known services. Below it only HTTP's own two are
/// followed: behind the others are SSH, SMTP, DNS and so on, and never media.
const FIRST_FREE_PORT: u16 = 1024;
const HTTP_PORTS: [u16; 2] = [80, 443];

/// Services with ports above that do as they are told by whoever can send them a line: MySQL, RDP,
/// PostgreSQL, X11, Redis, Elasticsearch's transport, memcached and MongoDB.
const REFUSED_PORTS: [u16; 8] = [3306, 3389, 5432, 6000, 6379, 9300, 11211, 27017];

impl Inner {
    pub(super) async fn get_url(
        &self,
        request: UrlRequest,
        deadline: Instant,
    ) -> Result<(Url, Response), EgressError> {
        let mut url = without_fragment(request.url);
        let mut visited = Vec::new();
        loop {
            let (host, port) = destination(&url, request.allow_plain_http)?;
            let authority = authority(&url, &host);
            let route = Route {
                connect_to: &host,
                port,
                certificate_for: (url.scheme() == "https").then_some(&host),
                authority: &authority,
            };
            let target = &url[Position::BeforePath..Position::AfterQuery];
            let response = self.send(&route, target, &request.fields, deadline).await?;
            let Some(next) = redirect(&url, &response)? else { return Ok((url, response)) };
            visited.push(std::mem::replace(&mut url, next));
            if visited.len() > usize::from(request.max_redirects) || visited.contains(&url) {
                return Err(EgressError::TooManyRedirects);
            }
        }
    }
}

/// Returns where a URL leads, if it may be followed at all (threats SS-06 to SS-08). The host is in the
/// URL library's canonical form, so a number is the address that it stands for.
fn destination(url: &Url, allow_plain_http: bool) -> Result<(Host, u16), EgressError> {
    let refused = |reason| Err(EgressError::Url(in_short(url), reason));
    match url.scheme() {
        "https" => {}
        "http" if allow_plain_http => {}
        "http" => return refused("it is not encrypted"),
        _ => return refused("its scheme is not https"),
    }
    if url.as_str().len() > MAX_URL {
        return refused("it is too long");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refused("it names a user");
    }
    let host = match url.host() {
        Some(url::Host::Ipv4(address)) => Host::Address(IpAddr::V4(address)),
        Some(url::Host::Ipv6(address)) => Host::Address(IpAddr::V6(address)),
        Some(url::Host::Domain(name)) => Host::Name(name.trim_end_matches('.').into()),
        None => return refused("it names no host"),
    };
    match url.port_or_known_default() {
        Some(port) if is_refused(port) => refused("its port belongs to another service"),
        Some(port) => Ok((host, port)),
        None => refused("it names no port"),
    }
}

fn is_refused(port: u16) -> bool {
    (port < FIRST_FREE_PORT && !HTTP_PORTS.contains(&port)) || REFUSED_PORTS.contains(&port)
}

/// The `Host` field: with the port if it is not the scheme's own.
fn authority(url: &Url, host: &Host) -> String {
    let host = match host {
        Host::Address(IpAddr::V6(address)) => format!("[{address}]"),
        other => other.to_string(),
    };
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host,
    }
}

/// Returns where an answer leads on to, or `None` if it is the last one. An answer that speaks of a
/// redirect and does not say where is the last one.
fn redirect(url: &Url, response: &Response) -> Result<Option<Url>, EgressError> {
    if !matches!(response.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = response.field(&header::LOCATION) else { return Ok(None) };
    let joined = std::str::from_utf8(location).ok().and_then(|text| url.join(text).ok());
    let Some(next) = joined else {
        return Err(EgressError::Url(in_short(url), "it redirects to no URL"));
    };
    if url.scheme() == "https" && next.scheme() == "http" {
        return Err(EgressError::Url(
            in_short(&next),
            "a secure URL redirects to it, and it is not",
        ));
    }
    Ok(Some(without_fragment(next)))
}

fn without_fragment(mut url: Url) -> Url {
    url.set_fragment(None);
    url
}

/// What a log may hold of a URL: neither a user nor the path and query, which may be signed.
fn in_short(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}
