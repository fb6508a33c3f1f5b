//! What differs between two requests, field by field. Values of variables are compared and never told:
//! an environment is where people keep what nobody should read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use domain::build::Requested;
use domain::definition::{Definition, Source};
use serde_json::{Map, Value, json};
use similar::TextDiff;

use crate::limits::{DIFF_CONTEXT_LINES, DIFF_TEXT_MS_MAX};
use crate::wire::diff::Change;

/// What differs but for the steps.
pub(super) fn changes(before: &Requested, after: &Requested) -> Vec<Change> {
    let (before, after) = (Shown::of(before), Shown::of(after));
    let mut changes = Vec::new();
    values("", &before.plain, &after.plain, &mut changes);
    let texts = (before.text.as_deref(), after.text.as_deref());
    changes.extend(text("/source/text", texts.0, texts.1));
    for (path, was) in &before.variables {
        let is = after.variables.get(path);
        variables(path, was, is.unwrap_or(&NONE), &mut changes);
    }
    changes
}

/// No variables.
static NONE: BTreeMap<String, String> = BTreeMap::new();

/// A request, taken apart by how its parts are compared.
struct Shown {
    plain: Value,
    /// The Dockerfile.
    text: Option<String>,
    /// By where they are; every request has every place.
    variables: BTreeMap<&'static str, BTreeMap<String, String>>,
}

impl Shown {
    fn of(requested: &Requested) -> Self {
        let mut definition: Definition = requested.definition.clone();
        let mut variables = BTreeMap::new();
        let (mut build_envs, mut build_args, mut dockerfile) = Default::default();
        match &mut definition.source {
            Source::Declarative {
                steps,
                build_envs: envs,
                ..
            } => {
                steps.clear();
                build_envs = std::mem::take(envs);
            }
            Source::Dockerfile {
                text,
                build_args: args,
                ..
            } => {
                dockerfile = Some(std::mem::take(text));
                build_args = std::mem::take(args);
            }
        }
        variables.insert("/source/build_envs", build_envs);
        variables.insert("/source/build_args", build_args);
        let runtime = std::mem::take(&mut definition.runtime.default_envs);
        variables.insert("/runtime/default_envs", runtime);
        Self {
            plain: plain(requested, &definition),
            text: dockerfile,
            variables,
        }
    }
}

/// What is compared as it is stored.
fn plain(requested: &Requested, definition: &Definition) -> Value {
    let mut plain = json!({
        "name": requested.name,
        "tags": requested.tags,
        "backend": requested.backend,
        "source_type": requested.source_type,
        "registry_auth": requested.registry_auth,
    });
    let stored = serde_json::to_value(definition);
    let stored = stored.expect("a definition has only string keys and no failing serializer");
    if let (Value::Object(plain), Value::Object(stored)) = (&mut plain, stored) {
        plain.extend(stored);
    }
    for emptied in ["steps", "text"] {
        if let Some(Value::Object(source)) = plain.get_mut("source") {
            source.remove(emptied);
        }
    }
    plain
}

/// What differs between two values at `path`.
pub(super) fn values(path: &str, before: &Value, after: &Value, changes: &mut Vec<Change>) {
    match (before, after) {
        (before, after) if before == after => {}
        (Value::Object(before), Value::Object(after)) => objects(path, before, after, changes),
        (Value::Array(before), Value::Array(after)) if are_texts(before) && are_texts(after) => {
            lists(path, before, after, changes);
        }
        (before, after) => changes.push(Change {
            before: Some(before.clone()),
            after: Some(after.clone()),
            ..change(path.to_owned(), "changed")
        }),
    }
}

fn objects(
    path: &str,
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    changes: &mut Vec<Change>,
) {
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for key in keys {
        let at = below(path, key);
        match (before.get(key), after.get(key)) {
            (Some(before), Some(after)) => values(&at, before, after, changes),
            (Some(before), None) => changes.push(removed(at, before.clone())),
            (None, Some(after)) => changes.push(added(at, after.clone())),
            (None, None) => {}
        }
    }
}

/// Lists of texts: which are gone and which have come; if that says nothing, their order changed.
fn lists(path: &str, before: &[Value], after: &[Value], changes: &mut Vec<Change>) {
    let known = changes.len();
    let (old, new) = (texts(before), texts(after));
    let gone = old.difference(&new);
    changes.extend(gone.map(|text| removed(path.to_owned(), (*text).into())));
    let came = new.difference(&old);
    changes.extend(came.map(|text| added(path.to_owned(), (*text).into())));
    if changes.len() == known {
        changes.push(Change {
            before: Some(before.into()),
            after: Some(after.into()),
            ..change(path.to_owned(), "changed")
        });
    }
}

fn texts(values: &[Value]) -> BTreeSet<&str> {
    values.iter().filter_map(Value::as_str).collect()
}

fn are_texts(values: &[Value]) -> bool {
    values.iter().all(Value::is_string)
}

/// A text of several lines: by the lines that changed.
fn text(path: &str, before: Option<&str>, after: Option<&str>) -> Option<Change> {
    let path = path.to_owned();
    match (before, after) {
        (Some(before), Some(after)) if before != after => Some(Change {
            diff: Some(unified(before, after)),
            ..change(path, "changed")
        }),
        (Some(before), None) => Some(removed(path, before.into())),
        (None, Some(after)) => Some(added(path, after.into())),
        (Some(_), Some(_)) | (None, None) => None,
    }
}

