//! The command line of Mediary: flags and subcommands, the log, exit codes. Everything else is in
//! the library.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use mediary::config::{
    AdminListen, Config, ENVIRONMENT, HomeserverUrl, ListenAddress, LogFormat, LogLevel, Overrides,
};
use mediary::key_tool::{self, KeyCommand};
use mediary::thumbnail::{self, ProbeCommand, ProgramCommand, WorkerSettings};
use mediary::thumbnail_tool::ThumbnailArguments;
use mediary::types::{Mxc, ServerName};
use mediary::{check, federation_test, logging, server, thumbnail_tool};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// jemalloc keeps memory flat under many connections and costs the least time of those measured.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A media sidecar for Matrix homeservers: stands in front of an unmodified Synapse or Conduit,
/// serves all media itself and passes everything else through.
#[derive(Parser)]
#[command(version, after_help = examples(), max_term_width = 100)]
#[command(args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Subcommand)]
enum Command {
    /// Start the proxy; this is also what happens without a subcommand
    Run(Settings),
    /// Read the configuration, ask the homeserver, and say what works and what is missing
    ///
    /// Changes nothing and may be run beside a running Mediary. The exit code is 0 if Mediary can
    /// run, 1 if something has to be mended first.
    Check(Settings),
    /// Go to another server step by step, and say what was found and where it ends
    ///
    /// Asks as Mediary asks for that server's media: discovery, connection, keys, and a request signed
    /// with federation.signing_key. Changes nothing. The exit code is 0 if all of it works, else 1.
    FederationTest(FederationTest),
    /// Show, make or find the key that requests to other servers are signed with
    #[command(subcommand)]
    Key(KeyCommand),
    /// Make a thumbnail of a file as the server would, and say what was found and made
    ///
    /// Needs no homeserver and no store. Which sizes there are, and how much a picture may cost, is as in
    /// the section [thumbnails] of the configuration. The exit code is 0 if a thumbnail was made, else 1.
    Thumbnail(Thumbnail),
    /// Decode pictures for the process that started this one
    #[command(hide = true)]
    ThumbnailWorker(WorkerSettings),
    /// Lock oneself in and become a program that decodes pictures
    #[command(hide = true)]
    ThumbnailProgram(ProgramCommand),
    /// Lock oneself in as a thumbnail worker does, and try one thing
    #[command(hide = true)]
    ThumbnailProbe(ProbeCommand),
}

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    mediary thumbnail photo.jpg --out small.jpg\n  \
    mediary thumbnail party.gif --size 96x96 --method crop --animated -o small.webp\n  \
    mediary thumbnail photo.jpg --config /etc/mediary/mediary.toml")]
struct Thumbnail {
    #[command(flatten)]
    arguments: ThumbnailArguments,
    /// The configuration file [default: none, all settings at their defaults]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Thumbnail {
    fn run(self) -> anyhow::Result<()> {
        let file = self.config.or_else(|| filled("MEDIARY_CONFIG"));
        let config = Config::load(file.as_deref(), Overrides::default())?;
        thumbnail_tool::run(&config, &self.arguments, &mut std::io::stdout().lock())
    }
}

#[derive(Args)]
struct FederationTest {
    /// The other server's name, as in @user:NAME
    server: ServerName,
    /// Media of that server to fetch as well, as mxc://SERVER/ID
    #[arg(long, value_name = "MXC")]
    media: Option<Mxc>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Args)]
