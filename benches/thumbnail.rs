//! What one thumbnail costs in a warm process: `cargo bench --bench thumbnail -- FILE SIZE METHOD COUNT [OUT]`.
//!
//! SIZE as `320x240`; METHOD is `scale` or `crop`, with `+webp` where WebP may be written. Makes COUNT thumbnails
//! after a warm-up and prints one line of JSON: CPU and wall time for each, the bytes, the peak memory of the
//! process. [`thumbnails.py`](thumbnails.py) runs it beside others.

use std::fs::{self, File};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mediary::thumbnail::{Job, Limits, Rendered, render};
use mediary::types::{
    MovingEncoding, ThumbnailEncoding, ThumbnailMethod, ThumbnailSize, ThumbnailSpec,
};
use rustix::time::{ClockId, clock_gettime};

// As the program itself.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|it| it != "--bench").collect();
    let [file, size, method, count, out @ ..] = &arguments[..] else {
        println!("usage: thumbnail FILE WIDTHxHEIGHT scale|crop[+webp] COUNT [OUT]");
        return ExitCode::SUCCESS;
    };
    let job = job(size, method).expect("a size and a method");
    let count: u32 = count.parse().expect("a count");
    let once = || render(File::open(file).expect("a file"), &job).expect("a thumbnail").remove(0);
    let mut made = once();
    let (wall, cpu) = (Instant::now(), cpu_time());
    for _ in 0..count {
        made = once();
    }
    let (wall, cpu) = (wall.elapsed(), cpu_time() - cpu);
    let each = |taken: Duration| taken.as_secs_f64() * 1000.0 / f64::from(count.max(1));
    let (bytes, what) = match &made {
        Rendered::Original { content_type } => (0, format!("original {content_type}")),
        Rendered::Encoded { bytes, content_type, size } => {
            (bytes.len(), format!("{content_type} {size}"))
        }
    };
    if let ([out, ..], Rendered::Encoded { bytes, .. }) = (out, &made) {
        fs::write(out, bytes).expect("room for the thumbnail");
    }
    println!(
        r#"{{"cpu_ms": {:.3}, "wall_ms": {:.3}, "bytes": {bytes}, "peak_mib": {:.1}, "what": "{what}"}}"#,
        each(cpu),
        each(wall),
        peak_mib(),
    );
    ExitCode::SUCCESS
}

fn job(size: &str, method: &str) -> Option<Job> {
    let (width, height) = size.split_once('x')?;
    let size = ThumbnailSize { width: width.parse().ok()?, height: height.parse().ok()? };
    let (method, encoding) = match method.split_once('+') {
        Some((method, "webp")) => (method, ThumbnailEncoding::WebP),
        _ => (method, ThumbnailEncoding::Universal),
    };
    let method = match method {
        "scale" => ThumbnailMethod::Scale,
        "crop" => ThumbnailMethod::Crop,
        _ => return None,
    };
    let spec = ThumbnailSpec { size, method, animated: false, encoding };
    Some(Job {
        specs: vec![spec],
        limits: Limits::default(),
        moving: MovingEncoding::default(),
        is_extracted: false,
    })
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// The most memory that this process has had at once, its program included.
fn peak_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").expect("a Linux system");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
}
