//! What the embedded log promises beyond the contract: it outlives its process, and it notices
//! what was done to its files.

mod damage;
mod verify;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::*;
use crate::log::AnyLog;
use crate::log::contract::{DEADLINE, append, everything, limits, stream};
use crate::log::survey::Damages;

type History = Vec<Recorded<Event>>;

async fn open_in(dir: &Path) -> AnyLog {
    AnyLog::open(dir, limits()).await.unwrap()
}

/// Appends `count` events behind those of earlier calls, and closes the log.
async fn write(dir: &Path, from: u64, count: u64) -> History {
    let log = open_in(dir).await;
    let padding = "some text ".repeat(20);
    for number in from..from + count {
        let text = format!("{number} {padding}");
        let append = append(&stream(number % 7), number / 7, number, &[&text]);
        log.append(append).await.unwrap();
    }
    let history = everything(&log).await;
    log.close().await.unwrap();
    history
}

/// Copies a closed log.
fn copy(dir: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
        }
    }
    to
}

/// Opens the sled of a closed log, once its lock is free: see `files::storage`.
fn open_sled(dir: &Path) -> sled::Db {
    let deadline = std::time::Instant::now() + DEADLINE;
    loop {
        match sled::open(dir) {
            Ok(db) => return db,
            Err(err) => assert!(std::time::Instant::now() < deadline, "{err}"),
        }
        std::thread::yield_now();
    }
}

fn anchor_of(dir: &Path) -> Anchor {
    Anchor::read(dir).unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_appended_is_there_after_reopening_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let history = write(folder.path(), 0, 50).await;
    assert_eq!(history.len(), 50);
    let log = open_in(folder.path()).await;
    assert_eq!(everything(&log).await, history);
    // An append from before is still recognised.
    let padding = "some text ".repeat(20);
    let first = append(&stream(0), 0, 0, &[&format!("0 {padding}")]);
    let repeated = log.append(first).await.unwrap();
    assert_eq!(
        (repeated.version, repeated.position),
        (Version(1), history[0].position)
    );
    drop(log);
    // Left without being closed: the folder becomes free all the same.
    let more = write(folder.path(), 50, 50).await;
    assert_eq!(more.len(), 100);
    assert_eq!(more[..50], history);
    assert_eq!(anchor_of(folder.path()).seq, 100);
}

