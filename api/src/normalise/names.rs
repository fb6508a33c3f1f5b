//! Names and tags: contract/behaviour.md section 9.

use domain::Digest;
use domain::name::{Namespace, Tag, TemplateName};

use super::fields::Fields;
use crate::limits::Limits;

/// The longest text that is read as a name: a namespace, `/` and a name.
const NAME_BYTES_MAX: usize = 256;

/// The name of the request: `name`, else `alias`, else none.
pub(super) fn name(top: Fields<'_>, own: &Namespace) -> Option<TemplateName> {
    named(top, if top.has("name") { "name" } else { "alias" }, own)
}

/// The name at `key`, of the namespace `own`, which may be written before it.
pub(super) fn named(top: Fields<'_>, key: &str, own: &Namespace) -> Option<TemplateName> {
    let text = top.text(key, NAME_BYTES_MAX)?;
    let name = match text.split_once('/') {
        None => text,
        Some((namespace, name)) if namespace == own.as_str() => name,
        Some(_) => {
            top.problem(
                key,
                format!("must be `name` or `{own}/name`: `{own}` is your namespace"),
            );
            return None;
        }
    };
    name.parse()
        .map_err(|invalid: domain::ids::InvalidId| top.problem(key, invalid.to_string()))
        .ok()
}

/// The digest of the token by which the name is wanted; none if it says nothing.
pub(super) fn claim(top: Fields<'_>) -> Option<Digest> {
    let token = top.text("claim_token", NAME_BYTES_MAX)?;
    if !top.has("name") && !top.has("alias") {
        top.problem("claim_token", "keeps a name: say `name`, too");
    }
    Some(Digest::of(token.as_bytes()))
}

/// The tag at `key`; none if it says nothing.
pub(super) fn tag(top: Fields<'_>, key: &str) -> Option<Tag> {
    match top.get(key)?.as_str().map(str::parse::<Tag>) {
        None => top.problem(key, "must be a string"),
        Some(Err(invalid)) => top.problem(key, invalid.to_string()),
        Some(Ok(tag)) => return Some(tag),
    }
    None
}

/// The tags of the request, each once, in their order; `default` if it says nothing.
pub(super) fn tags(top: Fields<'_>, limits: &Limits) -> Vec<Tag> {
    if !top.has("tags") {
        return vec![Tag::default_tag()];
    }
    let list = top.list("tags", limits.tag_count_max);
    if list.is_some_and(<[_]>::is_empty) {
        top.problem("tags", "must not be empty; leave it out for `default`");
    }
    let mut tags: Vec<Tag> = Vec::new();
    for (index, value) in list.unwrap_or_default().iter().enumerate() {
        match value.as_str().map(str::parse::<Tag>) {
            None => top.element_problem("tags", index, "must be a string"),
            Some(Err(invalid)) => top.element_problem("tags", index, invalid.to_string()),
            Some(Ok(tag)) if tags.contains(&tag) => {}
            Some(Ok(tag)) => tags.push(tag),
        }
    }
    tags
}
