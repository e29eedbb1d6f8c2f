//! Whatever is written is read back as it was, and whatever is read does no harm.

use proptest::prelude::*;

use super::super::strip::{Encoder, Strip};
use super::*;

fn any_film() -> impl Strategy<Value = Film> {
    let colour = prop_oneof![
        Just([0, 0, 0, 0]),
        Just([255, 0, 0, 255]),
        Just([0, 0, 255, 255]),
        Just([255, 255, 255, 255])
    ];
    (1_u32..12, 1_u32..12).prop_flat_map(move |(width, height)| {
        let pixels = proptest::collection::vec(colour.clone(), (width * height) as usize);
        let picture = pixels.prop_map(move |pixels| {
            RgbaImage::from_raw(width, height, pixels.concat()).expect("as many as needed")
        });
        proptest::collection::vec((picture, 2_u32..90).prop_map(|(p, cs)| (p, cs * 10)), 2..6)
    })
}

fn written(film: &Film, encoder: Box<dyn Encoder>) -> Option<Vec<u8>> {
    let mut strip = Strip::new(encoder);
    for (picture, millis) in film {
        strip.push(picture.clone(), *millis).expect("pictures can be encoded");
    }
    strip.finish().expect("animations can be put together")
}

/// What should be seen: equal neighbours are one.
fn merged(film: &Film) -> Film {
    let mut merged: Film = Vec::new();
    for (picture, millis) in film {
        match merged.last_mut() {
            Some((last, shown)) if last == picture => *shown += millis,
            _ => merged.push((picture.clone(), *millis)),
        }
    }
    merged
}

proptest! {
    #[test]
    fn a_gif_shows_what_was_written(film in any_film()) {
        let (width, height) = film[0].0.dimensions();
        let size = ThumbnailSize { width, height };
        let encoder = gif_out::GifEncoder::new(size, Plays::Forever).expect("a small size");
        let expected = merged(&film);
        match written(&film, Box::new(encoder)) {
            None => prop_assert_eq!(expected.len(), 1),
            Some(bytes) => prop_assert_eq!(read(&bytes, "image/gif"), expected),
        }
    }

    #[test]
    fn a_webp_shows_what_was_written_but_for_its_losses(film in any_film()) {
        let (width, height) = film[0].0.dimensions();
        let size = ThumbnailSize { width, height };
        let encoder = webp_out::WebPEncoder::new(size, Plays::Forever).expect("a small size");
        let expected = merged(&film);
        let Some(bytes) = written(&film, Box::new(encoder)) else {
            prop_assert_eq!(expected.len(), 1);
            return Ok(());
        };
        let made = read(&bytes, "image/webp");
        prop_assert_eq!(millis(&made), millis(&expected));
        for ((made, _), (expected, _)) in made.iter().zip(&expected) {
            let alphas = |picture: &RgbaImage| picture.pixels().map(|it| it.0[3]).collect::<Vec<_>>();
            prop_assert_eq!(alphas(made), alphas(expected));
        }
    }

    #[test]
    fn damage_gives_a_thumbnail_or_an_error_but_no_panic(
        (kind, place, byte) in (0_usize..3, any::<proptest::sample::Index>(), any::<u8>()),
    ) {
        let film: Film =
            [RED, GREEN, BLUE].iter().map(|colour| (coloured(24, 18, *colour), 50)).collect();
        let sources = [gif_of(&film), apng_of(&film, 0), webp_of(&film, 0, 6)];
        let mut source = sources[kind].clone();
        *place.get_mut(&mut source) = byte;
        let limits = Limits { max_pixels: 1_000_000, ..Limits::default() };
        let made = made_under(limits, &source, &spec(8, 8, Crop), MovingEncoding::WebP);
        prop_assert!(!matches!(made, Err(ThumbnailError::Panicked(_))), "{:?}", made);
    }
}
