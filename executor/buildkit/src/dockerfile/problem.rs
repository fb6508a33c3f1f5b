//! Why a Dockerfile cannot be read.

use std::fmt;

use super::instruction::Keyword;

/// How much of a Dockerfile's text a message repeats, in characters.
const QUOTED_CHARS_MAX: usize = 80;

/// What is wrong with a Dockerfile, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerfileProblem {
    /// The line, from 1, where the instruction begins; none if it is the file as a whole.
    pub line: Option<u32>,
    /// What it is.
    pub kind: ProblemKind,
}

/// What can be wrong. Where nothing else is said, BuildKit refuses the file too.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProblemKind {
    /// Nothing but comments and blank lines.
    #[error("there is no instruction in it")]
    Empty,
    /// No FROM.
    #[error("there is no stage to build: no FROM")]
    NoStage,
    /// A line that BuildKit does not take.
    #[error("the line is longer than {bytes_max} bytes")]
    LineTooLong {
        /// The bound.
        bytes_max: usize,
    },
    /// `# escape=` with something else than a backslash or a backtick.
    #[error("the escape character must be \\ or `")]
    EscapeCharacter,
    /// A parser directive given twice.
    #[error("the directive `{0}` is given twice")]
    RepeatedDirective(String),
    /// No such instruction.
    #[error("unknown instruction {0}")]
    UnknownInstruction(String),
    /// Only ARG may stand before the first FROM.
    #[error("{0} must come after a FROM")]
    BeforeFrom(Keyword),
    /// A here-document without its end.
    #[error("the here-document {0} does not end")]
    OpenHeredoc(String),
    /// FROM with a number of words that it does not have.
    #[error("FROM takes an image or a stage, and perhaps AS and a name")]
    FromWords,
    /// Not a name for a stage.
    #[error("{0} cannot be the name of a stage")]
    StageName(String),
    /// FROM names nothing, once variables are replaced.
    #[error("FROM {0} names nothing: a variable has no value")]
    BlankBase(String),
    /// `--platform=` names nothing, once variables are replaced.
    #[error("the platform {0} names nothing: a variable has no value")]
    BlankPlatform(String),
    /// A variable is used in a way that BuildKit does not know.
    #[error("{written}: {reason}")]
    Substitution {
        /// The word.
        written: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A JSON list of something else than strings.
    #[error("a list in JSON form may hold strings only")]
    ListOfOthers,
    /// ENV without a value.
    #[error("{0} is not of the form name=value")]
    Assignment(String),
    /// `COPY --from=$X`.
    #[error("COPY --from={0} cannot hold a variable: give the image a stage of its own")]
    VariableInCopy(String),
    /// `RUN --mount=from=$X`.
    #[error("a mount's from={0} cannot hold a variable: give the image a stage of its own")]
    VariableInMount(String),
    /// `COPY --from=7` where there is no such stage.
    #[error("there is no stage {0}")]
    StageNumber(i64),
    /// `RUN --mount=` with stray or open quotes, or with nothing.
    #[error("the mount {0} is not a list of comma-separated fields")]
    MountFields(String),
    /// The stage that is asked for is not there.
    #[error("there is no stage named {0}")]
    Target(String),
    /// An ONBUILD instruction that cannot be one.
    #[error("{0} cannot be an ONBUILD instruction")]
    Trigger(String),
    /// An ONBUILD instruction that cannot be read.
    #[error("the ONBUILD instruction {written}: {kind}")]
    InTrigger {
        /// The instruction.
        written: String,
        /// What is wrong with it.
        kind: Box<Self>,
    },
    /// Longer than this reader takes. BuildKit may take it.
    #[error("it is longer than {bytes_max} bytes")]
    TooLong {
        /// The bound.
        bytes_max: usize,
    },
    /// More instructions than this reader takes. BuildKit may take it.
    #[error("it has more than {max} instructions")]
    TooManyInstructions {
        /// The bound.
        max: usize,
    },
    /// Its variables make more text than this reader takes. BuildKit may take it.
    #[error("replacing its variables is too much work")]
    TooMuchExpansion,
    /// What this reader does not understand. BuildKit may understand it.
    #[error("{written}: {what} cannot be understood without building")]
    NotUnderstood {
        /// The word.
        written: String,
        /// What in it.
        what: &'static str,
    },
}

impl ProblemKind {
    /// In line `line`.
    pub(super) fn at(self, line: u32) -> DockerfileProblem {
        DockerfileProblem {
            line: Some(line),
            kind: self,
        }
    }
}

impl DockerfileProblem {
    /// A problem of the file as a whole.
    pub(super) fn of_file(kind: ProblemKind) -> Self {
        Self { line: None, kind }
    }

    /// Whether it is this reader that gives up, where BuildKit might go on.
    pub fn is_bound(&self) -> bool {
        let mut kind = &self.kind;
        while let ProblemKind::InTrigger { kind: inner, .. } = kind {
            kind = inner;
        }
        matches!(
            kind,
            ProblemKind::TooLong { .. }
                | ProblemKind::TooManyInstructions { .. }
                | ProblemKind::TooMuchExpansion
                | ProblemKind::NotUnderstood { .. }
        )
    }
}

impl fmt::Display for DockerfileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.kind),
            None => self.kind.fmt(f),
        }
    }
}

impl std::error::Error for DockerfileProblem {}

/// A part of the Dockerfile as a message repeats it.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.split_at(end).0),
        None => text.to_owned(),
    }
}
