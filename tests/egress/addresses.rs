//! Which addresses are contacted, and that a name is resolved once for a connection.

use std::net::{IpAddr, TcpListener};
use std::time::{Duration, Instant as Clock};

use mediary::egress::{Egress, EgressError, EgressSettings, Host};

use super::common::dns::{RecordType, Reply};
use super::common::free_port;
use super::*;

/// A port of an address where somebody listens who never answers.
fn listen(address: &str, port: u16) -> TcpListener {
    let listener = TcpListener::bind((address, port)).expect("a free port");
    listener.set_nonblocking(true).expect("an option of the socket");
    listener
}

/// Whether anybody connected. What has been connected to waits in the queue of the kernel.
fn was_contacted(listener: &TcpListener) -> bool {
    listener.accept().is_ok()
}

fn forbidden(name: &str, address: &str) -> EgressError {
    EgressError::Forbidden { name: name.to_owned(), address: address.parse().expect("an address") }
}

/// SS-01, SS-10, SS-15
#[tokio::test]
async fn what_leads_inside_is_refused_before_a_connection() {
    let world = World::new();
    let egress = world.egress(&[]);
    let listener = listen("127.0.0.1", 0);
    let port = listener.local_addr().unwrap().port();
    world.dns.set_addresses("inside.example", &["127.0.0.1"]);
    world.dns.set_addresses("real.example", &["127.0.0.1"]);
    world.dns.set_alias("alias.example", "real.example");
    for name in ["inside.example", "alias.example", "localhost", "127.0.0.1", "::ffff:127.0.0.1"] {
        let failure = refusal(get(&egress, &endpoint(name, port)).await);
        let EgressError::Forbidden { name: named, .. } = &failure else { panic!("{failure}") };
        assert_eq!(named, name);
    }
    assert_eq!(
        refusal(get(&egress, &endpoint("inside.example", port)).await),
        forbidden("inside.example", "127.0.0.1")
    );
    assert!(!was_contacted(&listener));
}

/// SS-02, SS-03
#[tokio::test]
async fn private_addresses_are_refused_in_every_form() {
    let world = World::new();
    let egress = world.egress(&[]);
    for address in
        ["10.0.0.1", "169.254.169.254", "100.64.0.1", "fd00::1", "fe80::1", "64:ff9b::a00:1", "::"]
    {
        world.dns.set_addresses("name.example", &[address]);
        let failure = refusal(get(&egress, &endpoint(address, 443)).await);
        assert_eq!(failure, forbidden(address, address));
        let fresh = world.egress(&[]);
        let failure = refusal(get(&fresh, &endpoint("name.example", 443)).await);
        assert_eq!(failure, forbidden("name.example", address));
    }
}

#[tokio::test]
async fn a_network_that_is_allowed_is_contacted() {
    let world = World::new();
    let site = world.friendly(&["a.example"]);
    let response = get(&world.egress(&[LOOPBACK]), &site.endpoint("a.example")).await.unwrap();
    assert_eq!(whole(response).await, "hello");
}

#[tokio::test]
async fn of_several_addresses_only_the_permitted_are_tried() {
    let world = World::new();
    let site = world.friendly(&["a.example"]);
    let inside = listen("127.0.0.2", site.front.port());
    world.dns.set_addresses("a.example", &["127.0.0.2", "::1", "127.0.0.1"]);
    let response = get(&world.egress(&[LOOPBACK]), &site.endpoint("a.example")).await.unwrap();
    assert_eq!(whole(response).await, "hello");
    assert!(!was_contacted(&inside));
}

/// SS-04
#[tokio::test]
async fn the_address_that_was_checked_is_the_one_that_is_contacted() {
    let world = World::new();
    let site = world.friendly(&["rebind.example"]);
    let inside = listen("127.0.0.2", site.front.port());
    world.dns.set_ttl(0);
    let answers = [Reply::addresses(&["127.0.0.1"]), Reply::addresses(&["127.0.0.2"])];
    world.dns.set("rebind.example", RecordType::A, &answers);
    let egress = world.egress(&[LOOPBACK]);

    let response = get(&egress, &site.endpoint("rebind.example")).await.unwrap();
    assert_eq!(whole(response).await, "hello");
    assert_eq!(world.dns.asked("rebind.example", RecordType::A), 1);
    assert_eq!(world.dns.asked("rebind.example", RecordType::AAAA), 1);

    let second = get(&egress, &site.endpoint("rebind.example")).await;
    assert_eq!(refusal(second), forbidden("rebind.example", "127.0.0.2"));
    assert_eq!(world.dns.asked("rebind.example", RecordType::A), 2);
    assert!(!was_contacted(&inside));
}

#[tokio::test]
async fn names_are_remembered_as_long_as_they_say() {
    let world = World::new();
    let site = world.friendly(&["a.example", "b.example"]);
    let egress = world.egress(&[LOOPBACK]);
    for _ in 0..3 {
        whole(get(&egress, &site.endpoint("a.example")).await.unwrap()).await;
    }
    assert_eq!(world.dns.asked("a.example", RecordType::A), 1);
    world.dns.set_ttl(0);
    for _ in 0..3 {
        whole(get(&egress, &site.endpoint("b.example")).await.unwrap()).await;
    }
    assert_eq!(world.dns.asked("b.example", RecordType::A), 3);
}

