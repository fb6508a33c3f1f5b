//! Any of many byte strings, found in one pass over bytes that may come in pieces.
//!
//! Made for secret values: what it holds is wiped when it goes and has no text form, it takes hardly
//! more memory than the strings do, and it says when a text that breaks off may still become one of
//! them. An Aho-Corasick automaton has a node for each of their bytes, of which half a megabyte in a
//! dozen forms has too many, and its nodes cannot be wiped.

use zeroize::Zeroizing;

/// The least bytes of a string: what the table of beginnings looks at.
pub(crate) const NEEDLE_BYTES_MIN: usize = 4;

/// Bits of the table of beginnings for each string, so that it says "perhaps" to one text in many.
const BITS_PER_NEEDLE: usize = 64;
/// The table is no smaller than a memory page, and stays within a processor's cache.
const TABLE_BITS_MIN: usize = 1 << 15;
const TABLE_BITS_MAX: usize = 1 << 22;

/// Byte strings to look for.
pub(crate) struct Needles {
    /// Sorted, none twice.
    sorted: Vec<Zeroizing<Vec<u8>>>,
    beginnings: Beginnings,
    bytes_max: usize,
}

impl Needles {
    /// Looks for these strings; those that are shorter than [`NEEDLE_BYTES_MIN`] are left out.
    pub(crate) fn new(mut needles: Vec<Zeroizing<Vec<u8>>>) -> Self {
        needles.retain(|needle| needle.len() >= NEEDLE_BYTES_MIN);
        needles.sort_unstable_by(|one, other| one.as_slice().cmp(other));
        needles.dedup();
        Self {
            beginnings: Beginnings::new(&needles),
            bytes_max: needles.iter().map(|needle| needle.len()).max().unwrap_or(0),
            sorted: needles,
        }
    }

    /// Whether there is nothing to look for.
    pub(crate) fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// The length of the longest one in bytes.
    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// How many bytes of `text` can be passed over, because none of the strings begins at them.
    pub(crate) fn skip(&self, text: &[u8]) -> usize {
        let mut windows = text.windows(NEEDLE_BYTES_MIN);
        windows
            .position(|window| self.beginnings.may_begin(window))
            // The last bytes are too few to say.
            .unwrap_or_else(|| text.len().saturating_sub(NEEDLE_BYTES_MIN - 1))
    }

    /// The longest of the strings that `text` begins with.
    pub(crate) fn longest(&self, text: &[u8]) -> Option<&[u8]> {
        let mut text = text.get(..self.bytes_max).unwrap_or(text);
        loop {
            let after = self
                .sorted
                .partition_point(|needle| needle.as_slice() <= text);
            let before = self.sorted.get(after.checked_sub(1)?)?.as_slice();
            let shared = shared_bytes(before, text);
            if shared == before.len() {
                return Some(before);
            }
            // A longer one with the text's beginning would stand between the two.
            text = text.get(..shared)?;
        }
    }

    /// All of the strings that `text` begins with, the longest first.
    pub(crate) fn all(&self, text: &[u8]) -> impl Iterator<Item = &[u8]> {
        let shorter = |found: &&[u8]| self.longest(found.get(..found.len().checked_sub(1)?)?);
        std::iter::successors(self.longest(text), shorter)
    }

    /// Whether `text` is the beginning of a string that is longer than it.
    pub(crate) fn continues(&self, text: &[u8]) -> bool {
        let after = self
            .sorted
            .partition_point(|needle| needle.as_slice() <= text);
        let next = self.sorted.get(after);
        next.is_some_and(|needle| needle.starts_with(text))
    }
}

fn shared_bytes(one: &[u8], other: &[u8]) -> usize {
    one.iter()
        .zip(other)
        .take_while(|(one, other)| one == other)
        .count()
}

/// Which beginnings the strings have, as a table of bits: it may say yes to others, and never no to
/// one of them.
struct Beginnings {
    words: Zeroizing<Vec<u64>>,
    /// How far a hash is shifted to become a bit's place.
    shift: u32,
}

