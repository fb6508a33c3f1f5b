//! Credentials of builds from a Dockerfile: they go to the registries of its images, and to no other.

use serde_json::{Value, json};

use super::mistakes::each_has_one_mistake;
use super::read;

const SEVERAL: &str = "ARG BASE=quay.io/team/base\n\
    FROM ghcr.io/team/tools:1 AS tools\n\
    FROM $BASE AS base\n\
    RUN --mount=type=bind,from=registry.example:5000/data,target=/data true\n\
    FROM base AS whole\n\
    COPY --from=tools /a /a\n\
    COPY --from=busybox /b /b\n\
    FROM other.example/unused\n";

fn basic() -> Value {
    json!({"kind": "basic", "username": "u", "password": "hunter2"})
}

fn aws() -> Value {
    json!({"kind": "aws_ecr", "access_key_id": "hunter2", "secret_access_key": "hunter2",
        "region": "eu-west-1"})
}

fn hosts(hosts: &[&str]) -> Value {
    let entry = |host: &&str| json!({"registry": host, "auth": basic()});
    hosts.iter().map(entry).collect()
}

/// The hosts that the request has credentials for.
fn placed(body: &Value) -> Vec<String> {
    let request = read(body).unwrap();
    assert!(!format!("{request:?}").contains("hunter2"));
    request.secrets.registry_kinds().into_keys().collect()
}

#[test]
fn a_base_s_credentials_are_for_the_image_that_the_last_stage_starts_from() {
    for (text, more, host) in [
        ("FROM debian", json!({}), "docker.io"),
        ("FROM index.docker.io/a/b", json!({}), "docker.io"),
        (
            "FROM ghcr.io/a:1 AS x\nFROM debian\nFROM x",
            json!({}),
            "ghcr.io",
        ),
        (
            "FROM ghcr.io/a AS one\nFROM debian AS two\n",
            json!({"build_target": "ONE"}),
            "ghcr.io",
        ),
        ("ARG HOST=quay.io\nFROM ${HOST}/a\n", json!({}), "quay.io"),
        (
            "ARG HOST\nFROM ${HOST}/a\n",
            json!({"build_args": {"HOST": "localhost:5000"}}),
            "localhost:5000",
        ),
        (
            "ARG HOST\nFROM ${HOST}/a\n",
            json!({"build_envs": {"HOST": "ghcr.io"}}),
            "ghcr.io",
        ),
    ] {
        let mut body = json!({"dockerfile": text, "base_image_auth": basic()});
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        assert_eq!(placed(&body), [host], "{text}");
    }
}

#[test]
fn every_image_of_the_build_may_have_credentials() {
    let listed = ["docker.io", "ghcr.io", "quay.io", "registry.example:5000"];
    let mut body = json!({"dockerfile": SEVERAL, "build_target": "whole"});
    body["registry_auth"] = hosts(&listed);
    assert_eq!(placed(&body), listed);
    // What another target starts from may have them too, so that a list fits every target.
    let unused = ["other.example"];
    body["registry_auth"] = hosts(&unused);
    assert_eq!(placed(&body), unused);
    // The base by its own field, the others by theirs.
    body["base_image_auth"] = basic();
    body["registry_auth"] = hosts(&["docker.io"]);
    assert_eq!(placed(&body), ["docker.io", "quay.io"]);
}

#[test]
fn hosts_that_the_dockerfile_does_not_use_are_refused_by_name() {
    each_has_one_mistake([
        (
            json!({"dockerfile": "FROM ghcr.io/a", "registry_auth": hosts(&["ghcr.io", "quay.io"])}),
            "registry_auth[1].registry: no image of the Dockerfile is at `quay.io`; it uses ghcr.io",
        ),
        (
            json!({"dockerfile": "FROM scratch", "registry_auth": hosts(&["quay.io"])}),
            "registry_auth[0].registry: no image of the Dockerfile is at `quay.io`; it uses no registry",
        ),
        (
            json!({"dockerfile": "FROM scratch\nCOPY . /", "base_image_auth": basic()}),
            "base_image_auth: is for images in registries, and the Dockerfile's last stage starts from none",
        ),
        (
            json!({"dockerfile": "FROM ghcr.io/a", "base_image_auth": basic(),
                "registry_auth": hosts(&["ghcr.io"])}),
            "base_image_auth: and registry_auth both have credentials for `ghcr.io`",
        ),
        (
            json!({"dockerfile": "FROM ghcr.io/a", "base_image_auth": aws()}),
            "base_image_auth: aws_ecr credentials",
        ),
    ]);
}

#[test]
fn where_images_are_unknown_credentials_are_refused_with_the_line() {
    let nameless = "FROM ghcr.io/a AS a\nARG HOST\nFROM ${HOST}/b\nCOPY --from=a / /";
    each_has_one_mistake([
        (
            json!({"dockerfile": "ARG HOST\nFROM ${HOST}/a", "base_image_auth": basic()}),
            "dockerfile: line 2: the name of the image hangs on HOST",
        ),
        (
            json!({"dockerfile": nameless, "registry_auth": hosts(&["ghcr.io", "quay.io"])}),
            "dockerfile: line 3: ",
        ),
        (
            json!({"dockerfile": "FROM Upper/Case", "base_image_auth": basic()}),
            "dockerfile: line 1: this is not the name of an image",
        ),
        (
            json!({"dockerfile": "FROM ghcr.io/a\nRUNN true", "registry_auth": hosts(&["ghcr.io"])}),
            "dockerfile: line 2: ",
        ),
        (
            json!({"dockerfile": "FROM ghcr.io/a", "build_target": "nope",
                "base_image_auth": basic()}),
            "dockerfile: ",
        ),
    ]);
    // What is known is enough for what is brought.
    let body = json!({"dockerfile": nameless, "registry_auth": hosts(&["ghcr.io"])});
    assert_eq!(placed(&body), ["ghcr.io"]);
    // Without credentials, nobody has to know.
    for text in [nameless, "FROM Upper/Case", "RUNN true"] {
        assert!(read(&json!({"dockerfile": text})).is_ok(), "{text}");
    }
}
