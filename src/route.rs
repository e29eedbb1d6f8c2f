//! Decides what a request is from its method and raw target alone; no input, no output, no state.
//!
//! The media prefixes are owned whole: what lies under them is one of the routes of the checklist's
//! section 1 or it is refused here. Outside them the target goes on byte for byte (FLD-25). Between
//! the two lie spellings that a homeserver might read as a media path although we would not
//! (threats AU-11 to AU-13); those are refused as well.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode;

use crate::types::{FileName, InvalidIdentifier, MediaId, Mxc};

mod query;

pub use query::Query;

/// What a request is.
#[derive(Debug, PartialEq)]
pub enum Route<'a> {
    /// Not ours: to the homeserver, untouched.
    PassThrough(Option<SessionChange>),
    /// A CORS pre-flight of a media route, answered without any of its logic (CS-CORS-03).
    Preflight,
    /// A media request.
    Media(MediaRoute<'a>),
    /// No such media route: 404 `M_UNRECOGNIZED` (CS-GEN-05).
    Unrecognized,
    /// A media route that does not know this method: 405 `M_UNRECOGNIZED` (CS-GEN-06).
    MethodNotAllowed {
        /// The value of the `Allow` field.
        allow: &'static str,
    },
    /// A media route with a server name or media id outside the grammar (MXC-09).
    InvalidIdentifier(InvalidIdentifier),
    /// A target that is not a path; no route may be picked by an authority (threats AU-20).
    NotAPath,
}

/// A request for one of the media routes.
#[derive(Debug, PartialEq)]
pub struct MediaRoute<'a> {
    /// Which operation is asked for.
    pub operation: Operation,
    /// The query as it was sent.
    pub query: Query<'a>,
}

/// The operations of the media API.
#[derive(Debug, PartialEq)]
pub enum Operation {
    /// `POST /_matrix/media/v3/upload`.
    Upload,
    /// `POST /_matrix/media/v1/create`.
    Create {
        /// By which name it was asked for.
        dialect: Dialect,
    },
    /// `PUT /_matrix/media/v3/upload/{serverName}/{mediaId}`.
    UploadTo {
        /// The media id that `create` has given out.
        mxc: Mxc,
        /// By which name it was asked for.
        dialect: Dialect,
    },
    /// `GET …/download/{serverName}/{mediaId}[/{fileName}]`.
    Download {
        /// What is asked for.
        mxc: Mxc,
        /// The name in the path, which stands in for the stored one (CS-DL-15).
        filename: Option<FileName>,
        /// Which family of routes was used.
        access: Access,
    },
    /// `GET …/thumbnail/{serverName}/{mediaId}`.
    Thumbnail {
        /// What is asked for.
        mxc: Mxc,
        /// Which family of routes was used.
        access: Access,
    },
    /// `GET …/config`.
    Config,
    /// `GET …/preview_url`.
    PreviewUrl,
    /// `GET /_matrix/federation/v1/media/download/{mediaId}`.
    FederationDownload {
        /// The local media that another server asks for.
        media_id: MediaId,
    },
    /// `GET /_matrix/federation/v1/media/thumbnail/{mediaId}`.
    FederationThumbnail {
        /// The local media that another server asks for.
        media_id: MediaId,
    },
}

/// The two families of routes that read media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// `/_matrix/client/v1/media`: a token is needed (CS-DL-02).
    Authenticated,
    /// `/_matrix/media`: open to everybody, and frozen (CS-DL-01, CS-FRZ-01).
    Legacy,
}

/// Which names of asynchronous uploads a client uses (CS-PATH-07).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Those of the specification.
    Stable,
    /// Those of MSC2246 before its release.
    Unstable,
}

/// A request passing through that may end sessions whose tokens are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionChange {
    /// The token of the request itself.
    OwnToken,
    /// The token of the request, if it bears one. What is refreshed is another token, which says
    /// nothing of the one before it.
    Refreshed,
    /// Any token of the user whose token the request bears.
    OwnUser,
    /// Tokens of users that cannot be told from the request.
    AnyUser,
}

