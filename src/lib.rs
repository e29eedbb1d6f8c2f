//! Mediary.
#![forbid(unsafe_code)]
pub mod auth;
pub mod check;
pub mod config;
pub mod error;
pub mod handlers;
pub mod homeserver;
pub mod logging;
pub mod media;
pub mod metrics;
pub mod proxy;
pub mod response;
pub mod route;
pub mod server;
pub mod store;
pub mod thumbnail;
pub mod types;
