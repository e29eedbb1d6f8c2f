//! An internet of one's own: names, a well-known port, servers behind it.

use std::any::type_name;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use http::StatusCode;
use mediary::egress::Response;
use mediary::federation::{ServerError, Servers};
use serde_json::json;
use tokio::time::Instant;

use super::fake::{Received, respond};
use super::origin::{ServerKey, TlsStream};
use super::{Authority, DnsServer, Origin, egress};

/// What servers are asked for.
pub const VERSION: &str = "/_matrix/federation/v1/version";

/// Set in the process that runs a test in a network of its own.
const MARK: &str = "MEDIARY_TEST_OWN_NETWORK";

/// Names, servers and the time, all of them the test's.
pub struct World {
    /// Whom everybody believes.
    pub authority: Authority,
    /// Whom everybody asks for names.
    pub dns: DnsServer,
    /// An address that this test has for itself. Nobody listens there until the test wants it.
    pub address: String,
    begin: Instant,
}

/// Runs a test in a world of its own. Well-known files are on port 443, which not everybody may listen
/// on: then the test is run again in a network of its own, where it may.
pub fn in_a_world<F: AsyncFnOnce(World)>(test: F) {
    match World::new() {
        Some(world) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(test(world));
        }
        None => run_in_own_network(type_name::<F>()),
    }
}

fn run_in_own_network(closure: &str) {
    assert!(std::env::var_os(MARK).is_none(), "no port 443 in a network of one's own");
    let path = closure.split_once("::").expect("a path below the binary's").1;
    let name = path.split("::{{closure}}").next().expect("the function of the closure");
    let output = Command::new("/usr/bin/unshare")
        .args(["--map-root-user", "--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
        .arg(std::env::current_exe().expect("a path"))
        .args(["--exact", name])
        .env(MARK, "1")
        .output()
        .expect("unshare runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}\n{complaint}");
}

impl World {
    fn new() -> Option<Self> {
        let process = std::process::id();
        for number in 0..1_000 {
            let [_, high, middle, low] = (process + number).to_be_bytes();
            let address = format!("127.{}.{middle}.{low}", 64 + high % 64);
            let listen = |port| TcpListener::bind((&*address, port));
            match (listen(443), listen(8448)) {
                (Ok(_), Ok(_)) => {
                    let (authority, dns) = (Authority::new(), DnsServer::start());
                    let begin = Instant::now();
                    return Some(Self { authority, dns, address, begin });
                }
                (Err(error), _) if error.kind() == ErrorKind::PermissionDenied => return None,
                _ => {}
            }
        }
        panic!("no address is free");
    }

    /// Returns new eyes on the world, which remember nothing yet.
    pub fn servers(&self) -> Servers {
        Servers::new(egress(&self.authority, &self.dns))
    }

    /// Turns the clock on, to so many seconds after the beginning.
    pub async fn at(&self, seconds: u64) {
        let moment = self.begin + Duration::from_secs(seconds);
        tokio::time::pause();
        tokio::time::advance(moment.saturating_duration_since(Instant::now())).await;
        tokio::time::resume();
    }

    /// Starts what listens on port 443 of a host.
    pub fn website(
        &self,
        host: &str,
        script: impl Fn(&Received, &mut TlsStream) -> Option<bool> + Send + Sync + 'static,
    ) -> Origin {
        self.dns.set_addresses(host, &[&self.address]);
        let listener = TcpListener::bind((&*self.address, 443)).expect("a free port");
        Origin::on(listener, &self.authority.certificate(&[host]), ServerKey::new("w"), script)
    }

    /// Starts a website with a well-known file that names this server.
    pub fn delegate(&self, host: &str, to: &str) -> Origin {
        let file = json!({ "m.server": to }).to_string();
        self.website(host, move |_, stream| Some(respond(stream, 200, &file)))
    }

    /// Starts a homeserver on any port of 127.0.0.1, whose certificate is for this name alone.
    pub fn homeserver(&self, certificate_for: &str) -> Origin {
        let certificate = self.authority.certificate(&[certificate_for]);
        Origin::with_key(&certificate, ServerKey::new("h"), |_, _| None)
    }

    /// Starts one on port 8448 of this host.
    pub fn homeserver_at_8448(&self, host: &str) -> Origin {
        self.dns.set_addresses(host, &[&self.address]);
        let certificate = self.authority.certificate(&[host]);
        let listener = TcpListener::bind((&*self.address, 8448)).expect("a free port");
        Origin::on(listener, &certificate, ServerKey::new("h"), |_, _| None)
    }
}

/// Asks a server for its version.
pub async fn ask(servers: &Servers, server: &str) -> Result<Response, ServerError> {
    let deadline = Instant::now() + Duration::from_secs(20);
    servers.get(&server.parse().expect("a server name"), VERSION, &[], deadline).await
}

/// Asks a server, which has to answer.
pub async fn ask_well(servers: &Servers, server: &str) {
    let response = ask(servers, server).await.unwrap_or_else(|error| panic!("{server}: {error}"));
    assert_eq!(response.status, StatusCode::OK, "{server}");
}

/// Returns the `Host` and the SNI with which a homeserver was asked, once.
#[track_caller]
pub fn met(homeserver: &Origin) -> (String, Option<String>) {
    let [request] = &homeserver.received()[..] else { panic!("asked other than once") };
    let [name] = &homeserver.names()[..] else { panic!("met other than once") };
    (request.header("host").expect("a host").to_owned(), name.clone())
}
