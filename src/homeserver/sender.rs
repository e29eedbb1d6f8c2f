//! Who a request came from, told to the homeserver with our own questions: its lists of sessions
//! show its users where they are, not where Mediary is.

use std::net::IpAddr;

use http::{HeaderName, HeaderValue, header};

/// The sender of a request, as far as it can be believed.
#[derive(Debug, Clone, Default)]
pub struct Sender {
    /// The `X-Forwarded-For` fields of a trusted proxy, in their order.
    pub hops: Vec<HeaderValue>,
    /// The address of the other end of the connection, if it has one.
    pub address: Option<IpAddr>,
    /// The `User-Agent`.
    pub user_agent: Option<HeaderValue>,
}

impl Sender {
    /// Returns the fields that tell the homeserver.
    pub(super) fn fields(&self) -> Vec<(HeaderName, HeaderValue)> {
        const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
        let mut fields = Vec::with_capacity(self.hops.len() + 2);
        fields.extend(self.hops.iter().map(|hop| (FORWARDED_FOR, hop.clone())));
        let address = self.address.and_then(|ip| HeaderValue::from_str(&ip.to_string()).ok());
        fields.extend(address.map(|address| (FORWARDED_FOR, address)));
        fields.extend(self.user_agent.clone().map(|agent| (header::USER_AGENT, agent)));
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_comes_behind_the_hops_of_a_trusted_proxy() {
        let sender = Sender {
            hops: vec![HeaderValue::from_static("198.51.100.7")],
            address: Some("127.0.0.1".parse().unwrap()),
            user_agent: Some(HeaderValue::from_static("Element")),
        };
        let fields: Vec<_> = sender
            .fields()
            .into_iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        assert_eq!(
            fields,
            ["x-forwarded-for: 198.51.100.7", "x-forwarded-for: 127.0.0.1", "user-agent: Element"]
        );
        assert!(Sender::default().fields().is_empty());
    }
}