fn unified(before: &str, after: &str) -> String {
    let mut differ = TextDiff::configure();
    differ.timeout(Duration::from_millis(DIFF_TEXT_MS_MAX));
    let lines = differ.diff_lines(before, after);
    let mut unified = lines.unified_diff();
    unified
        .context_radius(DIFF_CONTEXT_LINES)
        .header("before", "after")
        .to_string()
}

/// Variables: their names, and whether their values are the same.
fn variables(
    path: &str,
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
    changes: &mut Vec<Change>,
) {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        let word = match (before.get(name), after.get(name)) {
            (Some(before), Some(after)) if before != after => "changed",
            (Some(_), None) => "removed",
            (None, Some(_)) => "added",
            (Some(_), Some(_)) | (None, None) => continue,
        };
        changes.push(Change {
            redacted: true,
            ..change(below(path, name), word)
        });
    }
}

/// The pointer to `key` below `path`.
fn below(path: &str, key: &str) -> String {
    format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"))
}

fn change(path: String, change: &'static str) -> Change {
    Change {
        path,
        change,
        before: None,
        after: None,
        diff: None,
        redacted: false,
    }
}

fn removed(path: String, before: Value) -> Change {
    Change {
        before: Some(before),
        ..change(path, "removed")
    }
}

fn added(path: String, after: Value) -> Change {
    Change {
        after: Some(after),
        ..change(path, "added")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differences(before: &Value, after: &Value) -> Vec<Value> {
        let mut changes = Vec::new();
        values("", before, after, &mut changes);
        changes
            .iter()
            .map(|change| serde_json::to_value(change).unwrap())
            .collect()
    }

    #[test]
    fn values_are_told_by_where_they_are() {
        let before = json!({"a": {"x": 1, "y/z": "one", "gone": true}, "b": [1, 2]});
        let after = json!({"a": {"x": 2, "y/z": "two", "new~": null}, "b": [1, 3]});
        let expected = [
            json!({"path": "/a/gone", "change": "removed", "before": true}),
            json!({"path": "/a/new~0", "change": "added", "after": null}),
            json!({"path": "/a/x", "change": "changed", "before": 1, "after": 2}),
            json!({"path": "/a/y~1z", "change": "changed", "before": "one", "after": "two"}),
            json!({"path": "/b", "change": "changed", "before": [1, 2], "after": [1, 3]}),
        ];
        assert_eq!(differences(&before, &after), expected);
        assert!(differences(&before, &before).is_empty());
        // What the pointers mean.
        assert_eq!(before.pointer("/a/y~1z"), Some(&json!("one")));
    }

    #[test]
    fn of_lists_of_texts_it_is_told_what_came_and_went() {
        let expected = [
            json!({"path": "/ids", "change": "removed", "before": "a"}),
            json!({"path": "/ids", "change": "added", "after": "c"}),
        ];
        let (before, after) = (json!({"ids": ["a", "b"]}), json!({"ids": ["b", "c"]}));
        assert_eq!(differences(&before, &after), expected);
        let turned = json!({"ids": ["b", "a"]});
        let expected =
            json!({"path": "/ids", "change": "changed", "before": ["a", "b"], "after": ["b", "a"]});
        assert_eq!(differences(&before, &turned), [expected]);
    }

    #[test]
    fn of_a_long_text_the_lines_that_changed_are_told() {
        let lines = |changed: &str| {
            let lines = (0..20).map(|number| match number {
                10 => format!("{changed}\n"),
                _ => format!("line {number}\n"),
            });
            lines.collect::<String>()
        };
        let (before, after) = (lines("RUN a"), lines("RUN b"));
        let change = text("/source/text", Some(&before), Some(&after)).unwrap();
        let diff = change.diff.unwrap();
        let expected = "--- before\n+++ after\n@@ -8,7 +8,7 @@\n line 7\n line 8\n line 9\n-RUN a\n\
                        +RUN b\n line 11\n line 12\n line 13\n";
        assert_eq!(diff, expected);
        assert_eq!((change.before, change.after), (None, None));
        assert_eq!(text("/source/text", Some(&before), Some(&before)), None);
    }

    #[test]
    fn of_variables_names_are_told_and_no_values() {
        let map = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            pairs
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let before = map(&[("GONE", "untold"), ("SAME", "untold"), ("TURNED", "untold")]);
        let after = map(&[
            ("NEW", "untold"),
            ("SAME", "untold"),
            ("TURNED", "untold 2"),
        ]);
        let mut changes = Vec::new();
        variables("/runtime/default_envs", &before, &after, &mut changes);
        let told: Vec<_> = changes
            .iter()
            .map(|change| (change.path.as_str(), change.change))
            .collect();
        let expected = [
            ("/runtime/default_envs/GONE", "removed"),
            ("/runtime/default_envs/NEW", "added"),
            ("/runtime/default_envs/TURNED", "changed"),
        ];
        assert_eq!(told, expected);
        assert!(changes.iter().all(|change| change.redacted));
        let told = serde_json::to_string(&changes).unwrap();
        assert!(!told.contains("untold"), "{told}");
    }
}
