//! Webhooks: by id, and by owner.

use domain::Event;
use domain::ids::WebhookId;
use domain::name::Owner;
use domain::recorded::{Position, Recorded, StreamName};
use domain::time::Timestamp;
use domain::webhook::{self, Live, Webhook};
use serde::{Deserialize, Serialize};

use crate::key::Key;
use crate::projection::{ApplyError, Projection};
use crate::rows::Rows;
use crate::store::{Scan, StoreError};
use crate::views::Views;

/// A webhook that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookRow {
    /// Its id.
    pub id: WebhookId,
    /// When it was registered.
    pub registered_at: Timestamp,
    /// Behind which event that was: what happened from then on is sent.
    pub registered_behind: Position,
    /// What it is.
    pub live: Live,
}

/// The projection.
#[derive(Clone, Copy, Debug)]
pub struct Webhooks;

fn row_key(id: &WebhookId) -> Key {
    Key::table("webhooks/row").text(id.as_str())
}

fn owner_key(owner: &Owner) -> Key {
    Key::table("webhooks/owner").text(owner.as_str())
}

impl Projection for Webhooks {
    const NAME: &'static str = "webhooks";
    const REVISION: u32 = 1;

    fn apply(rows: &mut Rows<'_>, recorded: &Recorded<Event>) -> Result<(), ApplyError> {
        let (StreamName::Webhook(id), Event::Webhook(event)) = (&recorded.stream, &recorded.event)
        else {
            return Ok(());
        };
        let row = match (rows.get::<WebhookRow>(&row_key(id))?, event) {
            (Some(row), _) => row,
            (None, webhook::Event::WebhookRegistered(registered)) => WebhookRow {
                id: id.clone(),
                registered_at: recorded.time,
                registered_behind: recorded.position,
                live: Live::new(registered.clone()),
            },
            (None, _) => return Err(ApplyError::OutOfPlace("nothing was registered")),
        };
        let own = owner_key(&row.live.registered.owner).text(id.as_str());
        match webhook::evolve(Webhook::Live(Box::new(row.live)), event) {
            Webhook::Live(live) => {
                let live = *live;
                rows.put(row_key(id), &WebhookRow { live, ..row })?;
                rows.put(own, id)?;
            }
            Webhook::Absent | Webhook::Deleted => {
                rows.delete(row_key(id));
                rows.delete(own);
            }
        }
        Ok(())
    }
}

impl Views {
    /// A webhook that is there.
    ///
    /// # Errors
    /// [`StoreError`]: the views are about to be folded anew.
    pub fn webhook(&self, id: &WebhookId) -> Result<Option<WebhookRow>, StoreError> {
        self.get(&row_key(id))
    }

    /// The webhooks of `owner`, the oldest first, at most `count_max`.
    ///
    /// # Errors
    /// [`StoreError`]: the views are about to be folded anew.
    pub fn webhooks_of(
        &self,
        owner: &Owner,
        count_max: usize,
    ) -> Result<Vec<WebhookRow>, StoreError> {
        let ids = self.values::<WebhookId>(&Scan::below(&owner_key(owner), count_max))?;
        let rows = ids.iter().map(|id| self.webhook(id));
        // One that was deleted between the two looks is left out.
        rows.filter_map(Result::transpose).collect()
    }

    /// All webhooks, of whoever.
    ///
    /// # Errors
    /// [`StoreError`]: the views are about to be folded anew.
    pub fn webhooks(&self) -> Result<Vec<WebhookRow>, StoreError> {
        self.values(&Scan::below(&Key::table("webhooks/row"), usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{History, at, owner, webhook_id, webhook_registered};
    use domain::webhook::PauseReason;

    #[test]
    fn a_webhook_is_found_by_its_id_and_by_its_owner_until_it_is_deleted() {
        let mut history = History::default();
        history
            .webhook(1, webhook_registered("acme"))
            .webhook(2, webhook_registered("other"))
            .webhook(3, webhook_registered("acme"))
            .webhook(
                3,
                webhook::Event::WebhookPaused {
                    reason: PauseReason::Asked,
                },
            );
        let views = history.views();
        let of = |views: &Views, text| {
            let rows = views.webhooks_of(&owner(text), 9).unwrap();
            rows.into_iter().map(|row| row.id).collect::<Vec<_>>()
        };
        assert_eq!(of(&views, "acme"), [webhook_id(1), webhook_id(3)]);
        assert_eq!(of(&views, "nobody"), []);
        assert_eq!(views.webhooks().unwrap().len(), 3);
        let paused = views.webhook(&webhook_id(3)).unwrap().unwrap();
        assert_eq!(paused.live.paused, Some(PauseReason::Asked));
        assert_eq!(
            paused.registered_at,
            at(3_000),
            "and not when it was paused"
        );

        history.webhook(3, webhook::Event::WebhookDeleted {});
        let views = history.views();
        assert_eq!(of(&views, "acme"), [webhook_id(1)]);
        assert_eq!(views.webhook(&webhook_id(3)).unwrap(), None);
    }
}
