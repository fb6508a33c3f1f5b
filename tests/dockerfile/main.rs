//! The reader of Dockerfiles, held against the real frontend: the same files, the same build arguments,
//! the same target; the same images, secrets, remote sources, arguments and steps.
//!
//! The frontend is asked for what it would do (`frontend.convertllb`) and for what it takes
//! (`frontend.outline`); nothing is built. A source policy stands every image of `registry.test`, which
//! does not exist, in for one that does.

#[path = "../../executor/buildkit/src/dockerfile/corpus.rs"]
mod corpus;
mod frontend;
mod generator;

use std::collections::{BTreeMap, BTreeSet};

use buildkit::BuildkitLimits;
use buildkit::dockerfile::{Argument, Dockerfile, DockerfileProblem, Word, read};

use corpus::{Case, cases};
use frontend::{Frontend, Secret};
use generator::Generator;

/// Cases that the reader takes and the frontend does not, with what it says. A reader is no judge.
const REFUSED_BY_THE_FRONTEND: [(&str, &str); 4] = [
    (
        "stages by number: in COPY only",
        "docker.io/library/0:latest: not found",
    ),
    (
        "a number that is too large for one is a name",
        "docker.io/library/99999999999999999999:latest: not found",
    ),
    (
        "FROM finds a stage by a variable, and not in upper case",
        "repository name (library/One) must be lowercase",
    ),
    (
        "a stage that stands for the date of all files is fetched too",
        "Get \"https://registry.test/date\"",
    ),
];

/// How many files are made up, and from which number on.
const MADE_UP: u64 = 150;

fn read_case(case: &Case) -> Result<Dockerfile, DockerfileProblem> {
    let limits = BuildkitLimits::default();
    read(&case.text, &case.build_args, case.target, &limits)
}

/// The name of an image as the frontend completes it.
fn complete(image: &str) -> String {
    let host = image.split('/').next().unwrap_or_default();
    let has_host = image.contains('/') && (host.contains(['.', ':']) || host == "localhost");
    let mut name = match (has_host, image.contains('/')) {
        (true, _) => image.to_owned(),
        (false, true) => format!("docker.io/{image}"),
        (false, false) => format!("docker.io/library/{image}"),
    };
    let path = image.rsplit('/').next().unwrap_or_default();
    if !path.contains([':', '@']) {
        name += ":latest";
    }
    name
}

/// How the reader and the frontend get on with a case.
#[derive(Debug)]
enum Outcome {
    /// Both take it; what they find otherwise, a line each.
    Compared(Vec<String>),
    /// The frontend does not take it, and the reader does not either, or does.
    Refused(Option<String>),
    /// The frontend takes it, and the reader does not go on.
    GivenUp(DockerfileProblem),
}

fn compare(frontend: &Frontend, case: &Case) -> Outcome {
    let (dockerfile, converted) = match (read_case(case), frontend.convert(case)) {
        (Ok(dockerfile), Ok(converted)) => (dockerfile, converted),
        (Ok(_), Err(refusal)) => return Outcome::Refused(Some(refusal)),
        (Err(_), Err(_)) => return Outcome::Refused(None),
        (Err(problem), Ok(_)) => return Outcome::GivenUp(problem),
    };
    let mut found = Vec::new();
    let mut hold = |what: &str, ours: String, theirs: String| {
        if ours != theirs {
            found.push(format!("{what}: {ours}, the frontend has {theirs}"));
        }
    };

    let images = dockerfile.images();
    let images: BTreeSet<String> = images.iter().map(|found| complete(&found.image)).collect();
    hold(
        "images",
        format!("{images:?}"),
        format!("{:?}", converted.images),
    );

    let mut secrets: BTreeSet<Secret> = BTreeSet::new();
    let mut unknown = false;
    for secret in dockerfile.secrets() {
        match &secret.id {
            Word::Known(id) => {
                let id = id.clone();
                let required = secret.required;
                secrets.insert(Secret { id, required });
            }
            Word::Unknown { .. } => unknown = true,
        }
    }
    let mut theirs = converted.secrets.clone();
    if unknown {
        theirs.retain(|secret| secrets.contains(secret));
    }
    hold("secrets", format!("{secrets:?}"), format!("{theirs:?}"));

    let remote = dockerfile.remote_sources().iter();
    let known: Option<Vec<&str>> = remote.map(|remote| remote.source.known()).collect();
    if let Some(known) = known {
        let known: BTreeSet<&str> = known.into_iter().collect();
        hold(
            "remote",
            format!("{known:?}"),
            format!("{:?}", converted.remote),
        );
    }

    for (label, total) in &converted.steps {
        let mut named = dockerfile
            .stages()
            .iter()
            .filter(|stage| stage.label == *label);
        if !named.any(|stage| stage.step_count() == *total) {
            hold(
                "steps",
                "others".to_owned(),
                format!("{total} in `{label}`"),
            );
        }
    }

    // Where ONBUILD makes a stage need itself, an outline takes the daemon down: its stack overflows.
    let triggers = dockerfile
        .stages()
        .iter()
        .any(|stage| !stage.triggers.is_empty());
    let outline = if triggers {
        Vec::new()
    } else {
        frontend.outline(case)
    };
    for (name, value) in outline {
        let arguments = dockerfile.arguments().iter();
        let mut values = arguments.filter(|argument| argument.name == name);
        let is_value = |ours: &Argument| match &ours.value {
            None => value.is_empty(),
            Some(Word::Known(ours)) => *ours == value,
            Some(Word::Unknown { .. }) => true,
        };
        if !values.any(is_value) {
            hold(
                "arguments",
                "others".to_owned(),
                format!("{name} = {value}"),
            );
        }
    }
    Outcome::Compared(found)
}

#[test]
fn the_reader_finds_in_the_corpus_what_the_frontend_finds() {
    let frontend = Frontend::new();
    let mut wrong = String::new();
    let mut refused = BTreeMap::from(REFUSED_BY_THE_FRONTEND);
    for case in cases() {
        let expected = refused.remove(case.name);
        let otherwise = match (compare(&frontend, &case), expected) {
            (Outcome::Compared(found), None) if found.is_empty() => continue,
            (Outcome::Refused(None), None) => continue,
            (Outcome::Refused(Some(refusal)), Some(expected)) if refusal.contains(expected) => {
                continue;
            }
            (Outcome::GivenUp(problem), None) if problem.is_bound() => continue,
            (outcome, expected) => format!("{outcome:#?}, expected {expected:?}"),
        };
        wrong += &format!("=== {}\n{}\n{otherwise}\n", case.name, case.found);
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(refused.is_empty(), "no such cases: {refused:?}");
}

#[test]
fn the_reader_finds_in_made_up_files_what_the_frontend_finds() {
    let frontend = Frontend::new();
    let mut wrong = String::new();
    let mut compared = 0;
    let first: u64 = std::env::var_os("SOAK").map_or(0, |x| x.to_str().unwrap().parse().unwrap());
    for seed in first..first + MADE_UP {
        let case = Generator::new(seed).case();
        match compare(&frontend, &case) {
            Outcome::Compared(found) if found.is_empty() => compared += 1,
            // The frontend has the last word.
            Outcome::Refused(x) => println!(
                "REFUSED {x:?} {:?}",
                read_case(&case).err().map(|e| e.to_string())
            ),
            Outcome::GivenUp(problem) if problem.is_bound() => {}
            outcome => wrong += &format!("=== {seed}\n{}\n{outcome:#?}\n", case.text),
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    println!("{compared} compared");
    assert!(
        compared > MADE_UP / 4,
        "only {compared} files were compared"
    );
}
