//! Mediary: a media sidecar for Matrix homeservers.
//!
//! A reverse proxy in front of an unmodified Synapse or Conduit. It answers every media request from
//! its own store on disk and passes everything else through byte for byte.
//!
//! # The road of a request
//!
//! ```text
//! client ─► connection ─► proxy ─► route ─┬─ pass-through ────────────────────────► homeserver
//!               ┌─────────────────────────┴─ a media route
//!               └► limit ─► auth ─► policy ─► handler ─► media ─┬─ memory
//!                         whoami, or                            ├─ store (blob and record)
//!                         a signature                           ├─ thumbnail ─► worker processes
//!                                                               ├─ incoming ◄─ upload
//! client ◄─ response ◄─────────────────────── Reply ◄───────────┴─ incoming ◄─ fetch ─┬─ homeserver
//!                                            the server that made it ◄─ egress ◄─ federation
//! ```
//!
//! Whether somebody is served is settled before a handler hears of them: [`connection`] bounds how
//! long and how slowly, [`limit`] how often and how much, [`auth`] asks who it is, [`policy`] says what
//! they may. From there a cached download takes three steps, a handler, [`media`] and [`store`], and
//! goes back through [`response`]. What is not held is fetched, and kept: the homeserver's own media
//! from there, with the caller's own token; other servers' media, where there is a signing key, from the
//! server that made it, by [`federation`] and [`egress`], else from the homeserver too. Other servers
//! come in by the same road: with a key their signatures are held in [`auth`] against the keys that they
//! publish, without one the homeserver judges them.
//!
//! A body that is still arriving, from an uploader, the homeserver or another server, has one writer and any
//! number of followers who read the unfinished file at their own pace. So the first byte does not
//! wait for the last, and all who ask for the same media at the same time share one fetch.
//!
//! Pictures are decoded in other processes, started from the same binary and locked in before they see the
//! first one: [`thumbnail`] keeps them, hands each job over as open files, and believes little of what
//! comes back. What of a stranger's file goes wrong costs one request, and one worker at most.
//!
//! # Rooms and layers
//!
//! | layer | rooms | may use |
//! |---|---|---|
//! | process | `main`, [`server`], [`check`], [`federation_test`], [`key_tool`], [`thumbnail_tool`], [`logging`] | everything; only `server` constructs and spawns, but for fetches, which outlive their first reader, and the workers of `thumbnail` |
//! | edge | [`connection`], [`proxy`], [`route`], [`limit`], [`policy`], [`handlers`], [`response`], [`error`] | application, `auth`, `homeserver`, ground; `handlers` also `federation`, for the form of its requests and answers; `error` names the failures of every room |
//! | application | [`media`] | capability, ground |
//! | capability | [`auth`], [`homeserver`], [`federation`], [`egress`], [`store`], [`thumbnail`] | ground; `auth` may ask `homeserver` and `federation`, `federation` goes out by `egress` |
//! | ground | [`types`], [`config`], [`metrics`] | each other |
//!
//! A test holds the imports against this table.
//!
//! Comments and tests name rules by ids: `CS-`, `MXC-`, `FM-` and their like are rows of the
//! project's checklist of what the Matrix specification asks of a media repository, `FLD-` rows say
//! where real servers differ from it, and two letters with a number (`AU-13`) are rows of its threat
//! model. `tests/conformance` has the rows of the checklist and the tests that show them.
//!
//! # Invariants
//!
//! - Pingora's sessions, streams and services appear in `server`, `connection`, `proxy` and
//!   `response` only; its HTTP connector in `homeserver` and `egress`. Everything else is tested
//!   without a proxy.
//! - Every connection that a stranger can cause goes out by `egress`: a name is resolved once, its
//!   addresses are checked, and the one that was checked is connected to.
//! - An [`auth::Origin`] is made only in `auth`, of a signature over the request as it came. Other
//!   servers are given nothing but our own media.
//! - Nobody is waited for without end: a client that sends or takes too slowly is cut off where its
//!   bytes pass, in `connection`; whoever waits for an answer may be silent.
//! - The media prefixes are owned whole. One parse of the raw target decides; what does not parse is
//!   refused, and no spelling of a media path is passed through. Outside the prefixes the target goes
//!   on byte for byte.
//! - An [`auth::Requester`] is made only in `auth`. The token is checked before anything is looked
//!   up; if the homeserver cannot be asked the answer is 502 or 504, never `M_UNKNOWN_TOKEN`.
//! - A path on disk is made only in `store` and only from a [`types::ContentHash`]. SQL is only in
//!   `store/metadata`.
//! - Blob before record when storing. 200 to an upload comes after: bytes written, file synced,
//!   renamed, directory synced, record committed.
//! - Every block that is read from disk is checked before it is sent.
//! - No body sits whole in memory but small hot ones, under a budget. Sizes are capped where bytes
//!   enter.
//! - A reply that breaks midway does not look complete, and a body that is still arriving ends for
//!   its readers only when it is kept.
//! - What can be had again is counted and bounded, blob by blob; media owned here is never evicted.
//!   An eviction costs what it removes, not what is held.
//! - Whoever removes or changes a record makes memory forget it in the same step, and what was looked
//!   up before that step is not put into memory after it.
//! - What the configuration lets a requester do is decided in [`policy`], what the homeserver says of
//!   the account in [`auth`]; both are asked before a handler is. What limits refuse is charged nothing.
//! - What a user may keep is charged before it is read and counted once at every moment.
//! - One function decides the disposition ([`types::ContentType::disposition`]), one decides
//!   visibility ([`media::Freeze::shows`]), for every route alike.
//! - Whether something is frozen is nothing that a stranger can time: for a name that is not shown the
//!   homeserver is asked the same question, or none, whether it is kept here or not.
//! - No decoder runs where clients are served. A worker process can open no file, reach no network and start
//!   nothing, and its answers are held against closed lists and bounds before they are used.
//! - Nothing unbounded is keyed by what strangers send.

#![forbid(unsafe_code)]

pub mod auth;
pub mod check;
pub mod config;
pub mod connection;
pub mod egress;
pub mod error;
pub mod federation;
pub mod federation_test;
pub mod handlers;
pub mod homeserver;
pub mod key_tool;
pub mod limit;
pub mod logging;
pub mod media;
pub mod metrics;
pub mod policy;
pub mod proxy;
pub mod response;
pub mod route;
pub mod server;
pub mod store;
pub mod thumbnail;
pub mod thumbnail_tool;
pub mod types;
