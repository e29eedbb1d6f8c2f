use super::*;
use crate::thumbnail::samples;
use crate::types::{ThumbnailEncoding, ThumbnailMethod, ThumbnailSize};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// A queue with the desks of keepers that never come: tests take the work themselves.
struct Office {
    queue: Arc<Queue>,
    desks: Vec<Arc<Desk>>,
    waiting: IntGauge,
}

impl Office {
    fn new(workers: usize, queue: usize) -> Self {
        let desks: Vec<_> = (0..workers).map(|_| Arc::new(Desk::new().unwrap())).collect();
        let waiting = IntGauge::new("waiting", "for tests").unwrap();
        let capacity = Capacity { workers, queue };
        Self { queue: Queue::new(capacity, desks.clone(), waiting.clone()), desks, waiting }
    }

    /// Lets every keeper offer its desk.
    fn opened(workers: usize, queue: usize) -> Self {
        let office = Self::new(workers, queue);
        office.desks.iter().for_each(|desk| office.queue.offer(desk));
        office
    }

    fn enter(&self, content: u8, side: u32) -> Result<Place, ThumbnailError> {
        self.queue.enter(hash(content), &[spec(side)], Urgency::Client)
    }

    fn enter_behind(&self, content: u8) -> Place {
        self.queue.enter(hash(content), &[spec(1)], Urgency::Background).unwrap()
    }

    /// Takes the work that lies on any desk.
    fn work(&self) -> Option<Work> {
        self.desks.iter().find_map(|desk| desk.take())
    }
}

fn hash(content: u8) -> ContentHash {
    ContentHash([content; 32])
}

fn spec(side: u32) -> ThumbnailSpec {
    ThumbnailSpec {
        size: ThumbnailSize { width: side, height: side },
        method: ThumbnailMethod::Crop,
        animated: false,
        encoding: ThumbnailEncoding::Universal,
    }
}

fn made(side: u32) -> Rendered {
    let size = ThumbnailSize { width: side, height: side };
    Rendered::Encoded { bytes: vec![side as u8], content_type: "image/png", size }
}

fn call(place: &mut Place) -> Option<Call> {
    match pin!(place.call()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(call) => Some(call),
        Poll::Pending => None,
    }
}

#[track_caller]
fn turn(place: &mut Place) -> Turn {
    match call(place) {
        Some(Call::Turn(turn)) => turn,
        other => panic!("no turn, but {other:?}"),
    }
}

#[track_caller]
fn answer(place: &mut Place) -> Result<Vec<Rendered>, ThumbnailError> {
    match call(place) {
        Some(Call::Answer(answer)) => answer,
        other => panic!("no answer, but {other:?}"),
    }
}

#[test]
fn without_workers_nobody_gets_in() {
    assert!(matches!(Office::new(0, 5).enter(1, 1), Err(ThumbnailError::Busy)));
}

#[test]
fn past_the_queue_is_busy_and_who_leaves_makes_room() {
    let office = Office::new(1, 2);
    let first = office.enter(1, 1).unwrap();
    let _second = office.enter(2, 1).unwrap();
    assert!(matches!(office.enter(3, 1), Err(ThumbnailError::Busy)));
    // Not even with somebody who waits already: each holds memory and a connection.
    assert!(matches!(office.enter(1, 2), Err(ThumbnailError::Busy)));
    assert_eq!(office.waiting.get(), 2);
    drop(first);
    assert_eq!(office.waiting.get(), 1);
    assert!(office.enter(3, 1).is_ok());
}

#[test]
fn a_free_worker_is_taken_even_where_nobody_may_wait() {
    let office = Office::opened(2, 0);
    let mut first = office.enter(1, 1).unwrap();
    let mut second = office.enter(1, 2).unwrap();
    let _turns = [turn(&mut first), turn(&mut second)];
    assert!(matches!(office.enter(1, 3), Err(ThumbnailError::Busy)));
}

#[test]
fn more_thumbnails_at_once_than_a_packet_holds_are_refused() {
    let office = Office::opened(1, 1);
    let specs: Vec<_> = (1..=MAX_SPECS as u32 + 1).map(spec).collect();
    let refused = office.queue.enter(hash(1), &specs, Urgency::Client);
    assert!(matches!(refused, Err(ThumbnailError::TooLarge(_))), "{refused:?}");
}

#[test]
fn the_source_is_opened_only_when_its_turn_comes() {
    let office = Office::new(1, 1);
    let mut place = office.enter(1, 1).unwrap();
    assert!(call(&mut place).is_none());
    office.queue.offer(&office.desks[0]);
    turn(&mut place).lay_down(samples::file(b"source"));
    let work = office.work().expect("it was laid down");
    assert_eq!(work.specs, [spec(1)]);
    work.answer(Ok(vec![made(1)]));
    assert_eq!(answer(&mut place).unwrap(), [made(1)]);
}

