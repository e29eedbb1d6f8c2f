//! Who waits is counted exactly, gets what was announced however late it looks, and leaves nothing
//! behind.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::media::Once;
use crate::media::incoming::Cap;
use crate::media::incoming::Incoming;
use crate::store::{MediaSource, NewMedia, Store};
use crate::types::{ContentType, Mxc, UnixMillis};

fn board() -> Arc<Board> {
    Board::new(IntGauge::new("waiting", "waiting").unwrap())
}

fn id(name: impl ToString) -> MediaId {
    name.to_string().parse().unwrap()
}

fn user(name: impl ToString) -> Waiter {
    Waiter::User(format!("@{}:example.org", name.to_string()).parse().unwrap())
}

/// A store to upload to.
struct Uploads {
    store: Store,
    count: usize,
    _directory: TempDir,
}

impl Uploads {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let store = Store::open(directory.path()).unwrap();
        Self { store, count: 0, _directory: directory }
    }

    async fn begin(&mut self) -> Incoming {
        self.count += 1;
        let media = NewMedia {
            mxc: Mxc { server_name: "example.org".parse().unwrap(), media_id: id(self.count) },
            content_type: ContentType::from_header(None),
            filename: None,
            uploader: None,
            source: MediaSource::Owned,
            created_at: UnixMillis(0),
            legacy_readable: false,
        };
        Incoming::uploaded(self.store.stage().await.unwrap(), media, None)
    }

    async fn keep(&self, incoming: Incoming) {
        incoming.take(&mut Once(None), Cap::of(0), &self.store, || {}).await.unwrap();
    }
}

/// Looks once whether an upload has begun.
fn look(waiting: &mut Waiting) -> Option<Arc<Arrival>> {
    match pin!(waiting.begun()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(arrival) => Some(arrival),
        Poll::Pending => None,
    }
}

impl Board {
    /// Holds every count against the others and returns how many wait.
    fn count(&self) -> usize {
        let state = self.state();
        let by_id: usize = state.notices.values().flat_map(|notice| notice.waiting).sum();
        let by_waiter: usize = state.waiters.values().sum();
        assert_eq!((by_id, by_waiter), (state.waiting, state.waiting));
        assert_eq!(self.waiting.get(), state.waiting as i64);
        assert!(state.waiters.values().all(|count| *count > 0), "a waiter without a request");
        let is_idle = |notice: &Notice| !notice.claimed && notice.waiting == [0; KINDS];
        assert!(!state.notices.values().any(is_idle), "a notice that says nothing");
        state.waiting
    }

    fn is_empty(&self) -> bool {
        self.count() == 0 && self.state().notices.is_empty()
    }
}

#[tokio::test]
async fn who_looks_late_still_finds_an_upload_that_came_to_its_end() {
    let (board, mut uploads) = (board(), Uploads::new());
    let mut late = board.wait(&id("a"), user("alice")).unwrap();
    let incoming = uploads.begin().await;
    let arrival = Arc::clone(incoming.arrival());
    let claim = board.claim(&id("a")).unwrap();
    assert!(look(&mut late).is_none());
    claim.announce(&arrival);
    uploads.keep(incoming).await;
    drop(claim);
    assert!(Arc::ptr_eq(&look(&mut late).expect("the upload"), &arrival));
    drop(late);
    assert!(board.is_empty());
}

#[tokio::test]
async fn who_looks_late_at_an_upload_that_failed_waits_for_the_next() {
    let (board, mut uploads) = (board(), Uploads::new());
    let mut waiting = board.wait(&id("a"), user("alice")).unwrap();
    for _ in 0..3 {
        let incoming = uploads.begin().await;
        let claim = board.claim(&id("a")).unwrap();
        claim.announce(incoming.arrival());
        assert!(board.under_way(&id("a")).is_some());
        drop(incoming);
        assert!(board.under_way(&id("a")).is_none(), "failed, and still claimed");
        assert!(look(&mut waiting).is_none());
        drop(claim);
        assert!(look(&mut waiting).is_none());
    }
    let incoming = uploads.begin().await;
    let claim = board.claim(&id("a")).unwrap();
    claim.announce(incoming.arrival());
    assert!(look(&mut waiting).is_some());
    drop((claim, waiting));
    assert!(board.is_empty());
}

