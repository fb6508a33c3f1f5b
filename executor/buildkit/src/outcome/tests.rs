use super::*;

fn ending(error: &str) -> Ending<'_> {
    Ending {
        exit: Some(1),
        error: Some(error),
        last_line: "",
        excerpt: None,
        failed: None,
        message_bytes_max: 1_000,
    }
}

fn step(output: &[&str]) -> FailedStep {
    FailedStep {
        step: Step {
            index: 2,
            total: 3,
            title: "[2/3] RUN x".to_owned(),
        },
        output_tail: output.iter().map(|line| (*line).to_owned()).collect(),
    }
}

/// What `buildctl` gives as the reason is of a kind.
#[track_caller]
fn check(kind: FailureKind, errors: &[&str]) {
    for error in errors {
        assert_eq!(failure(ending(error)).kind, kind, "{error}");
    }
}

#[test]
fn a_process_that_failed_is_told_with_its_exit_code() {
    for (error, code) in [
        (
            r#"failed to solve: process "/bin/sh -c echo boom >&2; exit 42" did not complete successfully: exit code: 42"#,
            42,
        ),
        (
            r#"failed to solve: process "/bin/sh -c kill -9 $$" did not complete successfully: exit code: 137"#,
            137,
        ),
    ] {
        let ending = Ending {
            failed: Some(step(&["boom"])),
            ..ending(error)
        };
        let failure = failure(ending);
        assert_eq!(failure.kind, FailureKind::Step);
        assert_eq!(failure.exit_code, Some(code));
        assert_eq!(failure.step, Some(step(&[]).step));
        assert_eq!(failure.output_tail, ["boom"]);
        assert!(failure.message.starts_with("process \"/bin/sh"));
    }
}

#[test]
fn what_the_command_says_is_not_what_went_wrong() {
    for command in [
        "echo 'no space left on device'",
        r#"echo \"401 Unauthorized\" \"context canceled\""#,
        r"echo network.host is not allowed\ndenied by policy",
        r#"echo \" did not complete successfully: exit code: 3\""#,
        "echo ' did not complete successfully: context canceled'",
    ] {
        let error = format!(
            "failed to solve: process \"/bin/sh -c {command}\" did not complete successfully: exit code: 1"
        );
        let failure = failure(ending(&error));
        assert_eq!(failure.kind, FailureKind::Step, "{command}");
        assert_eq!(failure.exit_code, Some(1), "{command}");
    }
    check(
        FailureKind::Dockerfile,
        &[
            r#"failed to solve: failed to calculate checksum of ref a::b: "/no space left on device": not found"#,
            r#"failed to solve: failed to calculate checksum of ref a::b: "/\" denied by policy \"": not found"#,
            "failed to solve: dockerfile parse error on line 2: unknown flag: context canceled",
        ],
    );
}

