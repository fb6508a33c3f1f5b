//! The small bodies of what is done to templates by hand.

use domain::ids::BuildId;
use domain::name::{Namespace, Tag, TemplateName};
use domain::recorded::Position;
use domain::template::Visibility;
use serde_json::Value;

use super::fields::{Fields, Problems};
use super::{Refusal, names};
use crate::limits::Limits;
use crate::wire::position::WirePosition;

/// Longer than either word for a visibility.
const VISIBILITY_BYTES_MAX: usize = 32;

/// Longer than a build's id and than a position.
const ROLLBACK_BYTES_MAX: usize = 64;

/// `{"tags": ["v1", …]}`: tags to assign, at least one.
///
/// # Errors
/// [`Refusal`], with every mistake that was found.
pub fn tags(body: &Value, limits: &Limits) -> Result<Vec<Tag>, Refusal> {
    read(body, limits, |top| {
        if !top.has("tags") {
            top.problem("tags", "is required");
        }
        Some(names::tags(top, limits))
    })
}

/// `{"tag": "v1"}` or `{"tags": ["v1", …]}`: tags to move to a build, at least one.
///
/// # Errors
/// [`Refusal`], with every mistake that was found.
pub fn promoted_tags(body: &Value, limits: &Limits) -> Result<Vec<Tag>, Refusal> {
    read(body, limits, |top| {
        top.only(&["tag", "tags"]);
        if !top.has("tag") && !top.has("tags") {
            top.problem("tag", "is required");
        }
        let first = names::tag(top, "tag");
        let more = top.has("tags").then(|| names::tags(top, limits));
        let more = more.into_iter().flatten();
        let more: Vec<Tag> = more.filter(|tag| Some(tag) != first.as_ref()).collect();
        Some(first.into_iter().chain(more).collect())
    })
}

/// `{"new_name": "…"}`: what a template of the namespace `own` is to be called.
///
/// # Errors
/// [`Refusal`], naming the field.
pub fn new_name(body: &Value, own: &Namespace, limits: &Limits) -> Result<TemplateName, Refusal> {
    name(body, "new_name", own, limits)
}

/// `{"template_ref": "…"}`: a name to keep in the namespace `own`.
///
/// # Errors
/// [`Refusal`], naming the field.
pub fn reserved_name(
    body: &Value,
    own: &Namespace,
    limits: &Limits,
) -> Result<TemplateName, Refusal> {
    name(body, "template_ref", own, limits)
}

/// `{"visibility": "public"}`
///
/// # Errors
/// [`Refusal`], naming the field.
pub fn visibility(body: &Value, limits: &Limits) -> Result<Visibility, Refusal> {
    const KEY: &str = "visibility";
    read(body, limits, |top| {
        match top.required_text(KEY, VISIBILITY_BYTES_MAX)? {
            "private" => Some(Visibility::Private),
            "public" => Some(Visibility::Public),
            _ => {
                top.problem(KEY, "must be `private` or `public`");
                None
            }
        }
    })
}

fn name(
    body: &Value,
    key: &str,
    own: &Namespace,
    limits: &Limits,
) -> Result<TemplateName, Refusal> {
    read(body, limits, |top| {
        if !top.has(key) {
            top.problem(key, "is required");
        }
        names::named(top, key, own)
    })
}

/// Where a tag is taken back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RollbackTarget {
    /// A build that it pointed to.
    Build(BuildId),
    /// Where it was moved to by the event there.
    Position(Position),
}

/// `{"to": "tb_…"}` or `{"to": "…"}` with a position of the tag's history.
///
/// # Errors
/// [`Refusal`], naming the field.
pub fn rollback(body: &Value, limits: &Limits) -> Result<RollbackTarget, Refusal> {
    const KEY: &str = "to";
    read(body, limits, |top| {
        top.only(&[KEY]);
        let text = top.required_text(KEY, ROLLBACK_BYTES_MAX)?;
        if let Ok(id) = text.parse() {
            return Some(RollbackTarget::Build(id));
        }
        if let Ok(WirePosition(position)) = text.parse() {
            return Some(RollbackTarget::Position(position));
        }
        top.problem(
            KEY,
            "must be a build (`tb_…`) or a position of the tag's history",
        );
        None
    })
}

