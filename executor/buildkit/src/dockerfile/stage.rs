//! Stages: what each is FROM, what it takes from others, and what the file sets before the first.

use std::collections::BTreeMap;

use super::Argument;
use super::environment::assignments;
use super::instruction::{Instruction, Keyword, lower};
use super::mount::Mount;
use super::problem::{DockerfileProblem, ProblemKind, quoted};
use super::words::{Budget, Expanded, Variable, Variables, Word, expand};

/// What a stage or a copy begins with if it is nothing.
const SCRATCH: &str = "scratch";

/// A stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its name, in lower case.
    pub name: Option<String>,
    /// As BuildKit names it in its progress; empty if it is alone.
    pub label: String,
    /// The line of its FROM, from 1.
    pub line: u32,
    /// What it is FROM.
    pub base: StageBase,
    /// The platform that its FROM asks for, variables replaced.
    pub platform: Option<String>,
    /// What comes first: the ONBUILD instructions of what it is FROM, as far as they are known. Their
    /// line is that of FROM.
    pub triggers: Vec<Instruction>,
    /// What it does, without FROM.
    pub instructions: Vec<Instruction>,
    /// Variables of its FROM that were nothing for want of a value.
    pub(super) unset: Vec<String>,
    /// What its instructions take from elsewhere, in order.
    pub(super) uses: Vec<Use>,
    /// Whether its triggers were looked for.
    pub(super) triggered: bool,
}

/// What something is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StageBase {
    /// Nothing.
    Scratch,
    /// A stage, by its place in the file, from 0.
    Stage(usize),
    /// An image, with variables replaced, else as it is written: `debian` stays `debian`.
    Image(String),
}

/// Who names an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImageUser {
    /// `FROM image`
    From,
    /// `COPY --from=image`
    Copy,
    /// `RUN --mount=from=image`
    Mount,
}

/// What an instruction takes from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) line: u32,
    pub(super) by: ImageUser,
    pub(super) source: StageBase,
}

impl Stage {
    /// Its instructions, those of its base first.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = &Instruction> {
        self.triggers.iter().chain(&self.instructions)
    }

    /// What makes something anew, beside FROM: BuildKit counts and names these.
    pub fn steps(&self) -> impl Iterator<Item = &Instruction> {
        self.all()
            .filter(|instruction| instruction.keyword.is_step())
    }

    /// How many steps BuildKit counts: those, FROM if it is FROM an image, and every ONBUILD instruction
    /// of its base, step or not.
    pub fn step_count(&self) -> usize {
        let own = self.instructions.iter().filter(|own| own.keyword.is_step());
        let from = usize::from(matches!(self.base, StageBase::Image(_)));
        own.count() + self.triggers.len() + from
    }

    /// All that it is made from: what it is FROM, and what its instructions take.
    pub(super) fn sources(&self) -> impl Iterator<Item = &StageBase> {
        let uses = self.uses.iter().map(|found| &found.source);
        std::iter::once(&self.base).chain(uses)
    }
}

/// What variables are outside of stages.
#[derive(Clone, Debug)]
pub(super) struct Globals(pub(super) BTreeMap<String, String>);

impl Variables for Globals {
    fn look_up(&self, name: &str) -> (Variable<'_>, usize) {
        let value = self.0.get(name);
        (
            value.map_or(Variable::Unset, |value| Variable::Set(value)),
            1,
        )
    }
}

impl Globals {
    /// Those that BuildKit sets itself. A build argument of the same name comes before.
    fn predefined(build_args: &BTreeMap<String, String>, target: &str) -> Self {
        let values = [
            ("BUILDPLATFORM", "linux/amd64"),
            ("BUILDOS", "linux"),
            ("BUILDOSVERSION", ""),
            ("BUILDARCH", "amd64"),
            ("BUILDVARIANT", ""),
            ("TARGETPLATFORM", "linux/amd64"),
            ("TARGETOS", "linux"),
            ("TARGETOSVERSION", ""),
            ("TARGETARCH", "amd64"),
            ("TARGETVARIANT", ""),
            ("TARGETSTAGE", target),
        ];
        let given = |name: &str| build_args.get(name).map(String::as_str);
        let values = values
            .into_iter()
            .map(|(name, value)| (name.to_owned(), given(name).unwrap_or(value).to_owned()));
        Self(values.collect())
    }
}

