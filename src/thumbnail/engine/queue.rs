//! Who waits for which thumbnails, and whose turn it is.
//!
//! Requests of one content stand together and become one piece of work. A free worker's desk is given
//! to those that have waited longest, clients before everybody else; the first of them opens the source
//! and lays down the work. If that fails, or the caller leaves, the next takes over.

use std::cmp::Reverse;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::IntGauge;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::desk::{Desk, Work};
use super::{Capacity, Urgency};
use crate::thumbnail::error::ThumbnailError;
use crate::thumbnail::job::Rendered;
use crate::thumbnail::worker::protocol::MAX_SPECS;
use crate::types::{ContentHash, ThumbnailSpec};

/// What a caller who waits is told.
#[derive(Debug)]
pub(super) enum Call {
    /// It is this caller's turn to open the source.
    Turn(Turn),
    /// What came of it.
    Answer(Result<Vec<Rendered>, ThumbnailError>),
}

/// All who wait, and all desks.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    capacity: Capacity,
    waiting: IntGauge,
}

#[derive(Debug, Default)]
struct State {
    /// In the order of arrival.
    parties: Vec<Party>,
    /// Desks that nobody has been given; the last one left is the first taken, for it is warm.
    idle: Vec<Arc<Desk>>,
    /// All desks, to ring at the end.
    desks: Vec<Arc<Desk>>,
    /// How many keepers have no worker and cannot start one.
    unable: usize,
    next_id: u64,
    closed: bool,
}

/// All who wait for thumbnails of one content; one without callers has a desk that is on its way back.
#[derive(Debug)]
struct Party {
    content: ContentHash,
    /// That of the most urgent of them, ever.
    urgency: Urgency,
    callers: Vec<Caller>,
    /// Who has been given a desk for all of them.
    turn: Option<u64>,
}

#[derive(Debug)]
struct Caller {
    id: u64,
    specs: Vec<ThumbnailSpec>,
    calls: UnboundedSender<Call>,
}

/// A desk that has been given to a party, to be told to one of it once the lock is released.
struct Grant {
    calls: UnboundedSender<Call>,
    caller: u64,
    desk: Arc<Desk>,
}

impl State {
    /// How many wait: all but those who are opening their source.
    fn waiting(&self) -> usize {
        let waiting = |party: &Party| {
            party.callers.iter().filter(|caller| party.turn != Some(caller.id)).count()
        };
        self.parties.iter().map(waiting).sum()
    }

    /// Finds those who wait for the same content, if there is room in their work. Who asks for what moves
    /// stands apart: it costs so much more that it might fail the others, who all are told one error.
    fn joinable(&mut self, content: ContentHash, specs: &[ThumbnailSpec]) -> Option<&mut Party> {
        let has_room = |party: &Party| {
            let asked: usize = party.callers.iter().map(|caller| caller.specs.len()).sum();
            asked + specs.len() <= MAX_SPECS
        };
        let is_alike =
            |party: &Party| party.callers.iter().all(|caller| moves(&caller.specs) == moves(specs));
        let mut parties = self.parties.iter_mut();
        parties.find(|party| party.content == content && has_room(party) && is_alike(party))
    }

    /// Gives free desks to those whose turn it is.
    fn grants(&mut self) -> Vec<Grant> {
        let mut grants = Vec::new();
        while let Some(party) = self.next_party() {
            let Some(desk) = self.idle.pop() else { break };
            let party = &mut self.parties[party];
            let first = &party.callers[0];
            party.turn = Some(first.id);
            grants.push(Grant { calls: first.calls.clone(), caller: first.id, desk });
        }
        grants
    }

    /// Finds the most urgent party without a desk; of several the one that came first.
    fn next_party(&self) -> Option<usize> {
        let parties = self.parties.iter().enumerate();
        let waiting = parties.filter(|(_, party)| party.turn.is_none());
        waiting.min_by_key(|(_, party)| Reverse(party.urgency)).map(|(index, _)| index)
    }

