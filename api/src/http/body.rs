//! Bodies of requests: bounded in size and in patience.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use actix_web::web::{Bytes, Payload};
use futures_util::StreamExt as _;
use serde_json::Value;
use zeroize::Zeroizing;

use super::error::ApiError;
use crate::limits::Limits;
use crate::normalise;

/// The body of a request, as far as it has not been read.
pub struct Body {
    payload: Payload,
    declared_bytes: Option<u64>,
    ended: bool,
    idle: Duration,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("declared_bytes", &self.declared_bytes)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Body {
    /// The body in `payload`, of which the caller has declared the size.
    pub fn new(payload: Payload, declared_bytes: Option<u64>, limits: &Limits) -> Self {
        Self {
            payload,
            declared_bytes,
            ended: false,
            idle: Duration::from_millis(limits.body_idle_ms_max),
        }
    }

    /// How large the caller says it is.
    pub fn declared_bytes(&self) -> Option<u64> {
        self.declared_bytes
    }

    /// The next piece; none behind the last.
    ///
    /// # Errors
    /// [`ApiError::BodyBroken`] if it stops arriving.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        if self.ended {
            return Ok(None);
        }
        let piece = tokio::time::timeout(self.idle, self.payload.next()).await;
        if !matches!(piece, Ok(Some(Ok(_)))) {
            self.ended = true;
        }
        match piece {
            Ok(None) => Ok(None),
            Ok(Some(Ok(piece))) => Ok(Some(piece)),
            Ok(Some(Err(_))) | Err(_) => Err(ApiError::BodyBroken {
                waited_ms: u64::try_from(self.idle.as_millis()).unwrap_or(u64::MAX),
            }),
        }
    }

    /// The whole body, wiped when it is dropped: it may carry secrets.
    ///
    /// # Errors
    /// [`ApiError::TooLarge`] or [`ApiError::BodyBroken`].
    pub async fn bytes(&mut self, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, ApiError> {
        let bound = u64::try_from(bytes_max).unwrap_or(u64::MAX);
        let too_large = || ApiError::TooLarge {
            what: "the body",
            bytes_max: bound,
        };
        let declared = self.declared_bytes.unwrap_or(0);
        if declared > bound {
            return Err(too_large());
        }
        // Enough at once, so that growing leaves no copies behind.
        let capacity = usize::try_from(declared).unwrap_or(0);
        let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
        while let Some(piece) = self.next().await? {
            if bytes.len().saturating_add(piece.len()) > bytes_max {
                return Err(too_large());
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    /// The body as JSON. `None` if it is empty.
    ///
    /// # Errors
    /// [`ApiError::MalformedJson`], [`ApiError::TooLarge`] or [`ApiError::BodyBroken`].
    pub async fn json(&mut self, bytes_max: usize) -> Result<Option<Json>, ApiError> {
        let bytes = self.bytes(bytes_max).await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        // Large bodies take a while to parse, and other requests share the thread.
        let parsed = tokio::task::spawn_blocking(move || serde_json::from_slice(&bytes).map(Json));
        match parsed.await? {
            Ok(json) => Ok(Some(json)),
            Err(err) => Err(ApiError::MalformedJson {
                line: err.line(),
                column: err.column(),
            }),
        }
    }

    /// The body as JSON, which must be there.
    ///
    /// # Errors
    /// As [`Body::json`]; [`ApiError::Invalid`] if it is empty.
    pub async fn required_json(&mut self, bytes_max: usize) -> Result<Json, ApiError> {
        let value = self.json(bytes_max).await?;
        value.ok_or_else(|| ApiError::field("", "is empty; a JSON object is expected"))
    }

    /// Reads what is left and throws it away, so that the caller reads the answer instead of
    /// a reset connection; gives up beyond the bound.
    pub async fn drain(&mut self, bytes_max: u64) {
        let mut drained: u64 = 0;
        while let Ok(Some(piece)) = self.next().await {
            drained = drained.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
            if drained > bytes_max {
                return;
            }
        }
    }
}

/// A body as JSON. It may carry secrets: whatever becomes of the request, every text in it is
/// overwritten when it goes.
pub struct Json(Value);

impl Json {
    /// A body of `{}`.
    pub fn empty() -> Self {
        Self(Value::Object(serde_json::Map::new()))
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        Self(value)
    }
}

impl Deref for Json {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.0
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Json").finish_non_exhaustive()
    }
}

impl Drop for Json {
    fn drop(&mut self) {
        normalise::wipe(&mut self.0);
    }
}
