//! Builds from a Dockerfile.

use domain::definition::{Backend, Definition, Source, SourceType};
use domain::name::SecretId;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::mistakes::each_has_one_mistake;
use super::read;

const TEXT: &str = "FROM python:3.12-slim\nWORKDIR /app\nCOPY src/ /app/src/\n\
    RUN --mount=type=secret,id=pip_token cat /run/secrets/pip_token >/dev/null\n\
    CMD [\"python\",\"-V\"]\n";

/// A request for a build of `FROM a` with some more keys.
fn with(more: Value) -> Value {
    let mut body = json!({"dockerfile": "FROM a"});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

fn definition(body: &Value) -> Definition {
    read(body).unwrap().definition
}

/// What the client sends for `from_dockerfile` with a context and two secrets.
fn with_everything_that_the_client_sends() -> Value {
    json!({
        "dockerfile": TEXT,
        "build_context": {"files": [
            {"path": "emptydir", "entry_type": "dir", "mode": "0755"},
            {"path": "src", "entry_type": "dir", "mode": "0755"},
            {"path": "src/main.py", "entry_type": "file", "blob_id": "blob_cc42155088fc", "mode": "0644"},
            {"path": "sp ace/f \u{e9}.txt", "entry_type": "file", "content_base64": "aGkK", "mode": "0644"}
        ]},
        "build_secrets": [
            {"id": "pip_token", "value": "s3cr3t-value", "source": "value"},
            {"id": "other", "value": "v2", "source": "env"}
        ],
        "build_envs": {"E": "1"},
        "start_cmd": "serve",
        "runtime_config": {"default_envs": {"R": "2"}, "default_user": "app", "default_workdir": "/app"},
        "steps": [],
        "name": "my-app",
        "build_config": {"vcpus": 2, "memory_mib": 512, "internet_access": false},
        "build_backend": "buildkit",
        "skip_cache": true
    })
}

#[test]
fn what_the_client_sends_is_read_whole() {
    let request = read(&with_everything_that_the_client_sends()).unwrap();
    assert_eq!(request.backend, Backend::Buildkit);
    assert_eq!(request.source_type, SourceType::Dockerfile);
    assert_eq!(request.context.len(), 4);
    assert!(!format!("{request:?}").contains("s3cr3t-value"));
    let definition = request.definition;
    let args = [("E".to_owned(), "1".to_owned())].into();
    let source = Source::Dockerfile {
        text: TEXT.to_owned(),
        path: None,
        build_args: args,
        target: None,
    };
    assert_eq!(definition.source, source);
    let ids: Vec<_> = definition.secret_ids.iter().map(SecretId::as_str).collect();
    assert_eq!(ids, ["other", "pip_token"], "sorted");
    assert!(definition.skip_cache && !definition.config.internet_access);
    assert_eq!(definition.start_cmd.as_deref(), Some("serve"));
    assert_eq!(definition.runtime.default_user.as_deref(), Some("app"));
    for (id, value) in [("pip_token", "s3cr3t-value"), ("other", "v2")] {
        let kept = request.secrets.value(&id.parse().unwrap()).unwrap();
        assert_eq!(kept.expose_secret(), value.as_bytes());
    }
}

#[test]
fn a_dockerfile_alone_is_a_build_by_buildkit() {
    for body in [
        json!({"dockerfile": "FROM alpine\nRUN true\n"}),
        json!({"dockerfile": "FROM alpine\nRUN true\n", "build_backend": "buildkit"}),
        // What is wrong with its text is found by the build, which can say more.
        json!({"dockerfile": "RUNN true"}),
    ] {
        let request = read(&body).unwrap();
        assert_eq!(request.backend, Backend::Buildkit);
        assert_eq!(request.source_type, SourceType::Dockerfile);
        assert!(request.secrets.is_empty());
    }
}

#[test]
fn its_options_are_read() {
    let body = with(json!({
        "dockerfile_path": "deploy/app.Dockerfile",
        "build_args": {"VERSION": "1=2", "_EMPTY": "", "lower": "a\nb"},
        "build_envs": {"STAGE": "build"},
        "build_target": "Final-stage.1"
    }));
    let Source::Dockerfile {
        path,
        build_args,
        target,
        ..
    } = definition(&body).source
    else {
        panic!("no Dockerfile")
    };
    assert_eq!(path.as_deref(), Some("deploy/app.Dockerfile"));
    assert_eq!(target.as_deref(), Some("Final-stage.1"));
    let args: Vec<_> = build_args.iter().map(|(k, v)| (&**k, &**v)).collect();
    assert_eq!(
        args,
        [
            ("STAGE", "build"),
            ("VERSION", "1=2"),
            ("_EMPTY", ""),
            ("lower", "a\nb")
        ]
    );
}

#[test]
fn the_context_may_list_the_dockerfile_or_something_beside_it() {
    for path in [
        "deploy/Dockerfile",
        "deploy/Dockerfile.dockerignore",
        "deploy/Dockerfiles/x",
    ] {
        let file = json!({"path": path, "entry_type": "file", "content_base64": ""});
        let body = with(json!({"dockerfile_path": "deploy/Dockerfile",
            "build_context": {"files": [file]}}));
        assert_eq!(read(&body).unwrap().context.len(), 1);
    }
}

#[test]
fn mistakes_of_the_dockerfile_name_their_field() {
    let long = "RUN true\n".repeat(30_000);
    each_has_one_mistake([
        (json!({"dockerfile": ""}), "dockerfile: must not be blank"),
        (
            json!({"dockerfile": " \n"}),
            "dockerfile: must not be blank",
        ),
        (json!({"dockerfile": 7}), "dockerfile: must be a string"),
        (
            json!({"dockerfile": long}),
            "dockerfile: has 270000 bytes, at most 196608 may be",
        ),
        (
            json!({"dockerfile": "FROM a\u{0}"}),
            "dockerfile: must not contain a NUL",
        ),
        (
            with(json!({"base_image": "a"})),
            "base_image: a request has either",
        ),
        (
            with(json!({"steps": [{"action": "run", "command": "true"}]})),
            "steps: a build from a Dockerfile has no steps",
        ),
        (
            with(json!({"build_backend": "native"})),
            "build_backend: `native` cannot build a Dockerfile",
        ),
        (
            with(json!({"build_target": "a b"})),
            "build_target: must be the name of a stage",
        ),
        (
            with(json!({"build_target": "0"})),
            "build_target: must be the name of a stage",
        ),
        (
            with(json!({"build_target": ""})),
            "build_target: must not be blank",
        ),
    ]);
}

#[test]
fn a_path_that_is_no_file_of_the_context_is_refused() {
    for path in [
        "/Dockerfile",
        "../Dockerfile",
        "a/../Dockerfile",
        "./Dockerfile",
        "a//Dockerfile",
        "a/",
        ".",
    ] {
        each_has_one_mistake([(
            with(json!({"dockerfile_path": path})),
            &format!("dockerfile_path: `{path}` must be relative"),
        )]);
    }
    let file = json!({"path": "deploy/app", "entry_type": "file", "content_base64": ""});
    let folder = json!({"path": "empty", "entry_type": "dir"});
    for (path, wanted) in [
        ("deploy", "dockerfile_path: is a folder in build_context"),
        ("empty", "dockerfile_path: is a folder in build_context"),
        ("deploy/app/Dockerfile", "dockerfile_path: is below a file"),
    ] {
        let context = json!({"files": [file, folder]});
        let body = with(json!({"dockerfile_path": path, "build_context": context}));
        each_has_one_mistake([(body, wanted)]);
    }
}

#[test]
fn arguments_that_no_dockerfile_declares_or_that_are_buildkit_s_are_refused() {
    for key in ["build_args", "build_envs"] {
        for (name, problem) in [
            ("BUILDKIT_SYNTAX", "names that begin with `BUILDKIT_`"),
            ("BUILDKIT_", "names that begin with `BUILDKIT_`"),
            ("a-b", "is not a name of an ARG"),
            ("1A", "is not a name of an ARG"),
            ("a b", "is not a name of an ARG"),
            ("\u{e9}", "is not a name of an ARG"),
            ("A=B", "is not a name"),
        ] {
            let body = with(json!({key: {name: "hunter2"}}));
            each_has_one_mistake([(body, &format!("{key}.{name}: {problem}"))]);
        }
        each_has_one_mistake([
            (
                with(json!({key: {"A": ["hunter2"]}})),
                &format!("{key}.A: must be a string"),
            ),
            (
                with(json!({key: {"A": "hunter2".repeat(2000)}})),
                &format!("{key}.A: has 14000 bytes"),
            ),
        ]);
    }
    each_has_one_mistake([(
        with(json!({"build_args": {"A": "hunter2"}, "build_envs": {"A": "hunter2"}})),
        "build_envs.A: is in build_args too",
    )]);
}
