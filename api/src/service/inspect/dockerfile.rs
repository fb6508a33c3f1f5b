//! What of a Dockerfile enters a plan, and what of it its author may not have meant.

use std::collections::{BTreeMap, BTreeSet};

use buildkit::BuildkitLimits;
use buildkit::dockerfile::{
    self, Dockerfile, EnvVariable, Instruction, Keyword, ProblemKind, Stage, StageBase, Word,
};
use domain::definition::Source;
use domain::name::SecretId;
use executor::image::ImageReference;
use serde_json::{Value, json};

use super::plan::UNTOLD;
use crate::http::error::ApiError;
use crate::wire::Object;
use crate::wire::plan::{BuildPlan, IgnoredInstruction};

/// The Dockerfile of a definition, if it has one.
///
/// # Errors
/// [`ApiError::Invalid`], with the line that is wrong.
pub(super) fn read(source: &Source) -> Result<Option<Dockerfile>, ApiError> {
    let Source::Dockerfile {
        text,
        build_args,
        target,
        path: _,
    } = source
    else {
        return Ok(None);
    };
    let limits = BuildkitLimits::default();
    let read = dockerfile::read(text, build_args, target.as_deref(), &limits);
    read.map(Some).map_err(|problem| {
        let field = if matches!(problem.kind, ProblemKind::Target(_)) {
            "build_target"
        } else {
            "dockerfile"
        };
        ApiError::field(field, problem.to_string())
    })
}

/// Fills in what a plan says of a Dockerfile.
pub(super) fn fill(
    plan: &mut BuildPlan,
    dockerfile: &Dockerfile,
    build_args: &BTreeMap<String, String>,
) {
    plan.base_template = base(dockerfile);
    plan.build_envs = build_args
        .keys()
        .map(|name| (name.clone(), UNTOLD))
        .collect();
    let stages = dockerfile.needed_stages().iter();
    for index in stages {
        let Some(stage) = dockerfile.stages().get(*index) else {
            continue;
        };
        plan.build_steps.push(from(dockerfile, stage));
        for instruction in stage.all() {
            let names = names(dockerfile, *index, instruction);
            plan.build_steps.push(step(instruction, names));
            if instruction.keyword == Keyword::Run {
                plan.run_steps.push(instruction.arguments.clone());
            }
        }
    }
    let mut variables = variables(dockerfile);
    variables.append(&mut plan.env_assignments);
    plan.env_assignments = variables;
    for ignored in dockerfile.ignored() {
        let line = ignored.line;
        plan.ignored_instructions.push(format!(
            "line {line}: {}: {}",
            ignored.instruction, ignored.reason
        ));
        plan.ignored_instruction_warnings.push(IgnoredInstruction {
            instruction: ignored.instruction.to_string(),
            line: line.into(),
        });
    }
    let set = |keyword| dockerfile.setting(keyword).map(|set| set.arguments.clone());
    // What hangs on a variable is known when it is built.
    let known = |text: &String| !text.contains('$');
    if plan.default_user.is_none() {
        plan.default_user = set(Keyword::User).filter(known);
    }
    if plan.default_workdir.is_none() {
        let absolute = |text: &String| text.starts_with('/');
        plan.default_workdir = set(Keyword::Workdir).filter(known).filter(absolute);
    }
}

/// What the author of the Dockerfile may not have meant.
pub(super) fn remarks(dockerfile: &Dockerfile, secret_ids: &[SecretId]) -> Vec<String> {
    let mut remarks: Vec<String> = dockerfile
        .ignored()
        .iter()
        .map(|ignored| {
            let (line, what) = (ignored.line, ignored.instruction);
            format!(
                "dockerfile: line {line}: {what} is ignored: {}",
                ignored.reason
            )
        })
        .collect();
    if let Some(syntax) = dockerfile.syntax() {
        remarks.push(format!(
            "dockerfile: line {}: `# syntax={}` has no effect: the built-in frontend reads every file",
            syntax.line, syntax.value
        ));
    }
    let brought: BTreeSet<&str> = secret_ids.iter().map(SecretId::as_str).collect();
    let mut mounted = BTreeSet::new();
    let mut is_sure = true;
    for secret in dockerfile.secrets() {
        let Some(id) = secret.id.known() else {
            is_sure = false;
            continue;
        };
        if mounted.insert(id) && secret.required && !brought.contains(id) {
            let line = secret.line;
            remarks.push(format!(
                "build_secrets: line {line} of the Dockerfile needs the secret `{id}`, which is not there"
            ));
        }
    }
    let idle = brought.difference(&mounted).filter(|_| is_sure);
    remarks.extend(idle.map(|id| format!("build_secrets: the Dockerfile does not mount `{id}`")));
    remarks
}

