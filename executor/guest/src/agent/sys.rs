//! The system calls of the agent: thin, safe wrappers, and the only home of most `unsafe` here.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;

use guest::protocol::ExitOutcome;

/// Turns a C return value into a result.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn c_string(text: impl AsRef<OsStr>) -> io::Result<CString> {
    CString::new(text.as_ref().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Writes a line to the console.
pub(crate) fn say(line: &str) {
    // There is nobody to tell that the console failed.
    let _ignored = writeln!(io::stderr(), "{line}");
}

/// Ends the machine; QEMU is told to exit instead of restarting it.
pub(crate) fn restart() -> ! {
    #[expect(unsafe_code, reason = "sync and reboot have no safe wrapper")]
    // SAFETY: neither call takes a pointer. `reboot` does not come back for PID 1.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_AUTOBOOT);
    }
    loop {
        #[expect(unsafe_code, reason = "pause has no safe wrapper")]
        // SAFETY: no arguments.
        unsafe {
            libc::pause();
        }
    }
}

/// Mounts `source` of type `kind` on `target`.
pub(crate) fn mount(
    source: &str,
    target: &Path,
    kind: &str,
    flags: libc::c_ulong,
    options: &str,
) -> io::Result<()> {
    let (source, target, kind) = (c_string(source)?, c_string(target)?, c_string(kind)?);
    let options = c_string(options)?;
    #[expect(unsafe_code, reason = "mount has no safe wrapper")]
    // SAFETY: all four pointers are to C strings that live until the call returns.
    let result = unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            options.as_ptr().cast(),
        )
    };
    check(result).map(drop)
}

/// Makes the current folder the root of this process.
pub(crate) fn chroot_here() -> io::Result<()> {
    #[expect(unsafe_code, reason = "chroot has no safe wrapper")]
    // SAFETY: the pointer is to a constant C string.
    check(unsafe { libc::chroot(c".".as_ptr()) }).map(drop)
}

/// Loads a kernel module; one that is loaded already is fine.
pub(crate) fn load_module(file: &File) -> io::Result<()> {
    #[expect(unsafe_code, reason = "finit_module has no wrapper at all")]
    // SAFETY: the descriptor is open and the parameters are a constant C string.
    let result =
        unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    if result < 0 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EEXIST) {
            return Err(error);
        }
    }
    Ok(())
}

/// Sets the machine's host name.
pub(crate) fn set_hostname(name: &str) -> io::Result<()> {
    #[expect(unsafe_code, reason = "sethostname has no safe wrapper")]
    // SAFETY: pointer and length are of one slice.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// Sets the wall clock.
pub(crate) fn set_wall_clock(nanoseconds: u64) -> io::Result<()> {
    const PER_SECOND: u64 = 1_000_000_000;
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let time = libc::timespec {
        tv_sec: i64::try_from(nanoseconds / PER_SECOND).map_err(invalid)?,
        tv_nsec: i64::try_from(nanoseconds % PER_SECOND).map_err(invalid)?,
    };
    #[expect(unsafe_code, reason = "clock_settime has no safe wrapper")]
    // SAFETY: the pointer is to a live value.
    check(unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) }).map(drop)
}

/// An ioctl that takes a plain number.
pub(crate) fn ioctl_number(file: &File, request: libc::c_ulong, value: u64) -> io::Result<()> {
    #[expect(unsafe_code, reason = "ioctl has no safe wrapper")]
    // SAFETY: the callers' requests (FIFREEZE, FITHAW, RNDRESEEDCRNG) read no memory.
    check(unsafe { libc::ioctl(file.as_raw_fd(), request, value) }).map(drop)
}

/// An ioctl that reads or writes `value`.
///
/// The caller names a request whose argument is exactly a `T`.
pub(crate) fn ioctl_value<T>(
    file: BorrowedFd<'_>,
    request: libc::c_ulong,
    value: &mut T,
) -> io::Result<()> {
    #[expect(unsafe_code, reason = "ioctl has no safe wrapper")]
    // SAFETY: the pointer is to a live, exclusive `T`, which is what the request works on.
    check(unsafe { libc::ioctl(file.as_raw_fd(), request, ptr::from_mut(value)) }).map(drop)
}

