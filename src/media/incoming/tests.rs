//! Any interleaving of a writer, its end and any followers: each of them sees a prefix of the body,
//! and its end only if the body is whole and kept.

use std::pin::pin;
use std::task::{Context, Waker};

use proptest::prelude::*;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::*;
use crate::types::{ContentType, Mxc, UnixMillis};

/// A body that comes when the test says so.
struct Scripted(UnboundedReceiver<Result<Bytes, BodyError>>);

#[async_trait]
impl BodyReader for Scripted {
    /// The end of the script is the end of the body.
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        self.0.recv().await.transpose()
    }
}

fn media(source: MediaSource) -> NewMedia {
    NewMedia {
        mxc: Mxc {
            server_name: "example.org".parse().unwrap(),
            media_id: "arriving".parse().unwrap(),
        },
        content_type: ContentType::from_header(None),
        filename: None,
        uploader: None,
        source,
        created_at: UnixMillis(0),
        legacy_readable: false,
    }
}

fn bytes(length: usize) -> Bytes {
    (0_u32..).flat_map(|number| (number ^ 0x5eed).to_be_bytes()).take(length).collect()
}

/// An arrival whose body the test sends.
struct Stage {
    store: Store,
    _directory: TempDir,
    arrival: Arc<Arrival>,
    script: Option<UnboundedSender<Result<Bytes, BodyError>>>,
    writer: JoinHandle<End>,
}

impl Stage {
    /// Begins to write a body of at most `limit` bytes.
    async fn set(size: Option<u64>, limit: u64) -> Self {
        Self::set_for(size, limit, MediaSource::Remote, || {}).await
    }

    async fn set_for(
        size: Option<u64>,
        limit: u64,
        source: MediaSource,
        begun: impl FnOnce() + Send + 'static,
    ) -> Self {
        let directory = TempDir::new().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let (staging, media) = (store.stage().await.unwrap(), media(source));
        let incoming = match source {
            MediaSource::Owned => Incoming::uploaded(staging, media, size),
            MediaSource::Upstream | MediaSource::Remote => {
                Incoming::fetched(staging, media, size, Giver::Homeserver)
            }
        };
        let arrival = Arc::clone(incoming.arrival());
        let (script, body) = unbounded_channel();
        let writing = store.clone();
        let writer = tokio::spawn(async move {
            incoming.take(&mut Scripted(body), Cap::of(limit), &writing, begun).await
        });
        Self { store, _directory: directory, arrival, script: Some(script), writer }
    }

    fn send(&self, chunk: Bytes) {
        // A writer that is past its limit takes no more.
        let _ = self.script.as_ref().unwrap().send(Ok(chunk));
    }

    fn fail(&mut self, error: BodyError) {
        let _ = self.script.take().unwrap().send(Err(error));
    }

    /// Ends the body properly.
    fn end(&mut self) {
        self.script = None;
    }

    /// Returns how many unfinished bodies are on disk.
    fn unfinished(&self) -> usize {
        std::fs::read_dir(self._directory.path().join("tmp")).unwrap().count()
    }
}

