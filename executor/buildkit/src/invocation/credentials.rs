//! Logins for registries, in the form of Docker's client.

use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

/// What Docker's client calls Docker Hub.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// A login for one registry.
#[derive(Clone, Debug)]
pub struct RegistryLogin {
    /// The registry: a host, with its port if it has one; `docker.io` is Docker Hub.
    pub host: String,
    /// The user.
    pub user: String,
    /// The password, or a token in its place.
    pub password: SecretString,
}

impl RegistryLogin {
    /// What Docker's client files it under.
    pub(super) fn key(&self) -> &str {
        match self.host.as_str() {
            "docker.io" | "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB,
            host => host,
        }
    }
}

/// Writes the logins as Docker's `config.json`, straight to where they go: no copy of them stays in
/// memory.
pub(super) fn write_config(logins: &[RegistryLogin], to: &mut impl Write) -> io::Result<()> {
    to.write_all(br#"{"auths":{"#)?;
    for (index, login) in logins.iter().enumerate() {
        if index > 0 {
            to.write_all(b",")?;
        }
        serde_json::to_writer(&mut *to, login.key())?;
        write!(to, r#":{{"auth":"{}"}}"#, basic(login).as_str())?;
    }
    to.write_all(b"}}")
}

/// User and password as a header has them. The room is there from the start: growing would leave a copy.
fn basic(login: &RegistryLogin) -> Zeroizing<String> {
    let password = login.password.expose_secret();
    let mut plain = Zeroizing::new(String::with_capacity(login.user.len() + 1 + password.len()));
    for part in [&login.user, ":", password] {
        plain.push_str(part);
    }
    let mut encoded = Zeroizing::new(String::with_capacity(plain.len() / 3 * 4 + 4));
    STANDARD.encode_string(plain.as_bytes(), &mut encoded);
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(logins: &[RegistryLogin]) -> serde_json::Value {
        let mut written = Vec::new();
        write_config(logins, &mut written).unwrap();
        serde_json::from_slice(&written).unwrap()
    }

    fn login(host: &str, user: &str, password: &str) -> RegistryLogin {
        RegistryLogin {
            host: host.to_owned(),
            user: user.to_owned(),
            password: password.into(),
        }
    }

    #[test]
    fn logins_are_written_as_dockers_client_reads_them() {
        let logins = [
            login("registry.example.com:5000", "me", "pass:\"word\""),
            login("docker.io", "hub", "token"),
        ];
        let expected = serde_json::json!({"auths": {
            "registry.example.com:5000": {"auth": STANDARD.encode("me:pass:\"word\"")},
            "https://index.docker.io/v1/": {"auth": STANDARD.encode("hub:token")},
        }});
        assert_eq!(config(&logins), expected);
    }

    #[test]
    fn without_logins_the_list_is_empty() {
        assert_eq!(config(&[]), serde_json::json!({"auths": {}}));
    }

    #[test]
    fn the_text_form_of_a_login_has_no_password() {
        let text = format!("{:?}", login("h", "u", "hunter2"));
        assert!(
            text.contains("\"u\"") && !text.contains("hunter2"),
            "{text}"
        );
    }
}
