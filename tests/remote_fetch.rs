//! Fetching media from the servers that made it, by the library itself, against servers that do what a
//! test wants (section 11 of the checklist; threats FE, SS-11).

mod common;

#[path = "remote_fetch/answers.rs"]
mod answers;
#[path = "remote_fetch/legacy_routes.rs"]
mod legacy_routes;
#[path = "remote_fetch/location.rs"]
mod location;
#[path = "remote_fetch/patience.rs"]
mod patience;
#[path = "remote_fetch/resume.rs"]
mod resume;
#[path = "remote_fetch/world.rs"]
mod world;
