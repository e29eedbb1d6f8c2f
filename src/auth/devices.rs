//! Which token of a device the homeserver has vouched for last.
//!
//! A device has one token at a time, or two while it changes them: a refreshed token replaces the one
//! before it (CS-AUTH-07), and whoever refreshes does not say which token that was. So when a newer
//! token of a device is seen, an older one is asked about again.

use std::time::Duration;

use moka::sync::Cache;

use super::{Hash, Identity};

/// The token of each device, as long as an answer about an older one could be remembered.
pub(super) struct Devices {
    tokens: Cache<Hash, Hash>,
}

impl Devices {
    /// Remembers at most `entries` devices for `lifetime` each.
    pub(super) fn new(lifetime: Duration, entries: u64) -> Self {
        Self { tokens: Cache::builder().max_capacity(entries).time_to_live(lifetime).build() }
    }

    /// Notes that the homeserver vouches for a token at this moment.
    pub(super) fn note(&self, identity: &Identity) {
        if let Some(device) = identity.device {
            self.tokens.insert(device, identity.token);
        }
    }

    /// Whether the homeserver has vouched for another token of the device since.
    pub(super) fn is_replaced(&self, identity: &Identity) -> bool {
        let newest = identity.device.and_then(|device| self.tokens.get(&device));
        newest.is_some_and(|newest| newest != identity.token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(token: u8, device: Option<u8>) -> Identity {
        let user_id = "@alice:example.org".parse().unwrap();
        Identity {
            token: [token; 32],
            user_id,
            is_guest: false,
            device: device.map(|byte| [byte; 32]),
        }
    }

    /// CS-AUTH-07
    #[test]
    fn a_token_is_replaced_by_a_newer_one_of_the_same_device() {
        let devices = Devices::new(Duration::from_secs(60), 10);
        let [old, new] = [identity(1, Some(7)), identity(2, Some(7))];
        devices.note(&old);
        assert!(!devices.is_replaced(&old));
        devices.note(&new);
        assert!(devices.is_replaced(&old) && !devices.is_replaced(&new));
        devices.note(&identity(3, Some(8)));
        assert!(!devices.is_replaced(&new), "another device");
        devices.note(&identity(4, None));
        assert!(!devices.is_replaced(&identity(5, None)), "tokens without a device");
    }
}
