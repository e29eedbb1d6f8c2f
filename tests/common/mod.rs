//! What the tests of the whole binary share: Mediary as a process, a real Synapse, a homeserver that
//! fails on demand, and a small HTTP client that can also misbehave.
#![allow(dead_code, unused_imports, reason = "each test binary uses its own part")]

pub mod dns;
pub mod fake;
pub mod federation;
pub mod http;
pub mod origin;
pub mod record;
pub mod samples;
pub mod ssim;
pub mod synapse;
pub mod tls;
pub mod workers;
pub mod world;

use std::fs::Permissions;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use mediary::egress::{Egress, EgressSettings};
use tempfile::TempDir;

pub use dns::DnsServer;
pub use fake::FakeHomeserver;
pub use http::Client;
pub use origin::{Origin, ServerKey};
pub use synapse::{Synapse, User};
pub use tls::{Authority, TlsFront};

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running Mediary; killed when it is dropped.
pub struct Mediary {
    child: Child,
    log: Arc<Log>,
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where metrics and health are.
    pub admin: SocketAddr,
    settings: Settings,
}

/// How a [`Mediary`] is started; kept so that it can be started again on the same store.
#[derive(Clone)]
pub struct Settings {
    upstream: String,
    extra: String,
    environment: Vec<(String, String)>,
    wrapper: Vec<String>,
    directory: Arc<TempDir>,
    wait_until_ready: bool,
}

impl Settings {
    /// Takes the homeserver's URL; the store is a new directory.
    pub fn new(upstream: &str) -> Self {
        Self {
            upstream: upstream.to_owned(),
            extra: String::new(),
            environment: Vec::new(),
            wrapper: Vec::new(),
            directory: Arc::new(tempfile::tempdir().expect("a temporary directory")),
            wait_until_ready: true,
        }
    }

    /// Adds TOML to the configuration file, such as `[uploads]\nmax_size = "1 KiB"`. Without a section
    /// `[limits]`, users may ask as often as they like: whoever waits for something does.
    pub fn with(mut self, toml: &str) -> Self {
        self.extra.push_str(toml);
        self.extra.push('\n');
        self
    }

    /// Gives it an administrator's token, in a file that nobody else can read.
    pub fn with_admin_token(self, token: &str) -> Self {
        let file = self.admin_token_file();
        std::fs::write(&file, format!("{token}\n")).expect("the token can be written");
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("our own file");
        self.with(&format!("[auth]\nadmin_token_file = \"{}\"", file.display()))
    }

    /// Returns where [`with_admin_token`](Self::with_admin_token) keeps the token.
    pub fn admin_token_file(&self) -> PathBuf {
        self.directory.path().join("admin_token")
    }

    /// Lets it meet other servers of this machine: adds a section `[federation]` that believes an
    /// authority and allows loopback, with more lines such as those of
    /// [`signing_key`](Self::signing_key) and [`DnsServer::setting`]. Without the latter it knows no
    /// names but those of the machine's own file: name servers outside may take long to say so.
    pub fn with_federation(self, authority: &Authority, more: &[&str]) -> Self {
        let file = self.directory.path().join("authority.pem");
        std::fs::write(&file, authority.pem()).expect("the certificate can be written");
        let mut more = more.join("\n");
        if !more.contains("dns_servers") {
            more = format!("{}\n{more}", DnsServer::start().setting());
        }
        self.with(&format!(
            "[federation]\nca_file = \"{}\"\nallow_networks = [\"127.0.0.0/8\", \"::1\"]\n{more}",
            file.display()
        ))
    }

    /// Lets it meet other servers as [`with_federation`](Self::with_federation) does, with a signing key
    /// that nobody else has.
    pub fn with_signing_key(self, authority: &Authority, more: &[&str]) -> Self {
        let key = self.signing_key(&ServerKey::new("ours").line());
        self.with_federation(authority, &[&[key.as_str()], more].concat())
    }

    /// Keeps a signing key, as it stands in a homeserver's file, where nobody else can read it; returns
    /// the line for the section `[federation]`.
    pub fn signing_key(&self, key: &str) -> String {
        let file = self.directory.path().join("signing.key");
        std::fs::write(&file, key).expect("the key can be written");
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("our own file");
        format!("signing_key = \"{}\"", file.display())
    }

    /// Puts it in front of another homeserver, or of the same one at another address.
    pub fn in_front_of(mut self, upstream: &str) -> Self {
        self.upstream = upstream.to_owned();
        self
    }

