//! From names to addresses.