/// What the image begins with.
fn base(dockerfile: &Dockerfile) -> String {
    let first = dockerfile.final_chain().pop();
    let stage = first.and_then(|index| dockerfile.stages().get(index));
    match stage.map(|stage| &stage.base) {
        Some(StageBase::Image(image)) => {
            let canonical = image.parse::<ImageReference>();
            canonical.map_or_else(|_| image.clone(), |image| image.to_string())
        }
        Some(StageBase::Scratch | StageBase::Stage(_)) | None => "scratch".to_owned(),
    }
}

/// The variables of machines, those of what the image is FROM first.
fn variables(dockerfile: &Dockerfile) -> Vec<(String, &'static str)> {
    let stages = dockerfile.final_chain().into_iter().rev();
    let of_stage = |stage| {
        let variables = dockerfile.variables().iter();
        variables.filter(move |variable| variable.stage == stage)
    };
    let names = stages
        .flat_map(of_stage)
        .map(|variable| word(&variable.name));
    names.map(|name| (name, UNTOLD)).collect()
}

fn word(word: &Word) -> String {
    match word {
        Word::Known(text) => text.clone(),
        Word::Unknown { written, .. } => written.clone(),
    }
}

/// What ENV and ARG set; of others, nothing.
fn names(dockerfile: &Dockerfile, stage: usize, instruction: &Instruction) -> Option<Vec<String>> {
    let line = instruction.line;
    if instruction.keyword == Keyword::Env {
        let is_here = |variable: &&EnvVariable| variable.line == line && variable.stage == stage;
        let variables = dockerfile.variables().iter().filter(is_here);
        return Some(variables.map(|variable| word(&variable.name)).collect());
    }
    if instruction.keyword == Keyword::Arg {
        let arguments = dockerfile.arguments().iter();
        let here = arguments.filter(|it| it.line == line && it.stage == Some(stage));
        return Some(here.map(|argument| argument.name.clone()).collect());
    }
    None
}

/// An instruction under its name: `{"Run": {"arguments": …}}`. Of what it sets, only the names are
/// told.
fn step(instruction: &Instruction, names: Option<Vec<String>>) -> Object {
    let mut fields = Object::new();
    match names {
        Some(names) => fields.insert("names".to_owned(), names.into()),
        None => fields.insert("arguments".to_owned(), instruction.arguments.clone().into()),
    };
    if !instruction.flags.is_empty() {
        fields.insert("flags".to_owned(), instruction.flags.clone().into());
    }
    fields.insert("line".to_owned(), instruction.line.into());
    tagged(instruction.keyword, fields.into())
}

/// The FROM of a stage.
fn from(dockerfile: &Dockerfile, stage: &Stage) -> Object {
    let base = match &stage.base {
        StageBase::Scratch => json!({"image": "scratch"}),
        StageBase::Image(image) => json!({"image": image}),
        StageBase::Stage(index) => {
            let name = dockerfile
                .stages()
                .get(*index)
                .and_then(|it| it.name.clone());
            json!({"stage": name.unwrap_or_else(|| index.to_string())})
        }
    };
    let mut fields = Object::new();
    fields.insert("line".to_owned(), stage.line.into());
    fields.insert("from".to_owned(), base);
    if let Some(name) = &stage.name {
        fields.insert("name".to_owned(), name.as_str().into());
    }
    tagged(Keyword::From, fields.into())
}

fn tagged(keyword: Keyword, fields: Value) -> Object {
    let (first, rest) = keyword.as_str().split_at(1);
    let name = format!("{first}{}", rest.to_ascii_lowercase());
    Object::from_iter([(name, fields)])
}
