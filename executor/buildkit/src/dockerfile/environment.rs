//! What variables are within stages, and what of a stage hangs on them: secrets, remote sources,
//! arguments.

use std::collections::BTreeMap;

use super::instruction::{Instruction, Keyword, split_blank};
use super::mount::Mount;
use super::outline::Globals;
use super::problem::{DockerfileProblem, ProblemKind, quoted};
use super::stage::{Stage, StageBase};
use super::words::{Budget, Expanded, Variable, Variables, Word, expand};
use super::{Argument, EnvVariable, RemoteSource, SecretMount};

/// Arguments that steer BuildKit and never are in the environment.
const STEERING: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// What hangs on variables.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) secrets: Vec<SecretMount>,
    pub(super) remote_sources: Vec<RemoteSource>,
    pub(super) arguments: Vec<Argument>,
    pub(super) variables: Vec<EnvVariable>,
}

/// The variables that a stage sets; none is unknown.
struct Level {
    values: BTreeMap<String, Option<String>>,
    below: Below,
}

/// Where the other variables of a stage come from.
#[derive(Clone, Copy)]
enum Below {
    Nothing,
    Stage(usize),
    Unknown,
}

/// The variables of one stage.
struct Scope<'a> {
    levels: &'a [Level],
    stage: usize,
}

impl Variables for Scope<'_> {
    fn look_up(&self, name: &str) -> (Variable<'_>, usize) {
        let mut stage = self.stage;
        let mut places = 0;
        loop {
            places += 1;
            let Some(level) = self.levels.get(stage) else {
                return (Variable::Unknown, places);
            };
            match (level.values.get(name), level.below) {
                (Some(Some(value)), _) => return (Variable::Set(value), places),
                (Some(None), _) | (None, Below::Unknown) => return (Variable::Unknown, places),
                (None, Below::Nothing) => return (Variable::Unset, places),
                (None, Below::Stage(below)) => stage = below,
            }
        }
    }
}

/// Goes through the stages that are needed, in order.
pub(super) struct Walk<'a> {
    escape: char,
    build_args: &'a BTreeMap<String, String>,
    globals: &'a Globals,
    budget: &'a mut Budget,
    levels: Vec<Level>,
    found: Found,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        escape: char,
        build_args: &'a BTreeMap<String, String>,
        globals: &'a Globals,
        budget: &'a mut Budget,
    ) -> Self {
        Self {
            escape,
            build_args,
            globals,
            budget,
            levels: Vec::new(),
            found: Found::default(),
        }
    }

    /// Every stage has a level; only those that are `needed` are looked into.
    pub(super) fn through(
        mut self,
        stages: &[Stage],
        needed: &[usize],
    ) -> Result<Found, DockerfileProblem> {
        for (index, stage) in stages.iter().enumerate() {
            self.levels.push(level(stage, index));
            if needed.binary_search(&index).is_err() {
                continue;
            }
            for instruction in stage.all() {
                self.instruction(instruction, index)
                    .map_err(|kind| kind.at(instruction.line))?;
            }
        }
        Ok(self.found)
    }

    fn instruction(&mut self, instruction: &Instruction, stage: usize) -> Result<(), ProblemKind> {
        match instruction.keyword {
            Keyword::Arg => self.arg(instruction, stage),
            Keyword::Env => self.env(instruction, stage),
            Keyword::Run => self.run(instruction, stage),
            Keyword::Add => self.add(instruction, stage),
            Keyword::Cmd
            | Keyword::Copy
            | Keyword::Entrypoint
            | Keyword::Expose
            | Keyword::From
            | Keyword::Healthcheck
            | Keyword::Label
            | Keyword::Maintainer
            | Keyword::Onbuild
            | Keyword::Shell
            | Keyword::StopSignal
            | Keyword::User
            | Keyword::Volume
            | Keyword::Workdir => Ok(()),
        }
    }

    /// A word as it is in `stage`. What cannot be understood is not known.
    fn expanded(&mut self, word: &str, stage: usize) -> Result<Expanded, ProblemKind> {
        let scope = Scope {
            levels: &self.levels,
            stage,
        };
        match expand(word, self.escape, &scope, self.budget) {
            Err(ProblemKind::NotUnderstood { .. }) => Ok(Expanded {
                word: Word::Unknown {
                    written: word.to_owned(),
                    variable: word.to_owned(),
                },
                unset: Vec::new(),
            }),
            other => other,
        }
    }

    fn set(&mut self, stage: usize, name: &str, value: &Word) {
        if let Some(level) = self.levels.get_mut(stage) {
            let value = value.known().map(str::to_owned);
            level.values.insert(name.to_owned(), value);
        }
    }

    fn arg(&mut self, arg: &Instruction, stage: usize) -> Result<(), ProblemKind> {
        for word in assignments(&arg.arguments, self.escape) {
            let (name, default) = match word.split_once('=') {
                Some((name, default)) => (name, Some(default)),
                None => (word.as_str(), None),
            };
            let value = match (self.build_args.get(name), default) {
                (Some(given), _) => Some(Word::Known(given.clone())),
                (None, Some(default)) => Some(self.expanded(default, stage)?.word),
                (None, None) => self.globals.0.get(name).cloned().map(Word::Known),
            };
            if let Some(value) = &value
                && !STEERING.contains(&name)
            {
                self.set(stage, name, value);
            }
            self.found.arguments.push(Argument {
                name: name.to_owned(),
                line: arg.line,
                stage: Some(stage),
                value,
            });
        }
        Ok(())
    }

    fn env(&mut self, env: &Instruction, stage: usize) -> Result<(), ProblemKind> {
        // All of one instruction see what was before it.
        let mut values = Vec::new();
        for (name, value) in pairs(&env.arguments, self.escape)? {
            let name = self.expanded(&name, stage)?.word;
            self.found.variables.push(EnvVariable {
                name: name.clone(),
                line: env.line,
                stage,
            });
            values.push((name, self.expanded(&value, stage)?.word));
        }
        for (name, value) in values {
            match (name, self.levels.get_mut(stage)) {
                (Word::Known(name), _) => self.set(stage, &name, &value),
                // It may be any.
                (Word::Unknown { .. }, Some(level)) => {
                    level.values.clear();
                    level.below = Below::Unknown;
                }
                (Word::Unknown { .. }, None) => {}
            }
        }
        Ok(())
    }

    fn run(&mut self, run: &Instruction, stage: usize) -> Result<(), ProblemKind> {
        for mount in run.flag("mount") {
            let secret = Mount::parse(mount)?.secret(|word| self.expanded(word, stage))?;
            self.found.secrets.extend(secret.map(|secret| SecretMount {
                id: secret.id,
                line: run.line,
                stage,
                required: secret.required,
            }));
        }
        Ok(())
    }

    fn add(&mut self, add: &Instruction, stage: usize) -> Result<(), ProblemKind> {
        for word in sources(add) {
            let source = self.expanded(word, stage)?.word;
            if source.known().is_none_or(is_remote) {
                self.found.remote_sources.push(RemoteSource {
                    source,
                    line: add.line,
                    stage,
                });
            }
        }
        Ok(())
    }
}