/// DISC-02, DISC-15
#[tokio::test]
async fn an_alias_is_followed() {
    let world = World::new();
    let site = world.friendly(&["a.example"]);
    world.dns.set_addresses("machine.example", &["127.0.0.1"]);
    world.dns.set_alias("a.example", "machine.example");
    world.dns.set("a.example", RecordType::A, &[Reply::Records(Vec::new())]);
    let alias = world.friendly(&["b.example"]);
    world.dns.set_alias("other.example", "machine.example");
    let mut endpoint = alias.endpoint("b.example");
    endpoint.connect_to = Host::Name("other.example".into());
    let egress = world.egress(&[LOOPBACK]);
    assert_eq!(whole(get(&egress, &endpoint).await.unwrap()).await, "hello");
    drop(site);
}

/// A name is never tried with the domain of the machine behind it.
#[tokio::test]
async fn names_are_absolute() {
    let world = World::new();
    let egress = world.egress(&[]);
    for name in ["nowhere", "a.nowhere"] {
        let failure = refusal(get(&egress, &endpoint(name, 443)).await);
        let reason = "it has no address".to_owned();
        assert_eq!(failure, EgressError::Resolution { name: name.to_owned(), reason });
    }
    for name in ["nowhere", "a.nowhere"] {
        assert_eq!(world.dns.asked(name, RecordType::A), 1, "{name}");
    }
    let asked = |(name, _): (String, _)| name == "nowhere" || name == "a.nowhere";
    let questions = world.dns.questions();
    assert!(questions.iter().cloned().all(asked), "{questions:?}");
}

