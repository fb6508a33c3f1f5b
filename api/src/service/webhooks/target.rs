//! Which URLs events may be sent to.
//!
//! What a name leads to is checked when a connection is made; here is what can be told from the URL.

use executor::guard::Reach;
use reqwest::Url;

use crate::config;

/// What the settings allow.
#[derive(Clone, Debug)]
pub struct Targets {
    plain_http: bool,
    /// In lower case; empty: any.
    hosts: Vec<String>,
    reach: Reach,
}

impl Targets {
    /// What `settings` allow.
    pub fn new(settings: &config::Webhooks) -> Self {
        let hosts = settings.allowed_hosts.iter();
        Self {
            plain_http: settings.plain_http,
            hosts: hosts.map(|host| host.to_ascii_lowercase()).collect(),
            reach: Reach::Public(settings.allowed_networks.clone()),
        }
    }

    /// How far connections may reach.
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Reads a URL to which events may be sent.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(&self, text: &str) -> Result<Url, String> {
        let url = Url::parse(text).map_err(|err| format!("is no URL: {err}"))?;
        match url.scheme() {
            "https" => {}
            "http" if self.plain_http => {}
            "http" => return Err("must begin with `https://` (`webhooks.plain_http`)".to_owned()),
            _ => return Err("must begin with `https://` or `http://`".to_owned()),
        }
        // It would be recorded, and shown to whoever reads the log.
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not hold a user name or password".to_owned());
        }
        if url.fragment().is_some() {
            return Err("must not have a fragment (`#…`)".to_owned());
        }
        let host = url.host_str().unwrap_or_default();
        if !self.allows(host) {
            return Err(format!(
                "`{host}` is not among the hosts that the operator allows (`webhooks.allowed_hosts`)"
            ));
        }
        self.reach.check_literal(&url).map_err(|refused| {
            format!("{refused}, which the operator does not allow (`webhooks.allowed_networks`)")
        })?;
        Ok(url)
    }

    fn allows(&self, host: &str) -> bool {
        let allows = |allowed: &String| match allowed.strip_prefix("*.") {
            Some(domain) => host
                .strip_suffix(domain)
                .is_some_and(|below| below.len() > 1 && below.ends_with('.')),
            None => host == allowed,
        };
        self.hosts.is_empty() || self.hosts.iter().any(allows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(settings: &config::Webhooks, url: &str) -> String {
        Targets::new(settings).read(url).unwrap_err()
    }

    #[test]
    fn only_http_without_credentials_to_public_addresses_is_allowed_by_default() {
        let settings = config::Webhooks::default();
        for (url, problem) in [
            ("hooks.example/in", "is no URL"),
            ("ftp://hooks.example/in", "must begin with"),
            ("file:///etc/passwd", "must begin with"),
            ("https://user@hooks.example/", "user name or password"),
            ("https://:pass@hooks.example/", "user name or password"),
            ("https://hooks.example/#top", "fragment"),
            ("http://127.0.0.1:8080/", "a loopback address"),
            ("http://[::1]/", "a loopback address"),
            ("http://0177.0.0.1/", "a loopback address"),
            ("http://169.254.169.254/latest", "a link-local address"),
            ("https://10.0.0.7/", "a private address"),
            ("https://[::ffff:10.0.0.7]/", "a private address"),
        ] {
            let said = refusal(&settings, url);
            assert!(said.contains(problem), "{url}: {said}");
        }
        for url in ["https://hooks.example/in?a=b", "http://1.1.1.1:8080/"] {
            Targets::new(&settings).read(url).unwrap();
        }
    }

    #[test]
    fn the_operator_says_which_hosts_and_networks() {
        let settings = config::Webhooks {
            plain_http: false,
            allowed_hosts: vec!["Hooks.example".into(), "*.corp.example".into()],
            ..config::Webhooks::default()
        };
        for url in [
            "https://hooks.example/",
            "https://HOOKS.example/",
            "https://a.b.corp.example/",
        ] {
            Targets::new(&settings).read(url).unwrap();
        }
        for url in [
            "https://other.example/",
            "https://a.hooks.example/",
            "https://corp.example/",
            "https://evilcorp.example/",
            "https://.corp.example/",
        ] {
            let said = refusal(&settings, url);
            assert!(said.contains("allowed_hosts"), "{url}: {said}");
        }
        let said = refusal(&settings, "http://hooks.example/");
        assert!(said.contains("plain_http"), "{said}");

        let settings = config::Webhooks {
            allowed_networks: vec!["10.1.0.0/16".parse().unwrap()],
            ..config::Webhooks::default()
        };
        Targets::new(&settings).read("http://10.1.2.3/").unwrap();
        let said = refusal(&settings, "http://10.2.0.1/");
        assert!(said.contains("allowed_networks"), "{said}");
    }
}
