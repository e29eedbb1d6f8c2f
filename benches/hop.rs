//! What it costs that thumbnails are made in another process: the same tiny picture made directly, by an
//! engine in a thread, and by an engine in a process, in turns: whatever else the machine does, it does to
//! all three.
//!
//! `cargo bench --bench hop` exits with 1 if a process costs 100 µs or more over making it directly.
#![allow(clippy::print_stdout, reason = "figures are what it is for")]

use std::fs::File;
use std::io::{Cursor, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use mediary::thumbnail::{
    Capacity, EngineSettings, Job, Launch, Limits, ProcessSettings, ThumbnailEngine,
    ThumbnailError, Urgency, render,
};
use mediary::types::{
    ContentHash, MovingEncoding, ThumbnailEncoding, ThumbnailMethod, ThumbnailSize, ThumbnailSpec,
};

const NAMES: [&str; 3] = ["directly", "in a thread", "in a process"];

/// How often each is measured, after as many to warm up as a tenth of it.
const ROUNDS: usize = 2_000;

/// What a process has to stay below, over making the same thumbnail directly.
const GOAL: Duration = Duration::from_micros(100);

const SPEC: ThumbnailSpec = ThumbnailSpec {
    size: ThumbnailSize { width: 8, height: 8 },
    method: ThumbnailMethod::Crop,
    animated: false,
    encoding: ThumbnailEncoding::Universal,
};

fn engine(launch: Launch) -> ThumbnailEngine {
    let capacity = Capacity { workers: 1, queue: 1 };
    let settings = EngineSettings::in_threads(capacity, Limits::default());
    ThumbnailEngine::new(EngineSettings { launch, ..settings }).expect("threads can be started")
}

fn source() -> File {
    let picture = RgbImage::from_fn(16, 16, |x, y| Rgb([x as u8, y as u8, 9]));
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(picture).write_to(&mut bytes, ImageFormat::Png).expect("a sample");
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(bytes.get_ref()).expect("room for a sample");
    file
}

async fn made_by(engine: &ThumbnailEngine, source: &File) {
    let open = async { Ok::<_, ThumbnailError>(source.try_clone()?) };
    let made = engine.render(ContentHash([0; 32]), open, &[SPEC], Urgency::Client).await;
    made.expect("a thumbnail");
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let source = source();
    let job = Job {
        specs: vec![SPEC],
        limits: Limits::default(),
        moving: MovingEncoding::default(),
        is_extracted: false,
    };
    let thread = engine(Launch::InThreads);
    let process = engine(Launch::Processes(ProcessSettings {
        program: PathBuf::from(env!("CARGO_BIN_EXE_mediary")),
        timeout: Duration::from_secs(20),
        memory_bytes: 512 << 20,
        jobs: u64::MAX,
        wholly: false,
    }));
    let report = process.first_start(Duration::from_secs(30)).expect("a process engine");
    println!("workers: {}", report.expect("a worker can be started"));
    let mut times: [Vec<Duration>; 3] = Default::default();
    for round in 0..ROUNDS + ROUNDS / 10 {
        let begun = Instant::now();
        render(source.try_clone().expect("an open file"), &job).expect("a thumbnail");
        let directly = begun.elapsed();
        made_by(&thread, &source).await;
        let in_thread = begun.elapsed() - directly;
        made_by(&process, &source).await;
        let in_process = begun.elapsed() - directly - in_thread;
        if round >= ROUNDS / 10 {
            for (times, time) in times.iter_mut().zip([directly, in_thread, in_process]) {
                times.push(time);
            }
        }
    }
    let medians = times.each_mut().map(|times| median(times));
    for ((name, times), median) in NAMES.iter().zip(&times).zip(medians) {
        println!("{name:<14} median {median:>9.1?}  best tenth below {:>9.1?}", times[ROUNDS / 10]);
    }
    verdict(medians)
}

/// Says by how much the medians differ, and whether that is the goal.
fn verdict([directly, _, in_process]: [Duration; 3]) -> ExitCode {
    let hop = in_process.saturating_sub(directly);
    let is_met = hop < GOAL;
    let word = if is_met { "met" } else { "missed" };
    println!("the hop        {hop:>9.1?}  goal: below {GOAL:?}, {word}");
    ExitCode::from(u8::from(!is_met))
}
