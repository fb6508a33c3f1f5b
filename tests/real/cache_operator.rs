//! What an operator sees of the cache and does to it, while the service runs and while it does not.

use serde_json::Value;
use std::process::Output;
use tests::runner::Scenario;
use tests::service::{Place, Service};

/// The script that builds what is looked at here.
const BUILDS: &str = "cache_counts.py";

/// The exit codes of `cache explain` and `cache evict`.
const NEEDED: i32 = 3;
const UNKNOWN: i32 = 4;

/// Scenarios that need no service of their own.
pub(crate) fn shared(service: &Service) -> Vec<Scenario<'_>> {
    vec![Scenario::new(
        "cache_operator::the_twelve_counters_count",
        move || {
            service.client(BUILDS, "the_twelve_counters_count");
        },
    )]
}

/// Scenarios with services of their own.
pub(crate) fn own() -> Vec<Scenario<'static>> {
    vec![Scenario::new(
        "cache_operator::a_templates_layers_survive_and_others_go",
        layers_survive,
    )]
}

/// Whoever can be given operator commands: a running service, or a place without one.
type Operate<'a> = &'a dyn Fn(&[&str]) -> Output;

fn json(operate: Operate<'_>, args: &[&str], code: i32) -> Value {
    let args: Vec<&str> = ["cache"]
        .iter()
        .chain(args)
        .chain(&["--json"])
        .copied()
        .collect();
    let output = operate(&args);
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(
        output.status.code(),
        Some(code),
        "{args:?}: {stdout}{stderr}"
    );
    serde_json::from_slice(&output.stdout).expect("--json prints one JSON value")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    let text = value.get(key).and_then(Value::as_str);
    text.unwrap_or_else(|| panic!("no {key} in {value}"))
}

fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    let items = value.get(key).and_then(Value::as_array);
    items.unwrap_or_else(|| panic!("no {key} in {value}"))
}

fn layers(operate: Operate<'_>) -> Vec<Value> {
    let list = json(operate, &["list", "--kind", "layer"], 0);
    items(&list, "entries").to_vec()
}

fn keys(entries: &[Value]) -> Vec<String> {
    entries
        .iter()
        .map(|entry| text(entry, "key").to_owned())
        .collect()
}

fn is_kept(layer: &Value) -> bool {
    let needs = items(layer, "needed_by");
    needs.iter().any(|need| need.get("template").is_some())
}

fn layers_survive() {
    let place = Place::new();
    let service = place.start();
    service.client(BUILDS, "kept");
    service.client(BUILDS, "lost");
    service.client(BUILDS, "lost_is_there");
    let operate: Operate<'_> = &|args| service.operate(args);
    let (kept, lost): (Vec<Value>, Vec<Value>) = layers(operate).into_iter().partition(is_kept);
    // The base image and one step are a template's; the other step is nobody's.
    assert!(kept.len() >= 2 && lost.len() == 1, "{kept:?} {lost:?}");
    let (kept, lost) = (keys(&kept), keys(&lost));
    let Some(lost_key) = lost.first() else {
        panic!("checked above")
    };

    told(operate, &kept, lost_key);

    let would = json(operate, &["gc", "--dry-run", "--max-bytes", "0"], 0);
    assert_eq!(keys(items(&would, "removed")), lost, "{would}");
    assert_eq!(
        layers(operate).len(),
        kept.len() + 1,
        "a dry run removes nothing"
    );
    let did = json(operate, &["gc", "--max-bytes", "0"], 0);
    assert_eq!(items(&did, "removed"), items(&would, "removed"));
    assert_eq!(did.get("within_bound"), Some(&Value::Bool(false)), "{did}");
    let mut left = keys(&layers(operate));
    left.sort_unstable();
    let mut expected = kept.clone();
    expected.sort_unstable();
    assert_eq!(left, expected);

    let gone = json(operate, &["explain", lost_key], UNKNOWN);
    assert_eq!(text(&gone, "state"), "gone", "{gone}");
    assert!(gone.to_string().contains("RUN echo lost"), "{gone}");
    service.client(BUILDS, "lost_is_rebuilt");
    service.client(BUILDS, "kept_is_there");
    assert!(service.terminate().success());
    stopped(&place, &kept, lost_key);
    restarted(&place, &kept);
}

