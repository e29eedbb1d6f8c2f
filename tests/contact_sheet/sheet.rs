//! The layout: blocks of one row each, in as many columns as keep the sheet in shape.

use image::imageops::{self, FilterType};
use image::{DynamicImage, Rgba, RgbaImage};

use crate::font;

/// Space around everything.
const GAP: u32 = 8;

/// The largest that a picture is shown.
const CELL: (u32, u32) = (320, 240);

/// The sides of a square of the checkerboard behind what is transparent.
const SQUARE: u32 = 8;

const PAPER: Rgba<u8> = Rgba([250, 250, 246, 255]);
const INK: Rgba<u8> = Rgba([20, 20, 20, 255]);
const PALE_INK: Rgba<u8> = Rgba([110, 110, 110, 255]);
const MISSING: Rgba<u8> = Rgba([220, 200, 200, 255]);

/// A file and its pictures.
pub struct Row {
    /// What stands above them all.
    pub title: String,
    /// The source and its thumbnails.
    pub pictures: Vec<Picture>,
}

/// One of them.
pub struct Picture {
    /// What stands above it.
    pub label: String,
    /// `None` if it cannot be decoded here.
    pub image: Option<DynamicImage>,
}

/// What is drawn on.
pub struct Sheet;

impl Sheet {
    /// Draws all rows.
    pub fn draw(rows: &[Row]) -> RgbaImage {
        let blocks: Vec<_> = rows.iter().map(block).collect();
        let width = blocks.iter().map(RgbaImage::width).max().unwrap_or(1);
        let height: u32 = blocks.iter().map(RgbaImage::height).sum::<u32>().max(1);
        // As many columns as make it about square.
        let columns = (1..10).find(|n| height / n <= width * n).unwrap_or(10);
        let per_column = blocks.len().div_ceil(columns as usize).max(1);
        let columns: Vec<&[RgbaImage]> = blocks.chunks(per_column).collect();
        let tallest =
            columns.iter().map(|column| column.iter().map(RgbaImage::height).sum::<u32>());
        let tallest = tallest.max().unwrap_or(1);
        let mut sheet =
            RgbaImage::from_pixel(width * (columns.len().max(1) as u32), tallest, PAPER);
        for (index, column) in columns.iter().enumerate() {
            let mut top = 0;
            for block in *column {
                imageops::replace(&mut sheet, block, (index as u32 * width).into(), top.into());
                top += block.height();
            }
        }
        sheet
    }
}

/// Draws one row: its title, then the pictures beside each other under their labels.
fn block(row: &Row) -> RgbaImage {
    let cells: Vec<_> = row.pictures.iter().map(cell).collect();
    let width: u32 = cells.iter().map(|cell| cell.width() + GAP).sum::<u32>() + GAP;
    let height = cells.iter().map(RgbaImage::height).max().unwrap_or(0) + font::HEIGHT + 4 * GAP;
    let mut block = RgbaImage::from_pixel(width, height, PAPER);
    for x in 0..width {
        block.put_pixel(x, 0, PALE_INK);
    }
    font::write(&mut block, GAP, GAP, INK, &row.title);
    let mut left = GAP;
    for cell in cells {
        let top = 2 * GAP + font::HEIGHT;
        imageops::replace(&mut block, &cell, left.into(), top.into());
        left += cell.width() + GAP;
    }
    block
}

/// Draws a picture on a checkerboard, and above it what it is.
fn cell(picture: &Picture) -> RgbaImage {
    let shown = picture.image.as_ref().map(fitted);
    let (width, height) = shown.as_ref().map_or((96, 48), RgbaImage::dimensions);
    let lines = font::wrapped(&picture.label, width.max(96));
    let head = lines.len() as u32 * font::HEIGHT + 2;
    let mut cell = RgbaImage::from_pixel(width.max(96), head + height, PAPER);
    for (index, line) in lines.iter().enumerate() {
        font::write(&mut cell, 0, index as u32 * font::HEIGHT, PALE_INK, line);
    }
    let ground = match &shown {
        Some(_) => checkerboard(width, height),
        None => RgbaImage::from_pixel(width, height, MISSING),
    };
    imageops::replace(&mut cell, &ground, 0, head.into());
    if let Some(shown) = shown {
        imageops::overlay(&mut cell, &shown, 0, head.into());
    }
    cell
}

/// Brings a picture into its cell; smaller ones stay as they are, so that each pixel is seen.
#[expect(clippy::disallowed_methods, reason = "nobody waits, and it is not what is to be shown")]
fn fitted(image: &DynamicImage) -> RgbaImage {
    if image.width() <= CELL.0 && image.height() <= CELL.1 {
        return image.to_rgba8();
    }
    DynamicImage::from(image.to_rgba8()).resize(CELL.0, CELL.1, FilterType::Lanczos3).into_rgba8()
}

fn checkerboard(width: u32, height: u32) -> RgbaImage {
    RgbaImage::from_fn(width, height, |x, y| {
        let is_dark = (x / SQUARE + y / SQUARE).is_multiple_of(2);
        if is_dark { Rgba([190, 190, 190, 255]) } else { Rgba([240, 240, 240, 255]) }
    })
}
