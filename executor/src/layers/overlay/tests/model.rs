//! The merged view against a model: a plain tree that random operations change, layer by layer.
//!
//! The model knows nothing of layers. What changed in it is packed as an image builder would: new and
//! changed files, whiteouts or opaque marks for what is gone, folders with or without entries of their
//! own, hard links to files of the layer or of those beneath, and now and then something else under the
//! same name before it. What overlayfs then shows must be the model's tree.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileTypeExt as _;

use super::*;

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Folder,
    File(String),
    Link(String),
    Pipe,
    Null,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Attributes {
    mode: u32,
    owner: u32,
    group: u32,
    /// Seconds and nanoseconds; none for a folder that no entry describes.
    modified: Option<(i64, i64)>,
    remark: Option<u8>,
}

/// A folder that only a longer path names.
const IMPLIED: Attributes = Attributes {
    mode: 0o755,
    owner: 0,
    group: 0,
    modified: None,
    remark: None,
};

/// A file; several names may share it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    kind: Kind,
    attributes: Attributes,
}

#[derive(Clone, Debug, Default)]
struct Tree {
    names: BTreeMap<String, usize>,
    nodes: BTreeMap<usize, Node>,
    made: usize,
}

#[derive(Clone, Debug)]
enum Operation {
    Make(String, Kind, Attributes),
    /// A file whose parents nobody makes before.
    MakeDeep(String),
    Share(String, prop::sample::Index),
    Change(prop::sample::Index, Attributes),
    Remove(prop::sample::Index),
    Rename(prop::sample::Index, String),
    /// A folder's content goes, and the folder stays.
    Empty(prop::sample::Index),
}

impl Tree {
    fn node(&self, path: &str) -> Option<&Node> {
        self.nodes.get(self.names.get(path)?)
    }

    fn is_folder(&self, path: &str) -> bool {
        matches!(self.node(path), Some(node) if node.kind == Kind::Folder)
    }

    fn pick(&self, index: prop::sample::Index) -> Option<String> {
        let names: Vec<&String> = self.names.keys().collect();
        (!names.is_empty()).then(|| (*index.get(&names)).clone())
    }

    fn remove(&mut self, path: &str) {
        self.names
            .retain(|other, _| other != path && !is_within(other, path));
    }

    fn insert(&mut self, path: &str, kind: Kind, attributes: Attributes) {
        self.made += 1;
        self.nodes.insert(self.made, Node { kind, attributes });
        self.names.insert(path.to_owned(), self.made);
    }

    /// Makes the folders above a path; false if something else stands there.
    fn reach(&mut self, path: &str) -> bool {
        for parent in parents(path) {
            match self.node(parent) {
                Some(node) if node.kind == Kind::Folder => {}
                Some(_) => return false,
                None => self.insert(parent, Kind::Folder, IMPLIED),
            }
        }
        true
    }

    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Make(path, kind, attributes) => {
                if !self.reach(&path) {
                    return;
                }
                if kind == Kind::Folder && self.is_folder(&path) {
                    let id = self.names[&path];
                    self.nodes.get_mut(&id).unwrap().attributes = attributes;
                    return;
                }
                self.remove(&path);
                self.insert(&path, kind, attributes);
            }
            Operation::MakeDeep(path) => {
                let attributes = Attributes {
                    modified: Some((7, 0)),
                    ..IMPLIED
                };
                let kind = Kind::File("deep".to_owned());
                self.apply(Operation::Make(path, kind, attributes));
            }
            Operation::Share(path, index) => {
                let Some(of) = self.pick(index) else { return };
                if of == path || is_within(&of, &path) || self.is_folder(&of) {
                    return;
                }
                if self.reach(&path) {
                    let id = self.names[&of];
                    self.remove(&path);
                    self.names.insert(path, id);
                }
            }
            Operation::Change(index, attributes) => {
                let Some(path) = self.pick(index) else { return };
                let id = self.names[&path];
                self.nodes.get_mut(&id).unwrap().attributes = attributes;
            }
            Operation::Remove(index) => {
                if let Some(path) = self.pick(index) {
                    self.remove(&path);
                }
            }
            Operation::Empty(index) => {
                if let Some(path) = self.pick(index) {
                    self.names.retain(|other, _| !is_within(other, &path));
                }
            }
            Operation::Rename(index, to) => {
                let Some(from) = self.pick(index) else { return };
                let apart = from != to && !is_within(&to, &from) && !is_within(&from, &to);
                if !apart || !self.reach(&to) {
                    return;
                }
                self.remove(&to);
                let moved = |path: &str| path == from || is_within(path, &from);
                let names = std::mem::take(&mut self.names).into_iter();
                self.names = names
                    .map(|(path, id)| match path.strip_prefix(from.as_str()) {
                        Some(rest) if moved(&path) => (format!("{to}{rest}"), id),
                        _ => (path, id),
                    })
                    .collect();
            }
        }
    }
}

