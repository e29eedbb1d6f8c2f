//! Who is asked for keys, how often, and what is believed; time stands still but where it is moved.

use std::pin::pin;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::advance;

use super::super::key_document::samples::{document, signed};
use super::super::signing_key::{KeySeed, SigningKey};
use super::source::MAX_ANSWER;
use super::*;
use crate::egress::EgressError;
use crate::federation::ServerError;
use crate::types::poll_once;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// What a server does when it is asked.
enum Reply {
    Says(Value),
    Fails(KeyError),
    IsSilent,
}

type Script = Box<dyn Fn(&str, &str, usize) -> Reply + Send + Sync>;

/// Servers that do as they are told, which is given their name, the target, and how many questions
/// were asked before.
struct Fake {
    script: Script,
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl Source for Arc<Fake> {
    async fn get(&self, server: &ServerName, target: &str, _: Instant) -> Result<Bytes, KeyError> {
        let before = {
            let mut asked = self.asked.lock().unwrap();
            asked.push(format!("{server}{target}"));
            asked.len() - 1
        };
        match (self.script)(server.as_str(), target, before) {
            Reply::Says(value) => Ok(value.to_string().into()),
            Reply::Fails(error) => Err(error),
            Reply::IsSilent => std::future::pending().await,
        }
    }
}

struct World {
    keys: RemoteKeys,
    fake: Arc<Fake>,
}

impl World {
    fn new(script: impl Fn(&str, &str, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::with_notaries(&[], script)
    }

    fn with_notaries(
        notaries: &[&str],
        script: impl Fn(&str, &str, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let fake = Arc::new(Fake { script: Box::new(script), asked: Mutex::default() });
        let notaries = notaries.iter().map(|text| name(text)).collect();
        Self { keys: RemoteKeys::from_source(Box::new(fake.clone()), notaries), fake }
    }

    async fn key(&self, server: &str, key: &SigningKey) -> Result<VerifyKey, KeyError> {
        self.key_at(server, key, NOW).await
    }

    async fn key_at(
        &self,
        server: &str,
        key: &SigningKey,
        now: UnixMillis,
    ) -> Result<VerifyKey, KeyError> {
        let server = &name(server);
        let found = self.keys.search(search(server, key.id(), now, None)).await;
        if let Ok(found) = &found {
            assert_eq!(found.as_ref(), key.verify_key().as_ref());
        }
        found
    }

    /// Begins a search for a client, in a task of its own.
    fn search_for(
        &self,
        tasks: &mut JoinSet<Result<VerifyKey, KeyError>>,
        client: &str,
        server: &str,
        key: &SigningKey,
    ) {
        let (keys, server, id) = (self.keys.clone(), name(server), key.id().clone());
        let client = ClientNetwork::of(client.parse().unwrap());
        tasks.spawn(async move { keys.search(search(&server, &id, NOW, Some(client))).await });
    }

    fn asked(&self) -> usize {
        self.fake.asked.lock().unwrap().len()
    }
}

fn search<'s>(
    server: &'s ServerName,
    key_id: &'s KeyId,
    now: UnixMillis,
    client: Option<ClientNetwork>,
) -> Search<'s> {
    Search { server, key_id, now, client, is_for_notary: false }
}

fn name(text: &str) -> ServerName {
    text.parse().unwrap()
}

fn key() -> SigningKey {
    KeySeed::generate().unwrap().signing_key()
}

fn keys<const COUNT: usize>() -> Arc<[SigningKey; COUNT]> {
    Arc::new(std::array::from_fn(|_| key()))
}

fn unreachable(server: &str) -> KeyError {
    exchange(server, EgressError::TimedOut("the connection"))
}

fn exchange(server: &str, error: EgressError) -> KeyError {
    ServerError::Exchange { server: name(server), error }.into()
}

fn is_unknown(found: &Result<VerifyKey, KeyError>) -> bool {
    matches!(found, Err(KeyError::Unknown { .. }))
}

/// KEY-01, KEY-06
#[tokio::test(start_paused = true)]
async fn a_server_is_asked_once_for_all_who_ask_at_the_same_time_and_later() {
    let ours = keys::<1>();
    let published = document("a.example", &[&ours[0]], NOW.plus(HOUR));
    let world = World::new(move |_, _, _| Reply::Says(published.clone()));
    let (first, second, third) = tokio::join!(
        world.key("a.example", &ours[0]),
        world.key("a.example", &ours[0]),
        world.key("a.example", &ours[0]),
    );
    assert!(first.is_ok() && second.is_ok() && third.is_ok());
    assert!(world.key("a.example", &ours[0]).await.is_ok());
    assert_eq!(*world.fake.asked.lock().unwrap(), ["a.example/_matrix/key/v2/server"]);
}

/// Threats FE-08
#[tokio::test(start_paused = true)]
async fn whoever_waits_takes_over_from_one_who_goes_away() {
    let ours = keys::<1>();
    let published = document("a.example", &[&ours[0]], NOW.plus(HOUR));
    let world = World::new(move |_, _, before| match before {
        0 => Reply::IsSilent,
        _ => Reply::Says(published.clone()),
    });
    let mut second = Box::pin(world.key("a.example", &ours[0]));
    {
        let mut first = Box::pin(world.key("a.example", &ours[0]));
        assert!(poll_once(&mut first).await.is_pending());
        assert!(poll_once(&mut second).await.is_pending());
        assert_eq!(world.asked(), 1);
    }
    assert!(second.await.is_ok());
    assert_eq!(world.asked(), 2);
}

/// Threats FE-08
#[tokio::test(start_paused = true)]
async fn a_thousand_silent_servers_hold_nobody_else_up_and_end_in_time() {
    let ours = keys::<1>();
    let published = document("a.example", &[&ours[0]], NOW.plus(HOUR));
    let world = World::new(move |server, _, _| match server {
        "a.example" => Reply::Says(published.clone()),
        _ => Reply::IsSilent,
    });
    let begin = Instant::now();
    let mut waiting = JoinSet::new();
    for number in 0..1000 {
        let (keys, id) = (world.keys.clone(), ours[0].id().clone());
        let server = name(&format!("silent{number}.example"));
        waiting.spawn(async move { keys.search(search(&server, &id, NOW, None)).await });
    }
    while world.asked() < 1000 {
        tokio::task::yield_now().await;
    }
    assert!(world.key("a.example", &ours[0]).await.is_ok());
    assert_eq!(begin.elapsed(), Duration::ZERO);
    for found in waiting.join_all().await {
        assert!(matches!(found, Err(KeyError::TimedOut { .. })));
    }
    assert_eq!(begin.elapsed().as_secs(), FETCH_TIMEOUT.as_secs());
}

/// Threats FE-06, FE-08
#[tokio::test(start_paused = true)]
async fn a_client_that_names_silent_servers_uses_up_its_own_places_alone() {
    let ours = keys::<1>();
    let published = |server: &str| document(server, &[&ours[0]], NOW.plus(HOUR));
    let (known, later) = (published("known.example"), published("later.example"));
    let world = World::new(move |server, _, _| match server {
        "known.example" => Reply::Says(known.clone()),
        "later.example" => Reply::Says(later.clone()),
        _ => Reply::IsSilent,
    });
    assert!(world.key("known.example", &ours[0]).await.is_ok());
    let begin = Instant::now();
    let (mut silent, mut more) = (JoinSet::new(), JoinSet::new());
    for number in 0..MAX_FETCHES_PER_CLIENT {
        let server = format!("silent{number}.example");
        world.search_for(&mut silent, "2001:db8::1", &server, &ours[0]);
    }
    while world.asked() < 1 + MAX_FETCHES_PER_CLIENT {
        tokio::task::yield_now().await;
    }
    for number in 0..2 * MAX_FETCHES {
        let server = format!("another{number}.example");
        world.search_for(&mut more, "2001:db8::2", &server, &ours[0]);
    }
    for found in more.join_all().await {
        assert!(matches!(found, Err(KeyError::Busy)), "{found:?}");
    }
    // What is known, and what is on its way, is had nevertheless; and others are not concerned.
    let (mut same, mut joined, mut other) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    world.search_for(&mut same, "2001:db8::1", "known.example", &ours[0]);
    world.search_for(&mut joined, "2001:db8::1", "silent0.example", &ours[0]);
    world.search_for(&mut other, "2001:db8:0:1::1", "later.example", &ours[0]);
    assert!(same.join_all().await.iter().all(Result::is_ok));
    assert!(other.join_all().await.iter().all(Result::is_ok));
    assert_eq!((world.asked(), begin.elapsed()), (2 + MAX_FETCHES_PER_CLIENT, Duration::ZERO));

    silent.spawn(async move { joined.join_all().await.remove(0) });
    for found in silent.join_all().await {
        assert!(matches!(found, Err(KeyError::TimedOut { .. })), "{found:?}");
    }
    // Whoever was refused has blamed no server for it, and has its places back.
    let mut again = JoinSet::new();
    world.search_for(&mut again, "2001:db8::1", "another0.example", &ours[0]);
    while world.asked() < 3 + MAX_FETCHES_PER_CLIENT {
        tokio::task::yield_now().await;
    }
}

/// Threats FE-06
#[tokio::test(start_paused = true)]
async fn all_spellings_of_a_servers_name_are_one_server() {
    let ours = keys::<1>();
    let published = document("Example.org", &[&ours[0]], NOW.plus(HOUR));
    let world = World::new(move |server, _, _| match server.to_ascii_lowercase().as_str() {
        "down.example" => Reply::Fails(unreachable("down.example")),
        _ => Reply::Says(published.clone()),
    });
    for server in ["example.org", "EXAMPLE.org", "eXample.org.", "example.ORG"] {
        assert!(is_unknown(&world.key(server, &ours[0]).await), "{server} is not its name");
    }
    assert!(world.key("Example.org", &ours[0]).await.is_ok());
    assert_eq!(world.asked(), 1);
    for server in ["down.example", "Down.example", "dOwn.example"] {
        assert_eq!(world.key(server, &ours[0]).await.unwrap_err(), unreachable("down.example"));
    }
    assert_eq!(world.asked(), 2);
    let other_port = world.key("down.example:8448", &ours[0]).await;
    assert!(other_port.is_err());
    assert_eq!(world.asked(), 3);
}

/// Threats FE-08
#[tokio::test(start_paused = true)]
async fn a_server_that_never_comes_to_an_end_is_given_up_in_time_and_left_alone() {
    let ours = keys::<1>();
    let world = World::new(|_, _, _| Reply::IsSilent);
    let begin = Instant::now();
    for _ in 0..2 {
        let failed = world.key("a.example", &ours[0]).await;
        assert!(matches!(failed, Err(KeyError::TimedOut { .. })), "{failed:?}");
        assert_eq!((begin.elapsed(), world.asked()), (FETCH_TIMEOUT, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn more_than_may_be_asked_at_once_wait_and_nobody_blames_the_server() {
    let ours = keys::<1>();
    let published = document("a.example", &[&ours[0]], NOW.plus(HOUR));
    let world = World::new(move |_, _, _| Reply::Says(published.clone()));
    let all = world.keys.inner.fetches.acquire_many(MAX_FETCHES as u32).await.unwrap();
    let begin = Instant::now();
    let late = world.key("a.example", &ours[0]).await;
    assert!(matches!(late, Err(KeyError::TimedOut { .. })), "{late:?}");
    assert_eq!((world.asked(), begin.elapsed().as_secs()), (0, PATIENCE.as_secs()));
    drop(all);
    assert!(world.key("a.example", &ours[0]).await.is_ok());
}

/// KEY-06, threats FE-06
#[tokio::test(start_paused = true)]
async fn for_an_unknown_key_a_server_is_asked_again_once_a_minute() {
    let ours = keys::<3>();
    let documents = [
        document("a.example", &[&ours[0]], NOW.plus(HOUR)),
        document("a.example", &[&ours[0], &ours[1]], NOW.plus(HOUR)),
    ];
    let world = World::new(move |_, _, before| Reply::Says(documents[before.min(1)].clone()));
    assert!(world.key("a.example", &ours[0]).await.is_ok());
    for _ in 0..3 {
        assert!(is_unknown(&world.key("a.example", &ours[1]).await));
    }
    assert_eq!(world.asked(), 1);
    advance(MIN_INTERVAL).await;
    assert!(world.key("a.example", &ours[1]).await.is_ok());
    assert!(is_unknown(&world.key("a.example", &ours[2]).await));
    assert!(world.key("a.example", &ours[0]).await.is_ok());
    assert_eq!(world.asked(), 2);
}

/// KEY-04, KEY-05, KEY-06, FLD-29, threats FE-05
#[tokio::test(start_paused = true)]
async fn keys_are_good_until_their_time_or_for_a_week_and_are_then_asked_for_again() {
    let week = MAX_VALIDITY;
    for (published, good_for) in
        [(10 * SECOND, 10 * SECOND), (24 * HOUR, 24 * HOUR), (50 * 365 * 24 * HOUR, week)]
    {
        let ours = keys::<2>();
        let documents = [
            document("a.example", &[&ours[0]], NOW.plus(published)),
            document("a.example", &[&ours[1]], NOW.plus(2 * published + 24 * HOUR)),
        ];
        let world = World::new(move |_, _, before| Reply::Says(documents[before].clone()));
        let last = UnixMillis(NOW.plus(good_for).0 - 1);
        assert!(world.key("a.example", &ours[0]).await.is_ok());
        assert!(world.key_at("a.example", &ours[0], last).await.is_ok());
        let over = NOW.plus(good_for);
        let soon = world.key_at("a.example", &ours[0], over).await;
        assert!(is_unknown(&soon), "it was just asked");
        assert_eq!(world.asked(), 1);
        advance(MIN_INTERVAL).await;
        assert!(is_unknown(&world.key_at("a.example", &ours[0], over).await));
        assert!(world.key_at("a.example", &ours[1], over).await.is_ok());
        assert_eq!(world.asked(), 2);
    }
}

/// Threats FE-06, FE-08
#[tokio::test(start_paused = true)]
async fn a_server_that_fails_is_left_alone_for_longer_and_longer_up_to_five_minutes() {
    let ours = keys::<1>();
    let published = document("a.example", &[&ours[0]], NOW.plus(HOUR));
    let world = World::new(move |server, _, before| match before {
        6 => Reply::Says(published.clone()),
        _ => Reply::Fails(unreachable(server)),
    });
    for (index, backoff) in [30, 60, 120, 240, 300, 300].into_iter().enumerate() {
        for _ in 0..2 {
            let failed = world.key("a.example", &ours[0]).await;
            assert_eq!(failed.unwrap_err(), unreachable("a.example"));
        }
        assert_eq!(world.asked(), index + 1);
        advance(Duration::from_secs(backoff) - SECOND).await;
        assert!(world.key("a.example", &ours[0]).await.is_err());
        assert_eq!(world.asked(), index + 1);
        advance(SECOND).await;
    }
    assert!(world.key("a.example", &ours[0]).await.is_ok());
    // Its failures are forgotten with that.
    advance(MIN_INTERVAL).await;
    assert!(world.key("a.example", &key()).await.is_err());
    advance(FIRST_BACKOFF).await;
    assert!(world.key("a.example", &key()).await.is_err());
    assert_eq!(world.asked(), 9);
}

#[tokio::test(start_paused = true)]
async fn keys_that_are_known_stay_good_while_their_server_fails() {
    let ours = keys::<2>();
    let published = document("a.example", &[&ours[0]], NOW.plus(HOUR));
    let world = World::new(move |server, _, before| match before {
        0 => Reply::Says(published.clone()),
        _ => Reply::Fails(unreachable(server)),
    });
    assert!(world.key("a.example", &ours[0]).await.is_ok());
    advance(MIN_INTERVAL).await;
    assert_eq!(world.key("a.example", &ours[1]).await.unwrap_err(), unreachable("a.example"));
    assert!(world.key("a.example", &ours[0]).await.is_ok());
    assert_eq!(world.asked(), 2);
}

/// KEY-03, threats FE-09
#[tokio::test(start_paused = true)]
async fn what_cannot_be_believed_gives_no_key_and_is_not_asked_for_at_once_again() {
    let ours = keys::<2>();
    let other = document("b.example", &[&ours[0]], NOW.plus(HOUR));
    let forged = {
        let mut forged = document("a.example", &[&ours[0]], NOW.plus(HOUR));
        forged["verify_keys"][ours[0].id().as_str()]["key"] = ours[1].public_key().into();
        forged
    };
    let past = document("a.example", &[&ours[0]], NOW);
    for answer in [other, forged, past, json!([]), json!({})] {
        let world =
            World::with_notaries(&["n.example"], move |_, _, _| Reply::Says(answer.clone()));
        for _ in 0..2 {
            let refused = world.key("a.example", &ours[0]).await.unwrap_err();
            assert!(matches!(refused, KeyError::Unbelievable { .. }), "{refused}");
        }
        assert_eq!(world.asked(), 1, "neither again nor a notary");
    }
}

/// Threats SS-10
#[test]
fn a_stranger_is_told_the_same_whatever_went_wrong_and_nothing_of_our_network() {
    let [address, text] = ["10.1.2.3", "secret.internal"].map(str::to_owned);
    let server = name("a.example");
    let failures = [
        EgressError::Resolution { name: text.clone(), reason: address.clone() },
        EgressError::Forbidden { name: text.clone(), address: [10, 1, 2, 3].into() },
        EgressError::Connect { endpoint: address.clone(), reason: text.clone() },
        EgressError::Tls { endpoint: address, reason: text.clone() },
        EgressError::Misbehaved(text),
        EgressError::TimedOut("the connection"),
        EgressError::TooLarge { limit: MAX_ANSWER },
    ];
    let failures = failures.into_iter().map(|error| exchange("a.example", error)).chain([
        KeyError::Refused { server: server.clone(), status: 418 },
        KeyError::Unbelievable { server: server.clone(), reason: "of another" },
        KeyError::TimedOut { server },
    ]);
    for failure in failures {
        assert_eq!(failure.public_text(), "the keys of a.example cannot be fetched", "{failure}");
        assert_ne!(failure.public_text(), failure.to_string(), "the log says more");
    }
}

/// A server out of reach, and a notary that has what the server said once.
fn notary(
    ours: &Arc<[SigningKey; 2]>,
    answer: impl Fn(Value) -> Value + Send + Sync + 'static,
    reach: impl Fn(&str) -> Reply + Send + Sync + 'static,
) -> World {
    let [own, notary] = &**ours;
    let of_notary = document("n.example", &[notary], NOW.plus(HOUR));
    let of_server = document("[::1]:8448", &[own], NOW.plus(24 * HOUR));
    let handed_on = answer(signed(of_server, "n.example", notary));
    World::with_notaries(&["silent.example", "n.example"], move |server, target, _| {
        match (server, target.starts_with("/_matrix/key/v2/query/")) {
            ("n.example", true) => Reply::Says(json!({"server_keys": [handed_on]})),
            ("n.example", false) => Reply::Says(of_notary.clone()),
            ("silent.example", _) => Reply::Fails(unreachable(server)),
            _ => reach(server),
        }
    })
}

/// KEY-07, KEY-08, KEY-10
#[tokio::test(start_paused = true)]
async fn a_notary_is_asked_for_the_keys_of_a_server_that_is_out_of_reach() {
    for how in 0..3 {
        let ours = keys::<2>();
        let world = notary(
            &ours,
            |document| document,
            move |server| match how {
                0 => Reply::IsSilent,
                1 => Reply::Fails(unreachable(server)),
                _ => Reply::Fails(KeyError::Refused { server: name(server), status: 502 }),
            },
        );
        let begin = Instant::now();
        assert!(world.key("[::1]:8448", &ours[0]).await.is_ok());
        assert!(begin.elapsed() <= FETCH_TIMEOUT);
        let query =
            format!("/_matrix/key/v2/query/%5B::1%5D:8448?minimum_valid_until_ts={}", NOW.0);
        assert_eq!(
            *world.fake.asked.lock().unwrap(),
            [
                "[::1]:8448/_matrix/key/v2/server".to_owned(),
                format!("silent.example{query}"),
                format!("n.example{query}"),
                "n.example/_matrix/key/v2/server".to_owned(),
            ]
        );
        assert!(world.key("[::1]:8448", &ours[0]).await.is_ok());
        assert!(world.key("n.example", &ours[1]).await.is_ok());
        assert_eq!(world.asked(), 4, "both are remembered");
    }
}

/// KEY-07, threats FE-09
#[tokio::test(start_paused = true)]
async fn a_notary_is_believed_only_with_its_own_signature_and_the_servers() {
    let [forger] = &*keys::<1>();
    let id = forger.id().clone();
    let forged = document("[::1]:8448", &[forger], NOW.plus(HOUR));
    let unsigned = |mut document: Value| {
        document["signatures"]["n.example"] = json!({});
        document
    };
    let by_another = {
        let forged = forged.clone();
        move |_| {
            let mut document = forged.clone();
            document["signatures"]["n.example"][id.as_str()] =
                document["signatures"]["[::1]:8448"][id.as_str()].clone();
            document
        }
    };
    let not_by_itself = |mut document: Value| {
        document["signatures"]["[::1]:8448"] = json!({});
        document
    };
    type Answer = Box<dyn Fn(Value) -> Value + Send + Sync>;
    for answer in [Box::new(unsigned) as Answer, Box::new(by_another), Box::new(not_by_itself)] {
        let ours = keys::<2>();
        let world = notary(&ours, answer, |server| Reply::Fails(unreachable(server)));
        for key in [&ours[0], forger] {
            let failed = world.key("[::1]:8448", key).await.unwrap_err();
            assert_eq!(failed, unreachable("[::1]:8448"));
        }
    }
}

/// KEY-07
#[tokio::test(start_paused = true)]
async fn no_notary_is_asked_about_a_server_that_answers_or_that_may_not_be_contacted() {
    let forbidden = EgressError::Forbidden { name: "a".into(), address: [10, 0, 0, 1].into() };
    for error in [
        exchange("[::1]:8448", forbidden),
        exchange("[::1]:8448", EgressError::Misbehaved("no HTTP".into())),
        exchange("[::1]:8448", EgressError::TooLarge { limit: MAX_ANSWER }),
        KeyError::Refused { server: name("[::1]:8448"), status: 404 },
    ] {
        let ours = keys::<2>();
        let says = error.clone();
        let world = notary(&ours, |document| document, move |_| Reply::Fails(says.clone()));
        assert_eq!(world.key("[::1]:8448", &ours[0]).await.unwrap_err(), error);
        assert_eq!(world.asked(), 1);
    }
}

/// KEY-07
#[tokio::test(start_paused = true)]
async fn two_notaries_do_not_wait_for_each_other() {
    let ours = keys::<1>();
    let world = World::with_notaries(&["n.example", "m.example"], |_, _, _| Reply::IsSilent);
    let begin = Instant::now();
    let (first, second) =
        tokio::join!(world.key("n.example", &ours[0]), world.key("m.example", &ours[0]));
    assert!(first.is_err() && second.is_err());
    assert_eq!(begin.elapsed().as_secs(), FETCH_TIMEOUT.as_secs());
    assert_eq!(world.asked(), 2, "each for itself alone");
}

/// KEY-07, threats FE-06
#[tokio::test(start_paused = true)]
async fn no_spelling_of_a_notarys_name_has_it_asked_about_itself() {
    let ours = keys::<1>();
    let script = |server: &str, _: &str, _| Reply::Fails(unreachable(server));
    let world = World::with_notaries(&["n.example", "m.example"], script);
    assert!(world.key("N.example.", &ours[0]).await.is_err());
    assert_eq!(*world.fake.asked.lock().unwrap(), ["N.example./_matrix/key/v2/server"]);
}

#[tokio::test(start_paused = true)]
async fn silent_notaries_use_up_no_more_than_the_time_of_one_fetch() {
    let ours = keys::<1>();
    let world = World::with_notaries(&["n.example", "m.example"], |_, _, _| Reply::IsSilent);
    let begin = Instant::now();
    let mut key = pin!(world.key("a.example", &ours[0]));
    assert!((&mut key).await.is_err());
    assert_eq!(begin.elapsed().as_secs(), FETCH_TIMEOUT.as_secs());
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_is_bounded_whatever_strangers_say() {
    let ours = keys::<1>();
    let world = World::new(|server, _, _| Reply::Fails(unreachable(server)));
    for number in 0..MAX_FAILED + 500 {
        let _ = world.key(&format!("{number}.example"), &ours[0]).await;
    }
    world.keys.inner.failed.run_pending_tasks();
    assert!(world.keys.inner.failed.entry_count() <= MAX_FAILED);
    world.keys.inner.known.run_pending_tasks().await;
    assert_eq!(world.keys.inner.known.entry_count(), 0);

    let largest: Vec<_> = (0..64)
        .map(|n| (KeyId::of_version(&format!("{n:0>120}")).unwrap(), ours[0].verify_key()))
        .collect();
    let document = KeyDocument { server_name: name("a.example"), keys: largest, valid_until: NOW };
    let known = Known { document, asked_at: Instant::now() };
    let weight = u64::from(weigh(&FoldedName::of(&name("a.example")), &known));
    assert!((8_000..20_000).contains(&weight), "{weight}");
}
