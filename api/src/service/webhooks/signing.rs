//! How deliveries are signed: as [Standard Webhooks](https://www.standardwebhooks.com) are, so that
//! receivers find a library that checks them.
//!
//! `webhook-signature` is `v1,` and the base64 of the HMAC-SHA256, under the webhook's secret, of
//! `webhook-id`, `.`, `webhook-timestamp` (seconds since the Unix epoch), `.` and the body.
//!
//! A webhook's secret is the HMAC-SHA256 of its id under one key of the service. So there is one
//! secret to keep and to restore instead of one for each webhook, a deleted webhook leaves none
//! behind, and neither the log nor a view holds any. The key is in a file of its own beside the log.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::Digest;
use domain::ids::WebhookId;
use zeroize::Zeroizing;

use crate::service::keys::{NoEntropy, unguessable};
use crate::service::secret_file::{self, NotKept};

/// What the text of every secret begins with.
const SECRET_PREFIX: &str = "whsec_";

/// What secrets are made of, beside the id: no other use of the key gives the same bytes.
const PURPOSE: &str = "nullspace webhook secret v1 ";

/// Why deliveries cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    /// No random bytes.
    #[error("cannot make a key")]
    Entropy(#[from] NoEntropy),
    /// The file cannot be used.
    #[error("cannot keep the key in {path}")]
    Keep {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What all secrets are made of.
pub struct SigningKey(hmac::Key);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

impl SigningKey {
    /// The key in `file`, mode 0600, which is made if it is not there. Blocks.
    ///
    /// # Errors
    /// [`SigningKeyError`].
    pub fn open(file: &Path) -> Result<Self, SigningKeyError> {
        let text = secret_file::kept(file, unguessable).map_err(|err| match err {
            NotKept::Entropy(err) => err.into(),
            NotKept::File(source) => SigningKeyError::Keep {
                path: file.to_owned(),
                source,
            },
        })?;
        Ok(Self::of(text.as_bytes()))
    }

    fn of(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// The secret of a webhook: always the same.
    pub fn secret(&self, id: &WebhookId) -> Secret {
        let tag = hmac::sign(&self.0, format!("{PURPOSE}{id}").as_bytes());
        Secret(Zeroizing::new(tag.as_ref().to_vec()))
    }
}

/// What signs the deliveries of one webhook: shown once, wiped when dropped, never logged.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// The text that its owner keeps.
    pub fn reveal(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(SECRET_PREFIX.to_owned());
        STANDARD.encode_string(self.0.as_slice(), &mut text);
        text
    }

    /// What is recorded of it.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }

    /// The signature of `body`, sent as `id` at `timestamp`, in seconds since the Unix epoch.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let mut signing = hmac::Context::with_key(&key);
        signing.update(format!("{id}.{timestamp}.").as_bytes());
        signing.update(body);
        format!("v1,{}", STANDARD.encode(signing.sign()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use domain::time::Timestamp;

    use super::*;

    fn id(number: u8) -> WebhookId {
        WebhookId::generate(Timestamp::from_unix_micros(1).unwrap(), [number; 10])
    }

    #[test]
    fn a_signature_is_that_of_standard_webhooks() {
        // From the specification's own list of examples.
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let secret = Secret(Zeroizing::new(secret));
        assert_eq!(&*secret.reveal(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let signed = secret.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_is_the_same_again_and_no_other_webhooks() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("webhooks.key");
        let key = SigningKey::open(&file).unwrap();
        let secret = key.secret(&id(1)).reveal();
        assert_eq!(secret.len(), "whsec_".len() + 44);
        assert_ne!(secret, key.secret(&id(2)).reveal());
        assert_eq!(
            secret,
            SigningKey::open(&file).unwrap().secret(&id(1)).reveal()
        );
        let other = SigningKey::open(&folder.path().join("other")).unwrap();
        assert_ne!(secret, other.secret(&id(1)).reveal());
        assert_ne!(key.secret(&id(1)).digest(), other.secret(&id(1)).digest());
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
