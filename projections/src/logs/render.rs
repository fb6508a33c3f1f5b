//! Events as log entries: what a person reads, and what the wire says beside it.
//!
//! Kind `error` is kept for a failure that ends the build: the published client raises at the
//! first one that it reads (contract/behaviour.md section 4).

use domain::build::{
    BaseResolved, BypassReason, CacheBypassed, CacheKind, CacheMissed, CacheStored, CacheSubject,
    CancelRequested, Cancelled, Event, FilesCounted, LogStream, Phase, PhaseFinished, Queued,
    ReadinessPassed, Requested, RetryScheduled, Snapshotted, Started, StepFinished, StepLogged,
    StepStarted,
};
use domain::definition::Readiness;
use domain::failure::Failure;
use domain::ids::BuildId;
use domain::name::{Qualifier, TemplateRef};
use domain::time::Timestamp;

use super::context::Context;
use super::entry::{CacheReason, CacheStatus, LogEntry, LogKind, LogLevel};
use super::units::{bytes, counted, headline};

/// The entries of an event: as many as [`Event::log_entry_count`] says. Their offsets are not set.
pub(super) fn entries(
    id: &BuildId,
    time: Timestamp,
    event: &Event,
    context: &Context,
) -> Vec<LogEntry> {
    let happened = |phase, text| vec![message(time, phase, text)];
    match event {
        Event::Requested(requested) => vec![accepted(time, id, requested)],
        Event::Queued(it) => vec![queued(time, *it)],
        Event::Started(it) => vec![started(time, it)],
        Event::PhaseStarted(it) => vec![phase_started(time, it.phase, context)],
        Event::PhaseFinished(it) => vec![phase_finished(time, it)],
        Event::BaseResolved(it) => happened(Phase::Preparing, base_text(it)),
        Event::CacheHit(it) => vec![cache_hit(time, it, context)],
        Event::CacheMissed(it) => vec![cache_missed(time, it, context)],
        Event::CacheBypassed(it) => vec![cache_bypassed(time, it, context)],
        Event::CacheStored(it) => vec![cache_stored(time, it, context)],
        Event::FilesCounted(it) => happened(Phase::Cache, counted_text(it)),
        Event::StepStarted(it) => vec![step_started(time, it)],
        Event::StepFinished(it) => vec![step_finished(time, it, context)],
        Event::StepLogged(it) => lines(it),
        Event::RootfsBuilt(it) => happened(
            Phase::Sync,
            format!("Root filesystem holds {} of files", bytes(it.content_bytes)),
        ),
        Event::RootfsGrown(it) => happened(
            Phase::Sync,
            format!(
                "Root filesystem grown from {} to {}",
                bytes(it.from_bytes),
                bytes(it.to_bytes)
            ),
        ),
        Event::VmBooted(it) => happened(
            Phase::VmCreate,
            format!("Machine booted in {} ms ({})", it.boot_ms, it.accelerator),
        ),
        Event::StartCommandRan(it) => happened(
            Phase::Startup,
            it.exit_code.map_or_else(
                || "Start command is running".to_owned(),
                |code| format!("Start command exited with code {code}"),
            ),
        ),
        Event::ReadinessPassed(it) => happened(Phase::Readiness, readiness_text(it)),
        Event::Snapshotted(it) => vec![ready(time, it, context)],
        Event::RetryScheduled(it) => vec![retry(time, it)],
        Event::CancelRequested(it) => vec![cancel_requested(time, it)],
        Event::Cancelled(it) => vec![cancelled(time, it)],
        Event::Failed(failure) => vec![failed(time, failure, context)],
    }
}

fn message(time: Timestamp, phase: Phase, text: String) -> LogEntry {
    LogEntry {
        phase: Some(phase.as_str().to_owned()),
        ..LogEntry::new(time, LogKind::Message, LogLevel::Info, text)
    }
}

fn accepted(time: Timestamp, id: &BuildId, requested: &Requested) -> LogEntry {
    let mut text = format!("Build {id} of {} accepted", requested.name);
    if let Some(retry) = &requested.retry_of {
        text.push_str(", a retry of ");
        text.push_str(retry.build.as_str());
    }
    LogEntry::new(time, LogKind::Start, LogLevel::Info, text)
}

