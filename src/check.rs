//! `mediary check`: reads the configuration, asks the homeserver, and says in plain words what was
//! found, what is missing and how to get it. It changes nothing.

mod federation;
mod thumbnails;

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use http::StatusCode;

use crate::config::{Config, LegacyMode, ListenAddress};
use crate::federation::SigningKey;
use crate::homeserver::{Caller, Homeserver, HomeserverError, Sender};
use crate::server;
use crate::types::{AccessToken, ServerName};

/// The signing key, if one is configured, or why it cannot be used.
type Key = anyhow::Result<Option<Arc<SigningKey>>>;

/// How a finding is shown and whether it fails the check.
enum Finding {
    Good(String),
    /// Works, but somebody should look.
    Doubtful(String),
    /// Has to be mended first.
    Bad(String),
}

/// Runs all checks and prints a line for each finding. Returns whether Mediary can run.
pub fn run(config: &Config, output: &mut dyn Write) -> bool {
    let mut findings = settings(config);
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => findings.extend(runtime.block_on(others(config))),
        Err(error) => findings.push(Finding::Bad(format!("no runtime can be started: {error}"))),
    }
    findings.push(storage(&config.storage.path));
    let listeners = config.server.listen.iter().chain(config.server.admin_listen.address());
    findings.extend(listeners.map(listener));
    findings.extend(modes(config));
    findings.extend(thumbnails::worker(&config.thumbnails));
    findings.extend(thumbnails::programs(&config.thumbnails));

    let is_good = !findings.iter().any(|finding| matches!(finding, Finding::Bad(_)));
    for finding in &findings {
        let (mark, text) = match finding {
            Finding::Good(text) => ("ok  ", text),
            Finding::Doubtful(text) => ("look", text),
            Finding::Bad(text) => ("FAIL", text),
        };
        // Nobody may be reading any more; the exit code still tells.
        let _ = writeln!(output, "{mark}  {text}");
    }
    let verdict = if is_good { "Mediary can run." } else { "Mediary cannot run like this." };
    let _ = writeln!(output, "\n{verdict}");
    is_good
}

fn settings(config: &Config) -> Vec<Finding> {
    match config.validate() {
        Ok(warnings) => {
            let mut findings = vec![Finding::Good("the configuration is valid".to_owned())];
            findings.extend(warnings.iter().map(|w| Finding::Doubtful(w.to_string())));
            findings
        }
        Err(error) => vec![Finding::Bad(error.to_string())],
    }
}

/// Asks those that Mediary needs.
async fn others(config: &Config) -> Vec<Finding> {
    let homeserver = server::homeserver(config);
    let key = server::signing_key(config);
    let mut own_name = config.homeserver.server_name.clone();
    let mut findings = ask_homeserver(config, &homeserver, &key, &mut own_name).await;
    findings.extend(federation::settings(config, &key, own_name.as_ref()).await);
    findings
}

/// Asks the homeserver. What it is called is noted in `own_name` where that is not known.
async fn ask_homeserver(
    config: &Config,
    homeserver: &Homeserver,
    key: &Key,
    own_name: &mut Option<ServerName>,
) -> Vec<Finding> {
    let url = &config.homeserver.url;
    if let Err(error) = homeserver.upstream().resolve().await {
        return vec![Finding::Bad(format!("the name in {url} does not resolve: {error}"))];
    }
    let versions = match homeserver.versions().await {
        Ok(versions) => versions.versions,
        Err(error) => {
            return vec![Finding::Bad(format!(
                "the homeserver at {url} does not answer /_matrix/client/versions: {error}; is it \
                 running, and is homeserver.url its client listener?"
            ))];
        }
    };
    let newest = versions.last().map_or("none", String::as_str);
    let mut findings = vec![Finding::Good(format!(
        "the homeserver at {url} serves {} releases of the specification, the newest {newest}",
        versions.len()
    ))];
    findings.push(if versions.iter().any(|version| version == "v1.11") {
        Finding::Good("it has authenticated media, so older media can be read through".to_owned())
    } else {
        Finding::Doubtful(
            "it has no authenticated media (v1.11); older media is read by the legacy routes"
                .to_owned(),
        )
    });
    let said_name = homeserver.ask_name().await;
    findings.push(name(config, &said_name));
    *own_name = own_name.take().or(said_name.ok());
    findings.push(whoami(homeserver).await);
    findings.extend(federation::with_homeserver(key, homeserver).await);
    match config.auth.read_admin_token() {
        Ok(Some(token)) => findings.push(administrator(homeserver, &token).await),
        Ok(None) => {}
        Err(error) => findings.push(Finding::Bad(error.to_string())),
    }
    findings
}

