//! A real Synapse. The test command starts one for all tests and names it in the environment; a
//! test that is run by hand starts its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::{Authority, Client};

/// A Synapse to put Mediary in front of.
pub struct Synapse {
    /// Its URL.
    pub url: String,
    /// Its server name.
    pub server_name: String,
    /// The token of an application service that owns the users `@bridge_…`, if there is one.
    pub as_token: Option<String>,
    secret: String,
    _own: Option<Own>,
}

/// A user of a homeserver.
#[derive(Debug, Clone)]
pub struct User {
    /// Its full id.
    pub user_id: String,
    /// A token of a device of its own.
    pub access_token: String,
    /// The password.
    pub password: String,
}

/// A Synapse that this test has started, and its directory.
struct Own(Option<tempfile::TempDir>);

impl Own {
    fn stop(&self) {
        if let Some(directory) = &self.0 {
            let _ = script(&["stop", "--dir", &directory.path().to_string_lossy()]);
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Synapse {
    /// Returns the shared Synapse, or starts one for this test alone.
    pub fn get() -> Self {
        let variable = |name: &str| std::env::var(format!("MEDIARY_TEST_{name}")).ok();
        let [url, server_name, secret] =
            ["SYNAPSE_URL", "SYNAPSE_SERVER_NAME", "SYNAPSE_SECRET"].map(variable);
        match (url, server_name, secret) {
            (Some(url), Some(server_name), Some(secret)) => {
                let as_token = variable("AS_TOKEN");
                Self { url, server_name, as_token, secret, _own: None }
            }
            _ => Self::start(),
        }
    }

    /// Starts a Synapse for this test alone.
    pub fn start() -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary directory"), &[])
    }

    /// Starts a Synapse for this test alone that meets other servers: it is known by this name, which
    /// leads to a front of TLS, and believes this authority. Settings are written `key=JSON`.
    pub fn start_as(server_name: &str, authority: &Authority, settings: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("authority.pem");
        std::fs::write(&file, authority.pem()).expect("the certificate can be written");
        let file = file.to_string_lossy();
        let mut more = vec!["--server-name", server_name, "--federation-ca", &file];
        more.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        Self::start_in(directory, &more)
    }

    /// Starts it again, with one more line in its configuration, written `key=JSON`; it may come back
    /// at another address.
    ///
    /// # Panics
    ///
    /// Panics if it is not this test's own.
    pub fn restart_with(mut self, setting: &str) -> Self {
        let mut own = self._own.take().expect("a Synapse of this test's own");
        own.stop();
        let directory = own.0.take().expect("it is there until it is dropped");
        Self::start_in(directory, &["--set", setting])
    }

    fn start_in(directory: tempfile::TempDir, more: &[&str]) -> Self {
        let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
        let (dir, appservice) = (path(""), path("appservice.yaml"));
        let start = ["start", "--dir", &dir, "--appservice", &appservice];
        let guests = ["--set", "allow_guest_access=true"];
        let started = script(&[&start[..], &guests, more].concat());
        let text = |key: &str| started[key].as_str().expect("a text").to_owned();
        Self {
            url: text("url"),
            server_name: text("server_name"),
            as_token: Some(text("as_token")),
            secret: text("registration_shared_secret"),
            _own: Some(Own(Some(directory))),
        }
    }

    /// Ends it, and waits until it is gone.
    ///
    /// # Panics
    ///
    /// Panics if it is not this test's own.
    pub fn stop(&self) {
        self._own.as_ref().expect("a Synapse of this test's own").stop();
    }

    /// Returns the line that holds its signing key, if this test has started it.
    pub fn signing_key(&self) -> Option<String> {
        std::fs::read_to_string(self.signing_key_file()?).ok()
    }

    /// Returns the file that holds its signing keys, if this test has started it.
    pub fn signing_key_file(&self) -> Option<PathBuf> {
        Some(self._own.as_ref()?.0.as_ref()?.path().join("signing.key"))
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.url.trim_start_matches("http://").parse().expect("an address")
    }

    /// Returns a client that talks to Synapse itself.
    pub fn client(&self) -> Client {
        Client::new(self.address())
    }

    /// Returns a client that talks to Synapse itself with a user's token.
    pub fn client_of(&self, user: &User) -> Client {
        self.client().with_token(&user.access_token)
    }

    /// Makes a new user, whose name nobody else has.
    pub fn user(&self) -> User {
        self.account(&[])
    }

    /// Makes a new server administrator.
    pub fn admin(&self) -> User {
        self.account(&["--admin"])
    }

    fn account(&self, flags: &[&str]) -> User {
        let name = unique_name();
        let mut arguments = vec!["user", "--url", &self.url, "--secret", &self.secret];
        arguments.extend_from_slice(&["--name", &name]);
        arguments.extend_from_slice(flags);
        let made = script(&arguments);
        let text = |key: &str| made[key].as_str().expect("a text").to_owned();
        User {
            user_id: text("user_id"),
            access_token: text("access_token"),
            password: text("password"),
        }
    }

    /// Logs a user in once more and returns the new device's token.
    pub fn log_in(&self, user: &User) -> User {
        let body = json!({
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": user.user_id},
            "password": user.password,
        });
        let answer = self.client().request(
            "POST",
            "/_matrix/client/v3/login",
            &[],
            body.to_string().as_bytes(),
        );
        assert_eq!(answer.status, 200, "{answer:?}");
        let access_token = answer.json()["access_token"].as_str().expect("a token").to_owned();
        User { access_token, ..user.clone() }
    }
}

/// Makes a name that no other test has, of this run or another.
pub fn unique_name() -> String {
    static RUN: OnceLock<String> = OnceLock::new();
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let run = RUN.get_or_init(|| {
        let bytes: [u8; 8] = ring::rand::generate(&ring::rand::SystemRandom::new())
            .expect("random numbers")
            .expose();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    });
    format!("user-{run}-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

fn script(arguments: &[&str]) -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/synapse.py");
    let output = Command::new("python3").arg(path).args(arguments).output().expect("python3 runs");
    assert!(
        output.status.success(),
        "tests/synapse.py {} failed; run tests/setup.sh first.\n{}",
        arguments[0],
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}
