//! `GET …/config` (CS-CFG-01 to CS-CFG-03).

use http::StatusCode;
use serde::Serialize;

use crate::policy::Terms;
use crate::response::Reply;

#[derive(Serialize)]
struct Config {
    #[serde(rename = "m.upload.size")]
    upload_size: u64,
}

pub(super) fn config(terms: &Terms) -> Reply {
    Reply::json(StatusCode::OK, &Config { upload_size: terms.announced_max_bytes })
}
