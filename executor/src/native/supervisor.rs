//! The process above a step's container: when it goes, everything below it goes.
//!
//! ```text
//! service ── unshare (outer) ── sh (PID 1 of a namespace) ── runc ── the step's processes
//!    └────── pipe ("lifeline") ──────┘
//! ```
//!
//! The shell is the first process of a PID namespace of its own, so its end is the end of every process
//! in it, whatever signals they ignore. It ends when the runtime has ended, when the outer process is
//! killed (`--kill-child`), and when the lifeline is closed: by us, to kill the step, or by the kernel,
//! when the service dies. Its mounts are its own too, the step's root filesystem among them; none is
//! ever on the host.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::process::Stdio;

use tokio::process::{Child, ChildStdin};

use super::identity::own_mounts;
use super::step_root::{StepRoot, attach};
use crate::process::{ProcessError, Tool};

/// What the shell does. `$1`: network namespace or `-`; `$2`: where the runtime finds it; `$3`: where it
/// finds the `/sys` of that network; `$4`: the root filesystem as `/proc/mounts` writes it; the rest: the
/// runtime's command line.
///
/// The network belongs to the host's user namespace, so that nothing in the step has power over it. For
/// the same reason the runtime, which mounts in the step's, could not mount its `/sys`.
///
/// Mounts of other steps, which the new mount namespace copied, are let go: a step must not keep its
/// neighbour's overlay busy. The runtime reads `/proc`, so that has to be this namespace's own.
const SCRIPT: &str = r#"
netns=$1 place=$2 sys=$3 rootfs=$4
shift 4
if [ "$netns" != - ]; then
    : > "$place" && mkdir -p "$sys" && mount --bind "$netns" "$place" &&
        nsenter --net="$place" mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$sys" || exit 125
fi
while read -r _ dir type _; do
    [ "$type" = overlay ] || continue
    case "$rootfs/" in "${dir%/}"/*) continue ;; esac
    umount -l -- "$dir" 2> /dev/null
done < /proc/self/mounts
mount -t proc proc /proc || exit 125
exec 3<&0 < /dev/null
trap 'exit 137' TERM
{ read -r _; kill -TERM 1; } <&3 > /dev/null 2>&1 &
"$@" 3<&- &
wait $!
exit $?
"#;

/// A started supervisor.
#[derive(Debug)]
pub(super) struct Supervisor {
    /// The outer process, with its output streams.
    pub(super) child: Child,
    /// Dropping it kills the step.
    pub(super) lifeline: Option<ChildStdin>,
}

/// A network namespace and where the runtime finds what belongs to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Network<'a> {
    /// The namespace.
    pub(super) namespace: &'a Path,
    /// Where it is bound.
    pub(super) place: &'a Path,
    /// Where its `/sys` is mounted.
    pub(super) sys: &'a Path,
}

impl Supervisor {
    /// Starts `runtime` below a supervisor that sees `root` at `place`.
    ///
    /// # Errors
    /// [`ProcessError::Start`].
    pub(super) fn start(
        root: &StepRoot,
        place: &Path,
        network: Option<Network<'_>>,
        runtime: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, ProcessError> {
        let start = |source| ProcessError::Start {
            program: "unshare".to_owned(),
            source,
        };
        let none = Path::new("-");
        let network = network.map_or([none; 3], |network| {
            [network.namespace, network.place, network.sys]
        });
        let tool = Tool::new("unshare")
            .args(["--pid", "--fork", "--kill-child=SIGKILL"])
            .args(["--", "sh", "-c", SCRIPT, "sh"])
            .args(network)
            .arg(as_mounts_write(place))
            .args(runtime);
        let mut command = tool.command();
        let mount = root.mount().try_clone().map_err(start)?;
        let place = place.to_owned();
        let enter = move || {
            own_mounts()?;
            attach(&mount, &place)
        };
        #[expect(
            unsafe_code,
            reason = "code between fork and exec is unsafe for what it may call"
        )]
        // SAFETY: system calls and nothing else: no memory is allocated (paths of this length are
        // copied to the stack) and no lock is taken.
        unsafe {
            command.pre_exec(enter);
        }
        let mut child = command
            // A Ctrl-C at the service's terminal is the service's to handle.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(start)?;
        let lifeline = child.stdin.take();
        Ok(Self { child, lifeline })
    }
}

/// A path as `/proc/mounts` has it: blanks and backslashes as octal numbers.
fn as_mounts_write(path: &Path) -> OsString {
    let mut written = Vec::new();
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => written.extend(format!("\\{byte:03o}").into_bytes()),
            byte => written.push(byte),
        }
    }
    OsString::from_vec(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_are_written_as_the_kernel_writes_them() {
        assert_eq!(
            as_mounts_write(Path::new("/a b\\c\td")),
            "/a\\040b\\134c\\011d"
        );
    }
}
