//! The service against its own description, with requests that schemathesis makes of it.

use tests::runner::Scenario;
use tests::service::{Place, scenarios};

const SCRIPT: &str = "openapi.py";

/// Scenarios with a service of its own: they ask for many builds, and delete what they find.
pub(crate) fn own() -> Vec<Scenario<'static>> {
    vec![Scenario::new(
        "openapi::the_service_answers_as_it_says",
        answers_as_it_says,
    )]
}

fn answers_as_it_says() {
    let mut place = Place::new();
    // What is beyond is refused, so the builds that are asked for stay few.
    place.add_settings("[limits]\nwaiting_build_count_max = 20\n");
    // Webhooks lead nowhere but to this machine.
    place.add_settings(
        "[webhooks]\nallowed_hosts = [\"127.0.0.1\"]\nallowed_networks = [\"127.0.0.0/8\"]\n",
    );
    let service = place.start();
    for scenario in scenarios(SCRIPT) {
        service.client(SCRIPT, &scenario);
    }
    assert!(service.terminate().success());
}
