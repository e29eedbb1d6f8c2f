//! Two real homeservers that exchange media, with Mediary in front of none, one or both of them, with
//! the homeserver's signing key and without (checklist sections 11 to 13).

mod common;

use std::thread;

use common::federation::{DOWNLOAD, THUMBNAIL, id, parts};
use common::http::Answer;
use common::samples::{bytes, png};
use common::{Authority, Client, Mediary, ServerKey, Settings, Synapse, TlsFront, User, noise};
use image::{GenericImageView, ImageFormat, RgbImage};

const SMALL: &str = "width=32&height=32&method=crop";

/// What stands in front of a homeserver.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Front {
    /// Nothing: it speaks for itself.
    Nothing,
    /// Mediary, which has all signatures judged and all remote media fetched by the homeserver.
    Keyless,
    /// Mediary, which does both itself.
    Key,
}

use Front::{Key, Keyless, Nothing};

/// Homeservers that freeze legacy media as they do by default, and Mediary likewise.
const FROZEN: Era = Era { synapse: &[], mediary: "" };

/// Homeservers and Mediary that serve everything by the legacy routes too.
const OPEN: Era =
    Era { synapse: &["enable_authenticated_media=false"], mediary: "[legacy]\nmode = \"open\"" };

/// Who serves what without a token.
#[derive(Clone, Copy)]
struct Era {
    synapse: &'static [&'static str],
    mediary: &'static str,
}

/// A homeserver with what stands in front of it, as clients and other servers see it.
struct Side {
    synapse: Synapse,
    tls: TlsFront,
    front: Front,
    mediary: Option<Mediary>,
    user: User,
}

impl Side {
    fn start(authority: &Authority, host: &str, era: Era) -> Self {
        let tls = TlsFront::new(&authority.certificate(&[host]));
        let server_name = format!("{host}:{}", tls.port());
        let synapse = Synapse::start_as(&server_name, authority, era.synapse);
        tls.lead_to(synapse.address());
        let user = synapse.user();
        Self { synapse, tls, front: Nothing, mediary: None, user }
    }

    /// Puts Mediary in front, or takes it away.
    fn put(&mut self, front: Front, authority: &Authority, era: Era) {
        self.front = front;
        self.tls.lead_to(self.synapse.address());
        self.mediary = (front != Nothing).then(|| {
            let settings = Settings::new(&self.synapse.url).with(era.mediary);
            let key = (front == Key).then(|| {
                // What Mediary cannot do with the key is not to be hidden by its homeserver.
                settings.signing_key(&self.key_line()) + "\nask_homeserver = false"
            });
            settings.with_federation(authority, &[key.as_deref().unwrap_or_default()]).start()
        });
        if let Some(mediary) = &self.mediary {
            self.tls.lead_to(mediary.address);
        }
    }

    fn key_line(&self) -> String {
        self.synapse.signing_key().expect("this test has started the Synapse")
    }

    /// What clients and other servers reach.
    fn anybody(&self) -> Client {
        self.mediary.as_ref().map_or_else(|| self.synapse.client(), Mediary::client)
    }

    /// A user of this server, by way of what stands in front.
    fn user(&self) -> Client {
        self.anybody().with_token(&self.user.access_token)
    }

    /// The same user by way of the homeserver itself, as it was before Mediary came.
    fn earlier(&self) -> Client {
        self.synapse.client_of(&self.user)
    }

    /// Asks another server in the name of this one.
    fn ask(&self, other: &Self, target: &str) -> Answer {
        let key = ServerKey::of_line(&self.key_line());
        let (origin, destination) = (&self.synapse.server_name, &other.synapse.server_name);
        let authorization = key.authorization(origin, destination, "GET", target);
        other.anybody().get_with(target, &[("Authorization", &authorization)])
    }

    /// Asserts that Mediary, if it is there, keeps a body once.
    #[track_caller]
    fn assert_kept(&self, body: &[u8]) {
        if let Some(mediary) = &self.mediary {
            assert_eq!(mediary.copies_of(body), 1, "{} bytes are not kept", body.len());
        }
    }
}

