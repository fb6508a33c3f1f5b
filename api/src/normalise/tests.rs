mod dockerfile;
mod dockerfile_auth;
mod mistakes;
mod secrets;

use super::*;
use domain::definition::{CopyItem, ProbeSchedule, Readiness, Source, Step};
use serde_json::json;

fn read(body: &Value) -> Result<BuildRequest, Refusal> {
    let limits = Limits::default();
    let executor = Executor::default();
    let bounds = Bounds {
        limits: &limits,
        executor: &executor,
    };
    build_request(body, &"acme".parse().unwrap(), bounds)
}

/// The mistakes of `body`, as `field: message`.
fn mistakes(body: &Value) -> Vec<String> {
    match read(body) {
        Err(Refusal { problems, total }) => {
            assert!(total >= problems.len() && total > 0);
            problems
                .into_iter()
                .map(|problem| format!("{}: {}", problem.field, problem.message))
                .collect()
        }
        Ok(request) => panic!("accepted: {request:?}"),
    }
}

fn steps(body: &Value) -> Vec<Step> {
    match read(body).unwrap().definition.source {
        Source::Declarative { steps, .. } => steps,
        Source::Dockerfile { .. } => panic!("not declarative"),
    }
}

/// What the client sends for a declarative template with every kind of step.
fn every_step() -> Value {
    json!({
        "base_image": "python:3.12-slim",
        "steps": [
            {"action": "apt_install", "packages": ["git", "curl"]},
            {"action": "pip_install", "packages": ["requests"]},
            {"action": "pip_install", "packages": ["x"], "g": false},
            {"action": "npm_install", "packages": ["tsx"], "g": true},
            {"action": "bun_install", "packages": ["b"]},
            {"action": "run", "command": "echo hi"},
            {"action": "run", "command": "a", "user": "app"},
            {"action": "workdir", "path": "/app"},
            {"action": "user", "user": "app"},
            {"action": "git_clone", "url": "https://example.com/r.git", "path": "/src", "branch": "main", "depth": 1},
            {"action": "make_dir", "path": "/d", "mode": "0755"},
            {"action": "make_symlink", "target": "/t", "path": "/l"},
            {"action": "remove", "path": "/x", "recursive": true, "force": true},
            {"action": "rename", "src": "/a", "dst": "/b", "force": true},
            {"action": "skip_cache"},
            {"action": "copy", "sources": ["builder-context/step-15/src-0/src"], "dst": "/app/", "user": "app:app", "mode": "0644", "force_upload": true},
            {"action": "copy_items", "items": [{"sources": ["builder-context/step-16/src-0/a.txt"], "dst": "/m/"}]}
        ],
        "build_context": {"files": [
            {"path": "builder-context/step-15/src-0/src", "entry_type": "dir", "mode": "0755"},
            {"path": "builder-context/step-15/src-0/src/main.py", "entry_type": "file", "blob_id": "blob_1", "mode": "0644"},
            {"path": "builder-context/step-16/src-0/a.txt", "entry_type": "file", "content_base64": "YQ==", "_local_path": "/home/x/a.txt", "_size_bytes": 1}
        ]},
        "build_envs": {"B": "2"},
        "start_cmd": "python -m http.server 8000",
        "runtime_config": {
            "default_user": "app", "default_workdir": "/app", "default_envs": {"A": "1"},
            "readiness": {"kind": "http", "port": 8000, "path": "/ok", "timeout_secs": 30, "interval_ms": 500, "startup_grace_secs": 2}
        },
        "name": "my-app", "tags": ["v1"],
        "build_config": {"vcpus": 2, "memory_mib": 512, "internet_access": false, "disk_mb": 2048},
        "skip_cache": true,
        "some_future_key": {"is": "tolerated"}
    })
}

#[test]
fn a_request_with_everything_is_read_whole() {
    let body = every_step();
    let request = read(&body).unwrap();
    assert_eq!(request.namespace.as_str(), "acme");
    assert_eq!(request.name.unwrap().as_str(), "my-app");
    assert_eq!(request.tags.len(), 1);
    assert_eq!(request.source_type, SourceType::Declarative);
    assert_eq!(request.backend, Backend::Native);
    let definition = request.definition;
    assert!(definition.skip_cache && !definition.config.internet_access);
    assert_eq!(definition.config.disk_mb, Some(2048));
    assert_eq!(
        definition.runtime.readiness,
        Some(Readiness::Http {
            port: 8000,
            path: "/ok".into(),
            schedule: ProbeSchedule::default()
        })
    );
    let steps = steps(&body);
    assert_eq!(steps.len(), 17);
    assert_eq!(
        steps[2],
        Step::PipInstall {
            packages: vec!["x".into()],
            global: false
        }
    );
    assert_eq!(
        steps[10],
        Step::MakeDir {
            path: "/d".into(),
            mode: Some(0o755)
        }
    );
    assert_eq!(
        steps[15],
        Step::Copy(CopyItem {
            sources: vec!["builder-context/step-15/src-0/src".into()],
            dst: "/app/".into(),
            user: Some("app:app".into()),
            mode: Some(0o644),
            force_upload: true,
        })
    );
    assert_eq!(request.context.len(), 3);
    assert_eq!(request.context[2].payload, Payload::Inline(b"a".to_vec()));
}

