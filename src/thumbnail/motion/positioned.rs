//! Reading a file from a place of one's own.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use super::Film;

/// A reader of a file that leaves the file's own cursor alone, which another reader may be using.
pub(super) struct Positioned<'a> {
    file: &'a File,
    length: u64,
    position: u64,
}

impl<'a> Positioned<'a> {
    /// Starts at the first byte.
    pub(super) fn new(film: &Film<'a>) -> Self {
        Self { file: film.file, length: film.length, position: 0 }
    }
}

impl Read for Positioned<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(buffer, self.position)?;
        self.position += length as u64;
        Ok(length)
    }
}

impl Seek for Positioned<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
            SeekFrom::End(offset) => self.length.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thumbnail::samples;

    #[test]
    fn two_readers_of_one_file_do_not_disturb_each_other() {
        let mut file = samples::file(b"0123456789");
        file.seek(SeekFrom::Start(4)).unwrap();
        let mut reader = Positioned { file: &file, length: 10, position: 0 };
        let mut two = [0; 2];
        reader.seek(SeekFrom::End(-3)).unwrap();
        reader.read_exact(&mut two).unwrap();
        assert_eq!(&two, b"78");
        reader.seek(SeekFrom::Current(-8)).unwrap();
        reader.read_exact(&mut two).unwrap();
        assert_eq!(&two, b"12");
        assert_eq!(file.stream_position().unwrap(), 4);
    }

    #[test]
    fn places_before_the_start_are_refused() {
        let file = samples::file(b"0123456789");
        let mut reader = Positioned { file: &file, length: 10, position: 0 };
        for impossible in [SeekFrom::Current(-1), SeekFrom::End(-11)] {
            assert!(reader.seek(impossible).is_err(), "{impossible:?}");
        }
        assert!(reader.seek(SeekFrom::Start(u64::MAX)).is_ok());
        assert!(reader.seek(SeekFrom::Current(1)).is_err());
    }
}
