use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::*;
use domain::time::Timestamp;

fn line(at: i64, text: impl Into<String>) -> LogLine {
    LogLine {
        stream: LogStream::Stdout,
        at: Timestamp::from_unix_micros(at).unwrap(),
        text: text.into(),
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sink is full")]
struct SinkFull;

fn lines_of(batch: Vec<StepLines>) -> impl Iterator<Item = LogLine> {
    batch.into_iter().flat_map(|of_step| of_step.lines)
}

/// What a sink was given, and when on the paused clock.
type Seen = Arc<Mutex<Vec<(Duration, Vec<String>)>>>;

fn texts(seen: &Seen) -> Vec<Vec<String>> {
    let seen = seen.lock().unwrap();
    seen.iter().map(|(_, texts)| texts.clone()).collect()
}

fn batcher(limits: OutputLimits) -> (Batcher<SinkFull>, Seen) {
    let seen = Seen::default();
    let (record, began) = (Arc::clone(&seen), Instant::now());
    let budget = Arc::new(LogBudget::new(&limits));
    let batcher = Batcher::spawn(limits, budget, move |batch: Vec<StepLines>| {
        let texts = lines_of(batch).map(|line| line.text).collect();
        record.lock().unwrap().push((began.elapsed(), texts));
        std::future::ready(Ok(()))
    });
    (batcher, seen)
}

#[tokio::test(start_paused = true)]
async fn a_batch_goes_out_after_its_first_line_has_waited() {
    let (batcher, seen) = batcher(OutputLimits::default());
    let sender = batcher.sender();
    sender.send(None, line(0, "one")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(15)).await;
    sender.send(None, line(15, "two")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    sender.send(None, line(115, "three")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let expected = [
        (
            Duration::from_millis(20),
            vec!["one".to_owned(), "two".to_owned()],
        ),
        (Duration::from_millis(135), vec!["three".to_owned()]),
    ];
    // The paused clock moves in whole milliseconds: a timer fires in the one after its own.
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.len(), expected.len());
    for ((at, texts), (due, lines)) in seen.iter().zip(&expected) {
        assert_eq!(texts, lines);
        assert!(
            *at >= *due && *at <= *due + Duration::from_millis(1),
            "{at:?}, due {due:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_goes_out_at_its_size_without_waiting() {
    let (batcher, seen) = batcher(OutputLimits {
        batch_bytes_max: 100,
        line_overhead_bytes: 10,
        ..OutputLimits::default()
    });
    let began = Instant::now();
    let sender = batcher.sender();
    // 40 + 10 twice is just the size; 60 + 10 does not fit beside 40 + 10.
    for (at, size) in [(0, 40), (1, 40), (2, 40), (3, 60)] {
        sender.send(None, line(at, "x".repeat(size))).await.unwrap();
    }
    let summary = batcher.finish().await.unwrap();
    let sizes: Vec<Vec<usize>> = texts(&seen)
        .iter()
        .map(|batch| batch.iter().map(String::len).collect())
        .collect();
    assert_eq!(sizes, [vec![40, 40], vec![40], vec![60]]);
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!((summary.batches, summary.lines), (3, 4));
}

#[tokio::test(start_paused = true)]
async fn a_flush_returns_when_earlier_lines_are_with_the_sink() {
    let (batcher, seen) = batcher(OutputLimits::default());
    let sender = batcher.sender();
    let began = Instant::now();
    sender.send(None, line(0, "before")).await.unwrap();
    sender.flush().await.unwrap();
    assert_eq!(texts(&seen), [["before"]]);
    sender.flush().await.unwrap();
    assert_eq!(
        texts(&seen).len(),
        1,
        "an empty batch was given to the sink"
    );
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn finishing_keeps_the_order_and_loses_nothing() {
    let (batcher, seen) = batcher(OutputLimits {
        batch_bytes_max: 1000,
        ..OutputLimits::default()
    });
    let sender = batcher.sender();
    for at in 0..500 {
        sender.send(None, line(at, at.to_string())).await.unwrap();
    }
    let summary = batcher.finish().await.unwrap();
    let expected: Vec<String> = (0..500).map(|at| at.to_string()).collect();
    assert_eq!(texts(&seen).concat(), expected);
    assert_eq!(summary.lines, 500);
    assert_eq!(sender.send(None, line(0, "late")).await, Err(LogClosed));
    assert_eq!(sender.flush().await, Err(LogClosed));
}

#[tokio::test(start_paused = true)]
async fn a_slow_sink_holds_its_producer_back() {
    let limits = OutputLimits {
        queue_lines_max: 4,
        batch_bytes_max: 1,
        ..OutputLimits::default()
    };
    let gate = Arc::new(Semaphore::new(0));
    let passes = Arc::clone(&gate);
    let budget = Arc::new(LogBudget::new(&limits));
    let batcher = Batcher::spawn(limits, budget, move |_: Vec<StepLines>| {
        let passes = Arc::clone(&passes);
        async move {
            passes.acquire().await.map_err(|_| SinkFull)?.forget();
            Ok::<_, SinkFull>(())
        }
    });
    let sender = batcher.sender();
    let mut sent = 0;
    // On the paused clock the wait runs out only when nothing else can move.
    while tokio::time::timeout(Duration::from_secs(1), sender.send(None, line(sent, "x")))
        .await
        .is_ok()
    {
        sent += 1;
    }
    assert_eq!(sent, 5, "one with the sink and four in the queue");
    gate.add_permits(100);
    sender.send(None, line(sent, "x")).await.unwrap();
    let lines = batcher.finish().await.unwrap().lines;
    assert_eq!(i64::try_from(lines).unwrap(), sent + 1);
}

#[tokio::test(start_paused = true)]
async fn a_failing_sink_ends_the_batcher_with_its_error() {
    let limits = OutputLimits::default();
    let budget = Arc::new(LogBudget::new(&limits));
    let batcher = Batcher::spawn(limits, budget, |_: Vec<StepLines>| {
        std::future::ready(Err(SinkFull))
    });
    let sender = batcher.sender();
    sender.send(None, line(0, "x")).await.unwrap();
    assert_eq!(sender.flush().await, Err(LogClosed));
    assert_eq!(sender.send(None, line(1, "y")).await, Err(LogClosed));
    let error = batcher.finish().await.unwrap_err();
    assert!(matches!(error, BatchError::Sink(SinkFull)), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_build_that_logs_too_much_is_cut_once_over_all_steps() {
    for limits in [
        OutputLimits {
            build_lines_max: 3,
            ..OutputLimits::default()
        },
        OutputLimits {
            build_bytes_max: 14,
            ..OutputLimits::default()
        },
    ] {
        let budget = Arc::new(LogBudget::new(&limits));
        let mut kept = Vec::new();
        let mut dropped = 0;
        for step in 0..2 {
            let seen = Arc::new(Mutex::new(Vec::new()));
            let record = Arc::clone(&seen);
            let batcher = Batcher::spawn(limits, Arc::clone(&budget), move |batch| {
                let mut seen = record.lock().unwrap();
                seen.extend(lines_of(batch).map(|line| (line.stream, line.text)));
                std::future::ready(Ok::<_, SinkFull>(()))
            });
            for index in 0..5 {
                let text = format!("{step}-{index}");
                batcher
                    .sender()
                    .send(None, line(index, text))
                    .await
                    .unwrap();
            }
            // This one is too long for the byte budget, the short ones after it are dropped too.
            batcher
                .sender()
                .send(None, line(5, "y".repeat(14)))
                .await
                .unwrap();
            batcher.sender().send(None, line(6, "z")).await.unwrap();
            dropped += batcher.finish().await.unwrap().dropped_lines;
            kept.extend(seen.lock().unwrap().drain(..));
        }
        let lines = budget.used().lines;
        let (stream, notice) = kept.pop().unwrap();
        assert_eq!(
            (stream, notice.as_str()),
            (LogStream::Warning, LIMIT_REACHED)
        );
        let kept: Vec<String> = kept.into_iter().map(|(_, text)| text).collect();
        assert_eq!(kept, ["0-0", "0-1", "0-2", "0-3"][..kept.len()]);
        assert_eq!(kept.len(), usize::try_from(lines).unwrap());
        assert_eq!(dropped, 14 - lines);
        assert_eq!(budget.used().dropped_lines, dropped);
    }
}

#[tokio::test(start_paused = true)]
async fn steps_that_write_at_once_share_a_batch_and_keep_their_lines_apart() {
    let limits = OutputLimits::default();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&seen);
    let budget = Arc::new(LogBudget::new(&limits));
    let batcher = Batcher::spawn(limits, budget, move |batch| {
        record.lock().unwrap().push(batch);
        std::future::ready(Ok::<_, SinkFull>(()))
    });
    let (one, two) = (Some((1, 2)), Some((2, 2)));
    for (at, step) in [(0, one), (1, two), (2, None), (3, one), (4, two)] {
        batcher
            .sender()
            .send(step, line(at, at.to_string()))
            .await
            .unwrap();
    }
    let summary = batcher.finish().await.unwrap();
    assert_eq!((summary.batches, summary.lines), (1, 5));
    let of = |step, ats: &[i64]| StepLines {
        step,
        lines: ats.iter().map(|&at| line(at, at.to_string())).collect(),
    };
    assert_eq!(
        *seen.lock().unwrap(),
        [[of(one, &[0, 3]), of(two, &[1, 4]), of(None, &[2])]]
    );
}
