//! From a server name to where it is served (section 13 of the checklist).
