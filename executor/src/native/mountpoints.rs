//! Places in a view where the runtime mounts something: made when they are missing, and taken away
//! afterwards, so that a mount leaves no trace in the step's layer.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};

use super::view::{Last, Ownership, Resolved, View};

/// What was made in a view to mount on.
#[derive(Debug)]
pub(super) struct MountPoints {
    made: Vec<Made>,
    owner: Ownership,
}

/// One folder or empty file that was made.
#[derive(Debug)]
struct Made {
    path: Resolved,
    dir: bool,
    parent: PathBuf,
    /// The parent's modification time before the making.
    before: Timespec,
    /// The same after it: if it has moved since, the step changed the parent and the time is its own.
    after: Timespec,
}

/// Mode of folders that are made to mount on: any user passes.
const DIR_MODE: u32 = 0o755;

impl MountPoints {
    /// Makes what is missing of the folders `dirs` and the files `files`, the folders for `owner`.
    ///
    /// # Errors
    /// A part of a path is no folder, or the file system refuses.
    pub(super) fn prepare<'a>(
        view: &View,
        owner: Ownership,
        dirs: impl IntoIterator<Item = &'a Path>,
        files: impl IntoIterator<Item = &'a Path>,
    ) -> io::Result<Self> {
        let made = Vec::new();
        let mut this = Self { made, owner };
        for dir in dirs {
            this.make_dirs(view, &view.resolve(dir, Last::Follow)?)?;
        }
        for file in files {
            let path = view.resolve(file, Last::Follow)?;
            if view.stat(&path, Last::Keep)?.is_none() {
                if let Some(parent) = path.parent() {
                    this.make_dirs(view, parent)?;
                }
                this.make(view, path, false)?;
            }
        }
        Ok(this)
    }

    fn make_dirs(&mut self, view: &View, path: &Path) -> io::Result<()> {
        let mut here = PathBuf::new();
        for part in path.components() {
            here.push(part);
            if view.stat(&here, Last::Keep)?.is_none() {
                self.make(view, here.clone(), true)?;
            }
        }
        Ok(())
    }

    fn make(&mut self, view: &View, path: Resolved, dir: bool) -> io::Result<()> {
        let parent = path.parent().unwrap_or_else(|| Path::new("")).to_owned();
        let before = modified(view, &parent)?;
        if dir {
            view.make_dirs(&path, DIR_MODE, self.owner)?;
        } else {
            drop(view.create(&path)?);
        }
        let after = modified(view, &parent)?;
        self.made.push(Made {
            path,
            dir,
            parent,
            before,
            after,
        });
        Ok(())
    }

    /// Takes away what was made, unless the step has put something there.
    ///
    /// # Errors
    /// The file system refuses.
    pub(super) fn clean(self, view: &View) -> io::Result<()> {
        for made in self.made.into_iter().rev() {
            let Some(stat) = view.stat(&made.path, Last::Keep)? else {
                continue;
            };
            let kind = FileType::from_raw_mode(stat.st_mode);
            let untouched = match (made.dir, kind) {
                (true, FileType::Directory) => view.names(&made.path)?.is_empty(),
                (false, FileType::RegularFile) => stat.st_size == 0,
                _ => false,
            };
            if !untouched {
                continue;
            }
            let parent_untouched = modified(view, &made.parent)? == made.after;
            view.unlink(&made.path, made.dir)?;
            if parent_untouched {
                set_modified(view, &made.parent, made.before)?;
            }
        }
        Ok(())
    }
}

fn modified(view: &View, path: &Path) -> io::Result<Timespec> {
    let fd = view.open_at(path, OFlags::PATH, Mode::empty())?;
    let time =
        rustix::fs::statx(&fd, "", AtFlags::EMPTY_PATH, rustix::fs::StatxFlags::MTIME)?.stx_mtime;
    Ok(Timespec {
        tv_sec: time.tv_sec,
        tv_nsec: time.tv_nsec.into(),
    })
}

fn set_modified(view: &View, path: &Path, time: Timespec) -> io::Result<()> {
    let fd = view.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    let last_access = Timespec {
        tv_sec: 0,
        tv_nsec: rustix::fs::UTIME_OMIT,
    };
    rustix::fs::futimens(
        &fd,
        &Timestamps {
            last_access,
            last_modification: time,
        },
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    fn prepare(view: &View, dirs: &[&str], files: &[&str]) -> MountPoints {
        let (dirs, files) = (dirs.iter().map(Path::new), files.iter().map(Path::new));
        MountPoints::prepare(view, Ownership::ROOT, dirs, files).unwrap()
    }

    #[test]
    fn what_was_made_goes_away_and_the_parent_keeps_its_time() {
        let root = tempfile::tempdir().unwrap();
        let etc = root.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        symlink("../run/resolve/stub.conf", etc.join("resolv.conf")).unwrap();
        let view = View::open(root.path()).unwrap();
        let old = Timespec {
            tv_sec: 1_700_000_000,
            tv_nsec: 5,
        };
        set_modified(&view, Path::new("etc"), old).unwrap();

        let points = prepare(&view, &["/proc"], &["/etc/resolv.conf", "/etc/hosts"]);
        assert!(root.path().join("run/resolve/stub.conf").is_file());
        assert!(etc.join("hosts").is_file());
        points.clean(&view).unwrap();

        assert!(!root.path().join("run").exists());
        assert!(!root.path().join("proc").exists());
        assert!(!etc.join("hosts").exists());
        let time = std::fs::metadata(&etc).unwrap();
        assert_eq!((time.mtime(), time.mtime_nsec()), (1_700_000_000, 5));
    }

    #[test]
    fn what_was_there_or_was_filled_stays() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("proc")).unwrap();
        let view = View::open(root.path()).unwrap();
        let points = prepare(&view, &["/proc", "/srv"], &["/etc/hosts"]);
        std::fs::write(root.path().join("etc/hosts"), "127.0.0.1 own").unwrap();
        std::fs::write(root.path().join("srv/own"), "").unwrap();
        points.clean(&view).unwrap();
        for path in ["proc", "srv/own", "etc/hosts"] {
            assert!(root.path().join(path).exists(), "{path}");
        }
    }
}
