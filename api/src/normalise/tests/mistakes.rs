//! One mistake each, and the field that it is told of.

mod steps;

use serde_json::{Value, json};

use super::mistakes;

/// The body `{"base_image": "a"}` with one more key.
fn with(key: &str, value: Value) -> Value {
    let mut body = json!({"base_image": "a"});
    body[key] = value;
    body
}

fn step(step: Value) -> Value {
    with("steps", json!([{"action": "run", "command": "true"}, step]))
}

fn file(file: Value) -> Value {
    with("build_context", json!({"files": [file]}))
}

fn probe(probe: Value) -> Value {
    with("runtime_config", json!({"readiness": probe}))
}

/// Each body has one mistake, and what is said about it begins as given.
pub(super) fn each_has_one_mistake<const N: usize>(cases: [(Value, &str); N]) {
    for (body, wanted) in cases {
        let found = mistakes(&body);
        assert_eq!(found.len(), 1, "{wanted}: {found:?}");
        assert!(found[0].starts_with(wanted), "{wanted}: {found:?}");
        assert!(!found[0].contains("hunter2"), "{found:?}");
    }
}

#[test]
fn mistakes_at_the_top_name_their_field() {
    each_has_one_mistake([
        (json!([]), ": must be an object"),
        (json!({}), "base_image: is required"),
        (
            with("base_image", json!("")),
            "base_image: must not be blank",
        ),
        (with("base_image", json!(7)), "base_image: must be a string"),
        (
            with("base_image", json!("a b")),
            "base_image: must be the reference of an image or a template",
        ),
        (
            with("name", json!("App")),
            "name: `App` is not a template name",
        ),
        (
            with("name", json!("other/app")),
            "name: must be `name` or `acme/name`",
        ),
        (with("name", json!("a:v1")), "name: `a:v1` is not"),
        (with("alias", json!("tmpl_x")), "alias: `tmpl_x` is not"),
        (with("tags", json!([])), "tags: must not be empty"),
        (with("tags", json!("v1")), "tags: must be a list"),
        (
            with("tags", json!(["v1", "tb_x"])),
            "tags[1]: `tb_x` is not a tag",
        ),
        (with("tags", json!([1])), "tags[0]: must be a string"),
        (
            with("skip_cache", json!("yes")),
            "skip_cache: must be true or false",
        ),
        (
            with("start_cmd", json!(["a"])),
            "start_cmd: must be a string",
        ),
        (
            with("build_envs", json!({"A": 1})),
            "build_envs.A: must be a string",
        ),
        (
            with("build_envs", json!({"A=B": "1"})),
            "build_envs.A=B: is not a name",
        ),
        (
            with("build_envs", json!(["A"])),
            "build_envs: must be an object",
        ),
    ]);
}

#[test]
fn mistakes_of_the_machine_name_their_field() {
    each_has_one_mistake([
        (
            with("build_config", json!([])),
            "build_config: must be an object",
        ),
        (
            with("build_config", json!({"disk_mb": 0})),
            "build_config.disk_mb: must be a whole number from 1 to 65536",
        ),
        (
            with("build_config", json!({"disk_mb": 65537})),
            "build_config.disk_mb: must be",
        ),
        (
            with("build_config", json!({"disk_mb": 1.5})),
            "build_config.disk_mb: must be",
        ),
        (
            with("build_config", json!({"vcpus": 0})),
            "build_config.vcpus: must be a whole number from 1 to 8",
        ),
        (
            with("build_config", json!({"vcpus": "2"})),
            "build_config.vcpus: must be",
        ),
        (
            with("build_config", json!({"memory_mib": 64})),
            "build_config.memory_mib: must be a whole number from 128 to 8192",
        ),
        (
            with("build_config", json!({"memory_mib": -1})),
            "build_config.memory_mib: must be",
        ),
        (
            with("build_config", json!({"internet_access": "no"})),
            "build_config.internet_access: must be true or false",
        ),
        (
            with("build_config", json!({"memory_mb": 1})),
            "build_config.memory_mb: unknown field",
        ),
    ]);
}

