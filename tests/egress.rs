//! The way out: which addresses are contacted, who must be there, and what is taken of an answer.

mod common;

#[path = "egress/addresses.rs"]
mod addresses;
#[path = "egress/answers.rs"]
mod answers;
#[path = "egress/certificates.rs"]
mod certificates;
#[path = "egress/connections.rs"]
mod connections;
#[path = "egress/urls.rs"]
mod urls;

use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use mediary::egress::{Egress, EgressError, Endpoint, Host, Response, UrlRequest};
use tokio::time::Instant;
use url::Url;

use common::fake::{Received, respond};
use common::{Authority, DnsServer, FakeHomeserver, PATIENCE, TlsFront, egress_with};

/// What the servers of the tests listen on.
const LOOPBACK: &str = "127.0.0.1/32";

/// More than any small answer has.
const LIMIT: u64 = 1 << 20;

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

fn after(time: Duration) -> Instant {
    Instant::now() + time
}

/// An authority and a name server that everybody in a test believes.
struct World {
    authority: Authority,
    dns: DnsServer,
}

impl World {
    fn new() -> Self {
        Self { authority: Authority::new(), dns: DnsServer::start() }
    }

    /// A way out that may contact these networks beside public ones.
    fn egress(&self, allowed: &[&str]) -> Egress {
        self.patient_egress(allowed, PATIENCE)
    }

    fn patient_egress(&self, allowed: &[&str], connect_timeout: Duration) -> Egress {
        egress_with(&self.authority, &self.dns, |settings| {
            let networks = allowed.iter().map(|network| network.parse().expect("a network"));
            settings.allow_networks = networks.collect();
            settings.connect_timeout = connect_timeout;
        })
    }

    /// A server on 127.0.0.1 with a certificate for these names, which the name server knows.
    fn site(
        &self,
        names: &[&str],
        script: impl Fn(&Received, &mut TcpStream) -> Option<bool> + Send + Sync + 'static,
    ) -> Site {
        let front = TlsFront::new(&self.authority.certificate(names));
        let backend = FakeHomeserver::with(script);
        front.lead_to(backend.address);
        for name in names.iter().filter(|name| name.parse::<std::net::IpAddr>().is_err()) {
            self.dns.set_addresses(name, &["127.0.0.1"]);
        }
        Site { front, backend }
    }

    /// A server that says hello to everything.
    fn friendly(&self, names: &[&str]) -> Site {
        self.site(names, |_, stream| Some(respond(stream, 200, "hello")))
    }
}

/// A server with TLS in front.
struct Site {
    front: TlsFront,
    backend: FakeHomeserver,
}

impl Site {
    /// Where it is by this name, which is also who must be there.
    fn endpoint(&self, name: &str) -> Endpoint {
        endpoint(name, self.front.port())
    }

    fn url(&self, name: &str, path: &str) -> Url {
        format!("https://{name}:{}{path}", self.front.port()).parse().expect("a URL")
    }
}

fn host(name: &str) -> Host {
    name.parse().map_or_else(|_| Host::Name(name.into()), Host::Address)
}

fn endpoint(name: &str, port: u16) -> Endpoint {
    Endpoint {
        connect_to: host(name),
        port,
        certificate_for: host(name),
        authority: format!("{name}:{port}").into(),
    }
}

fn secure(url: Url) -> UrlRequest {
    UrlRequest { url, fields: Vec::new(), max_redirects: 3 }
}

async fn get(egress: &Egress, endpoint: &Endpoint) -> Result<Response, EgressError> {
    egress.get(endpoint, "/", &[], soon()).await
}

async fn whole(response: Response) -> Bytes {
    response.whole(LIMIT, soon()).await.expect("a whole body")
}

/// The failure of something that should not come about.
fn refusal<T>(outcome: Result<T, EgressError>) -> EgressError {
    outcome.err().expect("it should have failed")
}
