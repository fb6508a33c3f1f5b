//! Asking the hosts that may have an image, in order and again, for its documents and blobs.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use domain::Digest;
use reqwest::header::HeaderValue;
use reqwest::{Response, StatusCode};

use super::challenge;
use super::credentials::Credentials;
use super::download::{Pieces, pieces};
use super::error::{Answer, ImageError, check};
use super::manifest::{ACCEPTED, Descriptor};
use super::reference::{ImageName, ImageReference};
use super::registry::Inner;
use super::resolve::{Documents, Named};
use super::wire::{Ask, refusal};
use crate::limits::layers::ImageLimits;

/// One image at the hosts that may have it, in the order in which they are asked.
///
/// What its hosts were shown, and what they gave in exchange, is kept for one image and one caller:
/// nobody asks with what another one brought.
pub(super) struct Source<'a> {
    pub(super) image: &'a ImageReference,
    pub(super) limits: &'a ImageLimits,
    pub(super) registry: &'a Inner,
    pub(super) hosts: Vec<Host>,
}

pub(super) struct Host {
    name: String,
    credentials: Credentials,
    /// What answered its last challenge.
    authorization: Mutex<Option<HeaderValue>>,
}

impl Host {
    pub(super) fn new(name: &str, credentials: Credentials) -> Self {
        Self {
            name: name.to_owned(),
            credentials,
            authorization: Mutex::default(),
        }
    }

    fn authorization(&self) -> Option<HeaderValue> {
        let held = self.authorization.lock();
        held.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn authorize(&self, header: HeaderValue) {
        let held = self.authorization.lock();
        *held.unwrap_or_else(PoisonError::into_inner) = Some(header);
    }
}

impl Documents for Source<'_> {
    fn name(&self) -> ImageName {
        self.image.into()
    }

    async fn manifest(&self, named: &Named) -> Result<(Digest, Vec<u8>), ImageError> {
        let (_, body) = self
            .ask_all("the manifest", |host| self.manifest_at(host, named))
            .await?;
        let actual = Digest::of(&body);
        match named {
            Named::Digest(expected) => {
                check(&self.image.into(), "the manifest", *expected, actual)?;
            }
            Named::Tag(_) => {}
        }
        Ok((actual, body))
    }

    async fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
        let (_, body) = self
            .ask_all("the configuration", |host| {
                self.document_at(host, descriptor)
            })
            .await?;
        let actual = Digest::of(&body);
        check(
            &self.image.into(),
            "the configuration",
            descriptor.digest,
            actual,
        )?;
        Ok(body)
    }
}

impl Source<'_> {
    async fn manifest_at(&self, host: &Host, named: &Named) -> Result<Vec<u8>, Answer> {
        let name = match named {
            Named::Tag(tag) => tag.clone(),
            Named::Digest(digest) => digest.to_string(),
        };
        let ask = Ask {
            accept: Some(ACCEPTED),
            ..Ask::default()
        };
        let response = self.get(host, &format!("manifests/{name}"), ask).await?;
        let bytes_max = self.limits.manifest_bytes_max;
        self.registry.wire.read(response, bytes_max).await
    }

    async fn document_at(&self, host: &Host, descriptor: &Descriptor) -> Result<Vec<u8>, Answer> {
        let path = format!("blobs/{}", descriptor.digest);
        let response = self.get(host, &path, Ask::default()).await?;
        let bytes_max = usize::try_from(descriptor.size).unwrap_or(usize::MAX);
        self.registry.wire.read(response, bytes_max).await
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
        let ask = Ask {
            offset,
            ..Ask::default()
        };
        let response = self.get(host, &format!("blobs/{digest}"), ask).await?;
        pieces(response, offset)
    }

    /// Asks a host for a part of the image, and answers it if it wants to know who asks.
    async fn get(&self, host: &Host, part: &str, mut ask: Ask) -> Result<Response, Answer> {
        let wire = &self.registry.wire;
        let url = wire.url(&host.name, &format!("{}/{part}", self.image.repository()))?;
        ask.authorization = host.authorization();
        let mut response = wire.get(&url, &ask).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            // A token that was good may have come to its end, so this is asked each time.
            let answering = challenge::answer(
                self.registry,
                &response,
                &host.name,
                self.image.repository(),
                &host.credentials,
            );
            let header = answering.await?;
            ask.authorization = Some(header.clone());
            response = wire.get(&url, &ask).await?;
            if response.status().is_success() {
                host.authorize(header);
            }
        }
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(refusal(&response))
        }
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
                        Err(late) => Err(Answer::failed(late)),
                    }
                }
            });
            let (host, answer) = match round.await {
                Ok(found) => return Ok(found),
                Err(last) => last,
            };
            let Some(wait) = self.wait(&answer, attempt) else {
                return Err(self.error(host, answer));
            };
            tracing::debug!(image = %self.image, host, what, attempt, "a registry failed, asking again");
            tokio::time::sleep(wait).await;
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

    /// The wait before the attempt after the given one, if there is another: what the host asks
    /// for, and not less than our own. A host that wants to be left alone for too long is not
    /// asked again.
    pub(super) fn wait(&self, answer: &Answer, attempt: u32) -> Option<Duration> {
        let Answer::Failed { wait, .. } = answer else {
            return None;
        };
        let limits = self.limits;
        let asked = wait.unwrap_or_default();
        if attempt >= limits.attempts_max
            || asked > Duration::from_millis(limits.retry_after_ms_max)
        {
            return None;
        }
        let doubled = 2_u64.saturating_pow(attempt.saturating_sub(1));
        let own_ms = limits.backoff_first_ms.saturating_mul(doubled);
        Some(asked.max(Duration::from_millis(own_ms.min(limits.backoff_max_ms))))
    }

    /// The error that a host's answer amounts to.
    pub(super) fn error(&self, registry: String, answer: Answer) -> ImageError {
        let image = self.image.clone();
        match answer {
            Answer::NotFound => ImageError::NotFound { image, registry },
            Answer::Unauthorized => {
                let mut hosts = self.hosts.iter();
                let is_anonymous = hosts
                    .find(|host| host.name == registry)
                    .is_none_or(|host| host.credentials.is_anonymous());
                if is_anonymous {
                    ImageError::NeedsCredentials { image, registry }
                } else {
                    ImageError::Unauthorized { image, registry }
                }
            }
            Answer::Exchange(what) => ImageError::Exchange {
                image,
                registry,
                what,
            },
            Answer::Address(source) => ImageError::Address {
                image,
                registry,
                source: source.into(),
            },
            Answer::Failed { source, .. } => ImageError::Pull {
                image,
                registry,
                source,
            },
            Answer::Final(what) => ImageError::Pull {
                image,
                registry,
                source: what.into(),
            },
            Answer::Refused(what) => ImageError::Refused {
                image: self.image.into(),
                what,
            },
        }
    }
}
