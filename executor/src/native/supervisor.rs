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
//! when the service dies. Its mounts are its own too; none is left on the host.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::process::Stdio;

use tokio::process::{Child, ChildStdin};

use crate::process::{ProcessError, Tool};

/// What the shell does. `$1`: network namespace or `-`; `$2`: where the runtime finds it; `$3`: the root
/// filesystem as `/proc/mounts` writes it; the rest: the runtime's command line.
///
/// Mounts of other steps, which the new mount namespace copied, are let go: a step must not keep its
/// neighbour's overlay busy. The runtime reads `/proc`, so that has to be this namespace's own.
const SCRIPT: &str = r#"
netns=$1 place=$2 rootfs=$3
shift 3
if [ "$netns" != - ]; then
    : > "$place" && mount --bind "$netns" "$place" || exit 125
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

impl Supervisor {
    /// Starts `runtime` below a supervisor. `netns` is the namespace to bind at the path beside it.
    ///
    /// # Errors
    /// [`ProcessError::Start`].
    pub(super) fn start(
        rootfs: &Path,
        netns: Option<(&Path, &Path)>,
        runtime: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, ProcessError> {
        let (netns, place) = netns.unwrap_or_else(|| (Path::new("-"), Path::new("-")));
        let tool = Tool::new("unshare")
            .args(["--mount", "--propagation", "private", "--pid", "--fork"])
            .args(["--kill-child=SIGKILL", "--", "sh", "-c", SCRIPT, "sh"])
            .args([netns.as_os_str(), place.as_os_str()])
            .arg(as_mounts_write(rootfs))
            .args(runtime);
        let mut child = tool
            .command()
            // A Ctrl-C at the service's terminal is the service's to handle.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| ProcessError::Start {
                program: "unshare".to_owned(),
                source,
            })?;
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