impl MediaRoute<'_> {
    /// Returns which names the client uses: those of the path, or for a reader those of the
    /// parameter that says how long it waits.
    pub fn dialect(&self) -> Dialect {
        match &self.operation {
            Operation::Create { dialect } | Operation::UploadTo { dialect, .. } => *dialect,
            Operation::Download { .. }
            | Operation::Thumbnail { .. }
            | Operation::FederationDownload { .. }
            | Operation::FederationThumbnail { .. } => {
                let has = |name| self.query.get(name).is_some();
                if has("fi.mau.msc2246.timeout_ms") && !has("timeout_ms") {
                    Dialect::Unstable
                } else {
                    Dialect::Stable
                }
            }
            Operation::Upload | Operation::Config | Operation::PreviewUrl => Dialect::Stable,
        }
    }
}

impl Operation {
    /// Returns the operation's name for metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Create { .. } => "create",
            Self::UploadTo { .. } => "upload_to",
            Self::Download { .. } => "download",
            Self::Thumbnail { .. } => "thumbnail",
            Self::Config => "config",
            Self::PreviewUrl => "preview_url",
            Self::FederationDownload { .. } => "federation_download",
            Self::FederationThumbnail { .. } => "federation_thumbnail",
        }
    }
}

/// The families of media routes and the prefixes that they own, each to be followed by a slash or
/// the end of the path.
const PREFIXES: &[(Family, &str)] = &[
    (Family::Legacy, "/_matrix/media"),
    (Family::Client, "/_matrix/client/v1/media"),
    (Family::Client, "/_matrix/client/unstable/org.matrix.msc3916/media"),
    (Family::Federation, "/_matrix/federation/v1/media"),
    (Family::Federation, "/_matrix/federation/unstable/org.matrix.msc3916.v2/media"),
    (Family::Federation, "/_matrix/federation/unstable/org.matrix.msc3916/media"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Legacy,
    Client,
    Federation,
}

/// Returns what a request is.
///
/// `target` is the request target exactly as it came, query included.
pub fn classify<'a>(method: &Method, target: &'a [u8]) -> Route<'a> {
    if target.first() != Some(&b'/') {
        return Route::NotAPath;
    }
    let (path, query) = match target.iter().position(|&b| b == b'?') {
        Some(mark) => (&target[..mark], &target[mark + 1..]),
        None => (target, &[][..]),
    };
    if let Some((family, rest)) = owned_prefix(path) {
        return match endpoint(family, rest) {
            Ok(operation) => allow(method, operation, Query::new(query)),
            Err(refused) if method != Method::OPTIONS => refused,
            Err(_) => Route::Preflight,
        };
    }
    let lenient = lenient_path(path);
    if is_media_shaped(&lenient) {
        return Route::Unrecognized;
    }
    Route::PassThrough(session_change(method, &lenient))
}

fn owned_prefix(path: &[u8]) -> Option<(Family, &[u8])> {
    PREFIXES.iter().find_map(|&(family, prefix)| {
        let rest = path.strip_prefix(prefix.as_bytes())?;
        matches!(rest.first(), None | Some(b'/')).then_some((family, rest))
    })
}

/// One more segment behind a prefix than any route has.
const MAX_SEGMENTS: usize = 6;