/// Packs what changed between two trees.
struct Packer<'a> {
    before: &'a Tree,
    after: &'a Tree,
    /// Where a packer may do one thing or another.
    choices: u64,
    /// Paths that this layer has.
    packed: BTreeSet<String>,
}

impl Packer<'_> {
    fn choose(&mut self) -> bool {
        self.choices = self.choices.rotate_left(1);
        self.choices & 1 == 1
    }

    /// Whether a name is other than before: its file, or anything about it.
    fn is_changed(&self, path: &str) -> bool {
        if self.before.node(path) != self.after.node(path) {
            return true;
        }
        !self.after.is_folder(path) && self.before.names.get(path) != self.after.names.get(path)
    }

    fn pack(mut self) -> (Vec<u8>, BTreeSet<String>) {
        let (before, after) = (self.before, self.after);
        let stay = |path: &str| before.is_folder(path) && after.is_folder(path);
        let mut gone: Vec<&String> = before.names.keys().collect();
        gone.retain(|path| !after.names.contains_key(*path) && parents(path).all(stay));
        let mut opaque = BTreeSet::new();
        for path in &gone {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            // Of a folder that loses something, all may be hidden and what stays packed anew.
            if self.choose() && !folder.is_empty() {
                opaque.insert(folder.to_owned());
            }
        }
        let is_hidden = |path: &str| opaque.iter().any(|folder| is_within(path, folder));
        let marks = opaque
            .iter()
            .filter(|folder| !is_hidden(folder))
            .map(|folder| format!("{folder}/.wh..wh..opq"));
        let whiteouts = gone.iter().filter(|path| !is_hidden(path)).map(|path| {
            let (folder, name) = path.rsplit_once('/').unwrap_or((".", path));
            format!("{folder}/.wh.{name}")
        });
        let marks: Vec<String> = marks.chain(whiteouts).collect();

        let (marks_first, mut sample) = (self.choose(), Sample::new());
        let mark = |sample: Sample| {
            marks
                .iter()
                .fold(sample, |sample, name| sample.file(name, ""))
        };
        if marks_first {
            sample = mark(sample);
        }
        let changed: BTreeSet<&str> = after
            .names
            .keys()
            .map(String::as_str)
            .filter(|path| is_hidden(path) || self.is_changed(path))
            .collect();
        for path in after.names.keys() {
            sample = self.entry(sample, path, &changed);
        }
        if !marks_first {
            sample = mark(sample);
        }
        (sample.end(), self.packed)
    }

    fn entry(&mut self, sample: Sample, path: &str, changed: &BTreeSet<&str>) -> Sample {
        let node = &self.after.nodes[&self.after.names[path]];
        if node.kind == Kind::Folder {
            let was = self.before.node(path);
            let is_plain = node.attributes == IMPLIED && was.is_none_or(|was| was == node);
            let has_entry = if changed.contains(path) {
                // Without an entry it must be named by what comes into it.
                let within = self.after.names.keys().any(|other| is_within(other, path));
                !is_plain || !within || self.choose()
            } else {
                self.choose() && node.attributes.modified.is_some()
            };
            return if has_entry {
                described(sample, path, node)
            } else {
                sample
            };
        }
        if !changed.contains(path) {
            return sample;
        }
        let mut sample = sample;
        if self.choose() && self.choose() {
            // Something else under the same name, which the entry replaces.
            sample = if self.choose() {
                sample.file(path, "junk")
            } else {
                sample.folder(path, 0o700).file(format!("{path}/j"), "junk")
            };
        }
        let id = self.after.names[path];
        let mut shared =
            self.after.names.iter().filter(|(other, of)| {
                **of == id && *other != path && (self.packed.contains(*other))
            });
        let in_layer = shared.next().map(|(other, _)| other.clone());
        let beneath = self
            .after
            .names
            .iter()
            .find(|(other, of)| **of == id && !changed.contains(other.as_str()))
            .map(|(other, _)| other.clone());
        self.packed.insert(path.to_owned());
        match (in_layer, beneath) {
            (Some(of), _) => sample.hard_link(path, of),
            (None, Some(of)) if self.choose() => {
                // The file beneath comes into this layer.
                self.packed.insert(of.clone());
                sample.hard_link(path, of)
            }
            (None, _) => described(sample, path, node),
        }
    }
}

