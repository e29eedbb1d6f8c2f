//! The words that every room shares: identifiers, content, ranges, bodies.
//!
//! Everything here is parsed once, at the edge, and trusted afterwards: a [`MediaId`] that exists is
//! a valid one. There is no input or output in this room.

mod body;
mod client_network;
mod content;
mod mxc;
mod pace;
mod range;
mod response;
mod secret;
mod share;
mod thumbnail;

pub use body::{
    Announced, BodyError, BodyReader, announced_length, collect, is_delimited, poll_once,
};
pub use client_network::ClientNetwork;
pub use content::{ContentHash, ContentType, Disposition, FileName, InvalidContentHash};
pub use mxc::{InvalidIdentifier, MAX_MEDIA_ID_LENGTH, MediaId, Mxc, ServerName, UserId};
pub use pace::Pace;
pub use range::{ByteRange, ContentRange, RangeOutcome};
pub use response::Response;
pub use secret::AccessToken;
pub use share::{Share, Shares};
pub use thumbnail::{
    MovingEncoding, ThumbnailEncoding, ThumbnailMethod, ThumbnailSize, ThumbnailSpec,
};

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment as milliseconds since the Unix epoch, as the Matrix specification writes its timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// Returns the wall clock's present reading.
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// Returns the moment that lies so much later, in whole milliseconds.
    pub fn plus(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// Returns how long it is until a later moment; zero if that is past.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_millis(u64::try_from(later.0.saturating_sub(self.0)).unwrap_or(0))
    }
}

impl From<SystemTime> for UnixMillis {
    fn from(time: SystemTime) -> Self {
        // A clock before 1970 counts as 1970: it must not be able to panic a request.
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_moved_and_measured_without_overflow() {
        let now = UnixMillis(1000);
        assert_eq!(now.plus(Duration::from_micros(1999)), UnixMillis(1001));
        assert_eq!(now.plus(Duration::MAX), UnixMillis(i64::MAX));
        assert_eq!(now.until(UnixMillis(3500)), Duration::from_millis(2500));
        assert_eq!(now.until(UnixMillis(999)), Duration::ZERO);
        assert_eq!(UnixMillis(i64::MIN).until(UnixMillis(0)).as_millis(), i64::MAX as u128);
    }
}