/// A file's stages and what stands before them.
#[derive(Clone, Debug)]
pub(super) struct Outline {
    pub(super) globals: Globals,
    pub(super) arguments: Vec<Argument>,
    pub(super) stages: Vec<Stage>,
    pub(super) names: BTreeMap<String, usize>,
}

/// A FROM and what follows it.
struct Written {
    from: Instruction,
    name: Option<String>,
    instructions: Vec<Instruction>,
}

impl Outline {
    /// Sorts instructions into stages.
    pub(super) fn of(
        instructions: Vec<Instruction>,
        escape: char,
        build_args: &BTreeMap<String, String>,
        target: Option<&str>,
        budget: &mut Budget,
    ) -> Result<Self, DockerfileProblem> {
        let mut before = Vec::new();
        let mut written: Vec<Written> = Vec::new();
        for instruction in instructions {
            if instruction.keyword == Keyword::From {
                written.push(Written {
                    name: stage_name(&instruction).map_err(|kind| kind.at(instruction.line))?,
                    from: instruction,
                    instructions: Vec::new(),
                });
            } else if let Some(stage) = written.last_mut() {
                stage.instructions.push(instruction);
            } else if instruction.keyword == Keyword::Arg {
                before.push(instruction);
            } else {
                let line = instruction.line;
                return Err(ProblemKind::BeforeFrom(instruction.keyword).at(line));
            }
        }
        let Some(last) = written.last() else {
            return Err(DockerfileProblem::of_file(ProblemKind::NoStage));
        };
        let target_stage = target.or(last.name.as_deref()).unwrap_or("default");
        let mut outline = Self {
            globals: Globals::predefined(build_args, target_stage),
            arguments: Vec::new(),
            stages: Vec::new(),
            names: BTreeMap::new(),
        };
        for arg in before {
            outline
                .declare(&arg, escape, build_args, budget)
                .map_err(|kind| kind.at(arg.line))?;
        }
        for stage in written {
            let line = stage.from.line;
            outline
                .add(stage, escape, budget)
                .map_err(|kind| kind.at(line))?;
        }
        outline.find_uses(escape, budget)?;
        Ok(outline)
    }

    /// An ARG before the first FROM.
    fn declare(
        &mut self,
        arg: &Instruction,
        escape: char,
        build_args: &BTreeMap<String, String>,
        budget: &mut Budget,
    ) -> Result<(), ProblemKind> {
        for word in assignments(&arg.arguments, escape) {
            let (name, default) = match word.split_once('=') {
                Some((name, default)) => (name, Some(default)),
                None => (word.as_str(), None),
            };
            let value = match (build_args.get(name), default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(globally(default, escape, &self.globals, budget)?.0),
                (None, None) => None,
            };
            if let Some(value) = &value {
                self.globals.0.insert(name.to_owned(), value.clone());
            }
            self.arguments.push(Argument {
                name: name.to_owned(),
                line: arg.line,
                stage: None,
                value: value.map(Word::Known),
            });
        }
        Ok(())
    }

    fn add(
        &mut self,
        written: Written,
        escape: char,
        budget: &mut Budget,
    ) -> Result<(), ProblemKind> {
        let from = written.from;
        let image = from.words().first().copied().unwrap_or_default();
        let (base, unset) = globally(image, escape, &self.globals, budget)?;
        if base.is_empty() {
            return Err(ProblemKind::BlankBase(quoted(image)));
        }
        let platform = match from.flag("platform").last() {
            None | Some("") => None,
            Some(written) => match globally(written, escape, &self.globals, budget)?.0 {
                platform if platform.is_empty() => {
                    return Err(ProblemKind::BlankPlatform(quoted(written)));
                }
                platform => Some(platform),
            },
        };
        let index = self.stages.len();
        self.stages.push(Stage {
            label: match &written.name {
                Some(name) => name.clone(),
                None => format!("stage-{index}"),
            },
            name: written.name.clone(),
            line: from.line,
            // In any case but this one, names of stages may be written in upper case.
            base: self.found(&base, &base),
            platform,
            triggers: Vec::new(),
            instructions: written.instructions,
            unset,
            uses: Vec::new(),
            triggered: false,
        });
        if let Some(name) = written.name {
            self.names.insert(name, index);
        }
        Ok(())
    }

