//! From text to instructions: parser directives, comments, continued lines, here-documents.

use crate::BuildkitLimits;

use super::SyntaxDirective;
use super::instruction::{Instruction, Keyword};
use super::problem::{DockerfileProblem, ProblemKind, quoted};
use super::words::{Budget, heredocs};

/// BuildKit's bound of a line.
const LINE_BYTES_MAX: usize = 64 * 1024 - 1;
/// What a regular expression of Go takes for a blank.
const BLANKS: [char; 5] = ['\t', '\n', '\u{c}', '\r', ' '];

/// A file, taken apart.
pub(super) struct Parsed {
    pub(super) escape: char,
    pub(super) syntax: Option<SyntaxDirective>,
    pub(super) instructions: Vec<Instruction>,
}

/// Takes a file apart.
pub(super) fn parse(
    text: &str,
    limits: &BuildkitLimits,
    budget: &mut Budget,
) -> Result<Parsed, DockerfileProblem> {
    let mut lines = Lines::new(text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut directives = Directives::default();
    let mut instructions = Vec::new();
    while let Some(line) = lines.next()? {
        let line = without_end(line).trim_start();
        directives.see(line, lines.number)?;
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let start = lines.number;
        let joined = lines.joined(line, directives.escape)?;
        let mut instruction =
            Instruction::parse(&joined, directives.escape, start).map_err(|kind| kind.at(start))?;
        let bodies = lines.heredocs(&joined, &instruction, directives.escape, budget)?;
        instruction.end_line = lines.number;
        if instruction.keyword == Keyword::Onbuild {
            instruction.trigger = Some(trigger(&joined, &bodies));
        }
        instructions.push(instruction);
        let max = limits.dockerfile_instructions_max;
        if instructions.len() > max {
            return Err(ProblemKind::TooManyInstructions { max }.at(start));
        }
    }
    Ok(Parsed {
        escape: directives.escape,
        syntax: directives.syntax,
        instructions,
    })
}

/// What an ONBUILD does, as BuildKit writes it into the image.
fn trigger(line: &str, bodies: &[(String, String)]) -> String {
    let line = line.trim_start_matches(BLANKS);
    let word = line.split_at_checked("ONBUILD".len());
    let mut text = match word {
        Some((word, rest)) if word.eq_ignore_ascii_case("ONBUILD") => {
            rest.trim_start_matches(BLANKS).to_owned()
        }
        _ => line.to_owned(),
    };
    for (name, body) in bodies {
        text.push('\n');
        text.push_str(body);
        text.push_str(name);
    }
    text
}

/// A line without its line break.
fn without_end(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

/// The lines of a file, and which was read last.
struct Lines<'a> {
    lines: std::str::SplitInclusive<'a, char>,
    /// From 1; 0 before the first.
    number: u32,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            lines: text.split_inclusive('\n'),
            number: 0,
        }
    }

    /// The next line with its line break.
    fn next(&mut self) -> Result<Option<&'a str>, DockerfileProblem> {
        let Some(line) = self.lines.next() else {
            return Ok(None);
        };
        self.number = self.number.saturating_add(1);
        if line.strip_suffix('\n').unwrap_or(line).len() > LINE_BYTES_MAX {
            let bytes_max = LINE_BYTES_MAX;
            return Err(ProblemKind::LineTooLong { bytes_max }.at(self.number));
        }
        Ok(Some(line))
    }

    /// `first` and the lines that continue it. Comments and blank lines in between do not count.
    fn joined(&mut self, first: &str, escape: char) -> Result<String, DockerfileProblem> {
        let (text, mut goes_on) = continuation(first, escape);
        let mut joined = text.to_owned();
        while goes_on {
            let Some(line) = self.next()? else {
                break;
            };
            let line = without_end(line);
            let start = line.trim_start();
            if start.is_empty() || start.starts_with('#') {
                continue;
            }
            let (text, more) = continuation(line, escape);
            joined.push_str(text);
            goes_on = more;
        }
        Ok(joined)
    }

    /// The here-documents that follow `instruction`, which was written as `line`: their names and bodies.
    fn heredocs(
        &mut self,
        line: &str,
        instruction: &Instruction,
        escape: char,
        budget: &mut Budget,
    ) -> Result<Vec<(String, String)>, DockerfileProblem> {
        let at = |kind: ProblemKind| kind.at(instruction.line);
        let mut bodies = Vec::new();
        if !instruction.takes_heredocs(escape).map_err(at)? || !line.contains("<<") {
            return Ok(bodies);
        }
        for heredoc in heredocs(line, budget).map_err(at)? {
            let mut body = String::new();
            loop {
                let Some(line) = self.next()? else {
                    return Err(at(ProblemKind::OpenHeredoc(quoted(&heredoc.name))));
                };
                let mut end = without_end(line);
                if heredoc.chomp {
                    end = end.trim_start_matches('\t');
                }
                if end == heredoc.name {
                    break;
                }
                body.push_str(line);
            }
            bodies.push((heredoc.name, body));
        }
        Ok(bodies)
    }
}

/// A line without the escape character that continues it, and whether there is one: at its end but for
/// blanks, and not after another escape character.
fn continuation(line: &str, escape: char) -> (&str, bool) {
    let before = line.trim_end_matches([' ', '\t']).strip_suffix(escape);
    match before {
        Some(before) if !before.ends_with(escape) => (before, true),
        _ => (line, false),
    }
}

/// What the first lines say about the others.
struct Directives {
    escape: char,
    syntax: Option<SyntaxDirective>,
    /// Those that were given.
    seen: Vec<String>,
    /// Something else came.
    done: bool,
}

impl Default for Directives {
    fn default() -> Self {
        Self {
            escape: '\\',
            syntax: None,
            seen: Vec::new(),
            done: false,
        }
    }
}

impl Directives {
    /// Looks at a line; only the first ones count, up to the first that is no directive.
    fn see(&mut self, line: &str, number: u32) -> Result<(), DockerfileProblem> {
        if self.done {
            return Ok(());
        }
        let Some((name, value)) = directive(line) else {
            self.done = true;
            return Ok(());
        };
        if self.seen.contains(&name) {
            return Err(ProblemKind::RepeatedDirective(name).at(number));
        }
        match (name.as_str(), value) {
            ("escape", "\\") => self.escape = '\\',
            ("escape", "`") => self.escape = '`',
            ("escape", _) => return Err(ProblemKind::EscapeCharacter.at(number)),
            ("syntax", value) => {
                self.syntax = Some(SyntaxDirective {
                    line: number,
                    value: value.to_owned(),
                });
            }
            _ => {}
        }
        self.seen.push(name);
        Ok(())
    }
}

/// `# name = value` with a name that BuildKit knows.
fn directive(line: &str) -> Option<(String, &str)> {
    let (name, value) = line.strip_prefix('#')?.trim_start().split_once('=')?;
    let name = name.trim_end_matches(BLANKS).to_ascii_lowercase();
    if !matches!(name.as_str(), "syntax" | "escape" | "check") || value.is_empty() {
        return None;
    }
    // A value of blanks alone is one blank.
    let trimmed = value.trim_matches(BLANKS);
    Some((name, if trimmed.is_empty() { " " } else { trimmed }))
}
