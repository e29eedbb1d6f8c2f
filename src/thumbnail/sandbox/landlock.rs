//! Landlock: which files, ports and processes can be reached.

use std::io;
use std::path::Path;

use super::ProgramConfinement;
use super::report::Layer;

pub(super) fn nothing() -> Layer {
    Layer::lacking("no landlock", "landlock is not applied")
}

pub(super) fn program(_: &ProgramConfinement<'_>, _: &Path) -> io::Result<Layer> {
    Ok(Layer::lacking("no landlock", "landlock is not applied"))
}