#[test]
fn a_bare_base_is_an_import_with_the_usual_machine() {
    let request = read(&json!({"base_image": "alpine"})).unwrap();
    assert_eq!(request.source_type, SourceType::OciImport);
    assert_eq!(request.name, None);
    assert_eq!(request.tags, [Tag::default_tag()]);
    let config = request.definition.config;
    assert_eq!((config.vcpus, config.memory_mib), (2, 512));
    assert!(config.internet_access && config.disk_mb.is_none());
}

#[test]
fn a_name_may_carry_the_own_namespace_and_falls_back_to_the_alias() {
    for (body, name) in [
        (json!({"base_image": "a", "name": "acme/x"}), "x"),
        (json!({"base_image": "a", "alias": "y"}), "y"),
        (json!({"base_image": "a", "name": "x", "alias": "y"}), "x"),
        (json!({"base_image": "a", "name": null, "alias": "y"}), "y"),
    ] {
        assert_eq!(read(&body).unwrap().name.unwrap().as_str(), name);
    }
}

#[test]
fn tags_keep_their_order_and_lose_repeats() {
    let request = read(&json!({"base_image": "a", "tags": ["b", "a", "b"]})).unwrap();
    let tags: Vec<_> = request.tags.iter().map(Tag::as_str).collect();
    assert_eq!(tags, ["b", "a"]);
}

#[test]
fn modes_are_octal_texts_or_numbers() {
    for (mode, wanted) in [
        (json!("0644"), 0o644),
        (json!("4755"), 0o4755),
        (json!("00755"), 0o755),
        (json!(420), 0o644),
    ] {
        let body = json!({"base_image": "a", "steps": [{"action": "make_dir", "path": "/d", "mode": mode}]});
        assert!(
            matches!(&steps(&body)[0], Step::MakeDir { mode: Some(read), .. } if *read == wanted)
        );
    }
}

#[test]
fn all_mistakes_are_found_at_once_and_counted() {
    let steps: Vec<Value> = (0..50).map(|_| json!({"action": "run"})).collect();
    let body = json!({"base_image": "a", "tags": [], "steps": steps});
    let Err(Refusal { problems, total }) = read(&body) else {
        panic!("accepted")
    };
    assert_eq!((problems.len(), total), (20, 51));
}

#[test]
fn credentials_are_kept_by_the_host_that_they_are_for() {
    let basic = json!({"kind": "basic", "username": "u", "password": "hunter2"});
    let aws = json!({"kind": "aws_ecr", "access_key_id": "i", "secret_access_key": "hunter2",
        "session_token": "hunter2", "region": "eu-west-1"});
    let ecr = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
    for (base_image, auth, host, kind) in [
        ("debian:12", &basic, "docker.io", "basic"),
        ("localhost:5000/x", &basic, "localhost:5000", "basic"),
        (&format!("{ecr}/x:1"), &aws, ecr, "aws_ecr"),
    ] {
        let request = read(&json!({"base_image": base_image, "base_image_auth": auth})).unwrap();
        let kinds = request.secrets.registry_kinds();
        assert_eq!(kinds, [(host.to_owned(), kind.to_owned())].into());
        assert!(!format!("{request:?}").contains("hunter2"));
    }
    let request = read(&json!({"base_image": "debian:12", "base_image_auth": basic,
        "registry_auth": [{"registry": "ghcr.io", "auth": basic}]}));
    let secrets = request.unwrap().secrets;
    assert!(secrets.registry("ghcr.io").is_some() && secrets.registry("docker.io").is_some());
}

#[test]
fn every_text_of_a_request_is_overwritten() {
    let mut body = json!({
        "dockerfile": "hunter2",
        "build_secrets": [{"id": "t", "value": "hunter2"}],
        "base_image_auth": {"kind": "gcp_artifact_registry", "service_account_json": {"key": ["hunter2"]}},
        "misspelt_secrets": [["hunter2"], "hunter2", {"a": {"b": "hunter2"}}, 1, true, null]
    });
    wipe(&mut body);
    assert!(!body.to_string().contains("hunter2"), "{body}");
    assert_eq!(body["build_secrets"], json!([{"id": "", "value": ""}]));
    let mut text = json!("hunter2");
    wipe(&mut text);
    assert_eq!(text, "");
}

#[test]
fn a_folder_above_a_listed_file_may_be_copied() {
    let body = json!({
        "base_image": "a",
        "steps": [{"action": "copy", "sources": ["src", "src/lib/"], "dst": "/app/"}],
        "build_context": {"files": [{"path": "src/lib/a", "entry_type": "file", "content_base64": ""}]}
    });
    assert!(matches!(&steps(&body)[0], Step::Copy(item) if item.sources == ["src", "src/lib"]));
}