/// What `read` finds, unless something is wrong.
pub(super) fn read<T>(
    body: &Value,
    limits: &Limits,
    read: impl FnOnce(Fields<'_>) -> Option<T>,
) -> Result<T, Refusal> {
    let problems = Problems::new(limits.problem_count_max);
    let found = Fields::top(body, &problems).and_then(read);
    // What is missing has left a problem.
    found
        .filter(|_| problems.is_empty())
        .ok_or_else(|| problems.into_refusal())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn own() -> Namespace {
        "acme".parse().unwrap()
    }

    /// The fields that are wrong.
    fn wrong<T: std::fmt::Debug>(read: Result<T, Refusal>) -> Vec<String> {
        let crate::http::error::ApiError::Invalid { problems, .. } = read.unwrap_err().into()
        else {
            panic!("it is another refusal");
        };
        problems.into_iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn names_are_of_the_own_namespace() {
        let limits = Limits::default();
        for text in ["app", "acme/app"] {
            let name = new_name(&json!({"new_name": text}), &own(), &limits).unwrap();
            assert_eq!(name.as_str(), "app");
            let name = reserved_name(&json!({"template_ref": text}), &own(), &limits).unwrap();
            assert_eq!(name.as_str(), "app");
        }
        for text in ["other/app", "app:v1", "tmpl_x", "App", "", "a/b/c", "acme/"] {
            let read = new_name(&json!({"new_name": text}), &own(), &limits);
            assert_eq!(wrong(read), ["new_name"], "{text}");
            let read = reserved_name(&json!({"template_ref": text}), &own(), &limits);
            assert_eq!(wrong(read), ["template_ref"], "{text}");
        }
        for body in [json!({}), json!({"new_name": null}), json!({"new_name": 1})] {
            assert_eq!(
                wrong(new_name(&body, &own(), &limits)),
                ["new_name"],
                "{body}"
            );
        }
        assert_eq!(wrong(new_name(&json!([]), &own(), &limits)), [""]);
    }

    #[test]
    fn at_least_one_tag_is_assigned() {
        let limits = Limits::default();
        let read = tags(&json!({"tags": ["v1", "x", "v1"]}), &limits).unwrap();
        assert_eq!(read, ["v1", "x"].map(|text| text.parse::<Tag>().unwrap()));
        for (body, field) in [
            (json!({}), "tags"),
            (json!({"tags": null}), "tags"),
            (json!({"tags": []}), "tags"),
            (json!({"tags": "v1"}), "tags"),
            (json!({"tags": ["tb_x"]}), "tags[0]"),
            (json!({"tags": ["v1", 1]}), "tags[1]"),
        ] {
            assert_eq!(wrong(tags(&body, &limits)), [field], "{body}");
        }
    }

    #[test]
    fn a_tag_or_several_are_promoted_and_nothing_else_is_said() {
        let limits = Limits::default();
        for (body, expected) in [
            (json!({"tag": "prod"}), vec!["prod"]),
            (json!({"tags": ["a", "b", "a"]}), vec!["a", "b"]),
            (json!({"tag": "b", "tags": ["a", "b"]}), vec!["b", "a"]),
            (json!({"tag": "prod", "tags": null}), vec!["prod"]),
        ] {
            let read = promoted_tags(&body, &limits).unwrap();
            let read: Vec<&str> = read.iter().map(Tag::as_str).collect();
            assert_eq!(read, expected, "{body}");
        }
        for (body, field) in [
            (json!({}), "tag"),
            (json!({"tag": null}), "tag"),
            (json!({"tag": ""}), "tag"),
            (json!({"tag": "tb_x"}), "tag"),
            (json!({"tag": 1}), "tag"),
            (json!({"tags": []}), "tags"),
            (json!({"tags": ["v1", "a b"]}), "tags[1]"),
            (json!({"tag": "v1", "force": true}), "force"),
        ] {
            assert_eq!(wrong(promoted_tags(&body, &limits)), [field], "{body}");
        }
    }

    #[test]
    fn a_tag_goes_back_to_a_build_or_to_a_position() {
        let limits = Limits::default();
        let id = format!("tb_{}", "0".repeat(26));
        let read = rollback(&json!({"to": id}), &limits);
        assert_eq!(read, Ok(RollbackTarget::Build(id.parse().unwrap())));
        let read = rollback(&json!({"to": "000000000000002a"}), &limits);
        let position = Position::from_raw(42);
        assert_eq!(read, Ok(RollbackTarget::Position(position)));
        for (body, field) in [
            (json!({}), "to"),
            (json!({"to": null}), "to"),
            (json!({"to": 42}), "to"),
            (json!({"to": "42"}), "to"),
            (json!({"to": "tb_x"}), "to"),
            (json!({"to": "x".repeat(65)}), "to"),
            (json!({"to": id, "force": true}), "force"),
        ] {
            assert_eq!(wrong(rollback(&body, &limits)), [field], "{body}");
        }
    }

    #[test]
    fn a_visibility_is_one_of_two_words() {
        let limits = Limits::default();
        for (text, expected) in [
            ("private", Visibility::Private),
            ("public", Visibility::Public),
        ] {
            let read = visibility(&json!({"visibility": text}), &limits);
            assert_eq!(read, Ok(expected));
        }
        for body in [
            json!({}),
            json!({"visibility": "Public"}),
            json!({"visibility": true}),
        ] {
            assert_eq!(wrong(visibility(&body, &limits)), ["visibility"], "{body}");
        }
    }
}
