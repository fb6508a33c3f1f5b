//! Words as BuildKit's frontend takes them apart: quotes, escapes, variables. It is like a shell, but
//! not the same, and each of its ways is followed, for they decide which image is meant.

mod lexer;
mod substitution;

use self::lexer::Lexer;
use super::problem::{ProblemKind, quoted};

/// A word after its variables were replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// It is this.
    Known(String),
    /// It hangs on the environment that a base image brings.
    Unknown {
        /// As it is written.
        written: String,
        /// The variable that nobody here knows.
        variable: String,
    },
}

impl Word {
    /// What it is, if that is known.
    pub fn known(&self) -> Option<&str> {
        match self {
            Self::Known(text) => Some(text),
            Self::Unknown { .. } => None,
        }
    }
}

/// What a variable is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variable<'a> {
    Set(&'a str),
    Unset,
    /// Perhaps set, by a base image.
    Unknown,
}

/// Where variables have their values from.
pub(super) trait Variables {
    /// What `name` is, and how many places were looked at.
    fn look_up(&self, name: &str) -> (Variable<'_>, usize);
}

/// How much work replacing variables may still be: one for each byte that is made, place that is looked
/// at, and sixteen comparisons of a pattern.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget(pub(super) usize);

impl Budget {
    fn spend(&mut self, work: usize) -> Result<(), Fault> {
        self.0 = self.0.checked_sub(work).ok_or(Fault::TooMuch)?;
        Ok(())
    }
}

/// Why a word cannot be taken apart.
#[derive(Debug)]
enum Fault {
    /// BuildKit cannot either.
    Wrong(String),
    /// BuildKit may know better.
    Unclear(&'static str),
    /// It is too much work.
    TooMuch,
}

impl Fault {
    fn of(self, word: &str) -> ProblemKind {
        let written = quoted(word);
        match self {
            Self::Wrong(reason) => ProblemKind::Substitution { written, reason },
            Self::Unclear(what) => ProblemKind::NotUnderstood { written, what },
            Self::TooMuch => ProblemKind::TooMuchExpansion,
        }
    }
}

/// A word whose variables were replaced, and what they lacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expanded {
    pub(super) word: Word,
    /// Variables without a value that were put in as nothing.
    pub(super) unset: Vec<String>,
}

/// Replaces the variables of one word, and takes its quotes and escapes away.
pub(super) fn expand(
    word: &str,
    escape: char,
    variables: &dyn Variables,
    budget: &mut Budget,
) -> Result<Expanded, ProblemKind> {
    let mut lexer = Lexer::new(word, escape, variables, budget);
    let text = lexer.whole().map_err(|fault| fault.of(word))?.text;
    let unset = std::mem::take(&mut lexer.unset);
    let word = match lexer.unknown.take() {
        Some(variable) => Word::Unknown {
            written: word.to_owned(),
            variable,
        },
        None => Word::Known(text),
    };
    Ok(Expanded { word, unset })
}

/// A here-document that an instruction asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heredoc {
    /// What its last line is.
    pub(super) name: String,
    /// Whether tabs before the last line do not count.
    pub(super) chomp: bool,
}

/// The here-documents that a line asks for, in order.
///
/// Variables are nothing to it, and the escape character is always the backslash. A line that cannot be
/// taken apart asks for none: BuildKit leaves it to the shell.
pub(super) fn heredocs(line: &str, budget: &mut Budget) -> Result<Vec<Heredoc>, ProblemKind> {
    let mut lexer = Lexer::verbatim(line, true, budget);
    lexer.raw_escapes = true;
    let words = match lexer.whole() {
        Ok(text) => text.words,
        Err(Fault::Wrong(_)) => Vec::new(),
        Err(fault) => return Err(fault.of(line)),
    };
    let mut found = Vec::new();
    for word in words {
        found.extend(heredoc(&word, budget)?);
    }
    Ok(found)
}

/// The here-document that a word asks for: `<<EOF`, `3<<-'EOF'`.
fn heredoc(word: &str, budget: &mut Budget) -> Result<Option<Heredoc>, ProblemKind> {
    let after_digits = word.trim_start_matches(|char: char| char.is_ascii_digit());
    let Some(rest) = after_digits.strip_prefix("<<") else {
        return Ok(None);
    };
    let (rest, chomp) = match rest.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    let rest = rest.trim_start_matches(['\t', '\n', '\u{c}', '\r', ' ']);
    if rest.is_empty() || rest.contains('<') {
        return Ok(None);
    }
    let words = Lexer::verbatim(rest, false, budget)
        .whole()
        .map_err(|fault| fault.of(word))?
        .words;
    let mut words = words.into_iter();
    Ok(match (words.next(), words.next()) {
        (Some(name), None) => Some(Heredoc { name, chomp }),
        _ => None,
    })
}
