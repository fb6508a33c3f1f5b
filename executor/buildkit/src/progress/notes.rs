//! What is worth a line of the vertexes that are no steps.

use std::collections::BTreeSet;

use super::text::shorten;
use crate::event::Event;
use crate::limits::BuildkitLimits;

/// The notes and warnings so far.
#[derive(Debug)]
pub(super) struct Notes {
    message_bytes_max: usize,
    /// How many more may be told.
    left: usize,
    /// What was told: every vertex says what it does several times.
    told: BTreeSet<String>,
}

impl Notes {
    pub(super) fn new(limits: &BuildkitLimits) -> Self {
        Self {
            message_bytes_max: limits.message_bytes_max,
            left: limits.progress_notes_max,
            told: BTreeSet::new(),
        }
    }

    /// Such a vertex began.
    pub(super) fn started(&mut self, name: &str, events: &mut Vec<Event>) {
        let note = if let Some(image) = name.strip_prefix("[internal] load metadata for ") {
            format!("resolving {image}")
        } else if name.starts_with("[auth] ")
            && let Some((_, host)) = name.rsplit_once(" for ")
        {
            format!("using the credentials for {host}")
        } else if is_export(name) || is_import(name) {
            name.to_owned()
        } else {
            return;
        };
        self.note(note, events);
    }

    /// Such a vertex ended.
    pub(super) fn completed(
        &mut self,
        name: &str,
        sent: i64,
        error: &str,
        events: &mut Vec<Event>,
    ) {
        if name == "[internal] load build context" && error.is_empty() && sent > 0 {
            self.note(format!("transferred {sent} bytes of context"), events);
        } else if is_import(name) && !error.is_empty() {
            // The build goes on without that cache.
            self.note(format!("{name} failed: {error}"), events);
        }
    }

    fn note(&mut self, note: String, events: &mut Vec<Event>) {
        let note = shorten(&note, self.message_bytes_max);
        if !self.told.contains(&note) && self.may_tell(events) {
            self.told.insert(note.clone());
            events.push(Event::Note(note));
        }
    }

    pub(super) fn warning(&mut self, warning: &str, events: &mut Vec<Event>) {
        if self.may_tell(events) {
            let warning = shorten(warning, self.message_bytes_max);
            events.push(Event::Warning(warning));
        }
    }

    pub(super) fn warn_once(&mut self, warning: &str, events: &mut Vec<Event>) {
        if self.told.insert(warning.to_owned()) {
            self.warning(warning, events);
        }
    }

    /// Counts, and says once that there would be more.
    fn may_tell(&mut self, events: &mut Vec<Event>) -> bool {
        let before = self.left;
        self.left = before.saturating_sub(1);
        if before == 1 {
            events.push(Event::Warning("further notes are left out".to_owned()));
        }
        before > 1
    }
}

/// Whether a vertex gives the result away, so that nothing is left to build.
pub(super) fn is_export(name: &str) -> bool {
    name.starts_with("exporting ")
}

fn is_import(name: &str) -> bool {
    name.starts_with("importing cache ")
}
