//! The order in which the targets of an SRV record are tried (RFC 2782).

use ring::rand::{SecureRandom, SystemRandom};

use super::SrvTarget;

/// How many records of an answer are looked at.
pub(super) const MAX_RECORDS: usize = 64;

/// How many targets are tried.
const MAX_TARGETS: usize = 8;

/// One SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    /// Without a dot at its end, in lower case.
    pub(super) host: Box<str>,
}

/// Orders the targets: by priority, and within one by chance according to weight. `chance` draws a
/// number from zero to the one it is given, both included. Port 0 is dropped.
pub(super) fn targets(services: &[Service], mut chance: impl FnMut(u32) -> u32) -> Vec<SrvTarget> {
    let mut left: Vec<&Service> = services.iter().filter(|service| service.port != 0).collect();
    // Those without weight stand first within their priority, so that they have a small chance.
    left.sort_by_key(|service| (service.priority, service.weight != 0));
    let mut targets = Vec::new();
    while targets.len() < MAX_TARGETS && !left.is_empty() {
        let chosen = left.remove(choose(&left, &mut chance));
        targets.push(SrvTarget { host: chosen.host.clone(), port: chosen.port });
    }
    targets
}

/// Chooses among the services of the first priority: the first at which the running sum of weights
/// reaches a number that was drawn.
fn choose(left: &[&Service], chance: &mut impl FnMut(u32) -> u32) -> usize {
    let first = left.iter().take_while(|service| service.priority == left[0].priority);
    let sum = first.clone().map(|service| u32::from(service.weight)).sum();
    let drawn = chance(sum);
    let mut running = 0;
    first
        .map(|service| {
            running += u32::from(service.weight);
            running
        })
        .position(|running| running >= drawn)
        .unwrap_or(0)
}

/// Draws a number from zero to `highest`, both included.
pub(super) fn by_chance(highest: u32) -> u32 {
    let mut bytes = [0; 8];
    // Without randomness the order is that of the record, which does no harm.
    if SystemRandom::new().fill(&mut bytes).is_err() {
        return 0;
    }
    (u64::from_ne_bytes(bytes) % (u64::from(highest) + 1)) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn service(priority: u16, weight: u16, port: u16) -> Service {
        Service { priority, weight, port, host: format!("h{port}.example").into() }
    }

    fn ports(targets: &[SrvTarget]) -> Vec<u16> {
        targets.iter().map(|target| target.port).collect()
    }

    /// DISC-15
    #[test]
    fn the_lower_priority_is_tried_first() {
        let services = [service(20, 9, 3), service(10, 0, 1), service(10, 0, 2)];
        assert_eq!(ports(&targets(&services, |_| 0)), [1, 2, 3]);
    }

    /// DISC-15
    #[test]
    fn weight_decides_within_a_priority() {
        let services = [service(1, 10, 1), service(1, 30, 2), service(1, 0, 3)];
        assert_eq!(ports(&targets(&services, |_| 0)), [3, 1, 2]);
        assert_eq!(ports(&targets(&services, |sum| sum)), [2, 1, 3]);
        assert_eq!(ports(&targets(&services, |sum| sum.min(10))), [1, 2, 3]);
        assert_eq!(ports(&targets(&services, |sum| sum.min(11)))[0], 2);
    }

    #[test]
    fn the_first_choice_falls_as_the_weights_say() {
        let services = [service(1, 1, 1), service(1, 3, 2)];
        // Of the numbers 0 to 4, two fall to the first and three to the second.
        let first = |drawn| ports(&targets(&services, |sum: u32| sum.min(drawn)))[0];
        assert_eq!([0, 1, 2, 3, 4].map(first), [1, 1, 2, 2, 2]);
    }

    #[test]
    fn port_zero_is_dropped() {
        assert_eq!(ports(&targets(&[service(1, 1, 0), service(2, 1, 5)], |_| 0)), [5]);
    }

    proptest! {
        #[test]
        fn targets_are_in_order_of_priority_and_each_comes_once(
            records in prop::collection::vec((0_u16..4, any::<u16>()), 0..MAX_RECORDS),
            seed: u32,
        ) {
            let services: Vec<_> = records
                .iter()
                .zip(1_u16..)
                .map(|(&(priority, weight), port)| service(priority, weight, port))
                .collect();
            let mut state = seed;
            let chosen = targets(&services, |highest| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (u64::from(state) % (u64::from(highest) + 1)) as u32
            });
            prop_assert_eq!(chosen.len(), services.len().min(MAX_TARGETS));
            let priority = |target: &SrvTarget| services[usize::from(target.port) - 1].priority;
            prop_assert!(chosen.is_sorted_by_key(priority));
            let mut ports = ports(&chosen);
            ports.sort_unstable();
            ports.dedup();
            prop_assert_eq!(ports.len(), chosen.len());
            // What is left out is of no lower priority than what is tried.
            let highest = chosen.last().map(priority);
            let lower = services.iter().filter(|service| Some(service.priority) < highest);
            prop_assert!(lower.count() <= chosen.len());
        }

        #[test]
        fn chance_stays_within_its_bounds(highest: u32) {
            prop_assert!(by_chance(highest) <= highest);
        }
    }
}
