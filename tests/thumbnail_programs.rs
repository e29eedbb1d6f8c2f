//! Pictures out of videos and HEIC files, by the real programs, locked in.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mediary::config::ThumbnailsConfig;
use mediary::thumbnail::{
    Capacity, EngineSettings, Launch, Limits, ProcessSettings, Programs, Rendered, ThumbnailEngine,
    ThumbnailError, Urgency,
};
use mediary::types::ThumbnailMethod::{Crop, Scale};
use mediary::types::{
    ContentHash, ThumbnailEncoding, ThumbnailMethod, ThumbnailSize, ThumbnailSpec,
};

/// Only what hangs is over it.
const PATIENCE: Duration = Duration::from_secs(60);

const OWN: &str = env!("CARGO_BIN_EXE_mediary");

fn programs() -> Programs {
    let programs = Programs::find(&ThumbnailsConfig::default(), PathBuf::from(OWN));
    let report = programs.report();
    assert!(report[0].starts_with("videos by ffmpeg "), "{report:?}");
    assert!(report[1].starts_with("HEIC pictures by heif-convert "), "{report:?}");
    programs
}

fn run(directory: &Path, program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).current_dir(directory).output();
    let output =
        status.unwrap_or_else(|error| panic!("tests/setup.sh installs {program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

/// Makes a video whose left half is red and whose right half is blue.
fn video(directory: &Path, name: &str, encoding: &[&str]) -> PathBuf {
    let picture =
        "color=red:size=320x480:rate=10[l];color=blue:size=320x480:rate=10[r];[l][r]hstack";
    let mut arguments = vec!["-v", "error", "-f", "lavfi", "-i", picture, "-t", "1"];
    arguments.extend(encoding);
    arguments.push(name);
    run(directory, "ffmpeg", &arguments);
    directory.join(name)
}

const H264: [&str; 4] = ["-c:v", "libx264", "-pix_fmt", "yuv420p"];

fn extracted(programs: &Programs, source: &Path) -> Result<Option<File>, ThumbnailError> {
    let source = File::open(source).expect("a source");
    programs.extract(&source, &Limits::default(), Instant::now() + PATIENCE)
}

fn picture(programs: &Programs, source: &Path) -> image::RgbImage {
    let file = extracted(programs, source).expect("a picture").expect("a program for it");
    image::load_from_memory(&bytes(file)).expect("a whole picture").into_rgb8()
}

fn bytes(mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().expect("a file in memory");
    file.read_to_end(&mut bytes).expect("a file in memory");
    bytes
}

fn is_near(pixel: &image::Rgb<u8>, colour: [u8; 3]) -> bool {
    pixel.0.iter().zip(colour).all(|(is, should)| is.abs_diff(should) < 40)
}

const RED: [u8; 3] = [254, 0, 0];
const BLUE: [u8; 3] = [0, 0, 254];

/// CS-TH-10
#[test]
fn a_video_gives_one_of_its_frames() {
    let directory = tempfile::tempdir().expect("a directory");
    let programs = programs();
    let vp8 = ["-c:v", "libvpx", "-b:v", "2M"];
    for (name, encoding) in [("v.mp4", H264), ("v.mov", H264), ("v.webm", vp8), ("v.mkv", H264)] {
        let picture = picture(&programs, &video(directory.path(), name, &encoding));
        assert_eq!(picture.dimensions(), (640, 480), "{name}");
        assert!(is_near(picture.get_pixel(100, 240), RED), "{name}");
        assert!(is_near(picture.get_pixel(540, 240), BLUE), "{name}");
    }
}

#[test]
fn a_video_is_turned_and_has_square_pixels() {
    let directory = tempfile::tempdir().expect("a directory");
    let programs = programs();
    video(directory.path(), "v.mp4", &H264);
    let turned =
        ["-v", "error", "-i", "v.mp4", "-c", "copy", "-metadata:s:v", "rotate=90", "t.mp4"];
    run(directory.path(), "ffmpeg", &turned);
    let turned = picture(&programs, &directory.path().join("t.mp4"));
    assert_eq!(turned.dimensions(), (480, 640));
    assert!(is_near(turned.get_pixel(240, 100), RED) != is_near(turned.get_pixel(240, 540), RED));
    let wide = [&["-vf", "setsar=2"][..], &H264].concat();
    let wide = picture(&programs, &video(directory.path(), "w.mp4", &wide));
    assert_eq!(wide.dimensions(), (1280, 480));
}

#[test]
fn a_video_that_begins_black_shows_something_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let fade = "color=black:size=320x240:rate=10:duration=1[b];\
                testsrc2=size=320x240:rate=10:duration=4[t];[b][t]concat";
    let mut arguments = vec!["-v", "error", "-f", "lavfi", "-i", fade, "-g", "10"];
    arguments.extend(H264);
    arguments.push("f.mp4");
    run(directory.path(), "ffmpeg", &arguments);
    let picture = picture(&programs(), &directory.path().join("f.mp4"));
    let bright = picture.pixels().filter(|pixel| pixel.0.iter().any(|channel| *channel > 100));
    assert!(bright.count() > 1000);
}

/// A PNG of two halves as HEIC.
fn heic(directory: &Path) -> PathBuf {
    let picture = "color=red:size=320x480[l];color=blue:size=320x480[r];[l][r]hstack";
    let arguments = ["-v", "error", "-f", "lavfi", "-i", picture, "-frames:v", "1", "p.png"];
    run(directory, "ffmpeg", &arguments);
    run(directory, "heif-enc", &["p.png", "-o", "p.heic"]);
    directory.join("p.heic")
}

#[test]
fn a_heic_file_gives_its_picture() {
    let directory = tempfile::tempdir().expect("a directory");
    let picture = picture(&programs(), &heic(directory.path()));
    assert_eq!(picture.dimensions(), (640, 480));
    assert!(is_near(picture.get_pixel(100, 240), RED));
    assert!(is_near(picture.get_pixel(540, 240), BLUE));
    let own = format!("mediary-{}-", std::process::id());
    let left = fs::read_dir(std::env::temp_dir()).expect("a directory").flatten();
    let mut left = left.filter(|entry| entry.file_name().to_string_lossy().starts_with(&own));
    assert!(left.next().is_none(), "a name for its result is left behind");
}

/// What turns a HEIC picture is in its structure, which the program follows; a note in its EXIF block says
/// the same once more, or is left over.
#[test]
fn a_heic_file_is_not_turned_twice() {
    let directory = tempfile::tempdir().expect("a directory");
    heic(directory.path());
    run(directory.path(), "ffmpeg", &["-v", "error", "-i", "p.png", "p.jpg"]);
    let mut jpeg = fs::read(directory.path().join("p.jpg")).expect("a picture");
    let quarter_turn = b"\xff\xe1\0\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\
                         \x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    jpeg.splice(2..2, quarter_turn.iter().copied());
    fs::write(directory.path().join("t.jpg"), jpeg).expect("room");
    run(directory.path(), "heif-enc", &["t.jpg", "-o", "t.heic"]);
    let made = thumbnails(&[directory.path().join("t.heic")], &[spec(320, 240, Scale)]);
    assert_eq!(made, [[(320, 240)]]);
}

#[test]
fn of_several_heic_pictures_the_first_is_taken() {
    let directory = tempfile::tempdir().expect("a directory");
    heic(directory.path());
    let other =
        ["-v", "error", "-f", "lavfi", "-i", "color=green:size=320x240", "-frames:v", "1", "o.png"];
    run(directory.path(), "ffmpeg", &other);
    run(directory.path(), "heif-enc", &["p.png", "o.png", "-o", "both.heic"]);
    let picture = picture(&programs(), &directory.path().join("both.heic"));
    assert_eq!(picture.dimensions(), (640, 480));
}

/// Threats IM-06
#[test]
fn what_only_has_the_name_of_a_video_is_given_to_no_program() {
    let directory = tempfile::tempdir().expect("a directory");
    let programs = programs();
    let playlist =
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n";
    let concat = "ffconcat version 1.0\nfile /etc/passwd\n";
    for (name, content) in [("a.mp4", "hello\n"), ("b.mp4", playlist), ("c.webm", concat)] {
        let path = directory.path().join(name);
        fs::write(&path, content).expect("room");
        assert!(matches!(extracted(&programs, &path), Ok(None)), "{name}");
    }
}

#[test]
fn what_only_begins_like_a_video_is_damaged() {
    let directory = tempfile::tempdir().expect("a directory");
    let programs = programs();
    let whole = fs::read(video(directory.path(), "v.mp4", &H264)).expect("a video");
    let playlist = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n";
    let start = &whole[..32];
    for content in [start, &whole[..whole.len() / 2], &[start, playlist].concat()] {
        let path = directory.path().join("broken.mp4");
        fs::write(&path, content).expect("room");
        let outcome = extracted(&programs, &path);
        assert!(matches!(outcome, Err(ThumbnailError::Damaged(_))), "{outcome:?}");
    }
    let heic = fs::read(heic(directory.path())).expect("a picture");
    let path = directory.path().join("broken.heic");
    fs::write(&path, &heic[..heic.len() / 2]).expect("room");
    let outcome = extracted(&programs, &path);
    assert!(matches!(outcome, Err(ThumbnailError::Damaged(_))), "{outcome:?}");
}

#[test]
fn a_program_is_killed_at_its_deadline() {
    let directory = tempfile::tempdir().expect("a directory");
    let programs = programs();
    let source = File::open(video(directory.path(), "v.mp4", &H264)).expect("a video");
    let outcome = programs.extract(&source, &Limits::default(), Instant::now());
    assert!(matches!(outcome, Err(ThumbnailError::TimedOut)), "{outcome:?}");
}

#[test]
fn more_pixels_than_allowed_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let programs = programs();
    let source = File::open(video(directory.path(), "v.mp4", &H264)).expect("a video");
    let limits = Limits { max_pixels: 1000, ..Limits::default() };
    let outcome = programs.extract(&source, &limits, Instant::now() + PATIENCE);
    assert!(matches!(outcome, Err(ThumbnailError::Damaged(_))), "{outcome:?}");
}

