//! Whether the cost of an eviction grows with what it evicts or with what is held: 10,000 bodies of
//! 100,000, and 10,000 of 1,000,000, in turns.
//!
//! `cargo bench --bench evict`, with `TMPDIR` on the file system in question.
#![expect(clippy::print_stdout, reason = "a measurement is for reading")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use mediary::store::Store;
use mediary::types::{ContentHash, UnixMillis};
use rusqlite::Connection;

/// How many bodies one eviction removes.
const EVICTED: u64 = 10_000;

/// How many bodies are held, small and large.
const HELD: [u64; 2] = [100_000, 1_000_000];

/// How often each is measured.
const RUNS: usize = 5;

/// The size of every body.
const SIZE: u64 = 4096;

fn main() {
    // `cargo test --benches` only looks whether this starts.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    println!(
        "Evicting {EVICTED} bodies of {SIZE} bytes, half of them media and half thumbnails made of \
         them.\nReal: the store's own eviction with its transactions and syncs, all records, the \
         files of the bodies\nthat are evicted. Not real: the files of those that stay, which no \
         eviction looks at.\n"
    );
    let templates = HELD.map(|held| {
        let path = directory.path().join(format!("template-{held}"));
        fill(&path, held);
        path
    });
    let mut measured: [Vec<Measured>; 2] = Default::default();
    for run in 1..=RUNS {
        for ((held, template), measured) in HELD.iter().zip(&templates).zip(&mut measured) {
            let one = evict(template, &directory.path().join("store"));
            println!(
                "run {run}, of {held:>9}: {:6.1} ms, CPU {:4.0} ms",
                ms(one.wall),
                ms(one.cpu)
            );
            measured.push(one);
        }
    }
    println!();
    let [small, large] = measured;
    for (what, of) in [("wall", Measured::wall as fn(&Measured) -> f64), ("CPU", Measured::cpu)] {
        let [small, large] = [&small, &large].map(|runs| Spread::of(runs.iter().map(of)));
        println!("{what}, ms: of {} {small}, of {} {large}", HELD[0], HELD[1]);
        println!("{what}, ratio of medians: {:.2}", large.median / small.median);
    }
    let ratios = small.iter().zip(&large).map(|(small, large)| large.wall() / small.wall());
    println!("wall, ratio within a turn: {}", Spread::of(ratios));
    println!("\nnoting one access: {:.0} ns", touch_nanos(&directory.path().join("touched")));
}

/// Makes a store whose database holds so many bodies, half media and half their thumbnails, none of
/// which was read when its neighbours in the tables were.
fn fill(path: &Path, held: u64) {
    drop(Store::open(path).expect("a new store"));
    let mut database = Connection::open(path.join("mediary.db")).expect("its database");
    let transaction = database.transaction().expect("a transaction");
    for number in 0..held / 2 {
        let (media, thumbnail) = (hash(2 * number), hash(2 * number + 1));
        let accessed_at = access_time(number);
        for content in [media, thumbnail] {
            let bytes = content.as_bytes();
            transaction
                .prepare_cached("INSERT INTO blob VALUES (?1, ?2, x'00000000')")
                .and_then(|mut insert| insert.execute((bytes, SIZE as i64)))
                .expect("a blob");
            transaction
                .prepare_cached("INSERT INTO cached VALUES (?1, ?2, ?3)")
                .and_then(|mut insert| insert.execute((bytes, SIZE as i64, accessed_at)))
                .expect("what may be evicted");
        }
        transaction
            .prepare_cached(
                "INSERT INTO media (server_name, media_id, content_hash, content_type, filename,
                                    uploader, source, created_at, legacy_readable)
                 VALUES ('remote.example', ?1, ?2, 'image/jpeg', 'cat.jpg', NULL, 'remote', 0, 0)",
            )
            .and_then(|mut insert| insert.execute((media.to_string(), media.as_bytes())))
            .expect("media");
        transaction
            .prepare_cached(
                "INSERT INTO thumbnail VALUES (?1, 320, 240, 'scale', 0, ?2, 'image/jpeg', 0)",
            )
            .and_then(|mut insert| insert.execute((media.as_bytes(), thumbnail.as_bytes())))
            .expect("a thumbnail");
    }
    transaction.commit().expect("all is recorded");
}

