//! The first input in which two recipes differ, in words.

use std::collections::BTreeMap;

use domain::Digest;

use super::{Input, Listed, Listing, Recipe, Role, Value};

/// The most of a name or value that is shown, in characters.
const NAME_CHARS_MAX: usize = 160;
/// How many hex digits of a digest tell it from another.
const DIGEST_CHARS: usize = 8;

/// How `new` came to have another key than `old`: the first input, in the order of `new`, that the two
/// do not share; nothing if they are equal. What stands beneath them is not of interest.
pub fn difference(old: &Recipe, new: &Recipe) -> Option<String> {
    let own = |recipe: &Recipe| -> Vec<Input> {
        let inputs = recipe.inputs.iter();
        let own = inputs.filter(|input| input.role != Role::Parent);
        own.cloned().collect()
    };
    let (before, after) = (own(old), own(new));
    let equal = before
        .iter()
        .zip(&after)
        .take_while(|(old, new)| old == new);
    let equal = equal.count();
    let (was, is) = (before.get(equal), after.get(equal));
    let has = |inputs: &[Input], wanted: &Input| {
        let mut rest = inputs.iter().skip(equal);
        rest.any(|input| is_same(input, wanted))
    };
    match (was, is) {
        (None, None) => (old.kind != new.kind).then(|| "another kind of step".to_owned()),
        (Some(was), Some(is)) if is_same(was, is) => Some(changed(was, is, old, new)),
        // What is still on the new list has only made room.
        (Some(was), Some(is)) if has(&after, was) => Some(added(is)),
        (Some(was), Some(_) | None) => Some(removed(was)),
        (None, Some(is)) => Some(added(is)),
    }
}

fn is_same(one: &Input, other: &Input) -> bool {
    one.role == other.role && one.name == other.name
}

fn changed(was: &Input, is: &Input, old: &Recipe, new: &Recipe) -> String {
    let values = || format!("{} → {}", value(&was.value), value(&is.value));
    match is.role {
        Role::Base => format!("base image changed (sha256 {})", values()),
        Role::Parent => "what it stands on changed".to_owned(),
        Role::Boundary => "a cache boundary lies between".to_owned(),
        Role::Text => match &was.value {
            Value::Text { shown, .. } if value(&is.value) != *shown => {
                format!("step text changed (was `{shown}`)")
            }
            // The difference is behind the first line.
            Value::Text { .. } | Value::Absent | Value::Plain(_) | Value::Digest(_) => {
                "step text changed".to_owned()
            }
        },
        Role::Variable => format!("environment variable {} changed", name(is)),
        Role::Commit => format!("commit {}", values()),
        Role::Files => files((was, old), (is, new)),
        Role::Setting => match (&was.value, &is.value) {
            (Value::Digest(_), Value::Digest(_)) => {
                format!("{} changed (sha256 {})", name(is), values())
            }
            (_, _) if value(&was.value) == value(&is.value) => format!("{} changed", name(is)),
            (_, _) => format!("{} {}", name(is), values()),
        },
    }
}

fn added(is: &Input) -> String {
    match is.role {
        Role::Variable => format!("environment variable {} added", name(is)),
        Role::Files => format!("{} added", name(is)),
        Role::Boundary => "a cache boundary was added before it".to_owned(),
        Role::Base | Role::Parent | Role::Text | Role::Commit | Role::Setting => {
            format!("{} added ({})", name(is), value(&is.value))
        }
    }
}

fn removed(was: &Input) -> String {
    match was.role {
        Role::Variable => format!("environment variable {} removed", name(was)),
        Role::Files => format!("{} removed", name(was)),
        Role::Boundary => "the cache boundary before it was removed".to_owned(),
        Role::Base | Role::Parent | Role::Text | Role::Commit | Role::Setting => {
            format!("{} removed (was {})", name(was), value(&was.value))
        }
    }
}

fn name(input: &Input) -> String {
    if input.role == Role::Files && input.name.is_empty() {
        return "the context".to_owned();
    }
    clipped(&input.name, NAME_CHARS_MAX)
}

