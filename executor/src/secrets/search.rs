//! Searches what a build made for the values of its secrets, before anybody can start it.
//!
//! A file is looked at in windows, holes are passed over, and a file with several names once. What is
//! reported is where a value is, never the value.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use domain::name::SecretId;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use walkdir::{DirEntry, WalkDir};
use zeroize::Zeroizing;

use super::forms::{self, Form};
use super::needles::Needles;
use crate::limits::secrets::SecretLimits;
use crate::rootfs::sparse::DataRanges;

/// The kernel's bound on an extended attribute, and on the names of all of a file.
const ATTRIBUTE_BYTES_MAX: usize = 64 * 1024;

/// The values that a result must not hold.
pub struct Search {
    /// The beginnings of the forms.
    heads: Needles,
    /// Sorted by form.
    forms: Vec<(Form, SecretId)>,
    /// Those whose values are too short to be looked for.
    short: Vec<SecretId>,
    limits: SecretLimits,
}

/// A value was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leak {
    /// Whose.
    pub secret: SecretId,
    /// In which part of what.
    pub part: Part,
    /// The file within the root filesystem; the folder of a name that is the value; or the part of an
    /// image's configuration, for example `config.Env`.
    pub path: String,
}

/// The part of a result in which a value was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A file's content.
    Content,
    /// A name in a folder.
    Name,
    /// What a symbolic link leads to.
    LinkTarget,
    /// A file's extended attributes.
    Attributes,
    /// The configuration of the image.
    Configuration,
}

/// Why a search came to no end.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// A file cannot be read.
    #[error("cannot search `{}` for secret values", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It was told to stop.
    #[error("the search for secret values was stopped")]
    Stopped,
}

impl std::fmt::Debug for Search {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Search")
            .field("forms", &self.forms.len())
            .finish_non_exhaustive()
    }
}