fn queued(time: Timestamp, queued: Queued) -> LogEntry {
    let text = match queued.place {
        0 | 1 => "Waiting for a worker: next in line".to_owned(),
        place => format!("Waiting for a worker: place {place} in line"),
    };
    LogEntry {
        phase: Some("queued".to_owned()),
        ..LogEntry::new(time, LogKind::Message, LogLevel::Info, text)
    }
}

fn started(time: Timestamp, started: &Started) -> LogEntry {
    let text = format!(
        "Attempt {} of {} started",
        started.attempt, started.max_attempts
    );
    LogEntry {
        attempt: Some(started.attempt),
        max_attempts: Some(started.max_attempts),
        ..message(time, Phase::Preparing, text)
    }
}

/// What somebody who waits reads when a phase begins; shown only where the wait is worth a word.
fn phase_started(time: Timestamp, phase: Phase, context: &Context) -> LogEntry {
    let (level, text) = match phase {
        Phase::Preparing => (LogLevel::Info, "Preparing the Dockerfile's build"),
        Phase::Cache => (LogLevel::Debug, "Looking for a finished artifact"),
        Phase::Step => (LogLevel::Debug, "Running the steps"),
        Phase::Sync => (LogLevel::Info, "Making the root filesystem"),
        Phase::VmCreate => (LogLevel::Info, "Booting the machine"),
        Phase::Startup => (LogLevel::Info, "Running the start command"),
        Phase::Readiness => (LogLevel::Info, "Waiting until the start command is ready"),
        Phase::Snapshot => (
            LogLevel::Info,
            "Capturing the machine and restoring it once",
        ),
        Phase::Finalize => (LogLevel::Debug, "Publishing the template"),
        Phase::Cleanup => (LogLevel::Debug, "Releasing what the build used"),
    };
    let text = match (phase, &context.base_image) {
        (Phase::Preparing, Some(base)) if context.base_resolved => {
            format!("Bringing in the layers of {base}")
        }
        (Phase::Preparing, Some(base)) => format!("Resolving base image {base}"),
        (_, _) => text.to_owned(),
    };
    LogEntry {
        level,
        ..message(time, phase, text)
    }
}

fn phase_finished(time: Timestamp, finished: &PhaseFinished) -> LogEntry {
    let phase = finished.phase.as_str();
    let text = format!("Phase {phase} finished in {} ms", finished.duration_ms);
    LogEntry {
        level: LogLevel::Debug,
        ..message(time, finished.phase, text)
    }
}

fn base_text(base: &BaseResolved) -> String {
    // The executor names a template by its exact build, which no image's reference looks like.
    let kind = match base.reference.parse() {
        Ok(TemplateRef::Named {
            qualifier: Some(Qualifier::Build(_)),
            ..
        }) => "template",
        Ok(TemplateRef::Named { .. } | TemplateRef::Id(_)) | Err(_) => "image",
    };
    format!(
        "Base {kind} {} is {}",
        headline(&base.reference),
        base.digest
    )
}

fn cache_entry(
    time: Timestamp,
    subject: &CacheSubject,
    status: CacheStatus,
    text: String,
    context: &Context,
) -> LogEntry {
    LogEntry {
        phase: Some(Phase::Cache.as_str().to_owned()),
        step_index: subject.step_index,
        total_steps: subject.step_index.and(context.total_steps),
        cache_kind: Some(subject.kind),
        cache_status: Some(status),
        cache_subject: Some(subject.subject.clone()),
        ..LogEntry::new(time, LogKind::Cache, LogLevel::Debug, text)
    }
}

fn kind_text(kind: CacheKind) -> &'static str {
    match kind {
        CacheKind::FileBlob => "File",
        CacheKind::Layer => "Layer",
        CacheKind::FinalArtifact => "Artifact",
    }
}

fn subject_text(subject: &CacheSubject) -> String {
    headline(&subject.subject)
}

