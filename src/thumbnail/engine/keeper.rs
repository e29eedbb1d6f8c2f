//! The thread that owns one worker process: has it do one job after the other, kills it past its
//! deadline, reaps it and starts the next. It lives as long as the engine.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use super::desk::{Desk, Work};
use super::process::{Asked, Process, ProcessSettings};
use super::queue::Queue;
use super::started::Started;
use crate::metrics::{ThumbnailMetrics, WorkerEnd};
use crate::thumbnail::error::ThumbnailError;
use crate::thumbnail::job::Job;
use crate::thumbnail::limits::Limits;
use crate::thumbnail::program::Programs;
use crate::thumbnail::render::render;
use crate::types::MovingEncoding;

/// How long nothing is started after a worker that did not come up; doubled with each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What part of the time for a job a worker has at least, however long a program took before it.
const LEAST_PART: u32 = 4;

/// How long a program may take where there is no worker that may take as long.
const THREAD_PATIENCE: Duration = Duration::from_secs(20);

/// What is the same for all keepers of an engine.
#[derive(Debug)]
pub(super) struct Shop {
    pub(super) queue: Arc<Queue>,
    pub(super) limits: Limits,
    pub(super) moving: MovingEncoding,
    pub(super) programs: Arc<Programs>,
    pub(super) metrics: ThumbnailMetrics,
    pub(super) started: Arc<Started>,
}

impl Shop {
    fn job(&self, work: &Work) -> Job {
        self.metrics.jobs.inc();
        Job {
            specs: work.specs.clone(),
            limits: self.limits,
            moving: self.moving,
            is_extracted: false,
        }
    }

    /// Puts a picture in the place of a source that a program has to make one of.
    fn prepare(
        &self,
        job: &mut Job,
        work: &mut Work,
        deadline: Instant,
    ) -> Result<(), ThumbnailError> {
        if let Some(picture) = self.programs.extract(&work.source, &self.limits, deadline)? {
            work.source = picture;
            job.is_extracted = true;
        }
        Ok(())
    }
}

/// Works in this thread, without a process, until the engine ends.
pub(super) fn keep_none(shop: &Shop, desk: &Arc<Desk>) {
    while !shop.queue.is_closed() {
        shop.queue.offer(desk);
        let mut work = loop {
            let _ = first_ready(&[desk.bell()], None);
            match desk.take() {
                Some(work) => break work,
                None if shop.queue.is_closed() => return,
                None => {}
            }
        };
        let mut job = shop.job(&work);
        if let Err(error) = shop.prepare(&mut job, &mut work, Instant::now() + THREAD_PATIENCE) {
            work.answer(Err(error));
            continue;
        }
        let made = work.source.try_clone().map_err(ThumbnailError::from);
        let made = made.and_then(|source| render(source, &job));
        work.answer(made);
    }
}

/// Keeps a worker process until the engine ends.
pub(super) fn keep(shop: &Shop, desk: Arc<Desk>, settings: &ProcessSettings) {
    let mut keeper = Keeper { shop, desk, settings, is_offered: false };
    while let Some(worker) = keeper.start() {
        let end = keeper.serve(worker);
        if shop.queue.is_closed() {
            break;
        }
        shop.metrics.ended(end);
    }
}

struct Keeper<'a> {
    shop: &'a Shop,
    desk: Arc<Desk>,
    settings: &'a ProcessSettings,
    /// Whether somebody has the desk or can be given it.
    is_offered: bool,
}

/// What a keeper waits for.
enum Event {
    Rung,
    /// The worker ended, or spoke out of turn.
    Died,
    /// The next worker is ready, or will never be.
    NextSpoke,
}