    /// Sets an environment variable of the process.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the binary through another program, which is to end in `exec "$@"`.
    pub fn through(mut self, program: &[&str]) -> Self {
        self.wrapper = program.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Starts the binary in a mount namespace of its own, in which a script has prepared the store
    /// (`$0`). It needs no rights where the system lets users make namespaces.
    pub fn in_namespace(self, script: &str) -> Self {
        let store = self.store();
        // It may be there already.
        let _ = std::fs::create_dir(&store);
        let script = format!("set -e; {script}; exec \"$@\"");
        let store = store.to_str().expect("a path in UTF-8");
        let unshare = ["/usr/bin/unshare", "--map-root-user", "--mount", "sh", "-c"];
        self.environment("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .through(&[&unshare[..], &[&script, store]].concat())
    }

    /// Puts the store on a file system of its own, of so many MiB, which is empty at every start.
    pub fn on_disk(self, mib: usize) -> Self {
        self.in_namespace(&format!("mount -t tmpfs -o size={mib}m,mode=700 mediary \"$0\""))
    }

    /// Returns from [`start`](Self::start) as soon as the sockets listen, even if the homeserver
    /// does not answer.
    pub fn without_waiting(mut self) -> Self {
        self.wait_until_ready = false;
        self
    }

    /// Returns the directory of the store.
    pub fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    /// Starts Mediary on free ports.
    pub fn start(self) -> Mediary {
        let mut child = self
            .command()
            .args(["--log-level", "trace"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary can be started");
        let log = Log::of(&mut child);
        let address = log.wait_for("mediary::server: listening address=");
        let admin = log.wait_for("listening for metrics and health address=");
        let mediary = Mediary { child, log, address, admin, settings: self };
        if mediary.settings.wait_until_ready {
            wait_until("Mediary is ready", || mediary.admin_client().get("/ready").status == 200);
        }
        mediary
    }

    /// Runs Mediary with settings that it is to refuse; returns its exit status and what it said.
    pub fn refusal(self) -> (ExitStatus, String) {
        let output = self.command().output().expect("the binary can be started");
        (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Writes the configuration file and returns the command that runs Mediary on free ports.
    fn command(&self) -> Command {
        let config = self.directory.path().join("mediary.toml");
        let mut extra = self.extra.clone();
        if !extra.contains("[limits]") {
            extra.push_str("[limits]\nuser_requests_per_second = 0\n");
        }
        std::fs::write(&config, extra).expect("the configuration can be written");
        let wrapper = self.wrapper.iter().map(String::as_str);
        let words: Vec<_> = wrapper.chain([env!("CARGO_BIN_EXE_mediary")]).collect();
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .args(["run", "--upstream", &self.upstream, "--listen", "127.0.0.1:0"])
            .args(["--admin-listen", "127.0.0.1:0", "--data-dir"])
            .arg(self.store())
            .args(["--config".as_ref(), config.as_os_str()])
            .env_clear()
            .envs(self.environment.iter().cloned());
        command
    }
}

impl Mediary {
    /// Starts Mediary in front of a homeserver with all settings at their defaults.
    pub fn in_front_of(upstream: &str) -> Self {
        Settings::new(upstream).start()
    }

    /// Returns a client of the public listener, without a token.
    pub fn client(&self) -> Client {
        Client::new(self.address).recorded_as("mediary")
    }

    /// Returns a client that bears a user's token.
    pub fn client_of(&self, user: &User) -> Client {
        self.client().with_token(&user.access_token)
    }

    /// Returns a client with the token of the fake homeserver's Alice.
    pub fn alice(&self) -> Client {
        self.client().with_token(fake::TOKEN)
    }

    /// Returns a client with the token of the fake homeserver's Bob.
    pub fn bob(&self) -> Client {
        self.client().with_token(fake::OTHER_TOKEN)
    }

    /// Returns a client of the admin listener.
    pub fn admin_client(&self) -> Client {
        Client::new(self.admin)
    }

    /// Returns the value of a metric's series, written as in the text format.
    pub fn metric(&self, series: &str) -> f64 {
        let text = self.admin_client().get("/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no series {series} in\n{text}")).parse().expect("a number")
    }

    /// Returns the directory of the store.
    pub fn store(&self) -> PathBuf {
        self.settings.store()
    }

    /// Returns the directory of the store as the process sees it, whose namespace may have another
    /// file system there.
    pub fn mounted_store(&self) -> PathBuf {
        let root = Path::new("/proc").join(self.pid().to_string()).join("root");
        root.join(self.store().strip_prefix("/").expect("an absolute path"))
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the most memory that the process ever had, in KiB.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("Linux shows how much memory a process had");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        peak.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Returns how many files and sockets the process has open.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("Linux shows them").count()
    }

    /// Returns everything that was logged so far.
    pub fn log(&self) -> String {
        self.log.lines.lock().expect("the log").join("\n")
    }

    /// Waits until a line of the log holds this text.
    pub fn wait_for_log(&self, text: &str) {
        self.log.wait_for_line(text);
    }

    /// Returns how it was started.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the files of stored bodies.
    pub fn blobs(&self) -> Vec<PathBuf> {
        files_below(&self.store().join("blobs"))
    }

    /// Returns the files of bodies that are still arriving.
    pub fn unfinished(&self) -> Vec<PathBuf> {
        files_below(&self.store().join("tmp"))
    }

    /// Returns in how many files this body is kept.
    pub fn copies_of(&self, body: &[u8]) -> usize {
        // A file may go between being listed and being read.
        let is_body = |path: &PathBuf| std::fs::read(path).is_ok_and(|kept| kept == body);
        self.blobs().iter().filter(|path| is_body(path)).count()
    }

    /// Asserts that nothing is kept; what is unfinished is removed by a thread of its own.
    #[track_caller]
    pub fn assert_nothing_kept(&self) {
        wait_until("no temporary file is left", || self.unfinished().is_empty());
        assert_eq!(self.blobs().len(), 0);
    }

    /// Kills the process without warning; what is returned starts it again on the same store.
    pub fn kill(mut self) -> Settings {
        self.child.kill().expect("the process can be killed");
        self.child.wait().expect("the process ends");
        self.settings.clone()
    }

    /// Kills the process without warning and starts it again on the same store.
    pub fn kill_and_restart(self) -> Self {
        self.kill().start()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let status = Command::new("kill").arg(self.pid().to_string()).status();
        assert!(status.expect("kill runs").success());
    }

    /// Ends the process in good order and returns all that it has logged.
    pub fn whole_log(mut self) -> String {
        self.terminate();
        assert_eq!(self.wait().code(), Some(0));
        self.wait_for_log("(end of the log)");
        self.log()
    }

    /// Waits for the process to end.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the process can be waited for") {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the process does not end; its log:\n{}",
                self.log()
            );
            std::thread::yield_now();
        }
    }
}

impl Drop for Mediary {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- Mediary's log\n{}", self.log());
        }
    }
}

