//! The processes in which thumbnails are made: whatever happens to them costs the requests that they
//! work for, each a clean answer, and nobody else anything (threats IM-08, IM-09).

mod common;

use std::io::Cursor;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use common::fake::TOKEN;
use common::http::Answer;
use common::workers::{is_alive, signal, workers};
use common::{Client, FakeHomeserver, Mediary, Settings, samples, wait_until};
use image::{GenericImageView, ImageFormat, Rgb, RgbImage};
use rustix::process::{Pid, Signal};

/// How many jobs workers have been given.
const JOBS: &str = "mediary_thumbnail_jobs_total";

/// How many requests wait for a worker.
const WAITING: &str = "mediary_thumbnails_waiting";

fn ended(mediary: &Mediary, reason: &str) -> f64 {
    mediary.metric(&format!("mediary_thumbnail_workers_ended_total{{reason=\"{reason}\"}}"))
}

fn start(settings: &str) -> (FakeHomeserver, Mediary, Client) {
    let fake = FakeHomeserver::start();
    let mediary = Settings::new(&fake.url).with(&format!("[thumbnails]\n{settings}")).start();
    let client = mediary.client().with_token(TOKEN);
    (fake, mediary, client)
}

fn ask(client: &Client, media: &str, width: u32, height: u32, method: &str) -> Answer {
    let size = format!("width={width}&height={height}&method={method}");
    client.get(&format!("/_matrix/client/v1/media/thumbnail/{media}?{size}"))
}

/// Returns a picture that is of one colour, which no other number has.
fn coloured(number: u32, side: u32) -> Vec<u8> {
    let picture = RgbImage::from_pixel(side, side, Rgb(colour(number)));
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).expect("samples can be encoded");
    bytes.into_inner()
}

/// Colours that are far apart, so that JPEG cannot confuse them.
fn colour(number: u32) -> [u8; 3] {
    [number % 6, number / 6 % 6, number / 36 % 6].map(|step| (step * 51) as u8)
}

#[track_caller]
fn assert_is_thumbnail_of(number: u32, side: u32, answer: &Answer) {
    assert_eq!((answer.status, answer.complete), (200, true), "{}", answer.text());
    let image = image::load_from_memory(&answer.body).expect("thumbnails can be decoded");
    assert_eq!(image.dimensions(), (side, side));
    let expected = colour(number);
    for (_, _, pixel) in image.to_rgb8().enumerate_pixels() {
        let is_near = pixel.0.iter().zip(expected).all(|(a, b)| a.abs_diff(b) < 20);
        assert!(is_near, "{pixel:?} in a picture of {expected:?}");
    }
}

#[test]
fn workers_are_there_before_anybody_asks_and_stay() {
    let (_fake, mediary, client) = start("concurrency = 2");
    wait_until("both workers are there", || workers(mediary.pid()).len() == 2);
    let before = workers(mediary.pid());
    for number in 0..6 {
        let media = client.upload("image/png", None, &coloured(number, 100));
        assert_is_thumbnail_of(number, 32, &ask(&client, &media, 32, 32, "crop"));
    }
    assert_eq!(workers(mediary.pid()), before);
    assert_eq!(mediary.metric(JOBS), 6.0);
    mediary.wait_for_log("started the thumbnail workers");
}