/// Two homeservers that know each other by DNS and by address.
struct Pair {
    authority: Authority,
    a: Side,
    b: Side,
    era: Era,
}

impl Pair {
    fn start(era: Era) -> Self {
        let authority = Authority::new();
        let [a, b] = thread::scope(|scope| {
            ["localhost", "127.0.0.1"]
                .map(|host| scope.spawn(|| Side::start(&authority, host, era)))
                .map(|starting| starting.join().expect("a homeserver"))
        });
        Self { authority, a, b, era }
    }

    fn put(&mut self, a: Front, b: Front) {
        self.a.put(a, &self.authority, self.era);
        self.b.put(b, &self.authority, self.era);
    }

    /// Both ways: who has media, and who reads it.
    fn ways(&self) -> [(&Side, &Side); 2] {
        [(&self.a, &self.b), (&self.b, &self.a)]
    }
}

/// Makes a picture of some megabytes, of which no two are alike.
fn large_picture(seed: u64) -> Vec<u8> {
    let (width, height) = (1200, 800);
    let pixels = noise(width * height * 3, seed);
    let picture = RgbImage::from_raw(1200, 800, pixels).expect("as many pixels as it has");
    let mut file = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut file, ImageFormat::Png).expect("samples can be encoded");
    file.into_inner()
}

#[track_caller]
fn assert_is(answer: &Answer, content_type: &str, name: &str, body: &[u8]) {
    answer.assert_whole(body);
    assert_eq!(answer.header("content-type"), Some(content_type));
    let disposition = answer.header("content-disposition").expect("a disposition");
    assert!(disposition.ends_with(&format!("filename={name}")), "{disposition}");
}

#[track_caller]
fn assert_small_picture(answer: &Answer) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let picture = image::load_from_memory(&answer.body).expect("thumbnails can be decoded");
    assert_eq!(picture.dimensions(), (32, 32));
}

/// Says, if a test fails while it is there, between whom.
struct Between(String);

impl Between {
    fn of(owner: &Side, reader: &Side) -> Self {
        let side = |side: &Side| format!("{} behind {:?}", side.synapse.server_name, side.front);
        Self(format!("{} has the media, {} reads it", side(owner), side(reader)))
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("this was while {}", self.0);
        }
    }
}

/// Shows all that holds between two servers, with one thing after the other in front of them.
fn exchange(fronts: &[(Front, Front)]) {
    let mut pair = Pair::start(FROZEN);
    for &(front_of_a, front_of_b) in fronts {
        let earlier = [1, 2].map(large_picture);
        let earlier_media: Vec<_> = pair
            .ways()
            .iter()
            .zip(&earlier)
            .map(|((owner, _), body)| owner.earlier().upload("image/png", Some("a.png"), body))
            .collect();
        pair.put(front_of_a, front_of_b);
        for (way, (owner, reader)) in pair.ways().into_iter().enumerate() {
            let _between = Between::of(owner, reader);
            what_is_uploaded_is_read_there(owner, reader, 10 + way as u64);
            let (media, picture) = (&earlier_media[way], &earlier[way]);
            what_was_uploaded_earlier_is_read_there(owner, reader, media, picture);
            thumbnails_are_the_same_for_users_and_servers(owner, reader);
            what_is_uploaded_late_is_waited_for(owner, reader);
            what_is_not_there_is_not_found(owner, reader);
            nobody_is_served_without_a_signature_or_token(owner, reader);
        }
    }
}

fn what_is_uploaded_is_read_there(owner: &Side, reader: &Side, seed: u64) {
    let picture = large_picture(seed);
    assert!(picture.len() > 2_000_000, "{}", picture.len());
    for (content_type, name, body) in [
        ("image/png", "large.png", &picture[..]),
        ("video/mp4", "empty.mp4", b""),
        ("application/octet-stream", "encrypted", &noise(100_001, seed)),
    ] {
        // Synapse never ends its answer to another server that asks for an empty file.
        if body.is_empty() && owner.mediary.is_none() {
            continue;
        }
        let media = owner.user().upload(content_type, Some(name), body);
        for _ in 0..2 {
            assert_is(&reader.user().download(&media), content_type, name, body);
        }
        reader.assert_kept(body);
        owner.assert_kept(body);
    }
}