impl Beginnings {
    fn new(needles: &[Zeroizing<Vec<u8>>]) -> Self {
        let bits = needles
            .len()
            .saturating_mul(BITS_PER_NEEDLE)
            .clamp(TABLE_BITS_MIN, TABLE_BITS_MAX)
            .next_power_of_two();
        let mut table = Self {
            words: Zeroizing::new(vec![0; bits / 64]),
            shift: u32::BITS - bits.trailing_zeros(),
        };
        for needle in needles {
            let (word, bit) = table.place(needle);
            if let Some(word) = table.words.get_mut(word) {
                *word |= bit;
            }
        }
        table
    }

    fn may_begin(&self, window: &[u8]) -> bool {
        let (word, bit) = self.place(window);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    fn place(&self, text: &[u8]) -> (usize, u64) {
        let Some(beginning) = text.first_chunk::<NEEDLE_BYTES_MIN>() else {
            return (0, 0);
        };
        // Fibonacci hashing: the upper bits of the product are well mixed.
        let hash = u32::from_le_bytes(*beginning).wrapping_mul(0x9e37_79b1) >> self.shift;
        let word = usize::try_from(hash / 64).unwrap_or(usize::MAX);
        (word, 1 << (hash % 64))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn needles(texts: &[&str]) -> Needles {
        let owned = |text: &&str| Zeroizing::new(text.as_bytes().to_vec());
        Needles::new(texts.iter().map(owned).collect())
    }

    #[test]
    fn the_longest_of_several_that_fit_is_found() {
        let needles = needles(&["abcd", "abcdef", "abcdeg", "abzz", "bcde"]);
        let longest = |text: &str| needles.longest(text.as_bytes());
        assert_eq!(longest("abcdef!"), Some(&b"abcdef"[..]));
        assert_eq!(longest("abcdeh"), Some(&b"abcd"[..]));
        assert_eq!(longest("abcc"), None);
        assert_eq!(longest("zabcd"), None);
        assert_eq!(longest(""), None);
    }

    #[test]
    fn a_text_that_breaks_off_within_one_is_told() {
        let needles = needles(&["abcd", "abcdef"]);
        for text in ["a", "abc", "abcd", "abcde"] {
            assert!(needles.continues(text.as_bytes()), "{text}");
        }
        for text in ["abcdef", "abcdx", "b", "abcdefg"] {
            assert!(!needles.continues(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_is_too_short_to_look_for_is_left_out() {
        assert!(needles(&["abc", ""]).is_empty());
        assert_eq!(needles(&[]).longest(b"abc"), None);
    }

    fn word() -> impl Strategy<Value = Vec<u8>> {
        // Few letters, so that strings share beginnings.
        proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b')], 4..9)
    }

    proptest! {
        #[test]
        fn it_finds_what_looking_at_each_one_finds(
            words in proptest::collection::vec(word(), 0..12),
            text in proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b')], 0..14),
        ) {
            let sought = words.iter().cloned().map(Zeroizing::new).collect();
            let needles = Needles::new(sought);
            let begun: Vec<&Vec<u8>> = words.iter().filter(|word| text.starts_with(word)).collect();
            let longest = begun.iter().max_by_key(|word| word.len());
            prop_assert_eq!(needles.longest(&text), longest.map(|word| word.as_slice()));
            let all: BTreeSet<&[u8]> = needles.all(&text).collect();
            prop_assert_eq!(all, begun.iter().map(|word| word.as_slice()).collect());
            let continues = words
                .iter()
                .any(|word| word.len() > text.len() && word.starts_with(&text));
            prop_assert_eq!(needles.continues(&text), continues);
        }

        #[test]
        fn what_is_passed_over_begins_none(
            words in proptest::collection::vec(word(), 0..4),
            text in proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(b'c')], 0..40),
        ) {
            let sought = words.iter().cloned().map(Zeroizing::new).collect();
            let needles = Needles::new(sought);
            let skipped = needles.skip(&text);
            for at in 0..skipped {
                for word in &words {
                    prop_assert!(!text[at..].starts_with(word));
                    prop_assert!(!word.starts_with(&text[at..]));
                }
            }
        }
    }
}
