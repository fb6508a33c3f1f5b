//! Who did something, in words that its reader knows.

use std::collections::BTreeMap;

use domain::ids::KeyId;
use domain::name::Owner;
use domain::recorded::Actor;

use super::App;
use super::accept::dispatch_error;
use crate::http::error::ApiError;
use crate::wire::lineage::Actor as WireActor;

/// What the keys of one owner are called. Those of others are none of the owner's business.
#[derive(Clone, Debug, Default)]
pub struct Labels(BTreeMap<KeyId, String>);

impl Labels {
    /// Those of `owner`, of the keys that are good.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] if the log cannot be read.
    pub async fn of(app: &App, owner: &Owner) -> Result<Self, ApiError> {
        let (keys, _) = app.dispatcher.load_keys().await.map_err(dispatch_error)?;
        let own = keys.iter().filter(|key| key.owner == *owner);
        let labelled = own.filter(|key| !key.label.is_empty());
        Ok(Self(
            labelled
                .map(|key| (key.id.clone(), key.label.clone()))
                .collect(),
        ))
    }

    /// `actor`, as the owner sees it.
    pub fn actor(&self, actor: &Actor) -> WireActor {
        let (kind, id, label) = match actor {
            Actor::Key { id } => ("key", Some(id.to_string()), self.0.get(id).cloned()),
            Actor::Worker { id } => ("worker", Some(id.to_string()), None),
            Actor::Operator => ("operator", None, None),
        };
        WireActor { kind, id, label }
    }
}
