//! The files of a build in a private folder: the context as it was sent, and the Dockerfile beside it.
//!
//! Files are copies: nothing that reads them can change what is stored. The Dockerfile is in a folder of its
//! own, so that it is no file of the context unless the caller sent it as one. Times are those of now: a
//! tool in a step that compares them with what it made before takes all files for new, never a changed
//! one for old.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use domain::definition::ContextManifest;
use domain::failure::{Failure, FailureReason};
use tokio_util::sync::CancellationToken;

use super::super::{Attempt, Interruption, failures};
use super::Source;
use crate::native::context::{self, BelowKind, OpenBlob, SourceFile};
use crate::native::files::{Changer, FileError};
use crate::native::step::{Change, Copy};
use crate::native::view::{Last, Ownership, View};

/// The permission bits that a file of a context may have: no set-user-id, set-group-id or sticky bit.
const MODE_MASK: u32 = 0o777;
/// What a Dockerfile's own list of ignored files is called: its name and this.
const IGNORE_SUFFIX: &str = ".dockerignore";

/// The folder of the context in the folder of a build.
pub(super) fn context_dir(scratch: &Path) -> PathBuf {
    scratch.join("context")
}

/// The folder that the Dockerfile's path starts from.
pub(super) fn dockerfile_dir(scratch: &Path) -> PathBuf {
    scratch.join("dockerfile")
}

impl Attempt<'_> {
    /// Lays the files of the build out in `scratch`.
    pub(super) async fn lay_out(
        &self,
        source: &Source<'_>,
        context: Option<&ContextManifest>,
        scratch: &Path,
    ) -> Result<(), Interruption> {
        let (store, stop) = (self.services.blobs.clone(), self.stop.clone());
        let files = Files {
            scratch: scratch.to_owned(),
            text: source.text.to_owned(),
            path: source.path.to_owned(),
            context: context.cloned(),
            account_file_bytes_max: self.services.limits.native.account_file_bytes_max,
        };
        let blobs: OpenBlob = {
            let stop = stop.clone();
            Arc::new(move |digest| opened(&stop, &store.path(digest)))
        };
        let laid_out = failures::blocking(move || files.lay_out(&blobs)).await?;
        // A copy that was given up fails, too.
        self.go_on()?;
        laid_out.map_err(|error| refused(&error).into())
    }
}

/// A stored file, unless it is not wanted any more.
fn opened(stop: &CancellationToken, path: &Path) -> io::Result<std::fs::File> {
    if stop.is_cancelled() {
        return Err(io::Error::other("the build was stopped"));
    }
    std::fs::File::open(path)
}

fn refused(error: &Refused) -> Failure {
    match error {
        Refused::Files(error) if error.is_disk_full() => {
            let message = "No space is left for the files of the build.";
            Failure::new(FailureReason::DiskFull, message)
        }
        Refused::Files(error) => failures::internal(error),
        Refused::Dockerfile(error) => failures::io("write the Dockerfile", error),
    }
}

/// Why the files are not there.
#[derive(Debug)]
enum Refused {
    Files(FileError),
    Dockerfile(io::Error),
}

/// What goes where.
struct Files {
    scratch: PathBuf,
    text: String,
    path: String,
    context: Option<ContextManifest>,
    account_file_bytes_max: u64,
}

impl Files {
    /// Blocking.
    fn lay_out(&self, blobs: &OpenBlob) -> Result<(), Refused> {
        let (context, dockerfile) = (context_dir(&self.scratch), dockerfile_dir(&self.scratch));
        self.copy(&context, ".", "/", blobs)?;
        let ignored = format!("{}{IGNORE_SUFFIX}", self.path);
        self.copy(&dockerfile, &ignored, &ignored, blobs)?;
        self.write_dockerfile(&dockerfile)
            .map_err(Refused::Dockerfile)
    }

    /// Copies what `source` names in the context, if it is there, into a new folder.
    fn copy(
        &self,
        folder: &Path,
        source: &str,
        dst: &str,
        blobs: &OpenBlob,
    ) -> Result<(), Refused> {
        std::fs::create_dir(folder).map_err(Refused::Dockerfile)?;
        let Ok(found) = context::find(self.context.as_ref(), source) else {
            return Ok(());
        };
        let view = View::open(folder).map_err(Refused::Dockerfile)?;
        let changer = Changer {
            view: &view,
            blobs,
            account_file_bytes_max: self.account_file_bytes_max,
        };
        let copy = Copy {
            sources: vec![harmless(found)],
            dst: dst.to_owned(),
            into_dir: false,
            user: None,
            mode: None,
        };
        changer
            .make(&Change::Copy(vec![copy]))
            .map_err(Refused::Files)
    }

    fn write_dockerfile(&self, folder: &Path) -> io::Result<()> {
        let view = View::open(folder)?;
        let path = Path::new(&self.path);
        if let Some(parent) = path.parent() {
            view.make_dirs(parent, 0o755, Ownership::ROOT)?;
        }
        let place = view.resolve(path, Last::Keep)?;
        view.create(&place)?.write_all(self.text.as_bytes())
    }
}

