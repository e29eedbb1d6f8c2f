//! The sections of the configuration file, one struct each, with their defaults.
//!
//! `conf/mediary.toml` explains every key to an operator; here it is said to a reader of code.

use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

use super::address::{AdminListen, ListenAddress};
use super::homeserver_url::{HomeserverUrl, Scheme};
use super::network::{Network, TrustedProxies};
use super::page_url::PageUrl;
use super::pattern::{ServerPattern, TypePattern, UserPattern};
use super::value;
use super::words::{LegacyMode, LogFormat, LogLevel};
use crate::types::{Mxc, ServerName, UnixMillis};

/// `[server]`: where requests come in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct ServerConfig {
    /// Where clients and other servers connect.
    #[serde(deserialize_with = "value::texts")]
    pub listen: Vec<ListenAddress>,
    /// Where metrics and health are served.
    #[serde(deserialize_with = "value::text")]
    pub admin_listen: AdminListen,
    /// Whose `X-Forwarded-*` fields are believed.
    pub trusted_proxies: TrustedProxies,
    /// Threads that serve requests; 0 is one for each core.
    #[serde(deserialize_with = "value::count")]
    pub threads: usize,
    /// How long requests in flight may take to end once the process is told to stop.
    #[serde(deserialize_with = "value::duration")]
    pub shutdown_timeout: Duration,
}

impl ServerConfig {
    /// Returns the number of threads that serve requests.
    pub fn worker_threads(&self) -> usize {
        or_number_of_cores(self.threads)
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: vec![ListenAddress::Tcp(([127, 0, 0, 1], 8090).into())],
            admin_listen: AdminListen::On(ListenAddress::Tcp(([127, 0, 0, 1], 9090).into())),
            trusted_proxies: TrustedProxies::loopback(),
            threads: 0,
            shutdown_timeout: Duration::from_secs(30),
        }
    }
}

/// `[connections]`: what one client's connection may take.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct ConnectionsConfig {
    /// How many connections one address may have.
    #[serde(deserialize_with = "value::count")]
    pub max_per_address: usize,
    /// How long the head of a request may take in all.
    #[serde(deserialize_with = "value::duration")]
    pub header_timeout: Duration,
    /// How much a client sends or takes in a second at least; zero for no such bound.
    #[serde(deserialize_with = "value::size")]
    pub min_rate: ByteSize,
    /// How long a client may be slower than that, or silent.
    #[serde(deserialize_with = "value::duration")]
    pub slow_timeout: Duration,
}

impl Default for ConnectionsConfig {
    fn default() -> Self {
        Self {
            max_per_address: 1024,
            header_timeout: Duration::from_secs(30),
            min_rate: ByteSize::kib(1),
            slow_timeout: Duration::from_secs(60),
        }
    }
}

/// `[homeserver]`: the homeserver behind us.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct HomeserverConfig {
    /// Where it is reached.
    #[serde(deserialize_with = "value::text")]
    pub url: HomeserverUrl,
    /// Its name; `None` to ask it.
    #[serde(deserialize_with = "value::optional_text")]
    pub server_name: Option<ServerName>,
    /// How long a connection to it may take to come about.
    #[serde(deserialize_with = "value::duration")]
    pub connect_timeout: Duration,
    /// How long it may take to answer a question of ours.
    #[serde(deserialize_with = "value::duration")]
    pub timeout: Duration,
}

impl Default for HomeserverConfig {
    fn default() -> Self {
        Self {
            url: HomeserverUrl::Tcp {
                scheme: Scheme::Http,
                host: "127.0.0.1".to_owned(),
                port: 8008,
            },
            server_name: None,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
        }
    }
}

