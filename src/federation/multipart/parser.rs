//! The parts taken apart as their bytes come in.
//!
//! Pure: bytes in, events out, whatever pieces the bytes come in. What comes before the media is read
//! line by line; the media is handed on as it is, without being copied, and only bytes that may be the
//! beginning of a boundary are kept back until more is known.

use std::mem;

use bytes::{Buf, Bytes};
use serde::de::IgnoredAny;

use super::delimiter::{Delimiter, Found};
use super::head::{HeadReader, PartHead};
use super::{Boundary, MultipartError};

/// The longest preamble; real servers send an empty line or none (FLD-02).
const MAX_PREAMBLE: usize = 1024;

/// The longest head of a part.
const MAX_HEAD: usize = 16 * 1024;

/// The longest JSON of the first part.
const MAX_METADATA: usize = 64 * 1024;

/// The most that may come behind the last boundary, which is dropped.
pub const MAX_EPILOGUE: usize = 4 * 1024;

/// What has been found. Public, as the parser is, for the fuzz targets too; readers use
/// [`SecondPart`](super::SecondPart).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The head of the second part; it comes once and first.
    Head(PartHead),
    /// A piece of the media, never empty.
    Body(Bytes),
}

/// Where in the answer we are.
#[derive(Debug)]
enum Phase {
    /// Before the first boundary.
    Preamble,
    /// In the head of the first part, or else of the second.
    Head { is_first: bool, head: HeadReader },
    /// In the body of the first part, of which this has come.
    Metadata(Vec<u8>),
    /// In the body of the second.
    Media,
    /// Behind the boundary that ends it, of which so many dashes at its end have come.
    Ended { dashes: u8 },
    /// In the blanks behind a boundary without dashes.
    Padded,
    /// Behind the line of a boundary without dashes: the end has to follow (FLD-01).
    ShortlyEnded,
    /// Behind the last boundary.
    Epilogue,
    /// Not as it should be.
    Failed(MultipartError),
}

/// A reader of the two parts that does no input: [`push`](Self::push) a piece, then take events with
/// [`next_event`](Self::next_event) until there are none; at the end of the answer ask [`finish`](Self::finish).
///
/// Lines before the media may end in LF alone (FLD-07). The boundary behind the media has to stand
/// behind CRLF: media may hold anything else. Public for the fuzz targets too.
#[derive(Debug)]
pub struct Parser {
    delimiter: Delimiter,
    phase: Phase,
    /// How many bytes this phase may still have.
    budget: usize,
    /// The beginning of a line that is not there to its end.
    line: Vec<u8>,
    /// What has come and is not read.
    rest: Bytes,
    /// How many bytes came before the media.
    before: u64,
}

impl Parser {
    /// Waits for the first byte of an answer.
    pub fn new(boundary: &Boundary) -> Self {
        Self {
            delimiter: Delimiter::new(boundary.as_str()),
            phase: Phase::Preamble,
            budget: MAX_PREAMBLE,
            line: Vec::new(),
            rest: Bytes::new(),
            before: 0,
        }
    }

    /// Takes the next piece of the answer.
    pub fn push(&mut self, piece: Bytes) {
        if self.rest.is_empty() {
            self.rest = piece;
        } else {
            // Only of a caller who did not take all events.
            self.rest = [mem::take(&mut self.rest), piece].concat().into();
        }
    }

    /// Returns what was found next, or `None` if more bytes are needed.
    ///
    /// # Errors
    ///
    /// [`MultipartError`], which is final.
    pub fn next_event(&mut self) -> Result<Option<Event>, MultipartError> {
        let event = self.step();
        if let Err(error) = event {
            self.phase = Phase::Failed(error);
        }
        event
    }

    /// Judges the end of the answer, when all events are taken.
    ///
    /// # Errors
    ///
    /// [`MultipartError::Truncated`] if it is not the end of both parts.
    pub fn finish(&self) -> Result<(), MultipartError> {
        match &self.phase {
            Phase::Ended { dashes: 0 } | Phase::Padded | Phase::ShortlyEnded | Phase::Epilogue => {
                Ok(())
            }
            Phase::Failed(error) => Err(*error),
            _ => Err(MultipartError::Truncated),
        }
    }

    /// Returns the least and the most bytes that the media can have in an answer of so many, once the
    /// second part has been reached.
    pub fn size_within(&self, answer_size: u64) -> (u64, u64) {
        let rest = answer_size.saturating_sub(self.before);
        let most = rest.saturating_sub(self.delimiter.len() as u64);
        (most.saturating_sub(MAX_EPILOGUE as u64), most)
    }

    fn step(&mut self) -> Result<Option<Event>, MultipartError> {
        loop {
            let event = match self.phase {
                Phase::Failed(error) => return Err(error),
                Phase::Media => match self.delimiter.find(&mut self.rest) {
                    Found::Piece(piece) => Some(Event::Body(piece)),
                    Found::Nothing => None,
                    Found::End => {
                        self.enter(Phase::Ended { dashes: 0 }, MAX_EPILOGUE);
                        None
                    }
                },
                Phase::Ended { .. } | Phase::Padded | Phase::ShortlyEnded | Phase::Epilogue => {
                    self.behind()?;
                    return Ok(None);
                }
                Phase::Preamble | Phase::Head { .. } | Phase::Metadata(_) => {
                    let Some(line) = self.take_line()? else { return Ok(None) };
                    self.line_before_media(line)?
                }
            };
            if event.is_some() {
                return Ok(event);
            }
            if self.rest.is_empty() {
                return Ok(None);
            }
        }
    }