/// Spreads the order of access over the years until 2023.
fn access_time(number: u64) -> i64 {
    (mix(number) % 1_700_000_000_000) as i64
}

/// Returns a hash as even as SHA-256's, without the work.
fn hash(number: u64) -> ContentHash {
    let mut bytes = [0; 32];
    for (part, chunk) in bytes.chunks_exact_mut(8).enumerate() {
        chunk.copy_from_slice(&mix(number * 4 + part as u64 + (1 << 40)).to_le_bytes());
    }
    ContentHash(bytes)
}

fn mix(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[derive(Debug, Clone, Copy)]
struct Measured {
    wall: Duration,
    cpu: Duration,
}

impl Measured {
    fn wall(&self) -> f64 {
        ms(self.wall)
    }

    fn cpu(&self) -> f64 {
        ms(self.cpu)
    }
}

/// Evicts from a fresh copy of a store.
fn evict(template: &Path, path: &Path) -> Measured {
    fs::create_dir(path).expect("a directory");
    fs::copy(template.join("mediary.db"), path.join("mediary.db")).expect("a copy");
    write_files(path);
    // Nothing that was written for the setting up is to be waited for in the measurement.
    rustix::fs::sync();
    let store = Store::open(path).expect("the copy opens");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (begun, cpu) = (Instant::now(), cpu_time());
    let mut evicted = 0;
    while evicted < EVICTED {
        let removed = runtime.block_on(store.evict((EVICTED - evicted) * SIZE)).expect("room");
        evicted += removed.contents.len() as u64;
    }
    let measured = Measured { wall: begun.elapsed(), cpu: cpu_time() - cpu };
    assert_eq!(evicted, EVICTED);
    assert_eq!(count_files(&path.join("blobs")), 0, "all files are gone");
    drop(store);
    fs::remove_dir_all(path).expect("the copy can be removed");
    measured
}

/// Writes the files of what will be evicted.
fn write_files(path: &Path) {
    let database = Connection::open(path.join("mediary.db")).expect("the copy");
    let mut oldest = database
        .prepare("SELECT content_hash FROM cached ORDER BY accessed_at, content_hash LIMIT ?1")
        .expect("a query");
    let oldest = oldest.query_map([EVICTED as i64], |row| row.get(0)).expect("an answer");
    for content_hash in oldest {
        let digits = ContentHash(content_hash.expect("a hash")).to_string();
        let home = path.join("blobs").join(&digits[..2]).join(&digits[2..4]);
        fs::create_dir_all(&home).expect("a directory");
        fs::write(home.join(digits), [7; SIZE as usize]).expect("a body");
    }
}

fn count_files(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.map(|path| if path.is_dir() { count_files(&path) } else { 1 }).sum()
}

/// Returns how long it takes to note that a content was read which was noted before.
fn touch_nanos(path: &Path) -> f64 {
    const TOUCHES: u32 = 5_000_000;
    let store = Store::open(path).expect("a new store");
    let hashes: Vec<_> = (0..1000).map(hash).collect();
    let begun = Instant::now();
    for (number, content_hash) in (0..TOUCHES).zip(hashes.iter().cycle()) {
        store.touch(content_hash, UnixMillis(i64::from(number)));
    }
    begun.elapsed().as_nanos() as f64 / f64::from(TOUCHES)
}

/// Returns the time that all threads of the process have worked so far.
fn cpu_time() -> Duration {
    /// What the kernel counts in, on every architecture we build for.
    const TICKS_PER_SECOND: u64 = 100;
    let stat = fs::read_to_string("/proc/self/stat").expect("the kernel tells");
    let (_, fields) = stat.rsplit_once(')').expect("the name is in brackets");
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.collect();
        values.sort_by(f64::total_cmp);
        Self { least: values[0], median: values[values.len() / 2], most: values[values.len() - 1] }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} ({:.2}–{:.2})", self.median, self.least, self.most)
    }
}