/// Returns a way out that may contact this machine, believes an authority and asks a name server.
pub fn egress(authority: &Authority, dns: &DnsServer) -> Egress {
    egress_with(authority, dns, |_| ())
}

/// Returns one with settings of the test's own.
pub fn egress_with(
    authority: &Authority,
    dns: &DnsServer,
    adjust: impl FnOnce(&mut EgressSettings),
) -> Egress {
    let ca_file = authority.file();
    let mut settings = EgressSettings {
        allow_networks: vec!["127.0.0.0/8".parse().expect("a network")],
        ca_file: Some(ca_file.path().to_owned()),
        dns_servers: vec![dns.address],
        ..EgressSettings::default()
    };
    adjust(&mut settings);
    Egress::new(settings).expect("a way out")
}

/// Returns a port of 127.0.0.1 at which nobody listens.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// Asks again and again until a condition holds.
///
/// # Panics
///
/// Panics if it does not within [`PATIENCE`].
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::yield_now();
    }
}

/// Returns every file below a directory.
pub fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries {
            let path = entry.expect("a directory entry").path();
            if path.is_dir() { directories.push(path) } else { files.push(path) }
        }
    }
    files
}

/// Makes bytes without a pattern, the same ones for the same seed.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// The lines that a process has written to its standard error.
struct Log {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
}

impl Log {
    fn of(child: &mut Child) -> Arc<Self> {
        let log = Arc::new(Self { lines: Mutex::default(), grown: Condvar::new() });
        let stderr = child.stderr.take().expect("standard error is a pipe");
        let writer = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                let Ok(line) = line else { break };
                writer.lines.lock().expect("the log").push(line);
                writer.grown.notify_all();
            }
            writer.lines.lock().expect("the log").push("(end of the log)".to_owned());
            writer.grown.notify_all();
        });
        log
    }

    fn wait_for_line(&self, text: &str) -> String {
        let lines = self.lines.lock().expect("the log");
        let find = |lines: &[String]| lines.iter().find(|line| line.contains(text)).cloned();
        let ended = |lines: &[String]| lines.last().is_some_and(|line| line == "(end of the log)");
        let (lines, _) = self
            .grown
            .wait_timeout_while(lines, PATIENCE, |lines| find(lines).is_none() && !ended(lines))
            .expect("the log");
        find(&lines).unwrap_or_else(|| panic!("no line with {text:?} in\n{}", lines.join("\n")))
    }

    fn wait_for(&self, prefix: &str) -> SocketAddr {
        let line = self.wait_for_line(prefix);
        let address = line.split(prefix).nth(1).and_then(|rest| rest.split_whitespace().next());
        address.expect("an address").parse().expect("an address")
    }
}
