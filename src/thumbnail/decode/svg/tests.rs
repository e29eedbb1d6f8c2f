use super::*;
use image::Rgba;

const ROOT: &str = "<svg xmlns='http://www.w3.org/2000/svg' xmlns:xlink='http://www.w3.org/1999/xlink' \
                    width='40' height='20'>";

fn opened(inner: &str) -> Result<SvgSource, ThumbnailError> {
    SvgSource::open(format!("{ROOT}{inner}</svg>").as_bytes(), &Limits::default())
}

fn drawn(inner: &str, at_least: ThumbnailSize) -> RgbaImage {
    let source = opened(inner).expect("it can be drawn");
    pixels_of(source, at_least)
}

fn pixels_of(source: SvgSource, at_least: ThumbnailSize) -> RgbaImage {
    match Box::new(source).decode(at_least) {
        Ok(Pixels::Image(image)) => image.into_rgba8(),
        other => panic!("not drawn: {other:?}"),
    }
}

fn full() -> ThumbnailSize {
    ThumbnailSize { width: 40, height: 20 }
}

/// IM-07
#[test]
fn scripts_and_entities_are_refused() {
    for inner in ["<script/>", "<g><script>1</script></g>", "<x:script xmlns:x='y'/>"] {
        assert!(matches!(opened(inner), Err(ThumbnailError::Damaged(_))), "{inner}");
    }
    let entities = "<!DOCTYPE svg [<!ENTITY x SYSTEM 'file:///etc/hostname'>]><svg \
                    xmlns='http://www.w3.org/2000/svg'><text y='20'>&x;</text></svg>";
    let refused = SvgSource::open(entities.as_bytes(), &Limits::default());
    assert!(matches!(refused, Err(ThumbnailError::Damaged(_))));
}

#[test]
fn a_document_type_that_declares_nothing_is_passed_over() {
    let text = "<!DOCTYPE svg PUBLIC '-//W3C//DTD SVG 1.1//EN' \
                'http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd'><svg \
                xmlns='http://www.w3.org/2000/svg' width='3' height='2'/>";
    let source = SvgSource::open(text.as_bytes(), &Limits::default()).expect("it can be drawn");
    assert_eq!(source.header().size, ThumbnailSize { width: 3, height: 2 });
}

/// IM-07
#[test]
fn nothing_outside_of_the_document_is_read() {
    let file = tempfile::NamedTempFile::with_suffix(".png").expect("a temporary file");
    image::RgbImage::from_pixel(40, 20, image::Rgb([255, 0, 0]))
        .save(file.path())
        .expect("room for a sample");
    let path = file.path().display();
    for link in [format!("{path}"), format!("file://{path}"), "http://127.0.0.1/a.png".to_owned()] {
        let image = format!("<image width='40' height='20' xlink:href='{link}'/>");
        assert!(drawn(&image, full()).pixels().all(|pixel| pixel.0[3] == 0), "{link}");
    }
}

#[test]
fn embedded_pictures_are_drawn_within_the_limit_of_pixels() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let red = image::DynamicImage::from(image::RgbImage::from_pixel(4, 4, image::Rgb([255, 0, 0])));
    let png = crate::thumbnail::samples::encoded(&red, image::ImageFormat::Png);
    let link = format!("data:image/png;base64,{}", STANDARD.encode(png));
    let inner = format!("<image width='40' height='20' preserveAspectRatio='none' href='{link}'/>");
    assert_eq!(drawn(&inner, full()).get_pixel(20, 10), &Rgba([255, 0, 0, 255]));
    let tight = Limits { max_pixels: 15, ..Limits::default() };
    let text = format!("{ROOT}{inner}</svg>");
    let source = SvgSource::open(text.as_bytes(), &tight).expect("it can be drawn");
    assert!(pixels_of(source, full()).pixels().all(|pixel| pixel.0[3] == 0));
}

