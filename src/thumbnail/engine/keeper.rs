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
        let mut worker = Process::start(self.settings)?;
        self.shop.started.say(Ok(worker.ready()?));
        Ok(worker)
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
                    if let Some(next) = next.take().and_then(ready) {
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
        let left = deadline.saturating_duration_since(Instant::now());
        let mut asked = worker.ask(&job, &work.source, left);
        if matches!(asked, Asked::NotBegun) {
            // It died while it was idle, which is not this picture's doing.
            self.shop.metrics.ended(WorkerEnd::Crashed);
            if let Some(another) = Process::start(self.settings).ok().and_then(ready) {
                *worker = another;
                asked = worker.ask(&job, &work.source, self.settings.timeout);
            }
        }
        let (outcome, end) = match asked {
            Asked::Answered(outcome) => (outcome, None),
            Asked::NotBegun => (Err(ThumbnailError::Unavailable), Some(WorkerEnd::Crashed)),
            Asked::Lost(error) => {
                tracing::warn!(%error, "a thumbnail worker was lost");
                let end = match error {
                    ThumbnailError::TimedOut => WorkerEnd::TimedOut,
                    ThumbnailError::OutOfMemory => WorkerEnd::OutOfMemory,
                    _ => WorkerEnd::Crashed,
                };
                (Err(error), Some(end))
            }
        };
        work.answer(outcome);
        end
    }

    fn wait(&self, worker: &Process, next: Option<&Process>) -> Event {
        let mut watched = vec![worker.socket(), self.desk.bell()];
        watched.extend(next.map(Process::socket));
        match first_ready(&watched, None) {
            // The worker's death before all, and the next one before new work.
            [true, ..] => Event::Died,
            [_, _, true] => Event::NextSpoke,
            _ => Event::Rung,
        }
    }
}

/// Waits until a worker is ready; if it will never be, the log says why.
fn ready(mut worker: Process) -> Option<Process> {
    match worker.ready() {
        Ok(_) => Some(worker),
        Err(error) => {
            tracing::warn!(%error, "a thumbnail worker did not come up");
            None
        }
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
