//! Media ids over time: two clocks stand still until they are set, the system's for what expires
//! and the runtime's for who waits.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::auth::Requester;
use crate::homeserver::{Homeserver, Upstream};
use crate::media::{
    Allowance, CacheLimits, Clock, Created, FetchLimits, Freeze, Limits, MediaItem, NewUpload,
    Once, OtherServers, Parts, Quota, ThumbnailRules,
};
use crate::metrics::Metrics;
use crate::store::Store;
use crate::thumbnail::{Capacity, EngineSettings, Ladder, ThumbnailEngine};
use crate::types::{ContentType, UnixMillis};

const MAX_PENDING: u64 = 5;
const ALLOWANCE: Allowance = Allowance {
    max_bytes: 100,
    quota: Quota { bytes: None, files: None, info: None },
    max_pending: MAX_PENDING,
};
const EXPIRY: Duration = Duration::from_secs(60 * 60);

/// A media service whose homeserver cannot be reached.
struct Service {
    media: MediaService,
    clock: Clock,
    _directory: TempDir,
}

impl Service {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let clock = Clock::standing_at(UnixMillis(0));
        let wait = Duration::from_secs(1);
        let upstream = Upstream::new("http://127.0.0.1:1".parse().unwrap(), wait);
        let homeserver = Homeserver::new(Arc::new(upstream), wait);
        homeserver.set_name("example.org".parse().unwrap());
        let media = MediaService::new(Parts {
            store: Store::open(directory.path()).unwrap(),
            homeserver,
            servers: OtherServers::default(),
            engine: ThumbnailEngine::new(EngineSettings::in_threads(
                Capacity { workers: 0, queue: 0 },
                crate::thumbnail::Limits::default(),
            ))
            .unwrap(),
            thumbnails: ThumbnailRules {
                ladder: Ladder::new([]),
                max_variants: 1,
                on_upload: false,
                webp: false,
            },
            memory_bytes: 1 << 20,
            cache: CacheLimits { max_bytes: 1 << 20, min_free_bytes: 0 },
            limits: Limits {
                unused_expiry: EXPIRY,
                fetches: FetchLimits {
                    max_size: 1,
                    max_fetches: 0,
                    max_per_server: 0,
                    max_unfinished: 1,
                    max_duration: Duration::MAX,
                },
            },
            freeze: Freeze::closed(),
            admin_token: None,
            clock: clock.clone(),
            metrics: Arc::new(Metrics::new().unwrap()),
        });
        Self { media, clock, _directory: directory }
    }

    async fn create(&self, user: &Requester) -> Created {
        self.media.create(user, &ALLOWANCE).await.unwrap()
    }

    async fn upload(&self, user: &Requester, mxc: &Mxc, body: &'static [u8]) -> Result<(), Fault> {
        let upload = NewUpload {
            content_type: ContentType::from_header(None),
            filename: None,
            announced_size: Some(body.len() as u64),
        };
        let mut body = Once(Some(Bytes::from_static(body)));
        self.media.upload_to(user, &ALLOWANCE, mxc, upload, &mut body).await.map_err(Fault::from)
    }

    /// Reads in the name of another server, for which nothing is asked elsewhere.
    async fn read(&self, mxc: &Mxc, wait: Duration) -> Result<MediaItem, Fault> {
        let search = Search { wait, allow_remote: false, allow_redirect: false };
        self.media.download(Reader::Origin(None), mxc, search).await.map_err(Fault::from)
    }

    async fn reserved(&self) -> u64 {
        self.media.store.usage().await.unwrap().reserved
    }

    fn waiting(&self) -> i64 {
        self.media.metrics.waiting_readers.get()
    }
}

/// A failure, as far as these tests tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    NotFound,
    NotYetUploaded,
    NotTheCreator,
    CannotOverwrite,
    TooManyPending,
}

impl From<MediaError> for Fault {
    fn from(error: MediaError) -> Self {
        match error {
            MediaError::NotFound => Self::NotFound,
            MediaError::NotYetUploaded => Self::NotYetUploaded,
            MediaError::NotTheCreator => Self::NotTheCreator,
            MediaError::CannotOverwrite => Self::CannotOverwrite,
            MediaError::TooManyPending { .. } => Self::TooManyPending,
            other => panic!("{other}"),
        }
    }
}

fn user<N>(name: N) -> Requester
where
    N: ToString,
{
    Requester::for_test(format!("@{}:example.org", name.to_string()).parse().unwrap())
}

fn after(time: Duration) -> UnixMillis {
    UnixMillis(0).plus(time)
}