impl Search {
    /// A search for these values.
    pub fn new<'a>(
        values: impl IntoIterator<Item = (&'a SecretId, &'a [u8])>,
        limits: &SecretLimits,
    ) -> Self {
        let (mut forms, mut short) = (Vec::new(), Vec::new());
        for (id, value) in values {
            if (1..limits.searched_bytes_min).contains(&value.trim_ascii().len()) {
                short.push(id.clone());
            }
            let found = forms::for_files(value, limits).into_iter();
            forms.extend(found.map(|form| (form, id.clone())));
        }
        forms.sort_unstable_by(|(one, _), (other, _)| one.as_slice().cmp(other));
        forms.dedup_by(|(one, _), (other, _)| one.as_slice() == other.as_slice());
        let head = |(form, _): &(Form, SecretId)| Zeroizing::new(head(form, limits).to_vec());
        Self {
            heads: Needles::new(forms.iter().map(head).collect()),
            forms,
            short,
            limits: *limits,
        }
    }

    /// Whether there is nothing to search for.
    pub fn is_empty(&self) -> bool {
        self.forms.is_empty()
    }

    /// The secrets whose values are too short to be searched for: they stand in some file by chance.
    pub fn not_searched(&self) -> &[SecretId] {
        &self.short
    }

    /// Searches the configuration of an image: every text in it, and every name.
    pub fn configuration(&self, document: &Value) -> Option<Leak> {
        let mut place = Vec::new();
        let secret = self.texts(document, &mut place)?;
        Some(Leak {
            secret: secret.clone(),
            part: Part::Configuration,
            path: place.join("."),
        })
    }

    fn texts<'a>(&'a self, value: &Value, place: &mut Vec<String>) -> Option<&'a SecretId> {
        match value {
            Value::String(text) => self.bytes(text.as_bytes()).map(|(_, secret)| secret),
            Value::Array(items) => items.iter().find_map(|item| self.texts(item, place)),
            Value::Object(fields) => fields.iter().find_map(|(name, value)| {
                if let Some((_, secret)) = self.bytes(name.as_bytes()) {
                    return Some(secret);
                }
                place.push(name.clone());
                let found = self.texts(value, place);
                if found.is_none() {
                    place.pop();
                }
                found
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) => None,
        }
    }

    /// Searches the files of a layer. Blocking; looks at `stop` now and then.
    ///
    /// # Errors
    /// [`SearchError`]: then nothing is known.
    pub fn folder(
        &self,
        folder: &Path,
        stop: &CancellationToken,
    ) -> Result<Option<Leak>, SearchError> {
        if self.is_empty() {
            return Ok(None);
        }
        // A window has more than the part of it that is repeated.
        let window_bytes = self
            .limits
            .window_bytes
            .max(2 * self.limits.piece_bytes_max);
        let mut walk = Walk {
            search: self,
            stop,
            seen: HashSet::new(),
            beginnings: 0,
            window: Zeroizing::new(vec![0; window_bytes]),
            names: vec![0; ATTRIBUTE_BYTES_MAX],
            value: Zeroizing::new(vec![0; ATTRIBUTE_BYTES_MAX]),
        };
        for entry in WalkDir::new(folder).sort_by_file_name() {
            let entry = entry.map_err(|error| SearchError::Io {
                path: error.path().unwrap_or(folder).to_owned(),
                source: error.into(),
            })?;
            if let Some(leak) = walk.entry(folder, &entry)? {
                return Ok(Some(leak));
            }
        }
        Ok(None)
    }

    /// Where the first value begins in a text that is there as a whole, and whose it is.
    fn bytes(&self, text: &[u8]) -> Option<(usize, &SecretId)> {
        let whole = |at: usize, form: &[u8]| {
            let rest = text.get(at..).unwrap_or_default();
            Ok(rest.starts_with(form))
        };
        self.first(text, whole).unwrap_or_default()
    }

    /// Where the first value begins in `text`, and whose it is. `is_whole` tells whether the whole form
    /// follows where its beginning is.
    fn first(
        &self,
        text: &[u8],
        mut is_whole: impl FnMut(usize, &[u8]) -> io::Result<bool>,
    ) -> io::Result<Option<(usize, &SecretId)>> {
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let skipped = self.heads.skip(rest);
            if skipped > 0 {
                at += skipped;
                continue;
            }
            for found in self.heads.all(rest) {
                for (form, secret) in self.forms_of(found) {
                    if form.len() == found.len() || is_whole(at, form)? {
                        return Ok(Some((at, secret)));
                    }
                }
            }
            at += 1;
        }
        Ok(None)
    }

    /// The forms that have this beginning.
    fn forms_of(&self, beginning: &[u8]) -> impl Iterator<Item = &(Form, SecretId)> {
        let from = self
            .forms
            .partition_point(|(form, _)| form.as_slice() < beginning);
        let sorted = self.forms.get(from..).unwrap_or_default().iter();
        sorted
            .take_while(move |(form, _)| form.starts_with(beginning))
            .filter(move |(form, _)| head(form, &self.limits).len() == beginning.len())
    }
}

/// The part of a form that files are compared with at first.
fn head<'a>(form: &'a [u8], limits: &SecretLimits) -> &'a [u8] {
    form.get(..limits.piece_bytes_max).unwrap_or(form)
}

/// A walk over the files of a layer.
struct Walk<'a> {
    search: &'a Search,
    stop: &'a CancellationToken,
    /// Files with several names that were looked at.
    seen: HashSet<(u64, u64)>,
    /// How often the beginning of a value was found without the rest.
    beginnings: u32,
    window: Zeroizing<Vec<u8>>,
    /// The names of a file's extended attributes, and the value of one.
    names: Vec<u8>,
    value: Zeroizing<Vec<u8>>,
}

