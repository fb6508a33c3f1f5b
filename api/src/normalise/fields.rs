//! Reading JSON field by field, collecting what is wrong instead of stopping at the first mistake.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::Refusal;
use crate::limits::Limits;

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FieldProblem {
    /// The field, for example `steps[2].packages`; empty for the body itself.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl FieldProblem {
    /// What is wrong with `field`.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }
}

/// The mistakes of one request.
#[derive(Debug)]
pub(super) struct Problems {
    found: RefCell<Vec<FieldProblem>>,
    total: RefCell<usize>,
    count_max: usize,
}

impl Problems {
    pub(super) fn new(count_max: usize) -> Self {
        Self {
            found: RefCell::default(),
            total: RefCell::new(0),
            count_max,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        *self.total.borrow() == 0
    }

    pub(super) fn add(&self, field: String, message: impl Into<String>) {
        *self.total.borrow_mut() += 1;
        let mut found = self.found.borrow_mut();
        if found.len() < self.count_max {
            found.push(FieldProblem::new(field, message));
        }
    }

    pub(super) fn into_refusal(self) -> Refusal {
        Refusal {
            problems: self.found.into_inner(),
            total: self.total.into_inner(),
        }
    }
}

/// Where a value stands in the request. Its text is made only when something is wrong.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'a> {
    Top,
    Key(&'a Place<'a>, &'a str),
    Index(&'a Place<'a>, usize),
}

impl Place<'_> {
    fn text(&self) -> String {
        match self {
            Self::Top => String::new(),
            Self::Key(Place::Top, key) => (*key).to_owned(),
            Self::Key(parent, key) => format!("{}.{key}", parent.text()),
            Self::Index(parent, index) => format!("{}[{index}]", parent.text()),
        }
    }
}

/// The fields of one object of the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a> {
    object: &'a Map<String, Value>,
    place: &'a Place<'a>,
    problems: &'a Problems,
}

impl<'a> Fields<'a> {
    /// The request itself, if it is an object.
    pub(super) fn top(body: &'a Value, problems: &'a Problems) -> Option<Self> {
        Self::at(body, &Place::Top, problems)
    }

    /// The object at `place`; a mistake if it is something else.
    pub(super) fn at(
        value: &'a Value,
        place: &'a Place<'a>,
        problems: &'a Problems,
    ) -> Option<Self> {
        if let Value::Object(object) = value {
            return Some(Self {
                object,
                place,
                problems,
            });
        }
        problems.add(place.text(), "must be an object");
        None
    }

    /// Records a mistake of the field `key`.
    pub(super) fn problem(&self, key: &str, message: impl Into<String>) {
        self.problems
            .add(Place::Key(self.place, key).text(), message);
    }

    /// Records a mistake of the entry `name` of the object `key`.
    pub(super) fn entry_problem(&self, key: &str, name: &str, message: impl Into<String>) {
        let object = Place::Key(self.place, key);
        let shown: String = name.chars().take(80).collect();
        self.problems
            .add(Place::Key(&object, &shown).text(), message);
    }

    /// Records a mistake of the element `index` of the list `key`.
    pub(super) fn element_problem(&self, key: &str, index: usize, message: impl Into<String>) {
        let list = Place::Key(self.place, key);
        self.problems
            .add(Place::Index(&list, index).text(), message);
    }

    /// The value of `key`; `null` counts as absent.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Refuses keys that nobody reads, except those that begin with `_`, which are the client's
    /// own notes.
    pub(super) fn only(&self, known: &[&str]) {
        for key in self.object.keys() {
            if !key.starts_with('_') && !known.contains(&key.as_str()) {
                let known = known.join(", ");
                self.problem(key, format!("unknown field; the known ones are {known}"));
            }
        }
    }

