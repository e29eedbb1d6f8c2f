//! The thumbnail workers: how they are started, and what is said of how far they are locked in.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::config::{SandboxMode, SizesMode, ThumbnailsConfig};
use crate::media::ThumbnailRules;
use crate::metrics::ThumbnailMetrics;
use crate::thumbnail::{
    Capacity, EngineSettings, Ladder, Launch, Limits, ProcessSettings, Programs, ThumbnailEngine,
};

/// How long the start waits for the first worker. Each is given less to come up.
const PATIENCE: Duration = Duration::from_secs(15);

/// Starts the workers.
///
/// # Errors
///
/// The system gives no threads; or the workers have to be locked in and are not.
pub fn engine(config: &ThumbnailsConfig, metrics: ThumbnailMetrics) -> Result<ThumbnailEngine> {
    let settings = EngineSettings {
        capacity: Capacity { workers: config.workers(), queue: config.queue },
        limits: limits(config),
        moving: config.moving,
        programs: Arc::new(programs(config)),
        launch: Launch::Processes(worker(config)),
        metrics,
    };
    let engine = ThumbnailEngine::new(settings).context("cannot start the thumbnail workers")?;
    let lacks = match engine.first_start(PATIENCE) {
        Some(Ok(report)) => {
            tracing::info!(workers = config.workers(), %report, "started the thumbnail workers");
            report.lacks()
        }
        Some(Err(error)) => vec![format!("no worker can be started: {error}")],
        None => vec!["no worker has come up yet".to_owned()],
    };
    if config.sandbox == SandboxMode::Require && !lacks.is_empty() {
        bail!(
            "thumbnail workers cannot be locked in as thumbnails.sandbox = \"require\" demands: {}; \
             give Mediary what lacks, or set thumbnails.sandbox = \"prefer\" to go on without",
            lacks.join("; ")
        );
    }
    for lack in lacks {
        tracing::warn!("thumbnail workers are not wholly locked in: {lack}");
    }
    Ok(engine)
}

/// Looks for the programs that videos and HEIC pictures take, and says which there are.
fn programs(config: &ThumbnailsConfig) -> Programs {
    let programs = Programs::find(config, ProcessSettings::own_program());
    for line in programs.report() {
        tracing::info!("thumbnails: {line}");
    }
    programs
}

/// Returns how a worker is started and what it may cost.
pub fn worker(config: &ThumbnailsConfig) -> ProcessSettings {
    ProcessSettings {
        program: ProcessSettings::own_program(),
        timeout: config.timeout,
        memory_bytes: config.worker_memory.as_u64(),
        jobs: config.worker_jobs,
        wholly: config.sandbox == SandboxMode::Require,
    }
}

/// Returns how much a picture may cost.
pub fn limits(config: &ThumbnailsConfig) -> Limits {
    Limits {
        max_pixels: config.max_pixels,
        max_frames: config.max_frames,
        max_animation_pixels: config.max_animation_pixels,
    }
}

/// Returns the sizes that thumbnails are made in.
///
/// # Errors
///
/// If one of them is none, which a valid configuration does not have.
pub fn ladder(config: &ThumbnailsConfig) -> Result<Ladder> {
    let rungs: Result<Vec<_>, _> = config.sizes.iter().map(|rung| rung.parse()).collect();
    let ladder = Ladder::new(rungs.context("thumbnails.sizes")?);
    Ok(match config.mode {
        SizesMode::Ladder => ladder,
        SizesMode::Exact => ladder.exact(),
    })
}

/// Returns which thumbnails are made and kept.
pub(super) fn rules(config: &ThumbnailsConfig) -> Result<ThumbnailRules> {
    Ok(ThumbnailRules {
        ladder: ladder(config)?,
        max_variants: config.max_variants,
        on_upload: config.on_upload,
        webp: config.webp,
    })
}
