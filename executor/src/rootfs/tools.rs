//! The programs of e2fsprogs: how each is called, and what its failures mean.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::{self, Finished, ProcessError, Tool};

use super::{Ext4Options, RootfsError, survey::Geometry, survey::INODE_BYTES};

/// What mke2fs would else take from the host's `/etc/mke2fs.conf`: the image must not depend on
/// it. The features are those of Linux 4.9 and e2fsprogs 1.43 and later, so that every kernel
/// that a guest may have mounts it. `small` to `huge` are names that mke2fs looks up by size.
const CONFIG: &str = "\
[defaults]
\tbase_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
\tdefault_mntopts = acl,user_xattr
\tenable_periodic_fsck = 0
\tblocksize = 4096
[fs_types]
\text4 = {
\t\tfeatures = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
\t}
\tfloppy = {
\t\tinode_size = 256
\t}
\tsmall = {
\t\tinode_size = 256
\t}
\tbig = {
\t\tinode_size = 256
\t}
\thuge = {
\t\tinode_size = 256
\t}
";

/// How a tool ended that did not do what it was asked for.
pub(super) enum ToolFailure {
    /// The file system of the host is full.
    DiskFull,
    /// The image is too small for what it should hold.
    ImageTooSmall,
    /// Anything else.
    Other(RootfsError),
}

/// Where `program` is.
fn find(program: &'static str) -> Result<PathBuf, RootfsError> {
    process::find(program).ok_or(RootfsError::MissingTool { program })
}

/// Makes a file system of the size of `image`, which must be all holes, with the content of
/// `view`. `scratch` is a folder for a configuration file.
pub(super) async fn mkfs(
    view: &Path,
    image: &Path,
    scratch: &Path,
    geometry: Geometry,
    options: &Ext4Options,
) -> Result<(), ToolFailure> {
    let config = scratch.join("mke2fs.conf");
    tokio::fs::write(&config, CONFIG)
        .await
        .map_err(|source| written(&config, source))?;
    let (uuid, hash_seed) = options.uuids();
    // Holes read as zeros, so neither the inode tables nor the journal need to be written.
    let extended =
        format!("lazy_itable_init=1,lazy_journal_init=1,nodiscard,hash_seed={hash_seed}");
    let tool = tool("mkfs.ext4", options)?
        .env("MKE2FS_CONFIG", &config)
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0"])
        .args(["-U", &uuid, "-E", &extended])
        .args(["-I", &INODE_BYTES.to_string()])
        .args(["-i", &geometry.inode_ratio.to_string()])
        .args(["-J", &format!("size={}", options.limits.journal_mib)])
        .arg("-d")
        .arg(view)
        .arg(image);
    let wait = Duration::from_secs(options.limits.mkfs_seconds_max);
    let finished = run("mkfs.ext4", &tool, wait).await?;
    if finished.status.success() {
        return Ok(());
    }
    Err(failure("mkfs.ext4", &finished))
}

/// Runs a script of debugfs commands on an image.
pub(super) async fn debugfs(
    image: &Path,
    script: &Path,
    options: &Ext4Options,
) -> Result<(), ToolFailure> {
    let tool = tool("debugfs", options)?
        .args(["-w", "-f"])
        .arg(script)
        .arg(image);
    let wait = Duration::from_secs(options.limits.debugfs_seconds_max);
    let finished = run("debugfs", &tool, wait).await?;
    // Some failed commands leave the exit code at 0; all of them say something.
    let silent = String::from_utf8_lossy(&finished.stderr)
        .lines()
        .all(|line| line.trim().is_empty() || line.starts_with("debugfs 1."));
    if finished.status.success() && silent {
        return Ok(());
    }
    Err(failure("debugfs", &finished))
}

/// Checks an image; `-fn` changes nothing, `-fp` repairs what is safe to repair.
///
/// Gives the exit code, whose meaning e2fsck(8) has, and what it printed.
pub(super) async fn e2fsck(
    image: &Path,
    mode: &'static str,
    options: &Ext4Options,
) -> Result<(Option<i32>, String), ToolFailure> {
    let tool = tool("e2fsck", options)?.arg(mode).arg(image);
    let wait = Duration::from_secs(options.limits.fsck_seconds_max);
    let finished = run("e2fsck", &tool, wait).await?;
    let report = String::from_utf8_lossy(&finished.stdout).trim().to_owned();
    match finished.status.code() {
        code @ Some(0..8) => Ok((code, report)),
        // Operational errors and signals are no verdict on the image.
        _ => Err(failure("e2fsck", &finished)),
    }
}

/// Fills the file of an image with its file system.
pub(super) async fn resize2fs(image: &Path, options: &Ext4Options) -> Result<(), ToolFailure> {
    let tool = tool("resize2fs", options)?.arg(image);
    let wait = Duration::from_secs(options.limits.resize_seconds_max);
    let finished = run("resize2fs", &tool, wait).await?;
    if finished.status.success() {
        return Ok(());
    }
    Err(failure("resize2fs", &finished))
}

/// A tool for which it is always the same time. SOURCE_DATE_EPOCH would be ignored by e2fsprogs
/// 1.47.0, and e2fsck listens to a variable of its own.
fn tool(program: &'static str, options: &Ext4Options) -> Result<Tool, ToolFailure> {
    let path = find(program).map_err(ToolFailure::Other)?;
    let seconds = options.time_seconds.to_string();
    Ok(Tool::new(path)
        .held_by(&options.holdings)
        .env("E2FSPROGS_FAKE_TIME", &seconds)
        .env("E2FSCK_TIME", &seconds))
}

async fn run(program: &'static str, tool: &Tool, wait: Duration) -> Result<Finished, ToolFailure> {
    tool.run(wait)
        .await
        .map_err(|source| ToolFailure::Other(RootfsError::Tool { program, source }))
}

fn failure(program: &'static str, finished: &Finished) -> ToolFailure {
    let stderr = String::from_utf8_lossy(&finished.stderr).trim().to_owned();
    if ["No space left on device", "Disk quota exceeded"]
        .iter()
        .any(|text| stderr.contains(text))
    {
        return ToolFailure::DiskFull;
    }
    if [
        "Could not allocate block in ext2",
        "Could not allocate inode in ext2",
    ]
    .iter()
    .any(|text| stderr.contains(text))
    {
        return ToolFailure::ImageTooSmall;
    }
    let source = ProcessError::Failed {
        program: program.to_owned(),
        status: finished.status,
        stderr,
    };
    ToolFailure::Other(RootfsError::Tool { program, source })
}

fn written(path: &Path, source: std::io::Error) -> ToolFailure {
    ToolFailure::Other(RootfsError::image("write", path, source))
}
