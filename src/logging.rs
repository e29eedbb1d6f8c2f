//! The log: text or JSON on standard error, one line an event, and no library may write what came
//! over the wire.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use crate::config::{LogConfig, LogFormat, LogLevel};

/// Libraries that print what they received, tokens and all, when it does not parse (threats
/// LO-01). What they have to say we say ourselves.
const SILENCED: &[&str] =
    &["pingora_proxy", "pingora_core::apps", "pingora_core::protocols", "pingora_core::connectors"];

/// Begins to log.
///
/// # Errors
///
/// Fails if the process logs already.
pub fn start(config: &LogConfig) -> anyhow::Result<()> {
    let level = match config.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let targets = SILENCED
        .iter()
        .fold(Targets::new(), |targets, library| targets.with_target(*library, LevelFilter::OFF))
        .with_target("mediary", level)
        .with_default(level.min(LevelFilter::WARN));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match config.format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_log::LogTracer::init()?;
    tracing::subscriber::set_global_default(
        tracing_subscriber::registry().with(lines.with_filter(targets)),
    )?;
    Ok(())
}
