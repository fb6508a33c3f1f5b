//! What a build gives, and what its options do.

use super::*;
use crate::invocation::Network;
use crate::testkit::{Bench, unique};

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[tokio::test]
async fn a_build_gives_an_oci_layout_of_uncompressed_layers() {
    let bench = Bench::new();
    let invocation = bench.invocation("FROM debian:bookworm\nRUN echo made > /made\n");
    let output = invocation.output.clone();
    bench.build(invocation).await.0.unwrap();
    let index = json(&output.join("index.json"));
    let digest = |descriptor: &serde_json::Value| {
        let digest = descriptor["digest"].as_str().unwrap();
        output
            .join("blobs/sha256")
            .join(digest.strip_prefix("sha256:").unwrap())
    };
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    let manifest = json(&digest(&index["manifests"][0]));
    let layers = manifest["layers"].as_array().unwrap();
    assert!(layers.len() >= 2, "{manifest}");
    for layer in layers {
        let media_type = layer["mediaType"].as_str().unwrap();
        assert_eq!(media_type, "application/vnd.oci.image.layer.v1.tar");
        assert!(digest(layer).is_file());
    }
}

#[tokio::test]
async fn a_failed_build_leaves_no_output_and_says_why() {
    let bench = Bench::new();
    let outcome = bench.outcome("FROM debian:bookworm\nRUN exit 42\n").await;
    let failure = failure(outcome);
    assert_eq!(failure.kind, FailureKind::Step);
    assert!(failure.message.contains("exit code: 42"), "{failure:?}");
}