fn name(config: &Config, said: &Result<ServerName, HomeserverError>) -> Finding {
    match (said, &config.homeserver.server_name) {
        (Ok(name), None) => Finding::Good(format!("its server name is {name}")),
        (Ok(name), Some(configured)) if name == configured => {
            Finding::Good(format!("its server name is {name}, as configured"))
        }
        (Ok(name), Some(configured)) => Finding::Bad(format!(
            "its server name is {name}, but homeserver.server_name is {configured}"
        )),
        (Err(error), Some(configured)) => Finding::Doubtful(format!(
            "it does not say its server name ({error}); {configured} is taken from the configuration"
        )),
        (Err(error), None) => Finding::Bad(format!(
            "it does not say its server name ({error}); set homeserver.server_name, or let its \
             listener serve /_matrix/key"
        )),
    }
}

/// Shows the homeserver a token that cannot exist: it has to refuse it.
async fn whoami(homeserver: &Homeserver) -> Finding {
    let token = AccessToken::new("mediary-check-no-such-token");
    let sender = Sender::default();
    let nobody = Caller::of_token(&token, &sender);
    match homeserver.whoami(nobody).await {
        Ok(Err(refusal)) if refusal.status == StatusCode::UNAUTHORIZED => {
            Finding::Good("it checks access tokens (whoami)".to_owned())
        }
        Ok(Err(refusal)) => Finding::Doubtful(format!(
            "whoami answered an unknown token with {}; 401 was expected",
            refusal.status
        )),
        Ok(Ok(who)) => Finding::Bad(format!(
            "whoami took a token that cannot exist for one of {}; nobody could be told apart",
            who.user_id
        )),
        Err(error) => Finding::Bad(format!("whoami does not work: {error}")),
    }
}

/// Asks with the administrator's token about the administrator.
async fn administrator(homeserver: &Homeserver, token: &AccessToken) -> Finding {
    let sender = Sender::default();
    let admin = Caller::of_token(token, &sender);
    let outcome = match homeserver.whoami(admin).await {
        Ok(Ok(who)) => homeserver.is_suspended(&who.user_id, token).await,
        Ok(Err(refusal)) => {
            let status = refusal.status;
            return Finding::Bad(format!(
                "the homeserver refuses the token in auth.admin_token_file with {status}; put a \
                 valid one there"
            ));
        }
        Err(error) => Err(error),
    };
    match outcome {
        Ok(_) => Finding::Good("it says who is suspended, so they cannot upload".to_owned()),
        Err(error) => Finding::Bad(format!(
            "it does not say who is suspended ({error}), so nobody could upload; see \
             auth.admin_token_file"
        )),
    }
}

/// Looks without touching: opening the store would make or migrate it.
fn storage(path: &Path) -> Finding {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => {
            Finding::Bad(format!("storage.path {shown} is not a directory"))
        }
        Ok(metadata) if metadata.mode() & 0o002 != 0 => Finding::Bad(format!(
            "storage.path {shown} can be written by everybody; take that away with `chmod o-w` and \
             look what is in it"
        )),
        Ok(_) if rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_err() => {
            Finding::Bad(format!(
                "storage.path {shown} cannot be written by this user; chown it, or run the \
                     check as the user that Mediary runs as"
            ))
        }
        Ok(_) if path.join("mediary.db").exists() => {
            Finding::Good(format!("media is kept in {shown}, where a store is already"))
        }
        Ok(_) => Finding::Good(format!("media will be kept in {shown}, which is a new store")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            match rustix::fs::access(parent, rustix::fs::Access::WRITE_OK) {
                Ok(()) => {
                    Finding::Good(format!("media will be kept in {shown}, which will be made"))
                }
                Err(_) => Finding::Bad(format!(
                    "storage.path {shown} does not exist and cannot be made by this user; make it, \
                     or name another with --data-dir"
                )),
            }
        }
        Err(error) => Finding::Bad(format!("storage.path {shown} cannot be looked at: {error}")),
    }
}

fn listener(address: &ListenAddress) -> Finding {
    match address {
        ListenAddress::Tcp(socket) => match TcpListener::bind(socket) {
            Ok(_) => Finding::Good(format!("{address} is free to listen on")),
            Err(error) => Finding::Doubtful(format!(
                "{address} cannot be bound now ({error}); that is right if Mediary is running there"
            )),
        },
        ListenAddress::Unix(_) => Finding::Good(format!("clients will connect at {address}")),
    }
}

fn modes(config: &Config) -> Vec<Finding> {
    let legacy = match (config.legacy.mode, config.legacy.frozen_since) {
        (LegacyMode::Frozen, None) => {
            "the legacy download routes serve only media from before the first start".to_owned()
        }
        (LegacyMode::Frozen, Some(_)) => {
            "the legacy download routes serve only media from before legacy.frozen_since".to_owned()
        }
        (LegacyMode::Open, _) => "the legacy download routes serve all media to anybody".to_owned(),
        (LegacyMode::Off, _) => "the legacy download routes are off".to_owned(),
    };
    let legacy = match config.legacy.mode {
        LegacyMode::Open => Finding::Doubtful(legacy),
        LegacyMode::Frozen | LegacyMode::Off => Finding::Good(legacy),
    };
    let uploads = format!("uploads of up to {} are taken", config.uploads.max_size);
    vec![Finding::Good(uploads), legacy]
}