/// Finds the operation under an owned prefix; methods are looked at later.
fn endpoint(family: Family, rest: &[u8]) -> Result<Operation, Route<'static>> {
    let mut segments = [&[][..]; MAX_SEGMENTS];
    let mut count = 0;
    for (place, segment) in segments.iter_mut().zip(rest.split(|&b| b == b'/').skip(1)) {
        *place = segment;
        count += 1;
    }
    match (family, &segments[..count]) {
        (Family::Legacy, [b"v3" | b"r0" | b"v1", b"upload"]) => Ok(Operation::Upload),
        // The two of asynchronous uploads have one version each (CS-PATH-04).
        (Family::Legacy, [b"v1", b"create"]) => Ok(Operation::Create { dialect: Dialect::Stable }),
        (Family::Legacy, [b"v3", b"upload", server, id]) => {
            Ok(Operation::UploadTo { mxc: mxc(server, id)?, dialect: Dialect::Stable })
        }
        (Family::Legacy, [b"unstable", b"fi.mau.msc2246", b"create"]) => {
            Ok(Operation::Create { dialect: Dialect::Unstable })
        }
        (Family::Legacy, [b"unstable", b"fi.mau.msc2246", b"upload", server, id]) => {
            Ok(Operation::UploadTo { mxc: mxc(server, id)?, dialect: Dialect::Unstable })
        }
        (Family::Legacy, [b"v3" | b"r0" | b"v1", read @ ..]) => {
            reading_endpoint(Access::Legacy, read)
        }
        (Family::Client, read) => reading_endpoint(Access::Authenticated, read),
        (Family::Federation, [b"download", id]) => {
            Ok(Operation::FederationDownload { media_id: identifier(id)? })
        }
        (Family::Federation, [b"thumbnail", id]) => {
            Ok(Operation::FederationThumbnail { media_id: identifier(id)? })
        }
        _ => Err(Route::Unrecognized),
    }
}

/// Finds the operations that both families of a client's routes have.
fn reading_endpoint(access: Access, segments: &[&[u8]]) -> Result<Operation, Route<'static>> {
    match segments {
        [b"config"] => Ok(Operation::Config),
        [b"preview_url"] => Ok(Operation::PreviewUrl),
        [b"download", server, id] => {
            Ok(Operation::Download { mxc: mxc(server, id)?, filename: None, access })
        }
        [b"download", server, id, name] => {
            let filename = FileName::clean(&decode_lossy(name));
            Ok(Operation::Download { mxc: mxc(server, id)?, filename, access })
        }
        [b"thumbnail", server, id] => Ok(Operation::Thumbnail { mxc: mxc(server, id)?, access }),
        _ => Err(Route::Unrecognized),
    }
}

fn allow<'a>(method: &Method, operation: Operation, query: Query<'a>) -> Route<'a> {
    let (allowed, allow): (&[Method], _) = match operation {
        Operation::Upload | Operation::Create { .. } => (&[Method::POST], "POST, OPTIONS"),
        Operation::UploadTo { .. } => (&[Method::PUT], "PUT, OPTIONS"),
        _ => (&[Method::GET, Method::HEAD], "GET, HEAD, OPTIONS"),
    };
    if method == Method::OPTIONS {
        Route::Preflight
    } else if allowed.contains(method) {
        Route::Media(MediaRoute { operation, query })
    } else {
        Route::MethodNotAllowed { allow }
    }
}

fn mxc(server_name: &[u8], media_id: &[u8]) -> Result<Mxc, Route<'static>> {
    Ok(Mxc { server_name: identifier(server_name)?, media_id: identifier(media_id)? })
}

/// Decodes a segment once and holds it against its grammar (MXC-03).
fn identifier<T: std::str::FromStr<Err = InvalidIdentifier>>(
    segment: &[u8],
) -> Result<T, Route<'static>> {
    let decoded: Cow<'_, [u8]> = percent_decode(segment).into();
    // What is not UTF-8 fits no grammar; the empty text makes the parser name the right identifier.
    std::str::from_utf8(&decoded).unwrap_or_default().parse().map_err(Route::InvalidIdentifier)
}

fn decode_lossy(segment: &[u8]) -> Cow<'_, str> {
    percent_decode(segment).decode_utf8_lossy()
}

/// Returns the path as the most forgiving server might read it: decoded, backslashes as slashes,
/// path parameters dropped, empty and dot segments resolved.
///
/// Only used to find what must not be forwarded or what must be forgotten, never to route.
fn lenient_path(path: &[u8]) -> Cow<'_, [u8]> {
    let is_plain = !path.iter().any(|b| matches!(b, b'%' | b'\\' | b';'))
        && !path.windows(2).any(|pair| pair == b"//" || pair == b"/.");
    if is_plain {
        return Cow::Borrowed(path);
    }
    let decoded: Vec<u8> =
        percent_decode(path).map(|b| if b == b'\\' { b'/' } else { b }).collect();
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in decoded.split(|&b| b == b'/') {
        let name = segment.split(|&b| b == b';').next().unwrap_or_default();
        match name {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            _ => segments.push(name),
        }
    }
    let mut lenient = vec![b'/'];
    lenient.extend_from_slice(&segments.join(&b'/'));
    Cow::Owned(lenient)
}