fn value(value: &Value) -> String {
    match value {
        Value::Absent => "none".to_owned(),
        Value::Plain(text) => brief_if_hex(text),
        Value::Text { shown, .. } => clipped(shown, NAME_CHARS_MAX),
        Value::Digest(digest) => brief(digest),
    }
}

/// Commits are as long as digests, and as tellable by their beginning.
fn brief_if_hex(text: &str) -> String {
    const COMMIT_CHARS: usize = 40;
    if text.len() < COMMIT_CHARS || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return clipped(text, NAME_CHARS_MAX);
    }
    let kept: String = text.chars().take(DIGEST_CHARS).collect();
    format!("{kept}…")
}

/// The first digits of a digest.
pub fn brief(digest: &Digest) -> String {
    brief_if_hex(&digest.hex())
}

/// The first line of a text, cut after `chars_max` characters, and without what would move a terminal's
/// cursor.
pub fn clipped(text: &str, chars_max: usize) -> String {
    let text = text.trim();
    let first_line = text.lines().next().unwrap_or_default();
    let kept: String = first_line
        .chars()
        .filter(|letter| !letter.is_control())
        .take(chars_max)
        .collect();
    if first_line.len() == text.len() && kept.chars().count() == first_line.chars().count() {
        return kept;
    }
    format!("{}…", kept.trim_end())
}

/// The first file of a source that differs, and how many more do.
fn files((was, old): (&Input, &Recipe), (is, new): (&Input, &Recipe)) -> String {
    let listing = |input: &Input, recipe: &Recipe| {
        let is_its = |listing: &&Listing| {
            listing.source == input.name && Value::Digest(listing.digest()) == input.value
        };
        recipe.listings.iter().find(is_its).cloned()
    };
    let (Some(before), Some(after)) = (listing(was, old), listing(is, new)) else {
        return format!("files of {} changed", name(is));
    };
    let differences = between(&before, &after);
    let Some(first) = differences.first() else {
        return format!("files of {} changed", name(is));
    };
    match differences.len() - 1 {
        0 => first.clone(),
        more => format!("{first} and {more} more"),
    }
}

/// Everything in which two listings of a source differ, in the order of the paths.
fn between(before: &Listing, after: &Listing) -> Vec<String> {
    let by_path = |listing: &Listing| -> BTreeMap<String, Listed> {
        let files = listing.files.iter();
        files
            .map(|file| (file.path.clone(), file.clone()))
            .collect()
    };
    let (old, new) = (by_path(before), by_path(after));
    let mut paths: Vec<&String> = old.keys().chain(new.keys()).collect();
    paths.sort_unstable();
    paths.dedup();
    let told = paths.into_iter().filter_map(|path| {
        let shown = shown_path(&after.source, path);
        match (old.get(path), new.get(path)) {
            (Some(old), Some(new)) => moved(&shown, old, new),
            (None, Some(new)) => Some(format!("{shown} added{}", content(new))),
            (Some(old), None) => Some(format!("{shown} removed{}", content(old))),
            (None, None) => None,
        }
    });
    told.collect()
}

fn moved(path: &str, old: &Listed, new: &Listed) -> Option<String> {
    match (&old.content, &new.content) {
        (Some(was), Some(is)) if was != is => Some(format!(
            "{path} changed (sha256 {} → {})",
            brief(was),
            brief(is)
        )),
        (Some(_), None) => Some(format!("{path} became a folder")),
        (None, Some(_)) => Some(format!("{path} became a file")),
        (Some(_), Some(_)) | (None, None) => (old.mode != new.mode).then(|| {
            format!(
                "mode of {path} changed ({:04o} → {:04o})",
                old.mode, new.mode
            )
        }),
    }
}

fn content(file: &Listed) -> String {
    let digest = file.content.as_ref();
    digest.map_or_else(String::new, |digest| format!(" (sha256 {})", brief(digest)))
}

/// The path in the context of what stands at `path` below `source`.
fn shown_path(source: &str, path: &str) -> String {
    let whole = match (source, path) {
        ("", path) => path.to_owned(),
        (source, "") => source.to_owned(),
        (source, path) => format!("{source}/{path}"),
    };
    clipped(&whole, NAME_CHARS_MAX)
}
