//! Requests that carried an idempotency key: which build one made, by owner and key.
//!
//! A key is kept for a time, and nothing happens when that is over: whoever reads a row looks at a clock.

use domain::Event;
use domain::build;
use domain::digest::Digest;
use domain::ids::BuildId;
use domain::name::Owner;
use domain::recorded::{Recorded, StreamName};
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::key::Key;
use crate::projection::{ApplyError, Projection};
use crate::rows::Rows;
use crate::store::StoreError;
use crate::views::Views;

/// The last request of an owner with a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyedRequest {
    /// The build that it made.
    pub build_id: BuildId,
    /// What it asked for, secret values apart.
    pub request_digest: Digest,
    /// When it was accepted.
    pub at: Timestamp,
}

/// The projection.
#[derive(Clone, Copy, Debug)]
pub struct Idempotency;

fn row_key(owner: &Owner, key: &str) -> Key {
    // A key is the caller's own text: its digest has a length that is known.
    let key = Digest::of(key.as_bytes());
    Key::table("idempotency/key")
        .text(owner.as_str())
        .text(&key.hex())
}

impl Projection for Idempotency {
    const NAME: &'static str = "idempotency";
    const REVISION: u32 = 1;

    fn apply(rows: &mut Rows<'_>, recorded: &Recorded<Event>) -> Result<(), ApplyError> {
        let (StreamName::Build(id), Event::Build(build::Event::Requested(requested))) =
            (&recorded.stream, &recorded.event)
        else {
            return Ok(());
        };
        let (Some(key), Some(request_digest)) =
            (&requested.idempotency_key, requested.request_digest)
        else {
            return Ok(());
        };
        let row = KeyedRequest {
            build_id: id.clone(),
            request_digest,
            at: recorded.time,
        };
        rows.put(row_key(&requested.owner, key), &row)?;
        Ok(())
    }
}

impl Views {
    /// The last request of `owner` with this key, however long ago.
    ///
    /// # Errors
    /// [`StoreError`]: the views are about to be folded anew.
    pub fn keyed_request(
        &self,
        owner: &Owner,
        key: &str,
    ) -> Result<Option<KeyedRequest>, StoreError> {
        self.get(&row_key(owner, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{History, build_id, owner, request};

    fn keyed(who: &str, key: Option<&str>, asked: Option<&[u8]>) -> build::Event {
        let mut requested = request(1, &["default"]);
        requested.owner = owner(who);
        requested.idempotency_key = key.map(str::to_owned);
        requested.request_digest = asked.map(Digest::of);
        build::Event::Requested(Box::new(requested))
    }

    #[test]
    fn a_key_belongs_to_its_owner_and_leads_to_the_last_request() {
        let mut history = History::default();
        history
            .build(1, keyed("acme", Some("one"), Some(b"a")))
            .build(2, keyed("other", Some("one"), Some(b"b")))
            .build(3, keyed("acme", Some("two"), Some(b"c")))
            .build(4, keyed("acme", Some("two"), Some(b"d")));
        let views = history.views();
        let found = |who, key| {
            let row = views.keyed_request(&owner(who), key).unwrap();
            row.map(|row| (row.build_id, row.request_digest))
        };
        let expected = |number, asked: &[u8]| Some((build_id(number), Digest::of(asked)));
        assert_eq!(found("acme", "one"), expected(1, b"a"));
        assert_eq!(found("other", "one"), expected(2, b"b"));
        assert_eq!(found("acme", "two"), expected(4, b"d"));
        assert_eq!(found("other", "two"), None);
    }

    #[test]
    fn a_request_of_which_only_the_key_is_known_cannot_be_repeated() {
        let mut history = History::default();
        history
            .build(1, keyed("acme", Some("one"), None))
            .build(2, keyed("acme", None, Some(b"a")));
        let views = history.views();
        assert_eq!(views.keyed_request(&owner("acme"), "one").unwrap(), None);
    }
}
