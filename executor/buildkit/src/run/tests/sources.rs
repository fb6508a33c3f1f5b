//! Which URLs and repositories a build gets.

use super::*;
use crate::invocation::Network;
use crate::limits::BuildkitLimits;
use crate::testkit::{Bench, IsolatedDaemon};

/// Whether the policy denies `source`; if not, the daemon, which has no network, fails to fetch it.
async fn is_denied(bench: &Bench, source: &str, network: Network) -> bool {
    let mut invocation =
        bench.invocation(&format!("FROM scratch\nADD [\"{source}\", \"/added\"]\n"));
    invocation.network = network;
    let (outcome, _) = bench.build(invocation).await;
    let failure = failure(outcome);
    let denied = failure.kind == FailureKind::SourceDenied;
    // What is not denied is asked for: that is what fails then.
    assert_eq!(
        !denied,
        failure.message.contains("failed to load cache key"),
        "{failure:?}"
    );
    denied
}

const PUBLIC: [&str; 12] = [
    "http://example.com/file",
    "https://example.com/file?a=b#c",
    "https://EXAMPLE.com:8443/file",
    "https://user:password@example.com/file",
    "https://a-b.c_d.example.co.uk./file",
    "http://203.0.113.9/file",
    "http://172.32.0.1:80/file",
    "http://100.128.0.1/file",
    "http://192.169.0.1/file",
    "http://[2001:db8::1]:8080/file",
    "https://example.com/owner/repository.git#main",
    "https://internal.example.com/file",
];

const PRIVATE: [&str; 33] = [
    "http://localhost/file",
    "http://LOCALHOST:8080/file",
    "http://localhost./file",
    "http://a.localhost/file",
    "http://registry/file",
    "http://printer.local/file",
    "http://metadata.google.internal/file",
    "http://metadata.google.internal./file",
    "http://127.0.0.1/file",
    "http://127.0.0.1:5000/file",
    "http://127.1.2.3/file",
    "http://127.0.0.1/a\\nb",
    "http://user@127.0.0.1/file",
    "http://example.com@127.0.0.1/file",
    "http://127.1/file",
    "http://2130706433/file",
    "http://0x7f000001/file",
    "http://0x7f.0.0.1/file",
    "http://0177.0.0.1/file",
    "http://0.0.0.0/file",
    "http://10.0.0.1/file",
    "http://10.255.255.255/file",
    "http://100.64.0.1/file",
    "http://169.254.169.254/latest/meta-data",
    "http://172.16.0.1/file",
    "http://172.31.255.255/file",
    "http://192.168.1.1/file",
    "http://239.1.1.1/file",
    "http://[::1]/file",
    "http://[::ffff:127.0.0.1]/file",
    "http://[fd00::1]/file",
    "http://[fe80::1]/file",
    "http://localhost/owner/repository.git",
];

#[tokio::test]
async fn with_the_network_on_only_public_hosts_are_asked() {
    let daemon = IsolatedDaemon::start();
    let bench = Bench::at([daemon.address()], BuildkitLimits::default());
    for source in PUBLIC {
        assert!(
            !is_denied(&bench, source, Network::Default).await,
            "{source}"
        );
    }
    for source in PRIVATE {
        assert!(
            is_denied(&bench, source, Network::Default).await,
            "{source}"
        );
    }
}

#[tokio::test]
async fn with_the_network_off_nothing_is_asked() {
    let daemon = IsolatedDaemon::start();
    let bench = Bench::at([daemon.address()], BuildkitLimits::default());
    for source in PUBLIC.into_iter().chain(["http://127.0.0.1/file"]) {
        assert!(is_denied(&bench, source, Network::None).await, "{source}");
    }
}
