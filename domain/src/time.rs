//! Timestamps that cannot be made from the wall clock.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment in UTC, in whole microseconds.
///
/// Its text form is RFC 3339 with `Z` and exactly six fractional digits: the published client cuts
/// further digits off (contract/behaviour.md section 3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(DateTime<Utc>);

impl Timestamp {
    /// The moment `time`, cut to whole microseconds.
    pub fn new(time: DateTime<Utc>) -> Self {
        Self(time.trunc_subsecs(6))
    }

    /// The moment `micros` microseconds after the Unix epoch, if the calendar reaches it.
    pub fn from_unix_micros(micros: i64) -> Option<Self> {
        DateTime::from_timestamp_micros(micros).map(Self)
    }

    /// Microseconds since the Unix epoch.
    pub fn unix_micros(self) -> i64 {
        self.0.timestamp_micros()
    }

    /// Whole milliseconds since the Unix epoch; 0 for earlier moments.
    pub fn unix_millis(self) -> u64 {
        u64::try_from(self.0.timestamp_millis()).unwrap_or(0)
    }

    /// Whole milliseconds from `earlier` to this moment; 0 if it is not earlier.
    pub fn millis_since(self, earlier: Self) -> u64 {
        u64::try_from((self.0 - earlier.0).num_milliseconds()).unwrap_or(0)
    }

    /// Microseconds from `earlier` to this moment; 0 if it is not earlier.
    pub fn micros_since(self, earlier: Self) -> u64 {
        let micros = self.unix_micros().saturating_sub(earlier.unix_micros());
        u64::try_from(micros).unwrap_or(0)
    }

    /// This moment and `millis` milliseconds; the same moment if the calendar ends before that.
    #[must_use]
    pub fn plus_millis(self, millis: u64) -> Self {
        let delta = i64::try_from(millis)
            .ok()
            .and_then(chrono::TimeDelta::try_milliseconds);
        Self(
            delta
                .and_then(|delta| self.0.checked_add_signed(delta))
                .unwrap_or(self.0),
        )
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_rfc3339_opts(SecondsFormat::Micros, true))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = chrono::ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        DateTime::parse_from_rfc3339(text).map(|time| Self::new(time.with_timezone(&Utc)))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_has_six_digits_and_round_trips() {
        let time = Timestamp::from_unix_micros(1_700_000_000_000_120).unwrap();
        assert_eq!(time.to_string(), "2023-11-14T22:13:20.000120Z");
        assert_eq!(time.to_string().parse(), Ok(time));
    }
}
