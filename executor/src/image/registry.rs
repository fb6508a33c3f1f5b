//! Registries: where they are, how to speak to them, and asking them for an image's documents.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use domain::ports::Clock;
use reqwest::Url;
use serde::Deserialize;

use super::challenge;
use super::credentials::{Credentials, Password};
use super::error::ImageError;
use super::manifest::ResolvedImage;
use super::reference::ImageReference;
use super::resolve::{Named, resolve};
use super::source::{Host, Source};
use super::wire::Wire;
use crate::guard::{Names, SystemNames};
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
    /// Registries and their storage, as `host` or `host:port`, that may have addresses which are not
    /// public: loopback, private, link-local. Mirrors and hosts of plain HTTP may have them anyway.
    pub private_hosts: BTreeSet<String>,
    /// Where passwords of Amazon's registries are asked for, instead of at the region's endpoint.
    pub ecr_endpoint: Option<String>,
    /// Where tokens of Google's registries are asked for, instead of at Google's token service.
    pub gcp_token_endpoint: Option<String>,
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

/// A client of all registries. Clones share it.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

pub(super) struct Inner {
    pub(super) config: RegistryConfig,
    pub(super) limits: ImageLimits,
    pub(super) wire: Wire,
    pub(super) clock: Arc<dyn Clock>,
    /// The endpoints of token services that are set.
    pub(super) ecr_endpoint: Option<Url>,
    pub(super) gcp_token_endpoint: Option<Url>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("config", &self.0.config)
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// A client with the given settings. What is signed carries the time of `clock`.
    ///
    /// # Errors
    /// [`ImageError::Client`] if TLS cannot be set up, or an endpoint is no URL.
    pub fn new(
        config: RegistryConfig,
        limits: ImageLimits,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ImageError> {
        Self::with_names(config, limits, clock, Arc::new(SystemNames))
    }

    /// The same with names of its own.
    pub(super) fn with_names(
        config: RegistryConfig,
        limits: ImageLimits,
        clock: Arc<dyn Clock>,
        names: Arc<dyn Names>,
    ) -> Result<Self, ImageError> {
        let endpoint = |text: &Option<String>| {
            let url = text.as_deref().map(Url::parse).transpose();
            url.map_err(|error| ImageError::Client {
                source: error.into(),
            })
        };
        let ecr_endpoint = endpoint(&config.ecr_endpoint)?;
        let gcp_token_endpoint = endpoint(&config.gcp_token_endpoint)?;
        let endpoints = [&ecr_endpoint, &gcp_token_endpoint];
        let endpoints: Vec<&Url> = endpoints.into_iter().flatten().collect();
        Ok(Self(Arc::new(Inner {
            wire: Wire::new(&config, &endpoints, &limits, names)?,
            config,
            limits,
            clock,
            ecr_endpoint,
            gcp_token_endpoint,
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
        let source = self.source(reference, credentials);
        let named = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => Named::Digest(*digest),
            (None, tag) => Named::Tag(tag.unwrap_or("latest").to_owned()),
        };
        let found = resolve(&source, named, &self.0.limits).await?;
        Ok(ResolvedImage {
            reference: reference.clone(),
            manifest_digest: found.manifest_digest,
            config: found.config,
            layers: found.layers,
        })
    }

    /// The credentials for an image's registry as a name and a password, for a tool that speaks to it
    /// itself; nothing for whoever has none.
    ///
    /// # Errors
    /// Any [`ImageError`], if they cannot be exchanged.
    pub async fn login(
        &self,
        image: &ImageReference,
        credentials: &Credentials,
    ) -> Result<Option<Password>, ImageError> {
        let host = image.registry();
        let password = challenge::password(&self.0, host, credentials).await;
        password.map_err(|answer| {
            self.source(image, credentials)
                .error(host.to_owned(), answer)
        })
    }

    /// The hosts to ask for an image. Only its own registry is shown the credentials.
    pub(super) fn source<'a>(
        &'a self,
        image: &'a ImageReference,
        credentials: &Credentials,
    ) -> Source<'a> {
        let config = &self.0.config;
        let mirrors = config.mirrors.get(image.registry());
        let mut hosts: Vec<Host> = mirrors
            .into_iter()
            .flatten()
            .map(|mirror| Host::new(&mirror.host, Credentials::Anonymous))
            .collect();
        if hosts.is_empty() || !config.mirrors_only {
            hosts.push(Host::new(image.registry(), credentials.clone()));
        }
        Source {
            image,
            limits: &self.0.limits,
            registry: &self.0,
            hosts,
        }
    }
}