    /// A text that is not blank, has no NUL and is not too long.
    pub(super) fn text(&self, key: &str, bytes_max: usize) -> Option<&'a str> {
        let value = self.get(key)?;
        match check_text(value, bytes_max) {
            Ok(text) => Some(text),
            Err(message) => {
                self.problem(key, message);
                None
            }
        }
    }

    pub(super) fn required_text(&self, key: &str, bytes_max: usize) -> Option<&'a str> {
        if !self.has(key) {
            self.problem(key, "is required");
        }
        self.text(key, bytes_max)
    }

    /// A command for `/bin/sh -c`.
    pub(super) fn command(&self, key: &str, limits: &Limits) -> Option<String> {
        self.text(key, limits.command_bytes_max).map(str::to_owned)
    }

    pub(super) fn switch(&self, key: &str) -> Option<bool> {
        let value = self.get(key)?;
        if value.as_bool().is_none() {
            self.problem(key, "must be true or false");
        }
        value.as_bool()
    }

    /// A whole number within `range`.
    pub(super) fn number(&self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let number = self.get(key)?.as_u64();
        match number {
            Some(number) if range.contains(&number) => Some(number),
            Some(_) | None => {
                let (from, to) = range.into_inner();
                self.problem(key, format!("must be a whole number from {from} to {to}"));
                None
            }
        }
    }

    pub(super) fn number_u32(&self, key: &str, range: RangeInclusive<u32>) -> Option<u32> {
        let (from, to) = range.into_inner();
        let number = self.number(key, u64::from(from)..=u64::from(to))?;
        // Within the range, which is one of u32.
        u32::try_from(number).ok()
    }

    /// Permission bits: an octal text or a number.
    pub(super) fn mode(&self, key: &str) -> Option<u32> {
        const MODE_MAX: u32 = 0o7777;
        let value = self.get(key)?;
        let mode = match value.as_str() {
            Some(text) if (1..=5).contains(&text.len()) => u32::from_str_radix(text, 8)
                .ok()
                .filter(|_| !text.starts_with('+')),
            Some(_) => None,
            None => value.as_u64().and_then(|number| u32::try_from(number).ok()),
        };
        let mode = mode.filter(|mode| *mode <= MODE_MAX);
        if mode.is_none() {
            self.problem(
                key,
                "must be permission bits: an octal string such as \"0644\", at most \"7777\", or that number",
            );
        }
        mode
    }

    pub(super) fn list(&self, key: &str, count_max: usize) -> Option<&'a [Value]> {
        let value = self.get(key)?;
        match value.as_array() {
            None => {
                self.problem(key, "must be a list");
                None
            }
            Some(list) if list.len() > count_max => {
                let count = list.len();
                self.problem(
                    key,
                    format!("has {count} elements, at most {count_max} may be"),
                );
                None
            }
            Some(list) => Some(list),
        }
    }

    /// A list of texts with at least one element.
    pub(super) fn text_list(&self, key: &str, limits: &Limits) -> Vec<String> {
        if !self.has(key) {
            self.problem(key, "is required");
            return Vec::new();
        }
        let Some(list) = self.list(key, limits.step_item_count_max) else {
            return Vec::new();
        };
        if list.is_empty() {
            self.problem(key, "must not be empty");
        }
        let mut texts = Vec::with_capacity(list.len());
        for (index, value) in list.iter().enumerate() {
            match check_text(value, limits.text_bytes_max) {
                Ok(text) => texts.push(text.to_owned()),
                Err(message) => self.element_problem(key, index, message),
            }
        }
        texts
    }

    /// Variables: names to texts.
    pub(super) fn env(&self, key: &str, limits: &Limits) -> BTreeMap<String, String> {
        let Some(fields) = self.object_map(key) else {
            return BTreeMap::new();
        };
        if fields.len() > limits.env_count_max {
            let count_max = limits.env_count_max;
            self.problem(key, format!("may have at most {count_max} entries"));
            return BTreeMap::new();
        }
        let mut env = BTreeMap::new();
        for (name, value) in fields {
            // A value may be a secret by mistake: it is never repeated.
            match check_variable(name, value, limits) {
                Ok(value) => {
                    env.insert(name.clone(), value.to_owned());
                }
                Err(message) => self.entry_problem(key, name, message),
            }
        }
        env
    }

    fn object_map(&self, key: &str) -> Option<&'a Map<String, Value>> {
        let value = self.get(key)?;
        if !value.is_object() {
            self.problem(key, "must be an object");
        }
        value.as_object()
    }

    /// Calls `read` with the object at `key`, if there is one.
    pub(super) fn within<T>(&self, key: &str, read: impl FnOnce(Fields<'_>) -> T) -> Option<T> {
        let value = self.get(key)?;
        let place = Place::Key(self.place, key);
        Fields::at(value, &place, self.problems).map(read)
    }

    /// Calls `read` with each object of the list `key`, and gives what it made of them.
    pub(super) fn each<T>(
        &self,
        key: &str,
        count_max: usize,
        mut read: impl FnMut(usize, Fields<'_>) -> Option<T>,
    ) -> Vec<T> {
        let list_place = Place::Key(self.place, key);
        self.list(key, count_max)
            .unwrap_or_default()
            .iter()
            .enumerate()
            .filter_map(|(index, value)| {
                let place = Place::Index(&list_place, index);
                let fields = Fields::at(value, &place, self.problems)?;
                read(index, fields)
            })
            .collect()
    }
}

fn check_text(value: &Value, bytes_max: usize) -> Result<&str, String> {
    let text = value.as_str().ok_or("must be a string")?;
    if text.trim().is_empty() {
        return Err("must not be blank".to_owned());
    }
    check_bytes(text, bytes_max)
}

fn check_bytes(text: &str, bytes_max: usize) -> Result<&str, String> {
    if text.contains('\0') {
        return Err("must not contain a NUL character".to_owned());
    }
    if text.len() > bytes_max {
        let bytes = text.len();
        return Err(format!("has {bytes} bytes, at most {bytes_max} may be"));
    }
    Ok(text)
}

fn check_variable<'v>(name: &str, value: &'v Value, limits: &Limits) -> Result<&'v str, String> {
    if name.is_empty() || name.contains(['=', '\0']) || name.len() > limits.text_bytes_max {
        return Err("is not a name of a variable".to_owned());
    }
    let text = value.as_str().ok_or("must be a string")?;
    check_bytes(text, limits.text_bytes_max)
}
