//! Who a request came from, told to the homeserver with our own questions: its lists of sessions
//! show its users where they are, not where Mediary is.

use std::net::IpAddr;

use http::{HeaderName, HeaderValue, header};

/// How many bytes of fields about a sender the homeserver is told. Whoever writes more than homeservers
/// take would keep their own questions from being answered.
const MAX_HOPS: usize = 2048;
const MAX_USER_AGENT: usize = 1024;

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
        fields.extend(self.nearest_hops().map(|hop| (FORWARDED_FOR, hop.clone())));
        let address = self.address.and_then(|ip| HeaderValue::from_str(&ip.to_string()).ok());
        fields.extend(address.map(|address| (FORWARDED_FOR, address)));
        let user_agent = self.user_agent.as_ref().filter(|agent| agent.len() <= MAX_USER_AGENT);
        fields.extend(user_agent.map(|agent| (header::USER_AGENT, agent.clone())));
        fields
    }

    /// Returns the last hops, which are the ones that trusted proxies wrote.
    fn nearest_hops(&self) -> impl Iterator<Item = &HeaderValue> {
        let mut length = 0;
        let nearest = self.hops.iter().rev().take_while(|hop| {
            length += hop.len();
            length <= MAX_HOPS
        });
        let left_out = self.hops.len() - nearest.count();
        self.hops.iter().skip(left_out)
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

    #[test]
    fn what_would_make_a_question_too_long_is_left_out() {
        let field = |length| HeaderValue::from_str(&"a".repeat(length)).unwrap();
        let sender = Sender {
            hops: vec![field(2000), field(1000), field(1000)],
            address: None,
            user_agent: Some(field(MAX_USER_AGENT)),
        };
        let lengths = |sender: &Sender| -> Vec<usize> {
            sender.fields().iter().map(|(_, value)| value.len()).collect()
        };
        assert_eq!(lengths(&sender), [1000, 1000, MAX_USER_AGENT]);
        let sender = Sender { hops: vec![field(9), field(9999)], ..Sender::default() };
        assert!(lengths(&sender).is_empty());
        let sender = Sender { user_agent: Some(field(9999)), ..Sender::default() };
        assert!(lengths(&sender).is_empty());
    }
}
