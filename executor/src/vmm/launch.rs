//! Starts QEMU: with nothing but its own descriptors, as nobody, and never longer than we live.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{OnceLock, mpsc};
use std::thread;

use rustix::process::{Pid, Resource, Rlimit, Signal, getpid, getppid, setrlimit};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::process::Child;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::error::VmmError;
use super::private_memory::Filter;
use crate::holdings::{Held, Holdings, Thing};
use crate::process::Tool;

/// What to start, and what it is given.
#[derive(Debug)]
pub(super) struct Launch {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    /// The descriptors that it inherits, under the same numbers.
    pub(super) inherit: Vec<OwnedFd>,
    /// The network namespace that it runs in; without it, ours.
    pub(super) namespace: Option<File>,
    /// Its user and group.
    pub(super) uid: u32,
    /// One more group, where a device needs it.
    pub(super) group: Option<u32>,
    /// The filter through which it opens its memory, if that must not be writable.
    pub(super) memory: Option<Filter>,
    /// The list of whoever it is for.
    pub(super) holdings: Holdings,
}

/// What was started, and what stands for it on the list.
pub(super) type Launched = (Child, Held);

type Job = Box<dyn FnOnce() + Send>;

/// The thread that starts all processes.
///
/// A process that dies with its parent dies with the *thread* that started it, and the threads of
/// a runtime come and go. This one lives as long as the program.
fn starter() -> Result<mpsc::Sender<Job>, VmmError> {
    static STARTER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    if let Some(sender) = STARTER.get() {
        return Ok(sender.clone());
    }
    let (sender, receiver) = mpsc::channel::<Job>();
    thread::Builder::new()
        .name("vmm-starter".to_owned())
        .spawn(move || {
            for job in receiver {
                job();
            }
        })
        .map_err(VmmError::system("start a thread"))?;
    // A thread that came second ends at once, because its sender goes.
    Ok(STARTER.get_or_init(|| sender).clone())
}

/// Starts it; the descriptors that it inherits are closed on this side.
pub(super) async fn launch(launch: Launch) -> Result<Launched, VmmError> {
    let runtime = Handle::current();
    let (sender, receiver) = oneshot::channel();
    let job: Job = Box::new(move || {
        let _entered = runtime.enter();
        // A caller that gave up drops the child, which kills it.
        let _given_up = sender.send(start(launch));
    });
    let gone = || VmmError::System {
        doing: "start QEMU",
        source: io::Error::other("the thread that starts processes is gone"),
    };
    starter()?.send(job).map_err(|_| gone())?;
    receiver
        .await
        .map_err(|_| gone())?
        .map_err(VmmError::system("start QEMU"))
}

fn start(launch: Launch) -> io::Result<Launched> {
    let Launch {
        program,
        arguments,
        inherit,
        namespace,
        uid,
        group,
        memory,
        holdings,
    } = launch;
    let mut command = Tool::new(program).args(arguments).command();
    command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0);
    let parent = getpid();
    let groups: Vec<_> = group
        .map(rustix::thread::Gid::from_raw)
        .into_iter()
        .collect();
    let prepare = move || {
        let namespace = namespace.as_ref().map(File::as_fd);
        drop_privileges(parent, namespace, &inherit, uid, &groups)?;
        if let Some(filter) = &memory {
            filter.install()?;
        }
        Ok(())
    };
    #[expect(
        unsafe_code,
        reason = "the child gives up its privileges between fork and exec"
    )]
    // SAFETY: `prepare` makes only system calls; what it reads was allocated before the fork.
    unsafe {
        command.pre_exec(prepare);
    }
    // Dropping the command afterwards closes our ends of what it inherits.
    let child = command.spawn()?;
    // Here, because a caller that has given up meanwhile gets no child to name.
    let process = child.id().map(|pid| Thing::process("QEMU", pid));
    let held = holdings.hold(process);
    Ok((child, held))
}

/// Runs in the child, between fork and exec: it may not allocate.
fn drop_privileges(
    parent: Pid,
    namespace: Option<BorrowedFd<'_>>,
    inherit: &[OwnedFd],
    uid: u32,
    groups: &[rustix::thread::Gid],
) -> io::Result<()> {
    use rustix::thread::{Gid, Uid};
    if let Some(namespace) = namespace {
        move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
    }
    for fd in inherit {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
    }
    // The memory of a guest belongs into no core file.
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(uid));
    rustix::thread::set_thread_groups(groups)?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    rustix::thread::set_no_new_privs(true)?;
    // After the change of user, which clears it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() == Some(parent) {
        Ok(())
    } else {
        // The parent died before it could be noticed.
        Err(io::ErrorKind::BrokenPipe.into())
    }
}
