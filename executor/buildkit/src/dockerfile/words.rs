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

#[cfg(test)]
mod tests {
    use super::*;

    /// `A` is `a`, `E` is empty, `P` is a path, `U` is not known; others have no value.
    struct Some;

    impl Variables for Some {
        fn look_up(&self, name: &str) -> (Variable<'_>, usize) {
            let variable = match name {
                "A" => Variable::Set("a"),
                "E" => Variable::Set(""),
                "P" => Variable::Set("/x/y.tar.gz"),
                "U" => Variable::Unknown,
                _ => Variable::Unset,
            };
            (variable, 1)
        }
    }

    /// The text, `? VARIABLE` if it is unknown, `! why` if there is none.
    fn expanded(word: &str, escape: char) -> String {
        match expand(word, escape, &Some, &mut Budget(10_000)) {
            Ok(Expanded {
                word: Word::Known(text),
                ..
            }) => text,
            Ok(Expanded {
                word: Word::Unknown { variable, .. },
                ..
            }) => format!("? {variable}"),
            Err(problem) => format!("! {problem}"),
        }
    }

    #[test]
    fn variables_quotes_and_escapes_are_replaced() {
        let cases = [
            ("$A", "a"),
            ("${A}b$A", "aba"),
            ("$Ab", ""),
            ("$", "$"),
            ("a$/b", "a$/b"),
            ("$$A", "A"),
            ("$1x", "x"),
            ("$12", ""),
            ("$?x", "x"),
            ("\\$A", "$A"),
            ("'$A'", "$A"),
            ("\"$A\"", "a"),
            ("\"\\$A\\n\\\"\"", "$A\\n\""),
            ("a\\b\\\\c\\", "ab\\c"),
            ("'a\\'", "a\\"),
            ("a\"b c\"'d  e'", "ab cd  e"),
            ("\u{feff}a", "a"),
            ("a\u{feff}", "a\u{feff}"),
            ("<<$A", "<<a"),
            ("${N:-$A}", "a"),
            ("${N:-'$A'}", "$A"),
            ("${N:-\\}}", "}"),
            ("${E-x}${E:-y}${E+z}${E:+no}", "yz"),
            ("${N:-${N:-${A}}}", "a"),
            ("${P#*/}", "x/y.tar.gz"),
            ("${P##*/}", "y.tar.gz"),
            ("${P%.*}", "/x/y.tar"),
            ("${P%%.*}", "/x/y"),
            ("${P#\\/x}", "/y.tar.gz"),
            ("${P#'/'x\"/\"}", "y.tar.gz"),
            ("${P/\\/x/z}", "z/y.tar.gz"),
            ("${P//r/R}", "/x/y.taR.gz"),
            ("${N#x}${N/a/b}", ""),
            ("${A:?}${E?}", "a"),
        ];
        for (word, expected) in cases {
            assert_eq!(expanded(word, '\\'), expected, "{word}");
        }
    }

    #[test]
    fn a_backtick_escapes_if_it_is_the_escape_character() {
        assert_eq!(expanded("`$A\\$A`` \"`$A`b\"", '`'), "$A\\a` $A`b");
    }

    #[test]
    fn what_hangs_on_an_unknown_variable_is_unknown() {
        for word in [
            "$U", "${U:-a}", "${U+a}", "${U?}", "${U#a}", "${U/a/b}", "${N:-$U}", "\"$U\"",
        ] {
            assert_eq!(expanded(word, '\\'), "? U", "{word}");
        }
        assert_eq!(expanded("'$U'\\$U", '\\'), "$U$U");
    }

    #[test]
    fn what_is_no_word_says_why() {
        let cases = [
            ("'a", "there is no closing '"),
            ("\"a", "there is no closing \""),
            ("${A", "the operator  is not supported"),
            ("${", "not a substitution"),
            ("${}", "not a substitution"),
            ("${:-a}", "not a substitution"),
            ("${A:-b", "there is no }"),
            ("${A/b}", "there is no /"),
            ("${A!}", "the operator ! is not supported"),
            ("${A:#b}", "the operator # is not supported"),
            ("${A#\\b}", "the pattern has an invalid escape"),
            ("${N?}", "N: has no value"),
            ("${E:?is needed}", "E: is needed"),
        ];
        for (word, reason) in cases {
            assert_eq!(
                expanded(word, '\\'),
                format!("! {word}: {reason}"),
                "{word}"
            );
        }
    }

    #[test]
    fn what_is_not_followed_to_the_end_is_not_guessed() {
        let deep = "${N:-".repeat(40) + &"}".repeat(40);
        let cases = [
            "$é",
            "$Aé",
            "${A²}",
            "${A//a/$N\\$1}",
            "${A#\u{feff}}",
            &deep,
        ];
        for word in cases {
            let problem = expand(word, '\\', &Some, &mut Budget(10_000)).unwrap_err();
            let given_up = matches!(problem, ProblemKind::NotUnderstood { .. });
            assert!(given_up, "{word}: {problem:?}");
        }
    }

    #[test]
    fn the_work_is_bounded() {
        let long = "${P//?/aaaaaaaaaa}".repeat(10);
        let problem = expand(&long, '\\', &Some, &mut Budget(1_000)).unwrap_err();
        assert_eq!(problem, ProblemKind::TooMuchExpansion);
        expand(&long, '\\', &Some, &mut Budget(10_000)).unwrap();
    }

    #[test]
    fn a_line_asks_for_the_here_documents_that_stand_outside_of_quotes() {
        let cases: [(&str, &[&str]); 14] = [
            ("RUN <<EOF", &["EOF"]),
            ("RUN <<-EOF", &["-EOF"]),
            ("RUN 3<<\"a b\" <<'c'd", &["a b", "cd"]),
            ("RUN << \t EOF >x", &["EOF"]),
            ("RUN <<$A", &["$A"]),
            ("RUN <<${A:-b}", &[]),
            ("RUN a<<b", &[]),
            ("RUN <<<a", &[]),
            ("RUN '<<a'", &[]),
            ("RUN \\<<a", &[]),
            ("RUN <<a <<\"b", &[]),
            ("RUN <<", &[]),
            ("RUN <<a\\\\", &["a\\"]),
            ("RUN ${A:1} <<a", &["a"]),
        ];
        for (line, expected) in cases {
            let found = heredocs(line, &mut Budget(10_000)).unwrap();
            let names = found.into_iter().map(|found| {
                let chomp = if found.chomp { "-" } else { "" };
                format!("{chomp}{}", found.name)
            });
            assert_eq!(names.collect::<Vec<_>>(), expected, "{line}");
        }
    }
}
