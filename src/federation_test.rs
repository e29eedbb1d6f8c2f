//! `mediary federation-test`: goes to another server step by step, as a fetch of its media would, and
//! says in plain words what was found, where it ends, and what to do about it.

mod report;

use std::io::Write;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use tokio::time::{Instant, timeout};

use crate::config::Config;
use crate::egress::{EgressError, Endpoint, Host, Response};
use crate::federation::{
    FetchOptions, KeyId, Observer, ServerError, Servers, SigningKey, key_document,
};
use crate::server;
use crate::types::{BodyError, BodyReader, Mxc, ServerName, UnixMillis};

use report::{Report, shown};

const VERSION: &str = "/_matrix/federation/v1/version";
const KEYS: &str = "/_matrix/key/v2/server";

/// Media that no server has: whoever believes the signature says so.
const NO_SUCH_MEDIA: &str =
    "/_matrix/federation/v1/media/download/mediaryfederationtest?timeout_ms=0";

/// The largest structured answer that is read.
const MAX_JSON: u64 = 64 * 1024;

/// How many keys of a server are looked at.
const MAX_KEYS: usize = 5;

/// A question to one server.
struct Test<'a, 'o> {
    config: &'a Config,
    server: &'a ServerName,
    servers: Servers,
    report: &'a Report<'o>,
}

/// Runs the test, fetches media too if any is named, and prints a line for each step. Returns whether
/// all of them worked.
pub fn run(
    config: &Config,
    server: &ServerName,
    media: Option<&Mxc>,
    output: &mut (dyn Write + Send),
) -> bool {
    let report = Report::new(output);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(test(config, server, media, &report)),
        Err(error) => report.bad(&format!("no runtime can be started: {error}")),
    }
    report.end()
}

async fn test(config: &Config, server: &ServerName, media: Option<&Mxc>, report: &Report<'_>) {
    if !server::rules(config).permit(server) {
        report.doubtful(&format!(
            "Mediary exchanges no media with {server}: federation.allow_servers or \
             federation.deny_servers says so"
        ));
    }
    let servers = match server::servers(config) {
        Ok(servers) => servers,
        Err(error) => return report.bad(&format!("no server can be contacted: {error:#}")),
    };
    let test = Test { config, server, servers, report };
    if !test.find().await || !test.version().await {
        return;
    }
    test.keys().await;
    match server::signing_key(config) {
        Ok(Some(key)) => test.signed(&key, media).await,
        Ok(None) => report.doubtful(
            "nothing signed is sent, since there is no federation.signing_key: the homeserver \
             fetches media of other servers; see `mediary key --help`",
        ),
        Err(error) => report.bad(&format!("{error:#}")),
    }
}

impl Test<'_, '_> {
    fn deadline(&self) -> Instant {
        Instant::now() + self.config.federation.timeout
    }