#[tokio::test(start_paused = true)]
async fn a_reader_waits_exactly_as_long_as_it_says() {
    let service = Service::new();
    let Created { mxc, .. } = service.create(&user("alice")).await;
    for millis in [0, 1, 999, 20_000, 60_000] {
        let (begun, wait) = (Instant::now(), Duration::from_millis(millis));
        assert_eq!(service.read(&mxc, wait).await.err(), Some(Fault::NotYetUploaded));
        assert_eq!(begun.elapsed(), wait);
        assert_eq!(service.waiting(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_past_the_moment_when_an_id_expires() {
    let service = Service::new();
    let Created { mxc, unused_expires_at } = service.create(&user("alice")).await;
    let left = Duration::from_secs(7);
    service.clock.set(after(EXPIRY - left));
    let begun = Instant::now();
    let (found, ()) = tokio::join!(service.read(&mxc, 2 * left), async {
        sleep(left - Duration::from_millis(1)).await;
        assert_eq!(service.waiting(), 1);
        service.clock.set(unused_expires_at);
    });
    assert_eq!(found.err(), Some(Fault::NotFound));
    assert_eq!(begun.elapsed(), left);
    assert_eq!(service.read(&mxc, left).await.err(), Some(Fault::NotFound));
    assert_eq!(begun.elapsed(), left, "it has waited for what cannot come");
}

#[tokio::test]
async fn a_reader_gets_what_comes_while_it_waits() {
    let service = Service::new();
    let alice = user("alice");
    for body in [&b""[..], b"x", b"body"] {
        let Created { mxc, .. } = service.create(&alice).await;
        let (found, uploaded) = tokio::join!(
            service.read(&mxc, Duration::from_secs(60)),
            service.upload(&alice, &mxc, body)
        );
        uploaded.unwrap();
        let mut reader = found.unwrap().body.into_reader();
        let mut seen = Vec::new();
        while let Some(chunk) = reader.next().await.unwrap() {
            seen.extend_from_slice(&chunk);
        }
        assert_eq!(seen, body);
        assert_eq!(service.waiting(), 0);
    }
}

#[tokio::test]
async fn a_reader_that_gives_up_leaves_its_place() {
    let service = Service::new();
    let Created { mxc, .. } = service.create(&user("alice")).await;
    let given_up = timeout(Duration::ZERO, service.read(&mxc, EXPIRY)).await;
    assert!(given_up.is_err());
    assert_eq!(service.waiting(), 0);
}

/// What became of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Pending,
    Filled,
    /// Its time was up, and that was noticed.
    Gone,
}

struct Given {
    mxc: Mxc,
    user: usize,
    expires_at: UnixMillis,
    fate: Fate,
}

/// A day on which ids are taken, filled and forgotten, minute by minute.
#[tokio::test]
async fn through_a_whole_day_ids_are_bounded_and_none_outlives_its_time() {
    const USERS: usize = 16;
    const MINUTE: Duration = Duration::from_secs(60);
    let service = Service::new();
    let users: Vec<Requester> = (0..USERS).map(user).collect();
    let mut given: Vec<Given> = Vec::new();
    let (mut refused, mut late) = (0, 0);
    let mut state = 0x2545_f491_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as usize % below
    };
    for minute in 0..24 * 60 {
        let now = after(minute * MINUTE);
        service.clock.set(now);
        let is_open = |it: &Given| it.fate == Fate::Pending && now < it.expires_at;
        for _ in 0..5 {
            let user = random(USERS);
            let open = given.iter().filter(|it| it.user == user && is_open(it)).count();
            match service.media.create(&users[user], &ALLOWANCE).await.map_err(Fault::from) {
                Ok(Created { mxc, unused_expires_at }) => {
                    assert!((open as u64) < MAX_PENDING, "one too many");
                    assert_eq!(unused_expires_at, now.plus(EXPIRY));
                    let expires_at = unused_expires_at;
                    given.push(Given { mxc, user, expires_at, fate: Fate::Pending });
                }
                Err(fault) => {
                    assert_eq!((fault, open as u64), (Fault::TooManyPending, MAX_PENDING));
                    refused += 1;
                }
            }
        }
        // Of the ids of the last hours somebody fills one, in time or not.
        let recent = given.len().min(200);
        let first = given.len() - recent;
        if recent > 0 {
            let it = &mut given[first + random(recent)];
            let is_late = now >= it.expires_at;
            let stranger = &users[(it.user + 1) % USERS];
            let outcome = service.upload(stranger, &it.mxc, b"x").await;
            // Whose an id was is known until it is swept away.
            let is_swept = is_late && it.fate != Fate::Filled;
            let fault = outcome.unwrap_err();
            assert!(fault == Fault::NotTheCreator || (is_swept && fault == Fault::NotFound));
            let due = match it.fate {
                Fate::Filled => Err(Fault::CannotOverwrite),
                Fate::Pending | Fate::Gone if is_late => Err(Fault::NotFound),
                Fate::Pending | Fate::Gone => Ok(()),
            };
            assert_eq!(service.upload(&users[it.user], &it.mxc, b"content").await, due);
            if due.is_ok() {
                it.fate = Fate::Filled;
            } else if it.fate == Fate::Pending {
                it.fate = Fate::Gone;
                late += 1;
            }
        }
        // A few are read, old and new.
        for _ in 0..given.len().min(3) {
            let it = &given[random(given.len())];
            let due = match it.fate {
                Fate::Filled => None,
                Fate::Pending if now < it.expires_at => Some(Fault::NotYetUploaded),
                Fate::Pending | Fate::Gone => Some(Fault::NotFound),
            };
            assert_eq!(service.read(&it.mxc, Duration::ZERO).await.err(), due);
        }
        if minute % 10 == 0 {
            service.media.store.remove_expired_reservations(now).await.unwrap();
            let open =
                given.iter().filter(|it| it.fate == Fate::Pending && now < it.expires_at).count();
            assert_eq!(service.reserved().await, open as u64);
        }
    }
    let evening = after(25 * EXPIRY);
    service.clock.set(evening);
    service.media.store.remove_expired_reservations(evening).await.unwrap();
    assert_eq!(service.reserved().await, 0);
    let mut fates: HashMap<bool, usize> = HashMap::new();
    for it in &given {
        let is_filled = it.fate == Fate::Filled;
        let due = (!is_filled).then_some(Fault::NotFound);
        assert_eq!(service.read(&it.mxc, EXPIRY).await.err(), due);
        *fates.entry(is_filled).or_default() += 1;
    }
    assert!(given.len() > 2000 && refused > 100 && late > 10, "{} {refused} {late}", given.len());
    assert!(fates.values().all(|count| *count > 100), "{fates:?}");
    assert_eq!(service.waiting(), 0);
    assert!(service.media.board.under_way(&given[0].mxc.media_id).is_none());
}
