//! What is remembered of what was found, and for how long.

use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::common::Origin;
use crate::common::dns::{RecordType, Reply};
use crate::common::fake::{respond, respond_with};
use crate::common::origin::{ServerKey, close, stall};
use crate::common::world::{VERSION, ask, ask_well, in_a_world};

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
