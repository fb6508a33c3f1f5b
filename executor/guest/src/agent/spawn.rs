//! Starts a process: its user, its folder, its environment, its control group.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use super::sys;
use super::users::{self, User};

/// What to start.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    pub(crate) argv: Vec<&'a str>,
    pub(crate) env: &'a [(String, String)],
    pub(crate) user: Option<&'a str>,
    pub(crate) cwd: Option<&'a str>,
}

/// A process that was started: its id, which is also its group's, and its output pipes.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pid: i32,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// Starts `program` in the control group behind `members`.
///
/// The reason of a failure is for the host's user: an unknown user, a missing folder or program.
pub(crate) fn spawn(program: &Program<'_>, members: RawFd) -> Result<Started, String> {
    let (name, args) = program
        .argv
        .split_first()
        .ok_or("there is no command to run")?;
    let user = users::resolve(program.user)?;
    let cwd = program.cwd.unwrap_or("/");
    let folder = CString::new(cwd).map_err(|_| "the working directory has a NUL in its name")?;
    // Looked at beforehand: afterwards a missing folder and a missing program look alike.
    if !std::path::Path::new(cwd).is_dir() {
        return Err(format!(
            "the working directory `{cwd}` is not a folder in the machine"
        ));
    }
    let mut command = Command::new(name);
    command
        .args(args)
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("HOME", &user.home)
        .env("USER", &user.name)
        .envs(program.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    #[expect(
        unsafe_code,
        reason = "the child takes its identity between fork and exec"
    )]
    // SAFETY: `become_user` makes only system calls and allocates nothing: what it needs was
    // allocated before the fork and is owned by the closure.
    unsafe {
        command.pre_exec(move || become_user(&user, &folder, members));
    }
    let mut child = command
        .spawn()
        .map_err(|error| format!("cannot start `{name}`: {error}"))?;
    let pid = i32::try_from(child.id()).map_err(|_| "the process id is out of range")?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err("the command has no output pipes".to_owned());
    };
    let (stdout, stderr) = (OwnedFd::from(stdout), OwnedFd::from(stderr));
    for pipe in [&stdout, &stderr] {
        sys::set_nonblocking(pipe.as_fd()).map_err(|error| {
            sys::kill_group(pid);
            format!("cannot watch the output of `{name}`: {error}")
        })?;
    }
    Ok(Started {
        pid,
        stdout,
        stderr,
    })
}

/// Runs in the child, between fork and exec.
fn become_user(user: &User, folder: &CString, members: RawFd) -> io::Result<()> {
    fn check(result: i64) -> io::Result<()> {
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
    #[expect(
        unsafe_code,
        reason = "identity and session calls have no safe wrappers"
    )]
    // SAFETY: every pointer is to memory that lives until its call returns; raw system calls are
    // used for identities because there is one thread here and nothing to tell other threads.
    unsafe {
        if libc::write(members, c"0".as_ptr().cast(), 1) != 1 {
            return Err(io::Error::last_os_error());
        }
        check(libc::setsid().into())?;
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()).into())?;
        check(libc::syscall(
            libc::SYS_setgroups,
            user.groups.len(),
            user.groups.as_ptr(),
        ))?;
        check(libc::syscall(libc::SYS_setgid, user.gid))?;
        check(libc::syscall(libc::SYS_setuid, user.uid))?;
        check(libc::chdir(folder.as_ptr()).into())
    }
}
