//! The lists of system calls.

/// A system call, with any of some rules; without one it is meant whatever its arguments.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) number: i64,
    pub(super) rules: Vec<Rule>,
}

/// What has to hold of the arguments, all of it.
pub(super) type Rule = Vec<Test>;

/// What has to hold of one argument.
#[derive(Debug, Clone, Copy)]
pub(super) enum Test {
    /// The argument with this index has this value.
    Is(u8, u64),
    /// The argument with this index has this value in the bits of a mask.
    Masked(u8, u64, u64),
}

const EXECUTABLE: u64 = libc::PROT_EXEC as u64;
const WRITABLE: u64 = libc::PROT_WRITE as u64;
const ANONYMOUS: u64 = libc::MAP_ANONYMOUS as u64;
const SHARED: u64 = libc::MAP_SHARED as u64;
const THREAD: u64 = libc::CLONE_THREAD as u64;
/// Of `open`: everything by which a file is made or changed.
const CHANGING: u64 = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u64;
const O_ACCMODE: u64 = libc::O_ACCMODE as u64;
const O_RDONLY: u64 = libc::O_RDONLY as u64;
const O_WRONLY: u64 = libc::O_WRONLY as u64;
const O_RDWR: u64 = libc::O_RDWR as u64;

fn any(numbers: &[i64]) -> Vec<Call> {
    numbers.iter().map(|&number| Call { number, rules: Vec::new() }).collect()
}

fn only(number: i64, rules: impl IntoIterator<Item = Rule>) -> Call {
    Call { number, rules: rules.into_iter().collect() }
}

/// All that computing takes, and using the descriptors that are there.
///
/// No `stat` of any kind that takes a path: landlock would not refuse it.
fn computing() -> Vec<Call> {
    let mut calls = any(&[
        libc::SYS_read,
        libc::SYS_readv,
        libc::SYS_pread64,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_pwrite64,
        libc::SYS_lseek,
        libc::SYS_ftruncate,
        libc::SYS_fstat,
        libc::SYS_close,
        libc::SYS_ppoll,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_brk,
        libc::SYS_futex,
        libc::SYS_sched_yield,
        libc::SYS_clock_gettime,
        libc::SYS_clock_nanosleep,
        libc::SYS_nanosleep,
        libc::SYS_getrandom,
        libc::SYS_getrusage,
        libc::SYS_getpid,
        libc::SYS_gettid,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_restart_syscall,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ]);
    #[cfg(target_arch = "x86_64")]
    calls.extend(any(&[libc::SYS_poll]));
    let own = std::process::id().cast_signed();
    let commands = [
        libc::F_GETFD,
        libc::F_SETFD,
        libc::F_GETFL,
        libc::F_DUPFD_CLOEXEC,
        libc::F_ADD_SEALS,
        libc::F_GET_SEALS,
    ];
    calls.extend([
        // `abort` does this, and nobody else may be signalled.
        only(libc::SYS_tgkill, [vec![dword(0, own), dword(2, libc::SIGABRT)]]),
        // Not those that have the kernel send signals (F_SETOWN).
        only(libc::SYS_fcntl, commands.map(|command| vec![dword(1, command)])),
        // Of oneself: how many cores there are.
        only(libc::SYS_sched_getaffinity, [vec![dword(0, 0)], vec![dword(0, own)]]),
    ]);
    calls
}

/// An argument of 32 bits; what is in the upper half does not count for the kernel.
fn dword(argument: u8, value: i32) -> Test {
    Test::Masked(argument, u64::from(u32::MAX), u64::from(value.unsigned_abs()))
}

/// The closed list of a worker.
pub(super) fn allowed_to_worker() -> Vec<Call> {
    let mut calls = computing();
    // A cover is laid into a file in memory, whose size and number the limits bound.
    calls.extend(any(&[libc::SYS_recvmsg, libc::SYS_sendmsg, libc::SYS_memfd_create]));
    calls.extend([
        // `recv` and `send`, to the peer that the socket has.
        only(libc::SYS_recvfrom, [vec![Test::Is(4, 0)]]),
        only(libc::SYS_sendto, [vec![Test::Is(4, 0)]]),
        only(libc::SYS_mmap, [vec![Test::Masked(2, EXECUTABLE, 0)]]),
        only(libc::SYS_mprotect, [vec![Test::Masked(2, EXECUTABLE, 0)]]),
    ]);
    calls
}