#[tokio::test]
async fn arguments_target_and_a_nested_dockerfile_arrive_as_they_are() {
    let bench = Bench::new();
    let value = "a,b=c \"q\" $x 'y' \\ \u{e4}\nsecond line";
    let mut invocation = bench.invocation("");
    let folder = bench.context().join("docker files");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(bench.context().join("expected"), value).unwrap();
    std::fs::write(
        folder.join("My, \"own\".Dockerfile"),
        "FROM debian:bookworm AS wanted\n\
         ARG GIVEN\nARG EMPTY=default\nARG HOME_OF_SERVICE=unset\n\
         COPY expected /expected\n\
         RUN printf %s \"$GIVEN\" | cmp - /expected && test \"$EMPTY\" = ''\n\
         FROM wanted AS unwanted\n\
         RUN exit 1\n",
    )
    .unwrap();
    invocation.dockerfile_name = "docker files/My, \"own\".Dockerfile".to_owned();
    invocation.target = Some("wanted".to_owned());
    invocation.build_args = [("GIVEN", value), ("EMPTY", "")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    bench.build(invocation).await.0.unwrap();
}

/// Builds, and gives the digest of the image.
async fn manifest_of(bench: &Bench, invocation: Invocation) -> String {
    let output = invocation.output.clone();
    bench.build(invocation).await.0.unwrap();
    let index = json(&output.join("index.json"));
    index["manifests"][0]["digest"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_earlier_builds_left_is_used_unless_the_caller_wants_none_of_it() {
    let bench = Bench::new();
    let dockerfile = "FROM debian:bookworm\nRUN cat /proc/sys/kernel/random/uuid > /made\n";
    let mut made = Vec::new();
    for no_cache in [false, false, true] {
        let mut invocation = bench.invocation(dockerfile);
        invocation.no_cache = no_cache;
        made.push(manifest_of(&bench, invocation).await);
    }
    assert_eq!(made[0], made[1]);
    assert_ne!(made[1], made[2]);
}

#[tokio::test]
async fn a_pipe_in_the_root_filesystem_holds_nothing_up() {
    let bench = Bench::new();
    bench
        .outcome("FROM debian:bookworm\nRUN mkfifo /pipe\n")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_frontend_that_the_dockerfile_names_is_not_asked_for() {
    let bench = Bench::new();
    for syntax in [
        "# syntax=registry.invalid/evil/frontend:1",
        "#!/bin/frontend\n# syntax=registry.invalid/evil/frontend:1",
    ] {
        let dockerfile = format!("{syntax}\nFROM scratch\nCOPY Dockerfile /\n");
        let (outcome, said) = bench.build(bench.invocation(&dockerfile)).await;
        outcome.unwrap_or_else(|error| panic!("{syntax}: {error:?}"));
        assert!(!said.contains("resolve image config"), "{said}");
    }
}

#[tokio::test]
async fn arguments_that_steer_the_frontend_are_refused() {
    let bench = Bench::new();
    let mut invocation = bench.invocation("FROM scratch\nCOPY Dockerfile /\n");
    invocation.build_args = [("BUILDKIT_SYNTAX".to_owned(), "evil/frontend".to_owned())].into();
    let (outcome, _) = bench.build(invocation).await;
    let Err(RunError::Invalid(InvalidInvocation::ReservedBuildArg { name })) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(name, "BUILDKIT_SYNTAX");
}

#[tokio::test]
async fn a_cache_mount_is_shared_within_a_namespace_and_not_beyond() {
    let bench = Bench::new();
    let id = unique("id");
    let build = async |namespace: &str, mount: &str, command: &str| {
        let mount = format!("--mount=type=cache,id={mount},target=/cache");
        let dockerfile = format!("FROM debian:bookworm\nRUN {mount} : {id}; {command}\n");
        let mut invocation = bench.invocation(&dockerfile);
        invocation.cache_namespace = format!("{id}-{namespace}");
        let (outcome, said) = bench.build(invocation).await;
        outcome.unwrap_or_else(|error| panic!("{namespace} {command}: {error:?} {said}"));
    };
    build("a", &id, "echo ours > /cache/ours").await;
    build("a", &id, "test -e /cache/ours").await;
    build("b", &id, "test ! -e /cache/ours").await;
    // An id that looks like a way to another's place is just an id.
    build("b", &format!("../{id}-a/{id}"), "test ! -e /cache/ours #").await;
}

#[tokio::test]
async fn the_result_of_a_step_is_used_again_within_a_namespace_and_not_beyond() {
    let bench = Bench::new();
    let id = unique("id");
    let dockerfile = format!(
        "FROM debian:bookworm\nRUN --mount=type=secret,id=token : {id}; \
         cat /run/secrets/token /proc/sys/kernel/random/uuid > /made\n",
    );
    let mut made = Vec::new();
    for (namespace, value) in [("a", "ours"), ("a", "ours, later"), ("b", "theirs")] {
        let mut invocation = bench.invocation(&dockerfile);
        invocation.cache_namespace = format!("{id}-{namespace}");
        invocation.secrets = vec![("token".to_owned(), value.as_bytes().to_vec().into())];
        made.push(manifest_of(&bench, invocation).await);
    }
    assert_eq!(made[0], made[1]);
    assert_ne!(made[1], made[2]);
}

#[tokio::test]
async fn a_step_has_a_network_only_if_the_build_has() {
    let bench = Bench::new();
    // The file has a heading; a route of any kind is a line below it.
    let alone =
        "test \"$(wc -l < /proc/net/route)\" -le 1 && ! grep -qv -e '^ *lo:' -e '|' /proc/net/dev";
    let unreachable =
        "bash -c 'exec 3<>/dev/tcp/203.0.113.1/80' 2>&1 | grep 'Network is unreachable'";
    for mode in ["", "--network=default", "--network=none"] {
        let dockerfile = format!("FROM debian:bookworm\nRUN {mode} {alone} && {unreachable}\n");
        let mut off = bench.invocation(&dockerfile);
        off.network = Network::None;
        bench
            .build(off)
            .await
            .0
            .unwrap_or_else(|error| panic!("{mode}: {error:?}"));
    }
    let dockerfile = format!("FROM debian:bookworm\nRUN {alone}\n");
    assert_failed(bench.outcome(&dockerfile).await, FailureKind::Step);
}

#[tokio::test]
async fn no_step_gets_the_network_of_the_daemon_or_a_container_without_bounds() {
    let bench = Bench::new();
    for network in [Network::Default, Network::None] {
        for privilege in ["--network=host", "--security=insecure"] {
            let mut invocation =
                bench.invocation(&format!("FROM debian:bookworm\nRUN {privilege} true\n"));
            invocation.network = network;
            let (outcome, _) = bench.build(invocation).await;
            assert_failed(outcome, FailureKind::PrivilegeDenied);
        }
    }
}
