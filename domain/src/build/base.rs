//! What a build's base means, as it is kept with the request.

use serde::{Deserialize, Serialize};

use crate::ids::{ArtifactId, BuildId, TemplateId};
use crate::name::{Namespace, Qualifier, TemplateName, TemplateRef};

/// What a base that is no image by name means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PinnedBase {
    /// A build of another template.
    Template(BaseTemplate),
    /// A builtin template, which is made from an image.
    Builtin {
        /// The image that was configured for it.
        image: String,
    },
}

/// A build of a template that another template is built on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseTemplate {
    /// Where the template lived when it was resolved.
    pub namespace: Namespace,
    /// What it was called there.
    pub name: TemplateName,
    /// The template.
    pub template_id: TemplateId,
    /// Its build.
    pub build: BuildId,
    /// What that build made.
    pub artifact: ArtifactId,
    /// The names of the variables that the template sets for its machines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_keys: Vec<String>,
}

impl BaseTemplate {
    /// The reference that means this build and no other.
    pub fn reference(&self) -> TemplateRef {
        TemplateRef::Named {
            namespace: Some(self.namespace.clone()),
            name: self.name.clone(),
            qualifier: Some(Qualifier::Build(self.build.clone())),
        }
    }
}
