//! Who holds which name. The stream's expected version decides between two who want the same one.
//!
//! A namespace says which template *holds* a name, so that nobody else gets it; a template's own
//! stream says which names it *goes by* ([`crate::template::Template::standing`]). A name that its
//! holder has left is what a crash between the two streams leaves, and whoever meets it may release
//! it.

#[cfg(test)]
mod protocol;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::ids::TemplateId;
use crate::name::{Owner, TemplateName};
use crate::recorded::Version;
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
        /// The version of the template's stream at which it is to be renamed to it; none for the
        /// name that the template was made with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        renaming: Option<Version>,
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

/// A template that has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The template.
    pub template_id: TemplateId,
    /// Whose it is.
    pub owner: Owner,
    /// The version of the template's stream at which it is, or was, to be renamed to it; none for
    /// the name that the template was made with. It tells apart two holds of one template.
    pub renaming: Option<Version>,
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

impl Claim {
    /// Whether it still keeps others out.
    pub fn is_live(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }
}

/// The names of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    taken: BTreeMap<TemplateName, Hold>,
    claims: BTreeMap<TemplateName, Claim>,
}

impl Names {
    /// Who holds `name`.
    pub fn holder(&self, name: &TemplateName) -> Option<&Hold> {
        self.taken.get(name)
    }

    /// Whether the claim with this token keeps `name` now.
    fn is_kept_by(&self, name: &TemplateName, token_digest: &Digest, now: Timestamp) -> bool {
        let claim = self.claims.get(name);
        claim.is_some_and(|claim| claim.token_digest == *token_digest && claim.is_live(now))
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
        /// The digest of the token of the claim that keeps it for them, which is used up by this. None:
        /// whatever claim of theirs there is.
        claim: Option<Digest>,
        /// The present moment: claims end.
        now: Timestamp,
    },
    /// Have `name` for this very template, which has another one: it is to be renamed.
    TakeAlso {
        /// The name.
        name: TemplateName,
        /// The template.
        template_id: TemplateId,
        /// Whose it is.
        owner: Owner,
        /// The version of the template's stream at which it will be renamed, or not at all.
        renaming: Version,
        /// The present moment: claims end.
        now: Timestamp,
    },
    /// Let go of `name`, if it is still held as `hold` says.
    Release {
        /// The name.
        name: TemplateName,
        /// Who held it when that was found to be of no use.
        hold: Hold,
    },
    /// Let go of every name of a template that is gone.
    ReleaseAll {
        /// The template.
        template_id: TemplateId,
    },
    /// Keep `name` for a while for a template that is yet to be made.
    Claim {
        /// The name.
        name: TemplateName,
        /// Who wants it.
        owner: Owner,
        /// The digest of the token that will release it.
        token_digest: Digest,
        /// Until when.
        expires_at: Timestamp,
        /// How many claims an owner may have at once.
        claim_count_max: usize,
        /// The present moment: claims end.
        now: Timestamp,
    },
    /// Give a claim back.
    ReleaseClaim {
        /// The digest of its token.
        token_digest: Digest,
        /// Who gives it back.
        owner: Owner,
        /// The present moment: a claim that has ended is none.
        now: Timestamp,
    },
}

/// Why a command makes nothing happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It belongs to another template.
    #[error("the name `{0}` is taken")]
    Taken(TemplateName),
    /// It is kept for somebody.
    #[error("the name `{0}` is reserved")]
    Claimed(TemplateName),
    /// Nobody has a claim with this token.
    #[error("there is no such claim")]
    UnknownClaim,
    /// The owner keeps too many names already.
    #[error("at most {0} names can be reserved at once")]
    TooManyClaims(usize),
}

