//! AVIF: still pictures coded as AV1, in one piece or in tiles. Of a sequence, the picture that stands
//! for it.
//!
//! The container is read here ([`boxes`]) and refused wherever it does not add up, before a byte
//! reaches the decoder.

mod av1;
mod boxes;
mod color;
mod orientation;
mod wide;

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use image::imageops::crop_imm;
use image::{
    DynamicImage, GenericImage, GrayImage, ImageBuffer, ImageError, Luma, Pixel, Rgb, RgbImage,
    Rgba, RgbaImage,
};
use re_rav1d::{Picture, PixelLayout};

use super::{Header, Pixels, Source};
use crate::thumbnail::error::ThumbnailError;
use crate::thumbnail::format::Format;
use crate::thumbnail::limits::Limits;
use crate::types::ThumbnailSize;
use boxes::{Input, Item, ItemId, Meta, Property, damaged};
use color::ColorCode;

/// A file of the `AVIF` family whose boxes have been read.
pub(super) struct AvifSource {
    reader: BufReader<File>,
    /// Of the whole file.
    length: u64,
    meta: Meta,
    limits: Limits,
    header: Header,
}

impl AvifSource {
    pub(super) fn open(
        mut reader: BufReader<File>,
        length: u64,
        limits: &Limits,
    ) -> Result<Self, ThumbnailError> {
        let meta = Meta::parse(&read_meta(&mut reader, length)?)?;
        let primary = meta.item(meta.primary).ok_or_else(|| damaged("no primary item"))?;
        if !matches!(&primary.kind, b"av01" | b"grid") {
            return Err(ThumbnailError::Unsupported);
        }
        let size = size_of(primary)?;
        limits.check(size)?;
        let orientation = orientation::of(&primary.properties);
        let header = Header { format: Format::Avif, size, animated: false, orientation };
        Ok(Self { reader, length, meta, limits: *limits, header })
    }

    /// Decodes an item, whole or in tiles, one pixel of the result for each pixel.
    fn decode_item<P: Pixel<Subpixel = u8> + 'static>(
        &mut self,
        id: ItemId,
        convert: impl Fn(&Picture) -> Result<Plane<P>, ThumbnailError>,
    ) -> Result<Plane<P>, ThumbnailError> {
        let item = self.meta.item(id).ok_or_else(|| damaged("an item is missing"))?;
        let size = size_of(item)?;
        self.limits.check(size)?;
        if &item.kind != b"grid" {
            let picture = self.decode_coded(id)?;
            return convert(&picture);
        }
        let grid = Grid::parse(&self.read_item(id)?)?;
        let tiles = self.meta.references_from(id, b"dimg").to_vec();
        if grid.size != size || tiles.len() != grid.columns as usize * grid.rows as usize {
            return Err(damaged("tiles that do not make up the picture"));
        }
        let mut whole = Plane::<P>::new(size.width, size.height);
        for (tile, position) in tiles.into_iter().zip(0..) {
            let (column, row) = (position % grid.columns, position / grid.columns);
            let picture = convert(&self.decode_coded(tile)?)?;
            grid.place(&mut whole, &picture, column, row)?;
        }
        Ok(whole)
    }

    /// Decodes a coded item that is as large as its container says.
    fn decode_coded(&mut self, id: ItemId) -> Result<Picture, ThumbnailError> {
        let item = self.meta.item(id).filter(|item| &item.kind == b"av01");
        let size = size_of(item.ok_or_else(|| damaged("a part is no picture"))?)?;
        self.limits.check(size)?;
        // Zero would be no limit.
        let max_pixels = u32::try_from(self.limits.max_pixels).unwrap_or(u32::MAX).max(1);
        let picture = av1::decode(self.read_item(id)?, max_pixels)?;
        if (picture.width(), picture.height()) != (size.width, size.height) {
            return Err(damaged("the coded picture is of another size"));
        }
        Ok(picture)
    }

    /// Reads the bytes of an item, which lie in the file or in the box itself.
    fn read_item(&mut self, id: ItemId) -> Result<Vec<u8>, ThumbnailError> {
        let item = self.meta.item(id).ok_or_else(|| damaged("an item is missing"))?;
        let mut data = Vec::new();
        for extent in &item.extents {
            let length = if extent.length == 0 { u64::MAX } else { extent.length };
            let before = data.len() as u64;
            // One byte more than allowed is enough to see that it is too much.
            let length = length.min(self.limits.max_coded_bytes().saturating_sub(before) + 1);
            if item.is_inline {
                let start = usize::try_from(extent.offset).ok();
                let inline = start.and_then(|start| self.meta.inline.get(start..));
                let inline = inline.ok_or_else(|| damaged("bytes beyond their box"))?;
                inline.take(length).read_to_end(&mut data)?;
            } else {
                if extent.offset > self.length {
                    return Err(damaged("bytes beyond the file"));
                }
                self.reader.seek(SeekFrom::Start(extent.offset))?;
                (&mut self.reader).take(length).read_to_end(&mut data)?;
            }
            self.limits.check_coded_bytes(data.len() as u64)?;
            if (data.len() as u64) - before < extent.length {
                return Err(damaged("an item ends too early"));
            }
        }
        Ok(data)
    }

    fn profile(&self) -> Option<&[u8]> {
        let primary = self.meta.item(self.meta.primary)?;
        primary.properties.iter().find_map(|property| match property {
            Property::Icc(profile) => Some(&**profile),
            _ => None,
        })
    }

    /// Returns the item that says how transparent another one is.
    fn alpha_of(&self, id: ItemId) -> Option<ItemId> {
        const NAMES: [&[u8]; 2] =
            [b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1"];
        let is_alpha = |property: &Property| match property {
            Property::Auxiliary(name) => NAMES.contains(&&**name),
            _ => false,
        };
        let mut auxiliary = self
            .meta
            .references
            .iter()
            .filter(|reference| &reference.kind == b"auxl" && reference.to.contains(&id));
        auxiliary
            .find(|reference| {
                let item = self.meta.item(reference.from);
                item.is_some_and(|item| item.properties.iter().any(is_alpha))
            })
            .map(|reference| reference.from)
    }
}

