//! A stage: what it is FROM, what it takes from others, what it does.

use super::instruction::Instruction;

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
