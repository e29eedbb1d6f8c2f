//! What the configuration lets a requester do: the one place that decides it. What the homeserver says
//! of the account, such as a suspension, is for `auth`.

use std::sync::Arc;

use crate::auth::Requester;
use crate::config::{Config, RuleConfig, TypePattern, UserPattern};
use crate::media::{Allowance, Quota, QuotaInfo};
use crate::types::{ContentType, UserId};

/// What holds for a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Whether they may upload at all.
    pub may_upload: bool,
    /// Whether they are bound by limits on how often and how much.
    pub is_rate_limited: bool,
    /// How much they may upload.
    pub allowance: Allowance,
    /// The largest upload that they are told of (CS-CFG-02).
    pub announced_max_bytes: u64,
}

/// What somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To read media or a thumbnail (CS-GST-01).
    Read,
    /// To ask how large an upload may be, or for the preview of a URL.
    Ask,
    /// To upload, or to make a media id for it.
    Upload,
}

/// Why a requester may not do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Guests may only read (CS-GST-02).
    #[error("guests may not do this")]
    Guest,
    /// The user may not upload (CS-UP-05, CS-CRE-06).
    #[error("the user may not upload")]
    Upload,
    /// Files of this type are not taken (CS-UP-05).
    #[error("files of this type are not taken")]
    Type,
    /// Media is not exchanged with this server (FM-S-13).
    #[error("media is not exchanged with this server")]
    Server,
}

/// What the configuration says of users.
pub struct Policy {
    trusts_is_guest: bool,
    allowed_types: Vec<TypePattern>,
    denied_types: Vec<TypePattern>,
    general: Terms,
    rules: Vec<(Vec<UserPattern>, Terms)>,
}

impl Policy {
    /// Takes what a valid configuration says.
    pub fn new(config: &Config) -> Self {
        let uploads = &config.uploads;
        let info = uploads.quota_info_url.as_ref().map(|url| {
            Arc::new(QuotaInfo { uri: url.as_str().into(), can_upgrade: uploads.quota_can_upgrade })
        });
        let max_bytes = uploads.max_size.as_u64();
        let front = uploads.front_max_size.map_or(u64::MAX, |size| size.as_u64());
        let general = Terms {
            may_upload: true,
            is_rate_limited: true,
            allowance: Allowance {
                max_bytes,
                quota: Quota {
                    bytes: bound(uploads.quota_bytes.as_u64()),
                    files: bound(uploads.quota_files),
                    info,
                },
                max_pending: uploads.max_pending,
            },
            announced_max_bytes: max_bytes.min(front),
        };
        let rule = |rule: &RuleConfig| (rule.users.clone(), general.with(rule, front));
        Self {
            trusts_is_guest: config.auth.trust_is_guest,
            allowed_types: uploads.allow_types.clone(),
            denied_types: uploads.deny_types.clone(),
            rules: config.rules.iter().map(rule).collect(),
            general,
        }
    }

    /// Returns what holds for a user: the first rule that names them counts, and no other.
    pub fn terms(&self, user: &UserId) -> &Terms {
        let names = |users: &[UserPattern]| users.iter().any(|pattern| pattern.matches(user));
        let rule = self.rules.iter().find(|(users, _)| names(users));
        rule.map_or(&self.general, |(_, terms)| terms)
    }

    /// Decides whether a requester may do something.
    ///
    /// # Errors
    ///
    /// Says why not.
    pub fn check(
        &self,
        requester: &Requester,
        terms: &Terms,
        purpose: Purpose,
    ) -> Result<(), Denied> {
        let is_guest = self.trusts_is_guest && requester.is_guest();
        match purpose {
            Purpose::Read => Ok(()),
            Purpose::Ask | Purpose::Upload if is_guest => Err(Denied::Guest),
            Purpose::Upload if !terms.may_upload => Err(Denied::Upload),
            Purpose::Ask | Purpose::Upload => Ok(()),
        }
    }

    /// Decides whether files of a type are taken, by what the uploader says; nobody looks inside.
    ///
    /// # Errors
    ///
    /// [`Denied::Type`] if not.
    pub fn check_type(&self, content_type: &ContentType) -> Result<(), Denied> {
        if self.allowed_types.is_empty() && self.denied_types.is_empty() {
            return Ok(());
        }
        let essence = content_type.essence();
        let is_in = |types: &[TypePattern]| types.iter().any(|pattern| pattern.matches(&essence));
        let is_allowed = self.allowed_types.is_empty() || is_in(&self.allowed_types);
        if is_allowed && !is_in(&self.denied_types) { Ok(()) } else { Err(Denied::Type) }
    }
}

impl Terms {
    /// Returns these terms with what a rule says in their place.
    fn with(&self, rule: &RuleConfig, front: u64) -> Self {
        let RuleConfig {
            users: _,
            may_upload,
            max_size,
            quota_bytes,
            quota_files,
            max_pending,
            rate_limits,
        } = rule;
        let general = &self.allowance;
        let max_bytes = max_size.map_or(general.max_bytes, |size| size.as_u64());
        let quota = Quota {
            bytes: quota_bytes.map_or(general.quota.bytes, |bytes| bound(bytes.as_u64())),
            files: quota_files.map_or(general.quota.files, bound),
            info: general.quota.info.clone(),
        };
        Self {
            may_upload: *may_upload,
            is_rate_limited: *rate_limits,
            allowance: Allowance {
                max_bytes,
                quota,
                max_pending: max_pending.unwrap_or(general.max_pending),
            },
            announced_max_bytes: max_bytes.min(front),
        }
    }
}

