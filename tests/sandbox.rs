//! The walls around thumbnail workers, tried from inside: every attempt is shown to succeed without
//! them, so that its failure behind them says something.

mod common;

use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::samples;
use mediary::thumbnail::Report;
use rustix::process::Signal;
use tempfile::TempDir;

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// It could be done; what was said.
    Done(String),
    /// It failed, and the process went on.
    Refused(String),
    /// The process was ended.
    Ended(Option<Signal>),
}

use Outcome::{Done, Ended, Refused};

impl Outcome {
    fn is_done(&self) -> bool {
        matches!(self, Done(_))
    }

    /// Whether it failed with this error of the system.
    fn is_errno(&self, errno: rustix::io::Errno) -> bool {
        let code = format!("(os error {})", errno.raw_os_error());
        matches!(self, Refused(why) if why.contains(&code))
    }
}

/// Tries something behind some of the walls, with a file as standard input.
fn attempt_on(input: Stdio, walls: &str, arguments: &[&str]) -> Outcome {
    let output = Command::new(env!("CARGO_BIN_EXE_mediary"))
        .args(["thumbnail-probe", "--walls", walls])
        .args(arguments)
        .stdin(input)
        .output()
        .expect("the binary can be started");
    let said = String::from_utf8(output.stdout).expect("text");
    match output.status.code() {
        Some(0) => Done(said),
        Some(_) => Refused(said + &String::from_utf8_lossy(&output.stderr)),
        None => Ended(output.status.signal().and_then(Signal::from_named_raw)),
    }
}

fn attempt(walls: &str, arguments: &[&str]) -> Outcome {
    attempt_on(Stdio::null(), walls, arguments)
}

fn report() -> Report {
    let Done(json) = attempt("all", &["report"]) else { panic!("there is no report") };
    serde_json::from_str(&json).expect("a report")
}

/// Asserts that something can be done without walls, and not behind them: with EPERM where code in good
/// order may ask for it, else with the end of the process.
fn assert_refused(arguments: &[&str], expected: &Outcome) {
    let free = attempt("none", arguments);
    assert!(free.is_done(), "{arguments:?} without walls: {free:?}");
    for walls in ["all", "seccomp"] {
        let outcome = attempt(walls, arguments);
        let is_expected = match expected {
            Refused(_) => outcome.is_errno(rustix::io::Errno::PERM),
            expected => outcome == *expected,
        };
        assert!(is_expected, "{arguments:?} behind {walls}: {outcome:?}");
    }
}

/// Asserts that landlock refuses something without any help of the others.
fn assert_refused_by_landlock(arguments: &[&str]) {
    let outcome = attempt("landlock", arguments);
    let is_refused =
        outcome.is_errno(rustix::io::Errno::ACCESS) || outcome.is_errno(rustix::io::Errno::PERM);
    assert!(is_refused, "{arguments:?} behind landlock: {outcome:?}");
}

fn politely() -> Outcome {
    Refused(String::new())
}

fn deadly() -> Outcome {
    Ended(Some(Signal::SYS))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}