/// A step that comes from the cache says so itself when it ends; a whole artifact is news.
fn cache_hit(time: Timestamp, hit: &CacheSubject, context: &Context) -> LogEntry {
    let text = format!("{} cache hit: {}", kind_text(hit.kind), subject_text(hit));
    let level = match hit.kind {
        CacheKind::FinalArtifact => LogLevel::Info,
        CacheKind::Layer | CacheKind::FileBlob => LogLevel::Debug,
    };
    LogEntry {
        level,
        ..cache_entry(time, hit, CacheStatus::Hit, text, context)
    }
}

/// Why something has to be built anew is news; that it is new is not.
fn cache_missed(time: Timestamp, missed: &CacheMissed, context: &Context) -> LogEntry {
    let what = kind_text(missed.entry.kind);
    let subject = subject_text(&missed.entry);
    let (level, text) = match &missed.difference {
        Some(difference) => (
            LogLevel::Info,
            format!("{what} cache miss: {subject}: {difference}"),
        ),
        None => (LogLevel::Debug, format!("{what} cache miss: {subject}")),
    };
    LogEntry {
        level,
        cache_reason: Some(CacheReason::MissingOrIncompatible),
        ..cache_entry(time, &missed.entry, CacheStatus::Miss, text, context)
    }
}

fn cache_bypassed(time: Timestamp, bypassed: &CacheBypassed, context: &Context) -> LogEntry {
    let why = match bypassed.reason {
        BypassReason::WholeBuildSkipCache => "the build skips the cache",
        BypassReason::BuilderCacheBoundary => "a skip_cache step stands before",
        BypassReason::ForceUpload => "its files were uploaded anew",
    };
    let text = format!(
        "{} cache bypassed: {} ({why})",
        kind_text(bypassed.entry.kind),
        subject_text(&bypassed.entry)
    );
    LogEntry {
        cache_reason: Some(bypassed.reason.into()),
        ..cache_entry(time, &bypassed.entry, CacheStatus::Bypass, text, context)
    }
}

fn cache_stored(time: Timestamp, stored: &CacheStored, context: &Context) -> LogEntry {
    let text = format!(
        "{} stored in the cache: {} ({})",
        kind_text(stored.entry.kind),
        subject_text(&stored.entry),
        bytes(stored.bytes)
    );
    cache_entry(time, &stored.entry, CacheStatus::Stored, text, context)
}

fn counted_text(counted: &FilesCounted) -> String {
    let parts = [
        (counted.hits, "there"),
        (counted.misses, "missing"),
        (counted.bypasses, "uploaded anew"),
        (counted.stores, "stored"),
    ];
    let told = parts.iter().filter(|(count, _)| *count > 0);
    let told: Vec<String> = told
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    format!("Further files of the context: {}", told.join(", "))
}

/// A step's title behind its place in the build. In a Dockerfile of one stage, the title begins with
/// that place already.
fn placed(index: u32, total: u32, title: String) -> String {
    let place = format!("[{index}/{total}] ");
    if title.starts_with(&place) {
        title
    } else {
        place + &title
    }
}

fn step_started(time: Timestamp, step: &StepStarted) -> LogEntry {
    let text = placed(step.index, step.total, headline(&step.name));
    LogEntry {
        step_index: Some(step.index),
        total_steps: Some(step.total),
        ..message(time, Phase::Step, text)
    }
}

fn step_finished(time: Timestamp, step: &StepFinished, context: &Context) -> LogEntry {
    let (index, total) = (step.index, step.total);
    let text = match (step.cached, context.open_steps.get(&index)) {
        (true, Some(title)) => format!("CACHED {}", placed(index, total, title.clone())),
        (true, None) => format!("CACHED [{index}/{total}]"),
        (false, _) => format!("[{index}/{total}] done in {} ms", step.duration_ms),
    };
    LogEntry {
        step_index: Some(step.index),
        total_steps: Some(step.total),
        ..message(time, Phase::Step, text)
    }
}

