//! The one thing that is asked of an executable file: who loads it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
/// `\x7fELF`, of 64 bits, little-endian: all that the filter of system calls is made for.
const MAGIC: &[u8] = b"\x7fELF\x02\x01";
const PT_INTERP: u64 = 3;

/// Returns the loader that the kernel executes for a program, or none where it loads itself.
///
/// # Errors
///
/// The file cannot be read, or is no program for this kind of machine; a script is none.
pub(super) fn interpreter(file: &File) -> io::Result<Option<PathBuf>> {
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0)?;
    if !header.starts_with(MAGIC) {
        return Err(invalid("it is not an ELF executable of 64 bits"));
    }
    let (start, size, count) =
        (number(&header, 32, 8), number(&header, 54, 2), number(&header, 56, 2));
    for index in 0..count {
        let mut entry = [0; PROGRAM_HEADER_BYTES];
        let at =
            start.checked_add(index * size).ok_or_else(|| invalid("its headers are nowhere"))?;
        file.read_exact_at(&mut entry, at)?;
        if number(&entry, 0, 4) == PT_INTERP {
            return path(file, number(&entry, 8, 8), number(&entry, 32, 8)).map(Some);
        }
    }
    Ok(None)
}

fn path(file: &File, at: u64, length: u64) -> io::Result<PathBuf> {
    let length = usize::try_from(length).ok().filter(|length| (2..4096).contains(length));
    let mut path = vec![0; length.ok_or_else(|| invalid("its loader has no usable name"))?];
    file.read_exact_at(&mut path, at)?;
    path.pop_if(|last| *last == 0);
    Ok(PathBuf::from(OsStr::from_bytes(&path)))
}

/// Reads a little-endian number of up to eight bytes; the caller's buffers are long enough.
fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    let read = bytes.iter().skip(at).take(length).rev();
    read.fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn of(bytes: &[u8]) -> io::Result<Option<PathBuf>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        interpreter(&file)
    }

    #[test]
    fn what_is_no_program_is_an_error() {
        for bytes in [&b""[..], b"#!/bin/sh\nexec ffmpeg \"$@\"\n", &[0; 64], &[0xff; 4096]] {
            assert!(of(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_program_cut_off_or_with_headers_nowhere_is_an_error() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert!(of(&own[..80]).is_err());
        let mut lost = own[..HEADER_BYTES].to_vec();
        lost[32..40].fill(0xff);
        assert!(of(&lost).is_err());
    }

    #[test]
    fn the_loader_of_this_very_program_exists() {
        let own = File::open("/proc/self/exe").unwrap();
        if let Some(loader) = interpreter(&own).unwrap() {
            assert!(loader.is_absolute() && loader.exists(), "{}", loader.display());
        }
    }
}
