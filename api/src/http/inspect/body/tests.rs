//! Reading piece by piece against reading at once.

use base64::Engine as _;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const BOUNDS: Bounds = Bounds {
    plain_bytes_max: 10_000,
    context_bytes_max: 1000,
};

fn read_in(body: &[u8], piece_bytes: usize, bounds: Bounds) -> Result<Inspected, ApiError> {
    let pieces = body.chunks(piece_bytes).map(Bytes::copy_from_slice);
    Reading::new(pieces.collect(), None, bounds).whole()
}

/// What reading at once would give.
fn expected(body: &[u8]) -> Option<(Value, Vec<Option<Announced>>)> {
    let mut json: Value = serde_json::from_slice(body).ok()?;
    let mut contents = Vec::new();
    let files = json.pointer_mut("/build_context/files");
    for file in files.and_then(Value::as_array_mut).into_iter().flatten() {
        let content = file.get_mut("content_base64");
        let found = content
            .filter(|content| content.is_string())
            .map(|content| {
                let bytes = STANDARD.decode(content.as_str().unwrap()).ok();
                *content = if bytes.is_some() { "" } else { NO_BASE64 }.into();
                bytes.map(|bytes| Announced {
                    digest: Digest::of(&bytes),
                    bytes: u64::try_from(bytes.len()).unwrap(),
                })
            });
        contents.push(found.flatten());
    }
    Some((json, contents))
}

#[track_caller]
fn is_too_large(read: Result<Inspected, ApiError>, expected: &str) {
    match read {
        Err(ApiError::TooLarge { what, .. }) => assert_eq!(what, expected),
        other => panic!("{other:?}"),
    }
}

/// JSON of any shape, in which the keys that matter come up often.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~ü\\n]{0,8}".prop_map(Value::from),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| STANDARD.encode(bytes).into()),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        let key = prop_oneof![
            4 => Just("content_base64".to_owned()),
            2 => Just("files".to_owned()),
            2 => Just("build_context".to_owned()),
            1 => "[a-z\"\\\\]{0,4}",
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn any_body() -> impl Strategy<Value = Value> {
    prop_oneof![
        any_json(),
        prop::collection::vec(any_json(), 0..5)
            .prop_map(|files| json!({"base_image": "a", "build_context": {"files": files}})),
    ]
}

proptest! {
    #[test]
    fn a_body_reads_the_same_in_pieces_and_at_once(
        body in any_body(),
        pretty in any::<bool>(),
        piece_bytes in 1_usize..64,
    ) {
        let text = if pretty { format!("{body:#}") } else { body.to_string() };
        let read = read_in(text.as_bytes(), piece_bytes, BOUNDS).unwrap();
        let (json, contents) = expected(text.as_bytes()).unwrap();
        prop_assert_eq!(&*read.json, &json);
        prop_assert_eq!(read.contents, contents);
    }

    #[test]
    fn what_is_no_json_at_once_is_none_in_pieces(
        body in any_body(),
        cut in any::<prop::sample::Index>(),
        put in prop::option::of(any::<u8>()),
        piece_bytes in 1_usize..64,
    ) {
        let mut text = body.to_string().into_bytes();
        let at = cut.index(text.len());
        match put {
            Some(byte) => text[at] = byte,
            None => text.truncate(at),
        }
        let read = read_in(&text, piece_bytes, BOUNDS);
        prop_assert_eq!(read.is_ok(), expected(&text).is_some(), "{}", text.escape_ascii());
    }

    #[test]
    fn a_content_is_hashed_like_any_other_however_it_is_written(text in "[A-Za-z0-9+/=!]{0,20}") {
        let escaped = text.replace('/', "\\/").replace('A', "\\u0041");
        let body = format!(r#"{{"build_context":{{"files":[{{"content_base64":"{escaped}"}}]}}}}"#);
        let read = read_in(body.as_bytes(), 7, BOUNDS).unwrap();
        prop_assert_eq!(Some((read.json.clone(), read.contents)), expected(body.as_bytes()));
    }
}

#[test]
fn numbers_are_those_of_a_body_that_is_read_at_once() {
    let numbers = [
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775808",
        "-9223372036854775809",
        "-0",
        "1.5e3",
        "1e999",
    ];
    for number in numbers {
        let body = format!(r#"{{"build_config": [{number}]}}"#);
        let read = read_in(body.as_bytes(), 3, BOUNDS).ok();
        let read = read.map(|read| ((*read.json).clone(), read.contents));
        assert_eq!(read, expected(body.as_bytes()), "{number}");
    }
}

#[test]
fn of_two_lists_the_last_counts() {
    let body = br#"{"build_context": {"files": [{"content_base64": "eA=="}], "files": [{}]}}"#;
    let read = read_in(body, 5, BOUNDS).unwrap();
    assert_eq!(*read.json, json!({"build_context": {"files": [{}]}}));
    assert_eq!(read.contents, [None]);
}

#[test]
fn contents_do_not_count_as_the_body_and_the_other_way_round() {
    let file = |bytes: usize| json!({"content_base64": STANDARD.encode(vec![0; bytes])});
    let body = |files: Vec<Value>, note: usize| {
        let body = json!({"build_context": {"files": files}, "note": "x".repeat(note)});
        body.to_string().into_bytes()
    };
    let whole = body(vec![file(500), file(500)], 9_900);
    let read = read_in(&whole, 100, BOUNDS).unwrap();
    assert_eq!(read.contents.len(), 2);
    let files = vec![file(500), file(500), file(1)];
    is_too_large(
        read_in(&body(files, 0), 100, BOUNDS),
        "the files of build_context together",
    );
    is_too_large(
        read_in(&body(vec![file(500)], 10_000), 100, BOUNDS),
        "the body without its files",
    );
    // Many small contents bring much that is none: all of it counts.
    let empty = vec![json!({"content_base64": "", "note": "x".repeat(100)}); 90];
    is_too_large(
        read_in(&body(empty, 0), 100, BOUNDS),
        "the body without its files",
    );
    let no_base64 = "!".repeat(20_000);
    let endless = json!({"build_context": {"files": [{"content_base64": no_base64}]}});
    let endless = endless.to_string();
    is_too_large(read_in(endless.as_bytes(), 100, BOUNDS), "the body");
}

#[test]
fn a_mistake_is_found_where_it_stands() {
    let body = "{\n  \"a\": 1,\n  \"b\": nope\n}";
    match read_in(body.as_bytes(), 4, BOUNDS) {
        Err(ApiError::MalformedJson { line, column }) => assert_eq!((line, column), (3, 8)),
        other => panic!("{other:?}"),
    }
    for (body, field) in [("", ""), ("  ", "")] {
        match read_in(body.as_bytes(), 1, BOUNDS) {
            Err(ApiError::Invalid { problems, .. }) => assert_eq!(problems[0].field, field),
            Err(ApiError::MalformedJson { .. }) if !body.is_empty() => {}
            other => panic!("{other:?}"),
        }
    }
}
