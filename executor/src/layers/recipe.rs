//! What something kept was made of: the list that its key is the digest of, and that says, when a key is
//! not found, why.
//!
//! A key is computed from its recipe and from nothing else, so the two cannot disagree: whatever moves a
//! key is on the list, and whatever is on the list moves the key.

mod difference;

use domain::Digest;
use domain::digest::Hasher;
use serde::{Deserialize, Serialize};

pub use difference::{brief, clipped, difference};

/// The most of a text that a recipe shows, in characters. The whole text is in the digest beside it.
const SHOWN_CHARS_MAX: usize = 120;

/// A list of inputs, in the order in which a difference in them counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    kind: String,
    inputs: Vec<Input>,
    /// What the digests of files stand for. Derived from it is the input; a recipe that was kept has it
    /// in another file, if at all.
    #[serde(skip)]
    listings: Vec<Listing>,
}

/// One input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// What it is for the thing.
    pub role: Role,
    /// How people call it.
    pub name: String,
    /// What it was.
    pub value: Value,
}

/// What an input is for a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// What everything stands on.
    Base,
    /// The thing right beneath, by its key.
    Parent,
    /// What makes it unlike everything before, because nothing before may stand for it.
    Boundary,
    /// What is to be done.
    Text,
    /// Files, by the digest of their listing.
    Files,
    /// A variable; its value is nobody's business.
    Variable,
    /// The commit of a repository.
    Commit,
    /// Anything else with a name and a value.
    Setting,
}

/// What an input was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// It was not given.
    Absent,
    /// A short text that everybody may see.
    Plain(String),
    /// A text of any length: how it begins, and the digest of the whole.
    Text {
        /// The beginning of its first line.
        shown: String,
        /// The digest of all of it.
        digest: Digest,
    },
    /// Only its digest.
    Digest(Digest),
}

/// The files that a source names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The source's path as the caller knows it; empty for the whole context.
    pub source: String,
    /// The files, in order; of a source that is a file, that one with no path.
    pub files: Vec<Listed>,
}

/// A file or folder of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The path from the source.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// The content of a file; none for a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Digest>,
}

impl Recipe {
    /// A recipe without inputs for a thing of this kind.
    pub fn new(kind: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            inputs: Vec::new(),
            listings: Vec::new(),
        }
    }

    /// Adds an input.
    #[must_use]
    pub fn with(mut self, role: Role, name: impl Into<String>, value: Value) -> Self {
        let name = name.into();
        self.inputs.push(Input { role, name, value });
        self
    }

    /// Adds a setting.
    #[must_use]
    pub fn setting(self, name: &str, value: Value) -> Self {
        self.with(Role::Setting, name, value)
    }

    /// Adds variables, by the digests of their values.
    #[must_use]
    pub fn variables<'a>(self, variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        variables.into_iter().fold(self, |recipe, (name, value)| {
            let value = Value::Digest(Digest::of(value.as_bytes()));
            recipe.with(Role::Variable, name, value)
        })
    }

    /// Adds the files of a source.
    #[must_use]
    pub fn files(mut self, listing: Listing) -> Self {
        let (name, value) = (listing.source.clone(), Value::Digest(listing.digest()));
        self.listings.push(listing);
        self.with(Role::Files, name, value)
    }

    /// Adds all inputs of another recipe.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.inputs.extend_from_slice(&other.inputs);
        self.listings.extend_from_slice(&other.listings);
        self
    }

    /// The kind of thing.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The inputs.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// The listings that are at hand.
    pub fn listings(&self) -> &[Listing] {
        &self.listings
    }

    /// This recipe with those of `listings` that its digests stand for.
    #[must_use]
    pub fn with_listings(mut self, listings: Vec<Listing>) -> Self {
        let inputs = &self.inputs;
        let is_ours = |listing: &Listing| {
            let value = Value::Digest(listing.digest());
            let mut files = inputs.iter().filter(|input| input.role == Role::Files);
            files.any(|input| input.name == listing.source && input.value == value)
        };
        self.listings = listings.into_iter().filter(is_ours).collect();
        self
    }

    /// The key of the thing right beneath, if there is one.
    pub fn parent(&self) -> Option<Digest> {
        let mut inputs = self.inputs.iter();
        inputs.find_map(|input| match (input.role, &input.value) {
            (Role::Parent, Value::Digest(parent)) => Some(*parent),
            (_, _) => None,
        })
    }

    /// What is to be done, as far as it is shown.
    pub fn text(&self) -> Option<&str> {
        let mut inputs = self.inputs.iter();
        inputs.find_map(|input| match (input.role, &input.value) {
            (Role::Text, Value::Text { shown, .. }) => Some(shown.as_str()),
            (_, _) => None,
        })
    }

    /// The key: the digest of the kind and of every input.
    pub fn key(&self) -> Digest {
        let count = u64::try_from(self.inputs.len()).unwrap_or(u64::MAX);
        let hasher = Hasher::new("recipe/v1")
            .field(&self.kind)
            .field(count.to_le_bytes());
        let inputs = self.inputs.iter();
        inputs
            .fold(hasher, |hasher, input| input.add_to(hasher))
            .finish()
    }
}

impl Input {
    fn add_to(&self, hasher: Hasher) -> Hasher {
        let hasher = hasher.field(self.role.as_str()).field(&self.name);
        match &self.value {
            Value::Absent => hasher.field("absent"),
            Value::Plain(text) => hasher.field("plain").field(text),
            Value::Text { shown, digest } => {
                hasher.field("text").field(shown).field(digest.as_bytes())
            }
            Value::Digest(digest) => hasher.field("digest").field(digest.as_bytes()),
        }
    }
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Parent => "parent",
            Self::Boundary => "boundary",
            Self::Text => "text",
            Self::Files => "files",
            Self::Variable => "variable",
            Self::Commit => "commit",
            Self::Setting => "setting",
        }
    }
}

impl Value {
    /// A text of any length.
    pub fn text(text: &str) -> Self {
        Self::shown(text, text.as_bytes())
    }

    /// `whole`, of which the beginning of `text` is shown.
    pub fn shown(text: &str, whole: &[u8]) -> Self {
        Self::Text {
            shown: clipped(text, SHOWN_CHARS_MAX),
            digest: Digest::of(whole),
        }
    }

    /// A text, or none.
    pub fn text_or_absent(text: Option<&str>) -> Self {
        text.map_or(Self::Absent, Self::text)
    }

    /// Something short, such as a number, or nothing.
    pub fn plain(value: Option<impl ToString>) -> Self {
        value.map_or(Self::Absent, |value| Self::Plain(value.to_string()))
    }
}

impl Listing {
    /// The digest of everything that a copy of the files can show: names, kinds, modes, contents.
    pub fn digest(&self) -> Digest {
        let count = u64::try_from(self.files.len()).unwrap_or(u64::MAX);
        let hasher = Hasher::new("listing/v1").field(count.to_le_bytes());
        let add = |hasher: Hasher, file: &Listed| {
            let hasher = hasher.field(&file.path).field(file.mode.to_le_bytes());
            match &file.content {
                None => hasher.field("folder"),
                Some(digest) => hasher.field("file").field(digest.as_bytes()),
            }
        };
        self.files.iter().fold(hasher, add).finish()
    }
}

#[cfg(test)]
mod tests;