impl Source for AvifSource {
    fn header(&self) -> &Header {
        &self.header
    }

    fn color_profile(&mut self) -> Option<Vec<u8>> {
        self.profile().map(<[u8]>::to_vec)
    }

    fn decode(mut self: Box<Self>, _: ThumbnailSize) -> Result<Pixels, ThumbnailError> {
        let id = self.meta.primary;
        let primary = self.meta.item(id).ok_or_else(|| damaged("no primary item"))?;
        let code = ColorCode::of(&primary.properties);
        let is_gray = std::cell::Cell::new(true);
        let has_profile = self.profile().is_some();
        let mut rgb = self.decode_item(id, |picture| {
            is_gray.set(is_gray.get() && picture.pixel_layout() == PixelLayout::I400);
            color::to_rgb(picture, code)
        })?;
        if !has_profile {
            wide::to_srgb(&mut rgb, code);
        }
        let Some(alpha_id) = self.alpha_of(id) else {
            return Ok(Pixels::Image(without_alpha(rgb, is_gray.get())));
        };
        let alpha_item = self.meta.item(alpha_id).ok_or_else(|| damaged("an item is missing"))?;
        let alpha_code = ColorCode::of(&alpha_item.properties);
        let alpha = self.decode_item(alpha_id, |picture| color::to_luma(picture, alpha_code))?;
        if alpha.dimensions() != rgb.dimensions() {
            return Err(damaged("transparency of another size"));
        }
        let is_premultiplied = self.meta.references_from(id, b"prem").contains(&alpha_id);
        Ok(Pixels::Image(with_alpha(&rgb, &alpha, is_premultiplied)))
    }
}

type Plane<P> = ImageBuffer<P, Vec<u8>>;

fn without_alpha(rgb: RgbImage, is_gray: bool) -> DynamicImage {
    if is_gray {
        let first = |Rgb([red, ..]): &Rgb<u8>| Luma([*red]);
        let gray = GrayImage::from_fn(rgb.width(), rgb.height(), |x, y| first(rgb.get_pixel(x, y)));
        return gray.into();
    }
    rgb.into()
}

fn with_alpha(rgb: &RgbImage, alpha: &GrayImage, is_premultiplied: bool) -> DynamicImage {
    RgbaImage::from_fn(rgb.width(), rgb.height(), |x, y| {
        let Luma([alpha]) = *alpha.get_pixel(x, y);
        let color = rgb.get_pixel(x, y).0;
        let [red, green, blue] =
            if is_premultiplied { color.map(|value| divided(value, alpha)) } else { color };
        Rgba([red, green, blue, alpha])
    })
    .into()
}

