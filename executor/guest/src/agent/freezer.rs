//! Stops and resumes all of the machine's processes together, without their noticing.
//!
//! They live in one control group. A signal would be seen by parents and shells; a frozen group
//! is not. A snapshot is taken while it is frozen, so in a clone nothing runs before the clone has
//! its own entropy and the right time.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use super::failure::{Doing as _, Failure};
use super::sys;

const GROUP: &str = "/sys/fs/cgroup/nullspace";

/// How long all processes may take to stop; one that waits for its disk takes longest.
const FREEZE_SECONDS_MAX: u64 = 10;

/// The control group of everything that the host asked to run.
#[derive(Debug)]
pub(crate) struct Freezer {
    members: File,
    state: File,
}

impl Freezer {
    /// Makes the group.
    pub(crate) fn create() -> Result<Self, Failure> {
        let group = Path::new(GROUP);
        fs::create_dir_all(group).doing(|| format!("make {GROUP}"))?;
        let open = |name: &str| {
            let path = group.join(name);
            OpenOptions::new()
                .write(true)
                .open(&path)
                .doing(|| format!("open {}", path.display()))
        };
        Ok(Self {
            members: open("cgroup.procs")?,
            state: open("cgroup.freeze")?,
        })
    }

    /// The descriptor to which a new process writes `0` to join.
    pub(crate) fn members(&self) -> RawFd {
        self.members.as_raw_fd()
    }

    /// Stops every process of the group and waits until all of them have stopped.
    pub(crate) fn freeze(&mut self) -> Result<(), Failure> {
        self.set(b"1")?;
        let events = Path::new(GROUP).join("cgroup.events");
        let deadline = Instant::now() + Duration::from_secs(FREEZE_SECONDS_MAX);
        let file = File::open(&events).doing(|| format!("open {}", events.display()))?;
        loop {
            let text = std::io::read_to_string(&file)
                .and_then(|text| (&file).rewind().map(|()| text))
                .doing(|| format!("read {}", events.display()))?;
            if text.lines().any(|line| line == "frozen 1") {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.thaw()?;
                return Err(Failure::other(
                    "stop the machine's processes",
                    "one of them does not stop",
                ));
            }
            let mut fds = [libc::pollfd {
                fd: file.as_raw_fd(),
                events: libc::POLLPRI,
                revents: 0,
            }];
            // A second look each 50 ms covers a change between the read and the wait.
            sys::poll(&mut fds, 50).doing(|| "wait for processes to stop".to_owned())?;
        }
    }

    /// Lets the processes of the group run.
    pub(crate) fn thaw(&mut self) -> Result<(), Failure> {
        self.set(b"0")
    }

    fn set(&mut self, value: &[u8]) -> Result<(), Failure> {
        self.state
            .rewind()
            .and_then(|()| self.state.write_all(value))
            .doing(|| "change the state of the process group".to_owned())
    }
}