/// In the configuration zero is no bound.
fn bound(number: u64) -> Option<u64> {
    (number > 0).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Policy {
        let config: Config = toml::from_str(text).unwrap();
        config.validate().unwrap();
        Policy::new(&config)
    }

    fn terms(policy: &Policy, name: &str) -> Terms {
        policy.terms(&format!("@{name}:example.org").parse().unwrap()).clone()
    }

    #[test]
    fn by_default_nobody_is_bound_but_by_size_and_rate() {
        let terms = terms(&policy(""), "alice");
        assert!(terms.may_upload && terms.is_rate_limited);
        assert_eq!(terms.allowance.quota, Quota::default());
        assert_eq!((terms.allowance.max_bytes, terms.announced_max_bytes), (50 << 20, 50 << 20));
    }

    /// CS-AS-04
    #[test]
    fn the_first_rule_that_names_a_user_counts_and_no_other() {
        let policy = policy(
            "[uploads]
             max_size = '10 B'
             quota_bytes = '100 B'
             quota_files = 5
             [[rules]]
             users = ['@bridge:example.org', '@bridge_*:example.org']
             rate_limits = false
             max_pending = 500
             quota_bytes = 0
             [[rules]]
             users = ['@b*:example.org']
             max_size = '20 B'
             quota_files = 0
             [[rules]]
             users = ['*']
             may_upload = false",
        );
        for name in ["bridge", "bridge_", "bridge_telegram_1"] {
            let terms = terms(&policy, name);
            assert!(terms.may_upload && !terms.is_rate_limited, "{name}");
            let Allowance { max_bytes, quota, max_pending } = terms.allowance;
            assert_eq!((max_bytes, max_pending), (10, 500));
            assert_eq!((quota.bytes, quota.files), (None, Some(5)));
        }
        let bob = terms(&policy, "bob");
        assert!(bob.may_upload && bob.is_rate_limited);
        assert_eq!((bob.allowance.max_bytes, bob.announced_max_bytes), (20, 20));
        assert_eq!((bob.allowance.quota.bytes, bob.allowance.quota.files), (Some(100), None));
        assert!(!terms(&policy, "alice").may_upload);
    }

    /// CS-GST-01, CS-GST-02, FLD-20
    #[test]
    fn guests_may_only_read_where_the_homeservers_word_on_them_is_trusted() {
        let user: UserId = "@1:example.org".parse().unwrap();
        let (guest, user) = (Requester::guest_for_test(user.clone()), Requester::for_test(user));
        let check = |text: &str, requester, purpose| {
            let policy = policy(text);
            policy.check(requester, &policy.general, purpose)
        };
        for purpose in [Purpose::Read, Purpose::Ask, Purpose::Upload] {
            assert_eq!(check("", &guest, purpose), Ok(()));
            let trusting = "auth.trust_is_guest = true";
            assert_eq!(check(trusting, &user, purpose), Ok(()));
            let expected = if purpose == Purpose::Read { Ok(()) } else { Err(Denied::Guest) };
            assert_eq!(check(trusting, &guest, purpose), expected);
        }
    }

    #[test]
    fn whoever_may_not_upload_may_still_read_and_ask() {
        let policy = policy("rules = [{ users = ['*'], may_upload = false }]");
        let user: UserId = "@alice:example.org".parse().unwrap();
        let terms = policy.terms(&user);
        let requester = Requester::for_test(user.clone());
        assert_eq!(policy.check(&requester, terms, Purpose::Read), Ok(()));
        assert_eq!(policy.check(&requester, terms, Purpose::Ask), Ok(()));
        assert_eq!(policy.check(&requester, terms, Purpose::Upload), Err(Denied::Upload));
    }

    /// CS-CFG-02, CS-CFG-03
    #[test]
    fn what_is_announced_is_the_smaller_of_the_users_limit_and_what_gets_through() {
        let policy = policy(
            "[uploads]
             max_size = '100 B'
             front_max_size = '50 B'
             [[rules]]
             users = ['@small:example.org']
             max_size = '10 B'
             [[rules]]
             users = ['@large:example.org']
             max_size = '1000 B'",
        );
        for (name, allowed, announced) in
            [("anybody", 100, 50), ("small", 10, 10), ("large", 1000, 50)]
        {
            let terms = terms(&policy, name);
            assert_eq!(terms.allowance.max_bytes, allowed, "{name}");
            assert_eq!(terms.announced_max_bytes, announced, "{name}");
        }
    }

    /// CS-UP-05, FLD-16
    #[test]
    fn types_are_compared_by_their_essence_and_denial_wins() {
        let is_taken = |text: &str, content_type: &str| {
            let content_type = ContentType::from_header(Some(content_type.as_bytes()));
            policy(text).check_type(&content_type).is_ok()
        };
        for (allow, deny, content_type, expected) in [
            ("[]", "[]", "anything/at-all", true),
            ("['image/*']", "[]", "image/png", true),
            ("['image/*']", "[]", "IMAGE/PNG; name=x", true),
            ("['image/*']", "[]", "text/plain", false),
            ("['image/*']", "[]", "not a type", false),
            ("['image/*']", "['image/svg+xml']", "image/png", true),
            ("['image/*']", "['image/svg+xml']", "image/SVG+xml ; charset=utf-8", false),
            ("['text/html']", "['TEXT/*']", "text/html", false),
            ("[]", "['text/html']", "text/html", false),
            ("[]", "['text/html']", "text/htmlx", true),
            ("[]", "['text/html']", "x/y; z=text/html", true),
            ("[]", "['application/octet-stream']", "not a type", false),
            ("[]", "['*/*']", "a/b", false),
        ] {
            let text = format!("[uploads]\nallow_types = {allow}\ndeny_types = {deny}");
            assert_eq!(is_taken(&text, content_type), expected, "{text} {content_type}");
        }
    }
}
