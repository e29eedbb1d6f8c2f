//! From names to addresses and SRV targets. Nothing here blocks a thread, and nothing is decided here
//! about whether an address may be contacted.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use moka::sync::Cache;
use tokio::time::{Instant, timeout_at};

use super::srv::{self, Service};
use super::{EgressError, SrvTarget};

/// How many addresses of a host are kept; the rest of a longer answer is not looked at.
const MAX_ADDRESSES: usize = 8;

/// How many names are remembered, of addresses and of SRV records each.
const REMEMBERED_NAMES: u64 = 4096;

/// The longest that an answer is remembered, whatever it says.
const MAX_TTL: Duration = Duration::from_secs(3600);

/// How long addresses of one family are remembered when the other's were not told.
const HALF_TTL: Duration = Duration::from_secs(60);

/// How long one name server may take for one question, and how often it is asked again.
const QUERY_TIMEOUT: Duration = Duration::from_secs(3);
const QUERY_RETRIES: usize = 1;

/// How long a name may take in all, with every alias and every name server.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long addresses of one family are waited for when those of the other are there: some name
/// servers answer questions for AAAA with silence.
const FAMILY_DELAY: Duration = Duration::from_millis(500);

/// Resolves names, and remembers for as long as the answers say.
///
/// What is remembered is cut to what is used, so an answer of many records costs no memory; so the
/// resolver's own cache, which keeps whole answers, is off.
pub(super) struct Resolver {
    dns: TokioResolver,
    addresses: Cache<Name, (Clock, Arc<[IpAddr]>)>,
    services: Cache<Name, (Clock, Arc<[Service]>)>,
}

/// What a lookup found, and until when that holds.
struct Found<T> {
    records: Vec<T>,
    until: Clock,
}

impl Resolver {
    /// Asks `servers`, or those of the system if there are none.
    ///
    /// # Errors
    ///
    /// In words, if no resolver can be built.
    pub(super) fn new(servers: &[SocketAddr]) -> anyhow::Result<Self> {
        let config = if servers.is_empty() {
            system_servers(read_system_conf())
        } else {
            chosen_servers(servers)
        };
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        set_options(builder.options_mut());
        let dns = builder.build().map_err(|error| anyhow::anyhow!("no resolver: {error}"))?;
        Ok(Self {
            dns,
            addresses: Cache::new(REMEMBERED_NAMES),
            services: Cache::new(REMEMBERED_NAMES),
        })
    }

    /// Returns the addresses of a host, at least one and at most [`MAX_ADDRESSES`], in the order in
    /// which they are to be tried: the families by turns, so that neither has to time out first.
    ///
    /// # Errors
    ///
    /// [`EgressError::Resolution`] if there are none or nobody knows, [`EgressError::TimedOut`].
    pub(super) async fn addresses(
        &self,
        host: &str,
        deadline: Instant,
    ) -> Result<Arc<[IpAddr]>, EgressError> {
        let name = absolute(host)?;
        if let Some((until, addresses)) = self.addresses.get(&name)
            && Clock::now() < until
        {
            return Ok(addresses);
        }
        let found = within(deadline, host, self.look_addresses_up(name.clone())).await?;
        if found.records.is_empty() {
            return Err(failed(host, "it has no address"));
        }
        let addresses: Arc<[IpAddr]> = found.records.into();
        if Clock::now() < found.until {
            self.addresses.insert(name, (found.until, addresses.clone()));
        }
        Ok(addresses)
    }

    /// Returns the targets of a service in the order in which they are to be tried, which is drawn
    /// anew each time; none if there is no such record or the service is declared absent.
    ///
    /// # Errors
    ///
    /// [`EgressError::Resolution`] if nobody knows, [`EgressError::TimedOut`].
    pub(super) async fn srv(
        &self,
        service: &str,
        deadline: Instant,
    ) -> Result<Vec<SrvTarget>, EgressError> {
        let name = absolute(service)?;
        let records = match self.services.get(&name) {
            Some((until, records)) if Clock::now() < until => records,
            _ => {
                let found = within(deadline, service, self.look_services_up(&name)).await?;
                let records: Arc<[Service]> = found.records.into();
                if Clock::now() < found.until {
                    self.services.insert(name, (found.until, records.clone()));
                }
                records
            }
        };
        Ok(srv::targets(&records, srv::by_chance))
    }

