//! Failed fetches: whom they concern, how long they are remembered, and in whose words they are told.

use std::time::Duration;

use http::StatusCode;

use super::MediaError;
use super::source::Giver;
use crate::federation::FetchError;
use crate::homeserver::HomeserverError;
use crate::store::StoreError;
use crate::types::BodyError;

/// How long it is remembered that the body of some media broke off or cannot be kept, so that a crowd
/// that waited for it does not ask again at once.
const BROKEN: Duration = Duration::from_secs(2);

/// How long it is remembered that another server did not give some media.
const ABSENT: Duration = Duration::from_secs(15);

/// How long it is remembered that a body is too large, which costs its whole length to find out where
/// it is not announced.
const TOO_LARGE: Duration = Duration::from_secs(5 * 60);

/// Returns how long a failure before the body is remembered, if it is no matter of one caller's token
/// or of the moment.
pub(super) fn of_head(error: &MediaError) -> Option<Duration> {
    match error {
        MediaError::RemoteTooLarge { .. } | MediaError::NotKept => Some(BROKEN),
        MediaError::Server(FetchError::NotYetUploaded | FetchError::TooMany) => None,
        MediaError::Server(FetchError::BackedOff { retry_after }) => Some(ABSENT.min(*retry_after)),
        MediaError::Server(_) => Some(ABSENT),
        _ => None,
    }
}

/// Returns how long a failure of the body is remembered.
pub(super) fn of_body(error: &MediaError) -> Duration {
    match error {
        MediaError::RemoteTooLarge { .. } => TOO_LARGE,
        _ => BROKEN,
    }
}

/// Whether a failure is the media's or its giver's own, and not that of one caller's token, rate or
/// patience.
pub(super) fn concerns_all(error: &MediaError) -> bool {
    match error {
        MediaError::Refused(refusal) => refusal.status == StatusCode::BAD_GATEWAY,
        // Whoever has more time may ask again.
        MediaError::Server(FetchError::NotYetUploaded) => false,
        _ => true,
    }
}

/// Whether an upload was waited for in vain; whoever has more time may ask again.
pub(super) fn is_not_yet_uploaded(error: &MediaError) -> bool {
    match error {
        MediaError::Refused(refusal) => refusal.status == StatusCode::GATEWAY_TIMEOUT,
        MediaError::Server(FetchError::NotYetUploaded) => true,
        _ => false,
    }
}

/// Returns what is told where a server gave nothing and the homeserver was asked in its place: what the
/// homeserver says of the media is no better than what we have seen ourselves, but what it says of
/// whoever asks is theirs alone.
pub(super) fn instead_of(failure: FetchError, error: MediaError) -> MediaError {
    match &error {
        MediaError::Refused(refusal)
            if matches!(
                refusal.status,
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS
            ) =>
        {
            error
        }
        MediaError::Homeserver(HomeserverError::Unreachable(_) | HomeserverError::TooSlow) => error,
        _ => failure.into(),
    }
}

/// Says of a body why it did not come.
pub(super) fn in_its_own_words(error: &MediaError, giver: Giver) -> MediaError {
    match (error, giver) {
        (MediaError::Body(BodyError::TooLarge { limit }), _) => {
            MediaError::RemoteTooLarge { limit: *limit }
        }
        (MediaError::Body(error), Giver::Server) => {
            FetchError::Misbehaved(error.to_string()).into()
        }
        (MediaError::Body(BodyError::TimedOut), Giver::Homeserver) => {
            HomeserverError::TooSlow.into()
        }
        (MediaError::Body(error), Giver::Homeserver) => {
            HomeserverError::Unreachable(error.to_string()).into()
        }
        (MediaError::Store(StoreError::Full), _) => MediaError::NotKept,
        (MediaError::Store(error), _) => error.clone().into(),
        (MediaError::Shared(error), _) => in_its_own_words(error, giver),
        _ => HomeserverError::Unreachable("the body did not come".to_owned()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::homeserver::Refusal;
    use bytes::Bytes;

    fn refused(status: StatusCode) -> MediaError {
        let body = Bytes::from_static(b"{}");
        MediaError::Refused(Refusal { status, retry_after: None, location: None, body })
    }

    #[test]
    fn what_the_homeserver_says_of_one_caller_is_not_told_to_others_as_the_servers_failure() {
        for status in [401, 403, 429] {
            let error = refused(StatusCode::from_u16(status).unwrap());
            let told = instead_of(FetchError::NotFound, error);
            assert!(matches!(&told, MediaError::Refused(_)), "{status}");
            assert!(!concerns_all(&told) && of_head(&told).is_none(), "{status}");
        }
        for error in [MediaError::NotFound, refused(StatusCode::BAD_GATEWAY)] {
            let told = instead_of(FetchError::NotFound, error);
            assert!(matches!(told, MediaError::Server(FetchError::NotFound)));
        }
        let told = instead_of(FetchError::NotFound, HomeserverError::TooSlow.into());
        assert!(of_head(&told).is_none());
    }

    #[test]
    fn a_server_that_is_left_alone_is_not_remembered_as_failing_for_longer_than_that() {
        let of = |seconds| {
            let retry_after = Duration::from_secs(seconds);
            of_head(&FetchError::BackedOff { retry_after }.into())
        };
        assert_eq!(of(3), Some(Duration::from_secs(3)));
        assert_eq!(of(3600), Some(ABSENT));
    }

    /// FE-11
    #[test]
    fn a_body_that_another_server_breaks_off_is_not_the_homeservers_fault() {
        for error in [BodyError::Gone, BodyError::TimedOut, BodyError::Malformed("x".to_owned())] {
            let error = MediaError::Body(error);
            let told = in_its_own_words(&error, Giver::Server);
            assert!(matches!(told, MediaError::Server(FetchError::Misbehaved(_))));
            let told = in_its_own_words(&error, Giver::Homeserver);
            assert!(matches!(told, MediaError::Homeserver(_)));
        }
    }
}
