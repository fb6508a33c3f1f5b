//! The rate of the host's time-stamp counter.
//!
//! An emulated machine sees the host's counter, but has no timer good enough to measure its rate:
//! on a busy host its kernel fails to, and hangs. So it is told.

use std::time::{Duration, Instant};

use super::error::VmmError;

/// How long the counter is watched, in milliseconds.
const WATCH_MS: u64 = 50;

/// How often each end of the interval is read; the tightest reading counts.
const READINGS: usize = 20;

/// One reading: the counter, the time, and how far apart the two were at most.
fn read() -> (u64, Instant, Duration) {
    let before = Instant::now();
    #[expect(unsafe_code, reason = "the counter is read by an intrinsic")]
    // SAFETY: every x86-64 processor has the instruction, and it touches no memory.
    let counter = unsafe { core::arch::x86_64::_rdtsc() };
    (counter, before, before.elapsed())
}

/// The reading during which this thread was disturbed least.
fn read_tightly() -> Option<(u64, Instant)> {
    (0..READINGS)
        .map(|_| read())
        .min_by_key(|(_, _, spread)| *spread)
        .map(|(counter, at, _)| (counter, at))
}

/// Measures the rate in kHz.
pub(super) async fn measure_khz() -> Result<u64, VmmError> {
    let start = read_tightly();
    tokio::time::sleep(Duration::from_millis(WATCH_MS)).await;
    let rate = start.zip(read_tightly()).and_then(|((c0, t0), (c1, t1))| {
        let nanoseconds = t1.checked_duration_since(t0)?.as_nanos();
        let ticks = u128::from(c1.checked_sub(c0)?);
        u64::try_from(ticks.checked_mul(1_000_000)?.checked_div(nanoseconds)?).ok()
    });
    rate.filter(|khz| *khz > 0).ok_or_else(|| VmmError::System {
        doing: "measure the rate of the time-stamp counter",
        source: std::io::Error::other("it does not advance"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_measurements_agree() {
        let (one, two) = (measure_khz().await.unwrap(), measure_khz().await.unwrap());
        assert!(one.abs_diff(two) < one / 200, "{one} and {two} kHz");
    }
}
