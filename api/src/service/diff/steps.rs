//! Which steps of two builds belong together, and how each build did them.
//!
//! Steps that were asked for alike are aligned first, as lines of two texts are. Between these, what
//! is of one kind (a `run` and a `run`) is the same step with something else in it.

use domain::definition::Source;
use projections::timeline::StepSpan;
use serde_json::Value;
use similar::{Algorithm, DiffOp, capture_diff_slices};

use super::{Side, definition};
use crate::service::present;
use crate::wire::diff::{StepDiff, StepOutcome};

/// A step of a build.
struct Step<'a> {
    index: u32,
    name: String,
    /// What it is: steps with the same are the same.
    identity: String,
    /// What kind of step it is.
    kind: String,
    /// What was asked for, if it is not all in the name.
    fields: Option<Value>,
    /// How it was done, if it was come to.
    span: Option<&'a StepSpan>,
}

/// The steps of both builds, in order.
pub(super) fn compare(before: &Side, after: &Side) -> Vec<StepDiff> {
    let (before, after) = (steps(before), steps(after));
    let pairs = align(&labels(&before), &labels(&after));
    let of = |steps: &[Step<'_>], place: Option<usize>| {
        place.and_then(|place| steps.get(place).map(outcome))
    };
    let compared = pairs.into_iter().map(|pair| {
        let (one, other) = (of(&before, pair.before), of(&after, pair.after));
        let keys = one.as_ref().zip(other.as_ref()).and_then(|(one, other)| {
            let (one, other) = (one.cache.as_ref()?, other.cache.as_ref()?);
            Some(one.key == other.key)
        });
        let mut fields = Vec::new();
        if let (Some(one), Some(other)) = (pair.before, pair.after)
            && let Some(one) = before.get(one).and_then(|step| step.fields.as_ref())
            && let Some(other) = after.get(other).and_then(|step| step.fields.as_ref())
        {
            definition::values("", one, other, &mut fields);
        }
        StepDiff {
            change: pair.change(),
            same_key: keys,
            before: one,
            after: other,
            fields,
        }
    });
    compared.collect()
}

/// The steps of a build. Those of a Dockerfile are known as far as BuildKit has told of them.
fn steps(side: &Side) -> Vec<Step<'_>> {
    let done = side.timeline.latest_steps();
    match &side.requested.definition.source {
        Source::Declarative { steps, .. } => (1..)
            .zip(steps)
            .map(|(index, step)| {
                let fields = serde_json::to_value(step);
                let fields = fields.expect("a step has only string keys");
                let kind = fields.get("action").and_then(Value::as_str);
                Step {
                    index,
                    name: step.title(),
                    identity: fields.to_string(),
                    kind: kind.unwrap_or_default().to_owned(),
                    fields: Some(fields),
                    span: done.get(&index).copied(),
                }
            })
            .collect(),
        Source::Dockerfile { .. } => done
            .into_iter()
            .map(|(index, span)| {
                let (stage, text) = split_title(&span.name);
                let instruction = text.split_whitespace().next().unwrap_or_default();
                Step {
                    index,
                    name: span.name.clone(),
                    identity: format!("{stage}\n{text}"),
                    kind: format!("{stage}\n{instruction}"),
                    fields: None,
                    span: Some(span),
                }
            })
            .collect(),
    }
}

/// The stage and the text of a title like `[build 2/3] RUN make`: the numbers change when a step is
/// put before it.
fn split_title(title: &str) -> (&str, &str) {
    let parts = title
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "));
    match parts {
        Some((place, text)) => (place.rsplit_once(' ').map_or("", |(stage, _)| stage), text),
        None => ("", title),
    }
}

fn outcome(step: &Step<'_>) -> StepOutcome {
    let span = step.span;
    StepOutcome {
        step_index: step.index,
        name: step.name.clone(),
        outcome: span.map_or("not_run", |span| span.outcome.as_str()),
        cached: span.is_some_and(|span| span.is_cached),
        cache: span.and_then(|span| span.lookup.as_ref().map(present::lookup)),
        duration_us: span.map(|span| span.span.micros()),
        exit_code: span.and_then(|span| span.exit_code),
        stored_bytes: span.and_then(|span| span.stored_bytes),
    }
}

/// What a step is, and its kind.
type Label<'a> = (&'a str, &'a str);

fn labels<'a>(steps: &'a [Step<'_>]) -> Vec<Label<'a>> {
    let labels = steps.iter();
    labels
        .map(|step| (step.identity.as_str(), step.kind.as_str()))
        .collect()
}

/// Steps that belong together, by their places; or one that stands alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pair {
    before: Option<usize>,
    after: Option<usize>,
    is_same: bool,
}

impl Pair {
    const fn change(self) -> &'static str {
        match (self.before, self.after) {
            (Some(_), Some(_)) if self.is_same => "same",
            (Some(_), Some(_)) => "changed",
            (Some(_), None) => "removed",
            (None, _) => "added",
        }
    }
}

