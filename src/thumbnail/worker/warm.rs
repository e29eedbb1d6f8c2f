//! The first pictures of a worker are its own: whatever code does once, such as asking what the CPU
//! can do, is done before the sandbox closes and before a client waits.

use std::fs::File;
use std::io::{Cursor, Write};

use image::{DynamicImage, ImageFormat, RgbaImage};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::thumbnail::decode::prepare;
use crate::thumbnail::job::Job;
use crate::thumbnail::limits::Limits;
use crate::thumbnail::render::render;
use crate::types::{
    MovingEncoding, ThumbnailEncoding, ThumbnailMethod, ThumbnailSize, ThumbnailSpec,
};

/// Large enough that a thumbnail is made of it, and that vectors are used.
const SIDE: u32 = 64;

/// Makes thumbnails of tiny pictures of the common formats. What fails is left for the first client
/// to find out.
pub(super) fn up() {
    // A font for drawings is a file, which nobody opens later.
    prepare();
    for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Gif, ImageFormat::WebP] {
        if let Some(source) = sample(format) {
            let _ = render(source, &job());
        }
    }
}

fn job() -> Job {
    let spec = |side, encoding| ThumbnailSpec {
        size: ThumbnailSize { width: side, height: side },
        method: ThumbnailMethod::Crop,
        animated: false,
        encoding,
    };
    Job {
        specs: vec![spec(20, ThumbnailEncoding::Universal), spec(12, ThumbnailEncoding::WebP)],
        limits: Limits::default(),
        moving: MovingEncoding::default(),
        is_extracted: false,
    }
}

/// Returns a picture that is partly transparent where the format knows that.
fn sample(format: ImageFormat) -> Option<File> {
    let picture = RgbaImage::from_fn(SIDE, SIDE, |x, y| {
        let [x, y] = [x, y].map(|at| u8::try_from(at * 4).unwrap_or(u8::MAX));
        image::Rgba([x, y, x ^ y, u8::MAX - x])
    });
    let picture = match format {
        ImageFormat::Jpeg => DynamicImage::from(picture).into_rgb8().into(),
        _ => DynamicImage::from(picture),
    };
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).ok()?;
    let mut file = File::from(memfd_create("warm-up", MemfdFlags::CLOEXEC).ok()?);
    file.write_all(bytes.get_ref()).ok()?;
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_gives_a_thumbnail() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Gif, ImageFormat::WebP] {
            let source = sample(format).expect("samples can be made");
            let made = render(source, &job());
            assert!(made.is_ok(), "{format:?}: {made:?}");
        }
    }
}
