//! `$name` and `${name…}`.

use super::super::pattern::{Pattern, replaced, without_prefix, without_suffix};
use super::lexer::{Inside, Lexer};
use super::{Fault, Variable};

/// How many comparisons of a pattern count as one piece of work.
const COMPARISONS_PER_WORK: usize = 16;
/// What is not understood of a name: which other characters belong to it is a matter of Unicode's tables.
const OTHER_THAN_ASCII: &str = "a name of other than ASCII characters";

impl<'a> Lexer<'a> {
    /// What a `$` and what belongs to it stand for.
    pub(super) fn dollar(&mut self) -> Result<String, Fault> {
        self.next();
        if self.peek() == Some('{') {
            self.next();
            return self.braces();
        }
        let name = self.name()?;
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        if self.is_verbatim() {
            return Ok(format!("${name}"));
        }
        Ok(self.plain(&name)?.to_owned())
    }

    /// The value of a variable, nothing if it has none.
    fn plain(&mut self, name: &str) -> Result<&'a str, Fault> {
        Ok(match self.variable(name)? {
            Variable::Set(value) => value,
            Variable::Unset => {
                self.unset.push(name.to_owned());
                ""
            }
            Variable::Unknown => "",
        })
    }

    /// After `${`.
    fn braces(&mut self) -> Result<String, Fault> {
        if matches!(self.peek(), None | Some('{' | '}' | ':')) {
            return Err(Fault::Wrong("not a substitution".to_owned()));
        }
        let name = self.name()?;
        if self.peek().is_some_and(|char| !char.is_ascii()) {
            return Err(Fault::Unclear(OTHER_THAN_ASCII));
        }
        match self.next() {
            Some('}') if self.is_verbatim() => Ok(format!("${{{name}}}")),
            Some('}') => Ok(self.plain(&name)?.to_owned()),
            Some(':') => {
                let operator = self.next();
                self.operated(&name, operator, true)
            }
            operator @ Some('+' | '-' | '?' | '#' | '%') => self.operated(&name, operator, false),
            Some('/') => self.slashes(&name),
            other => Err(unsupported(other)),
        }
    }

    /// `${name:-word}` and its like, after the operator. `colon`: an empty value is as good as none.
    fn operated(
        &mut self,
        name: &str,
        operator: Option<char>,
        colon: bool,
    ) -> Result<String, Fault> {
        let trims = matches!(operator, Some('#' | '%'));
        if colon && trims {
            return Err(unsupported(operator));
        }
        let inside = if trims {
            Inside::Pattern
        } else {
            Inside::Plain
        };
        let word = self.inside('}', inside)?;
        if self.is_verbatim() {
            let colon = if colon { ":" } else { "" };
            let operator = operator.map(String::from).unwrap_or_default();
            return Ok(format!("${{{name}{colon}{operator}{word}}}"));
        }
        let value = match self.variable(name)? {
            Variable::Set(value) => Some(value),
            Variable::Unset => None,
            Variable::Unknown => return Ok(String::new()),
        };
        let useful = value.filter(|value| !(colon && value.is_empty()));
        match operator {
            Some('-') => Ok(useful.map_or(word, str::to_owned)),
            Some('+') => Ok(useful.map_or(String::new(), |_| word)),
            Some('?') => useful.map(str::to_owned).ok_or_else(|| {
                let reason = if word.is_empty() {
                    "has no value"
                } else {
                    &word
                };
                Fault::Wrong(format!("{name}: {reason}"))
            }),
            Some(side @ ('#' | '%')) => self.trimmed(side, &word, value.unwrap_or_default()),
            _ => Err(unsupported(operator)),
        }
    }

    /// `${name#word}`, `${name##word}` and the same with `%`.
    fn trimmed(&mut self, side: char, word: &str, value: &str) -> Result<String, Fault> {
        let (word, greedy) = match word.strip_prefix(side) {
            Some(word) => (word, true),
            None => (word, false),
        };
        let value: Vec<char> = value.chars().collect();
        let pattern = self.pattern(word, value.len())?;
        Ok(if side == '#' {
            without_prefix(&pattern, &value, greedy)
        } else {
            without_suffix(pattern, &value, greedy)
        })
    }

    /// `${name/pattern/replacement}` and `${name//pattern/replacement}`, after the first slash.
    fn slashes(&mut self, name: &str) -> Result<String, Fault> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let pattern = self.inside('/', Inside::Pattern)?;
        let replacement = self.inside('}', Inside::Escapes)?;
        if self.is_verbatim() {
            return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
        }
        if all && replacement.contains('$') {
            // To BuildKit, that is a reference to a part of the match.
            return Err(Fault::Unclear("a $ in a replacement"));
        }
        let value: Vec<char> = match self.variable(name)? {
            Variable::Set(value) => value.chars().collect(),
            Variable::Unset => Vec::new(),
            Variable::Unknown => return Ok(String::new()),
        };
        let pattern = self.pattern(&pattern, value.len())?;
        self.spend(replacement.len().saturating_mul(value.len() + 1))?;
        Ok(replaced(&pattern, &value, &replacement, all))
    }

    /// A pattern that will be compared with `length` characters.
    fn pattern(&mut self, text: &str, length: usize) -> Result<Pattern, Fault> {
        if text.contains('\u{feff}') {
            // BuildKit's scanner drops it in one place and not in another.
            return Err(Fault::Unclear("a byte order mark"));
        }
        let pattern = Pattern::new(text)
            .map_err(|_| Fault::Wrong("the pattern has an invalid escape".to_owned()))?;
        self.spend(pattern.len().saturating_mul(length + 1) / COMPARISONS_PER_WORK)?;
        Ok(pattern)
    }

    /// A name; one of the shell's special parameters; or a number.
    fn name(&mut self) -> Result<String, Fault> {
        let mut name = String::new();
        let belongs: fn(char) -> bool = match self.peek() {
            Some(special @ ('@' | '*' | '#' | '?' | '-' | '$' | '!')) => {
                self.next();
                return Ok(special.into());
            }
            Some('0'..='9') => |char| char.is_ascii_digit(),
            _ => |char| char.is_ascii_alphanumeric() || char == '_',
        };
        while let Some(char) = self.peek() {
            if !char.is_ascii() && char.is_alphanumeric() && !self.is_verbatim() {
                return Err(Fault::Unclear(OTHER_THAN_ASCII));
            }
            if !belongs(char) {
                break;
            }
            self.next();
            name.push(char);
        }
        Ok(name)
    }
}

fn unsupported(operator: Option<char>) -> Fault {
    let operator = operator.map(String::from).unwrap_or_default();
    Fault::Wrong(format!("the operator {operator} is not supported"))
}
