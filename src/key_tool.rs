//! `mediary key`: shows, makes and finds the keys that requests to other servers are signed with.
//!
//! No private key is shown unless that is asked for.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Subcommand;

use crate::federation::conduit::{self, ConduitError};
use crate::federation::{KeySeed, SigningKey};

/// What `mediary key` can do.
#[derive(Debug, Clone, Subcommand)]
#[command(after_help = HELP)]
pub enum KeyCommand {
    /// Show the ids and public keys in a file, and which of them signs
    Show {
        /// A file of lines `ed25519 VERSION SEED`, the first of which signs, such as Synapse's signing.key;
        /// nobody but its owner and group may have access to it
        file: PathBuf,
    },
    /// Make a key of Mediary's own, for Synapse to publish beside its own
    ///
    /// The file is for its owner alone, and no file is overwritten. What has to be done with it is said
    /// then.
    Generate {
        /// Where to write it
        file: PathBuf,
    },
    /// Find the key in the database of a Conduit, conduwuit, Continuwuity or Tuwunel
    ///
    /// The database is only read, also while the server runs. Best run this as the user that the server
    /// runs as.
    Conduit {
        /// The directory that is `database_path` in its configuration, or the SQLite file in it
        #[arg(required_unless_present = "raw_value")]
        database: Option<PathBuf>,
        /// Read the value of `keypair` from this file instead: the way for RocksDB
        #[arg(long, value_name = "FILE", conflicts_with = "database")]
        raw_value: Option<PathBuf>,
        /// Write the key to this new file, in the form of Synapse's signing.key
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Print the private key, and nothing else
        #[arg(long, conflicts_with = "output")]
        print: bool,
    },
}

const HELP: &str = "\
Mediary signs what it asks other servers with the key in federation.signing_key. Other servers believe \
it because the homeserver publishes it, so either:

  - it is the homeserver's own key. Synapse keeps it in a file: name that (signing_key_path), and \
make it readable for Mediary. Conduit keeps it in its database: `mediary key conduit` gets it out.
  - it is a second key that the homeserver publishes too. Synapse does that for every line of its \
file: `mediary key generate` makes one and says what to do.

The file may have several lines, of which the first signs. Nobody but its owner and group may have \
access to it.

Check either with `mediary check`: it holds the key against what the homeserver publishes at \
/_matrix/key/v2/server.";

/// Runs a command and says on `output` what came of it.
///
/// # Errors
///
/// In words for the operator, also if nothing can be written to `output`.
pub fn run(command: &KeyCommand, output: &mut dyn Write) -> anyhow::Result<()> {
    match command {
        KeyCommand::Show { file } => show(file, output),
        KeyCommand::Generate { file } => generate(file, output),
        KeyCommand::Conduit { database, raw_value, output: file, print } => {
            let key = match (raw_value, database) {
                (Some(raw_value), _) => conduit::read_raw_value(raw_value)?,
                (None, Some(database)) => from_database(database)?,
                (None, None) => bail!("name a database, or --raw-value and a file"),
            };
            hand_out(&key, file.as_deref(), *print, output)
        }
    }
}

fn show(file: &Path, output: &mut dyn Write) -> anyhow::Result<()> {
    for (index, key) in SigningKey::read_all(file)?.iter().enumerate() {
        let role = if index == 0 { "signs" } else { "does not sign" };
        writeln!(output, "{}  {}  {role}", key.id(), key.public_key())?;
    }
    Ok(())
}