    /// Asks for both families at once.
    async fn look_addresses_up(&self, name: Name) -> Result<Found<IpAddr>, NetError> {
        let mut ipv4 = Box::pin(self.look_up(&name, RecordType::A, addresses_of));
        let mut ipv6 = Box::pin(self.look_up(&name, RecordType::AAAA, addresses_of));
        let (first, other) = tokio::select! {
            first = &mut ipv4 => (first, ipv6),
            first = &mut ipv6 => (first, ipv4),
        };
        let second = match &first {
            Ok(found) if !found.records.is_empty() => {
                tokio::time::timeout(FAMILY_DELAY, other).await.unwrap_or(Err(NetError::Timeout))
            }
            _ => other.await,
        };
        let (records, until) = match (first, second) {
            // That there are none of a family is remembered as long as those of the other.
            (Ok(one), Ok(two)) if two.records.is_empty() => (one.records, one.until),
            (Ok(one), Ok(two)) if one.records.is_empty() => (two.records, two.until),
            (Ok(one), Ok(two)) => ([one.records, two.records].concat(), one.until.min(two.until)),
            // Half an answer will do, for a while.
            (Ok(half), Err(_)) | (Err(_), Ok(half)) if !half.records.is_empty() => {
                (half.records, half.until.min(Clock::now() + HALF_TTL))
            }
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        Ok(Found { records: by_turns(records), until })
    }

    async fn look_services_up(&self, name: &Name) -> Result<Found<Service>, NetError> {
        self.look_up(name, RecordType::SRV, services_of).await
    }

    /// Asks one question. That there is no such record is an answer.
    async fn look_up<T>(
        &self,
        name: &Name,
        kind: RecordType,
        pick: fn(&Lookup) -> Vec<T>,
    ) -> Result<Found<T>, NetError> {
        let (records, seconds) = match self.dns.lookup(name.clone(), kind).await {
            Ok(lookup) => {
                let shortest = lookup.answers().iter().map(|record| record.ttl).min();
                (pick(&lookup), shortest)
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none)))
                if matches!(none.response_code, ResponseCode::NoError | ResponseCode::NXDomain) =>
            {
                (Vec::new(), none.negative_ttl)
            }
            Err(error) => return Err(error),
        };
        let lifetime = Duration::from_secs(seconds.unwrap_or(0).into()).min(MAX_TTL);
        Ok(Found { records, until: Clock::now() + lifetime })
    }
}

/// The system's name servers and nothing else of its settings: search domains are for people.
fn system_servers(settings: Result<(ResolverConfig, ResolverOpts), NetError>) -> ResolverConfig {
    match settings {
        Ok((config, _)) if !config.name_servers.is_empty() => {
            ResolverConfig::from_name_servers(config.name_servers)
        }
        other => {
            // What a C library does without the file.
            let local = SocketAddr::from(([127, 0, 0, 1], 53));
            let reason = other.err().map_or("none are named".to_owned(), |error| error.to_string());
            tracing::warn!(%reason, "no name servers in /etc/resolv.conf; asking {local}");
            chosen_servers(&[local])
        }
    }
}

fn chosen_servers(servers: &[SocketAddr]) -> ResolverConfig {
    let server = |address: &SocketAddr| {
        let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
        for connection in &mut connections {
            connection.port = address.port();
        }
        NameServerConfig::new(address.ip(), true, connections)
    };
    ResolverConfig::from_name_servers(servers.iter().map(server).collect())
}

fn set_options(options: &mut ResolverOpts) {
    options.timeout = QUERY_TIMEOUT;
    options.attempts = QUERY_RETRIES;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Always;
    // Questions that need TCP share a connection, and are not to wait for each other.
    options.max_active_requests = 1024;
}

/// Takes a name as it is: absolute, without search domains.
fn absolute(host: &str) -> Result<Name, EgressError> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let name = Name::from_ascii(host.to_ascii_lowercase()).ok();
    match name.filter(|name| name.num_labels() > 0 && host.bytes().all(is_plain)) {
        Some(mut name) => {
            name.set_fqdn(true);
            Ok(name)
        }
        None => Err(failed(host, "it is no name")),
    }
}

/// Waits for a lookup as long as there is time.
async fn within<T>(
    deadline: Instant,
    name: &str,
    lookup: impl Future<Output = Result<T, NetError>>,
) -> Result<T, EgressError> {
    let end = deadline.min(Instant::now() + LOOKUP_TIMEOUT);
    match timeout_at(end, lookup).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => Err(failed(name, &in_words(&error))),
        Err(_) if end == deadline => Err(EgressError::TimedOut("the name server")),
        Err(_) => Err(failed(name, "no name server answers")),
    }
}

fn failed(name: &str, reason: &str) -> EgressError {
    EgressError::Resolution { name: name.to_owned(), reason: reason.to_owned() }
}

fn in_words(error: &NetError) -> String {
    match error {
        NetError::Timeout | NetError::NoConnections => "no name server answers".to_owned(),
        NetError::Dns(DnsError::ResponseCode(code)) => format!("the name server says {code}"),
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            format!("the name server says {}", none.response_code)
        }
        other => other.to_string(),
    }
}

fn addresses_of(lookup: &Lookup) -> Vec<IpAddr> {
    let address = |data: &RData| match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    let mut addresses = Vec::new();
    for found in lookup.answers().iter().filter_map(|record| address(&record.data)) {
        if addresses.len() < MAX_ADDRESSES && !addresses.contains(&found) {
            addresses.push(found);
        }
    }
    addresses
}