/// `[storage]`: where media is kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct StorageConfig {
    /// The directory of blobs and records.
    pub path: PathBuf,
    /// How much of the small and often asked is kept in memory too.
    #[serde(deserialize_with = "value::size")]
    pub memory: ByteSize,
    /// How much may be kept of what can be had again; media owned here is not counted.
    #[serde(deserialize_with = "value::size")]
    pub cache_size: ByteSize,
    /// How much of the file system is left free by evicting; zero for no such bound.
    #[serde(deserialize_with = "value::size")]
    pub min_free: ByteSize,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            path: "/var/lib/mediary".into(),
            memory: ByteSize::mib(64),
            cache_size: ByteSize::gib(20),
            min_free: ByteSize::gib(2),
        }
    }
}

/// `[auth]`: how access tokens are checked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct AuthConfig {
    /// How long the homeserver's word on a token is good; zero to ask it every time.
    #[serde(deserialize_with = "value::duration")]
    pub token_cache: Duration,
    /// How many tokens are remembered at most.
    #[serde(deserialize_with = "value::count")]
    pub token_cache_entries: u64,
    /// Whether the homeserver's word on who is a guest is believed (FLD-20); guests may only read.
    pub trust_is_guest: bool,
    /// A file with an administrator's token, for asking who is suspended, and for icons and what
    /// [`LegacyConfig::readable`] lists where the homeserver has frozen them; `None` to ask nobody.
    pub admin_token_file: Option<PathBuf>,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            token_cache: Duration::from_secs(60),
            token_cache_entries: 100_000,
            trust_is_guest: false,
            admin_token_file: None,
        }
    }
}

/// `[uploads]`: what users may upload.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct UploadsConfig {
    /// The largest body that is taken where no rule says otherwise.
    #[serde(deserialize_with = "value::size")]
    pub max_size: ByteSize,
    /// The largest body that gets through to here; `/media/config` announces no more (CS-CFG-03).
    #[serde(deserialize_with = "value::optional_size")]
    pub front_max_size: Option<ByteSize>,
    /// Which types are taken; empty for all.
    #[serde(deserialize_with = "value::texts")]
    pub allow_types: Vec<TypePattern>,
    /// Which types are not taken, even if they are allowed.
    #[serde(deserialize_with = "value::texts")]
    pub deny_types: Vec<TypePattern>,
    /// How much a user may keep here; zero for any amount (CS-LIM-04).
    #[serde(deserialize_with = "value::size")]
    pub quota_bytes: ByteSize,
    /// How many files a user may keep here; zero for any number.
    #[serde(deserialize_with = "value::count")]
    pub quota_files: u64,
    /// Where a user who has reached the quota learns more (CS-GEN-09).
    #[serde(deserialize_with = "value::optional_text")]
    pub quota_info_url: Option<PageUrl>,
    /// Whether they can get a larger one there.
    pub quota_can_upgrade: bool,
    /// How many media ids a user may have that were created and not uploaded (CS-CRE-05).
    #[serde(deserialize_with = "value::count")]
    pub max_pending: u64,
    /// How long such a media id is kept (CS-CRE-04).
    #[serde(deserialize_with = "value::duration")]
    pub unused_expiry: Duration,
    /// How many media ids a user may create in a second, in the long run.
    #[serde(deserialize_with = "value::count")]
    pub create_per_second: u32,
    /// How many media ids a user may create at once.
    #[serde(deserialize_with = "value::count")]
    pub create_burst: u32,
}

impl Default for UploadsConfig {
    /// For asynchronous uploads Synapse's values (FLD-18).
    fn default() -> Self {
        Self {
            max_size: ByteSize::mib(50),
            front_max_size: None,
            allow_types: Vec::new(),
            deny_types: Vec::new(),
            quota_bytes: ByteSize(0),
            quota_files: 0,
            quota_info_url: None,
            quota_can_upgrade: false,
            max_pending: 5,
            unused_expiry: Duration::from_secs(24 * 60 * 60),
            create_per_second: 10,
            create_burst: 50,
        }
    }
}

