//! The corpus, and what holds for any text.

use proptest::prelude::*;

use super::corpus::{Case, cases};
use super::*;

fn read_case(case: &Case) -> Result<Dockerfile, DockerfileProblem> {
    let limits = BuildkitLimits::default();
    read(&case.text, &case.build_args, case.target, &limits)
}

/// Everything that was found, one finding a line, as the corpus has it.
fn told(dockerfile: &Dockerfile) -> Vec<String> {
    let mut lines = Vec::new();
    for (index, stage) in dockerfile.stages().iter().enumerate() {
        let name = stage.name.iter().map(|name| format!(" {name}"));
        let platform = stage.platform.iter().map(|name| format!(" for {name}"));
        let base = match &stage.base {
            StageBase::Scratch => "nothing".to_owned(),
            StageBase::Stage(base) => format!("stage {base}"),
            StageBase::Image(image) => image.clone(),
        };
        let part = if index == dockerfile.target() {
            "target"
        } else if dockerfile.needed_stages().contains(&index) {
            "needed"
        } else {
            "not needed"
        };
        lines.push(format!(
            "{}: stage {index}{} on {base}{}, {} steps, {part}",
            stage.line,
            name.collect::<String>(),
            platform.collect::<String>(),
            stage.step_count(),
        ));
    }
    lines.extend(dockerfile.images().iter().map(|image| {
        let by = match image.by {
            ImageUser::From => "FROM",
            ImageUser::Copy => "COPY",
            ImageUser::Mount => "mount",
        };
        let mut without = image.unset.join(", ");
        if !without.is_empty() {
            without.insert_str(0, ", without ");
        }
        format!("{}: {by} {}{without}", image.line, image.image)
    }));
    lines.extend(dockerfile.secrets().iter().map(|secret| {
        let required = if secret.required { ", required" } else { "" };
        match &secret.id {
            Word::Known(id) => format!("{}: secret {id}{required}", secret.line),
            Word::Unknown { written, variable } => format!(
                "{}: secret unknown: {written} hangs on {variable}",
                secret.line
            ),
        }
    }));
    let remote = dockerfile.remote_sources().iter();
    lines.extend(remote.map(|remote| match &remote.source {
        Word::Known(source) => format!("{}: fetches {source}", remote.line),
        Word::Unknown { written, .. } => format!("{}: may fetch {written}", remote.line),
    }));
    let arguments = dockerfile.arguments().iter();
    lines.extend(arguments.map(|argument| match &argument.value {
        None => format!("{}: ARG {}", argument.line, argument.name),
        Some(value) => {
            let value = value.known().unwrap_or("unknown");
            let line = format!("{}: ARG {} = {value}", argument.line, argument.name);
            line.trim_end().to_owned()
        }
    }));
    let ignored = dockerfile.ignored();
    lines.extend(
        ignored
            .iter()
            .map(|ignored| format!("{}: ignores {}", ignored.line, ignored.instruction)),
    );
    lines.extend(
        dockerfile
            .syntax()
            .map(|syntax| format!("{}: asks for the syntax {}", syntax.line, syntax.value)),
    );
    lines
}

#[test]
fn each_file_of_the_corpus_is_read_as_it_says() {
    let mut wrong = String::new();
    for case in cases() {
        let found = match read_case(&case) {
            Ok(dockerfile) => told(&dockerfile).join("\n"),
            Err(problem) => format!("problem: {problem}"),
        };
        if found != case.found {
            wrong += &format!(
                "=== {}\nfound\n{found}\nexpected\n{}\n",
                case.name, case.found
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_variables_of_needed_stages_are_known_by_their_names() {
    let text = "FROM a AS unused\nENV NO=1\nFROM b AS base\nARG P=X\nENV ONE=1 TWO=\"a b\"\n\
                FROM base\nENV THREE three\nENV $P=4 $Q=5\n";
    let limits = BuildkitLimits::default();
    let dockerfile = read(text, &BTreeMap::new(), None, &limits).unwrap();
    let variables: Vec<(Option<&str>, u32, usize)> = dockerfile
        .variables()
        .iter()
        .map(|variable| (variable.name.known(), variable.line, variable.stage))
        .collect();
    let expected = [
        (Some("ONE"), 5, 1),
        (Some("TWO"), 5, 1),
        (Some("THREE"), 7, 2),
        (Some("X"), 8, 2),
        (None, 8, 2),
    ];
    assert_eq!(variables, expected);
}
