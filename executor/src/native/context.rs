//! The files that a build may copy: looked up by path, and opened by content.

use std::fs::File;
use std::io;
use std::sync::Arc;

use domain::Digest;
use domain::definition::{ContextEntry, ContextKind, ContextManifest};

use crate::layers::{Listed, Listing};

/// Opens a stored file by the digest of its content. Blocking.
pub type OpenBlob = Arc<dyn Fn(&Digest) -> io::Result<File> + Send + Sync>;

/// What a source of a copy step names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// One file.
    File {
        /// The last part of its path.
        name: String,
        /// The file.
        file: SourceFile,
    },
    /// A folder. Its own mode is of no interest: what is in it goes into the destination.
    Dir(Vec<Below>),
}

/// A file of the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Permission bits.
    pub mode: u32,
    /// The content.
    pub digest: Digest,
    /// Its length.
    pub bytes: u64,
}

/// Something below a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Below {
    /// The path from that folder.
    pub path: String,
    /// What it is.
    pub kind: BelowKind,
}

/// What is below a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BelowKind {
    /// A folder, with its permission bits.
    Dir(u32),
    /// A file.
    File(SourceFile),
}

/// The context has no such path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not in the build context")]
pub struct NotInContext(pub String);

/// Finds what `source` names in the context; a folder need not be listed itself.
///
/// # Errors
/// [`NotInContext`].
pub fn find(context: Option<&ContextManifest>, source: &str) -> Result<Source, NotInContext> {
    let missing = || NotInContext(source.to_owned());
    let path = normal(source).ok_or_else(missing)?;
    let entries = context.map_or(&[][..], ContextManifest::entries);
    let exact = entries.iter().find(|entry| entry.path == path);
    if let Some(ContextEntry {
        mode,
        kind: ContextKind::File { digest, bytes },
        ..
    }) = exact
    {
        let name = path.rsplit('/').next().unwrap_or(&path).to_owned();
        return Ok(Source::File {
            name,
            file: SourceFile {
                mode: *mode,
                digest: *digest,
                bytes: *bytes,
            },
        });
    }
    let below: Vec<Below> = entries
        .iter()
        .filter_map(|entry| below(&path, entry))
        .collect();
    if below.is_empty() && exact.is_none() && !path.is_empty() {
        return Err(missing());
    }
    Ok(Source::Dir(below))
}

/// A source without `.` and empty parts; nothing if it leaves the context. The context itself is empty.
fn normal(source: &str) -> Option<String> {
    let parts: Vec<&str> = source
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    (!parts.contains(&"..")).then(|| parts.join("/"))
}

fn below(folder: &str, entry: &ContextEntry) -> Option<Below> {
    let path = if folder.is_empty() {
        entry.path.as_str()
    } else {
        entry.path.strip_prefix(folder)?.strip_prefix('/')?
    };
    let kind = match entry.kind {
        ContextKind::Dir => BelowKind::Dir(entry.mode),
        ContextKind::File { digest, bytes } => BelowKind::File(SourceFile {
            mode: entry.mode,
            digest,
            bytes,
        }),
    };
    Some(Below {
        path: path.to_owned(),
        kind,
    })
}

impl Source {
    /// Everything that a copy of it can show: names, kinds, modes, contents. `source` is what the step
    /// calls it.
    pub fn listing(&self, source: &str) -> Listing {
        let source = callers_path(source);
        let files = match self {
            Self::File { file, .. } => vec![file.listed("")],
            Self::Dir(entries) => entries.iter().map(Below::listed).collect(),
        };
        Listing { source, files }
    }
}

/// The path of a source as the caller knows it. The published client puts the files of each step into a
/// folder that is named after the step's number: a step more before it must not change what it is.
fn callers_path(source: &str) -> String {
    let parts: Vec<&str> = source
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    let rest = match parts.as_slice() {
        ["builder-context", step, source, rest @ ..]
            if step.starts_with("step-") && source.starts_with("src-") =>
        {
            rest
        }
        whole => whole,
    };
    rest.join("/")
}

impl Below {
    fn listed(&self) -> Listed {
        match self.kind {
            BelowKind::Dir(mode) => Listed {
                path: self.path.clone(),
                mode,
                content: None,
            },
            BelowKind::File(file) => file.listed(&self.path),
        }
    }
}

impl SourceFile {
    fn listed(&self, path: &str) -> Listed {
        Listed {
            path: path.to_owned(),
            mode: self.mode,
            content: Some(self.digest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> ContextManifest {
        let file = |path: &str, mode| ContextEntry {
            path: path.to_owned(),
            mode,
            kind: ContextKind::File {
                digest: Digest::of(path.as_bytes()),
                bytes: 1,
            },
        };
        let dir = ContextEntry {
            path: "a/empty".to_owned(),
            mode: 0o700,
            kind: ContextKind::Dir,
        };
        ContextManifest::new(vec![
            file("a/b/c", 0o644),
            file("a/b d", 0o755),
            file("ab", 0o600),
            dir,
        ])
        .unwrap()
    }

    fn find_names(source: &str) -> Option<Vec<String>> {
        match find(Some(&context()), source) {
            Ok(Source::File { name, .. }) => Some(vec![name]),
            Ok(Source::Dir(below)) => Some(below.into_iter().map(|below| below.path).collect()),
            Err(NotInContext(path)) => {
                assert_eq!(path, source);
                None
            }
        }
    }

    #[test]
    fn files_and_folders_are_found_by_path() {
        assert_eq!(find_names("a/b/c").unwrap(), ["c"]);
        assert_eq!(find_names("./a/").unwrap(), ["b d", "b/c", "empty"]);
        assert_eq!(find_names("a/b").unwrap(), ["c"]);
        assert_eq!(find_names("a/empty").unwrap(), [""; 0]);
        assert_eq!(find_names(".").unwrap().len(), 4);
        for source in ["b", "a/b/c/d", "../a", "a/../ab"] {
            assert_eq!(find_names(source), None, "{source}");
        }
        assert_eq!(find(None, "a"), Err(NotInContext("a".to_owned())));
    }

    #[test]
    fn a_source_is_known_by_the_callers_path() {
        for (source, path) in [
            ("./src//a.py", "src/a.py"),
            (".", ""),
            ("builder-context/step-3/src-0/src/", "src"),
            ("builder-context/step-16/src-0-2/a.txt", "a.txt"),
            ("builder-context/other", "builder-context/other"),
        ] {
            assert_eq!(callers_path(source), path);
        }
    }

    #[test]
    fn a_digest_tells_modes_and_contents_apart() {
        let base = find(Some(&context()), "a").unwrap();
        let Source::Dir(entries) = &base else {
            panic!("{base:?}")
        };
        let changed = |change: fn(&mut Vec<Below>)| {
            let mut entries = entries.clone();
            change(&mut entries);
            Source::Dir(entries).listing("a").digest()
        };
        let digests = [
            base.listing("a").digest(),
            changed(|entries| entries[0].path.push('x')),
            changed(|entries| entries.truncate(2)),
            changed(|entries| entries[2].kind = BelowKind::Dir(0o755)),
            changed(|entries| {
                let BelowKind::File(file) = &mut entries[0].kind else {
                    panic!()
                };
                file.digest = Digest::ZERO;
            }),
        ];
        let different: std::collections::BTreeSet<_> = digests.iter().collect();
        assert_eq!(different.len(), digests.len());
    }
}
