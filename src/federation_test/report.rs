//! What is printed: a line for each step with how long it took, and what to do where one fails.

use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;

use crate::egress::{EgressError, Endpoint, Host, SrvTarget};
use crate::federation::{Event, Observer, ServerError, WellKnownError};
use crate::types::ServerName;

/// The most that is shown of a text that another server chose.
const MAX_SHOWN: usize = 100;

/// Writes the lines and remembers whether a step failed.
pub(super) struct Report<'a> {
    state: Mutex<State<'a>>,
}

struct State<'a> {
    output: &'a mut (dyn Write + Send),
    last: Instant,
    is_good: bool,
    has_doubts: bool,
    has_choice: bool,
}

impl<'a> Report<'a> {
    pub(super) fn new(output: &'a mut (dyn Write + Send)) -> Self {
        let state = State {
            output,
            last: Instant::now(),
            is_good: true,
            has_doubts: false,
            has_choice: false,
        };
        Self { state: Mutex::new(state) }
    }

    /// Learns at how many places the server may be.
    pub(super) fn expect_places(&self, count: usize) {
        self.state().has_choice = count > 1;
    }

    /// Something works.
    pub(super) fn good(&self, text: &str) {
        self.line("ok  ", text);
    }

    /// Something is not there, and need not be.
    pub(super) fn none(&self, text: &str) {
        self.line("-   ", text);
    }

    /// Works, but somebody should look.
    pub(super) fn doubtful(&self, text: &str) {
        self.line("look", text);
        self.state().has_doubts = true;
    }

    /// Something has to be mended.
    pub(super) fn bad(&self, text: &str) {
        self.line("FAIL", text);
        self.state().is_good = false;
    }

    /// Another server was not reached; says what helps.
    pub(super) fn unreachable(&self, error: &ServerError) {
        let (ServerError::Discovery { error: inner, .. }
        | ServerError::Exchange { error: inner, .. }) = error;
        self.bad(&format!("{error}{}", advice(inner)));
    }

    /// Says how it ended, and returns whether nothing failed.
    pub(super) fn end(&self) -> bool {
        let mut state = self.state();
        let verdict = match (state.is_good, state.has_doubts) {
            (true, false) => "Everything works.",
            (true, true) => "It works; look at what is marked.",
            (false, _) => "Something does not work; see above.",
        };
        // Nobody may be reading any more; the exit code still tells.
        let _ = writeln!(state.output, "\n{verdict}");
        state.is_good
    }

    fn line(&self, mark: &str, text: &str) {
        let mut state = self.state();
        let took = state.last.elapsed();
        state.last = Instant::now();
        let _ = writeln!(state.output, "{mark}  {:>6.2} s  {text}", took.as_secs_f64());
    }

    fn state(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Report<'_> {
    fn notice(&self, event: Event<'_>) {
        match event {
            Event::WellKnown { host, outcome } => self.well_known(host, outcome),
            Event::Srv { service, outcome } => self.srv(service, outcome),
            Event::Tried { endpoint, outcome } => self.tried(endpoint, outcome),
        }
    }
}

impl Report<'_> {
    fn well_known(&self, host: &str, outcome: Result<(&ServerName, Duration), &WellKnownError>) {
        match outcome {
            Ok((server, lifetime)) => self.good(&format!(
                "https://{host}/.well-known/matrix/server names {server}; that is remembered for {}",
                humantime::format_duration(Duration::from_secs(lifetime.as_secs()))
            )),
            Err(WellKnownError::Status(StatusCode::NOT_FOUND)) => {
                self.none(&format!("https://{host}/.well-known/matrix/server: there is none (404)"));
            }
            // Whoever serves 8448 or has SRV records needs no web server.
            Err(WellKnownError::Egress(
                error @ (EgressError::Connect { .. } | EgressError::Resolution { .. }),
            )) => self.none(&format!("no well-known file: {error}")),
            Err(error) => self.doubtful(&format!(
                "https://{host}/.well-known/matrix/server is not valid: {error}; it is taken for \
                 none"
            )),
        }
    }

    fn srv(&self, service: &str, outcome: Result<&[SrvTarget], &EgressError>) {
        match outcome {
            Ok([]) => self.none(&format!("no SRV record {service}")),
            Ok(targets) => {
                let targets: Vec<_> =
                    targets.iter().map(|target| format!("{}:{}", target.host, target.port)).collect();
                self.good(&format!("the SRV record {service} leads to {}", targets.join(", ")));
            }
            Err(error) => self.doubtful(&format!(
                "the name servers do not say whether there is an SRV record {service} ({error}); the \
                 next step is taken"
            )),
        }
    }

    fn tried(&self, endpoint: &Endpoint, outcome: Result<StatusCode, &EgressError>) {
        let place = place(endpoint);
        match outcome {
            Ok(status) => self.good(&format!(
                "{place} shows a valid certificate for {} and answers {status}",
                endpoint.certificate_for
            )),
            // If it is the only one, that is how it ends.
            Err(error) if self.state().has_choice => self.doubtful(&format!("{place}: {error}")),
            Err(_) => {}
        }
    }
}

/// Writes where a connection goes.
fn place(endpoint: &Endpoint) -> String {
    match &endpoint.connect_to {
        Host::Address(address) => std::net::SocketAddr::new(*address, endpoint.port).to_string(),
        Host::Name(name) => format!("{name}:{}", endpoint.port),
    }
}

/// Makes a text that another server chose fit for a terminal.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect()
}

/// Says what helps against a failure, as far as anything does from here.
fn advice(error: &EgressError) -> &'static str {
    match error {
        EgressError::Resolution { .. } => {
            "; is the name spelled right, and do this machine's name servers know it \
             (federation.dns_servers)?"
        }
        // It says itself what helps.
        EgressError::Forbidden { .. } | EgressError::Unsendable(_) => "",
        EgressError::Connect { .. } | EgressError::Unreached(_) | EgressError::TimedOut(_) => {
            "; is the server up, and may this machine make connections to that port?"
        }
        EgressError::Tls { .. } => {
            "; its administrator has to mend the certificate; if it is from an authority of your \
             own, name that in federation.ca_file"
        }
        EgressError::Misbehaved(_)
        | EgressError::TooLarge { .. }
        | EgressError::Url(..)
        | EgressError::TooManyRedirects => "; the other server has to be mended",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_chose_cannot_write_to_the_terminal() {
        assert_eq!(shown("Synapse 1.140"), "Synapse 1.140");
        assert_eq!(shown("\u{1b}[2J\n\u{202e}x"), "\\u{1b}[2J\\n\\u{202e}x");
        assert_eq!(shown(&"x".repeat(10_000)).len(), MAX_SHOWN);
    }
}