/// A stage's variables before its first instruction.
fn level(stage: &Stage, index: usize) -> Level {
    let mut values = BTreeMap::new();
    let below = match stage.base {
        StageBase::Scratch => {
            // BuildKit always sets it.
            values.insert("PATH".to_owned(), None);
            Below::Nothing
        }
        StageBase::Stage(base) if base < index => Below::Stage(base),
        StageBase::Stage(_) | StageBase::Image(_) => Below::Unknown,
    };
    Level { values, below }
}

/// What a stage that stands for a date (`SOURCE_DATE_EPOCH=stage`) is asked for.
pub(super) fn dated(stage: &Stage, index: usize) -> Vec<RemoteSource> {
    let adds = stage.instructions.iter();
    adds.filter(|instruction| instruction.keyword == Keyword::Add)
        .flat_map(|add| sources(add).into_iter().map(|word| (add.line, word)))
        .map(|(line, word)| {
            let written = word.to_owned();
            let source = if word.contains('$') {
                Word::Unknown {
                    variable: written.clone(),
                    written,
                }
            } else {
                Word::Known(written)
            };
            RemoteSource {
                source,
                line,
                stage: index,
            }
        })
        .collect()
}

/// What an ADD adds: its words but the last.
fn sources(add: &Instruction) -> Vec<&str> {
    let mut words = add.words();
    words.pop();
    words
}

/// Whether BuildKit's daemon fetches a source of ADD: a URL, or a repository.
fn is_remote(source: &str) -> bool {
    if source.starts_with("http://") || source.starts_with("https://") {
        return true;
    }
    if let Some((scheme, rest)) = source.split_once("://") {
        let path = rest.split(['?', '#']).next().unwrap_or_default();
        return match scheme.to_ascii_lowercase().as_str() {
            "git" | "ssh" => true,
            // In capitals, only that of a repository is one.
            "http" | "https" => path.strip_suffix(".git").is_some(),
            _ => false,
        };
    }
    let is_part = |text: &str, marks: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|char| char.is_ascii_alphanumeric() || marks.contains(char))
    };
    // As ssh and scp have it: user@host:path.
    source
        .split_once('@')
        .and_then(|(user, rest)| Some((user, rest.split_once(':')?.0)))
        .is_some_and(|(user, host)| is_part(user, "-_") && is_part(host, "-."))
}

/// The words of an ARG or ENV, with their quotes and escapes.
pub(super) fn assignments(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        if char == escape && quote != Some('\'') {
            // At the end it escapes nothing and is dropped.
            if let Some(escaped) = chars.next() {
                word.extend([char, escaped]);
            }
            continue;
        }
        match quote {
            None if char.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if char == '\'' || char == '"' => quote = Some(char),
            Some(open) if char == open => quote = None,
            _ => {}
        }
        word.push(char);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// What an ENV sets: `name=value …`, or in its old form `name value`.
fn pairs(text: &str, escape: char) -> Result<Vec<(String, String)>, ProblemKind> {
    let words = assignments(text, escape);
    let Some(first) = words.first() else {
        return Ok(Vec::new());
    };
    if !first.contains('=') {
        let (name, value) =
            split_blank(text).ok_or_else(|| ProblemKind::Assignment(quoted(text)))?;
        return Ok(vec![(name.to_owned(), value.to_owned())]);
    }
    words
        .iter()
        .map(|word| {
            let (name, value) = word
                .split_once('=')
                .ok_or_else(|| ProblemKind::Assignment(quoted(word)))?;
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}