fn is_media_shaped(lenient: &[u8]) -> bool {
    PREFIXES.iter().any(|(_, prefix)| {
        lenient.len() >= prefix.len()
            && lenient[..prefix.len()].eq_ignore_ascii_case(prefix.as_bytes())
            && matches!(lenient.get(prefix.len()), None | Some(b'/'))
    })
}

/// Finds the requests after which a remembered token may be worth nothing any more.
///
/// Takes the lenient path: forgetting once too often costs one question to the homeserver.
fn session_change(method: &Method, lenient: &[u8]) -> Option<SessionChange> {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return None;
    }
    if lenient.starts_with(b"/_synapse/admin/") || lenient.starts_with(b"/_synapse/mas/") {
        return Some(SessionChange::AnyUser);
    }
    let versioned = lenient.strip_prefix(b"/_matrix/client/")?;
    let slash = versioned.iter().position(|&b| b == b'/')?;
    let endpoint = versioned[slash + 1..].strip_suffix(b"/").unwrap_or(&versioned[slash + 1..]);
    match endpoint {
        b"logout" => Some(SessionChange::OwnToken),
        b"refresh" => Some(SessionChange::Refreshed),
        b"logout/all" | b"account/password" | b"account/deactivate" | b"delete_devices" => {
            Some(SessionChange::OwnUser)
        }
        _ if endpoint.starts_with(b"devices/") && method == Method::DELETE => {
            Some(SessionChange::OwnUser)
        }
        // An administrator suspends or locks a user (MSC4323), also by the unstable name.
        _ if [&b"admin/suspend/"[..], b"admin/lock/"].iter().any(|part| {
            endpoint.starts_with(part) || endpoint.starts_with(&[UNSTABLE_ADMIN, part].concat())
        }) =>
        {
            Some(SessionChange::AnyUser)
        }
        _ => None,
    }
}