/// Decides what `command` makes happen to the names.
///
/// An empty list means that what the command wants is so already.
///
/// # Errors
/// The [`Rejection`] says what stands against it; nothing happens then.
pub fn decide(state: &Names, command: Command) -> Result<Vec<Event>, Rejection> {
    match command {
        Command::Take {
            name,
            template_id,
            owner,
            claim,
            now,
        } => match state.taken.get(&name) {
            Some(hold) if hold.owner != owner => Err(Rejection::Taken(name)),
            // A name that is taken is claimed by nobody.
            Some(_) if claim.is_some() => Err(Rejection::UnknownClaim),
            Some(_) => Ok(Vec::new()),
            None => {
                let events = take(state, name.clone(), template_id, owner, None, now)?;
                if claim.is_none_or(|wanted| state.is_kept_by(&name, &wanted, now)) {
                    Ok(events)
                } else {
                    Err(Rejection::UnknownClaim)
                }
            }
        },
        Command::TakeAlso {
            name,
            template_id,
            owner,
            renaming,
            now,
        } => match state.taken.get(&name) {
            Some(hold) if hold.template_id != template_id => Err(Rejection::Taken(name)),
            Some(hold) if hold.renaming == Some(renaming) => Ok(Vec::new()),
            // Held for a rename that came to nothing: from now on for this one.
            Some(_) | None => take(state, name, template_id, owner, Some(renaming), now),
        },
        Command::Release { name, hold } if state.taken.get(&name) == Some(&hold) => {
            Ok(vec![Event::NameReleased { name }])
        }
        Command::Release { .. } => Ok(Vec::new()),
        Command::ReleaseAll { template_id } => {
            let held = state.taken.iter();
            let held = held.filter(|(_, hold)| hold.template_id == template_id);
            let released =
                |(name, _): (&TemplateName, _)| Event::NameReleased { name: name.clone() };
            Ok(held.map(released).collect())
        }
        Command::Claim {
            name,
            owner,
            token_digest,
            expires_at,
            claim_count_max,
            now,
        } => {
            let claim = Claim {
                owner,
                token_digest,
                expires_at,
            };
            self::claim(state, name, claim, claim_count_max, now)
        }
        Command::ReleaseClaim {
            token_digest,
            owner,
            now,
        } => {
            let wanted = |claim: &Claim| {
                claim.token_digest == token_digest && claim.owner == owner && claim.is_live(now)
            };
            let found = state.claims.iter().find(|(_, claim)| wanted(claim));
            let (name, _) = found.ok_or(Rejection::UnknownClaim)?;
            Ok(vec![Event::ClaimReleased { name: name.clone() }])
        }
    }
}

/// Gives a name away that no other template has. Whoever reserved it may have it.
fn take(
    state: &Names,
    name: TemplateName,
    template_id: TemplateId,
    owner: Owner,
    renaming: Option<Version>,
    now: Timestamp,
) -> Result<Vec<Event>, Rejection> {
    match state.claims.get(&name) {
        Some(claim) if claim.owner != owner && claim.is_live(now) => Err(Rejection::Claimed(name)),
        Some(_) | None => Ok(vec![Event::NameTaken {
            name,
            template_id,
            owner,
            renaming,
        }]),
    }
}

/// Keeps a name. A claim keeps its own owner out, too: of two who prepare the same template under
/// one key, the one with the token has it.
fn claim(
    state: &Names,
    name: TemplateName,
    claim: Claim,
    claim_count_max: usize,
    now: Timestamp,
) -> Result<Vec<Event>, Rejection> {
    if state.taken.contains_key(&name) {
        return Err(Rejection::Taken(name));
    }
    match state.claims.get(&name) {
        Some(earlier) if !earlier.is_live(now) => {}
        Some(earlier) if *earlier == claim => return Ok(Vec::new()),
        Some(_) => return Err(Rejection::Claimed(name)),
        None => {}
    }
    let live = |other: &&Claim| other.owner == claim.owner && other.is_live(now);
    if state.claims.values().filter(live).count() >= claim_count_max {
        return Err(Rejection::TooManyClaims(claim_count_max));
    }
    // What has ended is forgotten with the next claim, so that the state stays bounded.
    let ended = state
        .claims
        .iter()
        .filter(|(other, claim)| **other != name && !claim.is_live(now));
    let mut events: Vec<Event> = ended
        .map(|(name, _)| Event::ClaimReleased { name: name.clone() })
        .collect();
    events.push(Event::NameClaimed {
        name,
        owner: claim.owner,
        token_digest: claim.token_digest,
        expires_at: claim.expires_at,
    });
    Ok(events)
}

/// The names after `event`. Every event can follow every state: the last word counts.
#[must_use]
pub fn evolve(mut state: Names, event: &Event) -> Names {
    match event {
        Event::NameTaken {
            name,
            template_id,
            owner,
            renaming,
        } => {
            state.claims.remove(name);
            let hold = Hold {
                template_id: template_id.clone(),
                owner: owner.clone(),
                renaming: *renaming,
            };
            state.taken.insert(name.clone(), hold);
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
