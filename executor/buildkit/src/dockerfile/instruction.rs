//! One instruction: its keyword, flags and arguments.

mod flags;

use std::fmt;

use serde_json::value::RawValue;

use super::problem::{ProblemKind, quoted};

/// The blanks that BuildKit splits at. Others, such as the non-breaking space, belong to words.
const BLANKS: [char; 5] = ['\t', '\u{b}', '\u{c}', '\r', ' '];

/// What an instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Keyword {
    /// `ADD`
    Add,
    /// `ARG`
    Arg,
    /// `CMD`
    Cmd,
    /// `COPY`
    Copy,
    /// `ENTRYPOINT`
    Entrypoint,
    /// `ENV`
    Env,
    /// `EXPOSE`
    Expose,
    /// `FROM`
    From,
    /// `HEALTHCHECK`
    Healthcheck,
    /// `LABEL`
    Label,
    /// `MAINTAINER`
    Maintainer,
    /// `ONBUILD`
    Onbuild,
    /// `RUN`
    Run,
    /// `SHELL`
    Shell,
    /// `STOPSIGNAL`
    StopSignal,
    /// `USER`
    User,
    /// `VOLUME`
    Volume,
    /// `WORKDIR`
    Workdir,
}

impl Keyword {
    const ALL: [Self; 18] = [
        Self::Add,
        Self::Arg,
        Self::Cmd,
        Self::Copy,
        Self::Entrypoint,
        Self::Env,
        Self::Expose,
        Self::From,
        Self::Healthcheck,
        Self::Label,
        Self::Maintainer,
        Self::Onbuild,
        Self::Run,
        Self::Shell,
        Self::StopSignal,
        Self::User,
        Self::Volume,
        Self::Workdir,
    ];

    /// As it is written by custom.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Arg => "ARG",
            Self::Cmd => "CMD",
            Self::Copy => "COPY",
            Self::Entrypoint => "ENTRYPOINT",
            Self::Env => "ENV",
            Self::Expose => "EXPOSE",
            Self::From => "FROM",
            Self::Healthcheck => "HEALTHCHECK",
            Self::Label => "LABEL",
            Self::Maintainer => "MAINTAINER",
            Self::Onbuild => "ONBUILD",
            Self::Run => "RUN",
            Self::Shell => "SHELL",
            Self::StopSignal => "STOPSIGNAL",
            Self::User => "USER",
            Self::Volume => "VOLUME",
            Self::Workdir => "WORKDIR",
        }
    }

    pub(super) fn of(word: &str) -> Option<Self> {
        let word = lower(word);
        let mut all = Self::ALL.into_iter();
        all.find(|keyword| keyword.as_str().eq_ignore_ascii_case(&word))
    }

    /// Whether it makes something, so that BuildKit counts it as a step.
    pub(super) fn is_step(self) -> bool {
        matches!(self, Self::Add | Self::Copy | Self::Run | Self::Workdir)
    }

    /// Whether here-documents may follow.
    fn takes_heredocs(self) -> bool {
        matches!(self, Self::Add | Self::Copy | Self::Run)
    }
}

impl fmt::Display for Keyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Lower case as Go has it: one character for one.
pub(super) fn lower(text: &str) -> String {
    text.chars()
        .map(|char| char.to_lowercase().next().unwrap_or(char))
        .collect()
}

/// How the arguments are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// As a JSON list of strings.
    Json(Vec<String>),
    /// As text: words, or a command for the shell.
    Shell,
}

/// An instruction as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What it does.
    pub keyword: Keyword,
    /// Its first line, from 1.
    pub line: u32,
    /// Its last line, here-documents included.
    pub end_line: u32,
    /// Its flags, without quotes and escapes: `--from=build`.
    pub flags: Vec<String>,
    /// What comes after the flags, its lines joined, without the text of here-documents.
    pub arguments: String,
    /// How the arguments are given. A health check's command has a form, its first word has not.
    pub form: Form,
    /// For ONBUILD: what is done, here-documents included.
    pub(super) trigger: Option<String>,
}