fn align(before: &[Label<'_>], after: &[Label<'_>]) -> Vec<Pair> {
    fn identities<'a>(labels: &[Label<'a>]) -> Vec<&'a str> {
        labels.iter().map(|(identity, _)| *identity).collect()
    }
    fn kinds<'a>(labels: &[Label<'a>]) -> Vec<&'a str> {
        labels.iter().map(|(_, kind)| *kind).collect()
    }
    let mut pairs = Vec::new();
    for op in capture_diff_slices(Algorithm::Myers, &identities(before), &identities(after)) {
        let (old, new) = (op.old_range(), op.new_range());
        if let DiffOp::Equal { .. } = op {
            pairs.extend(both(old, new, true));
            continue;
        }
        let kinds = (
            kinds(before.get(old.clone()).unwrap_or_default()),
            kinds(after.get(new.clone()).unwrap_or_default()),
        );
        for inner in capture_diff_slices(Algorithm::Myers, &kinds.0, &kinds.1) {
            let shift = |range: std::ops::Range<usize>, by: usize| range.start + by..range.end + by;
            let old = shift(inner.old_range(), old.start);
            let new = shift(inner.new_range(), new.start);
            if let DiffOp::Equal { .. } = inner {
                pairs.extend(both(old, new, false));
            } else {
                pairs.extend(old.map(|place| Pair {
                    before: Some(place),
                    after: None,
                    is_same: false,
                }));
                pairs.extend(new.map(|place| Pair {
                    before: None,
                    after: Some(place),
                    is_same: false,
                }));
            }
        }
    }
    pairs
}

fn both(
    old: std::ops::Range<usize>,
    new: std::ops::Range<usize>,
    is_same: bool,
) -> impl Iterator<Item = Pair> {
    old.zip(new).map(move |(before, after)| Pair {
        before: Some(before),
        after: Some(after),
        is_same,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each text as its own kind up to the first blank.
    fn labelled<'a>(texts: &[&'a str]) -> Vec<Label<'a>> {
        let kind = |text: &'a str| text.split(' ').next().unwrap();
        texts.iter().map(|text| (*text, kind(text))).collect()
    }

    fn aligned(before: &[&str], after: &[&str]) -> Vec<String> {
        let pairs = align(&labelled(before), &labelled(after));
        let text = |texts: &[&str], place: Option<usize>| {
            place.map_or_else(String::new, |place| texts[place].to_owned())
        };
        pairs
            .into_iter()
            .map(|pair| {
                let (one, other) = (text(before, pair.before), text(after, pair.after));
                format!("{}: {one} | {other}", pair.change())
            })
            .collect()
    }

    #[test]
    fn a_step_that_was_put_in_between_moves_no_other() {
        let told = aligned(
            &["run a", "copy b", "run c"],
            &["run a", "run x", "copy b", "run c"],
        );
        let expected = [
            "same: run a | run a",
            "added:  | run x",
            "same: copy b | copy b",
            "same: run c | run c",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_step_changes_into_one_of_its_kind() {
        let told = aligned(
            &["run a", "copy b", "run c"],
            &["run a", "copy x", "user y", "run c"],
        );
        let expected = [
            "same: run a | run a",
            "changed: copy b | copy x",
            "added:  | user y",
            "same: run c | run c",
        ];
        assert_eq!(told, expected);
        let told = aligned(&["run a", "copy b"], &["user y"]);
        let expected = [
            "removed: run a | ",
            "removed: copy b | ",
            "added:  | user y",
        ];
        assert_eq!(told, expected);
        assert_eq!(aligned(&["run a"], &[]), ["removed: run a | "]);
        assert!(aligned(&[], &[]).is_empty());
    }

    #[test]
    fn titles_are_compared_without_their_numbers() {
        for (title, expected) in [
            ("[2/3] RUN make", ("", "RUN make")),
            ("[build 2/13] COPY --link a b", ("build", "COPY --link a b")),
            (
                "[my stage 1/2] RUN [ -e x ] y",
                ("my stage", "RUN [ -e x ] y"),
            ),
            ("RUN x", ("", "RUN x")),
            ("", ("", "")),
        ] {
            assert_eq!(split_title(title), expected, "{title}");
        }
    }

    fn texts() -> impl Strategy<Value = Vec<&'static str>> {
        let some = ["run a", "run b", "run c", "copy a", "copy b", "user a"];
        prop::collection::vec(prop::sample::select(some.to_vec()), 0..12)
    }

    proptest! {
        #[test]
        fn every_step_is_told_once_and_in_order(before in texts(), after in texts()) {
            let (old, new) = (labelled(&before), labelled(&after));
            let pairs = align(&old, &new);
            let olds: Vec<usize> = pairs.iter().filter_map(|pair| pair.before).collect();
            let news: Vec<usize> = pairs.iter().filter_map(|pair| pair.after).collect();
            prop_assert_eq!(olds, (0..old.len()).collect::<Vec<_>>());
            prop_assert_eq!(news, (0..new.len()).collect::<Vec<_>>());
            for pair in &pairs {
                if let (Some(one), Some(other)) = (pair.before, pair.after) {
                    prop_assert_eq!(pair.is_same, old[one].0 == new[other].0);
                    prop_assert_eq!(old[one].1, new[other].1);
                }
            }
            let same = pairs.iter().filter(|pair| pair.is_same).count();
            prop_assert!(before != after || same == before.len());
        }
    }
}