struct Settings {
    /// The configuration file [default: none, all settings at their defaults]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the homeserver is, as http://HOST:PORT, https://HOST or unix:/PATH
    #[arg(short, long, value_name = "URL")]
    upstream: Option<HomeserverUrl>,
    /// The homeserver's server name [default: asked from the homeserver]
    #[arg(long, value_name = "NAME")]
    server_name: Option<ServerName>,
    /// Where to listen, as ADDRESS:PORT or unix:/PATH; may be given several times
    #[arg(short, long, value_name = "ADDR")]
    listen: Vec<ListenAddress>,
    /// Where to serve /metrics, /health and /ready; an empty value turns it off
    #[arg(long, value_name = "ADDR")]
    admin_listen: Option<AdminListen>,
    /// The directory that media is kept in [default: /var/lib/mediary; where that cannot be written
    /// and there is no configuration file, one in the user's home]
    #[arg(short, long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
    /// text or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

impl Settings {
    fn load(self) -> anyhow::Result<Config> {
        let overrides = Overrides {
            homeserver_url: self.upstream,
            server_name: self.server_name,
            listen: self.listen,
            admin_listen: self.admin_listen,
            storage_path: self.data_dir,
            log_level: self.log_level,
            log_format: self.log_format,
        };
        let file = self.config.or_else(|| filled("MEDIARY_CONFIG"));
        let is_placed =
            overrides.storage_path.is_some() || filled("MEDIARY_STORAGE_PATH").is_some();
        let mut config = Config::load(file.as_deref(), overrides)?;
        if file.is_none() && !is_placed {
            config.storage.path = usable_data_dir(config.storage.path);
        }
        Ok(config)
    }
}

/// A variable that is set to something; container files often pass empty ones on.
fn filled(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Returns the default directory, or one in the user's home where that cannot be written: a start
/// with nothing but `--upstream` works for everybody.
fn usable_data_dir(default: PathBuf) -> PathBuf {
    let is_writable = |path: &Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
    let can_be_used =
        |path: &Path| is_writable(path) || !path.exists() && path.parent().is_some_and(is_writable);
    let home = filled("HOME");
    let data = filled("XDG_DATA_HOME").or_else(|| Some(home.as_ref()?.join(".local/share")));
    let places = [data.map(|data| data.join("mediary")), home.map(|home| home.join(".mediary"))];
    // Where nothing can be used, opening the store says what to do about the default.
    let usable = [Some(default.clone())].into_iter().chain(places).flatten();
    usable.into_iter().find(|path| can_be_used(path)).unwrap_or(default)
}

fn examples() -> String {
    let mut text = String::from(
        "Examples:\n  \
         mediary --upstream http://127.0.0.1:8008 --data-dir ./media\n  \
         mediary run --config /etc/mediary/mediary.toml\n  \
         mediary check --config /etc/mediary/mediary.toml\n  \
         mediary federation-test --config /etc/mediary/mediary.toml matrix.org\n\n\
         Settings come from the file, then from the environment, then from flags; the last one \
         counts.\n\nEnvironment:\n",
    );
    for (name, meaning) in ENVIRONMENT {
        text.push_str(&format!("  {name:<24} {meaning}\n"));
    }
    text
}

fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    let outcome = match command_line.command.unwrap_or(Command::Run(command_line.settings)) {
        Command::Run(settings) => run(settings),
        Command::Check(settings) => {
            return examine(settings, |config| check::run(config, &mut std::io::stdout()));
        }
        Command::FederationTest(FederationTest { server, media, settings }) => {
            return examine(settings, |config| {
                federation_test::run(config, &server, media.as_ref(), &mut std::io::stdout())
            });
        }
        Command::ThumbnailWorker(settings) => thumbnail::work(settings)
            .context("a thumbnail worker, which only Mediary itself starts"),
        Command::Thumbnail(command) => command.run(),
        Command::ThumbnailProgram(command) => return thumbnail::run_program(&command),
        Command::Key(command) => key_tool::run(&command, &mut std::io::stdout().lock()),
        Command::ThumbnailProbe(command) => {
            return thumbnail::probe(&command, &mut std::io::stdout());
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mediary: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Lets the process have as many open files as it may: each client takes one, and so does what it
/// reads. Systems start programs with a bound that is meant for those that wait by `select`.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
    {
        tracing::warn!(%error, current = ?limit.current, "the limit of open files stays as it is");
    }
}

fn run(settings: Settings) -> anyhow::Result<()> {
    let config = settings.load()?;
    logging::start(&config.log)?;
    raise_open_files();
    for warning in config.validate()? {
        tracing::warn!("{warning}");
    }
    server::run(&config)
}

/// Loads the configuration and runs something that prints and says whether all is well.
fn examine(settings: Settings, is_well: impl FnOnce(&Config) -> bool) -> ExitCode {
    let config = match settings.load() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("mediary: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    if is_well(&config) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
