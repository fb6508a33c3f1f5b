//! The names of images, with what Docker leaves out filled in.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use domain::Digest;

/// The most bytes of a reference: a name of 255, a tag of 128, a digest of 71, and their separators.
const REFERENCE_BYTES_MAX: usize = 255 + 1 + 128 + 1 + 71;

/// Where an image is: a registry, a repository in it, and a tag, a digest, or both.
///
/// Its text is canonical: `debian:bookworm` reads as `docker.io/library/debian:bookworm`. With a
/// digest, the tag is only a remark.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageReference(Arc<Parts>);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Parts {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// What an image is called in errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageName {
    /// Its reference.
    Reference(ImageReference),
    /// Words for one that no registry has.
    Described(&'static str),
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reference(reference) => write!(f, "image `{reference}`"),
            Self::Described(words) => f.write_str(words),
        }
    }
}

impl From<&ImageReference> for ImageName {
    fn from(reference: &ImageReference) -> Self {
        Self::Reference(reference.clone())
    }
}

/// The text is no image reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidReference(String);

impl ImageReference {
    /// The registry's host, with its port if one was given; `docker.io` if none was.
    pub fn registry(&self) -> &str {
        &self.0.registry
    }

    /// The path in the registry.
    pub fn repository(&self) -> &str {
        &self.0.repository
    }

    /// The tag; `latest` if neither a tag nor a digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.0.tag.as_deref()
    }

    /// The digest of the manifest or the index.
    pub fn digest(&self) -> Option<&Digest> {
        self.0.digest.as_ref()
    }

    /// The same image, pinned to a manifest.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        Self(Arc::new(Parts {
            digest: Some(digest),
            ..Parts::clone(&self.0)
        }))
    }
}

impl FromStr for ImageReference {
    type Err = InvalidReference;

    /// Reads a reference in the grammar of the distribution project, normalised as Docker does.
    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let invalid = |why: &str| Err(InvalidReference(why.to_owned()));
        if text.len() > REFERENCE_BYTES_MAX {
            return invalid("it is too long");
        }
        let parsed: oci_spec::distribution::Reference =
            text.parse()
                .map_err(|error: oci_spec::distribution::ParseError| {
                    InvalidReference(error.to_string())
                })?;
        // Docker refuses what looks like an image id, which names nothing in a registry.
        if Digest::from_hex(text).is_ok() {
            return invalid("64 hex digits are an image id, not a name");
        }
        let digest = match parsed.digest() {
            None => None,
            Some(digest) => match digest.parse() {
                Ok(digest) => Some(digest),
                Err(_) => {
                    return invalid("its digest is not `sha256:` and 64 lower-case hex digits");
                }
            },
        };
        if parsed
            .registry()
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_err())
        {
            return invalid("its port is out of range");
        }
        Ok(Self(Arc::new(Parts {
            registry: parsed.registry().to_owned(),
            repository: parsed.repository().to_owned(),
            tag: parsed.tag().map(str::to_owned),
            digest,
        })))
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0.registry, self.0.repository)?;
        if let Some(tag) = &self.0.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.0.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn docker_s_shorthand_is_filled_in() {
        let digest = Digest::of(b"x");
        for (text, canonical) in [
            ("debian", "docker.io/library/debian:latest"),
            ("debian:bookworm", "docker.io/library/debian:bookworm"),
            ("user/app", "docker.io/user/app:latest"),
            ("docker.io/debian:12", "docker.io/library/debian:12"),
            (
                "index.docker.io/library/debian:12",
                "docker.io/library/debian:12",
            ),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x", "localhost:5000/x:latest"),
            ("127.0.0.1:5000/a/b/c:1", "127.0.0.1:5000/a/b/c:1"),
            ("ghcr.io/a/b_c/d--e:V1.2-x", "ghcr.io/a/b_c/d--e:V1.2-x"),
        ] {
            let reference: ImageReference = text.parse().unwrap();
            assert_eq!(reference.to_string(), canonical, "{text}");
        }
        let pinned: ImageReference = format!("debian@{digest}").parse().unwrap();
        assert_eq!(
            pinned.to_string(),
            format!("docker.io/library/debian@{digest}")
        );
        assert_eq!((pinned.tag(), pinned.digest()), (None, Some(&digest)));
        let both: ImageReference = format!("debian:12@{digest}").parse().unwrap();
        assert_eq!((both.tag(), both.digest()), (Some("12"), Some(&digest)));
        let tagged: ImageReference = "debian:12".parse().unwrap();
        assert_eq!(tagged.pinned(digest), both);
    }

    #[test]
    fn other_texts_are_refused() {
        let hex = Digest::of(b"x").hex();
        for text in [
            "",
            " debian",
            "debian ",
            "Debian",
            "debian:",
            "debian:a b",
            "debian@",
            "a//b",
            "/a",
            "a/",
            "../a",
            "http://docker.io/a",
            "localhost:99999/x",
            "debian:tag:tag",
            "debian\n",
            &hex,
            &format!("debian@sha256:{}", hex.to_uppercase()),
            &format!("debian@sha512:{hex}{hex}"),
            &format!("debian@md5:{}", &hex[..32]),
            &"a/".repeat(300),
            &format!("debian:{}", "t".repeat(129)),
        ] {
            assert!(text.parse::<ImageReference>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn the_canonical_text_reads_as_itself(
            registry in "(|localhost(:[1-9][0-9]{0,3})?/|[a-z]{1,8}\\.io/)",
            path in "[a-z0-9]{1,6}([._-][a-z0-9]{1,4})?(/[a-z0-9]{1,6}){0,2}",
            tag in "(|:[A-Za-z0-9_][A-Za-z0-9_.-]{0,10})",
            digest in proptest::option::of(any::<[u8; 32]>()),
        ) {
            let digest = digest.map(|bytes| format!("@{}", Digest::from_bytes(bytes)));
            let text = format!("{registry}{path}{tag}{}", digest.unwrap_or_default());
            let reference: ImageReference = text.parse().unwrap();
            prop_assert_eq!(reference.to_string().parse(), Ok(reference.clone()));
            prop_assert!(reference.tag().is_some() || reference.digest().is_some());
            prop_assert!(!reference.registry().is_empty());
        }

        #[test]
        fn no_text_is_trouble(text in "\\PC{0,300}") {
            if let Ok(reference) = text.parse::<ImageReference>() {
                prop_assert_eq!(reference.to_string().parse(), Ok(reference));
            }
        }
    }
}
