//! The description against the route table, against the published contract, and against answers.

mod contract;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{LazyLock, Mutex};

use jsonschema::Validator;
use serde_json::{Value, json};
use strum::IntoEnumIterator as _;

use super::super::route::{Part, Route, Target};

static DESCRIPTION: LazyLock<Value> = LazyLock::new(super::document);

/// The components, with every object closed: an answer may bring no key that is not described, though
/// the description lets later versions bring more.
static STRICT: LazyLock<Value> = LazyLock::new(|| {
    let mut components = DESCRIPTION["components"].clone();
    close(&mut components["schemas"]);
    components
});

fn close(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.values_mut().for_each(close);
            let is_object = object.get("type").is_some_and(|kind| kind == "object");
            if is_object && object.contains_key("properties") {
                object
                    .entry("additionalProperties")
                    .or_insert_with(|| false.into());
            }
        }
        Value::Array(list) => list.iter_mut().for_each(close),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What of `value` is not as `schema` says.
fn problems(schema: &Value, value: &Value) -> Vec<String> {
    static VALIDATORS: Mutex<BTreeMap<String, Validator>> = Mutex::new(BTreeMap::new());
    let mut validators = VALIDATORS.lock().unwrap();
    let validator = validators.entry(schema.to_string()).or_insert_with(|| {
        let mut whole = schema.clone();
        close(&mut whole);
        whole["components"] = STRICT.clone();
        jsonschema::draft202012::options()
            .should_validate_formats(true)
            .build(&whole)
            .unwrap()
    });
    let problems = validator.iter_errors(value);
    problems
        .map(|problem| format!("{}: {problem}", problem.instance_path()))
        .collect()
}

/// Checks `value` against `schema`.
#[track_caller]
fn fits(schema: &Value, value: &Value) {
    let problems = problems(schema, value);
    assert!(
        problems.is_empty(),
        "{schema} does not describe {value}: {problems:#?}"
    );
}

/// Checks an entry of a log.
#[track_caller]
pub(in crate::http) fn is_log_entry(entry: &Value) {
    fits(&super::operation::schema("TemplateBuildLogEntry"), entry);
}

/// Checks an event.
#[track_caller]
pub(in crate::http) fn is_event(event: &Value) {
    fits(&super::operation::schema("EventRecord"), event);
}

/// Checks an event in its envelope.
#[track_caller]
pub(in crate::http) fn is_cloud_event(event: &Value) {
    fits(&super::operation::schema("CloudEvent"), event);
}

/// Checks the answer to a request: its status is described for the route, and its body is what is
/// described for the status.
#[track_caller]
pub(in crate::http) fn is_described(method: &str, path: &str, status: u16, body: &Value) {
    let answers: Vec<&Value> = described_paths(path)
        .into_iter()
        .map(|name| {
            let operation = &DESCRIPTION["paths"][name][method.to_ascii_lowercase()];
            resolved(&operation["responses"][status.to_string()])
        })
        .filter(|answer| !answer.is_null())
        .map(|answer| &answer["content"]["application/json"]["schema"])
        .collect();
    assert!(
        !answers.is_empty(),
        "{method} {path} is not described to answer {status}"
    );
    let of_any = answers
        .iter()
        .any(|schema| problems(schema, body).is_empty());
    assert!(
        of_any,
        "{answers:?} does not describe {body}: {:#?}",
        problems(answers[0], body)
    );
}

/// Checks a refusal by any method of the path.
#[track_caller]
pub(in crate::http) fn is_described_refusal(path: &str, status: u16, body: &Value) {
    fits(&super::operation::schema("ErrorResponse"), body);
    let names = described_paths(path);
    let mut operations = names
        .iter()
        .filter_map(|name| DESCRIPTION["paths"][name].as_object())
        .flat_map(|by_method| by_method.values());
    let described = names.iter().all(|name| *name == LATER)
        || operations.any(|operation| !operation["responses"][status.to_string()].is_null());
    assert!(described, "{path} is not described to answer {status}");
}

/// What is not described because it is not there yet.
const LATER: &str = "later";

/// The paths that a request's path is described as: none if it leads nowhere, two if it can be read in
/// two ways.
fn described_paths(path: &str) -> BTreeSet<&'static str> {
    match Route::find(path) {
        Err(_) => BTreeSet::new(),
        Ok(Route::Template(targets)) => {
            let methods = targets.methods();
            let readings = methods.iter().flat_map(|method| {
                [true, false].map(|exists| targets.clone().choose(method, |_| Ok(exists)).unwrap())
            });
            readings.map(|target| target.name()).collect()
        }
        Ok(route) => BTreeSet::from([route.name()]),
    }
}

