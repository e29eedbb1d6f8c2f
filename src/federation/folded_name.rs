//! Server names whose spelling does not matter.

use std::net::Ipv6Addr;

use crate::types::ServerName;

/// What all spellings of a server's name have in common: the host in lower case and without a dot at
/// its end, and the port. Discovery leads all of them to one place, so whatever is counted for each
/// server is counted by this; else every capital letter would double what a stranger may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct FoldedName {
    host: Box<str>,
    port: Option<u16>,
}

impl FoldedName {
    /// Folds a name.
    pub(super) fn of(server: &ServerName) -> Self {
        let host = server.host();
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match literal.and_then(|literal| literal.parse::<Ipv6Addr>().ok()) {
            Some(address) => address.to_string(),
            None => host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase(),
        };
        Self { host: host.into(), port: server.port() }
    }

    /// Returns how many bytes the host has.
    pub(super) fn len(&self) -> usize {
        self.host.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(text: &str) -> FoldedName {
        FoldedName::of(&text.parse().unwrap())
    }

    #[test]
    fn spellings_of_one_name_are_one() {
        for (one, other) in [
            ("a.example", "A.exAMPle"),
            ("a.example", "a.example."),
            ("a.example:8448", "A.EXAMPLE.:08448"),
            ("[2001:db8::1]:1", "[2001:0DB8:0:0::1]:1"),
        ] {
            assert_eq!(folded(one), folded(other), "{other}");
        }
    }

    #[test]
    fn other_hosts_and_ports_are_others() {
        for (one, other) in [
            ("a.example", "b.example"),
            ("a.example", "a.example:8448"),
            ("a.example:1", "a.example:2"),
            ("[::1]", "[::2]"),
        ] {
            assert_ne!(folded(one), folded(other), "{other}");
        }
    }
}
