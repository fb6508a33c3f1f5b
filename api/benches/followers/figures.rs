//! Many durations, and what most of them are.

use std::time::Duration;

/// How finely durations are told apart.
const STEP: Duration = Duration::from_micros(100);
/// All that are longer count as this many steps: ten seconds.
const STEP_COUNT: usize = 100_000;

/// How many durations there were of each length.
#[derive(Clone, Debug)]
pub(crate) struct Delays {
    counts: Vec<u64>,
}

impl Delays {
    pub(crate) fn new() -> Self {
        Self {
            counts: vec![0; STEP_COUNT + 1],
        }
    }

    pub(crate) fn add(&mut self, delay: Duration) {
        let step = delay.as_micros() / STEP.as_micros();
        let step = usize::try_from(step).unwrap_or(STEP_COUNT).min(STEP_COUNT);
        if let Some(count) = self.counts.get_mut(step) {
            *count += 1;
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The duration that this share of all does not exceed.
    #[expect(
        clippy::as_conversions,
        clippy::cast_precision_loss,
        reason = "a share of a count is no whole number"
    )]
    pub(crate) fn at(&self, share: f64) -> Duration {
        let wanted = share * self.count() as f64;
        let mut seen = 0;
        for (step, count) in (1..).zip(&self.counts) {
            seen += count;
            if seen as f64 >= wanted {
                return STEP * step;
            }
        }
        Duration::MAX
    }

    pub(crate) fn text(&self) -> String {
        let [p50, p99] = [0.50, 0.99].map(|share| millis(self.at(share)));
        format!("p50 {p50} ms, p99 {p99} ms (of {} lines)", self.count())
    }
}

pub(crate) fn millis(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1_000.0)
}