/// `[limits]`: how much each user and each address may ask of the media routes (CS-RL-01).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct LimitsConfig {
    /// How many requests of a user are let in each second, in the long run; zero for any number.
    #[serde(deserialize_with = "value::count")]
    pub user_requests_per_second: u32,
    /// How many at once.
    #[serde(deserialize_with = "value::count")]
    pub user_requests_burst: u32,
    /// How many bytes a user may send and receive each second, in the long run; zero for any number.
    #[serde(deserialize_with = "value::size")]
    pub user_bytes_per_second: ByteSize,
    /// How many at once.
    #[serde(deserialize_with = "value::size")]
    pub user_bytes_burst: ByteSize,
    /// As `user_requests_per_second`, for all who come from one address.
    #[serde(deserialize_with = "value::count")]
    pub address_requests_per_second: u32,
    /// As `user_requests_burst`.
    #[serde(deserialize_with = "value::count")]
    pub address_requests_burst: u32,
    /// As `user_bytes_per_second`.
    #[serde(deserialize_with = "value::size")]
    pub address_bytes_per_second: ByteSize,
    /// As `user_bytes_burst`.
    #[serde(deserialize_with = "value::size")]
    pub address_bytes_burst: ByteSize,
}

impl Default for LimitsConfig {
    /// A burst is a client with an empty cache that goes through a list of a thousand members twice;
    /// an address is a household or an office of users.
    fn default() -> Self {
        Self {
            user_requests_per_second: 50,
            user_requests_burst: 2000,
            user_bytes_per_second: ByteSize::mib(10),
            user_bytes_burst: ByteSize::gib(5),
            address_requests_per_second: 200,
            address_requests_burst: 10_000,
            address_bytes_per_second: ByteSize::mib(40),
            address_bytes_burst: ByteSize::gib(20),
        }
    }
}

/// One of `[[rules]]`: what holds for some users in the place of the general settings. What is `None`
/// is as there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct RuleConfig {
    /// For whom.
    #[serde(deserialize_with = "value::texts")]
    pub users: Vec<UserPattern>,
    /// Whether they may upload at all.
    pub may_upload: bool,
    /// In the place of `uploads.max_size`.
    #[serde(deserialize_with = "value::optional_size")]
    pub max_size: Option<ByteSize>,
    /// In the place of `uploads.quota_bytes`; zero for any amount.
    #[serde(deserialize_with = "value::optional_size")]
    pub quota_bytes: Option<ByteSize>,
    /// In the place of `uploads.quota_files`; zero for any number.
    #[serde(deserialize_with = "value::optional_count")]
    pub quota_files: Option<u64>,
    /// In the place of `uploads.max_pending`.
    #[serde(deserialize_with = "value::optional_count")]
    pub max_pending: Option<u64>,
    /// Whether they are bound by limits on how often and how much.
    pub rate_limits: bool,
}

impl Default for RuleConfig {
    fn default() -> Self {
        Self {
            users: Vec::new(),
            may_upload: true,
            max_size: None,
            quota_bytes: None,
            quota_files: None,
            max_pending: None,
            rate_limits: true,
        }
    }
}

/// `[remote]`: what is fetched, from other servers or through the homeserver.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct RemoteConfig {
    /// The largest body that is fetched.
    #[serde(deserialize_with = "value::size")]
    pub max_size: ByteSize,
    /// How many bodies are fetched at once.
    #[serde(deserialize_with = "value::count")]
    pub max_fetches: usize,
    /// How much of the disk bodies may take that have not come to their end.
    #[serde(deserialize_with = "value::size")]
    pub max_unfinished: ByteSize,
    /// How long one may take in all.
    #[serde(deserialize_with = "value::duration")]
    pub max_duration: Duration,
    /// How much of one comes from another server in a second at least; zero for no such bound.
    #[serde(deserialize_with = "value::size")]
    pub min_rate: ByteSize,
    /// How long one may be slower than that.
    #[serde(deserialize_with = "value::duration")]
    pub slow_timeout: Duration,
}

impl Default for RemoteConfig {
    fn default() -> Self {
        Self {
            max_size: ByteSize::mib(200),
            max_fetches: 64,
            max_unfinished: ByteSize::gib(8),
            max_duration: Duration::from_secs(60 * 60),
            min_rate: ByteSize::kib(16),
            slow_timeout: Duration::from_secs(60),
        }
    }
}

