//! Where one frame differs from another.

use image::RgbaImage;

use crate::thumbnail::layout::Area;
use crate::types::ThumbnailSize;

/// Returns the smallest rectangle that holds every pixel in which two frames differ, if any does.
///
/// Both must have the same size.
pub(super) fn changed(before: &RgbaImage, now: &RgbaImage) -> Option<Area> {
    let differing = |y: &u32| row(before, *y) != row(now, *y);
    let top = (0..now.height()).find(differing)?;
    let bottom = (top..now.height()).rfind(differing)?;
    let mut left = now.width();
    let mut right = 0;
    for y in top..=bottom {
        let columns = row(before, y).chunks_exact(4).zip(row(now, y).chunks_exact(4));
        let mut columns = columns.map(|(one, other)| one != other);
        if let Some(first) = columns.clone().position(|differs| differs) {
            let last = columns.rposition(|differs| differs).unwrap_or(first);
            left = left.min(first as u32);
            right = right.max(last as u32);
        }
    }
    Some(Area { left, top, width: right - left + 1, height: bottom - top + 1 })
}

/// Returns the whole of a frame.
pub(super) fn whole(frame: &RgbaImage) -> Area {
    Area::whole(ThumbnailSize { width: frame.width(), height: frame.height() })
}

/// Returns the pixels of a rectangle inside a frame, row by row, four bytes each.
pub(super) fn cut(frame: &RgbaImage, area: Area) -> impl Iterator<Item = &[u8]> {
    let columns = area.left as usize * 4..(area.left + area.width) as usize * 4;
    (area.top..area.top + area.height).map(move |y| &row(frame, y)[columns.clone()])
}

fn row(frame: &RgbaImage, y: u32) -> &[u8] {
    let length = frame.width() as usize * 4;
    &frame.as_raw()[y as usize * length..][..length]
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgba;
    use proptest::prelude::*;

    #[test]
    fn equal_frames_have_no_change() {
        let frame = RgbaImage::new(7, 5);
        assert_eq!(changed(&frame, &frame.clone()), None);
    }

    proptest! {
        #[test]
        fn the_rectangle_is_the_smallest_around_all_changes(
            points in proptest::collection::vec((0_u32..23, 0_u32..17), 1..6),
        ) {
            let before = RgbaImage::new(23, 17);
            let mut now = before.clone();
            for &(x, y) in &points {
                now.put_pixel(x, y, Rgba([0, 0, 0, 1]));
            }
            let xs = points.iter().map(|point| point.0);
            let ys = points.iter().map(|point| point.1);
            let (left, top) = (xs.clone().min().unwrap(), ys.clone().min().unwrap());
            let (width, height) = (xs.max().unwrap() - left + 1, ys.max().unwrap() - top + 1);
            let area = changed(&before, &now).expect("a change");
            prop_assert_eq!(area, Area { left, top, width, height });
            let pixels: Vec<&[u8]> = cut(&now, area).collect();
            prop_assert_eq!(pixels.len(), height as usize);
            prop_assert!(pixels.iter().all(|row| row.len() == width as usize * 4));
        }
    }
}
