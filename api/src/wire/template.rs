//! Templates.

use std::collections::BTreeMap;
use std::fmt;

use domain::build::{OciMetadata, RuntimeDefaults as DomainDefaults};
use domain::definition::Readiness;
use serde::Serialize;

/// A template, as its users see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TemplateInfo {
    /// `tmpl_…`
    pub id: String,
    /// Its name within its namespace.
    pub name: String,
    /// What it is for; empty if nobody said.
    pub description: String,
    /// Whether it came with the service.
    pub builtin: bool,
    /// `namespace/name`
    pub canonical_ref: String,
    /// Its namespace.
    pub namespace_slug: String,
    /// `private` or `public`
    pub visibility: &'static str,
    /// Its tags.
    pub tags: Vec<String>,
    /// The tag that is meant when none is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_tag: Option<String>,
    /// What machines of it start with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_defaults: Option<RuntimeDefaults>,
}

impl TemplateInfo {
    /// The keys that `fields=` may name.
    pub const FIELDS: [&'static str; 10] = [
        "id",
        "name",
        "description",
        "builtin",
        "canonical_ref",
        "namespace_slug",
        "visibility",
        "tags",
        "default_tag",
        "runtime_defaults",
    ];
}

/// A tag, and where it points to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TagInfo {
    /// The tag.
    pub tag: String,
    /// The build.
    pub build_id: String,
    /// Since when it points there.
    pub created_at: String,
}

/// A name that a template had before, and is still meant by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AliasInfo {
    /// `namespace/name`
    pub alias_ref: String,
    /// Since when it is an alias.
    pub created_at: String,
}

/// A name that is kept for its caller.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct NameClaim {
    /// What gives it back: told this once.
    pub claim_token: String,
    /// `namespace/name`
    pub canonical_ref: String,
    /// Until when it is kept.
    pub expires_at: String,
}

impl fmt::Debug for NameClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NameClaim")
            .field("canonical_ref", &self.canonical_ref)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NamespaceInfo {
    /// Its name.
    pub slug: String,
    /// `system`, `user` or `deployment`
    pub kind: &'static str,
    /// Whether names without a namespace are of this one for the caller.
    pub is_default: bool,
}

/// What machines start with: names of variables, never their values.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RuntimeDefaults {
    /// The names of the variables of the environment.
    pub default_env_keys: Vec<String>,
    /// The start command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_cmd: Option<String>,
    /// The user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_user: Option<String>,
    /// The working folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_workdir: Option<String>,
    /// When the start command counts as up. The stored form is the wire's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Readiness>,
}

impl From<&DomainDefaults> for RuntimeDefaults {
    fn from(defaults: &DomainDefaults) -> Self {
        Self {
            default_env_keys: defaults.env_keys.clone(),
            start_cmd: defaults.start_cmd.clone(),
            default_user: defaults.user.clone(),
            default_workdir: defaults.workdir.clone(),
            readiness: defaults.readiness.clone(),
        }
    }
}

/// What is told about a finished build besides its template.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ResultMetadata {
    /// What machines start with.
    pub runtime_defaults: RuntimeDefaults,
    /// Metadata of the image that it was made from.
    pub oci_metadata: OciImageMetadata,
}

/// Metadata of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OciImageMetadata {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Ports, for example `8080/tcp`.
    pub exposed_ports: Vec<String>,
    /// Folders that the image calls volumes.
    pub volumes: Vec<String>,
}

impl From<&OciMetadata> for OciImageMetadata {
    fn from(metadata: &OciMetadata) -> Self {
        Self {
            labels: metadata.labels.clone(),
            exposed_ports: metadata.exposed_ports.clone(),
            volumes: metadata.volumes.clone(),
        }
    }
}
