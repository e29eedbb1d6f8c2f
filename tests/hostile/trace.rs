//! What a process asks of the system: the paths that it names and the addresses that it connects
//! to, as strace sees them.

use std::path::{Component, Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::common::{Mediary, Settings, wait_until};

/// A trace in a file.
pub struct Trace {
    file: PathBuf,
}

/// A call of the system.
#[derive(Debug)]
pub struct Call {
    /// What it is called.
    pub name: String,
    /// The line as strace wrote it.
    pub line: String,
    /// When it was made, in seconds since 1970.
    pub at: f64,
    /// The paths that it names, made absolute.
    pub paths: Vec<PathBuf>,
}

/// Returns the time as strace tells it.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_secs_f64()
}

impl Trace {
    /// Has every call that names a path, an address or a program written down.
    pub fn of(settings: Settings, file: &Path) -> (Settings, Self) {
        let output = file.to_str().expect("a path in UTF-8");
        let settings = settings.through(&[
            "/usr/bin/strace",
            // As a process beside ours, not as its parent: signals go to the right one.
            "--daemonize",
            "--follow-forks",
            "--decode-fds=path",
            "--string-limit=4096",
            "--absolute-timestamps=format:unix,precision:us",
            "--quiet=attach,personality,thread-execve",
            "--trace=%file,connect,execveat,open_by_handle_at",
            "--signal=none",
            "--output",
            output,
            "--",
        ]);
        (settings, Self { file: file.to_owned() })
    }

    /// Ends the process in good order and returns the calls since a moment, in their order.
    pub fn calls_since(&self, begun: f64, mediary: Mediary) -> Vec<Call> {
        let text = || {
            let text = std::fs::read(&self.file).expect("the trace can be read");
            String::from_utf8_lossy(&text).into_owned()
        };
        let process = mediary.pid().to_string();
        mediary.whole_log();
        wait_until("the trace has come to its end", || {
            let text = text();
            let mut ends = text.lines().filter(|line| line.contains("+++ exited with"));
            ends.any(|line| line.split(' ').next() == Some(&process))
        });
        text().lines().filter_map(read).filter(|call| call.at >= begun).collect()
    }
}

/// Reads a line: `PID TIME NAME(ARGUMENTS) = RESULT`. What a call returns in the end was asked for
/// in its beginning, so the lines of calls that were resumed are left out.
fn read(line: &str) -> Option<Call> {
    let (_, rest) = line.split_once(' ')?;
    let (at, call) = rest.trim_start().split_once(' ')?;
    let (name, arguments) = call.split_once('(')?;
    if name.contains(' ') {
        return None;
    }
    let arguments = match name {
        // What a link holds is an answer, not a question.
        "readlink" | "readlinkat" | "getcwd" => arguments.split("\", ").next()?,
        _ => arguments,
    };
    let mut paths = Vec::new();
    let mut directory = None;
    for (index, part) in arguments.split('"').enumerate() {
        if index % 2 == 0 {
            // What a descriptor stands for: `7</srv/store>`.
            directory = part.rsplit_once('<').and_then(|(_, path)| path.split('>').next());
        } else if name != "connect" && !part.is_empty() {
            // An empty path stands for the descriptor itself.
            let base = Path::new(directory.unwrap_or("/nowhere"));
            paths.push(resolve(&base.join(part)));
        }
    }
    Some(Call { name: name.to_owned(), line: line.to_owned(), at: at.parse().ok()?, paths })
}

/// Resolves dots as the system does where no links are.
fn resolve(path: &Path) -> PathBuf {
    let mut resolved = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                resolved.pop();
            }
            Component::CurDir => {}
            other => resolved.push(other),
        }
    }
    resolved
}
