use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use domain::ids::{BuildId, KeyId};
use domain::time::Timestamp;

use super::*;
use crate::http::query::Parameters;

const HEAD: Position = Position::from_raw(0x20);

fn caller() -> Caller {
    let time = Timestamp::from_unix_micros(0).unwrap();
    Caller {
        owner: "acme".parse().unwrap(),
        key: KeyId::generate(time, [0; 10]),
        namespace: "acme".parse().unwrap(),
    }
}

fn build(number: u8) -> BuildId {
    BuildId::generate(Timestamp::from_unix_micros(0).unwrap(), [number; 10])
}

fn ask(query: &str, headers: &[(&'static str, &str)]) -> Result<Question, ApiError> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(
            HeaderName::from_static(name),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    Question::read(&caller(), &map, &Parameters::read(query).unwrap(), HEAD)
}

/// The field at fault.
#[track_caller]
fn refused(query: &str, headers: &[(&'static str, &str)]) -> String {
    match ask(query, headers) {
        Err(ApiError::Invalid { problems, .. }) => problems[0].field.clone(),
        other => panic!("{query} {headers:?}: {other:?}"),
    }
}

#[test]
fn the_header_of_a_broken_connection_wins_over_the_address() {
    let from = |query, headers: &[_]| ask(query, headers).unwrap().from.raw();
    assert_eq!(from("", &[]), 0);
    assert_eq!(from("from=0000000000000005", &[]), 5);
    assert_eq!(from("from=head", &[]), HEAD.raw());
    let seen = [("last-event-id", "0000000000000007")];
    assert_eq!(from("from=0000000000000005", &seen), 7);
    assert_eq!(from("from=head", &seen), 7);
    assert_eq!(from("from=0000000000000005", &[("last-event-id", "")]), 5);
}

#[test]
fn a_position_that_was_not_given_out_is_refused_by_the_name_of_its_field() {
    for text in ["5", "x", "", "0000000000000021", "000000000000000A", "HEAD"] {
        assert_eq!(refused(&format!("from={text}"), &[]), "from", "{text}");
    }
    for text in ["5", "head", "0000000000000021", "é"] {
        let header = [("last-event-id", text)];
        assert_eq!(refused("", &header), "Last-Event-ID", "{text}");
    }
}

#[test]
fn a_filter_takes_several_values_in_two_ways() {
    let (one, two, three) = (build(1), build(2), build(3));
    let query = format!("build={one},%20{two}&type=Failed&build={three}&type=Snapshotted");
    let filter = ask(&query, &[]).unwrap().filter;
    assert_eq!(filter.owner.as_str(), "acme");
    assert_eq!(filter.builds, BTreeSet::from([one, two, three]));
    assert_eq!(filter.kinds, BTreeSet::from(["Failed", "Snapshotted"]));
    assert!(filter.streams.is_empty() && filter.templates.is_empty());
}

#[test]
fn what_is_no_value_of_a_filter_is_refused_by_its_name() {
    let many = |name: &str, value: fn(usize) -> String| {
        let values: Vec<String> = (0..=EVENT_FILTER_COUNT_MAX).map(value).collect();
        format!("{name}={}", values.join(","))
    };
    let builds = many("build", |number| {
        build(u8::try_from(number).unwrap()).to_string()
    });
    for (query, field) in [
        ("stream=keys", "stream"),
        ("stream=build-x", "stream"),
        ("stream=", "stream"),
        ("type=KeyCreated", "type"),
        ("type=failed", "type"),
        ("type=Failed,", "type"),
        ("build=tmpl_1", "build"),
        ("template=app", "template"),
        ("follow=yes", "follow"),
        (&builds, "build"),
    ] {
        assert_eq!(refused(query, &[]), field, "{query}");
    }
}

#[test]
fn the_answer_is_as_it_is_accepted() {
    let answer = |query, accept| ask(query, &[("accept", accept)]).unwrap().answer;
    let stream = |form, follow| Answer::Stream { form, follow };
    for accept in [
        "*/*",
        "text/event-stream",
        "application/json",
        "text/html;q=0.9, */*",
    ] {
        assert_eq!(answer("", accept), stream(Form::Record, false), "{accept}");
        assert_eq!(
            answer("follow=1", accept),
            stream(Form::Record, true),
            "{accept}"
        );
    }
    for accept in [
        "application/cloudevents+json",
        "Application/CloudEvents+JSON; charset=utf-8",
        "application/cloudevents-batch+json",
        "application/cloudevents-batch+json, application/cloudevents+json;q=0.1",
    ] {
        let batch = Answer::Batch { count_max: 100 };
        assert_eq!(answer("", accept), batch, "{accept}");
    }
    let batch = Answer::Batch { count_max: 7 };
    assert_eq!(answer("limit=7", "application/cloudevents+json"), batch);
    let cloud = "application/cloudevents+json";
    assert_eq!(answer("follow=1", cloud), stream(Form::Cloud, true));
    let both = "text/event-stream, application/cloudevents+json";
    assert_eq!(answer("", both), stream(Form::Cloud, false));
    let batch = [("accept", "application/cloudevents-batch+json")];
    assert_eq!(refused("follow=1", &batch), "follow");
    for limit in ["0", "1001", "x"] {
        let query = format!("limit={limit}");
        assert_eq!(refused(&query, &[("accept", cloud)]), "limit", "{limit}");
    }
}
