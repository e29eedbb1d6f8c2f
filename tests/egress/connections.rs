//! Connections that are used again, and for whom.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Asks and reads the whole answer, so that the connection is free again.
async fn ask(egress: &Egress, endpoint: &Endpoint) -> Bytes {
    whole(get(egress, endpoint).await.expect("an answer")).await
}

#[tokio::test]
async fn a_connection_is_used_again_for_the_same_name() {
    let world = World::new();
    let site = world.friendly(&["a.example"]);
    let egress = world.egress(&[LOOPBACK]);
    for _ in 0..5 {
        assert_eq!(ask(&egress, &site.endpoint("a.example")).await, "hello");
    }
    assert_eq!(site.front.connections(), 1);
    // Also for whoever has a clone.
    ask(&egress.clone(), &site.endpoint("a.example")).await;
    assert_eq!(site.front.connections(), 1);
}

/// XM-11
#[tokio::test]
async fn a_connection_is_not_used_again_for_another_name() {
    let world = World::new();
    let site = world.friendly(&["a.example", "127.0.0.1"]);
    world.dns.set_addresses("b.example", &["127.0.0.1"]);
    let egress = world.egress(&[LOOPBACK]);
    ask(&egress, &site.endpoint("a.example")).await;
    // The address is the same, but the certificate is not for this name.
    let failure = refusal(get(&egress, &site.endpoint("b.example")).await);
    assert!(matches!(failure, EgressError::Tls { .. }), "{failure}");
    ask(&egress, &site.endpoint("127.0.0.1")).await;
    ask(&egress, &site.endpoint("a.example")).await;
    assert_eq!(site.front.connections(), 3);
    // Only handshakes that came to an end are told.
    assert_eq!(site.front.names(), [Some("a.example".to_owned()), None]);
}

#[tokio::test]
async fn a_connection_whose_body_was_not_read_is_closed() {
    let world = World::new();
    let site = world.friendly(&["a.example"]);
    let egress = world.egress(&[LOOPBACK]);
    drop(get(&egress, &site.endpoint("a.example")).await.unwrap());
    ask(&egress, &site.endpoint("a.example")).await;
    assert_eq!(site.front.connections(), 2);
}

#[tokio::test]
async fn a_pooled_connection_that_is_dead_is_replaced() {
    let world = World::new();
    let requests = AtomicUsize::new(0);
    let site = world.site(&["a.example"], move |_, stream| {
        // The second request finds the connection open, and is not answered on it.
        let first_or_later = requests.fetch_add(1, Ordering::SeqCst) != 1;
        Some(first_or_later && respond(stream, 200, "hello"))
    });
    let egress = world.egress(&[LOOPBACK]);
    assert_eq!(ask(&egress, &site.endpoint("a.example")).await, "hello");
    assert_eq!(ask(&egress, &site.endpoint("a.example")).await, "hello");
    assert_eq!(site.front.connections(), 2);
    assert_eq!(site.backend.received().len(), 3);
}

/// What comes behind an answer is nobody's answer.
#[tokio::test]
async fn an_answer_that_nobody_asked_for_is_not_given_to_the_next() {
    let world = World::new();
    let site = world.site(&["a.example"], |request, stream| {
        // At once: what comes later is what the server says to the next request, to which it may say
        // anything.
        let mut both = Vec::new();
        respond(&mut both, 200, &request.target());
        respond(&mut both, 200, "smuggled");
        Some(stream.write_all(&both).is_ok())
    });
    let egress = world.egress(&[LOOPBACK]);
    for target in ["/one", "/two", "/three"] {
        let endpoint = site.endpoint("a.example");
        let response = egress.get(&endpoint, target, &[], soon()).await.unwrap();
        assert_eq!(whole(response).await, target);
    }
}

#[tokio::test]
async fn a_connection_is_looked_for_at_all_addresses_before_one_is_made() {
    let world = World::new();
    let site = world.friendly(&["a.example"]);
    let silent = std::net::TcpListener::bind(("127.0.0.2", site.front.port())).unwrap();
    silent.set_nonblocking(true).unwrap();
    world.dns.set_addresses("a.example", &["127.0.0.2", "127.0.0.1"]);
    let egress = world.patient_egress(&["127.0.0.0/8"], Duration::from_millis(200));
    for _ in 0..3 {
        ask(&egress, &site.endpoint("a.example")).await;
    }
    assert_eq!(site.front.connections(), 1);
    assert!(silent.accept().is_ok());
    assert!(silent.accept().is_err());
}