    /// What `name` is, which would be the name of a stage as `stage`.
    fn found(&self, stage: &str, name: &str) -> StageBase {
        match self.names.get(stage) {
            Some(index) => StageBase::Stage(*index),
            None if name == SCRATCH => StageBase::Scratch,
            None => StageBase::Image(name.to_owned()),
        }
    }

    /// What every stage takes from others. A stage may be named before it comes; that is for BuildKit to
    /// refuse.
    fn find_uses(&mut self, escape: char, budget: &mut Budget) -> Result<(), DockerfileProblem> {
        let mut all = Vec::new();
        for stage in &self.stages {
            let mut uses = Vec::new();
            for instruction in &stage.instructions {
                let found = self
                    .uses(instruction, escape, budget)
                    .map_err(|kind| kind.at(instruction.line))?;
                uses.extend(found);
            }
            all.push(uses);
        }
        for (stage, uses) in self.stages.iter_mut().zip(all) {
            stage.uses = uses;
        }
        // BuildKit counts an image that is copied from or mounted, and a mount of nothing, as a stage.
        if let [alone] = self.stages.as_mut_slice() {
            let is_stage = |found: &Use| matches!(found.source, StageBase::Stage(_));
            if alone.uses.iter().all(is_stage) {
                alone.label = String::new();
            }
        }
        Ok(())
    }

    /// What one instruction takes from elsewhere.
    pub(super) fn uses(
        &self,
        instruction: &Instruction,
        escape: char,
        budget: &mut Budget,
    ) -> Result<Vec<Use>, ProblemKind> {
        let made = |by, source| Use {
            line: instruction.line,
            by,
            source,
        };
        match instruction.keyword {
            Keyword::Copy => {
                let from = instruction.flag("from").last();
                let Some(from) = from.filter(|from| !from.is_empty()) else {
                    return Ok(Vec::new());
                };
                let nothing = Globals(BTreeMap::new());
                if globally(from, escape, &nothing, budget)?.0 != from {
                    return Err(ProblemKind::VariableInCopy(quoted(from)));
                }
                let source = match from.parse::<i64>() {
                    Ok(number) => match usize::try_from(number) {
                        Ok(index) if index < self.stages.len() => StageBase::Stage(index),
                        _ => return Err(ProblemKind::StageNumber(number)),
                    },
                    Err(_) => self.found(&lower(from), from),
                };
                Ok(vec![made(ImageUser::Copy, source)])
            }
            Keyword::Run => instruction
                .flag("mount")
                .map(|mount| {
                    let mount = Mount::parse(mount)?;
                    let from = mount.from().unwrap_or(SCRATCH);
                    Ok(made(ImageUser::Mount, self.found(&lower(from), from)))
                })
                .collect(),
            _ => Ok(Vec::new()),
        }
    }
}

/// A word outside of stages, where every variable is known, and what had no value in it.
fn globally(
    word: &str,
    escape: char,
    globals: &Globals,
    budget: &mut Budget,
) -> Result<(String, Vec<String>), ProblemKind> {
    let Expanded { word: text, unset } = expand(word, escape, globals, budget)?;
    match text {
        Word::Known(text) => Ok((text, unset)),
        Word::Unknown { written, .. } => Err(ProblemKind::NotUnderstood {
            written: quoted(&written),
            what: "a variable",
        }),
    }
}

/// The name that a FROM gives, in lower case.
fn stage_name(from: &Instruction) -> Result<Option<String>, ProblemKind> {
    match from.words().as_slice() {
        [_] => Ok(None),
        [_, word, name] if word.eq_ignore_ascii_case("as") => {
            let lower = lower(name);
            let mut bytes = lower.bytes();
            let first = bytes.next().is_some_and(|byte| byte.is_ascii_lowercase());
            let valid = |byte: u8| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte)
            };
            if first && bytes.all(valid) {
                Ok(Some(lower))
            } else {
                Err(ProblemKind::StageName(quoted(name)))
            }
        }
        _ => Err(ProblemKind::FromWords),
    }
}