    /// Takes a caller out. A party whose desk is on its way stays until that comes back.
    fn remove(&mut self, id: u64) {
        for party in &mut self.parties {
            party.callers.retain(|caller| caller.id != id);
        }
        self.parties.retain(|party| !party.callers.is_empty() || party.turn.is_some());
    }

    /// Takes out everybody who has no turn.
    fn take_turnless(&mut self) -> Vec<Caller> {
        let (turnless, rest) =
            std::mem::take(&mut self.parties).into_iter().partition(|party| party.turn.is_none());
        self.parties = rest;
        let turnless: Vec<Party> = turnless;
        turnless.into_iter().flat_map(|party| party.callers).collect()
    }
}

impl Queue {
    pub(super) fn new(capacity: Capacity, desks: Vec<Arc<Desk>>, waiting: IntGauge) -> Arc<Self> {
        let state = State { desks, ..State::default() };
        Arc::new(Self { state: Mutex::new(state), capacity, waiting })
    }

    /// Takes a place for thumbnails of one content.
    ///
    /// # Errors
    ///
    /// `Busy` if no worker is free and all places are taken, `Unavailable` if there are no workers and
    /// none can be started, `TooLarge` if that is more than one piece of work.
    pub(super) fn enter(
        self: &Arc<Self>,
        content: ContentHash,
        specs: &[ThumbnailSpec],
        urgency: Urgency,
    ) -> Result<Place, ThumbnailError> {
        if specs.len() > MAX_SPECS {
            return Err(ThumbnailError::TooLarge(format!("{} thumbnails at once", specs.len())));
        }
        let (calls, receiver) = unbounded_channel();
        let (id, grants) = {
            let mut state = self.lock();
            if state.closed || self.capacity.workers == 0 {
                return Err(ThumbnailError::Busy);
            }
            if state.unable >= self.capacity.workers {
                return Err(ThumbnailError::Unavailable);
            }
            let is_full = state.waiting() >= self.capacity.queue;
            if is_full && state.idle.is_empty() {
                return Err(ThumbnailError::Busy);
            }
            let id = state.next_id;
            state.next_id += 1;
            let caller = Caller { id, specs: specs.to_vec(), calls };
            // Who finds no place to wait takes the free worker.
            let party = if is_full { None } else { state.joinable(content, specs) };
            match party {
                Some(party) => {
                    party.urgency = party.urgency.max(urgency);
                    party.callers.push(caller);
                }
                None => {
                    let callers = vec![caller];
                    state.parties.push(Party { content, urgency, callers, turn: None });
                }
            }
            (id, self.settled(&mut state))
        };
        self.tell(grants);
        Ok(Place { queue: Arc::clone(self), id, calls: receiver })
    }

    /// Offers the desk of a keeper that is ready for work.
    pub(super) fn offer(self: &Arc<Self>, desk: &Arc<Desk>) {
        let grants = {
            let mut state = self.lock();
            state.idle.push(Arc::clone(desk));
            self.settled(&mut state)
        };
        self.tell(grants);
    }

    /// Takes a desk back that nobody has been given yet; returns whether that was so.
    pub(super) fn withdraw(&self, desk: &Arc<Desk>) -> bool {
        let mut state = self.lock();
        let found = state.idle.iter().position(|idle| Arc::ptr_eq(idle, desk));
        found.map(|index| state.idle.remove(index)).is_some()
    }

    /// Counts a keeper that cannot start a worker, until [`able`](Self::able). If it is the last one,
    /// nobody waits in vain.
    pub(super) fn unable(&self) {
        let callers = {
            let mut state = self.lock();
            state.unable += 1;
            let are_all = state.unable >= self.capacity.workers;
            let callers = if are_all { state.take_turnless() } else { Vec::new() };
            self.waiting.set(state.waiting() as i64);
            callers
        };
        for caller in callers {
            let _ = caller.calls.send(Call::Answer(Err(ThumbnailError::Unavailable)));
        }
    }