/// An entry for a file with its attributes.
fn described(sample: Sample, path: &str, node: &Node) -> Sample {
    let attributes = node.attributes;
    let (seconds, nanoseconds) = attributes.modified.unwrap_or((9, 0));
    // Before the epoch, the fraction counts the other way.
    let time = if seconds < 0 && nanoseconds > 0 {
        let (whole, rest) = (seconds + 1, 1_000_000_000 - nanoseconds);
        format!("-{}.{rest:09}", whole.abs())
    } else {
        format!("{seconds}.{nanoseconds:09}")
    };
    let remark = attributes.remark.map(|remark| [remark]);
    let mut records = vec![("mtime", time.as_bytes())];
    // Links and pipes have no attributes of users.
    let may = matches!(node.kind, Kind::Folder | Kind::File(_));
    if let Some(remark) = remark.as_ref().filter(|_| may) {
        records.push(("SCHILY.xattr.user.note", remark));
    }
    let (kind, data, target) = match &node.kind {
        Kind::Folder => (b'5', "", ""),
        Kind::File(content) => (b'0', content.as_str(), ""),
        Kind::Link(target) => (b'2', "", target.as_str()),
        Kind::Pipe => (b'6', "", ""),
        Kind::Null => (b'3', "", ""),
    };
    sample
        .pax(&records)
        .member(kind, path, data.as_bytes(), |header| {
            header.set_mode(attributes.mode);
            header.set_uid(attributes.owner.into());
            header.set_gid(attributes.group.into());
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
            if kind == b'3' {
                header.set_device_major(1).unwrap();
                header.set_device_minor(3).unwrap();
            }
        })
}

/// What the model says of a path, in words; the name that stands for all of its file comes last.
fn expected(tree: &Tree, packed_in: &BTreeMap<String, usize>) -> BTreeMap<String, String> {
    let mut first: BTreeMap<(usize, usize), &String> = BTreeMap::new();
    let mut lines = BTreeMap::new();
    for (path, id) in &tree.names {
        let node = &tree.nodes[id];
        let attributes = node.attributes;
        let octal = Some(format!("{:o}", attributes.mode));
        let (kind, mode, remark) = match &node.kind {
            Kind::Folder => ("folder".to_owned(), octal, attributes.remark),
            Kind::File(text) => (format!("file {text}"), octal, attributes.remark),
            Kind::Link(target) => (format!("link {target}"), None, None),
            Kind::Pipe => ("pipe".to_owned(), octal, None),
            Kind::Null => ("device 1:3".to_owned(), octal, None),
        };
        // Names share a file if they came with the same layer.
        let shared = if node.kind == Kind::Folder {
            path
        } else {
            first.entry((*id, packed_in[path])).or_insert(path)
        };
        let owner = (attributes.owner, attributes.group);
        lines.insert(
            path.clone(),
            format!(
                "{kind}, {mode:?}, {owner:?}, {:?}, remark {remark:?}, as {shared}",
                attributes.modified
            ),
        );
    }
    lines
}

