//! What of the walls stands, in words.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What took effect when a process locked itself in: one line for the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    layers: Vec<Layer>,
}

/// One of the walls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layer {
    /// What it is called, and what it came to.
    pub(super) standing: String,
    /// What lacks, and what can be done about it: a sentence.
    pub(super) lack: Option<String>,
}

impl Layer {
    /// A layer that is in force.
    pub(super) fn whole(standing: impl Into<String>) -> Self {
        Self { standing: standing.into(), lack: None }
    }

    /// A layer that is not, or not all of it.
    pub(super) fn lacking(standing: impl Into<String>, lack: impl Into<String>) -> Self {
        Self { standing: standing.into(), lack: Some(lack.into()) }
    }
}

impl Report {
    pub(super) fn new(layers: Vec<Layer>) -> Self {
        Self { layers }
    }

    /// Returns whether everything is refused that should be, by every layer.
    pub fn is_complete(&self) -> bool {
        self.layers.iter().all(|layer| layer.lack.is_none())
    }

    /// Returns what lacks, and what can be done about it: a sentence each.
    pub fn lacks(&self) -> Vec<String> {
        self.layers.iter().filter_map(|layer| layer.lack.clone()).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let standings: Vec<_> = self.layers.iter().map(|layer| layer.standing.as_str()).collect();
        f.write_str(&standings.join(", "))
    }
}