/// A descriptor on which SIGCHLD arrives as data; the signal is blocked.
pub(crate) fn child_signals() -> io::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "signalfd and its mask have no safe wrapper")]
    // SAFETY: the set is initialised by `sigemptyset` before it is read, and outlives the calls;
    // the descriptor that `signalfd` gives belongs to nobody else.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        check(libc::sigemptyset(&raw mut set))?;
        check(libc::sigaddset(&raw mut set, libc::SIGCHLD))?;
        check(libc::sigprocmask(
            libc::SIG_BLOCK,
            &raw const set,
            ptr::null_mut(),
        ))?;
        let flags = libc::SFD_NONBLOCK | libc::SFD_CLOEXEC;
        let fd = check(libc::signalfd(-1, &raw const set, flags))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Makes reads and writes of a descriptor come back at once.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    #[expect(unsafe_code, reason = "fcntl has no safe wrapper")]
    // SAFETY: the descriptor is open and neither call takes a pointer.
    unsafe {
        let flags = check(libc::fcntl(fd.as_raw_fd(), libc::F_GETFL))?;
        check(libc::fcntl(
            fd.as_raw_fd(),
            libc::F_SETFL,
            flags | libc::O_NONBLOCK,
        ))?;
    }
    Ok(())
}

/// Waits until a descriptor is ready, at most `timeout_ms` (-1: for ever). False when interrupted.
pub(crate) fn poll(fds: &mut [libc::pollfd], timeout_ms: i32) -> io::Result<bool> {
    let count = libc::nfds_t::try_from(fds.len()).map_err(io::Error::other)?;
    #[expect(unsafe_code, reason = "poll has no safe wrapper")]
    // SAFETY: pointer and count are of one exclusive slice.
    match check(unsafe { libc::poll(fds.as_mut_ptr(), count, timeout_ms) }) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes one ended child, if there is one: its id and how it ended.
pub(crate) fn reap() -> Option<(i32, ExitOutcome)> {
    let mut status = 0;
    #[expect(unsafe_code, reason = "waitpid has no safe wrapper")]
    // SAFETY: the pointer is to a live value.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    if pid <= 0 {
        return None;
    }
    let outcome = if libc::WIFSIGNALED(status) {
        ExitOutcome::Signal(libc::WTERMSIG(status))
    } else {
        ExitOutcome::Code(libc::WEXITSTATUS(status))
    };
    Some((pid, outcome))
}

/// Sends SIGKILL to a process group, or with -1 to every process but this one.
pub(crate) fn kill_group(group: i32) {
    #[expect(unsafe_code, reason = "kill has no safe wrapper")]
    // SAFETY: no pointers. A group that is gone already is no error to anybody.
    unsafe {
        libc::kill(if group == -1 { -1 } else { -group }, libc::SIGKILL);
    }
}

/// The sizes of the file system that `path` is on.
pub(crate) fn file_system_sizes(path: &Path) -> io::Result<libc::statvfs> {
    let path = c_string(path)?;
    #[expect(unsafe_code, reason = "statvfs has no safe wrapper")]
    // SAFETY: `statvfs` is plain data for which zeroes are valid; both pointers are to live values.
    unsafe {
        let mut sizes: libc::statvfs = std::mem::zeroed();
        check(libc::statvfs(path.as_ptr(), &raw mut sizes))?;
        Ok(sizes)
    }
}

/// Lets this process and its children have as many descriptors as a service usually may.
pub(crate) fn raise_descriptor_limit(soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: soft,
        rlim_max: hard,
    };
    #[expect(unsafe_code, reason = "setrlimit has no safe wrapper")]
    // SAFETY: the pointer is to a live value.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }).map(drop)
}

/// Writes all changed data of all file systems back.
pub(crate) fn sync_all() {
    #[expect(unsafe_code, reason = "sync has no safe wrapper")]
    // SAFETY: no arguments.
    unsafe {
        libc::sync();
    }
}

/// The release of the running kernel.
pub(crate) fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| String::new(), |text| text.trim().to_owned())
}
