//! Reading the signing key out of a Conduit database.
