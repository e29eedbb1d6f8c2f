//! Mediary.
pub mod types;
