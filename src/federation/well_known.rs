//! `/.well-known/matrix/server`: its form and how long it is good.
