//! Reads a Dockerfile without building it: what it needs and what of it means nothing here.
//!
//! It is a reader, no judge: BuildKit has the last word on what is right. But what it says of images is
//! what BuildKit's builtin frontend would ask for, for access to them is proved before BuildKit is asked;
//! so a word that it cannot follow to the end is a problem, never a guess. `tests/dockerfile` holds it
//! against the real frontend.
//!
//! ```text
//! lines ──► instruction ──► outline ──► environment
//! text      keyword,        stages,     ARG and ENV: secrets,
//!           flags, form     sources     what ADD fetches
//! ```
//!
//! `words` is where quotes, escapes and variables are understood.

mod environment;
mod ignored;
mod instruction;
mod lines;
mod mount;
mod outline;
mod pattern;
mod problem;
mod stage;
mod words;

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use self::environment::{Found, Walk, dated};
use self::outline::Outline;
use self::problem::quoted;
use self::words::Budget;
use crate::BuildkitLimits;

pub use self::ignored::IgnoredInstruction;
pub use self::instruction::{Form, Instruction, Keyword};
pub use self::problem::{DockerfileProblem, ProblemKind};
pub use self::stage::{ImageUser, Stage, StageBase};
pub use self::words::Word;

/// A Dockerfile, read for one build: for its build arguments and its target.
#[derive(Clone, Debug)]
pub struct Dockerfile {
    escape: char,
    syntax: Option<SyntaxDirective>,
    outline: Outline,
    build_args: BTreeMap<String, String>,
    target: usize,
    needed: Vec<usize>,
    found: Found,
    /// What base images have ONBUILD.
    image_triggers: BTreeMap<String, Vec<String>>,
    /// How many instructions were added to stages by their bases.
    triggers: usize,
    limits: BuildkitLimits,
    budget: Budget,
}

/// An image that a needed stage names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageUse {
    /// The image, with variables replaced, else as it is written.
    pub image: String,
    /// The line of the instruction that names it, from 1.
    pub line: u32,
    /// The stage that names it.
    pub stage: usize,
    /// How it is named.
    pub by: ImageUser,
    /// Variables that were put in as nothing for want of a value: why the name may be none.
    pub unset: Vec<String>,
}

/// A secret that a needed stage mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretMount {
    /// Its id.
    pub id: Word,
    /// The line of the RUN that mounts it, from 1.
    pub line: u32,
    /// The stage that mounts it.
    pub stage: usize,
    /// Whether the RUN cannot do without it.
    pub required: bool,
}

/// What an ADD of a needed stage has the daemon fetch: a URL, or a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteSource {
    /// What is fetched; if it is not known, it may be remote.
    pub source: Word,
    /// The line of the ADD, from 1.
    pub line: u32,
    /// The stage that adds it.
    pub stage: usize,
}

impl RemoteSource {
    /// Whether it is fetched over SSH. The daemon dials the host as soon as it has read the file, before
    /// any source policy is looked at; and as no key is ever lent to it, the build cannot succeed.
    pub fn is_ssh(&self) -> bool {
        let source = self.source.known();
        source.is_some_and(|source| match source.split_once("://") {
            Some((scheme, _)) => scheme.eq_ignore_ascii_case("ssh"),
            // Else it would not be remote: user@host:path.
            None => true,
        })
    }
}

/// A build argument that the file declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// The line of the ARG, from 1.
    pub line: u32,
    /// The stage that declares it; none before the first.
    pub stage: Option<usize>,
    /// The value that it has, if it has one.
    pub value: Option<Word>,
}

/// A variable that an ENV sets, without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvVariable {
    /// Its name.
    pub name: Word,
    /// The line of the ENV, from 1.
    pub line: u32,
    /// The stage that sets it.
    pub stage: usize,
}

/// `# syntax=…`: asks for another frontend, and has no effect here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxDirective {
    /// Its line, from 1.
    pub line: u32,
    /// What it asks for.
    pub value: String,
}