#[tokio::test]
async fn a_folder_in_use_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let impatient = LogLimits {
        lock_wait_ms_max: 0,
        ..limits()
    };
    let log = open_in(folder.path()).await;
    for refused in [
        open(folder.path(), impatient).await.map(drop),
        verify(folder.path(), impatient).await.map(drop),
    ] {
        match refused {
            Err(LogError::Unavailable(err)) => {
                let locked = err.downcast_ref::<Locked>().unwrap();
                assert_eq!(locked.dir, folder.path());
            }
            other => panic!("{other:?}"),
        }
    }
    log.close().await.unwrap();
    open(folder.path(), limits()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_value_is_so_large_that_sled_moves_it_out_of_its_file() {
    // A number of its own: measured, 8 KiB make sled write such files.
    const VALUE_BYTES_MAX: usize = 4096;
    let folder = tempfile::tempdir().unwrap();
    let log = open_in(folder.path()).await;
    let largest = "x".repeat(250_000);
    let appends = (0..400_u64).map(|number| {
        let (log, largest) = (log.clone(), largest.clone());
        tokio::spawn(async move {
            let text = if number % 50 == 0 { &largest } else { "small" };
            log.append(append(&stream(number), 0, number, &[text]))
                .await
        })
    });
    for appended in appends.collect::<Vec<_>>() {
        appended.await.unwrap().unwrap();
    }
    assert_eq!(everything(&log).await.len(), 400);
    log.close().await.unwrap();

    let db = open_sled(folder.path());
    let sizes: Vec<usize> = db.iter().map(|item| item.unwrap().1.len()).collect();
    assert!(sizes.iter().all(|size| *size <= VALUE_BYTES_MAX));
    let parts = 8 * 250_000 / VALUE_BYTES_MAX;
    // Groups are packed: far fewer values than small events.
    assert!(sizes.len() < parts + 300, "{} values", sizes.len());
    let blobs = fs::read_dir(folder.path().join("blobs")).unwrap();
    assert_eq!(blobs.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_anchor_follows_while_the_log_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let log = open_in(folder.path()).await;
    assert_eq!(anchor_of(folder.path()).seq, 0);
    log.append(append(&stream(1), 0, 1, &["a", "b"]))
        .await
        .unwrap();
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while anchor_of(folder.path()).seq != 2 {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    log.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verifying_reports_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("log");
    let absent = verify(&root, limits()).await;
    assert!(
        matches!(absent, Err(LogError::Unavailable(_))),
        "{absent:?}"
    );
    write(&root, 0, 30).await;
    let files = || {
        let files = ["db", "conf", "anchor"].map(|name| fs::read(root.join(name)).unwrap());
        (files, fs::read_dir(folder.path()).unwrap().count())
    };
    let before = files();
    let report = verify(&root, limits()).await.unwrap();
    let wanted = Verification {
        event_count: 30,
        stream_count: 7,
        anchored: 30,
        hash: anchor_of(&root).hash,
        damages: Damages::up_to(limits().damages_max),
    };
    assert_eq!(report, wanted);
    assert_eq!(files(), before);

    let length = fs::metadata(root.join("db")).unwrap().len();
    let db = fs::File::options()
        .write(true)
        .open(root.join("db"))
        .unwrap();
    db.set_len(length / 8).unwrap();
    let before = files();
    let found = verify(&root, limits()).await.unwrap();
    assert!(!found.damages.is_empty(), "{found:?}");
    assert_eq!(files(), before);
}

/// The variable by which the test below tells itself to be the victim.
const VICTIM: &str = "COMMANDS_TEST_VICTIM_DIR";
const ACKNOWLEDGED: &str = "acknowledged ";

/// Appends until it is killed; says what was acknowledged.
fn append_until_killed(dir: &Path) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let log = open_in(dir).await;
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let log = log.clone();
                tokio::spawn(async move {
                    let own = stream(writer);
                    let mut version = 0;
                    while let Some(last) = {
                        let from = Version(version);
                        log.read_stream(&own, from, 1_000).await.unwrap().pop()
                    } {
                        version = last.version.0 + 1;
                    }
                    // Bounded, if nobody kills it.
                    for version in version..version + 20_000 {
                        let text = format!("event {version} of {own}");
                        let append = append(&own, version, version * 8 + writer, &[&text]);
                        log.append(append).await.unwrap();
                        println!("{ACKNOWLEDGED}{own} {version}");
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

#[test]
fn acknowledged_events_survive_a_kill() {
    if let Some(dir) = std::env::var_os(VICTIM) {
        return append_until_killed(Path::new(&dir));
    }
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut acknowledged = Vec::new();
    for round in 1..=5 {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "log::embedded::tests::acknowledged_events_survive_a_kill",
            ])
            .args(["--nocapture", "--test-threads=1"])
            .env(VICTIM, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        let mut take = |line: std::io::Result<String>| {
            // The line that the kill cut may be half of one.
            let line = line.unwrap();
            let (_, event) = line.split_once(ACKNOWLEDGED)?;
            let (stream, version) = event.split_once(' ')?;
            let place: (StreamName, u64) = (stream.parse().ok()?, version.parse().ok()?);
            acknowledged.push(place);
            Some(())
        };
        let enough = 150 * round + 37;
        let seen = lines.by_ref().filter_map(&mut take).take(enough).count();
        if round == 1 {
            let impatient = LogLimits {
                lock_wait_ms_max: 0,
                ..limits()
            };
            let refused = runtime.block_on(open(folder.path(), impatient));
            assert!(
                matches!(&refused, Err(LogError::Unavailable(err)) if err.is::<Locked>()),
                "{refused:?}"
            );
        }
        victim.kill().unwrap();
        victim.wait().unwrap();
        assert_eq!(seen, enough, "the victim ended early");
        lines.filter_map(&mut take).count();

        let log = runtime.block_on(open_in(folder.path()));
        let history = runtime.block_on(everything(&log));
        runtime.block_on(log.close()).unwrap();
        let stored: std::collections::BTreeSet<_> = history
            .iter()
            .map(|recorded| (recorded.stream.clone(), recorded.version.0))
            .collect();
        for place in &acknowledged {
            assert!(stored.contains(place), "round {round}: {place:?} is lost");
        }
    }
    assert!(acknowledged.len() > 2_000);
}
