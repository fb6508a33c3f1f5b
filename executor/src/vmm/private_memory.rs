//! Gives QEMU a snapshot's memory file that it can read and map privately, and cannot change.
//!
//! QEMU 7.2 insists on opening the file of a machine's memory for reading *and* writing, although
//! a private mapping needs reading only; its `readonly=on` makes the machine's memory unwritable
//! too. So a clone would hold a descriptor through which the memory of all clones can be changed
//! (and through which QEMU punches holes when a guest gives memory back). Instead, a seccomp
//! filter hands the process's attempts to open something for writing to this module, which answers
//! the one for the made-up name [`NAME`] with a read-only descriptor, and lets the others proceed.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::error::VmmError;

/// The name under which QEMU opens the memory; there is no such file.
pub(super) const NAME: &str = "/nullspace/machine-memory";

/// The child's part: installs the filter in itself and sends the listener to its parent.
#[derive(Debug)]
pub(super) struct Filter {
    socket: UnixStream,
}

/// Makes the filter for a process to be started, and answers for `memory` from then on.
///
/// The thread that answers ends with that process, or when it is never started.
pub(super) fn guard(memory: File) -> Result<Filter, VmmError> {
    let (ours, theirs) = UnixStream::pair().map_err(VmmError::system("make a pair of sockets"))?;
    thread::Builder::new()
        .name("vmm-memory".to_owned())
        .spawn(move || {
            let served = receive_listener(&ours).and_then(|listener| match listener {
                Some(listener) => serve(&listener, &memory),
                None => Ok(()),
            });
            if let Err(error) = served {
                // QEMU's attempt then fails, and so does the restore, with QEMU's words.
                tracing::warn!(%error, "a machine's memory could not be handed over");
            }
        })
        .map_err(VmmError::system("start a thread"))?;
    Ok(Filter { socket: theirs })
}

// Classic BPF, as in <linux/bpf_common.h>: load a word of `struct seccomp_data`, and, compare.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
// Offsets into `struct seccomp_data`.
const AT_NUMBER: u32 = 0;
const AT_ARCHITECTURE: u32 = 4;
const AT_ARGUMENT_2_LOW: u32 = 32;
// From <linux/audit.h>, <asm/unistd_64.h>, <fcntl.h>.
const ARCHITECTURE_X86_64: u32 = 0xc000_003e;
const OPENAT: u32 = 257;
const ACCESS_MODE: u32 = 3;
const READ_WRITE: u32 = 2;

const fn step(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// Asks us about `openat` for reading and writing, and allows everything else.
const PROGRAM: [libc::sock_filter; 9] = [
    step(LOAD, AT_ARCHITECTURE, 0, 0),
    step(JUMP_IF_EQUAL, ARCHITECTURE_X86_64, 0, 5),
    step(LOAD, AT_NUMBER, 0, 0),
    step(JUMP_IF_EQUAL, OPENAT, 0, 3),
    step(LOAD, AT_ARGUMENT_2_LOW, 0, 0),
    step(AND, ACCESS_MODE, 0, 0),
    step(JUMP_IF_EQUAL, READ_WRITE, 1, 0),
    step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
    step(RETURN, libc::SECCOMP_RET_USER_NOTIF, 0, 0),
];

impl Filter {
    /// Installs the filter in the calling process, between fork and exec: it may not allocate.
    ///
    /// The process may gain no privileges any more when it calls this.
    pub(super) fn install(&self) -> io::Result<()> {
        let mut program = PROGRAM;
        let filter = libc::sock_fprog {
            len: 9,
            filter: program.as_mut_ptr(),
        };
        #[expect(unsafe_code, reason = "seccomp has no safe wrapper")]
        // SAFETY: `filter` and the program that it points to live until the call returns; the
        // descriptor that it gives belongs to nobody else.
        let listener = unsafe {
            let fd = libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
                &raw const filter,
            );
            let fd = libc::c_int::try_from(fd).unwrap_or(-1);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let fds = [listener.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let message = [IoSlice::new(b".")];
        sendmsg(&self.socket, &message, &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

/// The listener that the child sends; nothing if it is never started.
fn receive_listener(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0_u8; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut message = [IoSliceMut::new(&mut byte)];
    recvmsg(socket, &mut message, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let listener = control.drain().find_map(|message| {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message {
            fds.next()
        } else {
            None
        }
    });
    Ok(listener)
}

fn ioctl<T>(listener: BorrowedFd<'_>, request: libc::Ioctl, value: &mut T) -> io::Result<()> {
    #[expect(unsafe_code, reason = "the listener is driven by ioctls")]
    // SAFETY: each caller passes a live, exclusive value of the type that the request names.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), request, std::ptr::from_mut(value)) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Answers until no process has the filter any more.
fn serve(listener: &OwnedFd, memory: &File) -> io::Result<()> {
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        let [ready] = fds;
        if !ready.revents().contains(PollFlags::IN) {
            return Ok(());
        }
        #[expect(unsafe_code, reason = "the kernel insists on a zeroed structure")]
        // SAFETY: plain data for which zeroes are valid.
        let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        match ioctl(listener.as_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &mut asked) {
            Ok(()) => {}
            // The process died, or was interrupted, between the report and the look at it.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        match answer(listener, &asked, memory) {
            // The process died meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            other => other?,
        }
    }
}

fn answer(listener: &OwnedFd, asked: &libc::seccomp_notif, memory: &File) -> io::Result<()> {
    if names_memory(asked).unwrap_or(false) {
        let mut give = libc::seccomp_notif_addfd {
            id: asked.id,
            flags: u32::try_from(libc::SECCOMP_ADDFD_FLAG_SEND).map_err(io::Error::other)?,
            srcfd: u32::try_from(memory.as_raw_fd()).map_err(io::Error::other)?,
            newfd: 0,
            newfd_flags: u32::try_from(libc::O_CLOEXEC).map_err(io::Error::other)?,
        };
        return ioctl(listener.as_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &mut give);
    }
    let mut proceed = libc::seccomp_notif_resp {
        id: asked.id,
        val: 0,
        error: 0,
        flags: u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).map_err(io::Error::other)?,
    };
    ioctl(
        listener.as_fd(),
        libc::SECCOMP_IOCTL_NOTIF_SEND,
        &mut proceed,
    )
}

/// Whether the path that is being opened is [`NAME`].
fn names_memory(asked: &libc::seccomp_notif) -> io::Result<bool> {
    let [_, path, ..] = asked.data.args;
    let process = File::open(format!("/proc/{}/mem", asked.pid))?;
    let mut name = [0_u8; NAME.len() + 1];
    process.read_exact_at(&mut name, path)?;
    Ok(name.strip_suffix(b"\0") == Some(NAME.as_bytes()))
}
