//! SVG, drawn at the size that is asked for. A document is only drawn: it runs nothing, fetches nothing
//! and reads no file (threats IM-07).
//!
//! Refused as a whole are documents with a script or with entities of their own. References to anything
//! outside of the document are left out, and so are texts where no font was loaded beforehand.

mod check;
mod font;
mod references;

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use image::metadata::Orientation;
use image::{ImageReader, RgbaImage};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::roxmltree::{Document, Error as XmlError, ParsingOptions};
use resvg::usvg::{self, FontResolver, ImageHrefResolver, ImageKind, Options, Tree};

use super::{Header, Pixels, Source};
use crate::thumbnail::error::ThumbnailError;
use crate::thumbnail::format::Format;
use crate::thumbnail::limits::Limits;
use crate::types::ThumbnailSize;
pub(super) use font::load_fallback_font;

/// The longest text; drawings exported from maps and programs come to this.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// The longest side that a drawing is given. Its own may be any number, and no thumbnail is larger.
const MAX_SIDE: f32 = 4096.0;

/// A drawing that has been read and can be drawn.
pub(super) struct SvgSource {
    tree: Tree,
    header: Header,
}

impl SvgSource {
    pub(super) fn open(reader: impl Read, limits: &Limits) -> Result<Self, ThumbnailError> {
        let text = read_text(reader)?;
        // Declarations could say what is not in the document, or say it a billion times.
        if text.contains("<!ENTITY") {
            return Err(damaged("a document with entities of its own"));
        }
        let options =
            ParsingOptions { allow_dtd: true, nodes_limit: check::MAX_NODES, ..Default::default() };
        let document =
            Document::parse_with_options(&text, options).map_err(|error| match error {
                XmlError::NodesLimitReached => too_large("too many elements"),
                error => damaged(&error.to_string()),
            })?;
        check::check(&document)?;
        let tree = Tree::from_xmltree(&document, &tree_options(limits))
            .map_err(|error| damaged(&error.to_string()))?;
        let size = bounded(tree.size(), limits);
        limits.check(size)?;
        let orientation = Orientation::NoTransforms;
        let header = Header { format: Format::Svg, size, animated: false, orientation };
        Ok(Self { tree, header })
    }
}

impl Source for SvgSource {
    fn header(&self) -> &Header {
        &self.header
    }

    fn decode(self: Box<Self>, at_least: ThumbnailSize) -> Result<Pixels, ThumbnailError> {
        let size = reduced(self.header.size, at_least);
        let too_large = || too_large("no memory for it");
        let mut pixmap = Pixmap::new(size.width, size.height).ok_or_else(too_large)?;
        let scale = Transform::from_scale(
            size.width as f32 / self.tree.size().width(),
            size.height as f32 / self.tree.size().height(),
        );
        resvg::render(&self.tree, scale, &mut pixmap.as_mut());
        let pixels = RgbaImage::from_raw(size.width, size.height, pixmap.take_demultiplied());
        Ok(Pixels::Image(pixels.ok_or_else(too_large)?.into()))
    }
}

fn read_text(reader: impl Read) -> Result<String, ThumbnailError> {
    let mut bytes = Vec::new();
    reader.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(too_large("too long a text"));
    }
    String::from_utf8(bytes).map_err(|_| damaged("not in UTF-8"))
}

/// Nothing comes from outside: neither files nor fonts; pictures only from within.
fn tree_options(limits: &Limits) -> Options<'static> {
    let fonts = font::loaded();
    let the_font = fonts.faces().next().map(|face| face.id);
    Options {
        image_href_resolver: ImageHrefResolver {
            resolve_data: embedded_pictures(limits),
            resolve_string: Box::new(|_, _| None),
        },
        font_resolver: FontResolver {
            select_font: Box::new(move |_, _| the_font),
            select_fallback: Box::new(|_, _, _| None),
        },
        fontdb: fonts,
        ..Options::default()
    }
}

/// Returns what looks at an embedded picture before a decoder may: what it is, and how large. All of a
/// document together may have as many pixels as a picture; past that they are left out.
fn embedded_pictures(limits: &Limits) -> usvg::ImageHrefDataResolverFn<'static> {
    let left = AtomicU64::new(limits.max_pixels);
    Box::new(move |_, data, _| {
        let kind = match Format::detect(&data)? {
            Format::Jpeg => ImageKind::JPEG as fn(Arc<Vec<u8>>) -> ImageKind,
            Format::Png => ImageKind::PNG,
            Format::Gif => ImageKind::GIF,
            Format::WebP => ImageKind::WEBP,
            _ => return None,
        };
        let reader = ImageReader::new(std::io::Cursor::new(data.as_slice()));
        let (width, height) = reader.with_guessed_format().ok()?.into_dimensions().ok()?;
        let pixels = u64::from(width) * u64::from(height);
        let take = |left: u64| left.checked_sub(pixels);
        left.try_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(kind(data))
    })
}

/// Returns the size in whole pixels, brought within bounds evenly: a drawing has no pixels of its own.
fn bounded(size: usvg::Size, limits: &Limits) -> ThumbnailSize {
    let (width, height) = (size.width(), size.height());
    let by_side = MAX_SIDE / width.max(height);
    let by_pixels = (limits.max_pixels as f32 / width / height).sqrt() * 0.999;
    let scale = by_side.min(by_pixels).min(1.0);
    let [width, height] = [width, height].map(|side| (side * scale).round().max(1.0) as u32);
    ThumbnailSize { width, height }
}

/// Returns the smallest size of the same shape that covers `at_least`, or else the size itself.
fn reduced(size: ThumbnailSize, at_least: ThumbnailSize) -> ThumbnailSize {
    let needed = |side: u32, at_least: u32| f64::from(at_least.max(1)) / f64::from(side);
    let scale =
        needed(size.width, at_least.width).max(needed(size.height, at_least.height)).min(1.0);
    let side = |side: u32, at_least: u32| {
        let scaled = (f64::from(side) * scale).round() as u32;
        scaled.max(at_least).clamp(1, side)
    };
    ThumbnailSize {
        width: side(size.width, at_least.width),
        height: side(size.height, at_least.height),
    }
}

fn damaged(why: &str) -> ThumbnailError {
    ThumbnailError::Damaged(why.to_owned())
}

fn too_large(why: &str) -> ThumbnailError {
    ThumbnailError::TooLarge(why.to_owned())
}

#[cfg(test)]
mod tests;