/// What stands behind `/_matrix/client/unstable/` before MSC4323's paths.
const UNSTABLE_ADMIN: &[u8] = b"uk.timedout.msc4323/";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn get(target: &str) -> Route<'_> {
        classify(&Method::GET, target.as_bytes())
    }

    fn operation(target: &str) -> Operation {
        match get(target) {
            Route::Media(route) => route.operation,
            other => panic!("{target} is {other:?}"),
        }
    }

    fn example(id: &str) -> Mxc {
        Mxc { server_name: "example.org".parse().unwrap(), media_id: id.parse().unwrap() }
    }

    /// CS-PATH-01, CS-PATH-02, CS-PATH-03, CS-PATH-06, CS-PATH-07, FLD-11
    #[test]
    fn downloads_are_known_under_every_prefix() {
        for (prefix, access) in [
            ("/_matrix/client/v1/media", Access::Authenticated),
            ("/_matrix/client/unstable/org.matrix.msc3916/media", Access::Authenticated),
            ("/_matrix/media/v3", Access::Legacy),
            ("/_matrix/media/r0", Access::Legacy),
            ("/_matrix/media/v1", Access::Legacy),
        ] {
            let path = format!("{prefix}/download/example.org/abc");
            assert_eq!(
                operation(&path),
                Operation::Download { mxc: example("abc"), filename: None, access },
                "{path}"
            );
            assert_eq!(
                operation(&format!("{path}/my%20cat.png?x=y")),
                Operation::Download {
                    mxc: example("abc"),
                    filename: FileName::clean("my cat.png"),
                    access
                }
            );
            assert_eq!(
                operation(&format!("{prefix}/thumbnail/example.org/abc?width=1&height=1")),
                Operation::Thumbnail { mxc: example("abc"), access }
            );
            assert_eq!(operation(&format!("{prefix}/config")), Operation::Config);
            assert_eq!(operation(&format!("{prefix}/preview_url?url=x")), Operation::PreviewUrl);
        }
    }

    /// FM-S-02, CS-PATH-07
    #[test]
    fn federation_routes_hold_only_a_media_id() {
        for prefix in [
            "/_matrix/federation/v1/media",
            "/_matrix/federation/unstable/org.matrix.msc3916.v2/media",
        ] {
            assert_eq!(
                operation(&format!("{prefix}/download/abc?timeout_ms=1")),
                Operation::FederationDownload { media_id: "abc".parse().unwrap() }
            );
            assert_eq!(
                operation(&format!("{prefix}/thumbnail/abc")),
                Operation::FederationThumbnail { media_id: "abc".parse().unwrap() }
            );
            assert_eq!(get(&format!("{prefix}/download/s/abc")), Route::Unrecognized);
        }
    }

    /// CS-PATH-02, CS-PATH-03, CS-PATH-05
    #[test]
    fn upload_is_a_post_under_the_media_prefixes_only() {
        for path in [
            "/_matrix/media/v3/upload",
            "/_matrix/media/r0/upload?filename=a",
            "/_matrix/media/v1/upload",
        ] {
            assert!(matches!(
                classify(&Method::POST, path.as_bytes()),
                Route::Media(MediaRoute { operation: Operation::Upload, .. })
            ));
            assert_eq!(get(path), Route::MethodNotAllowed { allow: "POST, OPTIONS" });
        }
        assert_eq!(
            classify(&Method::POST, b"/_matrix/client/v1/media/upload"),
            Route::Unrecognized
        );
    }

    /// CS-PATH-01, CS-PATH-04, CS-PATH-05, CS-PATH-07
    #[test]
    fn asynchronous_uploads_have_one_stable_and_one_unstable_name() {
        for (prefix, version, dialect) in [
            ("/_matrix/media", "v1", Dialect::Stable),
            ("/_matrix/media/unstable", "fi.mau.msc2246", Dialect::Unstable),
        ] {
            let path = format!("{prefix}/{version}/create?x=y");
            match classify(&Method::POST, path.as_bytes()) {
                Route::Media(route) => {
                    assert_eq!(route.operation, Operation::Create { dialect });
                    assert_eq!(route.dialect(), dialect);
                }
                other => panic!("{path} is {other:?}"),
            }
            for method in [Method::GET, Method::HEAD, Method::PUT] {
                let refused = Route::MethodNotAllowed { allow: "POST, OPTIONS" };
                assert_eq!(classify(&method, path.as_bytes()), refused);
            }
        }
        for (path, dialect) in [
            ("/_matrix/media/v3/upload/example.org/abc", Dialect::Stable),
            ("/_matrix/media/unstable/fi.mau.msc2246/upload/example.org/abc", Dialect::Unstable),
        ] {
            let target = format!("{path}?filename=a");
            match classify(&Method::PUT, target.as_bytes()) {
                Route::Media(route) => {
                    let mxc = example("abc");
                    assert_eq!(route.operation, Operation::UploadTo { mxc, dialect });
                    assert_eq!(route.dialect(), dialect);
                }
                other => panic!("{target} is {other:?}"),
            }
            for method in [Method::GET, Method::HEAD, Method::POST, Method::DELETE] {
                let refused = Route::MethodNotAllowed { allow: "PUT, OPTIONS" };
                assert_eq!(classify(&method, path.as_bytes()), refused);
            }
            assert_eq!(classify(&Method::OPTIONS, path.as_bytes()), Route::Preflight);
            let other = format!("{path}%2f");
            let refused = Route::InvalidIdentifier(InvalidIdentifier::MediaId);
            assert_eq!(classify(&Method::PUT, other.as_bytes()), refused);
        }
        // Another version, a family that has no uploads, one segment too few or too many.
        for path in [
            "/_matrix/media/v3/create",
            "/_matrix/media/r0/create",
            "/_matrix/media/v1/create/",
            "/_matrix/media/v1/create/x",
            "/_matrix/media/v1/upload/example.org/abc",
            "/_matrix/media/r0/upload/example.org/abc",
            "/_matrix/media/v3/upload/example.org",
            "/_matrix/media/v3/upload/example.org/abc/",
            "/_matrix/media/unstable/create",
            "/_matrix/media/unstable/fi.mau.msc2246",
            "/_matrix/media/unstable/fi.mau.msc2246/upload",
            "/_matrix/media/unstable/fi.mau.msc2246/upload/example.org/abc/x",
            "/_matrix/media/unstable/fi.mau.msc2246/download/example.org/abc",
            "/_matrix/media/unstable/other/create",
            "/_matrix/client/v1/media/create",
            "/_matrix/client/v1/media/upload/example.org/abc",
            "/_matrix/federation/v1/media/create",
        ] {
            for method in [Method::POST, Method::PUT] {
                assert_eq!(classify(&method, path.as_bytes()), Route::Unrecognized, "{path}");
            }
            assert_eq!(classify(&Method::OPTIONS, path.as_bytes()), Route::Preflight, "{path}");
        }
    }

    /// CS-PATH-07
    #[test]
    fn a_reader_that_waits_by_the_unstable_name_alone_hears_unstable_codes() {
        for (query, dialect) in [
            ("", Dialect::Stable),
            ("?timeout_ms=1", Dialect::Stable),
            ("?fi.mau.msc2246.timeout_ms=1", Dialect::Unstable),
            ("?fi.mau.msc2246.timeout_ms=1&timeout_ms=1", Dialect::Stable),
        ] {
            for path in [
                "/_matrix/client/v1/media/download/example.org/abc",
                "/_matrix/media/v3/thumbnail/example.org/abc",
                "/_matrix/federation/v1/media/download/abc",
            ] {
                let target = format!("{path}{query}");
                match get(&target) {
                    Route::Media(route) => assert_eq!(route.dialect(), dialect, "{target}"),
                    other => panic!("{target} is {other:?}"),
                }
            }
            let target = format!("/_matrix/media/v3/config{query}");
            let Route::Media(route) = get(&target) else { panic!("{target}") };
            assert_eq!(route.dialect(), Dialect::Stable);
        }
    }

    /// CS-GEN-06, CS-CORS-02
    #[test]
    fn wrong_methods_are_named_and_options_is_a_preflight_everywhere() {
        let download = "/_matrix/client/v1/media/download/example.org/abc";
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::TRACE, Method::PATCH] {
            assert_eq!(
                classify(&method, download.as_bytes()),
                Route::MethodNotAllowed { allow: "GET, HEAD, OPTIONS" }
            );
        }
        let lower_case = Method::from_bytes(b"get").unwrap();
        assert!(matches!(
            classify(&lower_case, download.as_bytes()),
            Route::MethodNotAllowed { .. }
        ));
        for path in [
            download,
            "/_matrix/media/v3/upload",
            "/_matrix/media/nonsense",
            "/_matrix/media/v3/download/../x",
        ] {
            assert_eq!(classify(&Method::OPTIONS, path.as_bytes()), Route::Preflight, "{path}");
        }
    }

    /// CS-GEN-05, CS-PATH-01
    #[test]
    fn anything_else_under_the_prefixes_is_unrecognized() {
        for path in [
            "/_matrix/media",
            "/_matrix/media/",
            "/_matrix/media/unstable/x",
            "/_matrix/media/v9/download/example.org/abc",
            "/_matrix/media/v3/",
            "/_matrix/media/v3/download/example.org",
            "/_matrix/media/v3/download/example.org/abc/name/more",
            "/_matrix/media/v3/thumbnail/example.org/abc/name",
            "/_matrix/media/v1/createX",
            "/_matrix/media/v3/uploads",
            "/_matrix/media/v3//upload",
            "/_matrix/client/v1/media",
            "/_matrix/federation/v1/media/download",
        ] {
            assert_eq!(get(path), Route::Unrecognized, "{path}");
        }
    }

    /// MXC-02, MXC-03, MXC-05, MXC-08
    #[test]
    fn identifiers_outside_the_grammar_are_refused() {
        for (path, which) in [
            (
                "/_matrix/media/v3/download/example.org/..%2f..%2fetc%2fpasswd",
                InvalidIdentifier::MediaId,
            ),
            (
                "/_matrix/media/v3/download/evil.example%2f..%2f../abc",
                InvalidIdentifier::ServerName,
            ),
            ("/_matrix/media/v3/download/%2e%2e/abc", InvalidIdentifier::ServerName),
            ("/_matrix/media/v3/download//x", InvalidIdentifier::ServerName),
            ("/_matrix/media/v3/download/example.org/", InvalidIdentifier::MediaId),
            ("/_matrix/media/v3/download/example.org/a%00", InvalidIdentifier::MediaId),
            ("/_matrix/media/v3/download/example.org/%c0%ae%c0%ae", InvalidIdentifier::MediaId),
            ("/_matrix/media/v3/download/example.org/abc;x=y", InvalidIdentifier::MediaId),
            ("/_matrix/media/v3/download/example.org/%252e", InvalidIdentifier::MediaId),
            ("/_matrix/federation/v1/media/download/..%2f..", InvalidIdentifier::MediaId),
        ] {
            assert_eq!(get(path), Route::InvalidIdentifier(which), "{path}");
        }
    }

    #[test]
    fn other_spellings_of_a_media_path_are_never_passed_through() {
        for path in [
            "//_matrix/client/v1/media/download/s/m",
            "/_matrix//media/v3/download/s/m",
            "/./_matrix/media/v3/download/s/m",
            "/_matrix/x/../media/v3/download/s/m",
            "/%5fmatrix/media/v3/download/s/m",
            "/_matrix%2fmedia/v3/download/s/m",
            "/_matrix/med%69a/v3/upload",
            "/_MATRIX/media/v3/upload",
            "/_matrix\\media\\v3\\upload",
            "/_matrix;a=b/media/v3/upload",
            "/_matrix/client/v1//media/config",
            "/_matrix/federation/%761/media/download/x",
        ] {
            assert_eq!(get(path), Route::Unrecognized, "{path}");
        }
    }

    /// CS-VER-01
    #[test]
    fn everything_else_passes_through() {
        for path in [
            "/",
            "/_matrix/client/v3/sync?since=s1_2",
            "/_matrix/client/versions",
            "/_matrix/mediator/x",
            "/_matrix/client/v1/mediaX",
            "/_matrix/client/v3/rooms/!a%2Fb:c/messages",
            "/_matrix/client/v3/profile/@a:b%2F..",
            "/_matrix/federation/v1/send/1",
            "/.well-known/matrix/client",
            "/_matrix/key/v2/server",
        ] {
            assert_eq!(get(path), Route::PassThrough(None), "{path}");
        }
    }

    #[test]
    fn targets_that_are_no_path_pick_no_route() {
        for target in ["http://other/_matrix/media/v3/config", "*", "", "other:443"] {
            assert_eq!(get(target), Route::NotAPath, "{target}");
        }
    }

    #[test]
    fn requests_that_may_end_sessions_are_noticed() {
        let post = |path: &'static str| classify(&Method::POST, path.as_bytes());
        let change = |change| Route::PassThrough(Some(change));
        for version in ["r0", "v3", "v1", "unstable"] {
            let path = format!("/_matrix/client/{version}/logout");
            assert_eq!(classify(&Method::POST, path.as_bytes()), change(SessionChange::OwnToken));
        }
        assert_eq!(
            post("/_matrix/client/v3/logout?access_token=x"),
            change(SessionChange::OwnToken)
        );
        assert_eq!(post("/_matrix/client/v3/logout/"), change(SessionChange::OwnToken));
        assert_eq!(post("/_matrix/client/v3/log%6fut"), change(SessionChange::OwnToken));
        for path in [
            "/_matrix/client/v3/logout/all",
            "/_matrix/client/v3/account/password",
            "/_matrix/client/v3/account/deactivate",
            "/_matrix/client/v3/delete_devices",
        ] {
            assert_eq!(post(path), change(SessionChange::OwnUser), "{path}");
        }
        assert_eq!(
            classify(&Method::DELETE, b"/_matrix/client/v3/devices/ABC"),
            change(SessionChange::OwnUser)
        );
        for version in ["v3", "r0", "v1"] {
            let path = format!("/_matrix/client/{version}/refresh");
            assert_eq!(classify(&Method::POST, path.as_bytes()), change(SessionChange::Refreshed));
        }
        assert_eq!(post("/_synapse/admin/v1/deactivate/@a:b"), change(SessionChange::AnyUser));
        for path in [
            "/_synapse/admin/v1/suspend/@a:b",
            "/_synapse/admin/v2/users/%40a%3Ab",
            "/_matrix/client/v1/admin/suspend/@a:b",
            "/_matrix/client/v1/admin/lock/%40a%3Ab",
            "/_matrix/client/unstable/uk.timedout.msc4323/admin/suspend/@a:b",
            "/_matrix/client/unstable/uk.timedout.msc4323/admin/lock/@a:b",
        ] {
            let put = classify(&Method::PUT, path.as_bytes());
            assert_eq!(put, change(SessionChange::AnyUser), "{path}");
            assert_eq!(get(path), Route::PassThrough(None), "{path}");
        }
        assert_eq!(get("/_matrix/client/v3/devices/ABC"), Route::PassThrough(None));
        assert_eq!(post("/_matrix/client/v3/login"), Route::PassThrough(None));
        let rename = classify(&Method::PUT, b"/_matrix/client/v3/devices/ABC");
        assert_eq!(rename, Route::PassThrough(None));
    }

    /// MXC-01, MXC-05, MXC-08
    #[test]
    fn server_names_with_ports_and_addresses_are_taken_in_either_spelling() {
        for (segment, name) in [
            ("example.org:8448", "example.org:8448"),
            ("example.org%3A8448", "example.org:8448"),
            ("1.2.3.4:80", "1.2.3.4:80"),
            ("[::1]:8448", "[::1]:8448"),
            ("%5B2001:db8::1%5D", "[2001:db8::1]"),
            ("%5b::ffff:1.2.3.4%5d%3a8448", "[::ffff:1.2.3.4]:8448"),
        ] {
            let id = "a".repeat(crate::types::MAX_MEDIA_ID_LENGTH);
            let path = format!("/_matrix/client/v1/media/download/{segment}/{id}");
            match operation(&path) {
                Operation::Download { mxc, .. } => {
                    assert_eq!(mxc.to_string(), format!("mxc://{name}/{id}"));
                    assert_eq!(mxc.to_string().parse(), Ok(mxc));
                }
                other => panic!("{path} is {other:?}"),
            }
            let refused = Route::InvalidIdentifier(InvalidIdentifier::MediaId);
            assert_eq!(get(&format!("{path}a")), refused);
        }
    }

    proptest! {
        #[test]
        fn any_target_is_classified(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = classify(&Method::GET, &bytes);
        }

        #[test]
        fn no_spelling_of_a_media_path_is_passed_through(
            spelling in prop::collection::vec(prop::sample::select(vec![
                "/", "//", "/./", "/x/../", "%2f", "\\", "/;a/", "%2F",
            ]), 3),
            shout in any::<bool>(),
            encode in any::<bool>(),
        ) {
            let [a, b, c] = [spelling[0], spelling[1], spelling[2]];
            let mut media = String::from(if encode { "m%65dia" } else { "media" });
            if shout { media.make_ascii_uppercase(); }
            let target = format!("/{a}_matrix{b}{media}{c}v3/upload");
            let route = classify(&Method::POST, target.as_bytes());
            prop_assert!(!matches!(route, Route::PassThrough(_)), "{} passed through", target);
        }
    }
}
