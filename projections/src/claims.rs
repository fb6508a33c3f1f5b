//! Names that are kept for somebody: by name, and by the digest of the token that gives them back.
//!
//! Nothing happens when a claim ends by itself, so a row may tell of one that has: whoever reads it
//! looks at a clock.

use domain::Event;
use domain::digest::Digest;
use domain::name::{Namespace, Owner, TemplateName};
use domain::namespace;
use domain::recorded::{Recorded, StreamName};
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::key::Key;
use crate::projection::{ApplyError, Projection};
use crate::rows::Rows;
use crate::store::StoreError;
use crate::views::Views;

/// A name that is, or was, kept for somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRow {
    /// Where the name is.
    pub namespace: Namespace,
    /// The name.
    pub name: TemplateName,
    /// For whom.
    pub owner: Owner,
    /// The digest of the token that gives it back.
    pub token_digest: Digest,
    /// Until when.
    pub expires_at: Timestamp,
}

/// The projection.
#[derive(Clone, Copy, Debug)]
pub struct Claims;

fn name_key(namespace: &Namespace, name: &TemplateName) -> Key {
    Key::table("claims/name")
        .text(namespace.as_str())
        .text(name.as_str())
}

fn token_key(digest: &Digest) -> Key {
    Key::table("claims/token").text(&digest.hex())
}

impl Projection for Claims {
    const NAME: &'static str = "claims";
    const REVISION: u32 = 1;

    fn apply(rows: &mut Rows<'_>, recorded: &Recorded<Event>) -> Result<(), ApplyError> {
        let (StreamName::Namespace(slug), Event::Namespace(event)) =
            (&recorded.stream, &recorded.event)
        else {
            return Ok(());
        };
        match event {
            namespace::Event::NameClaimed {
                name,
                owner,
                token_digest,
                expires_at,
            } => {
                // One that ended by itself leaves its place to the next.
                forget(rows, slug, name)?;
                let row = ClaimRow {
                    namespace: slug.clone(),
                    name: name.clone(),
                    owner: owner.clone(),
                    token_digest: *token_digest,
                    expires_at: *expires_at,
                };
                rows.put(token_key(token_digest), &row)?;
                rows.put(name_key(slug, name), token_digest)?;
            }
            namespace::Event::ClaimReleased { name } | namespace::Event::NameTaken { name, .. } => {
                forget(rows, slug, name)?;
            }
            namespace::Event::NameReleased { .. } => {}
        }
        Ok(())
    }
}

fn forget(rows: &mut Rows<'_>, slug: &Namespace, name: &TemplateName) -> Result<(), StoreError> {
    let key = name_key(slug, name);
    if let Some(digest) = rows.get::<Digest>(&key)? {
        rows.delete(token_key(&digest));
        rows.delete(key);
    }
    Ok(())
}

impl Views {
    /// The claim whose token has this digest, also one that has ended.
    ///
    /// # Errors
    /// [`StoreError`]: the views are about to be folded anew.
    pub fn claim(&self, token_digest: &Digest) -> Result<Option<ClaimRow>, StoreError> {
        self.get(&token_key(token_digest))
    }

    /// The claim on a name, also one that has ended.
    ///
    /// # Errors
    /// [`StoreError`]: the views are about to be folded anew.
    pub fn claim_on(
        &self,
        namespace: &Namespace,
        name: &TemplateName,
    ) -> Result<Option<ClaimRow>, StoreError> {
        match self.get::<Digest>(&name_key(namespace, name))? {
            Some(digest) => self.claim(&digest),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{History, at, name, owner, slug};

    fn claimed(text: &str, token: u8) -> namespace::Event {
        namespace::Event::NameClaimed {
            name: name(text),
            owner: owner("acme"),
            token_digest: Digest::of(&[token]),
            expires_at: at(i64::from(token)),
        }
    }

    fn released(text: &str) -> namespace::Event {
        namespace::Event::ClaimReleased { name: name(text) }
    }

    /// The numbers of the tokens that open a claim, of those below 4.
    fn open(views: &Views) -> Vec<u8> {
        (0..4)
            .filter(|token| views.claim(&Digest::of(&[*token])).unwrap().is_some())
            .collect()
    }

    #[test]
    fn a_claim_is_found_by_its_token_and_by_its_name() {
        let mut history = History::default();
        history
            .namespace("acme", claimed("app", 1))
            .namespace("acme", claimed("other", 2));
        let views = history.views();
        let expected = ClaimRow {
            namespace: slug("acme"),
            name: name("app"),
            owner: owner("acme"),
            token_digest: Digest::of(&[1]),
            expires_at: at(1),
        };
        assert_eq!(
            views.claim(&Digest::of(&[1])).unwrap().as_ref(),
            Some(&expected)
        );
        let on = |namespace, text| views.claim_on(&slug(namespace), &name(text)).unwrap();
        assert_eq!(on("acme", "app"), Some(expected));
        assert_eq!(on("other", "app"), None);
        assert_eq!(on("acme", "none"), None);
        assert_eq!(open(&views), [1, 2]);
    }

    #[test]
    fn a_claim_that_is_given_back_used_up_or_replaced_is_gone() {
        let mut history = History::default();
        history
            .namespace("acme", claimed("one", 1))
            .namespace("acme", claimed("two", 2))
            .namespace("acme", claimed("three", 3))
            .namespace("acme", released("one"))
            .name_taken("acme", "two", 1)
            .namespace("acme", claimed("three", 0));
        let views = history.views();
        assert_eq!(open(&views), [0]);
        let on = |text| views.claim_on(&slug("acme"), &name(text)).unwrap();
        assert_eq!((on("one"), on("two")), (None, None));
        assert_eq!(on("three").unwrap().token_digest, Digest::of(&[0]));
    }

    #[test]
    fn the_same_name_elsewhere_is_another_one() {
        let mut history = History::default();
        history
            .namespace("acme", claimed("app", 1))
            .namespace("other", released("app"))
            .name_taken("other", "app", 1);
        assert_eq!(open(&history.views()), [1]);
    }
}
