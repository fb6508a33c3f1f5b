//! Keys of rows: texts and numbers, laid out so that they sort as their parts do.

use std::fmt;

/// The key of a row: a table's name and further parts.
///
/// A text ends with a zero byte, which no part contains, and a number is eight big-endian bytes:
/// so keys sort by their first part, then by their second, and no part runs into the next one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Vec<u8>);

impl Key {
    /// The key of everything in a table.
    pub fn table(name: &'static str) -> Self {
        Self(Vec::new()).text(name)
    }

    /// The key with one more text.
    #[must_use]
    pub fn text(mut self, part: &str) -> Self {
        debug_assert!(!part.contains('\0'), "ids and names have no zero byte");
        self.0.extend_from_slice(part.as_bytes());
        self.0.push(0);
        self
    }

    /// The key with one more number.
    #[must_use]
    pub fn number(mut self, part: u64) -> Self {
        self.0.extend_from_slice(&part.to_be_bytes());
        self
    }

    /// A key that was read from a store.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, given away.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The least key that is greater than every key that begins with this one.
    pub fn end(&self) -> Vec<u8> {
        let mut end = self.0.clone();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                return end;
            }
        }
        // Only a key of nothing but 0xff bytes gets here; a table's name ends with a zero.
        end
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// The number at the end of a key.
pub(crate) fn last_number(key: &[u8]) -> Option<u64> {
    key.last_chunk::<8>()
        .map(|bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_their_parts_do() {
        let sorted = [
            Key::table("a").text("x").number(2),
            Key::table("a").text("x").number(256),
            Key::table("a").text("x-y").number(0),
            Key::table("a").text("xy").number(1),
            Key::table("a-b").text("x").number(1),
        ];
        assert!(sorted.is_sorted());
    }

    #[test]
    fn the_end_of_a_key_stands_behind_all_that_begin_with_it() {
        let key = Key::table("a").text("x");
        assert!(key.clone().number(u64::MAX).as_bytes() < key.end().as_slice());
        assert!(Key::table("a").text("x-").as_bytes() > key.end().as_slice());
        let number = Key::table("a").number(u64::MAX);
        assert!(number.clone().text("x").as_bytes() < number.end().as_slice());
        assert_eq!(last_number(number.as_bytes()), Some(u64::MAX));
    }
}
