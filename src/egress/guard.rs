//! Which addresses may be contacted: those that everybody on the internet could contact as well, and
//! those that the operator names (threats SS-01 to SS-03).
//!
//! What is not known to be public is refused, so a block that is set aside later is refused as well
//! as long as it lies outside of the unicast space that is given out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::Network;

/// IPv4 that is not public (IANA special-purpose registry, RFC 6890), as first address and prefix.
/// The few public addresses within 192.0.0.0/24 are refused with the rest: no media is there.
const RESERVED_IPV4: [(Ipv4Addr, u32); 16] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    // Multicast, and all that was never given out, with broadcast.
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
    (Ipv4Addr::new(255, 255, 255, 255), 32),
];

/// The part of IPv6 that is given out as global unicast. Loopback, unique local, link-local,
/// site-local, multicast, discard-only, segment routing, IPv4-compatible, IPv4-translated and local-use
/// NAT64 all lie outside.
const GLOBAL_UNICAST: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// What is not public within [`GLOBAL_UNICAST`]: protocol assignments with Teredo, ORCHID and
/// benchmarking, and the two blocks for documentation.
const RESERVED_IPV6: [(Ipv6Addr, u32); 3] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// Prefixes whose addresses hold an IPv4 address that packets are handed on to, and how many bits are
/// below it: 6to4 (RFC 3056) and NAT64 (RFC 6052).
const SIX_TO_FOUR: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16);
const NAT64: (Ipv6Addr, u32) = (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

/// The upper half of an ISATAP interface identifier, without the bit that says whether the IPv4
/// address behind it is unique (RFC 5214, section 6.1).
const ISATAP: u32 = 0x0000_5efe;
const ISATAP_UNIQUE_BIT: u32 = 0x0200_0000;

/// What may be contacted.
#[derive(Debug, Clone)]
pub(super) struct AddressGuard {
    allowed: Box<[Network]>,
}

impl AddressGuard {
    /// Takes the networks that may be contacted although they are not public.
    pub(super) fn allowing(allowed: Vec<Network>) -> Self {
        Self { allowed: allowed.into() }
    }

    /// Whether the address may be contacted.
    pub(super) fn permits(&self, address: IpAddr) -> bool {
        is_public(address) || self.allowed.iter().any(|network| network.contains(address))
    }
}

/// Whether an address is globally reachable unicast, and so is every IPv4 address inside it.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_ipv4(address),
        IpAddr::V6(address) => is_public_ipv6(address),
    }
}

fn is_public_ipv4(address: Ipv4Addr) -> bool {
    !RESERVED_IPV4.iter().any(|&(first, prefix)| {
        let shift = 32 - prefix;
        address.to_bits() >> shift == first.to_bits() >> shift
    })
}

fn is_public_ipv6(address: Ipv6Addr) -> bool {
    let within = |&(first, prefix): &(Ipv6Addr, u32)| {
        let shift = 128 - prefix;
        address.to_bits() >> shift == first.to_bits() >> shift
    };
    if within(&NAT64) {
        return is_public_ipv4(embedded(address, 0));
    }
    if !within(&GLOBAL_UNICAST) || RESERVED_IPV6.iter().any(within) {
        return false;
    }
    let tunnelled = within(&SIX_TO_FOUR).then(|| embedded(address, 80));
    let isatap = ((address.to_bits() >> 32) as u32 & !ISATAP_UNIQUE_BIT == ISATAP)
        .then(|| embedded(address, 0));
    [tunnelled, isatap].into_iter().flatten().all(is_public_ipv4)
}