fn generate(file: &Path, output: &mut dyn Write) -> anyhow::Result<()> {
    let place = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let (in_shell, in_toml) = quoted(&place)?;
    let key = KeySeed::generate().ok().context("the system gives no random numbers")?;
    write_new(file, &key)?;
    describe(&key, output)?;
    let (place, id) = (place.display(), key.id());
    writeln!(
        output,
        "written to  {place}

Other servers believe this key once the homeserver publishes it. With Synapse:

  1. Add it to Synapse's own file (signing_key_path in homeserver.yaml) as a further line, below the
     first:
       {{ echo; cat {in_shell}; }} >> SIGNING_KEY_PATH
     Synapse signs with the first line and publishes all; were this key the first, Synapse would sign
     with it, too.
  2. Restart Synapse and see that {id} is among the verify_keys of
       curl HOMESERVER_URL/_matrix/key/v2/server
  3. Set signing_key = {in_toml} in the section [federation] of Mediary's configuration. Mediary's user
     has to be able to read the file, as its owner or by its group, and nobody else may have access.
  4. See what `mediary check` says of it.

Conduit publishes no key but its own; `mediary key conduit` gets that out of its database."
    )?;
    Ok(())
}

/// Reads the key from a database, and says how else it can be had where it cannot be read.
fn from_database(database: &Path) -> anyhow::Result<KeySeed> {
    match conduit::read_key(database) {
        Err(error @ ConduitError::RocksDb { .. }) => {
            bail!("{error}\n\n{}", rocksdb_advice(database)?)
        }
        outcome => Ok(outcome?),
    }
}

/// Says how to get the value out of RocksDB: tried with Continuwuity, stopped and running.
fn rocksdb_advice(database: &Path) -> anyhow::Result<String> {
    let (database, _) = quoted(database)?;
    Ok(format!(
        "Python can read it, also while the server runs. As the user that the server runs as:

  python3 -m venv rocks && rocks/bin/pip install rocksdict
  rocks/bin/python - {database} keypair.bin <<'END'
import os, sys
from rocksdict import AccessType, Options, Rdict
path, output = sys.argv[1:]
raw = Options(raw_mode=True)
families = {{name: raw for name in Rdict.list_cf(path, raw)}}
database = Rdict(path, raw, families, AccessType.read_only())
value = database.get_column_family(\"global\")[b\"keypair\"]
file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
os.write(file, value)
END
  mediary key conduit --raw-value keypair.bin --output signing.key
  rm keypair.bin"
    ))
}

/// Writes a path as the shell and as TOML take it.
///
/// # Errors
///
/// In words for the operator, if it holds what cannot be written in a line of text.
fn quoted(path: &Path) -> anyhow::Result<(String, String)> {
    let text = path.to_str().filter(|text| !text.contains(char::is_control));
    let text = text.with_context(|| {
        format!(
            "{path:?}: this path cannot be written in a configuration or a command; use another"
        )
    })?;
    let in_shell = format!("'{}'", text.replace('\'', r"'\''"));
    let in_toml = format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""));
    Ok((in_shell, in_toml))
}

fn hand_out(
    key: &KeySeed,
    file: Option<&Path>,
    print: bool,
    output: &mut dyn Write,
) -> anyhow::Result<()> {
    if print {
        return Ok(writeln!(output, "{}", key.reveal_line())?);
    }
    if let Some(file) = file {
        write_new(file, key)?;
    }
    describe(key, output)?;
    match file {
        Some(file) => writeln!(output, "written to  {}", file.display())?,
        None => writeln!(output, "\nNothing was written; --output FILE does that.")?,
    }
    writeln!(
        output,
        "\nBoth have to be the same in what the homeserver publishes:\n  \
         curl HOMESERVER_URL/_matrix/key/v2/server\n\
         With the file in federation.signing_key, `mediary check` sees to that."
    )?;
    Ok(())
}

fn describe(key: &KeySeed, output: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(output, "key id      {}", key.id())?;
    writeln!(output, "public key  {}", key.signing_key().public_key())?;
    Ok(())
}

fn write_new(file: &Path, key: &KeySeed) -> anyhow::Result<()> {
    match key.write_new(file) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            bail!("{}: it is there already, and no key is overwritten", file.display())
        }
        outcome => outcome.with_context(|| format!("{}: it cannot be written", file.display())),
    }
}
