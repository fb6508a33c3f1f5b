//! `RUN --mount=…`.

use super::problem::{ProblemKind, quoted};
use super::words::{Expanded, Word};

/// A mount, field by field.
pub(super) struct Mount {
    /// Names in lower case, and values if there are any.
    fields: Vec<(String, Option<String>)>,
}

/// A mount of a secret.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Secret {
    pub(super) id: Word,
    pub(super) required: bool,
}

impl Mount {
    /// From a flag's value.
    pub(super) fn parse(value: &str) -> Result<Self, ProblemKind> {
        let fields = fields(value).ok_or_else(|| ProblemKind::MountFields(quoted(value)))?;
        let fields: Vec<_> = fields
            .into_iter()
            .map(|field| match field.split_once('=') {
                Some((name, value)) => (super::instruction::lower(name), Some(value.to_owned())),
                None => (super::instruction::lower(&field), None),
            })
            .collect();
        let mount = Self { fields };
        for from in mount.values("from") {
            let dollar = from.find('$');
            if dollar.is_some_and(|at| at + 1 < from.len()) {
                return Err(ProblemKind::VariableInMount(quoted(from)));
            }
        }
        Ok(mount)
    }

    fn values(&self, wanted: &str) -> impl Iterator<Item = &str> {
        self.fields
            .iter()
            .filter(move |(name, _)| name == wanted)
            .filter_map(|(_, value)| value.as_deref())
    }

    /// The stage or image that is mounted, if one is named.
    pub(super) fn from(&self) -> Option<&str> {
        self.values("from").last().filter(|from| !from.is_empty())
    }

    /// The secret that is mounted, if it is one or may be one.
    pub(super) fn secret(
        &self,
        mut expand: impl FnMut(&str) -> Result<Expanded, ProblemKind>,
    ) -> Result<Option<Secret>, ProblemKind> {
        let nothing = || Word::Known(String::new());
        let (mut kind, mut id, mut source, mut target) =
            (nothing(), nothing(), nothing(), nothing());
        let mut required = false;
        for (name, value) in &self.fields {
            let field = match name.as_str() {
                "type" => &mut kind,
                "id" => &mut id,
                "source" | "src" => &mut source,
                "target" | "dst" | "destination" => &mut target,
                "required" => {
                    let value = value.as_deref().map(&mut expand).transpose()?;
                    required = value.is_none_or(|value| is_true(&value.word));
                    continue;
                }
                _ => continue,
            };
            if let Some(value) = value {
                *field = expand(value)?.word;
            }
        }
        match kind {
            Word::Known(kind) if super::instruction::lower(&kind) != "secret" => return Ok(None),
            Word::Known(_) => {}
            unknown @ Word::Unknown { .. } => {
                return Ok(Some(Secret {
                    id: unknown,
                    required,
                }));
            }
        }
        let given = [source, id].into_iter().find(|word| *word != nothing());
        let id = given.unwrap_or_else(|| match target {
            Word::Known(target) => Word::Known(base_name(&target)),
            unknown @ Word::Unknown { .. } => unknown,
        });
        Ok(Some(Secret { id, required }))
    }
}

/// What Go takes for true.
fn is_true(word: &Word) -> bool {
    matches!(
        word.known(),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True")
    )
}

/// The last part of a path.
fn base_name(path: &str) -> String {
    let trimmed = path.trim_end_matches('/');
    let name = trimmed.rsplit('/').next().unwrap_or_default();
    match (name, path) {
        ("", "") => ".".to_owned(),
        ("", _) => "/".to_owned(),
        (name, _) => name.to_owned(),
    }
}

/// The fields of a line of comma-separated values; none if its quotes are not in order.
fn fields(line: &str) -> Option<Vec<String>> {
    if line.is_empty() {
        return None;
    }
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let (field, after) = rest.split_at(end);
                (
                    Some(field).filter(|field| !field.contains('"'))?.to_owned(),
                    after,
                )
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(after) => rest = after,
            None => return after.is_empty().then_some(fields),
        }
    }
}

/// A field after its opening quote, and what comes after its closing quote.
fn quoted_field(mut rest: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    loop {
        let (text, after) = rest.split_once('"')?;
        field.push_str(text);
        match after.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None => return Some((field, after)),
        }
    }
}
