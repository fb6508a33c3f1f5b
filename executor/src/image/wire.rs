//! HTTP as registries are spoken to: bounded answers, guarded addresses, redirects by hand.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{
    ACCEPT, AUTHORIZATION, DATE, HeaderMap, HeaderValue, LOCATION, RANGE, RETRY_AFTER,
};
use reqwest::{Client, Method, Response, StatusCode, Url, redirect};
use zeroize::Zeroizing;

use super::error::{Answer, ImageError};
use super::registry::RegistryConfig;
use crate::guard::{AddressRefused, Names, Reach, Resolver};
use crate::limits::layers::ImageLimits;

/// Where Docker Hub's registry is; its images are named after another host.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// The HTTP client of registries and token services.
pub(super) struct Wire {
    /// Connects to public addresses only.
    guarded: Client,
    /// Connects to any address; for hosts that the operator named.
    open: Client,
    /// `host:port` of what the operator named.
    named: BTreeSet<String>,
    /// `host:port` of what is spoken to without TLS.
    plain: BTreeSet<String>,
    limits: ImageLimits,
}

/// What is asked of a host.
#[derive(Clone, Debug, Default)]
pub(super) struct Ask {
    pub(super) accept: Option<&'static str>,
    pub(super) authorization: Option<HeaderValue>,
    /// Start at this byte.
    pub(super) offset: u64,
}

/// How a token service answered.
pub(super) enum Posted {
    Done(Zeroizing<Vec<u8>>),
    /// It will not, with this status.
    Refused(u16),
}

impl Wire {
    /// A client that goes to the hosts of `config`, to `endpoints`, and to what is public.
    pub(super) fn new(
        config: &RegistryConfig,
        endpoints: &[&Url],
        limits: &ImageLimits,
        names: Arc<dyn Names>,
    ) -> Result<Self, ImageError> {
        let mirrors = || config.mirrors.values().flatten();
        let plain_mirrors = mirrors().filter(|mirror| mirror.plain_http);
        let plain = config
            .plain_http_hosts
            .iter()
            .chain(plain_mirrors.map(|mirror| &mirror.host));
        let mut wanted: BTreeSet<String> = config
            .private_hosts
            .iter()
            .chain(&config.plain_http_hosts)
            .chain(mirrors().map(|mirror| &mirror.host))
            .flat_map(|host| with_ports(host))
            .collect();
        wanted.extend(endpoints.iter().copied().filter_map(host_and_port));
        let http = |reach| http(limits, Resolver::new(Arc::clone(&names), reach));
        Ok(Self {
            guarded: http(Reach::Public(Vec::new()))?,
            open: http(Reach::Anywhere)?,
            named: wanted,
            plain: plain.flat_map(|host| with_ports(host)).collect(),
            limits: limits.clone(),
        })
    }

    /// The address of `path` below a registry's `/v2/`.
    pub(super) fn url(&self, host: &str, path: &str) -> Result<Url, Answer> {
        let place = if host == DOCKER_HUB.0 {
            DOCKER_HUB.1
        } else {
            host
        };
        // Plain HTTP's own port, if none is given.
        let scheme = if with_ports(host)
            .iter()
            .any(|host| self.plain.contains(host))
        {
            "http"
        } else {
            "https"
        };
        Url::parse(&format!("{scheme}://{place}/v2/{path}"))
            .map_err(|_| Answer::Final(format!("`{host}` is no host's name")))
    }

    /// Asks for `url` and follows redirects. What it answers, whatever the status.
    ///
    /// The authorization goes to the URL's own origin and to no other.
    pub(super) async fn get(&self, url: &Url, ask: &Ask) -> Result<Response, Answer> {
        let origin = url.origin();
        let mut url = url.clone();
        for _hop in 0..=self.limits.redirects_max {
            let mut headers = HeaderMap::new();
            if let Some(accept) = ask.accept {
                headers.insert(ACCEPT, HeaderValue::from_static(accept));
            }
            if let Some(authorization) = &ask.authorization
                && url.origin() == origin
            {
                headers.insert(AUTHORIZATION, authorization.clone());
            }
            if ask.offset > 0 {
                let range = format!("bytes={}-", ask.offset);
                let range = HeaderValue::try_from(range).map_err(Answer::failed)?;
                headers.insert(RANGE, range);
            }
            let response = self.send(Method::GET, &url, headers, Vec::new()).await?;
            let Some(target) = redirection(&response) else {
                return Ok(response);
            };
            url = self.target(&url, &target)?;
        }
        Err(Answer::Final("it redirects too often".to_owned()))
    }