/// A reference as the parameter of a path, and an id.
const FORMS: [&str; 2] = ["/v1/templates/refs/{ref}", "/v1/templates/{id}"];

/// What is below a template, as the route table has it: path and methods.
fn parts() -> Vec<(String, &'static [&'static str])> {
    let below = Part::iter().flat_map(|part| {
        let target = Target {
            reference: "x".to_owned(),
            part,
        };
        let rest = target.name().strip_prefix(FORMS[0]).unwrap();
        FORMS.map(|form| (format!("{form}{rest}"), target.part.methods()))
    });
    below.collect()
}

/// What a reference into the description means; what is none means itself.
fn resolved(value: &'static Value) -> &'static Value {
    match value["$ref"].as_str() {
        None => value,
        Some(reference) => {
            let place = reference.trim_start_matches('#');
            let found = DESCRIPTION.pointer(place);
            found.unwrap_or_else(|| panic!("{reference} means nothing"))
        }
    }
}

fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(reference)) = object.get("$ref") {
                found.insert(reference);
            }
            object.values().for_each(|value| references(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// `path` with something in the place of its parameters.
fn filled(path: &str) -> String {
    path.replace("{id}", "tmpl_x")
        .replace("{build_id}", "tb_x")
        .split('/')
        .map(|segment| {
            if segment.starts_with('{') {
                "x"
            } else {
                segment
            }
        })
        .collect::<Vec<_>>()
        .join("/")
}

fn methods(path: &Value) -> BTreeSet<String> {
    let methods = path.as_object().into_iter().flat_map(|path| path.keys());
    methods.map(|method| method.to_ascii_uppercase()).collect()
}

#[test]
fn every_route_is_described_with_its_methods() {
    let routes = Route::iter().filter(|route| route.name() != LATER);
    let routes = routes.map(|route| (route.name().to_owned(), route.methods()));
    let parts = parts().into_iter();
    let parts = parts.map(|(path, methods)| (path, methods.to_vec()));
    for (path, taken) in routes.chain(parts) {
        let taken: BTreeSet<String> = taken.into_iter().map(str::to_owned).collect();
        assert_eq!(methods(&DESCRIPTION["paths"][&path]), taken, "{path}");
    }
}

#[test]
fn every_described_path_is_routed_and_open_to_whom_it_says() {
    for (path, operations) in DESCRIPTION["paths"].as_object().unwrap() {
        let route = Route::find(&filled(path)).unwrap();
        if let Route::Template(_) = &route {
            assert!(parts().iter().any(|(known, _)| known == path), "{path}");
        } else {
            assert_eq!(route.name(), path);
        }
        for (method, operation) in operations.as_object().unwrap() {
            let is_public = operation["security"] == json!([]);
            assert_eq!(is_public, route.is_public(), "{method} {path}");
        }
    }
}

#[test]
fn every_reference_means_something_and_every_component_is_used() {
    let mut found = BTreeSet::new();
    references(&DESCRIPTION, &mut found);
    for reference in &found {
        let place = reference.trim_start_matches('#');
        assert!(DESCRIPTION.pointer(place).is_some(), "{reference}");
    }
    for kind in ["schemas", "responses", "headers"] {
        for name in DESCRIPTION["components"][kind].as_object().unwrap().keys() {
            let reference = format!("#/components/{kind}/{name}");
            assert!(found.contains(reference.as_str()), "nobody needs {name}");
        }
    }
}

#[test]
fn operations_have_names_of_their_own_and_say_what_they_are() {
    let mut names = BTreeSet::new();
    for operation in super::operations::all() {
        let operation = operation.to_json();
        let name = operation["operationId"].as_str().unwrap().to_owned();
        assert!(names.insert(name.clone()), "{name} is there twice");
        assert!(!operation["summary"].as_str().unwrap().is_empty(), "{name}");
        let parameters = operation["parameters"].as_array();
        for parameter in parameters.into_iter().flatten() {
            let description = parameter["description"].as_str().unwrap();
            assert!(!description.is_empty(), "{name}: {parameter}");
        }
    }
}

#[test]
fn schemas_are_schemas() {
    for (name, schema) in DESCRIPTION["components"]["schemas"].as_object().unwrap() {
        assert!(jsonschema::draft202012::meta::is_valid(schema), "{name}");
    }
}
