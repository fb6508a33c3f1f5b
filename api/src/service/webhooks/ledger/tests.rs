use domain::ids::BuildId;
use projections::limits::EmbeddedLimits;
use projections::store::embedded::Embedded;
use projections::store::memory::Memory;

use super::*;

fn at(micros: i64) -> Timestamp {
    Timestamp::from_unix_micros(micros).unwrap()
}

fn id(number: u8) -> WebhookId {
    WebhookId::generate(at(1), [number; 10])
}

fn stream() -> StreamName {
    StreamName::Build(BuildId::generate(at(1), [1; 10]))
}

fn lane() -> Lane {
    Lane {
        stream: stream(),
        next: Version(3),
        end: Version(9),
        attempts: 2,
        due: Some(at(7)),
    }
}

fn record(position: u64, status: DeliveryStatus) -> Record {
    Record {
        position: Position::from_raw(position),
        stream: stream(),
        version: Version(position),
        kind: "Failed".into(),
        status,
        attempts: 1,
        failure: Some(DeliveryFailure::Answered { status: 500 }),
        last_at: Some(at(8)),
        next_at: None,
    }
}

fn progress() -> Progress {
    Progress {
        read: Position::from_raw(300),
        heeded: Version(2),
    }
}

/// Everything about one webhook, and a bit about another one.
fn fill(ledger: &Ledger) {
    let mut changes = Changes::of(&id(1));
    changes.progress(progress());
    changes.lane(&LaneKey::Stream(stream()), Some(&lane()));
    changes.lane(&LaneKey::Again(Position::from_raw(5)), Some(&lane()));
    for position in [1, 256, 257] {
        changes.record(record(position, DeliveryStatus::Delivered));
    }
    changes.record(record(30, DeliveryStatus::Retrying));
    ledger.commit(changes).unwrap();
    let mut changes = Changes::of(&id(2));
    changes.record(record(2, DeliveryStatus::Delivered));
    ledger.commit(changes).unwrap();
}

fn positions(records: &[Record]) -> Vec<u64> {
    records.iter().map(|record| record.position.raw()).collect()
}

#[test]
fn what_was_written_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let store = Embedded::open(folder.path(), EmbeddedLimits::default()).unwrap();
        Ledger::over(Arc::new(store)).unwrap()
    };
    let ledger = open();
    fill(&ledger);
    ledger.flush().unwrap();
    drop(ledger);
    let ledger = open();
    let kept = ledger.kept(&id(1)).unwrap();
    assert_eq!(kept.progress, Some(progress()));
    let lanes = [
        (LaneKey::Again(Position::from_raw(5)), lane()),
        (LaneKey::Stream(stream()), lane()),
    ];
    assert_eq!(kept.lanes, lanes);
    assert_eq!(kept.delivered, [1, 256, 257].map(Position::from_raw));
    assert_eq!(ledger.progress(&id(1)).unwrap(), (Some(progress()), 2));
}

#[test]
fn records_are_read_backwards_page_by_page() {
    let ledger = Ledger::over(Arc::new(Memory::default())).unwrap();
    fill(&ledger);
    let page = ledger.records(&id(1), None, 2).unwrap();
    assert_eq!(positions(&page), [257, 256]);
    let page = ledger
        .records(&id(1), Some(Position::from_raw(256)), 9)
        .unwrap();
    assert_eq!(positions(&page), [30, 1]);
    assert_eq!(page[0], record(30, DeliveryStatus::Retrying));
}

#[test]
fn a_webhook_that_is_forgotten_leaves_nothing_and_takes_nothing_of_others() {
    let ledger = Ledger::over(Arc::new(Memory::default())).unwrap();
    fill(&ledger);
    let mut changes = Changes::of(&id(1));
    changes.lane(&LaneKey::Stream(stream()), None);
    changes.forget(Position::from_raw(257));
    ledger.commit(changes).unwrap();
    assert_eq!(ledger.kept(&id(1)).unwrap().lanes.len(), 1);
    assert_eq!(ledger.records(&id(1), None, 9).unwrap().len(), 3);

    ledger.forget(&id(1)).unwrap();
    let kept = ledger.kept(&id(1)).unwrap();
    assert_eq!((kept.progress, kept.lanes.len()), (None, 0));
    assert_eq!(ledger.records(&id(1), None, 9).unwrap(), []);
    assert_eq!(ledger.records(&id(2), None, 9).unwrap().len(), 1);
}

#[test]
fn rows_of_another_form_are_thrown_away() {
    let store = Arc::new(Memory::default());
    fill(&Ledger::over(store.clone()).unwrap());
    let checkpoint = Checkpoint {
        revisions: "webhooks=0".into(),
        last: None,
    };
    store
        .commit(&projections::store::Changes::new(), &checkpoint)
        .unwrap();
    let ledger = Ledger::over(store).unwrap();
    assert_eq!(ledger.kept(&id(1)).unwrap().progress, None);
}
