//! What `mediary check` says of what makes thumbnails: a worker is started and asked how far it is locked
//! in, and the programs that some kinds of files take are tried.

use super::Finding;
use crate::config::{SandboxMode, ThumbnailsConfig};
use crate::server;
use crate::thumbnail::{ProcessSettings, Programs, try_worker};

/// Starts a worker and ends it again.
pub(super) fn worker(config: &ThumbnailsConfig) -> Vec<Finding> {
    let report = match try_worker(&server::thumbnail_worker(config)) {
        Ok(report) => report,
        Err(error) => {
            return vec![unlocked(config, format!("no thumbnail worker can be started: {error}"))];
        }
    };
    let whole = report
        .is_complete()
        .then(|| Finding::Good(format!("thumbnail workers are locked in ({report})")));
    let lacks = report.lacks().into_iter().map(|lack| {
        unlocked(config, format!("thumbnail workers are not wholly locked in: {lack}"))
    });
    lacks.chain(whole).collect()
}

/// Looks for the programs. None of them has to be there.
pub(super) fn programs(config: &ThumbnailsConfig) -> Vec<Finding> {
    let lines = Programs::find(config, ProcessSettings::own_program()).report();
    lines.into_iter().map(|line| Finding::Good(format!("thumbnails: {line}"))).collect()
}

/// Something lacks; the configuration says how bad that is.
fn unlocked(config: &ThumbnailsConfig, text: String) -> Finding {
    match config.sandbox {
        SandboxMode::Prefer => Finding::Doubtful(text),
        SandboxMode::Require => {
            Finding::Bad(format!("{text}; thumbnails.sandbox = \"require\" asks for all of it"))
        }
    }
}