#[test]
fn mistakes_of_the_source_and_its_secrets_name_their_field() {
    each_has_one_mistake([
        (
            with("dockerfile", json!("FROM a")),
            "base_image: a request has either",
        ),
        (
            with("build_backend", json!("buildkit")),
            "build_backend: `buildkit` builds Dockerfiles only",
        ),
        (
            with("build_backend", json!("x")),
            "build_backend: must be `native` or `buildkit`",
        ),
        (
            json!({"dockerfile": "FROM a", "build_backend": "native"}),
            "build_backend: `native` cannot build a Dockerfile",
        ),
        (
            with("build_args", json!({"A": "1"})),
            "build_args: belongs to a build from a Dockerfile",
        ),
        (
            with("build_secrets", json!([{"id": "t", "value": "hunter2"}])),
            "build_secrets: only builds from a Dockerfile",
        ),
        (
            with(
                "base_image_auth",
                json!({"kind": "x", "password": "hunter2"}),
            ),
            "base_image_auth.kind: must be basic",
        ),
        (
            with(
                "base_image_auth",
                json!({"kind": "basic", "username": "hunter2"}),
            ),
            "base_image_auth.password: is required",
        ),
    ]);
}

#[test]
fn mistakes_of_credentials_name_their_field_and_repeat_nothing() {
    let aws = |region: &str| {
        json!({"kind": "aws_ecr", "access_key_id": "hunter2", "secret_access_key": "hunter2",
            "region": region})
    };
    let gcp =
        |account: Value| json!({"kind": "gcp_artifact_registry", "service_account_json": account});
    let basic = || json!({"kind": "basic", "username": "u", "password": "hunter2"});
    let entry = |registry: &str, auth: Value| json!([{"registry": registry, "auth": auth}]);
    each_has_one_mistake([
        (
            with("base_image_auth", aws("hunter2/")),
            "base_image_auth.region: is no AWS region",
        ),
        (
            with("base_image_auth", aws("eu-west-1")),
            "base_image_auth: aws_ecr credentials for the region `eu-west-1` are for",
        ),
        (
            with("base_image_auth", gcp(json!("{hunter2"))),
            "base_image_auth.service_account_json: is not the JSON of a service account",
        ),
        (
            with(
                "base_image_auth",
                gcp(json!({"client_email": "a", "private_key": "hunter2"})),
            ),
            "base_image_auth.service_account_json: its `private_key` is not",
        ),
        (
            with("base_image_auth", gcp(json!(["hunter2"]))),
            "base_image_auth.service_account_json: must be an object",
        ),
        (
            json!({"base_image": "NotAnImage", "base_image_auth": basic()}),
            "base_image_auth: is for images in registries",
        ),
        (
            with("registry_auth", entry("hunter2", basic())),
            "registry_auth[0].registry: must be a registry's host",
        ),
        (
            with("registry_auth", json!([{"registry": "ghcr.io"}])),
            "registry_auth[0].auth: is required",
        ),
        (
            with("registry_auth", entry("ghcr.io", aws("eu-west-1"))),
            "registry_auth[0].auth: aws_ecr credentials",
        ),
        (
            with(
                "registry_auth",
                json!([{"registry": "ghcr.io", "auth": basic()},
                                         {"registry": "ghcr.io", "auth": basic()}]),
            ),
            "registry_auth[1].registry: is named twice",
        ),
        (
            json!({"base_image": "debian", "base_image_auth": basic(),
                "registry_auth": entry("docker.io", basic())}),
            "base_image_auth: and registry_auth both have credentials",
        ),
    ]);
}

