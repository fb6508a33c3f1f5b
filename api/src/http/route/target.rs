//! What a path below a template means.
//!
//! Where the slash of a reference is not encoded, a path can be read in two ways: `refs/acme/tags`
//! is the template `acme/tags`, or the tags of the template `acme`. The method decides, and if that
//! does not, the full reference wins where there is such a template (contract/behaviour.md
//! section 2).

use domain::name::TemplateRef;

use super::ApiError;

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The template, as the caller names it.
    pub reference: String,
    /// What of it.
    pub part: Part,
}

/// What a path below a template leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(strum::EnumIter))]
pub enum Part {
    /// The template itself: `GET`, `DELETE`.
    Whole,
    /// `GET`, `POST …/tags`
    Tags,
    /// `DELETE …/tags/{tag}`
    Tag(String),
    /// `GET …/tags/{tag}/history`
    TagHistory(String),
    /// `POST …/tags/{tag}/rollback`
    TagRollback(String),
    /// `GET …/aliases`
    Aliases,
    /// `DELETE …/aliases/{alias}`
    Alias(String),
    /// `POST …/rename`
    Rename,
    /// `PATCH …/visibility`
    Visibility,
    /// `GET …/builds`
    Builds,
}

impl Part {
    fn read(below: &[&str]) -> Option<Self> {
        let part = match below {
            [] => Self::Whole,
            ["tags"] => Self::Tags,
            ["tags", tag] if !tag.is_empty() => Self::Tag((*tag).to_owned()),
            ["tags", tag, "history"] if !tag.is_empty() => Self::TagHistory((*tag).to_owned()),
            ["tags", tag, "rollback"] if !tag.is_empty() => Self::TagRollback((*tag).to_owned()),
            ["aliases"] => Self::Aliases,
            ["aliases", alias] if !alias.is_empty() => Self::Alias((*alias).to_owned()),
            // An alias whose slash was not encoded.
            ["aliases", namespace, name] if !namespace.is_empty() && !name.is_empty() => {
                Self::Alias(format!("{namespace}/{name}"))
            }
            ["rename"] => Self::Rename,
            ["visibility"] => Self::Visibility,
            ["builds"] => Self::Builds,
            _ => return None,
        };
        Some(part)
    }

    /// The methods that it takes.
    pub(in crate::http) const fn methods(&self) -> &'static [&'static str] {
        match self {
            Self::Whole => &["GET", "DELETE"],
            Self::Tags => &["GET", "POST"],
            Self::Tag(_) | Self::Alias(_) => &["DELETE"],
            Self::Aliases | Self::Builds | Self::TagHistory(_) => &["GET"],
            Self::Rename | Self::TagRollback(_) => &["POST"],
            Self::Visibility => &["PATCH"],
        }
    }
}

/// What a path may mean: one reading, or two, of which the one with the longer reference is first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    first: Target,
    other: Option<Target>,
}

impl Targets {
    /// What the segments below `/v1/templates/refs` may mean.
    ///
    /// # Errors
    /// [`ApiError::RouteNotFound`]
    pub(super) fn below_refs(below: &[&str]) -> Result<Self, ApiError> {
        let short = match below {
            [name, rest @ ..] if !name.is_empty() => Target::read((*name).to_owned(), rest),
            _ => None,
        };
        let long = match below {
            [namespace, name, rest @ ..] if !namespace.is_empty() && !name.is_empty() => {
                Target::read(format!("{namespace}/{name}"), rest)
            }
            _ => None,
        };
        match (long, short) {
            (Some(long), Some(short)) if long.reference.parse::<TemplateRef>().is_ok() => {
                Ok(Self {
                    first: long,
                    other: Some(short),
                })
            }
            (_, Some(only)) | (Some(only), None) => Ok(only.into()),
            (None, None) => Err(ApiError::RouteNotFound),
        }
    }

    /// What the segments below `/v1/templates/{id}` mean.
    ///
    /// # Errors
    /// [`ApiError::RouteNotFound`]
    pub(super) fn below_id(id: &str, below: &[&str]) -> Result<Self, ApiError> {
        let read = Target::read(id.to_owned(), below).filter(|_| !id.is_empty());
        read.map(Self::from).ok_or(ApiError::RouteNotFound)
    }

