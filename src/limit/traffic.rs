//! What the media routes ask before they do anything: requests and bytes, by user and by address.
//!
//! The address is asked before the token, so that whoever guesses tokens does not reach the homeserver
//! (threats AU-07); the user after it. Bytes are charged when they are known, before they flow, and made
//! right when the request has ended: whoever hangs up does not pay for what was not sent.

use std::hash::Hash;
use std::net::IpAddr;
use std::time::Instant;

use super::{Exceeded, Limit, RateLimit};
use crate::types::{ClientNetwork, UserId};

/// How often and how much somebody may ask. A rate of 0 is no limit.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    /// Requests in a second, in the long run.
    pub requests_per_second: u32,
    /// Requests at once.
    pub requests_burst: u32,
    /// Bytes of bodies, sent and received, in a second, in the long run.
    pub bytes_per_second: u64,
    /// Such bytes at once.
    pub bytes_burst: u64,
}

/// The limits on one kind of somebody.
struct Pair<K> {
    requests: Option<RateLimit<K>>,
    bytes: Option<RateLimit<K>>,
}

impl<K: Hash + Eq + Clone> Pair<K> {
    fn new(rates: Rates) -> Self {
        let requests = (rates.requests_per_second > 0)
            .then(|| RateLimit::new(rates.requests_per_second.into(), rates.requests_burst.into()));
        let bytes = (rates.bytes_per_second > 0)
            .then(|| RateLimit::new(rates.bytes_per_second as f64, rates.bytes_burst));
        Self { requests, bytes }
    }

    /// Lets a request in, unless there were too many or too many bytes.
    fn admit(&self, key: &K, now: Instant, [often, much]: [Limit; 2]) -> Result<(), Exceeded> {
        if let Some(bytes) = &self.bytes {
            bytes.check(key, now).map_err(|wait| much.exceeded(wait))?;
        }
        if let Some(requests) = &self.requests {
            requests.take(key, now).map_err(|wait| often.exceeded(wait))?;
        }
        Ok(())
    }

    fn spend(&self, key: &K, count: u64, now: Instant, limit: Limit) -> Result<(), Exceeded> {
        let Some(bytes) = &self.bytes else { return Ok(()) };
        bytes.spend(key, count, now).map_err(|wait| limit.exceeded(wait))
    }

    /// Makes right what was charged once it is known what flowed.
    fn settle(&self, key: &K, charged: u64, flowed: u64, now: Instant) {
        let Some(bytes) = &self.bytes else { return };
        if flowed > charged {
            bytes.charge(key, flowed - charged, now);
        } else if flowed < charged {
            bytes.give_back(key, charged - flowed, now);
        }
    }
}

/// All limits on requests and bytes.
pub struct Traffic {
    users: Pair<UserId>,
    clients: Pair<ClientNetwork>,
}

/// What one request is charged to, and how much so far.
#[derive(Debug)]
pub struct Tab {
    user: Option<UserId>,
    client: Option<ClientNetwork>,
    charged: u64,
}

impl Tab {
    /// Returns the client that the request came from, where that is known and not a proxy of ours.
    pub fn client(&self) -> Option<ClientNetwork> {
        self.client
    }
}

const USER: [Limit; 2] = [Limit::UserRequests, Limit::UserBytes];
const ADDRESS: [Limit; 2] = [Limit::AddressRequests, Limit::AddressBytes];

impl Traffic {
    /// Makes limits for each user and for each address.
    pub fn new(user: Rates, address: Rates) -> Self {
        Self { users: Pair::new(user), clients: Pair::new(address) }
    }

    /// Lets a request from an address in; one without an address is not limited by it.
    ///
    /// # Errors
    ///
    /// [`Exceeded`] if too many came from there, or too many bytes flowed.
    pub fn open(&self, address: Option<IpAddr>, now: Instant) -> Result<Tab, Exceeded> {
        let client = address.map(ClientNetwork::of);
        if let Some(client) = &client {
            self.clients.admit(client, now, ADDRESS)?;
        }
        Ok(Tab { user: None, client, charged: 0 })
    }

    /// Lets a request of a user in.
    ///
    /// # Errors
    ///
    /// [`Exceeded`] if they asked too often, or for too many bytes.
    pub fn admit(&self, tab: &mut Tab, user: &UserId, now: Instant) -> Result<(), Exceeded> {
        self.users.admit(user, now, USER)?;
        tab.user = Some(user.clone());
        Ok(())
    }

    /// Frees a request from all limits, that of its address too.
    pub fn exempt(&self, tab: &mut Tab, now: Instant) {
        if let (Some(client), Some(requests)) = (tab.client.take(), &self.clients.requests) {
            requests.give_back(&client, 1, now);
        }
    }

    /// Charges bytes that are about to flow.
    ///
    /// # Errors
    ///
    /// [`Exceeded`] if too many flowed before; nothing is charged then.
    pub fn charge(&self, tab: &mut Tab, bytes: u64, now: Instant) -> Result<(), Exceeded> {
        if let Some(client) = &tab.client {
            self.clients.spend(client, bytes, now, Limit::AddressBytes)?;
        }
        if let Some(user) = &tab.user
            && let Err(exceeded) = self.users.spend(user, bytes, now, Limit::UserBytes)
        {
            if let Some(client) = &tab.client {
                self.clients.settle(client, bytes, 0, now);
            }
            return Err(exceeded);
        }
        tab.charged = tab.charged.saturating_add(bytes);
        Ok(())
    }

