//! Hides secret values in what a build writes: in streams of bytes before they become lines, however
//! they are cut, and in single texts.
//!
//! It knows the values as they are, their lines, and their usual encodings (`secrets::forms`). It does
//! what can be done: whoever prints a value backwards gets it past this.

use std::borrow::Cow;
use std::sync::Arc;

use domain::name::SecretId;
use zeroize::Zeroizing;

use crate::limits::secrets::SecretLimits;
use crate::secrets::forms;
use crate::secrets::needles::Needles;

/// What stands in the place of a value, as in the published client's own output.
pub const REDACTED: &str = "[REDACTED]";

/// What one build's log must not show. Clones share it.
#[derive(Clone)]
pub struct Mask(Arc<Hidden>);

struct Hidden {
    needles: Needles,
    ids: Vec<SecretId>,
    /// Those whose values are too short to be hidden.
    short: Vec<SecretId>,
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mask")
            .field("ids", &self.0.ids)
            .finish_non_exhaustive()
    }
}

impl Mask {
    /// Hides nothing.
    pub fn nothing() -> Self {
        Self::new([], &SecretLimits::default())
    }

    /// Hides these values.
    pub fn new<'a>(
        values: impl IntoIterator<Item = (&'a SecretId, &'a [u8])>,
        limits: &SecretLimits,
    ) -> Self {
        let (mut needles, mut ids, mut short) = (Vec::new(), Vec::new(), Vec::new());
        for (id, value) in values {
            ids.push(id.clone());
            if (1..limits.masked_bytes_min).contains(&value.trim_ascii().len()) {
                short.push(id.clone());
            }
            needles.extend(forms::for_log(value, limits));
        }
        Self(Arc::new(Hidden {
            needles: Needles::new(needles),
            ids,
            short,
        }))
    }

    /// The secrets whose values are too short to be hidden: they would hide half of the log.
    pub fn not_hidden(&self) -> &[SecretId] {
        &self.0.short
    }

    /// The text without the values.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.0.needles.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut out = Vec::new();
        let mut scan = Scan::default();
        self.scan(text.as_bytes(), true, &mut scan, &mut out);
        match scan.hidden_to {
            None => Cow::Borrowed(text),
            // A form of bytes that are no text may have taken half of a character with it.
            Some(_) => Cow::Owned(String::from_utf8_lossy(&out).into_owned()),
        }
    }

    /// As [`Mask::text`], of a text that is owned.
    pub fn hide(&self, text: String) -> String {
        match self.text(&text) {
            Cow::Borrowed(_) => text,
            Cow::Owned(hidden) => hidden,
        }
    }

    /// A stream of output.
    pub fn stream(&self) -> MaskedStream {
        MaskedStream {
            mask: self.clone(),
            held: Zeroizing::default(),
            hidden_to: None,
        }
    }

    /// Passes `text` on without the values, up to where more of it could still become one.
    fn scan(&self, text: &[u8], is_whole: bool, scan: &mut Scan, out: &mut Vec<u8>) {
        let needles = &self.0.needles;
        if needles.is_empty() {
            scan.pass(text, text.len(), out);
            return;
        }
        while let Some(rest) = text.get(scan.at..).filter(|rest| !rest.is_empty()) {
            let skipped = needles.skip(rest);
            if skipped > 0 {
                scan.pass(text, skipped, out);
                continue;
            }
            let is_open = !is_whole && rest.len() < needles.bytes_max();
            if is_open && needles.continues(rest) {
                return;
            }
            if let Some(found) = needles.longest(rest) {
                scan.hide(found.len(), out);
            }
            scan.pass(text, 1, out);
        }
    }
}

/// How far a text was looked through.
#[derive(Debug, Default)]
struct Scan {
    /// What comes next.
    at: usize,
    /// To where the last value reaches that was found.
    hidden_to: Option<usize>,
}

impl Scan {
    /// Marks `bytes` from here on. Values that overlap or touch become one mark.
    fn hide(&mut self, bytes: usize, out: &mut Vec<u8>) {
        let end = self.at + bytes;
        match self.hidden_to {
            Some(hidden_to) if self.at <= hidden_to => self.hidden_to = Some(hidden_to.max(end)),
            Some(_) | None => {
                out.extend_from_slice(REDACTED.as_bytes());
                self.hidden_to = Some(end);
            }
        }
    }

    /// Goes on by `bytes`, of which those that are not hidden are passed on.
    fn pass(&mut self, text: &[u8], bytes: usize, out: &mut Vec<u8>) {
        let end = self.at + bytes;
        let from = self
            .hidden_to
            .map_or(self.at, |hidden_to| hidden_to.max(self.at));
        out.extend_from_slice(text.get(from..end).unwrap_or_default());
        self.at = end;
    }
}