/// What is told of what is needed, of what is not, and of what is not known.
fn told(operate: Operate<'_>, kept: &[String], lost: &str) {
    for key in kept {
        let refused = json(operate, &["evict", key], NEEDED);
        assert!(
            text(&refused, "reason").contains("default/cache-kept:default"),
            "{refused}"
        );
    }
    let unknown = "0123456789abcdef";
    json(operate, &["evict", unknown], UNKNOWN);
    let nothing = json(operate, &["explain", unknown], UNKNOWN);
    assert_eq!(text(&nothing, "state"), "unknown");

    let prefix = lost.get(..20).expect("keys are longer");
    let explained = json(operate, &["explain", prefix], 0);
    assert_eq!(text(&explained, "key"), lost);
    let said = explained.to_string();
    assert!(said.contains("RUN echo lost"), "{said}");
    assert!(said.contains("of default/cache-lost"), "{said}");
    assert!(said.contains("\"working folder\""), "an input: {said}");

    let artifacts = json(operate, &["list", "--kind", "artifact"], 0);
    let artifact = keys(items(&artifacts, "entries"));
    let artifact = artifact.first().expect("one template is ready");
    let refused = json(operate, &["evict", artifact], NEEDED);
    assert!(
        text(&refused, "reason").contains("default/cache-kept:default"),
        "{refused}"
    );

    let table = operate(&["cache", "list"]);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(
        table.starts_with("KIND ") && table.contains("the template default/cache-kept:default"),
        "{table}"
    );
    let ambiguous = operate(&["cache", "explain", "sha256:"]);
    assert_eq!(
        ambiguous.status.code(),
        Some(1),
        "an empty beginning is no key"
    );
}

/// The same on the data of a service that does not run.
fn stopped(place: &Place, kept: &[String], lost: &str) {
    let operate: Operate<'_> = &|args| place.operate(args);
    let there = keys(&layers(operate));
    assert!(there.iter().any(|key| key == lost), "it was built again");
    assert!(kept.iter().all(|key| there.contains(key)));
    let evicted = json(operate, &["evict", lost], 0);
    assert_eq!(text(&evicted, "outcome"), "removed");
    let explained = json(operate, &["explain", lost], UNKNOWN);
    assert_eq!(text(&explained, "state"), "gone");
    let said = explained.to_string();
    assert!(said.contains("evicted since it was last made"), "{said}");
    assert!(said.contains("\"working folder\""), "an input: {said}");
    for key in kept {
        json(operate, &["evict", key], NEEDED);
    }
    json(operate, &["gc", "--max-bytes", "0"], 0);
    let there = keys(&layers(operate));
    assert!(kept.iter().all(|key| there.contains(key)), "{there:?}");
}

/// What must stay is known again after a start; and what a build uses stays, too.
fn restarted(place: &Place, kept: &[String]) {
    let service = place.start();
    let operate: Operate<'_> = &|args| service.operate(args);
    json(operate, &["gc", "--max-bytes", "0"], 0);
    let there = keys(&layers(operate));
    assert!(kept.iter().all(|key| there.contains(key)), "{there:?}");
    service.client(BUILDS, "begun");
    let used = layers(operate);
    let used = used
        .iter()
        .find(|layer| layer.get("in_use") == Some(&Value::Bool(true)));
    let key = text(used.expect("a running step lies on layers"), "key");
    let refused = json(operate, &["evict", key], NEEDED);
    assert!(
        text(&refused, "reason").contains("a running build uses it"),
        "{refused}"
    );
    assert!(service.terminate().success());
}