async fn read(body: &mut ArrivingBody) -> (Vec<u8>, Result<(), BodyError>) {
    let mut seen = Vec::new();
    loop {
        match body.next().await {
            Ok(Some(chunk)) => seen.extend_from_slice(&chunk),
            Ok(None) => return (seen, Ok(())),
            Err(error) => return (seen, Err(error)),
        }
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

#[tokio::test]
async fn a_follower_reads_the_first_byte_while_the_rest_is_missing() {
    for size in [None, Some(10)] {
        let mut stage = Stage::set(size, 10).await;
        let mut follower = stage.arrival.follow();
        stage.send(Bytes::from_static(b"first"));
        assert_eq!(follower.next().await.unwrap().unwrap(), "first");
        stage.send(Bytes::from_static(b"later"));
        stage.end();
        assert_eq!(read(&mut follower).await.0, b"later");
        assert_eq!(stage.writer.await.unwrap().unwrap().blob.size, 10);
    }
}

#[tokio::test]
async fn the_last_byte_of_a_known_size_is_held_back_until_the_body_is_kept() {
    let mut stage = Stage::set(Some(5), 10).await;
    let mut follower = stage.arrival.follow();
    stage.send(Bytes::from_static(b"whole"));
    assert_eq!(follower.next().await.unwrap().unwrap(), "whol");
    let mut next = pin!(follower.next());
    assert!(next.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    stage.end();
    assert_eq!(next.await.unwrap().unwrap(), "e");
    assert!(stage.store.media(&stage.arrival.media.mxc).unwrap().is_some());
}

#[tokio::test]
async fn who_follows_a_body_that_another_has_stored_meanwhile_reads_it_whole() {
    for size in [None, Some(5)] {
        let mut stage = Stage::set(size, 10).await;
        let mut follower = stage.arrival.follow();
        let mut other = stage.store.stage().await.unwrap();
        other.write(b"whole").await.unwrap();
        stage.store.commit_media(other, media(MediaSource::Remote)).await.unwrap();
        // All at once, so that nothing is pushed while the writer waits for more.
        stage.send(Bytes::from_static(b"whole"));
        stage.end();
        let (seen, end) = read(&mut follower).await;
        assert_eq!(seen, b"whole", "announced: {size:?}");
        assert!(end.is_ok());
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_to_its_end_breaks_off_and_leaves_nothing() {
    let failures: [fn() -> BodyError; 3] =
        [|| BodyError::Gone, || BodyError::TimedOut, || BodyError::Malformed("chunk".to_owned())];
    for failure in failures {
        let mut stage = Stage::set(None, 100).await;
        let mut early = stage.arrival.follow();
        stage.send(Bytes::from_static(b"part"));
        assert_eq!(early.next().await.unwrap().unwrap(), "part");
        stage.fail(failure());
        assert!(early.next().await.is_err());
        assert!(stage.arrival.failure().is_some());
        assert!(stage.arrival.follow().next().await.is_err());
        assert!(stage.arrival.kept().await.is_err());
        assert!((&mut stage.writer).await.unwrap().is_err());
        assert_eq!(stage.unfinished(), 0);
        assert!(stage.store.media(&stage.arrival.media.mxc).unwrap().is_none());
    }
}

#[tokio::test]
async fn a_writer_that_is_dropped_breaks_its_followers_off() {
    let stage = Stage::set(None, 100).await;
    let mut follower = stage.arrival.follow();
    stage.send(Bytes::from_static(b"part"));
    assert_eq!(follower.next().await.unwrap().unwrap(), "part");
    stage.writer.abort();
    assert!(matches!(follower.next().await, Err(BodyError::Gone)));
}

#[tokio::test]
async fn whoever_has_seen_nothing_is_told_in_words_what_went_wrong() {
    let mut stage = Stage::set(None, 3).await;
    stage.send(Bytes::from_static(b"long"));
    stage.end();
    let refused = stage.arrival.kept().await;
    assert!(matches!(refused, Err(MediaError::RemoteTooLarge { limit: 3 })), "{refused:?}");

    let mut stage = Stage::set_for(None, 3, MediaSource::Owned, || {}).await;
    stage.fail(BodyError::Gone);
    let refused = stage.arrival.follow().reach(0).await;
    assert!(matches!(refused, Err(MediaError::NotYetUploaded)), "{refused:?}");
}

#[tokio::test]
async fn it_has_begun_with_the_first_bytes_or_at_the_end_of_an_empty_body() {
    for chunks in [&[][..], &[&b"first"[..], b"second"]] {
        let (announce, announced) = tokio::sync::oneshot::channel();
        let begun = || announce.send(()).unwrap();
        let mut stage = Stage::set_for(None, 100, MediaSource::Owned, begun).await;
        for chunk in chunks {
            stage.send(Bytes::from_static(chunk));
        }
        if chunks.is_empty() {
            stage.end();
        }
        announced.await.unwrap();
        stage.end();
        stage.writer.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_arrival_is_abandoned_when_nobody_has_followed_for_the_whole_time() {
    const GRACE: Duration = Duration::from_secs(60);
    let stage = Stage::set(None, 100).await;
    let mut abandoned = pin!(stage.arrival.abandoned(GRACE));
    let mut is_abandoned =
        move || abandoned.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
    let follower = stage.arrival.follow();
    assert!(!is_abandoned());
    tokio::time::advance(2 * GRACE).await;
    assert!(!is_abandoned(), "somebody follows");
    drop(follower);
    assert!(!is_abandoned());
    tokio::time::advance(GRACE / 2).await;
    let another = stage.arrival.follow();
    tokio::time::advance(GRACE).await;
    assert!(!is_abandoned(), "somebody follows again");
    drop(another);
    assert!(!is_abandoned());
    tokio::time::advance(GRACE).await;
    assert!(is_abandoned());
}

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    /// So many bytes arrive.
    Arrive(usize),
    /// Somebody begins to follow, perhaps a range: first position and length.
    Join(Option<(u64, u64)>),
    /// A follower looks for a chunk.
    Look(usize),
    /// A follower leaves.
    Leave(usize),
    /// The writer and the disk get on.
    Rest,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..200_000_usize).prop_map(Step::Arrive),
        2 => proptest::option::of((0..400_000_u64, 1..400_000_u64)).prop_map(Step::Join),
        4 => (0..8_usize).prop_map(Step::Look),
        1 => (0..8_usize).prop_map(Step::Leave),
        2 => Just(Step::Rest),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Whole,
    Fails,
    Aborted,
}

/// A follower, what it may see and what it has seen.
struct Seen {
    body: ArrivingBody,
    is_range: bool,
    first: usize,
    until: usize,
    bytes: Vec<u8>,
    ended: bool,
}

impl Seen {
    /// Looks once for a chunk, and gives up if there is none: nothing may be lost by that.
    fn look(&mut self) {
        if self.ended {
            return;
        }
        let found = pin!(self.body.next()).poll(&mut Context::from_waker(Waker::noop()));
        match found {
            Poll::Ready(Ok(Some(chunk))) => self.bytes.extend_from_slice(&chunk),
            Poll::Ready(Ok(None)) => self.ended = true,
            Poll::Ready(Err(error)) => panic!("nothing has failed yet: {error}"),
            Poll::Pending => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn every_follower_sees_a_prefix_and_never_a_false_end(
        steps in proptest::collection::vec(step(), 1..24),
        is_announced in any::<bool>(),
        ending in prop_oneof![Just(Ending::Whole), Just(Ending::Fails), Just(Ending::Aborted)],
        limit in prop_oneof![3 => Just(u64::MAX), 1 => 0..600_000_u64],
    ) {
        let total: usize =
            steps.iter().map(|step| if let Step::Arrive(count) = step { *count } else { 0 }).sum();
        let whole = bytes(total);
        let succeeds = ending == Ending::Whole && total as u64 <= limit;
        runtime().block_on(async {
            let mut stage = Stage::set(is_announced.then_some(total as u64), limit).await;
            let mut followers: Vec<Seen> = Vec::new();
            let mut arrived = 0;
            for step in &steps {
                match *step {
                    Step::Arrive(count) => {
                        stage.send(whole.slice(arrived..arrived + count));
                        arrived += count;
                    }
                    Step::Join(range) => {
                        let body = stage.arrival.follow();
                        let (first, length) = range.unwrap_or((0, u64::MAX));
                        let body = if range.is_some() { body.range(first, length) } else { body };
                        let until = first.saturating_add(length).min(total as u64) as usize;
                        let first = (first as usize).min(until);
                        followers.push(Seen {
                            body,
                            is_range: range.is_some(),
                            first,
                            until,
                            bytes: Vec::new(),
                            ended: false,
                        });
                    }
                    Step::Look(index) if stage.arrival.failure().is_none() => {
                        if let Some(follower) = followers.get_mut(index) {
                            follower.look();
                        }
                    }
                    Step::Look(_) => {}
                    Step::Leave(index) => {
                        if index < followers.len() {
                            followers.remove(index);
                        }
                    }
                    Step::Rest => {
                        for _ in 0..10 {
                            tokio::task::yield_now().await;
                        }
                    }
                }
            }
            match ending {
                Ending::Whole => stage.end(),
                Ending::Fails => stage.fail(BodyError::Gone),
                Ending::Aborted => stage.writer.abort(),
            }
            for mut follower in followers {
                let rest = if follower.ended {
                    Ok(())
                } else {
                    let (rest, end) = read(&mut follower.body).await;
                    follower.bytes.extend_from_slice(&rest);
                    end
                };
                let expected = &whole[follower.first..follower.until];
                assert!(expected.starts_with(&follower.bytes), "not a prefix");
                match rest {
                    Ok(()) => assert!(follower.bytes == expected, "a false end"),
                    Err(_) => assert!(!succeeds, "a whole body broke off"),
                }
                // A range that does not reach a known end says nothing of it.
                let may_end_early = follower.is_range && (follower.until < total || !is_announced);
                assert!(succeeds || rest.is_err() || may_end_early, "an end that is not kept");
            }
            let written = stage.writer.await.is_ok_and(|end| end.is_ok());
            let kept = stage.store.media(&stage.arrival.media.mxc).unwrap();
            assert_eq!((written, kept.is_some()), (succeeds, succeeds));
        });
    }
}
