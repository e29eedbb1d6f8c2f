//! Patterns of users, of servers and of media types.

use std::str::FromStr;

use crate::types::{ServerName, UserId};

/// The longest pattern of users; no user id is longer.
const MAX_LENGTH: usize = 255;

/// A pattern of whole user ids: `*` stands for any text, `?` for any one character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserPattern(Box<str>);

/// A text that matches no user id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "matches no user id; write one, or a pattern with * for any text and ? for one character, as in \
     \"@bot-*:example.org\""
)]
pub struct InvalidUserPattern;

impl UserPattern {
    /// Whether it matches every user there can be.
    pub fn is_everybody(&self) -> bool {
        self.0.bytes().all(|b| b == b'*') || &*self.0 == "@*"
    }

    /// Whether it matches a user, by the whole id.
    pub fn matches(&self, user: &UserId) -> bool {
        matches(&self.0, user.as_str())
    }
}

impl FromStr for UserPattern {
    type Err = InvalidUserPattern;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let has_wildcard = text.contains(['*', '?']);
        let could_match = if has_wildcard {
            text.starts_with(['@', '*', '?'])
                && text.contains([':', '*', '?'])
                && text.len() <= MAX_LENGTH
                && !text.chars().any(char::is_control)
        } else {
            text.parse::<UserId>().is_ok()
        };
        if could_match { Ok(Self(text.into())) } else { Err(InvalidUserPattern) }
    }
}

/// A pattern of server names: `*` stands for any text, `?` for any one character. Names are held against
/// it without their port and without regard to case, as DNS does. The pattern of an IPv6 address is
/// written in brackets; however an address is spelled, it counts in its canonical form, and one of IPv4
/// inside one of IPv6 as what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerPattern(Box<str>);

/// A text that matches no server name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "matches no server; write a server name without its port, or a pattern with * for any text and ? \
     for one character, as in \"*.example.org\""
)]
pub struct InvalidServerPattern;

impl ServerPattern {
    /// Whether it matches a server, by its name without the port.
    pub fn matches(&self, server: &ServerName) -> bool {
        matches(&self.0, &server.canonical_host())
    }
}

impl FromStr for ServerPattern {
    type Err = InvalidServerPattern;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower = text.to_ascii_lowercase();
        let pattern = lower.trim_end_matches('.');
        if !pattern.contains(['*', '?']) {
            // Brought into the form in which names are held against it.
            let name = pattern.parse::<ServerName>().ok().filter(|name| name.port().is_none());
            let name = name.ok_or(InvalidServerPattern)?;
            return Ok(Self(name.canonical_host().into()));
        }
        // With letters in the place of the wildcards it has to be a name.
        let example = pattern.replace(['*', '?'], "a");
        let could_match = if pattern.starts_with('[') {
            pattern.ends_with(']')
                && pattern[1..pattern.len() - 1]
                    .bytes()
                    .all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.' | b'*' | b'?'))
        } else {
            example.parse::<ServerName>().is_ok_and(|name| name.port().is_none())
        };
        if could_match { Ok(Self(pattern.into())) } else { Err(InvalidServerPattern) }
    }
}

/// Goes through both texts once, and back only to the last `*`: in the worst case as many steps as the
/// product of their lengths.
fn matches(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    let mut last_star = None;
    loop {
        let unread = text.clone();
        match (pattern.next(), text.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                // The rest is tried where the star begins, and later one character further.
                text = unread;
                last_star = Some((pattern.clone(), text.clone()));
            }
            (Some('?'), Some(_)) => {}
            (Some(wanted), Some(found)) if wanted == found => {}
            _ => {
                let Some((rest, mut from)) = last_star.take() else { return false };
                if from.next().is_none() {
                    return false;
                }
                (pattern, text) = (rest.clone(), from.clone());
                last_star = Some((rest, from));
            }
        }
    }
}

/// A pattern of media types: `image/png`, `image/*` or `*/*`, in whichever case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypePattern {
    kind: Box<str>,
    subtype: Box<str>,
}

/// A text that is no such pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a media type; write it without parameters, as in \"image/png\", \"image/*\" or \"*/*\""
)]
pub struct InvalidTypePattern;

impl TypePattern {
    /// Whether it matches a type in lower case without its parameters (FLD-16).
    pub fn matches(&self, essence: &str) -> bool {
        let is = |pattern: &str, text: &str| pattern == "*" || pattern == text;
        essence
            .split_once('/')
            .is_some_and(|(kind, subtype)| is(&self.kind, kind) && is(&self.subtype, subtype))
    }
}

