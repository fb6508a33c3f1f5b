//! How builds fail.

use domain::failure::{FailurePhase, FailureReason};
use tokio_util::sync::CancellationToken;

use super::kit::{Outcome, Wish, World};
use crate::pipeline::Interruption;

async fn build(world: &World, dockerfile: &str) -> Outcome {
    world
        .build(Wish {
            dockerfile,
            ..Wish::default()
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_failure_has_its_reason_its_place_and_its_line() {
    let world = World::new().await;
    let mark = world.folder().display();
    for (dockerfile, reason, phase, line, words) in [
        (
            "FROM debian:bookworm\nRUNN x\n".to_owned(),
            FailureReason::DockerfileInvalid,
            FailurePhase::BuildStep,
            Some("2"),
            "RUNN",
        ),
        (
            "FROM debian:bookworm\nCOPY nothere /\n".to_owned(),
            FailureReason::DockerfileInvalid,
            FailurePhase::BuildStep,
            Some("2"),
            "nothere",
        ),
        (
            "FROM debian:no-such-tag\n".to_owned(),
            FailureReason::BadReference,
            FailurePhase::Prepare,
            Some("1"),
            "no-such-tag",
        ),
        (
            "FROM debian:bookworm\nCOPY --from=Not_An_Image! /a /b\n".to_owned(),
            FailureReason::BadReference,
            FailurePhase::Prepare,
            Some("2"),
            "not an image reference",
        ),
        (
            "FROM --platform=linux/arm64 debian:bookworm\n".to_owned(),
            FailureReason::UnsupportedPlatform,
            FailurePhase::Prepare,
            Some("1"),
            "linux/arm64",
        ),
        (
            "FROM 10.0.0.1/private/image\n".to_owned(),
            FailureReason::BadReference,
            FailurePhase::Prepare,
            Some("1"),
            "10.0.0.1",
        ),
        (
            "FROM debian:bookworm\nADD http://example.com/x /x\n".to_owned(),
            FailureReason::NetworkOff,
            FailurePhase::BuildStep,
            Some("2"),
            "`internet_access` is false",
        ),
        (
            "FROM debian:bookworm\nADD git@example.com:x/y /x\n".to_owned(),
            FailureReason::NotPermitted,
            FailurePhase::BuildStep,
            Some("2"),
            "SSH",
        ),
        (
            "FROM debian:bookworm\nRUN --network=host true\n".to_owned(),
            FailureReason::NotPermitted,
            FailurePhase::BuildStep,
            None,
            "network.host",
        ),
        (
            "FROM debian:bookworm\nRUN --mount=type=secret,id=tok,required=true true\n".to_owned(),
            FailureReason::SecretMissing,
            FailurePhase::BuildStep,
            Some("2"),
            "`tok`",
        ),
    ] {
        let built = build(&world, &dockerfile).await;
        let failure = built.failure();
        assert_eq!(
            (failure.reason, failure.phase),
            (reason, phase),
            "{dockerfile}: {failure:?}"
        );
        let told = failure.details.get("dockerfile_line").map(String::as_str);
        assert!(line.is_none() || told == line, "{dockerfile}: {failure:?}");
        assert!(failure.message.contains(words), "{dockerfile}: {failure:?}");
    }
    let failing = format!(
        "FROM debian:bookworm\nRUN true # {mark}\nRUN echo to-out; echo to-err >&2; exit 42 # {mark}\nRUN true\n"
    );
    let built = build(&world, &failing).await;
    let failure = built.failure();
    assert_eq!(failure.reason, FailureReason::StepFailed);
    assert_eq!(
        (failure.exit_code, failure.step_index),
        (Some(42), Some(3)),
        "{failure:?}"
    );
    assert_eq!(failure.stderr_tail, ["to-err"]);
    assert_eq!(failure.details["dockerfile_line"], "3");
    assert!(
        failure.details["excerpt"].contains("exit 42"),
        "{failure:?}"
    );
    assert!(failure.message.contains("no network"), "{failure:?}");
    assert_eq!(built.log().matches("to-err").count(), 1, "{}", built.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_for_a_registry_that_no_image_comes_from_are_refused() {
    let world = World::new().await;
    let built = world
        .build(Wish {
            dockerfile: "FROM scratch\nCOPY a /a\n",
            files: &[("a", 0o644, "a")],
            registry_auth: &["other.example"],
            ..Wish::default()
        })
        .await;
    let failure = built.failure();
    assert_eq!(failure.reason, FailureReason::RegistryUnauthorized);
    assert!(failure.message.contains("`other.example`"), "{failure:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_from_scratch_has_no_base() {
    let world = World::new().await;
    let built = world
        .build(Wish {
            dockerfile: "FROM scratch\nCOPY a /a\n",
            files: &[("a", 0o644, "content")],
            ..Wish::default()
        })
        .await;
    assert_eq!(built.read("a").as_deref(), Some("content"));
    assert_eq!(built.made().resolved, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_that_is_stopped_while_a_step_runs_leaves_nothing() {
    let world = World::new().await;
    let dockerfile = format!(
        "FROM debian:bookworm\nRUN echo begun; sleep 1000 # {}\n",
        world.folder().display()
    );
    let stop = CancellationToken::new();
    let building = world.build_until(
        Wish {
            dockerfile: &dockerfile,
            ..Wish::default()
        },
        stop.clone(),
    );
    let stopping = async {
        // The log says when the step is under way.
        world.until_logged("begun").await;
        stop.cancel();
    };
    let (built, ()) = tokio::join!(building, stopping);
    match &built.base {
        Err(Interruption::Stopped { killed }) => assert_eq!(killed, &["the BuildKit build"]),
        other => panic!("{other:?}"),
    }
    let left = std::fs::read_dir(world.services.work_dir.path())
        .unwrap()
        .count();
    assert_eq!(left, 0, "something of the build stayed");
    let process = std::process::Command::new("pgrep")
        .args(["-f", &world.folder().display().to_string()])
        .output();
    let running = String::from_utf8(process.unwrap().stdout).unwrap();
    let others: Vec<&str> = running
        .lines()
        .filter(|pid| *pid != std::process::id().to_string())
        .collect();
    assert!(others.is_empty(), "still running: {others:?}");
}