    /// Takes a line with its end off what has come, or keeps its beginning for later.
    fn take_line(&mut self) -> Result<Option<Bytes>, MultipartError> {
        let end = memchr::memchr(b'\n', &self.rest).map(|at| at + 1);
        let taken = self.rest.split_to(end.unwrap_or(self.rest.len()));
        self.before += taken.len() as u64;
        if self.line.len() + taken.len() > self.budget {
            return Err(MultipartError::TooLong(match self.phase {
                Phase::Preamble => "what comes before the first boundary",
                Phase::Metadata(_) => "the first part",
                _ => "the head of a part",
            }));
        }
        if end.is_none() {
            self.line.extend_from_slice(&taken);
            return Ok(None);
        }
        let line = if self.line.is_empty() {
            taken
        } else {
            self.line.extend_from_slice(&taken);
            mem::take(&mut self.line).into()
        };
        self.budget -= line.len();
        Ok(Some(line))
    }

    fn line_before_media(&mut self, line: Bytes) -> Result<Option<Event>, MultipartError> {
        let bare = line.strip_suffix(b"\n").unwrap_or(&line);
        let bare = bare.strip_suffix(b"\r").unwrap_or(bare);
        let behind_boundary = bare.strip_prefix(self.delimiter.line());
        match (&mut self.phase, behind_boundary) {
            (Phase::Head { .. }, Some(_)) => Err(MultipartError::Head("a boundary")),
            (Phase::Preamble, Some(rest)) => {
                goes_on(rest)?;
                self.enter(Phase::Head { is_first: true, head: HeadReader::default() }, MAX_HEAD);
                Ok(None)
            }
            (Phase::Metadata(json), Some(rest)) => {
                goes_on(rest)?;
                if !is_object(json) {
                    return Err(MultipartError::Metadata);
                }
                self.enter(Phase::Head { is_first: false, head: HeadReader::default() }, MAX_HEAD);
                Ok(None)
            }
            (Phase::Metadata(json), None) => {
                json.extend_from_slice(&line);
                Ok(None)
            }
            (Phase::Head { is_first, head }, None) => {
                let is_first = *is_first;
                let Some(head) = head.line(bare)? else { return Ok(None) };
                if is_first {
                    self.enter(Phase::Metadata(Vec::new()), MAX_METADATA);
                    return Ok(None);
                }
                self.enter(Phase::Media, 0);
                Ok(Some(Event::Head(head)))
            }
            _ => Ok(None),
        }
    }

    fn enter(&mut self, phase: Phase, budget: usize) {
        self.phase = phase;
        self.budget = budget;
    }

    /// Reads what comes after the boundary behind the media.
    fn behind(&mut self) -> Result<(), MultipartError> {
        while self.rest.has_remaining() {
            if matches!(self.phase, Phase::Epilogue) {
                let left = self.budget.checked_sub(self.rest.len());
                self.budget = left.ok_or(MultipartError::Epilogue)?;
                self.rest.clear();
                return Ok(());
            }
            let byte = self.rest.get_u8();
            self.budget = self.budget.checked_sub(1).ok_or(MultipartError::Epilogue)?;
            self.phase = match (&self.phase, byte) {
                (Phase::Ended { dashes: 0 }, b'-') => Phase::Ended { dashes: 1 },
                (Phase::Ended { dashes: 1 }, b'-') => Phase::Epilogue,
                (Phase::Ended { dashes: 0 } | Phase::Padded, b' ' | b'\t' | b'\r') => Phase::Padded,
                (Phase::Ended { dashes: 0 } | Phase::Padded, b'\n') => Phase::ShortlyEnded,
                (Phase::ShortlyEnded, b' ' | b'\t' | b'\r' | b'\n') => Phase::ShortlyEnded,
                (Phase::ShortlyEnded, _) => return Err(MultipartError::ThirdPart),
                _ => return Err(MultipartError::BrokenBoundary),
            };
        }
        Ok(())
    }
}

/// Judges what stands behind a boundary before another part.
fn goes_on(behind: &[u8]) -> Result<(), MultipartError> {
    match behind {
        [b'-', b'-', ..] => Err(MultipartError::OnePart),
        blanks if blanks.iter().all(|b| matches!(b, b' ' | b'\t')) => Ok(()),
        _ => Err(MultipartError::BrokenBoundary),
    }
}

/// Whether this is a JSON object. What is in it means nothing today (FM-C-10).
fn is_object(json: &[u8]) -> bool {
    let begins = json.trim_ascii_start().first() == Some(&b'{');
    begins && serde_json::from_slice::<IgnoredAny>(json).is_ok()
}
