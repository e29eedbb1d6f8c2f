//! Which addresses may be contacted.
