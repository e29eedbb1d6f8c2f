//! Canonical JSON, the form that is signed (CJ-01 to CJ-03).
