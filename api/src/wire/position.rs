//! A place in the event log as clients see it: text to keep and to hand back, and nothing to
//! calculate with. 16 lower-case hexadecimal digits, so that texts sort as events do and that none
//! can be taken for a time.

use domain::recorded::Position;
use serde::{Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// How many digits a position has.
const DIGITS: usize = 16;

/// A position as text, for example `000000000000002a`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WirePosition(pub Position);

/// A text that is no position of this service.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a position: hand back one that this service gave ({DIGITS} hexadecimal digits)")]
pub struct InvalidPosition;

impl fmt::Display for WirePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0DIGITS$x}", self.0.raw())
    }
}

impl FromStr for WirePosition {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != DIGITS || !text.bytes().all(digit) {
            return Err(InvalidPosition);
        }
        let raw = u64::from_str_radix(text, 16).map_err(|_| InvalidPosition)?;
        Ok(Self(Position::from_raw(raw)))
    }
}

impl Serialize for WirePosition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_position_comes_back_and_texts_sort_as_positions_do(a in any::<u64>(), b in any::<u64>()) {
            let (a, b) = (WirePosition(Position::from_raw(a)), WirePosition(Position::from_raw(b)));
            prop_assert_eq!(a.to_string().parse(), Ok(a));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }

        #[test]
        fn nothing_else_is_read_as_one(text in "[0-9a-fA-F+ ]{0,18}") {
            if let Ok(read) = text.parse::<WirePosition>() {
                prop_assert_eq!(read.to_string(), text);
            }
        }
    }
}