#[test]
fn mistakes_of_the_context_name_their_field() {
    let too_long = |shown: &str| {
        format!(
            "build_context.files[0].path: `{shown}` must have at most 3072 bytes, and 255 in each name"
        )
    };
    each_has_one_mistake([
        (
            with("build_context", json!({})),
            "build_context.files: is required",
        ),
        (
            file(json!({"path": "../x", "entry_type": "dir"})),
            "build_context.files[0].path: `../x` must be relative",
        ),
        (
            file(json!({"path": "/x", "entry_type": "dir"})),
            "build_context.files[0].path: `/x` must be relative",
        ),
        (
            file(json!({"path": "a/../x", "entry_type": "dir"})),
            "build_context.files[0].path: `a/../x` must be relative",
        ),
        (
            file(json!({"path": "a/".repeat(1600) + "x", "entry_type": "dir"})),
            &too_long(&"a/".repeat(100)),
        ),
        (
            file(json!({"path": "n".repeat(256), "entry_type": "dir"})),
            &too_long(&"n".repeat(200)),
        ),
        (
            file(json!({"path": "a//b", "entry_type": "dir"})),
            "build_context.files[0].path: `a//b` must be relative",
        ),
        (
            file(json!({"path": "./x", "entry_type": "dir"})),
            "build_context.files[0].path: `./x` must be relative",
        ),
        (
            file(json!({"path": "a\u{0}b", "entry_type": "dir"})),
            "build_context.files[0].path: must not contain a NUL character",
        ),
        (
            file(json!({"path": "x", "entry_type": "link"})),
            "build_context.files[0].entry_type: must be `file` or `dir`",
        ),
        (
            file(json!({"path": "x", "entry_type": "file"})),
            "build_context.files[0].blob_id: a file needs",
        ),
        (
            file(json!({"path": "x", "entry_type": "file", "blob_id": "b", "content_base64": ""})),
            "build_context.files[0].content_base64: a file has either",
        ),
        (
            file(json!({"path": "x", "entry_type": "file", "content_base64": "*"})),
            "build_context.files[0].content_base64: must be base64",
        ),
        (
            file(json!({"path": "x", "entry_type": "dir", "blob_id": "b"})),
            "build_context.files[0].blob_id: a folder has no content",
        ),
        (
            with(
                "build_context",
                json!({"files": [{"path": "x", "entry_type": "dir"}, {"path": "x", "entry_type": "dir"}]}),
            ),
            "build_context.files[1].path: `x` is listed twice",
        ),
    ]);
}

#[test]
fn mistakes_of_the_runtime_name_their_field() {
    each_has_one_mistake([
        (
            with("runtime_config", json!({"default_workdir": "app"})),
            "runtime_config.default_workdir: must begin with `/`",
        ),
        (
            with("runtime_config", json!({"default_envs": {"A": true}})),
            "runtime_config.default_envs.A: must be a string",
        ),
        (
            probe(json!({})),
            "runtime_config.readiness.kind: is required",
        ),
        (
            probe(json!({"kind": "udp"})),
            "runtime_config.readiness.kind: `udp` is none of",
        ),
        (
            probe(json!({"kind": "tcp"})),
            "runtime_config.readiness.port: is required",
        ),
        (
            probe(json!({"kind": "tcp", "port": 65536})),
            "runtime_config.readiness.port: must be a whole number from 1 to 65535",
        ),
        (
            probe(json!({"kind": "http", "port": 80, "path": "ok"})),
            "runtime_config.readiness.path: must begin with `/`",
        ),
        (
            probe(json!({"kind": "command"})),
            "runtime_config.readiness.command: is required",
        ),
        (
            probe(json!({"kind": "timeout"})),
            "runtime_config.readiness.timeout_ms: is required",
        ),
        (
            probe(json!({"kind": "tcp", "port": 1, "timeout_secs": 3601})),
            "runtime_config.readiness.timeout_secs: must be a whole number from 0 to 3600",
        ),
    ]);
}
