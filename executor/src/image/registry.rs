//! Registries: where they are, how to speak to them, and asking them for an image's documents.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use oci_client::Client;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use serde::Deserialize;

use super::error::ImageError;
use super::manifest::{Manifest, ResolvedImage, check_types, read_config, read_manifest};
use super::reference::ImageReference;
use super::source::{Host, Named, Source};
use crate::limits::layers::ImageLimits;

/// Which hosts stand in for which registries, and which speak plain HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// Mirrors by registry, for example of `docker.io`, asked in this order before the registry
    /// itself. A mirror keeps images under the same repository path. Credentials are for the
    /// registry alone: a mirror is asked without any.
    pub mirrors: BTreeMap<String, Vec<Mirror>>,
    /// Never ask a registry that has mirrors itself.
    pub mirrors_only: bool,
    /// Registries that are spoken to without TLS, as `host` or `host:port`.
    pub plain_http_hosts: BTreeSet<String>,
}

/// A host that keeps copies of a registry's images.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// `host` or `host:port`.
    pub host: String,
    /// Speak to it without TLS.
    #[serde(default)]
    pub plain_http: bool,
}

/// What a registry is shown. Its text never shows the secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing.
    Anonymous,
    /// A user's name and password.
    Basic {
        /// The name.
        username: String,
        /// The password.
        password: String,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Basic { username, .. } => f
                .debug_struct("Basic")
                .field("username", username)
                .finish_non_exhaustive(),
        }
    }
}

impl Credentials {
    fn wire(&self) -> RegistryAuth {
        match self {
            Self::Anonymous => RegistryAuth::Anonymous,
            Self::Basic { username, password } => {
                RegistryAuth::Basic(username.clone(), password.clone())
            }
        }
    }
}

/// A client of all registries. Clones share it.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    config: RegistryConfig,
    limits: ImageLimits,
    /// Serves every request without credentials.
    anonymous: Client,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("config", &self.0.config)
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// A client with the given settings.
    ///
    /// # Errors
    /// [`ImageError::Client`] if TLS cannot be set up.
    pub fn new(config: RegistryConfig, limits: ImageLimits) -> Result<Self, ImageError> {
        let anonymous = client(&config, &limits)?;
        Ok(Self(Arc::new(Inner {
            config,
            limits,
            anonymous,
        })))
    }

    /// The bounds on its images.
    pub fn limits(&self) -> &ImageLimits {
        &self.0.limits
    }

    /// Finds the image for linux/amd64, and reads its manifest and configuration.
    ///
    /// # Errors
    /// Any [`ImageError`]; [`ImageError::reason`] tells what to do about it.
    pub async fn resolve(
        &self,
        reference: &ImageReference,
        credentials: &Credentials,
    ) -> Result<ResolvedImage, ImageError> {
        let source = self.source(reference, credentials)?;
        let limits = &self.0.limits;
        let named = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => Named::Digest(*digest),
            (None, tag) => Named::Tag(tag.unwrap_or("latest").to_owned()),
        };
        let (mut manifest_digest, body) = source.manifest(&named).await?;
        let mut manifest = read_manifest(reference, &body, limits)?;
        if let Manifest::Index(chosen) = manifest {
            let (digest, body) = source.manifest(&Named::Digest(chosen)).await?;
            manifest_digest = digest;
            manifest = read_manifest(reference, &body, limits)?;
        }
        let Manifest::Image { config, layers } = manifest else {
            let what = "its index leads to another index".to_owned();
            return Err(ImageError::Refused {
                image: reference.clone(),
                what,
            });
        };
        check_types(reference, &config, &layers, limits)?;
        let body = source.document(&config).await?;
        let (config, layers) = read_config(reference, &body, layers)?;
        Ok(ResolvedImage {
            reference: reference.clone(),
            manifest_digest,
            config,
            layers,
        })
    }

    /// The hosts to ask for an image.
    pub(super) fn source<'a>(
        &'a self,
        image: &'a ImageReference,
        credentials: &Credentials,
    ) -> Result<Source<'a>, ImageError> {
        let Inner {
            config,
            limits,
            anonymous,
        } = &*self.0;
        // The wire client keeps the first credentials that it sees for a host, and its tokens: it
        // must not be shared by those who bring their own.
        let client = match credentials {
            Credentials::Anonymous => anonymous.clone(),
            Credentials::Basic { .. } => client(config, limits)?,
        };
        let mirrors = config
            .mirrors
            .get(image.registry())
            .map_or(&[][..], Vec::as_slice);
        let mut hosts: Vec<Host> = mirrors
            .iter()
            .map(|mirror| Host {
                name: mirror.host.clone(),
                auth: RegistryAuth::Anonymous,
            })
            .collect();
        if hosts.is_empty() || !config.mirrors_only {
            hosts.push(Host {
                name: image.registry().to_owned(),
                auth: credentials.wire(),
            });
        }
        Ok(Source {
            image,
            limits,
            client,
            hosts,
        })
    }
}

fn client(config: &RegistryConfig, limits: &ImageLimits) -> Result<Client, ImageError> {
    let plain_mirrors = config
        .mirrors
        .values()
        .flatten()
        .filter(|mirror| mirror.plain_http)
        .map(|mirror| &mirror.host);
    let plain = config.plain_http_hosts.iter().chain(plain_mirrors).cloned();
    Client::try_from(ClientConfig {
        protocol: ClientProtocol::HttpsExcept(plain.collect()),
        connect_timeout: Some(Duration::from_millis(limits.connect_timeout_ms)),
        read_timeout: Some(Duration::from_millis(limits.read_timeout_ms)),
        user_agent: concat!("nullspaced/", env!("CARGO_PKG_VERSION")),
        platform_resolver: None,
        ..ClientConfig::default()
    })
    .map_err(|error| ImageError::Client {
        source: error.into(),
    })
}