/// Reads a Dockerfile for a build with `build_args` of the stage `target`: the last one if it is none or
/// empty.
///
/// # Errors
/// What is wrong with it, or with the target; or why it cannot be understood.
pub fn read(
    text: &str,
    build_args: &BTreeMap<String, String>,
    target: Option<&str>,
    limits: &BuildkitLimits,
) -> Result<Dockerfile, DockerfileProblem> {
    let bytes_max = limits.dockerfile_bytes_max;
    if text.len() > bytes_max {
        return Err(DockerfileProblem::of_file(ProblemKind::TooLong {
            bytes_max,
        }));
    }
    let mut budget = Budget(limits.dockerfile_expansion_steps_max);
    let parsed = lines::parse(text, limits, &mut budget)?;
    if parsed.instructions.is_empty() {
        return Err(DockerfileProblem::of_file(ProblemKind::Empty));
    }
    let target = target.filter(|target| !target.is_empty());
    let outline = Outline::of(
        parsed.instructions,
        parsed.escape,
        build_args,
        target,
        &mut budget,
    )?;
    let target = target.map_or_else(
        || Ok(outline.stages.len().saturating_sub(1)),
        |name| outline.stage(name),
    )?;
    let mut dockerfile = Dockerfile {
        escape: parsed.escape,
        syntax: parsed.syntax,
        outline,
        build_args: build_args.clone(),
        target,
        needed: Vec::new(),
        found: Found::default(),
        image_triggers: BTreeMap::new(),
        triggers: 0,
        limits: limits.clone(),
        budget,
    };
    dockerfile.settle()?;
    Ok(dockerfile)
}

impl Dockerfile {
    /// All stages, in order.
    pub fn stages(&self) -> &[Stage] {
        &self.outline.stages
    }

    /// The stage that becomes the image.
    pub fn target(&self) -> usize {
        self.target
    }

    /// The stages that the target is made from, itself included, in order.
    pub fn needed_stages(&self) -> &[usize] {
        &self.needed
    }

    /// The images that the needed stages name, in order. Base images may name more: see
    /// [`Self::add_triggers`].
    pub fn images(&self) -> Vec<ImageUse> {
        let mut images = Vec::new();
        for (index, stage) in self.needed() {
            if let StageBase::Image(image) = &stage.base {
                images.push(ImageUse {
                    image: image.clone(),
                    line: stage.line,
                    stage: index,
                    by: ImageUser::From,
                    unset: stage.unset.clone(),
                });
            }
            for found in &stage.uses {
                if let StageBase::Image(image) = &found.source {
                    images.push(ImageUse {
                        image: image.clone(),
                        line: found.line,
                        stage: index,
                        by: found.by,
                        unset: Vec::new(),
                    });
                }
            }
        }
        images
    }

    /// The secrets that the needed stages mount, in order.
    pub fn secrets(&self) -> &[SecretMount] {
        &self.found.secrets
    }

    /// What the needed stages have the daemon fetch, in order.
    pub fn remote_sources(&self) -> &[RemoteSource] {
        &self.found.remote_sources
    }

    /// The build arguments that are declared before the first stage and in the needed ones, in order.
    pub fn arguments(&self) -> &[Argument] {
        &self.found.arguments
    }

    /// The variables that the needed stages set, in order.
    pub fn variables(&self) -> &[EnvVariable] {
        &self.found.variables
    }

    /// The directive that asks for another frontend.
    pub fn syntax(&self) -> Option<&SyntaxDirective> {
        self.syntax.as_ref()
    }

    /// The stages that the image is made of: the target, what it is FROM, and so on.
    pub fn final_chain(&self) -> Vec<usize> {
        let mut chain = vec![self.target];
        let mut stage = self.outline.stages.get(self.target);
        while let Some(StageBase::Stage(base)) = stage.map(|stage| &stage.base) {
            chain.push(*base);
            stage = self.outline.stages.get(*base);
        }
        chain
    }

    /// The instruction that sets something of the image for good: the last one of its kind. If there is
    /// none, what a base image has stays.
    pub fn setting(&self, keyword: Keyword) -> Option<&Instruction> {
        let is_meant = |instruction: &&Instruction| instruction.keyword == keyword;
        self.chain().find_map(|stage| stage.all().rfind(is_meant))
    }

    /// What means nothing to a template, by line. Other stages than those of the image are not looked at.
    pub fn ignored(&self) -> Vec<IgnoredInstruction> {
        let chain: Vec<&Stage> = self.chain().collect();
        ignored::of(&chain)
    }

    /// Takes note of what the base image `image` has ONBUILD, which BuildKit does in every stage that is
    /// FROM it, and which may need further images, stages and secrets. Whoever has to know all of them
    /// calls this for every image that a FROM names, until [`Self::images`] names no new one.
    ///
    /// # Errors
    /// If one of them cannot be read.
    pub fn add_triggers(
        &mut self,
        image: &str,
        on_build: &[String],
    ) -> Result<(), DockerfileProblem> {
        let on_build = on_build.to_vec();
        self.image_triggers.insert(image.to_owned(), on_build);
        self.settle()
    }

