//! A name server that says what a test wants.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::thread;

use hickory_resolver::proto::op::{Message, ResponseCode};
pub use hickory_resolver::proto::rr::RecordType;
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record};

/// What is said to one question.
#[derive(Debug, Clone)]
pub enum Reply {
    /// These records, which may be none.
    Records(Vec<RData>),
    /// No such name.
    NoSuchName,
    /// The name server fails.
    Failure,
    /// The name server refuses.
    Refused,
    /// Nothing at all.
    Silence,
}

impl Reply {
    /// Addresses, of one family.
    pub fn addresses(addresses: &[&str]) -> Self {
        Self::Records(addresses.iter().map(|address| address_record(address)).collect())
    }

    /// Targets of an SRV record: priority, weight, port and host.
    pub fn srv(targets: &[(u16, u16, u16, &str)]) -> Self {
        let record = |&(priority, weight, port, host): &(u16, u16, u16, &str)| {
            RData::SRV(SRV::new(priority, weight, port, name(host)))
        };
        Self::Records(targets.iter().map(record).collect())
    }
}

/// A name server on a free UDP port of 127.0.0.1. It knows no name that it was not told; of those that
/// it was told, it says that other types have no records. It lives to the end of the test.
pub struct DnsServer {
    /// Where it listens.
    pub address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
}

#[derive(Default)]
struct Zone {
    /// What comes next for a question; the last stays.
    replies: HashMap<(Name, RecordType), VecDeque<Reply>>,
    ttl: u32,
    questions: Vec<(String, RecordType)>,
}

impl DnsServer {
    /// Starts one that knows no name.
    pub fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("an address");
        let zone = Arc::new(Mutex::new(Zone { ttl: 300, ..Zone::default() }));
        let answered = zone.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
                let answer = answered.lock().expect("the zone").answer(&question);
                if let Some(answer) = answer {
                    let bytes = answer.to_vec().expect("a message");
                    // Who asked may be gone.
                    let _ = socket.send_to(&bytes, from);
                }
            }
        });
        Self { address, zone }
    }

    /// Returns the line for the section `[federation]`.
    pub fn setting(&self) -> String {
        format!("dns_servers = [\"{}\"]", self.address)
    }

    /// Sets how many seconds whoever asks may remember an answer.
    pub fn set_ttl(&self, seconds: u32) {
        self.zone.lock().expect("the zone").ttl = seconds;
    }

    /// Gives a name these addresses and no others.
    pub fn set_addresses(&self, host: &str, addresses: &[&str]) {
        let (ipv6, ipv4): (Vec<_>, Vec<_>) =
            addresses.iter().partition(|address| address.contains(':'));
        self.set(host, RecordType::A, &[Reply::addresses(&ipv4)]);
        self.set(host, RecordType::AAAA, &[Reply::addresses(&ipv6)]);
    }

    /// Makes a name an alias.
    pub fn set_alias(&self, alias: &str, target: &str) {
        let reply = Reply::Records(vec![RData::CNAME(CNAME(name(target)))]);
        self.set(alias, RecordType::CNAME, &[reply]);
    }

    /// Sets the SRV records of a name such as `_matrix._tcp.a.example`: priority, weight, port, host.
    pub fn set_srv(&self, service: &str, targets: &[(u16, u16, u16, &str)]) {
        self.set(service, RecordType::SRV, &[Reply::srv(targets)]);
    }

    /// Sets what is said to the first question, to the second, and so on; the last is said for good.
    pub fn set(&self, host: &str, kind: RecordType, replies: &[Reply]) {
        let mut zone = self.zone.lock().expect("the zone");
        zone.replies.insert((name(host), kind), replies.iter().cloned().collect());
    }

    /// Says the same to every question about a name of these types: addresses and SRV.
    pub fn set_all(&self, host: &str, reply: &Reply) {
        for kind in [RecordType::A, RecordType::AAAA, RecordType::SRV] {
            self.set(host, kind, std::slice::from_ref(reply));
        }
    }

    /// Returns every question so far, names without a dot at their end.
    pub fn questions(&self) -> Vec<(String, RecordType)> {
        self.zone.lock().expect("the zone").questions.clone()
    }

    /// Returns how often a name was asked for.
    pub fn asked(&self, host: &str, kind: RecordType) -> usize {
        let question = (host.to_owned(), kind);
        self.questions().into_iter().filter(|asked| *asked == question).count()
    }
}

impl Zone {
    fn answer(&mut self, question: &Message) -> Option<Message> {
        let query = question.queries.first()?.clone();
        let (mut host, kind) = (query.name().to_lowercase(), query.query_type());
        self.questions.push((host.to_utf8().trim_end_matches('.').to_owned(), kind));
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.metadata.recursion_desired = question.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.add_query(query);
        // An alias is followed here, as by a resolver that does that for its clients.
        for _ in 0..16 {
            let records = match self.next(&host, kind) {
                Reply::Records(records) => records,
                Reply::NoSuchName => {
                    answer.metadata.response_code = ResponseCode::NXDomain;
                    return Some(answer);
                }
                Reply::Failure => {
                    answer.metadata.response_code = ResponseCode::ServFail;
                    return Some(answer);
                }
                Reply::Refused => {
                    answer.metadata.response_code = ResponseCode::Refused;
                    return Some(answer);
                }
                Reply::Silence => return None,
            };
            let alias = records.iter().find_map(|record| match record {
                RData::CNAME(CNAME(target)) => Some(target.clone()),
                _ => None,
            });
            for record in records {
                answer.add_answer(Record::from_rdata(host.clone(), self.ttl, record));
            }
            match alias {
                Some(target) if kind != RecordType::CNAME => host = target,
                _ => break,
            }
        }
        Some(answer)
    }

    fn next(&mut self, host: &Name, kind: RecordType) -> Reply {
        let of_kind = (host.clone(), kind);
        let alias = (host.clone(), RecordType::CNAME);
        let key = if self.replies.contains_key(&of_kind) { of_kind } else { alias };
        if let Some(replies) = self.replies.get_mut(&key) {
            let first = replies.front().cloned().expect("a reply");
            if replies.len() > 1 {
                replies.pop_front();
            }
            return first;
        }
        if self.replies.keys().any(|(known, _)| known == host) {
            Reply::Records(Vec::new())
        } else {
            Reply::NoSuchName
        }
    }
}

fn name(text: &str) -> Name {
    let mut name = Name::from_str(text).expect("a name of the DNS").to_lowercase();
    name.set_fqdn(true);
    name
}

fn address_record(text: &str) -> RData {
    match text.parse().expect("an address") {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}