#[test]
fn sizes_of_one_content_that_wait_together_are_one_piece_of_work() {
    let office = Office::new(1, 9);
    let mut first = office.enter(1, 1).unwrap();
    let mut other = office.enter(2, 1).unwrap();
    let mut second = office.enter(1, 2).unwrap();
    let mut same = office.enter(1, 1).unwrap();
    office.queue.offer(&office.desks[0]);
    let opening = turn(&mut first);
    // Even those that come while the source is being opened.
    let mut late = office.enter(1, 3).unwrap();
    opening.lay_down(samples::file(b""));
    let work = office.work().expect("it was laid down");
    assert_eq!(work.specs, [spec(1), spec(2), spec(3)]);
    work.answer(Ok(vec![made(1), made(2), made(3)]));
    for (place, side) in [(&mut first, 1), (&mut second, 2), (&mut same, 1), (&mut late, 3)] {
        assert_eq!(answer(place).unwrap(), [made(side)]);
    }
    assert!(call(&mut other).is_none());
}

#[test]
fn what_may_move_is_work_of_its_own() {
    let office = Office::opened(2, 9);
    let moving = ThumbnailSpec { animated: true, ..spec(8) };
    let mut still = office.enter(1, 16).unwrap();
    let mut first = office.queue.enter(hash(1), &[moving], Urgency::Client).unwrap();
    let (other, smaller) = (office.enter(1, 8), ThumbnailSpec { animated: true, ..spec(4) });
    let joined = office.queue.enter(hash(1), &[smaller], Urgency::Client);
    turn(&mut still).lay_down(samples::file(b""));
    assert_eq!(office.work().unwrap().specs, [spec(16), spec(8)]);
    turn(&mut first).lay_down(samples::file(b""));
    assert_eq!(office.work().unwrap().specs, [moving, smaller]);
    drop((other, joined));
}

#[test]
fn a_failure_is_told_to_everybody() {
    let office = Office::opened(1, 9);
    let mut first = office.enter(1, 1).unwrap();
    let opening = turn(&mut first);
    let mut second = office.enter(1, 2).unwrap();
    opening.lay_down(samples::file(b""));
    office.work().expect("it was laid down").answer(Err(ThumbnailError::TimedOut));
    for place in [&mut first, &mut second] {
        assert!(matches!(answer(place), Err(ThumbnailError::TimedOut)));
    }
}

#[test]
fn who_comes_when_the_work_has_begun_is_work_of_its_own() {
    let office = Office::opened(1, 9);
    let mut first = office.enter(1, 1).unwrap();
    turn(&mut first).lay_down(samples::file(b""));
    let mut second = office.enter(1, 2).unwrap();
    office.work().expect("it was laid down").answer(Ok(vec![made(1)]));
    assert!(answer(&mut first).is_ok());
    assert!(call(&mut second).is_none());
    office.queue.offer(&office.desks[0]);
    let _turn = turn(&mut second);
}

#[test]
fn if_the_first_cannot_open_the_source_the_next_takes_over() {
    let office = Office::opened(1, 9);
    let mut first = office.enter(1, 1).unwrap();
    let failing = turn(&mut first);
    let mut second = office.enter(1, 2).unwrap();
    assert!(call(&mut second).is_none());
    drop(failing);
    drop(first);
    turn(&mut second).lay_down(samples::file(b""));
    assert_eq!(office.work().expect("it was laid down").specs, [spec(2)]);
}

#[test]
fn if_the_first_leaves_without_looking_the_next_takes_over() {
    let office = Office::opened(1, 9);
    let first = office.enter(1, 1).unwrap();
    let mut second = office.enter(1, 2).unwrap();
    assert!(call(&mut second).is_none());
    drop(first);
    let _turn = turn(&mut second);
}

#[test]
fn a_desk_that_nobody_wants_any_more_is_free_for_others() {
    let office = Office::opened(1, 0);
    drop(office.enter(1, 1).unwrap());
    let mut place = office.enter(2, 1).unwrap();
    let held = turn(&mut place);
    drop(place);
    drop(held);
    let mut place = office.enter(3, 1).unwrap();
    let _turn = turn(&mut place);
}

#[test]
fn clients_go_before_work_that_nobody_waits_for_and_else_it_goes_by_arrival() {
    let office = Office::new(1, 9);
    let mut behind = [office.enter_behind(1), office.enter_behind(2)];
    let mut clients = [office.enter(3, 1).unwrap(), office.enter(4, 1).unwrap()];
    // A client makes the work urgent that others have begun to wait for.
    let mut joined = office.enter(2, 2).unwrap();
    let mut expect = |place: &mut Place| {
        office.queue.offer(&office.desks[0]);
        turn(place).lay_down(samples::file(b""));
        office.work().expect("it was laid down").answer(Err(ThumbnailError::Unsupported));
        assert!(answer(place).is_err());
    };
    expect(&mut behind[1]);
    assert!(answer(&mut joined).is_err());
    clients.iter_mut().for_each(&mut expect);
    expect(&mut behind[0]);
}