fn what_was_uploaded_earlier_is_read_there(
    owner: &Side,
    reader: &Side,
    media: &str,
    picture: &[u8],
) {
    assert_is(&reader.user().download(media), "image/png", "a.png", picture);
    reader.assert_kept(picture);
    let part = parts(&reader.ask(owner, &format!("{DOWNLOAD}/{}", id(media))));
    assert_eq!(part.content_type, "image/png");
    assert!(part.body == picture);
    assert_is(&owner.user().download(media), "image/png", "a.png", picture);
    owner.assert_kept(picture);
    assert_small_picture(&reader.user().thumbnail(media));
}

fn thumbnails_are_the_same_for_users_and_servers(owner: &Side, reader: &Side) {
    let media = owner.user().upload("image/png", None, &png(400, 300));
    assert_small_picture(&reader.user().thumbnail(&media));
    let of_users = owner.user().thumbnail(&media);
    let target = format!("{THUMBNAIL}/{}?{SMALL}", id(&media));
    let of_servers = parts(&reader.ask(owner, &target));
    assert_eq!(of_users.header("content-type"), Some(of_servers.content_type.as_str()));
    assert!(of_users.body == of_servers.body);
}

fn what_is_uploaded_late_is_waited_for(owner: &Side, reader: &Side) {
    let body = bytes(10_000);
    let media = owner.user().create().media();
    let target = format!("/_matrix/client/v1/media/download/{media}");
    // Synapse asks again for some seconds, then says that something failed.
    if reader.front == Key {
        let none_yet = reader.user().get(&format!("{target}?timeout_ms=0"));
        none_yet.assert_error(504, "M_NOT_YET_UPLOADED");
    }
    owner.user().put(&media, "text/plain", &body).assert_stored();
    reader.user().get(&target).assert_whole(&body);
}

fn what_is_not_there_is_not_found(owner: &Side, reader: &Side) {
    let media = format!("{}/nothing", owner.synapse.server_name);
    reader.user().download(&media).assert_error(404, "M_NOT_FOUND");
    reader.user().thumbnail(&media).assert_error(404, "M_NOT_FOUND");
    reader.ask(owner, &format!("{DOWNLOAD}/nothing")).assert_error(404, "M_NOT_FOUND");
    // A server's cache is nobody else's source.
    let own = reader.user().upload("text/plain", None, b"read by others");
    assert_eq!(owner.user().download(&own).status, 200);
    reader.ask(owner, &format!("{DOWNLOAD}/{}", id(&own))).assert_error(404, "M_NOT_FOUND");
}

fn nobody_is_served_without_a_signature_or_token(owner: &Side, reader: &Side) {
    let media = owner.user().upload("text/plain", None, b"for users and servers");
    let target = format!("{DOWNLOAD}/{}", id(&media));
    owner.anybody().get(&target).assert_error(401, "M_UNAUTHORIZED");
    let key = ServerKey::new("another");
    let (origin, destination) = (&reader.synapse.server_name, &owner.synapse.server_name);
    let authorization = key.authorization(origin, destination, "GET", &target);
    let forged = owner.anybody().get_with(&target, &[("Authorization", &authorization)]);
    forged.assert_error(401, "M_UNAUTHORIZED");
    for side in [owner, reader] {
        let modern = side.anybody().get(&format!("/_matrix/client/v1/media/download/{media}"));
        modern.assert_error(401, "M_MISSING_TOKEN");
        let legacy = side.anybody().get(&format!("/_matrix/media/v3/download/{media}"));
        legacy.assert_error(404, "M_NOT_FOUND");
    }
}

