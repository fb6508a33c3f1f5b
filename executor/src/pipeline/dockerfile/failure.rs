//! Why BuildKit's build failed, as the failure that a user is told.

use buildkit::event::{Excerpt, Failure as Failed, FailureKind};
use domain::failure::{Failure, FailureReason};

use super::prepare::at_line;

/// The most of a Dockerfile's excerpt that a message repeats, in bytes.
const EXCERPT_BYTES_MAX: usize = 4 * 1024;

/// What is known of a failed build beside what BuildKit says.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The last lines of the step that failed, without secret values.
    pub(super) tail: Option<Vec<String>>,
    /// Whether the build has no network.
    pub(super) is_offline: bool,
}

/// The failure that BuildKit's comes to.
pub(super) fn of(failed: Failed, told: Told) -> Failure {
    let reason = reason(&failed, told.is_offline);
    let mut message = match &failed.step {
        Some(step) => format!(
            "Step {} of {} (`{}`) failed: {}.",
            step.index,
            step.total,
            step.title,
            bare(&failed.message)
        ),
        None => format!("The Dockerfile was not built: {}.", bare(&failed.message)),
    };
    if told.is_offline && reason == FailureReason::StepFailed {
        message.push_str(" The build has no network (`internet_access` is false).");
    }
    let tail = told.tail.unwrap_or(failed.output_tail);
    if !tail.is_empty() {
        message.push_str(" The last lines of its output:\n");
        message.push_str(&tail.join("\n"));
    }
    let excerpt = failed.excerpt.map(clipped);
    if let Some(excerpt) = &excerpt {
        let Excerpt { file, line, text } = excerpt;
        let shown = format!("\n{file}:{line}\n{text}");
        message.push_str(&shown);
    }
    let mut failure = Failure::new(reason, message);
    if let Some(excerpt) = excerpt {
        failure = at_line(failure, excerpt.line).with_detail("excerpt", excerpt.text);
    }
    if let Some(step) = failed.step {
        failure = failure.with_detail("command", step.title);
        failure.step_index = Some(step.index);
    }
    failure.exit_code = failed.exit_code;
    failure.stderr_tail = tail;
    failure
}

fn reason(failed: &Failed, is_offline: bool) -> FailureReason {
    match failed.kind {
        FailureKind::Dockerfile => FailureReason::DockerfileInvalid,
        FailureKind::Step => FailureReason::StepFailed,
        FailureKind::OutOfMemory => FailureReason::OutOfMemory,
        FailureKind::ImageNotFound => FailureReason::BadReference,
        FailureKind::ImageUnauthorized => FailureReason::RegistryUnauthorized,
        FailureKind::ImagePlatform => FailureReason::UnsupportedPlatform,
        FailureKind::ImagePull => FailureReason::ImagePull,
        FailureKind::SourceDenied if is_offline => FailureReason::NetworkOff,
        FailureKind::SourceDenied | FailureKind::PrivilegeDenied => FailureReason::NotPermitted,
        FailureKind::SecretMissing => FailureReason::SecretMissing,
        FailureKind::DiskFull => FailureReason::DiskFull,
        // Nobody here cancelled it: the daemon was told to end, or somebody else did it there.
        FailureKind::DaemonUnavailable | FailureKind::Cancelled => {
            FailureReason::BuilderUnavailable
        }
        FailureKind::Other if failed.step.is_some() => FailureReason::StepFailed,
        FailureKind::Other => FailureReason::Internal,
    }
}

/// A sentence without its end.
fn bare(text: &str) -> &str {
    text.trim_end().trim_end_matches('.')
}

fn clipped(excerpt: Excerpt) -> Excerpt {
    let mut end = EXCERPT_BYTES_MAX.min(excerpt.text.len());
    while !excerpt.text.is_char_boundary(end) {
        end -= 1;
    }
    let text = excerpt.text.get(..end).unwrap_or_default().to_owned();
    Excerpt { text, ..excerpt }
}

#[cfg(test)]
mod tests {
    use buildkit::event::Step;

    use super::*;

    fn failed(kind: FailureKind) -> Failed {
        Failed {
            kind,
            message: "process \"/bin/sh -c exit 3\" did not complete successfully: exit code: 3"
                .into(),
            step: Some(Step {
                index: 2,
                total: 4,
                title: "[2/4] RUN exit 3".into(),
            }),
            exit_code: Some(3),
            excerpt: Some(Excerpt {
                file: "Dockerfile".into(),
                line: 2,
                text: "   1 | FROM x\n   2 | >>> RUN exit 3".into(),
            }),
            output_tail: vec!["raw".into()],
        }
    }

    #[test]
    fn a_failed_step_is_told_with_its_place_its_last_lines_and_its_line_in_the_dockerfile() {
        let told = Told {
            tail: Some(vec!["one".into(), "two".into()]),
            is_offline: false,
        };
        let failure = of(failed(FailureKind::Step), told);
        assert_eq!(failure.reason, FailureReason::StepFailed);
        assert_eq!((failure.step_index, failure.exit_code), (Some(2), Some(3)));
        assert_eq!(failure.stderr_tail, ["one", "two"]);
        assert_eq!(failure.details["dockerfile_line"], "2");
        let expected = "Step 2 of 4 (`[2/4] RUN exit 3`) failed: process \"/bin/sh -c exit 3\" did not \
                        complete successfully: exit code: 3. The last lines of its output:\none\ntwo\n\
                        Dockerfile:2\n   1 | FROM x\n   2 | >>> RUN exit 3";
        assert_eq!(failure.message, expected);
    }

    #[test]
    fn a_failure_without_a_network_says_so() {
        let offline = || Told {
            tail: None,
            is_offline: true,
        };
        let step = of(failed(FailureKind::Step), offline());
        assert!(
            step.message
                .contains("no network (`internet_access` is false)")
        );
        let denied = of(failed(FailureKind::SourceDenied), offline());
        assert_eq!(denied.reason, FailureReason::NetworkOff);
        let online = of(failed(FailureKind::SourceDenied), Told::default());
        assert_eq!(online.reason, FailureReason::NotPermitted);
    }

    #[test]
    fn a_long_excerpt_is_cut_between_characters() {
        let long = Excerpt {
            file: "Dockerfile".into(),
            line: 1,
            text: format!("x{}", "é".repeat(EXCERPT_BYTES_MAX)),
        };
        let text = clipped(long).text;
        assert_eq!(text.len(), EXCERPT_BYTES_MAX - 1);
    }

    #[test]
    fn what_nobody_here_did_is_the_daemon_s_and_what_is_unknown_is_a_step_s_or_ours() {
        let lost = of(failed(FailureKind::Cancelled), Told::default());
        assert_eq!(lost.reason, FailureReason::BuilderUnavailable);
        let step = of(failed(FailureKind::Other), Told::default());
        assert_eq!(step.reason, FailureReason::StepFailed);
        let other = Failed {
            step: None,
            ..failed(FailureKind::Other)
        };
        assert_eq!(of(other, Told::default()).reason, FailureReason::Internal);
    }
}
