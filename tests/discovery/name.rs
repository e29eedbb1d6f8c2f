//! Names that say themselves where the server is.

use crate::common::dns::RecordType;
use crate::common::world::{ask_well, in_a_world, met};

/// DISC-01, TLS-02
#[test]
fn an_address_is_contacted_as_it_is_and_its_certificate_is_for_it() {
    in_a_world(async |world| {
        let homeserver = world.homeserver("127.0.0.1");
        let name = format!("127.0.0.1:{}", homeserver.port());
        ask_well(&world.servers(), &name).await;
        assert_eq!(met(&homeserver), (name, None));
        assert_eq!(world.dns.questions(), []);
    });
}

/// DISC-01
#[test]
fn an_address_without_a_port_is_contacted_at_8448() {
    in_a_world(async |world| {
        let homeserver = world.homeserver_at_8448(&world.address);
        ask_well(&world.servers(), &world.address).await;
        assert_eq!(met(&homeserver), (world.address.clone(), None));
    });
}

/// DISC-02
#[test]
fn a_name_with_a_port_is_asked_for_neither_a_file_nor_records() {
    in_a_world(async |world| {
        let website = world.delegate("a.example", "wrong.example");
        let homeserver = world.homeserver_at_8448("a.example");
        ask_well(&world.servers(), "a.example:8448").await;
        let expected = ("a.example:8448".to_owned(), Some("a.example".to_owned()));
        assert_eq!(met(&homeserver), expected);
        assert_eq!(website.connections(), 0);
        assert!(world.dns.questions().iter().all(|(_, kind)| *kind != RecordType::SRV));
    });
}

/// DISC-02
#[test]
fn an_alias_is_followed_and_changes_nothing_else() {
    in_a_world(async |world| {
        let homeserver = world.homeserver("a.example");
        world.dns.set_alias("a.example", "alias.example");
        world.dns.set_addresses("alias.example", &["127.0.0.1"]);
        let name = format!("a.example:{}", homeserver.port());
        ask_well(&world.servers(), &name).await;
        assert_eq!(met(&homeserver), (name, Some("a.example".to_owned())));
    });
}