    /// Ends a request of whose bodies so many bytes have flowed.
    pub fn settle(&self, tab: &Tab, flowed: u64, now: Instant) {
        if let Some(client) = &tab.client {
            self.clients.settle(client, tab.charged, flowed, now);
        }
        if let Some(user) = &tab.user {
            self.users.settle(user, tab.charged, flowed, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const OFF: Rates =
        Rates { requests_per_second: 0, requests_burst: 0, bytes_per_second: 0, bytes_burst: 0 };

    fn requests(burst: u32) -> Rates {
        Rates { requests_per_second: 1, requests_burst: burst, ..OFF }
    }

    fn bytes(burst: u64) -> Rates {
        Rates { bytes_per_second: 10, bytes_burst: burst, ..OFF }
    }

    fn user(name: &str) -> UserId {
        format!("@{name}:example.org").parse().unwrap()
    }

    fn from(address: &str) -> Option<IpAddr> {
        Some(address.parse().unwrap())
    }

    #[test]
    fn addresses_and_users_have_places_of_their_own() {
        let traffic = Traffic::new(requests(2), requests(3));
        let now = Instant::now();
        let mut tabs: Vec<Tab> =
            (0..3).map(|_| traffic.open(from("192.0.2.1"), now).unwrap()).collect();
        let refused = traffic.open(from("192.0.2.1"), now).unwrap_err();
        assert_eq!(refused, Limit::AddressRequests.exceeded(Duration::from_secs(1)));
        traffic.open(from("192.0.2.2"), now).unwrap();
        traffic.open(None, now).unwrap();
        traffic.admit(&mut tabs[0], &user("alice"), now).unwrap();
        traffic.admit(&mut tabs[1], &user("alice"), now).unwrap();
        let refused = traffic.admit(&mut tabs[2], &user("alice"), now).unwrap_err();
        assert_eq!(refused, Limit::UserRequests.exceeded(Duration::from_secs(1)));
        traffic.admit(&mut tabs[2], &user("bob"), now).unwrap();
    }

    #[test]
    fn without_limits_nothing_is_refused() {
        let traffic = Traffic::new(OFF, OFF);
        let now = Instant::now();
        for _ in 0..1000 {
            let mut tab = traffic.open(from("192.0.2.1"), now).unwrap();
            traffic.admit(&mut tab, &user("alice"), now).unwrap();
            traffic.charge(&mut tab, u64::MAX, now).unwrap();
            traffic.settle(&tab, u64::MAX, now);
            traffic.exempt(&mut tab, now);
        }
    }

    #[test]
    fn whoever_is_exempt_takes_nothing_from_others_at_the_same_address() {
        let traffic = Traffic::new(requests(1), requests(1));
        let now = Instant::now();
        for _ in 0..100 {
            let mut tab = traffic.open(from("192.0.2.1"), now).unwrap();
            traffic.exempt(&mut tab, now);
            traffic.exempt(&mut tab, now);
        }
        traffic.open(from("192.0.2.1"), now).unwrap();
        traffic.open(from("192.0.2.1"), now).unwrap_err();
    }

    #[test]
    fn bytes_are_charged_to_both_or_to_nobody_and_refused_while_there_is_a_debt() {
        let traffic = Traffic::new(bytes(100), bytes(1000));
        let now = Instant::now();
        let begin = |name: &str| {
            let mut tab = traffic.open(from("192.0.2.1"), now)?;
            traffic.admit(&mut tab, &user(name), now)?;
            Ok::<_, Exceeded>(tab)
        };
        let mut first = begin("alice").unwrap();
        let mut second = begin("alice").unwrap();
        traffic.charge(&mut first, 600, now).unwrap();
        let refused = traffic.charge(&mut second, 300, now).unwrap_err();
        assert_eq!(refused, Limit::UserBytes.exceeded(Duration::from_secs(50)));
        assert_eq!(begin("alice").unwrap_err(), refused);
        let mut bobs = begin("bob").unwrap();
        traffic.charge(&mut bobs, 400, now).unwrap();
        // The address has spent its 1000 to the last byte, and not the 300 that were refused.
        let mut carols = begin("carol").unwrap();
        traffic.charge(&mut carols, 1, now).unwrap();
        assert_eq!(begin("carol").unwrap_err().limit, Limit::AddressBytes);
    }

    #[test]
    fn whoever_hangs_up_pays_for_what_was_sent() {
        let traffic = Traffic::new(bytes(100), bytes(100));
        let now = Instant::now();
        for _ in 0..10 {
            let mut tab = traffic.open(from("192.0.2.1"), now).unwrap();
            traffic.admit(&mut tab, &user("alice"), now).unwrap();
            traffic.charge(&mut tab, 1_000_000, now).unwrap();
            traffic.settle(&tab, 10, now);
        }
        let mut tab = traffic.open(from("192.0.2.1"), now).unwrap();
        traffic.admit(&mut tab, &user("alice"), now).unwrap();
        // Of unknown length: charged at its end.
        traffic.settle(&tab, 50, now);
        let refused = traffic.open(from("192.0.2.1"), now).unwrap_err();
        assert_eq!(refused, Limit::AddressBytes.exceeded(Duration::from_secs(5)));
    }
}
