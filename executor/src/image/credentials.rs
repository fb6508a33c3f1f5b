//! What registries are shown: credentials as callers bring them. No text form shows a secret.

use secrecy::{ExposeSecret as _, SecretString};

use super::ecr::AwsKey;
use super::gcp::ServiceAccount;

/// What a registry is shown.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// Nothing.
    Anonymous,
    /// A user's name and password.
    Basic {
        /// The name.
        username: String,
        /// The password.
        password: SecretString,
    },
    /// A key of AWS, exchanged for a password of its container registry.
    AwsEcr(AwsKey),
    /// A service account of Google Cloud, exchanged for an access token.
    GcpServiceAccount(ServiceAccount),
}

/// A user's name and password, as HTTP wants them.
#[derive(Clone, Debug)]
pub struct Password {
    /// The name.
    pub username: String,
    /// The password.
    pub password: SecretString,
}

/// Credentials do not fit the registry that they are for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WrongRegistry(pub(super) String);

impl Credentials {
    /// A user's name and password.
    pub fn basic(username: String, password: String) -> Self {
        Self::Basic {
            username,
            password: password.into(),
        }
    }

    /// The wire's word for their kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Basic { .. } => "basic",
            Self::AwsEcr(_) => "aws_ecr",
            Self::GcpServiceAccount(_) => "gcp_artifact_registry",
        }
    }

    /// Whether there is something to show.
    pub fn is_anonymous(&self) -> bool {
        matches!(self, Self::Anonymous)
    }

    /// Checks that they may be shown to the registry at `host`. What a cloud gives in exchange opens
    /// more than one repository, so only the cloud's own registries get it.
    ///
    /// # Errors
    /// [`WrongRegistry`], in words for the caller.
    pub fn check_registry(&self, host: &str) -> Result<(), WrongRegistry> {
        match self {
            Self::Anonymous | Self::Basic { .. } => Ok(()),
            Self::AwsEcr(key) => key.check_registry(host),
            Self::GcpServiceAccount(_) => super::gcp::check_registry(host),
        }
    }

    /// How many bytes of secrets they hold.
    pub(crate) fn secret_bytes(&self) -> usize {
        match self {
            Self::Anonymous => 0,
            Self::Basic { username, password } => username.len() + password.expose_secret().len(),
            Self::AwsEcr(key) => key.secret_bytes(),
            Self::GcpServiceAccount(account) => account.secret_bytes(),
        }
    }
}
