//! Which servers media is exchanged with.

use crate::config::ServerPattern;
use crate::types::ServerName;

/// The operator's lists of servers, for what is fetched and for who may ask (FM-S-13).
#[derive(Debug, Clone, Default)]
pub struct ServerRules {
    allow: Vec<ServerPattern>,
    deny: Vec<ServerPattern>,
}

impl ServerRules {
    /// Takes the lists; an empty `allow` stands for everybody, and `deny` has the last word.
    pub fn new(allow: Vec<ServerPattern>, deny: Vec<ServerPattern>) -> Self {
        Self { allow, deny }
    }

    /// Whether there are any.
    pub fn are_none(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    /// Whether media is exchanged with a server.
    pub fn permit(&self, server: &ServerName) -> bool {
        let is_allowed =
            self.allow.is_empty() || self.allow.iter().any(|pattern| pattern.matches(server));
        is_allowed && !self.deny.iter().any(|pattern| pattern.matches(server))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(allow: &[&str], deny: &[&str]) -> ServerRules {
        let patterns = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        ServerRules::new(patterns(allow), patterns(deny))
    }

    fn permits(rules: &ServerRules, server: &str) -> bool {
        rules.permit(&server.parse().unwrap())
    }

    #[test]
    fn without_lists_everybody_is_permitted() {
        assert!(permits(&rules(&[], &[]), "a.example"));
    }

    #[test]
    fn whoever_is_denied_is_not_permitted_though_allowed() {
        let rules = rules(&["*.example"], &["evil.example", "10.*"]);
        assert!(permits(&rules, "good.example") && permits(&rules, "good.example:8448"));
        assert!(!permits(&rules, "evil.example") && !permits(&rules, "EVIL.example:8448"));
        assert!(!permits(&rules, "good.other") && !permits(&rules, "10.0.0.1"));
    }
}
