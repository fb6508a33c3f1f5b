//! `nullspaced cache list|explain|evict|gc`

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::door::Door;
use super::{Failure, Place, say, settings};
use crate::service::cache::needs;
use crate::wire::cache::{
    Collect, Collected, Eviction, Explanation, Fact, Kind, Line, List, Outcome, Removed, State,
};

pub(super) const HELP: &str = "\
Examples:
  nullspaced cache list --kind layer
  nullspaced cache explain 3f9a
      What an entry is, what it was made of, who needs it, and when builds used it.

  nullspaced cache evict sha256:3f9a…
      Remove an entry that nobody needs, with the layers that lie on it.

  nullspaced cache gc --dry-run --max-bytes 5000000000
      Show what would go if layers were allowed 5 GB.

A KEY is the whole key of an entry or its beginning, as long as it is the only one; logs of builds and
`cache list` show keys. Layers that a template was made of are kept for templates on top of it, and an
artifact is kept for as long as a template has a build that made it and has not expired
(`retention.untagged_secs`). Files stay while a build needs them or may be retried
(`retention.context_secs`); a build whose files are gone cannot be. The service removes both by itself,
and keeps layers below `executor.layer_cache_mb_max`, the longest unused go first. The commands go
through the service if it runs on the data folder; if none runs, they open the folder themselves.

Exit codes: 0 done; 3 the entry is needed and stays; 4 there is no such entry; 1 anything else.";

/// The entry is needed and stays.
const NEEDED: u8 = 3;
/// There is no such entry.
const UNKNOWN: u8 = 4;
/// Characters of a key that a table shows; enough to be the only one.
const KEY_CHARS: usize = 23;
/// What an entry is needed for, as far as a table shows it.
const NEEDS_SHOWN: usize = 2;