/// The first of them has nothing of Mediary: it shows that the servers of these tests do federate.
///
/// FM-S-01, FM-S-03, FM-S-04, FM-S-05, FM-S-09, FM-C-11, FLD-10
#[test]
fn media_is_exchanged_with_mediary_without_a_key_in_front_of_none_of_two_homeservers_one_or_both() {
    exchange(&[(Nothing, Nothing), (Keyless, Nothing), (Keyless, Keyless)]);
}

/// FM-S-01, FM-S-02, FM-S-03, FM-S-04, FM-S-05, FM-S-08, FM-S-09, FM-C-01, FM-C-02, FM-C-11, XM-01,
/// XM-04, KEY-01, DISC-01, DISC-02, TLS-01, FE-14
#[test]
fn media_is_exchanged_with_mediary_with_a_key_in_front_of_one_or_both_of_two_homeservers() {
    exchange(&[(Key, Nothing), (Key, Keyless), (Key, Key)]);
}

/// CS-FRZ-01
#[test]
fn legacy_routes_that_are_open_serve_media_of_both_servers_whatever_is_in_front() {
    let mut pair = Pair::start(OPEN);
    for (front_of_a, front_of_b) in [
        (Nothing, Nothing),
        (Keyless, Nothing),
        (Keyless, Keyless),
        (Key, Nothing),
        (Key, Keyless),
        (Key, Key),
    ] {
        let [of_a, of_b] = pair.ways().map(|(owner, _)| {
            let body = png(100, 100);
            owner.earlier().upload("image/png", Some("earlier.png"), &body)
        });
        pair.put(front_of_a, front_of_b);
        for ((owner, reader), earlier) in pair.ways().into_iter().zip([of_a, of_b]) {
            let _between = Between::of(owner, reader);
            let picture = png(400, 300);
            let media = owner.user().upload("image/png", Some("a.png"), &picture);
            let missing = format!("{}/nothing", owner.synapse.server_name);
            for side in [reader, owner] {
                let at = |action: &str, media: &str| {
                    side.anybody().get(&format!("/_matrix/media/v3/{action}/{media}"))
                };
                assert_is(&at("download", &media), "image/png", "a.png", &picture);
                assert_is(&at("download", &earlier), "image/png", "earlier.png", &png(100, 100));
                let thumbnail =
                    side.anybody().get(&format!("/_matrix/media/v3/thumbnail/{media}?{SMALL}"));
                assert_small_picture(&thumbnail);
                at("download", &missing).assert_error(404, "M_NOT_FOUND");
                assert_is(&side.user().download(&media), "image/png", "a.png", &picture);
            }
        }
    }
}

/// With the key nothing that has been seen once takes a homeserver: not who asks, not who they are, not
/// the homeserver's own older media.
///
/// FM-C-02, FM-C-11, KEY-06
#[test]
fn with_keys_media_is_exchanged_while_both_homeservers_are_down() {
    let mut pair = Pair::start(FROZEN);
    pair.put(Key, Key);
    let media = pair.ways().map(|(owner, reader)| {
        let earlier = owner.earlier().upload("image/png", None, &png(400, 300));
        let target = format!("{DOWNLOAD}/{}", id(&earlier));
        let relayed = reader.ask(owner, &target);
        assert_eq!((relayed.status, relayed.complete), (200, true), "{relayed:?}");
        [earlier, owner.user().upload("image/png", None, &png(300, 400))]
    });
    pair.a.synapse.stop();
    pair.b.synapse.stop();
    for ((owner, reader), [earlier, latest]) in pair.ways().into_iter().zip(media) {
        let _between = Between::of(owner, reader);
        for (media, picture) in [(earlier, png(400, 300)), (latest, png(300, 400))] {
            let target = format!("{DOWNLOAD}/{}", id(&media));
            assert!(parts(&reader.ask(owner, &target)).body == picture);
            reader.user().download(&media).assert_whole(&picture);
            assert_small_picture(&reader.user().thumbnail(&media));
        }
    }
}
