//! The description against the published contract, whose bones are in `tests/contract/baseline.json`.
//!
//! Answers may tell more than the contract promises, and requests may say more than it knows, never
//! less: what it requires of an answer is required here, what it calls a closed list has no other
//! word here, and what it lets a request leave out may be left out here.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "JSON will have no more kinds of values"
)]

use serde_json::{Map, Value};

use super::DESCRIPTION;

const BASELINE: &str = include_str!("../../../../../tests/contract/baseline.json");

/// Who must understand whom.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Clients of the contract read what is sent here.
    Answer,
    /// What clients of the contract send is read here.
    Request,
}

struct Comparison {
    theirs: Value,
    /// Pairs of schemas that have been compared, so that one within itself ends.
    seen: Vec<(String, String)>,
    problems: Vec<String>,
}

fn list<'a>(value: &'a Value, key: &str) -> Vec<&'a Value> {
    value[key].as_array().into_iter().flatten().collect()
}

fn object<'a>(value: &'a Value, key: &str) -> Option<&'a Map<String, Value>> {
    value[key].as_object()
}

/// The words that a schema allows; none if it is not a closed list of words.
fn words(schema: &Value) -> Vec<&Value> {
    match &schema["const"] {
        Value::Null => list(schema, "enum"),
        word => vec![word],
    }
}

impl Comparison {
    fn problem(&mut self, at: &str, what: impl std::fmt::Display) {
        self.problems.push(format!("{at}: {what}"));
    }

    fn schema(&mut self, at: &str, ours: &Value, theirs: &Value, way: Way) {
        let name = |value: &Value| value["$ref"].as_str().map(str::to_owned);
        if let (Some(ours), Some(theirs)) = (name(ours), name(theirs)) {
            if self.seen.contains(&(ours.clone(), theirs.clone())) {
                return;
            }
            self.seen.push((ours, theirs));
        }
        let ours = named(&DESCRIPTION["components"]["schemas"], ours);
        let theirs = named(&self.theirs["schemas"], theirs);
        if ours["type"] != theirs["type"] && !words_alone(&ours) && !words_alone(&theirs) {
            self.problem(
                at,
                format!("{} where the contract has {}", ours["type"], theirs["type"]),
            );
        }
        self.words(at, &ours, &theirs, way);
        self.object(at, &ours, &theirs, way);
        for key in ["oneOf", "anyOf"] {
            let (ours, theirs) = (list(&ours, key), list(&theirs, key));
            if ours.len() != theirs.len() {
                self.problem(at, format!("{} {key} of {}", ours.len(), theirs.len()));
            }
            for (index, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
                self.schema(&format!("{at}/{key}[{index}]"), ours, theirs, way);
            }
        }
        if !theirs["items"].is_null() {
            self.schema(&format!("{at}[]"), &ours["items"], &theirs["items"], way);
        }
    }

    fn words(&mut self, at: &str, ours: &Value, theirs: &Value, way: Way) {
        let (own, known) = (words(ours), words(theirs));
        if known.is_empty() {
            return;
        }
        let (must_be_in, all) = match way {
            Way::Answer => (&known, &own),
            Way::Request => (&own, &known),
        };
        let open = own.is_empty() && way == Way::Request;
        if own.is_empty() && way == Way::Answer {
            self.problem(at, "any word may be sent");
        }
        for word in all
            .iter()
            .filter(|word| !open && !must_be_in.contains(word))
        {
            self.problem(at, format!("{word} is not understood"));
        }
    }

    fn object(&mut self, at: &str, ours: &Value, theirs: &Value, way: Way) {
        let (wanted, sure) = match way {
            Way::Answer => (list(theirs, "required"), list(ours, "required")),
            Way::Request => (list(ours, "required"), list(theirs, "required")),
        };
        for key in wanted.iter().filter(|key| !sure.contains(key)) {
            self.problem(at, format!("{key} may be missing"));
        }
        let Some(properties) = object(theirs, "properties") else {
            return;
        };
        for (key, theirs) in properties {
            match ours["properties"].get(key) {
                Some(ours) => self.schema(&format!("{at}.{key}"), ours, theirs, way),
                None => self.problem(at, format!("`{key}` is not described")),
            }
        }
        let closed = theirs["additionalProperties"] == false && way == Way::Answer;
        for key in object(ours, "properties").into_iter().flat_map(Map::keys) {
            if closed && !properties.contains_key(key) {
                self.problem(at, format!("`{key}` makes clients throw the whole away"));
            }
        }
        if closed && ours["additionalProperties"] != false {
            self.problem(at, "is not closed");
        }
    }

