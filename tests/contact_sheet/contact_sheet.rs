//! The contact sheet: one PNG with a row for each picture, the source and its thumbnails of every
//! method side by side, made by `mediary thumbnail` and meant to be looked at.
//!
//! `tests/contact-sheet.sh` builds and runs it.

mod font;
mod samples;
mod sheet;
mod thumbnails;

use std::io::Write;
use std::path::{Path, PathBuf};

use sheet::{Row, Sheet};
use thumbnails::Maker;

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(mediary), Some(out)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: contact-sheet MEDIARY OUT.png [FILE or DIRECTORY]...");
        std::process::exit(2);
    };
    let place = tempfile::tempdir()?;
    let mut files = samples::write(place.path())?;
    for given in arguments {
        files.extend(files_below(&given)?);
    }
    let maker = Maker::new(mediary, place.path().join("thumbnail"));
    let rows: Vec<Row> = files.iter().filter_map(|file| maker.row(file)).collect();
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{} of {} files have thumbnails", rows.len(), files.len())?;
    let sheet = Sheet::draw(&rows);
    sheet.save(&out).map_err(std::io::Error::other)?;
    writeln!(stdout, "{}: {}x{}", out.display(), sheet.width(), sheet.height())
}

/// Returns the files of a directory and of those in it, by name; a file is itself.
fn files_below(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut entries: Vec<_> = std::fs::read_dir(path)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    let mut files = Vec::new();
    for entry in entries {
        files.extend(files_below(&entry.path())?);
    }
    Ok(files)
}
