//! Asking the hosts that may have an image, in order and again, for its documents and blobs.

use std::time::Duration;

use domain::Digest;
use futures_util::StreamExt as _;
use oci_client::client::LayerDescriptor as WireDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};

use super::download::{Pieces, open};
use super::error::{Answer, ImageError};
use super::manifest::{Descriptor, MANIFEST_TYPES};
use super::reference::ImageReference;
use crate::limits::layers::ImageLimits;

/// One image at the hosts that may have it, in the order in which they are asked.
pub(super) struct Source<'a> {
    pub(super) image: &'a ImageReference,
    pub(super) limits: &'a ImageLimits,
    pub(super) client: Client,
    pub(super) hosts: Vec<Host>,
}

pub(super) struct Host {
    pub(super) name: String,
    pub(super) auth: RegistryAuth,
}

/// How a manifest is asked for.
pub(super) enum Named {
    Tag(String),
    Digest(Digest),
}

impl Source<'_> {
    /// Fetches a manifest, its digest checked.
    pub(super) async fn manifest(&self, named: &Named) -> Result<(Digest, Vec<u8>), ImageError> {
        let (_, body) = self
            .ask_all("the manifest", |host| self.manifest_at(host, named))
            .await?;
        let actual = Digest::of(&body);
        match named {
            Named::Digest(expected) => self.check("the manifest", *expected, actual)?,
            Named::Tag(_) => {}
        }
        Ok((actual, body))
    }

    async fn manifest_at(&self, host: &Host, named: &Named) -> Result<Vec<u8>, Answer> {
        let (registry, repository) = (host.name.clone(), self.image.repository().to_owned());
        let reference = match named {
            Named::Tag(tag) => Reference::with_tag(registry, repository, tag.clone()),
            Named::Digest(digest) => {
                Reference::with_digest(registry, repository, digest.to_string())
            }
        };
        let (body, _) = self
            .client
            .pull_manifest_raw(&reference, &host.auth, MANIFEST_TYPES)
            .await?;
        if body.len() > self.limits.manifest_bytes_max {
            let max = self.limits.manifest_bytes_max;
            return Err(Answer::Refused(format!("its manifest exceeds {max} bytes")));
        }
        Ok(body.to_vec())
    }

    /// Fetches a small blob whole, its size and digest checked.
    pub(super) async fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
        let (_, body) = self
            .ask_all("the configuration", |host| {
                self.document_at(host, descriptor)
            })
            .await?;
        self.check("the configuration", descriptor.digest, Digest::of(&body))?;
        Ok(body)
    }

    async fn document_at(&self, host: &Host, descriptor: &Descriptor) -> Result<Vec<u8>, Answer> {
        let mut stream = self.open_at(host, &descriptor.digest, 0).await?;
        let mut body = Vec::new();
        while let Some(piece) = stream.next().await {
            body.extend_from_slice(&piece.map_err(|error| Answer::Failed(error.into()))?);
            if u64::try_from(body.len()).unwrap_or(u64::MAX) > descriptor.size {
                return Err(Answer::Refused(
                    "its configuration is larger than stated".to_owned(),
                ));
            }
        }
        Ok(body)
    }

    /// Opens a blob at a byte, at the first host that has it.
    pub(super) async fn open(
        &self,
        digest: &Digest,
        offset: u64,
    ) -> Result<(String, Pieces), (String, Answer)> {
        self.ask_round(|host| self.open_at(host, digest, offset))
            .await
    }

    async fn open_at(&self, host: &Host, digest: &Digest, offset: u64) -> Result<Pieces, Answer> {
        let repository = self.image.repository().to_owned();
        let digest = digest.to_string();
        let reference = Reference::with_digest(host.name.clone(), repository, digest.clone());
        self.client
            .store_auth_if_needed(reference.resolve_registry(), &host.auth)
            .await;
        let wire = WireDescriptor {
            digest: &digest,
            urls: &None,
        };
        open(&self.client, &reference, &wire, offset).await
    }

    /// Asks the hosts, in rounds, until one answers or no further round can help.
    async fn ask_all<'s, T, Fut>(
        &'s self,
        what: &'static str,
        ask: impl Fn(&'s Host) -> Fut,
    ) -> Result<(String, T), ImageError>
    where
        Fut: Future<Output = Result<T, Answer>>,
    {
        let deadline = Duration::from_millis(self.limits.document_timeout_ms);
        let mut attempt = 1;
        loop {
            let round = self.ask_round(|host| {
                let asked = ask(host);
                async move {
                    match tokio::time::timeout(deadline, asked).await {
                        Ok(answer) => answer,
                        Err(late) => Err(Answer::Failed(late.into())),
                    }
                }
            });
            let (host, answer) = match round.await {
                Ok(found) => return Ok(found),
                Err(last) => last,
            };
            if !matches!(answer, Answer::Failed(_)) || attempt >= self.limits.attempts_max {
                return Err(self.error(host, answer));
            }
            tracing::debug!(image = %self.image, host, what, attempt, "a registry failed, asking again");
            tokio::time::sleep(self.backoff(attempt)).await;
            attempt += 1;
        }
    }

    /// Asks each host until one answers; the last host's refusal is the one that counts.
    async fn ask_round<'s, T, Fut>(
        &'s self,
        ask: impl Fn(&'s Host) -> Fut,
    ) -> Result<(String, T), (String, Answer)>
    where
        Fut: Future<Output = Result<T, Answer>>,
    {
        let mut last = (self.image.registry().to_owned(), Answer::NotFound);
        for host in &self.hosts {
            match ask(host).await {
                Ok(found) => return Ok((host.name.clone(), found)),
                Err(answer) => {
                    tracing::debug!(image = %self.image, host = host.name, ?answer, "a registry does not serve the image");
                    last = (host.name.clone(), answer);
                }
            }
        }
        Err(last)
    }

    /// The wait before the attempt after the given one.
    pub(super) fn backoff(&self, attempt: u32) -> Duration {
        let doubled = 2_u64.saturating_pow(attempt.saturating_sub(1));
        let wait_ms = self.limits.backoff_first_ms.saturating_mul(doubled);
        Duration::from_millis(wait_ms.min(self.limits.backoff_max_ms))
    }

    /// The error that a host's answer amounts to.
    pub(super) fn error(&self, registry: String, answer: Answer) -> ImageError {
        let image = self.image.clone();
        match answer {
            Answer::NotFound => ImageError::NotFound { image, registry },
            Answer::Unauthorized => ImageError::Unauthorized { image, registry },
            Answer::Failed(source) => ImageError::Pull {
                image,
                registry,
                source,
            },
            Answer::Refused(what) => ImageError::Refused { image, what },
        }
    }

    pub(super) fn check(
        &self,
        what: &'static str,
        expected: Digest,
        actual: Digest,
    ) -> Result<(), ImageError> {
        if expected == actual {
            return Ok(());
        }
        Err(ImageError::DigestMismatch {
            image: self.image.clone(),
            what,
            expected,
            actual,
        })
    }
}