#[tokio::test]
async fn a_name_server_that_fails_is_told_from_a_name_that_is_not() {
    let world = World::new();
    let egress = world.egress(&[]);
    for (reply, told) in [
        (Reply::Failure, "the name server says Server Failure"),
        (Reply::Refused, "the name server says Query Refused"),
        (Reply::NoSuchName, "it has no address"),
        (Reply::Records(Vec::new()), "it has no address"),
    ] {
        world.dns.set_all("a.example", &reply);
        match refusal(get(&egress, &endpoint("a.example", 443)).await) {
            EgressError::Resolution { reason, .. } => assert_eq!(reason, told),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_silent_name_server_is_waited_for_until_the_deadline_only() {
    let world = World::new();
    world.dns.set_all("a.example", &Reply::Silence);
    let egress = world.egress(&[]);
    let begun = Clock::now();
    let deadline = after(Duration::from_millis(200));
    let outcome = egress.get(&endpoint("a.example", 443), "/", &[], deadline).await;
    assert_eq!(refusal(outcome), EgressError::Unreached("the name server"));
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// Some name servers never answer questions for AAAA.
#[tokio::test]
async fn silence_about_one_family_costs_little() {
    let world = World::new();
    let site = world.friendly(&["a.example"]);
    world.dns.set("a.example", RecordType::AAAA, &[Reply::Silence]);
    let begun = Clock::now();
    let response = get(&world.egress(&[LOOPBACK]), &site.endpoint("a.example")).await.unwrap();
    assert_eq!(whole(response).await, "hello");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// DISC-15
#[tokio::test]
async fn srv_targets_come_in_order_and_their_absence_is_no_failure() {
    let world = World::new();
    let egress = world.egress(&[]);
    let service = "_matrix-fed._tcp.a.example";
    world.dns.set_srv(
        service,
        &[
            (20, 0, 8449, "second.example"),
            (10, 0, 8448, "First.example"),
            (30, 0, 0, "portless.example"),
        ],
    );
    let targets = egress.srv(service, soon()).await.unwrap();
    let targets: Vec<_> = targets.iter().map(|target| (&*target.host, target.port)).collect();
    assert_eq!(targets, [("first.example", 8448), ("second.example", 8449)]);

    world.dns.set_srv("_absent._tcp.a.example", &[(0, 0, 0, ".")]);
    world.dns.set_srv("_rootless._tcp.a.example", &[(0, 0, 8448, ".")]);
    world.dns.set_addresses("plain.example", &["127.0.0.1"]);
    for name in ["_absent._tcp.a.example", "_rootless._tcp.a.example", "plain.example", "nowhere"] {
        assert_eq!(egress.srv(name, soon()).await, Ok(Vec::new()), "{name}");
    }
    world.dns.set(service, RecordType::SRV, &[Reply::Failure]);
    let fresh = world.egress(&[]);
    assert!(matches!(fresh.srv(service, soon()).await, Err(EgressError::Resolution { .. })));
    // It was remembered where it was heard.
    assert_eq!(egress.srv(service, soon()).await.unwrap().len(), 2);
}

/// DISC-15
#[tokio::test]
async fn of_very_many_srv_targets_few_are_tried() {
    let world = World::new();
    let many: Vec<_> = (1..=20).map(|port| (0, 0, port, "a.example")).collect();
    world.dns.set_srv("_matrix._tcp.a.example", &many);
    let targets = world.egress(&[]).srv("_matrix._tcp.a.example", soon()).await.unwrap();
    assert_eq!(targets.len(), 8);
}

#[tokio::test]
async fn dead_addresses_do_not_hide_the_living() {
    let world = World::new();
    let site = world.friendly(&["a.example"]);
    // Nobody is at the first, the second takes connections and says nothing.
    let silent = listen("127.0.0.3", site.front.port());
    world.dns.set_addresses("a.example", &["::1", "127.0.0.2", "127.0.0.3", "127.0.0.1"]);
    let egress = world.patient_egress(&["127.0.0.0/8", "::1"], Duration::from_millis(200));
    let response = get(&egress, &site.endpoint("a.example")).await.unwrap();
    assert_eq!(whole(response).await, "hello");
    assert!(was_contacted(&silent));
}

/// An address that takes long leaves time for the others, even if one alone may take all of it.
#[tokio::test]
async fn each_address_has_its_share_of_the_time() {
    let world = World::new();
    let site = world.friendly(&["a.example"]);
    let silent = listen("127.0.0.2", site.front.port());
    world.dns.set_addresses("a.example", &["127.0.0.2", "127.0.0.1"]);
    let egress = world.egress(&["127.0.0.0/8"]);
    let deadline = after(Duration::from_secs(2));
    let response = egress.get(&site.endpoint("a.example"), "/", &[], deadline).await.unwrap();
    assert_eq!(whole(response).await, "hello");
    assert!(was_contacted(&silent));
}

#[tokio::test]
async fn a_failure_names_every_address_that_was_tried() {
    let world = World::new();
    let port = free_port();
    world.dns.set_addresses("a.example", &["127.0.0.1", "127.0.0.2"]);
    let egress = world.egress(&["127.0.0.0/8"]);
    let failure = refusal(get(&egress, &endpoint("a.example", port)).await);
    let EgressError::Connect { reason, endpoint } = &failure else { panic!("{failure}") };
    assert_eq!(*endpoint, format!("a.example:{port}"));
    let each = |address| format!("{address}:{port}: connection refused");
    assert_eq!(*reason, format!("{}; {}", each("127.0.0.1"), each("127.0.0.2")));
}

/// Whoever cannot be reached costs the others nothing: not those that are looked up at the same
/// time, and not those that are connected to.
#[tokio::test]
async fn a_thousand_dead_destinations_do_not_hold_up_a_living_one() {
    let world = World::new();
    let site = world.friendly(&["a.example"]);
    let silent = listen("127.0.0.2", 0);
    let silent_port = silent.local_addr().unwrap().port();
    let egress = world.egress(&["127.0.0.0/8"]);
    let mut dead = tokio::task::JoinSet::new();
    for n in 0..1000 {
        let egress = egress.clone();
        let name = format!("d{n}.example");
        if n % 2 == 0 {
            world.dns.set_all(&name, &Reply::Silence);
        } else {
            world.dns.set_addresses(&name, &["127.0.0.2"]);
        }
        let endpoint = endpoint(&name, silent_port);
        dead.spawn(async move { egress.get(&endpoint, "/", &[], soon()).await.err() });
    }
    // They are under way. Were they waited for one after the other, it would take half an hour.
    tokio::task::yield_now().await;
    for _ in 0..5 {
        let response = get(&egress, &site.endpoint("a.example")).await.unwrap();
        assert_eq!(whole(response).await, "hello");
    }
    dead.abort_all();
}

#[tokio::test]
async fn localhost_of_the_hosts_file_is_known() {
    let world = World::new();
    let site = world.friendly(&["localhost"]);
    let response = get(&world.egress(&["127.0.0.0/8", "::1"]), &site.endpoint("localhost")).await;
    assert_eq!(whole(response.unwrap()).await, "hello");
    assert_eq!(world.dns.asked("localhost", RecordType::A), 0);
}

#[tokio::test]
async fn port_zero_is_no_place() {
    let world = World::new();
    let failure = refusal(get(&world.egress(&[LOOPBACK]), &endpoint("127.0.0.1", 0)).await);
    assert!(matches!(failure, EgressError::Connect { .. }), "{failure}");
}

/// It is made before there is a runtime to use it in.
#[test]
fn a_way_out_is_made_outside_of_a_runtime() {
    assert!(Egress::new(EgressSettings::default()).is_ok());
}

#[tokio::test]
async fn by_default_only_public_addresses_are_contacted() {
    let egress = Egress::new(EgressSettings::default()).unwrap();
    let address: IpAddr = "127.0.0.1".parse().unwrap();
    let failure = refusal(get(&egress, &endpoint("127.0.0.1", 8448)).await);
    assert_eq!(failure, EgressError::Forbidden { name: address.to_string(), address });
}