impl FromStr for TypePattern {
    type Err = InvalidTypePattern;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_token = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b))
        };
        let (kind, subtype) = text.split_once('/').ok_or(InvalidTypePattern)?;
        let is_valid = match (kind, subtype) {
            ("*", subtype) => subtype == "*",
            (kind, "*") => is_token(kind),
            (kind, subtype) => is_token(kind) && is_token(subtype),
        };
        if !is_valid {
            return Err(InvalidTypePattern);
        }
        let lower = |part: &str| part.to_ascii_lowercase().into();
        Ok(Self { kind: lower(kind), subtype: lower(subtype) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_user_pattern_is_held_against_the_whole_id() {
        for (pattern, user, is_match) in [
            ("@bot:example.org", "@bot:example.org", true),
            ("@bot:example.org", "@bot:example.orga", false),
            ("@bot:example.org", "@robot:example.org", false),
            ("@bot:example.org", "@Bot:example.org", false),
            ("@bot-*:example.org", "@bot-:example.org", true),
            ("@bot-*:example.org", "@bot-1-2:example.org", true),
            ("@bot-*:example.org", "@bot:example.org", false),
            ("@bot-*:example.org", "@bot-1:example.org:8448", false),
            ("@bot-?:example.org", "@bot-1:example.org", true),
            ("@bot-?:example.org", "@bot-é:example.org", true),
            ("@bot-?:example.org", "@bot-12:example.org", false),
            ("@bot-?:example.org", "@bot-:example.org", false),
            ("*", "@anybody:example.org", true),
            ("**", "@anybody:example.org", true),
            ("?*", "@anybody:example.org", true),
            ("*:example.org", "@a:example.org", true),
            ("*:example.org", "@a:example.net", false),
            ("@*a*b:example.org", "@xaxxbxb:example.org", true),
            ("@*a*b:example.org", "@xbxxa:example.org", false),
            ("@.+:example.org", "@ab:example.org", false),
            ("@[ab]*:example.org", "@a:example.org", false),
        ] {
            let user = user.parse().unwrap();
            let Ok(parsed) = pattern.parse::<UserPattern>() else {
                panic!("{pattern} is refused");
            };
            assert_eq!(parsed.matches(&user), is_match, "{pattern} and {user}");
        }
    }

    #[test]
    fn what_could_match_no_user_is_refused() {
        let long = format!("@{}*:example.org", "a".repeat(300));
        for text in
            ["", "@", "bot", "bot-*:example.org", "@bot", "@bot:", ":*", "#a*:b", "@a*\n:b", &long]
        {
            assert_eq!(text.parse::<UserPattern>(), Err(InvalidUserPattern), "{text:?}");
        }
    }

    #[test]
    fn a_server_pattern_is_held_against_the_host_however_it_is_spelled() {
        for (pattern, server, is_match) in [
            ("a.example", "A.Example.:8448", true),
            ("A.example.", "a.example", true),
            ("*.example", "a.example", true),
            ("a.example", "b.a.example", false),
            ("[2001:db8::1]", "[2001:db8:0::1]", true),
            ("[2001:DB8:0:0::1]", "[2001:db8::1]:443", true),
            ("[2001:db8::*]", "[2001:db8:0:0::1]", true),
            ("[2001:db8::1]", "[2001:db8::2]", false),
            ("192.0.2.1", "[::ffff:192.0.2.1]", true),
            ("192.0.2.*", "[::ffff:c000:201]:443", true),
            ("[::ffff:192.0.2.1]", "192.0.2.1.", true),
            ("192.0.2.1", "192.0.2.11", false),
        ] {
            let parsed: ServerPattern = pattern.parse().unwrap();
            assert_eq!(parsed.matches(&server.parse().unwrap()), is_match, "{pattern}, {server}");
        }
    }

    #[test]
    fn what_could_match_no_server_is_refused() {
        for text in
            ["", "a.example:8448", "[2001:db8::1]:443", "[1:2]", "[::1", "a b", "a..b", "[x*]"]
        {
            assert_eq!(text.parse::<ServerPattern>(), Err(InvalidServerPattern), "{text:?}");
        }
    }

    #[test]
    fn type_patterns_match_kinds_and_types() {
        for (pattern, essence, is_match) in [
            ("image/png", "image/png", true),
            ("Image/PNG", "image/png", true),
            ("image/png", "image/pngx", false),
            ("image/*", "image/svg+xml", true),
            ("image/*", "imagex/png", false),
            ("*/*", "application/octet-stream", true),
            ("*/*", "nonsense", false),
        ] {
            let parsed: TypePattern = pattern.parse().unwrap();
            assert_eq!(parsed.matches(essence), is_match, "{pattern} and {essence}");
        }
    }

    #[test]
    fn what_is_no_type_pattern_is_refused() {
        for text in
            ["", "*", "image", "image/", "/png", "*/png", "image/p*", "a/b/c", "a/b; c=d", " a/b"]
        {
            assert_eq!(text.parse::<TypePattern>(), Err(InvalidTypePattern), "{text:?}");
        }
    }

    /// The plainest way to say what a pattern matches, which may take for ever.
    fn plainly(pattern: &[char], text: &[char]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            (['*', rest @ ..], text) => (0..=text.len()).any(|skip| plainly(rest, &text[skip..])),
            (['?', rest @ ..], [_, text @ ..]) => plainly(rest, text),
            ([wanted, rest @ ..], [found, text @ ..]) => wanted == found && plainly(rest, text),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_is_what_it_says(pattern in "[ab?*é]{0,8}", text in "[abé]{0,10}") {
            let characters = |text: &str| text.chars().collect::<Vec<_>>();
            let expected = plainly(&characters(&pattern), &characters(&text));
            prop_assert_eq!(matches(&pattern, &text), expected);
        }

        #[test]
        fn every_user_id_is_a_pattern_of_itself(name in "[a-z0-9._=/+-]{1,20}") {
            let id = format!("@{name}:example.org");
            let pattern: UserPattern = id.parse().unwrap();
            prop_assert!(pattern.matches(&id.parse().unwrap()));
        }
    }

    #[test]
    fn many_stars_take_no_more_than_a_moment() {
        let pattern: UserPattern = format!("@{}b:example.org", "*a".repeat(100)).parse().unwrap();
        assert!(!pattern.matches(&format!("@{}:example.org", "a".repeat(240)).parse().unwrap()));
    }
}
