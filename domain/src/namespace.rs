//! Who holds which name. The stream's expected version decides between two who want the same one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::ids::TemplateId;
use crate::name::{Owner, TemplateName};
use crate::time::Timestamp;

/// Something that happened to the names of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum Event {
    /// A name belongs to a template.
    NameTaken {
        /// The name.
        name: TemplateName,
        /// The template.
        template_id: TemplateId,
        /// Whose it is.
        owner: Owner,
    },
    /// A name is free again.
    NameReleased {
        /// The name.
        name: TemplateName,
    },
    /// A name is kept for somebody.
    NameClaimed {
        /// The name.
        name: TemplateName,
        /// For whom.
        owner: Owner,
        /// The digest of the token that releases the claim.
        token_digest: Digest,
        /// Until when.
        expires_at: Timestamp,
    },
    /// A claim was given back.
    ClaimReleased {
        /// The name.
        name: TemplateName,
    },
}

impl Event {
    /// The event's stored and published name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NameTaken { .. } => "NameTaken",
            Self::NameReleased { .. } => "NameReleased",
            Self::NameClaimed { .. } => "NameClaimed",
            Self::ClaimReleased { .. } => "ClaimReleased",
        }
    }
}

/// A name that is kept for somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// For whom.
    pub owner: Owner,
    /// The digest of the token that releases it.
    pub token_digest: Digest,
    /// Until when.
    pub expires_at: Timestamp,
}

/// The names of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    taken: BTreeMap<TemplateName, (TemplateId, Owner)>,
    claims: BTreeMap<TemplateName, Claim>,
}

impl Names {
    /// The template that holds `name`, and its owner.
    pub fn holder(&self, name: &TemplateName) -> Option<&(TemplateId, Owner)> {
        self.taken.get(name)
    }
}

/// What somebody wants to happen to the names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Have `name` for a template; the one that holds it already, if it is the same owner's.
    Take {
        /// The name.
        name: TemplateName,
        /// The template's id, if it is a new one.
        template_id: TemplateId,
        /// Who wants it.
        owner: Owner,
        /// The present moment: claims end.
        now: Timestamp,
    },
}

/// Why a command makes nothing happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It belongs to somebody else.
    #[error("the name `{0}` is taken")]
    Taken(TemplateName),
    /// It is kept for somebody else.
    #[error("the name `{0}` is reserved")]
    Claimed(TemplateName),
}

/// Decides what `command` makes happen to the names.
///
/// # Errors
/// The [`Rejection`] says what stands against it; nothing happens then.
pub fn decide(state: &Names, command: Command) -> Result<Vec<Event>, Rejection> {
    match command {
        Command::Take {
            name,
            template_id,
            owner,
            now,
        } => {
            match state.taken.get(&name) {
                Some((_, holder)) if *holder == owner => return Ok(Vec::new()),
                Some(_) => return Err(Rejection::Taken(name)),
                None => {}
            }
            match state.claims.get(&name) {
                Some(claim) if claim.owner != owner && now < claim.expires_at => {
                    Err(Rejection::Claimed(name))
                }
                Some(_) | None => Ok(vec![Event::NameTaken {
                    name,
                    template_id,
                    owner,
                }]),
            }
        }
    }
}

/// The names after `event`. Every event can follow every state: the last word counts.
#[must_use]
pub fn evolve(mut state: Names, event: &Event) -> Names {
    match event {
        Event::NameTaken {
            name,
            template_id,
            owner,
        } => {
            state.claims.remove(name);
            state
                .taken
                .insert(name.clone(), (template_id.clone(), owner.clone()));
        }
        Event::NameReleased { name } => {
            state.taken.remove(name);
        }
        Event::NameClaimed {
            name,
            owner,
            token_digest,
            expires_at,
        } => {
            let claim = Claim {
                owner: owner.clone(),
                token_digest: *token_digest,
                expires_at: *expires_at,
            };
            state.claims.insert(name.clone(), claim);
        }
        Event::ClaimReleased { name } => {
            state.claims.remove(name);
        }
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(owner: &str) -> Command {
        Command::Take {
            name: "app".parse().unwrap(),
            template_id: TemplateId::generate(Timestamp::from_unix_micros(1).unwrap(), [1; 10]),
            owner: owner.parse().unwrap(),
            now: Timestamp::from_unix_micros(10).unwrap(),
        }
    }

    fn given(events: &[Event]) -> Names {
        events.iter().fold(Names::default(), evolve)
    }

    #[test]
    fn a_name_is_taken_once() {
        let taken = decide(&Names::default(), take("a")).unwrap();
        assert_eq!(taken.len(), 1);
        let names = given(&taken);
        assert_eq!(decide(&names, take("a")), Ok(Vec::new()));
        assert_eq!(
            decide(&names, take("b")),
            Err(Rejection::Taken("app".parse().unwrap()))
        );
    }

    #[test]
    fn a_claim_keeps_others_out_until_it_ends() {
        let claimed = |micros| Event::NameClaimed {
            name: "app".parse().unwrap(),
            owner: "a".parse().unwrap(),
            token_digest: Digest::ZERO,
            expires_at: Timestamp::from_unix_micros(micros).unwrap(),
        };
        let refused = Err(Rejection::Claimed("app".parse().unwrap()));
        assert_eq!(decide(&given(&[claimed(11)]), take("b")), refused);
        assert!(decide(&given(&[claimed(10)]), take("b")).is_ok_and(|events| events.len() == 1));
        assert!(decide(&given(&[claimed(11)]), take("a")).is_ok_and(|events| events.len() == 1));
    }
}
