//! Landlock: which files, ports and other processes can be reached.
//!
//! It decides where a path leads, not how it is spelled, and holds for everything that the process
//! executes later. What is open already stays usable. It says nothing about looking at a file's size
//! or times by its path; a worker cannot for want of the system call.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, RestrictionStatus,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope, make_bitflags,
};

use super::ProgramConfinement;
use super::elf;
use super::report::Layer;

/// The newest kind of rules that the crate knows. Of these, all that the kernel knows are applied.
const NEWEST: ABI = ABI::V9;

/// Where a program's libraries are, with what they load in their turn; and the file without contents.
const READABLE: [&str; 9] = [
    "/dev/null",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/nix/store",
    "/gnu/store",
];

/// Takes all files, ports and other processes away.
pub(super) fn nothing() -> Layer {
    layer(ruleset().and_then(RulesetCreated::restrict_self))
}

/// Leaves a program that is about to be executed what it cannot do without.
///
/// # Errors
///
/// The program, or the loader that it names, cannot be read.
pub(super) fn program(confinement: &ProgramConfinement<'_>, program: &Path) -> io::Result<Layer> {
    let file = File::open(program)?;
    let loader = elf::interpreter(&file)?.map(File::open).transpose()?;
    Ok(layer(restrict(confinement, &file, loader.as_ref())))
}

fn restrict(
    confinement: &ProgramConfinement<'_>,
    program: &File,
    loader: Option<&File>,
) -> Result<RestrictionStatus, RulesetError> {
    let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    let execute = make_bitflags!(AccessFs::{ReadFile | Execute});
    let mut rules = ruleset()?;
    for path in READABLE {
        rules = allow_path(rules, Path::new(path), read)?;
    }
    for file in [Some(program), loader].into_iter().flatten() {
        rules = allow(rules, file, execute)?;
    }
    for file in confinement.readable.iter().filter(|file| !is_in_memory(**file)) {
        rules = allow(rules, file, read)?;
    }
    rules.restrict_self()
}

/// Whether a file is a memfd: on the kernel's own file systems there are no rules (EBADFD), and no walls.
fn is_in_memory(file: BorrowedFd<'_>) -> bool {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    link.is_ok_and(|link| link.as_os_str().as_bytes().starts_with(b"/memfd:"))
}

fn ruleset() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()
}

/// Allows what is at a path. Where there is nothing, nothing has to be allowed.
fn allow_path(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    match File::open(path) {
        Ok(file) => allow(rules, &file, access),
        Err(_) => Ok(rules),
    }
}

fn allow(
    rules: RulesetCreated,
    file: &impl AsFd,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    let is_directory = rustix::fs::fstat(file).is_ok_and(|stat| {
        rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory
    });
    let access = if is_directory { access } else { access & AccessFs::from_file(NEWEST) };
    rules.add_rule(PathBeneath::new(file.as_fd(), access))
}

fn layer(outcome: Result<RestrictionStatus, RulesetError>) -> Layer {
    let lacking = |why: &str| {
        let lack = format!("files and sockets are not closed to it by landlock: {why}");
        Layer::lacking("no landlock", lack)
    };
    match outcome.map(|status| status.landlock) {
        Ok(LandlockStatus::Available { effective_abi, .. }) => Layer::whole(said(effective_abi)),
        Ok(LandlockStatus::NotEnabled) => lacking(
            "the kernel has it, but it is not enabled; add landlock to lsm= on the kernel's \
             command line",
        ),
        Ok(_) => lacking(
            "the kernel has none (Linux 5.13 or later is needed), or a container forbids the \
             system calls landlock_create_ruleset, landlock_add_rule and landlock_restrict_self",
        ),
        Err(error) => lacking(&format!(
            "{error}; the system calls landlock_create_ruleset, landlock_add_rule and \
             landlock_restrict_self have to be allowed"
        )),
    }
}

/// What a kernel's landlock covers. What an older one lacks, the filter of system calls refuses too.
fn said(abi: ABI) -> String {
    let covers = match abi {
        ABI::V1 | ABI::V2 | ABI::V3 => "files; no ports before Linux 6.7",
        ABI::V4 | ABI::V5 => "files, ports; no other processes before Linux 6.12",
        _ => "files, ports, other processes",
    };
    format!("landlock {} ({covers})", abi as i32)
}
