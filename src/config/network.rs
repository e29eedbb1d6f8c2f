//! Networks of addresses, and the proxies whose word is believed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::Deserialize;

use super::value::Text;

/// An IP address, or all that share its first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix_length: u8,
}

/// A text that is no [`Network`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNetwork {
    /// Neither an address nor an address with a prefix length.
    #[error(
        "not an address or network; write it as in \"192.0.2.7\", \"10.0.0.0/8\" or \"fd00::/8\""
    )]
    Malformed,
    /// The address says more than the prefix keeps, so one of the two is a slip.
    #[error("the address has bits set after the prefix; did you mean \"{0}\"?")]
    HostBits(Network),
}

impl Network {
    /// Makes a network in its canonical form: an IPv4 address that is written as IPv6
    /// (`::ffff:192.0.2.7`) becomes what it stands for.
    fn new(address: IpAddr, prefix_length: u8) -> Result<Self, InvalidNetwork> {
        if prefix_length > width(address) {
            return Err(InvalidNetwork::Malformed);
        }
        let canonical = address.to_canonical();
        let mapping = width(address) - width(canonical);
        let network = match prefix_length.checked_sub(mapping) {
            Some(prefix_length) => Self { address: canonical, prefix_length },
            None => Self { address, prefix_length },
        };
        let first = network.first();
        if first == network.address {
            Ok(network)
        } else {
            Err(InvalidNetwork::HostBits(Self { address: first, ..network }))
        }
    }

    /// Whether the address is one of the network's. IPv4 in the form of IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        width(address) == width(self.address)
            && masked(address, self.prefix_length) == bits(self.address)
    }

    /// Whether every address of a family belongs to the network.
    pub(super) fn is_everything(&self) -> bool {
        self.prefix_length == 0
    }

    fn first(&self) -> IpAddr {
        let first = masked(self.address, self.prefix_length);
        match self.address {
            // The bits of an IPv4 address fill only the lower 32.
            IpAddr::V4(_) => IpAddr::V4(((first & u128::from(u32::MAX)) as u32).into()),
            IpAddr::V6(_) => IpAddr::V6(first.into()),
        }
    }
}

/// How many bits an address of this family has.
fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address's first `prefix_length` bits, the others zero.
fn masked(address: IpAddr, prefix_length: u8) -> u128 {
    let cleared = u32::from(width(address) - prefix_length);
    // Shifting by the whole width, for a prefix of zero bits, leaves nothing.
    let mask = u128::MAX.checked_shl(cleared).unwrap_or(0);
    bits(address) & mask
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, prefix_length) = match text.split_once('/') {
            Some((address, digits)) => (address, Some(digits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| InvalidNetwork::Malformed)?;
        let prefix_length = match prefix_length {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| InvalidNetwork::Malformed)?
            }
            Some(_) => return Err(InvalidNetwork::Malformed),
            None => width(address),
        };
        Self::new(address, prefix_length)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefix_length == width(self.address) {
            self.address.fmt(f)
        } else {
            write!(f, "{}/{}", self.address, self.prefix_length)
        }
    }
}

/// The proxies in front of us whose `X-Forwarded-*` fields are believed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Vec<Text<Network>>")]
pub struct TrustedProxies(Vec<Network>);

impl TrustedProxies {
    /// Returns the addresses of this machine itself.
    pub fn loopback() -> Self {
        Self(
            [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
                .map(|address| Network { address, prefix_length: width(address) })
                .to_vec(),
        )
    }

    /// Takes a list of networks.
    pub fn new(networks: Vec<Network>) -> Self {
        Self(networks)
    }

    /// Whether a peer with this address is believed.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Returns the networks.
    pub fn networks(&self) -> &[Network] {
        &self.0
    }
}

impl From<Vec<Text<Network>>> for TrustedProxies {
    fn from(texts: Vec<Text<Network>>) -> Self {
        Self(texts.into_iter().map(|Text(network)| network).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn contains(network: &str, address: &str) -> bool {
        network.parse::<Network>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn an_address_is_a_network_of_one() {
        assert!(contains("127.0.0.1", "127.0.0.1"));
        assert!(!contains("127.0.0.1", "127.0.0.2"));
        assert!(contains("::1", "::1"));
        assert!(!contains("::1", "127.0.0.1"));
    }

    #[test]
    fn a_prefix_decides_between_neighbours() {
        assert!(contains("10.0.0.0/8", "10.255.255.255"));
        assert!(!contains("10.0.0.0/8", "11.0.0.0"));
        assert!(contains("192.168.1.128/25", "192.168.1.128"));
        assert!(!contains("192.168.1.128/25", "192.168.1.127"));
        assert!(contains("fd00::/8", "fdff::1"));
        assert!(!contains("fd00::/8", "fe00::1"));
    }

    #[test]
    fn a_prefix_of_zero_holds_its_family_only() {
        assert!(contains("0.0.0.0/0", "255.255.255.255"));
        assert!(!contains("0.0.0.0/0", "2001:db8::1"));
        assert!(contains("::/0", "2001:db8::1"));
        assert!(!contains("::/0", "192.0.2.1"));
    }

    #[test]
    fn ipv4_in_the_form_of_ipv6_is_ipv4_on_both_sides() {
        assert!(contains("127.0.0.1", "::ffff:127.0.0.1"));
        assert!(contains("::ffff:127.0.0.1", "127.0.0.1"));
        assert!(contains("::ffff:10.0.0.0/104", "10.1.2.3"));
        assert!(!contains("::ffff:10.0.0.0/104", "11.1.2.3"));
    }

    #[test]
    fn a_host_with_a_prefix_is_refused_with_its_network() {
        assert_eq!(
            "192.168.1.7/24".parse::<Network>().unwrap_err().to_string(),
            "the address has bits set after the prefix; did you mean \"192.168.1.0/24\"?"
        );
        assert!("2001:db8::1/32".parse::<Network>().is_err());
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "/8", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0.0/+8", "10/8", "a/8"] {
            assert_eq!(text.parse::<Network>(), Err(InvalidNetwork::Malformed), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_network_holds_the_address_it_was_made_from(bits: u128, is_ipv4: bool, prefix in 0_u8..=128) {
            let address = if is_ipv4 {
                IpAddr::V4(Ipv4Addr::from_bits(bits as u32))
            } else {
                IpAddr::V6(Ipv6Addr::from_bits(bits))
            };
            let network = match format!("{address}/{prefix}").parse() {
                Ok(network) | Err(InvalidNetwork::HostBits(network)) => network,
                Err(InvalidNetwork::Malformed) => {
                    prop_assert!(is_ipv4 && prefix > 32);
                    return Ok(());
                }
            };
            prop_assert!(network.contains(address));
            prop_assert_eq!(network.to_string().parse::<Network>(), Ok(network));
        }

        #[test]
        fn parsing_never_panics(text in "[\\PC0-9a-f:./]{0,50}") {
            let _ = text.parse::<Network>();
        }
    }
}