/// One stream of output without the values, whatever the pieces in which it comes.
pub struct MaskedStream {
    mask: Mask,
    /// What may still become a value: less than the longest piece of one.
    held: Zeroizing<Vec<u8>>,
    /// To where in it the last value reaches.
    hidden_to: Option<usize>,
}

impl std::fmt::Debug for MaskedStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MaskedStream")
            .field("held_bytes", &self.held.len())
            .finish_non_exhaustive()
    }
}

impl MaskedStream {
    /// Takes bytes and appends to `out` what can be told of the stream.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.held.is_empty() {
            self.take(bytes, false, out);
            return;
        }
        let mut text = std::mem::take(&mut self.held);
        text.extend_from_slice(bytes);
        self.take(&text, false, out);
    }

    /// Ends the stream, or lets what was held back go: it became no value.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        let text = std::mem::take(&mut self.held);
        self.take(&text, true, out);
    }

    fn take(&mut self, text: &[u8], is_whole: bool, out: &mut Vec<u8>) {
        let mut scan = Scan {
            at: 0,
            hidden_to: self.hidden_to,
        };
        self.mask.scan(text, is_whole, &mut scan, out);
        self.hidden_to = scan
            .hidden_to
            .and_then(|hidden_to| hidden_to.checked_sub(scan.at));
        self.held
            .extend_from_slice(text.get(scan.at..).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mask_of(values: &[&[u8]]) -> Mask {
        let ids: Vec<SecretId> = (0..values.len())
            .map(|number| format!("id{number}").parse().unwrap())
            .collect();
        Mask::new(
            ids.iter().zip(values.iter().copied()),
            &SecretLimits::default(),
        )
    }

    fn streamed(mask: &Mask, chunks: &[&[u8]]) -> Vec<u8> {
        let (mut stream, mut out) = (mask.stream(), Vec::new());
        for chunk in chunks {
            stream.push(chunk, &mut out);
        }
        stream.flush(&mut out);
        out
    }

    fn cut<'a>(text: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(text.len());
        let mut from = 0;
        let piece = |to: usize| &text[std::mem::replace(&mut from, to)..to];
        cuts.into_iter().map(piece).collect()
    }

    #[test]
    fn a_value_that_comes_in_pieces_is_hidden() {
        let mask = mask_of(&[b"hunter2hunter2"]);
        let out = streamed(&mask, &[b"it is hun", b"ter2h", b"", b"unter2\nnext"]);
        assert_eq!(out, b"it is [REDACTED]\nnext");
    }

    #[test]
    fn what_cannot_become_a_value_is_not_held_back() {
        let mask = mask_of(&[b"hunter2hunter2"]);
        let (mut stream, mut out) = (mask.stream(), Vec::new());
        stream.push(b"Listening on port 80\n", &mut out);
        assert_eq!(out, b"Listening on port 80\n");
        stream.push(b"the hunt", &mut out);
        assert_eq!(out, b"Listening on port 80\nthe ");
        stream.push(b" is over", &mut out);
        assert_eq!(out, b"Listening on port 80\nthe hunt is over");
        stream.push(b", hunter2", &mut out);
        stream.flush(&mut out);
        assert!(out.ends_with(b"is over, hunter2"));
    }

    #[test]
    fn values_that_overlap_or_touch_are_hidden_whole() {
        let mask = mask_of(&[b"abcdefgh", b"efghijkl"]);
        assert_eq!(mask.text("<abcdefghijkl>"), "<[REDACTED]>");
        assert_eq!(mask.text("<abcdefghabcdefgh>"), "<[REDACTED]>");
        assert_eq!(mask.text("<abcdefgh efghijkl>"), "<[REDACTED] [REDACTED]>");
        assert_eq!(
            streamed(&mask, &[b"<abcdef", b"ghabcd", b"efghijk", b"l>"]),
            b"<[REDACTED]>"
        );
    }

    #[test]
    fn a_long_value_becomes_one_mark_and_so_does_a_part_of_it() {
        let parts: Vec<String> = (0..1000).map(|number| format!("{number:06}")).collect();
        let value = parts.concat();
        let mask = mask_of(&[value.as_bytes()]);
        assert_eq!(mask.text(&format!("<{value}>")), "<[REDACTED]>");
        let half = mask.text(&value[..3000]);
        assert!(half.starts_with(REDACTED) && half.len() < 300, "{half}");
    }

    #[test]
    fn short_values_are_told_and_not_hidden() {
        let mask = mask_of(&[b"12345\n", b"", b"123456"]);
        assert_eq!(mask.not_hidden(), ["id0".parse::<SecretId>().unwrap()]);
        assert_eq!(mask.text("12345 and 123456"), "12345 and [REDACTED]");
    }

    #[test]
    fn a_text_without_values_stays_as_it_is() {
        let mask = mask_of(&[b"hunter2hunter2"]);
        assert!(matches!(
            mask.text("nothing here, hunter2"),
            Cow::Borrowed(_)
        ));
        assert!(matches!(Mask::nothing().text("anything"), Cow::Borrowed(_)));
    }

    #[test]
    fn bytes_that_are_no_text_are_hidden_too() {
        let mask = mask_of(&[b"\xff\xfe\x00secret\xc3"]);
        assert_eq!(
            streamed(&mask, &[b"a\xff\xfe\x00sec", b"ret\xc3\xa9"]),
            b"a[REDACTED]\xa9"
        );
    }

    #[test]
    fn no_text_form_shows_a_value() {
        let mask = mask_of(&[b"pl4nted-value"]);
        let mut stream = mask.stream();
        stream.push(b"pl4nted", &mut Vec::new());
        let shown = format!("{mask:?} {stream:?}");
        assert!(
            shown.contains("id0") && !shown.contains("pl4nted"),
            "{shown}"
        );
    }

    /// Values without the letters of the mark, so that no text of its own looks like one.
    fn value() -> impl Strategy<Value = Vec<u8>> {
        let byte =
            prop_oneof![4 => b'a'..=b'e', 1 => Just(b'\n'), 1 => Just(b' '), 1 => 0xc0_u8..0xff];
        proptest::collection::vec(byte, 6..40)
    }

    /// Texts in which the values, their forms and beginnings of them are frequent.
    fn text(values: Vec<Vec<u8>>) -> impl Strategy<Value = (Vec<Vec<u8>>, Vec<u8>)> {
        let forms: Vec<Vec<u8>> = values
            .iter()
            .flat_map(|value| forms::for_log(value, &SecretLimits::default()))
            .map(|form| form.to_vec())
            .collect();
        let part = prop_oneof![
            3 => proptest::sample::select(forms.clone()),
            2 => (proptest::sample::select(forms), 0_usize..8).prop_map(|(form, cut)| {
                form[..form.len() - cut.min(form.len())].to_vec()
            }),
            2 => proptest::collection::vec(b'a'..=b'e', 0..6),
        ];
        proptest::collection::vec(part, 0..6)
            .prop_map(move |parts| (values.clone(), parts.concat()))
    }

    fn contains(text: &[u8], part: &[u8]) -> bool {
        text.windows(part.len()).any(|window| window == part)
    }

    proptest! {
        #[test]
        fn no_form_of_a_value_comes_out_and_the_pieces_do_not_matter(
            (values, text) in proptest::collection::vec(value(), 1..3).prop_flat_map(text),
            cuts in proptest::collection::vec(any::<usize>(), 0..8),
        ) {
            let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
            let mask = mask_of(&values);
            let out = streamed(&mask, &cut(&text, &cuts));
            for form in values.iter().flat_map(|value| forms::for_log(value, &SecretLimits::default())) {
                prop_assert!(!contains(&out, &form), "{:?} in {:?}", form.as_slice(), out);
            }
            prop_assert_eq!(&out, &streamed(&mask, &[&text]));
        }

        #[test]
        fn everything_but_the_forms_comes_out_as_it_went_in(
            value in value(),
            parts in proptest::collection::vec("[f-z]{0,9}", 1..6),
            cuts in proptest::collection::vec(any::<usize>(), 0..8),
        ) {
            // Between marks, text that shares no byte with any form.
            let whole = forms::for_log(&value, &SecretLimits::default());
            let bytes: Vec<u8> = whole.iter().flat_map(|form| form.to_vec()).collect();
            let parts: Vec<Vec<u8>> = parts
                .iter()
                .map(|part| part.bytes().filter(|byte| !bytes.contains(byte)).collect::<Vec<u8>>())
                .filter(|part: &Vec<u8>| !part.is_empty())
                .collect();
            let mask = mask_of(&[&value]);
            let text = parts.join(&whole[0][..]);
            let expected = parts.join(REDACTED.as_bytes());
            prop_assert_eq!(streamed(&mask, &cut(&text, &cuts)), expected);
        }

        #[test]
        fn what_is_held_back_has_a_bound(
            value in value(),
            chunks in proptest::collection::vec(proptest::collection::vec(b'a'..=b'e', 0..50), 0..10),
        ) {
            let mask = mask_of(&[&value]);
            let mut stream = mask.stream();
            for chunk in &chunks {
                stream.push(chunk, &mut Vec::new());
                prop_assert!(stream.held.len() < mask.0.needles.bytes_max());
            }
        }
    }
}