/// The services of an answer, but for those whose target is a name of the root, or an alias as far as
/// the answer itself shows it (DISC-15). Further than that nobody looks: what is an alias elsewhere
/// is followed, as others do.
fn services_of(lookup: &Lookup) -> Vec<Service> {
    let records = || lookup.answers().iter().chain(lookup.additionals());
    let is_alias = |target: &Name| {
        records().any(|record| matches!(record.data, RData::CNAME(_)) && record.name == *target)
    };
    let service = |data: &RData| match data {
        RData::SRV(srv) if !srv.target.is_root() && !is_alias(&srv.target) => Some(Service {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            host: srv.target.to_ascii().trim_end_matches('.').to_ascii_lowercase().into(),
        }),
        _ => None,
    };
    let services = lookup.answers().iter().filter_map(|record| service(&record.data));
    services.take(srv::MAX_RECORDS).collect()
}

/// Orders addresses so that the families take turns, IPv6 first (RFC 8305, section 4).
fn by_turns(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let (ipv6, ipv4): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv6);
    let longer = ipv6.len().max(ipv4.len());
    let turns = (0..longer).flat_map(|turn| [ipv6.get(turn), ipv4.get(turn)]);
    turns.flatten().copied().take(MAX_ADDRESSES).collect()
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::op::Query;
    use hickory_resolver::proto::rr::Record;
    use hickory_resolver::proto::rr::rdata::{CNAME, SRV};
    use hickory_resolver::system_conf::parse_resolv_conf;

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_families_take_turns() {
        let mixed = addresses(&["1.0.0.1", "1.0.0.2", "1.0.0.3", "2a00::1"]);
        assert_eq!(by_turns(mixed), addresses(&["2a00::1", "1.0.0.1", "1.0.0.2", "1.0.0.3"]));
    }

    #[test]
    fn of_many_addresses_each_family_keeps_its_share() {
        let ipv4 = (1..=8).map(|n| IpAddr::from([1, 0, 0, n]));
        let ipv6 = (1..=8).map(|n| IpAddr::from([0x2a00, 0, 0, 0, 0, 0, 0, n]));
        let kept = by_turns(ipv4.chain(ipv6).collect());
        assert_eq!(kept.len(), MAX_ADDRESSES);
        assert_eq!(kept.iter().filter(|address| address.is_ipv6()).count(), MAX_ADDRESSES / 2);
    }

    #[test]
    fn names_are_absolute_and_plain() {
        assert!(absolute("matrix.org").is_ok_and(|name| name.is_fqdn()));
        assert!(absolute("_matrix-fed._tcp.matrix.org").is_ok());
        for name in ["", ".", "..", "a..b", "a b", "a\\.b", "ü.example", &"a".repeat(64), "*.a"] {
            assert!(absolute(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn without_settings_of_the_system_its_own_name_server_is_asked() {
        let unreadable = Err(NetError::Message("No such file"));
        let empty = Ok((ResolverConfig::default(), ResolverOpts::default()));
        for settings in [unreadable, empty] {
            let config = system_servers(settings);
            assert_eq!(config.name_servers.len(), 1);
            assert_eq!(config.name_servers[0].ip, IpAddr::from([127, 0, 0, 1]));
        }
    }

    #[test]
    fn of_the_systems_settings_only_the_servers_are_taken() {
        let settings =
            "search a.example\ndomain b.example\nnameserver 192.0.2.1\noptions ndots:9\n";
        let config = system_servers(parse_resolv_conf(settings));
        assert_eq!((config.domain, config.search.len()), (None, 0));
        assert_eq!(config.name_servers[0].ip, IpAddr::from([192, 0, 2, 1]));
    }

    #[test]
    fn a_resolver_is_made_outside_of_a_runtime() {
        assert!(Resolver::new(&[]).is_ok());
    }

    fn named(name: &str) -> Name {
        Name::from_ascii(name).unwrap()
    }

    /// DISC-15
    #[test]
    fn a_target_that_is_seen_to_be_an_alias_is_not_taken() {
        let service = named("_matrix._tcp.a.example.");
        let srv = |port, host| {
            let target = RData::SRV(SRV::new(0, 0, port, named(host)));
            Record::from_rdata(service.clone(), 60, target)
        };
        let alias =
            Record::from_rdata(named("alias.example."), 60, RData::CNAME(CNAME(named("b."))));
        let query = Query::query(service.clone(), RecordType::SRV);
        let answers = [srv(1, "alias.example."), srv(2, "B.example."), srv(3, ".")];
        let mut lookup = Lookup::new_with_max_ttl(query, answers);
        lookup.extend_additionals([alias]);
        let hosts: Vec<_> = services_of(&lookup).into_iter().map(|found| found.host).collect();
        assert_eq!(hosts, ["b.example".into()]);
    }
}