impl Walk<'_> {
    fn entry(&mut self, root: &Path, entry: &DirEntry) -> Result<Option<Leak>, SearchError> {
        if self.stop.is_cancelled() {
            return Err(SearchError::Stopped);
        }
        let path = Path::new("/").join(
            entry
                .path()
                .strip_prefix(root)
                .unwrap_or_else(|_| entry.path()),
        );
        let failed = |source| SearchError::Io {
            path: path.clone(),
            source,
        };
        let leak = |part, secret: &SecretId| {
            Ok(Some(Leak {
                secret: secret.clone(),
                part,
                path: path.to_string_lossy().into_owned(),
            }))
        };
        let search = self.search;
        let name = path.as_os_str().as_bytes();
        if let Some((at, secret)) = search.bytes(name) {
            return Ok(Some(Leak {
                secret: secret.clone(),
                part: Part::Name,
                path: folder_before(name, at),
            }));
        }
        if let Some(secret) = self.attributes(entry.path()).map_err(failed)? {
            return leak(Part::Attributes, secret);
        }
        let kind = entry.file_type();
        if kind.is_symlink() {
            let target = std::fs::read_link(entry.path()).map_err(failed)?;
            return match search.bytes(target.as_os_str().as_bytes()) {
                Some((_, secret)) => leak(Part::LinkTarget, secret),
                None => Ok(None),
            };
        }
        if !kind.is_file() {
            return Ok(None);
        }
        let file = File::open(entry.path()).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let is_known = metadata.nlink() > 1 && !self.seen.insert((metadata.dev(), metadata.ino()));
        if is_known {
            return Ok(None);
        }
        match self.content(&file, metadata.len()).map_err(failed)? {
            Content::Clean => Ok(None),
            Content::Stopped => Err(SearchError::Stopped),
            Content::Holds(secret) => leak(Part::Content, secret),
        }
    }

    fn content(&mut self, file: &File, length: u64) -> io::Result<Content<'_>> {
        let search = self.search;
        let overlap = search.heads.bytes_max().saturating_sub(1);
        for range in DataRanges::new(file, length) {
            let range = range?;
            // A beginning may lie across two windows, so each repeats the last bytes of the one before.
            let mut at = range.start;
            while at < range.end {
                if self.stop.is_cancelled() {
                    return Ok(Content::Stopped);
                }
                let left = usize::try_from(range.end - at).unwrap_or(usize::MAX);
                let window = self.window.len().min(left);
                let window = self.window.get_mut(..window).unwrap_or_default();
                file.read_exact_at(window, at)?;
                let (beginnings, max) = (&mut self.beginnings, search.limits.beginnings_max);
                let is_whole = |place: usize, form: &[u8]| {
                    *beginnings = beginnings.saturating_add(1);
                    Ok(*beginnings > max || follows(file, at, place, form)?)
                };
                if let Some((_, secret)) = search.first(window, is_whole)? {
                    return Ok(Content::Holds(secret));
                }
                let is_last = window.len() == left;
                let next = if is_last {
                    left
                } else {
                    window.len() - overlap
                };
                at += u64::try_from(next).unwrap_or(u64::MAX);
            }
        }
        Ok(Content::Clean)
    }

    /// Whose value is in the extended attributes, by name or by content.
    fn attributes(&mut self, path: &Path) -> io::Result<Option<&SecretId>> {
        let names = match rustix::fs::llistxattr(path, self.names.as_mut_slice()) {
            Ok(length) => self.names.get(..length).unwrap_or_default(),
            Err(rustix::io::Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        for name in names
            .split(|&byte| byte == 0)
            .filter(|name| !name.is_empty())
        {
            if let Some((_, secret)) = self.search.bytes(name) {
                return Ok(Some(secret));
            }
            let length = rustix::fs::lgetxattr(path, name, self.value.as_mut_slice())?;
            let value = self.value.get(..length).unwrap_or_default();
            if let Some((_, secret)) = self.search.bytes(value) {
                return Ok(Some(secret));
            }
        }
        Ok(None)
    }
}

/// What is in a file.
enum Content<'a> {
    Clean,
    Stopped,
    Holds(&'a SecretId),
}

/// Whether the whole of `form` is in the file, where its beginning was found.
fn follows(file: &File, window_at: u64, place: usize, form: &[u8]) -> io::Result<bool> {
    const PIECE_BYTES: usize = 4096;
    let mut buffer = [0; PIECE_BYTES];
    let mut at = window_at + u64::try_from(place).unwrap_or(u64::MAX);
    for piece in form.chunks(PIECE_BYTES) {
        let read = buffer.get_mut(..piece.len()).unwrap_or_default();
        match file.read_exact_at(read, at) {
            Ok(()) if read == piece => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
        at += u64::try_from(piece.len()).unwrap_or(u64::MAX);
    }
    Ok(true)
}

/// The folder in which the name at `at` stands: the name itself is what must not be told.
fn folder_before(path: &[u8], at: usize) -> String {
    let before = path.get(..=at).unwrap_or(path);
    let slash = before.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
    let folder = before.get(..slash.max(1)).unwrap_or(b"/");
    String::from_utf8_lossy(folder).into_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    use super::*;

    const VALUE: &str = "s3cr3t-pl4nted-value";

    /// A text in which every part is another.
    fn numbered(count: usize) -> String {
        let parts: Vec<String> = (0..count).map(|number| format!("{number:03}-")).collect();
        parts.concat()
    }

    fn search_for(value: &[u8], limits: SecretLimits) -> Search {
        let id: SecretId = "token".parse().unwrap();
        Search::new([(&id, value)], &limits)
    }

    fn found_in(search: &Search, folder: &Path) -> Option<(Part, String)> {
        let leak = search.folder(folder, &CancellationToken::new()).unwrap()?;
        assert_eq!(leak.secret.as_str(), "token");
        Some((leak.part, leak.path))
    }

    /// What is found in a folder that `make` filled.
    fn found(value: &str, make: impl FnOnce(&Path)) -> Option<(Part, String)> {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path());
        let search = search_for(value.as_bytes(), SecretLimits::default());
        found_in(&search, folder.path())
    }

    #[test]
    fn it_is_found_in_contents_names_links_and_attributes() {
        let made = |make: fn(&Path)| found(VALUE, make);
        let content = made(|root| {
            std::fs::create_dir(root.join("app")).unwrap();
            std::fs::write(root.join("app/.npmrc"), format!("token={VALUE}\n")).unwrap();
        });
        assert_eq!(content, Some((Part::Content, "/app/.npmrc".to_owned())));
        let name = made(|root| {
            std::fs::create_dir_all(root.join(format!("app/x-{VALUE}/y"))).unwrap();
        });
        assert_eq!(name, Some((Part::Name, "/app".to_owned())));
        let link = made(|root| symlink(format!("/x/{VALUE}"), root.join("link")).unwrap());
        assert_eq!(link, Some((Part::LinkTarget, "/link".to_owned())));
        let attribute = made(|root| {
            let file = root.join("file");
            std::fs::write(&file, "").unwrap();
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(&file, "trusted.note", VALUE.as_bytes(), flags).unwrap();
        });
        assert_eq!(attribute, Some((Part::Attributes, "/file".to_owned())));
        assert_eq!(
            made(|root| std::fs::write(root.join("file"), "else").unwrap()),
            None
        );
    }

    #[test]
    fn it_is_found_encoded() {
        for text in [
            STANDARD.encode(VALUE),
            STANDARD.encode(format!("user:{VALUE}@")),
            VALUE
                .bytes()
                .map(|byte| format!("{byte:02X}"))
                .collect::<Vec<_>>()
                .concat(),
        ] {
            let found = found(VALUE, |root| {
                std::fs::write(root.join("file"), text).unwrap();
            });
            assert_eq!(found, Some((Part::Content, "/file".to_owned())));
        }
    }

    #[test]
    fn it_is_found_wherever_windows_end() {
        let limits = SecretLimits {
            window_bytes: 64,
            piece_bytes_max: 32,
            ..SecretLimits::default()
        };
        let long = numbered(30);
        for value in [VALUE, &long] {
            let search = search_for(value.as_bytes(), limits);
            let folder = tempfile::tempdir().unwrap();
            for before in 0..130 {
                let text = format!("{}{value}{}", ".".repeat(before), ".".repeat(before % 7));
                std::fs::write(folder.path().join("file"), text).unwrap();
                assert!(
                    found_in(&search, folder.path()).is_some(),
                    "after {before} bytes"
                );
            }
        }
    }

    #[test]
    fn the_beginning_of_a_long_value_is_no_leak_unless_it_comes_back_all_the_time() {
        let value = numbered(100);
        let limits = SecretLimits {
            beginnings_max: 20,
            ..SecretLimits::default()
        };
        let search = search_for(value.as_bytes(), limits);
        let folder = tempfile::tempdir().unwrap();
        for (times, is_leak) in [(20, false), (21, true)] {
            let text = format!("{}!", &value[..value.len() - 1]).repeat(times);
            std::fs::write(folder.path().join("file"), text).unwrap();
            assert_eq!(
                found_in(&search, folder.path()).is_some(),
                is_leak,
                "{times} times"
            );
        }
    }

    #[test]
    fn holes_are_passed_over_and_what_lies_between_them_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("sparse")).unwrap();
        // Reading it would take minutes.
        file.set_len(1 << 40).unwrap();
        let search = search_for(VALUE.as_bytes(), SecretLimits::default());
        assert_eq!(found_in(&search, folder.path()), None);
        file.write_all_at(VALUE.as_bytes(), (1 << 39) + 4090)
            .unwrap();
        let expected = Some((Part::Content, "/sparse".to_owned()));
        assert_eq!(found_in(&search, folder.path()), expected);
    }

    #[test]
    fn other_files_do_no_harm() {
        let found = found(VALUE, |root| {
            let fifo = root.join("fifo");
            rustix::fs::mknodat(
                rustix::fs::CWD,
                &fifo,
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::RUSR,
                0,
            )
            .unwrap();
            std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
            symlink("/proc/self/environ", root.join("link")).unwrap();
            std::fs::write(root.join("one"), "x").unwrap();
            std::fs::hard_link(root.join("one"), root.join("two")).unwrap();
        });
        assert_eq!(found, None);
    }

    #[test]
    fn it_is_found_in_the_configuration_of_an_image() {
        let search = search_for(VALUE.as_bytes(), SecretLimits::default());
        for (document, place) in [
            (
                json!({"config": {"Env": ["A=b", format!("T={VALUE}")]}}),
                "config.Env",
            ),
            (
                json!({"config": {"Labels": {"l": VALUE}}}),
                "config.Labels.l",
            ),
            (json!({"config": {"Labels": {VALUE: "x"}}}), "config.Labels"),
            (
                json!({"history": [{}, {"created_by": format!("RUN {VALUE}")}]}),
                "history.created_by",
            ),
        ] {
            let leak = search.configuration(&document).unwrap();
            assert_eq!(
                (leak.part, leak.path.as_str()),
                (Part::Configuration, place)
            );
        }
        assert_eq!(
            search.configuration(&json!({"config": {"Env": ["A=b"], "n": 1}})),
            None
        );
    }

    #[test]
    fn a_search_that_is_told_to_stop_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        stop.cancel();
        let search = search_for(VALUE.as_bytes(), SecretLimits::default());
        let stopped = search.folder(folder.path(), &stop);
        assert!(matches!(stopped, Err(SearchError::Stopped)));
    }

    #[test]
    fn what_cannot_be_read_is_no_clean_result() {
        let search = search_for(VALUE.as_bytes(), SecretLimits::default());
        let folder = tempfile::tempdir().unwrap();
        let missing = search.folder(&folder.path().join("missing"), &CancellationToken::new());
        assert!(matches!(missing, Err(SearchError::Io { .. })));
    }

    #[test]
    fn short_values_are_told_and_not_searched_for() {
        let search = search_for(b"1234567", SecretLimits::default());
        assert!(search.is_empty());
        assert_eq!(
            search.not_searched(),
            ["token".parse::<SecretId>().unwrap()]
        );
        assert!(!format!("{search:?}").contains("1234567"));
    }
}