/// The closed list of a program: it has to load its libraries, may have threads, and may look at files.
pub(super) fn allowed_to_program(writes_files: bool) -> Vec<Call> {
    let mut calls = computing();
    calls.extend(any(&[
        libc::SYS_execve,
        libc::SYS_newfstatat,
        libc::SYS_statx,
        libc::SYS_fstatfs,
        libc::SYS_faccessat,
        libc::SYS_faccessat2,
        libc::SYS_readlinkat,
        libc::SYS_getdents64,
        libc::SYS_getcwd,
        libc::SYS_fadvise64,
        libc::SYS_dup,
        libc::SYS_dup3,
        libc::SYS_set_tid_address,
        libc::SYS_set_robust_list,
        libc::SYS_rseq,
        libc::SYS_membarrier,
        libc::SYS_getcpu,
        libc::SYS_uname,
        libc::SYS_sysinfo,
        libc::SYS_gettimeofday,
        libc::SYS_clock_getres,
        libc::SYS_getuid,
        libc::SYS_geteuid,
        libc::SYS_getgid,
        libc::SYS_getegid,
        libc::SYS_clone3,
    ]));
    #[cfg(target_arch = "x86_64")]
    calls.extend(any(&[
        libc::SYS_stat,
        libc::SYS_lstat,
        libc::SYS_access,
        libc::SYS_readlink,
        libc::SYS_arch_prctl,
        libc::SYS_dup2,
        libc::SYS_time,
    ]));
    calls.extend([
        only(libc::SYS_clone, [vec![Test::Masked(0, THREAD, THREAD)]]),
        only(libc::SYS_prctl, [vec![dword(0, libc::PR_SET_NAME)]]),
        // To ask for its limits, never to change one.
        only(libc::SYS_prlimit64, [vec![Test::Is(2, 0)]]),
        only(libc::SYS_mmap, mapping()),
        only(libc::SYS_mprotect, [vec![Test::Masked(2, EXECUTABLE, 0)]]),
    ]);
    calls.extend(opening(writes_files));
    calls
}

/// Code is mapped, but nothing that can be written at the same time. No memory is mapped that is not
/// counted as data.
fn mapping() -> Vec<Rule> {
    let no_code = [Test::Masked(2, EXECUTABLE, 0), Test::Masked(2, WRITABLE, 0)];
    let private = [Test::Masked(3, ANONYMOUS, 0), Test::Masked(3, SHARED, 0)];
    no_code.iter().flat_map(|code| private.iter().map(|kind| vec![*code, *kind])).collect()
}

/// Landlock decides what can be opened. That nothing can be emptied by being opened for reading is
/// beyond the landlock of kernels before Linux 6.2.
fn opening(writes_files: bool) -> Vec<Call> {
    let rules = |argument| {
        let mut rules = vec![vec![Test::Masked(argument, CHANGING, O_RDONLY)]];
        if writes_files {
            let access = |wanted| vec![Test::Masked(argument, O_ACCMODE, wanted)];
            rules.extend([access(O_WRONLY), access(O_RDWR)]);
        }
        rules
    };
    let mut calls = vec![only(libc::SYS_openat, rules(2))];
    #[cfg(target_arch = "x86_64")]
    calls.push(only(libc::SYS_open, rules(1)));
    if writes_files {
        calls.extend(any(&[libc::SYS_unlinkat]));
        #[cfg(target_arch = "x86_64")]
        calls.extend(any(&[libc::SYS_unlink]));
    }
    calls
}

/// Whose arguments lie in memory where a filter cannot see them; what asks for it has another way.
pub(super) fn without_arguments_to_see() -> Vec<Call> {
    any(&[libc::SYS_clone3])
}

/// No decoder asks for any of this: neither the network, nor another program, nor other processes.
pub(super) fn deadly_to_worker() -> Vec<Call> {
    let mut calls = deadly_to_program();
    calls.extend(any(&[
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_socket,
        libc::SYS_connect,
        libc::SYS_bind,
        libc::SYS_listen,
        libc::SYS_accept,
        libc::SYS_accept4,
        libc::SYS_kill,
        libc::SYS_tkill,
    ]));
    // A thread is refused without harm: a library may try one and go on alone.
    calls.push(only(libc::SYS_clone, [vec![Test::Masked(0, THREAD, 0)]]));
    #[cfg(target_arch = "x86_64")]
    calls.extend(any(&[libc::SYS_fork, libc::SYS_vfork]));
    calls
}

/// What neither a decoder nor a program for pictures asks for: other processes' memory, other views of
/// the system, the privileged and the exotic.
pub(super) fn deadly_to_program() -> Vec<Call> {
    any(&[
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_pidfd_getfd,
        libc::SYS_pidfd_send_signal,
        libc::SYS_rt_sigqueueinfo,
        libc::SYS_rt_tgsigqueueinfo,
        libc::SYS_io_uring_setup,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_name_to_handle_at,
        libc::SYS_open_by_handle_at,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_kexec_load,
        libc::SYS_reboot,
        libc::SYS_personality,
    ])
}
