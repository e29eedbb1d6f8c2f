//! URLs that strangers name: which are followed, and where they may lead.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use mediary::egress::EgressError;

use super::common::fake::respond_with;
use super::*;

/// A site that redirects `/to/N` with status N to what is set.
fn redirecting(world: &World, name: &str) -> (Site, Arc<Mutex<String>>) {
    let location = Arc::new(Mutex::new(String::new()));
    let told = location.clone();
    let site = world.site(&[name], move |request, stream| {
        let target = request.target();
        Some(match target.strip_prefix("/to/").and_then(|status| status.parse().ok()) {
            Some(status) => {
                let location = told.lock().expect("the place").clone();
                respond_with(stream, status, &[("Location", &location)], b"elsewhere")
            }
            None => respond(stream, 200, &target),
        })
    });
    (site, location)
}

fn lead(location: &Mutex<String>, to: impl ToString) {
    *location.lock().expect("the place") = to.to_string();
}

#[tokio::test]
async fn redirects_are_followed_and_the_last_url_is_told() {
    let world = World::new();
    let (first, location) = redirecting(&world, "a.example");
    let second =
        world.site(&["b.example"], |request, stream| Some(respond(stream, 200, &request.target())));
    let egress = world.egress(&[LOOPBACK]);
    for status in [301, 302, 303, 307, 308] {
        let start = || secure(first.url("a.example", &format!("/to/{status}#here")));
        lead(&location, second.url("b.example", "/found?q=1#there"));
        let (url, response) = egress.get_url(start(), soon()).await.unwrap();
        assert_eq!(url, second.url("b.example", "/found?q=1"));
        assert_eq!(whole(response).await, "/found?q=1");
        lead(&location, "../found");
        let (url, response) = egress.get_url(start(), soon()).await.unwrap();
        assert_eq!(url, first.url("a.example", "/found"));
        assert_eq!(whole(response).await, "/found");
    }
    let hosts: Vec<_> = second.backend.received();
    let expected = format!("b.example:{}", second.front.port());
    assert!(hosts.iter().all(|request| request.header("host") == Some(&*expected)));
}

#[tokio::test]
async fn other_answers_are_not_redirects() {
    let world = World::new();
    let (site, location) = redirecting(&world, "a.example");
    lead(&location, "/found");
    let egress = world.egress(&[LOOPBACK]);
    for status in [300, 304, 305, 306, 404] {
        let url = site.url("a.example", &format!("/to/{status}"));
        let (last, response) = egress.get_url(secure(url.clone()), soon()).await.unwrap();
        assert_eq!((last, response.status.as_u16()), (url, status));
    }
    // And those of a single request are left to whoever asked.
    let response = egress.get(&site.endpoint("a.example"), "/to/302", &[], soon()).await.unwrap();
    assert_eq!(response.status, 302);
    assert_eq!(response.field(&http::header::LOCATION), Some(&b"/found"[..]));
}

/// SS-05, SS-11
#[tokio::test]
async fn a_redirect_to_the_inside_is_refused_before_a_connection() {
    let world = World::new();
    let (site, location) = redirecting(&world, "a.example");
    let inside = TcpListener::bind("127.0.0.2:0").unwrap();
    inside.set_nonblocking(true).unwrap();
    let port = inside.local_addr().unwrap().port();
    world.dns.set_addresses("inside.example", &["127.0.0.2"]);
    let egress = world.egress(&[LOOPBACK]);
    for host in ["inside.example", "127.0.0.2", "127.2", "2130706434", "0x7f.2", "[::ffff:7f00:2]"]
    {
        lead(&location, format!("https://{host}:{port}/"));
        let start = secure(site.url("a.example", "/to/302"));
        let failure = refusal(egress.get_url(start, soon()).await);
        assert!(matches!(failure, EgressError::Forbidden { .. }), "{host}: {failure}");
    }
    // Also on the second hop.
    let (second, onwards) = redirecting(&world, "b.example");
    lead(&location, second.url("b.example", "/to/307"));
    lead(&onwards, format!("https://inside.example:{port}/"));
    let start = secure(site.url("a.example", "/to/302"));
    let failure = refusal(egress.get_url(start, soon()).await);
    assert!(matches!(failure, EgressError::Forbidden { .. }), "{failure}");
    assert_eq!(second.backend.received().len(), 1);
    assert!(inside.accept().is_err());
}

