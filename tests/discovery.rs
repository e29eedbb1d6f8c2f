//! Finding other servers: every step of discovery, with names, certificates and ports as they are
//! outside (section 13 of the checklist; threats SS-05, SS-06, SS-10, FE-08).

mod common;

#[path = "discovery/name.rs"]
mod name;
#[path = "discovery/records.rs"]
mod records;
#[path = "discovery/remembered.rs"]
mod remembered;
#[path = "discovery/told.rs"]
mod told;
#[path = "discovery/well_known.rs"]
mod well_known;

const WELL_KNOWN: &str = "/.well-known/matrix/server";

fn host_and_sni(name: &str) -> (String, Option<String>) {
    (name.to_owned(), Some(name.to_owned()))
}
