//! Webhooks: what a receiver gets of real builds.

use std::net::TcpListener;

use tests::runner::Scenario;
use tests::service::Place;

const SCRIPT: &str = "webhooks.py";

/// It sends to loopback, soon again, and as often as is needed.
const SETTINGS: &str = "
[webhooks]
allowed_networks = [\"127.0.0.0/8\"]

[limits]
webhook_timeout_ms = 1000
webhook_backoff_ms_min = 50
webhook_backoff_ms_max = 500
webhook_attempt_count_max = 1000
";

/// Scenarios with a service of their own: one of them kills it.
pub(crate) fn own() -> Vec<Scenario<'static>> {
    vec![Scenario::new(
        "webhooks::everything_arrives_whatever_becomes_of_receiver_and_service",
        everything_arrives,
    )]
}

fn everything_arrives() {
    let mut place = Place::new();
    place.add_settings(SETTINGS);
    let port = free_port();
    let port = [("NULLSPACE_TEST_PORT", port.as_str())];
    let service = place.start();
    service.client(SCRIPT, "inner_addresses_are_refused");
    service.client_with(SCRIPT, "fails_hangs_and_recovers", &port);
    let known = service.client_with(SCRIPT, "out_of_order", &port);
    service.kill();
    let service = place.start();
    let known = [port[0], ("NULLSPACE_TEST_WEBHOOK", known.trim())];
    service.client_with(SCRIPT, "after_a_kill", &known);
    assert!(service.terminate().success());
}

/// A port of loopback that nobody has at the moment.
fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr();
    let address = address.expect("a bound socket has an address");
    address.port().to_string()
}
