//! A corpus of hostile and odd layers, one line a case: what is packed, and what must come of it.
//!
//! For every case, whatever it holds: nothing outside of the layer's folder is written or touched, the
//! merged view is exactly right or the error says why there is none, no half layer stays in the store,
//! and disk and memory stay within bounds.

mod bombs;
mod entries;
mod headers;
mod links;
mod whiteouts;

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use domain::Digest;

use super::sample::{Sample, listing};
use super::{BuildError, Layer, LayerStore, OverlayMount, chain_key, unpack};
use crate::limits::layers::LayerLimits;

/// What one case may take on the disk, its view included.
const DISK_BYTES_MAX: u64 = 64 << 20;
/// The address space in which all cases can run.
const MEMORY_BYTES_MAX: u64 = 2 << 30;

/// A case: its name, and what makes it. It is told the path of the folder that nothing may touch.
type Line = (&'static str, fn(&str) -> Case);

struct Case {
    /// Archives, bottom first.
    layers: Vec<Vec<u8>>,
    limits: LayerLimits,
    then: Then,
}

enum Then {
    /// The merged view is exactly this (see [`listing`]), and passes a closer look.
    Shows(Vec<String>, fn(&Path)),
    /// The last layer is refused, and the error and its causes say this.
    Refused(&'static str),
}

impl Case {
    fn looked_at(mut self, look: fn(&Path)) -> Self {
        if let Then::Shows(_, nothing) = &mut self.then {
            *nothing = look;
        }
        self
    }

    fn within(mut self, limits: LayerLimits) -> Self {
        self.limits = limits;
        self
    }
}

fn case(layers: Vec<Vec<u8>>, then: Then) -> Case {
    let limits = LayerLimits::default();
    Case {
        layers,
        limits,
        then,
    }
}

fn shows<const N: usize>(layer: Sample, lines: [&str; N]) -> Case {
    stack([layer], lines)
}

/// Layers, bottom first, that together show `lines`.
fn stack<const M: usize, const N: usize>(layers: [Sample; M], lines: [&str; N]) -> Case {
    let lines = lines.iter().map(|line| (*line).to_owned()).collect();
    case(
        layers.into_iter().map(Sample::end).collect(),
        Then::Shows(lines, |_| ()),
    )
}

/// A layer that shows `line` in the place where the host has the folder `host`, and `others`.
fn inside<const N: usize>(layer: Sample, host: &str, line: &str, others: [&str; N]) -> Case {
    let host = host.trim_start_matches('/');
    let (kind, rest) = line.split_at(2);
    let mut lines: Vec<String> = host
        .match_indices('/')
        .map(|(at, _)| format!("d {}", &host[..at]))
        .collect();
    lines.extend([format!("d {host}"), format!("{kind}{host}/{rest}")]);
    lines.extend(others.iter().map(|line| (*line).to_owned()));
    lines.sort_unstable_by(|one, other| one[2..].cmp(&other[2..]));
    case(vec![layer.end()], Then::Shows(lines, |_| ()))
}

fn refused(layer: Sample, why: &'static str) -> Case {
    case(vec![layer.end()], Then::Refused(why))
}

/// The top layer is refused.
fn refused_on<const N: usize>(layers: [Sample; N], why: &'static str) -> Case {
    case(
        layers.into_iter().map(Sample::end).collect(),
        Then::Refused(why),
    )
}

/// Bytes as they are.
fn refused_bytes(layer: Vec<u8>, why: &'static str) -> Case {
    case(vec![layer], Then::Refused(why))
}

/// A store, a place for views, and all around what nothing may touch.
struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let canary = dir.path().join("canary");
        std::fs::create_dir_all(canary.join("sub")).unwrap();
        std::fs::create_dir(dir.path().join("view")).unwrap();
        for (path, mode) in [("file", 0o640), ("sub/file", 0o4755)] {
            std::fs::write(canary.join(path), "alive").unwrap();
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(canary.join(path), mode).unwrap();
        }
        std::os::unix::fs::symlink("file", canary.join("link")).unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(canary.join("file"), "user.note", b"kept", flags).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// All that is told of what is outside. The time of the last change of status tells of any touch.
    fn outside(&self) -> Vec<String> {
        let mut seen: Vec<String> = walkdir::WalkDir::new(self.path("canary"))
            .into_iter()
            .map(|entry| describe(entry.unwrap().path()))
            .collect();
        seen.push(describe(Path::new("/etc/hostname")));
        seen.sort_unstable();
        let around = std::fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> = around.map(|entry| entry.unwrap().file_name()).collect();
        names.sort_unstable();
        assert_eq!(names, ["canary", "store", "view"]);
        seen
    }

    /// Runs a case; what is wrong with it, if anything.
    async fn run(make: fn(&str) -> Case) -> Result<(), String> {
        let world = Self::new();
        let host = world.path("canary");
        let case = make(host.to_str().unwrap());
        let store = LayerStore::open(world.path("store"), case.limits.clone()).unwrap();
        let before = world.outside();
        let (layers, error) = fill(&store, case.layers).await;
        let result = match (error, case.then) {
            (None, Then::Shows(lines, look)) => {
                let mount = OverlayMount::read_only(&layers, &world.path("view")).unwrap();
                let shown = listing(mount.path());
                look(mount.path());
                (shown == lines)
                    .then_some(())
                    .ok_or_else(|| format!("shows {shown:#?} and not {lines:#?}"))
            }
            (Some(error), Then::Refused(why)) if error.contains(why) => Ok(()),
            (Some(error), Then::Refused(why)) => {
                Err(format!("is refused by `{error}` and not by `{why}`"))
            }
            (Some(error), Then::Shows(..)) => Err(format!("is refused by `{error}`")),
            (None, Then::Refused(why)) => Err(format!("is not refused by `{why}`")),
        };
        if world.outside() != before {
            return Err(format!(
                "touched the outside: {before:#?} {:#?}",
                world.outside()
            ));
        }
        let kept = layers.len();
        drop(layers);
        holds_only(&store, kept)?;
        result
    }
}

/// Unpacks archives over each other until one is refused; the layers, and what was said.
async fn fill(store: &LayerStore, archives: Vec<Vec<u8>>) -> (Vec<Layer>, Option<String>) {
    let mut layers: Vec<Layer> = Vec::new();
    let last = archives.len() - 1;
    for (index, archive) in archives.into_iter().enumerate() {
        let key = chain_key(layers.last().map(Layer::key), &Digest::of(&archive));
        let above = layers.iter().rev();
        let lowers = above.map(|layer| layer.path().to_owned()).collect();
        let limits = store.limits().clone();
        let build = |staging: super::Staging| async move {
            unpack(&archive[..], staging.path(), || Ok(lowers), &limits).map(drop)
        };
        match store.get_or_build(key, build).await {
            Ok((layer, _)) => layers.push(layer),
            Err(BuildError::Build(error)) => {
                assert_eq!(index, last, "a layer beneath is refused: {error}");
                assert!(store.get(&key).is_none(), "a refused layer is served");
                assert!(!error.is_disk_full(), "{error} is no full disk");
                return (layers, Some(domain::causes::chain(&error)));
            }
            Err(BuildError::Store(error)) => panic!("{error}"),
        }
    }
    (layers, None)
}

/// The store's folder holds so many layers and nothing half done, and takes no more than it may.
fn holds_only(store: &LayerStore, count: usize) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let entries = std::fs::read_dir(store.root()).unwrap();
        let names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "lock")
            .collect();
        if names.len() == count && names.iter().all(|name| !name.starts_with('.')) {
            break;
        }
        if Instant::now() > deadline {
            return Err(format!("left in the store: {names:?}"));
        }
        // A half layer is removed in the background.
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let taken = walkdir::WalkDir::new(store.root())
        .into_iter()
        .map(|entry| entry.unwrap().metadata().unwrap().blocks() * 512)
        .sum::<u64>();
    (taken <= DISK_BYTES_MAX)
        .then_some(())
        .ok_or_else(|| format!("takes {taken} bytes of the disk"))
}