/// The IPv4 address that has so many bits below it.
fn embedded(address: Ipv6Addr, bits_below: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits((address.to_bits() >> bits_below) as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn judged(address: &str) -> bool {
        is_public(address.parse().unwrap())
    }

    /// SS-01, SS-02
    #[test]
    fn ipv4_that_is_not_public_is_refused_from_the_first_to_the_last() {
        for (first, last) in [
            ("0.0.0.0", "0.255.255.255"),
            ("10.0.0.0", "10.255.255.255"),
            ("100.64.0.0", "100.127.255.255"),
            ("127.0.0.0", "127.255.255.255"),
            ("169.254.0.0", "169.254.255.255"),
            ("172.16.0.0", "172.31.255.255"),
            ("192.0.0.0", "192.0.0.255"),
            ("192.0.2.0", "192.0.2.255"),
            ("192.88.99.0", "192.88.99.255"),
            ("192.168.0.0", "192.168.255.255"),
            ("198.18.0.0", "198.19.255.255"),
            ("198.51.100.0", "198.51.100.255"),
            ("203.0.113.0", "203.0.113.255"),
            ("224.0.0.0", "255.255.255.255"),
        ] {
            let (first, last): (Ipv4Addr, Ipv4Addr) =
                (first.parse().unwrap(), last.parse().unwrap());
            assert!(!is_public_ipv4(first), "{first}");
            assert!(!is_public_ipv4(last), "{last}");
            for neighbour in [first.to_bits().checked_sub(1), last.to_bits().checked_add(1)] {
                if let Some(neighbour) = neighbour.map(Ipv4Addr::from_bits) {
                    let known = ["126.255.255.255", "128.0.0.0"].contains(&&*neighbour.to_string());
                    assert!(is_public_ipv4(neighbour) || known, "{neighbour}");
                }
            }
        }
    }

    /// SS-01 to SS-03
    #[test]
    fn ipv6_that_is_not_public_is_refused() {
        for address in [
            "::",
            "::1",
            "::8.8.8.8",
            "::10.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:0:8.8.8.8",
            "::ffff:0:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::8.8.8.8",
            "64:ff9b:1:ffff:ffff:ffff:ffff:ffff",
            "100::1",
            "100:0:0:1::1",
            "2001::1",
            "2001:0:808:808::f7f7:f7f7",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff",
            "2001:db8::1",
            "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
            "2002:a00:1::1",
            "2002:7f00:1::1",
            "2002:a9fe:a9fe::1",
            "3fff::1",
            "3fff:fff:ffff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2a00:1450::5efe:10.0.0.1",
            "2a00:1450::200:5efe:10.0.0.1",
            "fe80::5efe:8.8.8.8",
        ] {
            assert!(!judged(address), "{address}");
        }
    }

    #[test]
    fn public_addresses_are_permitted() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2002:808:808::1",
            "2606:4700:4700::1111",
            "2a00:1450::5efe:8.8.8.8",
            "2a00:1450::5eff:10.0.0.1",
            "3fff:1000::1",
        ] {
            assert!(judged(address), "{address}");
        }
    }

    #[test]
    fn an_allowed_network_is_permitted_and_nothing_beside_it() {
        let guard =
            AddressGuard::allowing(vec!["10.1.0.0/16".parse().unwrap(), "::1".parse().unwrap()]);
        for (address, permitted) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("10.2.0.0", false),
            ("127.0.0.1", false),
            ("::1", true),
            ("::", false),
            ("8.8.8.8", true),
            // Whoever allows a network did not allow the ways of tunnelling into it.
            ("64:ff9b::10.1.2.3", false),
        ] {
            assert_eq!(guard.permits(address.parse().unwrap()), permitted, "{address}");
        }
    }

    /// An address of IPv4 in every form that IPv6 has for it.
    fn embeddings(address: Ipv4Addr, low: u64) -> [Ipv6Addr; 9] {
        let inner = u128::from(address.to_bits());
        [
            inner | 0xffff << 32,
            inner,
            inner | 0xffff << 48,
            0x2002 << 112 | inner << 80 | u128::from(low),
            0x0064_ff9b << 96 | inner,
            0x0064_ff9b_0001 << 80 | inner,
            0x2001_0000 << 96 | (!inner & 0xffff_ffff),
            0x2a00_1450 << 96 | 0x0000_5efe << 32 | inner,
            0x2a00_1450 << 96 | 0x0200_5efe << 32 | inner,
        ]
        .map(Ipv6Addr::from_bits)
    }

    proptest! {
        /// SS-03
        #[test]
        fn what_is_refused_is_refused_inside_ipv6(
            block in 0..RESERVED_IPV4.len(),
            host: u32,
            low: u64,
        ) {
            let (first, prefix) = RESERVED_IPV4[block];
            let host = host.checked_shr(prefix).unwrap_or(0);
            let inner = Ipv4Addr::from_bits(first.to_bits() | host);
            prop_assert!(!is_public(inner.into()));
            for outer in embeddings(inner, low) {
                prop_assert!(!is_public(outer.into()), "{inner} in {outer}");
            }
        }

        #[test]
        fn only_global_unicast_and_nat64_are_public(bits: u128) {
            let address = Ipv6Addr::from_bits(bits);
            if is_public(address.into()) && address.to_ipv4_mapped().is_none() {
                let first = address.segments()[0];
                prop_assert!(first & 0xe000 == 0x2000 || first == 0x64);
            }
        }

        #[test]
        fn the_standard_library_calls_nothing_private_that_is_permitted(bits: u32) {
            let address = Ipv4Addr::from_bits(bits);
            if is_public_ipv4(address) {
                prop_assert!(!address.is_private() && !address.is_loopback());
                prop_assert!(!address.is_link_local() && !address.is_multicast());
                prop_assert!(!address.is_broadcast() && !address.is_documentation());
                prop_assert!(!address.is_unspecified());
            }
        }
    }
}
