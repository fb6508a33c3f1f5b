//! From layers to a disk: the merged view as an ext4 image, grown to its size.

use std::path::PathBuf;

use domain::build::{Event, Phase, RootfsBuilt, RootfsGrown};

use super::{Attempt, Interruption, failures};
use crate::artifact::{Part, Staging};
use crate::holdings::Thing;
use crate::layers::{Layer, OverlayMount};
use crate::rootfs::{self, Ext4Options, target_bytes};

/// A disk that is ready to boot, where its artifact will be.
#[derive(Debug)]
pub(super) struct Disk {
    /// The folder that becomes the artifact.
    pub(super) staging: Staging,
    /// The image in it.
    pub(super) image: PathBuf,
    /// Its size in bytes.
    pub(super) bytes: u64,
}

impl Attempt<'_> {
    pub(super) async fn make_disk(&self, layers: &[Layer]) -> Result<Disk, Interruption> {
        self.go_on()?;
        let phase = self.reporter.begin(Phase::Sync).await?;
        let options = Ext4Options {
            limits: self.services.limits.rootfs,
            holdings: self.holdings.clone(),
            ..Ext4Options::default()
        };
        let staging = self
            .services
            .artifacts
            .stage()
            .await
            .map_err(|error| failures::artifact(&error))?;
        let folder = Thing::Folder(staging.dir().to_owned());
        self.holdings.hold([folder]);
        let image = staging.path(Part::Rootfs);

        let view = self.merged_view(layers).await?;
        let built = self
            .unless_stopped(
                "the filesystem tools",
                rootfs::build(view.mount.path(), &image, &options),
            )
            .await?
            .map_err(|error| failures::rootfs(&error))?;
        failures::blocking(move || drop(view)).await?;
        let event = RootfsBuilt {
            digest: built.digest,
            content_bytes: built.content_bytes,
        };
        self.reporter.event(Event::RootfsBuilt(event)).await?;

        let config = &self.job.requested.definition.config;
        let wanted = target_bytes(config.disk_mb, built.content_bytes, &options.limits);
        let grown = self
            .unless_stopped(
                "the filesystem tools",
                rootfs::grow(&image, wanted, &options),
            )
            .await?
            .map_err(|error| failures::rootfs(&error))?;
        self.unless_stopped("the filesystem tools", rootfs::check(&image, &options))
            .await?
            .map_err(|error| failures::rootfs(&error))?;
        let event = RootfsGrown {
            from_bytes: grown.from_bytes,
            to_bytes: grown.to_bytes,
        };
        self.reporter.event(Event::RootfsGrown(event)).await?;
        self.reporter.end(phase).await?;
        Ok(Disk {
            staging,
            image,
            bytes: grown.to_bytes,
        })
    }

    pub(super) async fn merged_view(&self, layers: &[Layer]) -> Result<View, Interruption> {
        let work_dir = self.services.work_dir.clone();
        let (layers, holdings) = (layers.to_vec(), self.holdings.clone());
        failures::blocking(move || {
            let folder = work_dir
                .scratch("view-")
                .map_err(|error| failures::io("make a folder for the view", &error))?;
            let mount = OverlayMount::read_only(&layers, folder.path())
                .map_err(|error| failures::overlay(&error))?;
            let path = folder.path();
            holdings.hold([Thing::mount(path), Thing::Folder(path.to_owned())]);
            Ok(View {
                mount,
                _folder: folder,
            })
        })
        .await?
    }
}

/// A mounted view and its mount point; unmounted first. It is read-only: when it is dropped, nothing is lost
/// although somebody else looks at it, such as an operator's `du`. Dropping it blocks.
pub(super) struct View {
    pub(super) mount: OverlayMount,
    _folder: tempfile::TempDir,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_that_somebody_looks_at_goes_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let mount = OverlayMount::read_only(&[], &path).unwrap();
        let looking = std::fs::File::open(&path).unwrap();
        drop(View {
            mount,
            _folder: folder,
        });
        assert!(!path.exists());
        drop(looking);
    }
}
