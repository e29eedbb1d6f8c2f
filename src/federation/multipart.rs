//! The two parts of a federation answer (FM-S-03 to FM-S-06): what other servers send is read here, and
//! what we send is written.
//!
//! Strict in limits, lenient in form: what any known server writes is read (FLD-01 to FLD-03, FLD-07),
//! everything has a bound, and what is not whole never looks whole.

mod boundary;
mod delimiter;
mod frame;
mod head;
mod parser;

use async_trait::async_trait;
use bytes::Bytes;

pub use boundary::Boundary;
pub use frame::Frame;
pub use head::PartHead;
pub use parser::{Event, MAX_EPILOGUE, Parser};

use crate::types::{BodyError, BodyReader};

/// Why an answer is not the two parts that it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MultipartError {
    /// The answer is of another type (FLD-06).
    #[error("it is not multipart/mixed")]
    OtherType,
    /// Its type names no boundary that can be used.
    #[error("multipart/mixed with {0}")]
    Boundary(&'static str),
    /// Something before the body of the second part is longer than is read.
    #[error("{0} is longer than allowed")]
    TooLong(&'static str),
    /// A boundary is followed by something that belongs neither to it nor to a line of its own.
    #[error("a boundary goes on where it should end")]
    BrokenBoundary,
    /// A head of a part that is none.
    #[error("the head of a part holds {0}")]
    Head(&'static str),
    /// The first part is not the JSON object that it should be.
    #[error("the first part is no JSON object")]
    Metadata,
    /// The answer ends, by its own words, before a second part.
    #[error("the second part is missing")]
    OnePart,
    /// More than two parts.
    #[error("there is a third part")]
    ThirdPart,
    /// The media is in a coding that nobody asked for.
    #[error("the second part is in a coding that was not asked for")]
    Coded,
    /// There is too much behind the last boundary.
    #[error("too much comes after the last boundary")]
    Epilogue,
    /// The answer ends without its last boundary.
    #[error("it breaks off before its last boundary")]
    Truncated,
}

/// Why the second part was not reached.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is not as it should be.
    #[error(transparent)]
    Multipart(#[from] MultipartError),
    /// It did not come.
    #[error(transparent)]
    Body(#[from] BodyError),
}

/// The body of the second part, out of the body of the answer.
pub struct SecondPart<B> {
    parser: Parser,
    answer: B,
}

impl<B: BodyReader> SecondPart<B> {
    /// Reads up to the second part and returns its head. The reader of the answer is left in front of
    /// the media, so that its first byte waits for nothing.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; nothing bounds how long it takes but the reader itself.
    pub async fn open(boundary: &Boundary, mut answer: B) -> Result<(PartHead, Self), OpenError> {
        let mut parser = Parser::new(boundary);
        loop {
            match parser.next_event()? {
                Some(Event::Head(head)) => return Ok((head, Self { parser, answer })),
                Some(Event::Body(_)) => {} // Never before the head.
                None => match answer.next().await? {
                    Some(chunk) => parser.push(chunk),
                    None => {
                        parser.finish()?;
                        return Err(MultipartError::Truncated.into());
                    }
                },
            }
        }
    }

    /// Returns the size of the media if the whole answer has this size: the least and the most that it
    /// can be, since what comes after the last boundary is not known.
    pub fn size_within(&self, answer_size: u64) -> (u64, u64) {
        self.parser.size_within(answer_size)
    }
}

#[async_trait]
impl<B: BodyReader> BodyReader for SecondPart<B> {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            match self.parser.next_event().map_err(malformed)? {
                Some(Event::Body(piece)) => return Ok(Some(piece)),
                Some(Event::Head(_)) => {} // Taken when it was opened.
                None => match self.answer.next().await? {
                    Some(chunk) => self.parser.push(chunk),
                    None => return self.parser.finish().map(|()| None).map_err(malformed),
                },
            }
        }
    }
}

fn malformed(error: MultipartError) -> BodyError {
    BodyError::Malformed(error.to_string())
}

#[cfg(test)]
mod tests;
