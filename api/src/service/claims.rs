//! Names that are kept for a while for templates that are yet to be made.

use std::fmt;

use commands::DispatchError;
use domain::Digest;
use domain::name::{Namespace, TemplateName};
use domain::namespace::{Command, Rejection};
use domain::time::Timestamp;
use zeroize::Zeroizing;

use super::App;
use super::accept::dispatch_error;
use super::keys::{Caller, NoEntropy, unguessable};
use super::names;
use crate::http::error::ApiError;

/// What every token begins with.
const TOKEN_PREFIX: &str = "tnc_";

/// What gives a claim back: shown once, wiped when dropped; only its digest is kept.
pub struct ClaimToken(Zeroizing<String>);

impl fmt::Debug for ClaimToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClaimToken(…)")
    }
}

impl ClaimToken {
    fn generate() -> Result<Self, NoEntropy> {
        let text = format!("{TOKEN_PREFIX}{}", *unguessable()?);
        Ok(Self(Zeroizing::new(text)))
    }

    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// A name that was reserved.
#[derive(Debug)]
pub struct Reserved {
    /// What gives it back.
    pub token: ClaimToken,
    /// Where the name is.
    pub namespace: Namespace,
    /// The name.
    pub name: TemplateName,
    /// Until when it is kept.
    pub expires_at: Timestamp,
}

/// Keeps a name of the caller's own namespace, and waits until that is visible.
///
/// # Errors
/// [`ApiError::Conflict`] if the name is taken or reserved, also by the caller;
/// [`ApiError::Quota`] if the caller keeps too many.
pub async fn reserve(app: &App, caller: &Caller, name: TemplateName) -> Result<Reserved, ApiError> {
    let limits = &app.config.limits;
    let token = ClaimToken::generate().map_err(ApiError::internal)?;
    let now = app.clock.0.now();
    let expires_at = now.plus_millis(limits.claim_secs.saturating_mul(1000));
    let namespace = caller.namespace.clone();
    let command = Command::Claim {
        name: name.clone(),
        owner: caller.owner.clone(),
        token_digest: Digest::of(token.reveal().as_bytes()),
        expires_at,
        claim_count_max: limits.claim_count_max,
        now,
    };
    let done = names::change(app, caller, &namespace, &name, command).await?;
    app.shown(done.appended).await?;
    Ok(Reserved {
        token,
        namespace,
        name,
        expires_at,
    })
}

/// Gives a claim of the caller's back, and waits until that is visible.
///
/// # Errors
/// [`ApiError::ClaimNotFound`], also if it has ended, was used up, or is somebody else's.
pub async fn release(app: &App, caller: &Caller, token: &str) -> Result<(), ApiError> {
    let token_digest = Digest::of(token.as_bytes());
    let row = app.views.claim(&token_digest)?;
    let row = row.ok_or(ApiError::ClaimNotFound)?;
    let command = Command::ReleaseClaim {
        token_digest,
        owner: caller.owner.clone(),
        now: app.clock.0.now(),
    };
    let released = app
        .dispatcher
        .names(&row.namespace, app.meta(caller), command);
    let done = released.await.map_err(|err| match err {
        DispatchError::Rejected(
            Rejection::UnknownClaim
            | Rejection::Taken(_)
            | Rejection::Claimed(_)
            | Rejection::TooManyClaims(_),
        ) => ApiError::ClaimNotFound,
        err @ (DispatchError::Contended { .. }
        | DispatchError::Corrupt { .. }
        | DispatchError::Log(_)) => dispatch_error(err),
    })?;
    app.shown(done.appended).await
}
