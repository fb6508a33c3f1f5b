//! Why a build failed, from what `buildctl` says.
//!
//! Its exit code is 1 whatever went wrong, so all there is are sentences. They hold what the Dockerfile
//! holds: commands, paths, addresses. BuildKit quotes those, so nothing inside quotes is looked at.

mod rules;

use crate::event::{Excerpt, Failure, FailureKind, Step};
use crate::progress::shorten;

/// How a build that failed ended.
#[derive(Debug)]
pub(crate) struct Ending<'a> {
    /// `buildctl`'s exit code; none if a signal killed it.
    pub(crate) exit: Option<i32>,
    /// The reason that it gives, without `error: `.
    pub(crate) error: Option<&'a str>,
    /// The last line that it wrote, if it gives no reason.
    pub(crate) last_line: &'a str,
    /// What it shows of the Dockerfile.
    pub(crate) excerpt: Option<&'a Excerpt>,
    /// The step that failed, if one did.
    pub(crate) failed: Option<FailedStep>,
    /// The longest message, in bytes.
    pub(crate) message_bytes_max: usize,
}

/// A step that failed.
#[derive(Debug)]
pub(crate) struct FailedStep {
    pub(crate) step: Step,
    /// The last lines of its output.
    pub(crate) output_tail: Vec<String>,
}

/// What stands between a process and how it ended.
const PROCESS_FAILED: &str = " did not complete successfully: ";

/// Why the build failed.
pub(crate) fn failure(ending: Ending<'_>) -> Failure {
    let reason = ending.error.unwrap_or_default();
    let reason = reason.strip_prefix("failed to solve: ").unwrap_or(reason);
    let process = reason.rsplit_once(PROCESS_FAILED).map(|(_, end)| end);
    let exit_code = process.and_then(exit_code);
    let mut failed = ending.failed;
    let kind = match (process, &failed) {
        (Some(end), Some(failed)) => rules::of_process(end, exit_code, &failed.output_tail),
        (Some(end), None) => rules::of_process(end, exit_code, &[]),
        (None, _) => rules::of_build(reason, failed.is_some(), ending.excerpt.is_some()),
    };
    if matches!(
        kind,
        FailureKind::Cancelled | FailureKind::DaemonUnavailable
    ) {
        // Whatever was going on then is not at fault.
        failed = None;
    }
    let message = match (reason, ending.exit) {
        ("", None) => "buildctl was killed by a signal".to_owned(),
        ("", Some(code)) if ending.last_line.is_empty() => {
            format!("buildctl ended with exit code {code} and did not say why")
        }
        ("", Some(code)) => format!("buildctl ended with exit code {code}: {}", ending.last_line),
        (reason, _) => reason.to_owned(),
    };
    let (step, output_tail) = failed
        .map(|failed| (failed.step, failed.output_tail))
        .unzip();
    Failure {
        kind,
        message: shorten(&message, ending.message_bytes_max),
        step,
        exit_code: exit_code.filter(|_| kind != FailureKind::Cancelled),
        excerpt: ending.excerpt.cloned(),
        output_tail: output_tail.unwrap_or_default(),
    }
}

/// The number in `exit code: 42`.
fn exit_code(end: &str) -> Option<i32> {
    let (_, code) = end.rsplit_once("exit code: ")?;
    let digits = code.bytes().take_while(u8::is_ascii_digit).count();
    code.get(..digits)?.parse().ok()
}

#[cfg(test)]
mod tests;
