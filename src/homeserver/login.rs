//! The icons of identity providers, which the homeserver's login flows name (CS-FRZ-04, FLD-23).

use std::collections::HashSet;

use http::StatusCode;
use serde::Deserialize;

use super::answer::parse;
use super::{Homeserver, HomeserverError, unexpected};
use crate::types::Mxc;

/// How many icons are taken at most; a login page with more than these is none.
const MAX_ICONS: usize = 100;

#[derive(Deserialize)]
struct Flows {
    #[serde(default)]
    flows: Vec<Flow>,
}

/// A way to log in. What is not of the expected kind names no icon, and spoils none of the others.
#[derive(Deserialize)]
struct Flow {
    #[serde(default)]
    icon: serde_json::Value,
    #[serde(default)]
    identity_providers: serde_json::Value,
}

impl Homeserver {
    /// Asks for the icons of all identity providers (`GET /_matrix/client/v3/login`). Bears no token.
    ///
    /// # Errors
    ///
    /// [`HomeserverError`] if there is no usable answer.
    pub async fn login_icons(&self) -> Result<HashSet<Mxc>, HomeserverError> {
        const TARGET: &str = "/_matrix/client/v3/login";
        let response = self.small(TARGET, &[]).await?;
        if response.status != StatusCode::OK {
            return Err(unexpected(response.status, TARGET));
        }
        Ok(icons(&parse(&response.body)?))
    }
}

/// Returns the `mxc://` URIs among the icons.
fn icons(login: &Flows) -> HashSet<Mxc> {
    let of_providers = |flow: &Flow| {
        let providers = flow.identity_providers.as_array().map(Vec::as_slice).unwrap_or_default();
        providers.iter().map(|provider| provider["icon"].clone()).collect::<Vec<_>>()
    };
    login
        .flows
        .iter()
        .flat_map(|flow| [of_providers(flow), vec![flow.icon.clone()]].concat())
        .filter_map(|icon| icon.as_str()?.parse().ok())
        .take(MAX_ICONS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn icons_in(text: &str) -> Vec<String> {
        let mut icons: Vec<_> =
            icons(&parse(text.as_bytes()).unwrap()).iter().map(ToString::to_string).collect();
        icons.sort();
        icons
    }

    /// CS-FRZ-04, FLD-23
    #[test]
    fn icons_are_found_in_every_flow() {
        let found = icons_in(
            r#"{"flows": [
                {"type": "m.login.sso", "identity_providers": [
                    {"id": "a", "name": "A", "icon": "mxc://example.org/a"},
                    {"id": "b", "name": "B"},
                    {"id": "c", "name": "C", "icon": "mxc://example.org:8448/c"}]},
                {"type": "m.login.cas", "icon": "mxc://example.org/cas"},
                {"type": "m.login.password"}]}"#,
        );
        assert_eq!(
            found,
            ["mxc://example.org/a", "mxc://example.org/cas", "mxc://example.org:8448/c"]
        );
    }

    /// CS-FRZ-04
    #[test]
    fn what_is_no_icon_spoils_none_of_the_others() {
        let found = icons_in(
            r#"{"flows": [
                {"identity_providers": "none"}, {"icon": 7},
                {"identity_providers": [
                    7, "x", {"icon": null}, {"icon": "https://example.org/a.png"},
                    {"icon": "mxc://example.org/../x"}, {"icon": "mxc://example.org/good"}]}],
                "more": []}"#,
        );
        assert_eq!(found, ["mxc://example.org/good"]);
        assert!(icons_in("{}").is_empty());
    }

    /// CS-FRZ-04
    #[test]
    fn icons_are_bounded() {
        let providers: Vec<_> =
            (0..1_000).map(|n| format!(r#"{{"icon": "mxc://example.org/{n}"}}"#)).collect();
        let text = format!(r#"{{"flows": [{{"identity_providers": [{}]}}]}}"#, providers.join(","));
        assert_eq!(icons_in(&text).len(), MAX_ICONS);
    }
}