#[test]
fn quarters_and_transparency_are_drawn_at_the_size_that_is_asked_for() {
    let inner = "<rect width='20' height='10' fill='#e61414'/>\
                 <rect x='20' width='20' height='10' fill='#14e614'/>\
                 <rect y='10' width='20' height='10' fill='#1414e6' fill-opacity='0.5'/>";
    for (at_least, size) in [
        ((40, 20), (40, 20)),
        ((20, 10), (20, 10)),
        ((8, 8), (16, 8)),
        ((1, 1), (2, 1)),
        ((400, 200), (40, 20)),
    ] {
        let at_least = ThumbnailSize { width: at_least.0, height: at_least.1 };
        let image = drawn(inner, at_least);
        assert_eq!(image.dimensions(), size);
        if size.1 > 1 {
            let at = |x, y| image.get_pixel(size.0 * x / 4, size.1 * y / 4).0;
            assert_eq!(at(1, 1), [230, 20, 20, 255]);
            assert_eq!(at(3, 1), [20, 230, 20, 255]);
            let Rgba([red, green, blue, alpha]) = Rgba(at(1, 3));
            assert!(alpha.abs_diff(128) < 2 && red.abs_diff(20) < 4, "{red} {alpha}");
            assert!(green.abs_diff(20) < 4 && blue.abs_diff(230) < 4, "{green} {blue}");
            assert_eq!(at(3, 3)[3], 0);
        }
    }
}

#[test]
fn huge_drawings_are_made_smaller_and_keep_their_shape() {
    let text = "<svg xmlns='http://www.w3.org/2000/svg' width='8e8' height='4e8'/>";
    let source = SvgSource::open(text.as_bytes(), &Limits::default()).expect("it can be drawn");
    assert_eq!(source.header().size, ThumbnailSize { width: 4096, height: 2048 });
    let few = Limits { max_pixels: 200, ..Limits::default() };
    let source = SvgSource::open(text.as_bytes(), &few).expect("it can be drawn");
    assert!(few.check(source.header().size).is_ok());
}

#[test]
fn what_is_nested_or_chained_too_deep_is_refused() {
    let nested = format!("{}{}", "<g>".repeat(120), "</g>".repeat(120));
    let chain = |count: u32, link: fn(u32) -> String| -> String {
        (0..count).map(|number| link(number)).collect()
    };
    let uses = chain(120, |n| format!("<g id='a{n}'><use href='#a{}'/></g>", n + 1));
    let masks = chain(120, |n| {
        format!("<mask id='a{n}' mask='url(#a{})'><rect width='9' height='9'/></mask>", n + 1)
    });
    let masks = format!("<rect mask='url(#a0)' width='9' height='9'/>{masks}");
    let styled = chain(120, |n| {
        format!("<style>.a{n}{{mask:url(#a{})}}</style><mask id='a{n}' class='a{n}'/>", n + 1)
    });
    for inner in [nested, uses, masks, styled] {
        assert!(matches!(opened(&inner), Err(ThumbnailError::TooLarge(_))), "{inner}");
    }
}

#[test]
fn as_deep_as_allowed_is_drawn() {
    let chain: String = (0..95)
        .map(|n| {
            let next = n + 1;
            format!("<mask id='a{n}' mask='url(#a{next})'><rect width='9' height='9'/></mask>")
        })
        .collect();
    drawn(&format!("<rect mask='url(#a0)' width='9' height='9'/>{chain}"), full());
    let nested = format!("{}{}", "<g opacity='0.9'>".repeat(98), "</g>".repeat(98));
    drawn(&nested, full());
}

#[test]
fn a_billion_laughs_are_refused_and_circles_are_not_followed() {
    let laughs: String = (0..12)
        .map(|n| {
            let next = format!("<use href='#a{}'/>", n + 1);
            format!("<g id='a{n}'>{}</g>", next.repeat(10))
        })
        .collect();
    let laughs = format!("{laughs}<rect id='a12' width='9' height='9'/>");
    assert!(matches!(opened(&laughs), Err(ThumbnailError::TooLarge(_))));
    drawn("<g id='a'><use href='#a'/></g><pattern id='p'><rect fill='url(#p)'/></pattern>", full());
}

#[test]
fn texts_take_the_font_that_was_loaded_or_are_left_out() {
    // Whether there is a font depends on the machine, and whether it is loaded on other tests.
    let text = "<text y='18' font-size='20' font-family='No Such Font'>MMM</text>";
    let has_font = || font::loaded().faces().next().is_some();
    load_fallback_font();
    let is_drawn = drawn(text, full()).pixels().any(|pixel| pixel.0[3] > 0);
    assert_eq!(is_drawn, has_font());
}

#[test]
fn other_texts_are_damaged() {
    for text in [&b"<svg xmlns='http://www.w3.org/2000/svg'"[..], b"<svg/>", b"<svg>\xff</svg>"] {
        let refused = SvgSource::open(text, &Limits::default());
        assert!(matches!(refused, Err(ThumbnailError::Damaged(_))), "{text:?}");
    }
}
