//! How alike two pictures are to the eye: structural similarity (Wang, Bovik, Sheikh and Simoncelli,
//! 2004), which forgives what encoders do and not what moves, blurs or vanishes.

use image::DynamicImage;

/// The sides of a window.
const WINDOW: usize = 8;

/// How far windows lie apart: they overlap, so that no edge hides between two of them.
const STEP: usize = 4;

/// How alike two pictures are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Likeness {
    /// The structural similarity of what is seen on black: 1 for the same, about 0 for strangers. The
    /// average of all windows.
    pub luma: f64,
    /// That of the transparency.
    pub alpha: f64,
    /// By how much colours differ, in steps of 255, which structure alone hardly tells: the largest of
    /// the average differences of luma, blue and red chroma over all windows.
    pub colour: f64,
}

/// Compares two pictures of one size.
///
/// # Panics
///
/// Panics if their sizes differ.
pub fn compare(one: &DynamicImage, other: &DynamicImage) -> Likeness {
    assert_eq!((one.width(), one.height()), (other.width(), other.height()), "their sizes differ");
    let [one, other] = [Channels::of(one), Channels::of(other)];
    let difference = |channel: fn(&Channels) -> &Plane| {
        average(channel(&one).windows().zip(channel(&other).windows()).map(|(one, other)| {
            (average(one.iter().copied()) - average(other.iter().copied())).abs()
        }))
    };
    Likeness {
        luma: ssim(&one.luma, &other.luma),
        alpha: ssim(&one.alpha, &other.alpha),
        colour: difference(|channels| &channels.luma)
            .max(difference(|channels| &channels.blue))
            .max(difference(|channels| &channels.red)),
    }
}

/// One channel, row by row.
struct Plane {
    values: Vec<f64>,
    width: usize,
    height: usize,
}

struct Channels {
    luma: Plane,
    blue: Plane,
    red: Plane,
    alpha: Plane,
}

impl Channels {
    /// Splits a picture as JPEG does (ITU-T T.871), what is transparent on black.
    fn of(image: &DynamicImage) -> Self {
        let image = image.to_rgba8();
        let (width, height) = (image.width() as usize, image.height() as usize);
        let plane = |value: fn([f64; 4]) -> f64| {
            let values = image.pixels().map(|pixel| {
                let [red, green, blue, alpha] = pixel.0.map(f64::from);
                let seen = alpha / 255.0;
                value([red * seen, green * seen, blue * seen, alpha])
            });
            Plane { values: values.collect(), width, height }
        };
        Self {
            luma: plane(|[r, g, b, _]| 0.299 * r + 0.587 * g + 0.114 * b),
            blue: plane(|[r, g, b, _]| -0.1687 * r - 0.3313 * g + 0.5 * b),
            red: plane(|[r, g, b, _]| 0.5 * r - 0.4187 * g - 0.0813 * b),
            alpha: plane(|[.., alpha]| alpha),
        }
    }
}

impl Plane {
    /// Returns all windows; a picture that is smaller than one is a single window.
    fn windows(&self) -> impl Iterator<Item = Vec<f64>> {
        let starts = |side: usize| (0..=side.saturating_sub(WINDOW)).step_by(STEP);
        starts(self.height).flat_map(move |top| {
            starts(self.width).map(move |left| {
                let rows = top..(top + WINDOW).min(self.height);
                let columns = left..(left + WINDOW).min(self.width);
                rows.flat_map(|y| {
                    self.values[y * self.width + columns.start..y * self.width + columns.end]
                        .to_vec()
                })
                .collect()
            })
        })
    }
}

fn ssim(one: &Plane, other: &Plane) -> f64 {
    average(one.windows().zip(other.windows()).map(|(one, other)| ssim_of_window(&one, &other)))
}

fn ssim_of_window(one: &[f64], other: &[f64]) -> f64 {
    // The constants of the paper, for values up to 255.
    const C1: f64 = (0.01 * 255.0) * (0.01 * 255.0);
    const C2: f64 = (0.03 * 255.0) * (0.03 * 255.0);
    let [mean, other_mean] = [one, other].map(|values| average(values.iter().copied()));
    let pairs = || one.iter().zip(other);
    let variance = average(one.iter().map(|value| (value - mean).powi(2)));
    let other_variance = average(other.iter().map(|value| (value - other_mean).powi(2)));
    let covariance = average(pairs().map(|(a, b)| (a - mean) * (b - other_mean)));
    (2.0 * mean * other_mean + C1) * (2.0 * covariance + C2)
        / ((mean.powi(2) + other_mean.powi(2) + C1) * (variance + other_variance + C2))
}

fn average(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    sum / f64::max(count, 1.0)
}