#[test]
fn workers_that_are_killed_at_random_give_no_wrong_answer() {
    const ASKERS: u32 = 4;
    const EACH: u32 = 10;
    let (_fake, mediary, client) = start("concurrency = 2\nqueue = 64");
    let (is_over, made) = (AtomicBool::new(false), AtomicUsize::new(0));
    let work = |asker: u32| {
        for number in asker * EACH..(asker + 1) * EACH {
            let media = client.upload("image/png", None, &coloured(number, 400));
            for (side, height, method) in [(32, 32, "crop"), (96, 96, "crop"), (320, 240, "scale")]
            {
                let answer = ask(&client, &media, side, height, method);
                match answer.status {
                    200 => {
                        assert_is_thumbnail_of(number, side, &answer);
                        made.fetch_add(1, Ordering::Relaxed);
                    }
                    // Even the one that was started for it was killed.
                    503 => answer.assert_error(503, "M_UNKNOWN"),
                    status => panic!("{status}: {}", answer.text()),
                }
            }
        }
    };
    let kill = || {
        let mut random = 1_usize;
        while !is_over.load(Ordering::Relaxed) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Between two deaths a few thumbnails are made, or just none.
            let next = made.load(Ordering::Relaxed) + (random >> 33) % 8;
            while made.load(Ordering::Relaxed) < next && !is_over.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            let workers = workers(mediary.pid());
            if let Some(worker) = workers.get((random >> 40) % workers.len().max(1)) {
                signal(*worker, Signal::KILL);
                wait_until("it is gone", || !is_alive(*worker));
            }
        }
    };
    thread::scope(|scope| {
        let killer = scope.spawn(kill);
        let askers: Vec<_> = (0..ASKERS).map(|asker| scope.spawn(move || work(asker))).collect();
        let outcomes: Vec<_> = askers.into_iter().map(|asker| asker.join()).collect();
        is_over.store(true, Ordering::Relaxed);
        killer.join().expect("killing works");
        assert!(outcomes.iter().all(Result::is_ok), "an answer was wrong");
    });
    assert!(made.into_inner() > 0, "some thumbnails were made between the deaths");
    assert!(ended(&mediary, "crashed") > 0.0);
    // And then all is well.
    wait_until("both workers are there again", || workers(mediary.pid()).len() == 2);
    let media = client.upload("image/png", None, &coloured(200, 300));
    assert_is_thumbnail_of(200, 96, &ask(&client, &media, 96, 96, "crop"));
}

#[test]
fn a_worker_that_stands_still_costs_its_request_and_is_replaced() {
    let (_fake, mediary, client) = start("concurrency = 1\ntimeout = \"3s\"");
    let [worker] = workers(mediary.pid())[..] else { panic!("there is not one worker") };
    signal(worker, Signal::STOP);
    let media = client.upload("image/png", None, &coloured(1, 100));
    ask(&client, &media, 32, 32, "crop").assert_error(503, "M_UNKNOWN");
    assert!(!is_alive(worker));
    wait_until("the worker is counted", || ended(&mediary, "timed_out") == 1.0);
    // It had no share of the CPU, so the picture is not to blame.
    assert_is_thumbnail_of(1, 96, &ask(&client, &media, 96, 96, "crop"));
}

#[test]
fn a_picture_that_takes_too_long_is_refused_and_remembered() {
    let (_fake, mediary, client) = start("concurrency = 1\ntimeout = \"50ms\"");
    let large = coloured(1, 6000);
    let media = client.upload("image/png", None, &large);
    let answer = ask(&client, &media, 32, 32, "crop");
    // On a machine that is busy with others it may not have had its time.
    if answer.status == 413 {
        answer.assert_error(413, "M_TOO_LARGE");
        // That is remembered, and no worker sees it again.
        let jobs = mediary.metric(JOBS);
        ask(&client, &media, 32, 32, "crop").assert_error(413, "M_TOO_LARGE");
        assert_eq!(mediary.metric(JOBS), jobs);
    } else {
        answer.assert_error(503, "M_UNKNOWN");
    }
    wait_until("the worker is counted", || ended(&mediary, "timed_out") >= 1.0);
    // It can be downloaded all the same.
    client.download(&media).assert_whole(&large);
}

