//! Finding other servers: every step of discovery, with names, certificates and ports as they are
//! outside (section 13 of the checklist; threats SS-05, SS-06, SS-10, FE-08).

mod common;
#[path = "discovery/world.rs"]
mod world;

use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::dns::{RecordType, Reply};
use common::fake::{respond, respond_with};
use common::origin::{ServerKey, close, stall};
use common::{Authority, Origin};
use mediary::egress::EgressError;
use mediary::federation::{Event, Observer, ServerError};
use tokio::time::{Instant, timeout_at};
use world::{VERSION, ask, ask_well, in_a_world, met};

const WELL_KNOWN: &str = "/.well-known/matrix/server";

fn host_and_sni(name: &str) -> (String, Option<String>) {
    (name.to_owned(), Some(name.to_owned()))
}

// --- the name says it

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

// --- a well-known file

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

// --- no well-known file

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

// --- several places

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

// --- what is remembered

/// DISC-06
#[test]
fn what_was_found_is_remembered_whether_there_was_a_file_or_not() {
    in_a_world(async |world| {
        let homeserver = world.homeserver_at_8448("m.example");
        let website = world.delegate("a.example", "m.example");
        let servers = world.servers();
        for spelling in ["a.example", "A.EXAMPLE", "a.example."] {
            ask_well(&servers, spelling).await;
            ask_well(&servers, "m.example").await;
        }
        assert_eq!(homeserver.received().len(), 6);
        assert_eq!(website.received().len(), 1);
        // Once for each of the two servers.
        assert_eq!(website.connections(), 2);
        assert_eq!(world.dns.asked("_matrix-fed._tcp.m.example", RecordType::SRV), 2);
    });
}

