//! BuildKit, which builds Dockerfiles.

use std::collections::BTreeSet;
use std::path::PathBuf;

use buildkit::BuildkitLimits;
use buildkit::daemon::{Address, DaemonConfig, InvalidAddress, Tls};
use serde::{Deserialize, Serialize};

use super::ConfigError;

/// The client and the daemons that it speaks to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Buildkit {
    /// BuildKit's client; looked up in `PATH` unless it is a path.
    pub buildctl: PathBuf,
    /// How long a Dockerfile may be built, in seconds.
    pub build_seconds_max: u64,
    /// How long a daemon may take to say that it is there, in milliseconds; then another is asked.
    pub probe_ms_max: u64,
    /// How long the client may take to end when it is stopped, in milliseconds; then it is killed.
    pub stop_ms_max: u64,
    /// The daemons; each build goes to the one with the least to do: `[[buildkit.daemon]]`.
    pub daemon: Vec<BuildkitDaemon>,
}

/// A daemon. It sees the secrets of the builds that it is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildkitDaemon {
    /// Where it listens: `unix:///path` or `tcp://host:port`.
    pub address: String,
    /// The certificate authority of its certificate, in PEM. Daemons at other hosts need this and
    /// the next two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_ca: Option<PathBuf>,
    /// The certificate that it is shown, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_cert: Option<PathBuf>,
    /// That certificate's key, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
    /// The name in its certificate, if it is not the host of the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_server_name: Option<String>,
}

impl Default for Buildkit {
    fn default() -> Self {
        let limits = BuildkitLimits::default();
        Self {
            buildctl: "buildctl".into(),
            build_seconds_max: limits.build_seconds_max,
            probe_ms_max: limits.probe_ms_max,
            stop_ms_max: limits.stop_ms_max,
            daemon: vec![BuildkitDaemon::at("unix:///run/buildkit/buildkitd.sock")],
        }
    }
}

impl BuildkitDaemon {
    /// The daemon at `address`, without TLS.
    pub fn at(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
            tls_server_name: None,
        }
    }

    fn tls(&self) -> Result<Option<Tls>, &'static str> {
        match (&self.tls_ca, &self.tls_cert, &self.tls_key) {
            (Some(ca), Some(cert), Some(key)) => Ok(Some(Tls {
                ca: ca.clone(),
                cert: cert.clone(),
                key: key.clone(),
                server_name: self.tls_server_name.clone(),
            })),
            (None, None, None) if self.tls_server_name.is_none() => Ok(None),
            (_, _, _) => Err("TLS needs tls_ca, tls_cert and tls_key"),
        }
    }

    fn read(&self) -> Result<DaemonConfig, String> {
        let address: Address = self
            .address
            .parse()
            .map_err(|invalid: InvalidAddress| invalid.to_string())?;
        let tls = self
            .tls()
            .map_err(|problem| format!("{address}: {problem}"))?;
        DaemonConfig::new(address, tls).map_err(|invalid| invalid.to_string())
    }
}

impl Buildkit {
    /// The daemons, in their order.
    ///
    /// # Errors
    /// [`ConfigError::Range`]: an address is none, or its TLS is not whole.
    pub fn daemons(&self) -> Result<Vec<DaemonConfig>, ConfigError> {
        let wrong = |problem| ConfigError::Range {
            setting: "buildkit.daemon",
            problem,
        };
        let daemons = self.daemon.iter().map(BuildkitDaemon::read);
        daemons.collect::<Result<_, _>>().map_err(wrong)
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let range = |setting, problem: &str| {
            Err(ConfigError::Range {
                setting,
                problem: problem.to_owned(),
            })
        };
        for (setting, value) in [
            ("buildkit.build_seconds_max", self.build_seconds_max),
            ("buildkit.probe_ms_max", self.probe_ms_max),
            ("buildkit.stop_ms_max", self.stop_ms_max),
        ] {
            if value == 0 {
                return range(setting, "must be at least 1");
            }
        }
        let daemons = self.daemons()?;
        let addresses: BTreeSet<&Address> = daemons.iter().map(DaemonConfig::address).collect();
        if addresses.is_empty() {
            return range("buildkit.daemon", "must name at least one daemon");
        }
        if addresses.len() < daemons.len() {
            // It would seem to have more room than it has.
            return range("buildkit.daemon", "names a daemon twice");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(daemons: &[BuildkitDaemon]) -> Buildkit {
        Buildkit {
            daemon: daemons.to_vec(),
            ..Buildkit::default()
        }
    }

    fn with_tls(address: &str) -> BuildkitDaemon {
        BuildkitDaemon {
            tls_ca: Some("/ca.pem".into()),
            tls_cert: Some("/cert.pem".into()),
            tls_key: Some("/key.pem".into()),
            ..BuildkitDaemon::at(address)
        }
    }

    #[test]
    fn daemons_are_read_in_their_order() {
        let named = BuildkitDaemon {
            tls_server_name: Some("builder".to_owned()),
            ..with_tls("tcp://10.0.0.7:1234")
        };
        let buildkit = at(&[BuildkitDaemon::at("unix:///run/b.sock"), named]);
        buildkit.check().unwrap();
        let daemons = buildkit.daemons().unwrap();
        let addresses: Vec<String> = daemons
            .iter()
            .map(|daemon| daemon.address().to_string())
            .collect();
        assert_eq!(addresses, ["unix:///run/b.sock", "tcp://10.0.0.7:1234"]);
        assert_eq!(daemons[0].tls(), None);
        let tls = daemons[1].tls().unwrap();
        assert_eq!(tls.key.to_str(), Some("/key.pem"));
        assert_eq!(tls.server_name.as_deref(), Some("builder"));
    }

    #[test]
    fn wrong_daemons_are_refused_with_their_setting() {
        let half = BuildkitDaemon {
            tls_key: None,
            ..with_tls("tcp://10.0.0.7:1234")
        };
        let nameless = BuildkitDaemon {
            tls_server_name: Some("builder".to_owned()),
            ..BuildkitDaemon::at("unix:///run/b.sock")
        };
        let twice = [
            BuildkitDaemon::at("unix:///a"),
            BuildkitDaemon::at("unix:///a"),
        ];
        for (daemons, problem) in [
            (&[][..], "must name at least one"),
            (&[BuildkitDaemon::at("/run/b.sock")], "/run/b.sock"),
            (&[half], "TLS needs tls_ca, tls_cert and tls_key"),
            (&[nameless], "TLS needs tls_ca, tls_cert and tls_key"),
            (&[with_tls("unix:///run/b.sock")], "no TLS"),
            (&[BuildkitDaemon::at("tcp://10.0.0.7:1234")], "needs TLS"),
            (&twice, "names a daemon twice"),
        ] {
            let error = at(daemons).check().unwrap_err().to_string();
            assert!(error.starts_with("buildkit.daemon: "), "{error}");
            assert!(error.contains(problem), "{problem}: {error}");
        }
    }
}