fn lines(logged: &StepLogged) -> Vec<LogEntry> {
    let entry = |line: &domain::build::LogLine| {
        let (kind, level) = match line.stream {
            LogStream::Stdout | LogStream::Stderr | LogStream::System => {
                (LogKind::Message, LogLevel::Info)
            }
            LogStream::Warning => (LogKind::Warning, LogLevel::Warn),
        };
        LogEntry {
            kind,
            level,
            step_index: logged.step.map(|(index, _)| index),
            total_steps: logged.step.map(|(_, total)| total),
            ..message(line.at, logged.phase, line.text.clone())
        }
    };
    logged.lines.iter().map(entry).collect()
}

fn readiness_text(passed: &ReadinessPassed) -> String {
    let probe = match &passed.probe {
        Readiness::Tcp { port, .. } => format!("port {port} accepts connections"),
        Readiness::Http { port, path, .. } => {
            format!("http://127.0.0.1:{port}{} answers", headline(path))
        }
        Readiness::Command { command, .. } => format!("`{}` exits with 0", headline(command)),
        Readiness::Timeout { timeout_ms } => format!("{timeout_ms} ms have passed"),
    };
    let tries = counted(passed.tries, "try", "tries");
    format!("Ready: {probe} ({tries}, {} ms)", passed.duration_ms)
}

fn ready(time: Timestamp, snapshotted: &Snapshotted, context: &Context) -> LogEntry {
    let origin = if snapshotted.reused {
        ", made by an earlier build"
    } else {
        ""
    };
    let text = format!(
        "Template {} is ready: artifact {}{origin}",
        context.name, snapshotted.artifact
    );
    LogEntry {
        kind: LogKind::End,
        ..message(time, Phase::Finalize, text)
    }
}

fn retry(time: Timestamp, retry: &RetryScheduled) -> LogEntry {
    let text = format!(
        "Attempt {} of {} failed and is repeated: {}",
        retry.attempt, retry.max_attempts, retry.failure.message
    );
    LogEntry {
        phase: Some("retry".to_owned()),
        step_index: retry.failure.step_index,
        attempt: Some(retry.attempt),
        max_attempts: Some(retry.max_attempts),
        failure: Some(retry.failure.clone()),
        ..LogEntry::new(time, LogKind::Retry, LogLevel::Warn, text)
    }
}

fn cancel_requested(time: Timestamp, wanted: &CancelRequested) -> LogEntry {
    let mut text = format!("Cancellation requested by {}", wanted.by);
    if let Some(reason) = &wanted.reason {
        text.push_str(": ");
        text.push_str(reason);
    }
    LogEntry::new(time, LogKind::Warning, LogLevel::Warn, text)
}

fn cancelled(time: Timestamp, cancelled: &Cancelled) -> LogEntry {
    let listed = |title: &str, items: &[String]| format!("{title} {}", items.join(", "));
    let mut parts = vec!["Build cancelled".to_owned()];
    parts.push(if cancelled.killed.is_empty() {
        "nothing of it was running".to_owned()
    } else {
        listed("stopped", &cancelled.killed)
    });
    if let Some(aftermath) = &cancelled.aftermath {
        let gone = format!("seen to be gone within {} ms:", aftermath.took_ms);
        let looks = [
            (gone.as_str(), &aftermath.gone),
            ("still there:", &aftermath.left),
        ];
        let found = looks.iter().filter(|(_, items)| !items.is_empty());
        parts.extend(found.map(|(title, items)| listed(title, items)));
    }
    let text = parts.join("; ");
    LogEntry::new(time, LogKind::Cancelled, LogLevel::Warn, text)
}

fn failed(time: Timestamp, failure: &Failure, context: &Context) -> LogEntry {
    // A build that is given up before a worker had it has no attempt.
    let attempt = (context.attempt > 0).then_some(context.attempt);
    LogEntry {
        phase: Some(failure.phase.as_str().to_owned()),
        step_index: failure.step_index,
        total_steps: failure.step_index.and(context.total_steps),
        attempt,
        max_attempts: attempt.map(|_| context.max_attempts),
        failure: Some(failure.clone()),
        ..LogEntry::new(
            time,
            LogKind::Error,
            LogLevel::Error,
            failure.message.clone(),
        )
    }
}

#[cfg(test)]
mod outcomes;
#[cfg(test)]
mod tests;
