//! The system calls that a step may make.
//!
//! An allow list, by purpose. What would reach beyond the step's own namespaces is refused with
//! `EPERM`: new namespaces and entering others, mounts, keyrings, BPF, performance events, kernel
//! modules, another kernel, swap, clocks. Anything not listed, today's or tomorrow's, is `ENOSYS`, for
//! which C libraries have a fallback; so is `clone3`, whose flags lie in memory where a filter cannot
//! look. `fallocate` takes space faster than anybody can watch, so it answers as on a filesystem that
//! has no such thing, for which C libraries have a fallback too; giving space back is allowed.
//!
//! `ptrace` and reading other processes' memory stay: debuggers and test suites of packages need them,
//! and they reach only processes that the step sees, which are its own.
//!
//! Only the host's own architecture is served: programs of another one (also 32-bit x86) are
//! killed at their first call.

use serde_json::{Value, json};

/// `ENOSYS`: the answer to an unknown call.
const ENOSYS: i32 = 38;
/// `EPERM`: the answer to a refused call.
const EPERM: i32 = 1;
/// `EOPNOTSUPP`: the answer of filesystems that cannot do what was asked.
const EOPNOTSUPP: i32 = 95;
/// The mode of `fallocate` that gives space back (`PUNCH_HOLE` and `KEEP_SIZE`).
const PUNCH_HOLE: u64 = 3;
/// The flags of `clone` and `unshare` that make namespaces: mount, cgroup, UTS, IPC, user, PID, net.
const NEW_NAMESPACES: u64 = 0x7E02_0000;
/// The flag of `unshare` that makes a time namespace; in `clone` the bit belongs to the exit signal.
const NEW_TIME_NAMESPACE: u64 = 0x80;
/// The socket families of a step: Unix, IPv4, IPv6.
const SOCKET_FAMILIES: [u64; 3] = [1, 2, 10];
/// Netlink sockets, and the parts of the kernel that a step may speak to with them: routes, because
/// name resolution lists addresses; audit, because `login` and `su` write to it; device events.
const NETLINK: (u64, [u64; 3]) = (16, [0, 9, 15]);
/// The execution domains of a step: Linux with and without the 2.6 version and short inode flags.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Files, folders and their metadata.
const FILES: &str = "
    access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat
    faccessat2 fadvise64 fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl
    fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstatfs fsync ftruncate
    futimesat getcwd getdents getdents64 getxattr inotify_add_watch inotify_init inotify_init1
    inotify_rm_watch ioctl lchown lgetxattr link linkat listxattr llistxattr lremovexattr lseek
    lsetxattr lstat mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2
    pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv
    removexattr rename renameat renameat2 rmdir sendfile setxattr splice stat statfs statx
    symlink symlinkat sync sync_file_range syncfs tee truncate umask unlink unlinkat utime
    utimensat utimes vmsplice write writev chroot";

/// Memory.
const MEMORY: &str = "
    brk cachestat madvise memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mprotect
    mremap msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_madvise
    process_mrelease remap_file_pages map_shadow_stack";

/// Processes, threads, scheduling, identity.
const PROCESSES: &str = "
    arch_prctl capget capset execve execveat exit exit_group fork futex futex_requeue futex_wait
    futex_waitv futex_wake get_robust_list get_thread_area getcpu getegid geteuid getgid
    getgroups getpgid getpgrp getpid getppid getpriority getresgid getresuid getrlimit getrusage
    getsid gettid getuid ioprio_get ioprio_set kcmp landlock_add_rule landlock_create_ruleset
    landlock_restrict_self membarrier modify_ldt pause pidfd_getfd pidfd_open pidfd_send_signal
    prctl prlimit64 process_vm_readv process_vm_writev ptrace restart_syscall rseq
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
    sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam
    sched_setscheduler sched_yield seccomp set_robust_list set_thread_area set_tid_address
    setfsgid setfsuid setgid setgroups setpgid setpriority setregid setresgid setresuid setreuid
    setrlimit setsid setuid sysinfo times uname vfork wait4 waitid";

/// Signals, events, time.
const EVENTS: &str = "
    adjtimex alarm clock_adjtime clock_getres clock_gettime clock_nanosleep epoll_create
    epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old
    eventfd eventfd2 getitimer gettimeofday kill nanosleep poll ppoll pselect6 rt_sigaction
    rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
    rt_tgsigqueueinfo select setitimer sigaltstack signalfd signalfd4 tgkill time timer_create
    timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime
    timerfd_settime tkill getrandom";

