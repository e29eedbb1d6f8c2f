//! SRV records, and places of which one fails.

use std::net::TcpListener;
use std::time::Duration;

use mediary::egress::EgressError;
use mediary::federation::ServerError;
use tokio::time::Instant;

use crate::common::Origin;
use crate::common::dns::{RecordType, Reply};
use crate::common::fake::respond;
use crate::common::origin::ServerKey;
use crate::common::world::{VERSION, ask, ask_well, in_a_world, met};
use crate::host_and_sni;

/// DISC-12, DISC-16, TLS-02
#[test]
fn a_record_leads_to_a_target_that_speaks_for_the_server() {
    in_a_world(async |world| {
        let homeserver = world.homeserver("a.example");
        world.dns.set_addresses("target.example", &["127.0.0.1"]);
        let target = (10, 0, homeserver.port(), "target.example");
        world.dns.set_srv("_matrix-fed._tcp.a.example", &[target]);
        ask_well(&world.servers(), "a.example").await;
        assert_eq!(met(&homeserver), host_and_sni("a.example"));
        assert_eq!(world.dns.asked("_matrix._tcp.a.example", RecordType::SRV), 0);
    });
}

/// DISC-13
#[test]
fn the_deprecated_record_counts_if_there_is_no_other() {
    in_a_world(async |world| {
        let homeserver = world.homeserver("a.example");
        world.dns.set_addresses("target.example", &["127.0.0.1"]);
        let target = (10, 0, homeserver.port(), "target.example");
        world.dns.set_srv("_matrix._tcp.a.example", &[target]);
        ask_well(&world.servers(), "A.Example.").await;
        assert_eq!(met(&homeserver), host_and_sni("a.example"));
    });
}

/// DISC-14
#[test]
fn without_anything_it_is_the_host_at_8448() {
    in_a_world(async |world| {
        let homeserver = world.homeserver_at_8448("a.example");
        ask_well(&world.servers(), "a.example").await;
        assert_eq!(met(&homeserver), host_and_sni("a.example"));
    });
}

/// DISC-14
#[test]
fn name_servers_that_fail_for_records_do_not_end_discovery() {
    in_a_world(async |world| {
        let homeserver = world.homeserver_at_8448("a.example");
        for (number, reply) in [Reply::Failure, Reply::Refused].into_iter().enumerate() {
            for service in ["_matrix-fed._tcp.a.example", "_matrix._tcp.a.example"] {
                world.dns.set(service, RecordType::SRV, std::slice::from_ref(&reply));
            }
            ask_well(&world.servers(), "a.example").await;
            assert_eq!(homeserver.received().len(), number + 1);
        }
    });
}

/// DISC-15, TLS-01, XM-11
#[test]
fn the_next_target_is_tried_until_one_shows_the_right_certificate() {
    in_a_world(async |world| {
        let wrong = world.homeserver("target.example");
        let right = world.homeserver("a.example");
        world.dns.set_addresses("target.example", &["127.0.0.1"]);
        world.dns.set_addresses("inside.example", &["10.0.0.1"]);
        let targets = [
            (1, 0, 443, "nowhere.example"),
            (2, 0, 443, "inside.example"),
            (3, 0, wrong.port(), "target.example"),
            (4, 0, right.port(), "target.example"),
        ];
        world.dns.set_srv("_matrix-fed._tcp.a.example", &targets);
        ask_well(&world.servers(), "a.example").await;
        assert_eq!(met(&right), host_and_sni("a.example"));
        assert_eq!((wrong.connections(), wrong.received().len()), (1, 0));
    });
}

/// DISC-15
#[test]
fn a_target_that_is_silent_leaves_time_for_the_next() {
    in_a_world(async |world| {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let right = world.homeserver("a.example");
        world.dns.set_addresses("target.example", &["127.0.0.1"]);
        let silent_port = silent.local_addr().unwrap().port();
        let targets =
            [(1, 0, silent_port, "target.example"), (2, 0, right.port(), "target.example")];
        world.dns.set_srv("_matrix-fed._tcp.a.example", &targets);
        let deadline = Instant::now() + Duration::from_secs(4);
        let server = "a.example".parse().unwrap();
        let response = world.servers().get(&server, VERSION, &[], deadline).await.unwrap();
        assert_eq!(response.status, 200);
        assert!(silent.accept().is_ok(), "the first was tried");
    });
}

/// TLS-01, XM-11
#[test]
fn nothing_is_sent_to_who_cannot_show_who_they_are() {
    in_a_world(async |world| {
        let homeserver = world.homeserver_at_8448("a.example");
        homeserver.show(&world.authority.expired_certificate(&["a.example"]));
        let failure = ask(&world.servers(), "a.example").await.err().unwrap();
        let is_tls =
            matches!(&failure, ServerError::Exchange { error: EgressError::Tls { .. }, .. });
        assert!(is_tls, "{failure}");
        assert_eq!((homeserver.connections(), homeserver.received().len()), (1, 0));
    });
}

/// A server that answers is not asked a second time elsewhere, whatever it says.
#[test]
fn a_target_that_answers_with_an_error_has_answered() {
    in_a_world(async |world| {
        let certificate = world.authority.certificate(&["a.example"]);
        let failing = Origin::with_key(&certificate, ServerKey::new("1"), |_, stream| {
            Some(respond(stream, 503, "{}"))
        });
        let other = world.homeserver("a.example");
        world.dns.set_addresses("t.example", &["127.0.0.1"]);
        let targets = [(1, 0, failing.port(), "t.example"), (2, 0, other.port(), "t.example")];
        world.dns.set_srv("_matrix-fed._tcp.a.example", &targets);
        let response = ask(&world.servers(), "a.example").await.unwrap();
        assert_eq!((response.status.as_u16(), other.connections()), (503, 0));
    });
}

/// Threat SS-10
#[test]
fn no_step_leads_inside() {
    in_a_world(async |world| {
        world.dns.set_addresses("inside.example", &["10.0.0.1"]);
        let service = "_matrix-fed._tcp.records.example";
        world.dns.set_srv(service, &[(1, 0, 443, "inside.example")]);
        let _website = world.delegate("delegated.example", "169.254.169.254");
        for server in [
            "10.0.0.1",
            "10.0.0.1:443",
            "[::ffff:10.0.0.1]",
            "inside.example",
            "inside.example:443",
            "records.example",
            "delegated.example",
        ] {
            let failure = ask(&world.servers(), server).await.err().unwrap();
            let is_forbidden = matches!(
                &failure,
                ServerError::Exchange { error: EgressError::Forbidden { .. }, .. }
            );
            assert!(is_forbidden, "{server}: {failure}");
        }
    });
}
