//! Names that a well-known file delegates.

use std::sync::Mutex;

use crate::common::Authority;
use crate::common::dns::RecordType;
use crate::common::fake::respond_with;
use crate::common::world::{ask_well, in_a_world, met};
use crate::{WELL_KNOWN, host_and_sni};

/// DISC-03, DISC-08, TLS-03
#[test]
fn a_delegated_name_with_a_port_is_the_place() {
    in_a_world(async |world| {
        let homeserver = world.homeserver("m.example");
        world.dns.set_addresses("m.example", &["127.0.0.1"]);
        let delegated = format!("m.example:{}", homeserver.port());
        let website = world.delegate("a.example", &delegated);
        ask_well(&world.servers(), "a.example").await;
        assert_eq!(met(&homeserver), (delegated, Some("m.example".to_owned())));
        assert_eq!(website.received()[0].target(), WELL_KNOWN);
        assert_eq!(met(&website), host_and_sni("a.example"));
    });
}

/// DISC-07, TLS-02
#[test]
fn a_delegated_address_is_the_place() {
    in_a_world(async |world| {
        let homeserver = world.homeserver("127.0.0.1");
        let delegated = format!("127.0.0.1:{}", homeserver.port());
        let _website = world.delegate("a.example", &delegated);
        ask_well(&world.servers(), "a.example").await;
        assert_eq!(met(&homeserver), (delegated, None));
    });
}

/// DISC-09, DISC-16, TLS-02
#[test]
fn a_record_of_a_delegated_name_leads_to_a_target_that_speaks_for_that_name() {
    in_a_world(async |world| {
        let homeserver = world.homeserver("m.example");
        world.dns.set_addresses("target.example", &["127.0.0.1"]);
        let target = (10, 0, homeserver.port(), "target.example");
        world.dns.set_srv("_matrix-fed._tcp.m.example", &[target]);
        let _website = world.delegate("a.example", "m.example");
        ask_well(&world.servers(), "a.example").await;
        assert_eq!(met(&homeserver), host_and_sni("m.example"));
        assert_eq!(world.dns.asked("_matrix._tcp.m.example", RecordType::SRV), 0);
        assert_eq!(world.dns.asked("_matrix-fed._tcp.a.example", RecordType::SRV), 0);
    });
}

/// DISC-10
#[test]
fn the_deprecated_record_of_a_delegated_name_counts_if_there_is_no_other() {
    in_a_world(async |world| {
        let homeserver = world.homeserver("m.example");
        world.dns.set_addresses("target.example", &["127.0.0.1"]);
        let target = (10, 0, homeserver.port(), "target.example");
        world.dns.set_srv("_matrix._tcp.m.example", &[target]);
        let _website = world.delegate("a.example", "m.example");
        ask_well(&world.servers(), "a.example").await;
        assert_eq!(met(&homeserver), host_and_sni("m.example"));
        assert_eq!(world.dns.asked("_matrix-fed._tcp.m.example", RecordType::SRV), 1);
    });
}

/// DISC-11
#[test]
fn a_delegated_name_without_records_is_contacted_at_8448() {
    in_a_world(async |world| {
        let homeserver = world.homeserver_at_8448("m.example");
        let _website = world.delegate("a.example", "M.Example.");
        ask_well(&world.servers(), "a.example").await;
        assert_eq!(met(&homeserver), host_and_sni("m.example"));
    });
}

/// DISC-03
#[test]
fn a_file_that_names_its_own_host_is_no_loop() {
    in_a_world(async |world| {
        let homeserver = world.homeserver_at_8448("a.example");
        let website = world.delegate("a.example", "a.example");
        ask_well(&world.servers(), "a.example").await;
        assert_eq!(met(&homeserver), host_and_sni("a.example"));
        assert_eq!(website.received().len(), 1);
    });
}

/// DISC-03, DISC-04
#[test]
fn a_file_is_followed_to_where_it_is_and_its_type_does_not_matter() {
    in_a_world(async |world| {
        let homeserver = world.homeserver("m.example");
        world.dns.set_addresses("m.example", &["127.0.0.1"]);
        let file = format!(r#"{{"m.server": "m.example:{}"}}"#, homeserver.port());
        let website = world.website("a.example", move |request, stream| {
            let fields: &[_] = match &*request.target() {
                WELL_KNOWN => &[("Location", "/1")],
                "/1" => &[("Location", "https://a.example/2")],
                "/2" => &[("Location", "3")],
                "/3" => &[("Location", "/4")],
                "/4" => &[("Location", "/5")],
                _ => &[("Content-Type", "text/html")],
            };
            let status = if fields[0].0 == "Location" { 301 } else { 200 };
            Some(respond_with(stream, status, fields, file.as_bytes()))
        });
        ask_well(&world.servers(), "a.example").await;
        assert_eq!(website.received().len(), 6);
    });
}

/// DISC-05, DISC-14; threats SS-05, SS-06
#[test]
fn what_is_no_valid_file_is_as_good_as_none() {
    in_a_world(async |world| {
        let homeserver = world.homeserver_at_8448("a.example");
        let large = format!(r#"{{"m.server": "m.example:1", "x": "{}"}}"#, "x".repeat(50 * 1024));
        let delegating = r#"{"m.server": "m.example:1"}"#.to_owned();
        let answers = [
            (404, "", delegating.clone()),
            (500, "", delegating.clone()),
            (201, "", delegating.clone()),
            (200, "", "<html>".to_owned()),
            (200, "", "{}".to_owned()),
            (200, "", r#"{"m.server": "https://m.example"}"#.to_owned()),
            (200, "", r#"{"m.server": 1}"#.to_owned()),
            (200, "", large),
            (302, WELL_KNOWN, delegating.clone()),
            (302, "http://a.example/", delegating.clone()),
            (302, "file:///etc/passwd", delegating.clone()),
            (302, "https://10.0.0.1/", delegating.clone()),
            (302, "https://b.example/", delegating),
        ];
        let count = answers.len();
        let answers = Mutex::new(answers.into_iter());
        let website = world.website("a.example", move |_, stream| {
            let (status, location, body) = answers.lock().unwrap().next()?;
            let fields: &[_] = if location.is_empty() { &[] } else { &[("Location", location)] };
            Some(respond_with(stream, status, fields, body.as_bytes()))
        });
        for number in 1..=count {
            ask_well(&world.servers(), "a.example").await;
            assert_eq!(website.received().len(), number);
            assert_eq!(homeserver.received().len(), number);
        }
        assert_eq!(world.dns.asked("_matrix-fed._tcp.a.example", RecordType::SRV), count);
    });
}

/// DISC-03, TLS-01
#[test]
fn a_file_behind_a_bad_certificate_is_none() {
    in_a_world(async |world| {
        let homeserver = world.homeserver_at_8448("a.example");
        let website = world.delegate("a.example", "m.example:1");
        for certificate in [
            world.authority.certificate(&["b.example"]),
            world.authority.expired_certificate(&["a.example"]),
            Authority::new().certificate(&["a.example"]),
        ] {
            website.show(&certificate);
            ask_well(&world.servers(), "a.example").await;
        }
        assert_eq!((website.received().len(), homeserver.received().len()), (0, 3));
    });
}
