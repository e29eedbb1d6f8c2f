//! The `Authorization: X-Matrix` field: written, read, and held against a key.