    fn readings(&self) -> impl Iterator<Item = &Target> {
        std::iter::once(&self.first).chain(&self.other)
    }

    /// The methods that the path takes in any reading.
    pub(in crate::http) fn methods(&self) -> Vec<&'static str> {
        let mut methods = Vec::new();
        for method in self.readings().flat_map(|target| target.part.methods()) {
            if !methods.contains(method) {
                methods.push(*method);
            }
        }
        methods
    }

    /// The path as logs name it, while it is open what it means.
    pub(super) fn name(&self) -> &'static str {
        match &self.other {
            None => self.first.name(),
            Some(_) => "/v1/templates/refs/…",
        }
    }

    /// What is meant by a request with this method; `exists` says whether there is a template of a
    /// reference.
    ///
    /// # Errors
    /// [`ApiError::MethodNotAllowed`], or what `exists` fails with.
    pub fn choose(
        self,
        method: &str,
        exists: impl FnOnce(&str) -> Result<bool, ApiError>,
    ) -> Result<Target, ApiError> {
        let takes = |target: &Target| target.part.methods().contains(&method);
        let allowed = self.methods();
        let other = self.other.filter(takes);
        match (Some(self.first).filter(takes), other) {
            (Some(long), Some(short)) => Ok(if exists(&long.reference)? {
                long
            } else {
                short
            }),
            (Some(only), None) | (None, Some(only)) => Ok(only),
            (None, None) => Err(ApiError::MethodNotAllowed { allowed }),
        }
    }
}

impl From<Target> for Targets {
    fn from(only: Target) -> Self {
        Self {
            first: only,
            other: None,
        }
    }
}

impl Target {
    fn read(reference: String, below: &[&str]) -> Option<Self> {
        let part = Part::read(below)?;
        Some(Self { reference, part })
    }