/// Sockets, pipes, System V and POSIX message passing.
const MESSAGES: &str = "
    accept accept4 bind connect getpeername getsockname getsockopt io_cancel io_destroy
    io_getevents io_pgetevents io_setup io_submit listen mq_getsetattr mq_notify mq_open
    mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd pipe pipe2 recvfrom
    recvmmsg recvmsg semctl semget semop semtimedop sendmmsg sendmsg sendto setsockopt shmat
    shmctl shmdt shmget shutdown socketpair";

/// Refused with `EPERM`, because programs that try them expect that answer: namespaces and mounts,
/// keyrings (which are not namespaced), the kernel itself, the host's clock, names and memory nodes.
const REFUSED: &str = "
    setns mount mount_setattr move_mount open_tree fsconfig fsmount fsopen fspick umount umount2
    pivot_root open_by_handle_at quotactl quotactl_fd add_key keyctl request_key bpf
    perf_event_open userfaultfd init_module finit_module delete_module create_module kexec_load
    kexec_file_load reboot swapon swapoff acct syslog lookup_dcookie nfsservctl iopl ioperm
    uselib ustat _sysctl sysfs vhangup clock_settime settimeofday stime sethostname
    setdomainname get_mempolicy set_mempolicy set_mempolicy_home_node mbind migrate_pages
    move_pages";

/// Everything that is always allowed.
const ALLOWED: [&str; 5] = [FILES, MEMORY, PROCESSES, EVENTS, MESSAGES];

/// The profile, as the runtime's configuration has it.
pub(super) fn profile() -> Value {
    let allowed: Vec<&str> = ALLOWED
        .into_iter()
        .flat_map(str::split_ascii_whitespace)
        .collect();
    let refused: Vec<&str> = REFUSED.split_ascii_whitespace().collect();
    let architecture = if cfg!(target_arch = "aarch64") {
        "SCMP_ARCH_AARCH64"
    } else {
        "SCMP_ARCH_X86_64"
    };
    let mut rules = vec![
        json!({ "names": allowed, "action": "SCMP_ACT_ALLOW" }),
        json!({ "names": refused, "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM }),
        without_flags("clone", NEW_NAMESPACES),
        without_flags("unshare", NEW_NAMESPACES | NEW_TIME_NAMESPACE),
        json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS }),
        with_argument("fallocate", 1, PUNCH_HOLE),
        // A rule for all modes would not go together with the one above: this one is for the others.
        json!({
            "names": ["fallocate"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": EOPNOTSUPP,
            "args": [{ "index": 1, "value": PUNCH_HOLE, "op": "SCMP_CMP_NE" }],
        }),
    ];
    let (netlink, protocols) = NETLINK;
    rules.extend(protocols.map(|protocol| {
        json!({
            "names": ["socket"],
            "action": "SCMP_ACT_ALLOW",
            "args": [
                { "index": 0, "value": netlink, "op": "SCMP_CMP_EQ" },
                { "index": 2, "value": protocol, "op": "SCMP_CMP_EQ" },
            ],
        })
    }));
    rules.extend(SOCKET_FAMILIES.map(|family| with_argument("socket", 0, family)));
    rules.extend(PERSONALITIES.map(|persona| with_argument("personality", 0, persona)));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": ENOSYS,
        "architectures": [architecture],
        "syscalls": rules,
    })
}

/// Allows `name` when its argument `index` is `value`.
fn with_argument(name: &str, index: u32, value: u64) -> Value {
    json!({
        "names": [name],
        "action": "SCMP_ACT_ALLOW",
        "args": [{ "index": index, "value": value, "op": "SCMP_CMP_EQ" }],
    })
}

/// Allows `name` when its first argument has none of `flags`.
fn without_flags(name: &str, flags: u64) -> Value {
    json!({
        "names": [name],
        "action": "SCMP_ACT_ALLOW",
        "args": [{ "index": 0, "value": flags, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }],
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_call_is_both_allowed_and_refused() {
        let mut seen = BTreeSet::new();
        for name in ALLOWED
            .into_iter()
            .chain([REFUSED])
            .flat_map(str::split_ascii_whitespace)
        {
            assert!(seen.insert(name), "{name} is listed twice");
        }
        for conditional in [
            "clone",
            "clone3",
            "unshare",
            "socket",
            "personality",
            "fallocate",
        ] {
            assert!(
                !seen.contains(&conditional),
                "{conditional} has rules of its own"
            );
        }
    }
}