/// Undoes what a colour was multiplied with.
fn divided(value: u8, alpha: u8) -> u8 {
    let full = u32::from(value) * 255 / u32::from(alpha.max(1));
    full.min(255) as u8
}

fn size_of(item: &Item) -> Result<ThumbnailSize, ThumbnailError> {
    let (width, height) = item.size().ok_or_else(|| damaged("an item without a size"))?;
    if width == 0 || height == 0 {
        return Err(damaged("a picture without pixels"));
    }
    Ok(ThumbnailSize { width, height })
}

/// How tiles make up a picture (ISO/IEC 23008-12, 6.6.2.3.2).
struct Grid {
    columns: u32,
    rows: u32,
    size: ThumbnailSize,
}

impl Grid {
    fn parse(data: &[u8]) -> Result<Self, ThumbnailError> {
        let mut input = Input(data);
        let [_version, flags, rows, columns] = input.array()?;
        let is_wide = flags & 1 == 1;
        let mut side = || if is_wide { input.u32() } else { input.u16().map(u32::from) };
        let size = ThumbnailSize { width: side()?, height: side()? };
        Ok(Self { columns: u32::from(columns) + 1, rows: u32::from(rows) + 1, size })
    }

    /// Copies a tile to its place; those at the end may reach beyond the picture.
    fn place<P: Pixel<Subpixel = u8> + 'static>(
        &self,
        whole: &mut Plane<P>,
        tile: &Plane<P>,
        column: u32,
        row: u32,
    ) -> Result<(), ThumbnailError> {
        let begin = |number: u32, count: u32, side: u32, all: u32| {
            let is_covered = side.checked_mul(count).is_some_and(|covered| covered >= all);
            number.checked_mul(side).filter(|begin| is_covered && *begin < all)
        };
        let left = begin(column, self.columns, tile.width(), self.size.width);
        let top = begin(row, self.rows, tile.height(), self.size.height);
        let (left, top) =
            left.zip(top).ok_or_else(|| damaged("tiles that do not make up the picture"))?;
        let width = tile.width().min(self.size.width - left);
        let height = tile.height().min(self.size.height - top);
        whole.copy_from(&*crop_imm(tile, 0, 0, width, height), left, top)?;
        Ok(())
    }
}

/// Finds the `meta` box of a file and returns what is in it.
fn read_meta(reader: &mut BufReader<File>, length: u64) -> Result<Vec<u8>, ThumbnailError> {
    /// Behind the type of the file and, in a sequence, its description.
    const MAX_BOXES: u32 = 64;
    /// Colour profiles are the largest in it.
    const MAX_META_BYTES: u64 = 8 * 1024 * 1024;
    for _ in 0..MAX_BOXES {
        let (name, end) = read_box_header(reader, length)?;
        let body = end - reader.stream_position()?;
        if &name != b"meta" {
            reader.seek_relative(body.cast_signed())?;
        } else if body > MAX_META_BYTES {
            return Err(damaged("a box of an absurd size"));
        } else {
            let mut content = Vec::new();
            reader.take(body).read_to_end(&mut content)?;
            return Ok(content);
        }
    }
    Err(damaged("no list of items"))
}

/// Returns the name of the next box, and where it ends: behind the reader and within the file.
fn read_box_header(
    reader: &mut BufReader<File>,
    file_length: u64,
) -> Result<([u8; 4], u64), ThumbnailError> {
    let start = reader.stream_position()?;
    let mut header = [0; 8];
    reader.read_exact(&mut header).map_err(ImageError::IoError)?;
    let [l0, l1, l2, l3, name @ ..] = header;
    let end = match u32::from_be_bytes([l0, l1, l2, l3]) {
        0 => Some(file_length),
        1 => {
            let mut long = [0; 8];
            reader.read_exact(&mut long).map_err(ImageError::IoError)?;
            start.checked_add(u64::from_be_bytes(long))
        }
        length => start.checked_add(length.into()),
    };
    let here = reader.stream_position()?;
    let end = end.filter(|&end| (here..=file_length).contains(&end));
    Ok((name, end.ok_or_else(|| damaged("a box beyond the file"))?))
}
