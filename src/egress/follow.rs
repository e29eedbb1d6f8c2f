//! URLs that strangers name, and where they lead on to.

use std::net::IpAddr;

use http::header;
use tokio::time::Instant;
use url::{Position, Url};

use super::client::{Deadlines, HttpClient};
use super::{EgressError, Endpoint, Host, Response, UrlRequest};

/// The longest URL that is followed.
const MAX_URL: usize = 8 * 1024;

/// The first port that is not reserved for well-known services. Below it only HTTPS's own is followed:
/// behind the others are SSH, SMTP, DNS and so on, and never media.
const FIRST_FREE_PORT: u16 = 1024;
const HTTPS_PORT: u16 = 443;

/// Services with ports above that do as they are told by whoever can send them a line: MySQL, RDP,
/// PostgreSQL, X11, Redis, Elasticsearch's transport, memcached and MongoDB.
const REFUSED_PORTS: [u16; 8] = [3306, 3389, 5432, 6000, 6379, 9300, 11211, 27017];

/// Fetches a URL and follows redirects, as `Egress::get_url` says.
pub(super) async fn get_url(
    client: &HttpClient,
    request: UrlRequest,
    deadline: Instant,
) -> Result<(Url, Response), EgressError> {
    let mut url = without_fragment(request.url);
    let mut visited = Vec::new();
    let deadlines = Deadlines { connect_by: deadline, deadline };
    loop {
        let endpoint = endpoint(&url)?;
        let target = &url[Position::BeforePath..Position::AfterQuery];
        let response = client.send(&endpoint, target, &request.fields, deadlines).await?;
        let Some(next) = redirect(&url, &response)? else { return Ok((url, response)) };
        visited.push(std::mem::replace(&mut url, next));
        if visited.len() > usize::from(request.max_redirects) || visited.contains(&url) {
            return Err(EgressError::TooManyRedirects);
        }
    }
}

/// Returns where a URL leads, if it may be followed at all (threats SS-06 to SS-08). The host is in the
/// URL library's canonical form, so a number is the address that it stands for.
fn endpoint(url: &Url) -> Result<Endpoint, EgressError> {
    let refused = |reason| Err(EgressError::Url(in_short(url), reason));
    match url.scheme() {
        "https" => {}
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
    let port = url.port().unwrap_or(HTTPS_PORT);
    if is_refused(port) {
        return refused("its port belongs to another service");
    }
    let authority = authority(&host, url.port()).into();
    Ok(Endpoint { connect_to: host.clone(), port, certificate_for: host, authority })
}

fn is_refused(port: u16) -> bool {
    (port < FIRST_FREE_PORT && port != HTTPS_PORT) || REFUSED_PORTS.contains(&port)
}

fn authority(host: &Host, port: Option<u16>) -> String {
    let host = match host {
        Host::Address(IpAddr::V6(address)) => format!("[{address}]"),
        other => other.to_string(),
    };
    match port {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// SS-08
    #[test]
    fn ports_of_other_services_are_refused() {
        for port in [0, 1, 21, 22, 25, 53, 80, 110, 143, 389, 445, 873, 1023, 3306, 6379, 11211] {
            assert!(is_refused(port), "{port}");
        }
        for port in [443, 1024, 3000, 8008, 8080, 8443, 8448, 65535] {
            assert!(!is_refused(port), "{port}");
        }
    }

    #[test]
    fn the_authority_has_the_port_only_if_it_is_not_the_schemes_own() {
        for (url, expected) in [
            ("https://a.example/", "a.example"),
            ("https://a.example:443/", "a.example"),
            ("https://A.example.:8448/", "a.example:8448"),
            ("https://[2A00:0::1]/", "[2a00::1]"),
            ("https://[2a00::1]:4444/", "[2a00::1]:4444"),
            ("https://1.2.3.4:8080/", "1.2.3.4:8080"),
        ] {
            let url: Url = url.parse().unwrap();
            assert_eq!(&*endpoint(&url).unwrap().authority, expected);
        }
    }

    proptest! {
        #[test]
        fn a_url_never_names_its_user_or_path_in_a_log(
            scheme in "https?|ftp|data|x",
            rest in "[\\PC/:@?#.0-9]{0,40}",
            base in any::<bool>(),
        ) {
            let text = format!("{scheme}:{}{rest}", if base { "//user:pass@host/path" } else { "//" });
            if let Ok(url) = Url::parse(&text) {
                let _ = endpoint(&url);
                let told = in_short(&url);
                prop_assert!(!told.contains("user") && !told.contains("pass"), "{told}");
                prop_assert!(!told.contains("/path"), "{told}");
            }
        }

        #[test]
        fn a_url_that_is_followed_has_a_host_an_allowed_port_and_no_user(rest in "[\\PC/:@?#.0-9]{0,40}") {
            if let Ok(url) = Url::parse(&format!("https://{rest}"))
                && let Ok(endpoint) = endpoint(&url)
            {
                prop_assert!(!is_refused(endpoint.port));
                prop_assert!(url.username().is_empty());
                prop_assert!(http::HeaderValue::try_from(&*endpoint.authority).is_ok());
            }
        }
    }
}