    /// The path as logs name it, without what callers put into it.
    pub fn name(&self) -> &'static str {
        match self.part {
            Part::Whole => "/v1/templates/refs/{ref}",
            Part::Tags => "/v1/templates/refs/{ref}/tags",
            Part::Tag(_) => "/v1/templates/refs/{ref}/tags/{tag}",
            Part::TagHistory(_) => "/v1/templates/refs/{ref}/tags/{tag}/history",
            Part::TagRollback(_) => "/v1/templates/refs/{ref}/tags/{tag}/rollback",
            Part::Aliases => "/v1/templates/refs/{ref}/aliases",
            Part::Alias(_) => "/v1/templates/refs/{ref}/aliases/{alias}",
            Part::Rename => "/v1/templates/refs/{ref}/rename",
            Part::Visibility => "/v1/templates/refs/{ref}/visibility",
            Part::Builds => "/v1/templates/refs/{ref}/builds",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Route;
    use super::*;

    /// What a request means if the templates `existing` are there.
    fn meant(method: &str, path: &str, existing: &[&str]) -> Result<Target, ApiError> {
        let Route::Template(targets) = Route::find(&format!("/v1/templates/{path}"))? else {
            panic!("{path} is no template's");
        };
        targets.choose(method, |reference| Ok(existing.contains(&reference)))
    }

    fn is(method: &str, path: &str, existing: &[&str], reference: &str, part: Part) {
        let expected = Target {
            reference: reference.to_owned(),
            part,
        };
        let found = meant(method, path, existing);
        assert_eq!(found.unwrap(), expected, "{method} {path} {existing:?}");
    }

    #[test]
    fn a_reference_is_one_segment_or_two() {
        for (path, reference) in [
            ("refs/my-app", "my-app"),
            ("refs/my-app%3Av1", "my-app:v1"),
            ("refs/acme%2Fmy-app%3Av1", "acme/my-app:v1"),
            ("refs/acme/my-app:v1", "acme/my-app:v1"),
            ("refs/acme%2Ftags", "acme/tags"),
            ("refs/tmpl_x/", "tmpl_x"),
            ("refs/Acme/x", "Acme/x"),
            ("tmpl_x", "tmpl_x"),
            ("my-app%3Av1", "my-app:v1"),
        ] {
            is("GET", path, &[], reference, Part::Whole);
            is("DELETE", path, &[], reference, Part::Whole);
        }
    }

    #[test]
    fn what_belongs_to_a_template_is_below_each_form_of_it() {
        for base in ["refs/acme%2Fx", "refs/acme/x", "refs/x", "tmpl_x", "x"] {
            let reference = match base {
                "tmpl_x" => "tmpl_x",
                "refs/x" | "x" => "x",
                _ => "acme/x",
            };
            for (method, below, part) in [
                ("GET", "tags", Part::Tags),
                ("POST", "tags", Part::Tags),
                ("DELETE", "tags/v1", Part::Tag("v1".into())),
                ("GET", "tags/v1/history", Part::TagHistory("v1".into())),
                ("POST", "tags/v1/rollback", Part::TagRollback("v1".into())),
                ("GET", "aliases", Part::Aliases),
                (
                    "DELETE",
                    "aliases/acme%2Fold",
                    Part::Alias("acme/old".into()),
                ),
                ("DELETE", "aliases/acme/old", Part::Alias("acme/old".into())),
                ("POST", "rename", Part::Rename),
                ("PATCH", "visibility", Part::Visibility),
                ("GET", "builds", Part::Builds),
            ] {
                is(method, &format!("{base}/{below}"), &[], reference, part);
            }
        }
    }

    #[test]
    fn a_full_reference_wins_over_a_subresource_where_there_is_such_a_template() {
        let there = ["acme/tags"];
        is("GET", "refs/acme/tags", &there, "acme/tags", Part::Whole);
        is("GET", "refs/acme/tags", &[], "acme", Part::Tags);
        // Of what is said in one segment there is no doubt.
        is("GET", "refs/acme%2Ftags/tags", &[], "acme/tags", Part::Tags);
        is("GET", "acme/tags", &there, "acme", Part::Tags);
        // Nor if a part cannot be a name.
        let odd = ["my-app:v1/tags", "tmpl_x/tags"];
        is("GET", "refs/my-app:v1/tags", &odd, "my-app:v1", Part::Tags);
        is("GET", "refs/tmpl_x/tags", &odd, "tmpl_x", Part::Tags);
    }

    #[test]
    fn the_method_decides_between_two_readings_if_it_can() {
        let there = ["acme/tags", "acme/rename", "acme/aliases"];
        is("POST", "refs/acme/tags", &there, "acme", Part::Tags);
        is("POST", "refs/acme/rename", &there, "acme", Part::Rename);
        is("DELETE", "refs/acme/tags", &[], "acme/tags", Part::Whole);
        // One segment deeper, both are still there.
        is("GET", "refs/acme/tags/tags", &[], "acme/tags", Part::Tags);
        is(
            "POST",
            "refs/acme/rename/rename",
            &[],
            "acme/rename",
            Part::Rename,
        );
        let tag = Part::Tag("tags".into());
        is("DELETE", "refs/acme/tags/tags", &there, "acme", tag);
        let path = "refs/acme/tags/tags/history";
        let history = Part::TagHistory("tags".into());
        is("GET", path, &there, "acme", history);
        let tag = Part::Tag("history".into());
        is("DELETE", path, &there, "acme/tags", tag);
        let (deep, shallow) = (Part::Alias("x".into()), Part::Alias("aliases/x".into()));
        let path = "refs/acme/aliases/aliases/x";
        is("DELETE", path, &there, "acme/aliases", deep);
        is("DELETE", path, &[], "acme", shallow);
    }

    #[test]
    fn a_method_that_no_reading_takes_is_told_what_is_taken() {
        for (method, path, expected) in [
            ("PUT", "refs/x", vec!["GET", "DELETE"]),
            ("PUT", "refs/x/rename", vec!["GET", "DELETE", "POST"]),
            ("PUT", "refs/x%2Fy/tags", vec!["GET", "POST"]),
            ("GET", "tmpl_x/rename", vec!["POST"]),
        ] {
            let found = meant(method, path, &[]);
            let Err(ApiError::MethodNotAllowed { allowed }) = found else {
                panic!("{path}: {found:?}");
            };
            assert_eq!(allowed, expected, "{path}");
        }
    }
}