#[test]
fn a_picture_whose_worker_is_killed_is_made_by_another_one() {
    let (_fake, mediary, client) = start("concurrency = 1");
    let held = Held::new(&mediary);
    signal(held.worker, Signal::KILL);
    let answer = held.asker.join().expect("an answer");
    assert_is_thumbnail_of(100, 32, &answer);
    assert_eq!(ended(&mediary, "crashed"), 1.0);
    let media = client.upload("image/png", None, &coloured(2, 100));
    assert_is_thumbnail_of(2, 32, &ask(&client, &media, 32, 32, "crop"));
}

#[test]
fn a_worker_that_dies_while_nobody_asks_costs_nothing() {
    let (_fake, mediary, client) = start("concurrency = 1");
    for number in 0..5 {
        let [worker] = workers(mediary.pid())[..] else { panic!("there is not one worker") };
        signal(worker, Signal::KILL);
        wait_until("it is replaced", || {
            workers(mediary.pid()).first().is_some_and(|other| *other != worker)
        });
        let media = client.upload("image/png", None, &coloured(number, 100));
        assert_is_thumbnail_of(number, 32, &ask(&client, &media, 32, 32, "crop"));
    }
    assert_eq!(ended(&mediary, "crashed"), 5.0);
}

#[test]
fn workers_do_not_outlive_mediary() {
    let (_fake, mediary, _client) = start("concurrency = 3");
    wait_until("all workers are there", || workers(mediary.pid()).len() == 3);
    let orphans = workers(mediary.pid());
    // One of them would not notice by itself.
    signal(orphans[0], Signal::STOP);
    drop(mediary);
    wait_until("no worker is left", || !orphans.iter().any(|worker| is_alive(*worker)));
}

#[test]
fn workers_end_with_mediary_in_good_order() {
    let (_fake, mut mediary, _client) = start("concurrency = 2");
    wait_until("both workers are there", || workers(mediary.pid()).len() == 2);
    let workers = workers(mediary.pid());
    mediary.terminate();
    assert_eq!(mediary.wait().code(), Some(0));
    wait_until("no worker is left", || !workers.iter().any(|worker| is_alive(*worker)));
}

#[test]
fn after_so_many_jobs_a_worker_is_replaced_and_answers_stay_right() {
    const MADE: u32 = 20;
    let (_fake, mediary, client) = start("concurrency = 1\nworker_jobs = 2");
    let first = workers(mediary.pid());
    for number in 0..MADE {
        let media = client.upload("image/png", None, &coloured(number, 100));
        assert_is_thumbnail_of(number, 32, &ask(&client, &media, 32, 32, "crop"));
    }
    wait_until("it is replaced", || ended(&mediary, "recycled") > 0.0);
    assert_ne!(workers(mediary.pid()), first);
    assert_eq!(mediary.metric(JOBS), f64::from(MADE));
    assert_eq!(ended(&mediary, "crashed"), 0.0);
}

/// Holds the only worker at one picture until it is let go.
struct Held {
    worker: Pid,
    asker: thread::JoinHandle<Answer>,
}

impl Held {
    fn new(mediary: &Mediary) -> Self {
        let [worker] = workers(mediary.pid())[..] else { panic!("there is not one worker") };
        signal(worker, Signal::STOP);
        let client = mediary.client().with_token(TOKEN);
        let media = client.upload("image/png", None, &coloured(100, 100));
        let jobs = mediary.metric(JOBS);
        let asker = thread::spawn(move || ask(&client, &media, 32, 32, "crop"));
        wait_until("the worker has a job", || mediary.metric(JOBS) > jobs);
        Self { worker, asker }
    }

    fn let_go(self) {
        signal(self.worker, Signal::CONT);
        assert_is_thumbnail_of(100, 32, &self.asker.join().expect("an answer"));
    }
}