impl Keeper<'_> {
    /// Starts a worker, however often that takes; returns none when the engine ends.
    fn start(&mut self) -> Option<Process> {
        let mut pause = FIRST_PAUSE;
        let mut is_counted = false;
        let worker = loop {
            if self.shop.queue.is_closed() {
                return None;
            }
            match self.try_start() {
                Ok(worker) => break worker,
                Err(error) => {
                    tracing::error!(%error, ?pause, "no thumbnail worker can be started");
                    self.shop.started.say(Err(error.to_string()));
                }
            }
            self.shop.metrics.ended(WorkerEnd::NotStarted);
            if !is_counted {
                self.shop.queue.unable();
                is_counted = true;
            }
            self.pause(pause);
            pause = LONGEST_PAUSE.min(pause * 2);
        };
        if is_counted {
            self.shop.queue.able();
        }
        Some(worker)
    }

    fn try_start(&self) -> io::Result<Process> {
        self.admitted(Process::start(self.settings)?)
    }

    /// Waits until a worker is ready, and returns it if it is locked in as far as it has to be.
    fn admitted(&self, mut worker: Process) -> io::Result<Process> {
        let report = worker.ready()?;
        self.shop.started.say(Ok(report.clone()));
        let is_change = self.shop.started.is_change(&report);
        if self.settings.wholly && !report.is_complete() {
            let lacks = report.lacks().join("; ");
            return Err(io::Error::other(format!("it is not wholly locked in: {lacks}")));
        }
        if is_change {
            tracing::warn!(%report, "thumbnail workers are locked in otherwise than before");
        }
        Ok(worker)
    }

    /// Like [`admitted`](Self::admitted), where another one can be done without; the log says why.
    fn ready(&self, worker: io::Result<Process>) -> Option<Process> {
        match worker.and_then(|worker| self.admitted(worker)) {
            Ok(worker) => Some(worker),
            Err(error) => {
                tracing::warn!(%error, "a thumbnail worker did not come up");
                None
            }
        }
    }

    /// Waits without a worker, and sends away who comes nevertheless.
    fn pause(&mut self, pause: Duration) {
        let until = Instant::now() + pause;
        loop {
            if self.is_offered && self.shop.queue.withdraw(&self.desk) {
                self.is_offered = false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.shop.queue.is_closed() {
                return;
            }
            let _ = first_ready(&[self.desk.bell()], Some(left));
            if let Some(work) = self.desk.take() {
                self.is_offered = false;
                work.answer(Err(ThumbnailError::Unavailable));
            }
        }
    }

    /// Has a worker do jobs until it ends or is replaced, and returns why.
    fn serve(&mut self, mut worker: Process) -> WorkerEnd {
        let mut next: Option<Process> = None;
        loop {
            if self.shop.queue.is_closed() {
                return WorkerEnd::Recycled;
            }
            if !self.is_offered {
                self.is_offered = true;
                self.shop.queue.offer(&self.desk);
            }
            match self.wait(&worker, next.as_ref()) {
                Event::NextSpoke => {
                    // One that failed is tried again after the next job.
                    if let Some(next) = next.take().and_then(|next| self.ready(Ok(next))) {
                        worker = next;
                        self.shop.metrics.ended(WorkerEnd::Recycled);
                    }
                }
                Event::Died => {
                    if self.shop.queue.withdraw(&self.desk) {
                        self.is_offered = false;
                    }
                    return WorkerEnd::Crashed;
                }
                Event::Rung => {
                    let Some(work) = self.desk.take() else { continue };
                    self.is_offered = false;
                    if let Some(end) = self.work(&mut worker, work) {
                        return end;
                    }
                    if worker.is_exhausted(self.settings) {
                        // Nobody is given it before there is another.
                        return WorkerEnd::Recycled;
                    }
                    if next.is_none() && worker.is_worn(self.settings) {
                        // Started ahead, so that nobody waits for it.
                        next = Process::start(self.settings).ok();
                    }
                }
            }
        }
    }

    /// Has one piece of work done, and returns how the worker ended, if it did.
    fn work(&mut self, worker: &mut Process, mut work: Work) -> Option<WorkerEnd> {
        let deadline = Instant::now() + self.settings.timeout;
        let mut job = self.shop.job(&work);
        if let Err(error) = self.shop.prepare(&mut job, &mut work, deadline) {
            tracing::debug!(%error, "a program made no picture");
            work.answer(Err(error));
            return None;
        }
        let (outcome, end) = match self.ask(worker, &job, &work, deadline) {
            Asked::Answered(outcome) => (outcome, None),
            Asked::NotBegun | Asked::Killed => {
                tracing::warn!("a thumbnail worker was killed by somebody else, and another one");
                (Err(ThumbnailError::Unavailable), Some(WorkerEnd::Crashed))
            }
            Asked::Overloaded => {
                tracing::warn!("a thumbnail was given up: its worker hardly had a turn");
                (Err(ThumbnailError::Unavailable), Some(WorkerEnd::TimedOut))
            }
            Asked::Lost(error) => {
                tracing::warn!(%error, "a thumbnail worker was lost");
                let end = lost(&error);
                (Err(error), Some(end))
            }
        };
        work.answer(outcome);
        end
    }

    /// Asks a worker, and once more a fresh one where what came of it may not be the picture's doing.
    fn ask(&self, worker: &mut Process, job: &Job, work: &Work, deadline: Instant) -> Asked {
        let timeout = self.settings.timeout;
        let left = || {
            let left = deadline.saturating_duration_since(Instant::now());
            left.max(timeout / LEAST_PART)
        };
        let asked = worker.ask(job, &work.source, left());
        let end = match &asked {
            // It died while it was idle, or was killed by somebody else.
            Asked::NotBegun | Asked::Killed => WorkerEnd::Crashed,
            // What the pictures before have left behind may have taken the memory.
            Asked::Answered(Err(ThumbnailError::OutOfMemory)) if worker.has_a_past() => {
                WorkerEnd::Recycled
            }
            Asked::Lost(ThumbnailError::OutOfMemory) if worker.has_a_past() => {
                WorkerEnd::OutOfMemory
            }
            _ => return asked,
        };
        let Some(fresh) = self.ready(Process::start(self.settings)) else { return asked };
        self.shop.metrics.ended(end);
        *worker = fresh;
        worker.ask(job, &work.source, left())
    }

    fn wait(&self, worker: &Process, next: Option<&Process>) -> Event {
        let mut watched = vec![worker.socket(), self.desk.bell()];
        watched.extend(next.map(Process::socket));
        let left = next.map(|next| next.start_deadline().saturating_duration_since(Instant::now()));
        match first_ready(&watched, left) {
            // The worker's death before all, and the next one before new work.
            [true, ..] => Event::Died,
            [_, _, true] => Event::NextSpoke,
            // Its time is over.
            [_, false, _] if left.is_some_and(|left| left.is_zero()) => Event::NextSpoke,
            _ => Event::Rung,
        }
    }
}

/// Under which reason a worker is counted that was lost.
fn lost(error: &ThumbnailError) -> WorkerEnd {
    match error {
        ThumbnailError::TimedOut => WorkerEnd::TimedOut,
        ThumbnailError::OutOfMemory => WorkerEnd::OutOfMemory,
        _ => WorkerEnd::Crashed,
    }
}

/// Waits until one of some descriptors can be read or has ended, and returns which.
fn first_ready(watched: &[BorrowedFd<'_>], patience: Option<Duration>) -> [bool; 3] {
    let mut polled: Vec<_> =
        watched.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let timeout = patience.and_then(|patience| Timespec::try_from(patience).ok());
    let mut ready = [false; 3];
    // Interrupted, nothing is ready, and whoever waits looks again.
    if poll(&mut polled, timeout.as_ref()).is_ok() {
        for (ready, polled) in ready.iter_mut().zip(&polled) {
            *ready = !polled.revents().is_empty();
        }
    }
    ready
}
