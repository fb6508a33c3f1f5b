//! Which images a build gets.

use super::*;
use crate::invocation::ImagePolicy;
use crate::testkit::{BASE, Bench};

/// The digest of [`BASE`], as the daemon found it.
async fn digest_of_base(bench: &Bench) -> String {
    let (outcome, said) = bench
        .build(bench.invocation("FROM debian:bookworm\n"))
        .await;
    outcome.unwrap();
    let (_, digest) = said
        .split_once("debian:bookworm@")
        .unwrap_or_else(|| panic!("the image is not resolved: {said}"));
    digest.chars().take("sha256:".len() + 64).collect()
}

#[tokio::test]
async fn an_image_that_is_not_allowed_is_denied_wherever_it_is_named() {
    let bench = Bench::new();
    for dockerfile in [
        "FROM debian:stable-slim\n",
        "FROM debian\n",
        "ARG BASE=debian:stable-slim\nFROM $BASE\n",
        "FROM debian:bookworm\nCOPY --from=debian:stable-slim /etc/passwd /\n",
        "FROM debian:bookworm\nRUN --mount=from=debian:stable-slim,target=/mnt true\n",
    ] {
        let failure = failure(bench.outcome(dockerfile).await);
        assert_eq!(
            failure.kind,
            FailureKind::SourceDenied,
            "{dockerfile}: {failure:?}"
        );
    }
    for dockerfile in [
        "FROM debian:bookworm\nCOPY --from=debian:bookworm /etc/passwd /\n",
        "FROM debian:bookworm\nRUN --mount=from=debian:bookworm,target=/mnt test -e /mnt/etc\n",
    ] {
        bench.outcome(dockerfile).await.unwrap();
    }
}

#[tokio::test]
async fn an_image_that_the_daemon_holds_is_denied_to_whoever_only_knows_its_digest() {
    let bench = Bench::new();
    let digest = digest_of_base(&bench).await;
    for name in [
        format!("docker.io/library/debian@{digest}"),
        format!("docker.io/library/debian:bookworm@{digest}"),
        format!("registry.example.com/tenant/private@{digest}"),
        format!("registry.example.com/tenant/private:tag@{digest}"),
    ] {
        for dockerfile in [
            format!("FROM {name}\nRUN true\n"),
            format!("FROM scratch\nCOPY --from={name} /etc/passwd /\n"),
        ] {
            let mut stranger = bench.invocation(&dockerfile);
            stranger.images = ImagePolicy::new();
            stranger.images.allow("docker.io/library/node:20", None);
            assert_failed(bench.build(stranger).await.0, FailureKind::SourceDenied);
        }
    }
    // It is the policy that denies: to whoever may have the name, the daemon gives the image.
    let name = format!("docker.io/library/debian@{digest}");
    let mut invocation = bench.invocation(&format!("FROM {name}\nRUN true\n"));
    invocation.images = ImagePolicy::new();
    invocation.images.allow(name, None);
    bench.build(invocation).await.0.unwrap();
}

#[tokio::test]
async fn a_base_that_another_build_takes_files_from_at_the_same_time_is_told_as_a_step() {
    let theirs = Bench::new();
    let taking = theirs.invocation(
        "FROM scratch\nCOPY --from=debian:bookworm / /\nRUN echo rea''dy; exec sleep 10000\n",
    );
    let (mut heard, ended) = theirs.start(taking);
    let ours = async {
        heard.output("ready").await;
        let bench = Bench::new();
        let (outcome, said) = bench
            .build(bench.invocation("FROM debian:bookworm\nRUN true\n"))
            .await;
        outcome.unwrap();
        assert!(
            said.contains("\"[1/2] FROM docker.io/library/debian:bookworm@sha256:"),
            "{said}"
        );
        theirs.stop.cancel();
    };
    let (outcome, ()) = tokio::join!(ended, ours);
    assert!(matches!(outcome, Err(RunError::Stopped)), "{outcome:?}");
}

#[tokio::test]
async fn a_pin_decides_what_a_name_means_and_allows_no_other_digest() {
    let bench = Bench::new();
    let digest = digest_of_base(&bench).await;
    let pinned = |dockerfile: &str, pin: &str| {
        let mut invocation = bench.invocation(dockerfile);
        invocation.images = ImagePolicy::new();
        invocation.images.allow(BASE, Some(pin.to_owned()));
        invocation
    };
    for dockerfile in [
        "FROM debian:bookworm\nRUN true\n".to_owned(),
        "FROM scratch\nCOPY --from=debian:bookworm /etc/passwd /\n".to_owned(),
        "FROM debian:bookworm\nRUN --mount=from=debian:bookworm,target=/mnt true\n".to_owned(),
        format!("FROM debian:bookworm@{digest}\nRUN true\n"),
    ] {
        let (outcome, _) = bench.build(pinned(&dockerfile, &digest)).await;
        outcome.unwrap_or_else(|error| panic!("{dockerfile}: {error:?}"));
    }
    let nothing = format!("sha256:{}", "0".repeat(64));
    let (outcome, said) = bench
        .build(pinned("FROM debian:bookworm\n", &nothing))
        .await;
    let failure = failure(outcome);
    assert!(failure.message.contains(&nothing), "{failure:?} {said}");
    let other = format!("FROM debian:bookworm@{digest}\n");
    let (outcome, _) = bench.build(pinned(&other, &nothing)).await;
    assert_failed(outcome, FailureKind::SourceDenied);
}
