//! The corpus, and what holds for any text.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::corpus::{Case, cases};
use super::*;

fn read_case(case: &Case) -> Result<Dockerfile, DockerfileProblem> {
    let limits = BuildkitLimits::default();
    read(&case.text, &case.build_args, case.target, &limits)
}

/// Everything that was found, one finding a line, as the corpus has it.
fn told(dockerfile: &Dockerfile) -> Vec<String> {
    let stages = dockerfile.stages().iter().enumerate();
    let mut lines: Vec<String> = stages
        .map(|(index, stage)| told_stage(dockerfile, index, stage))
        .collect();
    lines.extend(dockerfile.images().iter().map(told_image));
    lines.extend(dockerfile.secrets().iter().map(|secret| {
        let required = if secret.required { ", required" } else { "" };
        let id = match &secret.id {
            Word::Known(id) => id.clone(),
            Word::Unknown { written, variable } => {
                format!("unknown: {written} hangs on {variable}")
            }
        };
        format!("{}: secret {id}{required}", secret.line)
    }));
    let remote = dockerfile.remote_sources().iter();
    lines.extend(remote.map(|remote| match &remote.source {
        Word::Known(source) => {
            let by = if remote.is_ssh() { " by SSH" } else { "" };
            format!("{}: fetches {source}{by}", remote.line)
        }
        Word::Unknown { written, .. } => format!("{}: may fetch {written}", remote.line),
    }));
    let arguments = dockerfile.arguments().iter();
    lines.extend(arguments.map(|argument| {
        let value = argument.value.as_ref();
        let value = value.map(|value| format!(" = {}", value.known().unwrap_or("unknown")));
        let line = format!(
            "{}: ARG {}{}",
            argument.line,
            argument.name,
            value.unwrap_or_default()
        );
        line.trim_end().to_owned()
    }));
    lines.extend(
        dockerfile
            .ignored()
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

fn told_stage(dockerfile: &Dockerfile, index: usize, stage: &Stage) -> String {
    let name = stage.name.as_ref().map(|name| format!(" {name}"));
    let platform = stage.platform.as_ref().map(|name| format!(" for {name}"));
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
    format!(
        "{}: stage {index}{} on {base}{}, {} steps, {part}",
        stage.line,
        name.unwrap_or_default(),
        platform.unwrap_or_default(),
        stage.step_count(),
    )
}

fn told_image(image: &ImageUse) -> String {
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
            let (name, expected) = (case.name, case.found);
            let _ = writeln!(wrong, "=== {name}\nfound\n{found}\nexpected\n{expected}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Reads a file without build arguments and target.
fn read_plain(text: &str) -> Result<Dockerfile, DockerfileProblem> {
    read(text, &BTreeMap::new(), None, &BuildkitLimits::default())
}

#[test]
fn stages_are_labelled_as_in_progress() {
    let label = |text: &str| read_plain(text).unwrap().stages()[0].label.clone();
    assert_eq!(label("FROM a\nRUN true"), "");
    assert_eq!(label("FROM a AS One\nRUN true"), "");
    assert_eq!(label("FROM a AS One\nFROM b"), "one");
    assert_eq!(label("FROM a\nFROM b"), "stage-0");
    // Anything that is mounted is a stage to BuildKit, even if it is nothing.
    assert_eq!(
        label("FROM a\nRUN --mount=type=cache,target=/c true"),
        "stage-0"
    );
    assert_eq!(label("FROM a\nCOPY --from=b /x /y"), "stage-0");
}

#[test]
fn the_setting_in_force_is_the_last_one_of_the_chain_of_stages() {
    let text = "FROM a AS one\nUSER u1\nUSER u2\nCMD c1\nONBUILD ENTRYPOINT e1\n\
                FROM one AS two\nCMD c2\nFROM b\nUSER u3\nFROM two\nENV A=b";
    let dockerfile = read_plain(text).unwrap();
    assert_eq!(dockerfile.final_chain(), [3, 1, 0]);
    let setting = |keyword| {
        let instruction = dockerfile.setting(keyword)?;
        Some((instruction.line, instruction.arguments.as_str()))
    };
    assert_eq!(setting(Keyword::User), Some((3, "u2")));
    assert_eq!(setting(Keyword::Cmd), Some((7, "c2")));
    assert_eq!(setting(Keyword::Entrypoint), Some((6, "e1")));
    assert_eq!(setting(Keyword::Workdir), None);
}

#[test]
fn what_is_ignored_says_what_to_do_instead() {
    let dockerfile =
        read_plain("FROM a\nSTOPSIGNAL INT\nMAINTAINER m\nONBUILD USER u\nCMD a\nCMD b");
    let ignored = dockerfile.unwrap().ignored();
    assert_eq!(ignored.len(), 4);
    for ignored in ignored {
        assert!(ignored.reason.contains("; "), "{}", ignored.instruction);
    }
}

#[test]
fn what_base_images_have_onbuild_is_done_where_they_are_from() {
    let text = "FROM base AS one\nFROM other\nCOPY --from=one /x /y\nFROM base AS three\nFROM two";
    let mut dockerfile = read(
        text,
        &BTreeMap::from([("ID".to_owned(), "given".to_owned())]),
        None,
        &BuildkitLimits::default(),
    )
    .unwrap();
    let images = |dockerfile: &Dockerfile| -> Vec<String> {
        dockerfile.images().iter().map(told_image).collect()
    };
    assert_eq!(images(&dockerfile), ["5: FROM two"]);

    let triggers = ["COPY --from=three /x /y".to_owned()];
    dockerfile.add_triggers("two", &triggers).unwrap();
    assert_eq!(images(&dockerfile), ["4: FROM base", "5: FROM two"]);
    assert_eq!(dockerfile.needed_stages(), [2, 3]);

    let triggers = [
        "ARG ID=tok".to_owned(),
        "RUN --mount=type=secret,id=$ID --mount=from=more,target=/m <<EOF\nFROM no\nEOF".to_owned(),
    ];
    dockerfile.add_triggers("base", &triggers).unwrap();
    assert_eq!(
        images(&dockerfile),
        ["4: FROM base", "4: mount more", "5: FROM two"]
    );
    let secrets = dockerfile.secrets();
    assert_eq!(secrets.len(), 1);
    assert_eq!(secrets[0].id, Word::Known("given".to_owned()));
    assert_eq!((secrets[0].line, secrets[0].stage), (4, 2));
    assert_eq!(dockerfile.stages()[2].step_count(), 3);
    // The same once more changes nothing.
    dockerfile
        .add_triggers("two", &["COPY --from=three /x /y".to_owned()])
        .unwrap();
    assert_eq!(images(&dockerfile).len(), 3);
    // The stage that is not needed has none of it.
    assert!(dockerfile.stages()[0].triggers.is_empty());
}

#[test]
fn an_image_cannot_bring_what_cannot_be_onbuild() {
    let cases = [
        "FROM x",
        "RUNN x",
        "",
        "RUN a\nRUN b",
        "RUN <<EOF\n",
        "COPY --from=7 / /",
        "COPY --from=$A / /",
    ];
    for trigger in cases {
        let mut dockerfile = read_plain("FROM base\nFROM base").unwrap();
        let problem = dockerfile.add_triggers("base", &[trigger.to_owned()]);
        let problem = problem.unwrap_err();
        assert_eq!(problem.line, Some(2), "{trigger}: {problem}");
    }
}

#[test]
fn the_file_its_instructions_and_what_they_make_are_bounded() {
    let limits = BuildkitLimits {
        dockerfile_bytes_max: 200,
        dockerfile_instructions_max: 4,
        dockerfile_expansion_steps_max: 300,
        ..BuildkitLimits::default()
    };
    let read = |text: &str| read(text, &BTreeMap::new(), None, &limits);
    read("FROM a\nUSER a\nUSER a\nUSER a").unwrap();
    let cases = [
        (
            format!("FROM a\nRUN {}", "a".repeat(200)),
            ProblemKind::TooLong { bytes_max: 200 },
        ),
        (
            "FROM a\nUSER a\nUSER a\nUSER a\nUSER a".to_owned(),
            ProblemKind::TooManyInstructions { max: 4 },
        ),
        (
            "ARG A=aaaaaaaaaaaaaaa\nARG B=$A$A$A$A\nARG C=$B$B$B$B\nFROM $C$C".to_owned(),
            ProblemKind::TooMuchExpansion,
        ),
    ];
    for (text, kind) in cases {
        let problem = read(&text).unwrap_err();
        assert_eq!(problem.kind, kind);
        assert!(problem.is_bound());
    }
    let mut dockerfile = read("FROM a AS b\nFROM a\nCOPY --from=b / /").unwrap();
    let triggers = [
        "USER a".to_owned(),
        "USER b".to_owned(),
        "USER c".to_owned(),
    ];
    let problem = dockerfile.add_triggers("a", &triggers).unwrap_err();
    let ProblemKind::InTrigger { kind, .. } = &problem.kind else {
        panic!("{problem}");
    };
    assert_eq!(**kind, ProblemKind::TooManyInstructions { max: 4 });
    assert!(problem.is_bound());
}

#[test]
fn a_line_is_as_long_as_buildkit_takes_it() {
    let text = |length: usize| format!("FROM a\nRUN {}\n", "a".repeat(length - 4));
    read_plain(&text(65_535)).unwrap();
    let problem = read_plain(&text(65_536)).unwrap_err();
    assert_eq!(problem.kind, ProblemKind::LineTooLong { bytes_max: 65_535 });
    assert_eq!(problem.line, Some(2));
}

#[test]
fn a_message_repeats_little_of_the_file() {
    let problem = read_plain(&format!("FROM a\n{}", "é".repeat(10_000))).unwrap_err();
    assert!(problem.to_string().chars().count() < 120, "{problem}");
}

#[test]
fn stages_that_need_each_other_are_read_to_the_end() {
    let text = "FROM a AS one\nCOPY --from=two / /\nFROM one AS two\nCOPY --from=two / /";
    assert_eq!(read_plain(text).unwrap().needed_stages(), [0, 1]);
}

/// Texts of pieces that mean something to the reader.
fn texts() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "FROM ",
        "RUN ",
        "COPY ",
        "ADD ",
        "ARG ",
        "ENV ",
        "ONBUILD ",
        "CMD ",
        "HEALTHCHECK ",
        "a",
        "b",
        " AS ",
        "scratch",
        "0",
        "--from=",
        "--mount=",
        "--platform=",
        "type=secret,id=",
        "from=",
        ",",
        "=",
        "$A",
        "${A",
        ":-",
        "}",
        "#",
        "%",
        "/",
        "*",
        "?",
        "<<",
        "-",
        "EOF",
        "\n",
        "\n",
        "\n",
        "\\",
        "\\\n",
        "`",
        "'",
        "\"",
        "[",
        "]",
        "[\"",
        "\"]",
        " ",
        "\t",
        "\r\n",
        "# escape=`\n",
        "# syntax=x\n",
        "é",
        "\u{a0}",
        "\u{feff}",
        "\0",
        "\\ud800",
        "1e999",
    ]);
    let mixed = prop_oneof![9 => pieces.prop_map(str::to_owned), 1 => ".{0,3}"];
    prop::collection::vec(mixed, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_text_is_read_to_the_end_and_every_line_is_one_of_it(
        text in texts(),
        target in prop::option::of("[ab]"),
        value in "[$a{}\\\\'\"]{0,4}",
        trigger in texts(),
    ) {
        let lines = u32::try_from(text.split('\n').count()).unwrap();
        let build_args = BTreeMap::from([("A".to_owned(), value)]);
        let limits = BuildkitLimits::default();
        let text = format!("FROM base\n{text}");
        let within = |line: u32| (1..=lines + 1).contains(&line);
        match read(&text, &build_args, target.as_deref(), &limits) {
            Err(problem) => prop_assert!(problem.line.is_none_or(within), "{}", problem),
            Ok(mut dockerfile) => {
                if let Err(problem) = dockerfile.add_triggers("base", &[trigger]) {
                    prop_assert!(problem.line.is_some_and(within));
                }
                let told = told(&dockerfile);
                for line in told {
                    let number = line.split(':').next().unwrap().parse().unwrap();
                    prop_assert!(within(number), "{}", line);
                }
            }
        }
    }
}