    /// Finds out where the server is, and resolves that. Returns whether there is an address.
    async fn find(&self) -> bool {
        let found = self.servers.find(self.server, self.deadline(), self.report).await;
        let endpoints = match found {
            Ok(endpoints) => endpoints,
            Err(error) => {
                self.report.unreachable(&error);
                return false;
            }
        };
        self.report.expect_places(endpoints.len());
        if self.server.port().is_some() || self.server.address().is_some() {
            self.report.none("the name says itself where the server is, so nothing is looked up");
        }
        let mut failure = None;
        let mut is_anywhere = false;
        for endpoint in &endpoints {
            match self.resolve(endpoint).await {
                Ok(()) => is_anywhere = true,
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if !is_anywhere => {
                let server = self.server.clone();
                self.report.unreachable(&ServerError::Discovery { server, error });
                false
            }
            _ => true,
        }
    }

    /// Looks the addresses of a place up.
    async fn resolve(&self, endpoint: &Endpoint) -> Result<(), EgressError> {
        let Host::Name(name) = &endpoint.connect_to else { return Ok(()) };
        let host = &endpoint.connect_to;
        let addresses = self.servers.egress().addresses(host, self.deadline()).await?;
        let written = |(address, may_be_contacted): &(IpAddr, bool)| match may_be_contacted {
            true => address.to_string(),
            false => format!("{address} (not public, so not contacted)"),
        };
        let addresses: Vec<_> = addresses.iter().map(written).collect();
        self.report.good(&format!("{name} has the addresses {}", addresses.join(", ")));
        Ok(())
    }

    /// Asks what it is. Returns whether there was any answer.
    async fn version(&self) -> bool {
        let response = match self.get(VERSION, &[]).await {
            Ok(response) => response,
            Err(error) => {
                self.report.unreachable(&error);
                return false;
            }
        };
        let status = response.status;
        match self.json::<Version>(response).await {
            Ok(Version { server: Named { name, version } }) if status == StatusCode::OK => {
                self.report.good(&format!("it is {} {}", shown(&name), shown(&version)));
            }
            Ok(_) | Err(_) => self.report.doubtful(&format!(
                "{VERSION}: {status}, which does not say what it is; is it a homeserver?"
            )),
        }
        true
    }

    /// Asks for its keys and checks them.
    async fn keys(&self) {
        let answer = match self.get(KEYS, &[]).await {
            Ok(response) if response.status == StatusCode::OK => self.body(response).await,
            Ok(response) => Err(format!("the answer is {}", response.status)),
            Err(error) => Err(error.to_string()),
        };
        let read = |body: Bytes| {
            key_document::read(&body, self.server, UnixMillis::now()).map_err(str::to_owned)
        };
        match answer.and_then(read) {
            Ok(document) => {
                let ids: Vec<_> =
                    document.keys.iter().take(MAX_KEYS).map(|(id, _)| id.as_str()).collect();
                self.report.good(&format!(
                    "it publishes keys that its requests are believed with: {}",
                    shown(&ids.join(", "))
                ));
            }
            Err(reason) => self.report.bad(&format!(
                "its keys ({KEYS}) are not believed, so Mediary refuses its requests: {reason}"
            )),
        }
    }

    /// Asks as the homeserver, for media that is not there and for media that is.
    async fn signed(&self, key: &Arc<SigningKey>, media: Option<&Mxc>) {
        let us = match &self.config.homeserver.server_name {
            Some(name) => name.clone(),
            None => match server::homeserver(self.config).ask_name().await {
                Ok(name) => name,
                Err(error) => {
                    return self.report.bad(&format!(
                        "our own name is not known, so nothing can be signed: {error}; set \
                         homeserver.server_name, or start the homeserver"
                    ));
                }
            },
        };
        let authorization = key.authorization(&us, self.server, &Method::GET, NO_SUCH_MEDIA);
        match self.get(NO_SUCH_MEDIA, &[(header::AUTHORIZATION, authorization)]).await {
            Ok(response) => self.judge(response, &us, key.id()).await,
            Err(error) => self.report.unreachable(&error),
        }
        if let Some(media) = media {
            self.fetch(&us, key, media).await;
        }
    }

    /// Says what an answer to a signed request for missing media means.
    async fn judge(&self, response: Response, us: &ServerName, key: &KeyId) {
        let status = response.status;
        let errcode = self.json::<MatrixError>(response).await.map(|error| error.errcode);
        let errcode = errcode.unwrap_or_default();
        let answer = format!("{} {}", status.as_u16(), shown(&errcode));
        let answer = answer.trim_end();
        match (status, errcode.as_str()) {
            (StatusCode::NOT_FOUND, "M_NOT_FOUND") => self.report.good(&format!(
                "it believes that we are {us}, signing with {}: it looked for the media that we \
                 asked for ({answer})",
                key.as_str()
            )),
            (
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::BAD_REQUEST,
                "M_UNRECOGNIZED" | "",
            ) => self.report.doubtful(&format!(
                "it does not serve authenticated media ({answer}); its media is fetched by the \
                 legacy routes, without a signature"
            )),
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => self.report.bad(&format!(
                "it does not believe that we are {us}, signing with {} ({answer}): it has to be able \
                 to fetch our keys, so {us} has to be reachable from outside, and the key has to be \
                 among them; `mediary check` and `mediary federation-test {us}` look at both",
                key.as_str()
            )),
            (StatusCode::TOO_MANY_REQUESTS, _) => self.report.doubtful(&format!(
                "it has had too many requests of ours ({answer}); try again later"
            )),
            _ => self.report.bad(&format!(
                "it answers {answer} to a signed request; 404 M_NOT_FOUND was expected"
            )),
        }
    }

    /// Fetches media as a reader would and reads it to its end.
    async fn fetch(&self, us: &ServerName, key: &Arc<SigningKey>, media: &Mxc) {
        if media.server_name != *self.server {
            return self.report.bad(&format!(
                "{media} is not of {}; run the test for {}",
                self.server, media.server_name
            ));
        }
        let remote = &self.config.remote;
        let fetcher = server::fetcher(self.config, &self.servers, key);
        let options = FetchOptions {
            wait: self.config.federation.timeout,
            max_size: remote.max_size.as_u64(),
        };
        let fetch = async {
            let place = fetcher.enter(&media.server_name).await?;
            fetcher.fetch(place, us, media, options).await
        };
        let mut fetched = match fetch.await {
            Ok(fetched) => fetched,
            Err(error) => return self.report.bad(&format!("{media}: {error}")),
        };
        let mut size = 0_u64;
        let read = async {
            while let Some(chunk) = fetched.body.next().await? {
                size += chunk.len() as u64;
            }
            Ok::<_, BodyError>(())
        };
        match timeout(remote.max_duration, read).await {
            Ok(Ok(())) => self.report.good(&format!(
                "{media} has {size} bytes of {}",
                shown(fetched.content_type.as_str())
            )),
            Ok(Err(error)) => self.report.bad(&format!("{media}: after {size} bytes {error}")),
            Err(_) => self.report.bad(&format!("{media}: it took longer than remote.max_duration")),
        }
    }

    async fn get(
        &self,
        target: &str,
        fields: &[(HeaderName, HeaderValue)],
    ) -> Result<Response, ServerError> {
        // Places are told of once, when the first question is asked.
        let observer = if target == VERSION { self.report as &dyn Observer } else { &() };
        self.servers.get_observed(self.server, target, fields, self.deadline(), observer).await
    }

    async fn json<T: for<'de> Deserialize<'de>>(&self, response: Response) -> Result<T, String> {
        let body = self.body(response).await?;
        serde_json::from_slice(&body).map_err(|_| "the answer is not the JSON expected".to_owned())
    }

    async fn body(&self, response: Response) -> Result<Bytes, String> {
        let body = response.whole(MAX_JSON, self.deadline()).await;
        body.map_err(|error| error.to_string())
    }
}

#[derive(Deserialize)]
struct Version {
    server: Named,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(default)]
    version: String,
}

#[derive(Deserialize)]
struct MatrixError {
    errcode: String,
}