/// What is mounted, in the same words. Times that the model does not know are left out.
fn mounted(root: &Path, tree: &Tree) -> BTreeMap<String, String> {
    let mut first: BTreeMap<u64, String> = BTreeMap::new();
    let mut lines = BTreeMap::new();
    for entry in walkdir::WalkDir::new(root).min_depth(1).sort_by_file_name() {
        let entry = entry.unwrap();
        let path = entry.path().strip_prefix(root).unwrap();
        let path = path.to_str().unwrap().to_owned();
        let status = std::fs::symlink_metadata(entry.path()).unwrap();
        let (file, mut mode) = (
            status.file_type(),
            Some(format!("{:o}", status.mode() & 0o7777)),
        );
        let kind = if file.is_dir() {
            "folder".to_owned()
        } else if file.is_file() {
            format!("file {}", std::fs::read_to_string(entry.path()).unwrap())
        } else if file.is_symlink() {
            mode = None;
            let target = std::fs::read_link(entry.path()).unwrap();
            format!(
                "link {}",
                String::from_utf8_lossy(target.as_os_str().as_bytes())
            )
        } else if file.is_fifo() {
            "pipe".to_owned()
        } else {
            let (major, minor) = (
                rustix::fs::major(status.rdev()),
                rustix::fs::minor(status.rdev()),
            );
            format!("device {major}:{minor}")
        };
        let mut remark = [0; 1];
        let remark = rustix::fs::lgetxattr(entry.path(), "user.note", &mut remark[..])
            .is_ok()
            .then_some(remark[0]);
        let known = tree.node(&path).and_then(|node| node.attributes.modified);
        let modified = known.map(|_| (status.mtime(), status.mtime_nsec()));
        let shared = first.entry(status.ino()).or_insert_with(|| path.clone());
        let owner = (status.uid(), status.gid());
        let line =
            format!("{kind}, {mode:?}, {owner:?}, {modified:?}, remark {remark:?}, as {shared}");
        lines.insert(path, line);
    }
    lines
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let mode = prop::sample::select(vec![0o600, 0o644, 0o711, 0o2750, 0o4755, 0o1777, 0]);
    let id = || prop::sample::select(vec![0_u32, 7, 65_534, 2_000_000_000]);
    let time = prop::sample::select(vec![
        (0, 0),
        (-5, 250_000_000),
        (1_600_000_000, 123_456_789),
    ]);
    (mode, id(), id(), time, prop::option::of(1..9_u8)).prop_map(
        |(mode, owner, group, modified, remark)| Attributes {
            mode,
            owner,
            group,
            modified: Some(modified),
            remark,
        },
    )
}

fn operation() -> impl Strategy<Value = Operation> {
    let path = || "[abc](/[abc]){0,2}";
    let index = any::<prop::sample::Index>;
    let kind = prop_oneof![
        3 => "[xyz]{0,3}".prop_map(Kind::File),
        3 => Just(Kind::Folder),
        1 => "(/|\\.\\./)?[abc](/[abc])?".prop_map(Kind::Link),
        1 => Just(Kind::Pipe),
        1 => Just(Kind::Null),
    ];
    prop_oneof![
        8 => (path(), kind, attributes())
            .prop_map(|(path, kind, attributes)| Operation::Make(path, kind, attributes)),
        2 => "[abc](/[abc]){1,3}".prop_map(Operation::MakeDeep),
        3 => (path(), index()).prop_map(|(path, index)| Operation::Share(path, index)),
        2 => (index(), attributes()).prop_map(|(index, attributes)| Operation::Change(index, attributes)),
        3 => index().prop_map(Operation::Remove),
        1 => index().prop_map(Operation::Empty),
        2 => (index(), path()).prop_map(|(index, to)| Operation::Rename(index, to)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_merged_view_is_the_tree_that_was_packed(
        layers in prop::collection::vec((prop::collection::vec(operation(), 0..10), any::<u64>()), 1..6)
    ) {
        let mut tree = Tree::default();
        let mut packed_in = BTreeMap::new();
        let mut archives = Vec::new();
        for (layer, (operations, choices)) in layers.into_iter().enumerate() {
            let before = tree.clone();
            for operation in operations {
                tree.apply(operation);
            }
            let packer = Packer { before: &before, after: &tree, choices, packed: BTreeSet::new() };
            let (archive, packed) = packer.pack();
            packed_in.extend(packed.into_iter().map(|path| (path, layer)));
            archives.push(archive);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let merged = runtime.block_on(async {
            let world = World::new();
            let layers = world.layers(archives).await;
            let mount = world.read_only(&layers);
            mounted(mount.path(), &tree)
        });
        prop_assert_eq!(merged, expected(&tree, &packed_in));
    }
}
