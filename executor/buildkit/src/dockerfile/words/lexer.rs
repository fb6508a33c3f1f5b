//! One pass over a word, or over a line of words.

use super::{Budget, Fault, Variable, Variables};

/// How deep `${a:-${b:-…}}` may go.
const DEPTH_MAX: usize = 32;

/// Takes a text apart. It is good for one text.
pub(super) struct Lexer<'a> {
    text: &'a str,
    escape: char,
    /// None: variables stay as they are written.
    variables: Option<&'a dyn Variables>,
    budget: &'a mut Budget,
    /// Quotes stay in the result.
    raw_quotes: bool,
    /// Escape characters stay in the result.
    pub(super) raw_escapes: bool,
    /// The word that is being gathered. What stands inside of braces is gathered in the same place, and
    /// what was there before is lost, as in BuildKit: that decides what a here-document is.
    gathered: String,
    depth: usize,
    /// Variables without a value that were put in as nothing.
    pub(super) unset: Vec<String>,
    /// The first variable on which the result hangs and that nobody knows.
    pub(super) unknown: Option<String>,
}

/// What a text comes to.
#[derive(Default)]
pub(super) struct Text {
    /// Whole.
    pub(super) text: String,
    /// Cut at blanks outside of quotes.
    pub(super) words: Vec<String>,
}

/// How quotes and escapes inside of braces are kept.
#[derive(Clone, Copy)]
pub(super) enum Inside {
    /// Neither is.
    Plain,
    /// Escapes are.
    Escapes,
    /// Escapes are, and quoted ones are doubled: the text is a pattern, which has escapes of its own.
    Pattern,
}

impl<'a> Lexer<'a> {
    /// Replaces variables.
    pub(super) fn new(
        text: &'a str,
        escape: char,
        variables: &'a dyn Variables,
        budget: &'a mut Budget,
    ) -> Self {
        Self {
            variables: Some(variables),
            escape,
            ..Self::verbatim(text, false, budget)
        }
    }

    /// Leaves variables as they are.
    pub(super) fn verbatim(text: &'a str, raw_quotes: bool, budget: &'a mut Budget) -> Self {
        Self {
            // BuildKit's scanner drops a byte order mark at the beginning of whatever it is given.
            text: text.strip_prefix('\u{feff}').unwrap_or(text),
            escape: '\\',
            variables: None,
            budget,
            raw_quotes,
            raw_escapes: false,
            gathered: String::new(),
            depth: 0,
            unset: Vec::new(),
            unknown: None,
        }
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.text.chars().next()
    }

    pub(super) fn next(&mut self) -> Option<char> {
        let mut chars = self.text.chars();
        let char = chars.next();
        self.text = chars.as_str();
        char
    }

    pub(super) fn spend(&mut self, work: usize) -> Result<(), Fault> {
        self.budget.spend(work)
    }

    /// Whether variables stay as they are written.
    pub(super) fn is_verbatim(&self) -> bool {
        self.variables.is_none()
    }