#[test]
fn a_desk_can_be_withdrawn_until_somebody_has_it() {
    let office = Office::opened(1, 1);
    assert!(office.queue.withdraw(&office.desks[0]));
    assert!(!office.queue.withdraw(&office.desks[0]));
    let mut place = office.enter(1, 1).unwrap();
    assert!(call(&mut place).is_none());
    office.queue.offer(&office.desks[0]);
    assert!(!office.queue.withdraw(&office.desks[0]));
    let _turn = turn(&mut place);
}

#[test]
fn where_no_keeper_has_a_worker_nobody_waits_in_vain() {
    let office = Office::new(2, 9);
    let mut waiting = office.enter(1, 1).unwrap();
    office.queue.unable();
    assert!(call(&mut waiting).is_none());
    office.queue.unable();
    assert!(matches!(answer(&mut waiting), Err(ThumbnailError::Unavailable)));
    assert!(matches!(office.enter(1, 1), Err(ThumbnailError::Unavailable)));
    office.queue.able();
    assert!(office.enter(1, 1).is_ok());
}

#[test]
fn at_the_end_everybody_is_sent_away() {
    let office = Office::opened(1, 9);
    let mut working = office.enter(1, 1).unwrap();
    let held = turn(&mut working);
    let mut waiting = office.enter(2, 1).unwrap();
    office.queue.close();
    assert!(matches!(answer(&mut waiting), Err(ThumbnailError::Busy)));
    assert!(matches!(office.enter(3, 1), Err(ThumbnailError::Busy)));
    // Work whose keeper is gone is an answer as well.
    held.lay_down(samples::file(b""));
    drop(office.work());
    assert!(matches!(answer(&mut working), Err(ThumbnailError::Busy)));
}

mod random {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Enter(u8, bool),
        Leave(usize),
        Hear(usize),
        LayDown(usize),
        Refuse(usize),
        Work,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..4_u8, any::<bool>()).prop_map(|(content, client)| Step::Enter(content, client)),
            (0..8_usize).prop_map(Step::Leave),
            (0..8_usize).prop_map(Step::Hear),
            (0..8_usize).prop_map(Step::LayDown),
            (0..8_usize).prop_map(Step::Refuse),
            Just(Step::Work),
        ]
    }

    proptest! {
        /// Whoever comes, leaves, fails and works in whatever order: no desk is lost, and in the end
        /// everybody has been answered.
        #[test]
        fn no_desk_is_lost(steps in proptest::collection::vec(step(), 0..60)) {
            let office = Office::opened(2, 4);
            let mut places: Vec<Place> = Vec::new();
            let mut turns: Vec<Turn> = Vec::new();
            let work = |office: &Office| {
                for desk in &office.desks {
                    if let Some(work) = desk.take() {
                        work.answer(Err(ThumbnailError::Unsupported));
                        office.queue.offer(desk);
                    }
                }
            };
            for step in steps {
                match step {
                    Step::Enter(content, client) => {
                        let urgency = if client { Urgency::Client } else { Urgency::Background };
                        places.extend(office.queue.enter(hash(content), &[spec(1)], urgency));
                    }
                    Step::Leave(at) if at < places.len() => drop(places.remove(at)),
                    Step::Hear(at) if at < places.len() => match call(&mut places[at]) {
                        Some(Call::Turn(turn)) => turns.push(turn),
                        Some(Call::Answer(_)) => drop(places.remove(at)),
                        None => {}
                    },
                    Step::LayDown(at) if at < turns.len() => {
                        turns.remove(at).lay_down(samples::file(b""));
                    }
                    Step::Refuse(at) if at < turns.len() => drop(turns.remove(at)),
                    Step::Work => work(&office),
                    _ => {}
                }
                prop_assert!(office.queue.lock().waiting() <= 4);
            }
            turns.clear();
            while !places.is_empty() {
                let before = places.len();
                places.retain_mut(|place| match call(place) {
                    Some(Call::Turn(turn)) => {
                        turn.lay_down(samples::file(b""));
                        true
                    }
                    Some(Call::Answer(_)) => false,
                    None => true,
                });
                let is_working = office.queue.lock().idle.len() < 2;
                work(&office);
                prop_assert!(is_working || places.len() < before, "somebody waits in vain");
            }
            work(&office);
            let state = office.queue.lock();
            prop_assert_eq!((state.idle.len(), state.parties.len()), (2, 0));
        }
    }
}
