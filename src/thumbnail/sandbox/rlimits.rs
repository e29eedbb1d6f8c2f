//! What a process may consume: resource limits and priority.

use super::report::Layer;
use super::{Confinement, ProgramConfinement};

pub(super) fn priority() -> Layer {
    Layer::lacking("priority as it was", "the priority is not lowered")
}

pub(super) fn worker(_: &Confinement) -> Layer {
    Layer::lacking("no limits", "no limits are set")
}

pub(super) fn program(_: &ProgramConfinement<'_>) -> Layer {
    Layer::lacking("no limits", "no limits are set")
}
