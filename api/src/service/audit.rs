//! What operators ask of the log as a whole: is it whole, what is in it, do the views follow from it.
//! The same whether it is asked through the running service or done on its data while none runs.

use std::path::Path;

use commands::AnyLog;
use commands::codec::types_of;
use commands::limits::LogLimits;
use commands::log::export::{self, Exported};
use commands::log::survey::{Damages, Place};
use commands::log::{Verification, embedded};
use domain::Digest;
use domain::event::Category;
use domain::ids::{BuildId, InvalidId};
use domain::ports::{EventReader as _, LogError};
use domain::recorded::{Position, StreamName, Version};
use projections::Views;
use projections::limits::Limits as ViewLimits;
use projections::replay::{Replay, ReplayError};

use crate::limits::TAIL_PAGE_EVENT_COUNT_MAX;
use crate::wire::audit::{DamageLine, ExportPage, Replayed, RowDifference, TailPage, Verified};
use crate::wire::event::EventRecord;
use crate::wire::position::{InvalidPosition, WirePosition};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The build or stream is none.
    #[error(transparent)]
    Invalid(#[from] InvalidId),
    /// The position is none.
    #[error(transparent)]
    Position(#[from] InvalidPosition),
    /// No event is of this type.
    #[error("there are no events of type `{0}`")]
    UnknownType(String),
    /// The build has no events.
    #[error("there is no build `{0}`")]
    UnknownBuild(BuildId),
    /// The log cannot be read.
    #[error("the event log cannot be read")]
    Log(#[from] LogError),
    /// A stored event is none.
    #[error("event {0} of the build cannot be exported: its payload is no text")]
    NoText(u64),
    /// An event has no JSON form.
    #[error("an event cannot be written")]
    Json(#[from] serde_json::Error),
    /// The views cannot be compared.
    #[error("the views cannot be compared")]
    Replay(#[from] ReplayError),
    /// The folder of the replay cannot be removed.
    #[error("the folder of the replay cannot be removed")]
    Folder(#[source] std::io::Error),
}

/// Which events are wanted; what is not given does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    kind: Option<String>,
    stream: Option<StreamName>,
}

impl Wanted {
    /// Events of this type and stream.
    ///
    /// # Errors
    /// [`AuditError::UnknownType`] or [`AuditError::Invalid`].
    pub fn new(kind: Option<&str>, stream: Option<&str>) -> Result<Self, AuditError> {
        const CATEGORIES: [Category; 5] = [
            Category::Build,
            Category::Template,
            Category::Namespace,
            Category::Keys,
            Category::Webhook,
        ];
        let is_known = |kind: &str| CATEGORIES.iter().any(|of| types_of(*of).contains(&kind));
        if let Some(kind) = kind.filter(|kind| !is_known(kind)) {
            return Err(AuditError::UnknownType(kind.to_owned()));
        }
        Ok(Self {
            kind: kind.map(str::to_owned),
            stream: stream.map(str::parse).transpose()?,
        })
    }
}

/// Whether every event of `log` is as it was written.
///
/// # Errors
/// [`AuditError::Log`]
pub async fn verify(log: &AnyLog) -> Result<Verified, AuditError> {
    Ok(log_verified(&log.verify().await?))
}

/// The same of the log in a folder that nobody uses, which is not changed.
///
/// # Errors
/// [`AuditError::Log`]
pub async fn verify_folder(folder: &Path) -> Result<Verified, AuditError> {
    let found = embedded::verify(folder, LogLimits::default()).await?;
    Ok(log_verified(&found))
}

/// Whether an export is as it was written; `head` is the hash that its last event must have.
pub fn verify_export(bytes: &[u8], head: Option<&Digest>) -> Verified {
    let (export, damages) = export::verify(bytes, LogLimits::default().damages_max);
    let end = export.as_ref().map(|export| export.end);
    let mut verified = Verified {
        event_count: export.as_ref().map_or(0, |export| export.event_count),
        stream_count: usize::from(export.is_some()),
        stream: export.as_ref().map(|export| export.stream.to_string()),
        anchored: None,
        hash: end.map(|end| end.to_string()),
        ..of_damages(&damages)
    };
    if let Some(head) = head.filter(|head| end.is_some_and(|end| end != **head)) {
        verified.is_whole = false;
        verified.damage_count = verified.damage_count.saturating_add(1);
        verified.damages.push(DamageLine {
            place: Place::Export.to_string(),
            position: None,
            stream: None,
            version: None,
            what: format!("its last event should have the hash {head}"),
        });
    }
    verified
}

fn log_verified(found: &Verification) -> Verified {
    Verified {
        event_count: found.event_count,
        stream_count: found.stream_count,
        anchored: Some(found.anchored),
        hash: Some(found.hash.to_string()),
        ..of_damages(&found.damages)
    }
}

fn of_damages(damages: &Damages) -> Verified {
    let line = |damage: &commands::log::survey::Damage| {
        let (seq, within) = match &damage.place {
            Place::Event { seq, within } => (*seq, within.as_ref()),
            Place::File(_) | Place::Export => (None, None),
        };
        DamageLine {
            place: damage.place.to_string(),
            position: seq.map(|seq| WirePosition(Position::from_raw(seq)).to_string()),
            stream: within.map(|(stream, _)| stream.to_string()),
            version: within.map(|(_, version)| version.0),
            what: damage.what.clone(),
        }
    };
    Verified {
        is_whole: damages.is_empty(),
        event_count: 0,
        stream_count: 0,
        stream: None,
        anchored: None,
        hash: None,
        damage_count: damages.count,
        damages: damages.kept.iter().map(line).collect(),
    }
}

/// The events behind `after` that are wanted, of as many as are read at once.
///
/// # Errors
/// [`AuditError::Log`]
pub async fn page(log: &AnyLog, wanted: &Wanted, after: Position) -> Result<TailPage, AuditError> {
    let read = log.read_all(after, TAIL_PAGE_EVENT_COUNT_MAX).await?;
    let next = read.last().map_or(after, |last| last.position);
    let is_wanted = |recorded: &&domain::recorded::Recorded<domain::Event>| {
        let kind = wanted.kind.as_ref();
        kind.is_none_or(|kind| kind == recorded.event.name())
            && wanted
                .stream
                .as_ref()
                .is_none_or(|stream| *stream == recorded.stream)
    };
    let write = |recorded| serde_json::value::to_raw_value(&EventRecord::of(recorded)?);
    let events = read.iter().filter(is_wanted).map(write);
    Ok(TailPage {
        events: events.collect::<Result<_, _>>()?,
        next: WirePosition(next).to_string(),
        is_last: next >= log.head(),
        is_stopping: false,
    })
}

/// Stored events of a build from version `from` on.
///
/// # Errors
/// [`AuditError::UnknownBuild`] if it has none at all; [`AuditError`].
pub async fn export_page(log: &AnyLog, build: &str, from: u64) -> Result<ExportPage, AuditError> {
    let build: BuildId = build.parse()?;
    let stream = StreamName::Build(build.clone());
    let read = log.read_stored(&stream, Version(from), TAIL_PAGE_EVENT_COUNT_MAX);
    let stored = read.await?;
    if stored.is_empty() && from == 0 {
        return Err(AuditError::UnknownBuild(build));
    }
    let events = stored.into_iter().map(|envelope| {
        let version = envelope.version.0;
        Exported::of(envelope).ok_or(AuditError::NoText(version))
    });
    Ok(ExportPage {
        events: events.collect::<Result<_, _>>()?,
    })
}

/// Folds all views once more, into `folder`, which is removed again, and compares them.
///
/// # Errors
/// [`AuditError`]
pub async fn replay(log: &AnyLog, views: &Views, folder: &Path) -> Result<Replayed, AuditError> {
    let done = views.replay(log, folder, &ViewLimits::default()).await;
    let is_in_use = matches!(
        &done,
        Err(ReplayError::Store(projections::store::StoreError::InUse(_)))
    );
    if !is_in_use
        && let Err(err) = tokio::fs::remove_dir_all(folder).await
        && err.kind() != std::io::ErrorKind::NotFound
    {
        return Err(AuditError::Folder(err));
    }
    Ok(replayed(done?))
}

fn replayed(replay: Replay) -> Replayed {
    Replayed {
        is_equal: replay.difference.is_none(),
        position: WirePosition(replay.position).to_string(),
        event_count: replay.event_count,
        row_count: replay.row_count,
        difference: replay.difference.map(|difference| RowDifference {
            key: difference.key,
            present: difference.present,
            replayed: difference.replayed,
            position: WirePosition(difference.position).to_string(),
        }),
    }
}
