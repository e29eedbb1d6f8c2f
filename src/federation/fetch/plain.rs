//! Media that is an answer of its own: behind a `Location`, and on the legacy routes.

use std::time::Duration;

use http::{StatusCode, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use url::Url;

use super::refusal::Refusal;
use super::resume::{Again, Resumable};
use super::transfer::MediaBytes;
use super::{Found, Question, RemoteFetcher, described, is_coded, is_error, misbehaved};
use crate::egress::{Response, UrlRequest};
use crate::federation::FetchError;
use crate::types::Mxc;

/// How often the place that a server names may lead on to another.
const MAX_REDIRECTS: u8 = 2;

/// The brackets of IPv6 may not stand in a path (RFC 3986, section 3.3).
const IN_PATH: &AsciiSet = &CONTROLS.add(b'[').add(b']');

/// The versions of the legacy routes, in the order in which they are tried (FLD-09).
const LEGACY_VERSIONS: [&str; 2] = ["v3", "r0"];

impl RemoteFetcher {
    /// Asks by the legacy routes, which are not signed (FM-C-03 to FM-C-05, FLD-09).
    pub(super) async fn ask_by_legacy_routes(
        &self,
        question: &Question<'_>,
    ) -> Result<Found, FetchError> {
        let Question { mxc, options, deadline, .. } = question;
        for version in LEGACY_VERSIONS {
            let target = legacy_target(version, mxc, options.wait);
            let response = self.servers.get(&mxc.server_name, &target, &[], *deadline).await?;
            if let Some(found) = self.take_legacy(response, target, question).await? {
                return Ok(found);
            }
        }
        // It knows no route for media at all, so it has none.
        Err(FetchError::NotFound)
    }

    /// Takes an answer of a legacy route; `None` if the server does not know that route.
    async fn take_legacy(
        &self,
        response: Response,
        target: String,
        question: &Question<'_>,
    ) -> Result<Option<Found>, FetchError> {
        match response.status {
            StatusCode::OK => {
                let server = question.mxc.server_name.clone();
                let again = Again::Server { servers: self.servers.clone(), server, target };
                return self.plain(response, again, question).map(Some);
            }
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => {
                let location = response.field(&header::LOCATION).unwrap_or_default();
                return self.follow(location, question).await.map(Some);
            }
            status if !is_error(status) => {
                return Err(misbehaved(format!("status {status} for media")));
            }
            _ => {}
        }
        let refusal = Refusal::read(response, question).await?;
        if refusal.is_unknown_route() {
            return Ok(None);
        }
        if refusal.is_for_nobody() {
            let why = refusal.in_short();
            return Err(misbehaved(format!(
                "it does not know the federation route for media, and refuses the legacy one: {why}"
            )));
        }
        Err(refusal.meaning(question.options.max_size))
    }

    /// Fetches media from the place that a server names for it (FM-C-06 to FM-C-08). The place is not
    /// remembered, and hears neither our signature nor who we are (threats SS-11).
    pub(super) async fn follow(
        &self,
        location: &[u8],
        question: &Question<'_>,
    ) -> Result<Found, FetchError> {
        let url = std::str::from_utf8(location).ok().and_then(|text| Url::parse(text).ok());
        let url = url.ok_or_else(|| misbehaved("the place that it names is no URL"))?;
        let egress = self.servers.egress();
        let request = UrlRequest { url, fields: Vec::new(), max_redirects: MAX_REDIRECTS };
        let outcome = egress.get_url(request, question.deadline).await;
        let (url, response) = outcome.map_err(FetchError::Location)?;
        if response.status != StatusCode::OK {
            let status = response.status;
            return Err(misbehaved(format!("the place that it names answers with {status}")));
        }
        self.plain(response, Again::Url { egress: egress.clone(), url }, question)
    }

    /// Takes an answer whose body is the media. It has to say where it ends: otherwise one that broke
    /// off could look whole.
    fn plain(
        &self,
        response: Response,
        again: Again,
        question: &Question<'_>,
    ) -> Result<Found, FetchError> {
        if is_coded(&response.headers) {
            return Err(misbehaved("media in a coding that was not asked for"));
        }
        if !response.is_delimited() {
            return Err(misbehaved("media without a length"));
        }
        let limit = question.options.max_size;
        let size = response.content_length();
        if size.is_some_and(|size| size > limit) {
            return Err(FetchError::TooLarge { limit });
        }
        let (content_type, filename) = described(
            response.field(&header::CONTENT_TYPE),
            response.field(&header::CONTENT_DISPOSITION),
        );
        let body = Resumable::new(response, again, self.limits.timeout);
        let bytes = MediaBytes::Plain(Box::new(body));
        Ok(Found { content_type, filename, size, at_most: None, bytes })
    }
}

/// Returns what media is asked for by on a legacy route. The server is to give what is its own, and may
/// lead elsewhere.
fn legacy_target(version: &str, mxc: &Mxc, wait: Duration) -> String {
    format!(
        "/_matrix/media/{version}/download/{}/{}?allow_remote=false&timeout_ms={}\
         &allow_redirect=true",
        utf8_percent_encode(mxc.server_name.as_str(), IN_PATH),
        mxc.media_id,
        wait.as_millis()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FM-C-04, FM-C-05
    #[test]
    fn a_legacy_target_is_a_target_whatever_the_server_is_called() {
        for (server, in_path) in
            [("a.example:8448", "a.example:8448"), ("[::1]:8448", "%5B::1%5D:8448")]
        {
            let mxc = format!("mxc://{server}/a-b_c").parse().unwrap();
            let target = legacy_target("v3", &mxc, Duration::from_millis(1500));
            let expected = format!(
                "/_matrix/media/v3/download/{in_path}/a-b_c\
                 ?allow_remote=false&timeout_ms=1500&allow_redirect=true"
            );
            assert_eq!(target, expected);
            assert!(target.parse::<http::Uri>().is_ok());
        }
    }
}
