//! Build secrets, and the credentials of builds from a Dockerfile.

use executor::vault::Secrets;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::mistakes::each_has_one_mistake;
use super::{Limits, mistakes, read, retry_request};

fn with_secrets(secrets: Value) -> Value {
    json!({"dockerfile": "FROM a", "build_secrets": secrets})
}

fn value(secrets: &Secrets, id: &str) -> Vec<u8> {
    let value = secrets.value(&id.parse().unwrap());
    value.unwrap().expose_secret().to_vec()
}

#[test]
fn every_legal_id_and_value_is_kept() {
    let longest = "x".repeat(500 * 1024);
    let long_id = "i".repeat(128);
    for (id, text) in [
        (".", "a dot is an id"),
        ("..", "two are one, too"),
        ("pip.conf_1-A", "[global]\nindex-url = https://u:p@h/\n"),
        ("empty", ""),
        ("blank", " \n"),
        ("unicode", "p\u{e4}ss\u{0}w\u{f6}rd"),
        ("longest", &longest),
        (&long_id, "v"),
    ] {
        for source in [json!("value"), json!("env"), json!("file"), Value::Null] {
            let secret = json!([{"id": id, "value": text, "source": source}]);
            let request = read(&with_secrets(secret)).unwrap();
            assert_eq!(value(&request.secrets, id), text.as_bytes(), "{id}");
            assert_eq!(request.definition.secret_ids, [id.parse().unwrap()]);
        }
    }
}

#[test]
fn mistakes_of_secrets_name_their_field_and_repeat_nothing() {
    let too_long = "\u{e4}".repeat(256 * 1024);
    let one = |secret: Value| with_secrets(json!([secret]));
    each_has_one_mistake([
        (
            with_secrets(json!("hunter2")),
            "build_secrets: must be a list",
        ),
        (
            with_secrets(json!(["hunter2"])),
            "build_secrets[0]: must be an object",
        ),
        (
            with_secrets(json!(vec![json!({"id": "a", "value": ""}); 101])),
            "build_secrets: has 101 elements, at most 100",
        ),
        (
            one(json!({"value": "hunter2"})),
            "build_secrets[0].id: is required",
        ),
        (
            one(json!({"id": 1, "value": "hunter2"})),
            "build_secrets[0].id: must be a string",
        ),
        (
            one(json!({"id": "hunter2/", "value": ""})),
            "build_secrets[0].id: must be 1 to 128",
        ),
        (
            one(json!({"id": "", "value": "hunter2"})),
            "build_secrets[0].id: must be 1 to 128",
        ),
        (
            one(json!({"id": "\u{e9}", "value": "hunter2"})),
            "build_secrets[0].id: must be 1 to 128",
        ),
        (
            one(json!({"id": "a", "source": "env"})),
            "build_secrets[0].value: is required",
        ),
        (
            one(json!({"id": "a", "value": ["hunter2"]})),
            "build_secrets[0].value: must be a string",
        ),
        (
            one(json!({"id": "a", "value": too_long})),
            "build_secrets[0].value: has 524288 bytes, at most 512000",
        ),
        (
            one(json!({"id": "a", "value": "hunter2", "source": "hunter2"})),
            "build_secrets[0].source: must be `value`, `env` or `file`",
        ),
        (
            one(json!({"id": "a", "value": "hunter2", "source": 1})),
            "build_secrets[0].source: must be `value`, `env` or `file`",
        ),
        (
            one(json!({"id": "a", "value": "hunter2", "path": "/hunter2"})),
            "build_secrets[0].path: unknown field",
        ),
        (
            with_secrets(json!([{"id": "a", "value": "hunter2"}, {"id": "a", "value": "other"}])),
            "build_secrets[1].id: is used twice",
        ),
        (
            json!({"base_image": "a", "build_secrets": [{"id": "a", "value": "hunter2"}]}),
            "build_secrets: only builds from a Dockerfile",
        ),
    ]);
}

#[test]
fn all_values_of_a_request_together_are_bounded() {
    let secret = |index: usize, bytes: usize| {
        let value = "x".repeat(bytes);
        json!({"id": format!("s{index}"), "value": value})
    };
    let mut more: Vec<Value> = (0..8).map(|index| secret(index, 500 * 1024)).collect();
    more.push(secret(8, 4 * 1024 * 1024 - 8 * 500 * 1024));
    assert!(read(&with_secrets(json!(more))).is_ok());
    more.push(secret(9, 1));
    let wanted = "build_secrets: have 4194305 bytes together, at most 4194304 may be";
    assert_eq!(mistakes(&with_secrets(json!(more))), [wanted]);
}

#[test]
fn a_retry_brings_secrets_by_the_same_rules() {
    let retry =
        |secret: Value| retry_request(&json!({"build_secrets": [secret]}), &Limits::default());
    let right = retry(json!({"id": "..", "value": "hunter2", "source": "file"})).unwrap();
    assert_eq!(right.request.secret_ids, ["..".parse().unwrap()].into());
    assert_eq!(value(&right.secrets, ".."), b"hunter2");
    assert!(!format!("{right:?}").contains("hunter2"));
    for (wrong, field) in [
        (
            json!({"id": "hunter2 ", "value": ""}),
            "build_secrets[0].id",
        ),
        (
            json!({"id": "a", "value": {"hunter2": 1}}),
            "build_secrets[0].value",
        ),
        (
            json!({"id": "a", "value": "", "source": "hunter2"}),
            "build_secrets[0].source",
        ),
    ] {
        let refusal = retry(wrong).unwrap_err();
        assert_eq!(refusal.problems[0].field, field);
        assert!(!format!("{refusal:?}").contains("hunter2"));
    }
}
