//! How servers have behaved: back-off and fetches in flight.