#[test]
fn programs_that_are_missing_or_others_are_not_used() {
    let config = |ffmpeg: &str| ThumbnailsConfig {
        ffmpeg: PathBuf::from(ffmpeg),
        heif: PathBuf::new(),
        ..ThumbnailsConfig::default()
    };
    let report = |ffmpeg| Programs::find(&config(ffmpeg), PathBuf::from(OWN)).report();
    assert!(report("/no/such/ffmpeg")[0].contains("install ffmpeg"));
    assert!(report("")[0].contains("as configured"));
    assert!(report("")[1].contains("as configured"));
    for other in ["true", "yes", "heif-convert"] {
        assert!(report(other)[0].contains("does not work"), "{:?}", report(other));
    }
}

/// Runs a program as those for thumbnails are run, and returns what it says.
fn behind_walls(program: &str, arguments: &[&str]) -> (bool, String) {
    let (ended, said) = started_by(std::process::id(), program, arguments);
    (ended == Some(0), said)
}

/// The same for a process that was told who started it, and returns its exit code.
fn started_by(parent: u32, program: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let limits = ["--memory", "1073741824", "--cpu", "10", "--file-bytes", "1000000"];
    let mut source = tempfile::tempfile().expect("a file");
    source.write_all(b"what it may read").expect("room");
    source.rewind().expect("a file");
    let output = Command::new(OWN)
        .arg("thumbnail-program")
        .args(limits)
        .args(["--parent", &parent.to_string()])
        .arg(program)
        .arg("--")
        .args(arguments)
        .env_clear()
        .stdin(source)
        .output()
        .expect("it can be started");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn what_does_not_get_to_be_the_program_ends_with_a_code_of_its_own() {
    let own = std::process::id();
    assert_eq!(started_by(own, "/bin/false", &[]).0, Some(1));
    assert_eq!(started_by(own, "/no/such/program", &[]).0, Some(125));
    assert_eq!(started_by(own, "/etc/passwd", &[]).0, Some(125));
    let (code, said) = started_by(1, "/bin/true", &[]);
    assert_eq!((code, said.as_str()), (Some(125), "who started it has ended\n"));
}

/// Installs a filter of system calls that refuses landlock_create_ruleset, and goes on as Mediary.
#[cfg(target_arch = "x86_64")]
fn without_landlock(directory: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let script = format!(
        "#!/usr/bin/perl
        my $load = pack('SCCL', 0x20, 0, 0, 0);
        my $is_it = pack('SCCL', 0x15, 0, 1, 444);
        my $refuse = pack('SCCL', 0x06, 0, 0, 0x00050001);
        my $allow = pack('SCCL', 0x06, 0, 0, 0x7fff0000);
        my $code = $load . $is_it . $refuse . $allow;
        my $filter = pack('Sx6P', 4, $code);
        syscall(157, 38, 1, 0, 0, 0) == 0 or die;
        syscall(317, 1, 0, $filter) == 0 or die;
        exec('{OWN}', @ARGV) or die;
        "
    );
    let path = directory.join("without-landlock");
    fs::write(&path, script).expect("room");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    path
}

/// Without it a program could read every file that Mediary can.
#[cfg(target_arch = "x86_64")]
#[test]
fn without_landlock_no_program_is_run_whatever_the_sandbox_may_lack() {
    let directory = tempfile::tempdir().expect("a directory");
    let own = without_landlock(directory.path());
    let config = ThumbnailsConfig::default();
    assert_eq!(config.sandbox, mediary::config::SandboxMode::Prefer);
    let programs = Programs::find(&config, own);
    for line in programs.report() {
        assert!(line.contains("cannot be locked in: landlock is missing"), "{line}");
    }
    let video = video(directory.path(), "v.mp4", &H264);
    assert!(matches!(extracted(&programs, &video), Ok(None)));
}

#[test]
fn a_program_reads_its_source_and_nothing_else() {
    let (is_well, said) = behind_walls("/bin/cat", &["/proc/self/fd/0"]);
    assert_eq!((is_well, said.as_str()), (true, "what it may read"));
    for path in ["/etc/passwd", "/etc/hostname", OWN, "/proc/self/environ", "/tmp"] {
        let (is_well, said) = behind_walls("/bin/cat", &[path]);
        assert!(!is_well, "{path}: {said}");
        assert!(!said.contains("root:"), "{path}: {said}");
    }
}

#[test]
fn a_program_makes_no_file_and_starts_no_other_program() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("made");
    let name = file.to_str().expect("a plain name");
    assert!(!behind_walls("/usr/bin/touch", &[name]).0);
    assert!(!behind_walls("/bin/cp", &["/proc/self/fd/0", name]).0);
    assert!(!file.exists());
    assert!(!behind_walls("/usr/bin/env", &["/bin/true"]).0);
    assert!(!behind_walls("/bin/sh", &["-c", "/bin/true & wait $!"]).0);
}

