//! What BuildKit's sentences mean: the first rule that fits counts.

use crate::event::FailureKind;

/// A rule: any of the words stands in the sentence.
type Rule = (FailureKind, &'static [&'static str]);

/// Rules for whatever went wrong.
const ANYWHERE: &[Rule] = &[
    (FailureKind::Cancelled, &["context canceled"]),
    (FailureKind::DiskFull, &["no space left on device"]),
    (
        FailureKind::SourceDenied,
        &["denied by policy", "not allowed by policy"],
    ),
    (
        FailureKind::PrivilegeDenied,
        &[
            "network.host is not allowed",
            "security.insecure is not allowed",
            "is not allowed by build daemon configuration",
        ],
    ),
];

/// What only a registry's failure says: that an image was asked for.
const REGISTRY: &[&str] = &[
    "failed to resolve source metadata for",
    "failed to do request:",
    "failed to copy:",
    "httpReadSeeker",
    "failed to authorize",
    "failed to fetch anonymous token",
    "failed to fetch oauth token",
    "pull access denied",
    "insufficient_scope",
    "no match for platform",
];

/// Rules for the failure of a registry.
const OF_REGISTRY: &[Rule] = &[
    (FailureKind::ImagePlatform, &["no match for platform"]),
    (
        FailureKind::ImageUnauthorized,
        &[
            "401 Unauthorized",
            "403 Forbidden",
            "pull access denied",
            "insufficient_scope",
            "authorization failed",
        ],
    ),
    (
        FailureKind::ImageNotFound,
        &["404 Not Found", "manifest unknown", "name unknown"],
    ),
];

/// Rules for the way to the daemon.
const OF_DAEMON: &[Rule] = &[(
    FailureKind::DaemonUnavailable,
    &[
        "code = Unavailable",
        "error reading from server",
        "transport is closing",
        "failed to list workers",
        "failed to receive status",
        "no active session",
        "DeadlineExceeded: ",
    ],
)];

/// Rules for what the Dockerfile, or the ignore file beside it, says.
const OF_DOCKERFILE: &[Rule] = &[(
    FailureKind::Dockerfile,
    &[
        "Dockerfile cannot be empty",
        "failed to read dockerfile",
        "target stage \"\" could not be found",
        "syntax error in pattern",
        "failed to calculate checksum of ref",
        // Of an address that is added.
        "invalid response status 401",
        "invalid response status 403",
        "invalid response status 404",
        "invalid response status 410",
    ],
)];

/// What the end of a step's process means; `output` is the end of what it wrote.
pub(super) fn of_process(end: &str, exit_code: Option<i32>, output: &[String]) -> FailureKind {
    let end = without_quoted(end);
    if end.contains("cannot allocate memory") {
        // What BuildKit says if the kernel counted a kill for want of memory.
        return FailureKind::OutOfMemory;
    }
    if let Some(kind) = first(ANYWHERE, &end) {
        return kind;
    }
    if exit_code == Some(KILLED) && output.iter().any(|line| tells_of_memory(line)) {
        return FailureKind::OutOfMemory;
    }
    FailureKind::Step
}

/// The exit code of what SIGKILL ended.
const KILLED: i32 = 137;

/// Whether the process, or its shell, says that memory was the reason.
fn tells_of_memory(line: &str) -> bool {
    let line = line.trim_end().to_lowercase();
    line.ends_with("killed")
        || line.contains("out of memory")
        || line.contains("cannot allocate memory")
}

/// What the reason of a failed build means, if no process was at fault.
pub(super) fn of_build(reason: &str, in_step: bool, has_excerpt: bool) -> FailureKind {
    let text = without_quoted(reason);
    if text.starts_with("dockerfile parse error") {
        // It may repeat anything that the file says.
        return FailureKind::Dockerfile;
    }
    if let Some(kind) = first(ANYWHERE, &text) {
        return kind;
    }
    let names_secret = text.starts_with("secret ") || text.contains(": secret ");
    if names_secret && text.ends_with(": not found") {
        return FailureKind::SecretMissing;
    }
    if contains_any(&text, REGISTRY) {
        return of_registry(&text);
    }
    // "503 Service Unavailable" is a registry's.
    if text.starts_with("Unavailable: ") || text.contains(": Unavailable: ") {
        return FailureKind::DaemonUnavailable;
    }
    if let Some(kind) = first(OF_DAEMON, &text).or_else(|| first(OF_DOCKERFILE, &text)) {
        return kind;
    }
    // The frontend shows a line of the Dockerfile only if that line is at fault.
    if has_excerpt && !in_step {
        return FailureKind::Dockerfile;
    }
    FailureKind::Other
}

fn of_registry(text: &str) -> FailureKind {
    if let Some(kind) = first(OF_REGISTRY, text) {
        return kind;
    }
    if text.ends_with(": not found") {
        return FailureKind::ImageNotFound;
    }
    FailureKind::ImagePull
}

fn first(rules: &[Rule], text: &str) -> Option<FailureKind> {
    let rule = rules.iter().find(|(_, words)| contains_any(text, words));
    rule.map(|&(kind, _)| kind)
}

fn contains_any(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| text.contains(word))
}

/// The text with nothing between its quotes, which Go escapes by backslashes.
fn without_quoted(text: &str) -> String {
    let mut outside = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        outside.push(char);
        if char != '"' {
            continue;
        }
        while let Some(char) = chars.next() {
            match char {
                '\\' => drop(chars.next()),
                '"' => break,
                _ => {}
            }
        }
        outside.push('"');
    }
    outside
}
