//! The clocks: the wall clock, and one that a test sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, Utc};
use domain::ports::Clock;
use domain::time::Timestamp;

/// The wall clock of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the wall clock"
    )]
    fn now(&self) -> Timestamp {
        Timestamp::new(Utc::now())
    }
}

/// A clock that stands still until it is set. Clones show the same time.
///
/// ```
/// use commands::clock::ManualClock;
/// use domain::ports::Clock;
/// let clock = ManualClock::default();
/// let before = clock.now();
/// clock.advance_millis(1_500);
/// assert_eq!(clock.now().millis_since(before), 1_500);
/// ```
#[derive(Clone, Debug, Default)]
pub struct ManualClock {
    micros: Arc<AtomicI64>,
}

impl ManualClock {
    /// A clock that shows `time`.
    pub fn at(time: Timestamp) -> Self {
        let clock = Self::default();
        clock.set(time);
        clock
    }

    /// Makes it show `time`.
    pub fn set(&self, time: Timestamp) {
        self.micros.store(time.unix_micros(), Ordering::SeqCst);
    }

    /// Moves it `millis` milliseconds on.
    pub fn advance_millis(&self, millis: u64) {
        self.set(self.now().plus_millis(millis));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        let micros = self.micros.load(Ordering::SeqCst);
        Timestamp::from_unix_micros(micros).unwrap_or_else(|| Timestamp::new(DateTime::UNIX_EPOCH))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_reads_as_this_century_and_does_not_stand_still() {
        let start = SystemClock.now();
        assert!(start.unix_millis() > 1_600_000_000_000);
        while SystemClock.now() == start {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn clones_of_a_manual_clock_show_the_same_time() {
        let time = Timestamp::from_unix_micros(1_700_000_000_000_000).unwrap();
        let clock = ManualClock::at(time);
        let other = clock.clone();
        other.advance_millis(2);
        assert_eq!(clock.now().millis_since(time), 2);
    }
}
