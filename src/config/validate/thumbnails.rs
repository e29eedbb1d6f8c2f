//! The rules of `[thumbnails]`.

use std::path::Path;

use super::broken;
use crate::config::thumbnail_size::parse_thumbnail_size;
use crate::config::{Config, ConfigError};

/// More sizes than any client asks for. Each may be made of every upload.
const MAX_SIZES: usize = 64;

/// More variants than sizes that clients ask for; each is a file and a row in the database.
const MAX_VARIANTS: u64 = 10_000;

/// More frames than any animation that is shown small.
const MAX_FRAMES: u32 = 10_000;

impl Config {
    pub(super) fn check_thumbnails(&self) -> Result<(), ConfigError> {
        self.check_ladder()?;
        let thumbnails = &self.thumbnails;
        for (key, count, most) in [
            ("thumbnails.max_variants", thumbnails.max_variants, MAX_VARIANTS),
            ("thumbnails.max_frames", thumbnails.max_frames.into(), MAX_FRAMES.into()),
            ("thumbnails.max_animation_pixels", thumbnails.max_animation_pixels, u64::MAX),
        ] {
            if count == 0 {
                return Err(broken(key, "must be more than zero"));
            }
            if count > most {
                return Err(broken(key, format!("must be at most {most}")));
            }
        }
        check_program("thumbnails.ffmpeg", &thumbnails.ffmpeg)?;
        check_program("thumbnails.heif", &thumbnails.heif)
    }

    fn check_ladder(&self) -> Result<(), ConfigError> {
        const KEY: &str = "thumbnails.sizes";
        let sizes = &self.thumbnails.sizes;
        if sizes.is_empty() {
            return Err(broken(KEY, "must name at least one size"));
        }
        if sizes.len() > MAX_SIZES {
            return Err(broken(KEY, format!("must name at most {MAX_SIZES} sizes")));
        }
        for size in sizes {
            parse_thumbnail_size(size).map_err(|error| broken(KEY, error.to_string()))?;
        }
        Ok(())
    }
}

/// A name is looked up in PATH; a path that begins nowhere would mean another program in another
/// directory.
fn check_program(key: &'static str, program: &Path) -> Result<(), ConfigError> {
    let is_name = program.components().count() <= 1;
    if is_name && !program.ends_with("..") && !program.ends_with(".") || program.is_absolute() {
        return Ok(());
    }
    Err(broken(key, "must be the name of a program, an absolute path, or empty for none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The defaults with the given text over them.
    fn config(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_broken_rule_names_its_key() {
        let many_sizes: Vec<_> = (0..=MAX_SIZES).map(|_| "'1x1 crop'").collect();
        let many_sizes = format!("thumbnails.sizes = [{}]", many_sizes.join(","));
        for (text, key) in [
            ("thumbnails.sizes = []", "thumbnails.sizes"),
            ("thumbnails.sizes = ['32x32 crop', '9999x1 crop']", "thumbnails.sizes"),
            (&many_sizes, "thumbnails.sizes"),
            ("thumbnails.max_variants = 0", "thumbnails.max_variants"),
            ("thumbnails.max_variants = 10001", "thumbnails.max_variants"),
            ("thumbnails.max_frames = 0", "thumbnails.max_frames"),
            ("thumbnails.max_frames = 10001", "thumbnails.max_frames"),
            ("thumbnails.max_animation_pixels = 0", "thumbnails.max_animation_pixels"),
            ("thumbnails.ffmpeg = 'bin/ffmpeg'", "thumbnails.ffmpeg"),
            ("thumbnails.ffmpeg = './ffmpeg'", "thumbnails.ffmpeg"),
            ("thumbnails.ffmpeg = '..'", "thumbnails.ffmpeg"),
            ("thumbnails.heif = '../heif-convert'", "thumbnails.heif"),
            ("thumbnails.heif = '.'", "thumbnails.heif"),
        ] {
            let error = config(text).validate().expect_err(text);
            let is_named = matches!(error, ConfigError::Rule { key: named, .. } if named == key);
            assert!(is_named, "{text}: {error}");
        }
    }

    #[test]
    fn what_only_looks_wrong_passes() {
        for text in [
            "thumbnails = { ffmpeg = '', heif = '' }",
            "thumbnails = { ffmpeg = '/usr/bin/ffmpeg', heif = 'heif-dec' }",
            "thumbnails = { mode = 'exact', webp = true, on_upload = true, moving = 'gif' }",
            "thumbnails = { max_frames = 1, max_animation_pixels = 1 }",
            "thumbnails = { max_variants = 2, sizes = ['1x1 crop'] }",
            // Sizes of the ladder do not count.
            "thumbnails = { max_variants = 1, webp = true }",
            "thumbnails = { max_variants = 1, mode = 'exact' }",
        ] {
            assert_eq!(config(text).validate().expect(text), [], "{text}");
        }
    }

    #[test]
    fn words_that_are_none_of_the_few_are_refused() {
        for text in ["mode = 'any'", "moving = 'avif'", "mode = 'Exact'", "moving = ''"] {
            assert!(toml::from_str::<Config>(&format!("thumbnails = {{ {text} }}")).is_err());
        }
    }
}