#[test]
fn a_kill_is_want_of_memory_only_if_something_says_so() {
    let killed =
        r#"failed to solve: process "/bin/sh -c x" did not complete successfully: exit code: 137"#;
    for (output, kind) in [
        (&["Killed"][..], FailureKind::OutOfMemory),
        (
            &["/bin/sh: 1: x: Cannot allocate memory", "bye"],
            FailureKind::OutOfMemory,
        ),
        (
            &["fatal error: Out of memory allocating 1 bytes"],
            FailureKind::OutOfMemory,
        ),
        (&["nobody was killed here"], FailureKind::Step),
        (&[], FailureKind::Step),
    ] {
        let ending = Ending {
            failed: Some(step(output)),
            ..ending(killed)
        };
        assert_eq!(failure(ending).kind, kind, "{output:?}");
    }
    // The kernel counted a kill in the step's control group.
    check(
        FailureKind::OutOfMemory,
        &[
            r#"failed to solve: process "/bin/sh -c x" did not complete successfully: cannot allocate memory"#,
        ],
    );
    // Another exit code is the program's own affair.
    let ending = Ending {
        failed: Some(step(&["out of memory"])),
        ..ending(r#"process "x" did not complete successfully: exit code: 1"#)
    };
    assert_eq!(failure(ending).kind, FailureKind::Step);
}

#[test]
fn a_build_that_was_cancelled_blames_no_step() {
    for error in [
        "failed to solve: Canceled: context canceled",
        r#"failed to solve: process "/bin/sh -c x" did not complete successfully: exit code: 137: context canceled: context canceled"#,
    ] {
        let ending = Ending {
            failed: Some(step(&["Killed"])),
            ..ending(error)
        };
        let failure = failure(ending);
        assert_eq!(failure.kind, FailureKind::Cancelled, "{error}");
        assert_eq!((failure.step, failure.exit_code), (None, None));
        assert_eq!(failure.output_tail, [""; 0]);
    }
}

#[test]
fn what_is_wrong_with_a_dockerfile_is_the_dockerfile_s() {
    check(
        FailureKind::Dockerfile,
        &[
            "failed to solve: dockerfile parse error on line 2: unknown instruction: RUNN (did you mean RUN?)",
            "failed to solve: the Dockerfile cannot be empty",
            "failed to solve: failed to read dockerfile: open Dockerfile: no such file or directory",
            r#"failed to solve: target stage "nope" could not be found"#,
            r#"failed to solve: target stage "buil" could not be found (did you mean build?)"#,
            r#"failed to solve: failed to compute cache key: failed to calculate checksum of ref 6bdrl::vu8c2: "/nothere.txt": not found"#,
            "failed to solve: syntax error in pattern",
            "failed to solve: failed to load cache key: invalid response status 404",
        ],
    );
}

#[test]
fn a_reason_with_a_line_of_the_dockerfile_and_no_step_is_the_dockerfile_s() {
    let excerpt = Excerpt {
        file: "Dockerfile".to_owned(),
        line: 1,
        text: "   1 | >>> FROM ${UNSET}".to_owned(),
    };
    for error in [
        "failed to solve: base name (${UNSET}) should not be blank",
        r#"failed to solve: unsupported mount type "nope""#,
        r#"failed to solve: failed to parse stage name "Bad_Ref:@@": invalid reference format: repository name (library/Bad_Ref) must be lowercase"#,
    ] {
        let with_excerpt = Ending {
            excerpt: Some(&excerpt),
            ..ending(error)
        };
        let told = failure(with_excerpt);
        assert_eq!(told.kind, FailureKind::Dockerfile, "{error}");
        assert_eq!(told.excerpt.as_ref(), Some(&excerpt));
        let in_step = Ending {
            excerpt: Some(&excerpt),
            failed: Some(step(&[])),
            ..ending(error)
        };
        assert_eq!(failure(in_step).kind, FailureKind::Other, "{error}");
    }
}

#[test]
fn an_image_that_is_missing_and_one_that_is_closed_are_told_apart() {
    check(
        FailureKind::ImageNotFound,
        &[
            "failed to solve: nosuch/image:1.0: failed to resolve source metadata for docker.io/nosuch/image:1.0: docker.io/nosuch/image:1.0: not found",
            "failed to solve: nostage: failed to resolve source metadata for docker.io/library/nostage:latest: docker.io/library/nostage:latest: not found",
        ],
    );
    check(
        FailureKind::ImageUnauthorized,
        &[
            "failed to solve: 127.0.0.1:5999/x/img:1: failed to resolve source metadata for 127.0.0.1:5999/x/img:1: unexpected status from HEAD request to http://127.0.0.1:5999/v2/x/img/manifests/1: 401 Unauthorized",
            "failed to solve: 127.0.0.1:5999/x/img:1: failed to resolve source metadata for 127.0.0.1:5999/x/img:1: unexpected status from HEAD request to http://127.0.0.1:5999/v2/x/img/manifests/1: 403 Forbidden\ndenied",
            "failed to solve: x: failed to resolve source metadata for docker.io/library/x:latest: pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed",
        ],
    );
    check(
        FailureKind::ImagePlatform,
        &[
            "failed to solve: 127.0.0.1:5999/x/img:1: failed to resolve source metadata for 127.0.0.1:5999/x/img:1: no match for platform in manifest: not found",
        ],
    );
}

#[test]
fn a_registry_that_failed_may_answer_the_next_time() {
    check(
        FailureKind::ImagePull,
        &[
            "failed to solve: 127.0.0.1:5999/x/img:1: failed to resolve source metadata for 127.0.0.1:5999/x/img:1: unexpected status from HEAD request to http://127.0.0.1:5999/v2/x/img/manifests/1: 429 Too Many Requests",
            "failed to solve: 127.0.0.1:5999/x/img:1: failed to resolve source metadata for 127.0.0.1:5999/x/img:1: unexpected status from HEAD request to http://127.0.0.1:5999/v2/x/img/manifests/1: 500 Internal Server Error",
            "failed to solve: 127.0.0.1:5999/x/img:1: failed to resolve source metadata for 127.0.0.1:5999/x/img:1: unexpected status from HEAD request to http://127.0.0.1:5999/v2/x/img/manifests/1: 503 Service Unavailable: try later",
            r#"failed to solve: failed to fetch anonymous token: Get "http://127.0.0.1:5999/token?service=r": dial tcp 127.0.0.1:5999: connect: connection refused"#,
            r#"failed to solve: x: failed to resolve source metadata for 127.0.0.1:5999/x/img:1: failed to do request: Head "http://127.0.0.1:5999/v2/x/img/manifests/1": read tcp 127.0.0.1:40138->127.0.0.1:5999: read: connection reset by peer"#,
            r#"failed to solve: x: failed to resolve source metadata for 127.0.0.1:5997/x/img:1: failed to do request: Head "http://127.0.0.1:5997/v2/x/img/manifests/1": dial tcp 127.0.0.1:5997: connect: connection refused"#,
            "failed to solve: failed to compute cache key: failed to copy: httpReadSeeker: failed open: unexpected status from GET request to http://127.0.0.1:5999/v2/x/img/blobs/sha256:cc: 500 Internal Server Error",
        ],
    );
}

#[test]
fn what_the_policy_refuses_is_told_as_refused() {
    check(
        FailureKind::SourceDenied,
        &[
            r#"failed to solve: failed to load LLB: error evaluating the source policy: source "http://127.0.0.1:1/x" denied by policy: source denied by policy"#,
            r#"failed to solve: nosuch/image:1.0: failed to resolve source metadata for docker.io/nosuch/image:1.0: could not resolve image due to policy: source "docker-image://docker.io/nosuch/image:1.0" denied by policy: source denied by policy"#,
        ],
    );
    check(
        FailureKind::PrivilegeDenied,
        &[
            "failed to solve: failed to load LLB: network.host is not allowed",
            "failed to solve: failed to load LLB: security.insecure is not allowed",
            "failed to solve: granting entitlement network.host is not allowed by build daemon configuration",
        ],
    );
}

#[test]
fn a_secret_that_is_missing_is_told_as_such() {
    check(
        FailureKind::SecretMissing,
        &["failed to solve: secret tok: not found"],
    );
}

#[test]
fn a_full_disk_is_told_as_such() {
    check(
        FailureKind::DiskFull,
        &[
            "failed to solve: ResourceExhausted: write /root/snapshots/3/fs/big: no space left on device",
            "failed to solve: ResourceExhausted: failed to compute cache key: mount callback failed on /tmp/containerd-mount375272917: write /tmp/containerd-mount375272917/x: no space left on device",
            r#"failed to solve: process "/bin/sh -c x" did not complete successfully: mkdir /tmp/x: no space left on device"#,
        ],
    );
}

#[test]
fn a_daemon_that_cannot_be_reached_or_was_lost_is_told_as_such() {
    check(
        FailureKind::DaemonUnavailable,
        &[
            r#"listing workers for Build: failed to list workers: Unavailable: connection error: desc = "transport: Error while dialing: dial unix /run/buildkitd.sock: connect: no such file or directory""#,
            r#"listing workers for Build: failed to list workers: Unavailable: connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused""#,
            r#"listing workers for Build: failed to list workers: Unavailable: connection error: desc = "transport: authentication handshake failed: x509: certificate is valid for a, not b""#,
            "failed to receive status: rpc error: code = Unavailable desc = error reading from server: EOF",
            r#"failed to receive status: rpc error: code = Unavailable desc = closing transport due to: connection error: desc = "error reading from server: EOF", received prior goaway: code: NO_ERROR, debug data: "graceful_stop""#,
            "failed to solve: Unavailable: transport is closing",
            "DeadlineExceeded: context deadline exceeded",
        ],
    );
}

#[test]
fn what_nobody_has_foreseen_is_told_as_it_is() {
    check(
        FailureKind::Other,
        &[
            "failed to solve: something new",
            "flag provided but not defined: -x",
            "failed to stat /p: stat /p: no such file or directory",
            "invalid local: resolve : lstat /nonexist: no such file or directory",
            r#"failed to solve: failed to load cache key: Get "http://127.0.0.1:1/x": dial tcp 127.0.0.1:1: connect: connection refused"#,
            "failed to solve: failed to load cache key: invalid response status 503",
            "failed to solve: failed to load cache key: 503 Service Unavailable",
            r#"failed to solve: an "unclosed quote"#,
            "",
        ],
    );
    let failure = failure(ending("failed to solve: something new"));
    assert_eq!(failure.message, "something new");
}

#[test]
fn a_long_reason_is_shortened_in_the_middle_after_it_was_understood() {
    let command = "x".repeat(100_000);
    let error = format!(
        "failed to solve: process \"{command}\" did not complete successfully: exit code: 9"
    );
    let failure = failure(ending(&error));
    assert_eq!(failure.exit_code, Some(9));
    assert_eq!(failure.message.len(), 1_000);
    assert!(failure.message.ends_with("exit code: 9"));
}
