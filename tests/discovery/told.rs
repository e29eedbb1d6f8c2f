//! What is told of each step.

use std::sync::Mutex;
use std::time::Duration;

use mediary::federation::{Event, Observer};
use tokio::time::Instant;

use crate::common::fake::respond;
use crate::common::world::{VERSION, in_a_world};

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Observer for Told {
    fn notice(&self, event: Event<'_>) {
        let text = match event {
            Event::WellKnown { host, outcome: Ok((server, lifetime)) } => {
                format!("{host} names {server} for {} s", lifetime.as_secs())
            }
            Event::WellKnown { host, outcome: Err(error) } => format!("{host}: {error}"),
            Event::Srv { service, outcome } => {
                format!("{service}: {}", outcome.map_or(0, <[_]>::len))
            }
            Event::Tried { endpoint, outcome: Ok(status) } => {
                format!("{}: {status}", endpoint.authority)
            }
            Event::Tried { endpoint, outcome: Err(_) } => format!("{}: no", endpoint.authority),
        };
        self.0.lock().expect("what was told").push(text);
    }
}

/// DISC-03, DISC-12, DISC-13, DISC-14
#[test]
fn every_step_is_told_in_order_and_once() {
    in_a_world(async |world| {
        let _homeserver = world.homeserver_at_8448("a.example");
        let _website = world.website("a.example", |_, stream| Some(respond(stream, 404, "{}")));
        let (servers, told) = (world.servers(), Told::default());
        let server = "a.example".parse().unwrap();
        for _ in 0..2 {
            let deadline = Instant::now() + Duration::from_secs(20);
            let asked = servers.get_observed(&server, VERSION, &[], deadline, &told).await;
            assert_eq!(asked.unwrap().status.as_u16(), 200);
        }
        let told = told.0.lock().unwrap().clone();
        let expected = [
            "a.example: the answer is 404 Not Found",
            "_matrix-fed._tcp.a.example: 0",
            "_matrix._tcp.a.example: 0",
            "a.example: 200 OK",
            "a.example: 200 OK",
        ];
        assert_eq!(told, expected);
    });
}
