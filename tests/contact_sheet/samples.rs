//! Pictures made in code, one for each format that can be written here.

use std::fs::File;
use std::io::{Cursor, Result, Write};
use std::path::{Path, PathBuf};

use image::codecs::gif::{GifEncoder, Repeat};
use image::{Delay, DynamicImage, Frame, ImageFormat, Rgba, RgbaImage};

/// Writes them all into a directory and returns their paths.
pub fn write(directory: &Path) -> Result<Vec<PathBuf>> {
    let opaque = scene(800, 600, 0, 255);
    let clear = scene(800, 600, 0, 0);
    let mut files = Vec::new();
    let mut keep = |name: &str, bytes: Vec<u8>| -> Result<()> {
        let path = directory.join(name);
        File::create(&path)?.write_all(&bytes)?;
        files.push(path);
        Ok(())
    };
    for (name, format) in [
        ("opaque.jpg", ImageFormat::Jpeg),
        ("opaque.png", ImageFormat::Png),
        ("opaque.webp", ImageFormat::WebP),
        ("opaque.gif", ImageFormat::Gif),
        ("opaque.bmp", ImageFormat::Bmp),
        ("opaque.qoi", ImageFormat::Qoi),
        ("opaque.tiff", ImageFormat::Tiff),
    ] {
        let image = DynamicImage::from(opaque.clone()).into_rgb8();
        keep(name, encoded(&image.into(), format))?;
    }
    for (name, format) in [
        ("clear.png", ImageFormat::Png),
        ("clear.webp", ImageFormat::WebP),
        ("clear.qoi", ImageFormat::Qoi),
    ] {
        keep(name, encoded(&clear.clone().into(), format))?;
    }
    keep(
        "gray.jpg",
        encoded(&DynamicImage::from(opaque.clone()).to_luma8().into(), ImageFormat::Jpeg),
    )?;
    keep("deep.png", encoded(&DynamicImage::from(opaque).to_rgb16().into(), ImageFormat::Png))?;
    keep("icon.ico", encoded(&scene(256, 256, 0, 0).into(), ImageFormat::Ico))?;
    keep("wide.png", encoded(&scene(2000, 120, 0, 255).into(), ImageFormat::Png))?;
    keep("small.png", encoded(&scene(24, 18, 0, 255).into(), ImageFormat::Png))?;
    for orientation in [3, 6, 8] {
        keep(&format!("turned-{orientation}.jpg"), turned(orientation))?;
    }
    keep("moving.gif", moving())?;
    keep("drawing.svg", DRAWING.to_vec())?;
    Ok(files)
}

/// A drawing that shows up and down, colours, thin lines and text.
const DRAWING: &[u8] = br##"<svg xmlns="http://www.w3.org/2000/svg" width="600" height="450">
<rect x="20" y="20" width="560" height="410" rx="40" fill="#36c" fill-opacity="0.5"/>
<circle cx="300" cy="225" r="150" fill="#fc3"/><path d="M300 90 L380 240 H220 Z" fill="#c33"/>
<path d="M0 0 L600 450 M600 0 L0 450" stroke="#000" stroke-width="2"/>
<text x="210" y="330" font-size="48" font-family="sans-serif">Mediary</text></svg>"##;

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).expect("samples can be encoded");
    bytes.into_inner()
}

/// A sky over a striped ground, a sun, and a mast that points up and to the right: what is turned,
/// cut or blurred is seen at once. The sky is as opaque as `sky` says, and the sun moves with the time.
fn scene(width: u32, height: u32, time: u32, sky: u8) -> RgbaImage {
    RgbaImage::from_fn(width, height, |x, y| {
        let (u, v) = (f64::from(x) / f64::from(width), f64::from(y) / f64::from(height));
        let aspect = f64::from(width) / f64::from(height);
        let sun = ((u - 0.2 - 0.06 * f64::from(time)) * aspect).hypot(v - 0.25);
        let is_mast = (0.68..0.71).contains(&u) && (0.1..0.8).contains(&v);
        let is_flag = (0.71..0.9).contains(&u) && (0.1..0.25).contains(&v);
        if sun < 0.12 {
            Rgba([255, 220, 60, 255])
        } else if is_flag {
            Rgba([200, 30, 40, 255])
        } else if is_mast {
            Rgba([40, 30, 30, 255])
        } else if v > 0.7 {
            // Lines that come closer to each other towards the right.
            let is_line = (60.0 * u * u * aspect).fract() < 0.5;
            if is_line { Rgba([30, 90, 40, 255]) } else { Rgba([150, 200, 110, 255]) }
        } else {
            Rgba([(90.0 + 120.0 * v) as u8, (150.0 + 90.0 * v) as u8, 250, sky])
        }
    })
}

/// A JPEG that a camera has stored lying on its side or head, with the word that says so.
fn turned(orientation: u8) -> Vec<u8> {
    let upright = DynamicImage::from(DynamicImage::from(scene(800, 600, 0, 255)).into_rgb8());
    let stored = match orientation {
        3 => upright.rotate180(),
        6 => upright.rotate270(),
        _ => upright.rotate90(),
    };
    let mut bytes = encoded(&stored, ImageFormat::Jpeg);
    let mut block = b"\xff\xe1\0\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01".to_vec();
    block.extend([1, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0, 0, 0, 0, 0]);
    bytes.splice(2..2, block);
    bytes
}

fn moving() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new_with_speed(&mut bytes, 10);
    encoder.set_repeat(Repeat::Infinite).expect("samples can be encoded");
    let frames = (0..8).map(|time| {
        let delay = Delay::from_numer_denom_ms(100, 1);
        Frame::from_parts(scene(400, 300, time, 255), 0, 0, delay)
    });
    encoder.encode_frames(frames).expect("samples can be encoded");
    drop(encoder);
    bytes
}
