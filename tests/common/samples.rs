//! Bodies for tests, made in code.

use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage};
use ring::digest::{SHA256, digest};

/// Makes bytes whose every part differs from its neighbours.
pub fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i % 251) as u8).collect()
}

/// Returns the strong entity tag that a body has.
pub fn etag(body: &[u8]) -> String {
    let hash = digest(&SHA256, body);
    let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

/// Makes a colourful PNG of this size.
pub fn png(width: u32, height: u32) -> Vec<u8> {
    let picture = RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, 9]));
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).expect("samples can be encoded");
    bytes.into_inner()
}