#[test]
fn several_sizes_asked_for_at_once_are_one_job() {
    let (_fake, mediary, client) = start("concurrency = 1");
    let media = client.upload("image/png", None, &coloured(7, 1000));
    let held = Held::new(&mediary);
    // Of a square, both sides are as long as the longer one that was asked for.
    let sizes = [
        (32, 32, "crop"),
        (96, 96, "crop"),
        (320, 240, "scale"),
        (640, 480, "scale"),
        (800, 600, "scale"),
    ];
    thread::scope(|scope| {
        let (client, media) = (&client, &media);
        let answers = sizes.map(|(side, height, method)| {
            scope.spawn(move || ask(client, media, side, height, method))
        });
        wait_until("all of them wait", || mediary.metric(WAITING) == 5.0);
        held.let_go();
        for (answer, (side, _, _)) in answers.into_iter().zip(sizes) {
            assert_is_thumbnail_of(7, side, &answer.join().expect("an answer"));
        }
    });
    assert_eq!(mediary.metric(JOBS), 2.0);
    assert_eq!(mediary.metric(WAITING), 0.0);
}

#[test]
fn past_the_queue_requests_are_refused_at_once() {
    let (_fake, mediary, client) = start("concurrency = 1\nqueue = 1");
    let media: Vec<_> =
        (0..2).map(|number| client.upload("image/png", None, &coloured(number, 100))).collect();
    let held = Held::new(&mediary);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| ask(&client, &media[0], 32, 32, "crop"));
        wait_until("one waits", || mediary.metric(WAITING) == 1.0);
        let refused = ask(&client, &media[1], 32, 32, "crop");
        assert_eq!((refused.status, refused.errcode().as_str()), (503, "M_UNKNOWN"));
        assert!(refused.header("retry-after").is_some());
        held.let_go();
        assert_is_thumbnail_of(0, 32, &waiting.join().expect("an answer"));
    });
    assert_eq!(ask(&client, &media[1], 32, 32, "crop").status, 200);
}

#[test]
fn a_picture_that_needs_more_memory_than_a_worker_has_is_refused_and_the_next_one_is_made() {
    // As many pixels as are allowed, in less memory than they take.
    let (_fake, mediary, client) =
        start("concurrency = 1\nworker_memory = \"64 MiB\"\nmax_pixels = 100000000");
    let large = client.upload("image/png", None, &coloured(3, 8000));
    let answer = ask(&client, &large, 32, 32, "crop");
    answer.assert_error(413, "M_TOO_LARGE");
    wait_until("the worker is counted", || ended(&mediary, "out_of_memory") == 1.0);
    let jobs = mediary.metric(JOBS);
    ask(&client, &large, 32, 32, "crop").assert_error(413, "M_TOO_LARGE");
    assert_eq!(mediary.metric(JOBS), jobs);
    let media = client.upload("image/png", None, &samples::png(100, 100));
    assert_eq!(ask(&client, &media, 32, 32, "crop").status, 200);
    assert!(mediary.peak_memory() < 512 * 1024);
}

#[test]
fn where_workers_cannot_be_started_media_is_served_all_the_same() {
    let fake = FakeHomeserver::start();
    // A process whose own program cannot be found by its path under /proc.
    let settings = Settings::new(&fake.url).in_namespace("mount -t tmpfs none /proc");
    let mediary = settings.start();
    let client = mediary.client().with_token(TOKEN);
    let picture = coloured(4, 100);
    let media = client.upload("image/png", None, &picture);
    client.download(&media).assert_whole(&picture);
    let answer = ask(&client, &media, 32, 32, "crop");
    assert_eq!((answer.status, answer.errcode().as_str()), (503, "M_UNKNOWN"));
    mediary.wait_for_log("no thumbnail worker can be started");
}

#[test]
fn where_workers_have_to_be_locked_in_and_cannot_be_the_start_is_refused_with_what_to_do() {
    let fake = FakeHomeserver::start();
    let settings = Settings::new(&fake.url).with("[thumbnails]\nsandbox = \"require\"");
    let (status, said) = settings.in_namespace("mount -t tmpfs none /proc").refusal();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("set thumbnails.sandbox = \"prefer\""), "{said}");
}