fn spec(width: u32, height: u32, method: ThumbnailMethod) -> ThumbnailSpec {
    ThumbnailSpec {
        size: ThumbnailSize { width, height },
        method,
        animated: false,
        encoding: ThumbnailEncoding::Universal,
    }
}

/// Makes thumbnails of each source by the whole engine, and returns their sizes; all have to be JPEG.
fn thumbnails(sources: &[PathBuf], specs: &[ThumbnailSpec]) -> Vec<Vec<(u32, u32)>> {
    let settings = EngineSettings {
        programs: Arc::new(programs()),
        launch: Launch::Processes(ProcessSettings {
            program: PathBuf::from(OWN),
            timeout: PATIENCE,
            memory_bytes: 512 << 20,
            jobs: 100,
            wholly: true,
        }),
        ..EngineSettings::in_threads(Capacity { workers: 1, queue: 4 }, Limits::default())
    };
    let engine = ThumbnailEngine::new(settings).expect("an engine");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let size = |made| match made {
        Rendered::Encoded { content_type: "image/jpeg", size, .. } => (size.width, size.height),
        other => panic!("{other:?}"),
    };
    let sizes = sources.iter().enumerate().map(|(number, source)| {
        let content: ContentHash = format!("{number:064x}").parse().expect("a hash");
        let source = async { Ok::<_, ThumbnailError>(File::open(source).expect("a source")) };
        let made = runtime.block_on(engine.render(content, source, specs, Urgency::Client));
        made.expect("thumbnails").into_iter().map(size).collect()
    });
    sizes.collect()
}

/// CS-TH-06, CS-TH-10: even one that is small is made anew, since the picture is not the video.
#[test]
fn workers_make_thumbnails_of_what_programs_make() {
    let directory = tempfile::tempdir().expect("a directory");
    let sources = [video(directory.path(), "v.mp4", &H264), heic(directory.path())];
    let specs = [spec(96, 96, Crop), spec(320, 240, Scale), spec(4000, 4000, Scale)];
    let made = thumbnails(&sources, &specs);
    assert_eq!(made, [[(96, 96), (320, 240), (640, 480)], [(96, 96), (320, 240), (640, 480)]]);
}
