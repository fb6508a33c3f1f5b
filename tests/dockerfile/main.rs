//! The reader of Dockerfiles, held against the real frontend: the same files, the same build arguments,
//! the same target; the same images, secrets, remote sources, arguments and steps.
//!
//! The frontend is asked for what it would do (`frontend.convertllb`) and for what it takes
//! (`frontend.outline`); nothing is built. A source policy stands every image of `registry.test`, which
//! does not exist, in for one that does.

mod comparison;
#[path = "../../executor/buildkit/src/dockerfile/corpus.rs"]
mod corpus;
mod frontend;
mod generator;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;

use comparison::{Outcome, compare};
use corpus::cases;
use frontend::Frontend;
use generator::Generator;

/// Cases that the reader takes and the frontend does not, with what it says. A reader is no judge.
const REFUSED_BY_THE_FRONTEND: [(&str, &str); 4] = [
    (
        "stages by number: in COPY only",
        "\"docker-image://docker.io/library/0:latest\" denied by policy",
    ),
    (
        "a number that is too large for one is a name",
        "\"docker-image://docker.io/library/99999999999999999999:latest\" denied by policy",
    ),
    (
        "FROM finds a stage by a variable, and not in upper case",
        "repository name (library/One) must be lowercase",
    ),
    (
        "a stage that stands for the date of all files is fetched too",
        "Get \"https://127.0.0.1:9/date\"",
    ),
];

/// The numbers from which files are made up.
const MADE_UP: Range<u64> = 0..100;
/// How many of them both must take for the comparison to be worth something.
const COMPARED_MIN: usize = 35;

#[test]
fn the_reader_finds_in_the_corpus_what_the_frontend_finds() {
    let frontend = Frontend::new();
    let mut wrong = String::new();
    let mut refused = BTreeMap::from(REFUSED_BY_THE_FRONTEND);
    for case in cases() {
        let expected = refused.remove(case.name);
        let outcome = compare(&frontend, &case);
        let is_expected = match (&outcome, expected) {
            (Outcome::Compared(differences), None) => differences.is_empty(),
            (Outcome::Refused(None), None) => true,
            (Outcome::Refused(Some(refusal)), Some(expected)) => refusal.contains(expected),
            (Outcome::GivenUp(problem), None) => problem.is_bound(),
            _ => false,
        };
        if !is_expected {
            let (name, found) = (case.name, case.found);
            let _ = writeln!(wrong, "=== {name}\n{found}\n{outcome:#?}, not {expected:?}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(refused.is_empty(), "no such cases: {refused:?}");
}

#[test]
fn the_reader_finds_in_made_up_files_what_the_frontend_finds() {
    let frontend = Frontend::new();
    let mut wrong = String::new();
    let mut compared = 0;
    for seed in MADE_UP {
        let case = Generator::new(seed).case();
        let outcome = compare(&frontend, &case);
        let is_right = match &outcome {
            Outcome::Compared(differences) => differences.is_empty(),
            Outcome::Refused(_) => true,
            Outcome::GivenUp(problem) => problem.is_bound(),
        };
        compared += usize::from(matches!(outcome, Outcome::Compared(_)));
        if !is_right {
            let text = case.text;
            let _ = writeln!(wrong, "=== {seed}\n{text}\n{outcome:#?}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(
        compared >= COMPARED_MIN,
        "only {compared} files were compared"
    );
}
