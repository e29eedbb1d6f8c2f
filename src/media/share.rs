//! Whose share of the places for fetches is taken.

use crate::types::{self, ServerName, UserId};

/// Whose share is taken.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Sharer {
    /// A user's.
    User(UserId),
    /// Another server's.
    Server(ServerName),
    /// That of everybody without a token, together.
    Anybody,
}

pub(super) type Shares = types::Shares<Sharer>;

pub(super) type Share = types::Share<Sharer>;

/// Shares of what there is for one server's media.
pub(super) type SharesThere = types::Shares<(Sharer, ServerName)>;

pub(super) type ShareThere = types::Share<(Sharer, ServerName)>;