    /// Posts to a token service. It is not followed elsewhere: what it is sent is secret.
    pub(super) async fn post(
        &self,
        url: &Url,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<Posted, Answer> {
        let response = self.send(Method::POST, url, headers, body).await?;
        let status = response.status();
        if status.is_success() {
            let body = self.read(response, self.limits.token_bytes_max).await?;
            return Ok(Posted::Done(Zeroizing::new(body)));
        }
        match refusal(&response) {
            failed @ Answer::Failed { .. } => Err(failed),
            Answer::NotFound
            | Answer::Unauthorized
            | Answer::Final(_)
            | Answer::Refused(_)
            | Answer::Exchange(_)
            | Answer::Address(_) => Ok(Posted::Refused(status.as_u16())),
        }
    }

    async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<Response, Answer> {
        let is_named = host_and_port(url).is_some_and(|host| self.named.contains(&host));
        let client = if is_named {
            &self.open
        } else {
            let reach = Reach::Public(Vec::new());
            reach.check_literal(url).map_err(Answer::Address)?;
            &self.guarded
        };
        let request = client.request(method, url.clone()).headers(headers);
        request.body(body).send().await.map_err(unsent)
    }

    /// Where a redirect leads. TLS is not left, except to hosts that are known to speak without.
    fn target(&self, from: &Url, location: &str) -> Result<Url, Answer> {
        let target = from
            .join(location)
            .map_err(|_| Answer::Final("it redirects to what is no address".to_owned()))?;
        self.check_scheme(&target)?;
        Ok(target)
    }

    /// Checks that TLS is spoken to the host, or that the operator said that it is not.
    pub(super) fn check_scheme(&self, url: &Url) -> Result<(), Answer> {
        let is_plain = || host_and_port(url).is_some_and(|host| self.plain.contains(&host));
        match url.scheme() {
            "https" => Ok(()),
            "http" if is_plain() => Ok(()),
            scheme => Err(Answer::Final(format!(
                "it leads to `{scheme}://{}`, where TLS is wanted (an operator can allow plain HTTP \
                 by the setting `registry.plain_http_hosts`)",
                url.host_str().unwrap_or_default()
            ))),
        }
    }

    /// The whole body, if it has at most `bytes_max`.
    pub(super) async fn read(
        &self,
        mut response: Response,
        bytes_max: usize,
    ) -> Result<Vec<u8>, Answer> {
        let too_large = || Answer::Refused(format!("an answer exceeds {bytes_max} bytes"));
        let bound = u64::try_from(bytes_max).unwrap_or(u64::MAX);
        if response.content_length().is_some_and(|bytes| bytes > bound) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(unsent)? {
            if body.len().saturating_add(piece.len()) > bytes_max {
                return Err(too_large());
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }
}

fn http(limits: &ImageLimits, resolver: Resolver) -> Result<Client, ImageError> {
    Client::builder()
        // A proxy would resolve names where nobody looks.
        .no_proxy()
        .redirect(redirect::Policy::none())
        .dns_resolver(Arc::new(resolver))
        .connect_timeout(Duration::from_millis(limits.connect_timeout_ms))
        .read_timeout(Duration::from_millis(limits.read_timeout_ms))
        .user_agent(concat!("nullspaced/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| ImageError::Client {
            source: error.into(),
        })
}

/// `host:port`; without a port, those of HTTPS and HTTP.
fn with_ports(host: &str) -> Vec<String> {
    let host = host.to_ascii_lowercase();
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(name, port)| !port.ends_with(']') && !name.is_empty());
    if has_port {
        return vec![host];
    }
    vec![format!("{host}:443"), format!("{host}:80")]
}

fn host_and_port(url: &Url) -> Option<String> {
    Some(format!(
        "{}:{}",
        url.host_str()?,
        url.port_or_known_default()?
    ))
}

fn redirection(response: &Response) -> Option<String> {
    let status = response.status();
    let follows = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = response.headers().get(LOCATION).filter(|_| follows)?;
    Some(location.to_str().ok()?.to_owned())
}

/// What an error of the client means: a guarded address, or a connection that failed.
pub(super) fn unsent(error: reqwest::Error) -> Answer {
    if let Some(refused) = AddressRefused::in_causes(&error) {
        return Answer::Address(refused.clone());
    }
    // The address may carry a signature of the storage that it leads to.
    Answer::failed(error.without_url())
}

/// What an answer without success means.
pub(super) fn refusal(response: &Response) -> Answer {
    let status = response.status();
    let said = format!("it answered with status {}", status.as_u16());
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Answer::Unauthorized,
        StatusCode::NOT_FOUND => Answer::NotFound,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Answer::Failed {
                source: said.into(),
                wait: retry_after(response.headers()),
            }
        }
        _ if status.is_server_error() => Answer::Failed {
            source: said.into(),
            wait: retry_after(response.headers()),
        },
        _ => Answer::Final(said),
    }
}

/// How long the host asks to be left alone: seconds, or a date measured against the answer's own.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let wanted = text(RETRY_AFTER)?.trim();
    if let Ok(seconds) = wanted.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text| chrono::DateTime::parse_from_rfc2822(text).ok();
    let waits = date(wanted)? - date(text(DATE)?)?;
    waits.to_std().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_read_as_seconds_or_as_a_date() {
        let read = |wanted: &'static str| {
            let headers = [
                (RETRY_AFTER, HeaderValue::from_static(wanted)),
                (
                    DATE,
                    HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"),
                ),
            ];
            retry_after(&HeaderMap::from_iter(headers))
        };
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(
            read("Sun, 06 Nov 1994 08:50:07 GMT"),
            Some(Duration::from_secs(30))
        );
        for odd in ["-1", "soon", "Sun, 06 Nov 1994 08:40:07 GMT", ""] {
            assert_eq!(read(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_host_without_a_port_has_the_ports_of_http() {
        assert_eq!(with_ports("R.example"), ["r.example:443", "r.example:80"]);
        assert_eq!(with_ports("r.example:5000"), ["r.example:5000"]);
        assert_eq!(with_ports("[::1]"), ["[::1]:443", "[::1]:80"]);
        assert_eq!(with_ports("[::1]:5000"), ["[::1]:5000"]);
    }
}