/// See what is kept to be used again, and remove what nobody needs.
#[derive(Debug, Args)]
pub(super) struct CacheCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the entries: by kind, the longest unused first
    List {
        /// Only entries of this kind
        #[arg(long)]
        kind: Option<Kind>,
        /// Print one JSON object, with whole keys
        #[arg(long)]
        json: bool,
    },
    /// Tell what an entry is, what it was made of, who needs it, and when it was used
    Explain {
        /// The key, or its beginning
        key: String,
        /// Only look at entries of this kind
        #[arg(long)]
        kind: Option<Kind>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Remove an entry, unless a running build or a template needs it
    Evict {
        /// The key, or its beginning
        key: String,
        /// Only look at entries of this kind
        #[arg(long)]
        kind: Option<Kind>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Remove what nobody needs: artifacts without a template, and layers beyond their bound
    Gc {
        /// Only show what would go
        #[arg(long)]
        dry_run: bool,
        /// What layers may take, in bytes [default: the setting executor.layer_cache_mb_max]
        #[arg(long, value_name = "BYTES")]
        max_bytes: Option<u64>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

impl CacheCommand {
    pub(super) async fn run(self, place: &Place) -> Result<ExitCode, Failure> {
        let config = settings::load(place, &[])?.config;
        let door = Door::open(&config).await?;
        let done = Box::pin(act(&door, self.action)).await;
        door.close().await?;
        done
    }
}

async fn act(door: &Door, action: Action) -> Result<ExitCode, Failure> {
    match action {
        Action::List { kind, json } => {
            let list = door.cache_list(kind).await?;
            print(json, &list, || list_text(&list))?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Explain { key, kind, json } => {
            let explanation = door.cache_explain(&key, kind).await?;
            print(json, &explanation, || explanation_text(&explanation))?;
            Ok(match explanation.state {
                State::Present => ExitCode::SUCCESS,
                State::Gone | State::Unknown => ExitCode::from(UNKNOWN),
            })
        }
        Action::Evict { key, kind, json } => {
            let eviction = door.cache_evict(&key, kind).await?;
            print(json, &eviction, || eviction_text(&eviction))?;
            Ok(match eviction.outcome {
                Outcome::Removed => ExitCode::SUCCESS,
                Outcome::Needed => ExitCode::from(NEEDED),
                Outcome::Unknown => ExitCode::from(UNKNOWN),
            })
        }
        Action::Gc {
            dry_run,
            max_bytes,
            json,
        } => {
            let wanted = Collect {
                dry_run,
                bytes_max: max_bytes,
            };
            let collected = door.cache_collect(wanted).await?;
            print(json, &collected, || collected_text(&collected))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn print<T: serde::Serialize>(
    json: bool,
    answer: &T,
    text: impl FnOnce() -> Vec<String>,
) -> Result<(), Failure> {
    if json {
        say(serde_json::to_string_pretty(answer)?)?;
    } else {
        say(text().join("\n"))?;
    }
    Ok(())
}

fn list_text(list: &List) -> Vec<String> {
    let mut lines = Vec::new();
    if !list.entries.is_empty() {
        lines.push(row("KIND", "KEY", "SIZE", "LAST USED", "NEEDED BY"));
    }
    lines.extend(list.entries.iter().map(|line| {
        row(
            line.kind.as_str(),
            short(&line.key),
            &size(line.bytes),
            moment(line.last_used.as_deref()),
            &shown_needs(line),
        )
    }));
    for total in &list.totals {
        let bound = if total.kind == Kind::Layer {
            format!(", may take {}", size(list.layer_bytes_max))
        } else {
            String::new()
        };
        lines.push(format!(
            "{} {}s: {}, of which {} needed{bound}",
            total.count,
            total.kind.as_str(),
            size(total.bytes),
            size(total.needed_bytes),
        ));
    }
    lines
}

fn row(kind: &str, key: &str, size: &str, used: &str, needs: &str) -> String {
    let row = format!("{kind:<8}  {key:<KEY_CHARS$}  {size:>10}  {used:<19}  {needs}");
    row.trim_end().to_owned()
}

fn short(key: &str) -> &str {
    key.get(..KEY_CHARS).unwrap_or(key)
}

/// A time without the parts of a second.
fn moment(time: Option<&str>) -> &str {
    const UP_TO_SECONDS: usize = 19;
    let time = time.unwrap_or("-");
    time.get(..UP_TO_SECONDS).unwrap_or(time)
}

fn shown_needs(line: &Line) -> String {
    let needs = needs(line);
    let more = needs.len().saturating_sub(NEEDS_SHOWN);
    let mut shown: Vec<String> = needs.into_iter().take(NEEDS_SHOWN).collect();
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    shown.join(", ")
}

fn explanation_text(explanation: &Explanation) -> Vec<String> {
    let key = &explanation.key;
    let mut lines = match (explanation.state, &explanation.entry) {
        (State::Unknown, _) => return vec![format!("nothing is known of `{key}`")],
        (State::Present, Some(entry)) => vec![
            format!("{} {key}", entry.kind.as_str()),
            detail("size", &size(entry.bytes)),
            detail("last used", moment(entry.last_used.as_deref())),
        ],
        (State::Gone | State::Present, _) => vec![
            key.clone(),
            detail(
                "state",
                "gone: it was evicted, or removed with its template",
            ),
        ],
    };
    if let Some(entry) = &explanation.entry {
        let needs = needs(entry);
        if needs.is_empty() {
            lines.push(detail("needed by", "nobody: it may be evicted"));
        }
        lines.extend(needs.iter().map(|need| detail("needed by", need)));
    }
    let facts = explanation.recipe.iter().chain(&explanation.history);
    lines.extend(facts.map(|Fact { name, value }| detail(name, value)));
    lines
}

fn detail(name: &str, value: &str) -> String {
    format!("  {name:<13}  {value}")
}

fn eviction_text(eviction: &Eviction) -> Vec<String> {
    match eviction.outcome {
        Outcome::Unknown => vec![format!("there is no entry `{}`", eviction.key)],
        Outcome::Needed => vec![format!(
            "{} stays: {}",
            eviction.key,
            eviction.reason.as_deref().unwrap_or("it is needed")
        )],
        Outcome::Removed => removed_text("removed", &eviction.removed, eviction.freed_bytes),
    }
}

fn removed_text(word: &str, removed: &[Removed], freed_bytes: u64) -> Vec<String> {
    let one = |one: &Removed| {
        let size = size(one.bytes);
        format!("{word} {:<8}  {}  {size:>10}", one.kind.as_str(), one.key)
    };
    let mut lines: Vec<String> = removed.iter().map(one).collect();
    lines.push(format!("{} entries, {}", removed.len(), size(freed_bytes)));
    lines
}

fn collected_text(collected: &Collected) -> Vec<String> {
    let word = if collected.dry_run {
        "would remove"
    } else {
        "removed"
    };
    let mut lines = removed_text(word, &collected.removed, collected.freed_bytes);
    lines.push(format!(
        "layers take {}, and may take {}",
        size(collected.layer_bytes),
        size(collected.layer_bytes_max)
    ));
    if !collected.within_bound {
        lines.push("the bound is not met: everything that is left is needed".to_owned());
        let stays = |line: &Line| {
            format!(
                "stays {:<8}  {}  {:>10}  {}",
                line.kind.as_str(),
                short(&line.key),
                size(line.bytes),
                shown_needs(line)
            )
        };
        let kept = collected.kept.iter();
        lines.extend(kept.filter(|line| line.kind == Kind::Layer).map(stays));
    }
    lines
}

/// A number of bytes in the largest unit that it reaches, with one decimal.
fn size(bytes: u64) -> String {
    for (unit, bits) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        let whole = 1_u128 << bits;
        let tenths = (u128::from(bytes) * 10 + whole / 2) / whole;
        if tenths >= 10 {
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::cache::{Need, Total};

    fn line(needed_by: Vec<Need>) -> Line {
        Line {
            kind: Kind::Layer,
            key: format!("sha256:{}", "3f".repeat(32)),
            bytes: 5 << 20,
            last_used: Some("2026-11-23T18:00:00.123456Z".to_owned()),
            in_use: false,
            needed_by,
        }
    }

    #[test]
    fn a_list_is_a_table_with_sums() {
        let templates = ["a/x:1", "a/x:2", "a/x:3"].map(|name| Need::Template(name.to_owned()));
        let total = Total {
            kind: Kind::Layer,
            count: 2,
            bytes: 10 << 20,
            needed_bytes: 5 << 20,
        };
        let list = List {
            entries: vec![line(Vec::new()), line(templates.into())],
            totals: vec![total],
            layer_bytes_max: 20 << 30,
        };
        let expected = [
            "KIND      KEY                            SIZE  LAST USED            NEEDED BY",
            "layer     sha256:3f3f3f3f3f3f3f3f     5.0 MiB  2026-11-23T18:00:00",
            "layer     sha256:3f3f3f3f3f3f3f3f     5.0 MiB  2026-11-23T18:00:00  \
             the template a/x:1, the template a/x:2, and 1 more",
            "2 layers: 10.0 MiB, of which 5.0 MiB needed, may take 20.0 GiB",
        ];
        assert_eq!(list_text(&list), expected);
    }

    #[test]
    fn what_keeps_a_bound_from_being_met_is_said() {
        let collected = Collected {
            dry_run: true,
            removed: Vec::new(),
            freed_bytes: 0,
            layer_bytes_max: 0,
            layer_bytes: 5 << 20,
            within_bound: false,
            kept: vec![line(vec![Need::Template("a/x:1".to_owned())])],
        };
        let text = collected_text(&collected).join("\n");
        assert!(text.contains("the bound is not met"), "{text}");
        assert!(text.contains("the template a/x:1"), "{text}");
    }
}