#[test]
fn an_id_is_claimed_by_one_at_a_time() {
    let board = board();
    let claim = board.claim(&id("a")).unwrap();
    assert!(board.claim(&id("a")).is_none());
    assert!(board.claim(&id("b")).is_some());
    drop(claim);
    assert!(board.claim(&id("a")).is_some());
    assert!(board.is_empty());
}

#[test]
fn every_bound_is_met_exactly_and_a_place_that_was_left_is_free() {
    let assert_full = |refused: Result<Waiting, MediaError>| {
        assert!(matches!(refused, Err(MediaError::TooManyWaiting)));
    };
    let board = board();
    let of_alice: Vec<Waiting> = (0..MAX_WAITING_OF_USER)
        .map(|number| board.wait(&id(number), user("alice")).unwrap())
        .collect();
    assert_full(board.wait(&id("a"), user("alice")));
    drop(of_alice);

    let mut for_one: Vec<Waiting> = (0..MAX_WAITING_FOR_ONE)
        .map(|number| board.wait(&id("a"), user(number)).unwrap())
        .collect();
    assert_full(board.wait(&id("a"), user("alice")));
    for stranger in [Waiter::Anybody, Waiter::Origin] {
        drop(board.wait(&id("a"), stranger).expect("users take no stranger's place"));
    }
    board.wait(&id("b"), user("alice")).unwrap();
    for_one.pop();
    for_one.push(board.wait(&id("a"), user("alice")).unwrap());

    let mut all = for_one;
    for number in all.len()..MAX_WAITING {
        all.push(board.wait(&id(number), user(number)).unwrap());
    }
    assert_eq!(board.count(), MAX_WAITING);
    for waiter in [user("bob"), Waiter::Anybody, Waiter::Origin] {
        assert_full(board.wait(&id("c"), waiter));
    }
    assert!(board.claim(&id("c")).is_some(), "uploads take no place");
    all.pop();
    board.wait(&id("c"), Waiter::Origin).unwrap();
    drop(all);
    assert!(board.is_empty());
}

#[test]
fn strangers_and_other_servers_have_a_share_each() {
    for waiter in [Waiter::Anybody, Waiter::Origin] {
        let board = board();
        let all: Vec<Waiting> = (0..MAX_WAITING_OF_STRANGERS)
            .map(|number| board.wait(&id(number), waiter.clone()).unwrap())
            .collect();
        assert!(board.wait(&id("a"), waiter).is_err());
        board.wait(&id("a"), user("alice")).unwrap();
        drop(all);
        assert!(board.is_empty());
    }
}

/// What happens next. Numbers choose among what is there.
#[derive(Debug, Clone)]
enum Step {
    Claim { id: usize },
    Announce { upload: usize },
    Keep { upload: usize },
    Fail { upload: usize },
    Unclaim { upload: usize },
    Wait { id: usize, user: usize },
    Look { reader: usize },
    Leave { reader: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let ids = 0..3_usize;
    let any = 0..100_usize;
    prop_oneof![
        3 => ids.clone().prop_map(|id| Step::Claim { id }),
        3 => any.clone().prop_map(|upload| Step::Announce { upload }),
        1 => any.clone().prop_map(|upload| Step::Keep { upload }),
        1 => any.clone().prop_map(|upload| Step::Fail { upload }),
        2 => any.clone().prop_map(|upload| Step::Unclaim { upload }),
        4 => (ids, 0..3_usize).prop_map(|(id, user)| Step::Wait { id, user }),
        4 => any.clone().prop_map(|reader| Step::Look { reader }),
        2 => any.prop_map(|reader| Step::Leave { reader }),
    ]
}

/// An upload as the test holds it.
struct Upload {
    id: usize,
    claim: Claim,
    incoming: Option<Incoming>,
    arrival: Arc<Arrival>,
}

/// What a board should hold.
#[derive(Default)]
struct Model {
    uploads: Vec<Upload>,
    readers: Vec<(usize, Waiting)>,
    /// What was announced last, as long as somebody uploads or waits.
    announced: HashMap<usize, Arc<Arrival>>,
}

impl Model {
    fn is_claimed(&self, id: usize) -> bool {
        self.uploads.iter().any(|upload| upload.id == id)
    }

