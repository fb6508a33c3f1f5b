//! The patterns of `${name#pattern}`, `${name%pattern}` and `${name/pattern/replacement}`: `*` is any
//! run of characters, `?` any one, neither of them a line break.

/// A pattern, character by character.
pub(super) struct Pattern(Vec<Piece>);

#[derive(Clone, Copy)]
enum Piece {
    Any,
    Run,
    Exactly(char),
}

/// A backslash stands before something that cannot be escaped.
pub(super) struct BadEscape;

impl Pattern {
    pub(super) fn new(text: &str) -> Result<Self, BadEscape> {
        let mut chars = text.chars().peekable();
        let mut pieces = Vec::new();
        while let Some(char) = chars.next() {
            pieces.push(match char {
                '*' => Piece::Run,
                '?' => Piece::Any,
                // These two are escaped for the sake of the braces around, not in the pattern.
                '\\' if matches!(chars.peek(), Some('}' | '/')) => continue,
                '\\' => match chars.next() {
                    Some(escaped @ ('*' | '?' | '\\')) => Piece::Exactly(escaped),
                    _ => return Err(BadEscape),
                },
                other => Piece::Exactly(other),
            });
        }
        Ok(Self(pieces))
    }

    /// How many pieces it has.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The same pattern, read from its end.
    pub(super) fn reversed(mut self) -> Self {
        self.0.reverse();
        self
    }

    /// For each place in `value`, and the place after it: where the match that begins there ends.
    /// Runs are as long as can be if `greedy`, else as short as can be, the first before the second.
    pub(super) fn ends(&self, value: &[char], greedy: bool) -> Vec<Option<usize>> {
        // What is matched by nothing: the rest of the pattern after its last piece.
        let mut after: Vec<Option<usize>> = (0..=value.len()).map(Some).collect();
        for piece in self.0.iter().rev() {
            let mut here: Vec<Option<usize>> = vec![None; value.len() + 1];
            // From the end, for a run reaches over what comes after.
            let mut next_here: Option<usize> = None;
            for place in (0..=value.len()).rev() {
                let char = value.get(place).copied();
                let step = after.get(place + 1).copied().flatten();
                let end = match piece {
                    Piece::Exactly(expected) => step.filter(|_| char == Some(*expected)),
                    Piece::Any => step.filter(|_| char.is_some_and(|char| char != '\n')),
                    Piece::Run => {
                        let stop = after.get(place).copied().flatten();
                        let go_on = next_here.filter(|_| char.is_some_and(|char| char != '\n'));
                        if greedy {
                            go_on.or(stop)
                        } else {
                            stop.or(go_on)
                        }
                    }
                };
                if let Some(slot) = here.get_mut(place) {
                    *slot = end;
                }
                next_here = end;
            }
            after = here;
        }
        after
    }
}

/// `value` without its shortest or longest beginning that `pattern` matches.
pub(super) fn without_prefix(pattern: &Pattern, value: &[char], greedy: bool) -> String {
    let end = pattern.ends(value, greedy).first().copied().flatten();
    value.iter().skip(end.unwrap_or(0)).collect()
}

/// `value` without its shortest or longest end that `pattern` matches.
pub(super) fn without_suffix(pattern: Pattern, value: &[char], greedy: bool) -> String {
    let backwards: Vec<char> = value.iter().rev().copied().collect();
    let rest = without_prefix(&pattern.reversed(), &backwards, greedy);
    rest.chars().rev().collect()
}

/// `value` with the first match of `pattern`, or every match, replaced.
pub(super) fn replaced(pattern: &Pattern, value: &[char], replacement: &str, all: bool) -> String {
    let ends = pattern.ends(value, true);
    let mut text = String::new();
    let mut copied = 0;
    let mut place = 0;
    while place <= value.len() {
        let Some(end) = ends.get(place).copied().flatten() else {
            place += 1;
            continue;
        };
        text.extend(value.iter().skip(copied).take(place - copied));
        // Nothing, right after a match, is not another match.
        if end > copied || place == 0 {
            text.push_str(replacement);
        }
        copied = end;
        if !all {
            break;
        }
        place = if end > place { end } else { place + 1 };
    }
    text.extend(value.iter().skip(copied));
    text
}