/// The same files without the bits that let a file act for another user.
fn harmless(source: context::Source) -> context::Source {
    let file = |file: SourceFile| SourceFile {
        mode: file.mode & MODE_MASK,
        ..file
    };
    match source {
        context::Source::File { name, file: found } => context::Source::File {
            name,
            file: file(found),
        },
        context::Source::Dir(mut entries) => {
            for entry in &mut entries {
                entry.kind = match entry.kind {
                    BelowKind::Dir(mode) => BelowKind::Dir(mode & MODE_MASK),
                    BelowKind::File(found) => BelowKind::File(file(found)),
                };
            }
            context::Source::Dir(entries)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt as _;

    use domain::Digest;
    use domain::definition::{ContextEntry, ContextKind};

    use super::*;

    fn entry(path: &str, mode: u32, content: Option<&str>) -> ContextEntry {
        let kind = content.map_or(ContextKind::Dir, |content| ContextKind::File {
            digest: Digest::of(content.as_bytes()),
            bytes: u64::try_from(content.len()).unwrap(),
        });
        ContextEntry {
            path: path.to_owned(),
            mode,
            kind,
        }
    }

    /// Lays out a context of these entries, and a Dockerfile at `path`.
    fn laid_out(path: &str, entries: Vec<ContextEntry>, contents: &[&str]) -> tempfile::TempDir {
        let scratch = tempfile::tempdir().unwrap();
        let store = tempfile::tempdir().unwrap();
        let mut stored = BTreeMap::new();
        for content in contents {
            let digest = Digest::of(content.as_bytes());
            std::fs::write(store.path().join(digest.hex()), content).unwrap();
            stored.insert(digest, store.path().join(digest.hex()));
        }
        let blobs: OpenBlob = Arc::new(move |digest| std::fs::File::open(&stored[digest]));
        let files = Files {
            scratch: scratch.path().to_owned(),
            text: "FROM scratch\n".to_owned(),
            path: path.to_owned(),
            context: Some(ContextManifest::new(entries).unwrap()),
            account_file_bytes_max: 1024,
        };
        files.lay_out(&blobs).unwrap();
        scratch
    }

    /// What is below a folder: path, permission bits, content.
    fn listing(folder: &Path) -> Vec<(String, u32, String)> {
        let below = walkdir::WalkDir::new(folder)
            .min_depth(1)
            .sort_by_file_name();
        below
            .into_iter()
            .map(|entry| {
                let entry = entry.unwrap();
                let path = entry
                    .path()
                    .strip_prefix(folder)
                    .unwrap()
                    .display()
                    .to_string();
                let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
                let content = std::fs::read_to_string(entry.path()).unwrap_or_default();
                (path, mode, content)
            })
            .collect()
    }

    fn expected(lines: &[(&str, u32, &str)]) -> Vec<(String, u32, String)> {
        let owned = |(path, mode, content): &(&str, u32, &str)| {
            ((*path).to_owned(), *mode, (*content).to_owned())
        };
        lines.iter().map(owned).collect()
    }

    #[test]
    fn files_have_their_modes_and_none_that_act_for_another() {
        let entries = vec![
            entry("run.sh", 0o4755, Some("go")),
            entry("sub", 0o2700, None),
            entry("sub/none", 0o000, Some("")),
            entry("unlisted/deep/file", 0o640, Some("x")),
        ];
        let scratch = laid_out("Dockerfile", entries, &["go", "", "x"]);
        assert_eq!(
            listing(&context_dir(scratch.path())),
            expected(&[
                ("run.sh", 0o755, "go"),
                ("sub", 0o700, ""),
                ("sub/none", 0o000, ""),
                ("unlisted", 0o755, ""),
                ("unlisted/deep", 0o755, ""),
                ("unlisted/deep/file", 0o640, "x"),
            ])
        );
    }

    #[test]
    fn the_dockerfile_is_beside_the_context_with_its_own_list_of_ignored_files() {
        let entries = vec![
            entry(".dockerignore", 0o644, Some("*.log")),
            entry("docker/App.Dockerfile.dockerignore", 0o644, Some("*.tmp")),
        ];
        let scratch = laid_out("docker/App.Dockerfile", entries, &["*.log", "*.tmp"]);
        let beside: Vec<String> = listing(&dockerfile_dir(scratch.path()))
            .into_iter()
            .map(|(path, ..)| path)
            .collect();
        assert_eq!(
            beside,
            [
                "docker",
                "docker/App.Dockerfile",
                "docker/App.Dockerfile.dockerignore"
            ]
        );
        assert!(
            !context_dir(scratch.path())
                .join("docker/App.Dockerfile")
                .exists()
        );
        assert!(context_dir(scratch.path()).join(".dockerignore").exists());
    }

    #[test]
    fn a_dockerfile_s_path_leads_nowhere_else() {
        let scratch = laid_out("../../Dockerfile", Vec::new(), &[]);
        assert!(dockerfile_dir(scratch.path()).join("Dockerfile").exists());
    }
}