    /// Counts a keeper no longer that has started a worker after all.
    pub(super) fn able(&self) {
        let mut state = self.lock();
        state.unable = state.unable.saturating_sub(1);
    }

    /// Lets nobody in any more, sends everybody away who waits, and wakes all keepers.
    pub(super) fn close(&self) {
        let (callers, desks) = {
            let mut state = self.lock();
            state.closed = true;
            state.idle.clear();
            (state.take_turnless(), std::mem::take(&mut state.desks))
        };
        for caller in callers {
            let _ = caller.calls.send(Call::Answer(Err(ThumbnailError::Busy)));
        }
        desks.iter().for_each(|desk| desk.ring());
    }

    /// Returns whether it has been closed.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Brings everything in order after a change.
    fn settled(&self, state: &mut State) -> Vec<Grant> {
        let grants = if state.closed { Vec::new() } else { state.grants() };
        self.waiting.set(state.waiting() as i64);
        grants
    }

    /// Tells callers that it is their turn. Never under the lock: a turn that nobody takes comes back.
    fn tell(self: &Arc<Self>, grants: Vec<Grant>) {
        for Grant { calls, caller, desk } in grants {
            let turn = Turn { queue: Arc::clone(self), caller, desk: Some(desk) };
            let _ = calls.send(Call::Turn(turn));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A caller's place; it is free when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    queue: Arc<Queue>,
    id: u64,
    calls: UnboundedReceiver<Call>,
}

impl Place {
    /// Waits for the caller's turn or the answer.
    pub(super) async fn call(&mut self) -> Call {
        // Whoever had the work is gone with it: the process is ending.
        self.calls.recv().await.unwrap_or(Call::Answer(Err(ThumbnailError::Busy)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.remove(self.id);
        self.queue.waiting.set(state.waiting() as i64);
    }
}

/// The right and the duty to open a source for all who wait for it. Dropped, it goes to the next one.
#[derive(Debug)]
pub(super) struct Turn {
    queue: Arc<Queue>,
    caller: u64,
    /// There until it is used.
    desk: Option<Arc<Desk>>,
}

impl Turn {
    /// Has the thumbnails made that everybody in the party asked for.
    pub(super) fn lay_down(mut self, source: File) {
        let party = {
            let mut state = self.queue.lock();
            let held = state.parties.iter().position(|party| party.turn == Some(self.caller));
            let party = held.map(|index| state.parties.remove(index));
            self.queue.waiting.set(state.waiting() as i64);
            party
        };
        let (Some(party), Some(desk)) = (party, self.desk.take()) else { return };
        let mut work = Work { source, specs: Vec::new(), askers: Vec::new() };
        for caller in party.callers {
            let wanted = caller.specs.iter().map(|spec| index_of(&mut work.specs, spec)).collect();
            work.askers.push((caller.calls, wanted));
        }
        desk.put(work);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(desk) = self.desk.take() else { return };
        let grants = {
            let mut state = self.queue.lock();
            for party in &mut state.parties {
                party.turn.take_if(|holder| *holder == self.caller);
            }
            state.remove(self.caller);
            if !state.closed {
                state.idle.push(desk);
            }
            self.queue.settled(&mut state)
        };
        self.queue.tell(grants);
    }
}

/// Returns whether any of these may move.
fn moves(specs: &[ThumbnailSpec]) -> bool {
    specs.iter().any(|spec| spec.animated)
}

/// Returns where a spec stands in a list, which it is added to if it does not.
fn index_of(specs: &mut Vec<ThumbnailSpec>, spec: &ThumbnailSpec) -> usize {
    specs.iter().position(|known| known == spec).unwrap_or_else(|| {
        specs.push(*spec);
        specs.len() - 1
    })
}

#[cfg(test)]
mod tests;