impl Instruction {
    /// From its joined lines.
    pub(super) fn parse(text: &str, escape: char, line: u32) -> Result<Self, ProblemKind> {
        let trimmed = text.trim();
        let (word, rest) = split_blank(trimmed).unwrap_or((trimmed, ""));
        let keyword =
            Keyword::of(word).ok_or_else(|| ProblemKind::UnknownInstruction(quoted(word)))?;
        let (flags, arguments) = flags::split(rest, escape);
        let form = match keyword {
            Keyword::Add
            | Keyword::Cmd
            | Keyword::Copy
            | Keyword::Entrypoint
            | Keyword::Run
            | Keyword::Shell
            | Keyword::Volume => form(&arguments)?,
            Keyword::Healthcheck => form(flags::after_word(&arguments))?,
            Keyword::Arg
            | Keyword::Env
            | Keyword::Expose
            | Keyword::From
            | Keyword::Label
            | Keyword::Maintainer
            | Keyword::Onbuild
            | Keyword::StopSignal
            | Keyword::User
            | Keyword::Workdir => Form::Shell,
        };
        Ok(Self {
            keyword,
            line,
            end_line: line,
            flags,
            arguments,
            form,
            trigger: None,
        })
    }

    /// Whether here-documents may follow: those of what ONBUILD does follow ONBUILD.
    pub(super) fn takes_heredocs(&self, escape: char) -> Result<bool, ProblemKind> {
        if self.keyword != Keyword::Onbuild {
            return Ok(self.keyword.takes_heredocs() && self.form == Form::Shell);
        }
        let word = split_blank(&self.arguments).map_or(self.arguments.as_str(), |(word, _)| word);
        match Keyword::of(word) {
            Some(Keyword::Onbuild | Keyword::Maintainer | Keyword::From) => {
                Err(ProblemKind::Trigger(quoted(word)))
            }
            Some(keyword) if keyword.takes_heredocs() => {
                let inner = Self::parse(&self.arguments, escape, self.line)?;
                Ok(inner.form == Form::Shell)
            }
            _ => Ok(false),
        }
    }

    /// The values that the flag `--name` is given.
    pub(super) fn flag(&self, name: &str) -> impl Iterator<Item = &str> {
        let prefix = format!("--{name}=");
        self.flags
            .iter()
            .filter_map(move |flag| flag.strip_prefix(&prefix))
    }

    /// The arguments, word by word.
    pub(super) fn words(&self) -> Vec<&str> {
        match &self.form {
            Form::Json(words) => words.iter().map(String::as_str).collect(),
            Form::Shell => self
                .arguments
                .split(BLANKS)
                .filter(|word| !word.is_empty())
                .collect(),
        }
    }
}

/// The text before and after the first blanks.
pub(super) fn split_blank(text: &str) -> Option<(&str, &str)> {
    let (before, after) = text.split_once(BLANKS)?;
    Some((before, after.trim_start_matches(BLANKS)))
}

/// A JSON list of strings, or else text. A list of something else is refused; what only looks like a
/// list is text.
fn form(arguments: &str) -> Result<Form, ProblemKind> {
    let arguments = arguments.trim_start();
    if !arguments.starts_with('[') {
        return Ok(Form::Shell);
    }
    let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(arguments) else {
        return Ok(Form::Shell);
    };
    let items: Vec<&str> = items.into_iter().map(RawValue::get).collect();
    // To Go, a number that is too large makes it no JSON at all.
    let too_large = |item: &&str| item.parse().is_ok_and(f64::is_infinite);
    if items.iter().any(too_large) {
        return Ok(Form::Shell);
    }
    let strings: Option<Vec<String>> = items.into_iter().map(string).collect();
    strings.map(Form::Json).ok_or(ProblemKind::ListOfOthers)
}

/// A JSON string's text. Half of a surrogate pair, which is no text, leaves the string as it is written.
fn string(raw: &str) -> Option<String> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    Some(serde_json::from_str(raw).unwrap_or_else(|_| inner.to_owned()))
}
