//! What the `events` commands print for people.

use crate::wire::audit::{Replayed, Verified};

/// What a look at the log, or at an export, found.
pub(super) fn verified(verified: &Verified) -> Vec<String> {
    let events = counted(verified.event_count, "event");
    let of = match (&verified.stream, verified.stream_count) {
        (Some(stream), _) => format!("{events} of {stream}"),
        (None, count) => {
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            format!("{events} in {}", counted(count, "stream"))
        }
    };
    let mut lines = if verified.is_whole {
        vec![format!("whole: {of}, and every link holds")]
    } else {
        let things = if verified.damage_count == 1 {
            "1 thing is".to_owned()
        } else {
            format!("{} things are", verified.damage_count)
        };
        vec![format!("DAMAGED: {things} wrong; {of} can be read")]
    };
    let damages = verified.damages.iter();
    lines.extend(damages.map(|damage| format!("  {}: {}", damage.place, damage.what)));
    let told = u64::try_from(verified.damages.len()).unwrap_or(u64::MAX);
    let untold = verified.damage_count.saturating_sub(told);
    if untold > 0 {
        lines.push(format!("  and {untold} more"));
    }
    if let Some(anchored) = verified.anchored.filter(|_| verified.is_whole) {
        lines.push(format!(
            "the anchor vouches for the first {}",
            counted(anchored, "event")
        ));
    }
    if let Some(hash) = &verified.hash {
        let whose = match &verified.stream {
            Some(_) => "last event",
            None => "whole log",
        };
        lines.push(format!("hash of the {whose}: {hash}"));
    }
    lines
}

/// What came of a replay.
pub(super) fn replayed(replayed: &Replayed) -> Vec<String> {
    let (events, rows) = (
        counted(replayed.event_count, "event"),
        counted(replayed.row_count, "row"),
    );
    let Some(difference) = &replayed.difference else {
        return vec![format!(
            "equal: {events} give the same {rows}, up to position {}",
            replayed.position
        )];
    };
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "no such row".to_owned());
    vec![
        format!(
            "DIFFERENT: a row is not what {events} up to position {} make of it",
            difference.position
        ),
        format!("  row          {}", difference.key),
        format!("  views show   {}", shown(&difference.present)),
        format!("  events give  {}", shown(&difference.replayed)),
    ]
}

pub(super) fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::audit::{DamageLine, RowDifference};

    fn found(damages: Vec<DamageLine>, damage_count: u64) -> Verified {
        Verified {
            is_whole: damage_count == 0,
            event_count: 30,
            stream_count: 1,
            stream: None,
            anchored: Some(30),
            hash: Some("sha256:00".to_owned()),
            damage_count,
            damages,
        }
    }

    #[test]
    fn a_whole_log_is_told_in_three_lines() {
        let expected = [
            "whole: 30 events in 1 stream, and every link holds",
            "the anchor vouches for the first 30 events",
            "hash of the whole log: sha256:00",
        ];
        assert_eq!(verified(&found(Vec::new(), 0)), expected);
    }

    #[test]
    fn each_damage_is_told_at_its_place_and_the_rest_is_counted() {
        let damage = DamageLine {
            place: "event 7".to_owned(),
            position: None,
            stream: None,
            version: None,
            what: "it is missing".to_owned(),
        };
        let expected = [
            "DAMAGED: 3 things are wrong; 30 events in 1 stream can be read",
            "  event 7: it is missing",
            "  and 2 more",
            "hash of the whole log: sha256:00",
        ];
        assert_eq!(verified(&found(vec![damage], 3)), expected);
    }

    #[test]
    fn a_row_that_differs_is_shown_from_both_sides() {
        let replay = Replayed {
            is_equal: false,
            position: "0f".to_owned(),
            event_count: 1,
            row_count: 5,
            difference: Some(RowDifference {
                key: "builds/row".to_owned(),
                present: None,
                replayed: Some("{}".to_owned()),
                position: "0e".to_owned(),
            }),
        };
        let expected = [
            "DIFFERENT: a row is not what 1 event up to position 0e make of it",
            "  row          builds/row",
            "  views show   no such row",
            "  events give  {}",
        ];
        assert_eq!(replayed(&replay), expected);
    }
}
