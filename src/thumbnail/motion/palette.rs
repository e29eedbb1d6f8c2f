//! A few colours in place of many.
//!
//! Colours are counted in 32 steps for each of red, green and blue. The set of all is cut in two again and
//! again, always where the error is largest, at its mean; each part becomes the average of its colours. So
//! a pixel's colour is found by one look into a table. Against the neural network that is usual for GIF it
//! takes a fraction of the time.

/// A palette, and for each colour the entry that is nearest to it.
pub(super) struct Palette {
    colours: Vec<[u8; 3]>,
    /// An entry for each bin.
    entries: Vec<u8>,
}

const BITS: u32 = 5;
const BINS: usize = 1 << (3 * BITS);

/// Colours that are too near to each other to be told apart here.
#[derive(Clone, Copy, Default)]
struct Bin {
    count: u64,
    sums: [u64; 3],
}

/// A part of all bins that are in use.
struct Part {
    bins: Vec<usize>,
    total: Bin,
    /// The squared error in the channel where it is largest, and that channel.
    error: f64,
    channel: usize,
}

impl Palette {
    /// Chooses at most so many colours, 1 to 256.
    pub(super) fn of(pixels: impl Iterator<Item = [u8; 3]>, most: usize) -> Self {
        let mut bins = vec![Bin::default(); BINS];
        for pixel in pixels {
            bins[bin_of(pixel)].add(pixel);
        }
        let used = (0..BINS).filter(|&bin| bins[bin].count > 0).collect::<Vec<_>>();
        let mut parts = Vec::with_capacity(most);
        if !used.is_empty() {
            parts.push(Part::of(used, &bins));
        }
        while parts.len() < most
            && let Some(worst) = worst(&parts)
        {
            let (low, high) = parts.swap_remove(worst).halves(&bins);
            parts.extend([low, high]);
        }
        let mut entries = vec![0; BINS];
        for (entry, part) in (0..=u8::MAX).zip(&parts) {
            for &bin in &part.bins {
                entries[bin] = entry;
            }
        }
        Self { colours: parts.iter().map(|part| part.total.average()).collect(), entries }
    }

    /// The colours, at most as many as asked, none if there were no pixels.
    pub(super) fn colours(&self) -> &[[u8; 3]] {
        &self.colours
    }

    /// Returns the entry for one of the pixels that the palette was made of.
    pub(super) fn index_of(&self, pixel: [u8; 3]) -> u8 {
        self.entries[bin_of(pixel)]
    }
}

/// Returns the part that gains most by being cut, if any can be.
fn worst(parts: &[Part]) -> Option<usize> {
    let errors = parts.iter().map(|part| part.error).enumerate();
    let (index, _) = errors.filter(|(_, error)| *error > 0.0).max_by(|a, b| a.1.total_cmp(&b.1))?;
    Some(index)
}

fn bin_of(pixel: [u8; 3]) -> usize {
    let [red, green, blue] = pixel.map(|channel| usize::from(channel) >> (8 - BITS));
    (red << (2 * BITS)) | (green << BITS) | blue
}

impl Bin {
    fn add(&mut self, pixel: [u8; 3]) {
        self.count += 1;
        for (sum, channel) in self.sums.iter_mut().zip(pixel) {
            *sum += u64::from(channel);
        }
    }

    fn mean(&self, channel: usize) -> f64 {
        self.sums[channel] as f64 / self.count as f64
    }

    fn average(&self) -> [u8; 3] {
        // The average of bytes is one.
        self.sums.map(|sum| ((sum + self.count / 2) / self.count.max(1)).min(255) as u8)
    }
}

impl Part {
    fn of(used: Vec<usize>, bins: &[Bin]) -> Self {
        let mut total = Bin::default();
        for bin in used.iter().map(|&bin| &bins[bin]) {
            total.count += bin.count;
            for (sum, more) in total.sums.iter_mut().zip(bin.sums) {
                *sum += more;
            }
        }
        let error = |channel: usize| -> f64 {
            let mean = total.mean(channel);
            let distance = |bin: &usize| (bins[*bin].mean(channel) - mean).powi(2);
            used.iter().map(|bin| distance(bin) * bins[*bin].count as f64).sum()
        };
        let (channel, error) = [0, 1, 2]
            .map(|channel| (channel, error(channel)))
            .into_iter()
            .max_by(|one, other| one.1.total_cmp(&other.1))
            .expect("three channels");
        // One bin is never cut, whatever rounding makes of its distance to itself.
        let error = if used.len() > 1 { error } else { 0.0 };
        Self { bins: used, total, error, channel }
    }

    /// Cuts at the mean: where there is an error, something lies on either side.
    fn halves(self, bins: &[Bin]) -> (Self, Self) {
        let mean = self.total.mean(self.channel);
        let is_low = |bin: &usize| bins[*bin].mean(self.channel) <= mean;
        let (low, high) = self.bins.iter().partition(|bin| is_low(bin));
        (Self::of(low, bins), Self::of(high, bins))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn few_colours_are_kept_as_they_are() {
        let pixels = [[230, 20, 20], [20, 230, 20], [0, 0, 0], [255, 255, 255], [230, 20, 20]];
        let palette = Palette::of(pixels.into_iter(), 255);
        assert_eq!(palette.colours().len(), 4);
        for pixel in pixels {
            assert_eq!(palette.colours()[usize::from(palette.index_of(pixel))], pixel);
        }
    }

    #[test]
    fn no_pixels_give_no_colours() {
        assert!(Palette::of(std::iter::empty(), 255).colours().is_empty());
    }

    #[test]
    fn a_whole_spectrum_is_met_closely() {
        let pixels = (0..4096_u32).map(|n| [n >> 8, (n >> 4) & 15, n & 15].map(|c| c as u8 * 17));
        let palette = Palette::of(pixels.clone(), 255);
        assert_eq!(palette.colours().len(), 255);
        for pixel in pixels {
            let met = palette.colours()[usize::from(palette.index_of(pixel))];
            let furthest = met.iter().zip(pixel).map(|(a, b)| a.abs_diff(b)).max();
            assert!(furthest <= Some(40), "{pixel:?} became {met:?}");
        }
    }

    proptest! {
        #[test]
        fn every_pixel_has_an_entry(
            pixels in proptest::collection::vec(any::<[u8; 3]>(), 1..2000), most in 1_usize..=256,
        ) {
            let palette = Palette::of(pixels.iter().copied(), most);
            prop_assert!((1..=most).contains(&palette.colours().len()));
            for pixel in pixels {
                prop_assert!(usize::from(palette.index_of(pixel)) < palette.colours().len());
            }
        }
    }
}
