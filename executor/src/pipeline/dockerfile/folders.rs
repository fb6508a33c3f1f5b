//! Folders that an image speaks of and does not have: volumes, and the folder in which commands start.

use std::path::Path;

use super::super::settle::Defaults;
use super::super::{Attempt, Interruption, failures};
use crate::image::ImageConfig;
use crate::layers::Layer;
use crate::native::view::{Last, View};

impl Attempt<'_> {
    /// The layers, and one more for the folders that are missing in them. Docker makes these when it starts
    /// a container; a machine finds them in its files.
    pub(super) async fn complete_folders(
        &self,
        layers: Vec<Layer>,
        image: &ImageConfig,
        defaults: &Defaults,
    ) -> Result<Vec<Layer>, Interruption> {
        let mut wanted: Vec<String> = image.volumes.iter().map(|path| absolute(path)).collect();
        wanted.push(absolute(defaults.workdir()));
        let view = self.merged_view(&layers).await?;
        let missing = failures::blocking(move || {
            let root = View::open(view.mount.path());
            let missing = root.and_then(|root| missing(&root, wanted));
            drop(view);
            missing.map_err(|error| failures::io("look for the folders of an image", &error))
        });
        let missing = missing.await??;
        if missing.is_empty() {
            return Ok(layers);
        }
        let text = format!(
            "Making folders that the image has not: {}",
            missing.join(", ")
        );
        self.reporter.say(text).await?;
        self.make_folders(layers, &missing).await
    }
}

/// The folders at which there is nothing. What is no folder is the image's own affair.
fn missing(root: &View, wanted: Vec<String>) -> std::io::Result<Vec<String>> {
    let mut missing = Vec::new();
    for path in wanted {
        if root.stat(Path::new(&path), Last::Follow)?.is_none() && !missing.contains(&path) {
            missing.push(path);
        }
    }
    Ok(missing)
}

fn absolute(path: &str) -> String {
    format!("/{}", path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_there_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("var/lib")).unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("/var", folder.path().join("link")).unwrap();
        let root = View::open(folder.path()).unwrap();
        let paths = [
            "/",
            "/var/lib",
            "/file",
            "/link/lib",
            "/link/new",
            "/data",
            "/data",
            "/file/x",
        ];
        let wanted = paths.iter().map(|path| (*path).to_owned()).collect();
        assert_eq!(
            missing(&root, wanted).unwrap(),
            ["/link/new", "/data", "/file/x"]
        );
    }

    #[test]
    fn a_path_starts_at_the_root() {
        assert_eq!(
            [absolute("data"), absolute("/data"), absolute("//x")],
            ["/data", "/data", "/x"]
        );
    }
}