    fn content(&mut self, at: &str, ours: &Value, theirs: &Value, way: Way) {
        for (kind, theirs) in theirs.as_object().into_iter().flatten() {
            match ours["content"].get(kind) {
                Some(ours) => self.schema(at, &ours["schema"], theirs, way),
                None => self.problem(at, format!("is no {kind}")),
            }
        }
    }

    fn operation(&mut self, at: &str, ours: &Value, theirs: &Value) {
        let is_public = |security: &Value| security.as_array().is_some_and(Vec::is_empty);
        if theirs["public"] == true && !is_public(&ours["security"]) {
            self.problem(at, "wants a key");
        }
        for parameter in list(theirs, "parameters") {
            let name = &parameter["name"];
            let same = |ours: &&&Value| ours["name"] == *name && ours["in"] == parameter["in"];
            match list(ours, "parameters").iter().find(same) {
                None => self.problem(at, format!("does not take {name}")),
                Some(own) if own["required"] == true && parameter["required"] != true => {
                    self.problem(at, format!("wants {name}"));
                }
                Some(own) => {
                    let at = format!("{at}?{name}");
                    self.schema(&at, &own["schema"], &parameter["schema"], Way::Request);
                }
            }
        }
        if ours["requestBody"]["required"] == true && theirs["body"]["required"] != true {
            self.problem(at, "wants a body");
        }
        let body = format!("{at} body");
        self.content(
            &body,
            &ours["requestBody"],
            &theirs["body"]["content"],
            Way::Request,
        );
        for (status, theirs) in object(theirs, "answers").into_iter().flatten() {
            match ours["responses"].get(status) {
                Some(ours) => self.content(&format!("{at} {status}"), ours, theirs, Way::Answer),
                None => self.problem(at, format!("never answers {status}")),
            }
        }
        for status in list(theirs, "errors") {
            if ours["responses"].get(status.to_string()).is_none() {
                self.problem(at, format!("never answers {status}"));
            }
        }
    }
}

/// Whether a schema is a list of words and says nothing about their type.
fn words_alone(schema: &Value) -> bool {
    schema["type"].is_null() && !words(schema).is_empty()
}

/// The schema that a reference means among `schemas`; what is none means itself.
fn named(schemas: &Value, schema: &Value) -> Value {
    match schema["$ref"].as_str() {
        None => schema.clone(),
        Some(reference) => {
            let name = reference.rsplit('/').next().unwrap();
            assert!(!schemas[name].is_null(), "{reference} means nothing");
            schemas[name].clone()
        }
    }
}

#[test]
fn nothing_of_the_contract_is_missing_or_contradicted() {
    let mut comparison = Comparison {
        theirs: serde_json::from_str(BASELINE).unwrap(),
        seen: Vec::new(),
        problems: Vec::new(),
    };
    let paths = comparison.theirs["paths"].clone();
    let mut operation_count = 0;
    for (path, methods) in paths.as_object().unwrap() {
        for (method, theirs) in methods.as_object().unwrap() {
            let at = format!("{method} {path}");
            let ours = &DESCRIPTION["paths"][path][method.to_ascii_lowercase()];
            operation_count += 1;
            if ours.is_null() {
                comparison.problem(&at, "is not described");
            } else {
                comparison.operation(&at, ours, theirs);
            }
        }
    }
    assert_eq!(operation_count, 38, "the contract has so many operations");
    let error = serde_json::json!({"$ref": "#/components/schemas/ErrorResponse"});
    comparison.schema("errors", &error, &error, Way::Answer);
    assert!(comparison.problems.is_empty(), "{:#?}", comparison.problems);
}