/// DISC-06, FLD-28
#[test]
fn a_file_is_asked_for_again_before_its_time_is_over_and_outlives_a_failure() {
    in_a_world(async |world| {
        let homeserver = world.homeserver_at_8448("m.example");
        let answers = Mutex::new([200, 200, 503, 404].into_iter());
        let website = world.website("a.example", move |_, stream| {
            let status = answers.lock().unwrap().next()?;
            let fields = [("Cache-Control", "max-age=1000")];
            Some(respond_with(stream, status, &fields, br#"{"m.server": "m.example"}"#))
        });
        let servers = world.servers();
        // It is asked for again after 800 to 900 seconds, and two minutes after a failure.
        for (seconds, asked) in [(0, 1), (790, 1), (910, 2), (1_830, 3), (1_900, 3)] {
            world.at(seconds).await;
            ask_well(&servers, "a.example").await;
            assert_eq!(website.received().len(), asked, "after {seconds} seconds");
        }
        assert_eq!(homeserver.received().len(), 5);
        world.at(1_960).await;
        let failure = ask(&servers, "a.example").await.err().unwrap();
        assert!(failure.to_string().contains("a.example:8448"), "{failure}");
    });
}

/// DISC-06
#[test]
fn failures_are_remembered_longer_and_longer() {
    in_a_world(async |world| {
        let _homeserver = world.homeserver_at_8448("a.example");
        let website = world.website("a.example", |_, stream| Some(respond(stream, 404, "{}")));
        let servers = world.servers();
        let minutes = [(0, 1), (59, 1), (61, 2), (179, 2), (182, 3), (420, 3), (423, 4)];
        for (seconds, asked) in minutes {
            world.at(seconds).await;
            ask_well(&servers, "a.example").await;
            assert_eq!(website.received().len(), asked, "after {seconds} seconds");
        }
    });
}

/// DISC-12
#[test]
fn records_are_looked_up_again_after_some_minutes() {
    in_a_world(async |world| {
        let (old, new) = (world.homeserver("a.example"), world.homeserver("a.example"));
        world.dns.set_addresses("t.example", &["127.0.0.1"]);
        world.dns.set_ttl(0);
        let service = "_matrix-fed._tcp.a.example";
        world.dns.set_srv(service, &[(1, 0, old.port(), "t.example")]);
        let servers = world.servers();
        ask_well(&servers, "a.example").await;
        world.dns.set_srv(service, &[(1, 0, new.port(), "t.example")]);
        world.at(290).await;
        ask_well(&servers, "a.example").await;
        assert_eq!((old.received().len(), new.received().len()), (2, 0));
        world.at(310).await;
        ask_well(&servers, "a.example").await;
        // Name servers that fail later do not take away what was found.
        world.dns.set(service, RecordType::SRV, &[Reply::Failure]);
        world.at(620).await;
        ask_well(&servers, "a.example").await;
        assert_eq!((old.received().len(), new.received().len()), (2, 2));
    });
}

/// DISC-06
#[test]
fn a_server_that_has_moved_is_found_again_after_a_pause() {
    in_a_world(async |world| {
        let certificate = world.authority.certificate(&["m.example"]);
        let old = Origin::with_key(&certificate, ServerKey::new("1"), |_, stream| {
            respond_with(stream, 200, &[("Connection", "close")], b"{}");
            Some(close(stream))
        });
        let new = world.homeserver("m.example");
        world.dns.set_addresses("m.example", &["127.0.0.1"]);
        let ports = Mutex::new([old.port(), new.port()].into_iter());
        let website = world.website("a.example", move |_, stream| {
            let port = ports.lock().unwrap().next()?;
            Some(respond(stream, 200, &format!(r#"{{"m.server": "m.example:{port}"}}"#)))
        });
        let servers = world.servers();
        ask_well(&servers, "a.example").await;
        old.show(&world.authority.certificate(&["gone.example"]));
        for seconds in [1, 5] {
            world.at(seconds).await;
            assert!(ask(&servers, "a.example").await.is_err());
        }
        assert_eq!((website.received().len(), new.received().len()), (1, 0));
        world.at(11).await;
        ask_well(&servers, "a.example").await;
        assert_eq!((website.received().len(), new.received().len()), (2, 1));
    });
}

/// DISC-06
#[test]
fn a_server_that_has_left_a_silent_place_is_found_again_after_a_pause() {
    in_a_world(async |world| {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let new = world.homeserver("m.example");
        world.dns.set_addresses("m.example", &["127.0.0.1"]);
        let ports = Mutex::new([silent.local_addr().unwrap().port(), new.port()].into_iter());
        world.website("a.example", move |_, stream| {
            let port = ports.lock().unwrap().next()?;
            Some(respond(stream, 200, &format!(r#"{{"m.server": "m.example:{port}"}}"#)))
        });
        let servers = world.servers();
        let server = "a.example".parse().unwrap();
        // Whoever asks waits no longer than to the deadline that they named.
        let deadline = Instant::now() + Duration::from_secs(2);
        let asked = servers.get(&server, VERSION, &[], deadline);
        assert!(!matches!(timeout_at(deadline, asked).await, Ok(Ok(_))));
        world.at(15).await;
        ask_well(&servers, "a.example").await;
        assert_eq!(new.received().len(), 1);
    });
}

/// DISC-06; threat FE-08
#[test]
fn all_who_ask_for_a_server_at_once_share_one_discovery_and_one_may_leave() {
    in_a_world(async |world| {
        let homeserver = world.homeserver_at_8448("m.example");
        let asked = std::sync::Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let website = world.website("a.example", move |_, stream| {
            if count.fetch_add(1, Ordering::SeqCst) == 0 {
                return Some(stall(stream));
            }
            Some(respond(stream, 200, r#"{"m.server": "m.example"}"#))
        });
        let servers = world.servers();
        let leaver = tokio::spawn({
            let servers = servers.clone();
            async move { ask(&servers, "a.example").await.map(|_| ()) }
        });
        while asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let crowd = || {
            let asks = (0..20).map(|_| {
                let servers = servers.clone();
                tokio::spawn(async move { ask_well(&servers, "a.example").await })
            });
            asks.collect::<Vec<_>>()
        };
        let others = crowd();
        tokio::task::yield_now().await;
        leaver.abort();
        for other in others {
            other.await.unwrap();
        }
        assert_eq!((website.received().len(), homeserver.received().len()), (2, 20));
        // The same once the file has grown old.
        world.at(80_000).await;
        for other in crowd() {
            other.await.unwrap();
        }
        assert_eq!((website.received().len(), homeserver.received().len()), (3, 40));
    });
}

/// Threat FE-08
#[test]
fn a_file_that_never_comes_leaves_time_for_the_other_steps() {
    in_a_world(async |world| {
        let homeserver = world.homeserver_at_8448("a.example");
        let website = world.website("a.example", |_, stream| Some(stall(stream)));
        let deadline = Instant::now() + Duration::from_secs(6);
        let server = "a.example".parse().unwrap();
        let servers = world.servers();
        let response = servers.get(&server, VERSION, &[], deadline).await.unwrap();
        assert_eq!(response.status.as_u16(), 200);
        assert_eq!((website.received().len(), homeserver.received().len()), (1, 1));
    });
}

/// Threat FE-08
#[test]
fn a_thousand_servers_that_do_not_answer_disturb_nobody() {
    in_a_world(async |world| {
        let homeserver = world.homeserver_at_8448("alive.example");
        let servers = world.servers();
        let begin = Instant::now();
        let deadline = begin + Duration::from_secs(3);
        let dead: Vec<_> = (0..1_000)
            .map(|number| {
                let name = format!("dead{number}.example");
                world.dns.set_all(&name, &Reply::Silence);
                let servers = servers.clone();
                tokio::spawn(async move {
                    servers.get(&name.parse().unwrap(), VERSION, &[], deadline).await.is_ok()
                })
            })
            .collect();
        tokio::task::yield_now().await;
        ask_well(&servers, "alive.example").await;
        assert!(Instant::now() < deadline, "the living waited for the dead");
        for dead in dead {
            assert!(!dead.await.unwrap());
        }
        assert!(begin.elapsed() < Duration::from_secs(8), "deadlines are not kept");
        assert_eq!(homeserver.received().len(), 1);
    });
}

// --- what is told of it

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Observer for Told {
    fn notice(&self, event: Event<'_>) {
        let text = match event {
            Event::WellKnown { host, outcome: Ok((server, lifetime)) } => {
                format!("{host} names {server} for {} s", lifetime.as_secs())
            }
            Event::WellKnown { host, outcome: Err(error) } => format!("{host}: {error}"),
            Event::Srv { service, outcome } => {
                format!("{service}: {}", outcome.map_or(0, <[_]>::len))
            }
            Event::Tried { endpoint, outcome: Ok(status) } => {
                format!("{}: {status}", endpoint.authority)
            }
            Event::Tried { endpoint, outcome: Err(_) } => format!("{}: no", endpoint.authority),
        };
        self.0.lock().expect("what was told").push(text);
    }
}

/// DISC-03, DISC-12, DISC-13, DISC-14
#[test]
fn every_step_is_told_in_order_and_once() {
    in_a_world(async |world| {
        let _homeserver = world.homeserver_at_8448("a.example");
        let _website = world.website("a.example", |_, stream| Some(respond(stream, 404, "{}")));
        let (servers, told) = (world.servers(), Told::default());
        let server = "a.example".parse().unwrap();
        for _ in 0..2 {
            let deadline = Instant::now() + Duration::from_secs(20);
            let asked = servers.get_observed(&server, VERSION, &[], deadline, &told).await;
            assert_eq!(asked.unwrap().status.as_u16(), 200);
        }
        let told = told.0.lock().unwrap().clone();
        let expected = [
            "a.example: the answer is 404 Not Found",
            "_matrix-fed._tcp.a.example: 0",
            "_matrix._tcp.a.example: 0",
            "a.example: 200 OK",
            "a.example: 200 OK",
        ];
        assert_eq!(told, expected);
    });
}