    fn needed(&self) -> impl Iterator<Item = (usize, &Stage)> {
        let stage = |index: &usize| Some((*index, self.outline.stages.get(*index)?));
        self.needed.iter().filter_map(stage)
    }

    fn chain(&self) -> impl Iterator<Item = &Stage> {
        let stages = self.final_chain().into_iter();
        stages.filter_map(|index| self.outline.stages.get(index))
    }

    /// Finds what is needed and what hangs on it, with the triggers that are known now.
    fn settle(&mut self) -> Result<(), DockerfileProblem> {
        let mut needed = BTreeSet::from([self.target]);
        let mut waiting = vec![self.target];
        while let Some(index) = waiting.pop() {
            self.pull_triggers(index)?;
            let Some(stage) = self.outline.stages.get(index) else {
                continue;
            };
            for source in stage.sources() {
                if let StageBase::Stage(other) = source
                    && needed.insert(*other)
                {
                    waiting.push(*other);
                }
            }
        }
        self.needed = needed.into_iter().collect();
        let walk = Walk::new(
            self.escape,
            &self.build_args,
            &self.outline.globals,
            &mut self.budget,
        );
        self.found = walk.through(&self.outline.stages, &self.needed)?;
        let before = self.outline.arguments.iter().cloned();
        self.found.arguments.splice(0..0, before);
        self.found.remote_sources.extend(self.dated());
        Ok(())
    }

    /// What the stage that stands for the date of the image's files fetches, if one does.
    fn dated(&self) -> Vec<RemoteSource> {
        const NAME: &str = "SOURCE_DATE_EPOCH";
        let given = self.build_args.get(NAME);
        let Some(date) = given.or_else(|| self.outline.globals.0.get(NAME)) else {
            return Vec::new();
        };
        let named = |stage: &Stage| {
            let name = stage.name.as_deref();
            name.is_some_and(|name| name.eq_ignore_ascii_case(date))
        };
        let mut stages = self.outline.stages.iter().enumerate();
        match stages.find(|(_, stage)| named(stage)) {
            Some((index, stage)) if !self.needed.contains(&index) => dated(stage, index),
            _ => Vec::new(),
        }
    }

    /// Puts what the base of a stage has ONBUILD into the stage, once it is known.
    fn pull_triggers(&mut self, index: usize) -> Result<(), DockerfileProblem> {
        let Some(stage) = self.outline.stages.get(index) else {
            return Ok(());
        };
        let written = match &stage.base {
            _ if stage.triggered => return Ok(()),
            StageBase::Scratch => return Ok(()),
            StageBase::Image(image) => match self.image_triggers.get(image) {
                Some(triggers) => triggers.clone(),
                None => return Ok(()),
            },
            StageBase::Stage(base) => {
                let base = self.outline.stages.get(*base).into_iter();
                base.flat_map(|base| &base.instructions)
                    .filter_map(|instruction| instruction.trigger.clone())
                    .collect()
            }
        };
        let line = stage.line;
        let mut triggers = Vec::new();
        let mut uses = Vec::new();
        for text in written {
            let trigger = self.trigger(&text, line).map_err(|kind| {
                let written = quoted(&text);
                let kind = Box::new(kind);
                ProblemKind::InTrigger { written, kind }.at(line)
            })?;
            let found = self.outline.uses(&trigger, self.escape, &mut self.budget);
            uses.extend(found.map_err(|kind| kind.at(line))?);
            triggers.push(trigger);
        }
        if let Some(stage) = self.outline.stages.get_mut(index) {
            uses.append(&mut stage.uses);
            stage.uses = uses;
            stage.triggers = triggers;
            stage.triggered = true;
        }
        Ok(())
    }

    /// Reads what is ONBUILD. It stands for itself: no directive of the file applies.
    fn trigger(&mut self, text: &str, line: u32) -> Result<Instruction, ProblemKind> {
        let parsed =
            lines::parse(text, &self.limits, &mut self.budget).map_err(|problem| problem.kind)?;
        let [instruction] = parsed.instructions.as_slice() else {
            return Err(ProblemKind::Trigger(quoted(text)));
        };
        if instruction.keyword == Keyword::From {
            return Err(ProblemKind::Trigger(Keyword::From.to_string()));
        }
        // The same may be done by many stages.
        let max = self.limits.dockerfile_instructions_max;
        self.triggers += 1;
        if self.triggers > max {
            return Err(ProblemKind::TooManyInstructions { max });
        }
        Ok(Instruction {
            line,
            end_line: line,
            ..instruction.clone()
        })
    }
}