/// SS-06, SS-11
#[tokio::test]
async fn a_redirect_never_leaves_tls() {
    let world = World::new();
    let (site, location) = redirecting(&world, "a.example");
    let plainly = FakeHomeserver::with(|_, stream| Some(respond(stream, 200, "hello")));
    lead(&location, &plainly.url);
    let egress = world.egress(&[LOOPBACK]);
    let request = secure(site.url("a.example", "/to/302"));
    let failure = refusal(egress.get_url(request, soon()).await);
    let EgressError::Url(_, reason) = &failure else { panic!("{failure}") };
    assert_eq!(*reason, "it is not encrypted");
    assert_eq!(plainly.connections(), 0);
}

/// SS-06
#[tokio::test]
async fn a_redirect_to_another_scheme_is_refused() {
    let world = World::new();
    let (site, location) = redirecting(&world, "a.example");
    let egress = world.egress(&[LOOPBACK]);
    for to in [
        "file:///etc/passwd",
        "ftp://a.example/",
        "gopher://a.example/",
        "data:text/plain,hello",
        "javascript:alert(1)",
        "https://user@a.example/",
        "https://a.example:99999/",
        "https://",
        "https://a.example:22/",
    ] {
        lead(&location, to);
        let start = secure(site.url("a.example", "/to/302"));
        let failure = refusal(egress.get_url(start, soon()).await);
        assert!(matches!(failure, EgressError::Url(..)), "{to}: {failure}");
    }
    assert_eq!(site.backend.received().len(), 9);
}

/// SS-06
#[tokio::test]
async fn redirects_come_to_an_end() {
    let world = World::new();
    let egress = world.egress(&[LOOPBACK]);
    let (circle, location) = redirecting(&world, "a.example");
    lead(&location, "/to/302#again");
    let start = secure(circle.url("a.example", "/to/302"));
    let failure = refusal(egress.get_url(start, soon()).await);
    assert_eq!(failure, EgressError::TooManyRedirects);
    assert_eq!(circle.backend.received().len(), 1);

    let endless = world.site(&["b.example"], |request, stream| {
        let next = format!("{}x", request.target());
        Some(respond_with(stream, 302, &[("Location", &next)], b""))
    });
    for (max_redirects, requests) in [(0, 1), (2, 3)] {
        let before = endless.backend.received().len();
        let request = UrlRequest { max_redirects, ..secure(endless.url("b.example", "/")) };
        let failure = refusal(egress.get_url(request, soon()).await);
        assert_eq!(failure, EgressError::TooManyRedirects);
        assert_eq!(endless.backend.received().len() - before, requests);
    }
}

/// SS-06, SS-07, SS-08
#[tokio::test]
async fn what_is_no_place_for_media_is_refused_without_a_question() {
    let world = World::new();
    let egress = world.egress(&[]);
    for (url, told) in [
        ("http://a.example/", "it is not encrypted"),
        ("ftp://a.example/", "its scheme is not https"),
        ("file:///etc/passwd", "its scheme is not https"),
        ("data:,hello", "its scheme is not https"),
        ("https://user@a.example/", "it names a user"),
        ("https://:secret@a.example/", "it names a user"),
        ("https://user@b@c/", "it names a user"),
        ("https://a.example:0/", "its port belongs to another service"),
        ("https://a.example:22/", "its port belongs to another service"),
        ("https://a.example:80/", "its port belongs to another service"),
        ("https://a.example:25/", "its port belongs to another service"),
        ("https://a.example:53/", "its port belongs to another service"),
        ("https://a.example:6379/", "its port belongs to another service"),
    ] {
        let failure = refusal(egress.get_url(secure(url.parse().unwrap()), soon()).await);
        let EgressError::Url(named, reason) = &failure else { panic!("{url}: {failure}") };
        assert_eq!(*reason, told, "{url}");
        assert!(!named.contains("secret") && !named.contains("user"), "{named}");
    }
    assert!(world.dns.questions().is_empty());
}

/// SS-01, SS-07
#[tokio::test]
async fn hosts_in_numbers_are_judged_by_the_address_that_they_are() {
    let world = World::new();
    let egress = world.egress(&[]);
    for host in [
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "127.0.0.1",
        "0.0.0.0",
        "0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "localhost",
        "127.0.0.1.",
        "%31%32%37.0.0.1",
        "１２７.0.0.1",
    ] {
        let url = format!("https://{host}/").parse().unwrap();
        let failure = refusal(egress.get_url(secure(url), soon()).await);
        assert!(matches!(failure, EgressError::Forbidden { .. }), "{host}: {failure}");
    }
    assert!(world.dns.questions().is_empty());
}
