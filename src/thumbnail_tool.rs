//! `mediary thumbnail`: makes one thumbnail as the server would, and says what it found and made.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytesize::ByteSize;
use clap::Args;
use rustix::fs::{MemfdFlags, memfd_create};

use crate::config::{Config, parse_thumbnail_size};
use crate::metrics::ThumbnailMetrics;
use crate::server;
use crate::thumbnail::{self, Inspected, Rendered, ThumbnailError, Urgency};
use crate::types::{ContentHash, ThumbnailEncoding, ThumbnailMethod, ThumbnailSize, ThumbnailSpec};

/// What `mediary thumbnail` is asked for.
#[derive(Debug, Args)]
pub struct ThumbnailArguments {
    /// The picture, video or audio file; what it is called says nothing
    file: PathBuf,
    /// The size to ask for; by the settings it becomes one of the ladder, as in the server
    #[arg(long, value_name = "WIDTHxHEIGHT", default_value = "320x240", value_parser = parse_size)]
    size: ThumbnailSize,
    /// scale shows the whole picture, crop cuts its middle to the shape of the size
    #[arg(long, value_name = "METHOD", default_value = "scale", value_parser = parse_method)]
    method: ThumbnailMethod,
    /// Let it move, if the file does
    #[arg(long)]
    animated: bool,
    /// Let it be WebP if it does not move, as for clients that read it
    #[arg(long)]
    webp: bool,
    /// Write the thumbnail here; without this it is only made
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn parse_size(text: &str) -> Result<ThumbnailSize, String> {
    let rung = parse_thumbnail_size(&format!("{text} scale"));
    rung.map(|(size, _)| size).map_err(|_| "write width, x and height, as in 320x240".to_owned())
}

fn parse_method(text: &str) -> Result<ThumbnailMethod, String> {
    let methods = [ThumbnailMethod::Scale, ThumbnailMethod::Crop];
    let known = methods.into_iter().find(|method| method.as_str() == text);
    known.ok_or_else(|| "write scale or crop".to_owned())
}

/// A thumbnail, and how long it took.
struct Made {
    bytes: Vec<u8>,
    content_type: &'static str,
    is_original: bool,
    time: Duration,
}

/// Makes the thumbnail and says on `output` what came of it.
///
/// # Errors
///
/// In words for the operator, also if nothing can be written to `output`.
pub fn run(
    config: &Config,
    arguments: &ThumbnailArguments,
    output: &mut dyn Write,
) -> anyhow::Result<()> {
    let path = arguments.file.display();
    let source = open(&arguments.file)?;
    if let Some(out) = &arguments.out {
        check_is_another(out, &arguments.file)?;
    }
    let length = source.metadata()?.len();
    let limits = server::thumbnail_limits(&config.thumbnails);
    let found = thumbnail::inspect(source.try_clone()?, &limits)
        .map_err(explained)
        .with_context(|| format!("no thumbnail of {path}"))?;
    writeln!(output, "source     {}, {}", describe(&found), ByteSize(length))?;
    let spec = spec(config, arguments)?;
    writeln!(
        output,
        "asked      {} {}{}",
        arguments.size,
        spec.method.as_str(),
        becomes(arguments, &spec)
    )?;
    let made = make(config, source, spec).with_context(|| format!("no thumbnail of {path}"))?;
    let shown = thumbnail::inspect(in_memory(&made.bytes)?, &limits).map_err(explained)?;
    let size = ByteSize(made.bytes.len() as u64);
    let origin = if made.is_original { ", the original itself" } else { "" };
    writeln!(
        output,
        "thumbnail  {}, {size}{origin}",
        describe(&Inspected { content_type: made.content_type, ..shown })
    )?;
    writeln!(output, "made in    {} ms", made.time.as_millis())?;
    if let Some(out) = &arguments.out {
        fs::write(out, &made.bytes).with_context(|| format!("cannot write {}", out.display()))?;
        writeln!(output, "written    {}", out.display())?;
    }
    Ok(())
}

fn open(path: &Path) -> anyhow::Result<File> {
    let named = || format!("cannot read {}", path.display());
    // A pipe would be waited for already when it is opened.
    if !fs::metadata(path).with_context(named)?.is_file() {
        bail!("{} is no file", path.display());
    }
    File::open(path).with_context(named)
}

/// Keeps the only copy of a picture from being replaced by its thumbnail.
fn check_is_another(out: &Path, source: &Path) -> anyhow::Result<()> {
    let is_same = fs::canonicalize(out)
        .ok()
        .is_some_and(|out| fs::canonicalize(source).is_ok_and(|source| source == out));
    if is_same {
        bail!("{} is the source itself; name another file with --out", out.display());
    }
    Ok(())
}

fn spec(config: &Config, arguments: &ThumbnailArguments) -> anyhow::Result<ThumbnailSpec> {
    let ladder = server::thumbnail_ladder(&config.thumbnails)?;
    let spec = ladder.snap(arguments.size, arguments.method, arguments.animated);
    let encoding =
        if arguments.webp { ThumbnailEncoding::WebP } else { ThumbnailEncoding::Universal };
    Ok(ThumbnailSpec { encoding, ..spec })
}

fn becomes(arguments: &ThumbnailArguments, spec: &ThumbnailSpec) -> String {
    if spec.size == arguments.size {
        return String::new();
    }
    format!(", which thumbnails.sizes makes {} {}", spec.size, spec.method.as_str())
}

/// Makes a thumbnail by the server's own means, with one worker.
fn make(config: &Config, source: File, spec: ThumbnailSpec) -> anyhow::Result<Made> {
    let mut settings = config.thumbnails.clone();
    settings.concurrency = 1;
    settings.queue = settings.queue.max(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let begun = Instant::now();
    let mut original = source.try_clone()?;
    let rendered = runtime.block_on(async {
        let engine = server::thumbnail_engine(&settings, ThumbnailMetrics::default())?;
        let source = async { Ok(source) };
        // There is nothing to share with: any content will do.
        let content = ContentHash([0; 32]);
        let rendered = engine.render(content, source, &[spec], Urgency::Client).await;
        rendered.map_err(explained)?.pop().context("nothing was made")
    })?;
    let time = begun.elapsed();
    Ok(match rendered {
        Rendered::Encoded { bytes, content_type, .. } => {
            Made { bytes, content_type, is_original: false, time }
        }
        Rendered::Original { content_type } => {
            let bytes = read_whole(&mut original)?;
            Made { bytes, content_type, is_original: true, time }
        }
    })
}

fn read_whole(file: &mut File) -> anyhow::Result<Vec<u8>> {
    use std::io::{Read, Seek};
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn in_memory(bytes: &[u8]) -> anyhow::Result<File> {
    let mut file = File::from(memfd_create(c"thumbnail", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file)
}

fn describe(found: &Inspected) -> String {
    let Some(header) = found.header else { return found.content_type.to_owned() };
    let moves = if header.moves { ", moving" } else { "" };
    format!("{}, {}{moves}", found.content_type, header.size)
}

/// Says what can be done about it, where that is not in the error itself.
fn explained(error: ThumbnailError) -> anyhow::Error {
    let advice = match &error {
        ThumbnailError::TooLarge(_) => Some("see [thumbnails] for what a picture may cost"),
        _ => None,
    };
    let error = anyhow::Error::from(error);
    match advice {
        Some(advice) => anyhow::anyhow!("{error:#} ({advice})"),
        None => error,
    }
}