/// `[federation]`: other servers, whom we ask and who ask us.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct FederationConfig {
    /// The homeserver's signing key, or one that it publishes too; `None` to leave federation to the
    /// homeserver (FM-C-11).
    pub signing_key: Option<PathBuf>,
    /// Which servers media is exchanged with; empty for all.
    #[serde(deserialize_with = "value::texts")]
    pub allow_servers: Vec<ServerPattern>,
    /// With which it is not, even if they are allowed.
    #[serde(deserialize_with = "value::texts")]
    pub deny_servers: Vec<ServerPattern>,
    /// Whether the homeserver is asked for what another server does not give: it may have a copy.
    pub ask_homeserver: bool,
    /// Servers that are asked for the keys of others that cannot be reached (KEY-07).
    #[serde(deserialize_with = "value::texts")]
    pub notaries: Vec<ServerName>,
    /// Networks that may be contacted although they are not public.
    #[serde(deserialize_with = "value::texts")]
    pub allow_networks: Vec<Network>,
    /// Certificate authorities that are believed beside the system's, as PEM.
    pub ca_file: Option<PathBuf>,
    /// Name servers that are asked instead of the system's.
    #[serde(deserialize_with = "value::texts")]
    pub dns_servers: Vec<SocketAddr>,
    /// How long a connection to another server may take to come about.
    #[serde(deserialize_with = "value::duration")]
    pub connect_timeout: Duration,
    /// How long another server may take to answer, with everything that goes before it.
    #[serde(deserialize_with = "value::duration")]
    pub timeout: Duration,
    /// How many files of one server are fetched at once.
    #[serde(deserialize_with = "value::count")]
    pub max_fetches_per_server: usize,
    /// How many requests of one server are let in each second, in the long run; zero for any number.
    #[serde(deserialize_with = "value::count")]
    pub server_requests_per_second: u32,
    /// How many at once.
    #[serde(deserialize_with = "value::count")]
    pub server_requests_burst: u32,
    /// How many requests of one server are answered at the same time.
    #[serde(deserialize_with = "value::count")]
    pub max_requests_per_server: usize,
}

impl Default for FederationConfig {
    fn default() -> Self {
        Self {
            signing_key: None,
            allow_servers: Vec::new(),
            deny_servers: Vec::new(),
            ask_homeserver: true,
            notaries: Vec::new(),
            allow_networks: Vec::new(),
            ca_file: None,
            dns_servers: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(30),
            max_fetches_per_server: 32,
            server_requests_per_second: 50,
            server_requests_burst: 1000,
            max_requests_per_server: 64,
        }
    }
}

/// `[legacy]`: the download routes that ask for no token.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct LegacyConfig {
    /// What they serve.
    #[serde(deserialize_with = "value::text")]
    pub mode: LegacyMode,
    /// When the freeze began; `None` for the first start.
    #[serde(deserialize_with = "value::moment")]
    pub frozen_since: Option<UnixMillis>,
    /// Media that they serve whatever the mode (CS-FRZ-04).
    #[serde(deserialize_with = "value::texts")]
    pub readable: Vec<Mxc>,
}

impl Default for LegacyConfig {
    fn default() -> Self {
        Self { mode: LegacyMode::Frozen, frozen_since: None, readable: Vec::new() }
    }
}

/// `[log]`: what is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct LogConfig {
    /// How a line is written.
    #[serde(deserialize_with = "value::text")]
    pub format: LogFormat,
    /// The least important kind of event that is logged.
    #[serde(deserialize_with = "value::text")]
    pub level: LogLevel,
    /// Whether each request gets a line.
    pub requests: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: LogLevel::Info, requests: true }
    }
}

pub(super) fn or_number_of_cores(number: usize) -> usize {
    if number > 0 { number } else { thread::available_parallelism().map_or(1, NonZero::get) }
}