    fn tidy(&mut self, id: usize) {
        if !self.is_claimed(id) && !self.readers.iter().any(|(other, _)| *other == id) {
            self.announced.remove(&id);
        }
    }

    /// Returns what a reader of an id is to find.
    fn found(&self, id: usize) -> Option<&Arc<Arrival>> {
        self.announced.get(&id).filter(|arrival| arrival.failure().is_none())
    }

    async fn go(&mut self, step: &Step, board: &Arc<Board>, uploads: &mut Uploads) {
        let pick = |number: usize, length: usize| (length > 0).then(|| number % length.max(1));
        match *step {
            Step::Claim { id: number } => {
                let claim = board.claim(&id(number));
                assert_eq!(claim.is_none(), self.is_claimed(number));
                if let Some(claim) = claim {
                    let incoming = uploads.begin().await;
                    let arrival = Arc::clone(incoming.arrival());
                    self.uploads.push(Upload {
                        id: number,
                        claim,
                        incoming: Some(incoming),
                        arrival,
                    });
                }
            }
            Step::Announce { upload } => {
                let Some(index) = pick(upload, self.uploads.len()) else { return };
                let upload = &self.uploads[index];
                upload.claim.announce(&upload.arrival);
                self.announced.insert(upload.id, Arc::clone(&upload.arrival));
            }
            Step::Keep { upload } => {
                let Some(index) = pick(upload, self.uploads.len()) else { return };
                if let Some(incoming) = self.uploads[index].incoming.take() {
                    uploads.keep(incoming).await;
                }
            }
            Step::Fail { upload } => {
                let Some(index) = pick(upload, self.uploads.len()) else { return };
                self.uploads[index].incoming = None;
            }
            Step::Unclaim { upload } => {
                let Some(index) = pick(upload, self.uploads.len()) else { return };
                let Upload { id, claim, arrival, .. } = self.uploads.remove(index);
                drop(claim);
                if !arrival.is_kept() && self.announced.get(&id).is_some_and(|a| !a.is_kept()) {
                    self.announced.remove(&id);
                }
                self.tidy(id);
            }
            Step::Wait { id: number, user: name } => {
                if let Ok(waiting) = board.wait(&id(number), user(name)) {
                    self.readers.push((number, waiting));
                }
            }
            Step::Look { reader } => {
                let Some(index) = pick(reader, self.readers.len()) else { return };
                let (id, mut waiting) = self.readers.swap_remove(index);
                let (seen, due) = (look(&mut waiting), self.found(id));
                assert_eq!(seen.as_ref().map(Arc::as_ptr), due.map(Arc::as_ptr));
                self.readers.push((id, waiting));
            }
            Step::Leave { reader } => {
                let Some(index) = pick(reader, self.readers.len()) else { return };
                let (id, waiting) = self.readers.remove(index);
                drop(waiting);
                self.tidy(id);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn after_any_sequence_of_uploads_and_waits_the_counts_are_exact(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (board, mut uploads) = (board(), Uploads::new());
            let mut model = Model::default();
            for step in &steps {
                model.go(step, &board, &mut uploads).await;
                assert_eq!(board.count(), model.readers.len());
                for number in 0..3 {
                    let found = board.under_way(&id(number));
                    let due = model.found(number);
                    assert_eq!(found.as_ref().map(Arc::as_ptr), due.map(Arc::as_ptr));
                }
            }
            model.uploads.clear();
            assert_eq!(board.count(), model.readers.len());
            model.readers.clear();
            assert!(board.is_empty());
        });
    }
}