    /// What the variable is, and that the result hangs on it if it is unknown.
    pub(super) fn variable(&mut self, name: &str) -> Result<Variable<'a>, Fault> {
        let Some(variables) = self.variables else {
            return Ok(Variable::Unset);
        };
        let (variable, places) = variables.look_up(name);
        self.budget.spend(places)?;
        match variable {
            Variable::Set(value) => self.budget.spend(value.len())?,
            Variable::Unset => {}
            Variable::Unknown => {
                self.unknown.get_or_insert_with(|| name.to_owned());
            }
        }
        Ok(variable)
    }

    /// Up to the end of the text.
    pub(super) fn whole(&mut self) -> Result<Text, Fault> {
        self.spend(self.text.len())?;
        self.until(None, false)
    }

    /// Up to `stop`, which stands inside of braces.
    pub(super) fn inside(&mut self, stop: char, inside: Inside) -> Result<String, Fault> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Fault::Unclear("the depth of its braces"));
        }
        let outer = self.raw_escapes;
        self.raw_escapes = !matches!(inside, Inside::Plain);
        let text = self.until(Some(stop), matches!(inside, Inside::Pattern));
        self.raw_escapes = outer;
        self.depth -= 1;
        Ok(text?.text)
    }

    fn until(&mut self, stop: Option<char>, pattern: bool) -> Result<Text, Fault> {
        self.gathered.clear();
        let mut text = Text::default();
        let mut in_word = false;
        while let Some(char) = self.peek() {
            if Some(char) == stop {
                self.next();
                self.end_word(&mut text.words, &mut in_word);
                return Ok(text);
            }
            let raw = match char {
                '$' => {
                    let value = self.dollar()?;
                    for char in value.chars() {
                        self.gather(char, &mut text.words, &mut in_word);
                    }
                    text.text.push_str(&value);
                    continue;
                }
                '<' => self.less_than(),
                '\'' => self.single_quoted(pattern)?,
                '"' => self.double_quoted(pattern)?,
                char if char == self.escape => self.escaped(),
                char => {
                    self.next();
                    self.gather(char, &mut text.words, &mut in_word);
                    text.text.push(char);
                    continue;
                }
            };
            self.gathered.push_str(&raw);
            in_word = true;
            text.text.push_str(&raw);
        }
        if let Some(stop) = stop {
            return Err(Fault::Wrong(format!("there is no {stop}")));
        }
        self.end_word(&mut text.words, &mut in_word);
        Ok(text)
    }

    /// Adds a character that ends the word if it is blank.
    fn gather(&mut self, char: char, words: &mut Vec<String>, in_word: &mut bool) {
        if !char.is_whitespace() {
            self.gathered.push(char);
            *in_word = true;
        } else if *in_word {
            self.end_word(words, in_word);
        }
    }

    fn end_word(&mut self, words: &mut Vec<String>, in_word: &mut bool) {
        if !self.gathered.is_empty() {
            words.push(std::mem::take(&mut self.gathered));
            *in_word = false;
        }
    }

    /// `<`, or `<<` with the blanks after it, which belong to the same word.
    fn less_than(&mut self) -> String {
        self.next();
        if self.peek() != Some('<') {
            return "<".to_owned();
        }
        self.next();
        let mut text = "<<".to_owned();
        while let Some(blank @ ('\t' | '\r' | ' ')) = self.peek() {
            self.next();
            text.push(blank);
        }
        text
    }

    /// An escaped character; nothing at the end of the text.
    fn escaped(&mut self) -> String {
        let escape = self.next().filter(|_| self.raw_escapes);
        escape.into_iter().chain(self.next()).collect()
    }

    fn single_quoted(&mut self, pattern: bool) -> Result<String, Fault> {
        let mut text = String::new();
        let quote = self.next();
        text.extend(quote.filter(|_| self.raw_quotes));
        loop {
            match self.next() {
                None => return Err(Fault::Wrong("there is no closing '".to_owned())),
                Some('\'') => {
                    text.extend(quote.filter(|_| self.raw_quotes));
                    return Ok(text);
                }
                Some(char) => {
                    if pattern && char == self.escape {
                        text.push(char);
                    }
                    text.push(char);
                }
            }
        }
    }

    fn double_quoted(&mut self, pattern: bool) -> Result<String, Fault> {
        let mut text = String::new();
        let quote = self.next();
        text.extend(quote.filter(|_| self.raw_quotes));
        loop {
            match self.peek() {
                None => return Err(Fault::Wrong("there is no closing \"".to_owned())),
                Some('"') => {
                    self.next();
                    text.extend(quote.filter(|_| self.raw_quotes));
                    return Ok(text);
                }
                Some('$') => text.push_str(&self.dollar()?),
                Some(char) if char == self.escape => {
                    self.next();
                    self.escaped_in_quotes(pattern, &mut text);
                }
                Some(char) => {
                    self.next();
                    text.push(char);
                }
            }
        }
    }

    /// What comes after an escape character within double quotes: few characters can be escaped there.
    fn escaped_in_quotes(&mut self, pattern: bool, text: &mut String) {
        let escape = self.escape;
        let Some(char) = self.peek() else {
            return;
        };
        if char == '"' || char == '$' || char == escape {
            if self.raw_escapes {
                text.push(escape);
            }
            self.next();
            text.push(char);
        } else {
            if self.raw_escapes && (!self.raw_quotes || pattern) {
                text.push(escape);
            }
            text.push(escape);
        }
    }
}
