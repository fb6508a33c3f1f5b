//! Builtin templates: those of the system's namespace, which are made from images.

use ::executor::image::ImageReference;
use domain::ids::TemplateId;
use domain::name::{Namespace, Qualifier, TemplateRef};
use serde::{Deserialize, Serialize};

use super::ConfigError;

/// The name of the builtin template, in the system's namespace.
pub const BASE_NAME: &str = "base";
/// Its id, which nothing else can have: ids begin with the time when they were made.
pub const BASE_ID: &str = "tmpl_00000000000000000000000000";
/// The tags of a builtin template: it has one version, the configured image.
pub const TAGS: [&str; 2] = ["default", "latest"];

/// The builtin templates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Builtins {
    /// `nullspace/base`.
    pub base: Builtin,
}

/// A builtin template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Builtin {
    /// The image that templates on it start from.
    pub image: String,
}

impl Default for Builtin {
    /// What the published client's `from_base_image` starts from.
    fn default() -> Self {
        Self {
            image: "ubuntu:22.04".to_owned(),
        }
    }
}

impl Builtins {
    /// The image of the builtin template that `reference` means.
    pub fn image(&self, reference: &TemplateRef) -> Option<&str> {
        let (namespace, name, qualifier) = match reference {
            TemplateRef::Id(id) => return is_base(id).then_some(&self.base.image),
            TemplateRef::Named {
                namespace: Some(namespace),
                name,
                qualifier,
            } => (namespace, name, qualifier),
            TemplateRef::Named { .. } => return None,
        };
        let has_tag = match qualifier {
            None => true,
            Some(Qualifier::Tag(tag)) => TAGS.contains(&tag.as_str()),
            Some(Qualifier::Build(_)) => false,
        };
        let known = *namespace == Namespace::system() && name.as_str() == BASE_NAME && has_tag;
        known.then_some(self.base.image.as_str())
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        match self.base.image.parse::<ImageReference>() {
            Ok(_) => Ok(()),
            Err(error) => Err(ConfigError::Range {
                setting: "builtins.base.image",
                problem: format!("must be the reference of an image: {error}"),
            }),
        }
    }
}

fn is_base(id: &TemplateId) -> bool {
    id.as_str() == BASE_ID
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_builtin_is_known_by_its_name_and_its_two_tags() {
        let builtins = Builtins::default();
        let build = "nullspace/base:tb_01arz3ndektsv4rrffq69g5fav";
        for (text, is_builtin) in [
            ("nullspace/base", true),
            ("nullspace/base:latest", true),
            ("nullspace/base:default", true),
            ("nullspace/base:v1", false),
            (build, false),
            ("nullspace/other:latest", false),
            ("acme/base:latest", false),
            ("base", false),
            ("base:latest", false),
            (BASE_ID, true),
            ("tmpl_01arz3ndektsv4rrffq69g5fav", false),
        ] {
            let image = builtins.image(&text.parse().unwrap());
            assert_eq!(image, is_builtin.then_some("ubuntu:22.04"), "{text}");
        }
    }

    #[test]
    fn an_image_that_is_none_is_refused_with_its_setting() {
        let mut builtins = Builtins::default();
        assert!(builtins.check().is_ok());
        builtins.base.image = "Not An Image".to_owned();
        let error = builtins.check().unwrap_err().to_string();
        assert!(
            error.starts_with("builtins.base.image: must be the reference of an image"),
            "{error}"
        );
    }
}