#[test]
fn everything_is_in_force_and_said() {
    let report = report();
    assert!(report.is_complete(), "{:?}", report.lacks());
    assert_eq!(report.lacks(), Vec::<String>::new());
    let line = report.to_string();
    for part in ["lowest priority", "memory 512 MiB", "landlock", "system calls filtered"] {
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn no_file_can_be_opened_seen_made_or_removed() {
    let directory = TempDir::new().unwrap();
    let present = directory.path().join("present");
    File::create(&present).unwrap();
    for arguments in [
        ["open", "/etc/passwd"],
        ["open", "/proc/self/environ"],
        ["open", "/dev/null"],
        ["open", text(&present)],
        ["list", text(directory.path())],
    ] {
        assert_refused(&arguments, &politely());
        assert_refused_by_landlock(&arguments);
    }
    assert_refused(&["stat", text(&present)], &politely());

    let new = directory.path().join("new");
    for walls in ["all", "seccomp", "landlock"] {
        for arguments in [["create", text(&new)], ["remove", text(&present)]] {
            assert!(matches!(attempt(walls, &arguments), Refused(_)), "{arguments:?}");
        }
        assert!(present.exists() && !new.exists(), "{walls}");
    }
    assert!(attempt("none", &["create", text(&new)]).is_done());
    assert!(attempt("none", &["remove", text(&present)]).is_done());
}

#[test]
fn nobody_can_be_connected_to() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("socket");
    let _unix = UnixListener::bind(&path).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap().to_string();
    assert_refused(&["connect", &address], &deadly());
    assert_refused(&["connect-unix", text(&path)], &deadly());
    assert_refused(&["udp"], &deadly());
    if report().to_string().contains("ports, ") {
        assert_refused_by_landlock(&["connect", &address]);
    }
}

#[test]
fn nothing_can_be_started() {
    assert_refused(&["fork"], &politely());
    assert_refused(&["thread"], &politely());
    assert_refused(&["exec", "/bin/true"], &deadly());
    assert_refused_by_landlock(&["exec", "/bin/true"]);
}

/// A process that waits to be ended.
struct Victim(Child);

impl Victim {
    fn start() -> Self {
        Self(Command::new("sleep").arg("600").spawn().expect("sleep can be started"))
    }

    fn id(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // It may have been ended by the test.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn nobody_else_can_be_signalled() {
    let mut victim = Victim::start();
    let arguments = ["signal", &victim.id()].map(str::to_owned);
    let arguments = arguments.each_ref().map(String::as_str);
    assert_eq!(attempt("all", &arguments), deadly());
    assert_eq!(attempt("seccomp", &arguments), deadly());
    if report().to_string().contains("other processes)") {
        assert_refused_by_landlock(&arguments);
    }
    assert_eq!(victim.0.try_wait().unwrap(), None, "it was ended");

    assert!(attempt("none", &arguments).is_done());
    let status = victim.0.wait().unwrap();
    assert_eq!(status.signal(), Some(Signal::TERM.as_raw()));
}

/// Something to try, and how its refusal looks.
type Bounded<'a> = (&'a [&'a str], fn(&Outcome) -> bool);

#[test]
fn memory_descriptors_and_files_are_bounded() {
    let four_gib = (4_u64 << 30).to_string();
    let cases: [Bounded<'_>; 3] = [
        (
            &["allocate", &four_gib],
            |outcome| matches!(outcome, Refused(why) if why.contains("memory")),
        ),
        (&["descriptors", "100"], |outcome| outcome.is_errno(rustix::io::Errno::MFILE)),
        (&["grow", "1048577"], |outcome| *outcome == Ended(Some(Signal::XFSZ))),
    ];
    for (arguments, is_refused) in cases {
        let free = attempt("none", arguments);
        assert!(free.is_done(), "{arguments:?} without walls: {free:?}");
        for walls in ["limits", "all"] {
            let outcome = attempt(walls, arguments);
            assert!(is_refused(&outcome), "{arguments:?} behind {walls}: {outcome:?}");
        }
    }
    for arguments in [["allocate", "268435456"], ["descriptors", "4"], ["grow", "1048576"]] {
        let within = attempt("all", &arguments);
        assert!(within.is_done(), "{arguments:?}: {within:?}");
    }
}

#[test]
fn a_computation_without_end_is_ended() {
    assert_eq!(attempt("all", &["--cpu-seconds", "1", "spin"]), Ended(Some(Signal::XCPU)));
}

#[test]
fn a_panic_is_told_and_a_stack_too_deep_is_an_end() {
    let panicked = attempt("all", &["panic"]);
    assert!(matches!(&panicked, Refused(why) if why.contains("a decoder gave up")), "{panicked:?}");
    assert_eq!(attempt("all", &["recurse"]), Ended(Some(Signal::ABORT)));
}

#[test]
fn thumbnails_can_be_made() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("picture.png");
    File::create(&path).unwrap().write_all(&samples::png(800, 600)).unwrap();
    let picture = || Stdio::from(File::open(&path).unwrap());
    let made = attempt_on(picture(), "all", &["work", "3"]);
    assert!(made.is_done(), "{made:?}");
    let nothing = attempt("all", &["work", "1"]);
    assert!(matches!(nothing, Refused(_)), "{nothing:?}");
}

/// Runs a script of Perl's as if it were a program for pictures, with a file as its source.
fn program(source: &Path, options: &[&str], script: &str) -> Outcome {
    let common = "$| = 1; sub tried { print $_[0], $_[1] ? ' done' : \" $!\", \"\\n\" }\n";
    let script = format!("{common}{script}");
    let arguments = [options, &["/usr/bin/perl", "-MFcntl", "-MSocket", "-e", &script]].concat();
    let arguments = [&["program"], &*arguments].concat();
    let source = File::open(source).expect("the source is there");
    attempt_on(Stdio::from(source), "all", &arguments)
}

fn source(directory: &TempDir) -> std::path::PathBuf {
    let path = directory.path().join("source");
    std::fs::write(&path, "a picture").expect("it can be written");
    path
}

#[test]
fn a_program_reads_its_source_and_nothing_else() {
    let directory = TempDir::new().unwrap();
    let source = source(&directory);
    let script = "
        tried('source', open($f, '<', '/proc/self/fd/0') && <$f> eq 'a picture');
        tried('file', open($f, '<', '/etc/passwd'));
        tried('environment', open($f, '<', '/proc/self/environ'));
        tried('append', open($f, '>>', '/proc/self/fd/0'));
        tried('empty', sysopen($f, '/proc/self/fd/0', O_RDONLY | O_TRUNC));
        tried('create', open($f, '>', $ENV{TMPDIR} // '/tmp/of-a-program'));
        tried('remove', unlink('/etc/passwd'));
        tried('fork', defined fork());
        tried('socket', socket(my $s, PF_INET, SOCK_STREAM, 0));
        tried('unix', socket($s, PF_UNIX, SOCK_STREAM, 0));
        tried('signal', kill('CONT', getppid()));
        tried('other program', exec('/bin/true'));
    ";
    let Done(said) = program(&source, &[], script) else { panic!("Perl did not run") };
    let refused = "Operation not permitted";
    let closed = "Permission denied";
    let expected = [
        "source done".to_owned(),
        format!("file {closed}"),
        format!("environment {closed}"),
        format!("append {refused}"),
        format!("empty {refused}"),
        format!("create {refused}"),
        format!("remove {refused}"),
        format!("fork {refused}"),
        format!("socket {refused}"),
        format!("unix {refused}"),
        format!("signal {refused}"),
        format!("other program {closed}"),
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    assert_eq!(std::fs::read(&source).unwrap(), b"a picture");
}

#[test]
fn a_program_that_opens_its_output_once_more_opens_nothing_else_for_writing() {
    let directory = TempDir::new().unwrap();
    let source = source(&directory);
    let script = format!(
        "
        tried('beside', open($f, '>', '{directory}/result'));
        tried('append', open($f, '>>', '/proc/self/fd/0'));
        tried('empty', sysopen($f, '/proc/self/fd/0', O_RDONLY | O_TRUNC));
        tried('directory', mkdir('{directory}/inner'));
        tried('remove', unlink('{directory}/source'));
        ",
        directory = directory.path().display()
    );
    let said = program(&source, &["--reopens-output"], &script);
    let expected = "beside Permission denied\nappend Permission denied\n\
                    empty Operation not permitted\ndirectory Operation not permitted\n\
                    remove Permission denied\n";
    assert_eq!(said, Done(expected.to_owned()));
    assert_eq!(std::fs::read(&source).unwrap(), b"a picture");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_program_has_no_other_way_in() {
    let directory = TempDir::new().unwrap();
    let source = source(&directory);
    // mmap of anonymous memory: writable and executable, shared, and as it should be.
    let memory = "
        tried('code', syscall(9, 0, 4096, 7, 0x22, -1, 0) != -1);
        tried('shared', syscall(9, 0, 4096, 3, 0x21, -1, 0) != -1);
        tried('private', syscall(9, 0, 4096, 3, 0x22, -1, 0) != -1);
    ";
    let refused = "Operation not permitted";
    let expected = format!("code {refused}\nshared {refused}\nprivate done\n");
    assert_eq!(program(&source, &[], memory), Done(expected));
    for (name, number) in [("ptrace", 101), ("mount", 165), ("unshare", 272), ("bpf", 321)] {
        let call = format!("syscall({number}, 0, 0, 0, 0, 0)");
        assert_eq!(program(&source, &[], &call), deadly(), "{name}");
    }
}

#[test]
fn what_is_no_program_is_said() {
    let directory = TempDir::new().unwrap();
    let source = source(&directory);
    for program in [text(&source), "/nowhere/ffmpeg"] {
        let outcome = attempt("all", &["program", program]);
        assert!(matches!(outcome, Refused(_)), "{outcome:?}");
    }
}