/// Everything that can be told of a file.
fn describe(path: &Path) -> String {
    let status = std::fs::symlink_metadata(path).unwrap();
    let content = if status.is_file() {
        std::fs::read(path).unwrap()
    } else if status.is_symlink() {
        let target = std::fs::read_link(path).unwrap();
        target.as_os_str().as_bytes().to_vec()
    } else {
        Vec::new()
    };
    format!(
        "{} {:o} {}:{} {} links, inode {}, {} bytes {:?}, {}.{:09} {}.{:09}, {:?}",
        path.display(),
        status.mode(),
        status.uid(),
        status.gid(),
        status.nlink(),
        status.ino(),
        status.len(),
        Digest::of(&content),
        status.mtime(),
        status.mtime_nsec(),
        status.ctime(),
        status.ctime_nsec(),
        xattr(path, "user.note"),
    )
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).ok()?;
    value.truncate(length);
    Some(value)
}

/// Runs the cases of a table, and tells of all that fail.
fn run_table(table: &[Line]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let failed: Vec<String> = table
        .iter()
        .filter_map(|(name, make)| {
            let result = runtime.block_on(World::run(*make));
            result.err().map(|error| format!("{name}: {error}"))
        })
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn links_lead_nowhere_outside() {
    run_table(links::TABLE);
}

#[test]
fn whiteouts_remove_what_they_name_and_nothing_else() {
    run_table(whiteouts::TABLE);
}

#[test]
fn names_kinds_and_attributes_are_kept_or_refused() {
    run_table(entries::TABLE);
}

#[test]
fn headers_that_lie_are_refused() {
    run_table(headers::TABLE);
}

#[test]
fn bombs_do_not_go_off() {
    run_table(bombs::TABLE);
}

/// In a process of its own, which is refused more memory: headers that ask for 8 GiB would end it.
#[test]
fn the_corpus_needs_little_memory() {
    let tables = std::process::Command::new("prlimit")
        .arg(format!("--as={MEMORY_BYTES_MAX}"))
        .arg(std::env::current_exe().unwrap())
        .args([
            "layers::corpus::",
            "--skip",
            "little_memory",
            "--test-threads=2",
        ])
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&tables.stdout);
    assert!(tables.status.success(), "{printed}");
    assert!(printed.contains("6 passed"), "{printed}");
}

#[test]
fn the_corpus_is_large_and_its_names_differ() {
    let tables = [
        links::TABLE,
        whiteouts::TABLE,
        entries::TABLE,
        headers::TABLE,
        bombs::TABLE,
    ];
    let names: Vec<&str> = tables
        .iter()
        .flat_map(|table| table.iter().map(|line| line.0))
        .collect();
    let different: std::collections::BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(different.len(), names.len());
    assert!(names.len() >= 100, "{} cases", names.len());
}
