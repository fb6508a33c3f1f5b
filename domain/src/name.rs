//! Names, tags, namespaces and references: the grammar of contract/behaviour.md section 9.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{BuildId, InvalidId, TemplateId, string_impls};

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $valid:expr, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) { Ok(Self(text.into())) } else { Err(InvalidId::new(text, $expected)) }
            }
        }

        string_impls!($name);
    };
}

name_type!(
    /// A template's name within its namespace.
    TemplateName, is_template_name,
    "a template name (1 to 64 of a-z, 0-9, `.`, `_`, `-`, beginning and ending with a letter or digit, not `tmpl_…`)"
);
name_type!(
    /// A tag: a name that moves between the builds of one template.
    Tag, is_tag,
    "a tag (1 to 128 of letters, digits, `.`, `_`, `-`, beginning with a letter, digit or `_`, not `tb_…`)"
);
name_type!(
    /// A namespace, which an owner has one of by default; `nullspace` is the system's own.
    Namespace, is_namespace,
    "a namespace (lower-case letters and digits in groups joined by single `-`, at most 64)"
);
name_type!(
    /// Whoever a key belongs to: builds and private templates are seen by their owner alone.
    Owner, is_namespace,
    "an owner (lower-case letters and digits in groups joined by single `-`, at most 64)"
);
name_type!(
    /// The id under which a Dockerfile asks for a build secret.
    SecretId, |text| (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)),
    "a secret id (1 to 128 of letters, digits, `.`, `_`, `-`)"
);

const TEMPLATE_NAME_BYTES_MAX: usize = 64;
const TAG_BYTES_MAX: usize = 128;
const NAMESPACE_BYTES_MAX: usize = 64;

fn is_template_name(text: &str) -> bool {
    let edge = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.len() <= TEMPLATE_NAME_BYTES_MAX
        && bytes.first().is_some_and(edge)
        && bytes.last().is_some_and(edge)
        && bytes.iter().all(|byte| edge(byte) || b"._-".contains(byte))
        && !text.starts_with(TemplateId::PREFIX)
}

fn is_tag(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= TAG_BYTES_MAX
        && bytes
            .first()
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
        && !text.starts_with(BuildId::PREFIX)
}

fn is_namespace(text: &str) -> bool {
    text.len() <= NAMESPACE_BYTES_MAX
        && text.split('-').all(|group| {
            !group.is_empty()
                && group
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        })
}

impl Tag {
    /// The tag of builds that name none.
    pub fn default_tag() -> Self {
        Self("default".into())
    }
}

impl Namespace {
    /// The system's namespace, which holds the builtin templates.
    pub fn system() -> Self {
        Self("nullspace".into())
    }

    /// The default namespace of `owner`.
    pub fn of(owner: &Owner) -> Self {
        Self(owner.as_str().into())
    }
}

/// Which build of a template is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Qualifier {
    /// The build that a tag points to.
    Tag(Tag),
    /// One exact build.
    Build(BuildId),
}

/// How callers name a template: `name`, `ns/name`, either with `:tag` or `:tb_…`, or `tmpl_…`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TemplateRef {
    /// By id.
    Id(TemplateId),
    /// By name; without a namespace the caller's default one is meant.
    Named {
        /// The namespace, if one is written.
        namespace: Option<Namespace>,
        /// The name.
        name: TemplateName,
        /// The tag or build, if one is written.
        qualifier: Option<Qualifier>,
    },
}

impl FromStr for TemplateRef {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text.starts_with(TemplateId::PREFIX) {
            return text.parse().map(Self::Id);
        }
        let (path, qualifier) = match text.split_once(':') {
            None => (text, None),
            Some((path, qualifier)) if qualifier.starts_with(BuildId::PREFIX) => {
                (path, Some(Qualifier::Build(qualifier.parse()?)))
            }
            Some((path, qualifier)) => (path, Some(Qualifier::Tag(qualifier.parse()?))),
        };
        let (namespace, name) = match path.split_once('/') {
            None => (None, path),
            Some((namespace, name)) => (Some(namespace.parse()?), name),
        };
        Ok(Self::Named {
            namespace,
            name: name.parse()?,
            qualifier,
        })
    }
}

impl fmt::Display for TemplateRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => fmt::Display::fmt(id, f),
            Self::Named {
                namespace,
                name,
                qualifier,
            } => {
                if let Some(namespace) = namespace {
                    write!(f, "{namespace}/")?;
                }
                fmt::Display::fmt(name, f)?;
                match qualifier {
                    None => Ok(()),
                    Some(Qualifier::Tag(tag)) => write!(f, ":{tag}"),
                    Some(Qualifier::Build(build)) => write!(f, ":{build}"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_that_would_read_as_builds_are_refused() {
        assert!("tb_x".parse::<Tag>().is_err());
        assert!("v1.2-rc_3".parse::<Tag>().is_ok());
        for text in ["", "-a", ".a", "a b", &"a".repeat(129)] {
            assert!(text.parse::<Tag>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_keep_to_their_alphabet() {
        for text in ["a", "my-app", "a.b_c-1", &"a".repeat(64)] {
            assert!(text.parse::<TemplateName>().is_ok(), "{text}");
        }
        for text in ["", "A", "-a", "a-", "a/b", "tmpl_x", "a:b", &"a".repeat(65)] {
            assert!(text.parse::<TemplateName>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_form_of_a_reference_round_trips() {
        let build = "tb_01arz3ndektsv4rrffq69g5fav";
        for text in [
            "a".to_owned(),
            "a:v1".into(),
            format!("a:{build}"),
            "ns/a".into(),
            "ns/a:v1".into(),
            format!("ns/a:{build}"),
            "tmpl_01arz3ndektsv4rrffq69g5fav".into(),
        ] {
            assert_eq!(
                text.parse::<TemplateRef>().map(|parsed| parsed.to_string()),
                Ok(text)
            );
        }
        for text in ["", ":", "a:", "a/b/c", "NS/a", "a:tb_x", "tmpl_x"] {
            assert!(text.parse::<TemplateRef>().is_err(), "{text}");
        }
    }
}
