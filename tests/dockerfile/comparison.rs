//! What the reader finds, held against what the frontend finds.

use std::collections::BTreeSet;
use std::fmt::Debug;

use buildkit::BuildkitLimits;
use buildkit::dockerfile::{Argument, Dockerfile, DockerfileProblem, Stage, Word, read};

use crate::corpus::Case;
use crate::frontend::{Converted, Frontend, Secret};

/// How the reader and the frontend get on with a case.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Both take it; what they find otherwise, a line each.
    Compared(Vec<String>),
    /// The frontend does not take it; what it says, if the reader does take it.
    Refused(Option<String>),
    /// The frontend takes it, and the reader does not.
    GivenUp(DockerfileProblem),
}

/// Reads a case, and asks the frontend about it.
pub(crate) fn compare(frontend: &Frontend, case: &Case) -> Outcome {
    let limits = BuildkitLimits::default();
    let read = read(&case.text, &case.build_args, case.target, &limits);
    let (dockerfile, converted) = match (read, frontend.convert(case)) {
        (Ok(dockerfile), Ok(converted)) => (dockerfile, converted),
        (Ok(_), Err(refusal)) => return Outcome::Refused(Some(refusal)),
        (Err(_), Err(_)) => return Outcome::Refused(None),
        (Err(problem), Ok(_)) => return Outcome::GivenUp(problem),
    };
    let mut stages = dockerfile.stages().iter();
    let mut differences = Differences {
        lines: Vec::new(),
        nothing_is_a_stage: stages.any(|stage| stage.name.as_deref() == Some("scratch")),
    };
    differences.of_images(&dockerfile, &converted);
    differences.of_secrets(&dockerfile, &converted);
    differences.of_remote_sources(&dockerfile, &converted);
    differences.of_steps(&dockerfile, &converted);
    // An outline of stages that need each other takes the daemon down: its stack overflows. Two ways to
    // make them do so get past the frontend's own check.
    let mut stages = dockerfile.stages().iter();
    let triggered = stages.any(|stage| !stage.triggers.is_empty());
    if !triggered && !differences.nothing_is_a_stage {
        differences.of_arguments(&dockerfile, &frontend.outline(case));
    }
    Outcome::Compared(differences.lines)
}

/// What is otherwise.
struct Differences {
    lines: Vec<String>,
    /// A stage is named `scratch`. To the frontend, every mount of nothing needs it, and takes nothing
    /// of it.
    nothing_is_a_stage: bool,
}

impl Differences {
    fn add(&mut self, what: &str, ours: &dyn Debug, theirs: &dyn Debug) {
        let line = format!("{what}: {ours:?}, and the frontend has {theirs:?}");
        self.lines.push(line);
    }

    /// What is not known may be any.
    fn of_sets<T: Debug + Ord>(
        &mut self,
        what: &str,
        ours: impl Iterator<Item = Option<T>>,
        theirs: &BTreeSet<T>,
    ) {
        let mut known = BTreeSet::new();
        let mut all_known = true;
        for ours in ours {
            match ours {
                Some(ours) => {
                    known.insert(ours);
                }
                None => all_known = false,
            }
        }
        let too_many = !known.is_subset(theirs) && !self.nothing_is_a_stage;
        let too_few = !theirs.is_subset(&known) && all_known;
        if too_many || too_few {
            self.add(what, &known, theirs);
        }
    }

    fn of_images(&mut self, dockerfile: &Dockerfile, converted: &Converted) {
        let images = dockerfile.images();
        let ours = images.iter().map(|found| Some(complete(&found.image)));
        self.of_sets("images", ours, &converted.images);
    }

    fn of_secrets(&mut self, dockerfile: &Dockerfile, converted: &Converted) {
        let ours = dockerfile.secrets().iter().map(|secret| {
            Some(Secret {
                id: secret.id.known()?.to_owned(),
                required: secret.required,
            })
        });
        self.of_sets("secrets", ours, &converted.secrets);
    }

    fn of_remote_sources(&mut self, dockerfile: &Dockerfile, converted: &Converted) {
        let ours = dockerfile.remote_sources().iter();
        let ours = ours.map(|remote| remote.source.known().map(str::to_owned));
        self.of_sets("remote sources", ours, &converted.remote);
    }

    fn of_steps(&mut self, dockerfile: &Dockerfile, converted: &Converted) {
        for (label, total) in &converted.steps {
            let named = dockerfile.stages().iter();
            let named = named.filter(|stage| stage.label == *label);
            let ours: Vec<usize> = named.map(Stage::step_count).collect();
            if !ours.contains(total) {
                self.add(&format!("steps of `{label}`"), &ours, total);
            }
        }
    }

    fn of_arguments(&mut self, dockerfile: &Dockerfile, outline: &[(String, String)]) {
        for (name, value) in outline {
            let arguments = dockerfile.arguments().iter();
            let ours: Vec<&Argument> = arguments.filter(|ours| ours.name == *name).collect();
            let is_value = |ours: &&Argument| match &ours.value {
                None => value.is_empty(),
                // The frontend tells it in a table that is made with tabs and blanks.
                Some(Word::Known(ours)) => ours.trim_end() == value || ours.contains('\t'),
                Some(Word::Unknown { .. }) => true,
            };
            if !ours.iter().any(is_value) {
                self.add("argument", &ours, &(name, value));
            }
        }
    }
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
